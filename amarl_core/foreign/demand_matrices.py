"""SNDlib's dynamic traffic: a folder of XML files, each the demands between nodes over one interval.

The form (sndlib.put.poznan.pl, "dynamic traffic"): `meta` with `time` (20040301-0000), `granularity` (5min) and `unit`
(MBITPERSEC), and `demands` with `source`, `target` and `demandValue` each. XML is read without document types and
entities, so that a file can neither read other files nor swell in memory.
"""

from __future__ import annotations

import logging
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pandas as pd
from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeXML

from amarl_core.errors import TraceError, problem
from amarl_core.foreign.trace_files import Codes
from amarl_core.foreign.trace_mappings import TrafficMapping
from amarl_core.foreign.trace_reports import Report
from amarl_core.foreign.trace_times import Clock, anchor
from amarl_core.foreign.volume_tables import report_coverage, translate
from amarl_core.foreign.volumes import Cells
from amarl_core.tables import read_bytes

if TYPE_CHECKING:
    from amarl_core.scenario import Scenario

logger = logging.getLogger(__name__)

UNITS = {"KBITPERSEC": "kbps", "MBITPERSEC": "Mbps", "GBITPERSEC": "Gbps"}
_SECONDS = {"sec": 1, "s": 1, "min": 60, "h": 3600, "hour": 3600, "day": 86_400}
_NAME_TIME = re.compile(r"-([0-9]{8}-[0-9]{4})$")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LOG_EVERY = 5000
_MOST = 1e15


@dataclass
class _Names(Codes):
    """Node names over all files; an error names the file where one first occurs."""

    first_file: list[Path] = field(default_factory=list)

    def number(self, text: str, path: Path) -> int:
        """Return the number of a name."""
        if text not in self._index:
            self._index[text] = len(self.texts)
            self.texts.append(text)
            self.first_file.append(path)
        return self._index[text]

    def fail(self, code: int, expected: str, remedy: str = "") -> NoReturn:
        raise TraceError(problem(self.first_file[code], None, self.column, self.texts[code], expected, remedy))


@dataclass(frozen=True)
class _Matrix:
    """One file: when, for how long, in which unit, and its demands."""

    path: Path
    when: datetime
    interval_s: float
    unit: str
    demands: list[tuple[str, str, float]]


def read_matrices(
    path: Path, scenario: Scenario, mapping: TrafficMapping, seed: int, report: Report
) -> tuple[Cells, Clock, str]:
    """Read a folder of demand matrices, or one file.

    Args:
        path: The folder, or an .xml file.
        scenario: Whose nodes.
        mapping: Time zone, tables of nodes, what to do with duplicates; its unit is used for files that state none.
        seed: For nodes that are given an area by population.
        report: Where to report.

    Returns:
        The cells, the clock, and the unit of the volumes.

    Raises:
        TraceError: At the first fault in one of the files.
    """
    files = _list_files(path, report)
    names = {key: _Names(path, key) for key in ("source", "destination")}
    parts: dict[str, list[np.ndarray]] = {key: [] for key in ("row", "time", "source", "destination", "volume")}
    first: _Matrix | None = None
    seen: dict[datetime, Path] = {}
    for number, file in enumerate(files):
        matrix = _read_matrix(file, mapping)
        first = first or matrix
        _refuse_other_kind(matrix, first)
        if matrix.when in seen:
            if mapping.on_duplicate == "refuse":
                raise _fault(file, "time", f"{matrix.when}", f"a time other than that of {seen[matrix.when].name}")
            report.warn("duplicate matrix", 1, file.name, {"drop": "left out", "keep": "summed"}[mapping.on_duplicate])
            if mapping.on_duplicate == "drop":
                continue
        seen.setdefault(matrix.when, file)
        _append(parts, names, matrix, mapping, report)
        if number % _LOG_EVERY == _LOG_EVERY - 1:
            logger.info("%s: %s of %s matrices read", path.name, f"{number + 1:,}", f"{len(files):,}")
    rows = {key: np.concatenate(values) for key, values in parts.items()}
    if not len(rows["row"]):
        raise _fault(path, None, "no demand in any file", "demands")
    report.note(
        "matrices", len(seen), f"{len(rows['row']):,} demands, {first.unit}, {first.interval_s:g} s each", "read"
    )
    report.note("time zone", 1, mapping.time.zone, "taken from the mapping, because the files do not state it")
    rows["start_s"], clock = anchor(path, mapping.time, rows.pop("time"))
    steps = (np.unique(rows["start_s"]) - rows["start_s"].min()) / first.interval_s
    if np.any(np.abs(steps - np.round(steps)) > 1e-6):
        raise _fault(
            path, "times of the matrices", "irregular", f"whole intervals of {first.interval_s:g} s between them"
        )
    rows["length_s"] = np.full(len(rows["row"]), first.interval_s)
    report_coverage(rows, clock, report)
    return translate(rows, dict(names), mapping, scenario, seed, report), clock, first.unit


