"""An audit in chunks finds what an audit in one piece finds."""

import numpy as np
import pandas as pd
import pytest

from amarl_core.agents import train
from amarl_core.audit import audit
from amarl_core.errors import AuditError
from amarl_core.long_audit import audit_in_chunks, audit_records
from amarl_core.long_runs import record_paths, serve_in_chunks
from amarl_core.record_files import read_groups
from amarl_core.trace_chunks import cut


@pytest.fixture(scope="module")
def records(toy, toy_day, tmp_path_factory):
    """Decisions and ledger of a toy day, in chunks of 300 requests, with aborts; the same every time."""
    team = train(toy, "amarl", 0, days=2, deterministic=True)
    folder = tmp_path_factory.mktemp("long")
    serve_in_chunks(team, cut(toy_day, 300), folder, "day", order="pipeline", attempts=2, window=4)
    groups = [list(read_groups(path)) for path in record_paths(folder, "day")]
    assert (pd.concat(groups[1])["kind"].astype(str) == "abort").any()
    return groups


def tampered(records, change):
    """Change the whole records and cut them where they were cut; return (whole, chunks)."""
    frames = [pd.concat(groups, ignore_index=True) for groups in records]
    change(*frames)
    ends = [np.cumsum([len(group) for group in groups]) for groups in records]
    pieces = [
        [frame.iloc[a:b] for a, b in zip([0, *end], end, strict=False)] for frame, end in zip(frames, ends, strict=True)
    ]
    chunks = list(zip(*pieces, strict=True))
    return frames, chunks


def as_counts(report):
    """What a report says, but for its time and its words."""
    return (report.requests, report.admissions, report.ledger_rows, report.count, report.overbooked, report.peak,
            report.violations[["rule", "row", "request_id"]].values.tolist())  # fmt: skip


def test_a_clean_run_passes_with_the_same_figures(toy, toy_day, records):
    frames, chunks = tampered(records, lambda d, g: None)
    report = audit_in_chunks(toy, chunks, cut(toy_day, 41))
    assert report.ok, report.summary()
    assert as_counts(report) == as_counts(audit(toy, *frames, toy_day))


def test_records_are_audited_from_their_files(toy, toy_day, toy_team, tmp_path):
    serve_in_chunks(toy_team, cut(toy_day, 1), tmp_path, "day", attempts=3)  # threads, and pieces joined for the window
    report = audit_records(toy, *record_paths(tmp_path, "day"), cut(toy_day, 700))
    assert report.raise_if_violated().requests == len(toy_day)


def _first(frame: pd.DataFrame, chosen: pd.Series, nth: int = 0) -> int:
    return int(np.flatnonzero(chosen.to_numpy())[nth])


def _a_slow_route(d, g):
    d.loc[_first(d, d["accepted"], 500), "latency_ms"] += 0.01


def _another_demand(d, g):
    d.loc[_first(d, d["accepted"], 700), "demand_kbps"] *= 40


def _keep_a_flow(d, g, in_its_own_chunk):
    """Turn a release into an abort, in the chunk of 300 requests that the flow was admitted in, or in a later one."""
    of = pd.Index(d["request_id"]).get_indexer(g["request_id"])
    turn = np.maximum.accumulate(np.where(g["kind"] == "release", -1, of))
    is_own = turn // 300 == of // 300
    g.loc[_first(g, (g["kind"] == "release") & (is_own == in_its_own_chunk), 30), "kind"] = "abort"


def _a_kept_flow(d, g):
    _keep_a_flow(d, g, in_its_own_chunk=True)


def _a_wrong_version(d, g):
    g.loc[_first(g, g["kind"] == "commit", 650), "store_version"] += 1


def _a_wrong_snapshot(d, g):
    d.loc[_first(d, d["accepted"], 800), "snapshot_version"] += 1


def _two_rows_swapped(d, g):
    i = _first(g, g["kind"] == "commit", 444)
    columns = [name for name in g if name not in ("seq", "store_version")]
    g.loc[[i, i + 1], columns] = g.loc[[i + 1, i], columns].to_numpy()


def _a_request_twice(d, g):
    d.loc[1500, "request_id"] = d.loc[20, "request_id"]


def _a_later_release(d, g):
    g.loc[_first(g, g["kind"] == "release", 700), "t_s"] += 50.0


def _a_forged_acceptance(d, g):
    d.loc[_first(d, ~d["accepted"], 30), ["accepted", "cause"]] = True, "accepted"


CHANGES = [_a_slow_route, _another_demand, _a_kept_flow, _a_wrong_version, _a_wrong_snapshot, _two_rows_swapped]
CHANGES += [_a_later_release, _a_forged_acceptance]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_wrong_is_found_as_in_one_piece(toy, toy_day, records, change):
    frames, chunks = tampered(records, change)
    ours, whole = audit_in_chunks(toy, chunks, cut(toy_day, 1000)), audit(toy, *frames, toy_day)
    assert not ours.ok
    assert set(ours.count) == set(whole.count)
    first = ours.violations.groupby("rule")["row"].min()
    pd.testing.assert_series_equal(first, whole.violations.groupby("rule")["row"].min())


def test_an_abort_in_a_later_chunk_is_found_but_not_charged_to_its_decision(toy, toy_day, records):
    frames, chunks = tampered(records, lambda d, g: _keep_a_flow(d, g, in_its_own_chunk=False))
    ours, whole = audit_in_chunks(toy, chunks, cut(toy_day, 1000)), audit(toy, *frames, toy_day)
    assert ours.count["abort"] == whole.count["abort"] > 0
    assert set(whole.count) - set(ours.count) == {"conflict"} and not set(ours.count) - set(whole.count)


def test_a_request_decided_in_two_chunks_is_found(toy, toy_day, records):
    _, chunks = tampered(records, _a_request_twice)
    report = audit_in_chunks(toy, chunks, cut(toy_day, 1000))
    assert report.count["request"] == 1 and report.count["missing"] == 1
    assert report.violations.query("rule == 'request'")["row"].tolist() == [1500]


def test_a_plan_older_than_the_memory_is_refused(toy, records):
    def change(d, g):
        d.loc[d.index[-1], "snapshot_version"] = 0

    _, chunks = tampered(records, change)
    with pytest.raises(AuditError, match="larger chunks"):
        audit_in_chunks(toy, chunks)


def test_requests_that_were_never_decided_are_missed(toy, toy_day, records):
    _, chunks = tampered(records, lambda d, g: None)
    report = audit_in_chunks(toy, chunks[:-1], cut(toy_day, 500))
    assert report.count["missing"] == len(toy_day) - sum(len(d) for d, _ in chunks[:-1])
    assert {"unreleased", "zero"} <= set(report.count)
