"""The upper bound against enumeration, scipy's solvers and the rules, on small worlds."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, linprog, milp
from scipy.sparse import csr_array, random_array, vstack
from worlds import contended, make_network, make_trace, make_world, offer, random_world

from amarl_core import bound_interior
from amarl_core.baselines import RULES as ALL_RULES
from amarl_core.baselines import baseline, tuned
from amarl_core.bound_interior import solve_packing
from amarl_core.bound_program import make_program
from amarl_core.bounds import bound, day_bound
from amarl_core.errors import AmarlError
from amarl_core.evaluation import play_trace

WORLDS = st.integers(0, 10**6)
FEW = settings(max_examples=12)
CLOSE = 2e-4


class Enumerated:
    """Every route of every request of a trace, by trying all, and the programs over them.

    Attributes:
        request: row of each route's request.
        share: float64 [routes, R], what each route takes of the limit of each link, then of each node.
    """

    def __init__(self, world, trace):
        self.world, self.trace, network = world, trace, world.network
        self.limit = np.concatenate([network.capacity_kbps, world.budget_mcpu])
        self.out = [np.flatnonzero(network.source == v).tolist() for v in range(network.n_nodes)]
        self.request, uses = [], []
        for r in range(len(trace)):
            for use in self._routes(r):
                self.request.append(r)
                uses.append(use)
        self.request = np.array(self.request, np.int64)
        taken = np.array(uses).reshape(len(uses), len(self.limit))
        self.share = np.divide(taken, self.limit, out=np.zeros_like(taken, float), where=taken > 0)

    def _routes(self, r):
        world, trace, network = self.world, self.trace, self.world.network
        chain = [int(f) for f in world.chains[trace.service[r]] if f >= 0]
        limit_ms, destination = float(world.latency_ms[trace.service[r]]), int(trace.destination[r])
        demand = int(trace.demand_kbps[r])
        start = int(trace.source[r])
        walks = [(start, 0, (start,), 0.0, np.zeros(len(self.limit), np.int64))]
        while walks:
            node, stage, segment, ms, use = walks.pop()
            if ms > limit_ms or (use > self.limit).any():
                continue
            if stage == len(chain) and node == destination:
                yield use
                continue
            if stage < len(chain) and world.rate_mcpu_per_gbps[node, chain[stage]] >= 0:
                more = use.copy()
                more[network.n_links + node] += -(
                    -demand * int(world.rate_mcpu_per_gbps[node, chain[stage]]) // 1_000_000
                )
                walks.append((node, stage + 1, (node,), ms + world.processing_ms[chain[stage]], more))
            for e in self.out[node]:
                target = int(network.target[e])
                if target in segment or world.stub[target] and target != destination:
                    continue
                more = use.copy()
                more[e] += demand
                walks.append((target, stage, (*segment, target), ms + network.delay_ms[e], more))

    def held(self, start_s: float, block_s: float) -> np.ndarray:
        """Share of each block during which each request holds, float64 [n, B]."""
        t_s, end_s = self.trace.t_s, self.trace.t_s + self.trace.hold_s
        edges = start_s + block_s * np.arange(math.ceil((end_s.max() - start_s) / block_s) + 1)
        return np.array(
            [[max(0.0, min(e, b) - max(t, a)) / block_s for a, b in itertools.pairwise(edges)]
             for t, e in zip(t_s, end_s, strict=True)]
        )  # fmt: skip

    def at_instants(self) -> np.ndarray:
        """Whether each request holds at each arrival (when use peaks), float64 [n, n]."""
        t_s, end_s = self.trace.t_s, self.trace.t_s + self.trace.hold_s
        return ((t_s[:, None] <= t_s) & (t_s < end_s[:, None])).astype(float)

    def rows(self, when: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and limits: each resource at each time, then one a request."""
        resource = (self.share[:, :, None] * when[self.request][:, None, :]).reshape(len(self.request), -1).T
        once = (self.request == np.arange(len(self.trace))[:, None]).astype(float)
        matrix = np.vstack([resource, once])
        return matrix, np.ones(len(matrix))

    def linear(self, block_s: float, worth: np.ndarray) -> float:
        if not len(self.request):
            return 0.0
        matrix, limits = self.rows(self.held(float(self.trace.t_s[0]), block_s))
        return -linprog(-worth[self.request], A_ub=matrix, b_ub=limits).fun

    def integer(self, worth: np.ndarray) -> float:
        if not len(self.request):
            return 0.0
        matrix, limits = self.rows(self.at_instants())
        found = milp(
            -worth[self.request],
            constraints=LinearConstraint(matrix, ub=limits + 1e-9),
            integrality=np.ones(len(self.request)),
            bounds=(0, 1),
        )
        return -found.fun

    def brute_force(self) -> int:
        """Most requests that fit, over all choices of a route or none for each."""
        when, best = self.at_instants(), 0
        choices = [[-1, *np.flatnonzero(self.request == r)] for r in range(len(self.trace))]
        for choice in itertools.product(*choices):
            taken = [(c, r) for r, c in enumerate(choice) if c >= 0]
            if len(taken) <= best:
                continue
            use = sum(self.share[c][:, None] * when[r] for c, r in taken)
            if (use <= 1 + 1e-9).all():
                best = len(taken)
        return best


