"""Request traces: one row per request, in order of arrival.

A trace comes from the generator (`scenario.training_trace`), from the held-out days (`scenario.test_trace`)
or from a file (`load_trace`): one of our own, or somebody else's table, with a mapping that says what its columns mean.
It is the same kind of thing in all cases.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from amarl_core.errors import TraceError, problem
from amarl_core.files import write_whole
from amarl_core.foreign.demand_matrices import read_matrices
from amarl_core.foreign.request_tables import read_requests
from amarl_core.foreign.trace_files import CHUNK_BYTES
from amarl_core.foreign.trace_mappings import TrafficMapping
from amarl_core.foreign.trace_presets import OWN, resolve_mapping
from amarl_core.foreign.trace_reports import Report
from amarl_core.foreign.volume_tables import read_cells
from amarl_core.foreign.volumes import draw_requests
from amarl_core.tables import Column, Table, check_header, check_range, read_bytes, read_csv

if TYPE_CHECKING:
    from amarl_core.scenario import Scenario

DAY_S = 86_400.0
LOADED_STREAM = 2
"""Branch of the random generator for what a file does not say; training days have 0, held-out days 1."""
_LARGE_BYTES = 64_000_000
_AS_CSV: dict[str, Any] = {"index": False, "lineterminator": "\n"}
TRACE_COLUMNS = {
    "request_id": Column("int", least=0, unique=False),
    "t_s": Column("float", least=0, most=1e9, unit="s"),
    "service": Column("text"),
    "source": Column("text"),
    "destination": Column("text"),
    "bundle": Column("int", above=0, most=10**6),
    "demand_kbps": Column("int", above=0, most=10**9, unit="kbps"),
    "hold_s": Column("float", above=0, most=1e9, unit="s"),
}
_ARRAYS = {
    "request_id": np.int64,
    "t_s": np.float64,
    "service": np.int16,
    "source": np.int32,
    "destination": np.int32,
    "bundle": np.int32,
    "demand_kbps": np.int64,
    "hold_s": np.float64,
}


@dataclass(frozen=True, eq=False)
class Trace:
    """n requests in order of arrival (ties by request_id).

    Attributes:
        name: What it is called in records, such as "test-weekday".
        service_ids: Names behind `service`.
        node_ids: Names behind `source` and `destination`.
        request_id: int64 [n], unique.
        t_s: Arrival in s, float64 [n], never decreasing; second 0 is midnight before day 0.
        service: Index into `service_ids`, int16 [n].
        source: Node index, int32 [n].
        destination: Node index, int32 [n].
        bundle: Sessions in the request, int32 [n].
        demand_kbps: Bandwidth of the whole request (paper: b_p), int64 [n].
        hold_s: Holding time in s, float64 [n].
    """

    name: str
    service_ids: tuple[str, ...]
    node_ids: tuple[str, ...]
    request_id: np.ndarray
    t_s: np.ndarray
    service: np.ndarray
    source: np.ndarray
    destination: np.ndarray
    bundle: np.ndarray
    demand_kbps: np.ndarray
    hold_s: np.ndarray

    def __post_init__(self) -> None:
        for column, dtype in _ARRAYS.items():
            object.__setattr__(self, column, np.ascontiguousarray(getattr(self, column), dtype=dtype))

    def __len__(self) -> int:
        return len(self.request_id)

    def __getitem__(self, part: slice | np.ndarray) -> Trace:
        """Return the requests of a slice, a mask or increasing indices, as a trace."""
        return replace(self, **{column: getattr(self, column)[part] for column in _ARRAYS})

    def head(self, n: int) -> Trace:
        """Return the first n requests."""
        return self[:n]

    @cached_property
    def sha256(self) -> str:
        """Checksum of the content (names and little-endian arrays), wherever it came from."""
        digest = hashlib.sha256(json.dumps([self.service_ids, self.node_ids]).encode())
        for column, dtype in _ARRAYS.items():
            digest.update(getattr(self, column).astype(np.dtype(dtype).newbyteorder("<")).tobytes())
        return digest.hexdigest()

    def frame(self) -> pd.DataFrame:
        """Return the requests as a table with names, in the columns of a trace file."""
        texts = {"service": self.service_ids, "source": self.node_ids, "destination": self.node_ids}
        return pd.DataFrame(
            {
                column: pd.Categorical.from_codes(getattr(self, column), categories=list(texts[column]))
                if column in texts
                else getattr(self, column)
                for column in TRACE_COLUMNS
            }
        )

    def write(self, path: str | Path) -> Path:
        """Write the trace to a .csv, .csv.gz or .parquet file and return its path."""
        path = Path(path)
        if path.name.endswith((".csv", ".csv.gz")):
            packing = "gzip" if path.suffix == ".gz" else None
            return write_whole(path, lambda file: self.frame().to_csv(file, compression=packing, **_AS_CSV))
        if path.suffix != ".parquet":
            raise TraceError(problem(path, None, "file name", path.name, "one ending in .csv, .csv.gz or .parquet"))
        table = pa.Table.from_pandas(self.frame(), preserve_index=False)
        texts = ["service", "source", "destination"]
        # the bytes of increasing and of random doubles compress far better apart
        split = {
            "t_s": "BYTE_STREAM_SPLIT",
            "hold_s": "BYTE_STREAM_SPLIT",
            "request_id": "DELTA_BINARY_PACKED",
        }
        packed = dict(compression="zstd", compression_level=19, use_dictionary=[*texts, "bundle", "demand_kbps"])
        return write_whole(path, lambda file: pq.write_table(table, file, column_encoding=split, **packed))


def load_trace(
    path: str | Path,
    scenario: Scenario,
    mapping: TrafficMapping | Mapping[str, Any] | str | Path | None = None,
    preset: str | None = None,
    *,
    seed: int = 0,
) -> Trace:
    """Read a trace from a file of our own, or from anybody's with a mapping or preset, checked against a scenario.

    Args:
        path: The file. Without mapping and preset: CSV, CSV.gz or Parquet with the columns of `TRACE_COLUMNS`.
        scenario: Whose nodes and services the requests name.
        mapping: What the columns mean (`trace_mappings.TrafficMapping`, or a dictionary or TOML file of its form), or
            what differs from the preset.
        preset: One of `trace_presets.PRESETS`: "requests", "milan", "sndlib", "coordsim".
        seed: For what is drawn because the table does not say it.

    Returns:
        The trace, named as the file. What was noticed about somebody else's table is logged; `read_traffic_file`
        returns it as well.

    Raises:
        TraceError: At the first fault, with file, row, column, value, expectation and remedy.
    """
    if mapping is None and preset is None:
        return _load_own(Path(path), scenario)
    loaded = read_traffic_file(path, scenario, mapping, preset, seed=seed)
    loaded.report.log()
    return loaded.trace


@dataclass(frozen=True, eq=False)
class Loaded:
    """A trace from somebody's file, and the report of what was noticed and done while reading it."""

    trace: Trace
    report: Report


