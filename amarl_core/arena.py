"""The memory of a run: what all threads share, what one thread owns, and the scalars they follow."""

from typing import NamedTuple

import numpy as np
from numba import njit

from amarl_core.arrays import Rules, Work, World
from amarl_core.inference import Nets, Scratch
from amarl_core.native import KERNEL, new_conditions, new_mutex
from amarl_core.store import Shared

DONE, FULL, BUSY, STOPPED, AHEAD, NO_LEDGER, NO_ROOM = range(7)
"""Why a kernel returned: no event left, rollout buffer full, time to look at Ctrl-C, stop flag, beyond the horizon,
ledger full, too many active flows."""

CACHE_LINE = 64
"""Bytes, or rows of at least one byte: what one thread writes at every event should be no nearer to another's."""

EVENTS_PER_CALL = 8192
"""A kernel comes back to Python after so many events, so that Ctrl-C works."""

ROW = np.dtype(
    [
        ("latency", "f8"),
        ("snapshot_version", "i8"),
        ("commit_version", "i8"),
        ("n_links", "i8"),
        ("n_hosts", "i8"),
        ("cause", "i8"),
        ("attempts", "i8"),
    ]
)
STREAM = np.dtype(
    [
        ("clock", "f8"),
        ("reward", "f8"),
        ("cursor", "i8"),
        ("n_active", "i8"),
        ("accepted", "i8"),
        ("conflicts", "i8"),
        ("commits", "i8"),
        ("stale", "i8"),
        ("steps", "i8"),
        ("wait_ns", "i8"),
        ("turns_ns", "i8"),  # served by `turns` since it last came back with this agent
        ("agent", "i8"),
    ]
)


TIMES = np.dtype([("began_ns", "i8"), ("plan_ns", "i8"), ("commit_ns", "i8"), ("routing_wait_ns", "i8")])
"""Wall-clock of one request, over all its attempts: snapshot and plan, commit with its wait for the store's lock, and
the wait for the lock of the whole routing, where there is one."""


class Options(NamedTuple):
    """Scalars of a run, resolved from the configuration."""

    rules: Rules
    attempts: int
    learn: int  # 1 samples and fills the buffer, 0 takes the most likely slot
    lag_s: float
    window: int
    success: float
    failure: float
    hop_cost: float
    beta: float  # weight of the priced cost in the reward
    most_charged: float  # for one request
    gamma: float
    gae_lambda: float
    locks_routing: int = 0  # 1: free order holds one lock from snapshot to commit


class Records(NamedTuple):
    """What became of each of n requests; routes too, so that a departure knows what to give back."""

    rows: np.ndarray  # ROW[n]
    links: np.ndarray  # int16[n, H]
    hosts: np.ndarray  # int16[n, K]
    planned: np.ndarray  # uint8[n + 1], arrival order: the plan is ready for its turn


class Gate(NamedTuple):
    """The waiting room of A agents."""

    mutex: np.ndarray
    conditions: np.ndarray  # int64[A, 16]
    clock: np.ndarray  # float64[A], free order: each agent's next event
    threshold: np.ndarray  # float64[A], progress that an agent waits for; infinite when it does not wait
    served: np.ndarray  # int64[A], free order in evaluation: whether a thread serves this agent now
    state: np.ndarray  # int64[N_STATE]: turn, whether someone settles, agents waiting, first request nobody plans, end


TURN, SETTLING, WAITING, CLAIMED, LIMIT, N_STATE = range(6)
"""Requests from `LIMIT` on are not served: with any beyond it the flows that are active stay so when it is reached."""


class Flows(NamedTuple):
    """A binary heap of active flows by departure time."""

    t_s: np.ndarray  # float64[C]
    row: np.ndarray  # int64[C]


class Lanes(NamedTuple):
    """What belongs to A agents whoever serves them; agent a owns a part of each array."""

    stream: np.ndarray  # STREAM[A]
    mine: np.ndarray  # int64[n], rows of the agents' requests
    flows: Flows  # free order: the agents' heaps
    first_request: np.ndarray  # int64[A + 1], where an agent's part of `mine` begins
    first_flow: np.ndarray  # int64[A + 1], where its heap begins


class Buffer(NamedTuple):
    """One agent's rollout of at most B decisions."""

    observation: np.ndarray  # float32[B, O]
    mask: np.ndarray  # bool[B, M]
    action: np.ndarray  # int64[B]
    log_prob: np.ndarray  # float32[B]
    value: np.ndarray  # float32[B]
    reward: np.ndarray  # float32[B]
    advantage: np.ndarray  # float32[B]
    returns: np.ndarray  # float32[B]
    price: np.ndarray  # float64[B], priced cost of the walk before the decision
    hops: np.ndarray  # int64[B], links of the walk before the decision
    uniform: np.ndarray  # float64[B], draws of the agent's own generator
    fill: np.ndarray  # int64[1]


