"""A network from elsewhere: `load_network` reads a file or a topohub network and fills what it does not say.

What came from the file and what from a rule is kept apart: `Imported.assumptions` sums it up, `Imported.origins`
lists it node by node and link by link, and `makers.make_scenario` writes both into the scenario's folder.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

from amarl_core.errors import ScenarioError, problem
from amarl_core.foreign.filling import Filling, Imported
from amarl_core.foreign.graph_files import (
    TOPOHUB,
    local_name,
    read_gml,
    read_graphml,
    read_json_graph,
    read_topohub,
    read_xml,
)
from amarl_core.foreign.import_rules import Rules
from amarl_core.foreign.raw_graph import Place, RawGraph, Reading, read_content
from amarl_core.foreign.repetita import read_repetita
from amarl_core.foreign.simple_graph import connected, directed_links, renamed, without_external
from amarl_core.foreign.sndlib import NATIVE_HEADER, read_sndlib_native, read_sndlib_xml

__all__ = ["Imported", "Rules", "load_network"]

logger = logging.getLogger(__name__)

FORMATS = {".graphml": "xml", ".xml": "xml", ".gml": "gml", ".json": "json", ".graph": "repetita", ".txt": "native"}
FORMATS |= {".native": "native"}


def load_network(
    path: str | Path,
    *,
    rules: Rules | None = None,
    external: str = "drop",
    component: str = "all",
    capacity_unit: str | None = None,
    delay_unit: str | None = None,
    length_unit: str | None = None,
    directed: bool | None = None,
    positions: str | None = None,
) -> Imported:
    """Read a network in a foreign format and fill what it does not say by documented rules.

    Args:
        path: A file (.graphml, .gml, .json node-link, .xml SNDlib or GraphML, .txt or .native SNDlib, .graph
            REPETITA), or "topohub:GROUP/NAME" such as "topohub:sndlib/germany50".
        rules: How missing delays, capacities, tiers, compute and people are filled.
        external: "drop" leaves out nodes of other networks (Internal 0 in the Topology Zoo), "keep" keeps them.
        component: "all" refuses a network that is not connected, "largest" keeps its largest part.
        capacity_unit: Unit of capacities that the file gives without one, such as "Mb/s".
        delay_unit: The same for delays: "ns", "us", "ms" or "s".
        length_unit: The same for lengths: "m" or "km".
        directed: Whether links are one-way, over what the file says.
        positions: "geographical" or "planar", over what the file says.

    Returns:
        The network with what was assumed.

    Raises:
        ScenarioError: The file cannot be read in full and without doubt; the message says where and what to do.
    """
    for option, value, known in (
        ("external", external, ("drop", "keep")),
        ("component", component, ("all", "largest")),
    ):
        if value not in known:
            raise ScenarioError(problem(None, None, option, value, " or ".join(known)))
    reading = Reading(capacity_unit, delay_unit, length_unit, directed, positions)
    raw, content = _read(path, reading)
    source = str(path) if str(path).startswith(TOPOHUB) else Path(path).name
    raw, dropped = without_external(raw, external)
    raw = renamed(raw)
    links, merged = directed_links(raw)
    nodes, links, cut = connected(raw, links, component, source)
    raw = replace(raw, nodes=nodes, warnings=(*raw.warnings, *dropped, *merged, *cut))
    imported = Filling(raw, links, rules or Rules(), Path(source)).imported(source, hashlib.sha256(content).hexdigest())
    for warning in imported.warnings:
        logger.warning("%s: %s", source, warning)
    return imported


def _read(path: str | Path, reading: Reading) -> tuple[RawGraph, bytes]:
    """Read any format, told by the name's ending and by the content."""
    if str(path).startswith(TOPOHUB):
        return read_topohub(str(path).removeprefix(TOPOHUB), reading)
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        expected = f"a name ending in {', '.join(FORMATS)}, or {TOPOHUB}GROUP/NAME"
        raise ScenarioError(problem(None, None, "network", str(path), expected, "Rename the file by its format."))
    content = read_content(path)
    if kind == "xml":
        root = read_xml(path, content)
        readers = {"graphml": read_graphml, "network": read_sndlib_xml}
        reader = readers.get(local_name(root))
        if reader is None:
            found = f"XML of <{local_name(root)}>"
            raise ScenarioError(problem(path, None, None, found, "GraphML's <graphml> or SNDlib's <network>"))
        return reader(path, root, reading), content
    if kind == "native" and not content.lstrip(b"\xef\xbb\xbf").startswith(NATIVE_HEADER.encode()):
        Place(path, "", 1).fail("header", content[:40].decode(errors="replace"), f"{NATIVE_HEADER}; type: network; ...")
    by_kind = {"gml": read_gml, "json": read_json_graph, "native": read_sndlib_native, "repetita": read_repetita}
    return by_kind[kind](path, reading), content
