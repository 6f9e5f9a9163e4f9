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
from amarl_core.windows import window_bounds


def serve(world, trace, window_s: float, **settings):
    rule = baseline("milp_lookahead", base="shortest_feasible", window_s=window_s, **settings)
    played = play_trace(rule, trace, scenario=world)
    audit(world, played.decisions, played.ledger, trace).raise_if_violated()
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


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(10, 90), st.sampled_from([1.5, 4.0, 50.0])), min_size=1,
             max_size=6),
    st.integers(60, 120),
    st.integers(40, 100),
)  # fmt: skip
def test_a_window_accepts_as_many_as_any_choice_could(rows, first_kbps, second_kbps):
    """Departures within the window count: some requests hold for less than the window lasts."""
    rows = sorted((float(t), demand, hold) for t, demand, hold in rows)
    world = two_ways(first_kbps, second_kbps)
    accepted = serve(world, requests(world, rows), 10.0)["accepted"].sum()
    assert accepted == most_accepted(rows, (first_kbps, second_kbps))


def test_flows_of_earlier_windows_keep_their_routes_and_leave_room_when_they_end():
    world = two_ways(100, 1)
    trace = requests(world, [(0.0, 100, 15.0), (11.0, 60, 5.0), (16.0, 60, 5.0)])
    assert list(serve(world, trace, 10.0)["accepted"]) == [True, False, True]


@pytest.mark.parametrize("name", SLOW_RULES)
def test_a_slow_rule_is_audited_and_deterministic(name):
    world = contended()
    trace = offer(world, 150, 3, gap_s=0.7, hold_s=60.0)
    played = play_trace(baseline(name), trace, scenario=world)
    report = audit(world, played.decisions, played.ledger, trace)
    assert report.ok, report.summary()
    assert 0 < report.admissions < report.requests
    assert played.decisions.equals(play_trace(baseline(name), trace, scenario=world).decisions)


def test_windows_cover_all_requests_once():
    t_s = np.array([0.0, 9.9, 10.0, 35.0, 35.0, 39.0])
    assert window_bounds(t_s, 10.0) == [(0, 2), (2, 3), (3, 6)]
    assert window_bounds(t_s[:0], 10.0) == []
