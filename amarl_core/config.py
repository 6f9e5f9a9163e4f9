"""How a run is set up: every choice the paper leaves open, in one frozen, checked dataclass.

How the defaults were chosen: on training days only, never on a held-out day, by the GoS that both methods reach on
validation days and the wall-clock they take (`python -m amarl_core.tune` prints the table).
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from amarl_core.errors import AmarlError
from amarl_core.inference import ACTIVATIONS
from amarl_core.routing import MASKS, SLOT_ORDERS

METHODS = ("sarl", "amarl")
"""The paper's: one central agent, and one agent per service."""

ALL_METHODS = (*METHODS, "sarl-async", "amarl-serial", "amarl-sync")
"""And what lies between them: six actors of one policy, six policies on one thread, six agents in step."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Raises:
        AmarlError: a value outside its range, with the range.
    """

    method: str = "amarl"  # one of ALL_METHODS
    seed: int = 0
    days: int = 16  # training days, one continuous timeline
    passes: int = 1  # traversals of those days
    # the request
    mask: str = "reachable"  # action mask: immediate (the paper), delay, or reachable, which `ablate_masks` compares
    slot_order: str = "priced"  # order of the neighbour slots: priced or static
    max_slots: int = 10  # neighbours kept at most
    max_hops: int = 24  # links of a walk at most
    mu: float = 1000.0  # base of the exponential price mu^u - 1
    # the reward: success or failure, minus beta x priced cost x holding time, minus hop_cost a hop
    success: float = 1.0
    failure: float = -1.0
    beta: float = 0.05  # for a service that holds for 10 minutes on average; twice for one that holds for 20
    most_charged: float = 3.0  # for the prices of one request: it is refused from `success - failure` on
    may_refuse: bool = True  # whether an agent refuses what its critic expects to earn less than `failure`
    hop_cost: float = 0.005
    # asynchrony while training
    lag_s: float = 3600.0  # how far an agent's clock may run ahead of the slowest, s of simulated time
    # the network and Maskable PPO
    width: int = 32  # units of each of the two hidden layers, actor and critic apart
    activation: str = "relu"
    learning_rate: float = 3e-3  # falls linearly to final_learning_rate
    final_learning_rate: float = 2e-4
    rollouts_per_day: int = 16  # an agent's rollout is its own decisions of a day divided by this
    minibatch: int = 2048  # decisions
    epochs: int = 2
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    entropy_weight: float = 0.003
    value_weight: float = 0.5
    max_grad_norm: float = 0.5
    torch_threads: int = 1  # of each agent's update; 2 made SARL slower on 2 cores (54 s of updates, not 20)
    deterministic: bool = False  # one thread, agents take turns in order of time

    def __post_init__(self) -> None:
        for name, valid in (
            ("method", ALL_METHODS),
            ("mask", MASKS),
            ("slot_order", SLOT_ORDERS),
            ("activation", ACTIVATIONS),
        ):
            value = getattr(self, name)
            if value not in valid:
                raise AmarlError(f"{name} is {value!r}; expected one of {', '.join(valid)}")
        for name in ("days", "passes", "max_slots", "max_hops", "width", "torch_threads", "rollouts_per_day", "epochs"):
            self._check(name, int, 1)
        self._check("minibatch", int, 2)
        self._check("seed", int, 0)
        for name in ("beta", "most_charged", "hop_cost", "lag_s", "entropy_weight", "value_weight"):
            self._check(name, float, 0.0)
        for name in ("learning_rate", "final_learning_rate", "clip_range", "max_grad_norm"):
            self._check(name, float, 1e-9)
        for name in ("gamma", "gae_lambda"):
            self._check(name, float, 0.0, 1.0)
        for name in ("success", "failure"):
            self._check(name, float, -1e6)
        self._check("mu", float, 1.0 + 1e-9)
        for name in ("deterministic", "may_refuse"):
            if not isinstance(getattr(self, name), bool):
                raise AmarlError(f"{name} is {getattr(self, name)!r}; expected True or False")

    @property
    def is_serial(self) -> bool:
        """Whether agents take turns on one thread, in order of time."""
        return self.deterministic or self.method == "amarl-serial"

    @property
    def is_synchronised(self) -> bool:
        """Whether agents wait for each other at every update."""
        return self.method == "amarl-sync" and not self.deterministic

    @property
    def shares_policy(self) -> bool:
        """Whether all actors act by one policy."""
        return self.method == "sarl-async"

    def _check(self, name: str, kind: type, least: float, most: float = 1e9) -> None:
        value = getattr(self, name)
        if name == "lag_s" and value == float("inf"):
            return  # unbounded lag
        is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if not is_number or not least <= value <= most or (kind is int and value != int(value)):
            wanted = "an integer" if kind is int else "a number"
            raise AmarlError(f"{name} is {value!r}; expected {wanted} from {least:g} to {most:g}")


SELFISH = dict(beta=0.0, hop_cost=0.02, slot_order="static", may_refuse=False)
"""The ablation: an agent is paid for its own acceptance alone, never refuses, and slots stand in static order."""


def make_config(**choices: object) -> TrainConfig:
    """Return a configuration; an unknown name is refused with the valid ones.

    A `lag_s` of None is no bound: JSON, in which configurations are kept, has no word for infinity.

    Raises:
        AmarlError: an unknown name or a value out of range.
    """
    valid = [field.name for field in dataclasses.fields(TrainConfig)]
    unknown = sorted(set(choices) - set(valid))
    if unknown:
        raise AmarlError(f"unknown setting {', '.join(unknown)}; the valid ones are {', '.join(valid)}")
    if "lag_s" in choices and choices["lag_s"] is None:
        choices["lag_s"] = float("inf")
    return TrainConfig(**choices)