def worth_of(trace, weight: str) -> np.ndarray:
    traffic = trace.demand_kbps * trace.hold_s
    return np.ones(len(trace)) if weight == "requests" else traffic / traffic.mean()


def crowd(world, n: int, seed: int):
    """Requests that want the network at about the same time."""
    return offer(world, n, seed, gap_s=3.0, hold_s=60.0)


RULES = [name for name in ALL_RULES if not baseline(name).waits_s]
"""A rule that lets requests wait serves other times than the bound is for."""


@FEW
@given(WORLDS, st.sampled_from(["requests", "traffic"]), st.sampled_from([7.0, 30.0]))
def test_the_bound_is_above_the_integer_optimum_which_is_above_every_rule(seed, weight, block_s):
    world = random_world(seed)
    trace = crowd(world, 10, seed)
    worth = worth_of(trace, weight)
    optimum = Enumerated(world, trace).integer(worth)
    assert bound(world, trace, weight=weight, block_s=block_s).upper * len(trace) >= optimum - 1e-6
    for name in RULES:
        accepted = play_trace(baseline(name), trace, scenario=world).decisions["accepted"].to_numpy(bool)
        assert optimum >= worth[accepted].sum() - 1e-6, name


def test_the_bound_is_above_the_best_of_all_choices():
    n_full = 0
    for seed in range(12):
        world = random_world(seed)
        trace = replace(crowd(world, 5, seed), demand_kbps=np.full(5, 55_000))
        every = Enumerated(world, trace)
        if np.prod(np.bincount(every.request, minlength=5) + 1) > 20_000:
            continue
        best = every.brute_force()
        assert best == round(every.integer(np.ones(5)))
        assert bound(world, trace, block_s=10.0).upper * 5 >= best - 1e-6
        n_full += best < len(np.unique(every.request))
    assert n_full >= 2, "no world was too small for its requests: this proves little"


@FEW
@given(WORLDS, st.sampled_from(["requests", "traffic"]), st.sampled_from([7.0, 30.0]))
def test_column_generation_meets_the_linear_program_over_all_routes(seed, weight, block_s):
    world = random_world(seed)
    trace = crowd(world, 25, seed)
    optimum = Enumerated(world, trace).linear(block_s, worth_of(trace, weight)) / len(trace)
    found = bound(world, trace, weight=weight, block_s=block_s)
    assert found.primal - 1e-7 <= optimum <= found.upper + 1e-7
    assert found.gap <= CLOSE


def test_it_meets_the_linear_program_where_stubs_and_six_services_contend():
    world = contended()
    trace = offer(world, 130, 4, gap_s=0.5, hold_s=300.0)
    optimum = Enumerated(world, trace).linear(40.0, np.ones(len(trace))) / len(trace)
    found = bound(world, trace, block_s=40.0)
    assert optimum < 0.99, "nothing contends"
    assert found.primal - 1e-7 <= optimum <= found.upper + 1e-7
    assert found.gap <= CLOSE


