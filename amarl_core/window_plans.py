"""What a window of requests could do, compiled: the state ahead, a plan by the base rule, and columns of routes."""

from typing import NamedTuple

import numpy as np
from numba import njit

from amarl_core.arena import BUSY, DONE, NO_LEDGER
from amarl_core.arrays import World
from amarl_core.arrival import settle_departures
from amarl_core.k_shortest import load_after, put_route, route_latency
from amarl_core.native import INNER, KERNEL
from amarl_core.prices import price_of
from amarl_core.routing import ACCEPTED, NO_BANDWIDTH, NO_COMPUTE, need_mcpu, route_delta
from amarl_core.rule_routes import mark_allowed, plan_by_rule, plan_exact
from amarl_core.rule_service import decide
from amarl_core.search import FOUND
from amarl_core.store import read_snapshot

REFUSED, BY_RULE = -1, -2
"""Instead of a column: the request is turned away for the sake of others, or planned by the base rule in its turn."""


class Window(NamedTuple):
    """Scratch for a window of at most W requests, with up to C columns each; R = E + N resources."""

    ahead: np.ndarray  # int64[W, R], in use on each arrival by flows from before the window
    planned: np.ndarray  # int64[W, R], and by the plans of the base rule
    n_columns: np.ndarray  # int64[W]
    is_planned: np.ndarray  # int64[W], column 0 is the base rule's plan
    n_links: np.ndarray  # int64[W, C]
    links: np.ndarray  # int16[W, C, H]
    hosts: np.ndarray  # int16[W, C, K]
    price: np.ndarray  # float64[W, C]
    chosen: np.ndarray  # int64[W], a column, REFUSED or BY_RULE


def make_window(world: World, n_requests: int, n_columns: int, max_hops: int) -> Window:
    """Return scratch for windows of at most so many requests."""
    r = len(world.links) + len(world.nodes)
    return Window(
        np.zeros((n_requests, r), np.int64),
        np.zeros((n_requests, r), np.int64),
        np.zeros(n_requests, np.int64),
        np.zeros(n_requests, np.int64),
        np.zeros((n_requests, n_columns), np.int64),
        np.zeros((n_requests, n_columns, max_hops), np.int16),
        np.zeros((n_requests, n_columns, world.chains.shape[1]), np.int16),
        np.zeros((n_requests, n_columns)),
        np.full(n_requests, BY_RULE),
    )


@njit(**INNER)
def _change(world, work, request, links, n_links, hosts, state, i, sign):
    """Add a route to row i of a state, or take it away."""
    length = world.chain_length[request.service]
    n = route_delta(world, links, n_links, hosts, length, request, work.resources, work.amounts)
    for j in range(n):
        state[i, work.resources[j]] += sign * work.amounts[j]


@njit(**INNER)
def _look_ahead(arena, work, window, first, last):
    """Fill the state on each arrival of the window as the flows of before leave it: departures come first."""
    for i in range(last - first):
        for r in range(window.ahead.shape[1]):
            window.ahead[i, r] = arena.shared.used[r]
    for f in range(arena.n_departures[0]):
        row, t_s = arena.departures.row[f], arena.departures.t_s[f]
        if t_s > arena.requests[last - 1].t_s:
            continue
        for i in range(last - first):
            if t_s <= arena.requests[first + i].t_s:
                n_links = arena.records.rows[row].n_links
                _change(arena.world, work, arena.requests[row], arena.records.links[row], n_links,
                        arena.records.hosts[row], window.ahead, i, -1)  # fmt: skip
    for i in range(last - first):
        for r in range(window.ahead.shape[1]):
            window.planned[i, r] = window.ahead[i, r]


@njit(**INNER)
def _note_column(world, work, window, request, i, links, n_links, hosts):
    """Add a route to the columns of request i, priced on the state ahead of it."""
    c = window.n_columns[i]
    window.n_links[i, c] = n_links
    price = 0.0
    for j in range(n_links):
        e = links[j]
        window.links[i, c, j] = e
        share = world.links[e].share
        price += price_of(world.price, window.ahead[i, e], share) * request.demand * share
    for stage in range(world.chain_length[request.service]):
        node = hosts[stage]
        window.hosts[i, c, stage] = node
        need = need_mcpu(request.demand, world.rate[node, world.chains[request.service, stage]])
        share = world.nodes[node].share
        price += price_of(world.price, window.ahead[i, world.links.shape[0] + node], share) * need * share
    window.price[i, c] = price
    window.n_columns[i] = c + 1


