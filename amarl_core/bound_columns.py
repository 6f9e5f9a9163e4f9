"""Pricing for the bound: every request's cheapest route when each resource has a price in each block of time.

A *column* is one route of one request, kept as what it uses: (resource, share of its limit), resources numbered as
in the store, links then nodes. A request that arrives at t and holds for h uses its share of a resource during
[t, t + h), which falls into blocks of equal length. A tariff prices the whole limit of a resource over a block.

The search leaves out only what no policy can do: a route that is too slow even on an idle network or has no room
even on an empty one, a segment that visits a node twice, a stub entered other than as the destination. It ignores
what others use, so that every route that some policy could ever commit is among its routes.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from amarl_core.arrays import Work, World, make_work
from amarl_core.native import INNER, KERNEL
from amarl_core.routing import need_mcpu
from amarl_core.search import BY_LATENCY, FOUND, NONE, RUN_STAGE, Rule, Search, bound_search, find_route, make_search

ROUNDING_MS = 1e-6
"""Added to every latency bound: the search adds delays up in another order than a policy does."""

ROUTES_PER_CALL = 2048


class Tariff(NamedTuple):
    """Prices of R resources over B blocks of time."""

    start_s: float
    block_s: float
    paid: np.ndarray  # float64[B + 1, R], price of the whole limit from the start to each edge of a block


class Found(NamedTuple):
    """The cheapest routes of a run of requests; U uses at most."""

    cost: np.ndarray  # float64[n], a lower bound on the price of any route, infinite where there is none
    n_uses: np.ndarray  # int64[n], 0 where no route is worth it
    resource: np.ndarray  # int64[n, U]
    share: np.ndarray  # float64[n, U]


class Columns(NamedTuple):
    """C columns, ordered by request."""

    request: np.ndarray  # int64[C]
    start: np.ndarray  # int64[C + 1], into the two below
    resource: np.ndarray  # int64[uses]
    share: np.ndarray  # float64[uses], of the resource's limit


class Planner(NamedTuple):
    """What pricing needs besides requests and tariff."""

    world: World
    work: Work
    search: Search
    rule: Rule  # an empty network, on which a request must fit by itself
    max_hops: int
    found: Found  # of ROUTES_PER_CALL requests


def make_planner(world: World) -> Planner:
    """Return scratch for pricing; no simple route is longer than its hops."""
    n_stages, n_nodes = world.chains.shape[1], len(world.nodes)
    max_hops = (n_stages + 1) * n_nodes
    found = Found(
        np.zeros(ROUTES_PER_CALL),
        np.zeros(ROUTES_PER_CALL, np.int64),
        np.zeros((ROUTES_PER_CALL, max_hops + n_stages), np.int64),
        np.zeros((ROUTES_PER_CALL, max_hops + n_stages)),
    )
    search = make_search(world)
    search.allowed[:] = True
    rule = Rule(criterion=BY_LATENCY, sees_load=1, reserve_above=2.0, loose_ms=np.inf)
    relaxed = world._replace(bound_ms=world.bound_ms + ROUNDING_MS)
    return Planner(relaxed, make_work(world, 1, max_hops), search, rule, max_hops, found)


def make_tariff(prices: np.ndarray, start_s: float, block_s: float) -> Tariff:
    """Return a tariff from prices of whole limits, float64 [B, R]."""
    paid = np.zeros((len(prices) + 1, prices.shape[1]))
    np.cumsum(prices, axis=0, out=paid[1:])
    return Tariff(float(start_s), float(block_s), paid)


@njit(**INNER)
def _paid_until(tariff, t_s, r):
    """Return the price of the whole of a resource from the tariff's start to a time."""
    blocks = (t_s - tariff.start_s) / tariff.block_s
    last = tariff.paid.shape[0] - 1
    if blocks <= 0.0:
        return 0.0
    if blocks >= last:
        return tariff.paid[last, r]
    b = int(blocks)
    return tariff.paid[b, r] + (blocks - b) * (tariff.paid[b + 1, r] - tariff.paid[b, r])


@njit(**INNER)
def _price_request(planner, request, tariff):
    """Fill the search's weights for one request: prices over its holding time, delays of an idle network."""
    world, search = planner.world, planner.search
    end_s = request.t_s + request.hold_s
    n_edges = world.links.shape[0]
    for e in range(n_edges):
        search.link_ms[e] = world.links[e].delay
        price = _paid_until(tariff, end_s, e) - _paid_until(tariff, request.t_s, e)
        search.link_cost[e] = max(0.0, price) * request.demand * world.links[e].share
        if request.demand > world.links[e].capacity:
            search.link_ms[e] = np.inf
            search.link_cost[e] = np.inf
    search.chain_mcpu[:] = 0
    for stage in range(world.chain_length[request.service]):
        function = world.chains[request.service, stage]
        for node in range(world.nodes.shape[0]):
            search.stage_ms[stage, node] = np.inf
            search.stage_cost[stage, node] = np.inf
            rate = world.rate[node, function]
            if rate < 0 or need_mcpu(request.demand, rate) > world.nodes[node].budget:
                continue
            r = n_edges + node
            price = _paid_until(tariff, end_s, r) - _paid_until(tariff, request.t_s, r)
            need = need_mcpu(request.demand, rate)
            search.chain_mcpu[node] += need
            search.stage_ms[stage, node] = world.processing[function]
            search.stage_cost[stage, node] = max(0.0, price) * need * world.nodes[node].share


