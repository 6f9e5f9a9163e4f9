"""Volumes become requests: the volume is conserved, whatever the unit, and the draws follow the seed."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amarl_core.errors import TraceError
from amarl_core.foreign.places import generator_mix
from amarl_core.foreign.volumes import Cells, busiest_kbps, sum_equal
from amarl_core.scenario import load_scenario
from amarl_core.traces import read_traffic_file
from tests.foreign_tables import FIXTURES, MILAN_FILE, TOY, load, load_text, volume_rows

PLACES = ("DU-W", "DU-C", "DU-E")
DAY = [(600 * k, place, 40 + 10 * p + k % 7) for k in range(144) for p, place in enumerate(PLACES)]
MEAN_KBIT = np.array([p.mean_kbps * p.hold_mean_s for p in TOY.services])


def spread_of_kbit(expected: np.ndarray) -> float:
    """Return the standard deviation of the kbit that so many expected requests of each service carry."""
    square = []
    for p in TOY.services:
        bundle = np.arange(p.bundle_min, p.bundle_max + 1)
        unit = np.arange(p.unit_kbps_min, p.unit_kbps_max + 1)
        square.append((bundle**2.0).mean() * (unit**2.0).mean() * 2 * p.hold_mean_s**2)  # exponential: E h² = 2 m²
    return float(np.sqrt((expected * np.array(square)).sum()))


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("bps", 1e6),
        ("kbps", 1e3),
        ("Mbps", 1),
        ("Gbps", 1e-3),
        ("bytes", 75e6),
        ("kB", 75e3),
        ("MB", 75),
        ("GB", 0.075),
    ],
)
def test_each_unit_of_traffic_gives_the_same_requests(tmp_path, unit, factor):
    rows = [(t, place, f"{v * factor:.12g}") for t, place, v in DAY[:90]]  # 1 Mb/s for 600 s are 75 MB
    mbps = volume_rows(tmp_path, DAY[:90], seed=1).trace
    assert volume_rows(tmp_path, rows, {"volume": {"unit": unit}}, seed=1).trace.sha256 == mbps.sha256


@pytest.mark.parametrize("shares", [{}, {"video": 0.5, "ar": 0.3, "voice": 0.2}])
def test_the_traffic_offered_is_that_of_the_table(tmp_path, shares):
    trace = volume_rows(tmp_path, DAY, {"service": {"shares": shares}}, seed=3).trace
    table_kbit = sum(v for _, _, v in DAY) * 1000 * 600
    drawn_kbit = float((trace.demand_kbps * trace.hold_s).sum())
    counts = np.bincount(trace.service, minlength=3)
    assert abs(drawn_kbit - table_kbit) < 5 * spread_of_kbit(counts)
    assert abs((counts * MEAN_KBIT).sum() - table_kbit) < 5 * np.sqrt((counts * MEAN_KBIT**2).sum())
    if shares:
        expected = np.array([shares[s] for s in TOY.service_ids]) * table_kbit / MEAN_KBIT
        assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_numbers_of_requests_are_those_of_the_table_by_place_and_interval(tmp_path):
    trace = volume_rows(tmp_path, DAY, {"volume": {"unit": "requests"}}, seed=5).trace
    for p, place in enumerate(PLACES):
        own = trace[trace.source == TOY.network.node_index[place]]
        expected = np.array([v for _, where, v in DAY if where == place])
        drawn = np.bincount((own.t_s // 600).astype(int), minlength=144)
        assert abs(drawn.sum() - expected.sum()) < 5 * np.sqrt(expected.sum()), p
        chi2 = ((drawn - expected) ** 2 / expected).sum()  # mean 144, standard deviation 17
        assert abs(chi2 - 144) < 5 * np.sqrt(2 * 144)
    assert trace.t_s.max() < 86_400


@pytest.mark.parametrize(("unit", "mean"), [("inter_arrival_s", 0.4), ("inter_arrival_ms", 400)])
def test_mean_times_between_requests_give_their_number(tmp_path, unit, mean):
    loaded = volume_rows(tmp_path, [(0, "DU-W", mean), (600, "DU-W", mean * 10)], {"volume": {"unit": unit}}, seed=1)
    assert abs(len(loaded.trace) - 1650) < 5 * np.sqrt(1650)
    with pytest.raises(TraceError, match="v is 0; expected a positive number"):
        volume_rows(tmp_path, [(0, "DU-W", 0)], {"volume": {"unit": unit}})


def test_an_activity_is_scaled_to_requests_or_to_the_busiest_hour(tmp_path):
    by_number = {"volume": {"unit": "activity", "scale": 0.5}}
    trace = volume_rows(tmp_path, DAY, by_number, seed=1).trace
    expected = 0.5 * sum(v for _, _, v in DAY)
    assert abs(len(trace) - expected) < 5 * np.sqrt(expected)
    by_load = {"volume": {"unit": "activity", "busy_load_gbps": 0.4}, "service": {"constant": "video"}}
    trace = volume_rows(tmp_path, DAY, by_load, seed=1).trace
    hourly = np.bincount([t // 3600 for t, _, _ in DAY], weights=[v for _, _, v in DAY])
    busiest = 0.4e6 * 3600 / MEAN_KBIT[TOY.service_ids.index("video")]  # requests in the busiest hour
    expected = busiest * hourly.sum() / hourly.max()
    assert abs(len(trace) - expected) < 5 * np.sqrt(expected)


def test_scale_multiplies_and_seeds_differ(tmp_path):
    one, again, other = (volume_rows(tmp_path, DAY, seed=seed).trace for seed in (1, 1, 2))
    assert one.sha256 == again.sha256 != other.sha256
    double = volume_rows(tmp_path, DAY, {"volume": {"scale": 2}}, seed=1).trace
    assert abs(len(double) - 2 * len(one)) < 5 * np.sqrt(6 * len(one))


def test_neither_the_order_of_rows_nor_the_chunks_matter(tmp_path):
    one = volume_rows(tmp_path, DAY, seed=1).trace
    turned = [DAY[i] for i in np.random.default_rng(0).permutation(len(DAY))]
    assert volume_rows(tmp_path, turned, seed=1, chunk_bytes=500).trace.sha256 == one.sha256


def test_volumes_of_one_cell_are_summed_to_the_same_bit_in_any_order():
    draw = np.random.default_rng(0)
    index = np.zeros(2000, dtype=np.int32)
    cells = Cells(600.0 * draw.integers(0, 3, 2000), index + 600.0, index, index, index, draw.random(2000) ** 9)
    one, other = sum_equal(cells), sum_equal(cells.part(draw.permutation(2000)))
    assert one.start_s.tolist() == [0.0, 600.0, 1200.0]
    assert one.volume.tolist() == other.volume.tolist()
    for start, volume in zip(one.start_s, one.volume, strict=True):
        assert volume == pytest.approx(cells.volume[cells.start_s == start].sum())


@pytest.mark.parametrize(("unit", "volume"), [("Gbps", 40), ("requests", 40_000)])
def test_services_without_a_rule_come_in_the_generators_numbers(tmp_path, unit, volume):
    """Whether traffic or a number is given, requests of the services stand to each other as in a generated hour."""
    trace = volume_rows(tmp_path, [(19 * 3600, "DU-C", volume)], {"volume": {"unit": unit}}, seed=1).trace
    rate = TOY.traffic.rate_per_s[0, :, 1, 19]
    expected = rate / rate.sum() * len(trace)
    assert (np.abs(np.bincount(trace.service, minlength=3) - expected) < 5 * np.sqrt(expected)).all()


def test_services_by_column_and_destinations_by_column(tmp_path):
    text = "t,place,v,to,app\n0,DU-W,900,COR,yt\n0,DU-W,300,DU-C,call\n0,COR,300,DU-C,call\n"
    mapping = {
        "kind": "volumes",
        "time": {"column": "t", "unit": "s", "origin": "midnight"},
        "source": {"column": "place"},
        "destination": {"column": "to"},
        "service": {"column": "app", "table": {"yt": "video", "call": "voice"}},
        "volume": {"column": "v", "unit": "requests", "interval_s": 600},
    }
    trace = load_text(tmp_path, text, mapping, seed=2).trace
    ends = {
        (TOY.service_ids[s], TOY.network.node_ids[a], TOY.network.node_ids[b])
        for s, a, b in zip(trace.service, trace.source, trace.destination, strict=True)
    }
    assert ends == {("video", "DU-W", "COR"), ("voice", "DU-W", "DU-C"), ("voice", "COR", "DU-C")}


@pytest.mark.parametrize("rule", ["split", "each"])
def test_a_volume_without_place_is_split_over_the_areas_or_given_to_each(tmp_path, rule):
    rows = [(600 * k, "anywhere", 1000) for k in range(3)]
    source = {"column": "place" if rule == "split" else "", "rule": rule}
    trace = volume_rows(tmp_path, rows, {"source": source, "volume": {"unit": "requests"}}, seed=1).trace
    share = np.array([80_000, 60_000, 70_000]) / 210_000 if rule == "split" else np.ones(3)
    drawn = np.bincount(trace.source, minlength=9)[TOY.traffic.area_node]
    assert (np.abs(drawn - 3000 * share) < 5 * np.sqrt(3000 * share)).all()


def test_places_are_given_to_areas_by_population_and_always_the_same(tmp_path):
    rows = [(0, f"square {i}", 4) for i in range(3000)]
    changes = {"source": {"column": "place", "rule": "population"}, "volume": {"unit": "requests"}}
    trace = volume_rows(tmp_path, rows, changes, seed=1).trace
    share = np.array([80_000, 60_000, 70_000]) / 210_000
    squares = np.bincount(trace.source, minlength=9)[TOY.traffic.area_node] / 4
    assert (np.abs(squares - 3000 * share) < 5 * np.sqrt(3000 * share)).all()
    for i in range(0, 3000, 250):  # alone, a place has the area that it has among the others
        alone = volume_rows(tmp_path, [(0, f"square {i}", 40)], changes, seed=1).trace
        assert len(set(alone.source.tolist())) == 1
        pair = volume_rows(tmp_path, [(0, "zero", 0), (0, f"square {i}", 40)], changes, seed=1).trace
        assert set(pair.source.tolist()) == set(alone.source.tolist())


def test_squares_of_milan_given_by_a_table_and_summed_over_countries():
    table = {"1": "DU-W", "4259": "DU-C", "5161": "DU-C"}
    mapping = {"source": {"table": table}, "volume": {"scale": 10.0}}
    trace = read_traffic_file(FIXTURES / MILAN_FILE, TOY, mapping, "milan", seed=1).trace
    rows = [line.split("\t") for line in (FIXTURES / MILAN_FILE).read_text().splitlines()]
    for node in ("DU-W", "DU-C"):
        expected = 10 * sum(float(row[7] or 0) for row in rows if table[row[0]] == node)
        drawn = (trace.source == TOY.network.node_index[node]).sum()
        assert abs(drawn - expected) < 5 * np.sqrt(expected)
    some = {"source": {"table": {"5161": "DU-C"}, "rule": "node", "unknown": "skip"}, "volume": {"scale": 10.0}}
    loaded = read_traffic_file(FIXTURES / MILAN_FILE, TOY, some, "milan")
    assert set(loaded.trace.source.tolist()) == {TOY.network.node_index["DU-C"]}
    assert loaded.report.count("unknown source") == sum(row[0] != "5161" for row in rows)


def test_milan_becomes_a_day_of_montreal():
    montreal = load_scenario("montreal")
    loaded = read_traffic_file(FIXTURES / MILAN_FILE, montreal, {"volume": {"busy_load_gbps": 168}}, "milan", seed=1)
    assert set(np.array(montreal.network.tier)[loaded.trace.source]) == {"du"}
    assert loaded.report.count("request that no route can serve in time") == 0


def test_the_example_of_the_readme_runs(monkeypatch, capsys):
    root = FIXTURES.parents[2]
    section = (root / "README.md").read_text(encoding="utf-8").partition("## Bring your own traffic")[2]
    monkeypatch.chdir(root)
    exec(re.search(r"```python\n(.*?)```", section, re.S).group(1), {})
    assert "demand_kbps" in capsys.readouterr().out


def test_the_traces_of_coord_sim_follow_their_means():
    trace = load("coordsim_nodes.csv", seed=1).trace
    west, centre = (trace[trace.source == TOY.network.node_index[v]] for v in ("DU-W", "DU-C"))
    for part, expected in ((west, [50, 250, 100]), (centre, [200, 0, 400])):
        drawn = np.bincount((part.t_s // 100).astype(int), minlength=3)
        assert len(drawn) == 3 and (np.abs(drawn - expected) <= 5 * np.sqrt(expected)).all()
    trace = load("coordsim_default.csv", seed=1).trace
    assert len(set(trace.source.tolist())) == 3


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12), st.integers(0, 50)), min_size=1, max_size=8),
)
def test_the_busiest_hour_is_that_of_a_count_minute_by_minute(cells):
    """Intervals of ten-minute steps that may overlap, against a sum over every ten minutes."""
    steps = np.zeros((43 // 6 + 1) * 6)
    covered = np.zeros_like(steps)
    for start, length, kbit in cells:
        steps[start : start + length] += kbit / length
        covered[start : start + length] = 1
    kbit, seconds = steps.reshape(-1, 6).sum(axis=1), covered.reshape(-1, 6).sum(axis=1) * 600
    start, length, each = (np.array(values, dtype=float) for values in zip(*cells, strict=True))
    expected = (kbit / np.maximum(seconds, 1)).max()
    assert busiest_kbps(start * 600, length * 600, each) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_mix_of_services_is_that_of_the_generator():
    mix = generator_mix(TOY.traffic, in_load=False)
    rate = TOY.traffic.rate_per_s
    assert mix.shape == (2, 4, 24, 3) and mix.sum(axis=3) == pytest.approx(1.0)
    assert mix[1, 2, 7] == pytest.approx(rate[1, :, 2, 7] / rate[1, :, 2, 7].sum())
    together = rate[0, :, :, 9].sum(axis=1)
    assert mix[0, -1, 9] == pytest.approx(together / together.sum())
    load_mix = generator_mix(TOY.traffic, in_load=True)[0, -1, 9]
    assert load_mix == pytest.approx(together * MEAN_KBIT / (together * MEAN_KBIT).sum())


@pytest.mark.parametrize(
    ("rows", "changes", "words"),
    [
        ([(0, "DU-W", 1e9)], {}, "expected above 0 and at most 10,000,000. Set volume.scale"),
        ([(0, "DU-W", 0)], {}, "expected number of requests is 0.0"),
        ([(0, "DU-W", 0)], {"volume": {"busy_load_gbps": 1}}, "expected number of requests is 0.0"),
        ([(0, "DU-W", 1e-9)], {}, "requests is 0; expected some"),
    ],
)
def test_nothing_and_far_too_much_are_refused(tmp_path, rows, changes, words):
    with pytest.raises(TraceError) as caught:
        volume_rows(tmp_path, rows, changes)
    assert words in str(caught.value)
