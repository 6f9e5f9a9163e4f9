"""What a failure costs and how long it is felt: grade of service around it, minute by minute, against the same day
without it.

Only arrivals count, so that both days have the same requests; flows that were dropped and offered again are counted
apart. The recovery time is measured from the failure to the beginning of the first window of `WINDOW_MIN` minutes from
which on, until the repair, no window's GoS is more than `WITHIN_POINTS` below that of the same window of the day
without a failure. It is 0 where GoS never fell further, and not a number where it is further down in the last window
before the repair: not within the failure. After the repair it is measured in the same way, to the end of the record.

What has failed is missing until it is repaired, however well a policy adapts. So it is also measured when the failure
has settled: when no window is more than `WITHIN_POINTS` below what the second half of the failure loses on average.

On Montreal 15 minutes are some 1,200 requests in the busy hour. Two days that differ by chance alone (the same
arrivals, other flows in progress) then differ by half a point (standard deviation); with 5 minutes and 1 point,
recovery would be a matter of luck.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

WINDOW_MIN = 15
WITHIN_POINTS = 2.0


def by_minute(
    disrupted: pd.DataFrame, ordinary: pd.DataFrame, starts_s: float, first_min: int, last_min: int
) -> pd.DataFrame:
    """Count arrivals and admissions of a day with a failure, and of the same day without.

    Args:
        disrupted: decisions with the failure (`outages.Disrupted.decisions`).
        ordinary: decisions of the same arrivals without it.
        starts_s: when it fails.
        first_min: first minute counted, from the failure.
        last_min: the minute after the last.

    Returns:
        Columns minute, offered, accepted, ordinary (admissions without the failure).
    """
    arrivals = disrupted[disrupted["offered_again"] < 0]
    edges = starts_s + 60.0 * np.arange(first_min, last_min + 1)

    def count(decisions: pd.DataFrame, wanted: np.ndarray | slice = slice(None)) -> np.ndarray:
        return np.diff(np.searchsorted(decisions["t_s"].to_numpy()[wanted], edges, side="left"))

    return pd.DataFrame(
        {
            "minute": np.arange(first_min, last_min),
            "offered": count(arrivals),
            "accepted": count(arrivals, arrivals["accepted"].to_numpy()),
            "ordinary": count(ordinary, ordinary["accepted"].to_numpy()),
        }
    )


def moving(values: np.ndarray, window: int = WINDOW_MIN) -> np.ndarray:
    """Return the sums over every window of so many consecutive entries: [n - window + 1]."""
    return np.convolve(values, np.ones(window), mode="valid")


def recovery_min(minutes: pd.DataFrame, first_min: int, last_min: int, lasting: float = 0.0) -> float:
    """Return the minutes from `first_min` until GoS is back for the rest of the time to `last_min`; nan if it is not.

    Args:
        minutes: of one day (`by_minute`).
        first_min: the failure, or the repair.
        last_min: the repair, or the end of the record.
        lasting: points that are lost as long as the failure lasts, and do not count.
    """
    part = minutes[(minutes["minute"] >= first_min) & (minutes["minute"] < last_min)]
    if len(part) < WINDOW_MIN:
        return np.nan
    offered = np.maximum(moving(part["offered"].to_numpy()), 1)
    lost = 100 * moving((part["ordinary"] - part["accepted"]).to_numpy()) / offered  # points, by window
    late = np.flatnonzero(lost > lasting + WITHIN_POINTS)
    back = late[-1] + 1 if len(late) else 0
    return float(back) if back < len(lost) else np.nan


def summarise(minutes: pd.DataFrame, decisions: pd.DataFrame, repair_min: int) -> dict[str, float]:
    """Return what a failure did to a day.

    Args:
        minutes: `by_minute`, minute 0 the failure.
        decisions: of the day with the failure.
        repair_min: when it is repaired.

    Returns:
        dropped, restored (of these accepted again), gos_before, gos_during, gos_after (%, of arrivals),
        ordinary_during, ordinary_after (% of the same arrivals without the failure), recovery_min, settled_min,
        repair_min.
    """
    spans = {
        "before": minutes["minute"] < 0,
        "during": (minutes["minute"] >= 0) & (minutes["minute"] < repair_min),
        "after": minutes["minute"] >= repair_min,
    }
    total = {name: minutes[chosen].sum() for name, chosen in spans.items()}
    gos = {f"gos_{name}": 100 * sums["accepted"] / max(sums["offered"], 1) for name, sums in total.items()}
    ordinary = {f"ordinary_{name}": 100 * total[name]["ordinary"] / max(total[name]["offered"], 1)
                for name in ("during", "after")}  # fmt: skip
    again = decisions["offered_again"] >= 0
    counts = {"dropped": int(decisions["dropped"].sum()), "restored": int((again & decisions["accepted"]).sum())}
    end = int(minutes["minute"].max()) + 1
    half = minutes[(minutes["minute"] >= repair_min / 2) & (minutes["minute"] < repair_min)].sum()
    lasting = 100 * (half["ordinary"] - half["accepted"]) / max(half["offered"], 1)
    times = {
        "recovery_min": recovery_min(minutes, 0, repair_min),
        "settled_min": recovery_min(minutes, 0, repair_min, max(lasting, 0.0)),
        "repair_min": recovery_min(minutes, repair_min, end),
    }
    return counts | gos | ordinary | times
