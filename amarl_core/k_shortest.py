"""The k shortest routes of every pair, listed before a day begins, and the choice among them.

A route is a walk and the hosts of its stages; shortest means least latency on an idle network. A list holds the k
shortest routes of a (service, source, destination) that are within the latency bound and simple in each segment.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from amarl_core.arrays import Work, World
from amarl_core.errors import AmarlError
from amarl_core.native import INNER, KERNEL
from amarl_core.routing import ACCEPTED, NO_BANDWIDTH, NO_COMPUTE, NO_LATENCY, need_mcpu
from amarl_core.search import (
    BY_LATENCY,
    EXHAUSTED,
    FOUND,
    RUN_STAGE,
    Rule,
    bound_search,
    make_search,
    next_route,
    open_search,
    weigh,
)

IDLE = Rule(BY_LATENCY, 0, 2.0, np.inf)
"""Least latency, no look at load."""

N_LABELS = 400_000
"""Labels of one enumeration; some 40 a route are usual."""


class Listed(NamedTuple):
    """Lists of at most k routes for T triples of service, source and destination."""

    of_row: np.ndarray  # int64[n], the triple of each request
    n_routes: np.ndarray  # int64[T]
    n_links: np.ndarray  # int64[T, k]
    links: np.ndarray  # int16[T, k, H]
    hosts: np.ndarray  # int16[T, k, K]


def list_routes(world: World, work: Work, requests: np.ndarray, k: int, max_hops: int) -> Listed:
    """List the k shortest routes of every triple that a trace asks for.

    Args:
        world, work: the world and scratch memory; its snapshot is emptied.
        requests: REQUEST[n].
        k: routes a triple at most; 0 gives empty lists.
        max_hops: links of a route at most.

    Raises:
        AmarlError: the network has too many equally short walks to list k routes.
    """
    asked = requests[:0] if k == 0 else np.zeros(len(requests), requests.dtype)
    for name in ("service", "source", "destination") if k else ():
        asked[name] = requests[name]
    asked, of_row = np.unique(asked, return_inverse=True)
    n, h, stages = len(asked), max_hops, world.chains.shape[1]
    listed = Listed(
        of_row.reshape(-1).astype(np.int64),
        np.zeros(n, np.int64),
        np.zeros((n, k), np.int64),
        np.zeros((n, k, h), np.int16),
        np.zeros((n, k, stages), np.int16),
    )
    if n == 0:
        return listed
    search = make_search(world, N_LABELS)
    search.allowed[:] = True
    work.snapshot[:] = 0
    for t in range(n):
        if _list_triple(world, work, search, asked[t], IDLE, max_hops, listed, t) == EXHAUSTED:
            raise AmarlError(
                f"more than {N_LABELS} partial routes between two nodes of this network; ask for fewer routes, k < {k}"
            )
    return listed


@njit(**KERNEL)
def _list_triple(world, work, search, request, rule, max_hops, listed, t):
    """List one triple's routes, shortest first; return FOUND, NONE or EXHAUSTED."""
    weigh(world, work, search, request, rule, 0, 0)
    bound_search(world, work, search, request)
    open_search(world, search, request)
    status = FOUND
    for i in range(listed.n_links.shape[1]):
        status, label = next_route(world, work, search, request, rule, max_hops, 0)
        if status != FOUND:
            break
        n_links = search.labels[label].depth
        n_hosts = world.chain_length[request.service]
        listed.n_links[t, i] = n_links
        listed.n_routes[t] += 1
        at = label
        while search.labels[at].parent >= 0:
            if search.labels[at].move == RUN_STAGE:
                n_hosts -= 1
                listed.hosts[t, i, n_hosts] = search.labels[at].node
            else:
                n_links -= 1
                listed.links[t, i, n_links] = search.labels[at].move
            at = search.labels[at].parent
    return status


@njit(**KERNEL)
def route_latency(world, snapshot, request, links, n_links, hosts):
    """Return a route's latency on a snapshot, ms: sum of t_e + sum of processing_f / (1 - rho_v)."""
    latency = 0.0
    for i in range(n_links):
        latency += world.links[links[i]].delay
    for stage in range(world.chain_length[request.service]):
        node = hosts[stage]
        rho = snapshot[world.links.shape[0] + node] / world.nodes[node].raw
        latency += world.processing[world.chains[request.service, stage]] / (1.0 - rho)
    return latency


@njit(**KERNEL)
def load_after(world, work, request, links, n_links, hosts):
    """Judge a route on the snapshot in `work`.

    Returns:
        (cause, load, latency): ACCEPTED or what is lacking; the highest utilisation of what the route uses, with it
        placed; and its latency in ms.
    """
    n_edges = world.links.shape[0]
    length = world.chain_length[request.service]
    cause, load = ACCEPTED, 0.0
    for i in range(n_links):
        e = links[i]
        work.own[e] += request.demand
        used = work.snapshot[e] + work.own[e]
        load = max(load, used * world.links[e].share)
        if used > world.links[e].capacity:
            cause = NO_BANDWIDTH
    for stage in range(length):
        node = hosts[stage]
        r = n_edges + node
        work.own[r] += need_mcpu(request.demand, world.rate[node, world.chains[request.service, stage]])
        used = work.snapshot[r] + work.own[r]
        load = max(load, used * world.nodes[node].share)
        if used > world.nodes[node].budget:
            cause = NO_COMPUTE
    for i in range(n_links):
        work.own[links[i]] = 0
    for stage in range(length):
        work.own[n_edges + hosts[stage]] = 0
    latency = route_latency(world, work.snapshot, request, links, n_links, hosts)
    if cause == ACCEPTED and latency > world.bound_ms[request.service]:
        cause = NO_LATENCY
    return cause, load, latency


@njit(**INNER)
def put_route(world, work, request, links, n_links, hosts):
    """Write a route into the walk."""
    w = work.walk[0]
    w.n_links, w.n_hosts = n_links, world.chain_length[request.service]
    for i in range(n_links):
        work.links[i] = links[i]
    for stage in range(w.n_hosts):
        work.hosts[stage] = hosts[stage]


@njit(**KERNEL)
def choose_listed(world, work, request, listed, row, least_loaded):
    """Choose among a request's listed routes: the first that fits, or the least loaded; the walk gets it.

    With none that fits, the cause is what the shortest route lacks.
    """
    w = work.walk[0]
    w.n_links, w.n_hosts, w.cause = 0, 0, NO_LATENCY
    t = listed.of_row[row]
    best = np.inf
    for i in range(listed.n_routes[t]):
        links, n_links, hosts = listed.links[t, i], listed.n_links[t, i], listed.hosts[t, i]
        cause, load, latency = load_after(world, work, request, links, n_links, hosts)
        if cause != ACCEPTED:
            if i == 0:
                w.cause = cause
            continue
        if load < best:
            best = load
            put_route(world, work, request, links, n_links, hosts)
            w.cause, w.latency = ACCEPTED, latency
            if not least_loaded:
                return
