"""Shortest routes through chains on an idle network, and the load they put on links and pools.

Used to make scenarios: to say whether every request can be completed within its bound, and to size the load.
It is the layered graph of service chains: one copy of the network a stage, joined at the hosts of that stage.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from amarl_core.services import Function, Service
from amarl_core.topology import Network
from amarl_core.traffic import Traffic


@dataclass(frozen=True, eq=False)
class IdleRoutes:
    """Least-latency routes of one service (A areas, N nodes, E links).

    Attributes:
        latency_ms: Least latency from each area to each node through the whole chain, float64 [A, N]; inf if none.
        link_share: Times a link is used by a request of an area, on average over destinations, float64 [A, E].
        node_mcpu: Millicores at a node for each kbps that an area asks for, float64 [A, N].
    """

    latency_ms: np.ndarray
    link_share: np.ndarray
    node_mcpu: np.ndarray


def fitting(network: Network, service: Service, functions: dict[str, Function], rate: np.ndarray, budget: np.ndarray):
    """Return which links and hosts can carry the service's largest request alone.

    Args:
        network: The network.
        service: The service.
        functions: Functions by identifier, in the order of `rate`'s columns.
        rate: Millicores for each Gb/s, int64 [N, F], -1 where not hosted.
        budget: Usable millicores, int64 [N].

    Returns:
        bool [E] and bool [N, F]. A host must hold every stage of the chain that it could run, together.
    """
    largest = service.bundle_max * service.unit_kbps_max
    index = {function: f for f, function in enumerate(functions)}
    stages = [index[function] for function in service.chain]
    needed = np.where(rate[:, stages] >= 0, -(-largest * rate[:, stages] // 10**6), 0).sum(axis=1)  # [N]
    return network.capacity_kbps >= largest, (rate >= 0) & (needed <= budget)[:, None]


def idle_routes(
    network: Network,
    service: Service,
    functions: dict[str, Function],
    rate: np.ndarray,
    traffic: Traffic,
    destination: np.ndarray,
    budget: np.ndarray,
) -> IdleRoutes:
    """Route a service's largest request from every area over an idle network.

    Args:
        network: The network.
        service: The service.
        functions: Functions by identifier, in the order of `rate`'s columns.
        rate: Millicores for each Gb/s, int64 [N, F], -1 where not hosted.
        traffic: Says where areas are.
        destination: Probability of each destination, float64 [A, N].
        budget: Usable millicores, int64 [N].
    """
    n, n_stages = network.n_nodes, len(service.chain)
    may_carry, may_host = fitting(network, service, functions, rate, budget)
    index = {function: f for f, function in enumerate(functions)}
    stages = [index[function] for function in service.chain]
    delay = [functions[function].processing_ms for function in service.chain]
    latency, link_share = (
        np.full((len(traffic.area_node), n), np.inf),
        np.zeros((len(traffic.area_node), network.n_links)),
    )
    node_mcpu = np.zeros((len(traffic.area_node), n))
    link_of = {(int(u), int(v)): e for e, (u, v) in enumerate(zip(network.source, network.target, strict=True))}
    for a, source in enumerate(traffic.area_node):
        usable = may_carry & (network.transit[network.source] | (network.source == source))
        graph = _layered(network, usable, [may_host[:, f] for f in stages], delay)
        found, before = dijkstra(graph, indices=int(source), return_predecessors=True)
        latency[a] = found[n_stages * n :]
        for target in np.flatnonzero((destination[a] > 0) & np.isfinite(latency[a])):
            at = n_stages * n + int(target)
            while at != source:
                previous = int(before[at])
                if at // n == previous // n:
                    link_share[a, link_of[previous % n, at % n]] += destination[a, target]
                else:
                    per_kbps = rate[at % n, stages[previous // n]] / 1e6
                    node_mcpu[a, at % n] += destination[a, target] * per_kbps
                at = previous
    return IdleRoutes(latency, link_share, node_mcpu)


def _layered(network: Network, usable: np.ndarray, hosts: list[np.ndarray], delay: list[float]) -> csr_matrix:
    """Return the layered graph's delays, [(K+1) N, (K+1) N]: node v of layer k is number k N + v."""
    n, n_layers = network.n_nodes, len(hosts) + 1
    source, target, weight = network.source[usable], network.target[usable], network.delay_ms[usable]
    rows = [source + k * n for k in range(n_layers)]
    columns = [target + k * n for k in range(n_layers)]
    weights = [weight] * n_layers
    for k, (host, ms) in enumerate(zip(hosts, delay, strict=True)):
        at = np.flatnonzero(host)
        rows.append(at + k * n)
        columns.append(at + (k + 1) * n)
        weights.append(np.full(len(at), ms))
    shape = (n_layers * n, n_layers * n)
    return csr_matrix((np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), shape=shape)
