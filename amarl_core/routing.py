"""One request, hop by hop: processing, action mask, slots, observation, and what a hop does (paper: section 3).

Compiled kernels over two tuples: `World`, what never changes, and `Work`, one thread's scratch memory. The walk of
the request at hand is the record `work.walk[0]`. The same kernels run inside the threaded rollout and, one call at
a time, behind `RoutingEnv`.
"""

import numpy as np
from numba import njit

from amarl_core.arrays import GLOBAL_FEATURES, SLOT_FEATURES
from amarl_core.native import INLINE, INNER
from amarl_core.prices import need_mcpu, price_of, price_to_go
from amarl_core.reach import completes_without, look_ahead
from amarl_core.stopwatch import MASK, PRICES, REACH, lap

CAUSES = (
    "accepted",
    "dead_end_bandwidth",
    "dead_end_compute",
    "dead_end_latency",
    "dead_end_loop",
    "dead_end_slots",
    "hop_limit",
    "refused",
    "conflict_link",
    "conflict_node",
)
(ACCEPTED, NO_BANDWIDTH, NO_COMPUTE, NO_LATENCY, LOOP, NO_SLOT, HOP_LIMIT, REFUSED, CONFLICT_LINK, CONFLICT_NODE) = (
    range(len(CAUSES))
)
FREE_SLOT = ACCEPTED
UNREACHABLE = len(CAUSES)
"""Why a neighbour is not allowed shares the causes' codes; an allowed one has code 0. One from which the request cannot
be completed has a code of its own: what blocks it is found out once the walk is at a dead end."""

LARGEST_LOG_PRICE = 8.0
"""log(1 + cost) of a request that counts as 1 in an observation."""

MASKS = ("immediate", "delay", "reachable")
IMMEDIATE, DELAY, REACHABLE = range(3)
SLOT_ORDERS = ("static", "priced")
STATIC, PRICED = range(2)


@njit(**INLINE)
def begin(world, work, request, version):
    """Start a walk on the snapshot in `work`, running the stages that the source hosts."""
    w = work.walk[0]
    for i in range(w.n_links):
        work.own[work.links[i]] = 0
    n_edges = world.links.shape[0]
    for i in range(w.n_hosts):
        work.own[n_edges + work.hosts[i]] = 0
    w.latency = 0.0
    w.price = 0.0
    w.version = version
    w.node = request.source
    w.stage = 0
    w.n_links = 0
    w.n_hosts = 0
    w.priced = 0
    w.reach_links = -1
    w.stamp += 1
    work.visited[w.node] = w.stamp
    _process(world, work, request)


@njit(**INLINE)
def _can_run(world, work, request, node, stage):
    """Whether a node hosts the stage's function and has budget left for it on the snapshot."""
    rate = world.rate[node, world.chains[request.service, stage]]
    if rate < 0:
        return False
    r = world.links.shape[0] + node
    return work.snapshot[r] + work.own[r] + need_mcpu(request.demand, rate) <= world.nodes[node].budget


@njit(**INLINE)
def _process(world, work, request):
    """Run the next stages where the walk stands, as many in a row as the node can."""
    w = work.walk[0]
    node = w.node
    length = world.chain_length[request.service]
    while w.stage < length and _can_run(world, work, request, node, w.stage):
        function = world.chains[request.service, w.stage]
        need = need_mcpu(request.demand, world.rate[node, function])
        r = world.links.shape[0] + node
        share = world.nodes[node].share
        w.price += price_of(world.price, work.snapshot[r], share) * need * share
        w.latency += world.processing[function] / (1.0 - work.snapshot[r] / world.nodes[node].raw)
        work.own[r] += need
        work.hosts[w.n_hosts] = node
        w.n_hosts += 1
        w.stage += 1
        w.stamp += 1  # a new segment: only this node counts as visited
        work.visited[node] = w.stamp


@njit(**INLINE)
def is_complete(world, work, request):
    """Whether the chain is done and the walk is at its destination."""
    w = work.walk[0]
    return w.stage == world.chain_length[request.service] and w.node == request.destination


@njit(**INLINE)
def _why_not(world, work, request, rules, link, to_go):
    """Return why a neighbour is not allowed now, or FREE_SLOT."""
    w = work.walk[0]
    target = world.links[link].target
    if work.visited[target] == w.stamp:
        return LOOP
    if world.nodes[target].leaf and w.stage < world.chain_length[request.service]:
        if not _can_run(world, work, request, target, w.stage):
            return NO_COMPUTE
    if work.snapshot[link] + work.own[link] + request.demand > world.links[link].capacity:
        return NO_BANDWIDTH
    latency = w.latency + world.links[link].delay
    bound = world.bound_ms[request.service]
    if latency + (to_go if rules.mask != IMMEDIATE else 0.0) > bound:
        return NO_LATENCY
    if rules.mask == REACHABLE and latency + work.reach[w.stage, target] > bound:
        return UNREACHABLE
    return FREE_SLOT