@FEW
@given(WORLDS)
def test_any_prices_bound_the_linear_program(seed):
    """The round of pricing sees every route: its bound is that of the enumerated routes, whatever the prices."""
    world, draw = random_world(seed), np.random.default_rng(seed)
    trace = crowd(world, 12, seed)
    every, worth = Enumerated(world, trace), np.ones(12)
    program = make_program(world, trace, "requests", float(trace.t_s[0]), 10.0)
    prices = draw.exponential(0.2, program.shape) * (draw.random(program.shape) < 0.3)
    cost = np.full(12, np.inf)
    price_of_hold = every.held(program.start_s, 10.0) @ prices  # [n, R]
    np.minimum.at(cost, every.request, (every.share * price_of_hold[every.request]).sum(axis=1))
    upper = program.price(prices, np.inf)
    assert upper == pytest.approx(prices.sum() + np.maximum(0, 1 - cost).sum(), abs=1e-7)
    assert upper >= every.linear(10.0, worth) - 1e-7


def test_stopping_early_is_safe():
    world = contended()
    trace = offer(world, 130, 4, gap_s=0.5, hold_s=300.0)
    optimum = Enumerated(world, trace).linear(40.0, np.ones(len(trace))) / len(trace)
    hasty = bound(world, trace, block_s=40.0, seconds=1e-9)
    assert hasty.iterations == 1
    assert hasty.primal <= optimum <= hasty.upper


def test_shorter_blocks_bound_at_least_as_tight():
    world = contended()
    trace = offer(world, 130, 1, gap_s=0.5, hold_s=60.0)
    long, short = (bound(world, trace, block_s=block_s) for block_s in (60.0, 15.0))
    assert short.primal <= long.upper + 1e-9
    assert short.upper < long.upper - 1e-3


def test_a_single_link_is_filled_as_by_hand():
    """100 Mb/s, three requests of 60 that hold all at once: 5/3 of them fit on average, one of them in full."""
    world = make_world(
        make_network({"A": ("agg", 0, True), "B": ("cu", 9000, True)}, {"A-B": (100_000, 1.0)}),
        {"F": 0.1}, {"s": (("F",), 5.0)}, {("B", "F"): 1000},
    )  # fmt: skip
    trace = make_trace(world, [(0.0, "s", "A", "B", 60_000, 50.0)] * 3)
    assert bound(world, trace, block_s=50.0).upper == pytest.approx(5 / 9, abs=1e-4)


@pytest.fixture(scope="module")
def busy_day(toy):
    """A training day of the toy scenario whose flows stay five times as long."""
    trace = toy.training_trace(seed=3, days=1)
    return replace(trace, hold_s=5 * trace.hold_s)


@pytest.fixture(scope="module")
def whole(toy, busy_day):
    return bound(toy, busy_day, start_s=0.0, block_s=600.0)


@pytest.fixture(scope="module")
def by_windows(toy, busy_day):
    return day_bound(toy, busy_day, window_s=14_400.0, block_s=600.0, seconds=60.0)


def test_windows_that_start_empty_add_up_to_no_less_than_the_whole(toy, busy_day, whole):
    total = 0.0
    for start_s in range(0, 86_400, 14_400):
        part = bound(toy, busy_day, start_s=start_s, end_s=start_s + 14_400, block_s=600.0)
        total += part.upper * part.n_requests
    assert total >= whole.primal * whole.n_requests - 1e-6
    assert whole.gap <= CLOSE


def test_a_day_by_windows_is_bounded_like_the_whole(by_windows, whole):
    assert by_windows.covered == 1.0
    assert whole.primal - 1e-9 <= by_windows.upper <= whole.upper + 0.01
    assert by_windows.primal <= whole.upper + 1e-9
    assert by_windows.primal >= whole.primal - 0.02


def test_no_rule_beats_the_bounds_of_a_day(toy, busy_day, whole, by_windows):
    for name in RULES:
        gos = play_trace(baseline(name), busy_day, scenario=toy).decisions["accepted"].mean()
        assert gos <= min(whole.upper, by_windows.upper), name
    assert whole.upper < 1.0, "a day on which all can be accepted proves little"


def test_windows_without_time_count_as_accepted(toy, busy_day, whole):
    hasty = day_bound(toy, busy_day, window_s=14_400.0, block_s=600.0, seconds=1e-9)
    assert len(hasty.windows) == 0
    assert hasty.covered < 1.0
    assert hasty.upper >= whole.primal
    played = play_trace(tuned("priced_reservation"), busy_day, scenario=toy)
    assert hasty.primal == pytest.approx(played.decisions["accepted"].mean())


