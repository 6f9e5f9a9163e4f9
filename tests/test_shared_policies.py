"""Shared policies: no actor reads weights that are being written, and none waits to read them."""

import threading

import numpy as np
import pytest

from amarl_core.actors import Cast
from amarl_core.agents import Training, train
from amarl_core.config import make_config
from amarl_core.inference import make_nets
from amarl_core.policy import build_model
from amarl_core.shared_policies import SharedPolicies

INPUTS, SLOTS = 5, 3


@pytest.fixture
def policies():
    """Two agents; the first has two actors."""
    config = make_config(width=4)
    models = [build_model(config, INPUTS, SLOTS, seed) for seed in (0, 1)]
    cast = Cast(("busy", "calm"), (2, 1))
    return SharedPolicies(models, cast, make_nets(3, INPUTS, 4, SLOTS, "relu"))


def bias(policies, a: int) -> np.ndarray:
    return policies.nets.actor_3[a, -1]


def teach(model, value: float) -> None:
    model.policy.action_net.bias.data.fill_(value)


def test_actors_of_an_agent_share_model_and_lock_and_nobody_else_does(policies):
    assert policies.models[0] is policies.models[1] is not policies.models[2]
    assert policies.locks[0] is policies.locks[1] is not policies.locks[2]


def test_an_actor_catches_up_with_what_another_learned_once_it_asks(policies):
    teach(policies.models[0], 1.0)
    policies.copy(0)
    assert (bias(policies, 0) == 1).all() and (bias(policies, 1) == 0).all()
    policies.catch_up(1)
    assert (bias(policies, 1) == 1).all() and (bias(policies, 2) == 0).all()


def test_an_actor_does_not_wait_for_an_update_of_another_and_keeps_whole_weights(policies):
    with policies.locks[0]:
        teach(policies.models[0], 2.0)  # half an update: the rest of the weights is still the old one
        asked = threading.Thread(target=policies.catch_up, args=(1,), daemon=True)
        asked.start()
        asked.join(5.0)
        assert not asked.is_alive() and (bias(policies, 1) == 0).all()
    policies.catch_up(1)
    assert (bias(policies, 1) == 2).all()


def test_a_policy_of_one_actor_is_not_copied_again(policies):
    teach(policies.models[2], 3.0)
    policies.catch_up(2)
    assert (bias(policies, 2) == 0).all(), "its own update copies it"


def test_the_team_is_given_a_slice_an_agent(policies):
    nets = make_nets(2, INPUTS, 4, SLOTS, "relu")
    teach(policies.models[0], 4.0), teach(policies.models[2], 5.0)
    policies.hand_over(nets)
    assert (nets.actor_3[:, -1] == [[4.0], [5.0]]).all()


def test_no_two_actors_update_one_policy_at_once(toy, monkeypatch):
    at_work, update = set(), Training._update

    def watched(training, a, n):
        model = id(training.policies.models[a])
        assert model not in at_work and training.policies.locks[a].locked()
        at_work.add(model)
        try:
            return update(training, a, n)
        finally:
            at_work.remove(model)

    monkeypatch.setattr(Training, "_update", watched)
    run = train(toy, "amarl", 0, days=1, actors={"video": 3})
    assert run.status == "finished" and not at_work
