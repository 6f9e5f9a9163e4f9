"""Windows of requests decided together: as many accepted as brute force finds, and capacity at every instant."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import contended, make_network, make_trace, make_world, offer

from amarl_core.audit import audit
from amarl_core.baselines import SLOW_RULES, baseline
from amarl_core.evaluation import play_trace
from amarl_core.windows import batch_bounds, held, window_bounds


def serve(world, trace, window_s: float, name: str = "milp_lookahead"):
    rule = baseline(name, base="shortest_feasible", window_s=window_s)
    played = play_trace(rule, trace, scenario=world)
    audit(world, played.decisions, played.ledger, held(trace, rule.waits_s)).raise_if_violated()
    return played.decisions


def two_ways(first_kbps: int, second_kbps: int):
    """S to T over B or over C; the pool at T has room for all."""
    network = make_network(
        {"S": ("agg", 0, True), "B": ("agg", 0, True), "C": ("agg", 0, True), "T": ("agg", 0, True),
         "P": ("core", 10**9, True)},
        {"S-B": (10**9, 1.0), "B-T": (first_kbps, 1.0), "S-C": (10**9, 1.5), "C-T": (second_kbps, 1.0),
         "T-P": (10**9, 0.1)},
        both_ways=False,
    )  # fmt: skip
    return make_world(network, {"F": 0.1}, {"v": (("F",), 50.0)}, {("P", "F"): 1})


def requests(world, rows):
    return make_trace(world, [(t_s, "v", "S", "P", demand, hold_s) for t_s, demand, hold_s in rows])


def test_a_large_request_gives_way_to_two_small_ones_of_the_same_window():
    world = two_ways(100, 1)
    trace = requests(world, [(0.0, 80, 50.0), (1.0, 50, 50.0), (2.0, 50, 50.0)])
    assert list(serve(world, trace, 10.0)["accepted"]) == [False, True, True]
    assert list(serve(world, trace, 0.5)["accepted"]) == [True, False, False], "the future beyond a window is unknown"


def test_a_window_that_the_base_rule_can_serve_is_left_to_it(toy, toy_day):
    quiet = toy_day[:200]
    alone = play_trace(baseline("shortest_feasible"), quiet, scenario=toy).decisions
    assert alone["accepted"].all()
    assert serve(toy, quiet, 60.0)["links"].equals(alone["links"])


def most_accepted(rows, capacities) -> int:
    """Return the largest number of requests that fit, each on one of the ways, by trying all."""
    best = 0
    for choice in itertools.product((None, *range(len(capacities))), repeat=len(rows)):
        n = sum(way is not None for way in choice)
        if n <= best:
            continue
        fits = all(
            sum(demand for (t_s, demand, hold_s), way in zip(rows, choice, strict=True)
                if way == on and t_s <= now < t_s + hold_s) <= capacity
            for now, *_ in rows
            for on, capacity in enumerate(capacities)
        )  # fmt: skip
        best = n if fits else best
    return best


@pytest.mark.parametrize("name", ["milp_lookahead", "milp_batch"])
@settings(max_examples=20)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(10, 90), st.sampled_from([1.5, 4.0, 50.0])), min_size=1,
             max_size=6),
    st.integers(60, 120),
    st.integers(40, 100),
)  # fmt: skip
def test_a_window_accepts_as_many_as_any_choice_could(name, rows, first_kbps, second_kbps):
    """Seen ahead, departures within the window count: some requests hold for less than it lasts. Held, all overlap."""
    rows = sorted((float(t), demand, hold) for t, demand, hold in rows)
    world = two_ways(first_kbps, second_kbps)
    accepted = serve(world, requests(world, rows), 10.0, name)["accepted"].sum()
    met = [(10.0, demand, hold) for _, demand, hold in rows] if name == "milp_batch" else rows
    assert accepted == most_accepted(met, (first_kbps, second_kbps))


def test_flows_of_earlier_windows_keep_their_routes_and_leave_room_when_they_end():
    world = two_ways(100, 1)
    trace = requests(world, [(0.0, 100, 15.0), (11.0, 60, 5.0), (16.0, 60, 5.0)])
    assert list(serve(world, trace, 10.0)["accepted"]) == [True, False, True]


def test_requests_that_wait_are_decided_together_at_the_end_of_their_window():
    world = two_ways(100, 1)
    trace = requests(world, [(0.0, 80, 50.0), (1.0, 50, 50.0), (2.0, 50, 50.0)])
    decisions = serve(world, trace, 10.0, "milp_batch")
    assert list(decisions["accepted"]) == [False, True, True]
    assert list(decisions["t_s"]) == [10.0, 10.0, 10.0]
    assert list(serve(world, trace, 0.5, "milp_batch")["accepted"]) == [True, False, False]


def test_a_request_that_waited_holds_from_its_admission_on():
    """Admitted at 10 s for 15 s: in the way at 20 s, gone at 30 s."""
    world = two_ways(100, 1)
    trace = requests(world, [(0.0, 100, 15.0), (12.0, 60, 2.0), (24.0, 60, 5.0)])
    decisions = serve(world, trace, 10.0, "milp_batch")
    assert list(decisions["accepted"]) == [True, False, True]
    assert list(decisions["t_s"]) == [10.0, 20.0, 30.0]


def foresight(name: str, window_s: float) -> int:
    """How many decisions change when all that arrives after their own time is taken away, of a contended trace."""
    world = contended()
    trace = offer(world, 150, 3, gap_s=0.7, hold_s=60.0)
    whole, n_changed = serve(world, trace, window_s, name), 0
    for n in range(10, 150, 10):
        cut = serve(world, trace.head(n), window_s, name)
        decided = (cut["t_s"] <= trace.t_s[n - 1]).to_numpy()
        n_changed += int((cut["links"].astype(str) != whole["links"].head(n).astype(str))[decided].sum())
    return n_changed


def test_the_rule_that_waits_knows_nothing_ahead():
    assert foresight("milp_batch", 10.0) == 0
    assert foresight("milp_lookahead", 10.0) > 0, "the contrast"


@settings(max_examples=50)
@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=30), st.sampled_from([0.3, 1.0, 5.0, 7.1]))
def test_a_held_request_waits_for_at_most_a_window_and_keeps_its_place(milliseconds, window_s):
    world = two_ways(100, 1)
    trace = requests(world, [(ms / 1000, 50, 1.5) for ms in sorted(milliseconds)])
    late = held(trace, window_s)
    assert (late.t_s > trace.t_s).all() and (late.t_s - trace.t_s <= window_s * (1 + 1e-9)).all()
    assert np.allclose(late.t_s / window_s, np.round(late.t_s / window_s), atol=1e-9)
    assert (np.diff(late.t_s) >= 0).all()
    assert (late.request_id == trace.request_id).all() and (late.hold_s == trace.hold_s).all()
    batches = batch_bounds(late.t_s)
    assert len(batches) == len(set(late.t_s))
    assert all(len(set(late.t_s[first:last])) == 1 for first, last in batches)


def test_without_a_window_nobody_waits(toy_day):
    assert held(toy_day, baseline("reservation").waits_s) is toy_day


@pytest.mark.parametrize("name", ("milp_batch", *SLOW_RULES))
def test_a_rule_of_windows_is_audited_and_deterministic(name):
    world = contended()
    trace = offer(world, 150, 3, gap_s=0.7, hold_s=60.0)
    played = play_trace(baseline(name), trace, scenario=world)
    report = audit(world, played.decisions, played.ledger, held(trace, baseline(name).waits_s))
    assert report.ok, report.summary()
    assert 0 < report.admissions < report.requests
    assert played.decisions.equals(play_trace(baseline(name), trace, scenario=world).decisions)


def test_windows_cover_all_requests_once():
    t_s = np.array([0.0, 9.9, 10.0, 35.0, 35.0, 39.0])
    assert window_bounds(t_s, 10.0) == [(0, 2), (2, 3), (3, 6)]
    assert window_bounds(t_s[:0], 10.0) == []
