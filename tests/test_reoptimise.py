"""Flows moved to make room: what happens, what is recorded, and that the audit sees what is wrong."""

import numpy as np
import pandas as pd
import pytest
from worlds import PlainState, contended, make_network, make_trace, make_world, offer

from amarl_core.audit import audit
from amarl_core.baselines import baseline
from amarl_core.errors import AuditError
from amarl_core.evaluation import play_trace


def two_pools(loose_ms: float = 50.0, near_mcpu: int = 100):
    """S - A: the near pool P is a step away, the far pool Q five milliseconds; tight requests reach only P."""
    network = make_network(
        {"S": ("du", 0, False), "A": ("agg", 0, True), "P": ("cu", near_mcpu, True), "Q": ("core", 1000, True)},
        {"S-A": (10**6, 1.0), "A-P": (10**6, 0.1), "A-Q": (10**6, 5.0)},
    )
    return make_world(
        network, {"F": 0.1}, {"tight": (("F",), 4.0), "loose": (("F",), loose_ms)}, {("P", "F"): 1000, ("Q", "F"): 1000}
    )  # fmt: skip


def requests(world, *rows):
    """Return a trace of (t_s, service, demand_kbps, hold_s) from S to A; 1,000 kbps need one millicore."""
    return make_trace(world, [(t_s, service, "S", "A", demand, hold_s) for t_s, service, demand, hold_s in rows])


def serve(world, trace, moves: int = 4):
    return play_trace(baseline("reoptimise", base="shortest_feasible", moves=moves), trace, scenario=world)


def test_a_flow_that_can_go_elsewhere_makes_room_for_one_that_cannot():
    """80 mcpu at the near pool: the loose flow of 60 stands in the way of a tight one of 50."""
    world = two_pools()
    trace = requests(world, (0.0, "loose", 60_000, 100.0), (10.0, "tight", 50_000, 20.0))
    played = serve(world, trace)
    loose, tight = played.decisions.itertuples()
    assert loose.accepted and tight.accepted
    assert (list(loose.hosts), list(tight.hosts)) == (["Q"], ["P"])
    (move,) = played.moves.itertuples()
    assert (move.request_id, move.made_for, move.t_s, list(move.hosts)) == (100, 101, 10.0, ["P"])
    assert list(move.links) == ["S>A", "A>P", "P>A"] and move.latency_ms == pytest.approx(1.3)
    assert loose.latency_ms == pytest.approx(11.1)
    assert list(played.ledger["kind"].astype(str)) == ["commit", "release", "commit", "commit", "release", "release"]
    assert list(played.ledger["t_s"]) == [0.0, 10.0, 10.0, 10.0, 30.0, 100.0]
    audit(world, played.decisions, played.ledger, trace, moves=played.moves).raise_if_violated()


def test_the_base_rule_alone_turns_that_request_away():
    world = two_pools()
    trace = requests(world, (0.0, "loose", 60_000, 100.0), (10.0, "tight", 50_000, 20.0))
    played = play_trace(baseline("shortest_feasible"), trace, scenario=world)
    assert list(played.decisions["accepted"]) == [True, False] and played.moves is None


def test_a_flow_is_not_moved_beyond_its_latency_bound():
    """The way over the far pool takes 11.1 ms."""
    trace = [(0.0, "loose", 60_000, 100.0), (10.0, "tight", 50_000, 20.0)]
    for bound, accepted in ((11.2, True), (11.0, False)):
        world = two_pools(loose_ms=bound)
        played = serve(world, requests(world, *trace))
        assert list(played.decisions["accepted"]) == [True, accepted]
        assert len(played.moves) == accepted


