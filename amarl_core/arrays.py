"""The scenario and one thread's scratch memory as arrays for the kernels."""

from typing import NamedTuple

import numpy as np

from amarl_core.stopwatch import make_watch

SLOT_FEATURES = 8
GLOBAL_FEATURES = 7

REFERENCE_HOLD_S = 600.0
"""A priced cost counts for a holding time of this, in s; a service that holds twice as long on average costs twice."""

LINK = np.dtype([("source", "i8"), ("target", "i8"), ("capacity", "i8"), ("delay", "f8"), ("share", "f8")])
"""`share` is 1 / capacity: a division less in the innermost loops."""

NODE = np.dtype([("raw", "i8"), ("budget", "i8"), ("leaf", "i8"), ("stub", "i8"), ("share", "f8")])
"""`share` is 1 / budget, 0 where there is none."""

REQUEST = np.dtype(
    [
        ("t_s", "f8"),
        ("hold_s", "f8"),
        ("demand", "i8"),
        ("service", "i8"),
        ("source", "i8"),
        ("destination", "i8"),
        ("agent", "i8"),
    ]
)
WALK = np.dtype(
    [
        ("latency", "f8"),
        ("price", "f8"),
        ("version", "i8"),
        ("stamp", "i8"),
        ("node", "i8"),
        ("stage", "i8"),
        ("n_links", "i8"),
        ("n_hosts", "i8"),
        ("n_slots", "i8"),
        ("n_valid", "i8"),
        ("cause", "i8"),
        ("priced", "i8"),
        ("forced", "i8"),
        ("open", "i8"),
        ("reach_links", "i8"),
        ("reach_stage", "i8"),
    ]
)


class World(NamedTuple):
    """The scenario as arrays. N nodes, E links, S services, K stages at most, F functions."""

    links: np.ndarray  # LINK[E]: kbps, ms
    nodes: np.ndarray  # NODE[N]: raw compute and budget in mcpu
    out_start: np.ndarray  # int64[N + 1], into out_links
    out_links: np.ndarray  # int64[E], links by source
    in_start: np.ndarray  # int64[N + 1], into in_links
    in_links: np.ndarray  # int64[<= E], links by target whose source is no stub
    transit: np.ndarray  # int64[<= N], nodes that are no stubs
    transit_links: np.ndarray  # int64[<= E], links between them
    chains: np.ndarray  # int64[S, K], function of each stage, -1 beyond the end
    chain_length: np.ndarray  # int64[S]
    bound_ms: np.ndarray  # float64[S] (paper: tau_p)
    rate: np.ndarray  # int64[N, F], mcpu per Gb/s, -1 where not hosted
    processing: np.ndarray  # float64[F], ms on an idle node
    to_go: np.ndarray  # float64[S, K + 1, N, N], least idle ms [service, stage, destination, node]
    so_far: np.ndarray  # float64[S, K + 1, N, N], least idle ms [service, stage, source, node]
    price: np.ndarray  # float64[steps + 1], mu^u - 1 by utilisation
    hold: np.ndarray  # float64[S], mean holding time over REFERENCE_HOLD_S


class Work(NamedTuple):
    """One thread's memory. D slots are looked at, M kept; H hops at most."""

    snapshot: np.ndarray  # int64[E + N]
    own: np.ndarray  # int64[E + N], what this request has taken so far
    visited: np.ndarray  # int64[N], stamp of the segment that last visited a node
    walk: np.ndarray  # WALK[1]
    links: np.ndarray  # int64[H]
    hosts: np.ndarray  # int64[K]
    slot_link: np.ndarray  # int64[D]
    slot_cause: np.ndarray  # int64[D], FREE_SLOT or why it is not allowed
    slot_key: np.ndarray  # float64[D]
    mask: np.ndarray  # bool[M]
    observation: np.ndarray  # float32[SLOT_FEATURES * M + GLOBAL_FEATURES + S]
    cost: np.ndarray  # float64[K + 1, N], priced cost-to-go
    link_cost: np.ndarray  # float64[E]
    stage_cost: np.ndarray  # float64[K, N]
    queue: np.ndarray  # int64[N]
    queued: np.ndarray  # bool[N]
    zeros: np.ndarray  # float64[N]
    nowhere: np.ndarray  # bool[N], all False
    reach: np.ndarray  # float64[K + 1, N], least latency still to go on the snapshot, ms
    reach_end: np.ndarray  # float64[K + 1, N], the same if the stage runs on arrival, infinite where it cannot
    reach_fixed: np.ndarray  # bool[K + 1, N], whether it must run, or the node may not be entered at all
    reach_away: np.ndarray  # float64[K + 1, N], the same from a node that is full and left for good, negative: unknown
    reach_spare: np.ndarray  # float64[N]
    reach_link: np.ndarray  # float64[E], delay, infinite without room, ms
    resources: np.ndarray  # int64[H + K], delta of a route
    amounts: np.ndarray  # int64[H + K]
    watch: np.ndarray  # see `stopwatch`


class Rules(NamedTuple):
    """How requests are routed: codes of mask and slot order, the longest walk, whether the agent may refuse."""

    mask: int
    slot_order: int
    max_hops: int
    may_refuse: int = 0


