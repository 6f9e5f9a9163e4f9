"""Training: it learns, repeats itself, records what it did, and stops and fails cleanly."""

import hashlib
import logging
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_env import choose_at_random, stop_at_the_end
from test_rollout import furthest_ahead, stop_soon
from worlds import contended, offer

import amarl_core.agents
from amarl_core.agents import rollout_sizes, train, training_trace
from amarl_core.audit import audit
from amarl_core.config import SELFISH, make_config
from amarl_core.env import RoutingEnv
from amarl_core.errors import AmarlError, RunError
from amarl_core.evaluation import evaluate, play_trace
from amarl_core.runs import RunFolder, read_frame, read_json, write_json
from amarl_core.simulation import AgentError, Simulation
from amarl_core.teams import load_run, untrained

PROGRESS = ["agent", "update", "wall_s", "sim_t_s", "steps", "requests", "accepted", "gos", "gos_recent",
            "reward", "entropy", "kl", "value_loss", "policy_loss", "conflicts", "staleness", "wait_s", "idle_s",
            "update_s", "rollout_s"]  # fmt: skip
WALL_CLOCK = ["wall_s", "wait_s", "idle_s", "update_s", "rollout_s"]


def weights_of(run) -> list[np.ndarray]:
    return [parameter.detach().numpy() for model in run.models for parameter in model.policy.parameters()]


def same_weights(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(weights_of(a), weights_of(b), strict=True))


# ------------------------------------------------------------------------------------------------- learning
@pytest.mark.parametrize("method", ["sarl", "amarl"])
def test_a_trained_team_beats_random_choices_and_an_untrained_one(toy, toy_day, method):
    """GoS of the held-out toy weekday after six days of training, seeds 0 to 2, when written.

    With the mask `delay`, which leaves most to learn: dead ends are not foreseen.
    Random valid choices 81.9 %; untrained 64-86 % (sarl), 71-80 % (amarl); trained 98.3 % (sarl), 98.1-98.4 %
    (amarl); shortest feasible path 98.4 %.
    """
    config = make_config(method=method, days=6, mask="delay")
    env = stop_at_the_end(RoutingEnv(toy, toy_day, config=config))
    choose_at_random(env)
    random = env.decisions()["accepted"].mean()
    before = evaluate(untrained(toy, config), toy_day)["accepted"].mean()
    after = evaluate(train(toy, config=config), toy_day)["accepted"].mean()
    assert random < 0.88 and before < 0.92
    assert after > 0.965
    assert after > max(random, before) + 0.05


def test_the_selfish_ablation_trains_without_trouble(toy, toy_day):
    """Static slots and no prices: it still learns to route (over 95 % when written)."""
    run = train(toy, "amarl", 0, days=4, **SELFISH)
    assert all(np.isfinite(weights).all() for weights in weights_of(run))
    assert evaluate(run, toy_day)["accepted"].mean() > 0.93


def test_every_agent_learns_in_its_own_network(toy, toy_team):
    """Weights start apart, move, and stand in the agent's slice of the kernels' networks."""
    fresh = untrained(toy, toy_team.config)
    for a, (model, before) in enumerate(zip(toy_team.models, fresh.models, strict=True)):
        weight = model.policy.mlp_extractor.policy_net[0].weight.detach().numpy()
        assert np.array_equal(toy_team.nets.actor_1[a, :-1], weight.T)
        assert not np.allclose(weight, before.policy.mlp_extractor.policy_net[0].weight.detach().numpy())
        assert model.num_timesteps > 0 and model._n_updates > 0
    first, second = (model.policy.mlp_extractor.policy_net[0].weight for model in fresh.models[:2])
    assert not first.equal(second)


def test_a_rollout_is_sized_by_the_agent_s_own_traffic(toy):
    """Each agent updates about `rollouts_per_day` times a day, however rare its service is."""
    run = train(toy, "amarl", 0, days=4, rollouts_per_day=6)
    updates = run.progress.groupby("agent")["update"].max()
    assert set(updates.index) == set(toy.service_ids)
    assert updates.between(4 * 6 * 0.6, 4 * 6 * 1.6).all(), updates


