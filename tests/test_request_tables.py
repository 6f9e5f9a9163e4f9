"""Tables of requests: what they say is kept, what they do not say is drawn by the generator's rules."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from amarl_core.audit import audit
from amarl_core.baselines import tuned
from amarl_core.errors import TraceError
from amarl_core.evaluation import play_trace
from amarl_core.traces import load_trace, read_traffic_file
from tests.foreign_tables import FIXTURES, TOY, load, load_text

TIME = {"column": "t", "unit": "s", "origin": "midnight"}
BARE = {"time": TIME, "source": {"column": "place"}}
MANY = BARE | {"on_duplicate": "keep"}  # times of a ms meet by chance


def bare_table(n: int, seed: int = 0) -> str:
    """Return a table of n times and places within a day."""
    draw = np.random.default_rng(seed)
    rows = zip(np.sort(draw.integers(0, 86_400_000, n)) / 1000, draw.choice(["DU-W", "DU-C", "DU-E"], n), strict=True)
    return "t,place\n" + "".join(f"{t},{place}\n" for t, place in rows)


def test_columns_are_translated_by_tables_and_units():
    trace = load("operator.csv").trace
    assert [TOY.service_ids[s] for s in trace.service] == ["video", "video", "voice"]
    assert [TOY.network.node_ids[v] for v in trace.source] == ["DU-W", "DU-E", "DU-W"]
    assert trace.demand_kbps.tolist() == [20_000, 12_500, 6_000]
    assert trace.hold_s.tolist() == [600.0, 120.0, 90.0]
    assert trace.bundle.tolist() == [1, 1, 1]
    assert [TOY.network.node_ids[v] for v in trace.destination[:2]] == ["COR", "COR"]  # video: nearest:core


def test_what_is_missing_is_drawn_by_the_generators_rules(tmp_path):
    n = 20_000
    trace = load_text(tmp_path, bare_table(n), MANY, seed=4).trace
    for s, service in enumerate(TOY.services):
        own = trace[trace.service == s]
        unit = own.demand_kbps / own.bundle
        assert own.bundle.min() >= service.bundle_min and own.bundle.max() <= service.bundle_max
        assert unit.min() >= service.unit_kbps_min and unit.max() <= service.unit_kbps_max
        assert own.hold_s.mean() == pytest.approx(service.hold_mean_s, rel=5 / np.sqrt(len(own)))
        areas = {int(v): a for a, v in enumerate(TOY.traffic.area_node)}
        allowed = TOY.traffic.destination[s, [areas[v] for v in own.source.tolist()], own.destination]
        assert (allowed > 0).all()


def test_services_follow_the_mix_of_place_and_hour(tmp_path):
    trace = load_text(tmp_path, bare_table(60_000), MANY, seed=1).trace
    rate = TOY.traffic.rate_per_s[0]  # day 0 is taken for a Monday
    for a, node in enumerate(TOY.traffic.area_node.tolist()):
        for hours in ((3, 6), (12, 14), (18, 21)):
            hour = trace.t_s // 3600
            part = trace[(trace.source == node) & (hour >= hours[0]) & (hour < hours[1])]
            mix = rate[:, a, slice(*hours)] / rate[:, a, slice(*hours)].sum(axis=0)
            expected = mix.mean(axis=1)
            drawn = np.bincount(part.service, minlength=3) / len(part)
            assert np.abs(drawn - expected).max() < 5 * 0.5 / np.sqrt(len(part))


def test_services_follow_fixed_shares(tmp_path):
    shares = {"voice": 0.75, "video": 0.25}
    trace = load_text(tmp_path, bare_table(20_000), MANY | {"service": {"shares": shares}}).trace
    drawn = np.bincount(trace.service, minlength=3) / len(trace)
    assert drawn == pytest.approx([shares.get(s, 0.0) for s in TOY.service_ids], abs=5 * 0.5 / np.sqrt(len(trace)))
    assert drawn[TOY.service_ids.index("ar")] == 0
    constant = load_text(tmp_path, bare_table(50), BARE | {"service": {"constant": "ar"}}).trace
    assert set(constant.service.tolist()) == {TOY.service_ids.index("ar")}
    with pytest.raises(TraceError, match="service is 'tv'; expected a known service: video, ar, voice"):
        load_text(tmp_path, bare_table(50), BARE | {"service": {"constant": "tv"}})


def test_draws_depend_on_the_seed_and_on_nothing_else(tmp_path):
    text = bare_table(500)
    first = load_text(tmp_path, text, BARE, seed=7).trace
    assert load_text(tmp_path, text, BARE, seed=7, chunk_bytes=300).trace.sha256 == first.sha256
    assert load_text(tmp_path, text, BARE, seed=8).trace.sha256 != first.sha256
    lines = text.splitlines(keepends=True)
    turned = load_text(tmp_path, lines[0] + "".join(lines[:0:-1]), BARE, seed=7)
    assert turned.trace.sha256 == first.sha256
    assert turned.report.count("row out of order") == 499
    with pytest.raises(TraceError, match="seed is -1; expected an integer of at least 0"):
        load_text(tmp_path, text, BARE, seed=-1)


@pytest.mark.parametrize(("unit", "value"), [("bps", 8e6), ("kbps", 8000), ("Mbps", 8), ("Gbps", 0.008)])
def test_each_unit_of_bandwidth_gives_the_same_demand(tmp_path, unit, value):
    mapping = BARE | {"demand": {"column": "d", "unit": unit}}
    assert load_text(tmp_path, f"t,place,d\n1,DU-W,{value:.9g}\n", mapping).trace.demand_kbps.tolist() == [8000]


@pytest.mark.parametrize(("unit", "value"), [("bytes", 60e6), ("kB", 60e3), ("MB", 60), ("GB", 0.06)])
def test_bytes_of_a_request_are_spread_over_its_hold(tmp_path, unit, value):
    mapping = BARE | {"demand": {"column": "d", "unit": unit}, "hold": {"column": "h", "unit": "min"}}
    text = f"t,place,d,h\n1,DU-W,{value:.9g},1\n"
    assert load_text(tmp_path, text, mapping).trace.demand_kbps.tolist() == [8000]
    with pytest.raises(TraceError, match="row 2: demand in kbps is .*; expected at most 1,000,000,000"):
        load_text(tmp_path, text.replace(",1\n", ",1e-7\n"), mapping)


def test_a_bundle_alone_gives_the_demand_of_its_sessions(tmp_path):
    mapping = BARE | {"bundle": {"column": "b"}, "service": {"constant": "video"}}
    trace = load_text(tmp_path, "t,place,b\n1,DU-W,7\n2,DU-C,3\n", mapping).trace
    assert trace.bundle.tolist() == [7, 3] and trace.demand_kbps.tolist() == [28_000, 12_000]
    with pytest.raises(TraceError, match="b is 0; expected a positive integer"):
        load_text(tmp_path, "t,place,b\n1,DU-W,0\n", mapping)


def test_duplicates_are_refused_unless_the_mapping_says_otherwise(tmp_path):
    text = "t,place\n5,DU-W\n5,DU-C\n5,DU-W\n6,DU-W\n5,DU-W\n"
    with pytest.raises(TraceError, match=r"row 4: the same row as an earlier one; .*on_duplicate = 'drop' \(or 'keep'"):
        load_text(tmp_path, text, BARE)
    dropped = load_text(tmp_path, text, BARE | {"on_duplicate": "drop"})
    assert len(dropped.trace) == 3
    assert [(f.count, f.example, f.done) for f in dropped.report.warnings if f.what == "duplicate row"] == [
        (2, "row 4", "dropped all but the first")
    ]
    kept = load_text(tmp_path, text, BARE | {"on_duplicate": "keep"})
    assert len(kept.trace) == 5 and kept.report.count("duplicate row") == 2


def test_unknown_places_are_refused_or_left_out_and_listed(tmp_path):
    text = "t,place\n1,DU-W\n2,X1\n3,X2\n4,X1\n"
    with pytest.raises(
        TraceError, match="row 3: place is 'X1'; expected a place of the mapping's table or a known node"
    ):
        load_text(tmp_path, text, BARE)
    skipped = load_text(tmp_path, text, BARE | {"source": {"column": "place", "unknown": "skip"}})
    assert len(skipped.trace) == 1
    assert "unknown source: 3 (X1, X2); rows left out, as the mapping says" in map(str, skipped.report.warnings)
    with pytest.raises(TraceError, match="no row of a known place"):
        load_text(tmp_path, "t,place\n2,X1\n", BARE | {"source": {"column": "place", "unknown": "skip"}})
    with pytest.raises(TraceError, match=r"table\['X1'\] is 'DU-X'; expected a known node: DU-W"):
        load_text(tmp_path, text, BARE | {"source": {"column": "place", "table": {"X1": "DU-X"}}})


def test_a_source_that_is_no_area_needs_a_destination(tmp_path):
    with pytest.raises(
        TraceError, match="place is 'COR'; expected a place whose node is an area .* destination.column"
    ):
        load_text(tmp_path, "t,place\n1,COR\n", BARE)
    mapping = BARE | {"destination": {"column": "to"}}
    trace = load_text(tmp_path, "t,place,to\n1,COR,DU-W\n", mapping).trace
    assert TOY.network.node_ids[trace.destination[0]] == "DU-W"


def test_requests_that_nobody_could_serve_are_reported(tmp_path):
    mapping = BARE | {"destination": {"column": "to"}, "service": {"constant": "ar"}}
    (tmp_path / "a.csv").write_text("t,place,to\n1,DU-W,DC\n2,DU-W,CU-W\n")
    hasty = replace(TOY, latency_ms=np.full(3, 4.0))  # the data centre is 6 ms away
    loaded = read_traffic_file(tmp_path / "a.csv", hasty, mapping)
    assert loaded.report.count("request that no route can serve in time") == 1


def test_load_trace_returns_the_trace_and_logs_the_warnings(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        trace = load_trace(FIXTURES / "requests.tsv", TOY, preset="requests")
    assert len(trace) == 3
    logged = {record.levelname: record.getMessage() for record in caplog.records}
    assert logged["WARNING"] == "requests.tsv: gap: 1 (day 0 00:00:00 to day 0 01:00:12); no requests in it"
    assert "INFO" in logged


@pytest.mark.parametrize(
    "name", ["operator.csv", "sms-call-internet-mi-2013-11-01.txt", "abilene", "coordsim_nodes.csv"]
)
def test_a_loaded_trace_is_served_and_passes_the_audit(name):
    loaded = load(name, seed=2)
    played = play_trace(tuned("shortest_feasible"), loaded.trace, scenario=TOY)
    report = audit(TOY, played.decisions, played.ledger, loaded.trace)
    assert report.ok, report.summary()
    assert len(played.decisions) == len(loaded.trace) and played.decisions["accepted"].any()
