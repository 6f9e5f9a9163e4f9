"""What is killed to see what is left: a training, an evaluation, a study, the export of a page; and their results.

    python -m amarl_core.victims train <folder>

Each does its work in a folder, goes on where one that was killed left off, and says so when its work begins.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from amarl_core.config import METHODS
from amarl_core.errors import AmarlError
from amarl_core.files import sweep
from amarl_core.integrity import files_below
from amarl_core.policy import read_weights
from amarl_core.runs import RunFolder, read_frame, read_json, record_name
from amarl_core.trials import DIGEST_LENGTH

log = logging.getLogger(__name__)

BEGUN = "begun"
"""What a victim says once it has imported all it needs: from then on it may be killed."""

DAYS = 16
"""Training days of a training to be killed."""
CHECKPOINT_S = 0.05
SERVED_DAYS = 10
SEED = 7
NOTEBOOK = "40_failure_causes"
WALL_CLOCK = ["wall_s", "wait_s", "idle_s", "update_s", "rollout_s"]
DIGEST = re.compile(rf"/[0-9a-f]{{{DIGEST_LENGTH}}}/")
CLOCKED = ("started", "seconds", "seconds_to_paper")
MADE_ON = re.compile(r" on \d{4}-\d\d-\d\d \d\d:\d\d\.")


# ------------------------------------------------------------------------------------------------ the victims
def train_victim(folder: Path) -> None:
    """Train AMARL in the deterministic mode, with many checkpoints."""
    from amarl_core.agents import train
    from amarl_core.scenario import load_scenario

    scenario = load_scenario("toy")
    train(scenario, days=1, deterministic=True)  # compiles, or loads what is compiled
    say_begun()
    if not RunFolder(folder).is_finished:
        choices = dict(days=DAYS, deterministic=True, checkpoint_s=CHECKPOINT_S)
        train(scenario, "amarl", SEED, folder=folder, **choices)


def evaluate_victim(folder: Path) -> None:
    """Serve some days with all threads in order of arrival, and on one thread, and write what was decided."""
    from amarl_core.agents import train
    from amarl_core.evaluation import play_trace
    from amarl_core.scenario import load_scenario
    from amarl_core.steps import write_played
    from amarl_core.teams import load_run

    scenario = load_scenario("toy")
    if not (folder / "run" / "status.json").exists():
        train(scenario, "amarl", SEED, folder=folder / "run", days=2, deterministic=True)
    run = load_run(folder / "run", scenario)
    for order in ("arrival", "pipeline"):
        play_trace(run, scenario.training_trace(seed=SEED).head(100), order)  # compiles, or loads what is compiled
    say_begun()
    sweep(folder)
    for day in range(SERVED_DAYS):
        trace = scenario.training_trace(seed=SEED + 1, first_day=day)
        for order, window in (("arrival", 0), ("pipeline", 4)):  # plans of a fixed age: the same in every run
            write_played(folder / order, str(day), "arrival3", play_trace(run, trace, order, window=window))


def batch_victim(folder: Path) -> None:
    """Do a whole smoke study: train, time, compare, bound, serve, audit."""
    from amarl_core.study import run_study

    say_begun()
    run_study("smoke", "smoke", root=folder)


def export_victim(folder: Path) -> None:
    """Run a notebook on the study beside it and export its page and the index."""
    from amarl_core.batch import Job, run_job
    from amarl_core.export import write_index

    say_begun()
    sweep(folder)
    study, reports = str(folder.parent / "study" / "smoke"), folder / "reports"
    page, _ = run_job(Job(NOTEBOOK, {"study": study}), reports)
    write_index(study, [page], reports, "python -m amarl_core.kills")


VICTIMS: dict[str, Callable[[Path], None]] = {
    "train": train_victim,
    "evaluate": evaluate_victim,
    "batch": batch_victim,
    "export": export_victim,
}


def say_begun() -> None:
    """Tell the killer that work begins."""
    sys.stdout.write(f"{BEGUN}\n")
    sys.stdout.flush()


# ------------------------------------------------------------------------------------------------ their results
def train_results(folder: Path) -> dict[str, object]:
    """Return what a training leaves that does not depend on the clock."""
    found: dict[str, object] = {name: read_json(folder / f"{name}.json") for name in ("status", "config")}
    for kind in ("decisions", "ledger"):
        found[kind] = read_frame(folder / record_name(kind, "train", "train"))
    found["progress"] = read_frame(folder / "progress.parquet").drop(columns=WALL_CLOCK)
    for path in sorted((folder / "model").glob("*.zip")):
        found |= {f"{path.stem}/{name}": values.numpy() for name, values in read_weights(path).items()}
    return found


def evaluate_results(folder: Path) -> dict[str, object]:
    """Return decisions and ledgers of all days."""
    paths = sorted([*folder.glob("arrival/*.parquet"), *folder.glob("pipeline/*.parquet")])
    return {f"{path.parent.name}/{path.stem}": read_frame(path) for path in paths}


def batch_results(folder: Path) -> dict[str, object]:
    """Return what a study leaves that depends neither on the clock nor on the order of threads: which files there are,
    SARL (one agent) and its days in order of arrival, the rules, both of them under shifts, and that the audit found
    nothing."""
    study = folder / "smoke"
    found: dict[str, object] = {"files": names_below(study)}
    shifts = read_frame(study / "robustness.parquet")
    found["shifts"] = shifts[shifts["method"] != "amarl"].reset_index(drop=True)
    info = read_json(study / "study.json")
    found["study"] = {name: value for name, value in info.items() if name not in CLOCKED}
    audits = read_frame(study / "audits.parquet")
    found["audits"] = audits[["method", "seed", "day", "variant", "requests", "violations"]]
    found |= {f"sarl/{name}": value for name, value in train_results(study / "sarl" / "seed=0").items()}
    served = [study / "sarl" / "seed=0" / record_name("decisions", day, v)
              for day in info["test_days"] for v in ("arrival3", "arrival1")]  # fmt: skip
    for path in [*served, *sorted(study.glob("baselines/*/*.parquet"))]:
        found[str(path.relative_to(study))] = read_frame(path)
    for method in METHODS:
        found[f"{method} is"] = read_json(study / method / "seed=0" / "status.json")["status"]
    return found


def names_below(study: Path) -> list[str]:
    """List all files; the name of a trial's folder is a digest of AMARL's run, whose threads race, and not compared."""
    return sorted(DIGEST.sub("/<digest>/", str(path.relative_to(study))) for path in files_below(study))


def export_results(folder: Path) -> dict[str, object]:
    """Return the pages, without the minute at which they were made."""
    pages = sorted((folder / "reports").glob("*.html"))
    return {path.name: MADE_ON.sub("", path.read_text(encoding="utf-8")) for path in pages}


RESULTS: dict[str, Callable[[Path], dict[str, object]]] = {
    "train": train_results,
    "evaluate": evaluate_results,
    "batch": batch_results,
    "export": export_results,
}


def differences(results: dict[str, object], expected: dict[str, object]) -> list[str]:
    """List the names of what two victims left that is not the same to the bit."""
    names = sorted(results.keys() | expected.keys())
    return [name for name in names if not _is_same(results.get(name), expected.get(name))]


def _is_same(one: object, other: object) -> bool:
    if isinstance(one, pd.DataFrame) and isinstance(other, pd.DataFrame):
        return one.equals(other)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.shape == other.shape and one.tobytes() == other.tobytes()
    return type(one) is type(other) and one == other


def main(arguments: list[str] | None = None) -> int:
    """Do the work of one victim; return 0, or 2 after an error."""
    kind, folder = arguments or sys.argv[1:]
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        VICTIMS[kind](Path(folder))
    except AmarlError as error:
        log.error("error: %s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
