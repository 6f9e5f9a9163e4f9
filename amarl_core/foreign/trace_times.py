"""Times of somebody else's table as seconds of a trace: units, origins, time zones, days and gaps.

A trace counts seconds that really pass, from the midnight before its first day in the zone of the mapping. On a day on
which the clocks change, t_s therefore runs on, and the hours after it are an hour off the clock on the wall: this is
reported. A time without offset that the change makes doubtful is refused.
"""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from amarl_core.errors import TraceError, problem
from amarl_core.foreign.trace_files import Chunk
from amarl_core.foreign.trace_mappings import ISO, TIME_UNITS, TimeRule
from amarl_core.foreign.trace_reports import Report

UNITS_CHECKED_DAYS = 400
_EPOCH_LEAST, _EPOCH_MOST = 631_152_000.0, 4_102_444_800.0  # 1990 to 2100
_ISO = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?"
_OFFSET = r"([Zz]|[+-][0-9]{2}:?[0-9]{2})$"
_JUMP_FROM_S = 60.0
_GAPS_SHOWN = 20
_DAY_S = 86_400.0
_HALF_DAY_S = 43_200.0


@dataclass(frozen=True)
class Clock:
    """What the clock on the wall shows during a trace.

    Attributes:
        zone: Name of the time zone, "" if times count from a midnight without date.
        first_day: Date of day 0, None without zone.
    """

    zone: str = ""
    first_day: date | None = None

    @cached_property
    def start_s(self) -> float:
        """Second of the epoch at which t_s is 0; 0 without zone."""
        return self.midnight_s(0) if self.first_day is not None else 0.0

    def midnight_s(self, day: int) -> float:
        """Return the second of the epoch at which a day of the trace begins; seconds of t_s without zone."""
        if self.first_day is None:
            return day * _DAY_S
        when = self.first_day + timedelta(days=day)
        return datetime(when.year, when.month, when.day, tzinfo=zoneinfo.ZoneInfo(self.zone)).timestamp()

    def day_starts(self, until_s: float) -> np.ndarray:
        """Return the t_s of all midnights from 0 to the first one at or after `until_s`, float64 [days + 1]."""
        starts = [0.0]
        while starts[-1] < until_s or len(starts) < 2:
            starts.append(self.midnight_s(len(starts)) - self.start_s)
        return np.array(starts)

    def hours(self, t_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the kind of day (0 weekday, 1 weekend) and the hour on the wall, int64 [n] each."""
        if self.first_day is None:
            day = (t_s // _DAY_S).astype(np.int64)
            return (day % 7 >= 5).astype(np.int64), (t_s % _DAY_S // 3600).astype(np.int64)
        wall = pd.to_datetime(np.asarray(t_s) + self.start_s, unit="s", utc=True).tz_convert(self.zone)
        return (wall.day_of_week.to_numpy() >= 5).astype(np.int64), wall.hour.to_numpy().astype(np.int64)

    def show(self, t_s: float) -> str:
        """Return a time in words."""
        if self.first_day is None:
            day, rest = divmod(t_s, _DAY_S)
            return f"day {int(day)} {timedelta(seconds=int(rest))!s:0>8}"
        when = datetime.fromtimestamp(t_s + self.start_s, tz=zoneinfo.ZoneInfo(self.zone))
        return f"{when:%Y-%m-%d %H:%M:%S}"


@dataclass
class TimeReader:
    """Reads a file's times, chunk by chunk, and remembers what they have in common."""

    path: Path
    rule: TimeRule
    _has_offset: bool | None = None
    _last: float = np.nan

    def read(self, chunk: Chunk) -> np.ndarray:
        """Return the times in seconds since the rule's origin, float64 [n]."""
        values = chunk.columns[self.rule.column]
        if pa.types.is_timestamp(values.type):
            return self._stamps(chunk, values)
        if self.rule.unit == ISO:
            return self._iso(chunk, values)
        expected = f"a time in {self.rule.unit} since {self._origin()}, as a plain number"
        t_s = chunk.numbers(self.rule.column, expected) * TIME_UNITS[self.rule.unit]
        if self.rule.origin == "epoch":
            bad = (t_s < _EPOCH_LEAST) | (t_s > _EPOCH_MOST)
        else:
            bad = (t_s < 0) | (t_s > self.rule.days_max * _DAY_S)
        if bad.any():
            what = (
                "between 1990 and 2100" if self.rule.origin == "epoch" else f"in the first {self.rule.days_max:g} days"
            )
            chunk.fail(np.argmax(bad), self.rule.column, f"{expected}, {what}", "Correct time.unit; do not mix units.")
        if self.rule.origin == "midnight" and self.rule.days_max <= UNITS_CHECKED_DAYS:
            self._refuse_jumps(chunk, t_s)
        return t_s

    def _origin(self) -> str:
        return "the epoch" if self.rule.origin == "epoch" else "the midnight before day 0"

    def _refuse_jumps(self, chunk: Chunk, t_s: np.ndarray) -> None:
        """Refuse neighbours that differ as two units of time do, by a factor of 1000."""
        before = np.concatenate(([self._last], t_s[:-1]))
        low, high = np.minimum(before, t_s), np.maximum(before, t_s)
        jumps = (low >= _JUMP_FROM_S) & (high >= 950 * low) & (high <= 1050 * low)
        if jumps.any():
            i = int(np.argmax(jumps))
            chunk.fail(
                i,
                self.rule.column,
                f"a time in {self.rule.unit} like its neighbour's {before[i] / TIME_UNITS[self.rule.unit]:.15g}, which "
                "differs by a factor of about 1000",
                "Write all times in one unit.",
            )
        self._last = float(t_s[-1])

    def _iso(self, chunk: Chunk, values: pa.Array) -> np.ndarray:
        column, expected = self.rule.column, "a time such as 2013-11-01T08:10:00 or 2013-11-01T08:10:00+01:00"
        if not pa.types.is_string(values.type):
            raise TraceError(problem(self.path, None, column, f"of type {values.type}", expected, "Correct time.unit."))
        chunk.refuse_missing(column, expected)
        values = pc.utf8_trim_whitespace(values)
        good = pc.match_substring_regex(values, f"{_ISO}({_OFFSET})?$").to_numpy(zero_copy_only=False)
        if not good.all():
            chunk.fail(np.argmin(good), column, expected, "Write ISO 8601, or correct time.unit.")
        with_offset = pc.match_substring_regex(values, f":[0-9.]+{_OFFSET}").to_numpy(zero_copy_only=False)
        self._has_offset = bool(with_offset[0]) if self._has_offset is None else self._has_offset
        other = with_offset != self._has_offset
        if other.any():
            chunk.fail(
                np.argmax(other), column, f"times all with{'' if self._has_offset else 'out'} an offset", "Do not mix."
            )
        parsed = pd.to_datetime(pd.Series(values.to_pylist()), format="ISO8601", utc=self._has_offset, errors="coerce")
        index = pd.DatetimeIndex(parsed)
        if index.isna().any():
            chunk.fail(np.argmax(index.isna()), column, expected, "There is no such day or hour.")
        return self._in_range(chunk, index if self._has_offset else self._localised(chunk, index))

    def _stamps(self, chunk: Chunk, values: pa.Array) -> np.ndarray:
        """Return the times of a Parquet column that has its own unit, and perhaps a zone."""
        if self.rule.unit != ISO:
            raise TraceError(
                problem(self.path, None, self.rule.column, f"of type {values.type}", "numbers", "Say time.unit 'iso'.")
            )
        chunk.refuse_missing(self.rule.column, "a time")
        has_zone = values.type.tz is not None
        a_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[values.type.unit]
        counts = values.cast(pa.int64()).to_numpy(zero_copy_only=False)
        bad = (counts / a_second < _EPOCH_LEAST) | (counts / a_second > _EPOCH_MOST)
        if bad.any():  # before pandas, which cannot count as far
            shown = f"the number {counts[np.argmax(bad)]} of unit {values.type.unit}"
            row = int(chunk.rows[np.argmax(bad)])
            raise TraceError(problem(self.path, row, self.rule.column, shown, "a time between 1990 and 2100"))
        index = pd.DatetimeIndex(values.cast(pa.timestamp("us", values.type.tz), safe=False).to_pandas())
        return self._in_range(chunk, index if has_zone else self._localised(chunk, index))

    def _localised(self, chunk: Chunk, index: pd.DatetimeIndex) -> pd.DatetimeIndex:
        local = index.tz_localize(self.rule.zone, ambiguous="NaT", nonexistent="NaT")
        if local.isna().any():
            chunk.fail(
                np.argmax(local.isna()),
                self.rule.column,
                f"a time that occurs once in {self.rule.zone}; the clocks change then",
                "Write times with their offset, such as +01:00, or in seconds since the epoch.",
            )
        return local

    def _in_range(self, chunk: Chunk, index: pd.DatetimeIndex) -> np.ndarray:
        micro_s = index.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64)
        t_s = micro_s / 1e6
        bad = (t_s < _EPOCH_LEAST) | (t_s > _EPOCH_MOST)
        if bad.any():
            chunk.fail(np.argmax(bad), self.rule.column, "a time between 1990 and 2100", "Correct the date.")
        return t_s