@njit(**INNER)
def _what_blocks(world, work, request):
    """Return why a walk cannot be completed: the limit without which it could be, links before pools."""
    if completes_without(world, work, request, False, True):
        return NO_BANDWIDTH
    if completes_without(world, work, request, False, False):
        return NO_COMPUTE
    return NO_LATENCY


@njit(**INLINE)
def _sort_slots(work, n):
    """Insertion sort of the first n slots by key, then link id."""
    for i in range(1, n):
        key, link, cause = work.slot_key[i], work.slot_link[i], work.slot_cause[i]
        j = i - 1
        while j >= 0 and (work.slot_key[j] > key or (work.slot_key[j] == key and work.slot_link[j] > link)):
            work.slot_key[j + 1] = work.slot_key[j]
            work.slot_link[j + 1] = work.slot_link[j]
            work.slot_cause[j + 1] = work.slot_cause[j]
            j -= 1
        work.slot_key[j + 1], work.slot_link[j + 1], work.slot_cause[j + 1] = key, link, cause


@njit(**INLINE)
def look(world, work, request, rules):
    """Find the useful neighbours, nearest first, and which are allowed.

    A neighbour is useful when it is no stub (unless it is the destination) and the request can still be finished
    from it. With none allowed, `walk.cause` says what blocks the nearest neighbour that was not visited.

    Returns:
        Number of allowed slots.
    """
    w = work.walk[0]
    n_kept = work.mask.shape[0]
    to_go = world.to_go[request.service, w.stage, request.destination]
    done = w.stage == world.chain_length[request.service]
    if rules.mask == REACHABLE:
        look_ahead(world, work, request)
        lap(work.watch, REACH)
    n = 0
    for i in range(world.out_start[w.node], world.out_start[w.node + 1]):
        link = world.out_links[i]
        target = world.links[link].target
        if (world.nodes[target].stub and target != request.destination) or to_go[target] == np.inf:
            continue
        if done and world.nodes[target].leaf and target != request.destination:
            continue  # nothing left to run in a pool
        work.slot_link[n] = link
        work.slot_key[n] = world.links[link].delay + to_go[target]
        work.slot_cause[n] = _why_not(world, work, request, rules, link, to_go[target])
        n += 1
    _sort_slots(work, n)
    w.n_slots = min(n, n_kept)
    w.n_valid = 0
    w.cause = -1
    for i in range(w.n_slots):
        if work.slot_cause[i] == FREE_SLOT:
            w.forced = work.slot_link[i]
            w.n_valid += 1
        elif w.cause < 0 and work.slot_cause[i] != LOOP:
            w.cause = work.slot_cause[i]
    if w.cause < 0:
        w.cause = LOOP
    if w.cause == UNREACHABLE and w.n_valid == 0:
        w.cause = _what_blocks(world, work, request)
    for i in range(n_kept, n):
        if work.slot_cause[i] == FREE_SLOT and w.n_valid == 0:
            w.cause = NO_SLOT
    lap(work.watch, MASK)
    return w.n_valid


