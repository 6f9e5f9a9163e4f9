"""What a scenario's scenario.toml says, checked key by key."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from amarl_core.errors import ScenarioError, problem
from amarl_core.files import inside
from amarl_core.foreign.import_rules import Rules
from amarl_core.tables import names, read_bytes

SETTINGS_FILE = "scenario.toml"
TABLES = (
    "nodes",
    "links",
    "functions",
    "services",
    "placement",
    "areas",
    "landuse_profiles",
    "service_profiles",
    "destinations",
)
_WEEK = ("weekday", "weekend")


@dataclass(frozen=True)
class Source:
    """Where an imported scenario came from and what was assumed (`makers.make_scenario` writes it).

    Attributes:
        network: The file's name, or "topohub:NAME".
        format: The format it was read in.
        sha256: Checksum of the file.
        services: Where the services came from.
        placement: How the functions were placed.
        load: How the load was sized.
        warnings: What the reader of the network warned of.
        rules: The rules that filled what the file did not say.
        latency_before_ms: Bound of each service whose bound was raised, as it was before.
    """

    network: str
    format: str
    sha256: str
    services: str
    placement: str
    load: str
    warnings: tuple[str, ...]
    rules: Rules
    latency_before_ms: Mapping[str, float]


@dataclass(frozen=True)
class Settings:
    """What scenario.toml says.

    Attributes:
        name: Name of the scenario.
        title: What it is, in words.
        cpu_cap: Share of a node's compute that may be used.
        load_gbps: Load in Gb/s that the services' shares refer to.
        weekend_level: Weekend over weekday level by land use, where it is not 1.
        tables: Path of each table, by name.
        held_out_seed: Seed of the held-out days.
        n_weekdays: Number of held-out weekdays.
        n_weekends: Number of held-out days of the weekend.
        committed: Path of each held-out day that is a file.
        frozen_digest: Digest recorded when the scenario was frozen, or "".
        frozen_sha256: Checksum recorded for each held-out day.
        source: Where an imported scenario came from; None for one that was built here.
    """

    name: str
    title: str
    cpu_cap: float
    load_gbps: float
    weekend_level: Mapping[str, float]
    tables: Mapping[str, Path]
    held_out_seed: int
    n_weekdays: int
    n_weekends: int
    committed: Mapping[str, Path]
    frozen_digest: str
    frozen_sha256: Mapping[str, str]
    source: Source | None = None

    @property
    def test_days(self) -> tuple[str, ...]:
        """Names of the held-out days: test-weekday, test-weekday-2, ..., test-weekend, ..."""
        return tuple(
            f"test-{kind}" + (f"-{i}" if i > 1 else "")
            for kind, count in zip(_WEEK, (self.n_weekdays, self.n_weekends), strict=True)
            for i in range(1, count + 1)
        )


def read_settings(folder: Path) -> Settings:
    """Read scenario.toml; an unknown key is an error that lists the valid ones."""
    path = folder / SETTINGS_FILE
    top = read_toml(path)
    top.only("name", "title", "cpu_cap", "tables", "traffic", "held_out", "source", "frozen")
    tables, traffic, held_out = top.section("tables"), top.section("traffic"), top.section("held_out")
    frozen = top.section("frozen", optional=True)
    tables.only(*TABLES)
    traffic.only("load_gbps", "weekend_level")
    held_out.only("seed", "weekdays", "weekends", "committed")
    frozen.only("digest", "test_day_sha256")
    level = traffic.section("weekend_level", optional=True)
    committed = held_out.section("committed", optional=True)
    sha256 = frozen.section("test_day_sha256", optional=True)
    settings = Settings(
        name=top.text("name"),
        title=top.text("title", top.text("name")),
        cpu_cap=top.number("cpu_cap", most=1.0),
        load_gbps=traffic.number("load_gbps", most=1e6),
        weekend_level={use: level.number(use, most=100.0) for use in level.given},
        tables={table: tables.path(table, f"{table}.csv") for table in TABLES},
        held_out_seed=held_out.integer("seed", 0),
        n_weekdays=held_out.integer("weekdays", 1),
        n_weekends=held_out.integer("weekends", 1),
        committed={day: committed.path(day) for day in committed.given},
        frozen_digest=frozen.text("digest", ""),
        frozen_sha256={day: sha256.text(day) for day in sha256.given},
        source=_read_source(top.section("source")) if "source" in top.given else None,
    )
    committed.only(*settings.test_days)
    sha256.only(*settings.test_days)
    return settings


def read_toml(path: Path) -> Section:
    """Read a TOML file as one section."""
    content = read_bytes(path, ScenarioError)
    try:
        return Section(path, "", tomllib.loads(content.decode("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as reason:
        raise ScenarioError(problem(path, None, None, f"not TOML: {reason}", "a TOML file")) from reason


def _read_source(section: Section) -> Source:
    """Read [source], whose rules must be rules that could be given again."""
    texts = ("network", "format", "sha256", "services", "placement", "load")
    section.only(*texts, "warnings", "rules", "latency_before_ms")
    rules, before = section.section("rules"), section.section("latency_before_ms", optional=True)
    rules.only(*(f.name for f in fields(Rules)))
    return Source(
        **{key: section.text(key) for key in texts},
        warnings=section.texts("warnings"),
        rules=Rules(**rules.given),
        latency_before_ms={service: before.number(service, most=1e12) for service in before.given},
    )


class Section:
    """A table of a TOML file (scenario.toml, an overlay), whose values are checked as they are read."""

    def __init__(self, path: Path, prefix: str, given: Mapping[str, Any]) -> None:
        self.file, self.prefix, self.given = path, prefix, given

    def only(self, *known: str) -> None:
        for key in self.given:
            if key not in known:
                raise ScenarioError(
                    problem(
                        self.file,
                        None,
                        "key",
                        self.prefix + key,
                        f"one of {names(known)}",
                        "Correct or remove it.",
                    )
                )

    def fail(self, key: str, expected: str) -> ScenarioError:
        """Return the error that a key is not what was expected."""
        return ScenarioError(problem(self.file, None, self.prefix + key, self.given.get(key, "missing"), expected))

    def sections(self, key: str) -> list[Section]:
        """Return the tables of an array [[key]], which may be missing."""
        value = self.given.get(key, [])
        if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
            raise self.fail(key, f"tables [[{self.prefix}{key}]]")
        return [Section(self.file, f"{self.prefix}{key}.", table) for table in value]

    def section(self, key: str, optional: bool = False) -> Section:
        value = self.given.get(key, {} if optional else None)
        if not isinstance(value, dict):
            raise self.fail(key, f"a section [{self.prefix}{key}]")
        return Section(self.file, f"{self.prefix}{key}.", value)

    def text(self, key: str, default: str | None = None) -> str:
        value = self.given.get(key, default)
        if not isinstance(value, str) or (not value and default is None):
            raise self.fail(key, "a text")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.given.get(key, [])
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise self.fail(key, "a list of texts")
        return tuple(value)

    def number(self, key: str, most: float, default: float | None = None) -> float:
        value = self.given.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= most:
            raise self.fail(key, f"a positive number of at most {most:g}")
        return float(value)

    def integer(self, key: str, least: int) -> int:
        value = self.given.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
            raise self.fail(key, f"an integer of at least {least}")
        return value

    def path(self, key: str, default: str | None = None) -> Path:
        """Return a file's path, which must stay inside the scenario's folder."""
        text = self.text(key, default) if default is None or key in self.given else default
        if not inside(self.file.parent, text):
            remedy = "Copy the file into the folder: a scenario is whole by itself, and reads nothing else."
            expected = "a path inside the scenario's folder"
            raise ScenarioError(problem(self.file, None, self.prefix + key, text, expected, remedy))
        return self.file.parent / text