@pytest.mark.parametrize(("bound_ms", "accepted"), [(16.5, False), (16.7, True)])
def test_the_request_too_must_be_in_time_after_the_moves(bound_ms, accepted):
    """E runs only at P, where a loose flow is in the way; that can only go to Q, which slows G down to 5.32 ms."""
    network = make_network(
        {"S": ("du", 0, False), "A": ("agg", 0, True), "P": ("cu", 100, True), "Q": ("core", 1000, True)},
        {"S-A": (10**6, 1.0), "A-P": (10**6, 0.1), "A-Q": (10**6, 5.0)},
    )
    hosts = {("P", "E"): 1000, ("P", "F"): 1000, ("Q", "F"): 1000, ("Q", "G"): 1}
    services = {"tight": (("E", "G"), bound_ms), "loose": (("F",), 50.0)}
    world = make_world(network, {"E": 0.1, "F": 0.1, "G": 5.0}, services, hosts)
    trace = requests(world, (0.0, "loose", 60_000, 100.0), (10.0, "tight", 50_000, 20.0))
    played = serve(world, trace)
    assert list(played.decisions["accepted"]) == [True, accepted] and len(played.moves) == accepted
    audit(world, played.decisions, played.ledger, trace, moves=played.moves).raise_if_violated()


@pytest.mark.parametrize(("moves", "accepted"), [(1, False), (2, True)])
def test_room_is_made_by_at_most_so_many_moves_or_not_at_all(moves, accepted):
    """Two flows of 40 of 80 mcpu must both go for a third of 70."""
    world = two_pools()
    trace = requests(world, *[(float(t), "loose", 40_000, 100.0) for t in (0, 1)], (10.0, "tight", 70_000, 20.0))
    played = serve(world, trace, moves)
    assert list(played.decisions["accepted"]) == [True, True, accepted]
    assert len(played.moves) == (2 if accepted else 0)
    assert all(list(hosts) == ["Q" if accepted else "P"] for hosts in played.decisions["hosts"][:2])
    audit(world, played.decisions, played.ledger, trace, moves=played.moves).raise_if_violated()


def test_a_flow_may_move_more_than_once_and_requests_may_arrive_together():
    """The loose flow of 60 is moved away at 10 s; at 40 s two tight ones arrive at once and move two others."""
    world = two_pools()
    rows = [(0.0, "loose", 60_000, 500.0), (10.0, "tight", 50_000, 20.0)]
    rows += [(31.0, "loose", 40_000, 400.0), (32.0, "loose", 40_000, 400.0)]
    rows += [(40.0, "tight", 40_000, 20.0), (40.0, "tight", 40_000, 20.0)]
    trace = requests(world, *rows)
    played = serve(world, trace)
    assert played.decisions["accepted"].all() and len(played.moves) == 3
    audit(world, played.decisions, played.ledger, trace, moves=played.moves).raise_if_violated()


@pytest.fixture(scope="module")
def crowded():
    """A world of contention, a trace, and what re-optimisation makes of it: many moves, some flows moved twice."""
    world = contended()
    trace = offer(world, 1500, 3, gap_s=0.7, hold_s=60.0)
    return world, trace, serve(world, trace, 8)


def test_a_crowded_run_with_many_moves_passes_the_audit(crowded):
    world, trace, played = crowded
    report = audit(world, played.decisions, played.ledger, trace, moves=played.moves)
    assert report.ok, report.summary()
    assert report.requests == len(trace) and report.admissions == played.decisions["accepted"].sum()
    assert report.overbooked == 0 and report.peak <= 1.0
    assert len(played.moves) > 100
    assert played.moves["request_id"].value_counts().max() > 1, "a flow that moves twice is part of the claim"
    assert 1 < played.moves["made_for"].value_counts().max() <= 8


def test_at_every_instant_each_link_and_pool_is_within_its_limit(crowded):
    """The ledger replayed in dictionaries, each flow on the route it has at that row."""
    world, _, played = crowded
    routes = {row.request_id: [row] for row in played.decisions.itertuples()}
    for move in reversed(list(played.moves.itertuples())):
        final = routes[move.request_id][-1]
        routes[move.request_id].insert(0, final._replace(links=move.links, hosts=move.hosts))
    state, holding = PlainState(world), {}
    limit = dict(zip(world.network.link_ids, world.network.capacity_kbps.tolist(), strict=True))
    budget = dict(zip(world.network.node_ids, world.budget_mcpu.tolist(), strict=True))
    for event in played.ledger.itertuples():
        if event.kind == "commit":
            holding[event.request_id] = routes[event.request_id].pop(0)
            state._change(holding[event.request_id], +1)
        else:
            state._change(holding.pop(event.request_id), -1)
        assert all(used <= limit[link] for link, used in state.kbps.items())
        assert all(used <= budget[node] for node, used in state.mcpu.items())
    assert not holding and not any(state.kbps.values()) and not any(state.mcpu.values())


