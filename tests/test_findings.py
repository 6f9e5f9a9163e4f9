"""What a study says, against the statistics by hand."""

import numpy as np
import pandas as pd
import pytest

from amarl_core.effects import paired_effect_size, probability_of_improvement
from amarl_core.errors import RunError
from amarl_core.findings import compare, matrix
from amarl_core.intervals import interval

DRAW = np.random.default_rng(7)
DAYS = ["test-weekday", "test-weekday-2", "test-weekend"]
GOS = {"amarl": DRAW.normal(0.984, 0.001, (2, 3)), "sarl": DRAW.normal(0.980, 0.001, (2, 3))}


@pytest.fixture
def outcomes():
    """Two learners of two seeds and a rule, on three days, in no order."""
    rows = [
        {"policy": policy, "seed": seed, "day": day, "attempts": 3, "gos": values[seed, d]}
        for policy, values in GOS.items()
        for seed in range(2)
        for d, day in enumerate(DAYS)
    ]
    rows += [{"policy": "priced", "seed": None, "day": day, "attempts": None, "gos": 0.97} for day in DAYS]
    return pd.DataFrame(rows).astype({"seed": "Int64"}).sample(frac=1, random_state=1)


def test_outcomes_by_seed_and_day(outcomes):
    assert np.array_equal(matrix(outcomes, policy="amarl"), GOS["amarl"])
    assert np.array_equal(matrix(outcomes, policy="priced"), np.full((1, 3), 0.97))


def test_what_is_missing_or_twice_is_said(outcomes):
    with pytest.raises(RunError, match="no column 'gas'"):
        matrix(outcomes, "gas")
    with pytest.raises(RunError, match="policy=nobody: no outcome"):
        matrix(outcomes, policy="nobody")
    with pytest.raises(RunError, match="more than one outcome for a seed and a day"):
        matrix(outcomes)
    gap = outcomes[~((outcomes["policy"] == "sarl") & (outcomes["seed"] == 1) & (outcomes["day"] == "test-weekend"))]
    with pytest.raises(RunError, match="policy=sarl: seed 1 has no gos on test-weekend"):
        matrix(gap, policy="sarl")


def test_policies_are_compared_on_the_same_days(outcomes):
    table = compare(outcomes, against="sarl").set_index("policy")
    assert list(table.index) == ["amarl", "sarl", "priced"]
    assert table.loc["amarl", ["seeds", "days"]].tolist() == [2, 3]
    assert table.loc["amarl", "how"] == "95% Student t interval, n = 2 seeds, 3 days"
    found = interval(GOS["amarl"], GOS["sarl"])
    names = ["difference", "difference_low", "difference_high"]
    assert table.loc["amarl", names].tolist() == [found.value, found.low, found.high]
    expected = probability_of_improvement(GOS["amarl"], GOS["sarl"])
    assert tuple(table.loc["amarl", ["better", "better_low", "better_high"]]) == expected
    means = GOS["amarl"].mean(axis=0), GOS["sarl"].mean(axis=0)
    assert table.loc["amarl", "effect"] == paired_effect_size(*means)
    assert table.loc["sarl", names].isna().all()


def test_the_best_is_what_others_are_compared_with_unless_another_is_named(outcomes):
    table = compare(outcomes).set_index("policy")
    assert np.isnan(table.loc["amarl", "difference"]) and table.loc["priced", "difference"] < 0
    with pytest.raises(RunError, match="against is 'nobody'; expected one of amarl, sarl, priced"):
        compare(outcomes, against="nobody")
