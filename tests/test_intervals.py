"""Intervals against scipy's, and against how often they cover a known truth."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from amarl_core.intervals import ENOUGH, interval, t_interval
from amarl_core.stats import bootstrap_ci, paired_difference_ci

DRAW = np.random.default_rng(11)
A, B = DRAW.normal(98.4, 0.2, 7), DRAW.normal(98.2, 0.3, 7)


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize("as_units", [lambda v: v, lambda v: v[:, None]], ids=["days", "seeds"])
def test_one_seed_or_one_day_is_scipys_one_sample_interval(level, as_units):
    value, low, high = t_interval(as_units(A), level=level)
    expected = scipy_stats.ttest_1samp(A, 0).confidence_interval(level)
    assert value == pytest.approx(A.mean()) and [low, high] == pytest.approx([expected.low, expected.high])


def test_one_seed_of_both_is_scipys_paired_interval():
    value, low, high = t_interval(A, B)
    expected = scipy_stats.ttest_rel(A, B).confidence_interval()
    assert value == pytest.approx((A - B).mean()) and [low, high] == pytest.approx([expected.low, expected.high])


def test_one_day_of_both_is_scipys_welch_interval():
    others = B[:4]
    _, low, high = t_interval(A[:, None], others[:, None])
    expected = scipy_stats.ttest_ind(A, others, equal_var=False).confidence_interval()
    assert [low, high] == pytest.approx([expected.low, expected.high])


def test_two_seeds_and_two_days_by_hand():
    """Means of rows 2 and 5, of columns 2.5 and 4.5, residuals of 0.5: variances 4.5, 2 and 1."""
    matrix = np.array([[1.5, 2.5], [3.5, 6.5]])
    variance = 4.5 / 2 + 2.0 / 2 - 1.0 / 4
    freedom = variance**2 / (2.25**2 + 1.0**2 + 0.25**2)
    half = scipy_stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    assert t_interval(matrix) == pytest.approx((3.5, 3.5 - half, 3.5 + half))


def studies(draw, n_studies, n_seeds, n_days):
    """Crossed designs around 0, of seeds, days and chance of like size."""
    parts = [(n_studies, n_seeds, 1), (n_studies, 1, n_days), (n_studies, n_seeds, n_days)]
    return sum(draw.normal(0, 1, shape) for shape in parts)


@pytest.mark.parametrize(("n_seeds", "n_days"), [(3, 10), (5, 2), (2, 2)])
def test_students_interval_covers_the_truth_as_often_as_it_says(n_seeds, n_days):
    """95 % intervals of 2,000 small studies, which 93 % at least are to cover."""
    covered = [low <= 0 <= high for _, low, high in map(t_interval, studies(DRAW, 2000, n_seeds, n_days))]
    assert np.mean(covered) >= 0.93


def test_students_interval_of_a_difference_covers_the_truth_as_often_as_it_says():
    a, b = studies(DRAW, 2000, 3, 10), studies(DRAW, 2000, 3, 10)
    shared = DRAW.normal(0, 5, (2000, 1, 10))  # how hard the days are does not matter
    covered = [low <= 0 <= high for _, low, high in map(t_interval, a + shared, b + shared)]
    assert 0.93 <= np.mean(covered) <= 0.99


def test_the_bootstrap_of_three_seeds_is_too_narrow_which_is_why_student_is_chosen():
    matrices = DRAW.normal(0, 1, (500, 3, 1))
    covered = [low <= 0 <= high for _, low, high in (bootstrap_ci(m, n_resamples=300) for m in matrices)]
    assert np.mean(covered) < 0.85


def test_the_choice_says_what_it_is():
    few, many = DRAW.normal(size=(3, 10)), DRAW.normal(size=(ENOUGH, 10))
    chosen = interval(few)
    assert (chosen.value, chosen.low, chosen.high) == t_interval(few)
    assert chosen.how == "95% Student t interval, n = 3 seeds, 10 days"
    chosen = interval(many, level=0.9)
    assert (chosen.value, chosen.low, chosen.high) == bootstrap_ci(many, level=0.9)
    assert chosen.how == "90% percentile bootstrap interval, n = 10 seeds, 10 days"
    chosen = interval(many, many[:1])  # a rule has one seed, and that is no small sample
    assert (chosen.value, chosen.low, chosen.high) == paired_difference_ci(many, many[:1])
    assert chosen.how == "95% percentile bootstrap interval, n = 10 seeds and 1 seed, 10 days"
    assert interval(few[:, :1], rows="run").how == "95% Student t interval, n = 3 runs, 1 day"


def test_one_value_has_no_interval():
    chosen = interval([[98.0]])
    assert chosen.value == 98.0 and np.isnan([chosen.low, chosen.high]).all()
    assert chosen.how == "no interval, n = 1 seed, 1 day"


def test_equal_values_have_an_interval_of_no_width():
    assert t_interval(np.full((3, 4), 2.0)) == (2.0, 2.0, 2.0)


def test_other_days_are_refused():
    with pytest.raises(ValueError, match="7 days against 6"):
        t_interval(A, B[:6])


def test_two_values_have_no_interval_and_three_have_one():
    """With one degree of freedom Student's interval of a share of 98 % reaches from 87 to 109."""
    for shape in ((1, 1), (1, 2), (2, 1), (2, 2)):
        found = interval(np.arange(np.prod(shape), dtype=float).reshape(shape))
        assert np.isnan([found.low, found.high]).all() and found.how.startswith("no interval, n = ")
        assert found.value == (np.prod(shape) - 1) / 2
    assert interval(np.array([[1.0, 2.0, 3.0]])).low < 2 < interval(np.array([[1.0], [2.0], [3.0]])).high
