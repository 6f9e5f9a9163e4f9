"""Tables of volumes: duplicates, grids, gaps and blanks."""

from __future__ import annotations

import pytest

from amarl_core.errors import TraceError
from amarl_core.traces import read_traffic_file
from tests.foreign_tables import FIXTURES, MILAN_FILE, TOY, load, volume_rows

ROWS = [(600 * k, place, 5) for k in range(6) for place in ("DU-W", "DU-C")]
NUMBERS = {"volume": {"unit": "requests"}}


def numbers(*more: tuple, **changes):
    """Return the number of rows of each kind in the report of `ROWS` and more rows."""
    return lambda folder: volume_rows(folder, [*ROWS, *more], NUMBERS | changes)


def test_the_same_time_and_place_twice_is_refused_unless_the_mapping_says_otherwise(tmp_path):
    twice = numbers((600, "DU-W", 7), (600, "DU-W", 8))
    with pytest.raises(TraceError, match="row 14: the same time and place as an earlier row; .*volume.sum_over"):
        twice(tmp_path)
    assert numbers((600, "DU-W", 7), on_duplicate="drop")(tmp_path).report.count("duplicate row") == 1
    dropped = numbers((600, "DU-W", 1e6), on_duplicate="drop")(tmp_path)
    summed = numbers((600, "DU-W", 1e4), on_duplicate="keep")(tmp_path)
    assert len(dropped.trace) < 200 and 9000 < len(summed.trace) < 11_000


def test_parts_of_a_volume_are_no_duplicates():
    content = [line.split("\t") for line in (FIXTURES / MILAN_FILE).read_text().splitlines()]
    assert len({(row[0], row[1]) for row in content}) < len(content)
    assert load(MILAN_FILE).report.count("duplicate row") == 0


def test_a_repeated_row_of_milan_is_refused(tmp_path):
    content = (FIXTURES / MILAN_FILE).read_text()
    (tmp_path / MILAN_FILE).write_text(content + content.splitlines()[4] + "\n")
    with pytest.raises(
        TraceError, match=f"2013-11-01.txt row {len(content.splitlines()) + 1}: the same time and place"
    ):
        read_traffic_file(tmp_path / MILAN_FILE, TOY, {"volume": {"scale": 1.0}}, "milan")


def test_times_off_the_grid_are_refused(tmp_path):
    with pytest.raises(TraceError, match="row 14: t, in s of the trace is 750.0; expected a whole number of intervals"):
        numbers((750, "DU-W", 7))(tmp_path)


def test_a_missing_interval_is_a_gap_and_a_missing_place_is_a_fact(tmp_path):
    rows = [row for row in ROWS if row[0] not in (1200, 1800) and row != (600, "DU-C", 5)]
    report = volume_rows(tmp_path, rows, NUMBERS).report
    assert [(f.what, f.example) for f in report.warnings] == [("gap", "day 0 00:20:00 to day 0 00:40:00")]
    assert report.count("interval of a place without a row") == 1
    day = [(600 * k, "DU-W", 5) for k in range(144) if not 30 <= k < 40]
    assert [f.example for f in volume_rows(tmp_path, day, NUMBERS).report.warnings] == [
        "day 0 05:00:00 to day 0 06:40:00"
    ]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "row 14: v is ''; expected a non-negative number (requests)"),
        ("-1", "row 14: v is -1; expected a non-negative number"),
        ('"1,000"', "row 14: v is '1,000'"),
        ("1e16", "row 14: v is 1e16"),
        ("5 Mbps", "row 14: v is '5 Mbps'"),
    ],
)
def test_a_wrong_volume_is_named(tmp_path, value, words):
    with pytest.raises(TraceError) as caught:
        numbers((3600, "DU-W", value))(tmp_path)
    assert words in str(caught.value)


def test_blank_cells_may_count_as_nothing(tmp_path):
    blank = volume_rows(
        tmp_path, [*ROWS, (3600, "DU-W", "")], {"volume": {"unit": "requests", "blank": "zero"}}, seed=1
    )
    assert blank.trace.sha256 == volume_rows(tmp_path, [*ROWS, (3600, "DU-W", 0)], NUMBERS, seed=1).trace.sha256


def test_intervals_last_until_the_next_row_of_their_place(tmp_path):
    changes = {"volume": {"unit": "requests", "interval_s": 0}}
    rows = [(0, "DU-W", 500), (0, "DU-C", 300), (1000, "DU-C", 300), (3000, "DU-W", 500)]
    trace = volume_rows(tmp_path, rows, changes, seed=1).trace
    west = trace.t_s[trace.source == TOY.network.node_index["DU-W"]]
    centre = trace.t_s[trace.source == TOY.network.node_index["DU-C"]]
    assert 5900 < west.max() < 6000 and 1900 < centre.max() < 2000
    with pytest.raises(
        TraceError, match="the only row of DU-E; expected to know how long it lasts. Give volume.last_s"
    ):
        volume_rows(tmp_path, [*rows, (5, "DU-E", 1)], changes)
    alone = volume_rows(tmp_path, [(5, "DU-E", 90)], {"volume": changes["volume"] | {"last_s": 10}}).trace
    assert alone.t_s.min() >= 5 and alone.t_s.max() < 15
