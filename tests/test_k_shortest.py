"""The k shortest routes against networkx and against an enumeration, and the choice among them."""

import itertools
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
from worlds import PlainState, all_walks, offer, random_world

from amarl_core.arrays import REQUEST, make_work
from amarl_core.arrays import make_world as make_arrays
from amarl_core.audit import audit
from amarl_core.baselines import baseline
from amarl_core.errors import AmarlError
from amarl_core.evaluation import play_trace
from amarl_core.k_shortest import list_routes

MAX_HOPS = 24


def listed_routes(world, service: int, source: int, destination: int, k: int) -> list[tuple[tuple, tuple]]:
    """Return (links, hosts) of the k shortest routes, as indices."""
    arrays = make_arrays(world)
    request = np.zeros(1, REQUEST)
    request["service"], request["source"], request["destination"] = service, source, destination
    listed = list_routes(arrays, make_work(arrays, 1, MAX_HOPS), request, k, MAX_HOPS)
    length = int(world.chain_length[service])
    return [
        (tuple(listed.links[0, i, : listed.n_links[0, i]].tolist()), tuple(listed.hosts[0, i, :length].tolist()))
        for i in range(int(listed.n_routes[0]))
    ]


def named_routes(world, row, k: int) -> list[tuple[tuple, tuple]]:
    """Return the routes listed for a request, by name."""
    links, nodes, index = world.network.link_ids, world.network.node_ids, world.network.node_index
    service = world.service_ids.index(row.service)
    routes = listed_routes(world, service, index[row.source], index[row.destination], k)
    return [(tuple(links[e] for e in walk), tuple(nodes[v] for v in hosts)) for walk, hosts in routes]


def idle_latency(world, service: int, links, hosts) -> float:
    """Return a route's latency on an idle network."""
    functions = world.chains[service, : len(hosts)]
    return float(world.network.delay_ms[list(links)].sum() + world.processing_ms[functions].sum())


def layered(world, service: int, destination: int) -> nx.DiGraph:
    """Return the graph of (stage, node): its simple paths are the walks whose segments are simple."""
    graph, network = nx.DiGraph(), world.network
    length = int(world.chain_length[service])
    for stage in range(length + 1):
        for e in range(network.n_links):
            a, b = int(network.source[e]), int(network.target[e])
            if not world.stub[b] or b == destination:
                graph.add_edge((stage, a), (stage, b), ms=float(network.delay_ms[e]))
        if stage < length:
            function = int(world.chains[service, stage])
            for v in np.flatnonzero(world.rate_mcpu_per_gbps[:, function] >= 0).tolist():
                graph.add_edge((stage, v), (stage + 1, v), ms=float(world.processing_ms[function]))
    return graph


def networkx_latencies(world, service: int, source: int, destination: int, k: int) -> list[float]:
    """Return the latencies of the k shortest simple paths in the layered graph that are within the bound."""
    graph, end = layered(world, service, destination), (int(world.chain_length[service]), destination)
    if (0, source) not in graph or end not in graph or not nx.has_path(graph, (0, source), end):
        return []
    paths = itertools.islice(nx.shortest_simple_paths(graph, (0, source), end, weight="ms"), k)
    latencies = [nx.path_weight(graph, path, "ms") for path in paths]
    return [ms for ms in latencies if ms <= world.latency_ms[service]]


@pytest.mark.parametrize("k", [1, 12])
def test_the_routes_listed_are_the_k_shortest_simple_paths_of_the_layered_graph(k):
    n_routes = 0
    for seed in range(12):
        world = random_world(seed)
        for service, (a, b) in itertools.product(range(3), [(0, 1), (1, 2), (0, 0)]):
            routes = listed_routes(world, service, a, b, k)
            assert len(set(routes)) == len(routes), "no route is listed twice"
            latencies = [idle_latency(world, service, links, hosts) for links, hosts in routes]
            expected = networkx_latencies(world, service, a, b, k)
            assert latencies == pytest.approx(expected, abs=1e-9), (seed, service, a, b)
            n_routes += len(routes)
    assert n_routes > 40 * min(k, 3)