def anchor(path: Path, rule: TimeRule, times: np.ndarray) -> tuple[np.ndarray, Clock]:
    """Count times from the midnight before the first of them.

    Args:
        path: Their file.
        rule: Their zone and origin.
        times: Seconds since the epoch, or since midnight, float64 [n], n at least 1.

    Returns:
        t_s, float64 [n], to the microsecond, and the clock.
    """
    if rule.origin == "midnight":
        return np.round(times, 6), Clock()
    first = datetime.fromtimestamp(float(times.min()), tz=UTC).astimezone(zoneinfo.ZoneInfo(rule.zone)).date()
    clock = Clock(rule.zone, first)
    span = float(times.max()) - clock.start_s
    if span > rule.days_max * _DAY_S:
        raise TraceError(
            problem(
                path,
                None,
                "span of the times in days",
                round(span / _DAY_S, 1),
                f"at most {rule.days_max:g}",
                "Do not mix units; split a longer file, or raise time.days_max.",
            )
        )
    return np.round(times - clock.start_s, 6), clock


def report_days(report: Report, clock: Clock, starts: np.ndarray, ends: np.ndarray, silence_s: float) -> None:
    """Report the days, their gaps and changes of the clock.

    Args:
        report: Where to.
        clock: The clock.
        starts: Beginnings of what the file covers, float64 [n], in order.
        ends: Their ends, float64 [n] (equal to `starts` for requests).
        silence_s: A gap is longer than this.
    """
    until = float(ends.max())
    days = clock.day_starts(until)
    day = f"{clock.first_day:%A, %Y-%m-%d} in {clock.zone}" if clock.first_day else "day 0, taken for a Monday"
    report.note("days", len(days) - 1, f"the first is {day}", "t_s counts from its midnight")
    lengths = np.diff(days)
    for i in np.flatnonzero(np.abs(lengths - _DAY_S) > 1).tolist():
        report.warn(
            "day on which the clocks change",
            1,
            f"{clock.show(days[i])[:10]} has {lengths[i] / 3600:g} hours",
            "t_s runs on in elapsed seconds, off the clock on the wall from then",
        )
    covered = np.maximum.accumulate(ends)
    gaps = [(float(covered[i]), float(starts[i + 1])) for i in np.flatnonzero(starts[1:] - covered[:-1] > silence_s)]
    edges = [(0.0, float(starts[0])), (until, float(days[-1]))]
    if until - starts[0] >= _HALF_DAY_S:  # whoever brings less does not mean whole days
        gaps = [edges[0], *gaps, edges[1]]
    elif starts[0] > 0 or until < days[-1]:
        report.note("part of a day", 1, f"{clock.show(starts[0])} to {clock.show(until)}", "nothing before and after")
    _report_gaps(report, clock, [gap for gap in gaps if gap[1] - gap[0] > silence_s])


def _report_gaps(report: Report, clock: Clock, gaps: list[tuple[float, float]]) -> None:
    for start, end in gaps[:_GAPS_SHOWN]:
        report.warn("gap", 1, f"{clock.show(start)} to {clock.show(end)}", "no requests in it")
    report.warn("gap", len(gaps) - _GAPS_SHOWN if len(gaps) > _GAPS_SHOWN else 0, "further ones", "no requests in them")
