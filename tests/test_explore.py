"""Pickers and sliders, driven without a browser: what is chosen is drawn, and nothing is ever trained."""

import re
import shutil

import numpy as np
import pytest
from fake_study import shared_study, write_study
from test_layout import imported_modules
from worlds import contended, offer

from amarl_core import catalogue, explore
from amarl_core.catalogue import list_recorded, served_day
from amarl_core.errors import RunError, ScenarioError
from amarl_core.explore import ALL_SERVICES, NOTHING, DayExplorer, HopStepper
from amarl_core.explore_plots import (
    compare_gos,
    day_maps,
    demand_by_area,
    demand_by_service,
    fullest_links,
    hosts_table,
    ledger_table,
    links_table,
    network_answer,
    offered_gbps,
    slack_figure,
    slack_ms,
)
from amarl_core.hop_view import route_by_hops
from amarl_core.map_symbols import tier_words
from amarl_core.maps import NetworkMap
from amarl_core.scenario import load_scenario
from amarl_core.store import Delta, ResourceStore
from amarl_core.utilisation import utilisation


@pytest.fixture(scope="module")
def montreal():
    return load_scenario("montreal")


@pytest.fixture
def explorer():
    return DayExplorer("montreal", study="fake", hour=16, root=shared_study().parent).wait()


def test_nothing_that_trains_can_be_reached_from_a_picker():
    reached, ahead = set(), {"explore", "catalogue", "hop_view", "utilisation"}
    while ahead:
        module = ahead.pop()
        reached.add(module)
        ahead |= imported_modules(module) - reached
    assert not reached & {"agents", "ppo_update", "policy", "teams", "steps", "study"}


def test_what_is_recorded_is_listed_and_unfinished_runs_are_not(tmp_path):
    write_study(tmp_path, seeds=(0, 1), n=300)
    root = tmp_path / "runs"
    (root / "fake" / "amarl" / "seed=1" / "status.json").write_text('{"status": "stopped", "error": null}')
    days = list_recorded(root)
    assert {(d.method, d.seed) for d in days if d.method in ("sarl", "amarl")} == {
        ("sarl", 0),
        ("sarl", 1),
        ("amarl", 0),
    }
    assert {"shortest_feasible", "priced"} <= {d.method for d in days}
    assert {d.day for d in days} == {"test-weekday", "test-weekday-2", "test-weekend"}
    assert all(d.path.is_file() and d.scenario == "montreal" for d in days)


def test_the_explorer_begins_with_the_study_and_offers_what_it_has(explorer):
    assert explorer.study.value == "fake" and explorer.study.options[-1] == NOTHING
    assert explorer.method.options[:2] == ("amarl", "sarl") and explorer.seed.options == (0, 1)
    assert explorer.day.options == ("test-weekday", "test-weekday-2", "test-weekend")
    assert explorer.service.options[0] == (ALL_SERVICES, "") and len(explorer.service.options) == 7
    assert "16:00 to 17:00, AMARL, seed 0, test-weekday (study fake)" in explorer.map.value


def test_moving_the_hour_redraws_that_hours_figures(explorer, montreal):
    used = utilisation(_decisions("amarl", 0), montreal)
    seen = set()
    for hour in (3, 16, 20):
        explorer.hour.value = hour
        e = int(np.argmax(used.link_mean[hour]))
        name = montreal.network.link_ids[e].replace(">", "&gt;")
        assert f"{hour}:00 to {hour + 1}:00" in explorer.map.value
        assert re.search(rf"<title>{name}: [^<]*, {100 * used.link_mean[hour, e]:.1f} % in use", explorer.map.value)
        assert explorer.list.value.index(name) < explorer.list.value.index("%</td>"), "the fullest link comes first"
        seen.add(explorer.map.value)
    explorer.measure.value = "peak"
    seen.add(explorer.map.value)
    assert len(seen) == 4


def _decisions(method, seed):
    return next(
        catalogue.read_day(d).decisions
        for d in list_recorded(shared_study().parent)
        if (d.method, d.seed, d.day) == (method, seed, "test-weekday")
    )


