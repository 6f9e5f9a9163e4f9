"""How a table of somebody else's reads as requests: which column is what, in which unit, where and when.

A mapping is data: a dictionary, a TOML file or a `TrafficMapping`. It is checked in full before a file is opened, and
an unknown key is an error that lists the valid ones. Units, origin of times and time zone are always stated, never
guessed. `trace_presets` has mappings for known formats.
"""

from __future__ import annotations

import tomllib
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from amarl_core.errors import TraceError, problem
from amarl_core.foreign import checked_fields as checked
from amarl_core.foreign.checked_fields import Rule, wrong
from amarl_core.tables import names, read_bytes

TIME_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
"""Seconds of each unit of time."""
RATE_UNITS = {"bps": 1e-3, "kbps": 1.0, "Mbps": 1e3, "Gbps": 1e6}
"""kbps of each unit of bandwidth."""
BYTE_UNITS = {"bytes": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}
"""Bytes of each unit of volume (decimal)."""
COUNT_UNITS = ("requests", "activity", "inter_arrival_ms", "inter_arrival_s")
ISO = "iso"


@dataclass(frozen=True)
class TimeRule(Rule):
    """When: the column, its unit, where it counts from, and the time zone of the days.

    Attributes:
        column: Column of the time (of an interval's beginning, in a volume table).
        unit: "us", "ms", "s", "min", "h", or "iso" for texts such as 2013-11-01T08:10:00 (with or without offset).
        origin: "epoch" (1970-01-01 UTC) or "midnight" (before day 0, taken for a Monday); not for "iso".
        zone: Name such as "Europe/Rome" or "UTC", whose midnights begin the days; not for "midnight".
        days_max: A longer span is taken for a mixture of units; above 400, units are not checked against each other.
    """

    section = "time."
    column: str = checked.text()
    unit: str = checked.text("", ("", ISO, *TIME_UNITS))
    origin: str = checked.text("", ("", "epoch", "midnight"))
    zone: str = checked.text()
    days_max: float = checked.number(400.0)

    def check(self) -> None:
        if self.unit == ISO and self.origin:
            raise wrong("time.origin", self.origin, "none with unit 'iso', which says the date itself", "Leave it out.")
        if self.origin == "midnight" and self.zone:
            raise wrong("time.zone", self.zone, "none with origin 'midnight', which has no date", "Leave it out.")
        if self.zone:
            try:
                zoneinfo.ZoneInfo(self.zone)
            except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as reason:
                raise wrong("time.zone", self.zone, "a time zone's name, such as 'Europe/Rome' or 'UTC'") from reason

    def require_stated(self) -> None:
        """Refuse a rule that leaves unit, origin or zone to be guessed."""
        if not self.column:
            raise wrong("time.column", "", "the name of the column of the time")
        if not self.unit:
            raise wrong("time.unit", "", f"one of {names([ISO, *TIME_UNITS])}")
        if self.unit != ISO and not self.origin:
            raise wrong("time.origin", "", "'epoch' or 'midnight'")
        if self.origin != "midnight" and not self.zone:
            raise wrong("time.zone", "", "a time zone's name, such as 'Europe/Rome' or 'UTC'", "It is never guessed.")


@dataclass(frozen=True)
class ServiceRule(Rule):
    """Which service: by a column, always the same, by fixed shares, or in the scenario's own mix.

    Attributes:
        column: Column of the service.
        table: Service of the scenario by what the column says; what is not in it must be a service itself.
        constant: The one service of all rows.
        shares: Share of each service: of requests, or of traffic in a volume table in kbps or bytes.

    Without any of them, services are drawn in the generator's mix of the place, hour and kind of day.
    """

    section = "service."
    column: str = checked.text()
    table: Mapping[str, str] = checked.table()
    constant: str = checked.text()
    shares: Mapping[str, float] = checked.shares()

    def check(self) -> None:
        if bool(self.column) + bool(self.constant) + bool(self.shares) > 1:
            raise wrong("service", "more than one rule", "only one of column, constant and shares")
        if self.table and not self.column:
            raise wrong("service.table", "without column", "service.column, which it translates")


@dataclass(frozen=True)
class SourceRule(Rule):
    """From where.

    Attributes:
        column: Column of the place.
        table: Node of the scenario by what the column says.
        rule: What to do with places that are not in the table. "node": they are node ids themselves; "population":
            each is given to one area, drawn with a probability proportional to population by the seed and the place's
            name, so that the same place always has the same area; "split": all volumes are summed and split over the
            areas by population; "each": every area has the whole volume (the last two in volume tables only).
        unknown: "refuse", or "skip" to leave out rows of places that are neither in the table nor nodes.
    """

    section = "source."
    column: str = checked.text()
    table: Mapping[str, str] = checked.table()
    rule: str = checked.text("node", ("node", "population", "split", "each"))
    unknown: str = checked.text("refuse", ("refuse", "skip"))

    def check(self) -> None:
        if self.column and self.rule == "each":
            raise wrong("source.column", self.column, "none with source.rule 'each'", "Leave it out.")
        if self.table and self.rule in ("split", "each"):
            raise wrong("source.table", "given", f"none with source.rule {self.rule!r}", "Leave it out.")


