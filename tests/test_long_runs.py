"""Serving in chunks is serving in one piece, but for the memory it takes."""

import itertools
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from amarl_core import teams
from amarl_core.agents import train
from amarl_core.baselines import baseline, tuned
from amarl_core.errors import AmarlError, TraceError
from amarl_core.evaluation import play_trace
from amarl_core.long_runs import record_paths, serve_in_chunks
from amarl_core.record_files import read_groups
from amarl_core.runs import read_frame
from amarl_core.trace_chunks import cut, file_chunks, training_chunks
from amarl_core.traces import join


def served(policy, pieces, folder, **options):
    """Serve in chunks and read the records back whole."""
    summary = serve_in_chunks(policy, pieces, folder, "day", **options)
    decisions, ledger = (read_frame(path) for path in record_paths(folder, "day"))
    assert summary.requests == len(decisions) and summary.ledger_rows == len(ledger)
    assert summary.accepted == decisions["accepted"].sum()
    return decisions, ledger


def assert_same(ours: pd.DataFrame, whole: pd.DataFrame) -> None:
    """All columns equal, lists and categories included, bit for bit."""
    assert list(ours.columns) == list(whole.columns)
    for name in whole:
        if name in ("links", "hosts"):
            assert ours[name].tolist() == whole[name].tolist(), name
        elif whole[name].dtype == "category":
            assert ours[name].astype(str).tolist() == whole[name].astype(str).tolist(), name
        else:
            np.testing.assert_array_equal(ours[name].to_numpy(), whole[name].to_numpy(), err_msg=name)


@pytest.mark.parametrize(("n", "window"), [(1, 0), (7, 3), (400, 4), (10**6, 4)])
def test_a_team_in_chunks_decides_as_in_one_piece(toy_team, toy_day, tmp_path, n, window):
    day = toy_day.head(1000)
    whole = play_trace(toy_team, day, "pipeline", 3, window=window)
    ours = served(toy_team, cut(day, n), tmp_path, order="pipeline", attempts=3, window=window)
    assert_same(ours[0], whole.decisions)
    assert_same(ours[1], whole.ledger)


@pytest.mark.parametrize("name", ["shortest_feasible", "priced_admission", "widest_shortest"])
def test_a_rule_in_chunks_decides_as_in_one_piece(toy, toy_day, tmp_path, name):
    whole = play_trace(tuned(name), toy_day, scenario=toy)
    ours = served(tuned(name), cut(toy_day, 333), tmp_path, scenario=toy)
    assert_same(ours[0], whole.decisions)
    assert_same(ours[1], whole.ledger)


def test_threads_decide_every_request_and_release_every_flow(toy_team, toy_day, tmp_path):
    decisions, ledger = served(toy_team, cut(toy_day, 250), tmp_path, order="arrival", attempts=3)
    np.testing.assert_array_equal(decisions["request_id"], toy_day.request_id)
    kinds = ledger["kind"].astype(str).value_counts()
    assert kinds["commit"] == kinds["release"] == decisions["accepted"].sum()
    np.testing.assert_array_equal(ledger["seq"], np.arange(len(ledger)))


def test_a_chunk_is_a_row_group_and_nothing_else_is_left(toy, toy_day, tmp_path):
    serve_in_chunks(tuned("min_hop"), cut(toy_day, 500), tmp_path, "day", scenario=toy)
    lengths = [len(group) for group in read_groups(record_paths(tmp_path, "day")[0], ["request_id"])]
    assert lengths == [len(piece) for piece in cut(toy_day, 500)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["decisions_day.parquet", "ledger_day.parquet"]


def test_a_run_that_fails_on_the_way_leaves_no_record(toy, toy_day, tmp_path):
    def broken():
        yield from cut(toy_day.head(600), 200)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        serve_in_chunks(tuned("min_hop"), broken(), tmp_path, "day", scenario=toy)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("rule", "options", "words"),
    [
        ("min_hop", dict(order="free"), "arrival or pipeline"),
        ("random_feasible", {}, "play_trace"),
        ("k_shortest_first_fit", {}, "play_trace"),
        ("reoptimise", {}, "play_trace"),
        ("milp_batch", {}, "play_trace"),
    ],
)
def test_what_cannot_be_cut_is_refused(toy, toy_day, tmp_path, rule, options, words):
    with pytest.raises(AmarlError, match=words):
        serve_in_chunks(baseline(rule), cut(toy_day), tmp_path, "day", scenario=toy, **options)


def peak_bytes(toy, folder, n_requests: int) -> int:
    """Return the most memory that serving so many requests in chunks of 500 takes, of numpy and Python."""
    tracemalloc.start()
    try:
        chunks = (piece for piece in training_chunks(toy, 3, 6, n=500))
        serve_in_chunks(tuned("min_hop"), itertools.islice(chunks, n_requests // 500), folder, "day", scenario=toy)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_requests(toy, tmp_path):
    peak_bytes(toy, tmp_path, 500)  # what is loaded once
    few, many = (peak_bytes(toy, tmp_path, n) for n in (2000, 8000))
    assert many < 1.2 * few


def test_a_trace_file_is_served_as_it_was_written(toy, toy_day, tmp_path):
    toy_day.write(tmp_path / "day.parquet")
    pieces = list(file_chunks(tmp_path / "day.parquet", toy, 700))
    assert [len(piece) for piece in pieces] == [len(piece) for piece in cut(toy_day, 700)]
    assert join(pieces, toy_day.name).sha256 == toy_day.sha256


def test_training_chunks_are_the_training_trace(toy):
    pieces = list(training_chunks(toy, 5, 2, n=900))
    assert join(pieces, "whole").sha256 == toy.training_trace(5, 2).sha256


def test_a_trace_file_out_of_order_or_of_another_world_is_refused(toy, toy_day, tmp_path):
    for name, change, words in (
        ("order", lambda frame: frame.iloc[::-1], "order of t_s"),
        ("world", lambda frame: frame.assign(source="DU-X"), "DU-X"),
    ):
        change(toy_day.frame()).to_parquet(tmp_path / f"{name}.parquet", index=False)
        with pytest.raises(TraceError, match=words):
            list(file_chunks(tmp_path / f"{name}.parquet", toy))


def test_the_records_of_a_training_are_written_in_parts_and_read_as_one(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(teams, "ROWS_AT_ONCE", 150)
    run = train(toy, "amarl", 0, trace=toy.training_trace(0).head(700), folder=tmp_path / "run")
    assert len(list(read_groups(run.folder / "decisions_train.parquet"))) == 5
    assert_same(read_frame(run.folder / "decisions_train.parquet"), run.simulation.decisions())
    assert_same(read_frame(run.folder / "ledger_train.parquet"), run.simulation.ledger())
