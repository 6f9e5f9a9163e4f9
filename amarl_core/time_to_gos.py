"""How long a training takes to reach a grade of service: its own requests, by the clock on the wall."""

from __future__ import annotations

import numpy as np
import pandas as pd

from amarl_core.intervals import t_interval

LEVELS = (95.0, 97.0, 98.0)
"""Grades of service in percent."""


def gos_by_wall(progress: pd.DataFrame, n_window: float, points: int = 400) -> pd.DataFrame:
    """Return the grade of service of a run's last so many requests, all agents together.

    Args:
        progress: rows of one run from `progress.parquet`.
        n_window: requests looked back on; those of a day keep busy and quiet hours in balance.
        points: number of times.

    Returns:
        Columns wall_s and gos (%), from the time at which so many requests were served.
    """
    wall = np.linspace(0.0, progress["wall_s"].max(), points)
    offered, accepted = np.zeros(points), np.zeros(points)
    for _, rows in progress.groupby("agent", observed=True):
        times = np.concatenate([[0.0], rows["wall_s"]])
        offered += np.interp(wall, times, np.concatenate([[0], rows["requests"]]))
        accepted += np.interp(wall, times, np.concatenate([[0], rows["accepted"]]))
    is_full = offered >= n_window
    before = np.interp(offered[is_full] - n_window, offered, accepted)
    return pd.DataFrame({"wall_s": wall[is_full], "gos": 100 * (accepted[is_full] - before) / n_window})


def requests_a_day(progress: pd.DataFrame) -> float:
    """Return the requests of a simulated day of a run."""
    last = progress.groupby("agent", observed=True)[["requests", "sim_t_s"]].max()
    return float(last["requests"].sum() / max(last["sim_t_s"].max() / 86_400, 1e-9))


def seconds_to(curve: pd.DataFrame, level: float) -> float:
    """Return the first time at which a curve is at a level; NaN if it never is."""
    reached = curve.loc[curve["gos"] >= level, "wall_s"]
    return float(reached.iloc[0]) if len(reached) else float("nan")


def reaching(progress: pd.DataFrame, levels: tuple[float, ...] = LEVELS) -> pd.DataFrame:
    """Return the seconds until each level, by method and seed.

    Args:
        progress: of all runs, with columns method and seed, from `records.load_progress`.
        levels: in percent.

    Returns:
        Columns method, seed, level, seconds.
    """
    rows = []
    for (method, seed), run in progress.groupby(["method", "seed"], observed=True):
        curve = gos_by_wall(run, requests_a_day(run))
        rows += [
            {"method": method, "seed": seed, "level": level, "seconds": seconds_to(curve, level)} for level in levels
        ]
    return pd.DataFrame(rows)


def summary(reached: pd.DataFrame) -> pd.DataFrame:
    """Return mean and 95 % interval over seeds by method and level; NaN where a seed did not reach it.

    Returns:
        Columns method, level, n_seeds, n_reached, seconds, low, high.
    """
    rows = []
    for (method, level), part in reached.groupby(["method", "level"], sort=False):
        seconds = part["seconds"].to_numpy()
        is_there = np.isfinite(seconds)
        mean = t_interval(seconds[:, None]) if is_there.all() else (np.nan,) * 3
        found = {"n_seeds": len(seconds), "n_reached": int(is_there.sum())}
        rows.append(
            {"method": method, "level": level} | found | dict(zip(("seconds", "low", "high"), mean, strict=True))
        )
    return pd.DataFrame(rows)
