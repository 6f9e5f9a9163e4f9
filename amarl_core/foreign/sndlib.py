"""Readers of SNDlib's two network formats, XML and native.

Source: the format pages at sndlib.put.poznan.pl and sndlib.zib.de (html/docu/io-formats); Orlowski, Pioro,
Tomaszewski, Wessaely, "SNDlib 1.0", Networks 2010. A link has a pre-installed capacity, which may be 0, and modules
that can be installed. The capacity taken is the pre-installed one, or the largest module where nothing is installed.
SNDlib leaves the unit to the instance (Mbit/s in many, 2 Mbit/s or others in some): it is Mb/s here unless the user
says otherwise, and a warning says so. Links are undirected or bidirected: both directions get the capacity.
Demands, costs and admissible paths are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from amarl_core.foreign.graph_files import local_name
from amarl_core.foreign.raw_graph import (
    Place,
    RawGraph,
    RawLink,
    RawNode,
    Reading,
    checked,
    kbps_in,
    positions_of,
    read_text,
)

NATIVE_HEADER = "?SNDlib native format"
DEFAULT_UNIT = "Mb/s"
_TOKEN = re.compile(r"[()]|[^\s()]+")
_SKIPPED = ("META", "DEMANDS", "ADMISSIBLE_PATHS")
_Token = tuple[str, int]


# ----------------------------------------------------------------------------------------------------- XML
def read_sndlib_xml(path: Path, root: Element, reading: Reading) -> RawGraph:
    """Read a parsed SNDlib XML network file."""
    structure = _child(root, "networkStructure", Place(path, "<network>"))
    node_list = _child(structure, "nodes", Place(path, "<networkStructure>"))
    nodes, links, modules, seen = [], [], 0, set[str]()
    for number, element in enumerate(_children(node_list, "node"), 1):
        place = Place(path, f"node {number}")
        position = _child(element, "coordinates", place, optional=True)
        x, y = (
            (place.number(axis, _text(position, axis, place)) for axis in "xy") if position is not None else (None,) * 2
        )
        nodes.append(RawNode(place.text("id", element.get("id")), x=x, y=y))
    for element in _children(_child(structure, "links", Place(path, "<networkStructure>")), "link"):
        place = Place(path, f"link {element.get('id')}")
        _once(seen, place.text("id", element.get("id")), place)
        ends = [place.text(end, _text(element, end, place)) for end in ("source", "target")]
        installed = [
            place.number("capacity", _text(module, "capacity", place), 0.0)
            for module in _children(element, "preInstalledModule")
        ]
        offered = [
            place.number("capacity", _text(module, "capacity", place), 0.0)
            for listed in _children(element, "additionalModules")
            for module in _children(listed, "addModule")
        ]
        modules += not sum(installed) and bool(offered)
        links.append((*ends, sum(installed) or max(offered, default=0.0)))
    said = node_list.get("coordinatesType")
    if said not in (None, "geographical", "pixel"):
        Place(path, "<nodes>").fail("coordinatesType", said, "geographical or pixel")
    positions = {"pixel": "planar"}.get(said, said) if said else None
    return _graph(path, "SNDlib XML", nodes, links, modules, positions, reading)


def _children(element: Element, name: str) -> list[Element]:
    return [child for child in element if local_name(child) == name]


def _child(element: Element, name: str, place: Place, optional: bool = False) -> Element | None:
    found = _children(element, name)
    if len(found) > 1 or not found and not optional:
        place.fail("", f"{len(found)} elements <{name}>", "one", "Complete the file.")
    return found[0] if found else None


def _text(element: Element, name: str, place: Place) -> str:
    return (_child(element, name, place).text or "").strip()


def _once(seen: set[str], link: str, place: Place) -> None:
    if link in seen:
        place.fail("id", link, "each link once", "Remove or rename the duplicate.")
    seen.add(link)


# -------------------------------------------------------------------------------------------------- native
def read_sndlib_native(path: Path, reading: Reading) -> RawGraph:
    """Read an SNDlib native network file, whose coordinates do not say what they are."""
    text = read_text(path)
    header, _, body = text.partition("\n")
    if not header.startswith(NATIVE_HEADER) or "type: network" not in header:
        Place(path, "", 1).fail("header", header, f"{NATIVE_HEADER}; type: network; version: 1.0")
    lines = enumerate(body.split("\n"), 2)
    tokens = [(token, n) for n, line in lines for token in _TOKEN.findall(line.partition("#")[0])]
    sections = dict(_sections(path, tokens))
    for name in ("NODES", "LINKS"):
        if name not in sections:
            Place(path, "").fail("", f"no section {name}", f"{name} ( ... )", "Complete the file.")
    nodes = [_native_node(path, entry) for entry in _entries(path, sections["NODES"], groups=(1, 3))]
    links, modules, seen = [], 0, set[str]()
    for entry in _entries(path, sections["LINKS"], groups=(2, 2)):
        link, is_module = _native_link(path, entry, seen)
        links.append(link)
        modules += is_module
    return _graph(path, "SNDlib native", nodes, links, modules, None, reading)


def _sections(path: Path, tokens: list[_Token]) -> Iterator[tuple[str, list[_Token]]]:
    """Yield each section's name and what stands between its parentheses."""
    at, seen = 0, set[str]()
    while at < len(tokens):
        name, row = tokens[at]
        if name not in ("NODES", "LINKS", *_SKIPPED) or name in seen:
            Place(path, "", row).fail("section", name, f"NODES, LINKS, {', '.join(_SKIPPED)}, each once")
        seen.add(name)
        depth, end = 0, at + 1
        while end < len(tokens):
            depth += {"(": 1, ")": -1}.get(tokens[end][0], 0)
            if depth <= 0:
                break
            end += 1
        if end == len(tokens) or tokens[at + 1][0] != "(":
            Place(path, "", row).fail("section", name, "to stand before ( ... )", "Fetch the file again.")
        yield name, tokens[at + 2 : end]
        at = end + 1


