"""The sweep over commit orders, bounds and attempts."""

import numpy as np
import pandas as pd
import pytest

from amarl_core.asynchrony import Setting, measure, settings, staleness_s, sweep
from amarl_core.evaluation import play_trace


@pytest.fixture(scope="module")
def day(toy_day):
    return toy_day.head(800)


def test_the_settings_cover_every_order_and_differ():
    chosen = settings()
    assert len(set(chosen)) == len(chosen)
    assert {setting.order for setting in chosen} == {"arrival", "free", "pipeline"}


def test_a_pipeline_of_no_length_is_serial_whoever_serves(toy_team, day):
    serial = play_trace(toy_team, day, "pipeline", 1, window=0)
    arrival = play_trace(toy_team, day, "arrival", 1, window=0)
    assert serial.conflicts == arrival.conflicts == 0
    pd.testing.assert_frame_equal(serial.decisions, arrival.decisions)
    assert serial.stale == 0


@pytest.mark.parametrize("window", [1, 3, 7])
def test_a_pipeline_plans_exactly_so_many_requests_ahead(toy_team, day, window):
    """Every snapshot misses the commits of the `window` requests before it, and departures since."""
    played = play_trace(toy_team, day, "pipeline", 1, window=window)
    again = play_trace(toy_team, day, "pipeline", 1, window=window)
    pd.testing.assert_frame_equal(played.decisions, again.decisions)
    decisions = played.decisions
    kinds = played.ledger["kind"].to_numpy()
    turn_of = pd.Series(np.arange(len(decisions)), index=decisions["request_id"])
    commits = played.ledger[kinds == "commit"]
    for row in (window + 5, len(decisions) // 2, len(decisions) - 1):
        seen = commits[commits["store_version"] <= decisions["snapshot_version"].iloc[row]]
        assert turn_of[seen["request_id"]].max() < row - window + 1
        missed = decisions["accepted"].iloc[row - window : row].sum()
        between = commits["store_version"].between(
            decisions["snapshot_version"].iloc[row], commits["store_version"].max(), inclusive="right"
        ) & (turn_of[commits["request_id"]].to_numpy() < row)
        assert between.sum() == missed


def test_older_snapshots_cost_grade_of_service_at_one_attempt(toy_team, toy_day):
    gos = [measure(toy_team, toy_day, Setting("pipeline", "pipeline", 1, window=w))["gos"] for w in (0, 12)]
    assert gos[0] > gos[1]


def test_staleness_is_zero_only_in_a_serial_run(toy_team, day):
    ages = [staleness_s(play_trace(toy_team, day, "pipeline", 1, window=window)) for window in (0, 4, 8)]
    assert 0 < ages[0] < ages[1] < ages[2], "even a serial snapshot is as old as the last event before it"


def test_a_sweep_is_one_audited_row_a_setting(toy_team, day):
    chosen = settings(windows=(0, 2), lags_s=(60.0,), attempts=(2,))
    table = sweep([toy_team], [day], chosen)
    assert len(table) == len(chosen)
    assert (table["violations"] == 0).all()
    assert (table.loc[table["order"] != "free", "overbooked"] == 0).all()
    assert table["gos"].between(1, 100).all()
