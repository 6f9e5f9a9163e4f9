"""The learners: one central agent (SARL) or one agent per service (AMARL), in threads on one shared network.

Every agent alternates between a compiled rollout of its own requests and an update of its own Maskable PPO. In AMARL
all six do so at once and never synchronise: they meet only in the store's lock and in the bounded lag of their clocks.
"""

import dataclasses
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sb3_contrib import MaskablePPO

from amarl_core.arena import DONE, FULL, STOPPED
from amarl_core.arrays import World, make_world, observation_size, slot_count, truncated_nodes
from amarl_core.config import TrainConfig, make_config
from amarl_core.inference import Nets, make_nets
from amarl_core.policy import (
    UpdateStats,
    build_model,
    copy_weights,
    load_model,
    save_model,
    update,
    warm_up,
)
from amarl_core.progress import Progress
from amarl_core.runs import RunFolder, provenance, usable_cores
from amarl_core.simulation import Clocked, Simulation, Team, options_for, run_threads
from amarl_core.traces import Trace, repeat

log = logging.getLogger(__name__)

PROBE_REQUESTS = 3000
"""Requests of the first day that an untrained team walks through to size each agent's rollout."""

LEAST_ROLLOUT = 64
NICE = 5
"""How much an agent's thread gives way to the busiest agent's (Unix niceness)."""

DAY_S = 86_400.0


@dataclass
class Run:
    """A trained team, ready to route; `simulation` holds the training records of a run just made."""

    config: TrainConfig
    scenario: object
    team: Team
    world: World
    models: list[MaskablePPO]
    nets: Nets
    status: str = "running"
    folder: Path | None = None
    progress: pd.DataFrame = field(default_factory=pd.DataFrame)
    timing: dict = field(default_factory=dict)
    simulation: Simulation | None = None

    @property
    def method(self) -> str:
        """`sarl` or `amarl`."""
        return self.config.method

    @property
    def seed(self) -> int:
        """The seed of traffic, weights and sampling."""
        return self.config.seed


def training_trace(scenario, config: TrainConfig) -> Trace:
    """Return the requests that a configuration trains on, in one continuous timeline."""
    trace = scenario.training_trace(seed=config.seed, days=config.days)
    return repeat(trace, config.passes, config.days * DAY_S) if config.passes > 1 else trace


def untrained(scenario, config: TrainConfig) -> Run:
    """Return a team with fresh weights."""
    world = make_world(scenario, config.mu)
    team = Team.of(scenario, config.method)
    n_slots = slot_count(world, config.max_slots)
    n_inputs = observation_size(world, n_slots)
    for node in truncated_nodes(world, n_slots):
        log.warning(
            "node %s has more useful neighbours than the %d slots; the farthest are left out",
            scenario.network.node_ids[node],
            n_slots,
        )
    seeds = np.random.SeedSequence([config.seed, 0]).generate_state(len(team.agents))
    models = [build_model(config, n_inputs, n_slots, int(seed)) for seed in seeds]
    nets = make_nets(len(team.agents), n_inputs, config.width, n_slots, config.activation)
    for a, model in enumerate(models):
        copy_weights(model, nets, a)
    return Run(config, scenario, team, world, models, nets)


def rollout_sizes(run: Run, trace: Trace) -> list[int]:
    """Return each agent's decisions per rollout: its own decisions of a day, divided by `rollouts_per_day`."""
    probe = trace.head(PROBE_REQUESTS)
    simulation = Simulation(run.scenario, run.world, probe, run.team, run.nets, options_for(run.config))
    for a in range(len(simulation.agents)):  # one after the other: the sizes do not depend on threads
        simulation.serve(a, "free")
    n_days = run.config.days * run.config.passes
    agent_of_request = run.team.agent_of_service[trace.service]
    sizes = []
    for a, agent in enumerate(simulation.agents):
        per_request = agent.stream["steps"][0] / max(agent.stream["cursor"][0], 1)
        per_day = per_request * (agent_of_request == a).sum() / n_days
        sizes.append(max(LEAST_ROLLOUT, int(per_day / run.config.rollouts_per_day)))
    return sizes


