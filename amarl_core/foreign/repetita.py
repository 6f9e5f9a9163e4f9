"""Reader of REPETITA's .graph files.

Source: repetita.info.ucl.ac.be/DataFormat.html (Gay, Schaus, Vissicchio, "REPETITA: repeatable experiments for
performance evaluation of traffic-engineering algorithms", 2017). A line `NODES n`, a line of column names, n lines
`label x y`, then `EDGES m`, a line of column names, and m lines `label src dest weight bw delay`. Edges are directed
and name nodes by their number from 0; several may join the same two. The authors use kbps and microseconds and leave
the bandwidth's unit to the user: `capacity_unit` and `delay_unit` override them.
"""

from __future__ import annotations

from pathlib import Path

from amarl_core.foreign.raw_graph import (
    MS,
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

SECTIONS = {"NODES": ["label", "x", "y"], "EDGES": ["label", "src", "dest", "weight", "bw", "delay"]}


def read_repetita(path: Path, reading: Reading) -> RawGraph:
    """Read a .graph file.

    Raises:
        ScenarioError: A count, a column or a number is not as the format says.
    """
    lines = [(n, line.split()) for n, line in enumerate(read_text(path).split("\n"), 1)]
    lines = [(n, words) for n, words in lines if words]
    node_rows, rest = _section(path, lines, "NODES")
    edge_rows, rest = _section(path, rest, "EDGES")
    if rest:
        Place(path, "", rest[0][0]).fail("", " ".join(rest[0][1]), "no line after the edges", "Correct EDGES' count.")
    nodes, links, seen = [], [], set[str]()
    for number, (row, (label, x, y)) in enumerate(node_rows):
        place = Place(path, f"node {label}", row)
        nodes.append(RawNode(str(number), label, place.number("x", x), place.number("y", y)))
    kbps = kbps_in(reading.capacity_unit or "kb/s", Place(path, "capacity_unit"))
    ms = MS[reading.delay_unit or "us"]
    for row, (label, source, target, weight, bandwidth, delay) in edge_rows:
        place = Place(path, f"edge {label}", row)
        if label in seen:
            place.fail("label", label, "each edge once", "Remove or rename the duplicate.")
        seen.add(label)
        place.number("weight", weight)
        ends = [_index(place, name, value, len(nodes)) for name, value in (("src", source), ("dest", target))]
        capacity, delay_ms = place.number("bw", bandwidth, 0.0) * kbps, place.number("delay", delay, 0.0) * ms
        links.append(RawLink(*ends, capacity_kbps=capacity, delay_ms=delay_ms))
    positions = positions_of([(node.x, node.y) for node in nodes], None, reading)
    is_directed = True if reading.directed is None else reading.directed
    return checked(RawGraph(path.stem, "REPETITA", tuple(nodes), tuple(links), is_directed, positions), path)


def _section(path: Path, lines: list, name: str) -> tuple[list, list]:
    """Return the rows of a section, each with as many words as columns, and the lines after it."""
    if len(lines) < 2 or lines[0][1][:1] != [name] or len(lines[0][1]) != 2:
        found = " ".join(lines[0][1]) if lines else "the end of the file"
        Place(path, "", lines[0][0] if lines else None).fail("", found, f"{name} and their number", "Fetch it again.")
    (row, (_, count)), (header_row, header) = lines[:2]
    if header != SECTIONS[name]:
        Place(path, "", header_row).fail("", " ".join(header), " ".join(SECTIONS[name]))
    if not (count.isascii() and count.isdigit() and len(count) < 8):
        Place(path, "", row).fail(f"number of {name}", count, "an integer")
    n = int(count)
    rows = lines[2 : 2 + n]
    for row, words in rows:
        if len(words) != len(header):
            Place(path, "", row).fail("", " ".join(words), f"{len(header)} words: {' '.join(header)}")
    if len(rows) < n:
        Place(path, "", row).fail(f"number of {name}", n, f"as many rows as there are ({len(rows)})", "Fetch it again.")
    return rows, lines[2 + n :]


def _index(place: Place, column: str, text: str, n_nodes: int) -> str:
    """Read the number of a node."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < n_nodes):
        place.fail(column, text, f"the number of a node, 0 to {n_nodes - 1}")
    return str(int(text))
