"""Actors: an agent's requests are dealt out evenly, its policy is one, and its records know nothing of it."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_agents import WALL_CLOCK
from test_rollout import furthest_ahead

from amarl_core import actors
from amarl_core.actors import MOST_ACTORS, Cast, agent_of, cast_of, counts_by_load
from amarl_core.agents import train, training_trace
from amarl_core.audit import audit
from amarl_core.config import make_config
from amarl_core.errors import AmarlError
from amarl_core.evaluation import evaluate, play_trace
from amarl_core.runs import read_frame, read_json
from amarl_core.simulation import AgentError, Simulation
from amarl_core.teams import load_run
from amarl_core.watch import CLOCK, REQUESTS, STEPS, Watch

SPLIT = {"video": 2, "ar": 3}
"""Of the toy's services; voice is left to one actor."""

AFTER_THE_LAST_UPDATE = 64
"""Requests that an agent's actors may serve after its last update: a last rollout of one decision teaches nothing, and
many requests need none. How a rollout falls depends on the order of threads."""


@pytest.fixture(scope="module")
def team(toy, tmp_path_factory):
    """A recorded AMARL team of six actors, and what a watch saw of its training."""
    seen = {}
    folder = tmp_path_factory.mktemp("actors") / "run"
    run = train(toy, "amarl", 0, days=2, actors=SPLIT, folder=folder, tensorboard=True,
                on_start=lambda training: seen.update(watch=Watch(training)))  # fmt: skip
    seen["watch"].look()
    return run, seen["watch"]


# ------------------------------------------------------------------------------------------ who acts for whom
@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    agents=st.lists(st.integers(0, 4), max_size=60),
)
def test_every_request_goes_to_an_actor_of_its_agent_and_they_take_turns(counts, agents):
    cast = Cast(tuple(f"agent {a}" for a in range(len(counts))), tuple(counts))
    of_request = np.array([a % len(counts) for a in agents], np.int64)
    actor = cast.deal(of_request)
    assert np.array_equal(cast.agent_of_actor[actor], of_request)
    for a, count in enumerate(counts):
        turns = actor[of_request == a] - cast.first[a]
        assert turns.tolist() == [i % count for i in range(len(turns))]
        assert list(cast.actors_of(a)) == np.flatnonzero(cast.agent_of_actor == a).tolist()
    assert len(set(cast.names)) == sum(counts)
    assert [agent_of(name) for name in cast.names] == [cast.agents[a] for a in cast.agent_of_actor]


def test_actors_are_numbered_where_an_agent_has_several():
    assert Cast(("voip", "iot"), (2, 1)).names == ("voip/1", "voip/2", "iot")


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8), st.integers(1, 8))
def test_by_load_no_actor_carries_more_than_a_core_s_share_and_none_is_in_vain(loads, cores):
    counts = counts_by_load(loads, cores)
    for load, count in zip(loads, counts, strict=True):
        assert load * cores <= sum(loads) * count
        assert count == 1 or load * cores > sum(loads) * (count - 1)


@pytest.mark.parametrize(("cores", "counts"), [(1, (1, 1, 1)), (2, (2, 1, 1)), (4, (4, 1, 1)), (8, (7, 2, 1))])
def test_more_cores_ask_for_more_actors(monkeypatch, cores, counts):
    monkeypatch.setattr(actors, "usable_cores", lambda: cores)
    config = make_config(method="amarl", actors="by_load")
    assert cast_of(config, ("a", "b", "c"), [80, 15, 5]).counts == counts


@pytest.mark.parametrize(
    "choices", [dict(method="sarl"), dict(method="amarl", deterministic=True), dict(method="amarl-serial")], ids=str
)
def test_by_load_splits_neither_the_central_agent_nor_what_one_thread_does(monkeypatch, choices):
    monkeypatch.setattr(actors, "usable_cores", lambda: 8)
    agents = ("sarl",) if choices["method"] == "sarl" else ("a", "b")
    assert cast_of(make_config(actors="by_load", **choices), agents, [90] * len(agents)).is_one_each


def test_unknown_agents_too_many_actors_and_nonsense_are_refused(toy):
    with pytest.raises(AmarlError, match="actors names iot; the agents of 'amarl' are video, ar, voice"):
        train(toy, "amarl", 0, days=1, actors={"iot": 2})
    with pytest.raises(AmarlError, match=f"{MOST_ACTORS} at most"):
        train(toy, "amarl", 0, days=1, actors={"video": MOST_ACTORS})
    for nonsense in ("two", 2, None, {"video": 0}, {"video": 1.5}, {"video": True}):
        with pytest.raises(AmarlError, match="actors is .*expected one, by_load, or a number"):
            make_config(actors=nonsense)


# --------------------------------------------------------------------------------------- the records of a run
def test_several_actors_serve_every_request_once_and_pass_the_audit(toy, team):
    run, _ = team
    trace, decisions, ledger = training_trace(toy, run.config), run.simulation.decisions(), run.simulation.ledger()
    assert decisions["request_id"].tolist() == trace.request_id.tolist()
    assert (decisions["agent"].astype(str) == decisions["service"].astype(str)).all(), "an agent stays the service"
    assert set(ledger["agent"].cat.categories) == set(toy.service_ids)
    report = audit(toy, decisions, ledger, trace, "free")
    assert report.ok, report.summary()


