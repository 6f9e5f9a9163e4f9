"""The environment: Gymnasium's contract, and the compiled rollout to the bit."""

import gymnasium.utils.env_checker
import numpy as np
import pytest
import stable_baselines3.common.env_checker
from sb3_contrib import MaskablePPO
from worlds import make_network, make_trace, make_world

from amarl_core.arena import DONE
from amarl_core.audit import audit
from amarl_core.config import SELFISH, make_config
from amarl_core.env import RoutingEnv
from amarl_core.errors import AmarlError
from amarl_core.routing import CAUSES
from amarl_core.simulation import Simulation, options_for
from amarl_core.stock import stock_rate
from amarl_core.teams import untrained


class EndOfTrace(Exception):
    """Raised instead of starting over, so that a test can read the records of a whole day."""


def stop_at_the_end(env) -> RoutingEnv:
    """Let the environment stop when its trace is over."""

    def end():
        raise EndOfTrace

    env._start_over = end
    return env


def choose_at_random(env, seed: int = 0) -> None:
    """Serve the whole trace, taking allowed slots at random; the flows that are left depart."""
    draw = np.random.default_rng(seed)
    try:
        while True:
            env.reset()
            done = False
            while not done:
                action = int(draw.choice(np.flatnonzero(env.action_masks())))
                *_, done, _, _ = env.step(action)
    except EndOfTrace:
        env.drain()


def unclogged(decisions):
    """Return decisions without the agent's name, which differs between environment and rollout."""
    return decisions.drop(columns="agent")


# --------------------------------------------------------------------------------------------- the contract
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("service", [None, "video"])
@pytest.mark.parametrize("settings", [{}, SELFISH], ids=["default", "selfish"])
def test_gymnasium_s_check_passes(toy, toy_day, service, settings):
    env = RoutingEnv(toy, toy_day, service, make_config(**settings))
    for _ in range(5):  # the check samples actions at random
        gymnasium.utils.env_checker.check_env(env, skip_render_check=True)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("service", [None, "ar"])
@pytest.mark.parametrize("settings", [{}, SELFISH], ids=["default", "selfish"])
def test_stable_baselines_check_passes(toy, toy_day, service, settings):
    env = RoutingEnv(toy, toy_day, service, make_config(**settings))
    for _ in range(5):
        stable_baselines3.common.env_checker.check_env(env)


def test_a_masked_slot_is_refused_with_the_allowed_ones_and_a_remedy(toy, toy_day):
    env = RoutingEnv(toy, toy_day)
    env.reset(seed=0)
    masked = np.flatnonzero(~env.action_masks())
    assert len(masked) > 0
    links = env.simulation.agents[0].work.walk[0]["n_links"]
    for action in masked:
        with pytest.raises(AmarlError, match=f"slot {action} is masked") as error:
            env.step(int(action))
        assert str(np.flatnonzero(env.action_masks()).tolist()) in str(error.value)
        assert "MaskablePPO" in str(error.value)
    assert env.simulation.agents[0].work.walk[0]["n_links"] == links, "a refused step changes nothing"


@pytest.mark.parametrize("shift", [-1, 1], ids=["negative", "beyond"])
def test_a_number_that_is_no_slot_is_refused(toy, toy_day, shift):
    """An allowed slot counted from the end, as numpy would read it, or one beyond all."""
    env = RoutingEnv(toy, toy_day)
    env.reset(seed=0)
    action = int(np.flatnonzero(env.action_masks())[0]) + shift * int(env.action_space.n)
    with pytest.raises(AmarlError, match=f"action is {action};"):
        env.step(action)


def test_a_step_after_the_end_of_an_episode_is_refused_and_commits_nothing(toy, toy_day):
    env = RoutingEnv(toy, toy_day)
    env.reset(seed=0)
    done = False
    while not done:
        *_, done, _, _ = env.step(int(np.flatnonzero(env.action_masks())[0]))
    events = len(env.ledger())
    with pytest.raises(AmarlError, match="reset"):
        env.step(0)
    assert len(env.ledger()) == events


def test_sampled_actions_are_allowed(toy, toy_day):
    env = RoutingEnv(toy, toy_day)
    env.reset(seed=0)
    env.action_space.seed(1)
    for _ in range(200):
        _, _, done, _, _ = env.step(env.action_space.sample())
        if done:
            env.reset()


def test_a_seed_starts_the_day_over(toy, toy_day):
    env = RoutingEnv(toy, toy_day)
    first, _ = env.reset(seed=5)
    mask = env.action_masks()
    second, _ = env.reset()
    assert not np.array_equal(first, second), "without a seed the next request follows"
    for _ in range(50):
        env.reset()
    again, _ = env.reset(seed=5)
    assert np.array_equal(first, again) and np.array_equal(mask, env.action_masks())
    assert len(env.ledger()) == env.reset(seed=5)[1]["settled_accepted"]


