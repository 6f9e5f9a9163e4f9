"""Which served days there are to look at: those recorded below `reports/runs`, or a quick rule's, played now."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from amarl_core.baselines import baseline
from amarl_core.errors import RunError
from amarl_core.evaluation import play_trace
from amarl_core.look import method_name
from amarl_core.records import RUNS_FOLDER, study_folder
from amarl_core.runs import RunFolder, read_frame, read_json
from amarl_core.scenario import load_scenario

log = logging.getLogger(__name__)

RULE = "shortest_feasible"
"""What serves a day when nothing is recorded: quick, and not a learner."""

REMEDY = "`make reproduce PROFILE=quick` records one"
_PREFIX = "decisions_"
_TRAINING = "train"


@dataclass(frozen=True)
class Recorded:
    """A day whose decisions are on disk, served in order of arrival.

    Attributes:
        study: name of the study's folder.
        scenario: name (or path) of its scenario.
        method: a learner or a rule.
        seed: of a learner; 0 for a rule.
        day: the held-out day.
        path: the decisions file.
        digest: of the scenario when it was recorded, "" if not known.
    """

    study: str
    scenario: str
    method: str
    seed: int
    day: str
    path: Path
    digest: str = ""

    @property
    def label(self) -> str:
        """Say in a line what was served by whom."""
        return f"{method_name(self.method)}, seed {self.seed}, {self.day} (study {self.study})"


@dataclass(frozen=True)
class ServedDay:
    """The decisions of a day, and who took them."""

    label: str
    decisions: pd.DataFrame


def list_recorded(root: Path = RUNS_FOLDER) -> list[Recorded]:
    """List the days recorded below a folder of studies: finished runs, then rules; unfinished runs are left out."""
    return [day for path in sorted(root.glob("*/study.json")) for day in _days_of(path.parent)]


def _days_of(folder: Path) -> Iterator[Recorded]:
    info = read_json(folder / "study.json")
    facts = (folder.name, str(info.get("scenario", "")))
    runs = [path for path in sorted(folder.glob("*/seed=*")) if RunFolder(path).is_finished]
    places = [(path.parent.name, int(path.name.partition("=")[2]), path) for path in runs]
    places += [(path.name, 0, path) for path in sorted((folder / "baselines").glob("*")) if path.is_dir()]
    for method, seed, path in places:
        for day in info.get("test_days", ()):
            file = path / f"{_PREFIX}{day}.parquet"
            if file.is_file():
                yield Recorded(*facts, method, seed, str(day), file, str(info.get("digest", "")))


def play_rule_day(scenario: Any, day: str = "", rule: str = RULE) -> ServedDay:
    """Serve a held-out day (by default the first) with a rule now: a second or two, and nothing is learned."""
    day = day if day in scenario.test_days else scenario.test_days[0]
    played = play_trace(baseline(rule), scenario.test_trace(day), scenario=scenario)
    return ServedDay(f"{method_name(rule)} rule, {day}", played.decisions)


def begin_rule_day(scenario: str, day: str = "", rule: str = RULE) -> Future[ServedDay]:
    """Do the same in a process of its own, beside whatever comes next: a rule's kernels take a while to compile.

    Args:
        scenario: name of a folder in `data/`, or the path of one.
        day, rule: as for `play_rule_day`.

    Returns:
        A future; `result()` waits for the day and raises what went wrong.
    """
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))  # a fork would copy the threads' locks
    future = pool.submit(_load_and_play, scenario, day, rule)
    pool.shutdown(wait=False)
    return future


def _load_and_play(scenario: str, day: str, rule: str) -> ServedDay:
    return play_rule_day(load_scenario(scenario), day, rule)


def read_day(recorded: Recorded) -> ServedDay:
    """Read a recorded day."""
    return ServedDay(recorded.label, read_frame(recorded.path))


def served_day(scenario: Any, study: str, method: str, seed: int, day: str) -> ServedDay:
    """Return a recorded day; where the study does not exist, what a rule makes of that day now.

    Args:
        scenario: the world.
        study: name of a folder below `reports/runs`, or the path of one.
        method: a learner or a rule of the study.
        seed: of the learner.
        day: a held-out day; "" takes the study's first.

    Raises:
        RunError: the study exists, but was made on another scenario or lacks that day; the message lists what it has.
    """
    folder = study_folder(study)
    if not (folder / "study.json").is_file():
        log.info("there is no study %r: a rule serves the day instead; %s", study, REMEDY)
        return play_rule_day(scenario, day)
    days = list(_days_of(folder))
    on = {recorded.scenario for recorded in days}
    if days and scenario.name not in {Path(name).name for name in on}:
        raise RunError(
            f"study {folder.name!r} was made on {', '.join(sorted(on))}, not on {scenario.name!r}; give its scenario"
        )
    for recorded in days:
        if (recorded.method, recorded.seed) == (method, seed) and day in ("", recorded.day):
            if recorded.digest not in ("", scenario.digest):
                log.warning("%s was recorded before the scenario %s was changed", recorded.label, scenario.name)
            return read_day(recorded)
    known = sorted({f"{r.method} seed {r.seed}" for r in days})
    raise RunError(
        f"study {folder.name!r} has no day {day or 'at all'} of {method!r} seed {seed}; it has "
        f"{', '.join(known) or 'nothing finished'}, days {', '.join(sorted({r.day for r in days})) or 'none'}"
    )
