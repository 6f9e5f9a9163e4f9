"""Flows in progress: what a simulation ends with, and another begins with.

`long_runs` cuts a trace in chunks and `outages` a day in parts; both begin a fresh simulation with flows that are
already in the store and on the heap of departures, as its first requests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amarl_core.arena import CLAIMED, LIMIT, TURN
from amarl_core.simulation import Simulation
from amarl_core.store import VERSION
from amarl_core.traces import Trace


@dataclass(frozen=True)
class Carried:
    """What goes on: c active flows, and p requests planned ahead of their turn.

    Attributes:
        flows: the flows' requests; None before the first chunk.
        records: rows, links and hosts of the flows, then of the planned requests, [c + p, ...].
        t_s: float64[c], the heap of departures.
        row: int64[c], its flows, by their place here.
        used: int64[R], kbps and millicores; None before the first chunk.
        version: of the store.
    """

    flows: Trace | None
    records: tuple[np.ndarray, ...]
    t_s: np.ndarray
    row: np.ndarray
    used: np.ndarray | None
    version: int

    @property
    def n_flows(self) -> int:
        """Number of active flows, c."""
        return len(self.t_s)


NOTHING = Carried(None, (), np.zeros(0), np.zeros(0, np.int64), None, 0)


def restore(simulation: Simulation, carried: Carried, n_own: int) -> None:
    """Put a fresh simulation where another one stopped.

    Args:
        simulation: its requests are the flows, `n_own` that it decides, and those it may plan ahead.
        carried: what the other one ended with.
        n_own: requests to be decided.
    """
    arena, c = simulation.arena, carried.n_flows
    arena.gate.state[[TURN, CLAIMED, LIMIT]] = c, c, c + n_own
    simulation.agents[0].stream["cursor"] = c  # of a rule
    if carried.used is None:
        return
    n_kept = len(carried.records[0])
    arena.gate.state[CLAIMED] = n_kept
    for table, kept in zip(tables_of(simulation), carried.records, strict=True):
        table[:n_kept] = kept
    arena.records.planned[c:n_kept] = 1
    arena.departures.t_s[:c], arena.departures.row[:c] = carried.t_s, carried.row
    arena.n_departures[0] = c
    arena.shared.used[:] = carried.used
    arena.shared.control[VERSION] = carried.version


def tables_of(simulation: Simulation) -> tuple[np.ndarray, ...]:
    """Return the records of all requests: rows, links and hosts."""
    records = simulation.arena.records
    return records.rows, records.links, records.hosts