def read_traffic_file(
    path: str | Path,
    scenario: Scenario,
    mapping: TrafficMapping | Mapping[str, Any] | str | Path | None = None,
    preset: str | None = None,
    *,
    seed: int = 0,
    chunk_bytes: int = CHUNK_BYTES,
) -> Loaded:
    """Read a trace as `load_trace` does, and report gaps, duplicates, what was left out and what was drawn.

    Args:
        path: The file, or the folder of SNDlib.
        scenario: Whose nodes and services the requests name.
        mapping: What the columns mean, or what differs from the preset.
        preset: Name of a preset.
        seed: For what is drawn. The draws come from a branch of the random generator that no training day uses.
        chunk_bytes: How much is read at once, in bytes of text; the trace does not depend on it.

    Returns:
        The trace and its report.

    Raises:
        TraceError: At the first fault, with file, row, column, value, expectation and remedy.
    """
    path, checked = Path(path), resolve_mapping(mapping, preset)
    for key, value, least in (("seed", seed, 0), ("chunk_bytes", chunk_bytes, 1)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise TraceError(problem(None, None, key, value, f"an integer of at least {least}"))
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(LOADED_STREAM,)))
    if checked.kind == "requests":
        columns, report = read_requests(path, scenario, checked, seed, rng, chunk_bytes)
    else:
        report = Report(path)
        if checked.format == "sndlib":
            cells, clock, unit = read_matrices(path, scenario, checked, seed, report)
            checked = replace(checked, volume=replace(checked.volume, unit=unit))
        else:
            cells, clock = read_cells(path, scenario, checked, seed, report, chunk_bytes)
        columns = draw_requests(path, cells, scenario, checked, clock, rng, report)
    trace = Trace(path.name.split(".")[0], scenario.service_ids, scenario.network.node_ids, **columns)
    late = scenario.delay_to_go[trace.service, 0, trace.destination, trace.source] > scenario.latency_ms[trace.service]
    report.warn(
        "request that no route can serve in time", late.sum(), "even on the idle network", "kept; it will be rejected"
    )
    return Loaded(trace, report)


def _load_own(path: Path, scenario: Scenario) -> Trace:
    """Read a file with the columns of `TRACE_COLUMNS`; a large one in chunks."""
    if _is_large(path):
        return read_traffic_file(path, scenario, OWN).trace
    if path.name.endswith((".csv", ".csv.gz")):
        table = read_csv(path, TRACE_COLUMNS, TraceError)
    elif path.suffix == ".parquet":
        table = _read_parquet(path)
    else:
        raise TraceError(
            problem(
                path,
                None,
                "file name",
                path.name,
                "one ending in .csv, .csv.gz or .parquet",
                "Other tables need a mapping or preset.",
            )
        )
    services = {service: s for s, service in enumerate(scenario.service_ids)}
    nodes = scenario.network.node_index
    columns = {
        "service": table.lookup("service", services, "service", "Correct the name or add it to services.csv."),
        "source": table.lookup("source", nodes, "node", "Correct the name or add it to nodes.csv."),
        "destination": table.lookup("destination", nodes, "node", "Correct the name or add it to nodes.csv."),
    }
    _check_order(table)
    return Trace(
        name=path.name.split(".")[0],
        service_ids=scenario.service_ids,
        node_ids=scenario.network.node_ids,
        **{column: columns.get(column, table[column]) for column in TRACE_COLUMNS},
    )