def test_the_sizes_of_rollouts_do_not_depend_on_threads(toy, monkeypatch):
    config = make_config(method="amarl", days=3, deterministic=True)
    trace, run = training_trace(toy, config), untrained(toy, config)
    sizes = rollout_sizes(run, trace)
    roll_out = Simulation.roll_out

    def late(self, a, *rest):
        threading.Event().wait(0.1 * (2 - a))
        return roll_out(self, a, *rest)

    monkeypatch.setattr(Simulation, "roll_out", late)
    assert rollout_sizes(run, trace) == sizes


def test_every_request_is_seen_once_a_pass(toy):
    config = make_config(method="amarl", days=2, passes=2)
    trace = training_trace(toy, config)
    run = train(toy, config=config)
    decisions = run.simulation.decisions()
    assert len(decisions) == len(trace) == 2 * len(toy.training_trace(seed=0, days=2))
    assert decisions["request_id"].is_unique
    assert run.timing["requests"] == len(trace)


# ---------------------------------------------------------------------------- the records of a training run
def test_a_training_run_passes_the_audit(toy, toy_team, toy_agent):
    for run in (toy_team, toy_agent):
        trace = training_trace(toy, run.config)
        report = audit(toy, run.simulation.decisions(), run.simulation.ledger(), trace, "free")
        assert report.ok, report.summary()
        assert 0 < report.admissions < report.requests
        assert run.simulation.decisions()["attempts"].max() == 1, "a conflict is the training's signal"


def test_one_agent_trains_in_order_of_arrival(toy, toy_agent):
    """For SARL free order and arrival order are the same thing."""
    simulation, trace = toy_agent.simulation, training_trace(toy, toy_agent.config)
    report = audit(toy, simulation.decisions(), simulation.ledger(), trace, "arrival")
    assert report.ok, report.summary()


def test_agents_in_training_keep_to_the_lag(toy):
    run = train(toy, "amarl", 0, days=3, lag_s=900.0)
    assert furthest_ahead(run.simulation.ledger(), len(toy.service_ids)) <= 900.0


def test_progress_adds_up(toy, toy_team):
    progress = toy_team.progress
    assert progress.columns.tolist() == PROGRESS
    assert progress["gos"].between(0, 1).all() and progress["gos_recent"].between(0, 1).all()
    for column in ("entropy", "kl", "value_loss", "policy_loss", "reward"):
        assert np.isfinite(progress[column]).all(), column
    for agent, rows in progress.groupby("agent"):
        assert rows["update"].tolist() == list(range(1, len(rows) + 1))
        for column in ("wall_s", "sim_t_s", "steps", "requests", "accepted", "conflicts", "update_s"):
            assert rows[column].is_monotonic_increasing, (agent, column)
        served = toy_team.simulation.decisions().query("agent == @agent")
        assert rows["requests"].iloc[-1] == len(served)
        assert rows["accepted"].iloc[-1] == served["accepted"].sum()
        gained = np.diff(rows["accepted"], prepend=0) / np.diff(rows["requests"], prepend=0)
        np.testing.assert_allclose(rows["gos"], gained)
    timing = toy_team.timing
    last = progress.groupby("agent")[["steps", "requests", "update"]].max()
    assert (timing["env_steps"], timing["requests"], timing["updates"]) == tuple(last.sum())
    assert timing["steps_per_s"] == pytest.approx(timing["env_steps"] / timing["train_s"])
    for agent, parts in timing["by_agent"].items():
        assert parts["steps"] == last["steps"][agent]
        spent = parts["rollout_s"] + parts["update_s"] + parts["wait_s"]
        assert 0 < spent <= timing["train_s"] * 1.05, "phases are parts of the training time"
    assert timing["peak_rss_mb"] > 50 and timing["cpu_s"] > 0


