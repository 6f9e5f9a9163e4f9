"""Kill -9 at random moments: afterwards every file is whole or absent, and the work ends with the same results.

    python -m amarl_core.kills --times 50 --folder reports/runs/kills

A *victim* is a training, an evaluation, a whole smoke study or the export of a page, in a process group of its own. It
is killed at a moment drawn uniformly over the time that it takes undisturbed, started again in the same folder, killed
again, and at last left to end. After each kill every file below its folder is read to the end (`integrity`); the
results are held against those of a victim that nobody disturbed. The record is `kills.json`.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from amarl_core.config import METHODS
from amarl_core.errors import AmarlError, RunError
from amarl_core.files import sweep
from amarl_core.integrity import damaged, files_below, half_written
from amarl_core.look import Note, Table
from amarl_core.policy import read_weights
from amarl_core.records import study_folder
from amarl_core.runs import read_frame, read_json, record_name, write_json

log = logging.getLogger(__name__)

RECORD = "kills.json"
COMMAND = "python -m amarl_core.kills"
PROJECT = Path(__file__).resolve().parent.parent
BEGUN = "begun"
"""What a victim says once it has imported all it needs: from then on it may be killed."""

DAYS = 24
"""Training days of a training to be killed."""
CHECKPOINT_S = 0.05
SERVED_DAYS = 6
SEED = 7
NOTEBOOK = "40_failure_causes"
WALL_CLOCK = ["wall_s", "wait_s", "idle_s", "update_s", "rollout_s"]
MADE_ON = re.compile(r" on \d{4}-\d\d-\d\d \d\d:\d\d\.")
PATIENCE_S = 1800.0
"""A victim that takes longer than this hangs."""


# ------------------------------------------------------------------------------------------------ the victims
def train_victim(folder: Path) -> None:
    """Train AMARL in the deterministic mode, with many checkpoints."""
    from amarl_core.agents import train
    from amarl_core.scenario import load_scenario

    say_begun()
    if not (folder / "status.json").exists() or read_json(folder / "status.json")["status"] != "finished":
        choices = dict(days=DAYS, deterministic=True, checkpoint_s=CHECKPOINT_S)
        train(load_scenario("toy"), "amarl", SEED, folder=folder, **choices)


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
    say_begun()
    sweep(folder)
    run = load_run(folder / "run", scenario)
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
    write_index(study, [page], reports, COMMAND)


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
    found: dict[str, object] = {
        "status": read_json(folder / "status.json"),
        "config": read_json(folder / "config.json"),
    }
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
    SARL (one agent) and its days in order of arrival, the rules, and that the audit found nothing."""
    study = folder / "smoke"
    found: dict[str, object] = {"files": [str(path.relative_to(study)) for path in files_below(study)]}
    info = read_json(study / "study.json")
    found["study"] = {name: value for name, value in info.items() if name not in ("started", "seconds")}
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


