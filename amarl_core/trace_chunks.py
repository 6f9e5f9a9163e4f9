"""Long traces in chunks: cut from one in memory, generated day by day, or read from a Parquet file piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from amarl_core.errors import TraceError, problem
from amarl_core.tables import check_header
from amarl_core.traces import TRACE_COLUMNS, Trace, join

if TYPE_CHECKING:
    from amarl_core.scenario import Scenario

CHUNK_REQUESTS = 50_000
"""Requests of a chunk: some 40 MB while they are served."""


def cut(trace: Trace, n: int = CHUNK_REQUESTS) -> Iterator[Trace]:
    """Yield a trace in pieces of n requests."""
    for first in range(0, len(trace), _at_least_one(n)):
        yield trace[first : first + n]


def training_chunks(
    scenario: Scenario, seed: int, days: int, first_day: int = 0, n: int = CHUNK_REQUESTS
) -> Iterator[Trace]:
    """Yield training days in pieces of n requests, with one day in memory at a time; see `training_trace`."""
    for day in range(first_day, first_day + days):
        yield from cut(scenario.training_trace(seed, 1, day), n)


def file_chunks(path: str | Path, scenario: Scenario, n: int = CHUNK_REQUESTS) -> Iterator[Trace]:
    """Yield a Parquet trace, as `Trace.write` writes it, in pieces of n requests.

    Raises:
        TraceError: It is no such file, names somebody the scenario does not know, or is not in order of arrival.
    """
    path, n = Path(path), _at_least_one(n)
    places = {
        "service": {name: i for i, name in enumerate(scenario.service_ids)},
        "source": scenario.network.node_index,
        "destination": scenario.network.node_index,
    }
    before, row = (-np.inf, -1), 0
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            check_header(path, file.schema_arrow.names, TRACE_COLUMNS, TraceError)
            for batch in file.iter_batches(n, columns=list(TRACE_COLUMNS)):
                columns = {
                    name: _codes(path, row, name, batch.column(name), places[name])
                    if name in places
                    else batch.column(name).to_numpy(zero_copy_only=False)
                    for name in TRACE_COLUMNS
                }
                chunk = Trace(path.name.split(".")[0], scenario.service_ids, scenario.network.node_ids, **columns)
                before = _check_order(path, row, chunk, before)
                row += len(chunk)
                yield chunk
    except (pa.ArrowException, OSError) as reason:
        expected = "a Parquet file with the columns of a trace"
        raise TraceError(problem(path, None, None, f"not readable: {reason}", expected, "Write it again.")) from reason


def with_next(chunks: Iterable[Trace], least: int) -> Iterator[tuple[Trace, Trace | None]]:
    """Yield each chunk with the one after it (None after the last); chunks below `least` requests join the next."""
    held: Trace | None = None
    for chunk in _of_size(chunks, max(least, 1)):
        if held is not None:
            yield held, chunk
        held = chunk
    if held is not None:
        yield held, None


def _of_size(chunks: Iterable[Trace], least: int) -> Iterator[Trace]:
    parts: list[Trace] = []
    for chunk in chunks:
        parts.append(chunk)
        if sum(map(len, parts)) >= least:
            yield parts[0] if len(parts) == 1 else join(parts, parts[0].name)
            parts = []
    if sum(map(len, parts)):
        yield join(parts, parts[0].name)


def _at_least_one(n: int) -> int:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise TraceError(problem(None, None, "requests of a chunk", n, "a positive integer"))
    return int(n)


def _codes(path: Path, row: int, name: str, column: pa.Array, index: dict[str, int]) -> np.ndarray:
    """Return a text column as indices."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    known = np.array([index.get(text, -1) for text in column.dictionary.to_pylist()], np.int64)
    codes = known[column.indices.to_numpy(zero_copy_only=False)]
    if (codes < 0).any():
        i = int(np.argmax(codes < 0))
        raise TraceError(
            problem(path, row + i + 1, name, column[i].as_py(), f"a {name} of the scenario", "Correct the name.")
        )
    return codes


def _check_order(path: Path, row: int, chunk: Trace, before: tuple[float, int]) -> tuple[float, int]:
    """Refuse a request that is out of order; return time and id of the last one."""
    t_s = np.concatenate([[before[0]], chunk.t_s])
    ids = np.concatenate([[before[1]], chunk.request_id])
    wrong = np.flatnonzero((np.diff(t_s) < 0) | ((np.diff(t_s) == 0) & (np.diff(ids) <= 0)))
    if len(wrong):
        i = int(wrong[0])
        expected = "order of t_s, then request_id"
        raise TraceError(problem(path, row + i + 1, "t_s", float(chunk.t_s[i]), expected, "Sort the rows."))
    return float(t_s[-1]), int(ids[-1])
