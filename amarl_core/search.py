"""Exact routing of one request on a snapshot: the cheapest feasible route through chain and network.

Best-first search over labels (stage, node, cost, latency) with exact lower bounds from a backward search. A label
respects everything: room on links and in pools net of what the route itself uses earlier, latency, simple segments.
A label is dropped when another at the same (stage, node) costs no more, is no slower, and has used no more of any
resource that could become too tight for further uses; so every completion of the one is open to the other.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from amarl_core.arrays import World
from amarl_core.label_heap import heap_pop, heap_push
from amarl_core.native import INNER, KERNEL
from amarl_core.prices import cost_to_go, price_of
from amarl_core.routing import need_mcpu

BY_LATENCY, BY_PRICE, BY_HOPS = range(3)
"""What a rule minimises; of routes with as few links the one of least latency."""

RUN_STAGE = -1
"""What a label's `move` says when a stage runs; otherwise it is the link walked."""

FOUND, NONE, EXHAUSTED, TOO_DEAR = range(4)
N_LABELS, N_HEAP, N_SIZES = range(3)

LABEL = np.dtype(
    [
        ("cost", "f8"),
        ("latency", "f8"),
        ("parent", "i8"),
        ("move", "i8"),
        ("node", "i8"),
        ("stage", "i8"),
        ("next", "i8"),
        ("depth", "i8"),
    ]
)


class Search(NamedTuple):
    """Scratch of the search: L labels."""

    labels: np.ndarray  # LABEL[L]
    heap_key: np.ndarray  # float64[L]
    heap_label: np.ndarray  # int64[L]
    settled: np.ndarray  # int64[K + 1, N], first settled label of a state, -1 for none
    link_cost: np.ndarray  # float64[E], what the rule minimises
    stage_cost: np.ndarray  # float64[K, N]
    link_ms: np.ndarray  # float64[E], latency, infinite without room
    stage_ms: np.ndarray  # float64[K, N]
    least_cost: np.ndarray  # float64[K + 1, N], still to go
    least_ms: np.ndarray  # float64[K + 1, N]
    allowed: np.ndarray  # bool[N], pools this service may use now
    chain_mcpu: np.ndarray  # int64[N], compute of all the chain's stages that a node hosts
    size: np.ndarray  # int64[N_SIZES], labels made and labels on the heap


class Rule(NamedTuple):
    """A routing rule."""

    criterion: int  # BY_LATENCY, BY_PRICE or BY_HOPS
    sees_load: int  # 0: plans as if the network were idle
    reserve_above: float  # a loose service leaves a reserved pool alone from this utilisation on
    loose_ms: float  # a service is loose when its bound is at least this
    worth: float = np.inf  # a request is refused whose priced cost, for its service's mean holding time, is above


def make_search(world: World, n_labels: int = 20_000) -> Search:
    """Return scratch for one thread."""
    n, e, k = len(world.nodes), len(world.links), world.chains.shape[1]
    return Search(
        np.zeros(n_labels, LABEL),
        np.zeros(n_labels),
        np.zeros(n_labels, np.int64),
        np.full((k + 1, n), -1, np.int64),
        np.zeros(e),
        np.zeros((k, n)),
        np.zeros(e),
        np.zeros((k, n)),
        np.zeros((k + 1, n)),
        np.zeros((k + 1, n)),
        np.zeros(n, np.bool_),
        np.zeros(n, np.int64),
        np.zeros(N_SIZES, np.int64),
    )


