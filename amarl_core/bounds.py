"""How much any policy could accept at best, even one that knows the future: an upper bound by linear programming.

A policy accepts requests and commits a route for each; whatever it does, no resource is ever used beyond its limit,
so in no block of time is the average of its use beyond it. Dropping all else (that requests are accepted whole,
order of arrival, latency under load) leaves the linear program of `bound_master`, whose optimum no policy exceeds.

`bound` takes the requests that arrive in a window and gives them an empty network: more room than any policy has,
so it also bounds how many of them can be accepted in the course of the whole day, whatever came before.
"""

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

from amarl_core.bound_day import DayBound, day_bound
from amarl_core.bound_program import SEED_RULES, check_arguments, generate_columns, make_program
from amarl_core.errors import AmarlError
from amarl_core.evaluation import play_trace

__all__ = ["Bound", "DayBound", "bound", "day_bound"]


@dataclass(frozen=True)
class Bound:
    """An upper bound for the requests that arrive in a window.

    Attributes:
        upper: no policy accepts a greater share of the offered weight, 0 to 1.
        primal: value of the linear program that was reached, a share too; `upper` cannot fall below it.
        n_requests: requests that arrive in the window.
        start_s, end_s: the window, in s.
        block_s: length of a block.
        weight: what a request counts, one of WEIGHTS.
        iterations: rounds of pricing.
        seconds: wall-clock, seeding included.
        history: one row an iteration: seconds, upper, primal, columns, rows.
    """

    upper: float
    primal: float
    n_requests: int
    start_s: float
    end_s: float
    block_s: float
    weight: str
    iterations: int
    seconds: float
    history: pd.DataFrame

    @property
    def gap(self) -> float:
        """How far `upper` may be above the optimum of the linear program, as a share."""
        return self.upper - self.primal

    def as_row(self) -> dict[str, float | int | str]:
        """Return the figures as plain values, for a table or JSON."""
        names = (
            "upper",
            "primal",
            "gap",
            "n_requests",
            "start_s",
            "end_s",
            "block_s",
            "weight",
            "iterations",
            "seconds",
        )
        return {name: getattr(self, name) for name in names}


def bound(
    scenario,
    trace,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    weight: str = "requests",
    block_s: float = 120.0,
    seconds: float = 60.0,
) -> Bound:
    """Bound what any policy can accept of the requests that arrive in a window.

    Args:
        scenario: the world.
        trace: requests in order of arrival.
        start_s: start of the window in s; the first arrival by default.
        end_s: end of the window in s, exclusive; after the last arrival by default.
        weight: `requests` counts each as 1, `traffic` by demand x holding time.
        block_s: length of the blocks in s; shorter ones bound tighter and take longer.
        seconds: stop after so long (an iteration that has begun is finished).

    Raises:
        AmarlError: a value out of range, or a window without requests.
    """
    started = time.perf_counter()
    check_arguments(trace, weight=weight, block_s=block_s, seconds=seconds)
    start_s = float(trace.t_s[0]) if start_s is None else float(start_s)
    end_s = float(np.nextafter(trace.t_s[-1], np.inf)) if end_s is None else float(end_s)
    inside = trace[(trace.t_s >= start_s) & (trace.t_s < end_s)]
    if len(inside) == 0:
        raise AmarlError(
            f"no request of trace '{trace.name}' arrives from {start_s:g} s to {end_s:g} s; its arrivals are from "
            f"{trace.t_s[0]:g} s to {trace.t_s[-1]:g} s"
        )
    program = make_program(scenario, inside, weight, start_s, block_s)
    for rule in SEED_RULES:
        program.seed(scenario.network, play_trace(rule, inside, scenario=scenario).decisions)
    solution = generate_columns(program, seconds - (time.perf_counter() - started))
    return Bound(
        upper=solution.upper / program.total,
        primal=solution.primal / program.total,
        n_requests=len(inside),
        start_s=start_s,
        end_s=end_s,
        block_s=float(block_s),
        weight=weight,
        iterations=len(solution.history),
        seconds=time.perf_counter() - started,
        history=pd.DataFrame(solution.history),
    )
