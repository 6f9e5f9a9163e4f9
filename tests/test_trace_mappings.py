"""Mappings and presets: data that is checked in full before a file is opened."""

from __future__ import annotations

import pytest

from amarl_core.errors import TraceError
from amarl_core.foreign.trace_mappings import TimeRule, TrafficMapping, VolumeRule, build_mapping, merge, read_mapping
from amarl_core.foreign.trace_presets import PRESETS, REQUESTS, resolve_mapping
from tests.foreign_tables import FIXTURES, VOLUMES

BUSY = {"volume": {"busy_load_gbps": 1.0}}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_complete_mapping(preset):
    mapping = resolve_mapping(BUSY if preset == "milan" else None, preset)
    assert isinstance(mapping, TrafficMapping)
    assert mapping == resolve_mapping(mapping, None)


def test_what_is_given_is_laid_over_the_preset_part_by_part():
    mapping = resolve_mapping({"source": {"table": {"5161": "DU-W"}}, **BUSY}, "milan")
    assert mapping.source.table == {"5161": "DU-W"}
    assert mapping.source.column == "square_id"
    assert mapping.volume.busy_load_gbps == 1.0 and mapping.volume.interval_s == 600
    assert merge({"a": 1, "time": {"unit": "s"}}, {"a": 2}) == {"a": 2, "time": {"unit": "s"}}


def test_the_activity_of_milan_needs_an_explicit_scale():
    with pytest.raises(TraceError, match="volume.scale is 'missing'.*Give volume.busy_load_gbps"):
        resolve_mapping(None, "milan")


def test_a_mapping_may_be_a_toml_file_beside_the_data(tmp_path):
    mapping = resolve_mapping(FIXTURES / "operator.toml", None)
    assert mapping == build_mapping(read_mapping(FIXTURES / "operator.toml"))
    assert mapping.time == TimeRule("when", "iso", zone="Europe/Rome")
    assert mapping.delimiter == ";"
    (tmp_path / "mine.toml").write_text("[volume]\nbusy_load = 3\n")
    with pytest.raises(TraceError, match="mine.toml: mapping: key is 'volume.busy_load'; expected one of column, unit"):
        resolve_mapping(tmp_path / "mine.toml", "milan")


