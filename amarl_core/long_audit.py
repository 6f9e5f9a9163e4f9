"""The audit of a long run, chunk by chunk: the rules of ``audit``, with memory for two chunks.

Each chunk is judged as a run of its own. Before its rows come a commit of every flow that was active when the oldest of
its snapshots was taken, and the changes since then; after them, but for the last chunk, a release of every flow that is
still active. These rows were or will be judged where they are recorded; here they only carry the state. Versions and
seq are counted from there, so that the same records fail as in one piece, at the same rows.

One thing differs: a decision is judged in its own chunk, and not again by rows of the ledger that come in a later one.
Such a row is itself found to be wrong (rule abort), but an abort too many is not also charged to its decision (rule
conflict).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from amarl_core.audit import AuditReport
from amarl_core.epochs import whole
from amarl_core.errors import AuditError
from amarl_core.ledger_rows import check_arrival_order, check_rows, last_aborts
from amarl_core.lock_order import check_replay
from amarl_core.record_files import read_groups
from amarl_core.replay import limits, simulated_time, uses_of
from amarl_core.rules import CONFLICTS, RULES, Describe, Findings, check_decisions, check_trace
from amarl_core.traces import Trace, join
from amarl_core.transcript import (
    COMMIT,
    DECISION_COLUMNS,
    LEDGER_COLUMNS,
    RELEASE,
    Decisions,
    Ledger,
    Lists,
    read_decisions,
    read_ledger,
)
from amarl_core.walks import check_routes

ON_LEDGER = RULES[RULES.index("sequence") : RULES.index("order") + 1]
"""Rules whose rows are those of the ledger."""


class ChunkFindings(Findings):
    """Findings of one chunk after the other, each under the row that it has in the whole record."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[bool, np.ndarray] = {}  # whether of the ledger: a chunk's row -> the record's, -1 not judged

    def judge(self, decisions: np.ndarray, ledger: np.ndarray) -> None:
        """Say what row of the record each row of the next chunk is, int64[n] and int64[m], -1 if it is not judged."""
        self.rows = {False: decisions, True: ledger}

    def check(
        self, rule: str, row: np.ndarray, request_id: np.ndarray, cases: Sequence[tuple[np.ndarray, Describe]]
    ) -> None:
        """Record what is found in rows that are judged."""
        if rule == "zero":
            super().check(rule, row, request_id, cases)
            return
        whole_row = self.rows[rule in ON_LEDGER][row]
        judged = whole_row >= 0
        super().check(rule, whole_row, request_id, [(flagged & judged, describe) for flagged, describe in cases])


class Changes(NamedTuple):
    """Commits and releases in lock order."""

    kind: np.ndarray  # int64[m]
    row: np.ndarray  # int64[m], of the decisions they come with
    version: np.ndarray  # int64[m], after the change; 0 for a flow that was there before


@dataclass(frozen=True)
class Past:
    """What is remembered between chunks: the decisions that still matter, and what changed the state."""

    decisions: Decisions
    origin: np.ndarray  # int64[n], the row of each in the record
    changes: Changes
    oldest: int  # version before the first change that is remembered one by one


@dataclass
class Totals:
    """Sums over the chunks so far."""

    requests: int = 0
    admissions: int = 0
    ledger_rows: int = 0
    version: int = 0
    overbooked: int = 0
    peak: float = 0.0


def audit_records(
    scenario: Any, decisions: str | Path, ledger: str | Path, traces: Iterable[Trace] | None = None
) -> AuditReport:
    """Audit the records of ``long_runs.serve_in_chunks``, row group by row group; see ``audit_in_chunks``."""
    groups = zip(read_groups(decisions, DECISION_COLUMNS), read_groups(ledger, LEDGER_COLUMNS), strict=True)
    return audit_in_chunks(scenario, groups, traces)


