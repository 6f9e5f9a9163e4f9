"""The forms between SARL and AMARL: what each changes, and how it is measured."""

import pytest

from amarl_core.config import make_config
from amarl_core.forms import FORMS, serve_form, train_form
from amarl_core.scenario import load_scenario
from amarl_core.teams import load_run, untrained


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


def test_a_form_gives_a_row_a_day_with_the_figures_of_its_training(toy, toy_day, tmp_path):
    weekend = toy.test_trace("test-weekend")
    run = load_run(train_form(toy, "amarl-sync", 0, tmp_path / "run", days=1).folder, toy)
    rows = serve_form(run, "amarl-sync", [toy_day, weekend])
    assert list(rows["day"]) == [toy_day.name, weekend.name]
    assert rows["gos"].between(50, 100).all() and (rows["violations"] == 0).all()
    assert rows["idle_s"].iloc[0] > 0
    assert rows["updates"].iloc[0] == len(run.progress)


def test_a_run_without_a_bound_on_its_lag_can_be_loaded(toy, tmp_path):
    """JSON has no infinity."""
    train_form(toy, "amarl-lag-inf", 0, tmp_path / "run", days=1)
    assert load_run(tmp_path / "run", toy).config.lag_s == float("inf")
