"""Tables in which a row is a request, read in chunks and checked into the columns of a trace.

What a table does not say (services by shares, bundles, bandwidths, holding times, destinations) is drawn by the
generator's rules, after all rows are read and sorted, so that neither the size of the chunks nor the order of the rows
matters.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from amarl_core.draws import draw_bundles, draw_destinations, draw_holds_ms
from amarl_core.errors import TraceError, problem
from amarl_core.foreign.places import (
    SKIPPED,
    area_of_nodes,
    fixed_shares,
    generator_mix,
    node_of_places,
    service_of_names,
)
from amarl_core.foreign.trace_files import Chunk, Codes, read_chunks
from amarl_core.foreign.trace_mappings import BYTE_UNITS, RATE_UNITS, TIME_UNITS, TrafficMapping
from amarl_core.foreign.trace_reports import Report
from amarl_core.foreign.trace_times import Clock, TimeReader, anchor, report_days
from amarl_core.services import DEMAND_MAX_KBPS

if TYPE_CHECKING:
    from amarl_core.scenario import Scenario

_HOLD_MAX_S = 1e9
_BUNDLE_MAX = 10**6
_ID_MAX = 10**18


def read_requests(
    path: Path, scenario: Scenario, mapping: TrafficMapping, seed: int, rng: np.random.Generator, chunk_bytes: int
) -> tuple[dict[str, np.ndarray], Report]:
    """Read a table of requests.

    Args:
        path: The table.
        scenario: Whose services and nodes.
        mapping: What its columns mean.
        seed: For places that are given an area by population.
        rng: For what is drawn.
        chunk_bytes: Size of a chunk.

    Returns:
        The columns of a trace by name, in order of arrival, and what was noticed.

    Raises:
        TraceError: At the first fault, with file, row, column, value, expectation and remedy.
    """
    report = Report(path)
    codes = {
        key: Codes(path, rule.column)
        for key, rule in (
            ("service", mapping.service),
            ("source", mapping.source),
            ("destination", mapping.destination),
        )
        if rule.column
    }
    columns = _read_columns(path, mapping, codes, report, chunk_bytes)
    _translate(columns, codes, mapping, scenario, seed, report)
    columns["t_s"], clock = anchor(path, mapping.time, columns.pop("time"))
    columns = _in_order(path, columns, mapping, report)
    columns = _without_duplicates(path, columns, mapping, report)
    report_days(report, clock, columns["t_s"], columns["t_s"], mapping.gap_s)
    _draw_missing(path, columns, mapping, scenario, clock, rng, report)
    columns.pop("row")
    return columns, report


def _read_columns(
    path: Path, mapping: TrafficMapping, codes: dict[str, Codes], report: Report, chunk_bytes: int
) -> dict[str, np.ndarray]:
    times = TimeReader(path, mapping.time)
    parts: dict[str, list[np.ndarray]] = {}
    for chunk in read_chunks(path, mapping, report, chunk_bytes):
        read = {"row": chunk.rows, "time": times.read(chunk)}
        read |= {key: code.encode(chunk) for key, code in codes.items()}
        read |= _amounts(chunk, mapping)
        for key, values in read.items():
            parts.setdefault(key, []).append(values)
    return {key: np.concatenate(parts.pop(key)) for key in list(parts)}


def _amounts(chunk: Chunk, mapping: TrafficMapping) -> dict[str, np.ndarray]:
    """Return the numbers of a chunk by name: request_id, bundle, demand (in its unit) and hold_s."""
    read = {}
    if mapping.id:
        read["request_id"] = chunk.integers(mapping.id, "an integer of at least 0")
        _refuse_outside(chunk, mapping.id, read["request_id"], 0, _ID_MAX, "an integer of at least 0")
    if mapping.bundle.column:
        expected = f"a positive integer (sessions), at most {_BUNDLE_MAX:,}"
        read["bundle"] = chunk.integers(mapping.bundle.column, expected)
        _refuse_outside(chunk, mapping.bundle.column, read["bundle"], 1, _BUNDLE_MAX, expected)
        read["bundle"] = read["bundle"].astype(np.int32)
    if mapping.hold.column:
        expected = f"a positive time ({mapping.hold.unit})"
        hold_s = chunk.numbers(mapping.hold.column, expected) * TIME_UNITS[mapping.hold.unit]
        _refuse_outside(chunk, mapping.hold.column, hold_s, 1e-9, _HOLD_MAX_S, expected)
        read["hold_s"] = hold_s
    if mapping.demand.column:
        unit = mapping.demand.unit
        expected = f"a positive number ({unit})"
        demand = chunk.numbers(mapping.demand.column, expected)
        if unit in RATE_UNITS:
            demand = np.round(demand * RATE_UNITS[unit])
            expected += f" of 1 to {DEMAND_MAX_KBPS:,} kbps"
            _refuse_outside(chunk, mapping.demand.column, demand, 1, DEMAND_MAX_KBPS, expected)
        else:
            _refuse_outside(chunk, mapping.demand.column, demand, 1e-9, 1e18, expected)
        read["demand"] = demand
    return read


def _refuse_outside(chunk: Chunk, column: str, values: np.ndarray, least: float, most: float, expected: str) -> None:
    bad = (values < least) | (values > most)
    if bad.any():
        chunk.fail(np.argmax(bad), column, expected, "Correct the value, or the unit in the mapping.")


def _translate(
    columns: dict[str, np.ndarray],
    codes: dict[str, Codes],
    mapping: TrafficMapping,
    scenario: Scenario,
    seed: int,
    report: Report,
) -> None:
    """Replace codes by indices of the scenario, and drop rows of places that the mapping says to skip."""
    if "service" in codes:
        columns["service"] = service_of_names(codes["service"], mapping.service, scenario)[columns["service"]]
    for key, rule in (("source", mapping.source), ("destination", mapping.destination)):
        if key in codes:
            only_areas = key == "source" and not mapping.destination.column
            node = node_of_places(codes[key], rule, scenario, seed, only_areas=only_areas)
            columns[key] = node[columns[key]]
            is_skipped = columns[key] == SKIPPED
            unknown = [codes[key].texts[code] for code in np.flatnonzero(node == SKIPPED)[:3]]
            report.warn(f"unknown {key}", is_skipped.sum(), ", ".join(unknown), "rows left out, as the mapping says")
            if is_skipped.any():
                for each in columns:
                    columns[each] = columns[each][~is_skipped]
    if not len(columns["row"]):
        raise TraceError(
            problem(report.path, None, None, "no row of a known place", "at least one", "Check the table.")
        )


def _in_order(
    path: Path, columns: dict[str, np.ndarray], mapping: TrafficMapping, report: Report
) -> dict[str, np.ndarray]:
    t_s, tie = columns["t_s"], columns.get("request_id", columns["row"])
    late = (np.diff(t_s) < 0) | ((np.diff(t_s) == 0) & (np.diff(tie) < 0))
    if not late.any():
        return columns
    i = int(np.argmax(late)) + 1
    row = int(columns["row"][i])
    if mapping.on_disorder == "refuse":
        raise TraceError(
            problem(
                path, row, mapping.time.column, float(t_s[i]), f"at least {t_s[i - 1]:.15g}, the arrival before it",
                "Sort the rows by time and id.",
            )
        )  # fmt: skip
    report.warn("row out of order", late.sum(), f"row {row}", "sorted")
    order = np.lexsort((tie, t_s))
    return {key: values[order] for key, values in columns.items()}


def _without_duplicates(
    path: Path, columns: dict[str, np.ndarray], mapping: TrafficMapping, report: Report
) -> dict[str, np.ndarray]:
    """Find repeated ids, or else rows that are equal in all that was read."""
    again = _repeated(columns, ["request_id"] if mapping.id else [key for key in columns if key != "row"])
    if not len(again) or (mapping.on_duplicate == "keep" and not mapping.id):
        report.warn("duplicate row", len(again), f"row {columns['row'][again].min()}" if len(again) else "", "kept")
        return columns
    row = int(columns["row"][again].min())
    if mapping.on_duplicate != "drop":
        raise TraceError(
            problem(
                path,
                row,
                mapping.id or None,
                int(columns["request_id"][columns["row"] == row][0])
                if mapping.id
                else "the same row as an earlier one",
                "each request once",
                "Remove it, or say on_duplicate = 'drop'"
                + ("." if mapping.id else " (or 'keep', if equal requests are meant)."),
            )
        )
    report.warn("duplicate row", len(again), f"row {row}", "dropped all but the first")
    kept = np.ones(len(columns["row"]), dtype=bool)
    kept[again] = False
    return {key: values[kept] for key, values in columns.items()}


def _repeated(columns: dict[str, np.ndarray], keys: list[str]) -> np.ndarray:
    """Return the indices of rows that are equal to an earlier one in all of `keys`, int64 [n]; rows are in order."""
    at = np.arange(len(columns["row"]))
    if "t_s" in keys:  # only neighbours in time can be equal, and they are few
        is_tied = np.diff(columns["t_s"]) == 0
        at = at[np.append(is_tied, False) | np.insert(is_tied, 0, False)]
    order = at[np.lexsort((columns["row"][at], *(columns[key][at] for key in keys)))]
    same = np.ones(max(0, len(order) - 1), dtype=bool)
    for key in keys:
        same &= columns[key][order[1:]] == columns[key][order[:-1]]
    return order[1:][same]


def _draw_missing(
    path: Path,
    columns: dict[str, np.ndarray],
    mapping: TrafficMapping,
    scenario: Scenario,
    clock: Clock,
    rng: np.random.Generator,
    report: Report,
) -> None:
    """Complete the columns in place by the generator's rules."""
    n, services = len(columns["row"]), scenario.services
    area = area_of_nodes(scenario.traffic)[columns["source"]]
    drawn = []
    if "service" not in columns:
        columns["service"] = _draw_services(columns["t_s"], area, mapping, scenario, clock, rng)
        drawn += [] if mapping.service.constant else ["service"]
    if "bundle" not in columns or "demand" not in columns:
        bundle, unit_kbps = draw_bundles(services, columns["service"], rng)
        if "demand" not in columns:
            columns.setdefault("bundle", bundle)
            columns["demand"] = columns["bundle"] * unit_kbps.astype(np.int64)
            drawn.append("demand")
        columns.setdefault("bundle", np.ones(n, dtype=np.int32))
    if "hold_s" not in columns:
        columns["hold_s"] = draw_holds_ms(services, columns["service"], rng) / 1000.0
        drawn.append("hold")
    if "destination" not in columns:
        columns["destination"] = draw_destinations(scenario.traffic, columns["service"], area, rng)
        drawn.append("destination")
    columns["demand_kbps"] = columns.pop("demand")
    if mapping.demand.unit in BYTE_UNITS:
        kbit = columns["demand_kbps"] * BYTE_UNITS[mapping.demand.unit] * 8e-3
        columns["demand_kbps"] = np.maximum(1, np.round(kbit / columns["hold_s"]))
    bad = columns["demand_kbps"] > DEMAND_MAX_KBPS
    if bad.any():
        i = int(np.argmax(bad))
        raise TraceError(
            problem(path, int(columns["row"][i]), "demand in kbps", float(columns["demand_kbps"][i]),
                    f"at most {DEMAND_MAX_KBPS:,}", "Correct the unit in the mapping.")
        )  # fmt: skip
    columns.setdefault("request_id", np.arange(n))
    if drawn:
        report.note("drawn by the generator's rules", n, ", ".join(drawn), "the table has no column of it")


def _draw_services(
    t_s: np.ndarray,
    area: np.ndarray,
    mapping: TrafficMapping,
    scenario: Scenario,
    clock: Clock,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return a service for each request, int16 [n]."""
    shares = fixed_shares(mapping.service, scenario)
    if shares is not None and shares.max() == 1.0:
        return np.full(len(t_s), int(np.argmax(shares)), dtype=np.int16)
    draw = rng.random(len(t_s))
    if shares is not None:
        return np.searchsorted(np.cumsum(shares)[:-1], draw, side="right").astype(np.int16)
    kind, hour = clock.hours(t_s)
    cumulative = np.cumsum(generator_mix(scenario.traffic, in_load=False), axis=3)[..., :-1]  # [2, A + 1, 24, S - 1]
    service = np.zeros(len(t_s), dtype=np.int16)
    for s in range(cumulative.shape[3]):
        service += draw >= cumulative[kind, area, hour, s]
    return service
