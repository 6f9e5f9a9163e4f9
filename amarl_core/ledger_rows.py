"""Rules on the rows of the ledger: each is the right one, once, at its place, and none is missing.

What the rows do to the network is the subject of ``lock_order``.
"""

from __future__ import annotations

import numpy as np

from amarl_core.epochs import Epochs
from amarl_core.rules import CONFLICTS, Findings
from amarl_core.transcript import ABORT, COMMIT, RELEASE, Decisions, Ledger

TIME_TOLERANCE_S = 1e-6


def check_rows(found: Findings, decisions: Decisions, ledger: Ledger) -> None:
    """Check rules sequence, version, commit, release, uncommitted, unreleased and conflict.

    Args:
        found: Where violations go.
        decisions: n rows.
        ledger: m rows.
    """
    _check_sequence(found, ledger)
    _check_versions(found, ledger)
    if len(decisions):
        of_known = ledger.row >= 0
        committed = first_place(ledger.row, (ledger.kind == COMMIT) & of_known, len(decisions))
        released = first_place(ledger.row, (ledger.kind == RELEASE) & of_known, len(decisions))
        _check_commits(found, decisions, ledger, committed)
        _check_releases(found, decisions, ledger, committed, released)
        _check_outcomes(found, decisions, ledger, committed, released)


def _check_sequence(found: Findings, g: Ledger) -> None:
    here = np.arange(len(g))
    cases = [
        (
            (g.seq != here) | (g.place != here),
            lambda i: f"seq is {g.seq[i]}; expected {g.place[i]} at this place",
        ),
        (g.kind < 0, lambda i: "kind is not commit, abort or release"),
        (g.row < 0, lambda i: "is of a request that was never decided"),
    ]
    found.check("sequence", g.place, g.request_id, cases)


def _check_versions(found: Findings, g: Ledger) -> None:
    is_release = g.kind == RELEASE
    before = g.version - (is_release | (g.kind == COMMIT))
    future = ~is_release & ((g.snapshot_version < 0) | (g.snapshot_version > before))
    wrong = g.store_version != g.version
    cases = [
        (wrong, lambda i: f"store_version is {g.store_version[i]}; counted {g.version[i]}"),
        (future, lambda i: f"snapshot_version is {g.snapshot_version[i]}; the store was at {before[i]}"),
        (
            is_release & (g.snapshot_version != -1),
            lambda i: "is a release with a snapshot_version other than -1",
        ),
    ]
    found.check("version", g.place, g.request_id, cases)


def _check_commits(found: Findings, d: Decisions, g: Ledger, committed: np.ndarray) -> None:
    place = np.flatnonzero((g.kind == COMMIT) & (g.row >= 0))
    row, t_s, snapshot, version = g.row[place], g.t_s[place], g.snapshot_version[place], g.version[place]
    arrival, planned, decided = d.t_s[row], d.snapshot_version[row], d.commit_version[row]
    cases = [
        (~d.accepted[row], lambda i: "commits a request that was not accepted"),
        (committed[row] != place, lambda i: "commits a second time"),
        (t_s != arrival, lambda i: f"is at {t_s[i]} s; the request arrived at {arrival[i]} s"),
        (snapshot != planned, lambda i: f"snapshot_version is {snapshot[i]}; the decision has {planned[i]}"),
        (version != decided, lambda i: f"makes version {version[i]}; the decision's commit has {decided[i]}"),
    ]
    found.check("commit", g.place[place], g.request_id[place], cases)


def _check_releases(found: Findings, d: Decisions, g: Ledger, committed: np.ndarray, released: np.ndarray) -> None:
    place = np.flatnonzero((g.kind == RELEASE) & (g.row >= 0))
    row, t_s = g.row[place], g.t_s[place]
    departure = d.t_s[row] + d.hold_s[row]
    off = ~(np.abs(t_s - departure) <= TIME_TOLERANCE_S)
    cases = [
        (committed[row] == len(g), lambda i: "releases what was never committed"),
        (committed[row] > place, lambda i: "releases before the commit"),
        (released[row] != place, lambda i: "releases a second time"),
        (off, lambda i: f"is at {t_s[i]} s; the request departs at {departure[i]} s"),
    ]
    found.check("release", g.place[place], g.request_id[place], cases)


