"""What a study says: the outcomes of a policy by seed and day, and each policy against one of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from amarl_core.effects import paired_effect_size, probability_of_improvement
from amarl_core.errors import RunError
from amarl_core.intervals import interval
from amarl_core.stats import interquartile_mean


def matrix(outcomes: pd.DataFrame, figure: str = "gos", **where: Any) -> np.ndarray:
    """Return a figure by seed and day, as the statistics take it.

    Args:
        outcomes: Of `studies.outcomes`, one row a served day.
        figure: The column wanted.
        where: What other columns are to be, such as ``policy="amarl"``.

    Returns:
        ``(n_seeds, n_days)``, seeds and days in ascending order; a rule has one seed.

    Raises:
        RunError: No such column or row, a day that not all seeds have served, or two rows for one seed and day: they
            differ in a column that ``where`` does not fix.
    """
    unknown = sorted({figure, *where} - set(outcomes.columns))
    if unknown:
        raise RunError(f"no column {unknown[0]!r} in these outcomes; expected one of {', '.join(outcomes.columns)}")
    rows = outcomes
    for column, value in where.items():
        rows = rows[rows[column] == value]
    seeds = rows["seed"].fillna(-1)
    what = " ".join(f"{column}={value}" for column, value in where.items()) or "all"
    if rows.empty or pd.DataFrame({"seed": seeds, "day": rows["day"]}).duplicated().any():
        fault = "no outcome" if rows.empty else "more than one outcome for a seed and a day"
        raise RunError(f"{what}: {fault}; choose by other columns of {', '.join(outcomes.columns[:8])} ...")
    table = rows.assign(seed=seeds).pivot(index="seed", columns="day", values=figure)
    if table.isna().any(axis=None):
        seed, day = next((seed, day) for day in table for seed in table.index if pd.isna(table.loc[seed, day]))
        raise RunError(f"{what}: seed {seed} has no {figure} on {day}; finish the study first")
    return table.to_numpy(dtype=float)


def compare(
    outcomes: pd.DataFrame, figure: str = "gos", against: str | None = None, *, level: float = 0.95, **where: Any
) -> pd.DataFrame:
    """Return each policy's figure, and what it is against one of them on the same days; larger is better.

    Args:
        outcomes: Of `studies.outcomes`.
        figure: The column wanted.
        against: The policy that others are compared with; the one with the largest mean when None.
        level: Probability that an interval covers.
        where: See `matrix`.

    Returns:
        One row a policy, best first: policy, seeds, days, mean with low and high, middle (interquartile mean), how
        (what the interval is); difference with its own low and high, effect (`effects.paired_effect_size` over days,
        of the means over seeds) and better (`effects.probability_of_improvement` over the other) with its interval.

    Raises:
        RunError: See `matrix`; or ``against`` is none of the policies.
    """
    values = {name: matrix(outcomes, figure, policy=name, **where) for name in outcomes["policy"].unique()}
    names = sorted(values, key=lambda name: -values[name].mean())
    against = names[0] if against is None else against
    if against not in values:
        raise RunError(f"against is {against!r}; expected one of {', '.join(names)}")
    other, rows = values[against], []
    for name in names:
        mine = values[name]
        found = interval(mine, level=level)
        row = {
            "policy": name,
            "seeds": mine.shape[0],
            "days": mine.shape[1],
            "mean": found.value,
            "low": found.low,
            "high": found.high,
            "middle": float(interquartile_mean(mine)),
            "how": found.how,
        }
        if name != against:
            less = interval(mine, other, level=level)
            better = probability_of_improvement(mine, other, level=level)
            row |= {"difference": less.value, "difference_low": less.low, "difference_high": less.high}
            row |= {"effect": paired_effect_size(mine.mean(axis=0), other.mean(axis=0))}
            row |= {"better": better[0], "better_low": better[1], "better_high": better[2]}
        rows.append(row)
    return pd.DataFrame(rows)
