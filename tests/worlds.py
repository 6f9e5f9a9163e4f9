"""Small worlds for the tests of the core, and traces on them. They share no code with the kernels."""

from __future__ import annotations

import heapq
import itertools
from types import SimpleNamespace

import numpy as np

from amarl_core.services import chain_delays
from amarl_core.topology import Network
from amarl_core.traces import Trace


def make_network(nodes: dict[str, tuple], links: dict[str, tuple], both_ways: bool = True) -> Network:
    """Return a network.

    Args:
        nodes: node id -> (tier, compute_mcpu, transit).
        links: "A-B" -> (capacity_kbps, delay_ms), a link each way unless both_ways is false.
    """
    index = {node: i for i, node in enumerate(nodes)}
    rows = []
    for name, (capacity, delay) in links.items():
        a, b = name.split("-")
        rows.append((f"{a}>{b}", index[a], index[b], capacity, delay))
        if both_ways:
            rows.append((f"{b}>{a}", index[b], index[a], capacity, delay))
    ids, source, target, capacity, delay = zip(*rows, strict=True)
    tier, compute, transit = zip(*nodes.values(), strict=True)
    zeros = np.zeros(len(nodes))
    return Network(
        node_ids=tuple(nodes),
        name=tuple(nodes),
        tier=tier,
        lat=zeros,
        lon=zeros,
        compute_mcpu=np.array(compute, np.int64),
        transit=np.array(transit, bool),
        link_ids=ids,
        source=np.array(source, np.int32),
        target=np.array(target, np.int32),
        capacity_kbps=np.array(capacity, np.int64),
        delay_ms=np.array(delay, float),
        length_km=np.zeros(len(ids)),
    )


def make_world(network: Network, functions: dict, services: dict, hosts: dict) -> SimpleNamespace:
    """Return what the core needs of a scenario.

    Args:
        network: the network.
        functions: name -> processing_ms.
        services: name -> (chain of function names, latency bound in ms).
        hosts: (node id, function name) -> mcpu per Gb/s.
    """
    names = list(functions)
    chains = np.full((len(services), max(len(chain) for chain, _ in services.values())), -1, np.int32)
    for s, (chain, _) in enumerate(services.values()):
        chains[s, : len(chain)] = [names.index(function) for function in chain]
    chain_length = np.array([len(chain) for chain, _ in services.values()], np.int32)
    rate = np.full((network.n_nodes, len(names)), -1, np.int64)
    for (node, function), per_gbps in hosts.items():
        rate[network.node_index[node], names.index(function)] = per_gbps
    processing = np.array(list(functions.values()), float)
    delays = chain_delays(network, chains, chain_length, rate >= 0, processing)
    return SimpleNamespace(
        name="small",
        digest="small",
        network=network,
        service_ids=tuple(services),
        function_ids=tuple(names),
        budget_mcpu=network.compute_mcpu * 8 // 10,
        chains=chains,
        chain_length=chain_length,
        latency_ms=np.array([bound for _, bound in services.values()], float),
        hold_mean_s=np.linspace(300.0, 900.0, len(services)),
        rate_mcpu_per_gbps=rate,
        processing_ms=processing,
        delay_to_go=delays.to_go,
        delay_so_far=delays.so_far,
        stub=~network.transit,
    )


def make_trace(world, requests: list[tuple], name: str = "small") -> Trace:
    """Return a trace of (t_s, service, source, destination, demand_kbps, hold_s), with names."""
    t_s, service, source, destination, demand, hold = zip(*requests, strict=True) if requests else [()] * 6
    nodes = world.network.node_index
    return Trace(
        name=name,
        service_ids=world.service_ids,
        node_ids=world.network.node_ids,
        request_id=np.arange(len(requests)) + 100,
        t_s=np.array(t_s),
        service=np.array([world.service_ids.index(s) for s in service]),
        source=np.array([nodes[v] for v in source]),
        destination=np.array([nodes[v] for v in destination]),
        bundle=np.ones(len(requests)),
        demand_kbps=np.array(demand),
        hold_s=np.array(hold),
    )


