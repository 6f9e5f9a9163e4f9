"""The ablation of action masks: one row a team, day and number of attempts, with shares that add up."""

import numpy as np
import pytest

from amarl_core.ablate_masks import gos_by_day, mask_ablation
from amarl_core.agents import DAY_S
from amarl_core.routing import ACCEPTED, CAUSES, MASKS


@pytest.fixture(scope="module")
def rows(toy):
    """Both methods, a day of training."""
    return mask_ablation(toy, days=1, seeds=[1], methods=["sarl", "amarl"], eval_days=[1])


def test_there_is_a_row_for_every_mask_method_and_number_of_attempts(rows):
    assert len(rows) == len(MASKS) * 2 * 2
    assert not rows.duplicated(["mask", "method", "seed", "day", "attempts"]).any()
    assert rows.notna().all(axis=None)


def test_gos_and_the_shares_of_the_causes_add_up_to_all_requests(rows):
    shares = rows[[f"share_{cause}" for cause in CAUSES[1:]]]
    assert np.allclose(rows["gos"] + shares.sum(axis=1), 1)
    assert rows["gos"].between(0.5, 1).all()


def test_looking_ahead_helps_before_anything_is_learned(rows):
    """Of one agent: six threads race, and an untrained team's races move its GoS by more than a mask does."""
    gos = rows[rows["method"] == "sarl"].set_index(["attempts", "mask"])["untrained_gos"].unstack()
    assert len(gos) == 2
    assert (gos["reachable"] > gos["delay"]).all()
    assert (gos["reachable"] > gos["immediate"]).all()


def test_times_per_decision_and_per_request_agree(rows):
    assert (rows["us_per_request"] > 0).all()
    assert np.allclose(rows["us_per_decision"] * rows["decisions_per_request"], rows["us_per_request"])


def test_gos_of_a_training_day_is_that_of_its_requests(toy_team):
    """By the records of training themselves; a rollout that spans midnight counts to the day it ends in."""
    arena = toy_team.simulation.arena
    accepted = arena.records.rows["cause"] == ACCEPTED
    day = arena.requests["t_s"] // DAY_S
    expected = [accepted[day == d].mean() for d in range(toy_team.config.days)]
    assert gos_by_day(toy_team) == pytest.approx(expected, abs=0.03)