def test_a_run_with_a_folder_is_recorded_and_loads_as_it_was(toy, toy_day, tmp_path):
    folder = tmp_path / "run"
    run = train(toy, "amarl", 3, folder=folder, days=2)
    assert run.status == "finished"
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    models = {f"model/{agent}.{kind}" for agent in toy.service_ids for kind in ("zip", "json")}
    assert names >= models | {"status.json", "config.json", "provenance.json", "timing.json",
                              "progress.parquet", "decisions_train.parquet", "ledger_train.parquet"}  # fmt: skip
    assert read_json(folder / "status.json")["status"] == "finished"
    assert read_json(folder / "config.json") == asdict(run.config)
    provenance = read_json(folder / "provenance.json")
    assert provenance["scenario"] == {"name": "toy", "digest": toy.digest}
    assert list(provenance["traces"].values()) == [training_trace(toy, run.config).sha256]
    decisions = read_frame(folder / "decisions_train.parquet")
    report = audit(toy, decisions, read_frame(folder / "ledger_train.parquet"),
                   training_trace(toy, run.config), "free")  # fmt: skip
    assert report.ok, report.summary()

    loaded = load_run(folder, toy)
    assert (loaded.config, loaded.method, loaded.seed, loaded.status) == (run.config, "amarl", 3, "finished")
    assert same_weights(loaded, run)
    assert loaded.timing["env_steps"] == run.timing["env_steps"]
    assert loaded.progress["steps"].tolist() == run.progress["steps"].tolist()
    for mine, yours in zip(loaded.nets, run.nets, strict=True):
        assert np.array_equal(mine, yours)
    alike = [play_trace(team, toy_day, "arrival", 3, window=0).decisions for team in (run, loaded)]
    assert alike[0].equals(alike[1])

    with pytest.raises(RunError, match="finished"):
        train(toy, "amarl", 3, folder=folder, days=2)
    assert same_weights(load_run(folder, toy), run), "a refused run leaves the finished one alone"


@pytest.mark.parametrize("status", ["running", "stopped", "failed", None])
def test_a_run_that_is_not_finished_is_not_loaded(toy, tmp_path, status):
    train(toy, "sarl", 0, folder=tmp_path, days=1)
    if status:
        write_json(tmp_path / "status.json", {"status": status, "error": None})
    else:
        (tmp_path / "status.json").unlink()
    with pytest.raises(RunError, match=status or "new"):
        load_run(tmp_path, toy)


def test_a_run_of_another_world_is_refused_by_name(toy, tmp_path):
    train(toy, "sarl", 0, folder=tmp_path, days=1)
    with pytest.raises(RunError, match="services") as error:
        load_run(tmp_path, contended())
    assert "'toy'" in str(error.value) and "sarl.json" in str(error.value)


def test_a_trace_of_another_world_is_refused(toy, toy_team):
    world = contended()
    trace = offer(world, 20, 0)
    with pytest.raises(AmarlError, match="another world"):
        train(toy, "amarl", 0, trace=trace)
    with pytest.raises(AmarlError, match="another world"):
        evaluate(toy_team, trace)


# ------------------------------------------------------------------------------ the same seed, the same run
def deterministic_run(toy, method="amarl", seed=0):
    return train(toy, method, seed, days=1, deterministic=True)


@pytest.fixture(scope="module")
def repeatable(toy):
    return deterministic_run(toy)


def test_the_deterministic_mode_repeats_itself_to_the_bit(toy, repeatable):
    again = deterministic_run(toy)
    assert again.simulation.decisions().equals(repeatable.simulation.decisions())
    assert again.simulation.ledger().equals(repeatable.simulation.ledger())
    assert same_weights(again, repeatable)
    assert again.progress.drop(columns=WALL_CLOCK).equals(repeatable.progress.drop(columns=WALL_CLOCK))


def test_the_deterministic_mode_of_one_agent_repeats_itself_to_the_bit(toy):
    first, again = deterministic_run(toy, "sarl"), deterministic_run(toy, "sarl")
    assert first.simulation.decisions().equals(again.simulation.decisions())
    assert same_weights(first, again)


def test_another_seed_is_another_run(toy, repeatable):
    other = deterministic_run(toy, seed=1)
    assert not other.simulation.decisions().equals(repeatable.simulation.decisions())
    assert not same_weights(other, repeatable)


def test_the_seed_decides_the_sampling_and_not_only_the_traffic(toy):
    trace = toy.training_trace(seed=5, days=1).head(800)
    runs = [train(toy, "amarl", seed, trace=trace, days=1, deterministic=True) for seed in (0, 1, 0)]
    links = [run.simulation.decisions()["links"] for run in runs]
    assert links[0].equals(links[2]) and not links[0].equals(links[1])


def fingerprint(run) -> str:
    """Return a checksum of a run's decisions and weights."""
    digest = hashlib.sha256(run.simulation.decisions().astype(str).to_csv(index=False).encode())
    for weights in weights_of(run):
        digest.update(weights.tobytes())
    return digest.hexdigest()


