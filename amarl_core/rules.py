"""The rules that a recorded run must obey, by name, and the rules on what was decided.

| rule | row of | what must hold |
|---|---|---|
| missing | trace | every request of the trace is decided |
| trace | decisions | a decision is of a request of the trace, with its values |
| request | decisions | a request is decided once, in identifiers of the scenario |
| cause | decisions | accepted exactly when the cause says so, and the cause is a known one |
| route | decisions | the links lead from source to destination without a gap |
| simple | decisions | within a segment, from host to host, no node occurs twice |
| stub | decisions | a stub is entered only as the destination |
| chain | decisions | each stage ran, in order along the walk, at a node that hosts it |
| latency | decisions | the latency is that of the route on its snapshot, within 1e-6 ms |
| budget | decisions | the latency of what was committed is within the service's bound |
| uncommitted | decisions | an accepted request has a commit |
| unreleased | decisions | what was committed is released |
| conflict | decisions | a request lost to a conflict has an abort, and no more aborts than attempts |
| overbooked | decisions | in arrival order, no admission exceeds a capacity in simulated time |
| move | moves | a move is of an active flow, on the arrival of an accepted request that it makes room for |
| sequence | ledger | seq counts the rows from 0; each is a commit, abort or release of a decided request |
| version | ledger | the store's version counts commits and releases; no snapshot is of the future |
| commit | ledger | a commit is of an accepted request, once, on its arrival, at the versions decided |
| release | ledger | a release is of a committed request, once, after t_s + hold_s |
| abort | ledger | an abort is of a request not yet committed, and the resource it names lacked room |
| link_capacity | ledger | equation (1): after a commit, no link carries more than its capacity |
| node_budget | ledger | equation (2): after a commit, no node computes more than its budget |
| order | ledger | in arrival order, commits and aborts follow arrivals, departures first |
| zero | none (-1) | in the end every resource is free again |

Routes are judged where they counted: accepted requests, and those whose last attempt was aborted. In a run that moved
flows, a flow's earlier stays are judged as if they were requests of their own (see ``epochs``), by the same rules;
their rows are those of the table of moves, counted on from the last decision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from amarl_core.transcript import Decisions

RULES = (
    *("missing", "trace", "request", "cause", "route", "simple", "stub", "chain", "latency", "budget"),
    *("uncommitted", "unreleased", "conflict", "overbooked", "move"),
    *("sequence", "version", "commit", "release", "abort", "link_capacity", "node_budget", "order", "zero"),
)
CONFLICTS = ("conflict_link", "conflict_node")
CAUSES = (
    *("accepted", "dead_end_bandwidth", "dead_end_compute", "dead_end_latency", "dead_end_loop"),
    *("dead_end_slots", "hop_limit", "refused", *CONFLICTS),
)
LISTED = 100
"""Violations of one rule that are listed; all are counted."""

Describe = Callable[[int], str]
"""Says what is wrong with the i-th of the rows that were checked."""


class Findings:
    """Violations as they are found: all counted, the first of each rule listed."""

    def __init__(self) -> None:
        self.count: dict[str, int] = {}
        self._listed: list[tuple[str, int, int, str]] = []

    def check(
        self, rule: str, row: np.ndarray, request_id: np.ndarray, cases: Sequence[tuple[np.ndarray, Describe]]
    ) -> None:
        """Record the rows for which a case is true; a row counts once, with the first case that is.

        Args:
            rule: One of RULES.
            row: int[k], row of each candidate in its frame.
            request_id: int[k].
            cases: Pairs of bool[k] and what to say of candidate i.
        """
        wrong = np.logical_or.reduce([np.broadcast_to(flagged, len(row)) for flagged, _ in cases])
        places = np.flatnonzero(wrong)
        if not len(places):
            return
        self.count[rule] = self.count.get(rule, 0) + len(places)
        for i in places[:LISTED]:
            detail = next(describe(i) for flagged, describe in cases if flagged[i])
            self._listed.append((rule, int(row[i]), int(request_id[i]), detail))

    def frame(self) -> pd.DataFrame:
        """Return the listed violations, columns rule, row, request_id, detail, in the order of RULES."""
        listed = sorted(self._listed, key=lambda entry: (RULES.index(entry[0]), entry[1]))
        frame = pd.DataFrame(listed, columns=["rule", "row", "request_id", "detail"])
        return frame.astype({"row": np.int64, "request_id": np.int64})


def check_decisions(found: Findings, decisions: Decisions, scenario: Any) -> None:
    """Check rules request and cause."""
    d, rows = decisions, np.arange(len(decisions))
    repeated = pd.Index(d.request_id).duplicated()
    found.check(
        "request",
        rows,
        d.request_id,
        [
            (repeated, lambda i: "decided a second time"),
            (d.service < 0, lambda i: "service is not one of the scenario"),
            (
                (d.source < 0) | (d.destination < 0),
                lambda i: "source or destination is no node of the scenario",
            ),
            (d.links.any(d.links.code < 0), lambda i: "links holds an id that is no link of the scenario"),
            (d.hosts.any(d.hosts.code < 0), lambda i: "hosts holds an id that is no node of the scenario"),
        ],
    )
    names = np.append(d.causes, None)
    known = np.append(np.isin(d.causes, CAUSES), False)[d.cause]
    contradicts = d.accepted != d.has_cause("accepted")
    found.check(
        "cause",
        rows,
        d.request_id,
        [
            (~known, lambda i: f"cause is {names[d.cause[i]]!r}; expected one of {', '.join(CAUSES)}"),
            (contradicts, lambda i: f"accepted is {d.accepted[i]}, but the cause is {names[d.cause[i]]}"),
        ],
    )


def check_trace(found: Findings, decisions: Decisions, trace: Any) -> None:
    """Check rules missing and trace: decisions match the trace one to one, in whatever order."""
    d = decisions
    row = d.row_of(trace.request_id)
    undecided = row < 0
    found.check("missing", np.arange(len(row)), trace.request_id, [(undecided, lambda i: "was never decided")])

    known = np.zeros(len(d), bool)
    known[row[~undecided]] = True
    found.check("trace", np.arange(len(d)), d.request_id, [(~known, lambda i: "is decided, but is not in the trace")])
    row, expected = row[~undecided], np.flatnonzero(~undecided)
    cases = []
    for name in ("t_s", "hold_s", "service", "source", "destination", "demand_kbps"):
        given, wanted = getattr(d, name)[row], np.asarray(getattr(trace, name))[expected]
        cases.append((given != wanted, _differs(name, given, wanted)))
    found.check("trace", row, d.request_id[row], cases)


def _differs(name: str, given: np.ndarray, wanted: np.ndarray) -> Describe:
    index = " (an index)" if name in ("service", "source", "destination") else ""
    return lambda i: f"{name}{index} is {given[i]}; the trace has {wanted[i]}"
