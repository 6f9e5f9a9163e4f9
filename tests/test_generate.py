"""Generated regions obey the structural rules of Montreal at every size and seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amarl_core.errors import ScenarioError
from amarl_core.generate import LEAST_NODES, MOST_NODES, generate, main, sizes
from amarl_core.scenario import load_scenario


def neighbours(network, node: int) -> set[int]:
    return set(network.target[network.source == node].tolist())


@settings(max_examples=12, deadline=None)
@given(n=st.integers(LEAST_NODES, 130), seed=st.integers(0, 10**6))
def test_pools_are_leaves_and_access_sites_are_stubs_with_two_homes(tmp_path_factory, n, seed):
    scenario = generate(n, seed, tmp_path_factory.mktemp("region") / "r", requests_per_day=2000)
    network = scenario.network
    tier = np.array(network.tier)
    assert network.n_nodes == n
    assert set(tier) == {"du", "agg", "cu", "core", "dc"}
    for node in range(n):
        around = neighbours(network, node)
        if tier[node] in ("cu", "dc"):
            assert {tier[v] for v in around} == {"agg" if tier[node] == "cu" else "core"} and len(around) == 1
        elif tier[node] == "du":
            assert len(around) == 2 and {tier[v] for v in around} == {"agg"}
        elif tier[node] == "agg":
            assert sum(tier[v] == "cu" for v in around) == sum(tier[v] == "core" for v in around) == 1
            assert sum(tier[v] == "agg" for v in around) == 2
    np.testing.assert_array_equal(network.transit, tier != "du")
    np.testing.assert_array_equal(scenario.budget_mcpu > 0, np.isin(tier, ["du", "cu", "dc"]))
    back = set(zip(network.target.tolist(), network.source.tolist(), strict=True))
    assert back == set(zip(network.source.tolist(), network.target.tolist(), strict=True))


@given(n=st.integers(LEAST_NODES, MOST_NODES))
def test_sizes_add_up_and_leave_room_for_access(n):
    rings, cores, sites, dus = sizes(n)
    assert 2 * cores + 2 * sites + dus == n
    assert sites >= 3 * rings and cores >= max(2, rings) and dus >= sites


def test_a_region_of_montreals_size_has_montreals_parts():
    montreal = load_scenario("montreal").network
    assert sizes(montreal.n_nodes)[1:] == (2, 6, 33)


def test_a_seed_gives_the_same_world_and_another_seed_another(tmp_path):
    made = [generate(40, seed, tmp_path / f"{i}" / "r", requests_per_day=3000) for i, seed in enumerate((5, 5, 6))]
    assert made[0].digest == made[1].digest != made[2].digest
    assert made[0].test_day_sha256 == made[1].test_day_sha256
    assert load_scenario(tmp_path / "0" / "r").digest == made[0].settings.frozen_digest == made[0].digest


def test_the_day_has_as_many_requests_as_were_asked_for(tmp_path):
    scenario = generate(30, 1, tmp_path / "r", requests_per_day=9000)
    assert abs(len(scenario.test_trace("test-weekday")) - 9000) < 5 * 95


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (dict(n_nodes=12), "n_nodes"),
        (dict(n_nodes=MOST_NODES + 1), "1,500"),
        (dict(seed=-1), "seed"),
        (dict(requests_per_day=10**8), "requests_per_day"),
    ],
)
def test_what_is_out_of_range_is_refused(tmp_path, wrong, words):
    with pytest.raises(ScenarioError, match=words):
        generate(**{"n_nodes": 40, "seed": 0, "folder": tmp_path / "r"} | wrong)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_once_and_replaces_only_when_told(tmp_path, caplog):
    command = [str(tmp_path / "r"), "--nodes", "25", "--requests", "500"]
    assert main(command) == 0
    assert main(command) == 1 and "overwrite=True" in caplog.text
    assert main([*command, "--overwrite"]) == 0