def test_choosing_method_seed_day_and_service_reads_their_records(explorer):
    maps = [explorer.map.value]
    for picker, value, shown in (
        (explorer.method, "sarl", "SARL, seed 0, test-weekday"),
        (explorer.seed, 1, "SARL, seed 1, test-weekday"),
        (explorer.day, "test-weekend", "SARL, seed 1, test-weekend"),
        (explorer.service, "video_streaming", "SARL, seed 1, test-weekend"),
        (explorer.method, "priced", "priced, seed 0, test-weekend"),
    ):
        picker.value = value
        explorer.wait()
        assert shown in explorer.map.value
        maps.append(explorer.map.value)
    assert len(set(maps)) == len(maps)
    assert explorer.seed.options == (0,), "a rule has one seed"
    assert explorer.service.value == "video_streaming", "what still exists stays chosen"


def test_a_scenario_without_a_run_shows_a_rule_and_says_what_to_do(explorer):
    explorer.scenario.value = "toy"
    explorer.wait()
    assert explorer.study.options == (NOTHING,)
    assert "make reproduce PROFILE=quick" in explorer.status.value
    assert "shortest feasible rule, test-weekday" in explorer.map.value and "AGG-W" in explorer.map.value
    explorer.scenario.value = "montreal"
    explorer.wait()
    assert "AMARL" in explorer.map.value


def test_a_record_that_cannot_be_read_is_said_and_the_map_stays(tmp_path):
    write_study(tmp_path, seeds=(0,), n=300)
    explorer = DayExplorer("montreal", root=tmp_path / "runs").wait()
    before = explorer.map.value
    (tmp_path / "runs" / "fake" / "sarl" / "seed=0" / "decisions_test-weekday.parquet").write_bytes(b"no parquet")
    explorer.method.value = "sarl"
    explorer.wait()
    assert "cannot be read as Parquet" in explorer.status.value and explorer.map.value == before


def test_the_latest_choice_wins(explorer, monkeypatch):
    """Of several choices in a row, those that wait are passed by and the last is drawn."""
    read = []
    monkeypatch.setattr(explore, "read_day", lambda day: read.append(day.day) or catalogue.read_day(day))
    with explorer._loading:
        explorer.day.value = "test-weekday-2"
        explorer.day.value = "test-weekend"
    explorer.wait()
    assert read == ["test-weekend"] and "test-weekend" in explorer.map.value


def test_the_stepper_shows_each_step_with_its_reasons():
    world = contended()
    view = route_by_hops(world, offer(world, 1, seed=3), ResourceStore.of(world).snapshot())
    stepper = HopStepper(view, NetworkMap(world))
    for number, hop in enumerate(view.hops, 1):
        stepper.step.value = number
        assert f"Step {number}: at {hop.node} after {hop.latency_ms:.2f} ms" in stepper.map.value
        for neighbour in hop.neighbours:
            assert neighbour.verdict == "stub" or neighbour.detail in stepper.table.value
    assert stepper.step.max == len(view.hops)


# ----------------------------------------------------------------------------------- a day for the page
def test_a_recorded_day_is_read_and_a_missing_study_is_a_rules_day(montreal, toy):
    folder = str(shared_study())
    assert served_day(montreal, folder, "sarl", 1, "test-weekend").label == "SARL, seed 1, test-weekend (study fake)"
    assert served_day(montreal, folder, "amarl", 0, "").label == "AMARL, seed 0, test-weekday (study fake)"
    fallback = served_day(toy, "no-such-study", "amarl", 0, "")
    assert fallback.label == "shortest feasible rule, test-weekday" and fallback.decisions["accepted"].any()


def test_a_rules_day_from_a_process_of_its_own_is_the_same(toy):
    later = catalogue.begin_rule_day("toy")
    assert later.result().decisions["accepted"].equals(catalogue.play_rule_day(toy).decisions["accepted"])
    with pytest.raises(ScenarioError, match="no-such"):
        catalogue.begin_rule_day("no-such").result()


def test_a_day_that_a_study_lacks_is_refused_with_what_it_has(montreal, toy):
    folder = str(shared_study())
    with pytest.raises(RunError, match=r"no day test-weekday of 'amarl' seed 7; it has amarl seed 0, amarl seed 1"):
        served_day(montreal, folder, "amarl", 7, "test-weekday")
    with pytest.raises(RunError, match="was made on montreal, not on 'toy'"):
        served_day(toy, folder, "amarl", 0, "")


