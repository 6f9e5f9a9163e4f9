"""A verdict on each rejection: was there no route, did the agent miss it, or did the network change meanwhile?

A request is judged on the states that it met, rebuilt from the ledger (see `oracle`):
- *snapshot*: what its last attempt was planned on (`snapshot_version` of its decision);
- *first*: what its first attempt on record was planned on: an aborted commit keeps its own. The same as the snapshot
  when nothing of it aborted;
- *commit*: where it was decided. For a conflict the place of its last abort in lock order. For a dead end in order of
  arrival its turn: all earlier arrivals decided, all departures up to its arrival done. For a dead end in free order
  there is no such place, and the snapshot stands for it.

| a route on the snapshot | the last attempt | on commit | on first | verdict |
|:--|:--|:--|:--|:--|
| yes | refused | | | `refused`: the agent or rule let it go on purpose |
| yes | dead end | | | `missed`: the agent did not find it |
| yes | abort on the very version it was planned on | | | `missed`: the plan never fitted (a rule blind to load) |
| yes | abort | no | | `lost_race`: another took what was left |
| yes | abort | yes | | `lost_race`: one more attempt could have gone through |
| no | | yes | | `lost_race`: room came back after the snapshot, before the turn |
| no | | no | yes | `lost_race`: an earlier attempt aborted, and then nothing was left |
| no | | no | no | `unroutable` |

`missed` is about what was there, not about blame: a rule that leaves a pool alone on purpose "misses" it too.
`lost_race` says that the network changed between plan and decision, and `routable_at_commit` tells its two kinds apart:
where it is true, another attempt (or planning later) would have found a route, the price of planning ahead; where it is
false the place was really taken, and a plan made at its turn would have found nothing either. In order of arrival an
attempt planned ahead that ended in a dead end and was planned anew at its turn has left no snapshot behind; it counts
by the new one.

What binds an unroutable request is found where it was decided, by lifting one kind of limit at a time: bandwidth
(constraint 1), compute (constraint 2) or the latency bound. Where more than one alone would do, `binding` is the first
of them in that order: an operator can add links and pools, the bound belongs to the service.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from amarl_core.errors import AuditError
from amarl_core.oracle import N_LABELS, RELAXATIONS, Changes, Routes, ask
from amarl_core.simulation import Team, request_records
from amarl_core.transcript import ABORT, COMMIT, RELEASE, Decisions, Ledger, read_decisions, read_ledger

VERDICTS = ("unroutable", "refused", "missed", "lost_race")
BINDINGS = ("", *RELAXATIONS, "several")
"""What binds an unroutable request; `several` when lifting no single kind of limit would do, empty otherwise."""

FIRST, SNAPSHOT, PLACE = range(3)


def judge(
    scenario: Any, decisions: pd.DataFrame, ledger: pd.DataFrame, trace: Any, n_labels: int = N_LABELS
) -> pd.DataFrame:
    """Judge every rejected request of a served trace, whoever decided it and in whatever order.

    Args:
        scenario: The scenario it ran on.
        decisions: One row a request.
        ledger: One row a commit, abort or release.
        trace: The requests that were offered.
        n_labels: Memory of one search, in partial routes.

    Returns:
        One row a rejected request, in order of arrival: request_id, service, hour (of the day), cause, verdict,
        binding, relaxing_bandwidth, relaxing_compute, relaxing_latency (whether an unroutable request would have had
        a route with that limit lifted), routable_at_first, routable_at_snapshot, routable_at_commit.

    Raises:
        AuditError: Decisions, ledger and trace do not belong together.
        AmarlError: A search ran out of memory.
    """
    d = read_decisions(decisions, scenario)
    g = read_ledger(ledger, d, scenario)
    position = _positions(d, trace)
    _check_records(d, g)
    rejected = np.flatnonzero(~d.accepted)
    rejected = rejected[np.argsort(position[rejected], kind="stable")]
    versions, raced = _versions_met(d, g, position, rejected)

    changes = np.flatnonzero(g.kind != ABORT)
    routable, relaxed = _ask_once_each(
        scenario,
        request_records(trace, Team.of(scenario, "oracle"))[position],
        Routes(d.links.start, d.links.code, d.hosts.start, d.hosts.code),
        Changes(g.row[changes], np.where(g.kind[changes] == COMMIT, 1, -1)),
        rejected,
        versions,
        n_labels,
    )
    verdict = _verdicts(routable, raced, d.has_cause("refused")[rejected])
    relaxed &= (verdict == VERDICTS.index("unroutable"))[:, None]
    columns = {f"relaxing_{name}": relaxed[:, i] for i, name in enumerate(RELAXATIONS)}
    return pd.DataFrame(
        {
            "request_id": d.request_id[rejected],
            "service": pd.Categorical.from_codes(d.service[rejected], list(scenario.service_ids)),
            "hour": (d.t_s[rejected] // 3600 % 24).astype(np.int8),
            "cause": pd.Categorical.from_codes(d.cause[rejected], list(d.causes)),
            "verdict": pd.Categorical.from_codes(verdict, list(VERDICTS)),
            "binding": pd.Categorical.from_codes(_bindings(verdict, relaxed), list(BINDINGS)),
            **columns,
            "routable_at_first": routable[FIRST],
            "routable_at_snapshot": routable[SNAPSHOT],
            "routable_at_commit": routable[PLACE],
        }
    )


def tally(verdicts: pd.DataFrame, **labels: Any) -> pd.DataFrame:
    """Count rejected requests by service, verdict and binding, under labels such as method, seed and day.

    Returns:
        Columns: the labels, service, verdict, binding, requests; as `verdict_plots` takes them.
    """
    keys = ["service", "verdict", "binding"]
    counts = verdicts.groupby(keys, observed=True).size().rename("requests").reset_index()
    counts[keys] = counts[keys].astype(str)
    return pd.DataFrame({name: [value] * len(counts) for name, value in labels.items()}).join(counts, how="right")


def summary(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Say how the rejections divide.

    Returns:
        One row a verdict, and one for each binding of the unroutable, whether it occurs or not: verdict, binding,
        requests, share (percent of all rejections), routable_at_commit (requests that had a route where they were
        decided).
    """
    rows = [("unroutable", binding) for binding in BINDINGS[1:]] + [(verdict, "") for verdict in VERDICTS[1:]]
    index = pd.MultiIndex.from_tuples(rows, names=["verdict", "binding"])
    groups = verdicts.astype({"verdict": str, "binding": str}).groupby(["verdict", "binding"])["routable_at_commit"]
    table = groups.agg(requests="size", routable_at_commit="sum").reindex(index, fill_value=0).astype(np.int64)
    table.insert(1, "share", 100.0 * table["requests"] / max(len(verdicts), 1))
    return table.reset_index()


