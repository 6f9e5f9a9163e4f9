"""One request walked through the compiled kernels one call at a time, with every neighbour's verdict in words.

`begin`, `look`, `observe` and `take` are the simulator's own, so an agent would see the same mask in the same order.
Neighbours that the kernels do not even look at (sites that are no destination, say) are named with their reason, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from amarl_core.arrays import World, make_work, slot_count
from amarl_core.arrays import make_world as make_arrays
from amarl_core.config import TrainConfig
from amarl_core.inference import actor, critic, make_scratch, most_likely
from amarl_core.routing import (
    ACCEPTED,
    CAUSES,
    FREE_SLOT,
    HOP_LIMIT,
    LOOP,
    NO_BANDWIDTH,
    NO_COMPUTE,
    NO_LATENCY,
    REFUSED,
    UNREACHABLE,
    begin,
    is_complete,
    look,
    observe,
    take,
)
from amarl_core.simulation import Team, options_for, request_records

ALLOWED = "allowed"
REASONS = {
    LOOP: "visited",
    NO_COMPUTE: "pool cannot run the next stage",
    NO_BANDWIDTH: "no residual bandwidth",
    NO_LATENCY: "latency bound",
    UNREACHABLE: "no completion reachable",
}
STUB, NO_WAY, NOTHING_TO_RUN, TRUNCATED = "stub", "unreachable", "pool with nothing left to run", "truncated slot"
"""Reasons for which a neighbour has no slot at all."""


@dataclass(frozen=True)
class Neighbour:
    """A neighbour of the node where the walk stands.

    Attributes:
        node: its id.
        link: the link to it.
        verdict: "allowed", or the reason in a word or two: a value of REASONS, or one of the four above.
        detail: the figures behind it.
    """

    node: str
    link: str
    verdict: str
    detail: str


@dataclass(frozen=True)
class Hop:
    """One step of a walk.

    Attributes:
        node: where the walk stands.
        ran: functions that ran here on arrival.
        stage: stages done so far.
        latency_ms: latency so far, processing here included.
        neighbours: all of them; those with a slot first, in slot order.
        taken: the link taken next, "" at the end.
    """

    node: str
    ran: tuple[str, ...]
    stage: int
    latency_ms: float
    neighbours: tuple[Neighbour, ...]
    taken: str

    @property
    def allowed(self) -> tuple[str, ...]:
        """Links that the mask allows, in slot order."""
        return tuple(n.link for n in self.neighbours if n.verdict == ALLOWED)


Choice = Callable[[tuple[str, ...]], str]
"""Picks one of the allowed links, which are in slot order."""


class Walker:
    """The kernels' arrays for one request, and their codes in words.

    Args:
        scenario: the world.
        request: a trace of one request.
        run: a trained run whose policy chooses, or None.
        config: mask, slot order and prices, where there is no run.
    """

    def __init__(self, scenario: Any, request: Any, run: Any, config: TrainConfig) -> None:
        self.scenario, self.network, self.run = scenario, scenario.network, run
        self.config = run.config if run else config
        self.rules = options_for(self.config).rules
        self.arrays: World = run.world if run else make_arrays(scenario, self.config.mu)
        self.n_slots = slot_count(self.arrays, self.config.max_slots)
        self.work = make_work(self.arrays, self.n_slots, self.config.max_hops)
        team = run.team if run else Team.of(scenario, "view")
        self.request = request_records(request, team)[0]

    def walk(self, choose: Choice | None) -> tuple[list[Hop], str]:
        """Walk to the end on the snapshot in `work`, one kernel call at a time; return the steps and the cause."""
        begin(self.arrays, self.work, self.request, 0)
        w = self.work.walk[0]
        hops: list[Hop] = []
        stage = 0
        while True:
            ended = self._end()
            neighbours = () if ended is not None else self._look()
            ran = tuple(chain_of(self.scenario, int(self.request["service"]))[stage : int(w["stage"])])
            hop = Hop(self.network.node_ids[w["node"]], ran, int(w["stage"]), float(w["latency"]), neighbours, "")
            if ended is None:
                ended = int(w["cause"]) if not hop.allowed else REFUSED if self._refuses(first=not hops) else None
            if ended is not None:
                return [*hops, hop], CAUSES[ended]
            taken = choose(hop.allowed) if choose else self._choose(hop.allowed)
            hops.append(Hop(hop.node, hop.ran, hop.stage, hop.latency_ms, hop.neighbours, taken))
            stage = int(w["stage"])
            take(self.arrays, self.work, self.request, self.network.link_index[taken])

    def _end(self) -> int | None:
        """Return the cause if the walk has ended before it looks around."""
        w = self.work.walk[0]
        if is_complete(self.arrays, self.work, self.request):
            return ACCEPTED if w["latency"] <= self.scenario.latency_ms[self.request["service"]] else NO_LATENCY
        return HOP_LIMIT if w["n_links"] == self.config.max_hops else None

    def _look(self) -> tuple[Neighbour, ...]:
        """Ask the mask about every neighbour; allowed or not, those with a slot come first."""
        work, network = self.work, self.network
        look(self.arrays, work, self.request, self.rules)
        n = int(work.walk[0]["n_slots"])
        observe(self.arrays, work, self.request, self.rules)  # puts the slots in order
        slots = dict(zip(work.slot_link[:n].tolist(), work.slot_cause[:n].tolist(), strict=True))
        found = [Neighbour(self._target(e), network.link_ids[e], *self._say(e, code)) for e, code in slots.items()]
        start, stop = self.arrays.out_start[work.walk[0]["node"] :][:2]
        others = [int(e) for e in self.arrays.out_links[start:stop] if int(e) not in slots]
        found += [Neighbour(self._target(e), network.link_ids[e], *self._why_no_slot(e)) for e in others]
        return tuple(found)

    def _target(self, e: int) -> str:
        return self.network.node_ids[self.network.target[e]]

    def _say(self, e: int, code: int) -> tuple[str, str]:
        """Put the mask's code for a link in words and figures."""
        w, work, bound = self.work.walk[0], self.work, self.bound_ms
        demand, target, stage = int(self.request["demand"]), int(self.network.target[e]), int(w["stage"])
        free = int(self.network.capacity_kbps[e]) - int(work.snapshot[e]) - int(work.own[e])
        after = float(w["latency"]) + float(self.network.delay_ms[e])
        if code == FREE_SLOT:
            return ALLOWED, f"{free / 1e6:.2f} Gb/s free, {after:.2f} of {bound:g} ms"
        if code == LOOP:
            return REASONS[code], "since the last function ran"
        if code == NO_BANDWIDTH:
            return REASONS[code], f"{free / 1e6:.3f} Gb/s free, {demand / 1e6:.3f} needed"
        if code == NO_COMPUTE:
            return REASONS[code], self._compute(target, stage)
        to_go = float(self.scenario.delay_to_go[self.request["service"], stage, self.request["destination"], target])
        if code == NO_LATENCY:
            to_go = to_go if self.config.mask != "immediate" else 0.0
            return REASONS[code], f"{after + to_go:.2f} ms at least on an idle network, bound {bound:g} ms"
        least = after + float(work.reach[stage, target])
        says = (
            f"{least:.2f} ms at least, bound {bound:g} ms"
            if np.isfinite(least)
            else "every way on is full, visited or too long"
        )
        return REASONS[UNREACHABLE], says

    def _compute(self, node: int, stage: int) -> str:
        """Say why a pool cannot run a stage."""
        function = chain_of(self.scenario, int(self.request["service"]))[stage]
        if self.scenario.rate_mcpu_per_gbps[node, self.scenario.function_ids.index(function)] < 0:
            return f"does not host {function}"
        r = self.network.n_links + node
        free = int(self.scenario.budget_mcpu[node]) - int(self.work.snapshot[r]) - int(self.work.own[r])
        name = self.network.node_ids[node]
        need = need_of(self.scenario, int(self.request["service"]), stage, name, int(self.request["demand"]))
        return f"{free} millicores free, {function} needs {need}"

    def _why_no_slot(self, e: int) -> tuple[str, str]:
        """Say why a neighbour is none of the slots."""
        target, stage = int(self.network.target[e]), int(self.work.walk[0]["stage"])
        service, destination = int(self.request["service"]), int(self.request["destination"])
        if self.scenario.stub[target] and target != destination:
            return STUB, "entered only as a destination"
        if not np.isfinite(self.scenario.delay_to_go[service, stage, destination, target]):
            return NO_WAY, "no way to finish from there, even on an idle network"
        if stage == self.scenario.chain_length[service] and self.arrays.nodes["leaf"][target] and target != destination:
            return NOTHING_TO_RUN, "the chain is done"
        return TRUNCATED, f"beyond the {self.n_slots} nearest useful neighbours"

    @property
    def bound_ms(self) -> float:
        """Latency bound of the request (paper: tau_p)."""
        return float(self.scenario.latency_ms[self.request["service"]])

    def _refuses(self, first: bool) -> bool:
        """Whether a trained agent lets the request go, which it may do at its start."""
        if self.run is None or not first or not self.rules.may_refuse:
            return False
        nets, agent = self.run.nets, int(self.request["agent"])
        return bool(critic(nets, agent, self.work.observation, make_scratch(nets)) < self.config.failure)

    def _choose(self, allowed: tuple[str, ...]) -> str:
        """Return the policy's most likely slot, or the cheapest one without a policy."""
        if self.run is None or len(allowed) == 1:
            return allowed[0]
        scratch = make_scratch(self.run.nets)
        actor(self.run.nets, int(self.request["agent"]), self.work.observation, scratch)
        slot = most_likely(scratch.logits, self.work.mask)
        return self.network.link_ids[self.work.slot_link[slot]]


def chain_of(scenario: Any, service: int) -> list[str]:
    """Return the functions of a service's chain."""
    return [scenario.function_ids[f] for f in scenario.chains[service] if f >= 0]


def need_of(scenario: Any, service: int, stage: int, host: str, demand_kbps: int) -> int:
    """Return a stage's compute on a host in millicores, in integers."""
    rate = int(scenario.rate_mcpu_per_gbps[scenario.network.node_index[host], scenario.chains[service, stage]])
    return -(-demand_kbps * rate // 1_000_000)
