"""Serving a trace with a team or a rule: records as promised, sound in every order."""

import heapq

import numpy as np
import pandas as pd
import pytest
from worlds import PlainState, contended, offer

from amarl_core.audit import audit
from amarl_core.baselines import baseline
from amarl_core.errors import AmarlError
from amarl_core.evaluation import evaluate, play_trace, route, time_trace
from amarl_core.routing import CAUSES
from amarl_core.runs import read_frame, write_frame
from amarl_core.store import Delta, ResourceStore

DECISIONS = {
    "request_id": "int64", "t_s": "float64", "hold_s": "float64", "service": "category", "agent": "category",
    "source": "category", "destination": "category", "demand_kbps": "int64", "accepted": "bool",
    "cause": "category", "latency_ms": "float64", "budget_ms": "float64", "hops": "int16", "links": None,
    "hosts": None, "attempts": "int8", "snapshot_version": "int64", "commit_version": "int64",
}  # fmt: skip
LEDGER = {"seq": "int64", "kind": "category", "request_id": "int64", "agent": "category", "t_s": "float64",
          "snapshot_version": "int64", "store_version": "int64", "resource": "category"}  # fmt: skip
VARIANTS = [("arrival", 3), ("arrival", 1), ("free", 3), ("free", 1)]


@pytest.mark.parametrize("order, attempts", VARIANTS)
def test_every_variant_passes_the_audit(toy, toy_day, toy_team, toy_agent, order, attempts):
    for run in (toy_team, toy_agent):
        played = play_trace(run, toy_day, order, attempts)
        report = audit(toy, played.decisions, played.ledger, toy_day, order)
        assert report.ok, report.summary()
        assert report.requests == len(toy_day)
        assert played.conflicts == (played.ledger["kind"] == "abort").sum()
        assert played.steps > len(toy_day) / 2
        assert played.clocked.wall_s > 0 and played.clocked.cpu_s > 0


def test_records_have_the_columns_and_types_that_are_promised(toy, toy_day, toy_team):
    for played in (play_trace(toy_team, toy_day), play_trace(baseline("priced"), toy_day, scenario=toy)):
        for frame, promised in ((played.decisions, DECISIONS), (played.ledger, LEDGER)):
            assert frame.columns.tolist() == list(promised)
            for column, dtype in promised.items():
                if dtype:
                    assert str(frame[column].dtype) == dtype, column


def test_decisions_repeat_the_trace_and_say_who_decided(toy, toy_day, toy_team, toy_agent):
    by_team, by_agent = evaluate(toy_team, toy_day), evaluate(toy_agent, toy_day)
    expected = toy_day.frame()
    for decisions in (by_team, by_agent):
        for column in ("request_id", "t_s", "hold_s", "demand_kbps"):
            assert decisions[column].equals(expected[column]), column
        for column in ("service", "source", "destination"):
            assert decisions[column].astype(str).equals(expected[column].astype(str)), column
    assert by_team["agent"].astype(str).equals(by_team["service"].astype(str))
    assert (by_agent["agent"] == "sarl").all()
    by_rule = play_trace(baseline("priced"), toy_day, scenario=toy).decisions
    assert (by_rule["agent"] == "priced").all()


def test_the_parts_of_a_decision_agree(toy, toy_day, toy_team):
    decisions = evaluate(toy_team, toy_day, attempts=1)
    accepted = decisions["accepted"]
    assert (accepted == (decisions["cause"] == "accepted")).all()
    assert (accepted == (decisions["commit_version"] > 0)).all()
    assert (decisions["commit_version"][~accepted] == -1).all()
    assert (decisions["latency_ms"][accepted] <= decisions["budget_ms"][accepted]).all()
    dead_end = decisions["cause"].astype(str).str.startswith(("dead_end", "hop_limit"))
    assert dead_end.any() and decisions["latency_ms"][dead_end].isna().all()
    assert decisions["hops"].tolist() == [len(links) for links in decisions["links"]]
    assert set(decisions["cause"].cat.categories) == set(CAUSES)
    bound = dict(zip(toy.service_ids, toy.latency_ms, strict=True))
    assert decisions["budget_ms"].tolist() == [bound[service] for service in decisions["service"]]


def test_records_survive_a_file(toy, toy_day, toy_team, tmp_path):
    played = play_trace(toy_team, toy_day, "free", 3)
    for name in ("decisions", "ledger"):
        write_frame(tmp_path / f"{name}.parquet", getattr(played, name))
    decisions, ledger = (read_frame(tmp_path / f"{name}.parquet") for name in ("decisions", "ledger"))
    assert audit(toy, decisions, ledger, toy_day, "free").ok
    for column in ("links", "hosts"):
        assert decisions[column].map(list).tolist() == played.decisions[column].map(list).tolist()
    pd.testing.assert_series_equal(decisions["latency_ms"], played.decisions["latency_ms"])


def test_evaluating_changes_nothing_in_the_run(toy_day, toy_agent):
    before = [array.copy() for array in toy_agent.nets]
    first, second = evaluate(toy_agent, toy_day), evaluate(toy_agent, toy_day)
    assert first.equals(second), "the most likely slot is taken, and the network starts empty"
    assert all(np.array_equal(a, b) for a, b in zip(before, toy_agent.nets, strict=True))