def test_at_the_end_of_the_trace_the_network_is_empty_and_the_first_request_follows(toy, toy_day):
    trace = toy_day.head(30)
    env = RoutingEnv(toy, trace)
    first, _ = env.reset(seed=0)
    simulation, steps = env.simulation, 0
    while env.simulation is simulation:
        _, _, done, _, _ = env.step(int(np.flatnonzero(env.action_masks())[0]))
        steps += 1
        observation = env.reset()[0] if done else None
    assert steps > 10
    assert np.array_equal(observation, first)


def forced_world():
    """A line: from S over A to the pool P there is never a choice; the pool has room for one request."""
    network = make_network(
        {"S": ("du", 0, False), "A": ("agg", 0, True), "P": ("cu", 20, True)},
        {"S-A": (10**6, 1.0), "A-P": (10**6, 1.0)},
    )
    return make_world(network, {"F": 0.1}, {"s": (("F",), 50.0)}, {("P", "F"): 1000})


def test_a_trace_that_never_needs_a_choice_is_an_error_and_not_an_endless_loop():
    world = forced_world()
    trace = make_trace(world, [(float(t), "s", "S", "P", 10_000, 0.5) for t in range(5)])
    env = RoutingEnv(world, trace, config=make_config(may_refuse=False))
    with pytest.raises(AmarlError, match="choice"):
        env.reset(seed=0)


def test_requests_without_a_choice_are_settled_and_recorded_in_reset():
    world = forced_world()
    trace = make_trace(world, [(0.0, "s", "S", "P", 10_000, 9.0), (1.0, "s", "S", "P", 10_000, 9.0),
                               (20.0, "s", "S", "P", 10_000, 9.0)])  # fmt: skip
    env = stop_at_the_end(RoutingEnv(world, trace, config=make_config(may_refuse=False)))
    with pytest.raises(EndOfTrace):
        env.reset()
    env.drain()
    assert env.decisions()["cause"].astype(str).tolist() == ["accepted", "dead_end_compute", "accepted"]
    assert audit(world, env.decisions(), env.ledger(), trace).ok


def test_a_request_that_may_be_refused_begins_with_a_choice_of_one_or_more():
    """What the agent decides there is whether to serve it; a later hop without a choice is walked on its own."""
    world = forced_world()
    trace = make_trace(world, [(0.0, "s", "S", "P", 10_000, 0.5)])
    env = RoutingEnv(world, trace, config=make_config(may_refuse=True))
    env.reset(seed=0)
    assert env.action_masks().sum() == 1
    _, _, terminated, _, info = env.step(int(env.action_masks().argmax()))
    assert terminated and info["is_success"]


def test_the_last_step_s_reward_includes_the_outcome(toy, toy_day):
    config = make_config(success=1.0, failure=-0.5, beta=0.0, hop_cost=0.01)
    env = stop_at_the_end(RoutingEnv(toy, toy_day, config=config))
    draw, seen = np.random.default_rng(0), {True: 0, False: 0}
    try:
        while True:
            env.reset()
            done, total, hops = False, 0.0, int(env.simulation.agents[0].work.walk[0]["n_links"])
            while not done:
                _, reward, done, truncated, info = env.step(int(draw.choice(np.flatnonzero(env.action_masks()))))
                total += reward
                assert not truncated
            hops = int(env.simulation.agents[0].work.walk[0]["n_links"]) - hops
            assert info["is_success"] == (info["cause"] == "accepted")
            assert info["cause"] in CAUSES
            assert total == pytest.approx((1.0 if info["is_success"] else -0.5) - 0.01 * hops)
            seen[info["is_success"]] += 1
    except EndOfTrace:
        pass
    assert seen[True] > 100 and seen[False] > 0


def test_a_day_of_random_choices_passes_the_audit(toy, toy_day):
    env = stop_at_the_end(RoutingEnv(toy, toy_day))
    choose_at_random(env)
    report = audit(toy, env.decisions(), env.ledger(), toy_day)
    assert report.ok, report.summary()
    assert report.requests == len(toy_day) > report.admissions > 0


def test_unknown_services_and_empty_traces_are_refused(toy, toy_day):
    with pytest.raises(AmarlError, match="'vidoe'.*video, ar, voice"):
        RoutingEnv(toy, toy_day, "vidoe")
    with pytest.raises(AmarlError, match="no request"):
        RoutingEnv(toy, toy_day.head(0))
    with pytest.raises(AmarlError, match="no request"):
        RoutingEnv(toy, toy_day[toy_day.service != 0], toy.service_ids[0])


