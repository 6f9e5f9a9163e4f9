"""Room for a request that found none: a few active flows are routed anew, all or nothing.

First the route with the least overload is found, as if links and pools could be overfilled. Then, on a scratch copy of
the state with that route in place, active flows that use an overfilled resource are routed anew by the base rule, one
after the other, until nothing is overfilled. Only then does anything happen: the flows give back their old routes, take
their new ones, and the request is committed. So capacity holds after every row of the ledger, and a flow that moves is
within its latency bound on the state at its move.
"""

import numpy as np
from numba import njit

from amarl_core.k_shortest import route_latency
from amarl_core.moves import N_MOVES, N_RESCUED
from amarl_core.native import INNER, KERNEL
from amarl_core.rollout import depart
from amarl_core.routing import ACCEPTED, need_mcpu, route_delta
from amarl_core.rule_routes import mark_allowed, plan_exact, trace_back
from amarl_core.search import FOUND, bound_search, find_route, weigh
from amarl_core.store import commit, read_snapshot


@njit(**INNER)
def _put(world, work, request, links, n_links, hosts, sign):
    """Add a route to the scratch state, or with sign -1 take it away."""
    n = route_delta(
        world, links, n_links, hosts, world.chain_length[request.service], request, work.resources, work.amounts
    )
    for i in range(n):
        work.snapshot[work.resources[i]] += sign * work.amounts[i]


@njit(**INNER)
def _find_overfull(world, work, search, request, planner):
    """Find the route with the least overload: first the fewest overfilled resources, then the least excess.

    Returns:
        Whether there is one within the latency bound.
    """
    mark_allowed(world, work, search, request, planner)
    weigh(world, work, search, request, planner.rule, 0, 0)
    small = 1e-6  # the rule's own cost decides between equal overloads
    for e in range(world.links.shape[0]):
        link = world.links[e]
        excess = work.snapshot[e] + request.demand - link.capacity
        search.link_cost[e] *= small
        if request.demand > link.capacity:
            search.link_cost[e], search.link_ms[e] = np.inf, np.inf
        elif excess > 0:
            search.link_cost[e] += 1.0 + excess * link.share
    for stage in range(world.chain_length[request.service]):
        for node in range(world.nodes.shape[0]):
            if search.stage_cost[stage, node] == np.inf:
                continue
            need = need_mcpu(request.demand, world.rate[node, world.chains[request.service, stage]])
            excess = work.snapshot[world.links.shape[0] + node] + need - world.nodes[node].budget
            search.stage_cost[stage, node] *= small
            if need > world.nodes[node].budget:
                search.stage_cost[stage, node], search.stage_ms[stage, node] = np.inf, np.inf
            elif excess > 0:
                search.stage_cost[stage, node] += 1.0 + excess * world.nodes[node].share
    if bound_search(world, work, search, request) > world.bound_ms[request.service]:
        return False
    status, label = find_route(world, work, search, request, planner.blind, planner.max_hops)
    if status != FOUND:
        return False
    trace_back(world, work, search, request, label)
    return True


@njit(**INNER)
def _overfull(arena, work, request, plan):
    """Return a resource of the request's route that is overfilled on the scratch state, -1 for none."""
    world = arena.world
    n = route_delta(
        world,
        plan.own_links,
        plan.own_n_links[0],
        plan.own_hosts,
        world.chain_length[request.service],
        request,
        work.resources,
        work.amounts,
    )
    for i in range(n):
        if work.snapshot[work.resources[i]] > arena.shared.limit[work.resources[i]]:
            return work.resources[i]
    return -1


@njit(**INNER)
def _use_of(arena, row, resource):
    """Return what an active flow takes of a resource."""
    world, request, record = arena.world, arena.requests[row], arena.records.rows[row]
    n_edges, used = world.links.shape[0], 0
    if resource < n_edges:
        for i in range(record.n_links):
            if arena.records.links[row, i] == resource:
                used += request.demand
        return used
    for stage in range(record.n_hosts):
        if arena.records.hosts[row, stage] == resource - n_edges:
            rate = world.rate[resource - n_edges, world.chains[request.service, stage]]
            used += need_mcpu(request.demand, rate)
    return used


@njit(**INNER)
def _rank_candidates(arena, plan, n_planned, resource, excess):
    """Write the flows to try first: those that free enough before others, loose services before tight ones.

    Returns:
        How many there are, at most N_CANDIDATES.
    """
    n = 0
    for i in range(arena.n_departures[0]):
        row = arena.departures.row[i]
        used = _use_of(arena, row, resource)
        if used == 0:
            continue
        is_planned = False
        for j in range(n_planned):
            is_planned = is_planned or plan.row[j] == row
        if is_planned:
            continue
        share = used / arena.shared.limit[resource]  # under 1: decides between flows of equally loose services
        key = share if used >= excess else 1e9 - share
        key -= arena.world.bound_ms[arena.requests[row].service] * 10.0
        if n == plan.key.shape[0] and key >= plan.key[n - 1]:
            continue
        if n < plan.key.shape[0]:
            n += 1
        j = n - 1
        while j > 0 and plan.key[j - 1] > key:
            plan.key[j], plan.candidate[j] = plan.key[j - 1], plan.candidate[j - 1]
            j -= 1
        plan.key[j], plan.candidate[j] = key, row
    return n


