"""One request routed hop by hop, for people: where it stands, which neighbours the mask allows, and why not the others.

view = route_by_hops(scenario, trace[5:6], store.snapshot())
view.frame()                          # a row for each neighbour of each step
view.drawing(NetworkMap(scenario))    # the same on the map
store.commit(1, view.delta(), view.version)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from amarl_core.config import TrainConfig
from amarl_core.errors import AmarlError
from amarl_core.hop_walk import ALLOWED, STUB, Choice, Hop, Walker, chain_of, need_of
from amarl_core.look import Table
from amarl_core.maps import Drawing, NetworkMap
from amarl_core.store import Delta, ResourceStore, Snapshot


@dataclass(frozen=True)
class HopView:
    """A walk from its source to its end.

    Attributes:
        scenario: the world.
        request: its name, service, ends and demand, in one line.
        demand_kbps: bandwidth of the request.
        service: its index.
        hops: the steps.
        cause: "accepted" for a complete route within its bound, else why the walk ended.
        links, hosts: the route, as in a decisions file.
        version: of the snapshot.
    """

    scenario: Any
    request: str
    demand_kbps: int
    service: int
    hops: tuple[Hop, ...]
    cause: str
    links: tuple[str, ...]
    hosts: tuple[str, ...]
    version: int

    @property
    def latency_ms(self) -> float:
        """Latency at the end of the walk."""
        return self.hops[-1].latency_ms

    def frame(self, only_slots: bool = False) -> pd.DataFrame:
        """Return a row for each neighbour of each step.

        Args:
            only_slots: leave out the radio sites, which are never on the way to elsewhere.

        Returns:
            Columns step, at, latency_ms, next_function, neighbour, verdict, detail, taken.
        """
        chain = chain_of(self.scenario, self.service)
        rows = [
            {
                "step": number,
                "at": hop.node,
                "latency_ms": hop.latency_ms,
                "next_function": chain[hop.stage] if hop.stage < len(chain) else "",
                "neighbour": neighbour.node,
                "verdict": neighbour.verdict,
                "detail": neighbour.detail,
                "taken": neighbour.link == hop.taken,
            }
            for number, hop in enumerate(self.hops, 1)
            for neighbour in hop.neighbours
            if not (only_slots and neighbour.verdict == STUB)
        ]
        return pd.DataFrame(rows)

    def table(self) -> Table:
        """Return the same for a page, radio sites left out; the hops that were taken are set off."""
        frame = self.frame(only_slots=True)
        is_first = frame["step"] != frame["step"].shift()
        following = "next " + frame["next_function"].replace("", "the end")
        at = (
            frame["step"].astype(str) + ": " + frame["at"] + frame["latency_ms"].map(", {:.2f} ms, ".format) + following
        )
        rows = pd.DataFrame(
            {
                "step": at.where(is_first, ""),
                "neighbour": frame["neighbour"],
                "mask": frame["verdict"].where(~frame["taken"], ALLOWED + ", taken"),
                "figures": frame["detail"],
            }
        )
        end = f"{self.cause.replace('_', ' ')} after {self.latency_ms:.2f} ms"
        caption = f"{self.request}: {end}. In slot order; radio sites that are not the destination are left out."
        taken = tuple(np.flatnonzero(frame["taken"]).tolist())
        return Table(rows, caption, ("neighbour", "mask", "figures"), taken)

    def delta(self) -> Delta:
        """Return what the route takes of links and nodes, as a store's commit expects it."""
        links: dict[str, int] = {}
        nodes: dict[str, int] = {}
        for link in self.links:
            links[link] = links.get(link, 0) + self.demand_kbps
        for stage, host in enumerate(self.hosts):
            nodes[host] = nodes.get(host, 0) + need_of(self.scenario, self.service, stage, host, self.demand_kbps)
        return Delta(links, nodes)

    def svg(self, chart: NetworkMap, step: int | None = None, **shares: np.ndarray | None) -> str:
        """Draw the walk on a map.

        Args:
            chart: the map of the scenario.
            step: 1 for the first step and so on: the way so far and the neighbours there; None: the whole way.
            shares: `link_share` and `node_share` of the map.
        """
        index = self.scenario.network.link_index
        done = self.hops if step is None else self.hops[: step - 1]
        overlay = {index[hop.taken]: "path" for hop in done if hop.taken}
        title = f"The whole way: {self.cause.replace('_', ' ')} after {self.latency_ms:.2f} ms"
        if step is not None:
            hop = self.hops[step - 1]
            title = f"Step {step}: at {hop.node} after {hop.latency_ms:.2f} ms"
            shown = [n for n in hop.neighbours if n.verdict != STUB]
            overlay |= {index[n.link]: "allowed" if n.verdict == ALLOWED else "pruned" for n in shown}
        return chart.svg(title=title, overlay=overlay, marks=self._marks(step), **shares)

    def _marks(self, step: int | None) -> dict[int, str]:
        """Name the functions where they ran, and the ends."""
        node_index = self.scenario.network.node_index
        marks: dict[int, str] = {}
        for hop in self.hops if step is None else self.hops[:step]:
            if hop.ran:
                v = node_index[hop.node]
                marks[v] = " ".join(filter(None, [marks.get(v, ""), "+".join(hop.ran)]))
        last = self.hops[-1 if step is None else step - 1].node
        marks.setdefault(node_index[last], "end" if step is None else "here")
        marks.setdefault(node_index[self.hops[0].node], "start")
        return marks

    def drawing(self, chart: NetworkMap, at_most: int = 6) -> Drawing:
        """Draw the steps that say most, those with a choice to make before others, and the whole way."""
        numbered = list(enumerate(self.hops, 1))
        telling = sorted(numbered, key=lambda step: (len(step[1].allowed) < 2, -_n_looked_at(step[1])))
        steps = sorted(number for number, hop in telling[: at_most - 1] if hop.neighbours)
        svgs = (*(self.svg(chart, number) for number in steps), self.svg(chart))
        chosen = "; ".join(f"at {hop.node} {hop.taken or 'the end'}" for hop in self.hops)
        end = f"{self.cause.replace('_', ' ')} after {self.latency_ms:.2f} ms"
        finding = f"{self.request} takes {len(self.links)} links; {end}"
        return Drawing(
            svgs,
            "Blue: the way so far, with the functions where they ran. Green: hops that the mask allows. Red, dashed: "
            "hops that it prunes; hover to read names. Radio sites that are not the destination are never on the way.",
            f"{finding}: {chosen}",
            finding,
        )


