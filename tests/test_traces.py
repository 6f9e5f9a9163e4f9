"""Traces: generation, files, refusal of malformed ones, repetition."""

from __future__ import annotations

import gzip
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amarl_core.errors import AmarlError, TraceError
from amarl_core.scenario import load_scenario
from amarl_core.traces import TRACE_COLUMNS, Trace, join, load_trace, repeat
from amarl_core.traffic import REQUESTS_A_DAY_MAX

TOY = load_scenario("toy")
MONTREAL = load_scenario("montreal")
ROWS = """request_id,t_s,service,source,destination,bundle,demand_kbps,hold_s
0,0.5,video,DU-W,COR,5,20000,60
1,0.5,ar,DU-C,CU-E,1,25000,30.5
7,12.25,voice,DU-E,DU-C,60,6000,1e2
"""


def load(folder, content: str, name: str = "day.csv") -> Trace:
    """Write a trace file and read it."""
    (folder / name).write_text(content, encoding="utf-8")
    return load_trace(folder / name, TOY)


def same(a: Trace, b: Trace) -> bool:
    """Return whether two traces have the same requests."""
    return all(np.array_equal(getattr(a, column), getattr(b, column)) for column in TRACE_COLUMNS)


def test_a_day_is_the_same_alone_and_among_twenty():
    twenty = TOY.training_trace(seed=3, days=20)
    for day in (0, 5, 19):
        alone = TOY.training_trace(seed=3, days=1, first_day=day)
        assert same(alone, twenty[(twenty.t_s // 86_400).astype(int) == day])


def test_a_timeline_is_ordered_and_its_ids_are_unique():
    trace = TOY.training_trace(seed=1, days=9, first_day=2)
    assert (np.diff(trace.t_s) >= 0).all()
    assert (np.diff(trace.request_id) > 0).all()
    assert 2 * 86_400 <= trace.t_s[0] and trace.t_s[-1] < 11 * 86_400
    assert trace.request_id[0] == 2 * REQUESTS_A_DAY_MAX


def test_seeds_and_held_out_days_are_all_different():
    traces = [TOY.training_trace(seed=seed) for seed in range(3)]
    traces.append(TOY.training_trace(seed=TOY.settings.held_out_seed))
    traces += [TOY.test_trace(day) for day in TOY.test_days]
    assert len({trace.hold_s[:5].tobytes() for trace in traces}) == len(traces)


def test_times_and_holds_are_whole_milliseconds():
    trace = MONTREAL.training_trace(seed=1, days=1, first_day=19)
    for values in (trace.t_s, trace.hold_s):
        assert np.array_equal(values, np.round(values * 1000) / 1000)
    assert trace.hold_s.min() > 0


def test_montreal_offers_the_published_numbers_of_requests():
    """One operator's 59 Gb/s gives 27,942 requests a weekday (video 11,853, VoIP 8,921, AR 3,937, ...)."""
    expected = {
        "cloud_gaming": 1234,
        "augmented_reality": 3937,
        "voip": 8921,
        "video_streaming": 11853,
        "massive_iot": 711,
        "industry_4_0": 1286,
    }
    a_day = MONTREAL.traffic.rate_per_s.sum(axis=(2, 3)) * 3600  # [kind of day, S]
    scale = 59.0 / MONTREAL.settings.load_gbps
    weekday = dict(zip(MONTREAL.service_ids, a_day[0] * scale, strict=True))
    assert weekday == pytest.approx(expected, abs=1)
    assert a_day[1].sum() * scale == pytest.approx(25_754, abs=10)


def test_drawn_requests_follow_the_rates():
    """Five weekdays: each service within 5 standard deviations of its Poisson mean."""
    week = MONTREAL.training_trace(seed=11, days=5)
    mean = MONTREAL.traffic.rate_per_s[0].sum(axis=(1, 2)) * 3600 * 5
    drawn = np.bincount(week.service, minlength=len(mean))
    assert (np.abs(drawn - mean) < 5 * np.sqrt(mean)).all()
    hours = np.bincount((week.t_s % 86_400 // 3600).astype(int), minlength=24)
    assert hours.argmin() in (3, 4)
    assert hours.argmax() == 17
    service = MONTREAL.services[MONTREAL.service_ids.index("video_streaming")]
    video = week[week.service == MONTREAL.service_ids.index("video_streaming")]
    assert video.bundle.min() == service.bundle_min and video.bundle.max() == service.bundle_max
    assert np.array_equal(video.demand_kbps, video.bundle.astype(np.int64) * 4000)
    assert video.hold_s.mean() == pytest.approx(service.hold_mean_s, rel=0.02)


def test_destinations_follow_their_rules():
    week = MONTREAL.training_trace(seed=5, days=2)
    nodes = np.array(MONTREAL.network.node_ids)
    tier = np.array(MONTREAL.network.tier)
    for s, service in enumerate(MONTREAL.service_ids):
        part = week[week.service == s]
        assert set(tier[part.source]) == {"du"}
        assert (part.source != part.destination).all()
        wanted = {"video_streaming": {"core"}, "voip": {"core"}, "industry_4_0": {"cu", "du"}}
        reached = set(tier[part.destination])
        assert reached == wanted.get(service, {"core"} if service == "cloud_gaming" else {"cu"})
    gaming = week[week.service == MONTREAL.service_ids.index("cloud_gaming")]
    assert set(nodes[gaming.destination]) == {"COR-VM"}
    industry = week[week.service == MONTREAL.service_ids.index("industry_4_0")]
    assert len(set(nodes[industry.destination][tier[industry.destination] == "du"])) == 8


def test_the_toy_has_contention():
    """Each request on its shortest idle path: about 82 % fit on a weekday of some 2,000 requests."""
    import networkx as nx

    from tests.test_services import chain_of, layered

    trace = TOY.training_trace(seed=1)
    network = TOY.network
    is_host = TOY.rate_mcpu_per_gbps >= 0
    link = {(int(u), int(v)): e for e, (u, v) in enumerate(zip(network.source, network.target, strict=True))}
    paths: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
    departures: list[tuple[float, dict, dict]] = []
    links, nodes = np.zeros(network.n_links, int), np.zeros(network.n_nodes, int)
    accepted = 0
    for t, s, u, v, demand, hold in zip(
        trace.t_s,
        trace.service,
        trace.source,
        trace.destination,
        trace.demand_kbps.tolist(),
        trace.hold_s,
        strict=True,
    ):
        for gone in [d for d in departures if d[0] <= t]:
            departures.remove(gone)
            links -= gone[1]
            nodes -= gone[2]
        chain = chain_of(TOY, s)
        key = (int(s), int(u), int(v))
        if key not in paths:
            graph = layered(network, chain, is_host, TOY.processing_ms, int(v))
            paths[key] = nx.dijkstra_path(graph, (int(u), 0), (int(v), len(chain)), weight="ms")
        use, work = np.zeros_like(links), np.zeros_like(nodes)
        for (a, stage), (b, after) in zip(paths[key], paths[key][1:], strict=False):
            if a == b and after > stage:
                work[a] += -(-demand * int(TOY.rate_mcpu_per_gbps[a, chain[stage]]) // 10**6)
            else:
                use[link[a, b]] += demand
        if (links + use <= network.capacity_kbps).all() and (nodes + work <= TOY.budget_mcpu).all():
            links += use
            nodes += work
            departures.append((t + hold, use, work))
            accepted += 1
    assert 1800 < len(trace) < 2200
    assert 0.70 < accepted / len(trace) < 0.95


def test_a_trace_file_is_read_with_names_as_indices(tmp_path):
    trace = load(tmp_path, ROWS)
    assert trace.name == "day"
    assert trace.request_id.tolist() == [0, 1, 7]
    assert trace.t_s.tolist() == [0.5, 0.5, 12.25]
    assert [TOY.service_ids[s] for s in trace.service] == ["video", "ar", "voice"]
    assert [TOY.network.node_ids[v] for v in trace.destination] == ["COR", "CU-E", "DU-C"]
    assert trace.hold_s.tolist() == [60.0, 30.5, 100.0]


@pytest.mark.parametrize("name", ["day.csv", "day.csv.gz", "day.parquet"])
def test_a_trace_survives_each_format_to_the_bit(tmp_path, name):
    trace = TOY.training_trace(seed=2, days=2)
    again = load_trace(trace.write(tmp_path / name), TOY)
    assert same(trace, again)
    assert trace.sha256 == again.sha256


def test_the_checksum_sees_every_column():
    trace = TOY.test_trace("test-weekday").head(50)
    checksums = {trace.sha256, replace(trace, service_ids=("a", "b", "c")).sha256}
    for column in TRACE_COLUMNS:
        values = getattr(trace, column).copy()
        values[20] += 1
        checksums.add(replace(trace, **{column: values}).sha256)
    assert len(checksums) == 2 + len(TRACE_COLUMNS)
    assert replace(trace, name="other").sha256 == trace.sha256


def test_the_frame_has_names_and_the_columns_of_a_file():
    frame = TOY.test_trace("test-weekday").head(3).frame()
    assert list(frame.columns) == list(TRACE_COLUMNS)
    assert set(frame["source"]) <= set(TOY.network.node_ids)
    assert set(frame["service"]) <= set(TOY.service_ids)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("7,12.25", "7,0.25", "day.csv row 4: t_s is 0.25; expected at least 0.5, the arrival before it"),
        ("7,12.25", "1,12.25", "day.csv row 4: request_id is 1; expected each request once"),
        ("0,0.5,video", "3,0.5,video", "row 3: request_id is 1; expected increasing ids among equal t_s"),
        ("DU-E", "DU-X", "day.csv row 4: source is 'DU-X'; expected a known node: DU-W, DU-C"),
        ("DU-C,60", "nowhere,60", "destination is 'nowhere'"),
        ("voice", "gaming", "service is 'gaming'; expected a known service: video, ar, voice"),
        ("20000", "-20000", "day.csv row 2: demand_kbps is -20000; expected a positive integer"),
        ("20000", "0", "demand_kbps is 0"),
        ("20000", "", "demand_kbps is ''"),
        (
            "20000",
            "2000000000",
            "demand_kbps is 2000000000; expected a positive integer (kbps), at most 1e+09",
        ),
        (",60\n1", ",nan\n1", "hold_s is 'nan'; expected a positive finite number"),
        (",60\n1", ",0\n1", "hold_s is 0; expected a positive finite number"),
        ("0,0.5,video", "0,-0.5,video", "t_s is -0.5; expected a finite number of at least 0"),
        ("0,0.5,video", "-1,0.5,video", "request_id is -1"),
        ("hold_s", "hold", "column name is 'hold'; expected one of request_id, t_s, service, source"),
        (",60\n1", "\n1", "day.csv row 2: 7 cells; expected 8 as in the header"),
    ],
)
def test_a_bad_request_is_named(tmp_path, old, new, words):
    assert old in ROWS
    with pytest.raises(TraceError) as caught:
        load(tmp_path, ROWS.replace(old, new, 1))
    assert words in str(caught.value)


def test_a_trace_without_a_column_is_refused(tmp_path):
    content = "\n".join(line.rsplit(",", 1)[0] for line in ROWS.splitlines())
    with pytest.raises(TraceError, match="no column 'hold_s'; expected the columns request_id, t_s, service"):
        load(tmp_path, content)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("day.csv", b"", "an empty file"),
        ("day.parquet", b"", "an empty file"),
        ("day.csv", b"version https://git-lfs.github.com/spec/v1\n", "Git-LFS pointer"),
        ("day.parquet", b"version https://git-lfs.github.com/spec/v1\n", "Run `git lfs pull`"),
        ("day.parquet", b"PAR1 no PAR1", "not Parquet"),
        ("day.csv.gz", gzip.compress(ROWS.encode())[:-20], "broken gzip"),
        ("day.csv", ROWS.encode("utf-16"), "not UTF-8"),
        ("day.xlsx", b"x", "one ending in .csv, .csv.gz or .parquet"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TraceError) as caught:
        load_trace(tmp_path / name, TOY)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("demand_kbps", [1.5, 2.0, 3.0], "demand_kbps is 'of type double'; expected a positive integer"),
        ("demand_kbps", [10, None, 3], "day.parquet row 2: demand_kbps is None"),
        ("hold_s", [1.0, float("nan"), 3.0], "day.parquet row 2: hold_s is nan"),
        ("service", [1, 2, 3], "service is 'of type int64'"),
        ("service", ["video", "video", "tv"], "day.parquet row 3: service is 'tv'"),
    ],
)
def test_a_bad_parquet_column_is_named(tmp_path, column, values, words):
    frame = pd.read_csv(pa.BufferReader(ROWS.encode()))
    table = pa.Table.from_pandas(frame, preserve_index=False)
    index = table.column_names.index(column)
    pq.write_table(table.set_column(index, column, pa.array(values)), tmp_path / "day.parquet")
    with pytest.raises(TraceError) as caught:
        load_trace(tmp_path / "day.parquet", TOY)
    assert words in str(caught.value)


def test_an_empty_parquet_table_is_refused(tmp_path):
    table = pa.Table.from_pandas(TOY.test_trace("test-weekday").head(0).frame(), preserve_index=False)
    pq.write_table(table, tmp_path / "day.parquet")
    with pytest.raises(TraceError, match="without rows"):
        load_trace(tmp_path / "day.parquet", TOY)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_trace_is_refused_clearly_or_read(tmp_path, data):
    """Any edit of a good file ends in an error of ours or in a trace that obeys the rules."""
    content = bytearray(ROWS.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(len(content), start + 6)))
        content[start:end] = data.draw(
            st.one_of(
                st.binary(max_size=4),
                st.sampled_from([b",", b"\n", b"-", b"nan", b"0", b'"', b"1e400", b"video"]),
            )
        )
    path = tmp_path / "day.csv"
    path.write_bytes(bytes(content))
    try:
        trace = load_trace(path, TOY)
    except AmarlError as error:
        assert "day.csv" in str(error) and "expected" in str(error)
        return
    assert len(trace) > 0
    assert (np.diff(trace.t_s) >= 0).all()
    assert len(set(trace.request_id.tolist())) == len(trace)
    assert (trace.demand_kbps > 0).all() and (trace.hold_s > 0).all() and np.isfinite(trace.hold_s).all()


def test_a_repeated_trace_is_one_timeline():
    day = TOY.training_trace(seed=1)
    passes = repeat(day, 3, 86_400.0)
    assert len(passes) == 3 * len(day)
    assert (np.diff(passes.t_s) >= 0).all()
    assert len(np.unique(passes.request_id)) == len(passes)
    third = passes[2 * len(day) :]
    assert np.array_equal(third.source, day.source)
    np.testing.assert_allclose(third.t_s - 2 * 86_400, day.t_s)


@pytest.mark.parametrize(("passes", "period_s"), [(0, 86_400.0), (2, 60.0), (2, float("nan"))])
def test_a_senseless_repetition_is_refused(passes, period_s):
    with pytest.raises(TraceError, match="expected"):
        repeat(TOY.training_trace(seed=1), passes, period_s)


def test_joined_days_are_those_of_the_timeline():
    days = [TOY.training_trace(seed=4, first_day=day) for day in (0, 1)]
    assert same(join(days, "two"), TOY.training_trace(seed=4, days=2))