@pytest.mark.parametrize(("content", "words"), [(b"a = ", "not TOML"), (b"\xff", "not TOML"), (b"", "an empty file")])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content, words):
    (tmp_path / "mine.toml").write_bytes(content)
    with pytest.raises(TraceError, match=words):
        resolve_mapping(str(tmp_path / "mine.toml"), None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kin": "requests"}, "key is 'kin'; expected one of kind, format, delimiter"),
        ({"time": {"colum": "t_s"}}, "key is 'time.colum'; expected one of column, unit, origin, zone"),
        ({"kind": "flows"}, "kind is 'flows'; expected one of 'requests', 'volumes'"),
        ({"header": "no"}, "header is 'no'; expected true or false"),
        ({"header": False}, "columns is []; expected names of the columns if, and only if, header is false"),
        ({"header": False, "columns": ["a", "a"]}, "expected each name once"),
        ({"header": False, "columns": ["t_s"]}, "columns is 'service'; expected one of the columns named: t_s"),
        ({"columns": "a b"}, "columns is 'a b'; expected a list of texts"),
        ({"delimiter": "::"}, "delimiter is '::'; expected one character"),
        ({"gap_s": 0}, "gap_s is 0; expected a number above 0"),
        ({"gap_s": float("nan")}, "gap_s is nan"),
        ({"time": {"unit": "seconds"}}, "time.unit is 'seconds'; expected one of"),
        ({"time": {"origin": ""}}, "time.origin is ''; expected 'epoch' or 'midnight'"),
        ({"time": {"unit": ""}}, "time.unit is ''"),
        ({"time": {"column": ""}}, "time.column is ''"),
        ({"time": {"origin": "epoch"}}, "time.zone is ''; expected a time zone's name"),
        ({"time": {"origin": "epoch", "zone": "Rome"}}, "time.zone is 'Rome'; expected a time zone's name"),
        ({"time": {"origin": "epoch", "zone": "../../x"}}, "time.zone is '../../x'"),
        ({"time": {"zone": "UTC"}}, "time.zone is 'UTC'; expected none with origin 'midnight'"),
        ({"time": {"unit": "iso"}}, "time.origin is 'midnight'; expected none with unit 'iso'"),
        ({"time": "t_s"}, "time is 't_s'; expected a table of keys and values"),
        ({"service": {"constant": "video"}}, "expected only one of column, constant and shares"),
        ({"service": {"column": "", "table": {"a": "b"}}}, "expected service.column, which it translates"),
        ({"service": {"column": "", "shares": {"video": 0.5}}}, "expected shares that sum to 1 (they sum to 0.5)"),
        ({"service": {"column": "", "shares": {"video": "1"}}}, "expected a share from 0 to 1 for each service"),
        ({"source": {"column": ""}}, "source.column is ''; expected the column of the place"),
        ({"source": {"rule": "split"}}, "source.rule is 'split'; expected 'node' or 'population' with kind 'requests'"),
        ({"source": {"rule": "each"}}, "expected none with source.rule 'each'"),
        ({"source": {"table": {"5161": 3}}}, 'expected a table of texts, such as {"5161": "DU-VM"}'),
        ({"demand": {"unit": ""}}, "demand.unit is ''; expected one of bps, kbps"),
        ({"demand": {"unit": "ms"}}, "demand.unit is 'ms'"),
        ({"hold": {"unit": "kbps"}}, "hold.unit is 'kbps'; expected one of us, ms, s, min, h"),
        ({"bundle": {"unit": "s"}}, "bundle.unit is 's'; expected none"),
        ({"volume": {"column": "x"}}, "volume is 'given'; expected none with kind 'requests'"),
        ({"format": "sndlib"}, "format is 'sndlib'; expected kind 'volumes' and a time.zone"),
    ],
)  # fmt: skip
def test_a_wrong_mapping_of_requests_is_named(changes, words):
    with pytest.raises(TraceError) as caught:
        build_mapping(merge(REQUESTS, changes))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"demand": {"column": "x", "unit": "kbps"}}, "demand is 'given'; expected none with kind 'volumes'"),
        ({"volume": {"unit": ""}}, "expected a column and its unit"),
        ({"volume": {"scale": 2, "busy_load_gbps": 1}}, "expected either scale or busy_load_gbps, not both"),
        ({"volume": {"scale": -1}}, "volume.scale is -1; expected a number above 0"),
        ({"volume": {"last_s": 5}}, "volume.last_s is 5.0; expected none with interval_s"),
        ({"volume": {"interval_s": 0, "sum_over": ["c"]}}, "volume.interval_s is 0; expected the length"),
        ({"source": {"rule": "split", "table": {"a": "b"}}}, "source.table is 'given'; expected none"),
    ],
)
def test_a_wrong_mapping_of_volumes_is_named(changes, words):
    with pytest.raises(TraceError) as caught:
        build_mapping(merge(VOLUMES, changes))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("mapping", "preset", "words"),
    [
        (None, "milano", "preset is 'milano'; expected one of requests, milan, sndlib, coordsim"),
        (None, None, "expected a mapping or a preset"),
        (7, None, "mapping: all of it is 7"),
        (build_mapping(REQUESTS), "requests", "expected a dictionary of what differs from the preset"),
        ("nowhere.toml", "requests", "nowhere.toml: no such file"),
    ],
)
def test_neither_mapping_nor_preset_is_guessed(mapping, preset, words):
    with pytest.raises(TraceError) as caught:
        resolve_mapping(mapping, preset)
    assert words in str(caught.value)


def test_nothing_is_said_twice_of_a_folder_of_matrices():
    for changes in ({"service": {"column": "x"}}, {"volume": {"interval_s": 300}}, {"source": {"column": "a"}}):
        with pytest.raises(TraceError, match="expected no columns and no interval with it"):
            resolve_mapping(changes, "sndlib")
    with pytest.raises(TraceError, match="source.rule is 'split'"):
        resolve_mapping({"source": {"rule": "split"}}, "sndlib")


def test_parts_are_checked_when_they_are_built_directly():
    with pytest.raises(TraceError, match="volume.unit is 'Mb'"):
        VolumeRule("v", "Mb")
    with pytest.raises(TraceError, match="time is 'noon'; expected a TimeRule"):
        TrafficMapping(time="noon")
