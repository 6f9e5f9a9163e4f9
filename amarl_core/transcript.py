"""What a run recorded, its decisions and its ledger, as arrays for the audit.

Frames come with texts and lists of texts, Arrow-backed or not; here each text becomes an index into the
scenario's identifiers, -1 where it is unknown. Nothing is judged yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from amarl_core.errors import AuditError

KINDS = ("commit", "abort", "release")
COMMIT, ABORT, RELEASE = range(3)
DECISION_COLUMNS = (
    *("request_id", "t_s", "hold_s", "service", "source", "destination", "demand_kbps", "accepted", "cause"),
    *("latency_ms", "budget_ms", "links", "hosts", "attempts", "snapshot_version", "commit_version"),
)
BLOCK = 2**15
"""Requests in a block, see ``Decisions.blocks``."""

LEDGER_COLUMNS = ("seq", "kind", "request_id", "t_s", "snapshot_version", "store_version", "resource")


class Lists(NamedTuple):
    """One list of codes a request, laid end to end: request i has ``code[start[i]:start[i + 1]]``."""

    start: np.ndarray  # int64[n + 1]
    code: np.ndarray  # int32[m], -1 where the identifier is unknown

    @property
    def length(self) -> np.ndarray:
        """Length of each list, int64[n]."""
        return np.diff(self.start)

    @property
    def row(self) -> np.ndarray:
        """Request of each entry, int32[m]."""
        return np.repeat(np.arange(len(self.start) - 1, dtype=np.int32), self.length)

    @property
    def position(self) -> np.ndarray:
        """Place of each entry in its own list, int32[m]."""
        return (np.arange(len(self.code)) - np.repeat(self.start[:-1], self.length)).astype(np.int32)

    def block(self, rows: slice) -> Lists:
        """Return the lists of some consecutive requests."""
        start = self.start[rows.start : rows.stop + 1]
        return Lists(start - start[0], self.code[start[0] : start[-1]])

    def any(self, flagged: np.ndarray) -> np.ndarray:
        """Tell for each list whether one of its entries is flagged, bool[n]."""
        count = np.concatenate([[0], np.cumsum(flagged, dtype=np.int64)])
        return count[self.start[1:]] > count[self.start[:-1]]


@dataclass(frozen=True)
class Decisions:
    """The decisions, n rows in the order of the frame; indices are -1 where an identifier is unknown."""

    request_id: np.ndarray  # int64[n]
    t_s: np.ndarray  # float64[n]
    hold_s: np.ndarray  # float64[n]
    service: np.ndarray  # int32[n]
    source: np.ndarray  # int32[n]
    destination: np.ndarray  # int32[n]
    demand_kbps: np.ndarray  # int64[n]
    accepted: np.ndarray  # bool[n]
    cause: np.ndarray  # int32[n], index into causes
    causes: np.ndarray  # text[.]
    latency_ms: np.ndarray  # float64[n]
    budget_ms: np.ndarray  # float64[n]
    links: Lists
    hosts: Lists
    attempts: np.ndarray  # int64[n]
    snapshot_version: np.ndarray  # int64[n]
    commit_version: np.ndarray  # int64[n]

    def __len__(self) -> int:
        return len(self.request_id)

    def has_cause(self, *names: str) -> np.ndarray:
        """Tell which requests ended for one of these causes, bool[n]."""
        return np.isin(self.causes, names)[self.cause]

    def blocks(self) -> Iterator[tuple[slice, Decisions]]:
        """Cut the decisions into blocks that fit in the cache; each comes with the rows it holds."""
        for first in range(0, max(len(self), 1), BLOCK):
            rows = slice(first, min(first + BLOCK, len(self)))
            part = {name: getattr(self, name)[rows] for name in _BY_ROW}
            lists = {"links": self.links.block(rows), "hosts": self.hosts.block(rows)}
            yield rows, Decisions(causes=self.causes, **part, **lists)

    def row_of(self, request_id: np.ndarray) -> np.ndarray:
        """Find the row of each request, int64[k]: -1 if there is none, the last if there are several."""
        if len(self) == 0:
            return np.full(len(request_id), -1)
        first, last = int(self.request_id.min()), int(self.request_id.max())
        if last - first > 8 * len(self):  # too sparse for a table
            order = np.argsort(self.request_id, kind="stable")
            ids = self.request_id[order]
            place = np.searchsorted(ids, request_id, side="right") - 1
            return np.where((place >= 0) & (ids[place] == request_id), order[place], -1)
        table = np.full(last - first + 2, -1)  # its last entry stands for every unknown request
        table[self.request_id - first] = np.arange(len(self))
        is_within = (request_id >= first) & (request_id <= last)
        return table[np.where(is_within, request_id - first, -1)]


@dataclass(frozen=True)
class Ledger:
    """The ledger in lock order, m rows."""

    place: np.ndarray  # int64[m], row in the frame
    seq: np.ndarray  # int64[m]
    kind: np.ndarray  # int32[m], index into KINDS, -1 if unknown
    request_id: np.ndarray  # int64[m]
    row: np.ndarray  # int64[m], row of the request in the decisions, -1 if it has none
    t_s: np.ndarray  # float64[m]
    snapshot_version: np.ndarray  # int64[m]
    store_version: np.ndarray  # int64[m], as recorded
    version: np.ndarray  # int64[m], counted: commits and releases up to and including this row
    resource: np.ndarray  # int32[m], resource without room, -1 if none or unknown

    def __len__(self) -> int:
        return len(self.seq)


def read_decisions(frame: pd.DataFrame, scenario: Any) -> Decisions:
    """Read the decisions into arrays.

    Args:
        frame: A row for each request. Lists may be Arrow-backed, numpy arrays or Python lists.
        scenario: The scenario whose identifiers they use.

    Raises:
        AuditError: A column is missing or holds something else than it should.
    """
    check_columns(frame, DECISION_COLUMNS, "decisions")
    cause, causes = pd.factorize(frame["cause"])
    number = {name: numbers(frame, name, np.int64, "decisions") for name in _INTEGERS}
    number |= {name: numbers(frame, name, np.float64, "decisions") for name in _FLOATS}
    return Decisions(
        service=_codes(frame["service"], scenario.service_ids),
        source=_codes(frame["source"], scenario.network.node_ids),
        destination=_codes(frame["destination"], scenario.network.node_ids),
        accepted=numbers(frame, "accepted", np.bool_, "decisions"),
        cause=cause.astype(np.int32),
        causes=np.asarray(causes, dtype=object),
        links=lists(frame["links"], scenario.network.link_ids),
        hosts=lists(frame["hosts"], scenario.network.node_ids),
        **number,
    )


def read_ledger(frame: pd.DataFrame, decisions: Decisions, scenario: Any) -> Ledger:
    """Read the ledger into arrays, in the order of `seq`.

    Raises:
        AuditError: A column is missing or holds something else than it should.
    """
    check_columns(frame, LEDGER_COLUMNS, "ledger")
    seq = numbers(frame, "seq", np.int64, "ledger")
    # A ledger in order, as it should be, is not copied.
    order = slice(None) if (np.diff(seq) >= 0).all() else np.argsort(seq, kind="stable")
    kind = _codes(frame["kind"], KINDS)[order]
    request_id = numbers(frame, "request_id", np.int64, "ledger")[order]
    return Ledger(
        place=np.arange(len(seq))[order],
        seq=seq[order],
        kind=kind,
        request_id=request_id,
        row=decisions.row_of(request_id),
        t_s=numbers(frame, "t_s", np.float64, "ledger")[order],
        snapshot_version=numbers(frame, "snapshot_version", np.int64, "ledger")[order],
        store_version=numbers(frame, "store_version", np.int64, "ledger")[order],
        version=np.cumsum((kind == COMMIT) | (kind == RELEASE), dtype=np.int64),
        resource=_codes(frame["resource"], (*scenario.network.link_ids, *scenario.network.node_ids))[order],
    )


_INTEGERS = ("request_id", "demand_kbps", "attempts", "snapshot_version", "commit_version")
_FLOATS = ("t_s", "hold_s", "latency_ms", "budget_ms")
_BY_ROW = (*_INTEGERS, *_FLOATS, "service", "source", "destination", "accepted", "cause")


def check_columns(frame: pd.DataFrame, columns: Sequence[str], record: str) -> None:
    """Refuse a frame that lacks a column."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise AuditError(f"{record} has no column {missing}; expected {list(columns)}; record the run again")


