"""A study: a question and an immutable list of trials that answers it, written as data.

    question = "How far do ten seeds differ?"

    [[trials]]                       # a block is a grid: every list is an axis of it
    kind = "serve"
    scenario = "montreal"
    by = ["sarl", "amarl", "priced_admission"]
    seed = [0, 1, 2]
    day = "held-out"                 # all held-out days of the scenario

`data/studies/` has those that come with the project; `worklist.run` does what is not done yet, and `outcomes` reads
what was found. Notebooks only read.
"""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from amarl_core.errors import AmarlError, RunError
from amarl_core.runs import RunFolder
from amarl_core.trial_kinds import SERVE, TRAIN, forget, name_scenario, open_scenario
from amarl_core.trials import RUNS, Kind, Study, Trial, take

STUDIES = Path(__file__).resolve().parent.parent / "data" / "studies"
KINDS = {kind.name: kind for kind in (TRAIN, SERVE)}
HELD_OUT = "held-out"
"""As a day: all held-out days of the scenario."""


def grid(kind: Kind, **given: Any) -> list[Trial]:
    """Return a trial for each combination of what is given as a list; the last list changes fastest.

    Args:
        kind: Of all the trials.
        given: What `kind` takes, each a value or a list of values; a mapping's values may be lists too.

    Raises:
        AmarlError: See `Kind.resolve`; or an empty list.
    """
    forget()  # a scenario may have been edited since
    axes = list(_axes(given))
    for path, values in axes:
        if not values:
            raise AmarlError(f"{'.'.join(path)} is an empty list; expected at least one value")
    trials = []
    for combination in product(*(values for _, values in axes)):
        for chosen in _by_day(_nested([path for path, _ in axes], combination, given)):
            trials.append(kind.trial(**chosen))
    return trials


def _axes(given: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list]]:
    """Yield the place of each value that is given, and its values as a list."""
    for key, value in given.items():
        if isinstance(value, Mapping):
            yield from _axes(value, (*above, key))
        else:
            yield (*above, key), list(value) if isinstance(value, list | tuple | range) else [value]


def _nested(paths: list[tuple[str, ...]], values: tuple, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return mappings of mappings from places and values; an empty mapping that was given stays."""
    chosen: dict[str, Any] = {key: {} for key, value in given.items() if isinstance(value, Mapping)}
    for (*above, key), value in zip(paths, values, strict=True):
        inner = chosen
        for name in above:
            inner = inner.setdefault(name, {})
        inner[key] = value
    return chosen


def _by_day(chosen: dict[str, Any]) -> list[dict[str, Any]]:
    if chosen.get("day") != HELD_OUT:
        return [chosen]
    return [{**chosen, "day": day} for day in open_scenario(name_scenario(chosen["scenario"])).test_days]


# ------------------------------------------------------------------------------------------------- as files
def known_studies() -> tuple[str, ...]:
    """Return the names of the studies that come with the project."""
    return tuple(sorted(path.stem for path in STUDIES.glob("*.toml")))


def read_study(name_or_path: str | Path) -> Study:
    """Read a study by its name in `data/studies`, or from any TOML file.

    Raises:
        AmarlError: There is no such file, or it is not valid; the message names the block.
    """
    path = STUDIES / f"{name_or_path}.toml"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        known = ", ".join(known_studies())
        raise AmarlError(f"there is no study {str(name_or_path)!r}; expected one of {known}, or a TOML file")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AmarlError(f"{path.name}: not valid TOML ({error})") from error
    content = take(content, {"question": ..., "trials": ...}, path.name)
    if not isinstance(content["trials"], list) or not all(isinstance(b, dict) for b in content["trials"]):
        raise AmarlError(f"{path.name}: trials is {content['trials']!r}; expected blocks that begin with [[trials]]")
    trials = []
    for number, block in enumerate(content["trials"], start=1):
        where = f"{path.name}, block {number} of trials"
        block = dict(block)
        kind = find_kind(block.pop("kind", None), where)
        try:
            trials += grid(kind, **block)
        except AmarlError as error:
            raise AmarlError(f"{where}: {error}") from error
    return Study(path.stem, content["question"], tuple(trials))


def find_kind(name: str | None, where: str = "a study") -> Kind:
    """Return a kind of trial: one of `KINDS`, or that of another module, as "module:NAME".

    Raises:
        AmarlError: There is no such kind.
    """
    if name in KINDS:
        return KINDS[name]
    module, _, attribute = str(name).partition(":")
    try:
        kind = getattr(importlib.import_module(module), attribute) if attribute else None
    except (ImportError, AttributeError) as error:
        raise AmarlError(f"{where}: kind is {name!r}, which cannot be imported ({error})") from error
    if not isinstance(kind, Kind):
        raise AmarlError(f"{where}: kind is {name!r}; expected one of {', '.join(KINDS)}, or module:NAME of a Kind")
    return kind


# -------------------------------------------------------------------------------------------------- results
def outcomes(study: Study, kind: str = "serve", root: str | Path = RUNS) -> pd.DataFrame:
    """Return what the finished trials of a study found, one row a trial.

    Args:
        study: The study.
        kind: Of the trials.
        root: Where studies are recorded.

    Returns:
        The label of each trial (such as scenario, policy, seed, day, order, attempts), then those of its values that
        tell trials of one label apart, its digest, and its figures; a figure by service is a column such as
        ``gos_by_service.voip``. Trials that are not finished have no row: compare with ``len(study.trials)``.

    Raises:
        RunError: None is finished.
    """
    rows = []
    for trial in study.trials:
        place = RunFolder(study.folder(root) / trial.place)
        if trial.kind.name == kind and place.is_finished:
            found = {"digest": trial.digest, **_flat(trial.kind.outcome(place))}
            rows.append((trial.label, _flat(trial.values), found))
    if not rows:
        raise RunError(
            f"study {study.name!r} has no finished {kind} trial below {study.folder(root)}; run "
            f"`python -m amarl_core.batch study {study.name}`"
        )
    labels, values, figures = (pd.DataFrame(part) for part in zip(*rows, strict=True))
    labels = labels.astype(
        {column: "Int64" for column in labels.select_dtypes("float")}
    )  # seeds, of which rules have none
    groups = values.astype(str).groupby([labels[column].astype(str) for column in labels])
    telling = [name for name, n in groups.nunique().max().items() if n > 1 and name not in figures]
    return pd.concat([labels, values[telling], figures], axis=1)


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return flat