def contended() -> SimpleNamespace:
    """Three sites, two routers, two pools, a core; six services that fight for the middle and the pools."""
    network = make_network(
        {
            "S1": ("du", 0, False),
            "S2": ("du", 0, False),
            "S3": ("du", 0, False),
            "A": ("agg", 0, True),
            "B": ("agg", 0, True),
            "P": ("cu", 4000, True),
            "Q": ("cu", 3000, True),
            "C": ("core", 9000, True),
        },
        {
            "S1-A": (900_000, 0.5),
            "S1-B": (900_000, 0.7),
            "S2-A": (900_000, 0.5),
            "S2-B": (900_000, 0.6),
            "S3-B": (900_000, 0.4),
            "S3-A": (900_000, 0.8),
            "A-B": (400_000, 0.9),
            "A-P": (700_000, 0.1),
            "B-Q": (700_000, 0.1),
            "A-C": (500_000, 3.0),
            "B-C": (500_000, 3.1),
        },
    )
    return make_world(
        network,
        {"F": 0.1, "G": 0.2},
        {
            "s0": (("F",), 6.0),
            "s1": (("F", "G"), 20.0),
            "s2": (("G",), 9.0),
            "s3": (("G", "F"), 30.0),
            "s4": (("F", "G", "F"), 40.0),
            "s5": (("F",), 12.0),
        },
        {
            ("P", "F"): 5000,
            ("P", "G"): 3000,
            ("Q", "F"): 4000,
            ("C", "F"): 2500,
            ("C", "G"): 2500,
        },
    )


def offer(world, n: int, seed: int, gap_s: float = 2.0, hold_s: float = 60.0, busy: int = 1) -> Trace:
    """Draw n requests between stubs and pools; the first service has `busy` times the others' share."""
    draw = np.random.default_rng(seed)
    nodes = np.array(world.network.node_ids)
    sources = nodes[world.stub] if world.stub.any() else nodes
    ends = nodes[(world.budget_mcpu > 0) | world.stub] if world.stub.any() else nodes
    share = np.ones(len(world.service_ids))
    share[0] = busy
    t_s = np.cumsum(draw.exponential(gap_s, n))
    service = draw.choice(world.service_ids, n, p=share / share.sum())
    rows = []
    for i in range(n):
        source = draw.choice(sources)
        destination = draw.choice(ends[ends != source])
        rows.append((t_s[i], service[i], source, destination, int(draw.integers(10_000, 60_000)),
                     float(draw.exponential(hold_s))))  # fmt: skip
    return make_trace(world, rows)


def random_world(seed: int, through_pools: bool = False) -> SimpleNamespace:
    """Draw a connected network of 5 to 7 nodes with pools, and three services.

    Args:
        seed: of the draw.
        through_pools: hang a pool off two routers, so that a path may lead through it; otherwise pools are leaves.
    """
    draw = np.random.default_rng(seed)
    n_routers, n_pools = int(draw.integers(3, 5)), int(draw.integers(2, 4))
    routers = [f"R{i}" for i in range(n_routers)]
    pools = [f"P{i}" for i in range(n_pools)]
    nodes = {router: ("agg", 0, True) for router in routers}
    nodes |= {pool: ("cu", int(draw.integers(300, 1500)), True) for pool in pools}
    links = {}
    for a, b in itertools.combinations(range(n_routers), 2):
        if b == a + 1 or draw.random() < 0.5:
            links[f"{routers[a]}-{routers[b]}"] = (int(draw.integers(60, 300)) * 1000, draw.uniform(0.2, 3))
    for pool in pools:
        router = draw.choice(routers)
        links[f"{router}-{pool}"] = (int(draw.integers(60, 300)) * 1000, draw.uniform(0.05, 0.3))
        if through_pools:
            other = draw.choice([name for name in routers if name != router])
            links[f"{other}-{pool}"] = (int(draw.integers(60, 300)) * 1000, draw.uniform(0.05, 0.3))
    hosts = {}
    for function in ("F", "G"):
        for pool in draw.choice(pools, int(draw.integers(1, 3)), replace=False):
            hosts[str(pool), function] = int(draw.integers(1000, 6000))
    return make_world(
        make_network(nodes, links),
        {"F": 0.3, "G": 0.5},
        {
            "one": (("F",), float(draw.uniform(3, 8))),
            "two": (("F", "G"), float(draw.uniform(6, 20))),
            "three": (("F", "G", "F"), float(draw.uniform(9, 30))),
        },
        hosts,
    )


