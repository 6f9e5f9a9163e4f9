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
from statistics import median

from amarl_core.crews import Crew, LostWorkerError, make_crew
from amarl_core.runs import RunFolder, write_json
from amarl_core.trials import RUNS, Ended, Study, Trial, carry_out

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
    n_open = len(worklist.left)
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
        self.n_workers = 1
        self.ended: dict[Trial, Ended] = {}
        self.waiting: list[Trial] = []
        self.running: set[Trial] = set()
        self.held: list[Trial] = []  # being done by another process
        self.suspects: list[Trial] = []  # were being done when a process died: done alone from now on
        self._seconds: dict[str, list[float]] = defaultdict(list)  # of trials that were done here, by kind
        for trial in trials:
            if RunFolder(folder / trial.place).is_finished:
                self.ended[trial] = Ended(trial, "finished")
            else:
                self.waiting.append(trial)

    @property
    def n(self) -> int:
        """Number of trials."""
        return len(self.ended) + len(self.left)

    @property
    def left(self) -> list[Trial]:
        """The trials that have not ended."""
        return [*self.waiting, *self.running, *self.held, *self.suspects]

    def take_ready(self, at_most: int) -> list[Trial]:
        """Take what is to be done now: trials that have all they need, or else a suspect, alone.

        A trial whose need failed has failed.
        """
        ready, waiting = [], []
        for trial in self.waiting:
            needs = [self.ended.get(need) for need in trial.needs]
            failed = [need for need in needs if need is not None and need.status != "finished"]
            if failed:
                self.note(Ended(trial, "failed", error=f"it needs {failed[0].trial}, which {failed[0].status}"))
            elif all(needs) and len(ready) < at_most:
                ready.append(trial)
            else:
                waiting.append(trial)
        self.waiting = waiting
        if not ready and not self.running and self.suspects:
            ready.append(self.suspects.pop())
        self.running |= set(ready)
        return ready

    def note(self, ended: Ended) -> None:
        """Take note of how a trial ended, and say so."""
        self.running.discard(ended.trial)
        if ended.status == "held":
            self.held.append(ended.trial)
            return
        self.ended[ended.trial] = ended
        if ended.seconds and ended.status == "finished":
            self._seconds[ended.trial.kind.name].append(ended.seconds)
        level = logging.INFO if ended.status == "finished" else logging.WARNING
        took = f", {duration(ended.seconds)}" if ended.seconds else ""
        what = f"{ended.trial}: {ended.status}{took}{f': {ended.error}' if ended.error else ''}"
        left = self.seconds_left()
        log.log(level, "[%d/%d] %s%s", len(self.ended), self.n, what, f"; about {duration(left)} left" if left else "")

    def note_death(self, trial: Trial, is_alone: bool) -> None:
        """Take note that the process died that a trial was given to.

        Args:
            trial: The trial.
            is_alone: Whether no other was being done, so that there is no doubt about which brought it down.
        """
        self.running.discard(trial)
        status = RunFolder(self.folder / trial.place).status
        if status != "running":  # it was done already, or had not begun
            self.waiting.insert(0, trial)
        elif is_alone:
            self.note(Ended(trial, "failed", error="its process died (killed, or out of memory)"))
        else:
            self.suspects.append(trial)

    def look_again(self) -> None:
        """Let the trials that another process was doing be tried again."""
        self.waiting, self.held = [*self.waiting, *self.held], []

    def seconds_left(self) -> float | None:
        """Estimate the time left by the median of what trials of each kind took; None with nothing to go by."""
        left = self.left
        if any(trial.kind.name not in self._seconds for trial in left):
            return None
        seconds = sum(median(self._seconds[trial.kind.name]) for trial in left)
        return seconds / max(1, min(self.n_workers, len(left)))


def work(worklist: Worklist, crew: Crew) -> None:
    """Let a crew do a worklist to its end."""
    running: dict[Future, Trial] = {}
    looked = time.perf_counter()
    while worklist.left:
        worklist.n_workers = crew.n_workers
        # no more than there are workers: whatever waits may be taken by another process, and Ctrl-C ends all that runs
        for trial in worklist.take_ready(crew.n_workers - len(running)):
            running[crew.submit(carry_out, trial, worklist.folder)] = trial
        has_room = len(running) < crew.n_workers
        if running:
            timeout = LOOK_AGAIN_S if worklist.held and has_room else None
            done, _ = wait(running, timeout, FIRST_COMPLETED)
            _collect(worklist, crew, running, done)
        elif worklist.held:
            time.sleep(LOOK_AGAIN_S)
        if worklist.held and has_room and time.perf_counter() - looked >= LOOK_AGAIN_S:
            looked = time.perf_counter()
            worklist.look_again()


def _collect(worklist: Worklist, crew: Crew, running: dict[Future, Trial], done: Iterable[Future]) -> None:
    """Take note of what has ended; when a process died, engage a new crew and give it what was not done."""
    lost, was_alone = [], len(running) == 1
    for future in done:
        trial = running.pop(future)
        try:
            worklist.note(future.result())
        except (BrokenExecutor, LostWorkerError):
            lost.append(trial)
        except Exception as error:  # the cluster's own, such as a worker that cannot import the project
            worklist.note(Ended(trial, "failed", error=f"{type(error).__name__}: {error}"))
    if lost and crew.breaks_as_one:
        lost += running.values()
        running.clear()
        crew.renew()
    for trial in lost:
        log.warning("the process died that was to do %s", trial)
        worklist.note_death(trial, was_alone)


def duration(seconds: float) -> str:
    """Say a duration with one or two units, such as "3 min 20 s"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
