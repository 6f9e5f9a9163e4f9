"""Rules on the state: the ledger, replayed in lock order from an empty network, must explain every outcome.

That every commit fits and no abort did, on the state at its own place in the ledger, is the proof that the
concurrent run was serialisable and never over capacity.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from amarl_core.ledger_rows import first_place, last_aborts
from amarl_core.replay import Question, Uses, events_of, histories, limits
from amarl_core.rules import Findings
from amarl_core.transcript import ABORT, COMMIT, RELEASE, Decisions, Ledger

LATENCY_TOLERANCE_MS = 1e-6


def check_replay(
    found: Findings, decisions: Decisions, ledger: Ledger, scenario: Any, uses: Uses, sound: np.ndarray
) -> None:
    """Replay the ledger and check rules link_capacity, node_budget, zero, abort, latency and budget.

    Args:
        found: Where violations go.
        decisions: n rows.
        ledger: m rows.
        scenario: The scenario.
        uses: What committed and aborted routes take.
        sound: bool[n], requests whose route counted and whose identifiers are all known.
    """
    d, g, n_links = decisions, ledger, len(scenario.network.link_ids)
    limit, last = limits(scenario), last_aborts(d, g)
    changes = np.flatnonzero((g.kind == COMMIT) | (g.kind == RELEASE))  # row that made version i + 1
    known = changes[g.row[changes] >= 0]
    sign = np.where(g.kind[known] == COMMIT, 1, -1)

    aborted = np.flatnonzero((last >= 0)[uses.row])  # uses of routes whose abort is judged exactly
    resource, aborted_row = uses.resource_of(aborted), uses.row[aborted]
    at_abort = Question(resource, g.version[last[aborted_row]])
    abort = np.flatnonzero((g.kind == ABORT) & (g.row >= 0))
    at_named = Question(g.resource[abort], g.version[abort])
    at_snapshot = Question(n_links + d.hosts.code, np.repeat(d.snapshot_version.astype(np.int32), d.hosts.length))

    over = []
    for history in histories(uses, events_of(g.row[known], sign, g.version[known], len(d))):
        for question in (at_abort, at_named, at_snapshot):
            question.listen(history)
        if not len(history.used):
            continue
        exceeds = np.flatnonzero(history.is_taking & (history.used > limit[history.resource]))
        over += [(history.resource, int(history.place[i]), int(history.used[i])) for i in exceeds]
        if history.used[-1]:
            detail = f"{_name(scenario, history.resource)} keeps {history.used[-1]} in use after the last row"
            found.check("zero", np.array([-1]), np.array([-1]), [(np.array([True]), lambda i, text=detail: text)])
    _check_capacity(found, g, scenario, limit, changes, over)

    lacks = at_abort.used + uses.amount[aborted] > limit[resource]
    is_named = resource == g.resource[last[aborted_row]]
    no_room = np.zeros((2, len(d)), bool)  # somewhere, and at the resource named
    no_room[0, aborted_row[lacks]] = True
    no_room[1, aborted_row[lacks & is_named]] = True
    most = _largest_use(d, scenario, g.row[abort], g.resource[abort])
    might_lack = at_named.used + most > limit[g.resource[abort]]
    _check_aborts(found, d, g, scenario, abort, last, no_room, might_lack)
    newest = int(g.version.max(initial=0))
    for rows, block in d.blocks():
        used = at_snapshot.used[d.hosts.start[rows.start] : d.hosts.start[rows.stop]]
        _check_latency(found, block, scenario, np.arange(rows.start, rows.stop), sound[rows], used, newest)


def _check_capacity(
    found: Findings, g: Ledger, scenario: Any, limit: np.ndarray, changes: np.ndarray, over: list
) -> None:
    """Check rules link_capacity and node_budget: `over` holds (resource, version, used)."""
    n_links = len(scenario.network.link_ids)
    for rule, is_link in (("link_capacity", True), ("node_budget", False)):
        part = sorted((entry for entry in over if (entry[0] < n_links) == is_link), key=lambda entry: entry[1])
        place = changes[[version - 1 for _, version, _ in part]] if part else np.zeros(0, np.int64)

        def describe(i: int, part: list = part) -> str:
            resource, _, used = part[i]
            return f"brings {_name(scenario, resource)} to {used} of {limit[resource]}"

        found.check(rule, g.place[place], g.request_id[place], [(np.ones(len(part), bool), describe)])


def _largest_use(d: Decisions, scenario: Any, row: np.ndarray, resource: np.ndarray) -> np.ndarray:
    """Bound what a request could take of a resource on any route, int64[k].

    A link is crossed at most once in each of the chain's segments, of which there is one more than stages. A
    node runs each stage it hosts at most once.
    """
    n_links, service, demand = len(scenario.network.link_ids), d.service[row], d.demand_kbps[row]
    on_link = demand * (scenario.chain_length[service].astype(np.int64) + 1)
    node = np.maximum(resource - n_links, 0)
    chains = scenario.chains[service]  # (k, stages)
    rate = np.where(chains >= 0, scenario.rate_mcpu_per_gbps[node[:, None], chains], 0)
    on_node = (-(-demand[:, None] * np.maximum(rate, 0) // 1_000_000)).sum(axis=1)
    return np.where(resource < n_links, on_link, on_node)


def _check_aborts(
    found: Findings,
    d: Decisions,
    g: Ledger,
    scenario: Any,
    abort: np.ndarray,
    last: np.ndarray,
    no_room: np.ndarray,
    might_lack: np.ndarray,
) -> None:
    """Check rule abort: exactly where the aborted route was recorded, else by what it could take at most."""
    row, named, n_links = g.row[abort], g.resource[abort], len(scenario.network.link_ids)
    committed = first_place(g.row, (g.kind == COMMIT) & (g.row >= 0), len(d))
    final = last[row] == abort
    is_node_conflict = d.has_cause("conflict_node")[row]
    stale = g.snapshot_version[abort] != d.snapshot_version[row]
    cases = [
        (committed[row] < abort, lambda i: "aborts after the commit"),
        (g.t_s[abort] != d.t_s[row], lambda i: f"is at {g.t_s[abort[i]]} s; it arrived at {d.t_s[row[i]]} s"),
        (named < 0, lambda i: "names no resource of the scenario"),
        (final & stale, lambda i: f"snapshot is {g.snapshot_version[abort[i]]}; decided on another"),
        (
            final & (is_node_conflict != (named >= n_links)),
            lambda i: f"names {_name(scenario, named[i])}, which the request's cause contradicts",
        ),
        (final & ~no_room[0, row], lambda i: "the route fitted at this place"),
        (final & ~no_room[1, row], lambda i: f"{_name(scenario, named[i])} had room for this route"),
        (
            ~final & ~might_lack,
            lambda i: f"{_name(scenario, named[i])} had room for any route of this request",
        ),
    ]
    found.check("abort", g.place[abort], g.request_id[abort], cases)


def _check_latency(
    found: Findings,
    d: Decisions,
    scenario: Any,
    rows: np.ndarray,
    sound: np.ndarray,
    used: np.ndarray,
    newest: int,
) -> None:
    """Check rules latency and budget: sum of t_e + sum of processing_f / (1 - rho_v), rho_v on the snapshot.

    Args:
        found: Where violations go.
        d: A block of n decisions with m hosts.
        scenario: The scenario.
        rows: int64[n], where the block stands in the frame.
        sound: bool[n], see ``check_replay``.
        used: int64[m], mcpu in use at each host on its request's snapshot.
        newest: The last version of the store.
    """
    n, host_row = len(d), d.hosts.row
    stage = np.minimum(d.hosts.position, scenario.chains.shape[1] - 1)
    function = scenario.chains[d.service[host_row], stage]
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = used / scenario.network.compute_mcpu[d.hosts.code]
        latency = np.bincount(host_row, scenario.processing_ms[function] / (1 - rho), n)
    latency += np.bincount(d.links.row, scenario.network.delay_ms[d.links.code], n)

    bound = scenario.latency_ms[d.service]
    future = (d.snapshot_version < 0) | (d.snapshot_version > newest)
    differs = ~(np.abs(d.latency_ms - latency) <= LATENCY_TOLERANCE_MS)
    found.check(
        "latency",
        rows,
        d.request_id,
        [
            (sound & future, lambda i: f"decided on version {d.snapshot_version[i]}, which never was"),
            (sound & differs, lambda i: f"latency_ms is {d.latency_ms[i]}; the route takes {latency[i]:.6f}"),
        ],
    )
    found.check(
        "budget",
        rows,
        d.request_id,
        [
            (
                sound & (d.budget_ms != bound),
                lambda i: f"budget_ms is {d.budget_ms[i]}; the bound is {bound[i]}",
            ),
            (sound & ~(latency <= bound + 1e-9), lambda i: f"takes {latency[i]:.6f} ms of {bound[i]} ms"),
        ],
    )


def _name(scenario: Any, resource: int) -> str:
    n_links = len(scenario.network.link_ids)
    if resource < n_links:
        return f"link {scenario.network.link_ids[resource]}"
    return f"node {scenario.network.node_ids[resource - n_links]}"
