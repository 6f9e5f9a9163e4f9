"""Readers of general graph files: GraphML, GML and node-link JSON, and the networks of the topohub package.

GraphML: graphml.graphdrawing.org; XML is read by defusedxml, so that entities and DTDs are refused. GML: the
Topology Zoo's dialect (topology-zoo.org), read by networkx. Node-link JSON: `networkx.node_link_data`, with its
links under `edges` or `links`. topohub (github.com/piotrjurkiewicz/topohub) ships SNDlib, the Topology Zoo and
others as node-link JSON, positions as (longitude, latitude) and `dist` in km.
"""

from __future__ import annotations

import difflib
import importlib.resources
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn
from xml.etree.ElementTree import Element

import networkx as nx
import topohub
from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeTree

from amarl_core.errors import ScenarioError, problem
from amarl_core.foreign.graph_attributes import read_link, read_node, unused
from amarl_core.foreign.raw_graph import Place, RawGraph, Reading, checked, plain, positions_of, read_text

TOPOHUB = "topohub:"
_TOPOHUB_NAME = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)+")
_Attributed = tuple[str, Mapping[str, object]]
_Edge = tuple[str, str, Mapping[str, object]]


def read_xml(path: Path, content: bytes) -> Element:
    """Parse XML without DTD, entities or anything from elsewhere.

    Raises:
        ScenarioError: The file is truncated, not well-formed, or carries a DTD.
    """
    try:
        return SafeTree.fromstring(content, forbid_dtd=True)
    except DefusedXmlException as reason:
        _refuse(path, f"XML with a DTD or entities ({type(reason).__name__})", "plain XML", "Remove the DOCTYPE.")
    except SafeTree.ParseError as reason:
        _refuse(path, f"broken XML: {reason}", "a complete XML file", "Fetch the file again.")
    except (ValueError, LookupError) as reason:  # encodings that are unknown or that expat cannot read
        _refuse(path, f"unreadable XML: {reason}", "XML in UTF-8", "Save the file as UTF-8.")


def _refuse(path: Path, value: str, expected: str, remedy: str = "") -> NoReturn:
    raise ScenarioError(problem(path, None, None, value, expected, remedy))


def local_name(element: Element) -> str:
    """Return an element's name without its namespace."""
    return str(element.tag).rpartition("}")[2]


# ------------------------------------------------------------------------------------------------- GraphML
def read_graphml(path: Path, root: Element, reading: Reading) -> RawGraph:
    """Read a parsed GraphML file of one plain graph."""
    graphs = [child for child in root if local_name(child) == "graph"]
    if local_name(root) != "graphml" or len(graphs) != 1:
        _refuse(path, f"<{local_name(root)}> with {len(graphs)} graphs", "GraphML with one <graph>")
    keys = {key.get("id"): key for key in root if local_name(key) == "key"}
    nodes: list[_Attributed] = []
    edges: list[_Edge] = []
    said = graphs[0].get("edgedefault")
    if said not in ("directed", "undirected"):
        Place(path, "").fail("edgedefault", said, "directed or undirected")
    for child in graphs[0]:
        kind = local_name(child)
        if kind == "node":
            place = Place(path, f"node {len(nodes) + 1}")
            nodes.append((place.text("id", child.get("id")), _data(child, keys, place)))
        elif kind == "edge":
            place = Place(path, f"edge {len(edges) + 1}")
            ends = [place.text(end, child.get(end)) for end in ("source", "target")]
            if child.get("directed", str(said == "directed").lower()) != str(said == "directed").lower():
                place.fail("directed", child.get("directed"), "edges of one kind in the whole file")
            edges.append((*ends, _data(child, keys, place)))
        elif kind not in ("data", "desc"):
            _refuse(path, f"an element <{kind}>", "nodes and edges only", "Remove hyperedges and ports.")
    name = next((e.text for e in graphs[0] if local_name(e) == "data" and _named(keys, e) in ("label", "network")), "")
    return _assemble(path, "GraphML", name or path.stem, nodes, edges, said == "directed", reading)


def _named(keys: Mapping[str | None, Element], data: Element) -> str:
    key = keys.get(data.get("key"))
    return (key.get("attr.name") or "").lower() if key is not None else ""


def _data(element: Element, keys: Mapping[str | None, Element], place: Place) -> dict[str, object]:
    """Return the attributes of a node or edge by their declared names, defaults included."""
    found: dict[str, object] = {}
    for key in keys.values():
        default = next((child.text for child in key if local_name(child) == "default"), None)
        if default is not None and key.get("for") in (local_name(element), "all"):
            found[key.get("attr.name") or str(key.get("id"))] = default
    own: set[str] = set()
    for child in element:
        if local_name(child) != "data":
            if local_name(child) in ("graph", "port"):
                place.fail("", f"a nested <{local_name(child)}>", "a flat graph")
            continue
        key = keys.get(child.get("key"))
        if key is None:
            place.fail("key", child.get("key"), "a key that the file declares", "Declare it with <key>.")
        name = key.get("attr.name") or str(key.get("id"))
        if name in own:
            place.fail("data", name, "each attribute once", "Remove the duplicate.")
        own.add(name)
        found[name] = (child.text or "").strip()
    return found


