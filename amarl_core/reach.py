"""The least latency still to go on the snapshot: what the `reachable` action mask looks ahead with.

A backward search over (stage, node), as for the priced cost, in milliseconds: links with room for the demand, stages
on nodes with budget left, processing at load. It follows the walk's own rules: a stage runs wherever it can, several in
a row as long as their sum fits, and the segment under way does not come back to a node. What the request has taken so
far counts. What it will take later does not, so a completion may need one link twice where there is room for once, or
more hops than a walk may have, or a neighbour beyond the slots: the search is never too strict, and seldom too hopeful.
"""

import numpy as np
from numba import njit

from amarl_core.native import INLINE, INNER, KERNEL
from amarl_core.prices import need_mcpu, node_of_search, settle_layer

NO_LIMIT = 2**62


@njit(**KERNEL)
def look_ahead(world, work, request):
    """Fill `work.reach[stage, node]` for the walk's stage and later ones: least latency from arriving there, in ms.

    The first look of a request searches all stages. Later ones leave out the nodes visited meanwhile, or search the
    next stage when one has run, or all stages when the walk has used up a link or a pool.
    """
    w = work.walk[0]
    if w.reach_links == w.n_links and w.reach_stage == w.stage:
        return
    if w.reach_links < 0 or _has_used_up(world, work, request):
        _search(world, work, request, True, True)
    elif w.reach_stage != w.stage:
        _search_stage(world, work, request, w.stage, True)
    else:
        for i in range(w.reach_links, w.n_links):
            node = world.links[work.links[i]].target
            work.reach_end[w.stage, node], work.reach_fixed[w.stage, node] = np.inf, True
        _settle(world, work, request, w.stage, work.reach[w.stage])
    w.reach_links = w.n_links
    w.reach_stage = w.stage


@njit(**KERNEL)
def completes_without(world, work, request, sees_bandwidth, sees_compute):
    """Whether the walk could be completed in time if links (or pools) had no limits; names a dead end's cause."""
    w = work.walk[0]
    _search(world, work, request, sees_bandwidth, sees_compute)
    w.reach_links = -1  # what the search left is no help to a walk
    to_go = _leave(world, work, request, w.stage, w.node, work.reach[w.stage])
    return w.latency + to_go <= world.bound_ms[request.service]


@njit(**INNER)
def _has_used_up(world, work, request):
    """Whether what the walk took since the last look leaves a link or a pool without room for taking it again."""
    w = work.walk[0]
    for i in range(w.reach_links, w.n_links):
        link = work.links[i]
        if work.snapshot[link] + work.own[link] + request.demand > world.links[link].capacity:
            return True
    for i in range(w.reach_stage, w.stage):
        node = work.hosts[i]
        r = world.links.shape[0] + node
        room = world.nodes[node].budget - work.snapshot[r] - work.own[r]
        for stage in range(w.stage, world.chain_length[request.service]):
            if need_mcpu(request.demand, world.rate[node, world.chains[request.service, stage]]) > room:
                return True
    return False


@njit(**INLINE)
def _weigh_link(world, work, e, demand, sees_bandwidth):
    """Note a link's delay, infinite where it has no room for a demand more."""
    has_room = work.snapshot[e] + work.own[e] + demand <= world.links[e].capacity
    work.reach_link[e] = world.links[e].delay if has_room or not sees_bandwidth else np.inf


@njit(**INNER)
def _search(world, work, request, sees_bandwidth, sees_compute):
    """Search all stages from the last back to the walk's own."""
    for e in world.transit_links:
        _weigh_link(world, work, e, request.demand, sees_bandwidth)
    for i in range(world.out_start[request.source], world.out_start[request.source + 1]):
        _weigh_link(world, work, world.out_links[i], request.demand, sees_bandwidth)
    for i in range(world.in_start[request.destination], world.in_start[request.destination + 1]):
        _weigh_link(world, work, world.in_links[i], request.demand, sees_bandwidth)
    for i in range(world.out_start[request.destination], world.out_start[request.destination + 1]):
        _weigh_link(world, work, world.out_links[i], request.demand, sees_bandwidth)
    for stage in range(world.chain_length[request.service], work.walk[0].stage - 1, -1):
        _search_stage(world, work, request, stage, sees_compute)


