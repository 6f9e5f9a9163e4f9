"""Grade of service around a failure, and how long it takes to come back."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amarl_core.recovery import WINDOW_MIN, WITHIN_POINTS, by_minute, moving, recovery_min, summarise


def minutes_of(lost: list[int], offered: int = 100, first: int = 0) -> pd.DataFrame:
    """A day that admits all but `lost` of `offered` requests a minute, and all of them without the failure."""
    lost = np.array(lost)
    return pd.DataFrame({"minute": first + np.arange(len(lost)), "offered": offered, "accepted": offered - lost,
                         "ordinary": offered})  # fmt: skip


def test_grade_of_service_that_never_fell_has_recovered_at_once():
    assert recovery_min(minutes_of([0] * 30), 0, 30) == 0


def test_recovery_is_when_the_last_bad_window_is_over():
    assert recovery_min(minutes_of([50] * 7 + [0] * 33), 0, 40) == 7
    assert recovery_min(minutes_of([50] + [0] * 19 + [40] + [0] * 19), 0, 40) == 21, "a relapse counts"


def test_what_is_still_down_at_the_end_has_not_recovered():
    assert np.isnan(recovery_min(minutes_of([0] * 20 + [10] * 10), 0, 30))
    assert np.isnan(recovery_min(minutes_of([0] * 3), 0, 3)), "shorter than a window"


def test_what_is_missing_as_long_as_the_failure_lasts_is_not_held_against_settling():
    minutes = minutes_of([50] * 6 + [10] * 54)
    assert np.isnan(recovery_min(minutes, 0, 60))
    decisions = pd.DataFrame({"offered_again": [-1], "dropped": [False], "accepted": [True]})
    assert summarise(minutes, decisions, 60)["settled_min"] == 6


@given(st.lists(st.integers(0, 30), min_size=WINDOW_MIN, max_size=60))
def test_after_the_recovery_no_window_is_down_and_the_one_before_is(lost):
    found = recovery_min(minutes_of(lost), 0, len(lost))
    down = [sum(lost[i : i + WINDOW_MIN]) / WINDOW_MIN > WITHIN_POINTS for i in range(len(lost) - WINDOW_MIN + 1)]
    if np.isnan(found):
        assert down[-1]
    else:
        assert not any(down[int(found) :]) and (found == 0 or down[int(found) - 1])


def test_moving_sums_are_those_of_each_window():
    assert moving(np.arange(7.0), 5).tolist() == [10, 15, 20]


@pytest.fixture
def days():
    """Two arrivals a minute for four minutes; the second of minute 1 is lost by the failure at minute 1."""
    t_s = np.arange(8) * 30.0
    ordinary = pd.DataFrame({"t_s": t_s, "accepted": True})
    disrupted = ordinary.assign(offered_again=-1, dropped=False)
    disrupted.loc[0, "dropped"] = True
    disrupted.loc[3, "accepted"] = False
    again = pd.DataFrame({"t_s": [60.0], "accepted": [True], "offered_again": [0], "dropped": [False]})
    return pd.concat([disrupted, again]).sort_values("t_s", kind="stable"), ordinary


def test_minutes_count_arrivals_alone(days):
    counted = by_minute(*days, 60.0, -1, 3)
    assert counted.to_dict("list") == {"minute": [-1, 0, 1, 2], "offered": [2, 2, 2, 2], "accepted": [2, 1, 2, 2],
                                       "ordinary": [2, 2, 2, 2]}  # fmt: skip


def test_a_summary_counts_before_during_and_after(days):
    disrupted, ordinary = days
    summary = summarise(by_minute(disrupted, ordinary, 60.0, -1, 3), disrupted, 2)
    assert (summary["dropped"], summary["restored"]) == (1, 1)
    assert (summary["gos_before"], summary["gos_during"], summary["gos_after"]) == (100, 75, 100)
    assert (summary["ordinary_during"], summary["ordinary_after"]) == (100, 100)
