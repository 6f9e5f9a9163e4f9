"""The learners: one central agent (SARL) or one agent per service (AMARL), in threads on one shared network.

Every agent alternates between a compiled rollout of its own requests and an update of its own Maskable PPO. In AMARL
all six do so at once and never synchronise: they meet only in the store's lock and in the bounded lag of their clocks.
An agent that carries much may have several actors (`actors`), threads that share its policy; here `a` is an actor.
Three more forms tell apart what asynchrony does and what many policies do: `amarl-serial` (six policies, one thread),
`sarl-async` (six actors, one policy) and `amarl-sync` (six agents that wait for each other at every update).
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from amarl_core.actors import Cast, cast_of
from amarl_core.arena import AHEAD, DONE, FULL, STOPPED
from amarl_core.boards import Boards, place_of_boards
from amarl_core.checkpoint import Checkpoint, identity
from amarl_core.config import TrainConfig, make_config
from amarl_core.errors import AmarlError, StorageError
from amarl_core.policy import UpdateStats, update, warm_up
from amarl_core.progress import Progress
from amarl_core.runs import RunFolder, provenance, usable_cores
from amarl_core.shared_policies import SharedPolicies
from amarl_core.simulation import Simulation, options_for, run_threads
from amarl_core.teams import Run, record, untrained
from amarl_core.timeline import Timeline
from amarl_core.traces import Trace, repeat
from amarl_core.turns import NOBODY

log = logging.getLogger(__name__)

PROBE_REQUESTS = 3000
"""Requests of the first day that an untrained team walks through to size each agent's rollout."""

LEAST_ROLLOUT = 64
NICE = 5
"""How much an agent's thread gives way to the busiest agent's (Unix niceness)."""

DAY_S = 86_400.0
CHECKPOINT_S = 60.0
"""Seconds between checkpoints: a training that is shorter writes none."""


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


