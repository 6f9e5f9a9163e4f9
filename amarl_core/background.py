"""A training in a thread of its own, which can be watched, stopped and resumed from elsewhere."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from amarl_core.agents import Training, train
from amarl_core.config import TrainConfig
from amarl_core.errors import AmarlError
from amarl_core.runs import RunFolder
from amarl_core.teams import Run, load_run
from amarl_core.watch import Watch

if TYPE_CHECKING:
    from amarl_core.scenario import Scenario

log = logging.getLogger(__name__)

NEW, PREPARING, TRAINING, STOPPING, STOPPED, FINISHED, FAILED = (
    "new", "preparing", "training", "stopping", "stopped", "finished", "failed")  # fmt: skip
AT_WORK = (PREPARING, TRAINING, STOPPING)


class Background:
    """One training run, in its folder: a finished one is loaded, an unfinished one goes on from its checkpoint.

    `stop` and `resume` only set events; whoever owns the object calls `obey` to have them done.

    Args:
        scenario: the world.
        config: of the training.
        folder: where it is recorded.
        **choices: `checkpoint_s` and `tensorboard` of `agents.train`.

    Attributes:
        run: the run as it stood when its threads last returned; None before.
        error: what made it fail; None when nothing did.
        watch: the eyes on a training that has begun.
        wake: set when something is to be done or has happened.
    """

    def __init__(self, scenario: Scenario, config: TrainConfig, folder: Path, **choices: object):
        self.scenario, self.folder, self._choices = scenario, folder, choices
        self.run: Run | None = load_run(folder, scenario) if RunFolder(folder).is_finished else None
        self.config = self.run.config if self.run is not None else config
        self.error: BaseException | None = None
        self.watch: Watch | None = None
        self.wake = threading.Event()
        self._stop_wanted, self._go_wanted = threading.Event(), threading.Event()
        self._training: Training | None = None
        self._thread: threading.Thread | None = None

    @property
    def state(self) -> str:
        """One of new, preparing, training, stopping, stopped, finished, failed."""
        if self._thread is not None and self._thread.is_alive():
            if self._stop_wanted.is_set():
                return STOPPING
            return PREPARING if self._training is None else TRAINING
        if self.error is not None:
            return FAILED
        return self.run.status if self.run is not None else NEW

    @property
    def is_at_work(self) -> bool:
        """Whether its threads are running or about to."""
        return self.state in AT_WORK or self._go_wanted.is_set()

    @property
    def progress(self) -> pd.DataFrame:
        """The progress table so far; empty before the first update."""
        if self._training is not None:
            return self._training.progress.frame()
        return self.run.progress if self.run is not None else pd.DataFrame()

    @property
    def timing(self) -> dict:
        """Seconds by phase and agent so far; empty before training has begun."""
        if self._training is None or not self.is_at_work:
            return self.run.timing if self.run is not None else {}
        progress = self._training.progress
        return progress.timing(
            self._training.simulation.agents, dataclasses.replace(self._training.spent, wall_s=progress.wall_s), 0.0
        )

    def stop(self) -> None:
        """Ask for a stop: agents return at their next event or after their update, and a checkpoint is written."""
        self._stop_wanted.set()
        self.wake.set()

    def resume(self) -> None:
        """Ask for training to start, or to go on from its checkpoint."""
        self._stop_wanted.clear()
        self._go_wanted.set()
        self.wake.set()

    def obey(self) -> None:
        """Do what was asked for."""
        if self._stop_wanted.is_set() and self._training is not None:
            self._training.stop()
        if self._go_wanted.is_set() and (self._thread is None or not self._thread.is_alive()):
            if self.state != FINISHED:
                self._forget()
                self._thread = threading.Thread(target=self._train_quietly, name="training", daemon=True)
                self._thread.start()
            self._go_wanted.clear()

    def join(self, timeout_s: float | None = None) -> str:
        """Wait until no thread trains any more, or for so many seconds; return the state."""
        end = time.monotonic() + (np.inf if timeout_s is None else timeout_s)
        while self.is_at_work and time.monotonic() < end:
            time.sleep(0.02)
        return self.state

    def train(self) -> None:
        """Train until the end or a stop, on the caller's thread; what went wrong is kept in `error` and raised."""
        self._forget()
        try:
            self.run = train(
                self.scenario, config=self.config, folder=self.folder, on_start=self._begin, **self._choices
            )
        except BaseException as error:
            self.error = error
            raise

    def _forget(self) -> None:
        """Let go of an earlier part: with its records it may fill hundreds of MB."""
        self._training = self.watch = self.error = None
        if self.run is not None:
            self.run.simulation = None

    def _begin(self, training: Training) -> None:
        self.watch = Watch(training)
        self._training = training
        if self._stop_wanted.is_set():  # it was asked for while the training got ready
            training.stop()

    def _train_quietly(self) -> None:
        try:
            self.train()
        except AmarlError:
            pass  # the owner shows `error`
        except BaseException:
            log.exception("the training in %s failed", self.folder)
        finally:
            self.wake.set()
