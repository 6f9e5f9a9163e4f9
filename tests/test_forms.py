"""The forms between SARL and AMARL: what each changes, and how it is measured."""

import pytest

from amarl_core.config import make_config
from amarl_core.forms import FORMS, train_and_test
from amarl_core.scenario import load_scenario
from amarl_core.teams import untrained


def n_parameters(run) -> int:
    models = {id(model): model for model in run.models}.values()
    return sum(p.numel() for model in models for p in model.policy.parameters())


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_a_valid_configuration(form):
    make_config(**FORMS[form])


def test_the_wide_sarl_has_as_many_parameters_as_the_six_agents():
    montreal = load_scenario("montreal")
    six = n_parameters(untrained(montreal, make_config(method="amarl")))
    wide = n_parameters(untrained(montreal, make_config(**FORMS["sarl-wide"])))
    assert wide == pytest.approx(six, rel=0.02)


def test_a_form_gives_a_row_a_day_with_the_figures_of_its_training(toy, toy_day):
    weekend = toy.test_trace("test-weekend")
    rows, progress = train_and_test(toy, "amarl-sync", 0, [toy_day, weekend], days=1)
    assert list(rows["day"]) == [toy_day.name, weekend.name]
    assert rows["gos"].between(50, 100).all() and (rows["violations"] == 0).all()
    assert rows["idle_s"].iloc[0] > 0
    assert rows["updates"].iloc[0] == len(progress)
    assert set(progress["form"]) == {"amarl-sync"} and set(progress["seed"]) == {0}
