"""TensorBoard logs: sb3's names, the numbers of the progress table, only when asked for."""

import importlib.util

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from amarl_core.agents import train
from amarl_core.errors import AmarlError


def read_scalars(folder) -> dict[str, dict[int, float]]:
    """Return value by step of every scalar in the event files of a folder."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_every_update_of_every_agent_is_logged_under_sb3_s_names(toy, tmp_path):
    run = train(toy, "amarl", 0, days=2, folder=tmp_path, tensorboard=True)
    assert {path.name for path in (tmp_path / "tensorboard").iterdir()} == set(toy.service_ids)
    for agent, rows in run.progress.groupby("agent"):
        logged = read_scalars(tmp_path / "tensorboard" / agent)
        for tag, column, sign in (
            ("rollout/ep_rew_mean", "reward", 1),
            ("train/entropy_loss", "entropy", -1),
            ("train/approx_kl", "kl", 1),
            ("train/value_loss", "value_loss", 1),
            ("train/policy_gradient_loss", "policy_loss", 1),
        ):
            assert list(logged[tag]) == rows["steps"].tolist(), "one value an update, at the agent's own steps"
            assert list(logged[tag].values()) == pytest.approx((sign * rows[column]).tolist(), rel=1e-5, abs=1e-7)
        rates = list(logged["train/learning_rate"].values())
        assert rates == sorted(rates, reverse=True) and run.config.learning_rate > rates[0] > rates[-1]


def test_a_resumed_training_logs_on_where_it_was(toy, tmp_path):
    logs = tmp_path / "logs"

    def stop_at_once(training):
        training.stop()

    train(toy, "amarl", 0, days=2, folder=tmp_path / "run", tensorboard=logs, on_start=stop_at_once)
    run = train(toy, "amarl", 0, days=2, folder=tmp_path / "run", tensorboard=logs)
    assert run.timing["resumed"] == 1
    for agent, rows in run.progress.groupby("agent"):
        assert list(read_scalars(logs / agent)["rollout/gos"]) == rows["steps"].tolist()


def test_nothing_is_logged_unless_asked_for(toy, tmp_path):
    train(toy, "sarl", 0, days=1, folder=tmp_path)
    assert not (tmp_path / "tensorboard").exists()


def test_what_is_missing_is_said_before_anything_runs(toy, tmp_path, monkeypatch):
    with pytest.raises(AmarlError, match="give folder"):
        train(toy, "sarl", 0, days=1, tensorboard=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AmarlError, match="pip install tensorboard"):
        train(toy, "sarl", 0, days=1, folder=tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()
