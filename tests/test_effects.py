"""Effect sizes against scipy's Mann-Whitney count, hand counts and simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from amarl_core.effects import cliffs_delta, hedges_correction, paired_effect_size, probability_of_improvement

VALUES = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=8)


@given(VALUES, VALUES)
def test_on_one_day_the_probability_is_scipys_mann_whitney_count(a, b):
    count = scipy_stats.mannwhitneyu(a, b, method="asymptotic").statistic if a != b or len(a) > 1 else None
    expected = 0.5 if count is None else count / (len(a) * len(b))
    value, low, high = probability_of_improvement(np.c_[a], np.c_[b], n_resamples=20)
    assert value == pytest.approx(expected)
    assert 0 <= low <= high <= 1
    assert cliffs_delta(a, b) == pytest.approx(2 * expected - 1)


def test_days_count_alike_by_hand():
    """Day 1: both seeds win; day 2: one wins, one draws; day 3: both lose."""
    a, rule = [[3.0, 2.0, 0.0], [4.0, 1.0, 0.0]], [[1.0, 1.0, 1.0]]
    assert probability_of_improvement(a, rule)[0] == pytest.approx((1 + 0.75 + 0) / 3)
    assert probability_of_improvement(rule, a)[0] == pytest.approx((0 + 0.25 + 1) / 3)


def test_its_interval_is_a_plain_bootstrap_of_seeds_and_days():
    draw = np.random.default_rng(3)
    a, b = draw.normal(0.4, 1, (4, 5)), draw.normal(0, 1, (3, 5))
    drawn = []
    for _ in range(4000):
        days = draw.integers(5, size=5)
        x, y = a[draw.integers(4, size=4)][:, days], b[draw.integers(3, size=3)][:, days]
        drawn.append(np.mean(x[:, None] > y[None]))
    value, low, high = probability_of_improvement(a, b, n_resamples=20_000)
    assert [low, high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.03)
    assert low < value < high


def test_what_always_wins_has_no_spread():
    assert probability_of_improvement(np.full((3, 4), 2.0), np.ones((2, 4))) == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="4 days against 3"):
        probability_of_improvement(np.ones((3, 4)), np.ones((2, 3)))


def test_the_paired_effect_size_is_the_t_statistic_over_root_n_corrected():
    draw = np.random.default_rng(4)
    a, b = draw.normal(1, 1, 8), draw.normal(0, 1, 8)
    t = scipy_stats.ttest_rel(a, b).statistic
    assert paired_effect_size(a, b) == pytest.approx(hedges_correction(7) * t / np.sqrt(8))


@pytest.mark.parametrize(("freedom", "j"), [(2, 0.5642), (4, 0.7979), (9, 0.9139), (29, 0.9739)])
def test_hedges_correction_has_its_tabled_values(freedom, j):
    assert hedges_correction(freedom) == pytest.approx(j, abs=2e-4)


def test_the_correction_takes_out_the_bias_of_few_pairs():
    """The effect is 0.8; of 4 pairs, d_z without the correction has a mean of 1.10."""
    draws = np.random.default_rng(5).normal(0.8, 1, (40_000, 4))
    raw = draws.mean(axis=1) / draws.std(axis=1, ddof=1)
    assert raw.mean() > 1.0
    corrected = np.mean([paired_effect_size(row, np.zeros(4)) for row in draws[:20_000]])
    assert corrected == pytest.approx(0.8, abs=0.02)


def test_differences_without_spread_and_single_pairs():
    assert paired_effect_size([1.0, 2.0], [1.0, 2.0]) == 0.0
    assert paired_effect_size([2.0, 3.0], [1.0, 2.0]) == np.inf
    assert paired_effect_size([1.0, 2.0], [2.0, 3.0]) == -np.inf
    assert np.isnan(paired_effect_size([1.0], [2.0]))
    with pytest.raises(ValueError, match="one length"):
        paired_effect_size([1.0, 2.0], [1.0])
