"""Column generation for the bound: price, add the routes that pay, solve the restricted program, price again.

For *any* prices of resources and blocks, the sum of all prices, plus for every request what it is worth beyond its
cheapest route, is at least the optimum over all routes (Lagrange). So the bound holds at every iteration, whatever
the solver's tolerance, and stopping early is safe (Dantzig and Wolfe, Oper. Res. 8, 1960; Wentges, 1997, for the
step back that steadies the prices).
"""

import logging
import time
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from amarl_core.arrays import make_world
from amarl_core.baselines import baseline, tuned
from amarl_core.bound_columns import (
    ROUTES_PER_CALL,
    Columns,
    Planner,
    Pool,
    column_costs,
    find_cheapest,
    make_planner,
    make_tariff,
    write_uses_of,
)
from amarl_core.bound_master import solve_master
from amarl_core.errors import AmarlError
from amarl_core.simulation import Team, request_records

log = logging.getLogger(__name__)

WEIGHTS = ("requests", "traffic")
"""What a request counts: 1, or its demand times its holding time (Mb/s x s)."""

SEED_RULES = (tuned("priced_reservation"), baseline("shortest_feasible"))
"""Rules whose routes are the first columns; the first of them also says which hours are hard."""

TOLERANCE = 1e-4
"""Stop once upper bound and value of the restricted program differ by this share of the offered weight."""

STEP_BACK = 0.25
"""Prices tried lie so far on the way from the solver's back to the best so far."""

SLACK = 0.1
"""Share of the gap that may be lost in a round: by routes that would gain too little, or by the solver."""

FAINT_PRICE = 1e-9
"""Of every resource at first: the cheapest routes are then those that take least."""

MAX_ITERATIONS = 200


@dataclass
class Program:
    """The requests of a window with what they are worth, and a grid of blocks (B blocks, R resources)."""

    planner: Planner
    requests: np.ndarray  # REQUEST [n]
    worth: np.ndarray  # float64 [n], above 0
    start_s: float
    block_s: float
    shape: tuple[int, int]  # B, R
    pool: Pool

    @property
    def total(self) -> float:
        """What all requests are worth."""
        return float(self.worth.sum())

    def price(self, prices: np.ndarray, least_gain: float) -> float:
        """Return the upper bound that prices [B, R] give; add each request's cheapest route if it gains enough.

        Args:
            prices: of the whole limit of each resource in each block, at least 0.
            least_gain: what a route must gain over the request's routes so far to be added; infinite to add none.
        """
        tariff = make_tariff(prices, self.start_s, self.block_s)
        columns = self.pool.columns()
        known = np.zeros(len(columns.request))
        column_costs(columns, self.requests, tariff, known)
        least = self.worth.copy()
        np.minimum.at(least, columns.request, known)
        found, upper = self.planner.found, float(prices.sum())
        for first in range(0, len(least), ROUTES_PER_CALL):
            last = min(first + ROUTES_PER_CALL, len(least))
            find_cheapest(self.planner, self.requests, self.worth, tariff, first, last)
            cost = found.cost[: last - first]
            upper += float(np.maximum(0.0, self.worth[first:last] - cost).sum())
            gain = least[first:last] - cost
            found.n_uses[: last - first][~(gain > least_gain)] = 0
            self.pool.add(np.arange(first, last), found)
        return upper

    def seed(self, network, decisions: pd.DataFrame) -> None:
        """Add the routes of accepted requests; the decisions are those of the program's requests, in order."""
        number = {name: e for e, name in enumerate(network.link_ids)}
        accepted = np.flatnonzero(decisions["accepted"])
        for first in range(0, len(accepted), ROUTES_PER_CALL):
            rows = accepted[first : first + ROUTES_PER_CALL]
            part = decisions.iloc[rows]
            links, n_links = _padded(part["links"].tolist(), number)
            hosts, n_hosts = _padded(part["hosts"].tolist(), network.node_index)
            found = self.planner.found
            write_uses_of(self.planner.world, self.requests, rows, links, n_links, hosts, n_hosts, found)
            self.pool.add(rows, found)


def check_arguments(trace, weight: str, block_s: float, seconds: float) -> None:
    """Refuse an empty trace and values out of range."""
    if len(trace) == 0:
        raise AmarlError(f"trace '{trace.name}' has no requests; there is nothing to bound")
    if weight not in WEIGHTS:
        raise AmarlError(f"weight is {weight!r}; expected one of {', '.join(WEIGHTS)}")
    for name, value in (("block_s", block_s), ("seconds", seconds)):
        if not 0 < value < np.inf:
            raise AmarlError(f"{name} is {value!r}; expected a finite number of seconds above 0")


