"""Routes through chains on an idle network, and the load that they put on links and pools.

Used to make scenarios: to say whether every request can be completed within its bound, and to size the load.
It is the layered graph of service chains: one copy of the network a stage, joined at the hosts of that stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from amarl_core.services import Function, Service
from amarl_core.topology import Network


@dataclass(frozen=True, eq=False)
class Load:
    """What one kbps asked for in each area puts on links and pools (A areas, E links, N nodes).

    Attributes:
        link: Times a link is used, on average over destinations, float64 [A, E].
        node: Millicores at a node, float64 [A, N].
    """

    link: np.ndarray
    node: np.ndarray


class ChainRoutes:
    """Routes of one service's largest request from every area (A areas, N nodes, E links, K stages).

    Links too small for that request are left out, and so are hosts that could not hold, together, all the stages
    of the chain that they might run.
    """

    def __init__(
        self,
        network: Network,
        service: Service,
        functions: Sequence[Function],
        rate: np.ndarray,
        budget: np.ndarray,
        area_node: np.ndarray,
        destination: np.ndarray,
    ) -> None:
        """Prepare the layered graph.

        Args:
            network: The network.
            service: The service.
            functions: Functions in the order of `rate`'s columns.
            rate: Millicores for each Gb/s, int64 [N, F], -1 where not hosted.
            budget: Usable millicores, int64 [N].
            area_node: Node of each area, int32 [A].
            destination: Probability of each destination, float64 [A, N].
        """
        index = {function.function: f for f, function in enumerate(functions)}
        self.network, self.service = network, service
        self.area_node, self.destination = area_node, destination
        self.stages = [index[function] for function in service.chain]
        self.processing_ms = np.array([functions[f].processing_ms for f in self.stages])
        largest = service.bundle_max * service.unit_kbps_max
        here = rate[:, self.stages]  # [N, K]
        needed = np.where(here >= 0, -(-largest * here // 10**6), 0).sum(axis=1)  # [N]
        self.is_host = (here >= 0) & (needed <= budget)[:, None]
        self.mcpu_per_kbps = np.maximum(here, 0) / 1e6
        self.may_carry = network.capacity_kbps >= largest
        ends = zip(network.source.tolist(), network.target.tolist(), strict=True)
        self._least: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.link_of = {pair: e for e, pair in enumerate(ends)}

    def latencies_ms(self) -> np.ndarray:
        """Return the least latency from each area to each node through the whole chain, float64 [A, N]; inf if none."""
        n = self.network.n_nodes
        last = len(self.stages) * n
        return np.array([self._least_latency(int(v))[0][last:] for v in self.area_node])

    def load(self, link_cost: np.ndarray | None = None, node_cost: np.ndarray | None = None) -> Load:
        """Return the load of cheapest routes, or of least-latency ones without costs.

        A cheapest route that would be late gives way to the one of least latency.

        Args:
            link_cost: Cost of a link for each kbps, positive, float64 [E].
            node_cost: Cost of a millicore, positive, float64 [N].
        """
        n, areas = self.network.n_nodes, len(self.area_node)
        load = Load(np.zeros((areas, self.network.n_links)), np.zeros((areas, n)))
        for a, source in enumerate(self.area_node.tolist()):
            least, shortest = self._least_latency(source)
            cheapest = shortest if link_cost is None else self._search(source, link_cost, node_cost)[1]
            for target in np.flatnonzero(self.destination[a] > 0).tolist():
                if not np.isfinite(least[len(self.stages) * n + target]):
                    continue
                links, hosts = self._walk(cheapest, source, target)
                if self.network.delay_ms[links].sum() + self.processing_ms.sum() > self.service.latency_ms:
                    links, hosts = self._walk(shortest, source, target)
                share = self.destination[a, target]
                np.add.at(load.link[a], links, share)
                np.add.at(load.node[a], hosts, share * self.mcpu_per_kbps[hosts, range(len(hosts))])
        return load

    def _least_latency(self, source: int) -> tuple[np.ndarray, np.ndarray]:
        """Return least latencies and predecessors from a node, computed once."""
        if source not in self._least:
            self._least[source] = self._search(source, None, None)
        return self._least[source]

    def _search(
        self, source: int, link_cost: np.ndarray | None, node_cost: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return costs and predecessors over the layered graph, whose node v of layer k is number k N + v."""
        network, n, n_layers = self.network, self.network.n_nodes, len(self.stages) + 1
        usable = self.may_carry & (network.transit[network.source] | (network.source == source))
        weight = (network.delay_ms if link_cost is None else link_cost)[usable]
        rows = [network.source[usable] + k * n for k in range(n_layers)]
        columns = [network.target[usable] + k * n for k in range(n_layers)]
        weights = [weight] * n_layers
        for k, ms in enumerate(self.processing_ms):
            at = np.flatnonzero(self.is_host[:, k])
            rows.append(at + k * n)
            columns.append(at + (k + 1) * n)
            weights.append(np.full(len(at), ms) if node_cost is None else node_cost[at] * self.mcpu_per_kbps[at, k])
        places = (np.concatenate(rows), np.concatenate(columns))
        graph = csr_matrix((np.concatenate(weights), places), shape=(n_layers * n, n_layers * n))
        return dijkstra(graph, indices=source, return_predecessors=True)

    def _walk(self, before: np.ndarray, source: int, target: int) -> tuple[list[int], list[int]]:
        """Return the links of a route and the host of each stage, in order of the chain."""
        n = self.network.n_nodes
        at, links, hosts = len(self.stages) * n + target, [], []
        while at != source:
            previous = int(before[at])
            if at // n == previous // n:
                links.append(self.link_of[previous % n, at % n])
            else:
                hosts.append(at % n)
            at = previous
        return links, hosts[::-1]
