"""Doing a study: what is not done yet, by as many processes as there are, and what could not be done.

Two processes may do one study at once, on one machine or on several that share its folder: each trial is done under the
lock of its folder. One that another process holds is looked at again when nothing else is left. A study that was
killed goes on where it was: what is finished stays, and a training goes on from its checkpoint.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from amarl_core.crews import Crew, LostWorkerError, make_crew
from amarl_core.runs import RunFolder, write_json
from amarl_core.studies import RUNS, Study
from amarl_core.trials import Ended, Trial, carry_out

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 1.0
"""Seconds between looks at trials that another process is doing."""


@dataclass(frozen=True)
class Report:
    """How a study stands.

    Attributes:
        study: The study.
        folder: Where it is recorded.
        ended: How each of its trials stands, in the order of the study.
        seconds: What this call took, s.
    """

    study: Study
    folder: Path
    ended: tuple[Ended, ...]
    seconds: float

    @property
    def failed(self) -> tuple[Ended, ...]:
        """The trials that could not be done."""
        return tuple(ended for ended in self.ended if ended.status != "finished")

    @property
    def ok(self) -> bool:
        """Whether all trials are finished."""
        return not self.failed

    def summary(self) -> str:
        """Say in lines what was done and what failed."""
        done = sum(ended.seconds > 0 for ended in self.ended if ended.status == "finished")
        lines = [
            f"study {self.study.name!r}: {len(self.ended) - len(self.failed)} of {len(self.ended)} trials finished, "
            f"{done} of them now, in {duration(self.seconds)}; {self.folder}"
        ]
        for ended in self.failed:
            lines.append(f"  {ended.status}: {ended.trial} ({ended.trial.place}): {ended.error}")
        if self.failed:
            lines.append("  The same command tries them again; error.txt in a trial's folder has the traceback.")
        return "\n".join(lines)


def run(
    study: Study,
    root: str | Path = RUNS,
    *,
    jobs: int | None = None,
    backend: str = "local",
    scheduler: str | None = None,
) -> Report:
    """Do what is not done yet of a study.

    Args:
        study: The study.
        root: Where studies are recorded; on a cluster, a folder that all machines share.
        jobs: Processes at once, each with its share of the cores; the number of cores by default, 0 for none but this
            one. A cluster brings its own.
        backend: "local" or "dask".
        scheduler: Address of the Dask scheduler, such as "tcp://127.0.0.1:8786".

    Returns:
        How each trial stands. A trial that failed does not keep others from being done, but those that need it.

    Raises:
        AmarlError: An unknown backend, or one that is not there.
        KeyboardInterrupt: Ctrl-C; trainings have written a checkpoint.
    """
    started, folder = time.perf_counter(), study.folder(root)
    worklist = Worklist(study.trials, folder)
    write_json(
        folder / "trials.json",
        {
            "study": study.name,
            "question": study.question,
            "trials": [{"place": t.place, "kind": t.kind.name, "values": t.values} for t in study.trials],
        },
    )
    n_open = len(worklist.waiting)
    log.info("study %s: %d trials, %d of them finished", study.name, len(study.trials), len(study.trials) - n_open)
    if n_open:
        with make_crew(backend, jobs, scheduler, n_open) as crew:
            work(worklist, crew)
    ended = tuple(worklist.ended[trial] for trial in study.trials)
    return Report(study, folder, ended, time.perf_counter() - started)


class Worklist:
    """Which trials are still to be done.

    Args:
        trials: All trials; one that needs another comes after it.
        folder: Of the study.
    """

    def __init__(self, trials: Iterable[Trial], folder: Path) -> None:
        self.folder = folder
        self.ended: dict[Trial, Ended] = {}
        self.waiting: list[Trial] = []
        self.held: list[Trial] = []  # being done by another process
        self.suspects: list[Trial] = []  # were being done when a process died: done alone now
        self._seconds: dict[str, list[float]] = defaultdict(list)  # of trials that were done here, by kind
        for trial in trials:
            if RunFolder(folder / trial.place).is_finished:
                self.ended[trial] = Ended(trial, "finished")
            else:
                self.waiting.append(trial)
        self.n = len(self.ended) + len(self.waiting)

    @property
    def is_open(self) -> bool:
        """Whether any trial is left that is not being done here."""
        return bool(self.waiting or self.held or self.suspects)

    def take_ready(self) -> list[Trial]:
        """Take the trials out of those that wait that have all they need; one whose need failed has failed."""
        ready, waiting = [], []
        for trial in self.waiting:
            needs = [self.ended.get(need) for need in trial.needs]
            failed = [need for need in needs if need is not None and need.status != "finished"]
            if failed:
                self.note(Ended(trial, "failed", error=f"it needs {failed[0].trial}, which is {failed[0].status}"))
            elif all(needs):
                ready.append(trial)
            else:
                waiting.append(trial)
        self.waiting = waiting
        return ready

    def note(self, ended: Ended) -> None:
        """Take note of how a trial ended, and say so."""
        if ended.status == "held":
            self.held.append(ended.trial)
            return
        self.ended[ended.trial] = ended
        if ended.seconds:
            self._seconds[ended.trial.kind.name].append(ended.seconds)
        how = f"{ended.status.upper()}: {ended.error}" if ended.error else ended.status
        level = logging.INFO if ended.status == "finished" else logging.WARNING
        log.log(level, "[%d/%d] %s: %s, %.1f s", len(self.ended), self.n, ended.trial, how, ended.seconds)

    def note_death(self, trial: Trial, is_alone: bool) -> None:
        """Take note that the process died that a trial was given to.

        Args:
            trial: The trial.
            is_alone: Whether no other was being done, so that there is no doubt about which brought it down.
        """
        place = RunFolder(self.folder / trial.place)
        if place.is_finished or place.status == "new":  # it was done already, or had not begun
            self.waiting.insert(0, trial)
        elif is_alone:
            self.note(Ended(trial, "failed", error="its process died (killed, or out of memory)"))
        else:
            self.suspects.append(trial)

    def look_again(self) -> None:
        """Let the trials that another process was doing be tried again."""
        self.waiting, self.held = [*self.waiting, *self.held], []

    def seconds_left(self, running: Iterable[Trial], n_workers: int) -> float | None:
        """Estimate the time left from what trials of each kind took so far; None when there is nothing to go by."""
        left = [*self.waiting, *self.held, *self.suspects, *running]
        if not left or any(trial.kind.name not in self._seconds for trial in left):
            return None
        return sum(fmean(self._seconds[trial.kind.name]) for trial in left) / max(1, min(n_workers, len(left)))


def work(worklist: Worklist, crew: Crew) -> None:
    """Let a crew do a worklist to its end."""
    running: dict[Future, Trial] = {}
    looked = time.perf_counter()

    def submit(trial: Trial) -> None:
        running[crew.submit(carry_out, trial, worklist.folder)] = trial

    while worklist.is_open or running:
        for trial in worklist.take_ready():
            submit(trial)
        if not running and worklist.suspects:
            submit(worklist.suspects.pop())
        has_room = len(running) < crew.n_workers
        if running:
            done, _ = wait(running, LOOK_AGAIN_S if worklist.held and has_room else None, FIRST_COMPLETED)
            _collect(worklist, crew, running, done)
        elif worklist.held:
            time.sleep(LOOK_AGAIN_S)
        if worklist.held and has_room and time.perf_counter() - looked > LOOK_AGAIN_S:
            looked = time.perf_counter()
            worklist.look_again()


def _collect(worklist: Worklist, crew: Crew, running: dict[Future, Trial], done: Iterable[Future]) -> None:
    """Take note of what has ended; when a process died, engage a new crew and give it what was not done."""
    lost, n_running = [], len(running)
    for future in done:
        trial = running.pop(future)
        try:
            worklist.note(future.result())
        except (BrokenExecutor, LostWorkerError):
            lost.append(trial)
    if lost:
        if crew.breaks_as_one:
            lost += running.values()
            running.clear()
            crew.renew()
        log.warning("a process died; %d trials are given out again", len(lost))
        for trial in lost:
            worklist.note_death(trial, is_alone=n_running == 1)
    left = worklist.seconds_left(running.values(), crew.n_workers)
    if left is not None:
        log.info("about %s left", duration(left))


def duration(seconds: float) -> str:
    """Say a duration with one or two units, such as "3 min 20 s"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