def _fault(path: Path, column: str | None, value: object, expected: str, remedy: str = "") -> TraceError:
    return TraceError(problem(path, None, column, value, expected, remedy))


def _list_files(path: Path, report: Report) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise _fault(path, None, "no such folder", f"a folder of XML files at {path}")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".xml")
    if not files:
        raise _fault(path, None, "a folder without .xml files", "demandMatrix-....xml files", "Unpack the archive.")
    others = [file.name for file in path.iterdir() if file.suffix.lower() != ".xml"]
    report.warn("other file", len(others), ", ".join(sorted(others)[:3]), "ignored")
    return files


def _refuse_other_kind(matrix: _Matrix, first: _Matrix) -> None:
    if matrix.interval_s != first.interval_s:
        raise _fault(
            matrix.path, "granularity in s", matrix.interval_s, f"{first.interval_s:g} as in {first.path.name}"
        )
    if matrix.unit != first.unit:
        raise _fault(matrix.path, "unit", matrix.unit, f"{first.unit} as in {first.path.name}", "Do not mix units.")


def _without_repeated_pairs(matrix: _Matrix, mapping: TrafficMapping, report: Report) -> list[tuple[str, str, float]]:
    first = {(a, b): (a, b, value) for a, b, value in reversed(matrix.demands)}
    if len(first) == len(matrix.demands):
        return matrix.demands
    pairs = [(a, b) for a, b, _ in matrix.demands]
    a, b = next(pair for i, pair in enumerate(pairs) if pair in pairs[:i])
    if mapping.on_duplicate == "refuse":
        raise _fault(matrix.path, "demand", f"{a} to {b}", "each pair of nodes once", "Remove the duplicate.")
    done = {"drop": "dropped all but the first", "keep": "summed"}[mapping.on_duplicate]
    report.warn("duplicate demand", len(pairs) - len(first), f"{matrix.path.name}, {a} to {b}", done)
    return matrix.demands if mapping.on_duplicate == "keep" else list(reversed(first.values()))


def _append(
    parts: dict[str, list[np.ndarray]],
    names: dict[str, _Names],
    matrix: _Matrix,
    mapping: TrafficMapping,
    report: Report,
) -> None:
    demands = _without_repeated_pairs(matrix, mapping, report)
    ends = [
        (names["source"].number(a, matrix.path), names["destination"].number(b, matrix.path)) for a, b, _ in demands
    ]
    n = len(ends)
    pairs = np.array(ends, dtype=np.int32).reshape(n, 2)
    local = pd.Timestamp(matrix.when).tz_localize(mapping.time.zone, ambiguous="NaT", nonexistent="NaT")
    if local is pd.NaT:
        raise _fault(matrix.path, "time", f"{matrix.when}", f"a time that occurs once in {mapping.time.zone}",
                     "Say the time zone of the files, such as 'UTC', in time.zone.")  # fmt: skip
    values = {
        "row": np.arange(n),
        "time": np.full(n, local.timestamp()),
        "source": pairs[:, 0],
        "destination": pairs[:, 1],
        "volume": np.array([value for _, _, value in demands], dtype=float),
    }
    for key, column in values.items():
        parts[key].append(column)