@njit(**KERNEL)
def weigh(world, work, search, request, rule, sees_bandwidth, sees_compute):
    """Fill the weights of links and stages on the snapshot, infinite where there is no room."""
    n_edges = world.links.shape[0]
    per_hop = 0.5 / world.bound_ms[request.service]  # a route's whole latency weighs at most half a hop
    for e in range(n_edges):
        link = world.links[e]
        room = not sees_bandwidth or work.snapshot[e] + request.demand <= link.capacity
        search.link_ms[e] = link.delay if room else np.inf
        search.link_cost[e] = search.link_ms[e]
        if rule.criterion == BY_HOPS:
            search.link_cost[e] = 1.0 + search.link_ms[e] * per_hop
        if room and rule.criterion == BY_PRICE:
            search.link_cost[e] = price_of(world.price, work.snapshot[e], link.share) * request.demand * link.share
    search.chain_mcpu[:] = 0
    for stage in range(world.chain_length[request.service]):
        function = world.chains[request.service, stage]
        for node in range(world.nodes.shape[0]):
            search.stage_ms[stage, node] = np.inf
            search.stage_cost[stage, node] = np.inf
            rate = world.rate[node, function]
            if rate < 0 or not search.allowed[node]:
                continue
            budget = world.nodes[node].budget
            need = need_mcpu(request.demand, rate)
            search.chain_mcpu[node] += need
            used = work.snapshot[n_edges + node]
            if sees_compute and used + need > budget:
                continue
            rho = used / world.nodes[node].raw if rule.sees_load else 0.0
            search.stage_ms[stage, node] = world.processing[function] / (1.0 - rho)
            search.stage_cost[stage, node] = search.stage_ms[stage, node]
            if rule.criterion == BY_HOPS:
                search.stage_cost[stage, node] *= per_hop
            if rule.criterion == BY_PRICE:
                share = world.nodes[node].share
                search.stage_cost[stage, node] = price_of(world.price, used, share) * need * share


@njit(**KERNEL)
def bound_search(world, work, search, request):
    """Fill least cost and least latency still to go; return the least latency of a whole route."""
    cost_to_go(world, work, request, 0, search.link_ms, search.stage_ms, search.least_ms)
    cost_to_go(world, work, request, 0, search.link_cost, search.stage_cost, search.least_cost)
    return search.least_ms[0, request.source]


@njit(**INNER)
def _own_use(world, search, request, label, link, node):
    """Return what the label's route has taken of a link (kbps) or, with link < 0, of a node (mcpu)."""
    taken = 0
    at = label
    while search.labels[at].parent >= 0:
        step = search.labels[at]
        if link >= 0 and step.move == link:
            taken += request.demand
        elif link < 0 and step.move == RUN_STAGE and step.node == node:
            function = world.chains[request.service, step.stage - 1]
            taken += need_mcpu(request.demand, world.rate[node, function])
        at = step.parent
    return taken


@njit(**INNER)
def _visited(search, label, node):
    """Whether the label's current segment has been at a node."""
    at = label
    while True:
        if search.labels[at].node == node:
            return True
        if search.labels[at].parent < 0 or search.labels[at].move == RUN_STAGE:
            return False
        at = search.labels[at].parent


@njit(**INNER)
def _uses_no_more(world, work, search, request, a, b):
    """Whether route a has taken no more than route b of every resource that further uses could exhaust.

    A link is used once a segment at most, and a chain has a segment more than stages.
    """
    n_edges = world.links.shape[0]
    most = request.demand * (world.chain_length[request.service] + 1)
    at = a
    while search.labels[at].parent >= 0:
        step = search.labels[at]
        if step.move == RUN_STAGE:
            taken = _own_use(world, search, request, a, -1, step.node)
            rest = world.nodes[step.node].budget - work.snapshot[n_edges + step.node]
            if rest < search.chain_mcpu[step.node] and taken > _own_use(world, search, request, b, -1, step.node):
                return False
        elif work.snapshot[step.move] + most > world.links[step.move].capacity:
            taken = _own_use(world, search, request, a, step.move, -1)
            if taken > _own_use(world, search, request, b, step.move, -1):
                return False
        at = step.parent
    return True


@njit(**INNER)
def _dominated(world, work, search, request, label):
    """Whether a settled label at the same state is at least as good in every respect."""
    candidate = search.labels[label]
    at = search.settled[candidate.stage, candidate.node]
    while at >= 0:
        if (
            search.labels[at].cost <= candidate.cost
            and search.labels[at].latency <= candidate.latency
            and _uses_no_more(world, work, search, request, at, label)
        ):
            return True
        at = search.labels[at].next
    return False