def audit_in_chunks(
    scenario: Any, chunks: Iterable[tuple[pd.DataFrame, pd.DataFrame]], traces: Iterable[Trace] | None = None
) -> AuditReport:
    """Replay a long run in order of arrival from an empty network and check every rule.

    Args:
        scenario: The scenario it ran on.
        chunks: Decisions and ledger, piece by piece; the ledger's rows of a piece are those written while its requests
            were decided.
        traces: The requests that were offered, in pieces of any size; when None, the decisions are not compared.

    Returns:
        The report, as ``audit`` gives it.

    Raises:
        AuditError: A column is missing or cannot be read, or a plan is older than the chunk before.
    """
    started = time.perf_counter()
    found, totals, seen, past = ChunkFindings(), Totals(), _Seen(), None
    offered = None if traces is None else _Offered(traces)
    for (decisions, ledger), is_last in _with_last(chunks):
        d = read_decisions(decisions, scenario)
        trace = None if offered is None else offered.next(None if is_last else len(d))
        found.judge(np.arange(max(len(d), 0 if trace is None else len(trace))) + totals.requests, np.zeros(0, np.int64))
        check_decisions(found, d, scenario)
        repeated = [(seen.again(d.request_id), lambda i: "was decided in an earlier chunk")]
        found.check("request", np.arange(len(d)), d.request_id, repeated)
        if trace is not None:
            check_trace(found, d, trace)
        past = _judge_chunk(found, totals, scenario, d, ledger, past, is_last)
    return AuditReport(
        order="arrival",
        requests=totals.requests,
        admissions=totals.admissions,
        ledger_rows=totals.ledger_rows,
        count={rule: found.count[rule] for rule in RULES if rule in found.count},
        violations=found.frame(),
        overbooked=totals.overbooked,
        peak=totals.peak,
        seconds=time.perf_counter() - started,
    )


def _judge_chunk(
    found: ChunkFindings,
    totals: Totals,
    scenario: Any,
    own: Decisions,
    ledger: pd.DataFrame,
    past: Past | None,
    is_last: bool,
) -> Past:
    """Judge one chunk and add it to the totals; return what the next one needs to know."""
    since = _oldest_plan(own, ledger, totals.version, past)
    joined, origin, before = _with_flows(own, totals.requests, past, since)
    recorded = read_ledger(ledger, joined, scenario)
    after = np.zeros(0, np.int64) if is_last else _still_active(joined, recorded, before)
    shift = int((before.version == 0).sum()) - since
    d = _rebased(joined, len(joined) - len(own), shift)
    g = _closed(joined, before, recorded, after, shift, totals.ledger_rows)

    is_own = origin >= totals.requests
    ledger_row = np.full(len(g), -1)
    ledger_row[len(before.row) : len(before.row) + len(recorded)] = np.arange(len(recorded)) + totals.ledger_rows
    known = (d.service >= 0) & (d.source >= 0) & (d.destination >= 0)
    known &= ~d.links.any(d.links.code < 0) & ~d.hosts.any(d.hosts.code < 0)
    sound = known & is_own & (d.accepted | d.has_cause(*CONFLICTS))
    found.judge(np.where(is_own | is_last, origin, -1), ledger_row)  # in the end no flow may be left
    check_rows(found, d, g)
    found.judge(np.where(is_own, origin, -1), ledger_row)
    check_routes(found, d, scenario, sound)
    committed, released = np.zeros((2, len(d)), bool)
    committed[g.row[(g.kind == COMMIT) & (g.row >= 0)]] = True
    released[g.row[(g.kind == RELEASE) & (g.row >= 0)]] = True
    uses = uses_of(d, scenario, committed | released | (last_aborts(d, g) >= 0))
    check_replay(found, d, g, scenario, uses, sound)
    overbooked, peak = simulated_time(d, uses, np.flatnonzero(committed), limits(scenario))
    check_arrival_order(found, d, g, whole(d))
    exceeds = [(overbooked, lambda i: "exceeds a capacity in time")]
    found.check("overbooked", np.arange(len(d)), d.request_id, exceeds)

    past = _remember(joined, origin, before, recorded, since, totals.version)
    totals.requests += len(own)
    totals.admissions += int((committed & is_own).sum())
    totals.ledger_rows += len(recorded)
    totals.version += int(((recorded.kind == COMMIT) | (recorded.kind == RELEASE)).sum())
    totals.overbooked += int((overbooked & is_own).sum())
    totals.peak = max(totals.peak, peak)
    return past


