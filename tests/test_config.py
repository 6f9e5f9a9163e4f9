"""Settings: every value is checked on construction, and a name that does not exist is refused."""

import dataclasses
import math

import numpy as np
import pytest

from amarl_core.config import METHODS, SELFISH, TrainConfig, make_config
from amarl_core.errors import AmarlError
from amarl_core.inference import ACTIVATIONS
from amarl_core.routing import MASKS, SLOT_ORDERS


def test_the_defaults_are_valid():
    assert make_config() == TrainConfig()


def test_an_unknown_setting_is_refused_with_all_valid_names():
    with pytest.raises(AmarlError) as error:
        make_config(learning_rat=0.1, seeed=3)
    assert "learning_rat" in str(error.value) and "seeed" in str(error.value)
    for field in dataclasses.fields(TrainConfig):
        assert field.name in str(error.value)


@pytest.mark.parametrize("name, valid", [
    ("method", METHODS), ("mask", MASKS), ("slot_order", SLOT_ORDERS), ("activation", ACTIVATIONS),
])  # fmt: skip
def test_a_choice_that_does_not_exist_is_refused_with_the_valid_ones(name, valid):
    with pytest.raises(AmarlError, match=name) as error:
        make_config(**{name: "nonsense"})
    assert "'nonsense'" in str(error.value)
    assert all(choice in str(error.value) for choice in valid)
    for choice in valid:
        assert getattr(make_config(**{name: choice}), name) == choice


@pytest.mark.parametrize("name, value", [
    *[(name, value) for name in ("days", "passes", "max_slots", "max_hops", "width", "rollouts_per_day", "epochs")
      for value in (0, -1, 1.5, "2", None, True, math.nan, math.inf)],
    ("minibatch", 1),
    ("seed", -1), ("seed", 0.5), ("seed", False),
    *[(name, value) for name in ("learning_rate", "final_learning_rate", "clip_range", "max_grad_norm")
      for value in (0.0, -1e-3, math.nan, math.inf, "0.1")],
    *[(name, value) for name in ("beta", "hop_cost", "entropy_weight", "value_weight")
      for value in (-0.1, math.nan, math.inf, None)],
    ("lag_s", -1.0), ("lag_s", math.nan),
    ("gamma", 1.01), ("gamma", -0.1), ("gae_lambda", 2), ("gae_lambda", math.nan),
    ("mu", 1.0), ("mu", 0.5), ("mu", math.inf),
    ("success", math.nan), ("success", "x"), ("failure", -math.inf),
    ("deterministic", "no"), ("deterministic", 1),
])  # fmt: skip
def test_a_value_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(AmarlError, match=f"^{name} is "):
        make_config(**{name: value})


@pytest.mark.parametrize("name, value", [
    ("lag_s", math.inf), ("lag_s", 0), ("gamma", 1.0), ("gamma", 0), ("minibatch", 2), ("seed", np.int64(3)),
    ("beta", 0), ("failure", 0), ("learning_rate", np.float32(1e-3)),
])  # fmt: skip
def test_a_value_at_the_edge_of_its_range_is_accepted(name, value):
    assert getattr(make_config(**{name: value}), name) == value


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_config().seed = 3


def test_the_ablation_names_settings_that_exist():
    selfish = make_config(**SELFISH)
    assert (selfish.beta, selfish.slot_order) == (0.0, "static")
