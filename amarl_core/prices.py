"""Exponential prices of links and pools, and the priced cost still to go (Awerbuch, Azar, Plotkin, FOCS 1993).

A resource at utilisation u costs mu^u - 1 for each unit of its capacity that a request takes: next to nothing when
idle, dear when nearly full.
"""

import numpy as np
from numba import njit

from amarl_core.native import INNER, KERNEL


@njit(**KERNEL)
def price_of(table, used, share):
    """Return mu^u - 1 at u = used x share (share = 1 / capacity), from a table over [0, 1]."""
    last = table.shape[0] - 1
    return table[min(last, int(used * share * last))]


@njit(**KERNEL)
def charge(options, hold, price):
    """Return what the reward takes for a priced cost, at most `most_charged`; `hold` is `World.hold` of the service."""
    return min(options.beta * hold * price, options.most_charged)


@njit(**KERNEL)
def need_mcpu(demand_kbps, rate):
    """Return a stage's compute, ceil(demand x rate / 10^6), in integers."""
    return (demand_kbps * rate + 999_999) // 1_000_000


@njit(**INNER)
def _price_link(world, work, e, demand):
    """Price one link for a demand; infinite where it has no room."""
    if work.snapshot[e] + demand > world.links[e].capacity:
        work.link_cost[e] = np.inf
    else:
        share = world.links[e].share
        work.link_cost[e] = price_of(world.price, work.snapshot[e], share) * demand * share


@njit(**INNER)
def node_of_search(world, request, i):
    """Return the i-th node that a route may touch: transit nodes, then source and destination."""
    if i < world.transit.shape[0]:
        return world.transit[i]
    return request.source if i == world.transit.shape[0] else request.destination


@njit(**KERNEL)
def price_to_go(world, work, request, first_stage):
    """Fill `work.cost[stage, node]` with the priced cost still to go on the snapshot, for stages >= first_stage."""
    n_edges = world.links.shape[0]
    demand = request.demand
    for e in world.transit_links:
        _price_link(world, work, e, demand)
    if world.nodes[request.source].stub:
        for i in range(world.out_start[request.source], world.out_start[request.source + 1]):
            _price_link(world, work, world.out_links[i], demand)
    if world.nodes[request.destination].stub:
        for i in range(world.in_start[request.destination], world.in_start[request.destination + 1]):
            _price_link(world, work, world.in_links[i], demand)
        for i in range(world.out_start[request.destination], world.out_start[request.destination + 1]):
            _price_link(world, work, world.out_links[i], demand)
    for stage in range(first_stage, world.chain_length[request.service]):
        function = world.chains[request.service, stage]
        for i in range(world.transit.shape[0] + 2):
            node = node_of_search(world, request, i)
            work.stage_cost[stage, node] = np.inf
            rate = world.rate[node, function]
            if rate >= 0:
                need = need_mcpu(demand, rate)
                used = work.snapshot[n_edges + node]
                if used + need <= world.nodes[node].budget:
                    share = world.nodes[node].share
                    work.stage_cost[stage, node] = price_of(world.price, used, share) * need * share
    cost_to_go(world, work, request, first_stage, work.link_cost, work.stage_cost, work.cost)


@njit(**KERNEL)
def cost_to_go(world, work, request, first_stage, link_cost, stage_cost, cost):
    """Search backward, layer by layer, for the least cost from every (stage, node) to the end of the request.

    Only states that some route could reach and leave within the latency bound on an idle network count. What the
    request itself uses twice counts once.

    Args:
        world, work, request: as in `routing`; of `work` only the queue is used.
        first_stage: layers below this one are not filled.
        link_cost: float64[E], infinite where a link may not be used.
        stage_cost: float64[K, N], infinite where a stage may not run.
        cost: float64[K + 1, N], the result.
    """
    length = world.chain_length[request.service]
    for stage in range(length, first_stage - 1, -1):
        layer = cost[stage]
        for i in range(world.transit.shape[0] + 2):
            node = node_of_search(world, request, i)
            if stage == length:
                layer[node] = 0.0 if node == request.destination else np.inf
            else:
                layer[node] = cost[stage + 1, node] + stage_cost[stage, node]
        settle_layer(world, work, request, stage, link_cost, layer, work.nowhere)


@njit(**INNER)
def settle_layer(world, work, request, stage, link_cost, layer, fixed):
    """Lower one stage's costs along links until none improves, from the costs of ending the stage at each node.

    Args:
        world, work, request: as in `routing`; of `work` only the queue is used.
        stage: whose layer it is.
        link_cost: float64[E], infinite where a link may not be used.
        layer: float64[N], of the nodes of the search (`node_of_search`): at first the cost of going on with the next
            stage here (infinite where the stage cannot run), then the least cost still to go.
        fixed: bool[N], nodes that keep their first cost.
    """
    service, source, destination = request.service, request.source, request.destination
    bound = world.bound_ms[service]
    # a route through its destination, a stub, is not in so_far: without a bound from there, nothing is pruned
    so_far = world.so_far[service, stage, source] if not world.nodes[destination].stub else work.zeros
    to_go = world.to_go[service, stage, destination]
    is_last = stage == world.chain_length[service]
    n_queued = 0
    for i in range(world.transit.shape[0] + 2):
        node = node_of_search(world, request, i)
        if i >= world.transit.shape[0] and not world.nodes[node].stub:
            continue  # a transit node, seen already
        work.queued[node] = False
        if not is_last and so_far[node] + to_go[node] > bound:
            layer[node] = np.inf
        if layer[node] < np.inf and (node == destination or not world.nodes[node].stub):
            work.queue[n_queued] = node
            work.queued[node] = True
            n_queued += 1
    _relax(world, work, link_cost, layer, fixed, so_far, to_go, bound, n_queued, destination)
    if world.nodes[source].stub and not fixed[source]:  # its links lead out only: settled last
        for i in range(world.out_start[source], world.out_start[source + 1]):
            e = world.out_links[i]
            target = world.links[e].target
            layer[source] = min(layer[source], link_cost[e] + layer[target])


@njit(**INNER)
def _relax(world, work, link_cost, layer, fixed, so_far, to_go, bound, n_queued, destination):
    """Lower one layer's costs along links until none improves (label-correcting, first in first out)."""
    n_nodes = work.queue.shape[0]
    head = 0
    while True:
        if n_queued == 0:
            # a route may go on from a stub when its chain is not done; links out of stubs are not in `in_links`
            if not world.nodes[destination].stub or fixed[destination]:
                return
            least = layer[destination]
            for i in range(world.out_start[destination], world.out_start[destination + 1]):
                e = world.out_links[i]
                node = world.links[e].target
                if so_far[destination] + world.links[e].delay + to_go[node] <= bound:
                    least = min(least, layer[node] + link_cost[e])
            if least == layer[destination]:
                return
            layer[destination] = least
            work.queue[head], n_queued = destination, 1
        node = work.queue[head]
        head = head + 1 if head + 1 < n_nodes else 0
        n_queued -= 1
        work.queued[node] = False
        for i in range(world.in_start[node], world.in_start[node + 1]):
            e = world.in_links[i]
            source = world.links[e].source
            through = layer[node] + link_cost[e]
            if (
                through < layer[source]
                and not fixed[source]
                and so_far[source] + world.links[e].delay + to_go[node] <= bound
            ):
                layer[source] = through
                if not work.queued[source]:
                    tail = head + n_queued
                    work.queue[tail if tail < n_nodes else tail - n_nodes] = source
                    work.queued[source] = True
                    n_queued += 1