def _n_looked_at(hop: Hop) -> int:
    return sum(neighbour.verdict != STUB for neighbour in hop.neighbours)


def fill_store(store: ResourceStore, scenario: Any, trace: Any, t_s: float) -> int:
    """Route and commit, one after the other, every request that would be active at a moment; return how many fit.

    Each takes the cheapest allowed hops on a fresh snapshot. Those that are over by then are left out, so this is a
    busy network at that hour, and not the very one that a day's play leaves.

    Args:
        store: where they commit, under their request ids.
        scenario: the world.
        trace: requests in order of arrival.
        t_s: the moment, s.
    """
    active = np.flatnonzero((trace.t_s <= t_s) & (trace.t_s + trace.hold_s > t_s))
    accepted = 0
    for row in active.tolist():
        view = route_by_hops(scenario, trace[row : row + 1], store.snapshot())
        if view.cause == "accepted":
            number, arrived = int(trace.request_id[row]), float(trace.t_s[row])
            accepted += store.commit(number, view.delta(), view.version, agent="the cheapest way", t_s=arrived).accepted
    return accepted


def telling_request(scenario: Any, trace: Any, snapshot: Snapshot, service: str, t_s: float, n: int = 150) -> Any:
    """Find a request that shows much: of the next n of a service, the one with most kinds of verdicts and some choice.

    Args:
        scenario: the world.
        trace: requests in order of arrival.
        snapshot: the state at `t_s`.
        service: whose request; one that the scenario does not have stands for its first.
        t_s: look at requests from here on, s.
        n: how many to try.

    Returns:
        A trace of one request.

    Raises:
        AmarlError: there is none from then on, or none that can be served.
    """
    s = scenario.service_ids.index(service) if service in scenario.service_ids else 0
    rows = np.flatnonzero((trace.service == s) & (trace.t_s >= t_s))[:n]
    if not len(rows):
        raise AmarlError(
            f"the trace has no request of {scenario.service_ids[s]!r} from {t_s:g} s on; take an earlier time"
        )

    def shows(row: int) -> tuple[bool, int, int]:
        view = route_by_hops(scenario, trace[row : row + 1], snapshot)
        verdicts = {neighbour.verdict for hop in view.hops for neighbour in hop.neighbours}
        n_choices = sum(len(hop.allowed) > 1 for hop in view.hops)
        return view.cause == "accepted", len(verdicts) + min(n_choices, 3), -len(view.hops)

    best = max(rows.tolist(), key=shows)
    if not shows(best)[0]:
        raise AmarlError(
            f"none of the next {len(rows)} requests of {scenario.service_ids[s]!r} can be served on this snapshot; "
            "take a quieter hour or another service"
        )
    return trace[best : best + 1]


def route_by_hops(
    scenario: Any,
    request: Any,
    snapshot: Snapshot,
    *,
    run: Any = None,
    config: TrainConfig | None = None,
    choose: Choice | None = None,
) -> HopView:
    """Route one request on a snapshot and note every step; nothing outside is changed.

    Args:
        scenario: the world.
        request: a trace of one request, such as `trace[5:6]`.
        snapshot: of a `ResourceStore` of the scenario.
        run: a trained run, whose policy chooses, and whose configuration counts.
        config: mask, slot order and prices, where there is no run.
        choose: picks among the allowed links instead; without a run the first slot, the cheapest, is taken.

    Returns:
        The walk.

    Raises:
        AmarlError: not exactly one request, or a snapshot of another network.
    """
    if len(request) != 1:
        raise AmarlError(f"route_by_hops takes one request, got {len(request)}; pass for example trace[5:6]")
    used = np.concatenate([snapshot.used_kbps, snapshot.used_mcpu])
    n = scenario.network.n_links + scenario.network.n_nodes
    if used.shape != (n,):
        raise AmarlError(
            f"the snapshot has {len(used)} links and nodes, the scenario {n}; take it from ResourceStore.of(scenario)"
        )
    walker = Walker(scenario, request, run, config or TrainConfig())
    walker.work.snapshot[:] = used
    hops, cause = walker.walk(choose)
    record, w, names = walker.request, walker.work.walk[0], scenario.network.node_ids
    service = scenario.service_ids[record["service"]].replace("_", " ")
    return HopView(
        scenario,
        f"Request {request.request_id[0]} ({service}, {int(record['demand']) / 1000:g} Mb/s, "
        f"{names[record['source']]} to {names[record['destination']]}, bound {walker.bound_ms:g} ms)",
        int(record["demand"]),
        int(record["service"]),
        tuple(hops),
        cause,
        tuple(scenario.network.link_ids[e] for e in walker.work.links[: w["n_links"]]),
        tuple(names[v] for v in walker.work.hosts[: w["n_hosts"]]),
        snapshot.version,
    )
