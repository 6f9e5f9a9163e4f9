"""Tables on how long decisions and commits take, and on what one lock around the whole routing would cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from amarl_core.disruption_records import load_disruptions, lock_ratio, not_measured
from amarl_core.look import Note, Table, method_name, with_interval
from amarl_core.reaction import LOCKS, QUANTILES
from amarl_core.stats import bootstrap_ci

NEAR_RT_US = 10_000.0
"""Shortest control loop of a near-real-time RIC, 10 ms to 1 s (O-RAN Architecture Description, O-RAN.WG1.OAD, control
loops; ETSI TS 103 982)."""

SHOWN = {"decision": "route", "hop": "a hop", "commit": "commit"}


def decision_table(folder: Path) -> Table | Note:
    """p50, p90, p99 and longest time of a route, a hop and a commit, a row for each order and number of threads."""
    times = load_disruptions(folder, "times")
    if times is None:
        return not_measured(folder)
    optimistic = times[times["lock"] == LOCKS[0]]
    lines = []
    for (method, order, threads), way in optimistic.groupby(["method", "order", "threads"], sort=False):
        found = way.groupby("kind")[list(QUANTILES)].median()
        cells = [" / ".join(_brief(value) for value in found.loc[kind]) for kind in SHOWN]
        margin = f"{NEAR_RT_US / found.loc['request', 'p99']:,.0f}"
        lines.append([method_name(method), f"{order}, {threads}", *cells, margin])
    names = ["method", "order, threads", *(f"{name}, µs" for name in SHOWN.values()), "10 ms over p99"]
    caption = (
        f"{' / '.join(QUANTILES)} of the route of a request, a hop of it, and its commit; medians over "
        f"{optimistic['repeat'].nunique()} servings of "
        f"{', '.join(sorted(set(optimistic['day'])))}; every request is timed, waiting for the lock and for the core "
        "included, so with more threads than cores the longest are the operating system's slices of time. In order of "
        "arrival the wait for its turn is not part of it. The near-real-time RIC's control loop takes 10 ms to 1 s "
        "(O-RAN Architecture Description; ETSI TS 103 982)."
    )
    return Table(pd.DataFrame(lines, columns=names), caption, ("order, threads",))


def _brief(microseconds: float) -> str:
    digits = 0 if microseconds >= 10 else 1 if microseconds >= 1 else 2
    return f"{microseconds:,.{digits}f}"


def lock_table(folder: Path) -> Table | Note:
    """Optimistic commit against one lock around the whole routing, by order and number of threads."""
    locks = load_disruptions(folder, "locks")
    if locks is None:
        return not_measured(folder)
    lines = []
    mine = locks[locks["method"] == "amarl"]
    for (order, threads), part in mine.groupby(["order", "threads"], sort=False):
        by_lock = part.groupby("lock")[["wall_s", "aborts", "gos", "routing_wait_s"]].median()
        open_, locked = by_lock.loc[LOCKS[0]], by_lock.loc[LOCKS[1]]
        lines.append(
            [
                order,
                threads,
                f"{open_.wall_s:.2f}",
                f"{locked.wall_s:.2f}",
                with_interval(*bootstrap_ci(lock_ratio(part), np.median)),
                f"{locked.routing_wait_s:.2f}",
                f"{open_.aborts:.2f}",
                f"{open_.gos:.2f}",
                f"{locked.gos:.2f}",
            ]
        )
    names = ["order", "threads", "optimistic, s", "one lock, s", "ratio", "wait, s", "aborts, %", "GoS, %",
             "locked GoS, %"]  # fmt: skip
    caption = (
        f"AMARL, {mine['repeat'].nunique()} pairs in turn on {', '.join(sorted(set(mine['day'])))}; medians; brackets: "
        "95 % bootstrap interval of the median ratio over pairs. One lock: free order holds it from snapshot to "
        "commit; in order of arrival each plan waits for its turn. Wait for the one lock: all threads together; under "
        "it nothing aborts. The ratio is over 1 where one lock is slower."
    )
    return Table(pd.DataFrame(lines, columns=names), caption)