def _positions(d: Decisions, trace: Any) -> np.ndarray:
    """Return the row of each decision in the trace, int64[n]."""
    position = pd.Index(trace.request_id).get_indexer(d.request_id)
    unknown = position < 0
    if not unknown.any():
        unknown = trace.t_s[position] != d.t_s
    if unknown.any():
        request = d.request_id[np.flatnonzero(unknown)[0]]
        raise AuditError(f"request {request} was decided but is not in trace '{trace.name}'; give the trace it served")
    return position


def _check_records(d: Decisions, g: Ledger) -> None:
    """Refuse records from which the states cannot be rebuilt."""
    faults = (
        (g.row < 0, "names a request without a decision"),
        (g.kind < 0, "is neither a commit, an abort nor a release"),
        (g.version != g.store_version, "has another store version than the rows up to it make"),
    )
    for fault, what in faults:
        if fault.any():
            seq = g.seq[np.flatnonzero(fault)[0]]
            raise AuditError(f"ledger row {seq} {what}; give the decisions and the ledger of one run (audit it first)")
    if min(d.links.code.min(initial=0), d.hosts.code.min(initial=0), d.service.min(initial=0)) < 0:
        raise AuditError("the decisions name links, nodes or services of another scenario; give the one that it ran on")
    if d.snapshot_version.max(initial=0) > g.version.max(initial=0):
        raise AuditError("a decision has a later snapshot than the ledger reaches; give the ledger of the same run")


