"""How long a decision and a commit take on real threads, and what one lock around the whole routing would cost.

Optimistic, as everywhere else: plans are made on snapshots, the store's lock is held for the commit alone, and a commit
that finds no room aborts. Pessimistic: one at a time. In free order a thread holds one lock from its snapshot to its
commit, so that none can abort; in order of arrival a request is planned only when it is its turn (window 0). Departures
take the store's lock alone in both.
"""

import logging
from collections.abc import Iterable

import numpy as np
import pandas as pd

from amarl_core.evaluation import EVAL_ATTEMPTS, EVAL_LAG_S, EVAL_WINDOW
from amarl_core.simulation import Simulation, options_for, play
from amarl_core.store import LOCK_WAIT_NS

log = logging.getLogger(__name__)

THREADS = (1, 2, 6)
LOCKS = ("optimistic", "pessimistic")
ORDERS = ("free", "arrival")
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
KINDS = ("decision", "hop", "commit", "request")
"""What is timed: the route of a request (all hops and attempts, snapshots included), that divided by its hops, its
commits with their wait for the lock, and all of it with the wait for the lock of the whole routing."""


def serve_timed(run, trace, order: str, lock: str, n_threads: int) -> tuple[dict, pd.DataFrame]:
    """Serve a trace once with clocks on every request.

    Args:
        run: a trained team.
        trace: requests in order of arrival.
        order: `free` or `arrival`.
        lock: one of `LOCKS`.
        n_threads: at most one for each agent.

    Returns:
        A row of wall_s, cpu_s, routing_wait_s and store_wait_s (all threads), aborts (per 100 requests) and gos (%);
        and `quantiles_us` of the run.
    """
    is_locked = lock == "pessimistic"
    window = 0 if is_locked and order == "arrival" else EVAL_WINDOW
    options = options_for(
        run.config,
        attempts=EVAL_ATTEMPTS,
        lag_s=EVAL_LAG_S,
        window=window,
        locks_routing=is_locked and order == "free",
    )
    simulation = Simulation(run.scenario, run.world, trace, run.team, run.nets, options, is_timed=True)
    clocked = play(simulation, order, n_threads)
    arena = simulation.arena
    conflicts = sum(int(agent.stream["conflicts"][0]) for agent in simulation.agents)
    row = {
        "wall_s": clocked.wall_s,
        "cpu_s": clocked.cpu_s,
        "routing_wait_s": arena.times["routing_wait_ns"].sum() / 1e9,
        "store_wait_s": arena.shared.control[LOCK_WAIT_NS] / 1e9,
        "aborts": 100 * conflicts / max(len(trace), 1),
        "gos": 100 * float((arena.records.rows["commit_version"] >= 0).mean()),
        "requests": len(trace),
    }
    return row, quantiles_us(arena.times, arena.records.rows["n_links"])


def quantiles_us(times: np.ndarray, n_links: np.ndarray) -> pd.DataFrame:
    """Return p50, p90, p99, max (µs) and n of what is timed.

    Args:
        times: arena.TIMES[n].
        n_links: int64[n], hops of each request's last route.
    """
    plan, commit = times["plan_ns"], times["commit_ns"]
    values = {
        "decision": plan,
        "hop": plan[n_links > 0] / n_links[n_links > 0],
        "commit": commit[commit > 0],
        "request": plan + commit + times["routing_wait_ns"],
    }
    rows = []
    for kind in KINDS:
        found = {name: np.quantile(values[kind], q) / 1e3 if len(values[kind]) else np.nan
                 for name, q in QUANTILES.items()}  # fmt: skip
        rows.append({"kind": kind, "n": len(values[kind])} | found)
    return pd.DataFrame(rows)


def measure(
    runs: Iterable, trace, repeats: int, threads: tuple[int, ...] = THREADS
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Time every run in both orders, with both locks and several numbers of threads, in turn.

    Returns:
        A row a serving (method, seed, day, order, lock, threads, repeat, and the columns of `serve_timed`), and the
        quantiles of each.
    """
    rows, tables = [], []
    for run in runs:
        counts = sorted({min(n, len(run.team.agents)) for n in threads})
        locks = LOCKS if len(run.team.agents) > 1 else LOCKS[:1]  # one agent has nobody to lock out
        for order in ORDERS:
            for lock in locks:
                serve_timed(run, trace.head(500), order, lock, counts[-1])  # warm
            for repeat in range(repeats):
                for n_threads in counts:
                    for lock in locks if repeat % 2 == 0 else locks[::-1]:
                        about = dict(method=run.method, seed=run.seed, day=trace.name, order=order, lock=lock)
                        about |= dict(threads=n_threads, repeat=repeat)
                        row, table = serve_timed(run, trace, order, lock, n_threads)
                        rows.append(about | row)
                        tables.append(table.assign(**about))
            log.info("timed %s in %s order, %d servings", run.method, order, len(rows))
    return pd.DataFrame(rows), pd.concat(tables, ignore_index=True)