class Rollouts(NamedTuple):
    """The rollouts of A agents in one buffer; each owns a part of every array, beginning on cache lines of its own."""

    buffer: Buffer
    first: np.ndarray  # int64[A], where an agent's part begins
    size: np.ndarray  # int64[A], its length, but for `fill`, of which it owns one entry
    fill: np.ndarray  # int64[A], where that is


class Arena(NamedTuple):
    """What all threads of a run share."""

    world: World
    shared: Shared
    gate: Gate
    nets: Nets
    requests: np.ndarray  # REQUEST[n], in order of arrival
    records: Records
    lanes: Lanes
    departures: Flows  # arrival order: one heap, owned by whoever settles
    n_departures: np.ndarray  # int64[1]
    routing_mutex: np.ndarray  # int64[16], held from snapshot to commit with Options.locks_routing
    times: np.ndarray  # TIMES[n], or TIMES[0]: nothing is timed


class Agent(NamedTuple):
    """An agent's lane and what the thread that serves it owns."""

    stream: np.ndarray  # STREAM[1]
    mine: np.ndarray  # int64[n_a], rows of this agent's requests
    flows: Flows  # free order: this agent's heap
    work: Work
    scratch: Scratch
    buffer: Buffer


def make_gate(n_agents: int) -> Gate:
    """Return a gate at turn 0 with every clock at minus infinity."""
    return Gate(
        new_mutex(),
        new_conditions(n_agents),
        np.full(n_agents, -np.inf),
        np.full(n_agents, np.inf),
        np.zeros(n_agents, np.int64),
        np.zeros(N_STATE, np.int64),
    )


def make_records(n_requests: int, max_hops: int, n_stages: int) -> Records:
    """Return records for n requests."""
    return Records(
        np.zeros(n_requests, ROW),
        np.zeros((n_requests, max_hops), np.int16),
        np.zeros((n_requests, n_stages), np.int16),
        np.zeros(n_requests + 1, np.uint8),
    )


def make_flows(capacity: int) -> Flows:
    """Return an empty heap."""
    return Flows(np.zeros(max(capacity, 1)), np.zeros(max(capacity, 1), np.int64))


def make_lanes(mine: list[np.ndarray], capacity: list[int]) -> Lanes:
    """Return lanes for agents with these rows of requests and room for so many active flows each."""
    stream = np.zeros(len(mine), STREAM)
    stream["agent"] = np.arange(len(mine))
    return Lanes(
        stream,
        np.concatenate(mine),
        make_flows(sum(capacity)),
        np.concatenate([[0], np.cumsum([len(rows) for rows in mine])]),
        np.concatenate([[0], np.cumsum(capacity)]),
    )


@njit(**KERNEL)
def lane_of(lanes, a):
    """Return agent a's stream, requests and heap, as views."""
    requests = slice(lanes.first_request[a], lanes.first_request[a + 1])
    flows = slice(lanes.first_flow[a], lanes.first_flow[a + 1])
    return lanes.stream[a : a + 1], lanes.mine[requests], Flows(lanes.flows.t_s[flows], lanes.flows.row[flows])


def make_rollouts(sizes: list[int], n_inputs: int, n_slots: int) -> Rollouts:
    """Return empty rollouts of so many decisions each."""
    spaced = [-(-size // CACHE_LINE) * CACHE_LINE for size in sizes]
    fill = np.arange(len(sizes)) * (CACHE_LINE // 8)
    buffer = make_buffer(sum(spaced), n_inputs, n_slots)._replace(fill=np.zeros(len(sizes) * CACHE_LINE // 8, np.int64))
    return Rollouts(buffer, np.cumsum([0, *spaced[:-1]]), np.array(sizes, np.int64), fill)


@njit(**KERNEL)
def buffer_of(rollouts, a):
    """Return agent a's rollout, as views."""
    b, own = rollouts.buffer, slice(rollouts.first[a], rollouts.first[a] + rollouts.size[a])
    fill = b.fill[rollouts.fill[a] : rollouts.fill[a] + 1]
    return Buffer(b.observation[own], b.mask[own], b.action[own], b.log_prob[own], b.value[own], b.reward[own],
                  b.advantage[own], b.returns[own], b.price[own], b.hops[own], b.uniform[own], fill)  # fmt: skip


def make_buffer(size: int, n_inputs: int, n_slots: int) -> Buffer:
    """Return an empty rollout buffer of so many decisions."""

    def floats() -> np.ndarray:
        return np.zeros(size, np.float32)

    return Buffer(
        np.zeros((size, n_inputs), np.float32),
        np.zeros((size, n_slots), np.bool_),
        np.zeros(size, np.int64),
        floats(),
        floats(),
        floats(),
        floats(),
        floats(),
        np.zeros(size),
        np.zeros(size, np.int64),
        np.zeros(size),
        np.zeros(1, np.int64),
    )
