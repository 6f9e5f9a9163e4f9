"""An exact oracle: could a request have been routed on the state that the network was in at a store version?

The ledger is replayed once, in lock order, from an empty network, and stops at every version asked about. There the
exact search of `search` looks for any routing at all: every stage at any host of its function with room left
(constraint 2), one path to each that visits no node twice, links with room left for every time they are crossed
(constraint 1), stubs entered only as the destination, and the latency within the bound, with rho_v of that state.

That is a superset of what an agent or a rule may do. An agent runs a stage at the first host with room on its way,
sees a limited number of neighbours and walks a limited number of hops; a rule may leave some pools alone. The oracle
may pass a host by, sees everything, and has no limit of hops.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from amarl_core.arrays import World, make_work, make_world
from amarl_core.errors import AmarlError
from amarl_core.native import INNER, KERNEL
from amarl_core.routing import need_mcpu
from amarl_core.search import BY_LATENCY, EXHAUSTED, FOUND, NONE, Rule, bound_search, find_route, make_search, weigh

RELAXATIONS = ("bandwidth", "compute", "latency")
PLENTY = 2**50
"""A capacity (kbps) or a budget (mcpu) that no request can fill, and that int64 can still add up."""

N_LABELS = 200_000
NEVER = 2.0  # the oracle reserves no pool


class Worlds(NamedTuple):
    """The world as it is, and with one kind of limit lifted."""

    true: World
    bandwidth: World  # constraint (1) lifted
    compute: World  # constraint (2) lifted; rho_v stays that of the state
    latency: World  # no bound


class Routes(NamedTuple):
    """What each of n requests took, laid end to end."""

    link_start: np.ndarray  # int64[n + 1]
    link: np.ndarray  # int32[.]
    host_start: np.ndarray  # int64[n + 1]
    host: np.ndarray  # int32[.], one a stage


class Changes(NamedTuple):
    """Commits and releases in lock order; the v-th of them made version v."""

    row: np.ndarray  # int64[m]
    sign: np.ndarray  # int64[m], +1 takes, -1 gives back


class Questions(NamedTuple):
    """Requests and versions asked about, by version; the answers are FOUND, NONE or EXHAUSTED."""

    version: np.ndarray  # int64[q]
    row: np.ndarray  # int64[q]
    in_depth: np.ndarray  # bool[q], whether to lift limits when there is no route
    routable: np.ndarray  # int8[q]
    relaxed: np.ndarray  # int8[q, 3], by RELAXATIONS


def make_worlds(scenario: Any) -> Worlds:
    """Return a scenario as arrays, as it is and with one kind of limit lifted."""
    world = make_world(scenario)
    links, nodes = world.links.copy(), world.nodes.copy()
    links["capacity"] = PLENTY
    nodes["budget"][nodes["budget"] > 0] = PLENTY  # a node without compute gets none
    return Worlds(
        world,
        world._replace(links=links),
        world._replace(nodes=nodes),
        world._replace(bound_ms=np.full_like(world.bound_ms, np.inf)),
    )


@njit(**INNER)
def _apply(world, work, request, routes, row, sign):
    """Take (+1) or give back (-1) all that a request's route uses."""
    for i in range(routes.link_start[row], routes.link_start[row + 1]):
        work.snapshot[routes.link[i]] += sign * request.demand
    first = routes.host_start[row]
    for i in range(first, routes.host_start[row + 1]):
        rate = world.rate[routes.host[i], world.chains[request.service, i - first]]
        work.snapshot[world.links.shape[0] + routes.host[i]] += sign * need_mcpu(request.demand, rate)


@njit(**INNER)
def _search(world, work, search, request, rule):
    """Return FOUND, NONE or EXHAUSTED for one request on the state in `work`."""
    weigh(world, work, search, request, rule, 1, 1)
    if not bound_search(world, work, search, request) <= world.bound_ms[request.service]:
        return NONE
    status, _ = find_route(world, work, search, request, rule, search.labels.shape[0])
    return status


@njit(**KERNEL)
def answer(worlds, work, search, rule, requests, routes, changes, questions):
    """Answer all questions in one replay of the ledger; `work.snapshot` is empty at first, every pool `allowed`."""
    version = 0
    for q in range(questions.row.shape[0]):
        while version < questions.version[q]:
            row = changes.row[version]
            _apply(worlds.true, work, requests[row], routes, row, changes.sign[version])
            version += 1
        request = requests[questions.row[q]]
        questions.routable[q] = _search(worlds.true, work, search, request, rule)
        if questions.in_depth[q] and questions.routable[q] == NONE:
            questions.relaxed[q, 0] = _search(worlds.bandwidth, work, search, request, rule)
            questions.relaxed[q, 1] = _search(worlds.compute, work, search, request, rule)
            questions.relaxed[q, 2] = _search(worlds.latency, work, search, request, rule)


def ask(
    scenario: Any,
    requests: np.ndarray,
    routes: Routes,
    changes: Changes,
    row: np.ndarray,
    version: np.ndarray,
    in_depth: np.ndarray,
    n_labels: int = N_LABELS,
) -> tuple[np.ndarray, np.ndarray]:
    """Ask whether requests could have been routed, each on the state at a version.

    Args:
        scenario: the world.
        requests: REQUEST[n].
        routes: what each took.
        changes: the ledger's commits and releases.
        row: int64[q], the requests asked about.
        version: int64[q], the versions.
        in_depth: bool[q], whether to lift limits one at a time when there is no route.
        n_labels: memory of one search.

    Returns:
        bool[q], whether there was a route; bool[q, 3], whether there would have been one with a kind of limit
        lifted (RELAXATIONS), False where that was not asked or not needed.

    Raises:
        AmarlError: a search ran out of labels.
    """
    order = np.argsort(version, kind="stable")
    n = len(order)
    questions = Questions(
        version[order], row[order], in_depth[order], np.full(n, NONE, np.int8), np.full((n, 3), NONE, np.int8)
    )
    worlds = make_worlds(scenario)
    work, search = make_work(worlds.true, 1, 1), make_search(worlds.true, n_labels)
    search.allowed[:] = True
    answer(worlds, work, search, Rule(BY_LATENCY, 1, NEVER, np.inf), requests, routes, changes, questions)
    n_exhausted = int((questions.routable == EXHAUSTED).sum() + (questions.relaxed == EXHAUSTED).sum())
    if n_exhausted:
        raise AmarlError(f"{n_exhausted} searches ran out of their {n_labels} labels; give n_labels a larger number")
    routable, relaxed = np.empty(n, bool), np.empty((n, 3), bool)
    routable[order], relaxed[order] = questions.routable == FOUND, questions.relaxed == FOUND
    return routable, relaxed
