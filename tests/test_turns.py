"""All agents on one thread: the compiled loop does what plain turn-taking in Python does, to the bit."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_agents import weights_of
from worlds import contended, offer

from amarl_core.agents import Training, train
from amarl_core.arena import AHEAD, CACHE_LINE, buffer_of, make_rollouts

CLOCKS = ["wall_s", "wait_s", "update_s", "rollout_s"]


def take_turns_in_python(training: Training, _: int):
    """The reference: always let the agent with the earliest next event go on, up to the next agent's event."""
    torch.set_num_threads(1)
    clock = training.simulation.arena.gate.clock
    while not all(training.is_done) and not training.simulation.stopped:
        waiting = [a for a in range(len(clock)) if not training.is_done[a]]
        a = min(waiting, key=lambda agent: clock[agent])
        horizon_s = min((clock[b] for b in waiting if b != a), default=np.inf)
        training.learn_once(a, max(horizon_s, clock[a]))


def six_services():
    world = contended()
    trace = offer(world, 1500, 3, gap_s=1.0, hold_s=60.0)
    trace.t_s[700:720] = trace.t_s[700]  # several agents' events at one instant
    return world, trace


def both_ways(monkeypatch, world, trace, **choices):
    """Train compiled and by the reference."""
    compiled = train(world, trace=trace, days=1, **choices)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "take_turns", take_turns_in_python)
        return compiled, train(world, trace=trace, days=1, **choices)


@pytest.mark.parametrize(
    "choices",
    [
        dict(method="amarl", deterministic=True),
        dict(method="amarl-serial", rollouts_per_day=40),
        dict(method="sarl", deterministic=True),
        dict(method="sarl-async", deterministic=True),
        dict(method="sarl", deterministic=True, actors={"sarl": 3}),
    ],
    ids=lambda choices: choices["method"] + " of 3" * ("actors" in choices),
)
@pytest.mark.parametrize("place", ["toy", "six services"])
def test_the_compiled_loop_is_turn_taking_in_python_to_the_bit(monkeypatch, toy, place, choices):
    world, trace = (toy, toy.training_trace(seed=4, days=1).head(1200)) if place == "toy" else six_services()
    compiled, reference = both_ways(monkeypatch, world, trace, seed=2, **choices)
    assert compiled.status == reference.status == "finished"
    assert compiled.simulation.decisions().equals(reference.simulation.decisions())
    assert compiled.simulation.ledger().equals(reference.simulation.ledger())
    assert all(np.array_equal(a, b) for a, b in zip(weights_of(compiled), weights_of(reference), strict=True))
    pd.testing.assert_frame_equal(compiled.progress.drop(columns=CLOCKS), reference.progress.drop(columns=CLOCKS))
    assert len(compiled.progress) > len(compiled.team.agents), "there were updates to be in time for"


def test_the_time_of_every_turn_is_noted_and_noted_once(toy, monkeypatch):
    noted, learn = [], Training._learn_from_rollout

    def listen(training, a, code, rollout_s):
        noted.append(rollout_s)
        learn(training, a, code, rollout_s)
        assert code == AHEAD or training.simulation.agents[a].stream["turns_ns"][0] in (0, round(1e9 * rollout_s))

    monkeypatch.setattr(Training, "_learn_from_rollout", listen)
    run = train(toy, "amarl-serial", 0, days=1)
    assert len(noted) > len(run.progress) and all(seconds > 0 for seconds in noted)
    assert all(agent.stream["turns_ns"][0] == 0 for agent in run.simulation.agents)


def test_rollouts_share_no_memory_and_no_cache_line():
    rollouts = make_rollouts([3, 0, 130, 1], n_inputs=7, n_slots=5)
    parts = [buffer_of.py_func(rollouts, a) for a in range(4)]
    assert [len(part.action) for part in parts] == [3, 0, 130, 1]
    for name in parts[0]._fields:
        owners = [getattr(part, name) for part in parts if len(getattr(part, name))]
        assert all(owner.flags.c_contiguous for owner in owners)
        spans = [(owner.ctypes.data, owner.ctypes.data + owner.nbytes) for owner in owners]
        assert all(later - earlier >= CACHE_LINE for (earlier, _), (later, _) in zip(spans, spans[1:], strict=False))
        assert all(end <= later for (_, end), (later, _) in zip(spans, spans[1:], strict=False))
