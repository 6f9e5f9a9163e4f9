"""A day in which links and sites fail: flows on them are dropped, offered again, and others come and find them gone.

The day is served in parts, cut where something fails or is repaired. A failed resource is full: the part begins with
all of its capacity taken, so that a snapshot shows nothing free there and no commit fits. Nothing else changes:
policies, static tables of delays and the observation's layout are those of the whole network, and a link that has
failed looks like one that is full. The routing rules see the same.

A flow that is active on a failed resource when it fails is dropped: it gives back all it holds, and is offered again at
that moment as a new request, with what is left of its holding time, after requests that arrive just then. Flows stay
where they are when the resource comes back. No simulator kernel knows of all this: `Part` begins where another ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from amarl_core.baselines import Baseline
from amarl_core.carried import Carried, restore, tables_of
from amarl_core.errors import AmarlError
from amarl_core.evaluation import EVAL_ATTEMPTS, EVAL_WINDOW
from amarl_core.routing import ACCEPTED
from amarl_core.rule_play import play_rule
from amarl_core.simulation import Simulation, decisions_frame, options_for, play
from amarl_core.store import KINDS
from amarl_core.traces import Trace, join


@dataclass(frozen=True)
class Outage:
    """What fails in a day, and when.

    Attributes:
        name: of the failure.
        resources: int64[k], links e as e and nodes v as E + v.
        starts_s: when, s from the day's midnight.
        ends_s: when it is repaired.
    """

    name: str
    resources: np.ndarray
    starts_s: float
    ends_s: float


@dataclass(frozen=True)
class Disrupted:
    """A served day with an outage.

    Attributes:
        outage: what failed.
        decisions: as of any served day, in order of arrival, flows offered again included; `hold_s` of a dropped flow
            ends when it is dropped. Two columns more: `dropped` and `offered_again` (the id of the dropped request, -1
            for an arrival).
        ledger: of the whole day, dropped flows released at the failure.
        trace: what was offered, as the decisions have it.
    """

    outage: Outage
    decisions: pd.DataFrame
    ledger: pd.DataFrame
    trace: Trace


@dataclass(frozen=True)
class Part:
    """Some hours of a day, served to the end of every flow; what lies after `until_s` is not used.

    Attributes:
        simulation: the served requests; the first `n_carried` rows are flows that had begun before.
        n_carried: how many.
        until_s: end of the part.
        first_version: the store's version at its beginning.
    """

    simulation: Simulation
    n_carried: int
    until_s: float
    first_version: int = 0

    @cached_property
    def decisions(self) -> pd.DataFrame:
        """Decisions of the part's own requests."""
        return decisions_frame(self.simulation, np.arange(self.n_carried, len(self.simulation.trace)))

    @cached_property
    def ledger(self) -> pd.DataFrame:
        """Rows of the ledger up to the part's end, which are in order of time."""
        rows = self.simulation.ledger()
        return rows.iloc[: np.searchsorted(rows["t_s"].to_numpy(), self.until_s, side="right")]

    @property
    def version(self) -> int:
        """The store's version at the part's end."""
        return int(self.ledger["store_version"].iloc[-1]) if len(self.ledger) else self.first_version

    @cached_property
    def active(self) -> np.ndarray:
        """Rows of flows in progress at the part's end; one that ends just then has ended."""
        arena = self.simulation.arena
        ends_s = arena.requests["t_s"] + arena.requests["hold_s"]
        return np.flatnonzero((arena.records.rows["cause"] == ACCEPTED) & (ends_s > self.until_s))


Server = Callable[[Trace, Callable[[Simulation], None]], Simulation]


