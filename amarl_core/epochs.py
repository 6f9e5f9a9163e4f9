"""Flows that were moved, unfolded for the audit: each stay on one route is judged like a request of its own.

A rule that re-optimises moves active flows to make room. The decisions then say where a flow ended up, and a table of
moves, a row each, what they said before: request_id, t_s of the move, made_for (the request that found room),
latency_ms, links, hosts, snapshot_version and commit_version. An *epoch* is a flow's stay on one route: from its
arrival or a move to its next move or its departure. Its row in the ledger's order is its own commit and release; so
every rule on routes, latency and capacity holds for epochs as it stands.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from amarl_core.rules import Findings
from amarl_core.transcript import COMMIT, RELEASE, Decisions, Ledger, Lists, check_columns, lists, numbers

MOVE_COLUMNS = (
    *("request_id", "t_s", "made_for", "latency_ms", "links", "hosts", "snapshot_version", "commit_version"),
)


@dataclass(frozen=True)
class MoveTable:
    """The moves, k rows in the order of the frame."""

    row: np.ndarray  # int64[k], the flow's row in the decisions, -1 if unknown
    made_for: np.ndarray  # int64[k], row of the request that found room, -1 if unknown
    request_id: np.ndarray  # int64[k]
    t_s: np.ndarray  # float64[k]
    latency_ms: np.ndarray  # float64[k]
    links: Lists
    hosts: Lists
    snapshot_version: np.ndarray  # int64[k]
    commit_version: np.ndarray  # int64[k]


@dataclass(frozen=True)
class Epochs:
    """Which epoch each row of unfolded decisions is: the rows of the decisions, then one for each move."""

    began_by_move: np.ndarray  # bool[n + k]
    ends_by_move: np.ndarray  # bool[n + k]
    made_for: np.ndarray  # int64[n + k], row of the request at whose arrival it began: its own if no move began it


def read_moves(frame: pd.DataFrame, decisions: Decisions, scenario: Any) -> MoveTable:
    """Read a table of moves into arrays.

    Raises:
        AuditError: A column is missing or holds something else than it should.
    """
    check_columns(frame, MOVE_COLUMNS, "moves")
    integers = {name: numbers(frame, name, np.int64, "moves") for name in MOVE_COLUMNS if "_version" in name}
    request_id = numbers(frame, "request_id", np.int64, "moves")
    return MoveTable(
        row=decisions.row_of(request_id),
        made_for=decisions.row_of(numbers(frame, "made_for", np.int64, "moves")),
        request_id=request_id,
        t_s=numbers(frame, "t_s", np.float64, "moves"),
        latency_ms=numbers(frame, "latency_ms", np.float64, "moves"),
        links=lists(frame["links"], scenario.network.link_ids),
        hosts=lists(frame["hosts"], scenario.network.node_ids),
        **integers,
    )


def check_moves(found: Findings, decisions: Decisions, moves: MoveTable) -> np.ndarray:
    """Check rule move; return the moves that can be unfolded, bool[k]."""
    d, m = decisions, moves
    known = (m.row >= 0) & (m.made_for >= 0) if len(d) else np.zeros(len(m.row), bool)
    unnamed = m.links.any(m.links.code < 0) | m.hosts.any(m.hosts.code < 0)
    row, other = np.where(known, m.row, 0), np.where(known, m.made_for, 0)
    if len(d) == 0:
        found.check("move", np.arange(len(row)), m.request_id, [(~known, lambda i: "is of a request never decided")])
        return known
    departure = d.t_s[row] + d.hold_s[row]
    before = np.zeros(len(row), bool)  # an earlier row of the same flow is later in time
    order = np.argsort(row, kind="stable")
    same = (row[order][1:] == row[order][:-1]) & known[order][1:]
    before[order[1:]] = same & (m.t_s[order][1:] < m.t_s[order][:-1])
    idle = (m.t_s < d.t_s[row]) | (m.t_s > departure)
    cases = [
        (~known, lambda i: "is of, or makes room for, a request that was never decided"),
        (unnamed, lambda i: "links or hosts hold an id that is not of the scenario"),
        (~d.accepted[row], lambda i: "moves a flow that was not accepted"),
        (row == other, lambda i: "makes room for the flow itself"),
        (~d.accepted[other], lambda i: f"makes room for request {d.request_id[other[i]]}, which was not accepted"),
        (m.t_s != d.t_s[other], lambda i: f"is at {m.t_s[i]} s; the request arrives at {d.t_s[other[i]]} s"),
        (idle, lambda i: f"is at {m.t_s[i]} s; the flow lasts from {d.t_s[row[i]]} to {departure[i]} s"),
        (before, lambda i: "comes before the flow's move in an earlier row"),
    ]
    found.check("move", np.arange(len(row)), m.request_id, cases)
    return known & ~unnamed


def unfold(decisions: Decisions, ledger: Ledger, moves: MoveTable) -> tuple[Decisions, Ledger, Epochs]:
    """Make a row of every epoch, and let each ledger row be of the epoch it begins or ends.

    The last epoch of a flow keeps its row in the decisions; the epoch that move j ended is row n + j. The i-th commit
    of a flow in the ledger is of its i-th epoch, and so is the i-th release; what is left over stays with the last.

    Args:
        decisions: n rows.
        ledger: as read with these decisions.
        moves: k moves, of known requests and in order of time for each flow.
    """
    d, m, n, k = decisions, moves, len(decisions), len(moves.row)
    order = np.argsort(m.row, kind="stable")
    flow = m.row[order]
    n_moves = np.bincount(m.row, minlength=n)
    first = np.concatenate([[0], np.cumsum(n_moves)])  # of each flow in `order`
    nth = np.arange(k) - first[flow]

    begins = np.concatenate([d.t_s, np.empty(k)])
    ends = np.concatenate([d.t_s + d.hold_s, m.t_s])
    made_for = np.concatenate([np.arange(n), m.row])
    began_by_move = np.zeros(n + k, bool)
    begins[n + order] = d.t_s[flow]
    later = np.where(nth + 1 < n_moves[flow], n + np.append(order[1:], 0), flow)  # the epoch each move begins
    begins[later], began_by_move[later], made_for[later] = m.t_s[order], True, m.made_for[order]
    ends_by_move = np.arange(n + k) >= n

    source = np.concatenate([np.arange(n), m.row])
    own = {f.name: getattr(d, f.name)[source] for f in fields(d) if f.name not in ("causes", "links", "hosts")}
    own |= {
        name: np.concatenate([getattr(d, name), getattr(m, name)])
        for name in ("latency_ms", "snapshot_version", "commit_version")
    }
    own["t_s"], own["hold_s"] = begins, ends - begins
    own["attempts"] = np.where(ends_by_move, 1, own["attempts"])
    unfolded = Decisions(causes=d.causes, links=_joined(d.links, m.links), hosts=_joined(d.hosts, m.hosts), **own)

    epoch = ledger.row.copy()
    for kind in (COMMIT, RELEASE):
        place = np.flatnonzero((ledger.kind == kind) & (ledger.row >= 0))
        row = ledger.row[place]
        by_row = np.argsort(row, kind="stable")
        nth_of_row = np.empty(len(row), np.int64)
        nth_of_row[by_row] = np.arange(len(row)) - np.searchsorted(row[by_row], row[by_row])
        earlier = nth_of_row < n_moves[row]
        epoch[place[earlier]] = n + order[first[row[earlier]] + nth_of_row[earlier]]
    return unfolded, replace(ledger, row=epoch), Epochs(began_by_move, ends_by_move, made_for)


def whole(decisions: Decisions) -> Epochs:
    """Return the epochs of a run without moves."""
    none = np.zeros(len(decisions), bool)
    return Epochs(none, none, np.arange(len(decisions)))


def _joined(a: Lists, b: Lists) -> Lists:
    return Lists(np.concatenate([a.start, a.start[-1] + b.start[1:]]), np.concatenate([a.code, b.code]))
