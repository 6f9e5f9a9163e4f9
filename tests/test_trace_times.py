"""Times: units, origins, zones, days on which the clocks change, and gaps."""

from __future__ import annotations

from datetime import date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amarl_core.errors import TraceError
from amarl_core.foreign.trace_times import Clock
from amarl_core.traces import read_traffic_file
from tests.foreign_tables import TOY, load_text

ROME = ZoneInfo("Europe/Rome")
ROW = {"service": {"constant": "video"}, "source": {"column": "place"}}


def read_times(folder, times: list, **time):
    """Read requests at these times; return their t_s and the report."""
    text = "t,place\n" + "".join(f"{t},DU-W\n" for t in times)
    loaded = load_text(folder, text, {"time": {"column": "t", **time}, **ROW})
    return loaded.trace.t_s.tolist(), loaded.report


def epoch(*when: int, fold: int = 0) -> float:
    """Return the second of the epoch of a time on the clocks of Rome."""
    return datetime(*when, tzinfo=ROME, fold=fold).timestamp()


@pytest.mark.parametrize(("unit", "factor"), [("us", 1e6), ("ms", 1e3), ("s", 1), ("min", 1 / 60), ("h", 1 / 3600)])
def test_each_unit_gives_the_same_seconds(tmp_path, unit, factor):
    times = [30.0, 60.0, 7200.0]
    assert read_times(tmp_path, [t * factor for t in times], unit=unit, origin="midnight")[0] == pytest.approx(times)
    start = epoch(2013, 11, 1)
    days = read_times(
        tmp_path, [f"{(start + t) * factor:.9f}" for t in times], unit=unit, origin="epoch", zone="Europe/Rome"
    )
    assert days[0] == pytest.approx(times, abs=1e-5)


@pytest.mark.parametrize("day", ["2013-07-01", "2013-12-01"])
def test_summer_and_winter_days_begin_at_their_own_midnight(tmp_path, day):
    offset = "+02:00" if "07" in day else "+01:00"
    utc = pd.Timestamp(f"{day}T08:10:00{offset}").tz_convert("UTC")
    forms = [
        ([f"{day}T08:10:00"], {"unit": "iso", "zone": "Europe/Rome"}),
        ([f"{day} 08:10"], {"unit": "iso", "zone": "Europe/Rome"}),
        ([f"{day}T08:10:00{offset}"], {"unit": "iso", "zone": "Europe/Rome"}),
        ([utc.strftime("%Y-%m-%dT%H:%M:%SZ")], {"unit": "iso", "zone": "Europe/Rome"}),
        ([int(utc.timestamp() * 1000)], {"unit": "ms", "origin": "epoch", "zone": "Europe/Rome"}),
    ]
    for times, rule in forms:
        assert read_times(tmp_path, times, **rule)[0] == [29_400.0], rule
    assert read_times(tmp_path, [utc.timestamp()], unit="s", origin="epoch", zone="UTC")[0] == [
        29_400.0 - 3600 * int(offset[2])
    ]


@pytest.mark.parametrize(("day", "hours"), [((2013, 10, 27), 25), ((2013, 3, 31), 23)])
def test_a_day_on_which_the_clocks_change_is_reported_and_keeps_elapsed_time(tmp_path, day, hours):
    start = epoch(*day)
    times = [start + 600 * k for k in range(hours * 6)]
    t_s, report = read_times(tmp_path, times, unit="s", origin="epoch", zone="Europe/Rome")
    assert t_s == [600.0 * k for k in range(hours * 6)]
    assert report.count("day on which the clocks change") == 1
    assert f"{date(*day)} has {hours} hours" in report.frame()["example"].tolist()
    assert report.count("gap") == 0 and report.count("days") == 1


@pytest.mark.parametrize("doubtful", ["2013-10-27T02:30:00", "2013-03-31T02:30:00"])
def test_a_time_that_the_change_makes_doubtful_is_refused(tmp_path, doubtful):
    with pytest.raises(TraceError, match=f"row 2: t is '{doubtful}'; expected a time that occurs once in Europe/Rome"):
        read_times(tmp_path, [doubtful], unit="iso", zone="Europe/Rome")
    assert read_times(tmp_path, [f"{doubtful}+02:00"], unit="iso", zone="Europe/Rome")[0]