@njit(**INNER)
def _add_use(found, i, resource, share):
    """Note a use of a resource, together with earlier uses of the same."""
    n = found.n_uses[i]
    for u in range(n):
        if found.resource[i, u] == resource:
            found.share[i, u] += share
            return
    found.resource[i, n] = resource
    found.share[i, n] = share
    found.n_uses[i] = n + 1


@njit(**INNER)
def _write_uses(world, search, request, label, found, i):
    """Write what the route that ends in a label uses."""
    at = label
    while search.labels[at].parent >= 0:
        step = search.labels[at]
        if step.move == RUN_STAGE:
            need = need_mcpu(request.demand, world.rate[step.node, world.chains[request.service, step.stage - 1]])
            _add_use(found, i, world.links.shape[0] + step.node, need * world.nodes[step.node].share)
        else:
            _add_use(found, i, step.move, request.demand * world.links[step.move].share)
        at = step.parent


@njit(**KERNEL)
def find_cheapest(planner, requests, worth, tariff, first, last):
    """Find the cheapest route of requests first to last - 1, at most ROUTES_PER_CALL.

    The cost is exact but where it is not below the request's worth, or where the search ran out of labels: there it
    is that of a backward search which looks at latency and room step by step only, and is never too high.
    """
    world, search, found = planner.world, planner.search, planner.found
    for row in range(first, last):
        i = row - first
        request = requests[row]
        found.n_uses[i] = 0
        found.cost[i] = np.inf
        _price_request(planner, request, tariff)
        if bound_search(world, planner.work, search, request) > world.bound_ms[request.service]:
            continue
        found.cost[i] = search.least_cost[0, request.source]
        if found.cost[i] >= worth[row]:
            continue
        status, label = find_route(world, planner.work, search, request, planner.rule, planner.max_hops)
        if status == NONE:
            found.cost[i] = np.inf
        if status != FOUND:
            continue
        found.cost[i] = search.labels[label].cost
        _write_uses(world, search, request, label, found, i)


@njit(**KERNEL)
def write_uses_of(world, requests, rows, moves, n_moves, hosts, n_hosts, found):
    """Write what given routes use, into `found`: links and hosts as in the records, at most ROUTES_PER_CALL."""
    for i in range(rows.shape[0]):
        request = requests[rows[i]]
        found.n_uses[i] = 0
        found.cost[i] = 0.0
        for k in range(n_moves[i]):
            _add_use(found, i, moves[i, k], request.demand * world.links[moves[i, k]].share)
        for k in range(n_hosts[i]):
            need = need_mcpu(request.demand, world.rate[hosts[i, k], world.chains[request.service, k]])
            _add_use(found, i, world.links.shape[0] + hosts[i, k], need * world.nodes[hosts[i, k]].share)


@njit(**KERNEL)
def column_costs(columns, requests, tariff, cost):
    """Price every column: float64[C]."""
    for c in range(columns.request.shape[0]):
        request = requests[columns.request[c]]
        cost[c] = 0.0
        for u in range(columns.start[c], columns.start[c + 1]):
            r = columns.resource[u]
            price = _paid_until(tariff, request.t_s + request.hold_s, r) - _paid_until(tariff, request.t_s, r)
            cost[c] += columns.share[u] * price


class Pool:
    """The columns found so far, each once."""

    def __init__(self, n_requests: int):
        self._known: list[set[bytes]] = [set() for _ in range(n_requests)]
        self._request: list[int] = []
        self._uses: list[tuple[np.ndarray, np.ndarray]] = []

    def __len__(self) -> int:
        return len(self._request)

    def add(self, rows: np.ndarray, found: Found) -> int:
        """Add the routes in `found` of the given requests, its i-th that of rows[i]; return how many are new."""
        before = len(self._request)
        for i, row in enumerate(rows.tolist()):
            n = found.n_uses[i]
            order = np.argsort(found.resource[i, :n])
            resource, share = found.resource[i, order], found.share[i, order]
            key = resource.tobytes() + share.tobytes()
            if n and key not in self._known[row]:
                self._known[row].add(key)
                self._request.append(row)
                self._uses.append((resource, share))
        return len(self._request) - before

    def columns(self) -> Columns:
        """Return all columns, ordered by request."""
        order = np.argsort(self._request, kind="stable")
        uses = [self._uses[c] for c in order]
        starts = np.concatenate([[0], np.cumsum([len(resource) for resource, _ in uses])]).astype(np.int64)
        resource = np.concatenate([resource for resource, _ in uses]) if uses else np.zeros(0, np.int64)
        share = np.concatenate([share for _, share in uses]) if uses else np.zeros(0)
        return Columns(np.array(self._request, np.int64)[order], starts, resource, share)