def make_world(scenario, mu: float = 100.0, steps: int = 4096) -> World:
    """Return a scenario as arrays for the kernels.

    Args:
        scenario: a loaded scenario.
        mu: base of the exponential price mu^u - 1 of a resource at utilisation u.
        steps: resolution of the price table.
    """
    network = scenario.network
    n, e = network.n_nodes, network.n_links
    links = np.zeros(e, LINK)
    links["source"], links["target"] = network.source, network.target
    links["capacity"], links["delay"] = network.capacity_kbps, network.delay_ms
    links["share"] = 1.0 / network.capacity_kbps
    nodes = np.zeros(n, NODE)
    nodes["raw"], nodes["budget"] = network.compute_mcpu, scenario.budget_mcpu
    nodes["stub"] = scenario.stub
    nodes["share"] = np.divide(1.0, scenario.budget_mcpu, out=np.zeros(n), where=scenario.budget_mcpu > 0)
    nodes["leaf"] = _leaves(network.source, network.target, n)
    out_links = np.argsort(network.source, kind="stable").astype(np.int64)
    passable = np.flatnonzero(~scenario.stub[network.source])
    in_links = passable[np.argsort(network.target[passable], kind="stable")].astype(np.int64)
    between = ~scenario.stub[network.source] & ~scenario.stub[network.target]
    return World(
        links,
        nodes,
        _starts(network.source, n),
        out_links,
        _starts(network.target[passable], n),
        in_links,
        np.flatnonzero(~scenario.stub).astype(np.int64),
        np.flatnonzero(between).astype(np.int64),
        np.ascontiguousarray(scenario.chains, np.int64),
        np.ascontiguousarray(scenario.chain_length, np.int64),
        np.ascontiguousarray(scenario.latency_ms, np.float64),
        np.ascontiguousarray(scenario.rate_mcpu_per_gbps, np.int64),
        np.ascontiguousarray(scenario.processing_ms, np.float64),
        np.ascontiguousarray(scenario.delay_to_go),
        np.ascontiguousarray(scenario.delay_so_far),
        mu ** (np.arange(steps + 1) / steps) - 1,
        np.ascontiguousarray(scenario.hold_mean_s / REFERENCE_HOLD_S, np.float64),
    )


def _leaves(source: np.ndarray, target: np.ndarray, n: int) -> np.ndarray:
    """Return bool[n]: nodes that hang off a single neighbour, in and out."""
    neighbours = [set(target[source == node]) | set(source[target == node]) for node in range(n)]
    return np.array([len(around) == 1 for around in neighbours])


def _starts(keys: np.ndarray, n: int) -> np.ndarray:
    """Return int64[n + 1], where each key's run starts in the sorted keys."""
    return np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=n))]).astype(np.int64)


def slot_count(world: World, at_most: int = 10) -> int:
    """Return how many neighbour slots the action space has: the largest number of useful neighbours of a node."""
    target_is_stub = world.nodes["stub"][world.links["target"]].astype(bool)
    degree = np.diff(world.out_start)
    stubs = np.bincount(world.links["source"][target_is_stub], minlength=len(world.nodes))
    return int(min(at_most, (degree - stubs + (stubs > 0)).max()))


def truncated_nodes(world: World, n_slots: int) -> np.ndarray:
    """Return the nodes with more useful neighbours than slots; the farthest ones are left out there."""
    target_is_stub = world.nodes["stub"][world.links["target"]].astype(bool)
    stubs = np.bincount(world.links["source"][target_is_stub], minlength=len(world.nodes))
    return np.flatnonzero(np.diff(world.out_start) - stubs + (stubs > 0) > n_slots)


def observation_size(world: World, n_slots: int) -> int:
    """Return the length of the observation vector."""
    return SLOT_FEATURES * n_slots + GLOBAL_FEATURES + len(world.chain_length)


def make_work(world: World, n_slots: int, max_hops: int) -> Work:
    """Return fresh scratch memory for one thread."""
    n, e = len(world.nodes), len(world.links)
    k = world.chains.shape[1]
    degree = int(np.diff(world.out_start).max())
    return Work(
        np.zeros(e + n, np.int64),
        np.zeros(e + n, np.int64),
        np.zeros(n, np.int64),
        np.zeros(1, WALK),
        np.zeros(max_hops, np.int64),
        np.zeros(k, np.int64),
        np.zeros(degree, np.int64),
        np.zeros(degree, np.int64),
        np.zeros(degree),
        np.zeros(n_slots, np.bool_),
        np.zeros(observation_size(world, n_slots), np.float32),
        np.zeros((k + 1, n)),
        np.zeros(e),
        np.zeros((k, n)),
        np.zeros(n, np.int64),
        np.zeros(n, np.bool_),
        np.zeros(n),
        np.zeros(n, np.bool_),
        np.zeros((k + 1, n)),
        np.zeros((k + 1, n)),
        np.zeros((k + 1, n), np.bool_),
        np.zeros((k + 1, n)),
        np.zeros(n),
        np.zeros(e),
        np.zeros(max_hops + k, np.int64),
        np.zeros(max_hops + k, np.int64),
        make_watch(),
    )
