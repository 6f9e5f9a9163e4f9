"""SNDlib's folders of demand matrices: read without entities, in order, and each fault with its file."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from amarl_core.errors import TraceError
from amarl_core.traces import read_traffic_file
from tests.foreign_tables import FIXTURES, NODES, TOY

TABLES = {"source": {"table": NODES}, "destination": {"table": NODES}}
FIRST = "demandMatrix-abilene-zhang-5min-20040301-0000.xml"
SECOND = FIRST.replace("0000.xml", "0005.xml")


@pytest.fixture
def folder(tmp_path):
    """A copy of the fixture."""
    return shutil.copytree(FIXTURES / "abilene", tmp_path / "abilene")


def read(folder, **changes):
    return read_traffic_file(folder, TOY, TABLES | changes, "sndlib", seed=1)


def edit(folder, old: str, new: str, name: str = SECOND) -> None:
    """Replace a text of a file once."""
    content = (folder / name).read_text()
    assert old in content
    (folder / name).write_text(content.replace(old, new, 1))


def test_demands_become_requests_between_their_nodes(folder):
    loaded = read(folder, volume={"scale": 300.0})
    trace, nodes = loaded.trace, np.array(TOY.network.node_ids)
    ends = list(zip(nodes[trace.source], nodes[trace.destination], strict=True))
    assert set(ends) == {("DU-W", "DU-C"), ("DU-C", "DU-W"), ("DU-W", "DU-E"), ("DU-E", "DU-C")}
    mbps = {("DU-W", "DU-C"): 48.5 + 49.5 + 50.5, ("DU-C", "DU-W"): 20.1 + 21.1 + 22.1, ("DU-W", "DU-E"): 3 * 84.5}
    for pair, total in mbps.items():
        kbit = total * 1000 * 300 * 300.0
        own = trace[np.array([end == pair for end in ends])]
        spread = np.sqrt(((own.demand_kbps * own.hold_s) ** 2).sum())
        assert abs((own.demand_kbps * own.hold_s).sum() - kbit) < 5 * spread
    assert not ((trace.t_s >= 600) & (trace.t_s < 900)).any() and trace.t_s.max() < 1200


def test_what_was_noticed_is_reported(folder):
    (folder / "readme.txt").write_text("x")
    report = read(folder, volume={"scale": 30.0}).report
    examples = {finding.what: finding.example for finding in report.findings}
    assert examples["gap"] == "2004-03-01 00:10:00 to 2004-03-01 00:15:00"
    assert examples["time zone"] == "UTC"
    assert examples["other file"] == "readme.txt"
    assert examples["volume from a node to itself"].startswith("DU-E")
    assert examples["days"] == "the first is Monday, 2004-03-01 in UTC"


def test_one_file_alone_and_other_time_zones(folder):
    york = read(folder / FIRST, volume={"scale": 300.0}, time={"zone": "America/New_York"})
    assert york.trace.t_s.max() < 300
    assert "the first is Monday, 2004-03-01 in America/New_York" in york.report.frame()["example"].tolist()
    edit(folder, "20040301-0000", "20040404-0230", FIRST)
    (folder / FIRST).rename(folder / "a.xml")
    with pytest.raises(TraceError, match="a.xml: time is .*; expected a time that occurs once in America/New_York"):
        read(folder / "a.xml", time={"zone": "America/New_York"})


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("</network>", "", "0005.xml: broken XML"),
        ("<meta>", "<meta", "broken XML"),
        ('<?xml version="1.0"?>', '<?xml version="1.0" encoding="klingon"?>', "broken XML"),
        (
            '<?xml version="1.0"?>',
            '<?xml version="1.0"?><!DOCTYPE network [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
            "XML with a document type or entities (DTDForbidden)",
        ),
        ("<unit>MBITPERSEC", "<unit>GBITPERSEC", "unit is 'Gbps'; expected Mbps as in demandMatrix"),
        ("<unit>MBITPERSEC", "<unit>PARSEC", "unit is 'PARSEC'; expected one of KBITPERSEC, MBITPERSEC, GBITPERSEC"),
        ("<unit>MBITPERSEC", "<unit>", "expected one of KBITPERSEC, MBITPERSEC, GBITPERSEC. Say volume.unit"),
        ("<granularity>5min", "<granularity>15min", "granularity in s is 900.0; expected 300 as in demandMatrix"),
        ("<granularity>5min", "<granularity>1month", "granularity is '1month'; expected a number and one of sec"),
        ("<granularity>5min", "<granularity>", "granularity is ''"),
        ("<time>20040301-0005", "<time>20040301-0010", "time is '20040301-0010'; expected 20040301-0005, as in"),
        ("<time>20040301-0005", "<time>20041301-0005", "expected a time such as 20040301-0000"),
        ("> 49.500000 <", "> 1,049.5 <", "demandValue of ATLAng_CHINng is '1,049.5'; expected a non-negative number"),
        ("> 49.500000 <", "> -3 <", "demandValue of ATLAng_CHINng is -3"),
        ("> 49.500000 <", "> NaN <", "demandValue of ATLAng_CHINng is 'NaN'"),
        ("<demandValue> 49.500000 </demandValue>", "", "demandValue of ATLAng_CHINng is 'missing'"),
        ("<source>ATLAng</source>", "", "source of ATLAng_CHINng is 'missing'"),
        ("<source>ATLAng", "<source>ATLAM5", "0005.xml: source is 'ATLAM5'; expected a place of the mapping's table"),
        ("<target>CHINng", "<target>WASHng", "demand is 'ATLAng to WASHng'; expected each pair of nodes once"),
        ("<network ", "<graph ", "broken XML"),
    ],
)  # fmt: skip
def test_a_wrong_matrix_is_named(folder, old, new, words):
    edit(folder, old, new)
    with pytest.raises(TraceError) as caught:
        read(folder)
    assert words in str(caught.value) and SECOND in str(caught.value)


def test_entities_are_never_followed(folder):
    bomb = '<?xml version="1.0"?><!DOCTYPE n [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><network>&b;</network>'
    (folder / SECOND).write_text(bomb)
    with pytest.raises(TraceError, match="Remove the DOCTYPE; it is never followed"):
        read(folder)


def test_the_same_time_twice_is_refused_dropped_or_summed(folder):
    shutil.copy(folder / FIRST, folder / "again.xml")
    with pytest.raises(TraceError, match=f"{FIRST}: time is .*; expected a time other than that of again.xml"):
        read(folder)
    once = read_traffic_file(FIXTURES / "abilene", TOY, TABLES | {"volume": {"scale": 90.0}}, "sndlib", seed=1)
    dropped = read(folder, on_duplicate="drop", volume={"scale": 90.0})
    assert dropped.trace.sha256 == once.trace.sha256 and dropped.report.count("duplicate matrix") == 1
    assert len(read(folder, on_duplicate="keep", volume={"scale": 90.0}).trace) > len(once.trace)


def test_the_same_pair_twice_is_dropped_or_summed_and_listed(folder):
    edit(folder, "<target>WASHng", "<target>CHINng")
    edit(folder, "> 84.500000 <", "> 8450 <")
    dropped = read(folder, on_duplicate="drop", volume={"scale": 9.0})
    summed = read(folder, on_duplicate="keep", volume={"scale": 9.0})
    assert len(summed.trace) > 5 * len(dropped.trace)
    assert [f"{f.example}; {f.done}" for f in dropped.report.warnings if f.what == "duplicate demand"] == [
        f"{SECOND}, ATLAng to CHINng; dropped all but the first"
    ]
    assert summed.report.count("duplicate demand") == 1


def test_matrices_between_the_intervals_are_refused(folder):
    edit(folder, "20040301-0005", "20040301-0007")
    (folder / SECOND).rename(folder / "b.xml")
    with pytest.raises(TraceError, match="times of the matrices is 'irregular'; expected whole intervals of 300 s"):
        read(folder)


def test_files_that_are_no_matrices_are_refused(folder, tmp_path):
    (folder / SECOND).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    with pytest.raises(TraceError, match="0005.xml: a Git-LFS pointer file"):
        read(folder)
    (folder / SECOND).write_text("<graph/>")
    with pytest.raises(TraceError, match="a root element <graph>"):
        read(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TraceError, match="a folder without .xml files"):
        read(tmp_path / "empty")
    with pytest.raises(TraceError, match="nowhere: no such folder"):
        read(tmp_path / "nowhere")


def test_unknown_nodes_may_be_left_out(folder):
    some = {
        key: {"table": {"ATLAng": "DU-W", "CHINng": "DU-C"}, "unknown": "skip"} for key in ("source", "destination")
    }
    loaded = read_traffic_file(folder, TOY, some | {"volume": {"scale": 90.0}}, "sndlib")
    assert loaded.report.count("unknown source") == 6 and loaded.report.count("unknown destination") == 6
    assert len(set(loaded.trace.source.tolist())) == 2


def test_a_file_without_unit_takes_that_of_the_mapping(folder):
    for file in folder.iterdir():
        edit(folder, "<unit>MBITPERSEC", "<unit>", file.name)
    stated = read_traffic_file(FIXTURES / "abilene", TOY, TABLES | {"volume": {"scale": 90.0}}, "sndlib", seed=1)
    assert read(folder, volume={"scale": 90.0, "unit": "Mbps"}).trace.sha256 == stated.trace.sha256