def _oldest_plan(own: Decisions, ledger: pd.DataFrame, version: int, past: Past | None) -> int:
    """Return the oldest version that a plan of the chunk was made on, at most the version it begins at."""
    snapshots = np.concatenate([own.snapshot_version, ledger["snapshot_version"].to_numpy(np.int64)])
    oldest = int(snapshots[snapshots >= 0].min(initial=version))
    if past is not None and oldest < past.oldest:
        raise AuditError(
            f"a plan was made on version {oldest}, and the audit remembers changes from {past.oldest} on; record the "
            "run in larger chunks, or audit it in one piece"
        )
    return oldest if past is not None else 0


def _with_flows(own: Decisions, n_before: int, past: Past | None, since: int) -> tuple[Decisions, np.ndarray, Changes]:
    """Put the flows that the chunk meets before its decisions.

    Returns:
        The decisions, the row of each in the record, and the changes that come before the chunk's own.
    """
    own_rows = np.arange(len(own)) + n_before
    if past is None:
        return own, own_rows, Changes(*np.zeros((3, 0), np.int64))
    early = past.changes.version <= since
    sign = np.where(past.changes.kind == COMMIT, 1, -1)
    n = len(past.decisions)
    is_active = np.bincount(past.changes.row[early], sign[early], minlength=n) > 0
    later = Changes(*(column[~early] for column in past.changes))
    is_needed = is_active.copy()
    is_needed[later.row] = True
    kept = np.flatnonzero(is_needed)
    kept = kept[np.lexsort((past.decisions.request_id[kept], past.decisions.t_s[kept]))]  # in order of arrival
    place = np.full(n, -1)
    place[kept] = np.arange(len(kept))
    active = np.flatnonzero(is_active[kept])
    return (
        _joined(_taken(past.decisions, kept), own),
        np.concatenate([past.origin[kept], own_rows]),
        Changes(
            np.concatenate([np.full(len(active), COMMIT), later.kind]),
            np.concatenate([active, place[later.row]]),
            np.concatenate([np.zeros(len(active), np.int64), later.version]),
        ),
    )


def _still_active(d: Decisions, g: Ledger, before: Changes) -> np.ndarray:
    """Return the rows of flows that are active after the chunk, in order of departure."""
    kind, row = np.concatenate([before.kind, g.kind]), np.concatenate([before.row, g.row])
    n_taken, n_given = (np.bincount(row[(kind == one) & (row >= 0)], minlength=len(d)) for one in (COMMIT, RELEASE))
    active = np.flatnonzero(n_taken > n_given)
    return active[np.argsort(d.t_s[active] + d.hold_s[active], kind="stable")]


def _rebased(d: Decisions, n_flows: int, shift: int) -> Decisions:
    """Count versions from the chunk's own start."""
    versions = {}
    for name in ("snapshot_version", "commit_version"):
        versions[name] = np.where(getattr(d, name) >= 0, getattr(d, name) + shift, getattr(d, name))
        versions[name][:n_flows] = 0
    return replace(d, **versions)


def _closed(d: Decisions, before: Changes, own: Ledger, after: np.ndarray, shift: int, n_rows: int) -> Ledger:
    """Put the changes before the chunk and the releases after it around the chunk's own rows of the ledger."""
    kind = np.concatenate([before.kind, own.kind, np.full(len(after), RELEASE)])
    row = np.concatenate([before.row, own.row, after])
    place = np.arange(len(row))
    middle = slice(len(before.row), len(before.row) + len(own))
    t_s = np.where(kind == COMMIT, d.t_s[row], d.t_s[row] + d.hold_s[row]) if len(d) else np.zeros(len(row))
    version = np.cumsum((kind == COMMIT) | (kind == RELEASE), dtype=np.int64)
    ledger = Ledger(
        place=place,
        seq=place.copy(),
        kind=kind,
        request_id=d.request_id[row] if len(d) else np.zeros(len(row), np.int64),
        row=row,
        t_s=t_s,
        snapshot_version=np.where(kind == RELEASE, -1, 0),
        store_version=version.copy(),
        version=version,
        resource=np.full(len(row), -1, np.int32),
    )
    ledger.place[middle] = own.place + len(before.row)
    ledger.seq[middle] = own.seq - n_rows + len(before.row)
    ledger.request_id[middle], ledger.t_s[middle], ledger.resource[middle] = own.request_id, own.t_s, own.resource
    ledger.snapshot_version[middle] = np.where(own.snapshot_version >= 0, own.snapshot_version + shift, -1)
    ledger.store_version[middle] = own.store_version + shift
    return ledger


