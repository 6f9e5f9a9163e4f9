"""What a soak and the kills found, from their records: summaries for `headline.json`, tables for the pages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import theilslopes

from amarl_core.look import Note, Table
from amarl_core.runs import read_frame, read_json

SOAK_RECORD, KILLS_RECORD = "soak.parquet", "kills.json"
SOAK_COMMAND, KILLS_COMMAND = "python -m amarl_core.soak", "python -m amarl_core.kills"

WARM_UP = 5
"""Rounds in which memory may still rise: libraries load, kernels compile, allocators find their size."""

FEWEST_ROUNDS = 10
"""Rounds after the warm-up that a slope is judged by, at least."""

FLAT_SHARE = 0.03
"""Memory is flat if its slope may be zero (95 % interval), or adds less than this share of itself in the whole soak."""


@dataclass(frozen=True)
class Growth:
    """How resident memory changed over the rounds after the warm-up.

    Attributes:
        n: rounds that count.
        mb_per_hour: slope (Theil-Sen: median of the slopes of all pairs of rounds), with its 95 % interval.
        hours: from the first of these rounds to the last.
        rss_mb: median.
    """

    n: int
    mb_per_hour: tuple[float, float, float]
    hours: float
    rss_mb: float

    @property
    def is_flat(self) -> bool:
        """Whether the slope may be zero, or adds next to nothing; too few rounds prove nothing."""
        slope, low, _ = self.mb_per_hour
        return self.n < FEWEST_ROUNDS or low <= 0 or slope * self.hours < FLAT_SHARE * self.rss_mb

    def sentence(self) -> str:
        """Say it in words."""
        slope, low, high = self.mb_per_hour
        return (
            f"{slope:+.1f} MB an hour [{low:+.1f}, {high:+.1f}] at {self.rss_mb:.0f} MB, over {self.n} rounds in "
            f"{self.hours:.2f} h"
        )


def growth(rows: pd.DataFrame) -> Growth:
    """Fit the slope of memory over time to the rounds after the warm-up; NaN for fewer than three."""
    part = rows.iloc[WARM_UP:]
    hours = part["elapsed_s"].to_numpy() / 3600
    if len(part) < 3:
        return Growth(len(part), (np.nan, np.nan, np.nan), 0.0, float(rows["rss_mb"].median()))
    fit = theilslopes(part["rss_mb"].to_numpy(), hours, alpha=0.95)
    slopes = (float(fit.slope), float(fit.low_slope), float(fit.high_slope))
    return Growth(len(part), slopes, float(hours[-1] - hours[0]), float(part["rss_mb"].median()))


def soak_summary(folder: Path) -> dict | None:
    """Return a soak's result for `headline.json`, or None where there is no record.

    Args:
        folder: of the record.
    """
    if not (Path(folder) / SOAK_RECORD).exists():
        return None
    rows = read_frame(Path(folder) / SOAK_RECORD)
    grown, later = growth(rows), rows.iloc[min(WARM_UP, len(rows) - 1) :]
    return {
        "hours": float(rows["elapsed_s"].iloc[-1] / 3600),
        "rounds": len(rows),
        "scenario": rows["scenario"].iloc[0],
        "requests": int(rows["requests"].sum()),
        "steps": int(rows["steps"].sum()),
        "audits": int(rows["audits"].sum()),
        "violations": int(rows["violations"].sum()),
        "rss_mb": grown.rss_mb,
        "rss_mb_per_hour": {"median": grown.mb_per_hour[0], "ci95": list(grown.mb_per_hour[1:])},
        "memory_flat": bool(grown.is_flat and grown.n >= FEWEST_ROUNDS),
        "threads": [int(later["native_threads"].min()), int(later["native_threads"].max())],
        "files": [int(later["files"].min()), int(later["files"].max())],
    }


def soak_table(folder: Path) -> Table | Note:
    """Show what a soak found, or how to run one.

    Args:
        folder: of the record, such as `reports/runs/soak`.
    """
    about = soak_summary(folder)
    if about is None:
        return Note(f"No soak was run yet: `{SOAK_COMMAND} --hours 2` takes two hours.")
    low, high = about["rss_mb_per_hour"]["ci95"]
    values = {
        "hours": f"{about['hours']:.2f}",
        "rounds of training and serving": f"{about['rounds']:,}",
        "requests decided": f"{about['requests']:,}",
        "violations found by the audit": f"{about['violations']} in {about['audits']:,} runs",
        "resident memory, MB": f"{about['rss_mb']:.0f}",
        "slope of memory, MB an hour": f"{about['rss_mb_per_hour']['median']:+.1f} [{low:+.1f}, {high:+.1f}]",
        "threads between rounds": _range(about["threads"]),
        "open files between rounds": _range(about["files"]),
    }
    caption = (
        f"`{SOAK_COMMAND}` on {about['scenario']}, {about['rounds']} rounds with seeds of their own. Each trains "
        "AMARL, reads its records back, loads it, and serves a day in order of arrival and in free order. Slope: "
        f"Theil-Sen over the rounds after the first {WARM_UP}, brackets its 95 % interval, measured after garbage "
        f"collection. Memory counts as flat if that may be zero, or adds less than {100 * FLAT_SHARE:.0f} % in all."
    )
    return Table(pd.DataFrame({"": list(values), "measured": list(values.values())}), caption)


def _range(ends: list[int]) -> str:
    return str(ends[0]) if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def kills_summary(folder: Path) -> dict | None:
    """Return the totals of a record for `headline.json`, or None where there is none.

    Args:
        folder: of the record.
    """
    if not (Path(folder) / KILLS_RECORD).exists():
        return None
    kinds = read_json(Path(folder) / KILLS_RECORD)["kinds"]
    total = {name: sum(tally[name] for tally in kinds.values()) for name in ("kills", "files", "left")}
    found = {name: sum(len(tally[name]) for tally in kinds.values()) for name in ("damaged", "different")}
    return total | found | {"by_kind": {kind: tally["kills"] for kind, tally in kinds.items()}}


WORDS = {"train": "training", "evaluate": "evaluation", "batch": "smoke study", "export": "page and index"}


def kills_table(folder: Path) -> Table | Note:
    """Show what killing found, or how to do it.

    Args:
        folder: of the record, such as `reports/runs/kills`.
    """
    if not (Path(folder) / KILLS_RECORD).exists():
        return Note(f"Nothing was killed yet: `{KILLS_COMMAND} --times 50` takes half an hour.")
    record = read_json(Path(folder) / KILLS_RECORD)
    rows = [
        {
            "killed": WORDS[kind],
            "times": tally["kills"],
            "undisturbed, s": f"{tally['seconds']:.1f}",
            "files read": tally["files"],
            "not whole": len(tally["damaged"]),
            "in the making, swept": tally["left"],
            "results compared": tally["ends"],
            "different": len(tally["different"]),
        }
        for kind, tally in record["kinds"].items()
    ]
    caption = (
        f"`{KILLS_COMMAND}`: {record['times']} kills (SIGKILL to the process group) at moments drawn uniformly over "
        "the time that the work takes undisturbed, up to five in a row before it may end. After each kill every file "
        "is read to its end. Compared to the bit with work that nobody disturbed: a deterministic training, decisions "
        "and ledger of served days, of a study all that depends neither on the clock nor on the order of threads, and "
        "pages."
    )
    return Table(pd.DataFrame(rows), caption)
