"""An upper bound for a whole day, from the prices of windows that are solved one by one.

The bound of `bound_program` is valid for any prices. So windows are solved for their prices only, each with a margin
before and after it, the prices of their middles are put side by side, and one round of pricing over the whole day
gives its bound: flows that reach from one window into the next pay in both, and no window starts empty. Where there
was no time for a window prices are 0: its requests count as accepted.
"""

import logging
import time
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from amarl_core.bound_columns import Columns, Pool
from amarl_core.bound_master import add_use, cut_back
from amarl_core.bound_program import (
    SEED_RULES,
    Program,
    Solution,
    blocks_until,
    check_arguments,
    generate_columns,
    make_program,
)
from amarl_core.errors import AmarlError
from amarl_core.evaluation import play_trace

log = logging.getLogger(__name__)

MARGIN_S = 1200.0
"""A window is solved together with the requests so long before and after it."""


@dataclass(frozen=True)
class DayBound:
    """An upper bound for all requests of a trace.

    Attributes:
        upper: no policy accepts a greater share of the offered weight, 0 to 1.
        primal: value of a feasible point of the whole trace's linear program, a share too.
        n_requests: requests of the trace.
        covered: share of the requests that arrive in windows with prices; the others count as accepted.
        block_s, window_s: lengths of a block and of a window.
        weight: what a request counts, `requests` or `traffic`.
        seconds: wall-clock.
        windows: one row a solved window: start_s, end_s, n_requests, iterations, seconds; upper and primal are those
            of the window together with its margins.
    """

    upper: float
    primal: float
    n_requests: int
    covered: float
    block_s: float
    window_s: float
    weight: str
    seconds: float
    windows: pd.DataFrame

    @property
    def gap(self) -> float:
        """How far `upper` may be above the optimum of the linear program, as a share."""
        return self.upper - self.primal

    def as_row(self) -> dict[str, float | int | str]:
        """Return the figures as plain values, for a table or JSON."""
        names = ("upper", "primal", "gap", "n_requests", "covered", "block_s", "window_s", "weight", "seconds")
        return {name: getattr(self, name) for name in names} | {"n_windows": len(self.windows)}


