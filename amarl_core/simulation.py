"""A run as threads: lay out the memory, let every agent serve its requests, read the records back as frames."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from amarl_core.actors import Cast
from amarl_core.arena import (
    BUSY,
    DONE,
    LIMIT,
    NO_LEDGER,
    NO_ROOM,
    TIMES,
    TURN,
    Agent,
    Arena,
    Options,
    buffer_of,
    lane_of,
    make_flows,
    make_gate,
    make_lanes,
    make_records,
    make_rollouts,
)
from amarl_core.arrays import REQUEST, Rules, World, make_work, observation_size
from amarl_core.arrival import serve_arrival, serve_pipeline
from amarl_core.clocks import serve_clocks
from amarl_core.config import TrainConfig
from amarl_core.errors import AmarlError
from amarl_core.inference import Nets, make_scratch
from amarl_core.native import new_mutex
from amarl_core.rollout import serve_free
from amarl_core.routing import ACCEPTED, CAUSES, MASKS, SLOT_ORDERS
from amarl_core.stopwatch import ON
from amarl_core.store import N_LEDGER, STOP, Shared, ledger_frame, make_shared
from amarl_core.turns import serve_turns

log = logging.getLogger(__name__)

KERNELS = {"free": serve_clocks, "arrival": serve_arrival, "pipeline": serve_pipeline}
ORDERS = tuple(KERNELS)
"""When commits may happen: as soon as the lock is free, or in order of arrival; `pipeline` is the order of arrival on
one thread, with every plan exactly `window` requests old."""


class AgentError(AmarlError):
    """An agent's thread failed; the message starts with the agent's name."""


@dataclass(frozen=True)
class Team:
    """Who serves which service: SARL is one agent for all, AMARL one for each."""

    agents: tuple[str, ...]
    agent_of_service: np.ndarray  # int32[S]

    @classmethod
    def of(cls, scenario, method: str) -> "Team":
        """Return the team of a method: one agent (or actor) per service, or one agent for all under any other name."""
        n = len(scenario.service_ids)
        if method.startswith("amarl") or method == "sarl-async":
            return cls(tuple(scenario.service_ids), np.arange(n, dtype=np.int32))
        return cls((method,), np.zeros(n, np.int32))


def options_for(
    config: TrainConfig,
    *,
    learn: bool = False,
    attempts: int = 1,
    lag_s: float = np.inf,
    window: int = 0,
    locks_routing: bool = False,
) -> Options:
    """Return the kernels' scalars for a configuration."""
    rules = Rules(
        MASKS.index(config.mask),
        SLOT_ORDERS.index(config.slot_order),
        int(config.max_hops),
        int(config.may_refuse),
    )
    return Options(
        rules,
        int(attempts),
        int(learn),
        float(lag_s),
        int(window),
        float(config.success),
        float(config.failure),
        float(config.hop_cost),
        float(config.beta),
        float(config.most_charged),
        float(config.gamma),
        float(config.gae_lambda),
        int(locks_routing),
    )


def request_records(trace, team: Team) -> np.ndarray:
    """Return a trace as REQUEST[n]."""
    requests = np.zeros(len(trace), REQUEST)
    requests["t_s"], requests["hold_s"], requests["demand"] = trace.t_s, trace.hold_s, trace.demand_kbps
    requests["service"], requests["source"] = trace.service, trace.source
    requests["destination"] = trace.destination
    requests["agent"] = team.agent_of_service[trace.service]
    return requests


def peak_active(t_s: np.ndarray, hold_s: np.ndarray) -> int:
    """Return the most flows that are ever active at once if all are accepted."""
    if len(t_s) == 0:
        return 0
    times = np.concatenate([t_s, t_s + hold_s])
    steps = np.repeat([1, -1], len(t_s))
    return int(np.cumsum(steps[np.lexsort((-steps, times))]).max())