def make_program(scenario, trace, weight: str, start_s: float, block_s: float) -> Program:
    """Return the program of all requests of a trace, without any column; its blocks start at start_s."""
    if trace.service_ids != tuple(scenario.service_ids) or trace.node_ids != tuple(scenario.network.node_ids):
        raise AmarlError(
            f"trace '{trace.name}' belongs to another world than scenario '{scenario.name}': its services or nodes "
            "differ; generate or load it with this scenario"
        )
    world = make_world(scenario)
    requests = request_records(trace, Team.of(scenario, "bound"))
    worth = np.ones(len(trace))
    if weight == "traffic":
        worth = trace.demand_kbps * trace.hold_s
        worth = worth / worth.mean()
    n_blocks = blocks_until((requests["t_s"] + requests["hold_s"]).max() - start_s, block_s)
    shape = (n_blocks, len(world.links) + len(world.nodes))
    return Program(make_planner(world), requests, worth, start_s, float(block_s), shape, Pool(len(trace)))


def blocks_until(after_s: float, block_s: float) -> int:
    """Return how many blocks it takes until so many seconds after the first one's start."""
    return max(1, int(np.ceil(after_s / block_s)))


def _padded(names: list[list[str]], number: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return lists of names as numbers, int64 [n, longest], and their lengths, int64 [n]."""
    lengths = np.array([len(row) for row in names], np.int64)
    numbers = np.zeros((len(names), int(lengths.max(initial=0))), np.int64)
    for i, row in enumerate(names):
        numbers[i, : len(row)] = [number[name] for name in row]
    return numbers, lengths


@dataclass
class Solution:
    """Where column generation stopped.

    Attributes:
        upper: the least upper bound so far, in units of worth.
        prices: those that give it, float64 [B, R].
        primal: the best value of the linear program so far, in units of worth.
        columns: the columns of that value.
        chosen: accepted share of each of them, float64 [C].
        history: one entry an iteration, shares of the offered weight.
    """

    upper: float
    prices: np.ndarray
    primal: float = 0.0
    columns: Columns | None = None
    chosen: np.ndarray = field(default_factory=lambda: np.zeros(0))
    history: list[dict] = field(default_factory=list)


def generate_columns(program: Program, seconds: float, tolerance: float = TOLERANCE) -> Solution:
    """Generate columns until the bound is tight or the time is up (looked at between iterations)."""
    started, total = time.perf_counter(), program.total
    best = Solution(total, np.zeros(program.shape))
    active = np.zeros(program.shape, np.bool_)
    prices, back = np.full(program.shape, FAINT_PRICE), 0.0
    for iteration in range(MAX_ITERATIONS):
        n_before = len(program.pool)
        allowed = SLACK * (best.upper - best.primal) if iteration else 0.0
        upper = program.price(prices, allowed / len(program.requests))
        if upper < best.upper:
            best.upper, best.prices = upper, prices
        spent = time.perf_counter() - started
        best.history.append(
            {
                "iteration": iteration,
                "seconds": spent,
                "upper": best.upper / total,
                "primal": best.primal / total,
                "columns": len(program.pool),
                "rows": int(active.sum()),
            }
        )
        log.info(
            "bound, iteration %d: at most %.5f, at least %.5f, %d columns, %.0f s",
            iteration, best.upper / total, best.primal / total, len(program.pool), spent,
        )  # fmt: skip
        if best.upper - best.primal <= tolerance * total or spent > seconds:
            break
        # nothing new on the way back: only the solver's own prices can tell more
        back = 0.0 if iteration == 0 or len(program.pool) == n_before else STEP_BACK
        prices = back * best.prices + (1 - back) * _solve(program, active, best, tolerance)
        # an interior point prices every row a little: without that, most routes stay free
        prices[prices < SLACK * tolerance * total / max(1, active.sum())] = 0.0
    return best


def _solve(program: Program, active: np.ndarray, best: Solution, tolerance: float) -> np.ndarray:
    """Solve the restricted program, note its value if it is the best so far, and return its prices."""
    columns = program.pool.columns()
    # no closer than the columns deserve yet
    close = SLACK * min(max(best.upper - best.primal, tolerance * program.total), 0.01 * program.total)
    solved = solve_master(columns, program.requests, program.worth, program.start_s, program.block_s, active, close)
    if solved.value > best.primal:
        best.primal, best.columns, best.chosen = solved.value, columns, solved.chosen
    return solved.prices
