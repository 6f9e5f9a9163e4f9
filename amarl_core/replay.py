"""Replay of a ledger: the use of every resource, event by event, from an empty network.

Plain numpy, and none of the compiled kernels: a run is judged in other code than made it.

A *resource* is a link or a node's compute: resource e is link e (kbps), resource E + v is node v (mcpu). Each
one is replayed on its own: its takings and givings, in order, and their running sum, all in integers. That
needs little memory, and one resource's history fits in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from amarl_core.transcript import Decisions


class Uses(NamedTuple):
    """What each request takes of each resource, sorted by resource, then row; a pair occurs once."""

    start: np.ndarray  # int64[R + 1]: resource r has entries start[r]:start[r + 1]
    row: np.ndarray  # int32[u]
    amount: np.ndarray  # int64[u], kbps or millicores

    def resource_of(self, entry: np.ndarray) -> np.ndarray:
        """Return the resource of each entry, int64[k]."""
        return np.searchsorted(self.start, entry, side="right") - 1


def uses_of(decisions: Decisions, scenario: Any, wanted: np.ndarray) -> Uses:
    """Add up what the wanted requests take: constraints (1) and (2), left-hand sides.

    A link takes the demand as often as the route crosses it; a host takes ceil(demand x rate / 10^6) for its
    stage, in integers. Unknown identifiers, and nodes that do not host the stage, take nothing.

    Args:
        decisions: All decisions, n rows.
        scenario: The scenario.
        wanted: bool[n], the requests whose route is used.
    """
    parts = [_uses_in(block, scenario, wanted[rows], rows.start) for rows, block in decisions.blocks()]
    resource, row, amount = (np.concatenate(column) for column in zip(*parts, strict=True))
    del parts
    order = np.argsort(resource, kind="stable")
    count = np.bincount(resource, minlength=len(limits(scenario)))
    return Uses(np.concatenate([[0], np.cumsum(count)]), row[order], amount[order])


def _uses_in(
    d: Decisions, scenario: Any, wanted: np.ndarray, first_row: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return resource, row and amount of a block's uses, by row within each resource, a pair once."""
    rate = stage_rates(d, scenario)
    link_row, host_row = d.links.row, d.hosts.row
    on_link, on_host = wanted[link_row] & (d.links.code >= 0), wanted[host_row] & (rate >= 0)
    link_row, host_row = link_row[on_link], host_row[on_host]
    computes = -(-d.demand_kbps[host_row] * rate[on_host] // 1_000_000)
    row = np.concatenate([link_row, host_row])
    amount = np.concatenate([d.demand_kbps[link_row], computes])
    resource = _narrow(np.concatenate([d.links.code[on_link], _n_links(scenario) + d.hosts.code[on_host]]))
    order = np.argsort(resource, kind="stable")
    resource, row, amount = resource[order], row[order], amount[order]
    if len(row):
        first = np.flatnonzero(np.r_[True, (np.diff(row) != 0) | (np.diff(resource) != 0)])
        resource, row, amount = resource[first], row[first], np.add.reduceat(amount, first)
    return resource, row + np.int32(first_row), amount


def stage_rates(decisions: Decisions, scenario: Any) -> np.ndarray:
    """Return the compute rate of each host for its stage (paper: c_v,f), millicores per Gb/s, int64[m].

    It is -1 where the node does not host the stage's function, or the chain has no such stage.
    """
    stage = decisions.hosts.position
    service, node = decisions.service[decisions.hosts.row], decisions.hosts.code
    exists = (service >= 0) & (node >= 0) & (stage < scenario.chains.shape[1])
    function = np.full(len(node), -1)
    function[exists] = scenario.chains[service[exists], stage[exists]]
    exists &= function >= 0
    rate = np.full(len(node), -1, np.int64)
    rate[exists] = scenario.rate_mcpu_per_gbps[node[exists], function[exists]]
    return rate


def limits(scenario: Any) -> np.ndarray:
    """Return what each resource has: capacity (paper: C_e), then budget (paper: kappa_v), int64[R]."""
    return np.concatenate([scenario.network.capacity_kbps, scenario.budget_mcpu]).astype(np.int64)


class Events(NamedTuple):
    """Takings (+1) and givings (-1) of whole requests, grouped by request."""

    place: np.ndarray  # int64[k], position in the order replayed; no two events share one
    sign: np.ndarray  # int8[k]
    start: np.ndarray  # int64[n + 1]: request i has events start[i]:start[i + 1]


def events_of(row: np.ndarray, sign: np.ndarray, place: np.ndarray, n_requests: int) -> Events:
    """Group k events by request.

    Args:
        row: int[k], the request of each.
        sign: int[k], +1 takes and -1 gives back.
        place: int[k], position of each in the order to be replayed.
        n_requests: Number of requests.
    """
    order = np.argsort(row, kind="stable")
    return Events(place[order], sign[order].astype(np.int8), np.searchsorted(row[order], np.arange(n_requests + 1)))


class History(NamedTuple):
    """The use of one resource, event by event."""

    resource: int
    place: np.ndarray  # int64[k], ascending
    row: np.ndarray  # int32[k], the request
    is_taking: np.ndarray  # bool[k]
    used: np.ndarray  # int64[k], after the event

    def used_at(self, place: np.ndarray) -> np.ndarray:
        """Return the use after the last event at or before each place, int64[q]; 0 before the first."""
        used = np.concatenate([[0], self.used])
        last = int(place.max(initial=0))
        if 8 * len(place) < last or place.min(initial=0) < 0:
            return used[np.searchsorted(self.place, place, side="right")]
        # With many questions, writing the answer for every place is quicker than searching each one.
        known = int(np.searchsorted(self.place, last, side="right"))
        return np.repeat(used[: known + 1], np.diff(self.place[:known], prepend=0, append=last + 1))[place]


def histories(uses: Uses, events: Events) -> Iterator[History]:
    """Replay one resource after the other from an empty network; those never used are left out."""
    for resource in np.flatnonzero(np.diff(uses.start)):
        group = slice(uses.start[resource], uses.start[resource + 1])
        row = uses.row[group]
        first, count = events.start[row], events.start[row + 1] - events.start[row]
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        event = np.repeat(first, count) + within  # int64[k]: every event of every request that uses it
        order = np.argsort(events.place[event])
        event = event[order]
        taking = events.sign[event]
        used = np.cumsum(np.repeat(uses.amount[group], count)[order] * taking)
        yield History(int(resource), events.place[event], np.repeat(row, count)[order], taking > 0, used)


class Question:
    """How much of a resource was used at a place in the order? q of them, answered as its history passes by.

    Attributes:
        used: The answers, int64[q]; 0 for a resource that nobody ever used.
    """

    def __init__(self, resource: np.ndarray, place: np.ndarray) -> None:
        resource = _narrow(resource)
        self._order = np.argsort(resource, kind="stable").astype(np.uint32)
        # Questions about an unknown resource, -1, are answered with those about the first; nobody reads them.
        self._first = np.concatenate([[0], np.cumsum(np.bincount(np.maximum(resource, 0)))])
        self._place = place
        self.used = np.zeros(len(place), np.int64)

    def listen(self, history: History) -> None:
        """Answer the questions about this history's resource."""
        if history.resource + 1 < len(self._first):
            asked = self._order[self._first[history.resource] : self._first[history.resource + 1]]
            self.used[asked] = history.used_at(self._place[asked])


def simulated_time(
    decisions: Decisions, uses: Uses, committed: np.ndarray, limit: np.ndarray
) -> tuple[np.ndarray, float]:
    """Replay the admissions in simulated time, where a run in free order may be over capacity.

    Departures come first at equal times.

    Args:
        decisions: n rows.
        uses: What they take.
        committed: int[k], rows of the admitted requests.
        limit: int64[R], see ``limits``.

    Returns:
        bool[n], the requests after whose admission a resource they use is over its limit; and the peak, the
        highest use of any resource as a share of its limit.
    """
    rows = committed[np.lexsort((decisions.request_id[committed], decisions.t_s[committed]))]
    time = np.concatenate([decisions.t_s[rows] + decisions.hold_s[rows], decisions.t_s[rows]])
    place = np.empty(len(time), np.int64)
    place[np.argsort(time, kind="stable")] = np.arange(len(time))
    sign = np.repeat([-1, 1], len(rows))
    overbooked, peak = np.zeros(len(decisions), bool), 0.0
    for history in histories(uses, events_of(np.tile(rows, 2), sign, place, len(decisions))):
        if len(history.used):
            overbooked[history.row[history.is_taking & (history.used > limit[history.resource])]] = True
            most = int(history.used.max())
            peak = max(peak, most / limit[history.resource] if limit[history.resource] else np.inf * (most > 0))
    return overbooked, float(peak)


def _n_links(scenario: Any) -> int:
    return len(scenario.network.link_ids)


def _narrow(resource: np.ndarray) -> np.ndarray:
    """Return resource numbers in sixteen bits where they fit: numpy then sorts them by counting."""
    return resource.astype(np.int16 if resource.max(initial=0) < 2**15 else np.int32)
