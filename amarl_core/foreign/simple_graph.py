"""The simple directed graph within a raw one: no foreign nodes, loops or parallel links, and all of one piece.

Whatever is left out or merged on the way is said in a warning; what cannot be decided is an error with the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import networkx as nx

from amarl_core.errors import ScenarioError, problem
from amarl_core.foreign.raw_graph import RawGraph, RawLink, RawNode
from amarl_core.tables import names
from amarl_core.topology import MOST_NODES

LEAST_NODES = 3


def without_external(raw: RawGraph, external: str) -> tuple[RawGraph, list[str]]:
    """Leave out nodes of other networks, with their links."""
    out = {node.node_id for node in raw.nodes if node.is_external}
    if external == "keep" or not out:
        return raw, []
    kept = tuple(link for link in raw.links if link.source not in out and link.target not in out)
    nodes = tuple(node for node in raw.nodes if node.node_id not in out)
    said = (
        f"{len(out)} external nodes and {len(raw.links) - len(kept)} links were left out (external='keep' keeps them)"
    )
    return replace(raw, nodes=nodes, links=kept), [said]


def renamed(raw: RawGraph) -> RawGraph:
    """Name nodes by their labels where these are all there and all different."""
    labels = [node.label for node in raw.nodes]
    if "" in labels or len(set(labels)) < len(labels):
        return raw
    by_id = {node.node_id: node.label for node in raw.nodes}
    nodes = tuple(replace(node, node_id=node.label) for node in raw.nodes)
    links = tuple(replace(link, source=by_id[link.source], target=by_id[link.target]) for link in raw.links)
    return replace(raw, nodes=nodes, links=links)


def directed_links(raw: RawGraph) -> tuple[dict[tuple[str, str], RawLink], list[str]]:
    """Return one link for each ordered pair: undirected ones both ways, parallel ones merged, loops left out."""
    loops = sum(link.source == link.target for link in raw.links)
    found: dict[tuple[str, str], RawLink] = {}
    merged = 0
    for link in raw.links:
        if link.source == link.target:
            continue
        both = [link] if raw.is_directed else [link, replace(link, source=link.target, target=link.source)]
        for one in both:
            ends = (one.source, one.target)
            merged += ends in found
            found[ends] = _merge(found[ends], one) if ends in found else one
    warnings = []
    if loops:
        warnings.append(f"{loops} links from a node to itself were left out")
    if merged:
        warnings.append(f"{merged} parallel links (each direction counts) were merged: capacities add up")
    return found, warnings


def _merge(first: RawLink, second: RawLink) -> RawLink:
    """Join parallel links: the sum of capacities (unknown if one is), the least delay and lengths."""
    capacities = (first.capacity_kbps, second.capacity_kbps)
    least = {}
    for name in ("delay_ms", "cable_km", "crow_km"):
        given = [value for value in (getattr(first, name), getattr(second, name)) if value is not None]
        least[name] = min(given) if given else None
    return replace(first, capacity_kbps=None if None in capacities else sum(capacities), **least)


def connected(
    raw: RawGraph, links: Mapping[tuple[str, str], RawLink], component: str, source: str
) -> tuple[tuple[RawNode, ...], dict[tuple[str, str], RawLink], list[str]]:
    """Return the nodes and links that reach each other, refusing what is left over unless told to drop it."""
    graph = nx.DiGraph()
    graph.add_nodes_from(node.node_id for node in raw.nodes)
    graph.add_edges_from(links)
    parts = sorted(nx.strongly_connected_components(graph), key=len, reverse=True)
    warnings = []
    if len(parts) > 1:
        left = [node.node_id for node in raw.nodes if node.node_id not in parts[0]]
        if component == "all":
            one_way = " Pass directed=False if each link was meant both ways." if raw.is_directed else ""
            found = f"{len(parts)} parts that do not reach each other, without {names(left)} in the largest"
            remedy = f"Pass component='largest' to keep that one.{one_way}"
            raise ScenarioError(f"{source}: {found}; expected a connected network. {remedy}")
        warnings.append(f"{len(left)} nodes outside the largest connected part were left out: {names(left)}")
    kept = parts[0]
    if not LEAST_NODES <= len(kept) <= MOST_NODES:
        expected = f"{LEAST_NODES} to {MOST_NODES}, for a core, an edge and an access node at least"
        raise ScenarioError(problem(None, None, f"number of connected nodes of {source}", len(kept), expected))
    nodes = tuple(node for node in raw.nodes if node.node_id in kept)
    return nodes, {ends: link for ends, link in links.items() if ends[0] in kept and ends[1] in kept}, warnings
