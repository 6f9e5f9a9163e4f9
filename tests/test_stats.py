"""Statistics against hand counts, and against scipy where it has the same one."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from amarl_core import stats


@pytest.fixture
def decisions() -> pd.DataFrame:
    """Eight requests of two services on two days, three of them rejected."""
    return pd.DataFrame(
        {
            "t_s": [10.0, 20.0, 3600.0, 3700.0, 3800.0, 86_400 + 3600.0, 86_400 + 10.0, 50_000.0],
            "hold_s": [100.0, 100.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0],
            "service": pd.Categorical(["ar", "ar", "iot", "ar", "ar", "iot", "ar", "iot"]),
            "demand_kbps": [1000, 3000, 1000, 1000, 1000, 1000, 1000, 1000],
            "accepted": [True, False, True, True, False, False, True, True],
            "cause": pd.Categorical(
                ["accepted", "conflict_link", "accepted", "accepted"]
                + ["dead_end_latency", "dead_end_latency", "accepted", "accepted"]
            ),
            "latency_ms": [5.0, 9.0, 2.0, 7.0, np.nan, np.nan, 9.0, 4.0],
            "budget_ms": [10.0, 10.0, 5.0, 10.0, 10.0, 5.0, 10.0, 5.0],
        }
    )


def test_grade_of_service_is_accepted_over_offered(decisions):
    assert stats.gos(decisions) == 5 / 8
    assert stats.gos_by(decisions, "service").to_dict() == {"ar": 3 / 5, "iot": 2 / 3}
    assert stats.mean_gos_of_services(decisions) == pytest.approx((3 / 5 + 2 / 3) / 2)


def test_hours_of_several_days_are_taken_together(decisions):
    assert stats.gos_by_hour(decisions).to_dict() == {0: 2 / 3, 1: 2 / 4, 13: 1.0}
    assert stats.busy_hour(decisions) == 1 and stats.busy_hour_gos(decisions) == 1 / 2


def test_traffic_weighs_rate_and_holding_time(decisions):
    assert stats.traffic_gos(decisions) == pytest.approx((100 + 10 * 4) / (100 + 300 + 10 * 6))


def test_nothing_offered_gives_nan(decisions):
    nothing = decisions.iloc[:0]
    figures = (stats.gos, stats.traffic_gos, stats.busy_hour_gos, stats.mean_gos_of_services)
    assert all(np.isnan(figure(nothing)) for figure in figures)


def test_latency_is_of_the_accepted(decisions):
    table = stats.latency_by_service(decisions)
    assert table.loc["ar"].to_dict() == {
        "accepted": 3,
        "mean_ms": 7.0,
        "p95_ms": pytest.approx(scipy_stats.scoreatpercentile([5, 7, 9], 95)),
        "budget_ms": 10.0,
    }


def test_causes_are_counted_by_service(decisions):
    table = stats.causes(decisions)
    assert table.to_dict("list") == {
        "service": ["ar", "ar", "iot"],
        "cause": ["conflict_link", "dead_end_latency", "dead_end_latency"],
        "requests": [1, 1, 1],
        "of_offered": pytest.approx([1 / 5, 1 / 5, 1 / 3]),
        "of_rejected": pytest.approx([1 / 2, 1 / 2, 1.0]),
    }
    assert len(stats.causes(decisions[decisions["accepted"]])) == 0


def test_conflict_rate_is_the_share_of_attempts_that_abort():
    ledger = pd.DataFrame({"kind": pd.Categorical(["commit", "abort", "commit", "release", "commit"])})
    assert stats.conflict_rate(ledger) == 1 / 4
    assert np.isnan(stats.conflict_rate(ledger.iloc[:0]))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 10, 33])
def test_interquartile_mean_is_scipys_trimmed_mean(n):
    values = np.random.default_rng(n).normal(size=(3, n))
    assert stats.interquartile_mean(values) == pytest.approx(scipy_stats.trim_mean(values, 0.25, axis=None))
    for axis in (0, 1, -1):
        assert np.allclose(stats.interquartile_mean(values, axis), scipy_stats.trim_mean(values, 0.25, axis=axis))


def test_one_seeds_interval_is_scipys_bootstrap_over_days():
    days = np.random.default_rng(0).normal(98, 0.2, size=10)
    mean, low, high = stats.bootstrap_ci(days)
    expected = scipy_stats.bootstrap((days,), np.mean, method="percentile", n_resamples=5000, rng=1)
    assert mean == pytest.approx(days.mean())
    assert [low, high] == pytest.approx(expected.confidence_interval, abs=0.01)


def test_the_interval_covers_both_seeds_and_days():
    """Seeds that differ widen it, though every day is alike; so do days, though every seed is alike."""
    seeds, days = np.array([[97.0], [98.0], [99.0]]), np.linspace(97, 99, 10)[None, :]
    for matrix, size in ((np.tile(seeds, (1, 10)), 3), (np.tile(days, (3, 1)), 10)):
        mean, low, high = stats.bootstrap_ci(matrix)
        half = 1.96 * matrix.std() / np.sqrt(size)
        assert mean == pytest.approx(98.0) and low == pytest.approx(98 - half, abs=0.1)
        assert high == pytest.approx(98 + half, abs=0.1)
    assert stats.bootstrap_ci(np.full((3, 10), 98.0)) == (98.0, 98.0, 98.0)
    assert stats.bootstrap_ci([[98.0]]) == (98.0, 98.0, 98.0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Of 300 studies of one seed and 30 days, 95 % intervals covered the truth in 88 to 99 %."""
    draw = np.random.default_rng(5)
    hits = 0
    for study in range(300):
        _, low, high = stats.bootstrap_ci(draw.normal(0, 1, (1, 30)), n_resamples=500, seed=study)
        hits += low <= 0 <= high
    assert 0.88 * 300 <= hits <= 0.99 * 300


def test_the_interval_is_repeatable_and_takes_other_statistics():
    matrix = np.random.default_rng(2).normal(size=(3, 10))
    assert stats.bootstrap_ci(matrix) == stats.bootstrap_ci(matrix) != stats.bootstrap_ci(matrix, seed=1)
    middle, low, high = stats.bootstrap_ci(matrix, stats.interquartile_mean, level=0.5)
    assert middle == pytest.approx(scipy_stats.trim_mean(matrix, 0.25, axis=None)) and low < middle < high


def test_pairing_by_day_takes_out_how_hard_a_day_is():
    draw = np.random.default_rng(3)
    hard = draw.normal(0, 1.0, 10)
    ours, rule = 98.5 + hard + draw.normal(0, 0.05, (3, 10)), 98.0 + hard[None, :]
    mean, low, high = stats.paired_difference_ci(ours, rule)
    assert mean == pytest.approx(ours.mean() - rule.mean())
    assert 0.4 < low < mean < high < 0.6
    assert high - low < 0.2 * (stats.bootstrap_ci(ours)[2] - stats.bootstrap_ci(ours)[1])


def test_a_paired_difference_of_one_seed_is_scipys_bootstrap_of_differences():
    draw = np.random.default_rng(4)
    a, b = draw.normal(1, 1, 12), draw.normal(0, 1, 12)
    _, low, high = stats.paired_difference_ci(a, b, n_resamples=20_000)
    expected = scipy_stats.bootstrap((a - b,), np.mean, method="percentile", n_resamples=20_000, rng=1)
    assert [low, high] == pytest.approx(expected.confidence_interval, abs=0.04)
    with pytest.raises(ValueError, match="the same days"):
        stats.paired_difference_ci(a, b[:5])
