"""What the step `disruptions` and the step `reaction` of a study recorded, read back and summed up. It only reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from amarl_core.disruptions import COMMAND, FOLDER
from amarl_core.look import Note
from amarl_core.reaction import LOCKS
from amarl_core.runs import read_frame

KINDS = ("failures", "minutes", "telemetry", "locks", "times")
"""Records: a row a day with a failure, its minutes, a row an age of telemetry, a row a timed serving, its quantiles."""


def load_disruptions(folder: Path, kind: str) -> pd.DataFrame | None:
    """Read one of `KINDS` from a study's folder, all parts of it; None if it is not there."""
    paths = sorted((Path(folder) / FOLDER).glob(f"{kind}_*.parquet"))
    return pd.concat([read_frame(path) for path in paths], ignore_index=True) if paths else None


def not_measured(folder: Path) -> Note:
    """Say how to measure what is missing."""
    return Note(f"Not measured in this study yet: {COMMAND} --study {Path(folder).name} takes some minutes.")


def lost_points(failures: pd.DataFrame) -> pd.Series:
    """Return by how many points GoS during the failure is below that of the same day without it."""
    return failures["ordinary_during"] - failures["gos_during"]


def typical_minutes(minutes: pd.Series) -> tuple[float, int]:
    """Return the median recovery time, infinite where over half had not recovered, and how many had not."""
    return float(np.median(minutes.fillna(np.inf))), int(minutes.isna().sum())


def lock_ratio(locks: pd.DataFrame) -> np.ndarray:
    """Return wall-clock under one lock over that of optimistic commit, by pair of servings: float64[repeats]."""
    keys = ["method", "seed", "threads", "repeat"]
    wall = locks.pivot_table(index=keys, columns="lock", values="wall_s")
    return (wall[LOCKS[1]] / wall[LOCKS[0]]).to_numpy()


def robustness_headline(folder: Path) -> dict:
    """Return the part of `headline.json` on failures, late telemetry, decision times and locks; {} without records.

    Returns:
        failures: by failure and method dropped, restored_percent, lost_points, recovery_min, settled_min and repair_min
        (None: over half of the days had not in time), days. telemetry: by method and age in s, gos and aborts.
        decision_us and commit_us: by order and threads, p50 and p99 of AMARL. locked_over_optimistic: by order and
        threads, median of paired wall-clock ratios. violations: of both audits.
    """
    failures, telemetry, locks, times = (
        load_disruptions(folder, kind) for kind in ("failures", "telemetry", "locks", "times")
    )
    result: dict = {}
    if failures is not None and telemetry is not None:
        checked = failures[["violations", "audit_violations"]].to_numpy().sum() + telemetry["violations"].sum()
        result |= {"failures": _failures(failures), "telemetry": _telemetry(telemetry), "violations": int(checked)}
    if locks is not None and times is not None:
        result |= _reaction(locks, times)
    return result


def _failures(failures: pd.DataFrame) -> dict:
    result: dict = {}
    for (failure, method), part in failures.groupby(["failure", "method"], sort=False):
        times = {name: typical_minutes(part[f"{name}_min"])[0] for name in ("recovery", "settled", "repair")}
        result.setdefault(failure, {})[method] = {
            "dropped": float(part["dropped"].mean()),
            "restored_percent": 100 * float(part["restored"].sum() / max(part["dropped"].sum(), 1)),
            "lost_points": float(lost_points(part).mean()),
            **{f"{name}_min": None if np.isinf(minutes) else minutes for name, minutes in times.items()},
            "days": len(part),
        }
    return result


def _telemetry(telemetry: pd.DataFrame) -> dict:
    means = telemetry.groupby(["method", "age_s"])[["gos", "aborts"]].mean()
    return {
        method: {f"{age:g}": means.loc[method, age].to_dict() for age in means.loc[method].index}
        for method in means.index.unique("method")
    }


def _reaction(locks: pd.DataFrame, times: pd.DataFrame) -> dict:
    result: dict = {"decision_us": {}, "commit_us": {}, "locked_over_optimistic": {}}
    mine = times[(times["method"] == "amarl") & (times["lock"] == LOCKS[0])]
    for (order, threads), part in mine.groupby(["order", "threads"]):
        for kind in ("decision", "commit"):
            medians = part[part["kind"] == kind][["p50", "p99"]].median().to_dict()
            result[f"{kind}_us"].setdefault(order, {})[str(threads)] = medians
    for (order, threads), part in locks[locks["method"] == "amarl"].groupby(["order", "threads"]):
        result["locked_over_optimistic"].setdefault(order, {})[str(threads)] = float(np.median(lock_ratio(part)))
    return result
