"""What a network file says and no more: nodes and links in known units, with None where the file is silent.

Every reader of a foreign format gives a `RawGraph`; `import_rules` then fills what is missing. Numbers are read
strictly: a thousands separator, a decimal comma, a unit glued to a number, NaN or infinity is an error that names
the place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from amarl_core.errors import ScenarioError, problem
from amarl_core.tables import names, read_bytes

MOST_BYTES = 64_000_000
LARGEST = 1e18
KBPS = {"": 1e-3, "k": 1.0, "m": 1e3, "g": 1e6, "t": 1e9}
"""kbps in one unit of bandwidth, by the unit's prefix."""
MS = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
"""ms in one unit of delay."""
KM = {"m": 1e-3, "km": 1.0}
"""km in one unit of length."""
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_BANDWIDTH = re.compile(r"([kKmMgGtT]?)(bit/s|bits/s|b/s|bps|)")


@dataclass(frozen=True)
class RawNode:
    """A node as a file gives it; x and y are longitude and latitude in degrees when positions are geographical."""

    node_id: str
    label: str = ""
    x: float | None = None
    y: float | None = None
    tier: str | None = None
    compute_mcpu: float | None = None
    population: float | None = None
    is_external: bool = False


@dataclass(frozen=True)
class RawLink:
    """A link as a file gives it.

    Attributes:
        source: Identifier of the node where it starts (or of one end, in an undirected graph).
        target: Identifier of the node where it ends.
        capacity_kbps: In kbps, each direction.
        delay_ms: One way, in ms.
        cable_km: Length of the cable in km.
        crow_km: Distance of its ends in km, as the crow flies.
    """

    source: str
    target: str
    capacity_kbps: float | None = None
    delay_ms: float | None = None
    cable_km: float | None = None
    crow_km: float | None = None