def test_the_deterministic_mode_repeats_itself_in_another_process(toy, repeatable):
    code = (
        "from test_agents import *\n"
        "from amarl_core.scenario import load_scenario\n"
        "print(fingerprint(deterministic_run(load_scenario('toy'))))"
    )
    here = Path(__file__).parent
    path = f"import sys; sys.path[:0] = [{str(here)!r}, {str(here.parent)!r}]\n"
    done = subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == fingerprint(repeatable)


def test_the_deterministic_mode_takes_turns_in_order_of_time(repeatable):
    ledger = repeatable.simulation.ledger()
    assert ledger["t_s"].is_monotonic_increasing
    assert ledger["agent"].nunique() == 3
    assert not repeatable.simulation.decisions()["cause"].isin(["conflict_link", "conflict_node"]).any()


# ----------------------------------------------------------------------------------- progress while it runs
@pytest.mark.parametrize("deterministic", [False, True])
def test_progress_is_written_told_and_logged_as_it_goes(toy, tmp_path, monkeypatch, caplog, deterministic):
    monkeypatch.setattr("amarl_core.progress.HEARTBEAT_S", 0.0)
    seen = []

    def look(frame):
        seen.append((len(frame), len(read_frame(tmp_path / "progress.parquet"))))
        assert threading.current_thread() is threading.main_thread()

    with caplog.at_level(logging.INFO, "amarl_core"):
        run = train(toy, "amarl", 0, folder=tmp_path, days=30, on_progress=look, deterministic=deterministic)
    assert len(seen) >= 2
    assert all(told == written for told, written in seen)
    assert 0 < max(told for told, _ in seen) <= len(run.progress)
    lines = [record.getMessage() for record in caplog.records if "steps/s" in record.getMessage()]
    assert lines and all("%" in line and "left" in line and "GoS" in line for line in lines)
    assert all(agent in lines[-1] for agent in toy.service_ids)


