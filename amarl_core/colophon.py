"""The last lines of a page: with what, on what, from what and when its numbers were made."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amarl_core.look import clock
from amarl_core.records import METHODS, Study, seconds_to_paper
from amarl_core.runs import provenance, read_json

_SHORT = ("python", "platform", "processor", "cores", "git_commit")


@dataclass(frozen=True)
class Colophon:
    """Names and values, shown as a small list."""

    entries: tuple[tuple[str, str], ...]

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for name, value in self.entries
        )
        return f'<dl class="colophon">{rows}</dl>'


def run_colophon(folder: Path) -> Colophon:
    """Say how one run was made, from its `provenance.json` and `config.json`."""
    if not (folder / "provenance.json").exists():
        return Colophon((("run", "it has only just begun: run this cell again in a moment"),))
    made = read_json(folder / "provenance.json")
    config = read_json(folder / "config.json")
    return Colophon((*_flatten(made), *_flatten(config, "config")))


def world_colophon(scenario: Any, **more: str) -> Colophon:
    """Say how a page was made that shows a scenario and no run of its own.

    Args:
        scenario: the scenario.
        **more: further entries, first in the list.
    """
    return Colophon((*more.items(), *_flatten(provenance(scenario))))


def study_colophon(study: Study, full: bool = False) -> Colophon:
    """Say how a study was made.

    Args:
        study: the study.
        full: with the versions of all packages, the checksum of every trace, and all settings.
    """
    info = study.info
    made = read_json(study.run_folder(METHODS[0], study.seeds[0]) / "provenance.json")
    entries = [
        ("study", f"{study.name} (profile {info['profile']}), scenario {info['scenario']}"),
        ("command", str(info["command"])),
        ("started", f"{info['started']}, {clock(seconds_to_paper(study))} for training, tests and audit"),
        ("seeds", ", ".join(map(str, study.seeds))),
        ("held-out days", ", ".join(study.days)),
    ]
    if not full:
        entries += [(name.replace("_", " "), str(made[name])) for name in _SHORT if made.get(name) is not None]
        return Colophon(tuple(entries))
    entries += _flatten(made)
    for method in METHODS:
        config = read_json(study.run_folder(method, study.seeds[0]) / "config.json")
        entries += _flatten(config, f"{method} config")
    return Colophon(tuple(entries))


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        name = f"{prefix} {key}".strip().replace("_", " ")
        if isinstance(item, Mapping):
            yield from _flatten(item, name)
        elif item is not None:
            yield name, str(item)