def _remember(d: Decisions, origin: np.ndarray, before: Changes, own: Ledger, since: int, version: int) -> Past:
    """Keep what the next chunk needs: decisions and changes of this one and of the flows it met."""
    changed = (own.kind == COMMIT) | (own.kind == RELEASE)
    versions = version + np.cumsum(changed)
    changed &= own.row >= 0
    changes = Changes(
        np.concatenate([before.kind, own.kind[changed]]),
        np.concatenate([before.row, own.row[changed]]),
        np.concatenate([before.version, versions[changed]]),
    )
    return Past(d, origin, changes, since)


_LISTED = ("links", "hosts")


def _taken(d: Decisions, rows: np.ndarray) -> Decisions:
    """Return some of the decisions, in the order of rows."""
    columns = {f.name: getattr(d, f.name)[rows] for f in fields(d) if f.name not in ("causes", *_LISTED)}
    for name in _LISTED:
        lists: Lists = getattr(d, name)
        length = lists.length[rows]
        start = np.concatenate([[0], np.cumsum(length)])
        entry = np.repeat(lists.start[rows] - start[:-1], length) + np.arange(start[-1])
        columns[name] = Lists(start, lists.code[entry])
    return Decisions(causes=d.causes, **columns)


def _joined(a: Decisions, b: Decisions) -> Decisions:
    """Return the decisions of both, a first."""
    columns = {
        f.name: np.concatenate([getattr(a, f.name), getattr(b, f.name)])
        for f in fields(a)
        if f.name not in ("cause", *_LISTED)
    }
    columns["cause"] = np.concatenate([a.cause, np.where(b.cause >= 0, b.cause + len(a.causes), -1)])
    for name in _LISTED:
        first, second = getattr(a, name), getattr(b, name)
        start = np.concatenate([first.start, first.start[-1] + second.start[1:]])
        columns[name] = Lists(start, np.concatenate([first.code, second.code]))
    return Decisions(**columns)


class _Seen:
    """Request ids of earlier chunks: a pair of numbers for a chunk whose ids have no gap."""

    def __init__(self) -> None:
        self._ids: list[np.ndarray] = []
        self._ranges: list[tuple[int, int]] = []

    def again(self, ids: np.ndarray) -> np.ndarray:
        """Tell which of a chunk's ids were seen in an earlier one, bool[n], and remember them."""
        again = np.zeros(len(ids), bool)
        for first, last in self._ranges:
            again |= (ids >= first) & (ids <= last)
        for known in self._ids:
            again |= np.isin(ids, known)
        if len(ids) and len(np.unique(ids)) == ids.max() - ids.min() + 1:
            first, last = int(ids.min()), int(ids.max())
            if self._ranges and self._ranges[-1][1] == first - 1:
                first = self._ranges.pop()[0]
            self._ranges.append((first, last))
        else:
            self._ids.append(ids)
        return again


class _Offered:
    """A trace in pieces of any size, handed out in the pieces that are asked for."""

    def __init__(self, traces: Iterable[Trace]) -> None:
        self._traces, self._held = iter(traces), []

    def next(self, n: int | None) -> Trace:
        """Return the next n requests, or all that are left."""
        while n is None or sum(map(len, self._held)) < n:
            piece = next(self._traces, None)
            if piece is None:
                break
            self._held.append(piece)
        if not self._held:
            raise AuditError("there are more decisions than requests in the trace; give the trace that was served")
        whole_piece = join(self._held, self._held[0].name)
        self._held = [whole_piece[len(whole_piece) if n is None else n :]]
        return whole_piece if n is None else whole_piece[:n]


def _with_last(chunks: Iterable) -> Iterator[tuple[Any, bool]]:
    """Yield each item and whether it is the last."""
    held, is_held = None, False
    for item in chunks:
        if is_held:
            yield held, False
        held, is_held = item, True
    if is_held:
        yield held, True
