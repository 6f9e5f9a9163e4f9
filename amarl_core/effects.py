"""How large a difference is, whatever its unit: probability of improvement, Cliff's delta, a paired effect size."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln


def probability_of_improvement(
    first: np.ndarray,
    second: np.ndarray,
    *,
    level: float = 0.95,
    n_resamples: int = 5000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return how probable it is that a run of first beats one of second on a day, with its interval.

    Each pair of a seed of first and a seed of second counts 1 on a day where first is larger, 1/2 where they are equal;
    the mean is over pairs and days, the interval is the percentile bootstrap (Agarwal et al., Deep
    RL at the edge of the statistical precipice, NeurIPS 2021).
    Each draw takes the same days of both, and seeds of each on its own.

    Args:
        first: ``(n_seeds, n_days)``; one-dimensional values are taken for one seed's days.
        second: ``(n_other_seeds, n_days)``.
        level: Probability that the interval covers.
        n_resamples: Number of draws, r.
        seed: Of the draws.

    Raises:
        ValueError: The numbers of days differ.
    """
    a, b = (np.atleast_2d(np.asarray(values, dtype=float)) for values in (first, second))
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{a.shape[1]} days against {b.shape[1]}; expected the same days of both, in one order")
    wins = _wins(a[:, None, :], b[None, :, :])  # (n_seeds, n_other_seeds, n_days)
    draw = np.random.default_rng(seed)
    weights = [draw.multinomial(n, np.full(n, 1 / n), n_resamples) / n for n in wins.shape]  # each (r, n)
    of_first = np.tensordot(weights[0], wins, axes=1)  # (r, n_other_seeds, n_days)
    drawn = np.einsum("rj,rd,rjd->r", weights[1], weights[2], of_first)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(wins.mean()), float(low), float(high)


def cliffs_delta(first: np.ndarray, second: np.ndarray) -> float:
    """Return the share of pairs in which first is larger minus that in which it is smaller, from -1 to 1.

    Args:
        first: ``(n,)``, such as one value a seed.
        second: ``(m,)``.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    return float(2 * _wins(a[:, None], b[None, :]).mean() - 1)


def paired_effect_size(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean paired difference in units of its standard deviation, corrected for few pairs.

    Cohen's d_z times Hedges' J, which takes out that d_z is too large on average when n is small (Hedges 1981). The
    pairs are days, or seeds against one rule; matrices are to be averaged to one value a pair first.

    Args:
        first: ``(n,)``.
        second: ``(n,)``, the values that those of first are paired with.

    Returns:
        The effect size: 0 when all differences are 0, infinite when they are all alike, NaN of one pair.

    Raises:
        ValueError: Not two lists of the same length.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"shapes are {a.shape} and {b.shape}; expected two lists of paired values of one length")
    difference = a - b
    if len(difference) < 2:
        return float("nan")
    mean, spread = difference.mean(), difference.std(ddof=1)
    if np.ptp(difference) == 0:
        return 0.0 if mean == 0 else float(np.copysign(np.inf, mean))
    return float(hedges_correction(len(difference) - 1) * mean / spread)


def hedges_correction(freedom: int) -> float:
    """Return Hedges' exact J of so many degrees of freedom, about 1 - 3 / (4 x freedom - 1); 0 of one."""
    if freedom < 2:
        return 0.0
    return float(np.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / np.sqrt(freedom / 2))


def _wins(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return 1 where a is larger than b, 1/2 where they are equal, 0 elsewhere."""
    return (a > b) + 0.5 * (a == b)