class Training:
    """One training run: the threads' work and what they report."""

    def __init__(self, run: Run, trace: Trace, on_progress: Callable[[pd.DataFrame], None] | None = None):
        config, n_agents = run.config, len(run.team.agents)
        self.run, self.config = run, config
        sizes = rollout_sizes(run, trace)
        lag_s = np.inf if config.deterministic or n_agents == 1 else config.lag_s
        self.simulation = Simulation(
            run.scenario,
            run.world,
            trace,
            run.team,
            run.nets,
            options_for(config, learn=True, lag_s=lag_s),
            [size + config.max_hops for size in sizes],
        )
        self.end_s = float(trace.t_s[-1]) if len(trace) else 0.0
        warm_up(config)
        # the agent with most requests bounds the wall-clock: the others leave it a core, and their updates queue
        self.busiest = max(range(n_agents), key=lambda a: sizes[a])
        self.update_slots = threading.Semaphore(max(1, usable_cores() - 1))
        streams = np.random.SeedSequence([config.seed, 1]).spawn(n_agents)
        self.generators = [np.random.default_rng(stream) for stream in streams]
        self.progress = Progress(run.team.agents, len(trace), run.folder, on_progress)

    def learn(self, a: int) -> None:
        """Alternate rollouts and updates until agent a's requests are served or a stop is asked for."""
        torch.set_num_threads(self.config.torch_threads)
        if a != self.busiest and sys.platform == "linux":  # elsewhere a thread has no priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while self.learn_once(a, np.inf) not in (DONE, STOPPED):
            pass

    def learn_once(self, a: int, horizon_s: float) -> int:
        """Do one rollout of agent a, up to a time, and an update if its buffer is full; return the kernel's code."""
        agent = self.simulation.agents[a]
        if agent.buffer.fill[0] == 0:
            self.generators[a].random(out=agent.buffer.uniform)
        start = time.perf_counter()
        code = self.simulation.serve(a, "free", horizon_s)
        served = time.perf_counter()
        n = int(agent.buffer.fill[0])
        stats = None
        if code == FULL or (code == DONE and n >= 2):
            with nullcontext() if a == self.busiest else self.update_slots:
                stats = self._update(a, n)
            agent.buffer.fill[0] = 0
        self.progress.note(a, agent, stats, n, served - start, time.perf_counter() - served)
        return code

    def _update(self, a: int, n: int) -> UpdateStats:
        agent, model = self.simulation.agents[a], self.run.models[a]
        remaining = max(0.0, 1.0 - agent.stream["clock"][0] / self.end_s)
        stats = update(model, agent.buffer, n, remaining, self.generators[a])
        copy_weights(model, self.run.nets, a)
        return stats

    def take_turns(self) -> Clocked:
        """Train on one thread, always letting the agent with the earliest next event go on."""

        def work(_: int) -> None:
            torch.set_num_threads(1)
            clock, done = self.simulation.arena.gate.clock, [False] * len(self.run.team.agents)
            while not all(done) and not self.simulation.stopped:
                waiting = [a for a in range(len(done)) if not done[a]]
                a = min(waiting, key=lambda agent: clock[agent])
                horizon_s = min((clock[b] for b in waiting if b != a), default=np.inf)
                done[a] = self.learn_once(a, max(horizon_s, clock[a])) == DONE

        return run_threads(("deterministic",), work, self.simulation.stop, self.progress.tick)

    def start(self) -> Clocked:
        """Train to the end, or to a stop."""
        if self.config.deterministic:
            return self.take_turns()
        return run_threads(self.run.team.agents, self.learn, self.simulation.stop, self.progress.tick)


def train(
    scenario,
    method: str = "amarl",
    seed: int = 0,
    *,
    folder: str | Path | None = None,
    on_progress: Callable[[pd.DataFrame], None] | None = None,
    config: TrainConfig | None = None,
    trace: Trace | None = None,
    **choices: object,
) -> Run:
    """Train a team.

    Args:
        scenario: the world.
        method: `sarl` or `amarl`.
        seed: of traffic, weights and sampling.
        folder: where the run is recorded; None keeps it in memory. A finished run there is refused.
        on_progress: called now and then with the progress table so far.
        config: a full configuration instead of method, seed and choices.
        trace: requests to train on instead of the configured training days.
        **choices: any other field of `TrainConfig`.

    Returns:
        The run; its status is `stopped` when Ctrl-C ended it early, with what it had.

    Raises:
        AmarlError: an unknown or invalid setting.
        AgentError: an agent's thread failed; the message starts with the agent's name.
    """
    config = config or make_config(method=method, seed=seed, **choices)
    trace = training_trace(scenario, config) if trace is None else trace
    run = untrained(scenario, config)
    place = None
    if folder is not None:
        run.folder = Path(folder)
        place = RunFolder(folder).start(dataclasses.asdict(config), provenance(scenario, [trace]))
    try:
        compile_start = time.perf_counter()
        training = Training(run, trace, on_progress)
        compile_s = time.perf_counter() - compile_start
        clocked = _start(training, run)
        run.simulation = training.simulation
        run.progress = training.progress.frame()
        run.timing = training.progress.timing(clocked, compile_s)
        if place is not None:
            _record(run, place)
    except BaseException as error:
        if place is not None:
            place.fail(error)
        raise
    return run


def _start(training: Training, run: Run) -> Clocked:
    """Run the threads; Ctrl-C keeps what there is."""
    began = time.perf_counter()
    try:
        clocked = training.start()
        run.status = "stopped" if training.simulation.stopped else "finished"
    except KeyboardInterrupt:
        clocked = Clocked(time.perf_counter() - began, float("nan"))
        run.status = "stopped"
        log.warning("stopped by Ctrl-C; keeping what was learned so far")
    return clocked


def _record(run: Run, place: RunFolder) -> None:
    """Write models, progress, timing and training records; mark the run."""
    for agent, model in zip(run.team.agents, run.models, strict=True):
        save_model(model, run.folder / "model", agent, run.config, run.scenario)
    place.save_frame("progress.parquet", run.progress)
    place.save_json("timing.json", run.timing)
    place.save_frame("decisions_train.parquet", run.simulation.decisions())
    place.save_frame("ledger_train.parquet", run.simulation.ledger())
    if run.status == "finished":
        place.finish()
    else:
        place.stop()


def load_run(folder: str | Path, scenario) -> Run:
    """Load a finished run.

    Raises:
        RunError: an unfinished run, or a model that does not fit the scenario.
    """
    place = RunFolder(folder).require_finished()
    config = make_config(**place.json("config.json"))
    run = untrained(scenario, config)
    n_slots = run.nets.actor_3.shape[2]
    run.models = [
        load_model(Path(folder) / "model", agent, scenario, observation_size(run.world, n_slots), n_slots)
        for agent in run.team.agents
    ]
    for a, model in enumerate(run.models):
        copy_weights(model, run.nets, a)
    run.folder, run.status = Path(folder), "finished"
    run.progress, run.timing = place.frame("progress.parquet"), place.json("timing.json")
    return run
