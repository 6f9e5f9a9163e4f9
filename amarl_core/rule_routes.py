"""How a routing rule plans one request on a snapshot: exact search, widest of the shortest, a random walk, a list.

Compiled. The plan is left in `work.walk`, `work.links` and `work.hosts`, as the agents leave theirs.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from amarl_core.arrays import Rules
from amarl_core.k_shortest import Listed, choose_listed
from amarl_core.native import INNER, KERNEL
from amarl_core.routing import (
    ACCEPTED,
    FREE_SLOT,
    HOP_LIMIT,
    NO_BANDWIDTH,
    NO_COMPUTE,
    NO_LATENCY,
    REFUSED,
    begin,
    take,
    to_decision,
)
from amarl_core.search import EXHAUSTED, FOUND, NONE, RUN_STAGE, TOO_DEAR, Rule, bound_search, find_route, weigh

EXACT, WIDEST, WALK, LISTED = range(4)
"""How a rule plans: cheapest feasible route, widest of them, a random walk, or the best of a list."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


class Planner(NamedTuple):
    """A rule, and all that it plans with."""

    rule: Rule
    blind: Rule  # the same, as if there were room everywhere
    method: int
    seed: np.uint64
    least_loaded: int
    walk: Rules  # of the random walk
    reserved: np.ndarray  # bool[N], edge pools
    listed: Listed
    max_hops: int


@njit(**KERNEL)
def trace_back(world, work, search, request, label):
    """Write the route that ends in a label into the walk, and its latency on the snapshot."""
    w = work.walk[0]
    n_links, n_hosts = 0, 0
    at = label
    while search.labels[at].parent >= 0:
        if search.labels[at].move == RUN_STAGE:
            n_hosts += 1
        else:
            n_links += 1
        at = search.labels[at].parent
    w.n_links, w.n_hosts, w.latency = n_links, n_hosts, 0.0
    at = label
    while search.labels[at].parent >= 0:
        step = search.labels[at]
        if step.move == RUN_STAGE:
            n_hosts -= 1
            work.hosts[n_hosts] = step.node
            function = world.chains[request.service, step.stage - 1]
            rho = work.snapshot[world.links.shape[0] + step.node] / world.nodes[step.node].raw
            w.latency += world.processing[function] / (1.0 - rho)
        else:
            n_links -= 1
            work.links[n_links] = step.move
            w.latency += world.links[step.move].delay
        at = step.parent


@njit(**KERNEL)
def mark_allowed(world, work, search, request, planner):
    """Mark the pools that the request's service may use: a loose one leaves a filling edge pool alone."""
    rule = planner.rule
    n_edges = world.links.shape[0]
    loose = world.bound_ms[request.service] >= rule.loose_ms
    for node in range(world.nodes.shape[0]):
        used, budget = work.snapshot[n_edges + node], world.nodes[node].budget
        search.allowed[node] = not (loose and planner.reserved[node] and used >= rule.reserve_above * budget)


@njit(**KERNEL)
def plan_exact(world, work, search, request, planner):
    """Find the rule's best route; return FOUND, NONE, EXHAUSTED or TOO_DEAR, the route in the walk."""
    w = work.walk[0]
    w.n_links, w.n_hosts = 0, 0
    rule = planner.rule
    mark_allowed(world, work, search, request, planner)
    weigh(world, work, search, request, rule, rule.sees_load, rule.sees_load)
    if bound_search(world, work, search, request) > world.bound_ms[request.service]:
        return NONE
    status, label = find_route(world, work, search, request, rule, planner.max_hops)
    if status == FOUND and search.labels[label].cost * world.hold[request.service] > rule.worth:
        return TOO_DEAR
    if status == FOUND:
        trace_back(world, work, search, request, label)
        if planner.method == WIDEST:
            _widen(world, work, search, request, planner, search.labels[label].depth)
        w.cause = ACCEPTED if w.latency <= world.bound_ms[request.service] else NO_LATENCY
    return status


@njit(**INNER)
def _widen(world, work, search, request, planner, n_hops):
    """Replace the route in the walk by the widest of those with as few links.

    Links no wider than the narrowest of the route are closed until no route with as few links is left. The width of
    a link is its free bandwidth on the snapshot (Guerin, Orda, Williams, GLOBECOM 1997).
    """
    w = work.walk[0]
    while w.n_links > 0:
        width = np.inf
        for i in range(w.n_links):
            width = min(width, world.links[work.links[i]].capacity - work.snapshot[work.links[i]])
        for e in range(world.links.shape[0]):
            if world.links[e].capacity - work.snapshot[e] <= width:
                search.link_ms[e], search.link_cost[e] = np.inf, np.inf
        if bound_search(world, work, search, request) > world.bound_ms[request.service]:
            return
        if search.least_cost[0, request.source] >= n_hops + 1:
            return
        status, label = find_route(world, work, search, request, planner.rule, planner.max_hops)
        if status != FOUND or search.labels[label].depth > n_hops:
            return
        trace_back(world, work, search, request, label)


@njit(**INNER)
def _why_none(world, work, search, request, rule):
    """Return what stood in the way of a route: bandwidth, compute, or latency even on an idle network."""
    bound = world.bound_ms[request.service]
    weigh(world, work, search, request, rule, 0, 1)
    if bound_search(world, work, search, request) <= bound:
        return NO_BANDWIDTH
    weigh(world, work, search, request, rule, 0, 0)
    if bound_search(world, work, search, request) <= bound:
        return NO_COMPUTE
    return NO_LATENCY


@njit(**INNER)
def _mixed(x):
    """Return 64 well mixed bits (the finaliser of splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


@njit(**INNER)
def _walk_at_random(world, work, request, row, planner):
    """Walk hop by hop, each time over one of the allowed next hops, all as likely.

    The draws depend on the seed and the place in the trace alone: they are the same whatever happened before.
    """
    w = work.walk[0]
    state = _mixed(planner.seed + _GOLDEN * np.uint64(row + 1))
    begin(world, work, request, w.version)
    while to_decision(world, work, request, planner.walk):
        state += _GOLDEN
        chosen = np.int64(_mixed(state) >> np.uint64(33)) % w.n_valid
        for i in range(w.n_slots):
            if work.slot_cause[i] == FREE_SLOT:
                if chosen == 0:
                    take(world, work, request, work.slot_link[i])
                    break
                chosen -= 1


@njit(**KERNEL)
def plan_by_rule(world, work, search, request, row, planner):
    """Plan one request on the snapshot in `work`; the walk's cause says how it went."""
    w = work.walk[0]
    if planner.method == WALK:
        _walk_at_random(world, work, request, row, planner)
    elif planner.method == LISTED:
        choose_listed(world, work, request, planner.listed, row, planner.least_loaded)
    else:
        status = plan_exact(world, work, search, request, planner)
        if status == EXHAUSTED:
            w.cause = HOP_LIMIT
        elif status == TOO_DEAR:
            w.cause = REFUSED
        elif status == NONE:
            w.cause = _why_none(world, work, search, request, planner.rule)
