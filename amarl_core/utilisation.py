"""How full links and pools were, hour by hour, from the decisions of a day; no simulator is asked.

An accepted request takes its demand on every link of its route and its stages' compute on their hosts, from its
arrival until its holding time is over. Mean use over an hour is exact (the time a request spends in the hour counts),
peak use is the highest at any moment of it. Reading and adding up are the audit's: integers, ceil(demand x rate / 10^6)
a stage. For a rule that moves flows the routes are the last ones of each flow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from amarl_core.errors import AmarlError
from amarl_core.replay import Uses, events_of, histories, limits, uses_of
from amarl_core.transcript import Decisions, read_decisions

HOUR_S = 3600.0
HOURS = 24


@dataclass(frozen=True)
class Utilisation:
    """Use of links and pools by hour, as shares of capacity and compute budget.

    Attributes:
        link_mean: float64 [H, E], mean over the hour.
        link_peak: float64 [H, E], highest in the hour; above 1 where a run in free order overbooked.
        node_mean: float64 [H, N], mean over the hour; nan for a node without compute.
        node_peak: float64 [H, N].
    """

    link_mean: np.ndarray
    link_peak: np.ndarray
    node_mean: np.ndarray
    node_peak: np.ndarray

    @property
    def busiest_hour(self) -> int:
        """The hour in which links and pools together are fullest on average."""
        return int(np.argmax(self.link_mean.mean(axis=1) + np.nanmean(self.node_mean, axis=1)))


def utilisation(
    decisions: pd.DataFrame, scenario: Any, service: str | None = None, first_s: float = 0.0, hours: int = HOURS
) -> Utilisation:
    """Measure the use of links and pools.

    Args:
        decisions: a row for each request, as `evaluate` returns it or as a decisions file holds it.
        scenario: the scenario whose identifiers they use.
        service: count this service's requests only; None counts all.
        first_s: when the first hour begins, s.
        hours: number of hours, H.

    Returns:
        Shares by hour.

    Raises:
        AmarlError: an unknown service, or a column is missing.
    """
    if service is not None and service not in scenario.service_ids:
        raise AmarlError(f"unknown service {service!r}; the scenario has {', '.join(scenario.service_ids)}")
    read = read_decisions(decisions, scenario)
    wanted = read.accepted.copy()
    if service is not None:
        wanted &= read.service == scenario.service_ids.index(service)
    uses = uses_of(read, scenario, wanted)
    edges = first_s + HOUR_S * np.arange(hours + 1)
    return _shares(scenario, _mean_use(read, uses, edges), _peak_use(read, uses, wanted, edges))


def _mean_use(d: Decisions, uses: Uses, edges: np.ndarray) -> np.ndarray:
    """Return the mean use of each resource between consecutive edges, float64 [R, H]."""
    begin, end = d.t_s[:, None], (d.t_s + d.hold_s)[:, None]
    spent = np.clip(np.minimum(end, edges[1:]) - np.maximum(begin, edges[:-1]), 0, None)  # [n, H], s
    takes = csr_matrix((uses.amount, uses.row, uses.start), shape=(len(uses.start) - 1, len(d)))
    return (takes @ spent) / np.diff(edges)


def _peak_use(d: Decisions, uses: Uses, wanted: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the highest use of each resource between consecutive edges, float64 [R, H].

    Departures come first at equal times.
    """
    rows = np.flatnonzero(wanted)
    time = np.concatenate([d.t_s[rows] + d.hold_s[rows], d.t_s[rows]])
    order = np.argsort(time, kind="stable")
    place = np.empty(len(time), np.int64)
    place[order] = np.arange(len(time))
    sign = np.repeat([-1, 1], len(rows))
    sorted_s = time[order]
    peak = np.zeros((len(uses.start) - 1, len(edges) - 1))
    for history in histories(uses, events_of(np.tile(rows, 2), sign, place, len(d))):
        at_s = sorted_s[history.place]
        first = np.searchsorted(at_s, edges, side="left")  # events before an edge belong to the hour before it
        used = np.concatenate([[0], history.used])
        for h in range(len(edges) - 1):
            peak[history.resource, h] = used[first[h] : first[h + 1] + 1].max()
    return peak


def _shares(scenario: Any, mean: np.ndarray, peak: np.ndarray) -> Utilisation:
    """Divide use by what there is."""
    n_links, limit = scenario.network.n_links, limits(scenario).astype(float)
    limit[limit == 0] = np.nan
    mean, peak = (mean / limit[:, None]).T, (peak / limit[:, None]).T
    return Utilisation(mean[:, :n_links], peak[:, :n_links], mean[:, n_links:], peak[:, n_links:])


def heaviest_links(used: Utilisation, scenario: Any, n: int = 12) -> pd.DataFrame:
    """List the links that are fullest in their own busiest hour.

    Returns:
        Columns link, capacity_gbps, delay_ms, busiest_hour, mean_busiest, peak, mean_day (shares), fullest first.
    """
    network = scenario.network
    hour = used.link_mean.argmax(axis=0)  # [E]
    busiest = used.link_mean.max(axis=0)
    frame = pd.DataFrame(
        {
            "link": network.link_ids,
            "capacity_gbps": network.capacity_kbps / 1e6,
            "delay_ms": network.delay_ms,
            "busiest_hour": hour,
            "mean_busiest": busiest,
            "peak": used.link_peak.max(axis=0),
            "mean_day": used.link_mean.mean(axis=0),
        }
    )
    return frame.sort_values("mean_busiest", ascending=False, kind="stable").head(n).reset_index(drop=True)
