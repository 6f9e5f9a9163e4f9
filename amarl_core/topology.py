"""The network: a directed graph of nodes with compute and links with capacity and delay.

The paper's symbols: G = (V, E), link capacity C_e, link delay t_e, node capacity kappa_v.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import networkx as nx
import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from amarl_core.errors import ScenarioError, problem
from amarl_core.tables import Column, Table, check_range, check_unique, read_csv

NODE_COLUMNS = {
    "node_id": Column("text", unique=True),
    "name": Column("text"),
    "tier": Column("text"),
    "lat": Column("float", least=-90, most=90, unit="degrees"),
    "lon": Column("float", least=-180, most=180, unit="degrees"),
    "compute_mcpu": Column("int", least=0, unit="millicores"),
    "transit": Column("int", least=0, most=1),
}
LINK_COLUMNS = {
    "link_id": Column("text", unique=True),
    "source": Column("text"),
    "target": Column("text"),
    "capacity_kbps": Column("int", above=0, unit="kbps"),
    "delay_ms": Column("float", above=0, unit="ms"),
    "length_km": Column("float", least=0, unit="km"),
}
MOST_NODES = 1500
"""The largest network. Tables of least delays between all pairs of nodes (`services.chain_delays`) take 16 bytes for
each service, stage and pair: with six services of up to five functions 0.6 GB at 1,000 nodes and 1.3 GB here."""
_TIER = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, eq=False)
class Network:
    """A directed network of N nodes and E links, as arrays in the order of the files.

    Attributes:
        node_ids: Identifier of each node, N texts.
        name: What people call it, N texts.
        tier: "du", "agg", "cu", "core", "dc" or another lower-case word, N texts.
        lat: Latitude in degrees, float64 [N].
        lon: Longitude in degrees, float64 [N].
        compute_mcpu: Raw compute capacity in millicores (paper: kappa_v before the cap), int64 [N].
        transit: False for a stub, which a path enters only as its destination, bool [N].
        link_ids: Identifier of each link, E texts.
        source: Node index where a link starts, int32 [E].
        target: Node index where it ends, int32 [E].
        capacity_kbps: Capacity in kbps (paper: C_e), int64 [E].
        delay_ms: One-way delay in ms (paper: t_e), float64 [E].
        length_km: Length of fibre in km, float64 [E].
    """

    node_ids: tuple[str, ...]
    name: tuple[str, ...]
    tier: tuple[str, ...]
    lat: np.ndarray
    lon: np.ndarray
    compute_mcpu: np.ndarray
    transit: np.ndarray
    link_ids: tuple[str, ...]
    source: np.ndarray
    target: np.ndarray
    capacity_kbps: np.ndarray
    delay_ms: np.ndarray
    length_km: np.ndarray

    @property
    def n_nodes(self) -> int:
        """Number of nodes, N."""
        return len(self.node_ids)

    @property
    def n_links(self) -> int:
        """Number of directed links, E."""
        return len(self.link_ids)

    @cached_property
    def node_index(self) -> dict[str, int]:
        """Index of each node by its identifier."""
        return {node: index for index, node in enumerate(self.node_ids)}

    @cached_property
    def link_index(self) -> dict[str, int]:
        """Index of each link by its identifier."""
        return {link: index for index, link in enumerate(self.link_ids)}

    def tier_nodes(self, tier: str) -> np.ndarray:
        """Return the indices of a tier's nodes, int64 [n]."""
        return np.flatnonzero(np.array(self.tier) == tier)

    def to_networkx(self) -> nx.DiGraph:
        """Return the network as a graph whose attributes are named as the columns of the files."""
        graph = nx.DiGraph()
        for i, node in enumerate(self.node_ids):
            graph.add_node(
                node,
                name=self.name[i],
                tier=self.tier[i],
                lat=float(self.lat[i]),
                lon=float(self.lon[i]),
                compute_mcpu=int(self.compute_mcpu[i]),
                transit=int(self.transit[i]),
            )
        for e, link in enumerate(self.link_ids):
            graph.add_edge(
                self.node_ids[self.source[e]],
                self.node_ids[self.target[e]],
                link_id=link,
                capacity_kbps=int(self.capacity_kbps[e]),
                delay_ms=float(self.delay_ms[e]),
                length_km=float(self.length_km[e]),
            )
        return graph


def from_networkx(graph: nx.DiGraph) -> Network:
    """Build a network from a graph with the attributes that `Network.to_networkx` writes.

    Args:
        graph: Nodes carry `tier`, `lat`, `lon`, `compute_mcpu` and perhaps `name` (default: the node) and
            `transit` (default 1); edges carry `capacity_kbps`, `delay_ms` and perhaps `link_id` (default
            "source>target") and `length_km` (default 0).

    Returns:
        The network, in the order of the graph.

    Raises:
        ScenarioError: An attribute is missing or out of range, or the graph is not a simple directed one.
    """
    if not graph.is_directed() or graph.is_multigraph():
        raise ScenarioError(
            problem(
                None,
                None,
                "graph",
                type(graph).__name__,
                "a networkx.DiGraph",
                "Give each direction its own edge.",
            )
        )
    nodes = {
        node: {"node_id": str(node), "name": str(node), "transit": 1, **attributes}
        for node, attributes in graph.nodes(data=True)
    }
    links = [
        {"source": str(u), "target": str(v), "link_id": f"{u}>{v}", "length_km": 0.0, **attributes}
        for u, v, attributes in graph.edges(data=True)
    ]
    return network_from_tables(
        _table_of(list(nodes.values()), NODE_COLUMNS, "graph nodes"),
        _table_of(links, LINK_COLUMNS, "graph edges"),
    )