# ------------------------------------------------------------------------------------- stopping and failing
@pytest.fixture
def ctrl_c_counts():
    """Let SIGINT raise KeyboardInterrupt, which it does not in a process that a shell put in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_keeps_what_there_is_and_marks_the_run_stopped(toy, tmp_path, monkeypatch, ctrl_c_counts):
    """A real SIGINT while the agents run: models, progress and records are written, and are no results."""
    monkeypatch.setattr("amarl_core.progress.HEARTBEAT_S", 0.0)

    def interrupt(frame):
        if len(frame):
            signal.raise_signal(signal.SIGINT)

    before = threading.active_count()
    run = train(toy, "amarl", 0, folder=tmp_path, days=40, on_progress=interrupt)
    assert run.status == RunFolder(tmp_path).status == "stopped"
    assert threading.active_count() == before
    served = len(run.simulation.decisions())
    assert 0 < served < len(training_trace(toy, run.config))
    assert not (tmp_path / "decisions_train.parquet").exists(), "its checkpoint has what was served"
    assert len(read_frame(tmp_path / "progress.parquet")) == len(run.progress) > 0
    assert (tmp_path / "model" / "video.zip").exists() and (tmp_path / "timing.json").exists()
    with pytest.raises(RunError, match="stopped"):
        load_run(tmp_path, toy)
    found = audit(toy, run.simulation.decisions(), run.simulation.ledger(), None, "free").count
    assert set(found) <= {"unreleased", "zero"}

    again = train(toy, "amarl", 0, folder=tmp_path, days=1, resume=False)
    assert again.status == RunFolder(tmp_path).status == "finished", "a stopped run may be repeated"


def test_a_stop_from_a_widget_ends_the_run_as_stopped(toy, monkeypatch):
    """Whoever holds the simulation may call stop from any thread."""
    made = Simulation.__init__

    def remember(self, *rest, **named):
        made(self, *rest, **named)
        if self.options.learn:
            stop_soon(self)

    monkeypatch.setattr(Simulation, "__init__", remember)
    run = train(toy, "amarl", 0, days=40)
    assert run.status == "stopped"
    assert 0 < len(run.simulation.decisions()) < len(training_trace(toy, run.config))


@pytest.mark.parametrize("method, deterministic", [("amarl", False), ("amarl", True), ("sarl", False)])
def test_an_agent_s_error_stops_the_others_and_is_raised_with_its_name(
    toy, tmp_path, monkeypatch, method, deterministic
):
    update, calls = amarl_core.agents.update, []

    def failing(model, buffer, n, *rest):
        calls.append(n)
        if len(calls) == 3:
            raise FloatingPointError("the gradient is nan")
        return update(model, buffer, n, *rest)

    monkeypatch.setattr("amarl_core.agents.update", failing)
    before = threading.active_count()
    with pytest.raises(AgentError, match="FloatingPointError: the gradient is nan") as error:
        train(toy, method, 0, folder=tmp_path, days=20, deterministic=deterministic)
    names = {"sarl"} if method == "sarl" else {"deterministic"} if deterministic else set(toy.service_ids)
    assert str(error.value).split(":")[0] in names
    assert threading.active_count() == before
    assert len(calls) < 20, "the others stopped"
    place = RunFolder(tmp_path)
    assert place.status == "failed" and "gradient" in place.error
    with pytest.raises(RunError, match="failed"):
        load_run(tmp_path, toy)


def test_an_error_of_the_caller_s_callback_fails_the_run_and_stops_its_threads(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("amarl_core.progress.HEARTBEAT_S", 0.0)

    def fail(frame):
        raise ZeroDivisionError("in a notebook")

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        train(toy, "amarl", 0, folder=tmp_path, days=40, on_progress=fail)
    assert threading.active_count() == before
    assert RunFolder(tmp_path).status == "failed"


@pytest.mark.parametrize("n", [0, 1, 3])
def test_a_trace_too_short_to_learn_from_is_no_trouble(toy, toy_day, n):
    run = train(toy, "amarl", 0, trace=toy_day.head(n))
    assert run.status == "finished"
    assert len(run.simulation.decisions()) == n
    assert run.progress.columns.tolist() == PROGRESS
    assert run.timing["requests"] == n


def test_unknown_settings_and_methods_are_refused_before_anything_runs(toy, tmp_path):
    with pytest.raises(AmarlError, match="learningrate.*learning_rate"):
        train(toy, "amarl", 0, folder=tmp_path / "a", learningrate=1e-3)
    with pytest.raises(AmarlError, match="'ppo'.*sarl, amarl"):
        train(toy, "ppo", 0, folder=tmp_path / "b")
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_training_leaves_the_global_generators_alone(toy):
    torch.manual_seed(3), np.random.seed(3)
    expected = torch.rand(2), np.random.random(2)
    torch.manual_seed(3), np.random.seed(3)
    deterministic_run(toy)
    assert torch.rand(2).equal(expected[0]) and np.array_equal(np.random.random(2), expected[1])


# ------------------------------------------------------------------------- between SARL and AMARL
@pytest.mark.parametrize("method", ["sarl-async", "amarl-serial", "amarl-sync"])
def test_every_form_trains_on_all_requests_and_passes_the_audit(toy, method):
    run = train(toy, method, 0, days=2)
    trace = training_trace(toy, run.config)
    assert run.status == "finished"
    assert run.timing["requests"] == len(trace)
    assert not audit(toy, run.simulation.decisions(), run.simulation.ledger(), trace, "free").count


def test_actors_of_one_policy_share_one_model_that_all_of_them_trained(toy):
    run = train(toy, "sarl-async", 0, days=2)
    assert len(set(map(id, run.models))) == 1
    assert run.models[0].num_timesteps == run.timing["env_steps"]


def test_six_policies_on_one_thread_are_the_deterministic_mode(toy):
    serial = train(toy, "amarl-serial", 3, days=1)
    deterministic = train(toy, "amarl", 3, days=1, deterministic=True)
    pd.testing.assert_frame_equal(serial.simulation.decisions(), deterministic.simulation.decisions())


def test_agents_in_step_wait_for_each_other(toy):
    by_agent = train(toy, "amarl-sync", 0, days=2).timing["by_agent"].values()
    assert all(entry["idle_s"] > 0 for entry in by_agent)
    assert all(entry["idle_s"] == 0 for entry in train(toy, "amarl", 0, days=1).timing["by_agent"].values())


def test_an_error_ends_agents_that_wait_for_each_other(toy, monkeypatch):
    update, calls = amarl_core.agents.update, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise FloatingPointError("broken on purpose")
        return update(*arguments)

    monkeypatch.setattr("amarl_core.agents.update", failing)
    with pytest.raises(AgentError, match="broken on purpose"):
        train(toy, "amarl-sync", 0, days=2)