def test_hours_on_the_wall_are_those_of_the_zone():
    clock = Clock("Europe/Rome", date(2013, 10, 26))
    t_s = np.arange(0, 3 * 86_400, 1800.0)
    kind, hour = clock.hours(t_s)
    walls = [datetime.fromtimestamp(epoch(2013, 10, 26) + t, tz=ROME) for t in t_s]
    assert hour.tolist() == [wall.hour for wall in walls]
    assert kind.tolist() == [int(wall.weekday() >= 5) for wall in walls]
    kind, hour = Clock().hours(np.array([0.0, 5 * 86_400 + 3600.0]))
    assert kind.tolist() == [0, 1] and hour.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("times", "rule", "words"),
    [
        ([1383260400, 1383260400000], {"unit": "s", "origin": "epoch", "zone": "UTC"}, "row 3: t is 1383260400000"),
        ([1383260400000, 1383260401], {"unit": "ms", "origin": "epoch", "zone": "UTC"}, "do not mix units"),
        ([100, 200, 201_000], {"unit": "s", "origin": "midnight"}, "factor of about 1000. Write all times in one unit"),
        ([100_000, 101], {"unit": "ms", "origin": "midnight"}, None),
        ([900_000, 901], {"unit": "s", "origin": "midnight"}, "a time in s like its neighbour's 900000"),
        ([1, 86_400_000], {"unit": "s", "origin": "midnight"}, "in the first 400 days"),
        ([-1], {"unit": "s", "origin": "midnight"}, "row 2: t is -1; expected a time in s since the midnight"),
        (["2013-11-01T08:00:00", "1383260400"], {"unit": "iso", "zone": "UTC"}, "row 3: t is 1383260400;"),
        (["2013-11-01T08:00:00Z", "2013-11-01T08:00:00"], {"unit": "iso", "zone": "UTC"}, "times all with an offset"),
        (["2013-02-30T08:00:00"], {"unit": "iso", "zone": "UTC"}, "There is no such day or hour"),
        (["2013-02-28T25:00:00"], {"unit": "iso", "zone": "UTC"}, "There is no such day or hour"),
        (["0001-02-28T05:00:00"], {"unit": "iso", "zone": "UTC"}, "a time between 1990 and 2100"),
        (["01/11/2013 08:00"], {"unit": "iso", "zone": "UTC"}, "Write ISO 8601, or correct time.unit"),
        ([1383260400, 1483260400], {"unit": "s", "origin": "epoch", "zone": "UTC"}, "span of the times in days"),
    ],
)  # fmt: skip
def test_mixed_or_wrong_units_of_time_are_refused(tmp_path, times, rule, words):
    if words is None:  # a tenth of a second after a minute and a half is odd, but may be
        assert read_times(tmp_path, times, **rule)[1].count("row out of order") == 1
        return
    with pytest.raises(TraceError) as caught:
        read_times(tmp_path, times, **rule)
    assert words in str(caught.value)


def test_a_longer_file_can_be_meant(tmp_path):
    times = [0, 500 * 86_400]
    assert read_times(tmp_path, times, unit="s", origin="midnight", days_max=1000)[0] == times


def test_gaps_in_a_day_are_reported_with_start_and_end(tmp_path):
    minutes = [m for m in range(0, 1440, 5) if not 180 <= m < 250]
    start = epoch(2013, 11, 1)
    _, report = read_times(tmp_path, [start + 60 * m for m in minutes], unit="s", origin="epoch", zone="Europe/Rome")
    gaps = [finding.example for finding in report.warnings if finding.what == "gap"]
    assert gaps == ["2013-11-01 02:55:00 to 2013-11-01 04:10:00"]


def test_a_day_that_ends_early_has_a_gap_and_a_morning_has_none(tmp_path):
    _, report = read_times(tmp_path, list(range(0, 20 * 3600, 60)), unit="s", origin="midnight")
    assert [f.example for f in report.warnings] == ["day 0 19:59:00 to day 1 00:00:00"]
    _, report = read_times(tmp_path, list(range(0, 6 * 3600, 60)), unit="s", origin="midnight")
    assert not report.warnings and report.count("part of a day") == 1


def test_many_gaps_are_counted_and_not_all_listed(tmp_path):
    _, report = read_times(tmp_path, list(range(0, 400 * 3600, 2 * 3600)), unit="s", origin="midnight")
    assert report.count("gap") == 200 and len(report.warnings) == 21


@pytest.mark.parametrize("zone", [None, "UTC", "America/Toronto"])
def test_times_of_a_parquet_file_keep_their_own_zone(tmp_path, zone):
    stamps = pd.DatetimeIndex(["2013-11-01T08:10:00"]).tz_localize(zone or "Europe/Rome").as_unit("ns")
    stamps = stamps.tz_localize(None) if zone is None else stamps
    pq.write_table(pa.table({"t": pa.array(stamps), "place": ["DU-W"]}), tmp_path / "a.parquet")
    mapping = {"time": {"column": "t", "unit": "iso", "zone": "Europe/Rome"}, **ROW}
    expected = {None: 8, "UTC": 9, "America/Toronto": 13}[zone] * 3600 + 600
    assert read_traffic_file(tmp_path / "a.parquet", TOY, mapping).trace.t_s.tolist() == [expected]
    for unit in ("ms", "us", "ns"):
        for wrong in (-(2**62), 2**62 + 1, 5):
            stamps = pa.array([wrong], pa.timestamp(unit, zone))
            pq.write_table(pa.table({"t": stamps, "place": ["DU-W"]}), tmp_path / "b.parquet", version="2.6")
            with pytest.raises(TraceError, match="b.parquet"):
                read_traffic_file(tmp_path / "b.parquet", TOY, mapping)
    with pytest.raises(TraceError, match="Say time.unit 'iso'"):
        mapping["time"] = {"column": "t", "unit": "s", "origin": "midnight"}
        read_traffic_file(tmp_path / "a.parquet", TOY, mapping)