def all_walks(world, row, kbps: dict | None = None, mcpu: dict | None = None, max_links: int = 24):
    """Yield (links, hosts, latency) of every walk within a request's bound, by name, in plain Python.

    Args:
        world: the world.
        row: the request, with the columns of a decision.
        kbps, mcpu: what is in use by link and by node; without them the network is idle and has no limits.
        max_links: longest walk.
    """
    network, demand = world.network, int(row.demand_kbps)
    service = world.service_ids.index(row.service)
    chain, bound = [int(f) for f in world.chains[service] if f >= 0], float(world.latency_ms[service])
    out = {v: [] for v in network.node_ids}
    for e, link in enumerate(network.link_ids):
        out[network.node_ids[network.source[e]]].append((e, link, network.node_ids[network.target[e]]))

    def fits(used, own, name, need, limit):
        return used is None or used[name] + own.get(name, 0) + need <= limit

    def extend(node, segment, own, latency, links, hosts):
        if latency > bound + 1e-12:
            return
        if len(hosts) == len(chain) and node == row.destination:
            yield tuple(links), tuple(hosts), latency
            return
        if len(hosts) < len(chain):
            v, function = network.node_index[node], chain[len(hosts)]
            rate = int(world.rate_mcpu_per_gbps[v, function])
            need = -(-demand * rate // 1_000_000)
            if rate >= 0 and fits(mcpu, own, node, need, int(world.budget_mcpu[v])):
                rho = mcpu[node] / int(network.compute_mcpu[v]) if mcpu else 0.0
                spent = latency + float(world.processing_ms[function]) / (1 - rho)
                yield from extend(node, {node}, own | {node: own.get(node, 0) + need}, spent, links, [*hosts, node])
        if len(links) == max_links:
            return
        for e, link, target in out[node]:
            is_closed = world.stub[network.target[e]] and target != row.destination
            if target in segment or is_closed or not fits(kbps, own, link, demand, int(network.capacity_kbps[e])):
                continue
            yield from extend(target, segment | {target}, own | {link: own.get(link, 0) + demand},
                              latency + float(network.delay_ms[e]), [*links, link], hosts)  # fmt: skip

    yield from extend(row.source, {row.source}, {}, 0.0, [], [])


class PlainState:
    """Used kbps and millicores, as dictionaries, with departures; the oracle's idea of the network."""

    def __init__(self, world):
        self.world = world
        self.kbps = dict.fromkeys(world.network.link_ids, 0)
        self.mcpu = dict.fromkeys(world.network.node_ids, 0)
        self._leaving: list[tuple] = []

    def depart_until(self, t_s: float) -> None:
        """Give back all that ends by then."""
        while self._leaving and self._leaving[0][0] <= t_s:
            self._change(heapq.heappop(self._leaving)[2], -1)

    def admit(self, row) -> None:
        """Take what an accepted decision takes."""
        self._change(row, +1)
        heapq.heappush(self._leaving, (row.t_s + row.hold_s, row.request_id, row))

    def stage_mcpu(self, row) -> list[int]:
        """Return the compute of each stage of a decision."""
        world = self.world
        chain = world.chains[world.service_ids.index(row.service)]
        rates = [world.rate_mcpu_per_gbps[world.network.node_index[host], chain[k]]
                 for k, host in enumerate(row.hosts)]  # fmt: skip
        return [-(-int(row.demand_kbps) * int(rate) // 1_000_000) for rate in rates]

    def _change(self, row, sign: int) -> None:
        for link in row.links:
            self.kbps[link] += sign * int(row.demand_kbps)
        for host, mcpu in zip(row.hosts, self.stage_mcpu(row), strict=True):
            self.mcpu[host] += sign * mcpu