def test_a_run_with_moves_does_not_pass_without_its_table(crowded):
    world, trace, played = crowded
    assert {"commit", "release"} <= set(audit(world, played.decisions, played.ledger, trace).count)


def changed(moves: pd.DataFrame, j: int, **values) -> pd.DataFrame:
    """Return a copy with other values in row j."""
    copy = moves.astype({"links": object, "hosts": object}).copy()
    for name, value in values.items():
        copy.at[j, name] = value
    return copy


@pytest.mark.parametrize(
    ("rules", "corrupt"),
    [
        ({"move"}, lambda m, d, j: changed(m, j, t_s=m.at[j, "t_s"] + 0.5)),
        ({"move"}, lambda m, d, j: changed(m, j, request_id=10**6)),
        ({"move"}, lambda m, d, j: changed(m, j, made_for=m.at[j, "request_id"])),
        ({"move"}, lambda m, d, j: changed(m, j, made_for=int(d.loc[~d["accepted"], "request_id"].iloc[0]))),
        ({"move"}, lambda m, d, j: changed(m, j, links=["nowhere"])),
        ({"route"}, lambda m, d, j: changed(m, j, links=list(m.at[j, "links"])[:-1])),
        ({"chain"}, lambda m, d, j: changed(m, j, hosts=list(m.at[j, "hosts"])[:-1])),
        ({"latency"}, lambda m, d, j: changed(m, j, latency_ms=m.at[j, "latency_ms"] + 0.01)),
        ({"commit"}, lambda m, d, j: changed(m, j, commit_version=m.at[j, "commit_version"] + 1)),
        ({"commit"}, lambda m, d, j: changed(m, j, snapshot_version=m.at[j, "snapshot_version"] - 1)),
        ({"commit", "release"}, lambda m, d, j: m.drop(index=j)),
        ({"uncommitted"}, lambda m, d, j: pd.concat([m, m.iloc[[j]]])),
    ],
)
def test_a_corrupted_move_is_found(crowded, rules, corrupt):
    world, trace, played = crowded
    for j in (0, len(played.moves) // 2):
        moves = corrupt(played.moves, played.decisions, j)
        report = audit(world, played.decisions, played.ledger, trace, moves=moves)
        assert rules & set(report.count), report.summary()


def test_a_former_route_over_a_full_pool_is_found():
    """The record of the move claims that the loose flow was at the near pool while a tight one filled it."""
    world = two_pools()
    rows = [(0.0, "tight", 50_000, 500.0), (5.0, "loose", 60_000, 100.0), (10.0, "tight", 30_000, 20.0)]
    played = serve(world, requests(world, *rows))
    assert len(played.moves) == 0 and played.decisions["accepted"].all()
    loose = played.decisions.iloc[1]
    moves = pd.DataFrame([dict(request_id=101, t_s=10.0, made_for=102, latency_ms=1.3, links=["S>A", "A>P", "P>A"],
                               hosts=["P"], snapshot_version=loose.snapshot_version,
                               commit_version=loose.commit_version)])  # fmt: skip
    count = audit(world, played.decisions, played.ledger, moves=moves).count
    assert {"node_budget", "overbooked"} <= set(count), count


def test_a_table_of_moves_without_a_column_is_refused(crowded):
    world, trace, played = crowded
    with pytest.raises(AuditError, match="moves has no column \\['hosts'\\]"):
        audit(world, played.decisions, played.ledger, trace, moves=played.moves.drop(columns="hosts"))


def test_an_empty_table_of_moves_changes_nothing(toy, toy_day):
    played = play_trace(baseline("reservation"), toy_day, scenario=toy)
    none = pd.DataFrame({"request_id": np.zeros(0, np.int64)})
    assert audit(toy, played.decisions, played.ledger, toy_day, moves=none).ok
