"""Chunked reading: the same table whatever the chunks, little memory, and a clear word about every wrong file."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amarl_core import traces
from amarl_core.errors import AmarlError, TraceError
from amarl_core.traces import load_trace, read_traffic_file
from tests.foreign_tables import FIXTURES, FORMATS, MILAN_FILE, TOY, load

OPERATOR = (FIXTURES / "operator.csv").read_text()
NARROW = {"time": {"column": "t", "unit": "s", "origin": "midnight"}, "source": {"column": "place"},
          "service": {"constant": "video"}, "id": "n"}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_every_fixture_loads_with_the_same_content_each_time(name):
    first, again = load(name, seed=3), load(name, seed=3)
    assert len(first.trace) > 0 and first.trace.sha256 == again.trace.sha256
    assert (np.diff(first.trace.t_s) >= 0).all()
    assert len(np.unique(first.trace.request_id)) == len(first.trace)
    assert first.trace.name == Path(name).name.split(".")[0]


def test_chunks_of_any_size_give_the_same_trace(tmp_path):
    day = TOY.training_trace(seed=1, days=2)
    day.write(tmp_path / "day.parquet")
    day.frame().to_csv(tmp_path / "day.tsv", sep="\t", index=False)
    for name in ("day.parquet", "day.tsv"):
        for chunk_bytes in (2_000, 50_000, 16_000_000):
            read = read_traffic_file(tmp_path / name, TOY, preset="requests", chunk_bytes=chunk_bytes)
            assert read.trace.sha256 == day.sha256, (name, chunk_bytes)
    for name in FORMATS:
        assert load(name, chunk_bytes=200).trace.sha256 == load(name).trace.sha256, name


def test_a_large_file_of_our_own_is_read_in_chunks_and_as_strictly(tmp_path, monkeypatch):
    monkeypatch.setattr(traces, "_LARGE_BYTES", 10)
    day = TOY.training_trace(seed=1)
    for name in ("day.csv", "day.csv.gz", "day.parquet"):
        assert load_trace(day.write(tmp_path / name), TOY).sha256 == day.sha256
    frame = day.frame()
    frame.iloc[[1, 0]].to_csv(tmp_path / "swapped.csv", index=False)
    with pytest.raises(TraceError, match="swapped.csv row 3: t_s is .*the arrival before it. Sort the rows"):
        load_trace(tmp_path / "swapped.csv", TOY)
    pd.concat([frame.head(2), frame.iloc[[1]]]).to_csv(tmp_path / "twice.csv", index=False)
    with pytest.raises(TraceError, match="twice.csv row 4: request_id is 1; expected each request once"):
        load_trace(tmp_path / "twice.csv", TOY)


def test_a_million_rows_stay_within_their_part_of_two_gigabytes(tmp_path):
    """5 million rows may take 2 GB, a million 400 MB: this takes 240 MB, lists of cells take 980 MB."""
    n, draw = 1_000_000, np.random.default_rng(0)
    pyarrow.csv.write_csv(
        pa.table(
            {
                "request_id": np.arange(n),
                "t_s": np.sort(draw.integers(0, 86_400_000, n)) / 1000,
                "service": np.array(TOY.service_ids)[draw.integers(0, 3, n)],
                "source": np.array(["DU-W", "DU-C", "DU-E"])[draw.integers(0, 3, n)],
                "destination": np.array(["COR", "CU-E"])[draw.integers(0, 2, n)],
                "bundle": draw.integers(1, 50, n),
                "demand_kbps": draw.integers(100, 50_000, n),
                "hold_s": draw.integers(1, 900_000, n) / 1000,
            }
        ),
        tmp_path / "big.csv",
    )
    code = (
        "import resource, sys\n"
        "from amarl_core.scenario import load_scenario\n"
        "from amarl_core.traces import load_trace\n"
        "toy = load_scenario('toy')\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "trace = load_trace(sys.argv[1], toy, preset='requests')\n"
        "print(len(trace), peak() - before)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "big.csv")],
        capture_output=True, text=True, cwd=FIXTURES.parents[2], check=True,
    )  # fmt: skip
    rows, growth = map(int, run.stdout.split())
    growth_mb = growth / (1024 if sys.platform != "darwin" else 1024**2)
    assert rows == n
    assert growth_mb < 400


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("20;10", "1.234,5;10", "operator.csv row 2: mbps is '1.234,5'; expected a positive number (Mbps)."),
        ("20;10", '"1,234";10', "mbps is '1,234'; expected a positive number (Mbps)"),
        ("20;10", "1 234;10", "mbps is '1 234'"),
        ("20;10", "20 Mbps;10", "mbps is '20 Mbps'"),
        ("20;10", ";10", "mbps is ''"),
        ("20;10", "nan;10", "mbps is 'nan'"),
        ("20;10", "1e999;10", "mbps is 1e999; expected a positive number (Mbps). Write"),
        ("20;10", "-20;10", "mbps is -20; expected a positive number (Mbps) of 1 to 1,000,000,000 kbps"),
        ("20;10", "0.0001;10", "mbps is 0.0001; expected a positive number (Mbps) of 1 to"),
        ("20;10", "20;0", "minutes is 0; expected a positive time (min)"),
        ("5162", "5163", "operator.csv row 3: cell is 5163; expected a place of the mapping's table or a known node"),
        ("5162", "", "operator.csv row 3: cell is ''; expected a text that is not empty. Fill the cell."),
        ("call", "fax", "operator.csv row 4: app is 'fax'; expected a known service: video, ar, voice"),
        ("2013-11-01T09:00:00;call;5161;6;1.5", "2013-11-01T08:10:00;yt;5161;20;10", "row 4: the same row as an"),
        ("12.5;2", "12,5,2", "operator.csv row 3: 4 cells; expected 5 as in the header. Check the delimiter ';'"),
        ("12.5;2", "12.5;2;3", "operator.csv row 3: 6 cells; expected 5"),
        ("cell", "zelle", "operator.csv row 1: no column 'cell'; expected the columns when, app, cell, mbps,"),
        ("minutes", "cell", "column name is 'cell'; expected each column once"),
        (";", ",", "mbps, minutes among those of the file: when,app,cell"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_named_by_row_and_column(tmp_path, old, new, words):
    assert old in OPERATOR
    text = OPERATOR.replace(old, new) if old == ";" else OPERATOR.replace(old, new, 1)
    (tmp_path / "operator.csv").write_text(text)
    with pytest.raises(TraceError) as caught:
        load_trace(tmp_path / "operator.csv", TOY, FIXTURES / "operator.toml")
    if words.startswith("column name is 'cell'"):
        assert "no column 'minutes'" in str(caught.value) or words in str(caught.value)
    else:
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "an empty file"),
        ("a.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git-LFS pointer"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Run `git lfs pull`"),
        ("a.parquet", b"PAR1 no PAR1", "not Parquet"),
        ("a.csv", b"n,t,place\n", "a table without rows"),
        ("a.csv", b"n,t,place\n\n\n", "a table without rows"),
        ("a.csv", b"n,t,place\n1,2,\xff\xfe\n", "a.csv row 2: not UTF-8"),
        ("a.csv", "n,t,place\n1,2,DU-W\n".encode("utf-16"), "not UTF-8"),
        ("a.csv.gz", gzip.compress(b"n,t,place\n" + b"1,2,DU-W\n" * 9999)[:-20], "not a readable table"),
        ("a.csv.gz", b"n,t,place\n1,2,DU-W\n", "not a readable table"),
        ("a.xlsx", b"n,t,place\n1,2,DU-W\n", "one ending in .csv, .csv.gz, .tsv"),
        ("a.csv", b"n,t,place\n1.0,2,DU-W\n", "a.csv row 2: n is 1.0; expected an integer of at least 0"),
        ("a.csv", b"n,t,place\n1,000,2,DU-W\n", "a.csv row 2: 4 cells; expected 3 as in the header"),
        ("a.csv", b"n,t,place\n-1,2,DU-W\n", "n is -1; expected an integer of at least 0"),
        ("a.csv", b"n,t,place\n1,2,DU-W\n1,3,DU-C\n", "row 3: n is 1; expected each request once. Remove it, or say"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TraceError) as caught:
        read_traffic_file(tmp_path / name, TOY, NARROW)
    assert words in str(caught.value)


def test_a_missing_file_is_refused():
    with pytest.raises(TraceError, match="nowhere.csv: no such file"):
        read_traffic_file("nowhere.csv", TOY, NARROW)


@pytest.mark.parametrize(
    "wrong", ["400,700,DU-X", "400,x,DU-W", "x,700,DU-W", "400,700", "399,700,DU-W", "400,700,DU-W,1", ",700,DU-W"]
)
def test_a_fault_far_down_is_named_by_its_row_whatever_the_chunks(tmp_path, wrong):
    lines = [f"{i},{700 if i > 400 else i},DU-W" for i in range(1, 900)]
    lines[399] = wrong
    (tmp_path / "a.csv").write_text("n,t,place\n" + "\n".join(lines) + "\n", encoding="utf-8")
    for chunk_bytes in (300, 4096, 10**6):
        with pytest.raises(TraceError, match="a.csv row 401: "):
            read_traffic_file(tmp_path / "a.csv", TOY, NARROW, chunk_bytes=chunk_bytes)


def test_a_fault_far_down_a_parquet_file_is_named_by_its_row(tmp_path):
    places = ["DU-W"] * 900
    places[399] = "DU-X"
    pq.write_table(pa.table({"n": range(900), "t": range(900), "place": places}), tmp_path / "a.parquet")
    for chunk_bytes in (300, 10**6):
        with pytest.raises(TraceError, match="a.parquet row 400: place is 'DU-X'"):
            read_traffic_file(tmp_path / "a.parquet", TOY, NARROW, chunk_bytes=chunk_bytes)


@pytest.mark.parametrize(
    "text", ["\ufeffn,t,place\n+1, 2 ,DU-W\n\n3,4.5e0, DU-C \n\n", "n,t,place\r\n1,2,DU-W\r\n3,4.5,DU-C\r\n"]
)
def test_blank_lines_marks_and_outer_blanks_do_not_matter(tmp_path, text):
    (tmp_path / "a.csv").write_bytes(text.encode())
    loaded = read_traffic_file(tmp_path / "a.csv", TOY, NARROW)
    trace = loaded.trace
    assert loaded.report.count("blank row") == text.count("\n\n") and loaded.report.count("rows") == 2
    assert trace.request_id.tolist() == [1, 3] and trace.t_s.tolist() == [2.0, 4.5]
    assert [TOY.network.node_ids[v] for v in trace.source] == ["DU-W", "DU-C"]


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("t", [1.0, None], "a.parquet row 2: t is None; expected a time in s"),
        ("t", [1.0, float("nan")], "row 2: t is nan"),
        ("t", [True, False], "t is 'of type bool'; expected numbers"),
        ("n", [1.5, 2.5], "n is 'of type double'; expected an integer"),
        ("n", [1, None], "row 2: n is None"),
        ("place", [1.5, 2.5], "place is 'of type double'; expected texts"),
        ("place", ["DU-W", None], "row 2: place is None"),
        ("place", ["DU-W", "DU-X"], "row 2: place is 'DU-X'"),
    ],
)
def test_a_wrong_parquet_column_is_named(tmp_path, column, values, words):
    table = {"n": [1, 2], "t": [1, 2], "place": pa.array(["DU-W", "DU-C"]).dictionary_encode(), "other": [0, 0]}
    pq.write_table(pa.table(table | {column: values}), tmp_path / "a.parquet")
    with pytest.raises(TraceError) as caught:
        read_traffic_file(tmp_path / "a.parquet", TOY, NARROW)
    assert words in str(caught.value)


def damage(data, content: bytes) -> bytes:
    """Edit a file's content in one to three places."""
    damaged = bytearray(content)
    bits = [
        b",",
        b"\n",
        b"-",
        b"nan",
        b"0",
        b'"',
        b"1e400",
        b";",
        b"\t",
        b"\x00",
        b"<",
        b">",
        b"&x;",
        b"9" * 30,
        b"None",
    ]
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(damaged)))
        end = data.draw(st.integers(start, min(len(damaged), start + 40)))
        damaged[start:end] = data.draw(st.one_of(st.binary(max_size=4), st.sampled_from(bits)))
    if data.draw(st.integers(0, 9)) == 0:
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    return bytes(damaged)


