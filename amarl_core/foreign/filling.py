"""Filling of what a network file does not say, with a note of every value: the file's, or a rule's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd

from amarl_core.errors import ScenarioError, problem
from amarl_core.foreign.import_rules import (
    LIGHT_US_PER_KM,
    Rules,
    capacity_by_rule,
    crow_km,
    drawn,
    fill_positions,
    tiers_by_rule,
)
from amarl_core.foreign.raw_graph import Place, RawGraph, RawLink
from amarl_core.tables import names
from amarl_core.topology import Network, from_networkx

_UNEVEN = 1e5  # ratio of capacities from which units are likely mixed


@dataclass(frozen=True, eq=False)
class Imported:
    """A network from elsewhere, complete.

    Attributes:
        name: Its name.
        source: The file's name, or "topohub:NAME".
        format: The format it was read in.
        sha256: Checksum of the file.
        network: The network, nothing missing.
        population: People in each node's area, int64 [N].
        assumptions: One row a quantity: how many values the file gave, how many a rule filled, and the rule.
        origins: One row a node or link and quantity: "file" or "rule".
        warnings: What a user should know.
        rules: The rules that filled what was missing.
    """

    name: str
    source: str
    format: str
    sha256: str
    network: Network
    population: np.ndarray
    assumptions: pd.DataFrame
    origins: pd.DataFrame
    warnings: tuple[str, ...]
    rules: Rules


class Filling:
    """Fills one graph's gaps and takes note of every one."""

    def __init__(self, raw: RawGraph, links: dict[tuple[str, str], RawLink], rules: Rules, path: Path) -> None:
        self.raw, self.links, self.rules, self.path = raw, links, rules, path
        self.graph = nx.DiGraph()
        self.graph.add_nodes_from(node.node_id for node in raw.nodes)
        self.graph.add_edges_from(links)
        self.points: dict[str, tuple[float, float]] = {}
        self.origin: list[tuple[str, str, str]] = []
        self.warnings = list(raw.warnings)

    def imported(self, source: str, sha256: str) -> Imported:
        """Fill everything, in the order in which one thing needs another."""
        points = self.positions()
        self.delays()
        tier = self.tiers()
        self.capacities(tier)
        self.compute(tier)
        people = self.population()
        for node in self.raw.nodes:
            lon, lat = points[node.node_id]
            name = node.label or node.node_id
            self.graph.nodes[node.node_id].update(lon=round(lon, 5), lat=round(lat, 5), name=name, transit=1)
        self.link_ids()
        network = from_networkx(self.graph)
        origins = pd.DataFrame(self.origin, columns=["element", "quantity", "origin"])
        self.check(points)
        return Imported(
            name=self.raw.name,
            source=source,
            format=self.raw.format,
            sha256=sha256,
            network=network,
            population=people,
            assumptions=self.summary(origins),
            origins=origins,
            warnings=tuple(self.warnings),
            rules=self.rules,
        )

    def note(self, element: str, quantity: str, is_given: bool) -> None:
        """Take note of where one value came from."""
        self.origin.append((element, quantity, "file" if is_given else "rule"))

    def positions(self) -> dict[str, tuple[float, float]]:
        """Return (longitude, latitude) of each node; a drawing is fitted into one degree."""
        given = {n.node_id: None if n.x is None or n.y is None else (n.x, n.y) for n in self.raw.nodes}
        for node, point in given.items():
            self.note(node, "position", point is not None and self.raw.positions == "geographical")
        missing = sum(point is None for point in given.values())
        whole = [x.is_integer() and y.is_integer() for x, y in filter(None, given.values())]
        if self.raw.positions == "geographical" and len(whole) > 3 and all(whole):
            told = "all positions are whole degrees, as in a drawing"
            self.warnings.append(f"{told}: pass positions='planar' and Rules(km_per_unit=...) if it is one")
        if missing and self.raw.positions != "none":
            self.warnings.append(f"{missing} nodes without a position stand at the mean of their neighbours")
        self.points = fill_positions(given, self.graph)
        return self.points if self.raw.positions == "geographical" else drawn(self.points)

    def distance_km(self, link: RawLink) -> float | None:
        """Return the distance of a link's ends as the crow flies, or None if nothing tells."""
        if self.raw.positions == "planar" and self.rules.km_per_unit is not None:
            return self.rules.km_per_unit * self.drawn_apart(link)
        if link.crow_km is None and self.raw.positions == "geographical":
            return crow_km(self.points[link.source], self.points[link.target])
        return link.crow_km

    def drawn_apart(self, link: RawLink) -> float:
        """Return how far apart a link's ends are, in units of the positions."""
        a, b = self.points[link.source], self.points[link.target]
        return float(np.hypot(a[0] - b[0], a[1] - b[1]))

    def check_drawing(self) -> None:
        """Doubt distances beside a drawing: those of the drawing itself, or of its units taken for degrees."""
        links = [link for link in self.links.values() if link.crow_km]
        if self.raw.positions != "planar" or self.rules.km_per_unit is not None or not links:
            return
        given = np.array([link.crow_km for link in links])
        drawn_apart = np.array([self.drawn_apart(link) for link in links])
        as_degrees = np.array([crow_km(self.points[link.source], self.points[link.target]) for link in links])
        if np.median(np.abs(given - as_degrees) / given) < 0.02:
            expected = "distances in km (these were computed from positions that are no degrees)"
            remedy = "Pass rules=Rules(km_per_unit=...) to take them from the drawing."
            raise ScenarioError(problem(self.path, None, "dist", float(given[0]), expected, remedy))
        if np.median(np.abs(given - drawn_apart) / given) < 0.02:
            told = "the file's distances are those of the drawing: one unit is taken as one km"
            self.warnings.append(f"{told} (pass Rules(km_per_unit=...))")

    def delays(self) -> None:
        """Set length and delay of each link: the file's, or cable length x us_per_km."""
        self.check_drawing()
        zero = 0
        for ends, link in self.links.items():
            element = ">".join(ends)
            distance = self.distance_km(link)
            length = link.cable_km if link.cable_km else None if distance is None else self.rules.detour * distance
            delay = link.delay_ms or None
            zero += link.delay_ms == 0
            if length is None and delay is None:
                length = self.rules.default_km
                if length is None:
                    expected = "a delay, a length or positions in degrees"
                    remedy = "Pass rules=Rules(default_km=...), or km_per_unit=... for planar positions."
                    Place(self.path, "").fail(f"link {element}", "without any", expected, remedy)
            if delay is None:
                length = max(length, self.rules.least_km)
                delay = length * self.rules.us_per_km / 1000
            self.note(element, "delay", bool(link.delay_ms))
            self.note(element, "length", bool(link.cable_km))
            # a measured delay stands on its own; its length is only shown
            self.graph.edges[ends].update(delay_ms=max(round(delay, 6), 1e-6), length_km=round(length or 0.0, 3))
        if zero:
            self.warnings.append(f"{zero} links have a delay of 0 in the file: filled by the rule")

    def tiers(self) -> dict[str, str]:
        """Return each node's tier: the user's, the file's if it gives all, or by rule."""
        unknown = [node for node in self.rules.tiers if node not in self.graph]
        if unknown:
            expected = f"a node of the network: {names(list(self.graph))}"
            raise ScenarioError(problem(None, None, "node in Rules(tiers=...)", unknown[0], expected))
        given = {node.node_id: node.tier for node in self.raw.nodes if node.tier}
        if given and len(given) < len(self.graph):
            self.warnings.append(f"tiers of {len(given)} nodes were not used: the file must give all or none")
            given = {}
        tier = (given or tiers_by_rule(self.graph, self.rules)) | dict(self.rules.tiers)
        for node in self.graph:
            self.note(node, "tier", node in given or node in self.rules.tiers)
            self.graph.nodes[node]["tier"] = tier[node]
        return tier

    def capacities(self, tier: Mapping[str, str]) -> None:
        """Set each link's capacity: the file's, or by tier or degree; a capacity of 0 counts as none."""
        zero = 0
        for ends, link in self.links.items():
            zero += link.capacity_kbps == 0
            kbps = link.capacity_kbps or capacity_by_rule(self.graph, ends, tier, self.rules) * 1e6
            self.note(">".join(ends), "capacity", bool(link.capacity_kbps))
            self.graph.edges[ends]["capacity_kbps"] = max(1, round(kbps * self.rules.capacity_scale))
        if zero:
            self.warnings.append(f"{zero} links have a capacity of 0 in the file: filled by the rule")

    def compute(self, tier: Mapping[str, str]) -> None:
        """Set each node's compute: the file's, or cores by tier for each Gb/s of its outgoing links."""
        for node in self.raw.nodes:
            cores = self.rules.cores_per_gbps.get(tier[node.node_id], 0.0)
            kbps = sum(kbps for *_, kbps in self.graph.out_edges(node.node_id, data="capacity_kbps"))
            given = node.compute_mcpu
            self.note(node.node_id, "compute", given is not None)
            mcpu = cores * kbps / 1e6 * 1000 if given is None else given
            self.graph.nodes[node.node_id]["compute_mcpu"] = round(mcpu)

    def population(self) -> np.ndarray:
        """Return people by node, int64 [N]: the file's, or by its number of links."""
        people = []
        for node in self.raw.nodes:
            degree = len(set(self.graph.successors(node.node_id)) | set(self.graph.predecessors(node.node_id)))
            self.note(node.node_id, "population", node.population is not None)
            people.append(degree * self.rules.population_per_degree if node.population is None else node.population)
        return np.round(people).astype(np.int64)

    def link_ids(self) -> None:
        """Name links "source>target", or by number where that would not be unique."""
        count = Counter(">".join(ends) for ends in self.links)
        for number, ends in enumerate(self.links, 1):
            name = ">".join(ends)
            self.graph.edges[ends]["link_id"] = name if count[name] == 1 else f"{name}#{number}"

    def check(self, points: Mapping[str, tuple[float, float]]) -> None:
        """Warn of what is likely a wrong unit: delays faster than light, capacities too far apart or too small."""
        fast = [
            ends
            for ends, link in self.links.items()
            if link.delay_ms
            and self.raw.positions == "geographical"
            and link.delay_ms < 0.95 * crow_km(points[ends[0]], points[ends[1]]) * LIGHT_US_PER_KM / 1000
        ]
        if fast:
            shown = ">".join(fast[0])
            self.warnings.append(f"{len(fast)} links have delays shorter than light in vacuum takes, such as {shown}")
        ratios = [
            link.crow_km / max(crow_km(points[a], points[b]), 1.0)
            for (a, b), link in self.links.items()
            if link.crow_km and self.raw.positions == "geographical"
        ]
        if ratios and not 0.7 < float(np.median(ratios)) < 1.4:
            self.warnings.append("distances contradict the positions: pass positions='planar' if these are a drawing")
        kbps = np.array([link.capacity_kbps for link in self.links.values() if link.capacity_kbps])
        if len(kbps) and kbps.max() > _UNEVEN * kbps.min():
            said = f"{kbps.min():g} to {kbps.max():g} kbps"
            self.warnings.append(f"capacities range from {said}: the units may be mixed")
        if len(kbps) and kbps.max() < 1e5:
            self.warnings.append(f"no capacity is above {kbps.max() / 1000:g} Mb/s: check capacity_unit")

    def summary(self, origins: pd.DataFrame) -> pd.DataFrame:
        """Return how much of each quantity came from the file, and the rule for the rest."""
        r = self.rules
        by_tier = ", ".join(f"{tier} {gbps:g}" for tier, gbps in r.capacity_gbps.items())
        cores = ", ".join(f"{tier} {n:g}" for tier, n in r.cores_per_gbps.items())
        capacity = f"Gb/s by the tier of the lower end: {by_tier}"
        if r.capacity_by == "degree":
            capacity = f"{r.gbps_per_degree:g} Gb/s x the smaller degree of its ends"
        where = {"none": "on a circle (no positions in the file)", "planar": "a drawing, fitted into one degree"}
        text = {
            "position": where.get(self.raw.positions, "mean of the neighbours'"),
            "length": f"distance x {r.detour:g}, at least {r.least_km:g} km",
            "delay": f"length x {r.us_per_km:g} us/km",
            "capacity": capacity,
            "tier": f"core: {r.core_share:.0%}, by shortest paths; edge (cu): {r.edge_share:.0%}, nearest to all",
            "compute": f"virtual cores for each Gb/s of outgoing links: {cores}",
            "population": f"{r.population_per_degree:,.0f} for each link",
        }
        count = origins.groupby(["quantity", "origin"]).size().unstack(fill_value=0)
        count = count.reindex(index=list(text), columns=["file", "rule"], fill_value=0)
        rule = [text[q] if count.loc[q, "rule"] else "" for q in text]
        if r.capacity_scale != 1:
            rule[list(text).index("capacity")] += f" (all x {r.capacity_scale:g})"
        return pd.DataFrame(
            {
                "quantity": list(text),
                "from_file": count["file"].to_numpy(),
                "by_rule": count["rule"].to_numpy(),
                "rule": rule,
            }
        )
