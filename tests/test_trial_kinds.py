"""Training and serving as trials: resolved to the last value, and the same results as the calls they stand for."""

import shutil

import numpy as np
import pytest

from amarl_core import stats
from amarl_core.agents import train
from amarl_core.audit import audit
from amarl_core.baselines import TUNED, tuned
from amarl_core.config import TrainConfig, make_config
from amarl_core.errors import AmarlError, RunError
from amarl_core.evaluation import evaluate, play_trace
from amarl_core.runs import RunFolder, read_frame
from amarl_core.scenario import DATA_FOLDER, load_scenario
from amarl_core.teams import load_run
from amarl_core.trial_kinds import SERVE, TRAIN, find_day, forget, open_scenario
from amarl_core.trials import carry_out

SERIAL = {"days": 1, "deterministic": True}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The folder of a study with one finished training."""
    folder = tmp_path_factory.mktemp("study")
    assert carry_out(TRAIN.trial(scenario="toy", **SERIAL), folder).status == "finished"
    return folder


def trained(study):
    return study / TRAIN.trial(scenario="toy", **SERIAL).place


def test_defaults_are_filled_in(toy):
    values = TRAIN.trial(scenario="toy", days=2).values
    assert values["scenario"] == {"place": "toy", "digest": toy.digest}
    assert make_config(**values["config"]) == TrainConfig(days=2)
    assert TRAIN.trial(scenario="toy", days=2, gamma=0.99) == TRAIN.trial(scenario="toy", days=2)
    assert TRAIN.trial(scenario="toy", beta=1) == TRAIN.trial(scenario="toy", beta=1.0)
    assert TRAIN.trial(scenario="toy", days=3) != TRAIN.trial(scenario="toy", days=2)


def test_a_training_without_a_bound_on_the_lag_keeps_it_through_json():
    values = TRAIN.trial(scenario="toy", lag_s=float("inf")).values
    assert values["config"]["lag_s"] is None and make_config(**values["config"]).lag_s == float("inf")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"by": "amarl", "day": "test-weekday", "colour": 1}, "unknown key 'colour'; the valid ones are scenario, by"),
        ({"by": "amarl"}, "'day' is missing"),
        ({"by": "nobody", "day": "test-weekday"}, "by is 'nobody'; expected one of sarl, amarl"),
        ({"by": "amarl", "day": "sunday"}, "day is 'sunday'; expected one of test-weekday"),
        ({"by": "amarl", "day": "test-weekday", "order": "alphabetic"}, "order is 'alphabetic'; expected one of"),
        ({"by": "amarl", "day": "test-weekday", "attempts": 0}, "attempts is 0; expected an integer of at least 1"),
        ({"by": "amarl", "day": "test-weekday", "train": {"dais": 1}}, "a train trial: unknown key 'dais'"),
        ({"by": "priced", "day": "test-weekday", "settings": {"k": 1}}, "priced has no setting 'k'"),
        ({"by": "priced", "day": "test-weekday", "order": "free"}, "a rule serves in order of arrival"),
    ],
)
def test_settings_that_are_not_valid_are_refused_when_they_are_read(given, message):
    with pytest.raises(AmarlError, match=message):
        SERVE.trial(scenario="toy", **given)


def test_a_rule_is_one_trial_whatever_concerns_learners_only():
    given = {"scenario": "toy", "by": "priced", "day": "test-weekday"}
    trial = SERVE.trial(**given)
    assert trial == SERVE.trial(**given, seed=3, train={"days": 4}, attempts=1, window=2, lag_s=9.0)
    assert trial.needs == () and trial.values["by"]["settings"] == TUNED["priced"]
    assert trial != SERVE.trial(**given, settings={"mu": 5.0})
    walk = given | {"by": "random_feasible"}
    assert SERVE.trial(**walk, seed=1) != SERVE.trial(**walk, seed=2)
    assert SERVE.trial(**walk, seed=2).label["seed"] == 2


def test_only_what_the_order_knows_tells_trials_apart():
    given = {"scenario": "toy", "by": "amarl", "day": "test-weekday"}
    assert SERVE.trial(**given, lag_s=5) == SERVE.trial(**given)
    free = given | {"order": "free"}
    assert SERVE.trial(**free, window=9) == SERVE.trial(**free)
    assert len({SERVE.trial(**free, lag_s=lag_s) for lag_s in (5, 5.0, 60, float("inf"))}) == 3


def test_free_order_without_a_bound_is_served_so(study, monkeypatch):
    seen = {}

    def see(*_, **options):
        seen.update(options)
        raise AmarlError("enough")

    monkeypatch.setattr("amarl_core.trial_kinds.play_trace", see)
    trial = SERVE.trial(
        scenario="toy", by="amarl", train=SERIAL, day="test-weekday", order="free", lag_s=float("inf"), attempts=2
    )
    assert "enough" in carry_out(trial, study).error
    assert (seen["lag_s"], seen["attempts"]) == (float("inf"), 2) and "window" not in seen


def test_a_trial_serves_as_the_call_does(study, toy, toy_day):
    trial = SERVE.trial(scenario="toy", by="amarl", train=SERIAL, day="test-weekday", window=0, keep=True)
    assert trial.needs == (TRAIN.trial(scenario="toy", **SERIAL),)
    assert carry_out(trial, study).error is None
    place = RunFolder(study / trial.place)
    found, decisions = SERVE.outcome(place), read_frame(place.path / "decisions.parquet")
    again = play_trace(load_run(trained(study), toy), toy_day, window=0)  # one after the other: repeatable
    assert found["gos"] == stats.gos(again.decisions) == stats.gos(decisions)
    assert found["gos_by_service"] == stats.gos_by(decisions, "service").to_dict()
    assert found["latency_ms"] == pytest.approx(decisions.loc[decisions["accepted"], "latency_ms"].mean())
    assert sum(found["rejected"].values()) == (~decisions["accepted"]).sum()
    report = audit(toy, decisions, read_frame(place.path / "ledger.parquet"), toy_day)
    assert found["violations"] == report.n_violations == 0 and found["admissions"] == report.admissions
    assert trial.label | {"order": "arrival", "attempts": 3} == trial.label


def test_a_rule_serves_as_the_call_does(tmp_path, toy, toy_day):
    for name in ("priced_admission", "milp_batch"):  # one that waits is audited against what it met
        trial = SERVE.trial(scenario="toy", by=name, day="test-weekday")
        assert carry_out(trial, tmp_path).error is None
        found = SERVE.outcome(RunFolder(tmp_path / trial.place))
        assert found["gos"] == stats.gos(play_trace(tuned(name), toy_day, scenario=toy).decisions)
        assert found["violations"] == 0


def test_a_finished_run_of_anywhere_serves(study, tmp_path, toy):
    folder = trained(study)
    trial = SERVE.trial(scenario="toy", by=str(folder), day="train-7-2", window=0)
    assert trial.needs == () and carry_out(trial, tmp_path).error is None
    found = SERVE.outcome(RunFolder(tmp_path / trial.place))
    expected = evaluate(load_run(folder, toy), toy.training_trace(7, days=1, first_day=2), window=0)
    assert found["gos"] == stats.gos(expected)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert SERVE.trial(scenario="toy", by=str(copy), day="train-7-2", window=0) == trial
    (copy / "model" / "more.json").write_text("{}")  # another model is another trial
    assert SERVE.trial(scenario="toy", by=str(copy), day="train-7-2", window=0) != trial
    assert trial.label["policy"] == "amarl" and trial.label["seed"] == 0


def test_a_team_serves_in_another_world_than_it_was_trained_in(study, tmp_path):
    """Here the same tables under another name: digests differ, services and slots do not."""
    other = tmp_path / "toy-2"
    shutil.copytree(DATA_FOLDER / "toy", other)
    settings = (other / "scenario.toml").read_text()
    (other / "scenario.toml").write_text(settings.replace('name = "toy"', 'name = "toy-2"'))
    trial = SERVE.trial(scenario=str(other), by="amarl", train={"scenario": "toy", **SERIAL}, day="test-weekday")
    assert trial.needs == (TRAIN.trial(scenario="toy", **SERIAL),)
    assert trial.values["scenario"]["digest"] != load_scenario("toy").digest
    assert carry_out(trial, study).error is None


def test_a_scenario_that_changed_while_a_study_runs_is_refused(tmp_path):
    place = tmp_path / "toy-3"
    shutil.copytree(DATA_FOLDER / "toy", place)
    trial = SERVE.trial(scenario=str(place), by="priced", day="test-weekday")
    links = (place / "links.csv").read_text().replace("\r\n", "\n")
    (place / "links.csv").write_text(links + "\n" if not links.endswith("\n") else links[:-1])
    forget()
    with pytest.raises(RunError, match="changed while the study ran"):
        open_scenario(trial.values["scenario"])


def test_a_day_is_held_out_or_of_a_training_seed(toy):
    assert find_day(toy, "test-weekend").sha256 == toy.test_trace("test-weekend").sha256
    assert np.array_equal(find_day(toy, "train-5-1").t_s, toy.training_trace(5, first_day=1).t_s)
    for wrong in ("train-5", "train-a-1", "train-1-b", "monday"):
        with pytest.raises(AmarlError, match="expected one of test-weekday"):
            find_day(toy, wrong)


def test_a_training_that_was_stopped_goes_on_from_its_checkpoint_and_ends_alike(study, tmp_path, toy):
    trial = TRAIN.trial(scenario="toy", **SERIAL)
    place = tmp_path / trial.place
    train(toy, config=make_config(**trial.values["config"]), folder=place, on_start=lambda training: training.stop())
    assert RunFolder(place).status == "stopped"
    assert carry_out(trial, tmp_path).status == "finished"
    assert RunFolder(place).json("timing.json")["resumed"] == 1
    ours, theirs = (read_frame(p / "decisions_train.parquet", ["accepted"]) for p in (place, trained(study)))
    assert ours.equals(theirs)
    assert TRAIN.outcome(RunFolder(place))["train_gos"] == pytest.approx(ours["accepted"].mean())