@dataclass(frozen=True)
class DestinationRule(Rule):
    """To where: a column, with a table and `unknown` as for the source; without one, by the scenario's own rules."""

    section = "destination."
    column: str = checked.text()
    table: Mapping[str, str] = checked.table()
    unknown: str = checked.text("refuse", ("refuse", "skip"))


@dataclass(frozen=True)
class AmountRule(Rule):
    """A column of a request table and its unit.

    Attributes:
        column: Column, "" to draw from the service's own distribution.
        unit: For the demand "bps", "kbps", "Mbps", "Gbps", or "bytes", "kB", "MB", "GB" that the whole request
            carries over its holding time; for the hold a unit of time; for the bundle none (sessions).
    """

    column: str = checked.text()
    unit: str = checked.text("", ("", *RATE_UNITS, *BYTE_UNITS, *TIME_UNITS))


@dataclass(frozen=True)
class VolumeRule(Rule):
    """What a row of a volume table counts, and how it becomes requests.

    Attributes:
        column: Column of the volume.
        unit: Mean traffic over the interval ("bps", "kbps", "Mbps", "Gbps"), carried in it ("bytes", "kB", "MB",
            "GB"), "requests" begun in it, "activity" (in a unit nobody knows), or the mean time between requests,
            "inter_arrival_ms" or "inter_arrival_s".
        interval_s: Length of all intervals in s; 0 if each lasts until the next row of its place.
        last_s: Length of the last interval of a place in s, if `interval_s` is 0; 0 for that of the one before.
        scale: Factor on all volumes; of an activity, the requests for each unit.
        busy_load_gbps: Instead of `scale`: load in Gb/s that the busiest clock hour offers.
        sum_over: Columns whose rows are parts of one volume, such as the country of the subscriber.
        blank: "refuse" empty cells, or "zero".
    """

    section = "volume."
    column: str = checked.text()
    unit: str = checked.text("", ("", *RATE_UNITS, *BYTE_UNITS, *COUNT_UNITS))
    interval_s: float = checked.number(0.0, above=False)
    last_s: float = checked.number(0.0, above=False)
    scale: float | None = checked.number(None)
    busy_load_gbps: float | None = checked.number(None)
    sum_over: tuple[str, ...] = checked.texts()
    blank: str = checked.text("refuse", ("refuse", "zero"))

    def check(self) -> None:
        if self.scale is not None and self.busy_load_gbps is not None:
            raise wrong("volume.scale", self.scale, "either scale or busy_load_gbps, not both")
        if self.interval_s and self.last_s:
            raise wrong("volume.last_s", self.last_s, "none with interval_s", "Leave it out.")
        if self.unit == "activity" and self.scale is None and self.busy_load_gbps is None:
            raise wrong(
                "volume.scale",
                "missing",
                "an explicit scale for an activity without a unit",
                "Give volume.busy_load_gbps (Gb/s in the busiest hour) or volume.scale (requests for each unit).",
            )


_PARTS: dict[str, type[Rule]] = {
    "time": TimeRule,
    "service": ServiceRule,
    "source": SourceRule,
    "destination": DestinationRule,
    "demand": AmountRule,
    "bundle": AmountRule,
    "hold": AmountRule,
    "volume": VolumeRule,
}


def _part(name: str) -> Any:
    def check(key: str, value: Any) -> Rule:
        if not isinstance(value, _PARTS[name]):
            raise wrong(key, value, f"a {_PARTS[name].__name__}")
        return value

    return field(default_factory=_PARTS[name], metadata={"check": check})


