"""The study of ten seeds as a table: only when it is whole, and with the differences of its outcomes."""

import numpy as np
import pandas as pd
import pytest

from amarl_core import seed_tables
from amarl_core.look import Note, Table
from amarl_core.seed_tables import COMMAND, seeds_summary, seeds_table
from amarl_core.studies import read_study

DAYS = [f"day-{number}" for number in range(10)]
PLUS = {"amarl": 0.002, "sarl": 0.001, "priced_admission": 0.0, "priced_reservation": -0.01}
"""What each policy accepts beyond the day's own share."""


def outcomes_of(plus: dict[str, float]) -> pd.DataFrame:
    """As many served days as the study has, each with a share of its own."""
    rows = [
        {"policy": policy, "seed": seed, "day": day, "gos": 0.97 + 0.002 * number + more, "violations": 0}
        for policy, more in plus.items()
        for seed in (range(10) if policy in ("sarl", "amarl") else [pd.NA])
        for number, day in enumerate(DAYS)
    ]
    return pd.DataFrame(rows).astype({"seed": "Int64"})


@pytest.fixture
def found(monkeypatch):
    """Outcomes that a test may change before it looks at them."""
    frame = outcomes_of(PLUS)
    monkeypatch.setattr(seed_tables, "outcomes", lambda study, root: frame)
    return frame


def test_the_study_has_as_many_trials_as_the_outcomes_here():
    assert sum(trial.kind.name == "serve" for trial in read_study("seeds").trials) == len(outcomes_of(PLUS))


def test_differences_are_paired_by_day_and_in_points(found, tmp_path):
    about = seeds_summary(tmp_path)
    assert (about["seeds"], about["days"], about["served_days"]) == (10, 10, 220)
    assert about["by_policy"]["sarl"]["gos_mean"] == pytest.approx(97.0 + 0.9 + 0.1)
    amarl = about["minus"]["sarl"]["amarl"]
    assert amarl["mean"] == pytest.approx(0.1) and amarl["ci95"] == pytest.approx([0.1, 0.1])
    assert amarl["probability_of_improvement"] == 1.0
    assert about["minus"]["priced_admission"]["priced_reservation"]["mean"] == pytest.approx(-1.0)
    assert "sarl" not in about["minus"]["sarl"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rng: 0.0, "AMARL accepts more than SARL and more than priced admission."),
        (lambda rng: -0.02, "AMARL accepts less than SARL and less than priced admission."),
        (lambda rng: -0.001 + rng.normal(0, 0.01, 100), "AMARL cannot be told apart from SARL and priced admission."),
    ],
    ids=["more", "less", "alike"],
)
def test_the_caption_says_from_whom_amarl_can_be_told_apart(found, tmp_path, change, said):
    found.loc[found["policy"] == "amarl", "gos"] += change(np.random.default_rng(1))
    table = seeds_table(tmp_path)
    assert isinstance(table, Table) and said in table.caption and "; 0 violations in 220 audited days" in table.caption
    assert len(table.frame) == 4


def test_a_study_that_is_not_whole_shows_no_figure(monkeypatch, tmp_path):
    monkeypatch.setattr(seed_tables, "outcomes", lambda study, root: outcomes_of(PLUS).iloc[:-1])
    assert seeds_summary(tmp_path) is None
    assert isinstance(seeds_table(tmp_path), Note) and COMMAND in seeds_table(tmp_path).text


def test_a_study_that_was_not_begun_shows_no_figure(tmp_path):
    assert seeds_summary(tmp_path) is None