@njit(**KERNEL)
def find_route(world, work, search, request, rule, max_hops):
    """Find the cheapest feasible route; `weigh` and `bound_search` come first.

    Returns:
        (status, label): FOUND with the last label of the route, NONE, or EXHAUSTED when labels ran out.
    """
    open_search(world, search, request)
    return next_route(world, work, search, request, rule, max_hops, 1)


@njit(**KERNEL)
def open_search(world, search, request):
    """Begin a search at the source of a request, with nothing on the heap when no route can be in time."""
    search.settled[:] = -1
    search.size[N_LABELS], search.size[N_HEAP] = 0, 0
    in_time = search.least_ms[0, request.source] <= world.bound_ms[request.service]
    if search.least_cost[0, request.source] == np.inf or not in_time:
        return
    root = search.labels[0]
    root.cost, root.latency, root.parent, root.move, root.node = 0.0, 0.0, -1, -2, request.source
    root.stage, root.next, root.depth = 0, -1, 0
    heap_push(search, 0, search.least_cost[0, request.source], 0)
    search.size[N_LABELS], search.size[N_HEAP] = 1, 1


@njit(**KERNEL)
def next_route(world, work, search, request, rule, max_hops, prune):
    """Go on with an open search to its next complete route, in order of cost.

    With `prune`, dominated labels are dropped, so that only the first route is exact; without, every call gives the
    next of all feasible routes (cf. Hart, Nilsson, Raphael 1968: the bounds are exact but for loops and room, so few
    labels are made in vain).

    Returns:
        (status, label): FOUND with the last label of the route, NONE, or EXHAUSTED when labels ran out.
    """
    n_edges = world.links.shape[0]
    length = world.chain_length[request.service]
    bound = world.bound_ms[request.service]
    labels = search.labels
    n_labels, n_heap = search.size[N_LABELS], search.size[N_HEAP]
    while n_heap > 0:
        at = heap_pop(search, n_heap)
        n_heap -= 1
        label = labels[at]
        stage, node = label.stage, label.node
        if stage == length and node == request.destination:
            search.size[N_LABELS], search.size[N_HEAP] = n_labels, n_heap
            return FOUND, at
        if prune:
            if _dominated(world, work, search, request, at):
                continue
            label.next = search.settled[stage, node]
            search.settled[stage, node] = at
        first, last = world.out_start[node], world.out_start[node + 1]
        for i in range(first - 1, last):  # running the next stage here, then every link out
            if i < first:
                if stage == length or search.stage_ms[stage, node] == np.inf:
                    continue
                move, target, next_stage, depth = RUN_STAGE, node, stage + 1, label.depth
                cost = label.cost + search.stage_cost[stage, node]
                latency = label.latency + search.stage_ms[stage, node]
            else:
                move = world.out_links[i]
                target, next_stage, depth = world.links[move].target, stage, label.depth + 1
                if world.nodes[target].stub and target != request.destination:
                    continue
                if search.link_ms[move] == np.inf or depth > max_hops:
                    continue
                cost = label.cost + search.link_cost[move]
                latency = label.latency + search.link_ms[move]
            if search.least_cost[next_stage, target] == np.inf or latency + search.least_ms[next_stage, target] > bound:
                continue
            if move != RUN_STAGE and _visited(search, at, target):
                continue
            if rule.sees_load:
                if move == RUN_STAGE:
                    need = need_mcpu(request.demand, world.rate[node, world.chains[request.service, stage]])
                    taken = _own_use(world, search, request, at, -1, node)
                    room = work.snapshot[n_edges + node] + taken + need <= world.nodes[node].budget
                else:
                    taken = _own_use(world, search, request, at, move, -1)
                    room = work.snapshot[move] + taken + request.demand <= world.links[move].capacity
                if not room:
                    continue
            if n_labels == labels.shape[0]:
                return EXHAUSTED, -1
            child = labels[n_labels]
            child.cost, child.latency, child.parent, child.move, child.node = cost, latency, at, move, target
            child.stage, child.next, child.depth = next_stage, -1, depth
            if prune and _dominated(world, work, search, request, n_labels):
                continue
            heap_push(search, n_heap, cost + search.least_cost[next_stage, target], n_labels)
            n_labels += 1
            n_heap += 1
    search.size[N_HEAP] = 0
    return NONE, -1