@njit(**INNER)
def _search_stage(world, work, request, stage, sees_compute):
    """Search one stage, on top of the later ones."""
    w = work.walk[0]
    ends, fixed = work.reach_end[stage], work.reach_fixed[stage]
    is_last = stage == world.chain_length[request.service]
    function = 0 if is_last else world.chains[request.service, stage]
    for i in range(world.transit.shape[0] + 2):
        node = node_of_search(world, request, i)
        if stage == w.stage and work.visited[node] == w.stamp:
            ends[node], fixed[node] = np.inf, True
        elif is_last:
            ends[node], fixed[node] = 0.0 if node == request.destination else np.inf, False
        elif world.rate[node, function] < 0:  # seen here, as calls with all these arguments take long
            ends[node], fixed[node] = np.inf, False
        else:
            ends[node], fixed[node] = _run(world, work, request, stage, node, sees_compute)
        work.reach_away[stage, node] = -1.0
    _settle(world, work, request, stage, work.reach[stage])


@njit(**INNER)
def _settle(world, work, request, stage, layer):
    """Fill a layer from where the stage can end."""
    for i in range(world.transit.shape[0] + 2):
        node = node_of_search(world, request, i)
        layer[node] = work.reach_end[stage, node]
    settle_layer(world, work, request, stage, work.reach_link, layer, work.reach_fixed[stage])


@njit(**INNER)
def _run(world, work, request, stage, node, sees_compute):
    """Run a stage on arrival at a node, with the stages that follow in a row.

    Earlier stages of the walk to come may have taken some of the room here: it is `certain` at least and `room` at
    most. The stage may be passed by, and the row may end, where the one has no room and the other has.

    Returns:
        (ms, is_certain): least latency until the request's end, infinite if the stage cannot run; whether it must run.
    """
    service = request.service
    r = world.links.shape[0] + node
    room = world.nodes[node].budget - work.snapshot[r] - work.own[r] if sees_compute else NO_LIMIT
    certain = room if sees_compute else 0
    for earlier in range(work.walk[0].stage, stage - 1):  # the stage just before would be part of the same row
        rate = world.rate[node, world.chains[service, earlier]]
        if rate >= 0:
            certain -= need_mcpu(request.demand, rate)
    slowness = 1.0 / (1.0 - work.snapshot[r] / world.nodes[node].raw)
    least, ms, taken, is_certain, at = np.inf, 0.0, 0, False, stage
    while True:
        need = NO_LIMIT
        if at < world.chain_length[service] and world.rate[node, world.chains[service, at]] >= 0:
            need = need_mcpu(request.demand, world.rate[node, world.chains[service, at]])
        if at > stage and taken + need > certain:
            if need == NO_LIMIT:
                least = min(least, ms + _leave(world, work, request, at, node, work.reach[at]))
            else:
                least = min(least, ms + _leave_for_good(world, work, request, at, node))
        if taken + need > room or need == NO_LIMIT:
            return least, is_certain
        if at == stage:
            is_certain = need <= certain
        taken += need
        ms += world.processing[world.chains[service, at]] * slowness
        at += 1


@njit(**INNER)
def _leave(world, work, request, stage, node, layer):
    """Return the least latency from a node where a stage does not run, over its links; 0 at the end of the request."""
    if stage == world.chain_length[request.service] and node == request.destination:
        return 0.0
    least = np.inf
    for i in range(world.out_start[node], world.out_start[node + 1]):
        link = world.out_links[i]
        target = world.links[link].target
        if not world.nodes[target].stub or target == request.destination:
            least = min(least, work.reach_link[link] + layer[target])
    return least


@njit(**INNER)
def _leave_for_good(world, work, request, stage, node):
    """As `_leave`, from a node whose room the stages before have used up: the segment may not come back to it."""
    least = _leave(world, work, request, stage, node, work.reach[stage])
    if least <= work.reach[stage, node]:
        return least  # latency falls along a way, so this one does not come back
    away = work.reach_away[stage]
    if away[node] < 0.0:
        end, is_fixed = work.reach_end[stage, node], work.reach_fixed[stage, node]
        work.reach_end[stage, node], work.reach_fixed[stage, node] = np.inf, True
        _settle(world, work, request, stage, work.reach_spare)
        work.reach_end[stage, node], work.reach_fixed[stage, node] = end, is_fixed
        away[node] = _leave(world, work, request, stage, node, work.reach_spare)
    return away[node]