def _is_large(path: Path) -> bool:
    """Return whether a file of our own is too large to check cell by cell in Python."""
    try:
        return path.stat().st_size > (_LARGE_BYTES // (8 if path.suffix in (".gz", ".parquet") else 1))
    except OSError:
        return False


def _check_order(table: Table) -> None:
    """Refuse duplicate requests and requests out of order."""
    request_id, t_s = table["request_id"], table["t_s"]
    order = np.argsort(request_id, kind="stable")
    again = order[1:][np.diff(request_id[order]) == 0]
    if len(again):
        table.fail(int(again.min()), "request_id", "each request once", "Remove or renumber the duplicate.")
    earlier = np.flatnonzero(np.diff(t_s) < 0)
    if len(earlier):
        i = int(earlier[0]) + 1
        table.fail(
            i,
            "t_s",
            f"at least {t_s[i - 1]:.15g}, the arrival before it",
            "Sort the rows by t_s, request_id.",
        )
    swapped = np.flatnonzero((np.diff(t_s) == 0) & (np.diff(request_id) < 0))
    if len(swapped):
        i = int(swapped[0]) + 1
        table.fail(i, "request_id", "increasing ids among equal t_s", "Sort the rows by t_s, request_id.")


def _read_parquet(path: Path) -> Table:
    """Read a Parquet trace; rows of errors count from 1."""
    content = read_bytes(path, TraceError)
    try:
        data = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError, ValueError) as reason:
        raise TraceError(
            problem(path, None, None, f"not Parquet: {reason}", "a Parquet file", "Write it again.")
        ) from reason
    check_header(path, data.column_names, TRACE_COLUMNS, TraceError)
    if data.num_rows == 0:
        raise TraceError(problem(path, None, None, "a table without rows", "at least one request", "Add the rows."))
    table = Table(path, TraceError, {}, range(1, data.num_rows + 1))
    for name, column in TRACE_COLUMNS.items():
        values = data.column(name)
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        if values.null_count:
            table.shown[name] = values.to_pylist()
            table.fail(table.shown[name].index(None), name, column.expectation(), "Fill the cell.")
        is_kind = {
            "text": pa.types.is_string(values.type) or pa.types.is_large_string(values.type),
            "int": pa.types.is_integer(values.type) and values.type != pa.uint64(),
            "float": pa.types.is_floating(values.type) or pa.types.is_integer(values.type),
        }[column.kind]
        if not is_kind:
            raise TraceError(
                problem(
                    path,
                    None,
                    name,
                    f"of type {values.type}",
                    f"{column.expectation()}",
                    "Convert the column.",
                )
            )
        if column.kind == "text":
            table.columns[name] = values.to_pylist()
            continue
        table.columns[name] = values.to_numpy().astype(np.int64 if column.kind == "int" else np.float64)
        check_range(table, name, column, table.columns[name])
    return table


def repeat(trace: Trace, passes: int, period_s: float) -> Trace:
    """Return a trace several times over, each pass shifted by one period more.

    Args:
        trace: The requests of one pass.
        passes: How often, at least once.
        period_s: Length of a pass in s, at least from first to last arrival; whole days keep the hours.

    Returns:
        One continuous timeline with request ids that stay unique.

    Raises:
        TraceError: `passes` is below 1, or a pass is longer than `period_s`.
    """
    if passes < 1:
        raise TraceError(problem(None, None, "passes", passes, "a positive integer"))
    last = float(trace.t_s[-1]) if len(trace) else 0.0
    if not np.isfinite(period_s) or period_s < last - (float(trace.t_s[0]) if len(trace) else 0.0):
        raise TraceError(
            problem(
                None,
                None,
                "period_s",
                period_s,
                f"at least {last:g} s, the trace's last arrival",
                "Give the number of whole days times 86400.",
            )
        )
    ids = int(trace.request_id.max()) + 1 if len(trace) else 0
    number = np.repeat(np.arange(passes), len(trace))
    tiled = {column: np.tile(getattr(trace, column), passes) for column in _ARRAYS}
    tiled["request_id"] = tiled["request_id"] + number * ids
    tiled["t_s"] = tiled["t_s"] + number * period_s
    return replace(trace, **tiled)


def join(traces: list[Trace], name: str) -> Trace:
    """Return traces that follow each other as one; their times and ids must already be in order."""
    columns = {column: np.concatenate([getattr(trace, column) for trace in traces]) for column in _ARRAYS}
    return replace(traces[0], name=name, **columns)
