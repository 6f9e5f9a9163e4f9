"""Tables in which a row is the volume of a place and interval, read in chunks and checked into cells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from amarl_core.errors import TraceError, problem
from amarl_core.foreign.places import SKIPPED, node_of_places, service_of_names
from amarl_core.foreign.trace_files import Codes, read_chunks
from amarl_core.foreign.trace_mappings import TrafficMapping
from amarl_core.foreign.trace_reports import Report
from amarl_core.foreign.trace_times import Clock, TimeReader, anchor, report_days
from amarl_core.foreign.volumes import NO_ONE, Cells

if TYPE_CHECKING:
    from amarl_core.scenario import Scenario

_MOST = 1e15
_NEVER = _MOST
"""Stands for a mean time between requests that never ends, because cells must be finite."""
_PLACES = ("source", "destination")


def read_cells(
    path: Path, scenario: Scenario, mapping: TrafficMapping, seed: int, report: Report, chunk_bytes: int
) -> tuple[Cells, Clock]:
    """Read a table of volumes.

    Args:
        path: The table.
        scenario: Whose nodes and services.
        mapping: What its columns mean.
        seed: For places that are given an area by population.
        report: Where to report.
        chunk_bytes: Size of a chunk.

    Returns:
        The cells (rows of one place may still be several) and the clock.

    Raises:
        TraceError: At the first fault, with file, row, column, value, expectation and remedy.
    """
    codes, rows = _read_rows(path, mapping, report, chunk_bytes)
    rows["start_s"], clock = anchor(path, mapping.time, rows.pop("time"))
    rows = without_duplicates(path, rows, list(codes), mapping, report)
    if mapping.volume.interval_s:
        _check_grid(path, rows, mapping)
        rows["length_s"] = np.full(len(rows["row"]), mapping.volume.interval_s)
        _report_missing(rows, mapping, report)
    else:
        rows["length_s"] = _until_next(path, rows, mapping, codes)
    report_coverage(rows, clock, report)
    if mapping.volume.unit.startswith("inter_arrival"):
        rows["volume"] = _numbers_from_means(rows, mapping)
    return translate(rows, codes, mapping, scenario, seed, report), clock


def _read_rows(
    path: Path, mapping: TrafficMapping, report: Report, chunk_bytes: int
) -> tuple[dict[str, Codes], dict[str, np.ndarray]]:
    named = {
        "service": mapping.service.column,
        "source": mapping.source.column,
        "destination": mapping.destination.column,
    }
    named |= {f"part {column}": column for column in mapping.volume.sum_over}
    codes = {key: Codes(path, column) for key, column in named.items() if column}
    times = TimeReader(path, mapping.time)
    is_mean = mapping.volume.unit.startswith("inter_arrival")
    blank = None if mapping.volume.blank == "refuse" else (_NEVER if is_mean else 0.0)
    expected = f"a {'positive' if is_mean else 'non-negative'} number ({mapping.volume.unit})"
    parts: dict[str, list[np.ndarray]] = {}
    for chunk in read_chunks(path, mapping, report, chunk_bytes):
        read = {"row": chunk.rows, "time": times.read(chunk)}
        read |= {key: code.encode(chunk) for key, code in codes.items()}
        volume = chunk.numbers(mapping.volume.column, expected, blank)
        bad = (volume <= 0) if is_mean else (volume < 0)
        bad |= volume > _MOST
        if bad.any():
            chunk.fail(np.argmax(bad), mapping.volume.column, expected, "Correct the value.")
        read["volume"] = np.where(volume == _NEVER, np.inf, volume) if is_mean else volume
        for key, values in read.items():
            parts.setdefault(key, []).append(values)
    return codes, {key: np.concatenate(parts.pop(key)) for key in list(parts)}


def without_duplicates(
    path: Path, rows: dict[str, np.ndarray], names: list[str], mapping: TrafficMapping, report: Report
) -> dict[str, np.ndarray]:
    """Find rows of the same time, place and all else but the volume; `names` are the columns of codes."""
    keys = [rows[name] for name in names] + [rows["start_s"]]
    order = np.lexsort((rows["row"], *keys))
    same = np.ones(max(0, len(order) - 1), dtype=bool)
    for key in keys:
        same &= key[order[1:]] == key[order[:-1]]
    again = order[1:][same]
    if not len(again):
        return rows
    row = int(rows["row"][again].min())
    if mapping.on_duplicate == "refuse":
        raise TraceError(
            problem(
                path,
                row,
                None,
                "the same time and place as an earlier row",
                "one row for each",
                "Remove it, name what differs in volume.sum_over, or say on_duplicate = 'drop' ('keep' sums them).",
            )
        )
    report.warn(
        "duplicate row",
        len(again),
        f"row {row}",
        {"drop": "dropped all but the first", "keep": "summed"}[mapping.on_duplicate],
    )
    kept = np.ones(len(order), dtype=bool)
    kept[again] = mapping.on_duplicate == "keep"
    return {key: values[kept] for key, values in rows.items()}


def _check_grid(path: Path, rows: dict[str, np.ndarray], mapping: TrafficMapping) -> None:
    """Refuse times that are not a whole number of intervals apart."""
    steps = (rows["start_s"] - rows["start_s"][0]) / mapping.volume.interval_s
    off = np.abs(steps - np.round(steps)) > 1e-4
    if off.any():
        i = int(np.argmax(off))
        raise TraceError(
            problem(
                path,
                int(rows["row"][i]),
                f"{mapping.time.column}, in s of the trace",
                float(rows["start_s"][i]),
                f"a whole number of intervals of {mapping.volume.interval_s:g} s after the first row",
                "Correct volume.interval_s; intervals of two lengths do not mix.",
            )
        )


def _until_next(
    path: Path, rows: dict[str, np.ndarray], mapping: TrafficMapping, codes: dict[str, Codes]
) -> np.ndarray:
    """Return the time until the next row of the same place, float64 [n]."""
    place = rows.get("source", np.zeros(len(rows["row"]), dtype=np.int32))
    order = np.lexsort((rows["start_s"], place))
    is_last = np.append(place[order][1:] != place[order][:-1], True)
    length = np.append(np.diff(rows["start_s"][order]), 0.0)
    length[is_last] = mapping.volume.last_s or np.insert(length[:-1], 0, 0.0)[is_last]
    is_alone = is_last & np.insert(is_last[:-1], 0, True)
    if not mapping.volume.last_s and is_alone.any():
        i = int(order[np.argmax(is_alone)])
        name = codes["source"].texts[place[i]] if "source" in codes else "all places"
        raise TraceError(
            problem(path, int(rows["row"][i]), None, f"the only row of {name}", "to know how long it lasts",
                    "Give volume.last_s in the mapping.")
        )  # fmt: skip
    result = np.empty(len(order))
    result[order] = length
    return result


def _numbers_from_means(rows: dict[str, np.ndarray], mapping: TrafficMapping) -> np.ndarray:
    """Return the mean number of requests of each row from the mean time between them, float64 [n]."""
    unit_s = 1e-3 if mapping.volume.unit.endswith("_ms") else 1.0
    return rows["length_s"] / (rows["volume"] * unit_s)


def _report_missing(rows: dict[str, np.ndarray], mapping: TrafficMapping, report: Report) -> None:
    """Report intervals that a place has no row for while others have."""
    if "source" not in rows:
        return
    starts, interval = np.unique(rows["start_s"], return_inverse=True)
    n_places = int(rows["source"].max()) + 1
    found = np.zeros(n_places * len(starts), dtype=bool)
    found[rows["source"].astype(np.int64) * len(starts) + interval] = True
    share = f"of {len(found):,} intervals of {n_places:,} places"
    missing = len(found) - int(found.sum())
    if missing:
        report.note("interval of a place without a row", missing, share, "taken as 0")


def report_coverage(rows: dict[str, np.ndarray], clock: Clock, report: Report) -> None:
    """Report the days and gaps of rows with `start_s` and `length_s`."""
    spans = np.unique(np.stack([rows["start_s"], rows["start_s"] + rows["length_s"]], axis=1), axis=0)
    report_days(report, clock, spans[:, 0], spans[:, 1], silence_s=1e-3)


def translate(
    rows: dict[str, np.ndarray],
    codes: dict[str, Codes],
    mapping: TrafficMapping,
    scenario: Scenario,
    seed: int,
    report: Report,
) -> Cells:
    """Return rows as cells of the scenario's nodes and services, without places that the mapping says to skip."""
    n = len(rows["row"])
    index = {key: np.full(n, NO_ONE, dtype=np.int32) for key in ("service", *_PLACES)}
    if "service" in codes:
        index["service"] = service_of_names(codes["service"], mapping.service, scenario)[rows["service"]]
    kept = np.ones(n, dtype=bool)
    for key in _PLACES:
        if key not in codes or (key == "source" and mapping.source.rule == "split"):
            continue
        only_areas = key == "source" and "destination" not in codes
        node = node_of_places(codes[key], getattr(mapping, key), scenario, seed, only_areas=only_areas)
        index[key] = node[rows[key]]
        unknown = [codes[key].texts[code] for code in np.flatnonzero(node == SKIPPED)[:3]]
        is_skipped = index[key] == SKIPPED
        report.warn(f"unknown {key}", is_skipped.sum(), ", ".join(unknown), "rows left out, as the mapping says")
        kept &= ~is_skipped
    if not kept.any():
        raise TraceError(
            problem(report.path, None, None, "no row of a known place", "at least one", "Check the table.")
        )
    cells = Cells(
        rows["start_s"], rows["length_s"], index["source"], index["destination"], index["service"], rows["volume"]
    )
    return cells if kept.all() else cells.part(kept)
