"""Kill -9 at random moments: afterwards every file is whole or absent, and the work ends with the same results.

    python -m amarl_core.kills --times 50 --folder reports/runs/kills

A *victim* (`victims`) is a training, an evaluation, a whole smoke study or the export of a page, in a process group of
its own. It is killed at a moment drawn uniformly over the time that it takes undisturbed, started again in the same
folder, killed again, and at last left to end. After each kill every file below its folder is read to the end
(`integrity`); the results are held against those of a victim that nobody disturbed. The record is `kills.json`.
"""

from __future__ import annotations

import argparse
import logging
import os
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

from amarl_core.errors import AmarlError, RunError
from amarl_core.integrity import damaged, files_below, half_written
from amarl_core.records import study_folder
from amarl_core.reliability import KILLS_COMMAND, KILLS_RECORD
from amarl_core.runs import read_json, write_json
from amarl_core.victims import BEGUN, RESULTS, VICTIMS, differences

log = logging.getLogger(__name__)

PROJECT = Path(__file__).resolve().parent.parent
IN_A_ROW = 5
"""Kills of one piece of work before it may end."""

PATIENCE_S = 3600.0
"""A victim that takes longer than this hangs."""


@dataclass
class Tally:
    """What was done to one kind of victim, and what was found.

    Attributes:
        kills: times it was killed while it worked.
        ends: times it was left to end, or was quicker than its killer.
        seconds: time that an undisturbed one takes at its quickest, s.
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


def kill_often(
    kind: str, times: int, folder: Path, generator: np.random.Generator, note: Callable[[Tally], None] = lambda _: None
) -> Tally:
    """Kill one kind of victim so many times, and let it end after every few kills.

    Args:
        kind: one of VICTIMS.
        times: kills.
        folder: where the victims work; removed at the end.
        generator: draws the moments.
        note: called with the tally so far whenever a piece of work has ended.

    Raises:
        RunError: a victim that nobody disturbed failed.
    """
    tally, expected = Tally(), folder / "undisturbed"
    tally.seconds = _let_end(kind, expected)
    results, number = RESULTS[kind](expected), 0
    while tally.kills < times:
        place, number = folder / f"killed-{number}", number + 1
        for turn in range(min(IN_A_ROW, times - tally.kills)):
            took = _kill_one(kind, place, float(generator.uniform(0.0, tally.seconds)), tally)
            if took is not None:
                tally.seconds = min(tally.seconds, took) if turn == 0 else tally.seconds
                break
        _let_end(kind, place)
        tally.ends += 1
        tally.damaged += damaged(place)
        if half_written(place):
            tally.different.append(f"{kind}: {len(half_written(place))} files in the making were not swept")
        tally.different += [f"{kind}: {name}" for name in differences(RESULTS[kind](place), results)]
        shutil.rmtree(place)
        log.info("%s: %d kills, %s", kind, tally.kills, "all whole and the same" if tally.is_clean else asdict(tally))
        note(tally)
    return tally


def _kill_one(kind: str, place: Path, after_s: float, tally: Tally) -> float | None:
    """Kill a victim so long after its work began and look at its files; return the time it took if it was quicker."""
    with _victim(kind, place) as process:
        _wait_for_work(kind, process)
        began = time.perf_counter()
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
            return None
    if code != 0:
        raise RunError(f"a {kind} that was killed before failed with code {code}; its message stands above")
    return time.perf_counter() - began


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
            [sys.executable, "-m", "amarl_core.victims", kind, str(place)],
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

        def note(tally: Tally, kind: str = kind) -> None:
            tallies[kind] = asdict(tally)
            killed = sum(one["kills"] for one in tallies.values())
            record = {"times": killed, "seed": seed, "seconds": time.perf_counter() - began, "kinds": tallies}
            write_json(Path(folder) / KILLS_RECORD, record)

        kill_often(kind, share, work / kind, generator, note)
        shutil.rmtree(work / kind, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)
    return read_json(Path(folder) / KILLS_RECORD)


def main(arguments: list[str] | None = None) -> int:
    """Kill; return 0 if all was well, 2 otherwise."""
    parser = argparse.ArgumentParser(prog=KILLS_COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=50, help="kills, shared among the kinds")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--kinds", nargs="+", choices=VICTIMS, default=list(VICTIMS))
    parser.add_argument("--folder", type=Path, default=study_folder("kills"), help="of kills.json")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    log.setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # no victim outlives its killer
    try:
        record = run_kills(options.times, options.folder, options.seed, tuple(options.kinds))
        bad = [line for tally in record["kinds"].values() for line in tally["damaged"] + tally["different"]]
        for line in bad:
            log.error("error: %s", line)
        return 2 if bad else 0
    except AmarlError as error:
        log.error("error: %s", error)
        return 2


if __name__ == "__main__":
    sys.exit(main())