@njit(**INNER)
def _plan_move(arena, work, search, planner, plan, n_planned, resource):
    """Plan one more flow off an overfilled resource on the scratch state; return whether one was found."""
    world, records = arena.world, arena.records
    w = work.walk[0]
    excess = work.snapshot[resource] - arena.shared.limit[resource]
    n = _rank_candidates(arena, plan, n_planned, resource, excess)
    for i in range(n):
        row = plan.candidate[i]
        request = arena.requests[row]
        links, n_links, hosts = records.links[row], records.rows[row].n_links, records.hosts[row]
        _put(world, work, request, links, n_links, hosts, -1)
        if plan_exact(world, work, search, request, planner) == FOUND and w.cause == ACCEPTED:
            plan.row[n_planned], plan.n_links[n_planned] = row, w.n_links
            for j in range(w.n_links):
                plan.links[n_planned, j] = work.links[j]
            for j in range(w.n_hosts):
                plan.hosts[n_planned, j] = work.hosts[j]
            _put(world, work, request, work.links, w.n_links, work.hosts, 1)
            return True
        _put(world, work, request, links, n_links, hosts, 1)
    return False


@njit(**INNER)
def _plan_all(arena, work, search, planner, plan, request):
    """Plan the request's route and the moves that make room for it; return how many moves, -1 if in vain."""
    world, w = arena.world, work.walk[0]
    if not _find_overfull(world, work, search, request, planner):
        return -1
    plan.own_n_links[0] = w.n_links
    for i in range(w.n_links):
        plan.own_links[i] = work.links[i]
    for i in range(w.n_hosts):
        plan.own_hosts[i] = work.hosts[i]
    _put(world, work, request, plan.own_links, plan.own_n_links[0], plan.own_hosts, 1)
    n_planned = 0
    resource = _overfull(arena, work, request, plan)
    while resource >= 0:
        if n_planned == plan.row.shape[0]:
            return -1
        if not _plan_move(arena, work, search, planner, plan, n_planned, resource):
            return -1
        n_planned += 1
        resource = _overfull(arena, work, request, plan)
    _put(world, work, request, plan.own_links, plan.own_n_links[0], plan.own_hosts, -1)
    latency = route_latency(world, work.snapshot, request, plan.own_links, plan.own_n_links[0], plan.own_hosts)
    return n_planned if latency <= world.bound_ms[request.service] else -1


@njit(**INNER)
def _note_former(arena, moves, row, made_for):
    """Write into the table of moves what a flow's record says before the move."""
    record, records = arena.records.rows[row], arena.records
    n = moves.made[N_MOVES]
    move = moves.table[n]
    move.t_s, move.row, move.made_for = arena.requests[made_for].t_s, row, made_for
    move.latency = record.latency
    move.snapshot_version, move.commit_version = record.snapshot_version, record.commit_version
    move.n_links, move.n_hosts = record.n_links, record.n_hosts
    for i in range(record.n_links):
        moves.links[n, i] = records.links[row, i]
    for i in range(record.n_hosts):
        moves.hosts[n, i] = records.hosts[row, i]
    moves.made[N_MOVES] = n + 1


@njit(**INNER)
def _move_all(arena, work, plan, n_planned, moves, made_for):
    """Release the planned flows, then commit them on their new routes in the order planned; False when one fails."""
    records, t_s = arena.records, arena.requests[made_for].t_s
    for p in range(n_planned):
        _note_former(arena, moves, plan.row[p], made_for)
        if depart(arena, work, plan.row[p], t_s) < 0:
            return False
    for p in range(n_planned):
        row = plan.row[p]
        record = records.rows[row]
        record.snapshot_version = read_snapshot(arena.shared, work.snapshot)
        record.n_links = plan.n_links[p]
        record.latency = route_latency(
            arena.world, work.snapshot, arena.requests[row], plan.links[p], plan.n_links[p], plan.hosts[p]
        )
        for i in range(record.n_links):
            records.links[row, i] = plan.links[p, i]
        for i in range(record.n_hosts):
            records.hosts[row, i] = plan.hosts[p, i]
        request = arena.requests[row]
        n = route_delta(
            arena.world,
            plan.links[p],
            record.n_links,
            plan.hosts[p],
            record.n_hosts,
            request,
            work.resources,
            work.amounts,
        )
        lacking, version = commit(
            arena.shared, work.resources, work.amounts, n, row, request.agent, t_s, record.snapshot_version
        )
        if lacking != -1:
            return False
        record.commit_version = version
    return True


@njit(**KERNEL)
def make_room(arena, agent, search, planner, moves, row):
    """Move active flows so that a request without a feasible route fits.

    The walk holds the request's route afterwards, on a fresh snapshot, if that went well; else its cause stands.

    Returns:
        1 when there is room now, 0 when no moves would do, -1 on a failure (the ledger is full).
    """
    work, plan, request = agent.work, moves.plan, arena.requests[row]
    w = work.walk[0]
    cause = w.cause
    n_planned = _plan_all(arena, work, search, planner, plan, request)
    if n_planned < 0:
        w.cause, w.n_links, w.n_hosts = cause, 0, 0
        return 0
    if not _move_all(arena, work, plan, n_planned, moves, row):
        return -1
    w.version = read_snapshot(arena.shared, work.snapshot)
    w.cause = ACCEPTED
    w.n_links, w.n_hosts = plan.own_n_links[0], arena.world.chain_length[request.service]
    w.latency = route_latency(arena.world, work.snapshot, request, plan.own_links, w.n_links, plan.own_hosts)
    for i in range(w.n_links):
        work.links[i] = plan.own_links[i]
    for i in range(w.n_hosts):
        work.hosts[i] = plan.own_hosts[i]
    moves.made[N_RESCUED] += 1
    return 1