class Simulation:
    """An empty network, a trace, a team and its networks, ready to be served once.

    Args:
        scenario: the world.
        world: its arrays for the kernels.
        trace: requests in order of arrival.
        team: who serves what.
        nets: weights of every actor, as `inference.make_nets` lays them out.
        options: the scalars.
        buffer_sizes: decisions of each actor's rollout; zeros when nobody learns.
        n_ledger: rows of the ledger; by default enough for every attempt and departure.
        cast: the team's actors; by default one each.
        is_timed: note in `arena.times` how long every request's plans and commits take.
    """

    def __init__(
        self,
        scenario,
        world: World,
        trace,
        team: Team,
        nets: Nets,
        options: Options,
        buffer_sizes: list[int] | None = None,
        n_ledger: int | None = None,
        cast: Cast | None = None,
        is_timed: bool = False,
    ):
        if trace.service_ids != tuple(scenario.service_ids) or trace.node_ids != tuple(scenario.network.node_ids):
            raise AmarlError(
                f"trace '{trace.name}' belongs to another world than scenario '{scenario.name}': its "
                "services or nodes differ; generate or load it with this scenario"
            )
        self.scenario, self.trace, self.team, self.options = scenario, trace, team, options
        self.order = ""  # the commit order once it is served
        self.stopped = False  # whether a stop was asked for, rather than a pause
        self.cast = cast = cast or Cast.one_each(team.agents)
        n, n_agents, n_slots = len(trace), len(cast.names), nets.actor_3.shape[2]
        requests = request_records(trace, team)
        requests["agent"] = cast.deal(requests["agent"])  # to the kernels every actor is an agent
        n_ledger = n_ledger or n * (2 + options.attempts)
        shared = make_shared(scenario.network.capacity_kbps, scenario.budget_mcpu, n_ledger)
        n_active = peak_active(trace.t_s, trace.hold_s)
        mine = [np.flatnonzero(requests["agent"] == a) for a in range(n_agents)]
        self.arena = Arena(
            world,
            shared,
            make_gate(n_agents),
            nets,
            requests,
            make_records(n, options.rules.max_hops, world.chains.shape[1]),
            make_lanes(mine, [peak_active(trace.t_s[rows], trace.hold_s[rows]) for rows in mine]),
            make_flows(n_active),
            np.zeros(1, np.int64),
            new_mutex(),
            np.zeros(n if is_timed else 0, TIMES),
        )
        self.arena.gate.state[LIMIT] = n
        n_inputs = observation_size(world, n_slots)
        self.rollouts = make_rollouts(buffer_sizes or [0] * n_agents, n_inputs, n_slots)
        self.agents = []
        for a in range(n_agents):  # py_func: compiled, they cannot hand views to Python
            self.agents.append(
                Agent(
                    *lane_of.py_func(self.arena.lanes, a),
                    make_work(world, n_slots, options.rules.max_hops),
                    make_scratch(nets),
                    buffer_of.py_func(self.rollouts, a),
                )
            )

    def time_phases(self) -> None:
        """Let every thread measure what it does from now on (`stopwatch`), at the cost of reading the clock."""
        for agent in self.agents:
            agent.work.watch[ON] = 1

    def stop(self) -> None:
        """Ask every agent to return at its next event."""
        self.stopped = True
        self.arena.shared.control[STOP] = 1

    def pause(self) -> None:
        """The same, until `go_on`."""
        self.arena.shared.control[STOP] = 1

    def go_on(self) -> None:
        """End a pause, unless a stop was asked for; the agents' threads have returned."""
        self.arena.shared.control[STOP] = 0
        if self.stopped:  # asked for just now by another thread, perhaps before the line above
            self.arena.shared.control[STOP] = 1

    def serve(self, a: int, order: str) -> int:
        """Let thread a serve requests of all agents until none is left or a stop; see `arena` for the codes.

        Raises:
            AgentError: the ledger or the flows' memory ran out (a defect of this library).
        """
        self.order = order
        return self._run(a, KERNELS[order])

    def roll_out(self, a: int, horizon_s: float = np.inf) -> int:
        """Let agent a serve its own requests in free order until none is left, its buffer is full, an event is later
        than the horizon, or a stop. Raises what `serve` raises."""
        self.order = "free"
        return self._run(a, serve_free, horizon_s)

    def take_turns(self) -> tuple[int, int, float]:
        """Let all agents serve their requests on this thread in order of time, until one needs its rollout or policy
        seen to; see `turns.serve_turns`. Raises what `serve` raises."""
        self.order = "free"
        a, code, horizon_s = serve_turns(self.arena, self.agents[0], self.rollouts, self.options)
        self._check(a, code)
        return a, code, horizon_s

    def _run(self, a: int, kernel: Callable, *limits: float) -> int:
        while True:
            code = kernel(self.arena, self.agents[a], self.options, *limits)
            self._check(a, code)
            if code != BUSY:
                return code

    def _check(self, a: int, code: int) -> None:
        if code in (NO_LEDGER, NO_ROOM):
            raise AgentError(f"{self.cast.names[a]}: ran out of {'ledger rows' if code == NO_LEDGER else 'flows'}")

    def decisions(self) -> pd.DataFrame:
        """Return one row per request served so far, in order of arrival."""
        return decisions_frame(self, self._served())

    def decision_parts(self, n: int) -> Iterator[pd.DataFrame]:
        """Yield the same in pieces of n rows, of which a long run holds one at a time."""
        served = self._served()
        for first in range(0, max(len(served), 1), n):
            yield decisions_frame(self, served[first : first + n])

    def _served(self) -> np.ndarray:
        """Return the rows of requests that are decided."""
        served = np.flatnonzero(self.arena.records.rows["attempts"] > 0)
        if self.order in ("arrival", "pipeline"):  # plans made ahead of their turn are not decided yet
            served = served[served < self.arena.gate.state[TURN]]
        return served

    def ledger_parts(self, n: int) -> Iterator[pd.DataFrame]:
        """Yield the ledger in pieces of n rows."""
        whole = self.arena.shared
        n_rows = int(whole.control[N_LEDGER])
        for first in range(0, max(n_rows, 1), n):
            control = whole.control.copy()
            control[N_LEDGER] = min(n, n_rows - first)
            part = self.ledger(whole._replace(control=control, ledger=whole.ledger[first:]))
            yield part.assign(seq=part["seq"] + first)

    def ledger(self, shared: Shared | None = None) -> pd.DataFrame:
        """Return the ledger in lock order; of another store than the run's, if it is given."""
        network = self.scenario.network
        ledger = ledger_frame(
            self.arena.shared if shared is None else shared,
            self.trace.request_id,
            self.cast.names,
            tuple(network.link_ids) + tuple(network.node_ids),
        )
        codes = self.cast.agent_of_actor[ledger["agent"].cat.codes]
        return ledger.assign(agent=pd.Categorical.from_codes(codes, self.team.agents))