def server(policy, scenario=None, attempts: int = EVAL_ATTEMPTS) -> Server:
    """Return what serves a trace by a policy, in order of arrival and the same at every call.

    A team plans on one thread, `EVAL_WINDOW` requests ahead of the turn if it has several agents (`pipeline`).

    Raises:
        AmarlError: a rule that lets requests wait or moves flows, or one without a scenario.
    """
    if isinstance(policy, Baseline):
        if scenario is None:
            raise AmarlError("a baseline needs scenario=...; a trained run brings its own")
        if {"window_s", "moves"} & set(policy.settings):
            raise AmarlError(f"{policy.name} decides by windows or moves flows; a day cannot be cut in parts under it")
        return lambda trace, begin: play_rule(policy, scenario, trace, begin)[0]

    def serve(trace: Trace, begin: Callable[[Simulation], None]) -> Simulation:
        window = EVAL_WINDOW if len(policy.team.agents) > 1 else 0
        options = options_for(policy.config, attempts=attempts, window=window)
        simulation = Simulation(policy.scenario, policy.world, trace, policy.team, policy.nets, options)
        begin(simulation)
        play(simulation, "pipeline")
        return simulation

    return serve


def first_part(serve: Server, trace: Trace, until_s: float) -> Part:
    """Serve a day from an empty network up to a moment; arrivals at that moment belong to the next part."""
    return Part(serve(trace[trace.t_s < until_s], lambda simulation: None), 0, until_s)


def play_outage(serve: Server, before: Part, trace: Trace, outage: Outage, until_s: float) -> Disrupted:
    """Serve the rest of a day from the failure on.

    Args:
        serve: of the policy.
        before: the day up to the failure (`first_part`); it may be used for many failures.
        trace: the day.
        outage: what fails; it begins when `before` ends.
        until_s: the last arrivals that are served.
    """
    if before.until_s != outage.starts_s:
        raise AmarlError(f"the part before ends at {before.until_s} s, the failure begins at {outage.starts_s} s")
    hit = _uses(before.simulation, before.active, outage.resources)
    dropped, survivors = before.active[hit], before.active[~hit]
    ends_s = min(outage.ends_s, until_s)
    again = _offered_again(before.simulation.trace[dropped], outage.starts_s, int(trace.request_id.max()) + 1)
    offered = join([again, _between(trace, outage.starts_s, ends_s)], trace.name)
    offered = offered[np.lexsort((offered.request_id, offered.t_s))]
    during = _next_part(serve, before, survivors, offered, ends_s, before.version + len(dropped), outage.resources)
    later = _between(trace, outage.ends_s, until_s)
    after = _next_part(serve, during, during.active, later, np.inf, during.version, np.zeros(0, np.int64))
    parts = [before, during, after]
    about = dict(zip(again.request_id.tolist(), before.simulation.trace.request_id[dropped].tolist(), strict=True))
    return _whole(outage, parts, before.simulation, dropped, about, trace)


def _between(trace: Trace, first_s: float, last_s: float) -> Trace:
    return trace[(trace.t_s >= first_s) & (trace.t_s < last_s)]


def _offered_again(trace: Trace, at_s: float, first_id: int) -> Trace:
    """Return dropped flows as new requests, with what is left of their holding time."""
    left_s = trace.t_s + trace.hold_s - at_s
    return replace(trace, request_id=first_id + np.arange(len(trace)), t_s=np.full(len(trace), at_s), hold_s=left_s)


def _next_part(
    serve: Server, before: Part, carried: np.ndarray, offered: Trace, until_s: float, version: int, failed: np.ndarray
) -> Part:
    """Serve requests on a network that carries flows of the part before and has lost some resources."""
    state = _carried(before.simulation, carried, version)
    state.used[failed] = before.simulation.arena.shared.limit[failed]
    trace = join([state.flows, offered], offered.name)
    served = serve(trace, lambda simulation: restore(simulation, state, len(offered)))
    return Part(served, len(carried), until_s, version)


def _carried(simulation: Simulation, rows: np.ndarray, version: int) -> Carried:
    """Return accepted requests of a simulation as flows in progress, with what they take and nothing else in use."""
    used = np.zeros_like(simulation.arena.shared.used)
    for resource, amount in _takes(simulation, rows):
        np.add.at(used, resource, amount)
    flows = simulation.trace[rows]
    ends_s = flows.t_s + flows.hold_s
    order = np.argsort(ends_s, kind="stable")  # sorted, which is a heap
    return Carried(flows, tuple(table[rows] for table in tables_of(simulation)), ends_s[order], order, used, version)


