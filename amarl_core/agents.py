"""The learners: one central agent (SARL) or one agent per service (AMARL), in threads on one shared network.

Every agent alternates between a compiled rollout of its own requests and an update of its own Maskable PPO. In AMARL
all six do so at once and never synchronise: they meet only in the store's lock and in the bounded lag of their clocks.
Three more forms tell apart what asynchrony does and what many policies do: `amarl-serial` (six policies, one thread),
`sarl-async` (six actors, one policy) and `amarl-sync` (six agents that wait for each other at every update).
"""

import dataclasses
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from amarl_core.arena import AHEAD, DONE, FULL, STOPPED
from amarl_core.config import TrainConfig, make_config
from amarl_core.policy import UpdateStats, copy_weights, update, warm_up
from amarl_core.progress import Progress
from amarl_core.runs import RunFolder, provenance, usable_cores
from amarl_core.simulation import Clocked, Simulation, options_for, run_threads
from amarl_core.teams import Run, record, untrained
from amarl_core.traces import Trace, repeat
from amarl_core.turns import NOBODY

log = logging.getLogger(__name__)

PROBE_REQUESTS = 3000
"""Requests of the first day that an untrained team walks through to size each agent's rollout."""

LEAST_ROLLOUT = 64
NICE = 5
"""How much an agent's thread gives way to the busiest agent's (Unix niceness)."""

DAY_S = 86_400.0


def training_trace(scenario, config: TrainConfig) -> Trace:
    """Return the requests that a configuration trains on, in one continuous timeline."""
    trace = scenario.training_trace(seed=config.seed, days=config.days)
    return repeat(trace, config.passes, config.days * DAY_S) if config.passes > 1 else trace


def rollout_sizes(run: Run, trace: Trace) -> list[int]:
    """Return each agent's decisions per rollout: its own decisions of a day, divided by `rollouts_per_day`."""
    probe = trace.head(PROBE_REQUESTS)
    simulation = Simulation(run.scenario, run.world, probe, run.team, run.nets, options_for(run.config))
    for a in range(len(simulation.agents)):  # one after the other: the sizes do not depend on threads
        simulation.roll_out(a)
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
        # one thread needs no bound, and with one a barrier would wait for agents that wait for the slowest clock
        free_running = config.is_serial or config.is_synchronised or n_agents == 1
        self.simulation = Simulation(
            run.scenario,
            run.world,
            trace,
            run.team,
            run.nets,
            options_for(config, learn=True, lag_s=np.inf if free_running else config.lag_s),
            [size + config.max_hops for size in sizes],
        )
        self.end_s = float(trace.t_s[-1]) if len(trace) else 0.0
        warm_up(config)
        if config.is_serial:
            self.simulation.take_turns()  # compiles; while all rollouts are empty it does nothing else
        # the agent with most requests bounds the wall-clock: the others leave it a core, and their updates queue
        self.busiest = max(range(n_agents), key=lambda a: sizes[a])
        self.update_slots = threading.Semaphore(max(1, usable_cores() - 1))
        self.one_policy = threading.Lock() if config.shares_policy else nullcontext()  # guards the shared model
        self.barrier = threading.Barrier(n_agents)
        self.is_done = [False] * n_agents
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

    def learn_in_step(self, a: int) -> None:
        """The same, but every update waits until all agents have a full rollout or no request left."""
        torch.set_num_threads(self.config.torch_threads)
        try:
            while not all(self.is_done):
                code, rollout_s = (DONE, 0.0) if self.is_done[a] else self._roll_out(a, np.inf)
                if code == STOPPED:
                    self.barrier.abort()
                    return
                idle_s = self._meet()
                self.is_done[a] = code == DONE
                if rollout_s > 0:
                    self._learn_from_rollout(a, code, rollout_s)
                self.progress.note_idle(a, idle_s + self._meet())
        except threading.BrokenBarrierError:
            return  # a stop, or another agent's failure

    def _meet(self) -> float:
        """Wait for all agents; return the seconds it took."""
        start = time.perf_counter()
        self.barrier.wait()
        return time.perf_counter() - start

    def learn_once(self, a: int, horizon_s: float) -> int:
        """Do one rollout of agent a, up to a time, and an update if its buffer is full; return the kernel's code."""
        code, rollout_s = self._roll_out(a, horizon_s)
        self._learn_from_rollout(a, code, rollout_s)
        return code

    def _roll_out(self, a: int, horizon_s: float) -> tuple[int, float]:
        """Let agent a serve; return the kernel's code and the seconds it took."""
        agent = self.simulation.agents[a]
        if agent.buffer.fill[0] == 0:
            self.generators[a].random(out=agent.buffer.uniform)
            if self.config.shares_policy:  # another actor may have updated it since
                with self.one_policy:
                    copy_weights(self.run.models[a], self.run.nets, a)
        start = time.perf_counter()
        code = self.simulation.roll_out(a, horizon_s)
        return code, time.perf_counter() - start

    def _learn_from_rollout(self, a: int, code: int, rollout_s: float) -> None:
        """Update agent a's policy if its rollout is complete, and note what happened."""
        agent = self.simulation.agents[a]
        n, stats, start = int(agent.buffer.fill[0]), None, time.perf_counter()
        if code == FULL or (code == DONE and n >= 2):
            with nullcontext() if a == self.busiest or self.config.is_synchronised else self.update_slots:
                with self.one_policy:
                    stats = self._update(a, n)
            agent.buffer.fill[0] = 0
        self.progress.note(a, agent, stats, n, rollout_s, time.perf_counter() - start)

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
            while not self.simulation.stopped:
                a, code, horizon_s = self.simulation.take_turns()
                if a == NOBODY:
                    return
                if code == AHEAD:  # an empty rollout: draws for it first
                    self.learn_once(a, horizon_s)
                    continue
                stream = self.simulation.agents[a].stream[0]
                self._learn_from_rollout(a, code, stream["turns_ns"] / 1e9)
                stream["turns_ns"] = 0

        return run_threads(("deterministic",), work, self.simulation.stop, self.progress.tick)

    def start(self) -> Clocked:
        """Train to the end, or to a stop."""
        if self.config.is_serial:
            return self.take_turns()
        learn = self.learn_in_step if self.config.is_synchronised else self.learn
        return run_threads(self.run.team.agents, learn, self.stop, self.progress.tick)

    def stop(self) -> None:
        """Ask every agent to return, also those that wait for others."""
        self.simulation.stop()
        self.barrier.abort()


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
        method: one of `config.ALL_METHODS`.
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
            record(run, place)
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