# ----------------------------------------------------------------------------------------------------- GML
def read_gml(path: Path, reading: Reading) -> RawGraph:
    """Read a GML file by networkx; what it makes of a broken file becomes an error of ours."""
    text = read_text(path)
    try:
        graph = nx.parse_gml(text, label="id")
    except Exception as reason:  # the parser raises whatever its recursion over the text runs into
        _refuse(path, f"not GML: {' '.join(str(reason).split())}", "a complete GML file of one graph")
    nodes = [
        (Place(path, f"node {i}").text("id", node), attributes)
        for i, (node, attributes) in enumerate(graph.nodes(data=True), 1)
    ]
    edges = [(str(source), str(target), attributes) for source, target, attributes in graph.edges(data=True)]
    name = graph.graph.get("Network") or graph.graph.get("label") or path.stem
    return _assemble(path, "GML", str(name), nodes, edges, graph.is_directed(), reading)


# --------------------------------------------------------------------------------------------- node-link JSON
def read_json_graph(path: Path, reading: Reading) -> RawGraph:
    """Read node-link JSON."""
    text = read_text(path)
    try:
        given = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as reason:
        _refuse(path, f"not JSON: {reason}", "a complete JSON file")
    return read_node_link(path, given, "node-link JSON", reading)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a key twice in one object: {sorted(key for key, _ in pairs)}")
    return found


def read_node_link(path: Path, given: object, kind: str, reading: Reading) -> RawGraph:
    """Read a node-link dictionary, whose links stand under `edges` or `links`."""
    if not isinstance(given, dict) or not isinstance(given.get("nodes"), list):
        _refuse(path, "JSON without a list of nodes", "an object with nodes and edges (or links)")
    under = [key for key in ("edges", "links") if key in given]
    if len(under) != 1 or not isinstance(given[under[0]], list):
        _refuse(path, f"JSON with {' and '.join(under) or 'no'} links", "one list under edges or links")
    nodes: list[_Attributed] = []
    for number, node in enumerate(given["nodes"], 1):
        place = Place(path, f"node {number}")
        if not isinstance(node, dict):
            place.fail("", node, "an object with an id")
        nodes.append((place.text("id", node.get("id")), node))
    edges: list[_Edge] = []
    for number, edge in enumerate(given[under[0]], 1):
        place = Place(path, f"edge {number}")
        if not isinstance(edge, dict):
            place.fail("", edge, "an object with source and target")
        edges.append((*(place.text(end, edge.get(end)) for end in ("source", "target")), edge))
    is_directed = given.get("directed", False)
    if not isinstance(is_directed, bool):
        Place(path, "").fail("directed", is_directed, "true or false")
    said = given.get("graph")
    name = said.get("name") if isinstance(said, dict) else None
    return _assemble(path, kind, name if isinstance(name, str) else path.stem, nodes, edges, is_directed, reading)


def read_topohub(name: str, reading: Reading) -> tuple[RawGraph, bytes]:
    """Read a network of the topohub package, and its bytes for the checksum."""
    data = importlib.resources.files(topohub) / "data"
    file = data / f"{name}.json"
    if _TOPOHUB_NAME.fullmatch(name) is None or not file.is_file():
        known = sorted(_topohub_names(data, ""))
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.4)
        groups = sorted({key.partition("/")[0] for key in known})
        expected = f"a network of topohub such as {', '.join(near)}" if near else "GROUP/NAME"
        raise ScenarioError(
            problem(None, None, "topohub name", name, f"{expected}", f"Groups are {', '.join(groups)}.")
        )
    content = file.read_bytes()
    kind = f"node-link JSON of topohub {topohub.__version__}"
    return read_node_link(Path(name), json.loads(content), kind, reading), content


def _topohub_names(folder: Any, prefix: str) -> Iterable[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _topohub_names(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".json"):
            yield prefix + entry.name.removesuffix(".json")


# ------------------------------------------------------------------------------------------------ together
def _assemble(
    path: Path,
    kind: str,
    name: str,
    nodes: list[_Attributed],
    edges: list[_Edge],
    is_directed: bool,
    reading: Reading,
) -> RawGraph:
    """Return the graph that nodes and edges with their attributes make."""
    read = tuple(read_node(node, given, Place(path, f"node {node}")) for node, given in nodes)
    links = tuple(
        read_link(source, target, given, reading, Place(path, f"edge {number} ({source} to {target})"))
        for number, (source, target, given) in enumerate(edges, 1)
    )
    warnings = []
    for what, is_link, rows in (("nodes", False, [g for _, g in nodes]), ("links", True, [g for *_, g in edges])):
        left = unused({str(key).strip().lower() for row in rows for key in row}, is_link)
        if left:
            warnings.append(f"attributes of {what} that were not used: {', '.join(left[:12])}")
    is_degrees = any(key.lower() in ("latitude", "lat") for _, given in nodes for key in map(str, given))
    positions = positions_of([(n.x, n.y) for n in read], "geographical" if is_degrees else None, reading)
    if not is_degrees and reading.positions is None and "topohub" not in kind and positions != "none":
        warnings.append(f"the file does not say what its coordinates are: taken as {positions} (pass positions)")
    graph = RawGraph(
        name=plain(name) or path.stem,
        format=kind,
        nodes=read,
        links=links,
        is_directed=is_directed if reading.directed is None else reading.directed,
        positions=positions,
        warnings=tuple(warnings),
    )
    return checked(graph, path)