def _takes(simulation: Simulation, rows: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Return (resource, amount) of all that accepted requests take: kbps on links, then millicores on nodes."""
    arena, world = simulation.arena, simulation.arena.world
    records, requests = arena.records.rows[rows], arena.requests[rows]
    on_link = np.arange(arena.records.links.shape[1]) < records["n_links"][:, None]  # bool[n, H]
    on_host = np.arange(arena.records.hosts.shape[1]) < records["n_hosts"][:, None]  # bool[n, K]
    link, host = arena.records.links[rows].astype(np.int64), arena.records.hosts[rows].astype(np.int64)
    rate = world.rate[host, world.chains[requests["service"]]]  # int64[n, K]
    need = (requests["demand"][:, None] * rate + 999_999) // 1_000_000
    kbps = np.broadcast_to(requests["demand"][:, None], link.shape)
    return (link[on_link], kbps[on_link]), (len(world.links) + host[on_host], need[on_host])


def _uses(simulation: Simulation, rows: np.ndarray, resources: np.ndarray) -> np.ndarray:
    """Return bool[n]: whether each accepted request takes anything of the resources."""
    records, n_links = simulation.arena.records, len(simulation.arena.world.links)
    lengths = records.rows[rows]
    on_link = np.arange(records.links.shape[1]) < lengths["n_links"][:, None]
    on_host = np.arange(records.hosts.shape[1]) < lengths["n_hosts"][:, None]
    by_link = (np.isin(records.links[rows], resources) & on_link).any(axis=1)
    return by_link | (np.isin(n_links + records.hosts[rows].astype(np.int64), resources) & on_host).any(axis=1)


def _whole(
    outage: Outage, parts: list[Part], before: Simulation, dropped: np.ndarray, about: dict[int, int], trace: Trace
) -> Disrupted:
    """Join the parts' records; dropped flows end, and are released, at the failure."""
    decisions = pd.concat([part.decisions for part in parts], ignore_index=True)
    ids = before.trace.request_id[dropped]
    is_dropped = decisions["request_id"].isin(ids).to_numpy()
    hold_s, t_s = decisions["hold_s"].to_numpy().copy(), decisions["t_s"].to_numpy()
    hold_s[is_dropped] = held_until(t_s[is_dropped], outage.starts_s)
    again = decisions["request_id"].map(about).fillna(-1).astype(np.int64)
    decisions = decisions.assign(hold_s=hold_s, dropped=is_dropped, offered_again=again)
    first = parts[0].version
    drops = pd.DataFrame(
        {
            "kind": pd.Categorical(["release"] * len(ids), KINDS),
            "request_id": ids,
            "agent": pd.Categorical.from_codes(before.arena.requests["agent"][dropped], list(before.team.agents)),
            "t_s": outage.starts_s,
            "snapshot_version": np.full(len(ids), -1),
            "store_version": first + 1 + np.arange(len(ids)),
            "resource": pd.Categorical([""] * len(ids), parts[0].ledger["resource"].cat.categories),
        }
    )
    rows = [parts[0].ledger, drops, *(part.ledger for part in parts[1:])]
    ledger = pd.concat([frame for frame in rows if len(frame)], ignore_index=True)
    ledger["seq"] = np.arange(len(ledger), dtype=np.int64)
    offered = join([part.simulation.trace[part.n_carried :] for part in parts], trace.name)
    return Disrupted(outage, decisions, ledger, replace(offered, hold_s=hold_s))


def held_until(t_s: np.ndarray, end_s: float) -> np.ndarray:
    """Return holding times that end no later than a moment, rounding included: float64[n]."""
    hold_s = end_s - t_s
    return np.where(t_s + hold_s > end_s, np.nextafter(hold_s, -np.inf), hold_s)