def test_the_progress_of_an_agent_sums_over_its_actors(toy, team):
    run, _ = team
    decisions = run.simulation.decisions()
    for agent, rows in run.progress.groupby("agent"):
        assert rows["update"].tolist() == list(range(1, len(rows) + 1))
        for column in ("sim_t_s", "steps", "requests", "accepted", "conflicts", "update_s", "rollout_s", "wait_s"):
            assert rows[column].is_monotonic_increasing, (agent, column)
        served, last = decisions[decisions["agent"] == agent], rows.iloc[-1]
        assert 0 <= len(served) - last["requests"] < AFTER_THE_LAST_UPDATE
        assert 0 <= served["accepted"].sum() - last["accepted"] < AFTER_THE_LAST_UPDATE
        assert rows["gos"].between(0, 1).all() and rows["gos_recent"].between(0, 1).all()
    last = run.progress.groupby("agent")[["steps", "requests", "update"]].max()
    for agent, entry in run.timing["by_agent"].items():
        assert entry["actors"] == SPLIT.get(agent, 1)
        assert 0 <= entry["steps"] - last["steps"][agent] <= entry["actors"]
        assert 0 <= entry["requests"] - last["requests"][agent] < AFTER_THE_LAST_UPDATE
        assert entry["updates"] == last["update"][agent]
    for total, name in (("env_steps", "steps"), ("requests", "requests"), ("updates", "updates")):
        assert run.timing[total] == sum(entry[name] for entry in run.timing["by_agent"].values())


def test_actors_of_an_agent_train_its_one_model_and_the_team_serves_by_it(toy, toy_day, team):
    run, _ = team
    assert len(run.models) == len(toy.service_ids) == run.nets.actor_1.shape[0]
    for a, (model, entry) in enumerate(zip(run.models, run.timing["by_agent"].values(), strict=True)):
        assert 0 <= entry["steps"] - model.num_timesteps <= entry["actors"]
        assert np.array_equal(run.nets.actor_1[a, :-1], model.policy.mlp_extractor.policy_net[0].weight.detach().T)
    assert evaluate(run, toy_day)["accepted"].mean() > 0.9


def test_a_run_of_several_actors_is_recorded_and_loads_as_it_was(toy, toy_day, team):
    run, _ = team
    assert read_json(run.folder / "config.json")["actors"] == SPLIT
    assert {path.name for path in (run.folder / "tensorboard").iterdir()} == set(toy.service_ids)
    assert set(read_frame(run.folder / "progress.parquet")["agent"]) == set(toy.service_ids)
    loaded = load_run(run.folder, toy)
    assert loaded.config == run.config
    alike = [play_trace(one, toy_day, "arrival", 3, window=0).decisions for one in (run, loaded)]
    assert alike[0].equals(alike[1])


def test_a_watch_sees_agents_not_actors(toy, team):
    run, watch = team
    latest, entries = watch.history.latest, run.timing["by_agent"].values()
    assert latest[:, REQUESTS].tolist() == watch.requests.tolist() == [entry["requests"] for entry in entries]
    assert latest[:, STEPS].tolist() == [entry["steps"] for entry in entries]
    assert watch.updates() == [entry["updates"] for entry in entries]
    assert (latest[:, CLOCK] <= 2 * 86_400).all()


def test_actors_keep_to_the_lag_among_themselves(toy):
    run = train(toy, "amarl", 0, days=2, lag_s=900.0, actors=SPLIT)
    ledger = run.simulation.ledger()
    actor = run.simulation.arena.shared.ledger["agent"][: len(ledger)]
    as_agents = ledger.assign(agent=pd.Categorical.from_codes(actor, run.simulation.cast.names))
    assert furthest_ahead(as_agents, len(run.simulation.cast.names)) <= 900.0


def test_by_load_splits_a_service_that_carries_most(toy, monkeypatch):
    monkeypatch.setattr(actors, "usable_cores", lambda: 4)
    run = train(toy, "amarl", 0, days=1, actors="by_load")
    entries = run.timing["by_agent"].values()
    share = run.timing["env_steps"] / 4
    assert max(entry["actors"] for entry in entries) > 1
    assert all(entry["steps"] / entry["actors"] < 1.2 * share for entry in entries)


def test_one_actor_each_is_the_mapping_that_says_so(toy):
    plain = train(toy, "amarl", 1, days=1, deterministic=True)
    said = train(toy, "amarl", 1, days=1, deterministic=True, actors={"video": 1})
    assert plain.simulation.decisions().equals(said.simulation.decisions())
    pd.testing.assert_frame_equal(plain.progress.drop(columns=WALL_CLOCK), said.progress.drop(columns=WALL_CLOCK))


def test_an_actor_that_fails_is_named(toy, monkeypatch):
    roll_out = Simulation.roll_out

    def failing(simulation, a, *rest):
        if simulation.cast.names[a] == "ar/3":
            raise ValueError("broken on purpose")
        return roll_out(simulation, a, *rest)

    monkeypatch.setattr(Simulation, "roll_out", failing)
    with pytest.raises(AgentError, match="^ar/3: ValueError: broken on purpose"):
        train(toy, "amarl", 0, days=1, actors=SPLIT)
