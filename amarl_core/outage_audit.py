"""The independent check of a day with an outage: who was dropped, what was offered again, and what was in use when.

``audit`` replays such a day as any other, dropped flows released when they were dropped. What it cannot know is that
some resources had no capacity for a while: that is checked here, by a sweep over the events of each resource in
simulated time, from the decisions alone. No code of the simulator is used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from amarl_core.replay import Uses, events_of, histories, limits, uses_of
from amarl_core.transcript import Decisions, read_decisions

OUTAGE_RULES = {
    "capacity": "no link or pool is ever beyond what it has; one that has failed has nothing",
    "dropped": "a flow is dropped if and only if it is active on a failed resource when it fails",
    "again": "every dropped flow is offered again at the failure, once, with what is left of its holding time",
}
TIME_TOLERANCE_S = 1e-6


def check_outage(
    scenario: Any, decisions: pd.DataFrame, resources: np.ndarray, starts_s: float, ends_s: float, offered: Any
) -> dict[str, int]:
    """Count what breaks each of `OUTAGE_RULES` in a served day.

    Args:
        scenario: The scenario.
        decisions: All requests of the day, with columns dropped (bool) and offered_again (id of the dropped request,
            -1 for an arrival); a dropped flow's hold_s ends when it is dropped.
        resources: int[k], what failed: links e as e, nodes v as E + v.
        starts_s: When it failed.
        ends_s: When it was repaired.
        offered: The trace as it was before anything was dropped.

    Returns:
        The number of violations of each rule: events beyond capacity, flows, and flows.
    """
    read = read_decisions(decisions, scenario)
    uses = uses_of(read, scenario, read.accepted)
    dropped = decisions["dropped"].to_numpy(bool)
    again = decisions["offered_again"].to_numpy(np.int64)
    whole_s = _whole_hold(decisions, offered)
    return {
        "capacity": _over_capacity(read, uses, limits(scenario), resources, starts_s, ends_s),
        "dropped": _wrongly_dropped(read, uses, dropped, whole_s, resources, starts_s),
        "again": _wrongly_offered(decisions, dropped, again, whole_s, starts_s),
    }


def _whole_hold(decisions: pd.DataFrame, offered: Any) -> np.ndarray:
    """Return the holding time that each request was offered with, float64[n]; its own if it is no arrival."""
    asked = pd.Series(offered.hold_s, index=offered.request_id)
    return decisions["request_id"].map(asked).fillna(decisions["hold_s"]).to_numpy()


def _over_capacity(
    d: Decisions, uses: Uses, limit: np.ndarray, resources: np.ndarray, starts_s: float, ends_s: float
) -> int:
    """Count the events after which a resource is beyond what it has at that time; departures come first."""
    rows = np.flatnonzero(d.accepted)
    time = np.concatenate([d.t_s[rows] + d.hold_s[rows], d.t_s[rows]])
    order = np.argsort(time, kind="stable")
    place = np.empty(len(time), np.int64)
    place[order] = np.arange(len(time))
    sign, sorted_s, over = np.repeat([-1, 1], len(rows)), time[order], 0
    for history in histories(uses, events_of(np.tile(rows, 2), sign, place, len(d))):
        over += int((history.used > limit[history.resource]).sum())
        if history.resource in resources:
            at_s = sorted_s[history.place]
            after = np.searchsorted(at_s, starts_s, side="right")  # events at the failure belong to the time before
            until = np.searchsorted(at_s, ends_s, side="left")
            left = history.used[after - 1] if after > 0 else 0
            over += int(left > 0) + int((history.used[after:until] > 0).sum())
    return over


def _wrongly_dropped(
    d: Decisions, uses: Uses, dropped: np.ndarray, whole_s: np.ndarray, resources: np.ndarray, starts_s: float
) -> int:
    """Count flows that were dropped and should not, or should and were not, or not at that moment."""
    takes = np.zeros(len(d), bool)
    for resource in resources:
        takes[uses.row[uses.start[resource] : uses.start[resource + 1]]] = True
    was_active = d.accepted & (d.t_s < starts_s) & (d.t_s + whole_s > starts_s)
    late = dropped & (np.abs(d.t_s + d.hold_s - starts_s) > TIME_TOLERANCE_S)
    return int(((takes & was_active) != dropped).sum() + late.sum())


def _wrongly_offered(
    decisions: pd.DataFrame, dropped: np.ndarray, again: np.ndarray, whole_s: np.ndarray, starts_s: float
) -> int:
    """Count dropped flows that were not offered again just once, and requests that are not what was dropped."""
    wrong = int(pd.Index(again[again >= 0]).duplicated().sum())
    same = ["service", "source", "destination", "demand_kbps", "t_s", "left_s"]
    ends_s = decisions["t_s"] + whole_s
    first = decisions.assign(left_s=ends_s - starts_s, t_s=starts_s)[dropped].set_index("request_id")
    second = decisions.assign(left_s=decisions["hold_s"], request_id=again)[again >= 0].set_index("request_id")
    wrong += len(first.index.symmetric_difference(second.index))
    both = first.index.intersection(second.index)
    first, second = first.loc[both, same], second[~second.index.duplicated()].loc[both, same]
    differs = np.zeros(len(both), bool)
    for column in same:
        a, b = first[column].to_numpy(), second[column].to_numpy()
        is_number = np.issubdtype(np.asarray(a).dtype, np.number)
        differs |= np.abs(a - b) > TIME_TOLERANCE_S if is_number else a.astype(str) != b.astype(str)
    return wrong + int(differs.sum())
