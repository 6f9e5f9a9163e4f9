"""The rules that fill what a network file does not say: delays, capacities, tiers, compute, people.

Each is a rule of thumb with its source in data/README.md, every number can be overridden, and what a rule filled is
told apart from what the file said, node by node and link by link.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType

import networkx as nx
import numpy as np

from amarl_core.errors import ScenarioError, problem
from amarl_core.tables import names

EARTH_KM = 6371.0
LIGHT_US_PER_KM = 3.3356
"""Light in vacuum: no cable is faster."""
_POSITIVE = ("detour", "us_per_km", "least_km", "gbps_per_degree", "capacity_scale", "population_per_degree")
_OPTIONAL = ("default_km", "km_per_unit")
_SHARES = ("core_share", "edge_share")


def _fixed(**values: float) -> Mapping[str, float]:
    return MappingProxyType(values)


@dataclass(frozen=True)
class Rules:
    """How to fill what a file leaves out.

    Attributes:
        detour: Length of a cable over the distance as the crow flies.
        us_per_km: Delay of fibre in microseconds for each km.
        least_km: Length of a cable at least, in km.
        default_km: Length of a cable where neither the file nor positions tell, in km; None: that is an error.
        km_per_unit: km in one unit of planar coordinates; None: planar positions are only drawn.
        capacity_by: "tier" (of the lower end) or "degree" (of the end with fewer links).
        capacity_gbps: Capacity of a link in Gb/s by the tier of its lower end.
        gbps_per_degree: Gb/s for each link of the end with fewer links.
        capacity_scale: Factor on all capacities, of the file as well.
        cores_per_gbps: Virtual cores at a node for each Gb/s of its outgoing links, by tier.
        core_share: Share of the nodes that are core, those most shortest paths pass.
        edge_share: Share that are edge pools, those that are nearest to all others together.
        tiers: Tier of single nodes by identifier, over file and rule.
        population_per_degree: People in an area for each link of its node.
    """

    detour: float = 1.4
    us_per_km: float = 5.0
    least_km: float = 1.0
    default_km: float | None = None
    km_per_unit: float | None = None
    capacity_by: str = "tier"
    capacity_gbps: Mapping[str, float] = field(default_factory=lambda: _fixed(du=10.0, cu=40.0, core=100.0))
    gbps_per_degree: float = 10.0
    capacity_scale: float = 1.0
    cores_per_gbps: Mapping[str, float] = field(default_factory=lambda: _fixed(du=0.5, cu=2.5, core=10.0))
    core_share: float = 0.08
    edge_share: float = 0.2
    tiers: Mapping[str, str] = field(default_factory=dict)
    population_per_degree: float = 100_000.0

    def __post_init__(self) -> None:
        for name in (*_POSITIVE, *_OPTIONAL):
            value = getattr(self, name)
            if name in _OPTIONAL and value is None:
                continue
            _check_positive(name, value)
        for name in _SHARES:
            _check_positive(name, getattr(self, name), most=0.9)
        for name in ("capacity_gbps", "cores_per_gbps", "tiers"):
            if not isinstance(getattr(self, name), Mapping):
                raise ScenarioError(problem(None, None, name, getattr(self, name), "a mapping"))
        for name in ("capacity_gbps", "cores_per_gbps"):
            for tier, value in getattr(self, name).items():
                _check_positive(f"{name}[{tier!r}]", value)
        if self.capacity_by not in ("tier", "degree"):
            raise ScenarioError(problem(None, None, "capacity_by", self.capacity_by, "tier or degree"))

    def record(self) -> dict[str, object]:
        """Return the rules as plain values for scenario.toml, those that are None left out."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in found.items()}
        return {name: value for name, value in plain.items() if value is not None}


def _check_positive(name: str, value: object, most: float = 1e12) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value <= most:
        raise ScenarioError(problem(None, None, name, value, f"a positive number of at most {most:g}"))