# ------------------------------------------------------------------------- the compiled rollout, to the bit
def rolled_out(toy, trace, config):
    """Serve a trace in the compiled rollout with a sampling agent; return (simulation, its buffer)."""
    run = untrained(toy, config)
    simulation = Simulation(toy, run.world, trace, run.team, run.nets, options_for(config, learn=True),
                            [8 * len(trace) + config.max_hops])  # fmt: skip
    np.random.default_rng(7).random(out=simulation.agents[0].buffer.uniform)
    assert simulation.roll_out(0) == DONE
    return simulation, simulation.agents[0].buffer


@pytest.mark.parametrize("service, settings", [
    (None, {}),
    ("video", {}),
    ("ar", {}),
    ("voice", dict(mask="delay")),
    (None, SELFISH),
    (None, dict(mask="delay")),
    (None, dict(mask="immediate", max_slots=3, max_hops=7, success=0.3, failure=-0.7, beta=0.123)),
    (None, dict(beta=5.0, most_charged=0.7)),
], ids=["all", "video", "ar", "voice", "selfish", "delay", "few slots", "dear"])  # fmt: skip
def test_the_rollout_and_the_environment_agree_to_the_bit(toy, toy_day, service, settings):
    """The same actions give the same observations, masks, rewards, outcomes and ledger."""
    config = make_config(method="sarl", **settings)
    trace = toy_day if service is None else toy_day[toy_day.service == toy.service_ids.index(service)]
    simulation, buffer = rolled_out(toy, trace, config)
    n = int(buffer.fill[0])
    assert n > 300
    env, b = stop_at_the_end(RoutingEnv(toy, toy_day, service, config)), 0
    try:
        while True:
            observation, _ = env.reset()
            done = False
            while not done:
                np.testing.assert_array_equal(observation, buffer.observation[b])
                np.testing.assert_array_equal(env.action_masks(), buffer.mask[b])
                observation, reward, done, _, _ = env.step(int(buffer.action[b]))
                assert np.float32(reward) == buffer.reward[b], f"decision {b}"
                b += 1
    except EndOfTrace:
        env.drain()
    assert b == n
    assert unclogged(env.decisions()).equals(unclogged(simulation.decisions()))
    assert env.ledger().drop(columns="agent").equals(simulation.ledger().drop(columns="agent"))
    assert 0 < env.decisions()["accepted"].mean() < 1
    assert audit(toy, env.decisions(), env.ledger(), trace).ok


def test_advantages_and_returns_are_those_of_the_rewards(toy, toy_day):
    """GAE by its definition, request by request: the advantage of the last choice has no next value."""
    config = make_config(method="sarl", gamma=0.9, gae_lambda=0.8)
    simulation, buffer = rolled_out(toy, toy_day, config)
    env, b, checked = stop_at_the_end(RoutingEnv(toy, toy_day, config=config)), 0, 0
    try:
        while True:
            env.reset()
            first, done = b, False
            while not done:
                *_, done, _, _ = env.step(int(buffer.action[b]))
                b += 1
            advantage, next_value = 0.0, 0.0
            for i in range(b - 1, first - 1, -1):
                delta = float(buffer.reward[i]) + 0.9 * next_value - float(buffer.value[i])
                advantage = delta + 0.9 * 0.8 * advantage
                next_value = float(buffer.value[i])
                assert buffer.advantage[i] == pytest.approx(advantage, abs=1e-5)
                assert buffer.returns[i] == pytest.approx(advantage + buffer.value[i], abs=1e-5)
            checked += b - first > 1
    except EndOfTrace:
        pass
    assert b == buffer.fill[0] and checked > 100


# ------------------------------------------------------------------------------------------------- the peer
def test_stock_maskable_ppo_learns_on_it(toy, toy_day):
    """Untouched sb3-contrib: a few hundred steps, and its predictions obey the masks."""
    env = RoutingEnv(toy, toy_day)
    model = MaskablePPO("MlpPolicy", env, n_steps=128, batch_size=64, n_epochs=2, seed=0, device="cpu")
    before = model.policy.action_net.weight.detach().clone()
    model.learn(384)
    assert model.num_timesteps == 384
    assert not before.equal(model.policy.action_net.weight)
    observation, _ = env.reset(seed=1)
    for _ in range(50):
        action, _ = model.predict(observation, action_masks=env.action_masks())
        assert env.action_masks()[action]
        observation, _, done, _, _ = env.step(int(action))
        if done:
            observation, _ = env.reset()


def test_the_stock_rate_counts_what_was_done(toy):
    rate = stock_rate(toy, 256)
    assert rate["env_steps"] >= 256
    assert rate["steps_per_s"] == pytest.approx(rate["env_steps"] / rate["seconds"])
