"""Re-optimisation by windows: which requests of a window to admit, and on which route each, as one integer program.

`milp_lookahead` solves it when a window begins and knows its requests: a reference, not a rule for use, for it looks a
window's length ahead. `milp_batch` knows only what has arrived: it lets requests wait, decides them together at their
window's end, and only then do they begin to hold (`held`). Either way nothing beyond is known, and what was admitted
before stays as it is. Where the base rule can serve a window in full, its plan stands. Otherwise: maximise the requests
accepted, ties by least exponential price, one route each from a few columns (the base rule's plan and the k shortest
routes), so that on every arrival no link or pool is over its limit. Served in order of arrival like any rule; a chosen
route that has become too slow, because others of the window load its pools, is planned anew by the base rule.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from amarl_core.arena import BUSY
from amarl_core.rule_routes import Planner
from amarl_core.search import Search
from amarl_core.simulation import AgentError, Simulation
from amarl_core.traces import Trace
from amarl_core.window_plans import BY_RULE, REFUSED, Window, list_columns, make_window, plan_window, serve_window

log = logging.getLogger(__name__)

N_NODES = 100
"""Nodes of a window's branch and bound at most; then its best solution counts, else the base rule's plan. A limit on
time would make the outcome depend on the machine."""

PARTS = 1e5
"""Use is counted in so many parts of a limit: the solver's tolerance, 1e-6, is then far below a kbps or millicore."""

GAP = 0.25
"""A solution is good enough within a quarter of a request of the bound: with prices that weigh at most half a request,
no other accepts more."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Send the process's standard output nowhere: HiGHS prints a line of its debugging whatever it is told."""
    with open(os.devnull, "w") as nowhere:
        kept = os.dup(1)
        try:
            os.dup2(nowhere.fileno(), 1)
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


def held(trace: Trace, window_s: float) -> Trace:
    """Return the requests as a rule meets them that decides at the end of each window: arrived when it ends.

    A flow then holds as long as it would have, from its admission on: the load is the same, up to a window later. The
    order within a window stays. With no window, the trace itself.
    """
    if window_s == 0:
        return trace
    return replace(trace, t_s=(np.floor(trace.t_s / window_s) + 1.0) * window_s)


def batch_bounds(t_s: np.ndarray) -> list[tuple[int, int]]:
    """Return the rows (first, beyond the last) of requests with the same time; t_s ascending, float64[n]."""
    starts = np.flatnonzero(np.diff(t_s, prepend=-np.inf)).tolist()
    return list(zip(starts, [*starts[1:], len(t_s)], strict=False))


def window_bounds(t_s: np.ndarray, window_s: float) -> list[tuple[int, int]]:
    """Return the rows (first, beyond the last) of each window that has requests; t_s ascending, float64[n]."""
    return batch_bounds(np.floor(t_s / window_s))


def serve_windows(
    simulation: Simulation, search: Search, planner: Planner, k: int, bounds: list[tuple[int, int]]
) -> None:
    """Serve the whole trace, window by window.

    Args:
        simulation, search, planner: the run and what the base rule plans with.
        k: columns of each request, its base rule's plan apart.
        bounds: rows (first, beyond the last) of each window.

    Raises:
        AgentError: the ledger or the flows' memory ran out (a defect of this library).
    """
    arena, agent = simulation.arena, simulation.agents[0]
    largest = max((last - first for first, last in bounds), default=0)
    window = make_window(arena.world, largest, k + 1, planner.max_hops)
    n_solved = 0
    for first, last in bounds:
        if simulation.stopped:
            return
        window.chosen[:] = BY_RULE
        n_lost = plan_window(arena, agent, search, planner, window, first, last)
        if n_lost > 0:
            list_columns(arena, agent, search, planner, window, first, last)
            n_solved += 1
            choose_columns(simulation, window, first, last)
        code = serve_window(arena, agent, search, planner, window, first, last)
        if n_lost < 0 or code != BUSY:
            raise AgentError(f"{simulation.team.agents[0]}: stopped early with code {code}")
    log.info("%d of %d windows needed a program", n_solved, len(bounds))


