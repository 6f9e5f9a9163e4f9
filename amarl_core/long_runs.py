"""Serving of long traces in chunks, with memory that does not grow with the number of requests.

Every chunk is a simulation of its own. Its first rows are the flows that are still active from before, already in the
store and on the heap of departures; its decisions and its part of the ledger are a row group of the records, written as
soon as the chunk is served. On one thread the records equal those of serving the trace in one piece, bit for bit.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from amarl_core.baselines import Baseline
from amarl_core.carried import NOTHING, Carried, restore, tables_of
from amarl_core.errors import AmarlError
from amarl_core.evaluation import EVAL_ATTEMPTS, EVAL_WINDOW
from amarl_core.record_files import RecordFiles
from amarl_core.rule_play import play_rule
from amarl_core.rule_routes import EXACT, WIDEST
from amarl_core.simulation import Clocked, Simulation, decisions_frame, options_for, play
from amarl_core.store import VERSION
from amarl_core.trace_chunks import with_next
from amarl_core.traces import Trace, join

log = logging.getLogger(__name__)

LONG_ORDERS = ("arrival", "pipeline")
"""Commit orders in which there is a moment between two requests at which a chunk may end."""


@dataclass
class Served:
    """What serving a long trace came to; its decisions and ledger are on disk.

    Attributes:
        requests: Requests decided.
        accepted: Requests accepted.
        steps: Decisions asked of the policy.
        conflicts: Aborted commits.
        ledger_rows: Rows of the ledger.
        clocked: Wall and CPU seconds of serving, without reading the trace and writing the records.
        chunks: A row for each chunk: requests and ledger rows so far, flows active at its end, wall_s, peak_rss_mb of
            this process so far.
    """

    requests: int = 0
    accepted: int = 0
    steps: int = 0
    conflicts: int = 0
    ledger_rows: int = 0
    clocked: Clocked = Clocked(0.0, 0.0)
    chunks: list[dict] = field(default_factory=list)

    @property
    def gos(self) -> float:
        """Grade of service in percent."""
        return 100.0 * self.accepted / max(self.requests, 1)

    def frame(self) -> pd.DataFrame:
        """Return the rows of the chunks as a table."""
        return pd.DataFrame(self.chunks)


def record_paths(folder: str | Path, name: str) -> tuple[Path, Path]:
    """Return where the decisions and the ledger of a long trace are kept."""
    return Path(folder) / f"decisions_{name}.parquet", Path(folder) / f"ledger_{name}.parquet"


def serve_in_chunks(
    policy,
    chunks: Iterable[Trace],
    folder: str | Path,
    name: str,
    *,
    order: str = "arrival",
    attempts: int = EVAL_ATTEMPTS,
    window: int = EVAL_WINDOW,
    scenario=None,
    on_chunk: Callable[[Served], None] = lambda served: None,
) -> Served:
    """Serve a long trace from an empty network, chunk by chunk, and write its records as it goes.

    Args:
        policy: a run, or a `baselines.baseline(...)` that searches for every request anew.
        chunks: the requests in order of arrival, in pieces (`trace_chunks`); one piece is in memory at a time, and the
            next one.
        folder: where `decisions_<name>.parquet` and `ledger_<name>.parquet` appear, together, at the end.
        name: of the records.
        order: `arrival`, or `pipeline` on one thread; a rule serves in order of arrival.
        attempts: plans of one request at most.
        window: how many requests ahead of its turn a request may be planned.
        scenario: the world of a baseline.
        on_chunk: called after each chunk.

    Raises:
        AmarlError: an order in which agents stand at different times, or a rule that looks at more than one request.
    """
    _check(policy, order, scenario)
    served, carried = Served(), NOTHING
    with RecordFiles(*record_paths(folder, name)) as files:
        for chunk, following in with_next(chunks, max(window, 1)):
            ahead = chunk[:0] if following is None else following[: max(window, 1)]
            trace = join([part for part in (carried.flows, chunk, ahead) if part is not None], chunk.name)
            n_flows = carried.n_flows

            def begin(simulation: Simulation, carried: Carried = carried, n: int = len(chunk)) -> None:
                restore(simulation, carried, n)

            if isinstance(policy, Baseline):
                simulation, clocked, _ = play_rule(policy, scenario, trace, begin)
            else:
                options = options_for(policy.config, attempts=attempts, window=window)
                simulation = Simulation(policy.scenario, policy.world, trace, policy.team, policy.nets, options)
                begin(simulation)
                clocked = play(simulation, order)
            decisions = decisions_frame(simulation, np.arange(n_flows, n_flows + len(chunk)))
            ledger = simulation.ledger()
            files.append(decisions, ledger.assign(seq=ledger["seq"] + served.ledger_rows))
            carried = _carry(simulation, n_flows + len(chunk))
            _count(served, simulation, decisions, ledger, clocked, carried)
            on_chunk(served)
    return served


def _check(policy, order: str, scenario) -> None:
    """Refuse what cannot be cut at a request."""
    if order not in LONG_ORDERS:
        expected = " or ".join(LONG_ORDERS)
        raise AmarlError(f"order is {order!r}; a trace is served in chunks in the order {expected}, else in one piece")
    if isinstance(policy, Baseline):
        one_by_one = policy.method in (EXACT, WIDEST) and not {"window_s", "moves"} & set(policy.settings)
        if not one_by_one:
            raise AmarlError(
                f"rule {policy.name!r} looks at more than the request and the network's state (a list, a window, moved "
                "flows or its place in the trace); serve it in one piece with play_trace"
            )
        if scenario is None:
            raise AmarlError("a baseline needs scenario=...; a trained run brings its own")


def _carry(simulation: Simulation, end: int) -> Carried:
    """Return what goes on after the request in row `end` - 1."""
    arena = simulation.arena
    n = int(arena.n_departures[0])
    heap = arena.departures.row[:n]
    rows = np.sort(heap)
    ahead = end + np.flatnonzero(arena.records.planned[end : len(arena.requests)])
    kept = np.concatenate([rows, ahead])
    return Carried(
        simulation.trace[rows],
        tuple(table[kept] for table in tables_of(simulation)),
        arena.departures.t_s[:n].copy(),
        np.searchsorted(rows, heap),
        arena.shared.used.copy(),
        int(arena.shared.control[VERSION]),
    )


def _count(
    served: Served,
    simulation: Simulation,
    decisions: pd.DataFrame,
    ledger: pd.DataFrame,
    clocked: Clocked,
    carried: Carried,
) -> None:
    """Add a chunk to the sums."""
    streams = np.concatenate([agent.stream for agent in simulation.agents])
    served.requests += len(decisions)
    served.accepted += int(decisions["accepted"].sum())
    served.steps += int(streams["steps"].sum())
    served.conflicts += int(streams["conflicts"].sum())
    served.ledger_rows += len(ledger)
    served.clocked = Clocked(served.clocked.wall_s + clocked.wall_s, served.clocked.cpu_s + clocked.cpu_s)
    served.chunks.append(
        {
            "requests": served.requests,
            "ledger_rows": served.ledger_rows,
            "active": carried.n_flows,
            "wall_s": served.clocked.wall_s,
            "peak_rss_mb": peak_rss_mb(),
        }
    )
    log.info("%d requests, GoS %.2f %%, %d flows active", served.requests, served.gos, carried.n_flows)


def peak_rss_mb() -> float:
    """Return the most memory this process has had so far, in MB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