def decisions_frame(simulation: Simulation, served: np.ndarray) -> pd.DataFrame:
    """Return the decisions table of the given request rows."""
    scenario, trace, records = simulation.scenario, simulation.trace, simulation.arena.records
    requests, rows = simulation.arena.requests[served], records.rows[served]
    network = scenario.network

    def names(codes: np.ndarray, of: tuple[str, ...]) -> pd.Categorical:
        return pd.Categorical.from_codes(codes, list(of))

    return pd.DataFrame(
        {
            "request_id": trace.request_id[served],
            "t_s": requests["t_s"],
            "hold_s": requests["hold_s"],
            "service": names(requests["service"], scenario.service_ids),
            "agent": names(simulation.cast.agent_of_actor[requests["agent"]], simulation.team.agents),
            "source": names(requests["source"], network.node_ids),
            "destination": names(requests["destination"], network.node_ids),
            "demand_kbps": requests["demand"],
            "accepted": rows["cause"] == ACCEPTED,
            "cause": names(rows["cause"], CAUSES),
            "latency_ms": rows["latency"],
            "budget_ms": scenario.latency_ms[requests["service"]],
            "hops": rows["n_links"].astype(np.int16),
            "links": list_column(records.links, served, rows["n_links"], network.link_ids),
            "hosts": list_column(records.hosts, served, rows["n_hosts"], network.node_ids),
            "attempts": rows["attempts"].astype(np.int8),
            "snapshot_version": rows["snapshot_version"],
            "commit_version": rows["commit_version"],
        }
    )


def list_column(table: np.ndarray, served: np.ndarray, lengths: np.ndarray, names: tuple[str, ...]) -> pd.Series:
    """Return ragged rows of codes as a pandas column of lists of names, dictionary-encoded."""
    table = table[served]
    flat = table[np.arange(table.shape[1]) < lengths[:, None]]
    values = pa.DictionaryArray.from_arrays(pa.array(flat, pa.int16()), pa.array(names, pa.string()))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, values)
    return pd.Series(pd.arrays.ArrowExtensionArray(pa.chunked_array([lists])))


@dataclass(frozen=True)
class Clocked:
    """What serving took: wall and CPU seconds."""

    wall_s: float
    cpu_s: float


def run_threads(
    names: tuple[str, ...],
    work: Callable[[int], None],
    stop: Callable[[], None],
    on_tick: Callable[[], None] = lambda: None,
    tick_s: float = 0.2,
) -> Clocked:
    """Run work(0), work(1), ... each in a thread of its own, calling on_tick about every tick_s seconds meanwhile.

    An error in one thread stops the others and is raised here with the agent's name; Ctrl-C, or an error of on_tick,
    stops them all, waits for them, and is raised again.
    """
    errors: list[tuple[str, BaseException]] = []

    def guarded(a: int) -> None:
        try:
            work(a)
        except BaseException as error:  # handed to the caller below
            errors.append((names[a], error))
            stop()

    threads = [threading.Thread(target=guarded, args=(a,), name=names[a], daemon=True) for a in range(len(names))]
    wall, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(tick_s)
                on_tick()
    except BaseException:  # Ctrl-C, or an error of on_tick
        stop()
        for thread in threads:
            thread.join()
        raise
    clocked = Clocked(time.perf_counter() - wall, time.process_time() - cpu)
    if errors:
        name, error = errors[0]
        if isinstance(error, AgentError):
            raise error
        raise AgentError(f"{name}: {type(error).__name__}: {error}") from error
    return clocked


def play(simulation: Simulation, order: str, n_threads: int | None = None) -> Clocked:
    """Serve a whole trace with a thread for every agent, or so many (in the order `pipeline`, all on one).

    Raises:
        AmarlError: an unknown order.
        AgentError: an agent failed.
    """
    if order not in ORDERS:
        raise AmarlError(f"order is {order!r}; expected one of {', '.join(ORDERS)}")
    names = simulation.team.agents[: 1 if order == "pipeline" else n_threads]
    return run_threads(names, lambda a: _serve_to_the_end(simulation, a, order), simulation.stop)


def _serve_to_the_end(simulation: Simulation, a: int, order: str) -> None:
    code = simulation.serve(a, order)
    if code != DONE and not simulation.stopped:
        raise AgentError(f"{simulation.team.agents[a]}: stopped early with code {code}")