@njit(**KERNEL)
def plan_window(arena, agent, search, planner, window, first, last):
    """Plan the requests first .. last - 1 one by one by the base rule, from the state as it is; nothing is committed.

    Returns:
        How many found no route; the others' is column 0 of their columns.
    """
    world, work = arena.world, agent.work
    w = work.walk[0]
    if not settle_departures(arena, agent, arena.requests[first].t_s):
        return -1
    _look_ahead(arena, work, window, first, last)
    n_lost = 0
    for i in range(last - first):
        request = arena.requests[first + i]
        window.n_columns[i], window.is_planned[i], window.chosen[i] = 0, 0, BY_RULE
        for r in range(window.planned.shape[1]):
            work.snapshot[r] = window.planned[i, r]
        if plan_exact(world, work, search, request, planner) != FOUND or w.cause != ACCEPTED:
            n_lost += 1
            continue
        window.is_planned[i] = 1
        _note_column(world, work, window, request, i, work.links, w.n_links, work.hosts)
        for j in range(i + 1, last - first):
            if arena.requests[first + j].t_s < request.t_s + request.hold_s:
                _change(world, work, request, window.links[i, 0], w.n_links, window.hosts[i, 0], window.planned, j, 1)
    return n_lost


@njit(**KERNEL)
def list_columns(arena, agent, search, planner, window, first, last):
    """Add to each request's columns those of its k shortest routes that fit on the state ahead of it.

    A loose service's columns leave reserved pools alone as the base rule does.
    """
    world, work, listed = arena.world, agent.work, planner.listed
    for i in range(last - first):
        request = arena.requests[first + i]
        for r in range(window.ahead.shape[1]):
            work.snapshot[r] = window.ahead[i, r]
        mark_allowed(world, work, search, request, planner)
        t = listed.of_row[first + i]
        for c in range(listed.n_routes[t]):
            links, n_links, hosts = listed.links[t, c], listed.n_links[t, c], listed.hosts[t, c]
            allowed = True
            for stage in range(world.chain_length[request.service]):
                allowed = allowed and search.allowed[hosts[stage]]
            cause, _, _ = load_after(world, work, request, links, n_links, hosts)
            if allowed and cause == ACCEPTED:
                _note_column(world, work, window, request, i, links, n_links, hosts)


@njit(**INNER)
def _blame(world, work):
    """Return the kind of resource that the route in the walk would fill most."""
    w = work.walk[0]
    links, pools = 0.0, 0.0
    for i in range(w.n_links):
        links = max(links, work.snapshot[work.links[i]] * world.links[work.links[i]].share)
    for i in range(w.n_hosts):
        pools = max(pools, work.snapshot[world.links.shape[0] + work.hosts[i]] * world.nodes[work.hosts[i]].share)
    return NO_BANDWIDTH if links > pools else NO_COMPUTE


@njit(**INNER)
def _follow(arena, agent, search, planner, window, i, row):
    """Plan a request as chosen; where the chosen route does not hold on the state as it is now, by the base rule."""
    world, work, request = arena.world, agent.work, arena.requests[row]
    w, chosen = work.walk[0], window.chosen[i]
    if chosen >= 0:
        links, n_links, hosts = window.links[i, chosen], window.n_links[i, chosen], window.hosts[i, chosen]
        cause, _, _ = load_after(world, work, request, links, n_links, hosts)
        if cause == ACCEPTED:
            put_route(world, work, request, links, n_links, hosts)
            w.cause = ACCEPTED
            w.latency = route_latency(world, work.snapshot, request, links, n_links, hosts)
            return
    plan_by_rule(world, work, search, request, row, planner)
    if chosen == REFUSED and w.cause == ACCEPTED:
        w.cause = _blame(world, work)


@njit(**KERNEL)
def serve_window(arena, agent, search, planner, window, first, last):
    """Serve the requests first .. last - 1 as chosen, in order of arrival; return BUSY, or what ran out."""
    work = agent.work
    w = work.walk[0]
    for i in range(last - first):
        row = first + i
        if not settle_departures(arena, agent, arena.requests[row].t_s):
            return NO_LEDGER
        w.version = read_snapshot(arena.shared, work.snapshot)
        _follow(arena, agent, search, planner, window, i, row)
        code = decide(arena, agent, row)
        if code != DONE:
            return code
    agent.stream[0].cursor = last
    if last == arena.requests.shape[0] and not settle_departures(arena, agent, np.inf):
        return NO_LEDGER
    return BUSY