def numbers(frame: pd.DataFrame, name: str, kind: type, record: str) -> np.ndarray:
    """Return a column as an array of one kind."""
    try:
        return frame[name].to_numpy(dtype=kind)
    except (TypeError, ValueError) as error:
        raise AuditError(f"{record} column {name} is not {np.dtype(kind)} throughout: {error}") from error


def _codes(column: pd.Series, ids: Sequence[str]) -> np.ndarray:
    """Return the index of each text in `ids`, int32[n]; -1 where it is not among them."""
    code, values = pd.factorize(column)
    return _translate(code, np.asarray(values, dtype=object), ids)


def _translate(code: np.ndarray, values: Sequence[str], ids: Sequence[str]) -> np.ndarray:
    """Turn codes into `values` into codes into `ids`; -1 stays -1."""
    index = {name: i for i, name in reversed(list(enumerate(ids)))}
    return np.array([index.get(value, -1) for value in values] + [-1], dtype=np.int32)[code]


def lists(column: pd.Series, ids: Sequence[str]) -> Lists:
    """Read a column of lists of identifiers."""
    if isinstance(column.dtype, pd.ArrowDtype):
        array = pa.array(column)
        parts = [_arrow_lists(part, ids) for part in (array.chunks if isinstance(array, pa.ChunkedArray) else [array])]
        length = np.concatenate([part[0] for part in parts] or [np.zeros(0, np.int64)])
        code = np.concatenate([part[1] for part in parts] or [np.zeros(0, np.int32)])
    else:
        try:
            length = np.fromiter(map(len, column), np.int64, len(column))
        except TypeError as error:
            raise AuditError(f"column {column.name} must hold lists, empty where no link is used") from error
        flat = np.fromiter(chain.from_iterable(column), dtype=object, count=int(length.sum()))
        code, values = pd.factorize(flat)
        code = _translate(code, values, ids)
    return Lists(np.concatenate([[0], np.cumsum(length)]), code)


def _arrow_lists(array: pa.Array, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the lengths int64[n] and the codes int32[m] of an Arrow array of lists."""
    length = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    values = array.flatten()
    if not pa.types.is_dictionary(values.type):
        values = values.dictionary_encode()
    code = values.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return length, _translate(code, values.dictionary.to_pylist(), ids)
