"""Routing rules that users would pick instead of learning, on the same records and ledger as the agents.

Each rule is exact for its own criterion (see `search`) and serves requests one by one in order of arrival.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from amarl_core.arena import BUSY, DONE, NO_LEDGER, NO_ROOM, STOPPED
from amarl_core.arrival import settle_departures
from amarl_core.departures import push
from amarl_core.errors import AmarlError
from amarl_core.native import INNER, KERNEL
from amarl_core.rollout import try_commit, write_route
from amarl_core.routing import ACCEPTED, HOP_LIMIT, NO_BANDWIDTH, NO_COMPUTE, NO_LATENCY
from amarl_core.search import (
    BY_LATENCY,
    BY_PRICE,
    EXHAUSTED,
    FOUND,
    NONE,
    RUN_STAGE,
    Rule,
    bound_search,
    find_route,
    weigh,
)
from amarl_core.store import STOP, read_snapshot

ALWAYS = 2.0
"""A reservation threshold that is never reached."""


@dataclass(frozen=True)
class Baseline:
    """A named rule; `mu` is the base of its prices."""

    name: str
    rule: Rule
    mu: float = 100.0


RULES = ("fixed_shortest", "shortest_feasible", "priced", "reservation", "priced_reservation")


def baseline(name: str, *, mu: float = 100.0, reserve_above: float = 0.2, loose_ms: float = 50.0) -> Baseline:
    """Return a rule by name.

    Args:
        name: `fixed_shortest` (shortest delay on the idle network, no look at load), `shortest_feasible` (least
            latency among the feasible routes), `priced` (least exponential price mu^u - 1 of links and pools),
            `reservation` (shortest feasible, but a loose service leaves an edge pool alone once it is used by a
            share), `priced_reservation` (both).
        mu: base of the prices, over 1.
        reserve_above: share of an edge pool's budget from which loose services leave it alone.
        loose_ms: a service is loose when its latency bound is at least this.

    Raises:
        AmarlError: an unknown name, with the valid ones.
    """
    if name not in RULES:
        raise AmarlError(f"unknown baseline {name!r}; the valid ones are {', '.join(RULES)}")
    criterion = BY_PRICE if name.startswith("priced") else BY_LATENCY
    share = reserve_above if "reservation" in name else ALWAYS
    return Baseline(name, Rule(criterion, int(name != "fixed_shortest"), float(share), float(loose_ms)), mu)


TUNED = {
    "priced": dict(mu=1000.0),
    "reservation": dict(reserve_above=0.1),
    "priced_reservation": dict(mu=100.0, reserve_above=0.4),
}
"""Settings with the best mean GoS on the training days of `python -m amarl_core.calibrate`."""


def tuned(name: str) -> Baseline:
    """Return a rule with the setting found on training days."""
    return baseline(name, **TUNED.get(name, {}))


@njit(**INNER)
def _trace_back(world, work, search, request, label):
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


@njit(**INNER)
def _route_by_rule(world, work, search, request, rule, reserved, max_hops):
    """Plan one request by a rule on the snapshot in `work`; the walk's cause says how it went."""
    w = work.walk[0]
    w.n_links, w.n_hosts = 0, 0
    n_edges = world.links.shape[0]
    loose = world.bound_ms[request.service] >= rule.loose_ms
    for node in range(world.nodes.shape[0]):
        used, budget = work.snapshot[n_edges + node], world.nodes[node].budget
        search.allowed[node] = not (loose and reserved[node] and used >= rule.reserve_above * budget)
    weigh(world, work, search, request, rule, rule.sees_load, rule.sees_load)
    least_ms = bound_search(world, work, search, request)
    status, label = NONE, -1
    if least_ms <= world.bound_ms[request.service]:
        status, label = find_route(world, work, search, request, rule, max_hops)
    if status == FOUND:
        _trace_back(world, work, search, request, label)
        w.cause = ACCEPTED if w.latency <= world.bound_ms[request.service] else NO_LATENCY
        return
    if status == EXHAUSTED:
        w.cause = HOP_LIMIT
        return
    w.cause = NO_LATENCY
    weigh(world, work, search, request, rule, 0, 1)
    if bound_search(world, work, search, request) <= world.bound_ms[request.service]:
        w.cause = NO_BANDWIDTH
        return
    weigh(world, work, search, request, rule, 0, 0)
    if bound_search(world, work, search, request) <= world.bound_ms[request.service]:
        w.cause = NO_COMPUTE


@njit(**KERNEL)
def serve_rule(arena, agent, search, rule, reserved, max_hops, n_requests):
    """Serve at most so many requests in order of arrival; return DONE, BUSY (0 left), STOPPED or a failure."""
    stream, work, records = agent.stream[0], agent.work, arena.records
    for _ in range(n_requests):
        if arena.shared.control[STOP]:
            return STOPPED
        row = stream.cursor
        if row == arena.requests.shape[0]:
            return DONE if settle_departures(arena, agent, np.inf) else NO_LEDGER
        stream.cursor += 1
        request = arena.requests[row]
        if not settle_departures(arena, agent, request.t_s):
            return NO_LEDGER
        w = work.walk[0]
        w.version = read_snapshot(arena.shared, work.snapshot)
        _route_by_rule(arena.world, work, search, request, rule, reserved, max_hops)
        write_route(records, work, row)
        if w.cause != ACCEPTED:
            continue
        committed = try_commit(arena, work, stream, row)
        if committed < 0:
            return NO_LEDGER
        if committed == 1:
            stream.accepted += 1
            if arena.n_departures[0] >= arena.departures.row.shape[0]:
                return NO_ROOM
            push(arena.departures, arena.n_departures[0], request.t_s + request.hold_s, row)
            arena.n_departures[0] += 1
    return BUSY
