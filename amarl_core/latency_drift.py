"""Latency after admission: a flow that met its bound may exceed it when others load the nodes it runs on.

A route is admitted when its links' delays and its stages' processing, processing_ms / (1 - rho_v) at the utilisation of
that moment, stay within the bound. Later rho_v moves, up to the cap on compute. Here the latency of every accepted flow
is computed again at every tick (each minute unless told otherwise), from decisions alone, with its own use included.
Ticks do not depend on the flows, so a flow that is there at a tick stands for one tick's length of flow-time; what
lasts beyond the last day is not counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from amarl_core.replay import uses_of
from amarl_core.transcript import Decisions, read_decisions

TICK_S = 60.0
DAY_S, HOUR_S = 86_400.0, 3600.0
_AT_ONCE = 500_000


def latency_drift(decisions: pd.DataFrame, scenario: Any, tick_s: float = TICK_S) -> pd.DataFrame:
    """Measure how long accepted flows are over their bound, by service and hour.

    Args:
        decisions: A row for each request, as `evaluate` returns it.
        scenario: The scenario whose identifiers they use.
        tick_s: How often latencies are looked at, s.

    Returns:
        One row a service and hour of the day: flow_s, over_s (flow-time, and that over the bound, s) and excess_ms
        (mean of what is over, nan if nothing is).
    """
    read = read_decisions(decisions, scenario)
    n_ticks = int(np.ceil(max(read.t_s.max(initial=0.0), 1.0) / DAY_S) * DAY_S / tick_s)
    rho = utilisation_at_ticks(read, scenario, tick_s, n_ticks)  # [N, T]
    first, end = _alive(read, tick_s, n_ticks)
    links_ms = np.zeros(len(read))
    np.add.at(links_ms, read.links.row, scenario.network.delay_ms[read.links.code])
    flow_s, over_s, excess = (np.zeros((len(scenario.service_ids), 24)) for _ in range(3))
    for rows in _parts(np.where(read.accepted, end - first, 0)):
        row, tick = _spread(rows, first, end, read.accepted)
        over_ms = _latency_ms(read, scenario, rho, links_ms, row, tick) - scenario.latency_ms[read.service[row]]
        is_over = over_ms > 1e-9
        cell = (read.service[row], (tick * tick_s % DAY_S // HOUR_S).astype(int))
        np.add.at(flow_s, cell, tick_s)
        np.add.at(over_s, cell, tick_s * is_over)
        np.add.at(excess, cell, tick_s * is_over * over_ms)
    services, hours = np.meshgrid(scenario.service_ids, np.arange(24), indexing="ij")
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = {"flow_s": flow_s, "over_s": over_s, "excess_ms": excess / over_s}
    table = {"service": services, "hour": hours} | columns
    return pd.DataFrame({name: values.ravel() for name, values in table.items()})


def utilisation_at_ticks(read: Decisions, scenario: Any, tick_s: float, n_ticks: int) -> np.ndarray:
    """Return used over raw compute (rho_v) at each tick, float64 [N, T]."""
    uses, n_links = uses_of(read, scenario, read.accepted), scenario.network.n_links
    first, end = _alive(read, tick_s, n_ticks)
    at_node = slice(uses.start[n_links], uses.start[-1])
    node = np.repeat(np.arange(scenario.network.n_nodes), np.diff(uses.start[n_links:]))
    row, amount = uses.row[at_node], uses.amount[at_node]
    change = np.zeros((scenario.network.n_nodes, n_ticks + 1), np.int64)
    np.add.at(change, (node, first[row]), amount)
    np.add.at(change, (node, end[row]), -amount)
    raw = scenario.network.compute_mcpu[:, None]
    return np.cumsum(change, axis=1)[:, :n_ticks] / np.where(raw > 0, raw, 1)


def _alive(read: Decisions, tick_s: float, n_ticks: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first tick at which each request is there, and the first at which it is gone, int64 [n] each."""
    edges = (np.ceil(time / tick_s).clip(0, n_ticks) for time in (read.t_s, read.t_s + read.hold_s))
    first, end = (edge.astype(np.int64) for edge in edges)
    return first, end


def _parts(ticks: np.ndarray) -> list[np.ndarray]:
    """Cut the requests, which are there for so many ticks each, into parts of about `_AT_ONCE` pairs."""
    n = max(1, int(ticks.sum()) // _AT_ONCE)
    return np.array_split(np.arange(len(ticks)), n)


def _spread(
    rows: np.ndarray, first: np.ndarray, end: np.ndarray, accepted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return every pair of an accepted request among `rows` and a tick at which it is there, int64 [m] each."""
    rows = rows[accepted[rows]]
    count = end[rows] - first[rows]
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(rows, count), np.repeat(first[rows], count) + within


def _latency_ms(
    read: Decisions, scenario: Any, rho: np.ndarray, links_ms: np.ndarray, row: np.ndarray, tick: np.ndarray
) -> np.ndarray:
    """Return the end-to-end latency of request `row` at `tick`, float64 [m]."""
    latency = links_ms[row].copy()
    for stage in range(scenario.chains.shape[1]):
        has = read.hosts.length[row] > stage
        node = read.hosts.code[read.hosts.start[row[has]] + stage]
        function = scenario.chains[read.service[row[has]], stage]
        latency[has] += scenario.processing_ms[function] / (1 - rho[node, tick[has]])
    return latency