def crow_km(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Return the great circle between two points (longitude, latitude), in km."""
    lon_a, lat_a, lon_b, lat_b = (math.radians(value) for value in (*a, *b))
    h = math.sin((lat_b - lat_a) / 2) ** 2
    h += math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    return 2 * EARTH_KM * math.asin(math.sqrt(min(1.0, h)))


def fill_positions(points: Mapping[str, tuple[float, float] | None], graph: nx.Graph) -> dict[str, tuple[float, float]]:
    """Give nodes without a position the mean of their placed neighbours, from the placed ones outwards.

    Without any position at all nodes stand on a circle; a part without any stands at the mean of all others.
    """
    placed = {node: point for node, point in points.items() if point is not None}
    if not placed:
        turn = 2 * math.pi / len(points)
        return {node: (math.cos(i * turn), math.sin(i * turn)) for i, node in enumerate(points)}
    while len(placed) < len(points):
        found = {}
        for node in points:
            near = [placed[other] for other in graph.neighbors(node) if other in placed] if node not in placed else []
            if near:
                found[node] = tuple(np.mean(near, axis=0).tolist())
        middle = tuple(np.mean(list(placed.values()), axis=0).tolist())
        placed |= found or {node: middle for node in points if node not in placed}
    return {node: placed[node] for node in points}


def drawn(points: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Fit planar positions into one degree around (0, 0), so that a map shows their shape."""
    values = np.array(list(points.values()), dtype=float)
    low, high = values.min(axis=0), values.max(axis=0)
    scaled = (values - (low + high) / 2) / max(float((high - low).max()), 1e-9)
    return {node: (float(x), float(y)) for node, (x, y) in zip(points, scaled, strict=True)}


def tiers_by_rule(graph: nx.DiGraph, rules: Rules) -> dict[str, str]:
    """Sort nodes into core, edge ("cu") and access ("du").

    Core nodes are those that most shortest paths (by delay) pass, ties by degree. Edge pools are then chosen one
    by one among the others, each the one that brings the sum of delays from every node to its nearest pool down most.

    Args:
        graph: Strongly connected, edges with `delay_ms`, at least three nodes.
        rules: Gives the shares; each tier gets one node at least.
    """
    order = list(graph)
    n = len(order)
    n_core = min(max(2 if n >= 8 else 1, round(rules.core_share * n)), n - 2)
    n_edge = min(max(1, round(rules.edge_share * n)), n - n_core - 1)
    central = nx.betweenness_centrality(graph, weight="delay_ms")
    ranked = sorted(order, key=lambda v: (-round(central[v], 9), -graph.degree(v), order.index(v)))
    tier = dict.fromkeys(order, "du") | dict.fromkeys(ranked[:n_core], "core")
    reached = dict(nx.all_pairs_dijkstra_path_length(graph, weight="delay_ms"))
    delay = np.array([[reached[v][w] for w in order] for v in order])
    nearest = np.full(n, delay.max() + 1.0)
    for _ in range(n_edge):
        total = np.minimum(delay, nearest[:, None]).sum(axis=0)
        total[[tier[v] != "du" for v in order]] = np.inf
        chosen = int(np.argmin(np.round(total, 9)))
        tier[order[chosen]] = "cu"
        nearest = np.minimum(nearest, delay[:, chosen])
    return tier


def capacity_by_rule(graph: nx.DiGraph, ends: tuple[str, str], tier: Mapping[str, str], rules: Rules) -> float:
    """Return a link's capacity in Gb/s by the tier of its lower end, or by the smaller degree of its ends."""
    if rules.capacity_by == "degree":
        return rules.gbps_per_degree * min(len(set(graph.successors(v)) | set(graph.predecessors(v))) for v in ends)
    known = [rules.capacity_gbps[tier[v]] for v in ends if tier[v] in rules.capacity_gbps]
    if not known:
        raise ScenarioError(
            problem(
                None,
                None,
                "tier",
                tier[ends[0]],
                f"one with a capacity: {names(rules.capacity_gbps)}",
                "Add it to Rules(capacity_gbps=...).",
            )
        )
    return min(known)