@dataclass(frozen=True)
class TrafficMapping(Rule):
    """How to read one kind of file.

    Attributes:
        kind: "requests" (a row is a request) or "volumes" (a row is the volume of a place and interval).
        format: "table" (CSV, TSV, gzip of them, or Parquet, by the file's name) or "sndlib" (a folder of XML).
        delimiter: Of a text table; "" for a comma, or a tab in .tsv.
        header: Whether the first line of a text table names the columns.
        columns: Their names, if it does not.
        id: Column that numbers requests; "" to number them by order of arrival.
        on_duplicate: "refuse" repeated rows, "drop" all but the first, or "keep" them.
        on_disorder: "sort" requests that are out of order, or "refuse".
        gap_s: Silence from which a request table has a gap, in s.
        time: When.
        service: Which service.
        source: From where.
        destination: To where.
        demand: Bandwidth of a request.
        bundle: Sessions of a request; 1 if only a demand is given.
        hold: Its holding time.
        volume: Volumes.
    """

    kind: str = checked.text("requests", ("requests", "volumes"))
    format: str = checked.text("table", ("table", "sndlib"))
    delimiter: str = checked.text()
    header: bool = checked.flag(True)
    columns: tuple[str, ...] = checked.texts()
    id: str = checked.text()
    on_duplicate: str = checked.text("refuse", ("refuse", "drop", "keep"))
    on_disorder: str = checked.text("sort", ("sort", "refuse"))
    gap_s: float = checked.number(3600.0)
    time: TimeRule = _part("time")
    service: ServiceRule = _part("service")
    source: SourceRule = _part("source")
    destination: DestinationRule = _part("destination")
    demand: AmountRule = _part("demand")
    bundle: AmountRule = _part("bundle")
    hold: AmountRule = _part("hold")
    volume: VolumeRule = _part("volume")

    def check(self) -> None:
        if len(self.delimiter) > 1 or self.delimiter in ('"', "\n", "\r") or not self.delimiter.isascii():
            raise wrong("delimiter", self.delimiter, r"one character, such as ',', ';' or '\t'")
        if self.header == bool(self.columns):
            raise wrong("columns", list(self.columns), "names of the columns if, and only if, header is false")
        if len(set(self.columns)) < len(self.columns):
            raise wrong("columns", list(self.columns), "each name once")
        if self.format == "sndlib":
            if self.kind != "volumes" or not self.time.zone:
                raise wrong("format", self.format, "kind 'volumes' and a time.zone with it")
            if self.used_columns() or self.volume.interval_s:
                raise wrong(
                    "format", self.format, "no columns and no interval with it, which the files state themselves"
                )
            if self.source.rule in ("split", "each"):
                raise wrong("source.rule", self.source.rule, "'node' or 'population' with format 'sndlib'")
            return
        self.time.require_stated()
        if not self.source.column and self.source.rule in ("node", "population"):
            raise wrong("source.column", "", "the column of the place, or a source.rule that needs none")
        (self._check_requests if self.kind == "requests" else self._check_volumes)()
        for column in self.used_columns() if self.columns else ():
            if column not in self.columns:
                raise wrong("columns", column, f"one of the columns named: {names(self.columns)}")

    def _check_requests(self) -> None:
        if self.volume != VolumeRule():
            raise wrong("volume", "given", "none with kind 'requests'", "Leave it out, or say kind 'volumes'.")
        if self.source.rule in ("split", "each"):
            raise wrong("source.rule", self.source.rule, "'node' or 'population' with kind 'requests'")
        for key, rule, units in (
            ("demand.unit", self.demand, {**RATE_UNITS, **BYTE_UNITS}),
            ("hold.unit", self.hold, TIME_UNITS),
        ):
            if bool(rule.column) != bool(rule.unit) or (rule.unit and rule.unit not in units):
                raise wrong(key, rule.unit, f"one of {', '.join(units)} together with a column")
        if self.bundle.unit:
            raise wrong("bundle.unit", self.bundle.unit, "none: a bundle counts sessions")

    def _check_volumes(self) -> None:
        for key in ("demand", "bundle", "hold", "id"):
            if getattr(self, key) not in ("", AmountRule()):
                raise wrong(key, "given", "none with kind 'volumes'", "Leave it out, or say kind 'requests'.")
        if not self.volume.column or not self.volume.unit:
            raise wrong("volume", "incomplete", "a column and its unit")
        if not self.volume.interval_s and (self.service.column or self.destination.column or self.volume.sum_over):
            raise wrong("volume.interval_s", 0, "the length of the intervals, unless rows differ by place only")

    def used_columns(self) -> tuple[str, ...]:
        """Names of the columns that are read, each once."""
        rules = (
            self.time,
            self.service,
            self.source,
            self.destination,
            self.demand,
            self.bundle,
            self.hold,
            self.volume,
        )
        used = [rule.column for rule in rules] + [self.id, *self.volume.sum_over]
        return tuple(dict.fromkeys(column for column in used if column))


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping's dictionary with changes laid over it, part by part."""
    merged = dict(base)
    for key, value in changes.items():
        is_part = key in _PARTS and isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = {**merged[key], **value} if is_part else value
    return merged


def build_mapping(given: Mapping[str, Any]) -> TrafficMapping:
    """Build a mapping from a dictionary of the form of `TrafficMapping`.

    Raises:
        TraceError: A key is unknown or missing, or a value is none of those allowed.
    """
    parts = {}
    for key, value in _only_known(given, TrafficMapping, "").items():
        if key in _PARTS and not isinstance(value, _PARTS[key]):
            value = _PARTS[key](**_only_known(value, _PARTS[key], f"{key}."))
        parts[key] = value
    return TrafficMapping(**parts)


def _only_known(given: Any, rule: type[Rule], prefix: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise wrong(prefix.rstrip(".") or "all of it", given, "a table of keys and values")
    known = [each.name for each in fields(rule)]  # type: ignore[arg-type]
    for key in given:
        if key not in known:
            raise TraceError(
                problem(None, None, "mapping: key", f"{prefix}{key}", f"one of {', '.join(known)}", "Correct it.")
            )
    return given


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Read a mapping's dictionary from a TOML file, to be kept beside the data."""
    path = Path(path)
    content = read_bytes(path, TraceError)
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as reason:
        raise TraceError(problem(path, None, None, f"not TOML: {reason}", "a TOML file")) from reason