def _check_outcomes(found: Findings, d: Decisions, g: Ledger, committed: np.ndarray, released: np.ndarray) -> None:
    """Check that the ledger has what each decision calls for."""
    rows, never = np.arange(len(d)), len(g)
    lacks_commit = d.accepted & (committed == never)
    found.check("uncommitted", rows, d.request_id, [(lacks_commit, lambda i: "is accepted, but has no commit")])
    kept = (committed < never) & (released == never)
    found.check("unreleased", rows, d.request_id, [(kept, lambda i: "was committed, but never released")])
    aborts = np.bincount(g.row[(g.kind == ABORT) & (g.row >= 0)], minlength=len(d))
    # Not equal: a plan that met a dead end on an old snapshot is an attempt without an abort.
    most = d.attempts - d.accepted
    cases = [
        (d.has_cause(*CONFLICTS) & (aborts == 0), lambda i: "was lost to a conflict, but has no abort"),
        (aborts > most, lambda i: f"was aborted {aborts[i]} times in {d.attempts[i]} attempts"),
    ]
    found.check("conflict", rows, d.request_id, cases)


def first_place(row: np.ndarray, chosen: np.ndarray, n_requests: int) -> np.ndarray:
    """Return the place of each request's first chosen row, int64[n]; the ledger's length if it has none."""
    first = np.full(n_requests, len(row))
    places = np.flatnonzero(chosen)[::-1]
    first[row[places]] = places  # the last assignment, which is the first place, stays
    return first


def last_aborts(decisions: Decisions, ledger: Ledger) -> np.ndarray:
    """Return the place of the abort that ended each request, int64[n]; -1 where no abort did.

    Only such an abort's route is in the decisions.
    """
    last = np.full(len(decisions), -1)
    places = np.flatnonzero((ledger.kind == ABORT) & (ledger.row >= 0))
    last[ledger.row[places]] = places
    return np.where(decisions.has_cause(*CONFLICTS), last, -1)


def check_arrival_order(found: Findings, decisions: Decisions, ledger: Ledger, epochs: Epochs) -> None:
    """Check rule order: commits and aborts in order of arrival, each departure before the next arrival.

    Requests that arrive together are in order of request_id; departures come first at equal times. A flow that moves
    takes its new route just before the request that it makes room for; it may leave its old one after requests that
    arrived together with this one.
    """
    d, g = decisions, ledger
    if len(g) == 0 or len(d) == 0:
        return
    keys = np.stack([d.t_s, d.request_id[epochs.made_for], ~epochs.began_by_move])
    arrival = np.lexsort(keys[::-1])
    rank = np.empty(len(d), np.int64)  # flows that move for one request share theirs
    rank[arrival] = np.cumsum(np.any(np.diff(keys[:, arrival], prepend=np.nan) != 0, axis=0))
    tried = ((g.kind == COMMIT) | (g.kind == ABORT)) & (g.row >= 0)
    own = np.where(tried, rank[g.row], -1)
    overtaken = tried & (own < np.maximum.accumulate(own))
    is_release = g.kind == RELEASE
    is_moved = epochs.ends_by_move[g.row] & (g.row >= 0)
    latest = np.maximum.accumulate(np.where(tried, g.t_s, -np.inf))
    next_one = np.minimum.accumulate(np.where(tried, g.t_s, np.inf)[::-1])[::-1]
    found.check(
        "order",
        g.place,
        g.request_id,
        [
            (overtaken, lambda i: "comes after a request that arrived later"),
            (
                is_release & np.where(is_moved, latest > g.t_s, latest >= g.t_s),
                lambda i: f"departs at {g.t_s[i]} s, after the arrival at {latest[i]} s",
            ),
            (
                is_release & (next_one < g.t_s),
                lambda i: f"departs at {g.t_s[i]} s, before {next_one[i]} s arrives",
            ),
        ],
    )