def _entries(path: Path, tokens: list[_Token], groups: tuple[int, int]) -> Iterator[list]:
    """Yield entries `id ( ... ) ...`: words and lists of words, each entry on a line of its own."""
    by_line: dict[int, list[str]] = {}
    for token, row in tokens:
        by_line.setdefault(row, []).append(token)
    for row, words in by_line.items():
        entry: list = [row]
        inside: list[str] | None = None
        for word in words:
            if (word == "(") == (inside is not None) and word in "()":
                Place(path, "", row).fail("", " ".join(words), "matching parentheses, one entry a line")
            if word == "(":
                inside = []
            elif word == ")":
                entry.append(inside)
                inside = None
            else:
                (entry if inside is None else inside).append(word)
        n_groups = sum(isinstance(part, list) for part in entry)
        if inside is not None or not groups[0] <= n_groups <= groups[1]:
            Place(path, "", row).fail("", " ".join(words), "a complete entry on one line", "Fetch the file again.")
        yield entry


def _native_node(path: Path, entry: list) -> RawNode:
    """Read `node_id ( x y )`, perhaps followed by empty lists."""
    row, *parts = entry
    place = Place(path, f"node {parts[0]}" if isinstance(parts[0], str) else "", row)
    if len(parts) < 2 or not isinstance(parts[0], str) or not isinstance(parts[1], list) or len(parts[1]) != 2:
        place.fail("", str(parts), "node_id ( x y )")
    if any(part != [] for part in parts[2:]):
        place.fail("", str(parts[2:]), "nothing but empty lists after the position")
    return RawNode(parts[0], x=place.number("x", parts[1][0]), y=place.number("y", parts[1][1]))


def _native_link(path: Path, entry: list, seen: set[str]) -> tuple[tuple[str, str, float], bool]:
    """Read `link_id ( source target ) installed cost cost cost ( {capacity cost}* )`; True if a module counts."""
    row, *parts = entry
    place = Place(path, f"link {parts[0]}" if isinstance(parts[0], str) else "", row)
    shape = [len(p) if isinstance(p, list) else 0 for p in parts]
    if len(parts) != 7 or shape[:6] != [0, 2, 0, 0, 0, 0] or not isinstance(parts[6], list) or shape[6] % 2:
        place.fail("", str(parts), "link_id ( source target ) capacity cost cost cost ( {capacity cost}* )")
    _once(seen, parts[0], place)
    numbers = [place.number("capacity or cost", value, 0.0) for value in [*parts[2:6], *parts[6]]]
    installed, offered = numbers[0], numbers[4::2]
    return (*parts[1], installed or max(offered, default=0.0)), not installed and bool(offered)


# ------------------------------------------------------------------------------------------------ together
def _graph(
    path: Path,
    kind: str,
    nodes: list[RawNode],
    links: list[tuple[str, str, float]],
    modules: int,
    positions: str | None,
    reading: Reading,
) -> RawGraph:
    """Return the graph, with warnings about the unit, the modules and the coordinates."""
    unit = reading.capacity_unit or DEFAULT_UNIT
    factor = kbps_in(unit, Place(path, "capacity_unit"))
    warnings = []
    if reading.capacity_unit is None and any(capacity for *_, capacity in links):
        warnings.append(f"SNDlib files do not say the unit of capacities: read as {DEFAULT_UNIT} (pass capacity_unit)")
    if modules:
        warnings.append(f"{modules} of {len(links)} links have nothing installed: their largest module is taken")
    points = [(node.x, node.y) for node in nodes]
    found = positions_of(points, positions, reading)
    if positions is None and reading.positions is None and found != "none":
        warnings.append(f"the file does not say what its coordinates are: taken as {found} (pass positions)")
    graph = RawGraph(
        name=path.stem,
        format=kind,
        nodes=tuple(nodes),
        links=tuple(RawLink(a, b, capacity_kbps=capacity * factor or None) for a, b, capacity in links),
        is_directed=bool(reading.directed),
        positions=found,
        warnings=tuple(warnings),
    )
    return checked(graph, path)