def _read_matrix(path: Path, mapping: TrafficMapping) -> _Matrix:
    content = read_bytes(path, TraceError)
    try:
        root = SafeXML.fromstring(content, forbid_dtd=True)
    except DefusedXmlException as reason:
        raise _fault(path, None, f"XML with a document type or entities ({type(reason).__name__})",
                     "plain XML without them", "Remove the DOCTYPE; it is never followed.") from reason  # fmt: skip
    except (ET.ParseError, ValueError, LookupError) as reason:
        raise _fault(path, None, f"broken XML: {reason}", "a complete XML file", "Fetch it again.") from reason
    if _tag(root) != "network":
        raise _fault(path, None, f"a root element <{_tag(root)}>"[:60], "<network> as SNDlib writes it")
    meta = {_tag(each): (each.text or "").strip() for part in root if _tag(part) == "meta" for each in part}
    demands = [
        _read_demand(path, each) for part in root if _tag(part) == "demands" for each in part if _tag(each) == "demand"
    ]
    return _Matrix(path, _time_of(path, meta), _interval_of(path, meta), _unit_of(path, meta, mapping), demands)


def _tag(element: ET.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _read_demand(path: Path, element: ET.Element) -> tuple[str, str, float]:
    cells = {_tag(each): (each.text or "").strip() for each in element}
    where = f"demandValue of {element.get('id', 'a demand')}"
    for key in ("source", "target", "demandValue"):
        if not cells.get(key):
            raise _fault(path, where if key == "demandValue" else f"{key} of {element.get('id', 'a demand')}",
                         "missing", "source, target and demandValue in each demand")  # fmt: skip
    text = cells["demandValue"]
    if _NUMBER.fullmatch(text) is None or not 0 <= float(text) <= _MOST:
        raise _fault(path, where, text, "a non-negative number", "Write a plain number, without thousands separator.")
    return cells["source"], cells["target"], float(text)


def _time_of(path: Path, meta: dict[str, str]) -> datetime:
    """Return the time that the file states, and refuse one whose name says another."""
    named = _NAME_TIME.search(path.stem)
    texts = [text for text in (meta.get("time"), named.group(1) if named else None) if text]
    if not texts:
        raise _fault(path, "time", "missing", "meta/time such as 20040301-0000, or that in the file's name")
    try:
        times = [datetime.strptime(text, "%Y%m%d-%H%M") for text in texts]
    except ValueError as reason:
        raise _fault(path, "time", ", ".join(texts), "a time such as 20040301-0000") from reason
    if times[0] != times[-1]:
        raise _fault(path, "time", texts[0], f"{texts[-1]}, as in the file's name", "One of the two is wrong.")
    if not 1990 <= times[0].year <= 2100:
        raise _fault(path, "time", texts[0], "a time between 1990 and 2100")
    return times[0]


def _interval_of(path: Path, meta: dict[str, str]) -> float:
    text = meta.get("granularity", "")
    match = re.fullmatch(r"([0-9]{1,4}) ?([a-z]+?)s?", text) or re.fullmatch(r"([0-9]{1,4}) ?(s)", text)
    if match is None or match.group(2) not in _SECONDS or int(match.group(1)) == 0:
        raise _fault(path, "granularity", text, f"a number and one of {', '.join(_SECONDS)}, such as 5min",
                     "Months and years have no constant length.")  # fmt: skip
    return float(int(match.group(1)) * _SECONDS[match.group(2)])


def _unit_of(path: Path, meta: dict[str, str], mapping: TrafficMapping) -> str:
    text = meta.get("unit", "")
    if text in UNITS:
        return UNITS[text]
    if not text and mapping.volume.unit:
        return mapping.volume.unit
    raise _fault(path, "unit", text, f"one of {', '.join(UNITS)}", "" if text else "Say volume.unit in the mapping.")
