"""The policy's forward pass inside the kernels: two small actor-critic networks per agent, from torch weights.

The weights of all agents stand side by side, agent first, so that one array serves SARL (one agent) and AMARL
(one per service). An agent overwrites only its own slice, between its own rollouts.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from amarl_core.native import INLINE, INNER, KERNEL

TANH, RELU = 0, 1
ACTIVATIONS = ("tanh", "relu")


class Nets(NamedTuple):
    """Weights of A agents' networks: observation O -> hidden W -> hidden W -> M slots, and -> value."""

    actor_1: np.ndarray  # float32[A, O + 1, W], the last row is the bias
    actor_2: np.ndarray  # float32[A, W + 1, W]
    actor_3: np.ndarray  # float32[A, W + 1, M]
    critic_1: np.ndarray  # float32[A, O + 1, W]
    critic_2: np.ndarray  # float32[A, W + 1, W]
    critic_3: np.ndarray  # float32[A, W + 1, 1]
    activation: np.ndarray  # int64[1], TANH or RELU


class Scratch(NamedTuple):
    """One thread's layer outputs."""

    hidden_1: np.ndarray  # float32[W]
    hidden_2: np.ndarray  # float32[W]
    logits: np.ndarray  # float32[M]
    value: np.ndarray  # float32[1]


def make_nets(n_agents: int, n_inputs: int, width: int, n_slots: int, activation: str) -> Nets:
    """Return zeroed weights."""

    def layer(rows: int, columns: int) -> np.ndarray:
        return np.zeros((n_agents, rows + 1, columns), np.float32)

    return Nets(
        layer(n_inputs, width),
        layer(width, width),
        layer(width, n_slots),
        layer(n_inputs, width),
        layer(width, width),
        layer(width, 1),
        np.array([ACTIVATIONS.index(activation)]),
    )


def make_scratch(nets: Nets) -> Scratch:
    """Return layer outputs for one thread."""
    width, n_slots = nets.actor_3.shape[1] - 1, nets.actor_3.shape[2]
    return Scratch(
        np.zeros(width, np.float32),
        np.zeros(width, np.float32),
        np.zeros(n_slots, np.float32),
        np.zeros(1, np.float32),
    )


@njit(**INNER)
def _linear(x, weights, y):
    """y = x W + b, row by row so that the compiler can use vector instructions."""
    n_inputs, n_outputs = x.shape[0], y.shape[0]
    for j in range(n_outputs):
        y[j] = weights[n_inputs, j]
    for i in range(n_inputs):
        a = x[i]
        if a != 0.0:
            for j in range(n_outputs):
                y[j] += a * weights[i, j]


@njit(**INNER)
def _linear_of_hidden(x, weights, y):
    """The same for outputs of a layer: which are zero is hard to predict, so that skipping them takes longer."""
    n_inputs, n_outputs = x.shape[0], y.shape[0]
    for j in range(n_outputs):
        y[j] = weights[n_inputs, j]
    for i in range(n_inputs):
        a = x[i]
        for j in range(n_outputs):
            y[j] += a * weights[i, j]


@njit(**INNER)
def _activate(y, activation):
    if activation == TANH:
        for j in range(y.shape[0]):
            y[j] = np.float32(math.tanh(y[j]))
    else:
        for j in range(y.shape[0]):
            y[j] = max(np.float32(0.0), y[j])


@njit(**INLINE)
def actor(nets, agent, observation, scratch):
    """Write the logits of all slots."""
    _linear(observation, nets.actor_1[agent], scratch.hidden_1)
    _activate(scratch.hidden_1, nets.activation[0])
    _linear_of_hidden(scratch.hidden_1, nets.actor_2[agent], scratch.hidden_2)
    _activate(scratch.hidden_2, nets.activation[0])
    _linear_of_hidden(scratch.hidden_2, nets.actor_3[agent], scratch.logits)


@njit(**KERNEL)
def critic(nets, agent, observation, scratch):
    """Return the value of an observation."""
    _linear(observation, nets.critic_1[agent], scratch.hidden_1)
    _activate(scratch.hidden_1, nets.activation[0])
    _linear_of_hidden(scratch.hidden_1, nets.critic_2[agent], scratch.hidden_2)
    _activate(scratch.hidden_2, nets.activation[0])
    _linear_of_hidden(scratch.hidden_2, nets.critic_3[agent], scratch.value)
    return scratch.value[0]


@njit(**INLINE)
def most_likely(logits, mask):
    """Return the allowed slot with the largest logit (the first of equals)."""
    best = -1
    for i in range(mask.shape[0]):
        if mask[i] and (best < 0 or logits[i] > logits[best]):
            best = i
    return best


@njit(**INLINE)
def sample(logits, mask, uniform):
    """Draw an allowed slot from the masked softmax.

    Args:
        logits: float32[M].
        mask: bool[M], at least one allowed.
        uniform: a draw from [0, 1).

    Returns:
        (slot, log-probability).
    """
    top = logits[most_likely(logits, mask)]
    total = 0.0
    for i in range(mask.shape[0]):
        if mask[i]:
            total += math.exp(logits[i] - top)
    left = uniform * total
    chosen = -1
    for i in range(mask.shape[0]):
        if mask[i]:
            chosen = i
            left -= math.exp(logits[i] - top)
            if left < 0.0:
                break
    return chosen, logits[chosen] - top - math.log(total)