def test_the_routes_of_a_network_with_stubs_are_those_of_networkx(toy):
    stubs = np.flatnonzero(toy.stub)
    for service, source in itertools.product(range(len(toy.service_ids)), stubs[:2].tolist()):
        for destination in (int(stubs[-1]), toy.network.n_nodes - 1):
            routes = listed_routes(toy, service, source, destination, 20)
            latencies = [idle_latency(toy, service, *route) for route in routes]
            assert latencies == pytest.approx(networkx_latencies(toy, service, source, destination, 20), abs=1e-9)


def test_with_k_large_enough_the_list_is_every_walk_within_the_bound():
    world = random_world(3)
    names = world.network.node_ids
    for service in range(3):
        row = SimpleNamespace(service=world.service_ids[service], source=names[0], destination=names[1], demand_kbps=1)
        walks = {(links, hosts) for links, hosts, _ in all_walks(world, row)}
        assert set(named_routes(world, row, len(walks) + 5)) == walks


def test_too_many_routes_for_the_memory_of_the_search_are_refused_with_a_remedy(monkeypatch, toy, toy_day):
    monkeypatch.setattr("amarl_core.k_shortest.N_LABELS", 10)
    with pytest.raises(AmarlError, match="k < 8"):
        play_trace(baseline("k_shortest_first_fit"), toy_day.head(5), scenario=toy)


def load_after(world, state, row, links, hosts) -> tuple[bool, float, float]:
    """Return whether a route fits, the highest utilisation it leads to, and its latency."""
    network, demand = world.network, int(row.demand_kbps)
    chain = world.chains[world.service_ids.index(row.service)]
    own: dict = {}
    for link in links:
        own[link] = own.get(link, 0) + demand
    for stage, host in enumerate(hosts):
        need = -(-demand * int(world.rate_mcpu_per_gbps[network.node_index[host], chain[stage]]) // 1_000_000)
        own[host] = own.get(host, 0) + need
    limit = dict(zip(network.link_ids, network.capacity_kbps.tolist(), strict=True))
    limit |= dict(zip(network.node_ids, world.budget_mcpu.tolist(), strict=True))
    used = state.kbps | state.mcpu
    load = max(((used[name] + taken) / limit[name] for name, taken in own.items()), default=0.0)
    delay = dict(zip(network.link_ids, network.delay_ms.tolist(), strict=True))
    latency = sum(delay[link] for link in links)
    for stage, host in enumerate(hosts):
        rho = state.mcpu[host] / int(network.compute_mcpu[network.node_index[host]])
        latency += float(world.processing_ms[chain[stage]]) / (1 - rho)
    return load <= 1, load, latency


@pytest.mark.parametrize("name", ["k_shortest_first_fit", "k_shortest_least_loaded"])
@pytest.mark.parametrize("k", [1, 4])
def test_the_choice_is_the_first_that_fits_or_the_least_loaded_of_the_k(name, k):
    met = dict(accepted=0, rejected=0, not_the_first=0)
    for seed in range(10):
        world = random_world(seed)
        trace = offer(world, 20, seed, gap_s=1.0, hold_s=20.0)
        played = play_trace(baseline(name, k=k), trace, scenario=world)
        audit(world, played.decisions, played.ledger, trace).raise_if_violated()
        state = PlainState(world)
        for row in played.decisions.itertuples():
            state.depart_until(row.t_s)
            idle = named_routes(world, row, k)
            judged = [load_after(world, state, row, links, hosts) for links, hosts in idle]
            fitting = [i for i, (fits, _, latency) in enumerate(judged) if fits and latency <= row.budget_ms]
            assert row.accepted == bool(fitting), (seed, row)
            if not fitting:
                met["rejected"] += 1
                continue
            least = min(judged[i][1] for i in fitting)
            chosen = fitting[0] if name.endswith("first_fit") else next(i for i in fitting if judged[i][1] == least)
            assert (tuple(row.links), tuple(row.hosts)) == idle[chosen], (seed, row)
            met["accepted"] += 1
            met["not_the_first"] += chosen > 0
            state.admit(row)
    assert met["accepted"] > 60 and met["rejected"] > 10
    assert k == 1 or met["not_the_first"] > 5
