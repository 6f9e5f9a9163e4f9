"""Statistics of a study, as pure functions: grade of service, latency, causes, intervals over seeds and days.

Two kinds of input. A *decisions* frame has one row a request, of any number of days, as ``evaluate`` returns
it. A *matrix* has one value for each seed and held-out day, ``(n_seeds, n_days)``. Grades of service are
shares from 0 to 1. Where nothing was offered or accepted a figure is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
import pandas as pd

DAY_S = 86_400
HOUR_S = 3600

Statistic = Callable[..., np.ndarray]
"""Reduces the last axis of an array, which it takes as ``axis``; such as ``np.mean``."""


def gos(decisions: pd.DataFrame) -> float:
    """Return the grade of service: accepted over offered requests."""
    return float(decisions["accepted"].mean()) if len(decisions) else float("nan")


def gos_by(decisions: pd.DataFrame, by: Hashable | list[Hashable] | pd.Series) -> pd.Series:
    """Return the grade of service within each group, such as by "service"."""
    return decisions.groupby(by, observed=True)["accepted"].mean().rename("gos")


def gos_by_hour(decisions: pd.DataFrame) -> pd.Series:
    """Return the grade of service by hour of the day, 0 to 23; hours without requests are left out."""
    return gos_by(decisions, hour_of_day(decisions["t_s"]))


def hour_of_day(t_s: pd.Series) -> pd.Series:
    """Return the hour of the day, 0 to 23, of times in seconds since a midnight."""
    return (t_s % DAY_S // HOUR_S).astype(int).rename("hour")


def mean_gos_of_services(decisions: pd.DataFrame) -> float:
    """Return the mean over services of their grade of service; a rare service counts in full."""
    return float(gos_by(decisions, "service").mean())


def traffic_gos(decisions: pd.DataFrame) -> float:
    """Return the accepted share of the offered traffic, in Mb/s times seconds."""
    traffic = decisions["demand_kbps"] / 1000 * decisions["hold_s"]
    return float((traffic * decisions["accepted"]).sum() / traffic.sum()) if len(decisions) else float("nan")


def busy_hour(decisions: pd.DataFrame) -> int:
    """Return the hour of the day with most requests, 0 to 23; the earliest of equals."""
    return int(hour_of_day(decisions["t_s"]).value_counts(sort=False).sort_index().idxmax())


def busy_hour_gos(decisions: pd.DataFrame) -> float:
    """Return the grade of service of the busy hour."""
    return float(gos_by_hour(decisions)[busy_hour(decisions)]) if len(decisions) else float("nan")


def latency_by_service(decisions: pd.DataFrame) -> pd.DataFrame:
    """Summarise the latency of the accepted requests against each service's bound.

    Returns:
        One row a service: accepted (count), mean_ms, p95_ms (95th percentile), budget_ms.
    """
    groups = decisions[decisions["accepted"]].groupby("service", observed=True)
    return pd.DataFrame(
        {
            "accepted": groups.size(),
            "mean_ms": groups["latency_ms"].mean(),
            "p95_ms": groups["latency_ms"].quantile(0.95),
            "budget_ms": groups["budget_ms"].first(),
        }
    )


def causes(decisions: pd.DataFrame) -> pd.DataFrame:
    """Count why requests were rejected, by service.

    Returns:
        Columns service, cause, requests (count), of_offered and of_rejected (shares of the service's offered
        and of its rejected requests); a row for each pair that occurs, most frequent first within a service.
    """
    plain = decisions.astype({"service": str, "cause": str})
    counts = plain[~plain["accepted"]].groupby(["service", "cause"]).size().rename("requests").reset_index()
    offered = plain["service"].value_counts().reindex(counts["service"])
    counts["of_offered"] = counts["requests"] / offered.to_numpy()
    counts["of_rejected"] = counts["requests"] / counts.groupby("service")["requests"].transform("sum")
    order = ["service", "requests", "cause"]
    return counts.sort_values(order, ascending=[True, False, True], ignore_index=True)


def conflict_rate(ledger: pd.DataFrame) -> float:
    """Return the share of attempted commits that were aborted."""
    tried = ledger["kind"].isin(["commit", "abort"]).sum()
    return float((ledger["kind"] == "abort").sum() / tried) if tried else float("nan")


def interquartile_mean(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Return the mean of the middle half of the values: a quarter is cut off, rounded down, at either end.

    Args:
        values: Of any shape.
        axis: The axis to reduce; all values when None.
    """
    values = np.asarray(values, dtype=float)
    ordered = np.sort(values.ravel() if axis is None else np.moveaxis(values, axis, -1), axis=-1)
    n = ordered.shape[-1]
    return ordered[..., n // 4 : n - n // 4].mean(axis=-1)


def bootstrap_ci(
    values: np.ndarray,
    statistic: Statistic = np.mean,
    *,
    level: float = 0.95,
    n_resamples: int = 5000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return a statistic with its percentile bootstrap interval, resampling seeds and days both.

    Seeds and days are drawn with replacement, independently of each other, and each draw takes whole rows and
    columns: runs of one seed, and results on one day, are not independent of each other.

    Args:
        values: ``(n_seeds, n_days)``; one-dimensional values are taken for one seed's days.
        statistic: Reduces the last axis, such as ``np.mean`` or ``interquartile_mean``.
        level: Probability that the interval covers.
        n_resamples: Number of draws.
        seed: Of the draws.

    Returns:
        The statistic of all values, and the low and the high end of its interval.
    """
    matrix = np.atleast_2d(np.asarray(values, dtype=float))
    drawn = statistic(resample(matrix, n_resamples, np.random.default_rng(seed)), axis=-1)
    return _with_ends(float(statistic(matrix.ravel(), axis=-1)), drawn, level)


def paired_difference_ci(
    first: np.ndarray,
    second: np.ndarray,
    *,
    level: float = 0.95,
    n_resamples: int = 5000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return the mean of first minus second with its percentile bootstrap interval, paired by day.

    Each draw takes the same days of both, which takes out how hard a day is. Seeds are drawn for each on its
    own: seed 1 of one method has nothing in common with seed 1 of another, and a rule has only one.

    Args:
        first: ``(n_seeds, n_days)``.
        second: ``(n_other_seeds, n_days)``.
        level: Probability that the interval covers.
        n_resamples: Number of draws.
        seed: Of the draws.
    """
    a, b = (np.atleast_2d(np.asarray(values, dtype=float)) for values in (first, second))
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{a.shape[1]} days against {b.shape[1]}; expected the same days of both, in one order")
    draw = np.random.default_rng(seed)
    days = draw.integers(a.shape[1], size=(n_resamples, a.shape[1]))  # (r, n_days)
    means = [np.take_along_axis(_mean_of_seeds(m, n_resamples, draw), days, axis=1).mean(axis=1) for m in (a, b)]
    return _with_ends(float(a.mean() - b.mean()), means[0] - means[1], level)


def resample(matrix: np.ndarray, n_resamples: int, draw: np.random.Generator) -> np.ndarray:
    """Draw rows and columns with replacement.

    Args:
        matrix: ``(n_seeds, n_days)``.
        n_resamples: Number of draws, r.
        draw: The source of chance.

    Returns:
        ``(r, n_seeds * n_days)``, each row one redrawn matrix.
    """
    n_seeds, n_days = matrix.shape
    rows = draw.integers(n_seeds, size=(n_resamples, n_seeds, 1))
    columns = draw.integers(n_days, size=(n_resamples, 1, n_days))
    return matrix[rows, columns].reshape(n_resamples, -1)


def _mean_of_seeds(matrix: np.ndarray, n_resamples: int, draw: np.random.Generator) -> np.ndarray:
    """Return the mean over redrawn seeds for each day, (r, n_days)."""
    rows = draw.integers(len(matrix), size=(n_resamples, len(matrix)))
    return matrix[rows].mean(axis=1)


def _with_ends(value: float, drawn: np.ndarray, level: float) -> tuple[float, float, float]:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return value, float(low), float(high)
