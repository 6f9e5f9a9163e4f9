"""A soak: hours of training and serving with all threads, every round audited, memory and threads watched.

    python -m amarl_core.soak --hours 2 --scenario montreal --folder reports/runs/soak

One round: AMARL trains some days (free order, bounded lag, checkpoints), its records are read back and audited, the
run is loaded again and serves a day it never saw in order of arrival and in free order, both audited. Every round has
seeds of its own and writes a row of `soak.parquet`. A broken rule, a thread or file left behind, or memory that grows
ends the soak with an error; Ctrl-C ends it with what it has.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import shutil
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import psutil
import pyarrow as pa

from amarl_core.agents import train, training_trace
from amarl_core.audit import AuditReport, audit
from amarl_core.errors import AmarlError, RunError
from amarl_core.evaluation import play_trace
from amarl_core.records import study_folder
from amarl_core.reliability import SOAK_COMMAND, SOAK_RECORD, WARM_UP, growth
from amarl_core.runs import read_frame, write_frame
from amarl_core.scenario import Scenario, load_scenario
from amarl_core.teams import Run, load_run

log = logging.getLogger(__name__)

FIRST_SEED = 100_000
"""Seeds of the rounds count up from here: no study trains with them."""

CHECKPOINT_S = 2.0
CEILING = 1.5
"""Memory above so many times that of the warm-up ends the soak at once."""


def soak(scenario_name: str, hours: float, folder: Path, days: int = 2) -> pd.DataFrame:
    """Train and serve, round after round, until the time is over; write a row a round to `soak.parquet`.

    Args:
        scenario_name: the world.
        hours: how long; a round that has begun is ended.
        folder: of the record; a record that is there is replaced.
        days: training days of a round.

    Returns:
        One row a round, see `one_round` and `held`.

    Raises:
        RunError: a rule was broken, a thread or a file was left behind, or memory grew; the record is written.
    """
    scenario, began, rows = load_scenario(scenario_name), time.perf_counter(), []
    place = Path(folder) / "round"
    try:
        while time.perf_counter() - began < hours * 3600:
            row = {"round": len(rows), "seed": FIRST_SEED + len(rows), "scenario": scenario.name, "days": days}
            row |= one_round(scenario, row["seed"], days, place)
            row |= held() | {"elapsed_s": time.perf_counter() - began}
            rows.append(row)
            frame = pd.DataFrame(rows)
            write_frame(Path(folder) / SOAK_RECORD, frame)
            log.info("%s", _line(row))
            check_round(frame)
    except KeyboardInterrupt:
        log.warning("stopped by Ctrl-C after %d rounds", len(rows))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    frame = pd.DataFrame(rows)
    if len(rows) and not growth(frame).is_flat:
        raise RunError(f"memory grows: {growth(frame).sentence()}; see {Path(folder) / SOAK_RECORD}")
    return frame


def one_round(scenario: Scenario, seed: int, days: int, place: Path) -> dict:
    """Train, read back, audit, load, serve twice, audit; return counts, times and grades of service.

    Raises:
        KeyboardInterrupt: Ctrl-C, which a training itself takes for a stop.
    """
    shutil.rmtree(place, ignore_errors=True)
    run = train(scenario, "amarl", seed, folder=place, days=days, checkpoint_s=CHECKPOINT_S)
    if run.status != "finished":
        raise KeyboardInterrupt
    decisions, ledger = (read_frame(place / f"{kind}_train.parquet") for kind in ("decisions", "ledger"))
    reports = [audit(scenario, decisions, ledger, training_trace(scenario, run.config), order="free")]
    row = {
        "train_s": run.timing["train_s"],
        "steps": run.timing["env_steps"],
        "checkpoints": run.timing["checkpoints"],
    }
    return row | _served(load_run(place, scenario), seed, days, reports)


def _served(run: Run, seed: int, first_day: int, reports: list[AuditReport]) -> dict:
    """Serve a day in both orders and sum up all audits."""
    trace, row = run.scenario.training_trace(seed, days=1, first_day=first_day), {"test_s": 0.0}
    for order in ("arrival", "free"):
        played = play_trace(run, trace, order)
        reports.append(audit(run.scenario, played.decisions, played.ledger, trace, order=order))
        row["test_s"] += played.clocked.wall_s
        row[f"gos_{order}"] = float(played.decisions["accepted"].mean())
    broken = [report.summary() for report in reports if not report.ok]
    return row | {
        "audits": len(reports),
        "requests": sum(report.requests for report in reports),
        "violations": sum(report.n_violations for report in reports),
        "broken": "\n".join(broken),
    }


def held() -> dict:
    """Return what this process holds once garbage is collected and freed pages are given back.

    Returns:
        rss_mb (resident memory), python_threads, native_threads (of the whole process), files (open descriptors).
    """
    gc.collect()
    pa.default_memory_pool().release_unused()
    if hasattr(ctypes.CDLL(None), "malloc_trim"):  # glibc keeps freed pages; what it keeps is no leak
        ctypes.CDLL(None).malloc_trim(0)
    process = psutil.Process()
    return {
        "rss_mb": process.memory_info().rss / 1e6,
        "python_threads": threading.active_count(),
        "native_threads": process.num_threads(),
        "files": process.num_fds(),
    }


def check_round(rows: pd.DataFrame) -> None:
    """Judge the last round.

    Raises:
        RunError: it broke a rule, or left threads or files behind, or memory is far above that of the warm-up.
    """
    last, before = rows.iloc[-1], rows.iloc[:WARM_UP]
    if last["violations"]:
        raise RunError(f"round {last['round']} (seed {last['seed']}) breaks rules of the audit:\n{last['broken']}")
    if len(rows) <= WARM_UP:
        return
    for what in ("python_threads", "native_threads", "files"):
        if last[what] > before[what].max():
            raise RunError(
                f"round {last['round']} (seed {last['seed']}) left something behind: {what.replace('_', ' ')} "
                f"{last[what]}, at most {before[what].max()} in the first {WARM_UP} rounds"
            )
    if last["rss_mb"] > CEILING * before["rss_mb"].max():
        raise RunError(
            f"memory grows: {last['rss_mb']:.0f} MB after round {last['round']}, at most {before['rss_mb'].max():.0f} "
            f"MB in the first {WARM_UP} rounds"
        )


def _line(row: dict) -> str:
    return (
        f"round {row['round']}, {row['elapsed_s'] / 60:.1f} min: {row['violations']} violations in {row['audits']} "
        f"audits, GoS {100 * row['gos_arrival']:.2f} %, {row['rss_mb']:.0f} MB, {row['python_threads']} + "
        f"{row['native_threads'] - row['python_threads']} threads, {row['files']} files, {row['steps']} steps"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run a soak; return 0 if all was well, 2 after an error."""
    parser = argparse.ArgumentParser(prog=SOAK_COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--scenario", default="montreal")
    parser.add_argument("--days", type=int, default=2, help="training days of a round")
    parser.add_argument("--folder", type=Path, default=study_folder("soak"), help="of soak.parquet")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    log.setLevel(logging.INFO)
    try:
        rows = soak(options.scenario, options.hours, options.folder, options.days)
    except AmarlError as error:
        log.error("error: %s", error)
        return 2
    if len(rows):
        log.info("%d rounds in %.2f h: %s", len(rows), rows["elapsed_s"].iloc[-1] / 3600, growth(rows).sentence())
    return 0


if __name__ == "__main__":
    sys.exit(main())