def day_bound(
    scenario,
    trace,
    *,
    seconds: float = 600.0,
    window_s: float = 7200.0,
    weight: str = "requests",
    block_s: float = 120.0,
) -> DayBound:
    """Bound what any policy can accept of a whole trace, hard hours first, in a given time.

    Args:
        scenario: the world.
        trace: requests in order of arrival, of a day or any other time.
        seconds: begin no window after so long; each gets an even part of the time that is left.
        window_s: length of a window in s, a multiple of block_s.
        weight: `requests` counts each as 1, `traffic` by demand x holding time.
        block_s: length of the blocks in s.

    Raises:
        AmarlError: a value out of range, an empty trace, or one of another world.
    """
    started = time.perf_counter()
    check_arguments(trace, weight, block_s, seconds)
    if not (block_s <= window_s < np.inf and window_s % block_s == 0):
        raise AmarlError(f"window_s is {window_s!r}; expected a multiple of block_s, which is {block_s:g} s")
    day = make_program(scenario, trace, weight, float(trace.t_s[0] // block_s * block_s), block_s)
    played = [play_trace(rule, trace, scenario=scenario).decisions for rule in SEED_RULES]
    window_of = ((trace.t_s - day.start_s) // window_s).astype(np.int64)
    lost = np.bincount(window_of, day.worth * ~played[0]["accepted"].to_numpy(bool))
    hard = [w for w in np.argsort(-lost, kind="stable").tolist() if lost[w] > 0]
    prices, parts, rows = np.zeros(day.shape), [], []
    for k, window in enumerate(hard):
        left = seconds - (time.perf_counter() - started)
        if left <= 0:
            break
        first_s = day.start_s + window * window_s
        program, inside, first_block = _window_program(day, scenario.network, played, first_s, first_s + window_s)
        solution = generate_columns(program, left / (len(hard) - k))
        own = slice(int(window * window_s // block_s), min(int((window + 1) * window_s // block_s), day.shape[0]))
        there = slice(own.start - first_block, own.stop - first_block)
        found = solution.prices[there]
        prices[own.start : own.start + len(found)] = found
        parts.append(_of_window(solution, inside, window_of == window))
        rows.append(
            {
                "start_s": first_s,
                "end_s": first_s + window_s,
                "n_requests": int((window_of == window).sum()),
                "iterations": len(solution.history),
                "seconds": solution.history[-1]["seconds"],
                "upper": solution.upper / program.total,
                "primal": solution.primal / program.total,
            }
        )
        log.info("day bound: window from %.0f s, %.5f", first_s, rows[-1]["upper"])
    solved = np.isin(window_of, hard[: len(rows)])
    parts.append(_as_played(day, scenario.network, played[0], ~solved))
    return DayBound(
        upper=min(day.total, day.price(prices, np.inf)) / day.total,
        primal=_feasible_value(day, parts) / day.total,
        n_requests=len(trace),
        covered=float((solved | (lost[window_of] == 0)).mean()),
        block_s=float(block_s),
        window_s=float(window_s),
        weight=weight,
        seconds=time.perf_counter() - started,
        windows=pd.DataFrame(rows),
    )


def _window_program(
    day: Program, network, played: list[pd.DataFrame], first_s: float, end_s: float
) -> tuple[Program, np.ndarray, int]:
    """Return the program of a window with its margins, its rows in the day, and its first block of the day."""
    t_s = day.requests["t_s"]
    inside = np.flatnonzero((t_s >= first_s - MARGIN_S) & (t_s < end_s + MARGIN_S))
    first_block = int(max(0.0, first_s - MARGIN_S - day.start_s) // day.block_s)
    start_s = day.start_s + first_block * day.block_s
    requests = day.requests[inside]
    n_blocks = blocks_until((requests["t_s"] + requests["hold_s"]).max() - start_s, day.block_s)
    program = replace(
        day,
        requests=requests,
        worth=day.worth[inside],
        start_s=start_s,
        shape=(n_blocks, day.shape[1]),
        pool=Pool(len(inside)),
    )
    for decisions in played:
        program.seed(network, decisions.iloc[inside])
    return program, inside, first_block


def _of_window(solution: Solution, inside: np.ndarray, own: np.ndarray) -> tuple[Columns, np.ndarray]:
    """Return the chosen columns of a window's own requests, without margins, numbered as in the day."""
    if solution.columns is None:
        return Columns(*(np.zeros(0, t) for t in (np.int64, np.int64, np.int64, np.float64))), np.zeros(0)
    columns = solution.columns
    request = inside[columns.request]
    kept = np.flatnonzero(own[request] & (solution.chosen > 0))
    length = np.diff(columns.start)
    uses = np.repeat(np.isin(np.arange(len(request)), kept), length)
    start = np.concatenate([[0], np.cumsum(length[kept])])
    return Columns(request[kept], start, columns.resource[uses], columns.share[uses]), solution.chosen[kept]


def _as_played(day: Program, network, decisions: pd.DataFrame, rows: np.ndarray) -> tuple[Columns, np.ndarray]:
    """Return the routes by which a rule served some rows of the day, as columns chosen in full."""
    program = replace(day, pool=Pool(len(day.requests)))
    program.seed(network, decisions.assign(accepted=decisions["accepted"].to_numpy(bool) & rows))
    columns = program.pool.columns()
    return columns, np.ones(len(columns.request))


def _feasible_value(day: Program, parts: list[tuple[Columns, np.ndarray]]) -> float:
    """Return the worth of what the parts choose, once it is cut back to what the day has room for."""
    use = np.zeros(day.shape)
    for columns, chosen in parts:
        add_use(columns, day.requests, day.start_s, day.block_s, chosen, use)
    value = 0.0
    for columns, chosen in parts:
        cut = chosen.copy()
        cut_back(columns, day.requests, day.start_s, day.block_s, use, cut)
        value += float(day.worth[columns.request] @ cut)
    return value