def test_sarl_s_three_variants_have_one_outcome(toy_day, toy_agent):
    outcomes = [play_trace(toy_agent, toy_day, *variant) for variant in VARIANTS]
    for played in outcomes[1:]:
        assert played.decisions.equals(outcomes[0].decisions)
        assert played.ledger.equals(outcomes[0].ledger)


def test_a_part_of_a_day_may_be_served(toy, toy_day, toy_team):
    part = toy_day[(toy_day.t_s > 30_000) & (toy_day.t_s < 40_000)]
    played = play_trace(toy_team, part)
    assert len(played.decisions) == len(part) > 50
    assert audit(toy, played.decisions, played.ledger, part).ok


def test_time_is_taken_without_records(toy_day, toy_team):
    clocked = time_trace(toy_team, toy_day, "arrival", 3)
    assert clocked.wall_s > 0 and clocked.cpu_s > 0


def test_a_trace_of_another_world_is_refused(toy, toy_agent):
    trace = offer(contended(), 10, 0)
    with pytest.raises(AmarlError, match="another world"):
        evaluate(toy_agent, trace)
    with pytest.raises(AmarlError, match="another world"):
        play_trace(baseline("priced"), trace, scenario=toy)


@pytest.mark.parametrize("wrong", [
    dict(attempts=0), dict(window=-1),
    dict(order="sideways"),
    dict(lag_s=float("nan")),
    dict(attempts=1.5),
], ids=str)  # fmt: skip
def test_a_wrong_option_is_refused_whoever_decides(toy, toy_day, toy_agent, wrong):
    trace = toy_day.head(5)
    with pytest.raises(AmarlError):
        play_trace(toy_agent, trace, **wrong)
    with pytest.raises(AmarlError):
        play_trace(baseline("fixed_shortest"), trace, scenario=toy, **wrong)


# ------------------------------------------------------------------------------------------------- one request
def commit_decision(store: ResourceStore, state: PlainState, row) -> None:
    """Commit what a decision took, by name."""
    links = {link: list(row.links).count(link) * int(row.demand_kbps) for link in row.links}
    nodes: dict[str, int] = {}
    for host, mcpu in zip(row.hosts, state.stage_mcpu(row), strict=True):
        nodes[host] = nodes.get(host, 0) + mcpu
    assert store.commit(row.request_id, Delta(links, nodes), store.version).accepted


def test_route_decides_as_the_whole_day_did(toy, toy_day, toy_agent):
    """Request by request on a store that is kept up to date by hand, from morning until the network is busy."""
    trace, store, state, leaving = toy_day.head(900), ResourceStore.of(toy), PlainState(toy), []
    decisions = evaluate(toy_agent, trace)
    same = ["accepted", "cause", "latency_ms", "links", "hosts", "hops", "service", "source", "destination"]
    for i, row in enumerate(decisions.itertuples()):
        while leaving and leaving[0][0] <= row.t_s:
            store.release(heapq.heappop(leaving)[1])
        alone = route(toy_agent, trace[i : i + 1], store.snapshot())
        for column in same:
            mine, yours = alone[column], getattr(row, column)
            if column in ("links", "hosts"):
                assert list(mine) == list(yours)
            else:
                assert mine == yours or mine != mine and yours != yours, column
        if row.accepted:
            commit_decision(store, state, row)
            heapq.heappush(leaving, (row.t_s + row.hold_s, row.request_id))
    assert not decisions["accepted"].all(), "also rejections were compared"


def test_route_changes_nothing_outside(toy, toy_day, toy_team):
    store = ResourceStore.of(toy)
    snapshot = store.snapshot()
    before = [array.copy() for array in toy_team.nets], snapshot.used_kbps.copy()
    decision = route(toy_team, toy_day[5:6], snapshot)
    assert decision["accepted"] and len(decision["links"]) > 0
    assert store.version == 0 and len(store.ledger()) == 0
    assert np.array_equal(snapshot.used_kbps, before[1])
    assert all(np.array_equal(a, b) for a, b in zip(before[0], toy_team.nets, strict=True))


def test_route_sees_the_load_of_the_snapshot(toy, toy_day, toy_team):
    store = ResourceStore.of(toy)
    full = dict(zip(store.link_ids, toy.network.capacity_kbps.tolist(), strict=True))
    store.commit(1, Delta(full), 0)
    decision = route(toy_team, toy_day[5:6], store.snapshot())
    assert not decision["accepted"] and decision["cause"] == "dead_end_bandwidth"


def test_route_refuses_what_it_cannot_route(toy, toy_day, toy_team):
    snapshot = ResourceStore.of(toy).snapshot()
    for n in (0, 2):
        with pytest.raises(AmarlError, match="one request"):
            route(toy_team, toy_day[:n], snapshot)
    with pytest.raises(AmarlError):
        route(toy_team, toy_day[:1], ResourceStore.of(contended()).snapshot())
    with pytest.raises(AmarlError, match="another world"):
        route(toy_team, offer(contended(), 1, 0), snapshot)