def _table_of(records: list[dict[str, object]], columns: dict[str, Column], where: str) -> Table:
    """Return attribute dictionaries as a checked table; rows count from 1."""
    if not records:
        raise ScenarioError(problem(where, None, None, "none", "at least one"))
    table = Table(Path(where), ScenarioError, {}, range(1, len(records) + 1))
    kinds = {"text": str, "int": (int, np.integer), "float": (int, float, np.integer, np.floating)}
    for name, column in columns.items():
        values = [record.get(name) for record in records]
        table.shown[name] = values
        for index, value in enumerate(values):
            is_number = column.kind != "text"
            if not isinstance(value, kinds[column.kind]) or (is_number and abs(value) > 1e18) or value == "":
                table.fail(index, name, column.expectation(), "Set the attribute on the graph.")
        if column.kind == "text":
            table.columns[name] = values
            continue
        table.columns[name] = np.array(values, dtype=np.int64 if column.kind == "int" else np.float64)
        check_range(table, name, column, table.columns[name])
    check_unique(table, columns)
    return table


def read_network(nodes: Path, links: Path) -> Network:
    """Read a network from its two files.

    Raises:
        ScenarioError: At the first fault, with file, row and column.
    """
    return network_from_tables(
        read_csv(nodes, NODE_COLUMNS, ScenarioError), read_csv(links, LINK_COLUMNS, ScenarioError)
    )


def network_from_tables(nodes: Table, links: Table) -> Network:
    """Build a network from its checked tables, refusing self links, duplicate links and unknown nodes."""
    if len(nodes) > MOST_NODES:
        remedy = "Merge access nodes that share a router."
        raise ScenarioError(problem(nodes.path, None, "number of nodes", len(nodes), f"at most {MOST_NODES:,}", remedy))
    for i, tier in enumerate(nodes["tier"]):
        if _TIER.fullmatch(tier) is None:
            nodes.fail(i, "tier", "a lower-case word such as du, agg, cu, core or dc")
    index = {node: i for i, node in enumerate(nodes["node_id"])}
    remedy = "Add the node to nodes.csv or correct the name."
    source = links.lookup("source", index, "node", remedy)
    target = links.lookup("target", index, "node", remedy)
    seen: dict[tuple[int, int], int] = {}
    for e, ends in enumerate(zip(source.tolist(), target.tolist(), strict=True)):
        if ends[0] == ends[1]:
            links.fail(e, "target", "another node than source (a link to itself is useless)", "Remove the row.")
        if ends in seen:
            links.fail(
                e,
                "target",
                f"one link a direction; row {links.rows[seen[ends]]} has the same source and target",
                "Merge the two into one row with the sum of their capacities.",
            )
        seen[ends] = e
    return Network(
        node_ids=tuple(nodes["node_id"]),
        name=tuple(nodes["name"]),
        tier=tuple(nodes["tier"]),
        lat=nodes["lat"],
        lon=nodes["lon"],
        compute_mcpu=nodes["compute_mcpu"],
        transit=nodes["transit"].astype(bool),
        link_ids=tuple(links["link_id"]),
        source=source.astype(np.int32),
        target=target.astype(np.int32),
        capacity_kbps=links["capacity_kbps"],
        delay_ms=links["delay_ms"],
        length_km=links["length_km"],
    )


def least_delays(network: Network) -> np.ndarray:
    """Return the least sum of link delays between any two nodes, passing through transit nodes only.

    Either end may be a stub; a stub in between is not allowed.

    Returns:
        float64 [N, N] in ms, indexed [from, to]; 0 on the diagonal, inf where there is no such path.
    """
    n = network.n_nodes
    links = np.full((n, n), np.inf)
    links[network.source, network.target] = network.delay_ms
    leaves_transit = network.transit[network.source]
    passing = csr_matrix(
        (network.delay_ms[leaves_transit], (network.source[leaves_transit], network.target[leaves_transit])),
        shape=(n, n),
    )
    onward = dijkstra(passing)  # [N, N]; a stub reaches only itself here
    delays = onward.copy()
    for stub in np.flatnonzero(~network.transit):
        out = np.flatnonzero(np.isfinite(links[stub]))
        delays[stub] = (links[stub, out][:, None] + onward[out]).min(axis=0, initial=np.inf)
    np.fill_diagonal(delays, 0.0)
    return delays