def test_a_study_recorded_before_the_scenario_changed_says_so(tmp_path, montreal, caplog):
    folder = write_study(tmp_path, seeds=(0,), n=300)
    text = (folder / "study.json").read_text().replace('"scenario"', '"digest": "old", "scenario"')
    (folder / "study.json").write_text(text)
    served_day(montreal, str(folder), "amarl", 0, "")
    assert "before the scenario montreal was changed" in caplog.text
    assert "has been changed since" in DayExplorer("montreal", root=tmp_path / "runs").wait().status.value
    shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------ figures
def test_the_figures_state_what_the_scenario_holds(toy, toy_day):
    day = catalogue.play_rule_day(toy)
    used, chart = utilisation(day.decisions, toy), NetworkMap(toy)
    load = offered_gbps(toy).sum(axis=(0, 1))
    assert f"{load.max():.3g} Gb/s at {load.argmax()} h" in demand_by_service(toy).alt
    assert f"{load.min():.3g} to {load.max():.3g} Gb/s" in network_answer(toy, used, day.label).text
    busiest = toy.network.name[toy.traffic.area_node[offered_gbps(toy).sum(axis=0).max(axis=1).argmax()]]
    assert demand_by_area(toy).alt.startswith(busiest)
    first = links_table(used, toy, day.label).frame.iloc[0]
    assert fullest_links(used, toy, day.label).alt.startswith(f"{first['link']} is fullest")
    maps = day_maps(chart, used, day.label)
    assert len(maps.svgs) == 4 and "16 h: links" in maps.alt
    accepted = 100 * day.decisions["accepted"].mean()
    assert f"{accepted:.2f} %" in compare_gos({"amarl": day.decisions, "rule": day.decisions}, "a day").alt


def test_a_ledger_is_shown_in_lock_order_with_times_of_day(toy):
    store = ResourceStore.of(toy)
    link = store.link_ids[0]
    store.commit(1, Delta({link: 5}), 0, agent="a", t_s=8 * 3600 + 59 * 60 + 59.9)
    store.commit(2, Delta({link: 10**12}), 0, agent="b", t_s=9 * 3600.0)
    store.release(1, agent="a", t_s=9 * 3600 + 61.0)
    table = ledger_table(store.ledger(), "three events").frame
    assert table["event"].tolist() == ["commit", "abort", "release"]
    assert table["at"].tolist() == ["8:59:59", "9:00:00", "9:01:01"]
    assert table["no room on"].tolist() == ["", link, ""] and table["snapshot"].tolist() == ["0", "0", ""]


def test_hosts_are_those_of_the_placement(toy):
    table = hosts_table(toy).frame.set_index("function")
    for f, function in enumerate(toy.function_ids):
        said = table.loc[function, "hosted at"].split("; ")
        for tier in set(toy.network.tier):
            there = toy.network.tier_nodes(tier)
            hosts = [toy.network.node_ids[v] for v in there if toy.rate_mcpu_per_gbps[v, f] >= 0]
            everywhere = f"all {len(there)} {tier_words(tier, len(there))}"
            assert (everywhere in said) == (len(hosts) == len(there) > 0)
            assert not hosts or everywhere in said or ", ".join(hosts) in said


def test_slack_is_the_bound_minus_the_least_idle_latency(toy):
    """Against walking a request of each service on the idle network, one destination after the other."""
    slack = slack_ms(toy)
    trace = toy.training_trace(seed=1)
    traffic = toy.traffic
    for s in range(len(toy.service_ids)):
        for a, node in enumerate(traffic.area_node):
            mean = sum(
                traffic.destination[s, a, d] * toy.delay_to_go[s, 0, d, node]
                for d in np.flatnonzero(traffic.destination[s, a])
            )
            assert slack[s, a] == pytest.approx(toy.latency_ms[s] - mean)
    i = int(np.flatnonzero(trace.service == 0)[0])
    view = route_by_hops(toy, trace[i : i + 1], ResourceStore.of(toy).snapshot())
    area = int(np.flatnonzero(traffic.area_node == trace.source[i])[0])
    assert view.latency_ms >= toy.delay_to_go[0, 0, trace.destination[i], trace.source[i]] - 1e-9
    assert slack[0, area] > 0
    assert "leaves least room" in slack_figure(toy).alt