def is_sound(trace) -> None:
    """Assert what holds for every trace."""
    assert len(trace) > 0 and (np.diff(trace.t_s) >= 0).all() and trace.t_s.min() >= 0
    assert len(np.unique(trace.request_id)) == len(trace)
    assert (trace.demand_kbps > 0).all() and (trace.bundle > 0).all()
    assert (trace.hold_s > 0).all() and np.isfinite(trace.hold_s).all()
    assert trace.source.min() >= 0 and trace.destination.min() >= 0
    assert max(trace.source.max(), trace.destination.max()) < TOY.network.n_nodes and trace.service.max() < 3


@pytest.mark.parametrize("name", [*FORMATS, "operator.parquet", "operator.toml"])
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_refused_clearly_or_read(tmp_path, name, data):
    """Any edit of a good file ends in an error of ours or in a sound trace, never in another exception."""
    mapping, preset = FORMATS.get(name, FORMATS["operator.csv"])
    if name == "abilene":
        (tmp_path / name).mkdir(exist_ok=True)
        files = sorted((FIXTURES / name).iterdir())
        spoilt = data.draw(st.sampled_from(files))
        for file in files:
            content = file.read_bytes()
            (tmp_path / name / file.name).write_bytes(damage(data, content) if file == spoilt else content)
        path = tmp_path / name
    elif name == "operator.toml":
        mapping, path = tmp_path / name, FIXTURES / "operator.csv"
        mapping.write_bytes(damage(data, (FIXTURES / name).read_bytes()))
    elif name == "operator.parquet":
        path = tmp_path / name
        frame = pd.read_csv(FIXTURES / "operator.csv", sep=";", dtype={"cell": str})
        frame.to_parquet(path)
        path.write_bytes(damage(data, path.read_bytes()))
    else:
        path = tmp_path / name
        path.write_bytes(damage(data, (FIXTURES / name).read_bytes()))
    try:
        trace = read_traffic_file(path, TOY, mapping, preset).trace
    except AmarlError as error:
        assert "expected" in str(error)
        return
    is_sound(trace)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.lists(st.lists(st.text(max_size=8), min_size=8, max_size=8), min_size=1, max_size=4))
def test_a_table_of_any_texts_is_refused_clearly_or_read(tmp_path, cells):
    path = tmp_path / MILAN_FILE
    path.write_text("\n".join("\t".join(row) for row in cells), encoding="utf-8", errors="replace", newline="")
    try:
        is_sound(read_traffic_file(path, TOY, *FORMATS[MILAN_FILE]).trace)
    except AmarlError as error:
        assert "expected" in str(error)