@dataclass(frozen=True)
class RawGraph:
    """A network file's content.

    Attributes:
        name: What the file calls itself, or its file name.
        format: Name of the format.
        nodes: The nodes, each identifier once.
        links: The links between them, in the file's order.
        is_directed: Whether a link is one direction only.
        positions: "geographical", "planar" (a drawing) or "none".
        warnings: What a user should know.
    """

    name: str
    format: str
    nodes: tuple[RawNode, ...]
    links: tuple[RawLink, ...]
    is_directed: bool
    positions: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """How to read what a file leaves open; None lets the file or its format decide.

    Attributes:
        capacity_unit: Unit of capacities that the file gives without one, such as "Mb/s".
        delay_unit: The same for delays: "ns", "us", "ms" or "s".
        length_unit: The same for lengths: "m" or "km".
        directed: True or False overrides what the file says of its links.
        positions: "geographical" or "planar" overrides what coordinates are taken for.
    """

    capacity_unit: str | None = None
    delay_unit: str | None = None
    length_unit: str | None = None
    directed: bool | None = None
    positions: str | None = None

    def __post_init__(self) -> None:
        if self.capacity_unit is not None:
            kbps_in(self.capacity_unit, Place(None, "capacity_unit"))
        for name, known in (("delay_unit", MS), ("length_unit", KM)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ScenarioError(problem(None, None, name, value, f"one of {', '.join(known)}"))
        if self.positions not in (None, "geographical", "planar"):
            raise ScenarioError(problem(None, None, "positions", self.positions, "geographical or planar"))
        if self.directed not in (None, True, False):
            raise ScenarioError(problem(None, None, "directed", self.directed, "True, False or None"))


@dataclass(frozen=True)
class Place:
    """Where in a file something stands, for errors: the file, what it is ("link L1") and perhaps the line."""

    path: Path | None
    what: str
    row: int | None = None

    def fail(self, column: str, value: object, expected: str, remedy: str = "") -> NoReturn:
        """Raise an error about this place."""
        subject = f"{column} of {self.what}" if column and self.what else column or self.what or None
        raise ScenarioError(problem(self.path, self.row, subject, value, expected, remedy))

    def number(self, column: str, value: object, least: float = -LARGEST, most: float = LARGEST) -> float:
        """Read a number strictly: finite, in range, without unit or separators."""
        expected = "a plain number" + (f" of at least {least:g}" if least > -LARGEST else "")
        expected += f", at most {most:g}" if most < LARGEST else ""
        if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fail(column, value, expected, "Write it without unit, thousands separator or decimal comma.")
        if not least <= value <= most:
            self.fail(column, value, expected, "Check its unit.")
        return float(value)

    def text(self, column: str, value: object) -> str:
        """Read an identifier: a text or an integer, blanks collapsed, not empty."""
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST:
            return str(value)
        found = plain(value) if isinstance(value, str) else ""
        if not found:
            self.fail(column, value, "a text that is not empty, or an integer")
        return found


def plain(text: str) -> str:
    """Return a text on one line, of characters that any table can hold."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(shown.split())[:120]


def kbps_in(unit: object, place: Place) -> float:
    """Return the kbps in one unit of bandwidth such as "Mb/s", "Gbps" or "K"; bytes are refused."""
    match = _BANDWIDTH.fullmatch(unit.strip()) if isinstance(unit, str) else None
    if match is None or not unit.strip():
        place.fail("", unit, "a unit of bandwidth: bit/s, kb/s, Mb/s, Gb/s or Tb/s", "Say which one it is.")
    return KBPS[match[1].lower()]


def read_text(path: Path) -> str:
    """Return a text file's content, refusing Git-LFS pointers, empty files and what is not UTF-8."""
    content = read_content(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise ScenarioError(
            problem(path, None, None, f"not UTF-8: {reason.reason}", "UTF-8 text", "Save the file as UTF-8.")
        ) from reason


def read_content(path: Path) -> bytes:
    """Return a file's bytes, refusing Git-LFS pointers, empty files and files of more than 64 MB."""
    if path.is_file() and path.stat().st_size > MOST_BYTES:
        raise ScenarioError(problem(path, None, "size in bytes", path.stat().st_size, f"at most {MOST_BYTES}"))
    return read_bytes(path, ScenarioError, content="nodes and links")


def checked(graph: RawGraph, path: Path) -> RawGraph:
    """Return the graph itself if every node is there once and every link joins known nodes."""
    if len(graph.nodes) < 2 or not graph.links:
        found = f"{len(graph.nodes)} nodes and {len(graph.links)} links"
        raise ScenarioError(problem(path, None, None, found, "a network of at least two nodes and a link"))
    known: dict[str, RawNode] = {}
    for node in graph.nodes:
        if node.node_id in known:
            Place(path, "").fail("node", node.node_id, "each node once", "Remove or rename the duplicate.")
        known[node.node_id] = node
    for number, link in enumerate(graph.links, 1):
        for end in (link.source, link.target):
            if end not in known:
                Place(path, f"link {number}").fail("end", end, f"a known node: {names(known)}", "Add the node.")
    return graph


def positions_of(points: Sequence[tuple[float | None, float | None]], said: str | None, reading: Reading) -> str:
    """Return what coordinates are: as the user or the file says, otherwise geographical if all fit degrees."""
    given = [(x, y) for x, y in points if x is not None and y is not None]
    if not given:
        return "none"
    fits = all(-180 <= x <= 180 and -90 <= y <= 90 for x, y in given)
    claimed = reading.positions or said
    if claimed == "geographical" and not fits:
        x, y = next((x, y) for x, y in given if not (-180 <= x <= 180 and -90 <= y <= 90))
        raise ScenarioError(
            problem(
                None,
                None,
                "position",
                f"({x:g}, {y:g})",
                "longitude in [-180, 180] and latitude in [-90, 90]",
                "Exchange the two if they are swapped, or pass positions='planar' if it is a drawing.",
            )
        )
    return claimed or ("geographical" if fits else "planar")


def lowered(attributes: Mapping[str, object], place: Place) -> dict[str, object]:
    """Return attributes by lower-case name, refusing names that differ in case only."""
    found: dict[str, object] = {}
    for name, value in attributes.items():
        key = str(name).strip().lower()
        if key in found:
            place.fail("attribute", str(name), "each attribute once, whatever its case", "Remove the duplicate.")
        found[key] = value
    return found