def _versions_met(d: Decisions, g: Ledger, position: np.ndarray, rejected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the versions each rejected request met, int64[3, k], and whether its last plan met another state."""
    abort = np.flatnonzero(g.kind == ABORT)
    first, last = np.full((2, len(d)), -1)
    last[g.row[abort]] = abort
    first[g.row[abort[::-1]]] = abort[::-1]
    first, last = first[rejected], last[rejected]
    is_conflict = d.has_cause("conflict_link", "conflict_node")[rejected]
    if (is_conflict & (last < 0)).any():
        request = d.request_id[rejected[np.flatnonzero(is_conflict & (last < 0))[0]]]
        raise AuditError(f"request {request} ended in a conflict without an abort in the ledger; audit the run")

    snapshot = d.snapshot_version[rejected]
    turn = _turns(d, g, position, rejected)
    place = snapshot if turn is None else turn
    place = np.where(is_conflict, g.version[last] if len(g) else 0, place)
    at_first = np.where(first >= 0, g.snapshot_version[first] if len(g) else 0, snapshot)
    return np.stack([at_first, snapshot, place]), is_conflict & (place > snapshot)


def _turns(d: Decisions, g: Ledger, position: np.ndarray, rejected: np.ndarray) -> np.ndarray | None:
    """Return the store version at each rejected request's turn, int64[k], or None for a run in free order.

    A run is in order of arrival when every row of its ledger stands where that order puts it and no rejected
    request has seen a state from after its turn.
    """
    by_arrival = np.argsort(position, kind="stable")
    rank = np.empty(len(d), np.int64)
    rank[by_arrival] = np.arange(len(d))
    own = rank[g.row]
    # a release comes right before the first turn at its time or later, after its own request's in any case
    before = np.maximum(np.searchsorted(d.t_s[by_arrival], g.t_s, side="left"), own + 1)
    half_turns = np.where(g.kind == RELEASE, 2 * before, 2 * own + 1)
    if (np.diff(half_turns) < 0).any():
        return None
    n_before = np.searchsorted(half_turns, 2 * rank[rejected], side="right")
    version = np.concatenate([[0], g.version])[n_before]
    return None if (d.snapshot_version[rejected] > version).any() else version


def _ask_once_each(
    scenario: Any,
    requests: np.ndarray,
    routes: Routes,
    changes: Changes,
    row: np.ndarray,
    versions: np.ndarray,
    n_labels: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Ask about k requests at 3 versions each, equal ones once; return bool[3, k] and, at the last, bool[k, 3]."""
    pairs = np.stack([np.tile(row, len(versions)), versions.ravel()])
    asked, answer = np.unique(pairs, axis=1, return_inverse=True)
    answer = answer.reshape(versions.shape)
    in_depth = np.zeros(asked.shape[1], bool)
    in_depth[answer[PLACE]] = True
    routable, relaxed = ask(scenario, requests, routes, changes, asked[0], asked[1], in_depth, n_labels)
    return routable[answer], relaxed[answer[PLACE]]


def _verdicts(routable: np.ndarray, raced: np.ndarray, refused: np.ndarray) -> np.ndarray:
    """Return the verdict of each request by the table above, int64[k], from bool[3, k], bool[k] and bool[k]."""
    not_taken = routable[SNAPSHOT] & ~raced
    unroutable = ~routable.any(axis=0)
    return np.select([unroutable, not_taken & refused, not_taken], [0, 1, 2], 3)  # in the order of VERDICTS


def _bindings(verdict: np.ndarray, relaxed: np.ndarray) -> np.ndarray:
    """Return what binds each request, int64[k] into BINDINGS, from bool[k, 3]."""
    first = np.where(relaxed.any(axis=1), 1 + np.argmax(relaxed, axis=1), BINDINGS.index("several"))
    return np.where(verdict == VERDICTS.index("unroutable"), first, 0)