def test_rows_are_plain_values(whole, by_windows):
    for found in (whole, by_windows):
        assert json.loads(json.dumps(found.as_row()))["upper"] == found.upper
        assert found.as_row()["gap"] == found.upper - found.primal
    assert list(whole.history["iteration"]) == list(range(whole.iterations))
    assert whole.history["upper"].is_monotonic_decreasing


@FEW
@given(WORLDS)
def test_the_interior_point_meets_linprog(seed):
    draw = np.random.default_rng(seed)
    n, m = int(draw.integers(1, 30)), int(draw.integers(1, 12))
    group = np.concatenate([np.arange(n), draw.integers(0, n, int(draw.integers(0, 60)))])
    rows = csr_array(random_array((m, len(group)), density=0.4, rng=draw)) * (2 * m / n)
    worth = draw.uniform(0.5, 2.0, n)[group]
    x, prices = solve_packing(rows, group, worth, 1e-7)
    once = csr_array((np.ones(len(group)), (group, np.arange(len(group)))))
    optimum = -linprog(-worth, A_ub=vstack([rows, once]), b_ub=np.ones(m + n)).fun
    assert (x >= 0).all() and (rows @ x <= 1 + 1e-9).all() and (once @ x <= 1 + 1e-9).all()
    assert worth @ x == pytest.approx(optimum, abs=1e-6)
    rents = np.zeros(n)
    np.maximum.at(rents, group, worth - rows.T @ prices)
    assert prices.sum() + rents.sum() == pytest.approx(optimum, abs=1e-6)


def test_an_interior_point_that_is_no_longer_finite_is_not_kept(monkeypatch):
    advance, steps = bound_interior._advance, []

    def spoiling(system, at):
        steps.append(1)
        further = advance(system, at)
        return replace(further, x=further.x * np.nan) if len(steps) == 3 else further

    monkeypatch.setattr(bound_interior, "_advance", spoiling)
    x, prices = solve_packing(csr_array(np.array([[0.6, 0.5, 0.7]])), np.array([0, 1, 2]), np.ones(3), 1e-9)
    assert len(steps) == 3
    assert np.isfinite(x).all() and np.isfinite(prices).all()


@pytest.mark.parametrize("broken_at", [0, 3])
def test_an_interior_point_that_breaks_down_keeps_its_last_sound_point(monkeypatch, broken_at):
    """Newton's equations that cannot be solved, at the first step or later, end the method and not the bound."""
    rows, group, worth = csr_array(np.array([[0.6, 0.5, 0.7]])), np.array([0, 1, 2]), np.ones(3)
    solved, steps = bound_interior.cho_factor, []

    def breaking(matrix, **options):
        steps.append(1)
        if len(steps) > broken_at:
            raise bound_interior.LinAlgError
        return solved(matrix, **options)

    monkeypatch.setattr(bound_interior, "cho_factor", breaking)
    x, prices = solve_packing(rows, group, worth, 1e-9)
    assert len(steps) == broken_at + bound_interior.RIDGES
    assert (rows @ x <= 1).all() and (x >= 0).all()
    rents = np.maximum(worth - rows.T @ prices, 0)
    assert worth @ x <= 1 + (0.5 / 0.6) + 1e-9 <= prices.sum() + rents.sum() + 1e-9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(weight="bytes"), "weight is 'bytes'; expected one of requests, traffic"),
        (dict(block_s=0.0), "block_s is 0.0; expected a finite number of seconds above 0"),
        (dict(seconds=-1.0), "seconds is -1.0"),
        (dict(start_s=1e6, end_s=2e6), "its arrivals are from"),
        (dict(start_s=50.0, end_s=50.0), "no request of trace 'small' arrives"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    world = contended()
    with pytest.raises(AmarlError, match=message):
        bound(world, offer(world, 5, 0), **options)


def test_a_day_refuses_windows_that_cut_blocks_and_foreign_traces(toy, toy_day):
    world = contended()
    with pytest.raises(AmarlError, match="expected a multiple of block_s"):
        day_bound(world, offer(world, 5, 0), window_s=100.0, block_s=60.0)
    with pytest.raises(AmarlError, match="another world"):
        day_bound(world, toy_day)
    with pytest.raises(AmarlError, match="no requests"):
        bound(toy, toy_day.head(0))