@njit(**INLINE)
def observe(world, work, request, rules):
    """Order the slots and write the observation and mask of the walk where it stands.

    Per slot: exists, free bandwidth, link delay, slack after the hop, hosts the next function, free compute there,
    delay still to go (2 when visited), priced cost-to-go over the best slot's. Delays are shares of the bound.
    """
    w = work.walk[0]
    service, stage = request.service, w.stage
    length = world.chain_length[service]
    bound = world.bound_ms[service]
    n_slots = work.mask.shape[0]
    x = work.observation
    g = work.observation[SLOT_FEATURES * n_slots :]
    if not w.priced:  # the first choice of this request
        price_to_go(world, work, request, stage)
        lap(work.watch, PRICES)
        w.priced = 1
        hour = request.t_s % 86400.0 / 3600.0
        g[:] = 0.0
        g[0] = np.log10(request.demand) / 6.0  # 1 at 1 Gb/s
        g[4] = np.sin(hour * np.pi / 12.0)
        g[5] = np.cos(hour * np.pi / 12.0)
        g[GLOBAL_FEATURES + service] = 1.0
    if rules.slot_order == PRICED:
        for i in range(w.n_slots):
            link = work.slot_link[i]
            work.slot_key[i] = work.link_cost[link] + work.cost[stage, world.links[link].target]
        _sort_stable(work, w.n_slots)  # equal costs keep the static order
    x[: SLOT_FEATURES * n_slots] = 0.0
    work.mask[:] = False
    best = np.inf
    for i in range(w.n_slots):
        best = min(best, work.link_cost[work.slot_link[i]] + work.cost[stage, world.links[work.slot_link[i]].target])
    n_edges = world.links.shape[0]
    per_bound = 1.0 / bound
    to_go_from = world.to_go[service, stage, request.destination]
    for i in range(w.n_slots):
        link = work.slot_link[i]
        target = world.links[link].target
        to_go = to_go_from[target]
        at = i * SLOT_FEATURES
        work.mask[i] = work.slot_cause[i] == FREE_SLOT
        x[at] = 1.0
        x[at + 1] = 1.0 - (work.snapshot[link] + work.own[link]) * world.links[link].share
        x[at + 2] = world.links[link].delay * per_bound
        x[at + 3] = max(-1.0, 1.0 - (w.latency + world.links[link].delay + to_go) * per_bound)
        if stage < length and world.rate[target, world.chains[service, stage]] >= 0:
            x[at + 4] = 1.0
            x[at + 5] = 1.0 - (work.snapshot[n_edges + target] + work.own[n_edges + target]) * world.nodes[target].share
        x[at + 6] = 2.0 if work.slot_cause[i] == LOOP else to_go * per_bound
        cost = work.link_cost[link] + work.cost[stage, target]
        x[at + 7] = min(1.0, 10.0 * (cost - best)) if cost < np.inf else 1.0
    g[1] = 1.0 - w.latency * per_bound
    g[2] = stage / length
    g[3] = (length - stage) / 5.0
    g[6] = min(1.0, np.log1p(best * world.hold[service]) / LARGEST_LOG_PRICE) if best < np.inf else 1.0


@njit(**INLINE)
def _sort_stable(work, n):
    """Stable insertion sort of the first n slots by key alone."""
    for i in range(1, n):
        key, link, cause = work.slot_key[i], work.slot_link[i], work.slot_cause[i]
        j = i - 1
        while j >= 0 and work.slot_key[j] > key:
            work.slot_key[j + 1] = work.slot_key[j]
            work.slot_link[j + 1] = work.slot_link[j]
            work.slot_cause[j + 1] = work.slot_cause[j]
            j -= 1
        work.slot_key[j + 1], work.slot_link[j + 1], work.slot_cause[j + 1] = key, link, cause


@njit(**INLINE)
def take(world, work, request, link):
    """Walk over a link and run the stages that can run at its end."""
    w = work.walk[0]
    share = world.links[link].share
    w.price += price_of(world.price, work.snapshot[link], share) * request.demand * share
    w.latency += world.links[link].delay
    work.own[link] += request.demand
    work.links[w.n_links] = link
    w.n_links += 1
    w.node = world.links[link].target
    work.visited[w.node] = w.stamp
    _process(world, work, request)


@njit(**INLINE)
def to_decision(world, work, request, rules):
    """Walk on over forced hops until there is a choice to make.

    Returns:
        True when at least two slots are allowed, or one at the start of a request that the agent may refuse: `look`
        has been done, `observe` may follow. False when the walk
        has ended: `walk.cause` is ACCEPTED for a complete route within its bound, else the reason it failed.
    """
    w = work.walk[0]
    while True:
        if is_complete(world, work, request):
            w.cause = ACCEPTED if w.latency <= world.bound_ms[request.service] else NO_LATENCY
            return False
        if w.n_links == work.links.shape[0]:
            w.cause = HOP_LIMIT
            return False
        n_valid = look(world, work, request, rules)
        if n_valid == 0:
            return False
        if n_valid > 1 or (rules.may_refuse and not w.priced):
            return True
        take(world, work, request, w.forced)


@njit(**INLINE)
def route_delta(world, links, n_links, hosts, n_hosts, request, resources, amounts):
    """Write what a route takes, link by link and stage by stage; return the number of entries."""
    for i in range(n_links):
        resources[i] = links[i]
        amounts[i] = request.demand
    for i in range(n_hosts):
        resources[n_links + i] = world.links.shape[0] + hosts[i]
        amounts[n_links + i] = need_mcpu(request.demand, world.rate[hosts[i], world.chains[request.service, i]])
    return n_links + n_hosts
