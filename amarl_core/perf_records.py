"""The records of `performance/` as tables: speed-ups, shares, costs, limits. It only reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from amarl_core.look import Note
from amarl_core.phases import shares
from amarl_core.records import Study, load_progress
from amarl_core.runs import read_frame, read_json
from amarl_core.scaling import amdahl
from amarl_core.stopwatch import PHASES
from amarl_core.time_to_gos import reaching, summary

FRAMES = ("phases", "timeline", "watching", "services", "cores", "threads", "load", "sizes", "peers")


@dataclass(frozen=True)
class Measured:
    """What was measured; a frame that is missing is empty. See `performance.measure` for each."""

    command: str
    limits: dict
    frames: dict[str, pd.DataFrame] = field(default_factory=dict)

    def __getitem__(self, name: str) -> pd.DataFrame:
        return self.frames.get(name, pd.DataFrame())


def load_performance(study: Study) -> Measured:
    """Read what a study has measured of its speed."""
    folder = study.folder / "performance"
    there = [name for name in FRAMES if (folder / f"{name}.parquet").is_file()]
    limits = read_json(folder / "limits.json") if (folder / "limits.json").is_file() else {}
    command = f"python -m amarl_core.steps performance {Path('reports/runs') / study.name}"
    return Measured(command, limits, {name: read_frame(folder / f"{name}.parquet") for name in there})


def missing(measured: Measured, what: str) -> Note:
    """Say how to get a record that is not there."""
    return Note(f"Not measured in this study yet ({what}): {measured.command} takes five minutes on a quiet machine.")


def speed_up(rows: pd.DataFrame, by: str, cores: int) -> pd.DataFrame:
    """Return AMARL's speed-up over SARL, paired by repeat, and Amdahl's bound beside it.

    Args:
        rows: of `scaling.service_rows` or `core_rows`.
        by: the column that varies.
        cores: of the machine, where `by` is not that itself.

    Returns:
        Index `by`; columns speed_up (median), low, high (least and most), share (busiest agent's), amdahl.
    """
    times = rows.pivot(index=[by, "repeat"], columns="method", values="train_s")
    ratio = (times["sarl"] / times["amarl"]).groupby(by)
    share = rows[rows["method"] == "amarl"].groupby(by)["largest_share"].median()
    table = pd.DataFrame({"speed_up": ratio.median(), "low": ratio.min(), "high": ratio.max(), "share": share})
    n = table.index if by == "cores" else [cores] * len(table)
    table["amdahl"] = [amdahl(c, s) for c, s in zip(n, table["share"], strict=True)]
    return table


def phase_shares(phases: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return the share of each phase in the wall-clock of all agents together, in percent, by method."""
    result = {}
    for method, rows in phases.groupby("method", observed=True):
        total = rows.groupby("phase", sort=False)["seconds"].sum()
        result[str(method)] = (100 * total / total.sum()).to_dict()
    return result


def work_shares(phases: pd.DataFrame, method: str) -> pd.Series:
    """Return the share of each phase in the work of a method (what a core is busy with), in percent."""
    working = phases[(phases["method"] == method) & phases["phase"].isin([*PHASES[:-1], "update"])]
    seconds = working.groupby("phase", sort=False)["seconds"].sum()
    return 100 * seconds / seconds.sum()


def shares_by_agent(phases: pd.DataFrame, method: str) -> pd.DataFrame:
    """Return `phases.shares` of one method's agents."""
    return shares(phases[phases["method"] == method])


def engine_rows(limits: dict) -> pd.DataFrame:
    """Return our engine's rates as rows beside the peers': columns peer, steps_per_s."""
    return pd.DataFrame(
        [{"peer": f"ours, {m.upper()}", "steps_per_s": limits[m]["env_steps"] / limits[m]["train_s"]}
         for m in ("sarl", "amarl")]
    )  # fmt: skip


def packed_ratio(limits: dict) -> float:
    """Return AMARL over SARL if AMARL's processor time were spread over all cores without a gap, SARL's on one."""
    return limits["amarl"]["cpu_s"] / limits["cores"] / limits["sarl"]["cpu_s"]


def perf_headline(study: Study) -> dict:
    """Return what `headline.json` says of speed; a part that was not measured is None."""
    measured = load_performance(study)
    reached = summary(reaching(load_progress(study)))
    by_services = None
    if len(measured["services"]):
        table = speed_up(measured["services"], "n_services", measured.limits.get("cores", 1))
        by_services = {str(n): row.to_dict() for n, row in table.iterrows()}
    limit = measured.limits
    return {
        "time_to_gos": {
            method: {f"{row.level:g}": {"seconds": row.seconds, "ci95": [row.low, row.high], "n_reached": row.n_reached}
                     for row in rows.itertuples()}
            for method, rows in reached.groupby("method")
        },
        "phase_shares": phase_shares(measured["phases"]) if len(measured["phases"]) else None,
        "scaling": by_services,
        "limit_share": {method: limit[method]["share"] for method in ("sarl", "amarl")} if limit else None,
    }  # fmt: skip