@dataclass
class Spent:
    """What a training took so far, over all its parts."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    checkpoint_s: float = 0.0  # of wall_s: writing checkpoints, while the agents wait
    n_checkpoints: int = 0
    n_resumed: int = 0  # how often it went on after a stop, a failure or a kill


class Training:
    """One training run: the threads' work and what they report.

    Args:
        run: an untrained team.
        trace: what it trains on.
        on_progress: see `train`.
        sizes: decisions of each agent's rollout, if they are known.
        counts: actors of each agent, if they are known.
    """

    def __init__(
        self,
        run: Run,
        trace: Trace,
        on_progress: Callable[[pd.DataFrame], None] | None = None,
        sizes: list[int] | None = None,
        counts: list[int] | None = None,
    ):
        config, agents = run.config, run.team.agents
        self.run, self.config = run, config
        self.sizes = sizes = sizes or rollout_sizes(run, trace)
        self.cast = cast = Cast(agents, tuple(counts)) if counts else cast_of(config, agents, sizes)
        n_actors = len(cast.names)
        shares = [max(LEAST_ROLLOUT, sizes[a] // cast.counts[a]) for a in cast.agent_of_actor]
        # one thread needs no bound, and with one a barrier would wait for agents that wait for the slowest clock
        free_running = config.is_serial or config.is_synchronised or n_actors == 1
        self.simulation = Simulation(
            run.scenario,
            run.world,
            trace,
            run.team,
            cast.nets(run.nets),
            options_for(config, learn=True, lag_s=np.inf if free_running else config.lag_s),
            [size + config.max_hops for size in shares],
            cast=cast,
        )
        self.end_s = float(trace.t_s[-1]) if len(trace) else 0.0
        warm_up(config)
        if config.is_serial:
            self.simulation.take_turns()  # compiles; while all rollouts are empty it does nothing else
        # the actor with most requests bounds the wall-clock: the others leave it a core, and their updates queue
        self.is_busiest = [share == max(shares) for share in shares]
        self.update_slots = threading.Semaphore(max(1, usable_cores() - 1))
        self.policies = SharedPolicies(run.models, cast, self.simulation.arena.nets)
        self.barrier = threading.Barrier(n_actors)
        self.is_done = [False] * n_actors
        self.is_interrupted = [False] * n_actors  # returned from the midst of a rollout
        self.turn: tuple[int, float] | None = None  # on one thread: whose turn it is, and until when
        streams = np.random.SeedSequence([config.seed, 1]).spawn(n_actors)
        self.generators = [np.random.default_rng(stream) for stream in streams]
        self.progress = Progress(cast, len(trace), run.folder, on_progress)
        self.spent = Spent()
        self.timeline = Timeline()

    def learn(self, a: int) -> None:
        """Alternate rollouts and updates until agent a's requests are served or a stop is asked for."""
        torch.set_num_threads(self.config.torch_threads)
        if not self.is_busiest[a] and sys.platform == "linux":  # elsewhere a thread has no priority of its own
            mine = os.getpriority(os.PRIO_PROCESS, 0)  # a process that gives way itself stays where it is, or below
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(mine + NICE, 19))
        while not self.is_done[a]:
            if self.learn_once(a, np.inf) == STOPPED:
                return

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
        self.is_done[a] = code == DONE
        return code

    def _roll_out(self, a: int, horizon_s: float) -> tuple[int, float]:
        """Let agent a serve; return the kernel's code and the seconds it took."""
        agent = self.simulation.agents[a]
        if agent.buffer.fill[0] == 0 and not self.is_interrupted[a]:
            self.generators[a].random(out=agent.buffer.uniform)
            self.policies.catch_up(a)
        start = time.perf_counter()
        code = self.simulation.roll_out(a, horizon_s)
        self.is_interrupted[a] = code == STOPPED
        return code, self.timeline.note(a, "rollout", start) - start

    def _learn_from_rollout(self, a: int, code: int, rollout_s: float) -> None:
        """Update agent a's policy if its rollout is complete, and note what happened."""
        agent = self.simulation.agents[a]
        n, stats, start = int(agent.buffer.fill[0]), None, time.perf_counter()
        if code == FULL or (code == DONE and n >= 2):
            with nullcontext() if self.is_busiest[a] or self.config.is_synchronised else self.update_slots:
                with self.policies.locks[a]:
                    begun = self.timeline.note(a, "queue", start)
                    stats = self._update(a, n)
                    self.timeline.note(a, "update", begun)
            agent.buffer.fill[0] = 0
        self.progress.note(a, agent, stats, n, rollout_s, time.perf_counter() - start)

    def _update(self, a: int, n: int) -> UpdateStats:
        agent = self.simulation.agents[a]
        remaining = max(0.0, 1.0 - agent.stream["clock"][0] / self.end_s)
        stats = update(self.policies.models[a], agent.buffer, n, remaining, self.generators[a])
        self.policies.copy(a)
        return stats

    def take_turns(self, _: int) -> None:
        """Train on one thread, always letting the agent with the earliest next event go on."""
        torch.set_num_threads(1)
        while True:
            if self.turn is None:
                a, code, horizon_s = self.simulation.take_turns()
                if a == NOBODY:
                    return
                if code == AHEAD or code == STOPPED:
                    self.turn = (a, horizon_s)
                if code != AHEAD:  # otherwise an empty rollout: draws for it first
                    self._end_turn(a, code)
            if self.turn is not None:  # one that was interrupted is finished before any other
                if self.learn_once(*self.turn) == STOPPED:
                    return
                self.turn = None

    def _end_turn(self, a: int, code: int) -> None:
        """See to an agent whose turn ended in the kernel: its rollout is full, it is done, or a stop came."""
        stream = self.simulation.agents[a].stream[0]
        self._learn_from_rollout(a, code, stream["turns_ns"] / 1e9)
        stream["turns_ns"] = 0
        self.is_done[a] = code == DONE

    def start(self, checkpoint: Checkpoint | None = None, every_s: float = np.inf) -> None:
        """Train to the end, or to a stop, and save a checkpoint every so many seconds and at a stop.

        Ctrl-C is a stop; it is not raised again.
        """
        self.timeline.begin()
        while True:
            pause_at = time.perf_counter() + (every_s if checkpoint else np.inf)
            self._run_threads(pause_at, min(0.2, every_s))
            if all(self.is_done):
                return
            if checkpoint is not None:
                self._save(checkpoint)
            if self.simulation.stopped:
                return
            self.barrier.reset()
            self.simulation.go_on()

    def _run_threads(self, pause_at: float, tick_s: float) -> None:
        """Let the agents go on until all are done, a stop, or a pause, which comes once it is time for it."""

        def tick() -> None:
            self.progress.tick()
            if time.perf_counter() >= pause_at:
                self.simulation.pause()
                self.barrier.abort()

        names, learn = self.cast.names, self.learn
        if self.config.is_serial:
            names, learn = ("deterministic",), self.take_turns
        elif self.config.is_synchronised:
            learn = self.learn_in_step
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            run_threads(names, learn, self.stop, tick, tick_s)
        except KeyboardInterrupt:
            log.warning("stopped by Ctrl-C; keeping what was learned so far")
        finally:
            self.progress.tell_boards()
            self.spent.wall_s += time.perf_counter() - wall
            self.spent.cpu_s += time.process_time() - cpu

    def _save(self, checkpoint: Checkpoint) -> None:
        start, cpu = time.perf_counter(), time.process_time()
        self.spent.n_checkpoints += 1
        checkpoint.save(self)
        seconds = time.perf_counter() - start
        self.spent.wall_s += seconds
        self.spent.checkpoint_s += seconds
        self.spent.cpu_s += time.process_time() - cpu
        log.info("checkpoint %d written in %.2f s", self.spent.n_checkpoints, seconds)

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
    on_start: Callable[[Training], None] | None = None,
    config: TrainConfig | None = None,
    trace: Trace | None = None,
    resume: bool = True,
    checkpoint_s: float = CHECKPOINT_S,
    tensorboard: bool | str | Path = False,
    **choices: object,
) -> Run:
    """Train a team, or go on with a training that was interrupted.

    Args:
        scenario: the world.
        method: one of `config.ALL_METHODS`.
        seed: of traffic, weights and sampling.
        folder: where the run is recorded; None keeps it in memory. A finished run there is refused; an unfinished one
            goes on from its checkpoint, if it has one.
        on_progress: called now and then with the progress table so far.
        on_start: called once, with the training, just before its threads start: whoever holds it may watch it, and
            call its `stop` from any thread.
        config: a full configuration instead of method, seed and choices.
        trace: requests to train on instead of the configured training days.
        resume: False begins anew where there is an unfinished run.
        checkpoint_s: seconds between checkpoints, inf for none but at a stop.
        tensorboard: True writes TensorBoard logs below `folder`, a path writes them there, a folder an agent.
        **choices: any other field of `TrainConfig`.

    Returns:
        The run; its status is `stopped` when Ctrl-C or `Training.stop` ended it early, with what it had.

    Raises:
        AmarlError: an unknown or invalid setting.
        RunError: a finished run, or a checkpoint of another scenario, trace, configuration or version.
        AgentError: an agent's thread failed; the message starts with the agent's name.
    """
    config = config or make_config(method=method, seed=seed, **choices)
    if not checkpoint_s > 0:
        raise AmarlError(f"checkpoint_s is {checkpoint_s!r}; expected seconds above 0, or float('inf') for none")
    logs = place_of_boards(tensorboard, folder)
    trace = training_trace(scenario, config) if trace is None else trace
    run = untrained(scenario, config)
    place = checkpoint = manifest = boards = None
    if folder is not None:
        run.folder = Path(folder)
        place, checkpoint, manifest = _take(run, trace, resume)
    try:
        compile_start = time.perf_counter()
        known = (manifest["sizes"], manifest["actors"]) if manifest else ()
        training = Training(run, trace, on_progress, *known)
        if manifest:
            _go_on(training, checkpoint, manifest)
        if logs is not None:
            training.progress.boards = boards = Boards(logs, config, training.end_s, run.team.agents)
        if on_start is not None:
            on_start(training)
        compile_s = time.perf_counter() - compile_start
        training.start(checkpoint, checkpoint_s)
        training.policies.hand_over(run.nets)
        run.status = "finished" if all(training.is_done) else "stopped"
        run.simulation, run.progress = training.simulation, training.progress.frame()
        run.timing = training.progress.timing(training.simulation.agents, training.spent, compile_s)
        if place is not None:
            record(run, place)
            if run.status == "finished":
                checkpoint.remove()
    except BaseException as error:
        if place is not None:
            with suppress(StorageError):  # no room for a word: a run that still says "running" counts as unfinished
                place.fail(error)
        raise
    finally:
        if boards is not None:
            boards.close()
    return run


def _take(run: Run, trace: Trace, resume: bool) -> tuple[RunFolder, Checkpoint, dict | None]:
    """Start the run's folder, or go on with it; return it, its checkpoint, and what the checkpoint says if there is
    one to go on from."""
    place, about = RunFolder(run.folder), provenance(run.scenario, [trace])
    checkpoint = Checkpoint(run.folder, identity(run.config, about))
    if not resume or place.is_finished or not checkpoint.is_there:
        return place.start(asdict(run.config), about), checkpoint, None
    manifest = checkpoint.manifest()
    return place.go_on(), checkpoint, manifest


def _go_on(training: Training, checkpoint: Checkpoint, manifest: dict) -> None:
    """Put a training where its checkpoint was, and say so."""
    checkpoint.restore(training, manifest)
    training.spent.n_resumed += 1
    served = sum(int(agent.stream["cursor"][0]) for agent in training.simulation.agents)
    log.info(
        "going on from the checkpoint in %s: %d of %d requests served in %.1f s so far",
        training.run.folder,
        served,
        training.progress.n_requests,
        training.spent.wall_s,
    )
