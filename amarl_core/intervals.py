"""Intervals of a mean and of a difference over seeds and days, and the choice between Student's t and the bootstrap.

A percentile bootstrap of three seeds has only ten different draws of them and is too narrow: where there are few seeds
or days the interval is Student's. Both take seeds and days for drawn at random, crossed: each seed serves all days.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats as distributions

from amarl_core.stats import bootstrap_ci, paired_difference_ci

ENOUGH = 10
"""From so many seeds (or days) on the bootstrap is used; below, its 95 % intervals of a mean cover 90 % or less."""

FEWEST = 3
"""Below so many seeds and so many days there is no interval: Student's with one degree of freedom says nothing."""

BAND = f"95 % interval over seeds and days (Student's t below {ENOUGH}, none below {FEWEST}, else bootstrap)"
"""What figures and tables say of theirs."""


@dataclass(frozen=True)
class Interval:
    """A mean, or a difference of means, with its interval.

    Attributes:
        value: The mean or the difference.
        low: Lower end; NaN when there are fewer than `FEWEST` seeds and days.
        high: Upper end.
        how: What the interval is and how many seeds and days stand behind it, for a caption.
    """

    value: float
    low: float
    high: float
    how: str


def interval(
    first: np.ndarray,
    second: np.ndarray | None = None,
    *,
    level: float = 0.95,
    rows: str = "seed",
    columns: str = "day",
) -> Interval:
    """Return a mean, or the mean of first minus second on the same days, with the interval that its n allows.

    Args:
        first: ``(n_seeds, n_days)``; one-dimensional values are taken for one seed's days.
        second: ``(n_other_seeds, n_days)``, or None. Seeds are not paired: seed 1 of one method has nothing in
            common with seed 1 of another.
        level: Probability that the interval covers.
        rows: What a row is, for the caption.
        columns: What a column is.

    Returns:
        No interval where neither seeds nor days are at least `FEWEST`; Student's (`t_interval`) where any of the
        numbers of seeds and days that are over 1 is below `ENOUGH`; otherwise the percentile bootstrap.
    """
    matrices = [np.atleast_2d(np.asarray(m, dtype=float)) for m in (first, second) if m is not None]
    shapes = [m.shape for m in matrices]
    is_small = min([n for shape in shapes for n in shape if n > 1], default=1) < ENOUGH
    seeds = " and ".join(dict.fromkeys(_count(n, rows) for n, _ in shapes))
    units = f"n = {seeds}, {_count(shapes[0][1], columns)}"
    if max(n for shape in shapes for n in shape) < FEWEST:
        value, _, _ = t_interval(*matrices, level=level)
        return Interval(value, float("nan"), float("nan"), f"no interval, {units}")
    if is_small:
        return Interval(*t_interval(*matrices, level=level), f"{level:.0%} Student t interval, {units}")
    make = bootstrap_ci if second is None else paired_difference_ci
    return Interval(*make(*matrices, level=level), f"{level:.0%} percentile bootstrap interval, {units}")


def t_interval(
    first: np.ndarray, second: np.ndarray | None = None, *, level: float = 0.95
) -> tuple[float, float, float]:
    """Return a mean, or the mean of first minus second on the same days, with Student's interval.

    The variance of the mean of a crossed design is that of the seeds' means over their number, plus that of the days'
    means over theirs, minus what both count; its degrees of freedom are Satterthwaite's (1946). With one seed this is
    the t interval over days, for a difference the paired one; with one day it is the t interval over seeds, for a
    difference Welch's.

    Args:
        first: ``(n_seeds, n_days)``; one-dimensional values are taken for one seed's days.
        second: ``(n_other_seeds, n_days)``, or None.
        level: Probability that the interval covers.

    Returns:
        The mean or the difference, and the low and the high end; both NaN when there is one value only.

    Raises:
        ValueError: The numbers of days differ.
    """
    a = np.atleast_2d(np.asarray(first, dtype=float))
    b = np.zeros((1, a.shape[1])) if second is None else np.atleast_2d(np.asarray(second, dtype=float))
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{a.shape[1]} days against {b.shape[1]}; expected the same days of both, in one order")
    value = float(a.mean() - b.mean())
    parts = [(m.mean(axis=1).var(ddof=1) / len(m), len(m) - 1) for m in (a, b) if len(m) > 1]
    n_days = a.shape[1]
    if n_days > 1:
        twice = [(_residual(m) / m.size, (len(m) - 1) * (n_days - 1)) for m in (a, b) if len(m) > 1]
        parts.append(((a.mean(axis=0) - b.mean(axis=0)).var(ddof=1) / n_days, n_days - 1))
    else:
        twice = []
    if not parts:
        return value, float("nan"), float("nan")
    largest = max(variance for variance, _ in parts)
    variance = max(sum(v for v, _ in parts) - sum(v for v, _ in twice), largest)
    if variance == 0:
        return value, value, value
    freedom = variance**2 / sum(v**2 / df for v, df in [*parts, *twice])
    half = distributions.t.ppf((1 + level) / 2, max(freedom, 1.0)) * np.sqrt(variance)
    return value, float(value - half), float(value + half)


def _residual(matrix: np.ndarray) -> float:
    """Return the mean square of what neither the seed nor the day explains, of ``(n_seeds, n_days)``."""
    rest = matrix - matrix.mean(axis=1, keepdims=True) - matrix.mean(axis=0) + matrix.mean()
    return float((rest**2).sum() / ((matrix.shape[0] - 1) * (matrix.shape[1] - 1)))


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
