"""Invented records of days that went wrong, in the format of a study's folder `disruptions/`."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from amarl_core.disruptions import DISRUPTED_RULES, FOLDER
from amarl_core.late_news import AGES_S
from amarl_core.reaction import KINDS, LOCKS, ORDERS, THREADS

FAILURES = ("one_link", "two_links", "three_links", "edge_site")
DAYS = ("test-weekday", "test-weekday-2")


def _policies(part: str) -> list[tuple[str, int]]:
    if part == "rules":
        return [(rule, 0) for rule in DISRUPTED_RULES]
    return [(method, int(part.partition("=")[2])) for method in ("sarl", "amarl")]


def _failures(rng: np.random.Generator, part: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows, minutes = [], []
    for (method, seed), day, failure in product(_policies(part), DAYS, FAILURES):
        depth = (FAILURES.index(failure) + 1) * (1.5 if method in DISRUPTED_RULES else 1.0)
        offered = np.full(180, 100)
        ordinary = 97 + rng.integers(0, 3, 180)
        during = (np.arange(180) >= 60) & (np.arange(180) < 120)
        accepted = ordinary - np.where(during, rng.integers(0, int(2 * depth) + 1, 180), 0)
        about = {"method": method, "seed": seed, "day": day, "failure": failure}
        minutes.append(pd.DataFrame({"minute": np.arange(-60, 120), "offered": offered, "accepted": accepted,
                                     "ordinary": ordinary}).assign(**about))  # fmt: skip
        recovery = np.nan if failure == "edge_site" else 4.0 * depth
        rows.append(about | {"resources": "A>B, B>A", "dropped": int(50 * depth), "restored": int(45 * depth),
                             "gos_before": 98.0, "gos_during": float(accepted[during].mean()), "gos_after": 98.0,
                             "ordinary_during": float(ordinary[during].mean()), "ordinary_after": 98.0,
                             "recovery_min": recovery, "settled_min": 3.0, "repair_min": 2.0, "violations": 0,
                             "audit_violations": 0})  # fmt: skip
    return pd.DataFrame(rows), pd.concat(minutes, ignore_index=True)


def _telemetry(part: str) -> pd.DataFrame:
    return pd.DataFrame(
        {"method": method, "seed": seed, "day": DAYS[0], "age_s": age, "gos": 98.4 - 0.02 * age,
         "aborts": 0.1 * age, "replans": 0.1 * age, "lost": 0.01 * age, "violations": 0}
        for (method, seed), age in product(_policies(part), AGES_S)
    )  # fmt: skip


def _reaction() -> tuple[pd.DataFrame, pd.DataFrame]:
    rows, times = [], []
    for method, order, threads, lock, repeat in product(("sarl", "amarl"), ORDERS, THREADS, LOCKS, range(3)):
        if method == "sarl" and threads > 1:
            continue
        locked = lock == LOCKS[1]
        about = {"method": method, "seed": 0, "day": DAYS[0], "order": order, "lock": lock, "threads": threads,
                 "repeat": repeat}  # fmt: skip
        wall = 1.0 if locked else 1.0 / min(threads, 2)
        rows.append(about | {"wall_s": wall + 0.01 * repeat, "cpu_s": 1.0, "routing_wait_s": 0.5 * locked,
                             "store_wait_s": 0.01, "aborts": 0.0 if locked else 0.4, "gos": 98.4,
                             "requests": 80_000})  # fmt: skip
        for kind, scale in zip(KINDS, (10.0, 3.0, 0.5, 10.5), strict=True):
            times.append({"kind": kind, "n": 80_000, "p50": scale, "p90": 2 * scale, "p99": 4 * scale,
                          "max": 100 * scale} | about)  # fmt: skip
    return pd.DataFrame(rows), pd.DataFrame(times)


def write_disruptions(folder: Path, seeds: tuple[int, ...]) -> None:
    """Write all records of a finished study."""
    place = folder / FOLDER
    place.mkdir()
    for part in (*(f"seed={seed}" for seed in seeds), "rules"):
        failures, minutes = _failures(np.random.default_rng(len(part)), part)
        failures.to_parquet(place / f"failures_{part}.parquet")
        minutes.to_parquet(place / f"minutes_{part}.parquet")
        _telemetry(part).to_parquet(place / f"telemetry_{part}.parquet")
    locks, times = _reaction()
    locks.to_parquet(place / "locks_all.parquet")
    times.to_parquet(place / "times_all.parquet")