# ------------------------------------------------------------------------------------------------ the killing
@dataclass
class Tally:
    """What was done to one kind of victim, and what was found.

    Attributes:
        kills: times it was killed while it worked.
        ends: times it was left to end, or was quicker than its killer.
        seconds: time that an undisturbed one takes, s.
        after_s: moments of the kills, s after its work began.
        files: files that were read to the end after kills, all together.
        left: files and folders in the making that kills left; the next start sweeps them.
        damaged: files that were not whole.
        different: results that were not those of the undisturbed victim.
    """

    kills: int = 0
    ends: int = 0
    seconds: float = 0.0
    after_s: list[float] = field(default_factory=list)
    files: int = 0
    left: int = 0
    damaged: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether every file was whole or absent, and all results the same."""
        return not self.damaged and not self.different


def kill_often(kind: str, times: int, folder: Path, generator: np.random.Generator, in_a_row: int = 5) -> Tally:
    """Kill one kind of victim so many times, and let it end after every few kills.

    Args:
        kind: one of VICTIMS.
        times: kills.
        folder: where the victims work; removed at the end.
        generator: draws the moments.
        in_a_row: kills of one piece of work before it may end.

    Raises:
        RunError: a victim that nobody disturbed failed.
    """
    tally, expected = Tally(), folder / "undisturbed"
    tally.seconds = _let_end(kind, expected)
    results, number = RESULTS[kind](expected), 0
    while tally.kills < times:
        place, number = folder / f"killed-{number}", number + 1
        for _ in range(min(in_a_row, times - tally.kills)):
            if not _kill_one(kind, place, float(generator.uniform(0.0, tally.seconds)), tally):
                break
        _let_end(kind, place)
        tally.ends += 1
        tally.damaged += damaged(place)
        if half_written(place):
            tally.different.append(f"{kind}: {len(half_written(place))} files in the making were not swept")
        tally.different += [f"{kind}: {name}" for name in differences(RESULTS[kind](place), results)]
        shutil.rmtree(place)
        log.info("%s: %d kills, %s", kind, tally.kills, "all whole and the same" if tally.is_clean else asdict(tally))
    return tally


def _kill_one(kind: str, place: Path, after_s: float, tally: Tally) -> bool:
    """Kill a victim so long after its work began and look at its files; return False if it was quicker."""
    with _victim(kind, place) as process:
        _wait_for_work(kind, process)
        try:
            code = process.wait(after_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            tally.kills += 1
            tally.after_s.append(round(after_s, 3))
            tally.files += len(files_below(place))
            tally.left += len(half_written(place))
            tally.damaged += damaged(place)
            return True
    if code != 0:
        raise RunError(f"a {kind} that was killed before failed with code {code}; its message stands above")
    return False


def _let_end(kind: str, place: Path) -> float:
    """Let a victim end; return how long it worked, s."""
    with _victim(kind, place) as process:
        _wait_for_work(kind, process)
        began = time.perf_counter()
        if process.wait(PATIENCE_S) != 0:
            raise RunError(f"a {kind} failed with code {process.returncode}; its message stands above")
        return time.perf_counter() - began


@contextmanager
def _victim(kind: str, place: Path) -> Iterator[subprocess.Popen]:
    """Start a victim in a process group of its own; whatever happens, it does not outlive the block."""
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as aside:  # its kernels' files, not its results
        process = subprocess.Popen(
            [sys.executable, "-m", "amarl_core.kills", "--victim", kind, "--folder", str(place)],
            cwd=PROJECT,
            env=os.environ | {"TMPDIR": aside},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            process.stdout.close()


def _wait_for_work(kind: str, process: subprocess.Popen) -> None:
    if process.stdout.readline().strip() != BEGUN:
        raise RunError(f"a {kind} failed before its work began; its message stands above")


def run_kills(times: int, folder: Path, seed: int = 0, kinds: tuple[str, ...] = tuple(VICTIMS)) -> dict:
    """Share kills among kinds of victims, and write `kills.json`.

    Args:
        times: kills, all together.
        folder: of the record; the victims work below it.
        seed: of the moments.
        kinds: some of VICTIMS; "export" needs a study, which "batch" or it itself makes.

    Returns:
        What was written: times, seed, seconds, and a tally by kind.
    """
    began, tallies = time.perf_counter(), {}
    work = Path(folder).resolve() / "work"
    shutil.rmtree(work, ignore_errors=True)
    for number, kind in enumerate(kinds):
        share = times // len(kinds) + (number < times % len(kinds))
        generator = np.random.default_rng([seed, number])
        if kind == "export" and not (work / kind / "study").exists():
            _let_end("batch", work / kind / "study")
        tallies[kind] = asdict(kill_often(kind, share, work / kind, generator))
        record = {"times": sum(t["kills"] for t in tallies.values()), "seed": seed, "kinds": tallies,
                  "seconds": time.perf_counter() - began}  # fmt: skip
        write_json(Path(folder) / RECORD, record)
        shutil.rmtree(work / kind, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)
    return record


def kills_summary(folder: Path) -> dict | None:
    """Return the totals of a record for `headline.json`, or None where there is none.

    Args:
        folder: of the record.
    """
    if not (Path(folder) / RECORD).exists():
        return None
    kinds = read_json(Path(folder) / RECORD)["kinds"]
    total = {name: sum(tally[name] for tally in kinds.values()) for name in ("kills", "files", "left")}
    found = {name: sum(len(tally[name]) for tally in kinds.values()) for name in ("damaged", "different")}
    return total | found | {"by_kind": {kind: tally["kills"] for kind, tally in kinds.items()}}


WORDS = {"train": "training", "evaluate": "evaluation", "batch": "smoke study", "export": "page and index"}


def kills_table(folder: Path) -> Table | Note:
    """Show what killing found, or how to do it.

    Args:
        folder: of the record, such as `reports/runs/kills`.
    """
    if not (Path(folder) / RECORD).exists():
        return Note(f"Nothing was killed yet: `{COMMAND} --times 50` takes half an hour.")
    record = read_json(Path(folder) / RECORD)
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
        f"`{COMMAND}`: {record['times']} kills (SIGKILL to the process group) at moments drawn uniformly over the time "
        "that the work takes undisturbed, up to five in a row before it may end. After each kill every file is read to "
        "its end. Compared to the bit with work that nobody disturbed: a deterministic training, decisions and ledger "
        "of served days, of a study all that does not depend on the clock or on the order of threads, and pages."
    )
    return Table(pd.DataFrame(rows), caption)


def main(arguments: list[str] | None = None) -> int:
    """Kill, or be a victim; return 0 if all was well, 2 otherwise."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=50, help="kills, shared among the kinds")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--kinds", nargs="+", choices=VICTIMS, default=list(VICTIMS))
    parser.add_argument("--folder", type=Path, default=study_folder("kills"), help="of kills.json")
    parser.add_argument("--victim", choices=VICTIMS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        if options.victim:
            VICTIMS[options.victim](options.folder)
            return 0
        log.setLevel(logging.INFO)
        record = run_kills(options.times, options.folder, options.seed, tuple(options.kinds))
        bad = [line for tally in record["kinds"].values() for line in tally["damaged"] + tally["different"]]
        for line in bad:
            log.error("error: %s", line)
        return 2 if bad else 0
    except AmarlError as error:
        log.error("error: %s", error)
        return 2


if __name__ == "__main__":
    # under its own name: what it defines is then the same for those who import it
    sys.exit(importlib.import_module("amarl_core.kills").main())