def choose_columns(simulation: Simulation, window: Window, first: int, last: int) -> None:
    """Solve a window's program and write the choice into `window.chosen`; without a solution it stays as it is."""
    n = last - first
    request = np.repeat(np.arange(n), window.n_columns[:n])  # of each of the program's columns
    if not len(request):
        return
    column = np.concatenate([np.arange(c) for c in window.n_columns[:n]])
    price = window.price[request, column]
    ceiling = np.zeros(n)
    np.maximum.at(ceiling, request, price)
    gain = 1.0 - 0.5 * price / max(float(ceiling.sum()), 1e-300)  # prices never outweigh a request
    one_each = csr_array((np.ones(len(request)), (request, np.arange(len(request)))), shape=(n, len(request)))
    constraints = [LinearConstraint(one_each, -np.inf, 1)]
    rows = capacity_rows(simulation, window, first, last, request, column)
    if rows is not None:
        constraints.append(LinearConstraint(rows[0], -np.inf, rows[1]))
    options = dict(node_limit=N_NODES, mip_rel_gap=GAP / n)
    with _quiet():
        solved = milp(
            -gain, integrality=np.ones(len(request)), bounds=Bounds(0, 1), constraints=constraints, options=options
        )
    if solved.x is None:
        return
    window.chosen[:n] = REFUSED
    taken = np.flatnonzero(solved.x > 0.5)
    window.chosen[request[taken]] = column[taken]


def capacity_rows(
    simulation: Simulation, window: Window, first: int, last: int, request: np.ndarray, column: np.ndarray
) -> tuple[csr_array, np.ndarray] | None:
    """Return the constraints that can bind: use on each arrival by the window's own flows, and what is free for it.

    Args:
        simulation, window, first, last: as in `choose_columns`.
        request, column: int64[c], what each variable stands for.

    Returns:
        (matrix [m, c], free float64[m]) in `PARTS` of the resource's limit, or None when nothing can bind.
    """
    arena, n = simulation.arena, last - first
    rows = arena.requests[first:last]
    limit = arena.shared.limit.astype(float)
    use = column_use(simulation, window, rows, request, column)  # float64[c, R]
    resources = np.flatnonzero(use.any(axis=0))
    most = np.zeros((n, len(limit)))  # what each request may take at most
    np.maximum.at(most, request, use)
    arrives, departs = rows["t_s"], rows["t_s"] + rows["hold_s"]
    active = (np.arange(n)[None, :] <= np.arange(n)[:, None]) & (departs[None, :] > arrives[:, None])
    np.fill_diagonal(active, True)
    free = limit[None, :] - window.ahead[:n]
    at, over = np.nonzero((active @ most > free)[:, resources] & (most[:, resources] > 0))
    if not len(at):
        return None
    r = resources[over]
    matrix = use[:, r].T * active[np.ix_(at, request)]
    scale = PARTS / limit[r]
    return csr_array(matrix * scale[:, None]), free[at, r] * scale


def column_use(
    simulation: Simulation, window: Window, rows: np.ndarray, request: np.ndarray, column: np.ndarray
) -> np.ndarray:
    """Return what each column takes of each resource, float64[c, R], kbps and millicores."""
    world, limit = simulation.arena.world, simulation.arena.shared.limit
    use, each = np.zeros((len(request), len(limit))), np.arange(len(request))
    demand, service = rows["demand"][request], rows["service"][request]
    n_links = window.n_links[request, column]
    for j in range(int(n_links.max(initial=0))):
        crosses = n_links > j
        use[each[crosses], window.links[request, column, j][crosses]] += demand[crosses]
    for stage in range(world.chains.shape[1]):
        runs = world.chain_length[service] > stage
        node = window.hosts[request, column, stage][runs]
        rate = world.rate[node, world.chains[service[runs], stage]]
        use[each[runs], len(world.links) + node] += -(-demand[runs] * rate // 1_000_000)
    return use
