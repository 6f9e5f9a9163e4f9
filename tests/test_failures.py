"""Failures as data: read, checked, and located on a network."""

import numpy as np
import pytest
from worlds import make_network

from amarl_core.baselines import tuned
from amarl_core.errors import ScenarioError
from amarl_core.evaluation import play_trace
from amarl_core.failures import FAILURES_FILE, REFERENCE, Failure, locate, most_used_links, read_failures
from amarl_core.utilisation import HOUR_S, utilisation


@pytest.fixture(scope="module")
def served(toy, toy_day):
    return play_trace(tuned(REFERENCE), toy_day, scenario=toy).decisions


def test_the_file_of_the_study_has_one_to_three_links_and_a_site():
    failures = read_failures()
    assert [failure.most_used_links for failure in failures.values()] == [1, 2, 3, 0]
    assert failures["edge_site"].most_used_sites == 1 and FAILURES_FILE.is_file()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a]\nlinkz = 1", "linkz"),
        ("[a]\nmost_used_links = -1", "from 0"),
        ("[a]\nmost_used_links = true", "from 0"),
        ("[a]\nmost_used_links = 1\nat = 24", "hour"),
        ("[a]\nmost_used_links = 1\nminutes = 0", "over 0"),
        ("[a]\nlinks = 'x'", "list of ids"),
        ("[a]\ntitle = 'nothing fails'", "links or sites"),
        ("a = 1", "a table"),
        ("[a", "not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_what_was_expected(tmp_path, text, said):
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ScenarioError, match=said):
        read_failures(tmp_path / "mine.toml")


def test_a_missing_file_is_an_error_of_ours(tmp_path):
    with pytest.raises(ScenarioError, match="no such file"):
        read_failures(tmp_path / "none.toml")


def test_a_failed_link_is_gone_both_ways_in_the_busiest_hour(toy, served):
    outage = locate(read_failures()["one_link"], toy, served)
    network, (e, back) = toy.network, outage.resources
    assert (network.source[e], network.target[e]) == (network.target[back], network.source[back])
    used = utilisation(served, toy)
    assert outage.starts_s == used.busiest_hour * HOUR_S and outage.ends_s == outage.starts_s + 3600
    before = used.link_mean[used.busiest_hour - 1]
    others = [i for i in range(network.n_links) if i not in outage.resources and i < 22]  # the last two cut off DC
    hanging = [network.node_index[node] for node in ("CU-W", "CU-E", "DC")]
    others = [i for i in others if network.source[i] not in hanging and network.target[i] not in hanging]
    assert max(before[outage.resources]) >= max(before[others])


def test_a_failed_site_takes_all_its_links_with_it(toy, served):
    outage = locate(read_failures()["edge_site"], toy, served)
    names = np.array([*toy.network.link_ids, *toy.network.node_ids])[outage.resources].tolist()
    site = names[-1]
    assert site in ("CU-W", "CU-E")
    assert set(names[:-1]) == {link for link in toy.network.link_ids if site in link.split(">")}


def test_links_and_sites_may_be_named(toy, served):
    outage = locate(Failure("x", "x", 9.5, 10, links=("AGG-W>COR",), sites=("DC",)), toy, served)
    names = np.array([*toy.network.link_ids, *toy.network.node_ids])[outage.resources].tolist()
    assert names == ["AGG-W>COR", "COR>DC", "DC>COR", "DC"]
    assert (outage.starts_s, outage.ends_s) == (9.5 * HOUR_S, 9.5 * HOUR_S + 600)


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (Failure("x", "x", links=("nowhere",)), "nowhere"),
        (Failure("x", "x", sites=("nowhere",)), "nowhere"),
        (Failure("x", "x", most_used_links=99), "not so many"),
        (Failure("x", "x", most_used_sites=1, tier="moon"), "not so many"),
    ],
)
def test_what_is_not_in_the_network_cannot_fail(toy, served, failure, said):
    with pytest.raises(ScenarioError, match=said):
        locate(failure, toy, served)


def test_a_link_without_which_a_site_is_cut_off_does_not_fail_alone():
    network = make_network(
        {name: ("agg", 0, True) for name in "ABCD"},
        {"A-B": (1, 1.0), "B-C": (1, 1.0), "C-A": (1, 1.0), "C-D": (1, 1.0)},
    )
    use = np.array([0.1, 0.2, 0.3, 0.1, 0.2, 0.2, 0.9, 0.9])  # C-D is fullest
    assert most_used_links(network, use, 1) == [2, 3]
    assert most_used_links(network, use, 2) == [2, 3], "without a second link of the triangle it falls apart"
