"""A study is a list of trials; a trial is one setting, resolved to the last value, and the folder it is recorded in.

Two trials with the same resolved values are the same trial: they have one digest and one folder,
``<study>/<kind>/<digest>/``. A finished trial is never done again. What a kind of trial does is said by a `Kind`;
`trial_kinds` has the two that every study needs, and any other module may add its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from amarl_core.errors import AmarlError, HeldError, StorageError
from amarl_core.files import write_text
from amarl_core.runs import ROOT, RunFolder, plain, provenance, write_json

log = logging.getLogger(__name__)

RUNS = Path(__file__).resolve().parent.parent / ROOT
DIGEST_LENGTH = 12
"""Hexadecimal digits of a digest: 48 bits, so that a million trials share one with a chance of 0.2 %."""

_ONE_AT_A_TIME = threading.Lock()  # trials of one process: a worker of a cluster may have several threads


class Kind(ABC):
    """What a kind of trial is: how its settings are resolved, what it needs, and how it is done.

    Kinds have no state; an instance is made once, at the top of a module, so that it can be sent to other processes.
    """

    name: str = ""

    @abstractmethod
    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return all values of a trial, from those given: checked, defaults filled in, plain JSON.

        A thing on disk is given as ``{"place": ..., "digest": ...}``: the digest of its content counts, not its place.

        Raises:
            AmarlError: An unknown key, with the valid ones, or a value that is not valid.
        """

    def needs(self, values: Mapping[str, Any]) -> tuple[Trial, ...]:
        """Return the trials that must be finished before one with these values can begin."""
        return ()

    @abstractmethod
    def label(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the few values that tell a trial from others in a table or a line of progress."""

    def measure(self, trial: Trial, study: Path, place: RunFolder) -> Mapping[str, Any]:
        """Do the trial and return its outcome, one row: numbers, texts and mappings of them.

        Args:
            trial: What is to be done.
            study: The study's folder, below which lie the folders of the trials that it needs.
            place: The trial's own folder, started, for larger records.
        """
        raise NotImplementedError(f"kind {self.name!r} has neither measure nor run")

    def run(self, trial: Trial, study: Path) -> None:
        """Do the trial from start to finish in its folder; by default what ``measure`` returns is its outcome.

        Raises:
            HeldError: Another process is doing it.
        """
        place = RunFolder(study / trial.place)
        place.start({"kind": self.name, "values": trial.values}, provenance())
        try:
            place.save_json("outcome.json", self.measure(trial, study, place))
        except KeyboardInterrupt:
            place.stop()
            raise
        except BaseException as error:
            place.fail(error)
            raise
        place.finish()

    def outcome(self, place: RunFolder) -> dict[str, Any]:
        """Return what a finished trial has found."""
        return place.json("outcome.json")

    def trial(self, **given: Any) -> Trial:
        """Return a trial of this kind.

        Raises:
            AmarlError: See `resolve`.
        """
        return Trial(self, plain(self.resolve(given)))


@dataclass(frozen=True, eq=False)
class Trial:
    """One setting of a study; trials with the same digest are equal.

    Attributes:
        kind: What it does.
        values: All its values, resolved, as plain JSON.
    """

    kind: Kind
    values: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        """The first digits of the sha256 of kind and values."""
        text = json.dumps([self.kind.name, without_places(self.values)], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]

    @property
    def place(self) -> Path:
        """The trial's folder, from that of its study."""
        return Path(self.kind.name) / self.digest

    @cached_property
    def needs(self) -> tuple[Trial, ...]:
        """The trials that must be finished before this one can begin."""
        return self.kind.needs(self.values)

    @property
    def label(self) -> dict[str, Any]:
        """The few values that tell it from others."""
        return self.kind.label(self.values)

    def __str__(self) -> str:
        return " ".join([self.kind.name, *(f"{key}={value}" for key, value in self.label.items() if value is not None)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trial) and self.place == other.place

    def __hash__(self) -> int:
        return hash(self.place)


@dataclass(frozen=True)
class Study:
    """A question and the trials that answer it.

    Attributes:
        name: Of its folder below `reports/runs`.
        question: What it asks, one sentence.
        trials: Its trials, each once, and before each the trials that it needs.
    """

    name: str
    question: str
    trials: tuple[Trial, ...]

    def __post_init__(self) -> None:
        if not self.name or Path(self.name).name != self.name or self.name.startswith("."):
            raise AmarlError(f"name of a study is {self.name!r}; expected the name of a folder, without slashes")
        object.__setattr__(self, "trials", tuple(dict.fromkeys(_with_needs(self.trials))))

    def folder(self, root: str | Path = RUNS) -> Path:
        """Return where its trials are recorded."""
        return Path(root).resolve() / self.name


def _with_needs(trials: Iterable[Trial]) -> Iterator[Trial]:
    for trial in trials:
        yield from _with_needs(trial.needs)
        yield trial


def without_places(value: Any) -> Any:
    """Return plain JSON without the places of things that are known by their digests."""
    if isinstance(value, Mapping):
        kept = {key: item for key, item in value.items() if not (key == "place" and "digest" in value)}
        return {key: without_places(item) for key, item in kept.items()}
    return [without_places(item) for item in value] if isinstance(value, list) else value


def take(given: Mapping[str, Any], defaults: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return the defaults with what is given in their place; a default of ``...`` has to be given.

    Args:
        given: Some of the values.
        defaults: All of them.
        what: Of what, for the message.

    Raises:
        AmarlError: A key is unknown or missing; the message lists the valid ones.
    """
    unknown = [key for key in given if key not in defaults]
    missing = [key for key, value in defaults.items() if value is ... and key not in given]
    if unknown or missing:
        fault = f"unknown key {unknown[0]!r}" if unknown else f"{missing[0]!r} is missing"
        raise AmarlError(f"{what}: {fault}; the valid ones are {', '.join(defaults)}")
    return {**defaults, **given}


@dataclass(frozen=True)
class Ended:
    """How a trial stands after somebody tried to do it.

    Attributes:
        trial: The trial.
        status: "finished", "held" (another process is doing it), "stopped" or "failed".
        seconds: What it took here, s; 0 when it was finished before.
        error: Why it failed.
    """

    trial: Trial
    status: str
    seconds: float = 0.0
    error: str | None = None


def carry_out(trial: Trial, study: Path) -> Ended:
    """Do a trial, unless it is finished or another process is doing it; errors are returned, not raised.

    Args:
        trial: What is to be done; what it needs must be finished.
        study: The study's folder.
    """
    place, started = RunFolder(study / trial.place), time.perf_counter()

    def ended(status: str, error: str | None = None) -> Ended:
        return Ended(trial, status, time.perf_counter() - started, error)

    try:
        if place.is_finished:
            return Ended(trial, "finished")
        with _ONE_AT_A_TIME:
            started = time.perf_counter()
            write_json(place.path / "trial.json", {"kind": trial.kind.name, "values": trial.values})
            trial.kind.run(trial, study)
        return ended(place.status)
    except HeldError:
        return ended("held")
    except KeyboardInterrupt:
        return ended("stopped")
    except Exception as error:
        if _is_finished(place):  # by another process, between our look and our start
            return Ended(trial, "finished")
        with suppress(StorageError):  # a full disk may be what went wrong
            write_text(place.path / "error.txt", traceback.format_exc())
        return ended("failed", f"{type(error).__name__}: {error}")


def _is_finished(place: RunFolder) -> bool:
    try:
        return place.is_finished
    except AmarlError:
        return False
