"""Speed-up by services, by cores and by threads, beside what Amdahl's law allows.

An agent is a thread, and the busiest agent bounds the wall-clock: with its share s of all work, no number of cores
trains faster than 1 / s times one thread, and c cores not faster than c times.
"""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd

from amarl_core.agents import Training, training_trace
from amarl_core.config import TrainConfig, make_config
from amarl_core.runs import usable_cores
from amarl_core.scenario import Scenario
from amarl_core.simulation import Simulation, Team, options_for, run_threads
from amarl_core.teams import Run, untrained
from amarl_core.traces import Trace

log = logging.getLogger(__name__)

HALF = ("a", "b")
"""What the halves of a service that is split in two are called after it."""


def amdahl(cores: float, largest_share: float) -> float:
    """Return the largest speed-up over one thread on so many cores if the largest piece cannot be divided."""
    return min(cores, 1.0 / largest_share)


@contextmanager
def on_cores(n: int) -> Iterator[None]:
    """Let this thread, and those it starts, use n of the cores; elsewhere than on Linux nothing is bound."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:n])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def grouped(scenario: Scenario, n_agents: int, weight: np.ndarray) -> Team:
    """Return a team of n agents that share the services out, each of about the same weight (largest first).

    Args:
        scenario: the world.
        n_agents: from 1 to the number of services.
        weight: float64[S], the work of each service.
    """
    total, agent_of = np.zeros(n_agents), np.zeros(len(scenario.service_ids), np.int32)
    for s in np.argsort(-weight, kind="stable"):
        agent_of[s] = int(total.argmin())
        total[agent_of[s]] += weight[s]
    names = ["+".join(np.array(scenario.service_ids)[agent_of == a]) for a in range(n_agents)]
    return Team(tuple(names), agent_of)


def split_in_two(scenario: Scenario, trace: Trace) -> tuple[Scenario, Trace]:
    """Return the same world and the same requests with every service split in two of half the requests each."""
    names = tuple(f"{name}_{half}" for half in HALF for name in scenario.service_ids)
    services = tuple(replace(service, service=f"{service.service}_{half}") for half in HALF
                     for service in scenario.services)  # fmt: skip
    twice = {name: np.concatenate([getattr(scenario, name)] * 2)
             for name in ("chains", "chain_length", "latency_ms", "delay_to_go", "delay_so_far")}  # fmt: skip
    second = np.zeros(len(trace), np.int64)
    for s in range(len(scenario.service_ids)):
        rows = np.flatnonzero(trace.service == s)
        second[rows[1::2]] = len(scenario.service_ids)
    return (
        replace(scenario, name=f"{scenario.name}, services split", services=services, **twice),
        replace(trace, service_ids=names, service=trace.service + second),
    )


def train_team(scenario: Scenario, config: TrainConfig, trace: Trace, team: Team | None = None) -> tuple[Run, dict]:
    """Train a team in memory and return it with what it took.

    Returns:
        The run, and train_s, cpu_s, env_steps, largest_share (the busiest agent's of all processor time of agents).
    """
    run = untrained(scenario, config) if team is None else _fresh(scenario, config, team)
    training = Training(run, trace)
    training.start()
    timing = training.progress.timing(training.simulation.agents, training.spent, 0.0)
    busy = training.timeline.frame(run.team.agents).groupby("agent")["cpu_s"].sum()
    row = {name: timing[name] for name in ("train_s", "cpu_s", "env_steps")}
    return run, row | {"largest_share": float(busy.max() / busy.sum())}


def _fresh(scenario: Scenario, config: TrainConfig, team: Team) -> Run:
    """Return an untrained run of a team of other agents than one for each service."""
    run = untrained(scenario, config)  # of as many models as services; a group learns in its first one's
    kept = range(len(team.agents))
    nets = run.nets._replace(**{name: getattr(run.nets, name)[: len(kept)] for name in run.nets._fields[:-1]})
    return replace(run, team=team, models=[run.models[a] for a in kept], nets=nets)


def service_rows(scenario: Scenario, counts: Sequence[int], repeats: int, days: int, seed: int = 0) -> pd.DataFrame:
    """Train SARL and AMARL with so many agents on the same requests, in turn.

    Up to the number of services an agent has one or several of them, evened out by decisions; with twice as many, each
    service is split in two of half the requests each.

    Returns:
        A row per number, method and repeat: n_services, method, repeat, train_s, cpu_s, env_steps, largest_share.
    """
    configs = {method: make_config(method=method, days=days, seed=seed) for method in ("sarl", "amarl")}
    trace, n = training_trace(scenario, configs["sarl"]), len(scenario.service_ids)
    weight = np.bincount(trace.service, minlength=n) * (scenario.chain_length + 1.0)  # about its decisions
    rows = []
    for repeat in range(repeats):
        for count in counts:
            world, offered, team = scenario, trace, None
            if count == 2 * n:
                world, offered = split_in_two(scenario, trace)
            elif count < n:
                team = grouped(scenario, count, weight)
            for method in ("sarl", "amarl") if repeat % 2 == 0 else ("amarl", "sarl"):
                whose = team if method == "amarl" else None
                _, row = train_team(world, configs[method], offered, whose)
                rows.append({"n_services": count, "method": method, "repeat": repeat} | row)
            log.info("%d services: %s", count, ", ".join(f"{r['method']} {r['train_s']:.2f} s" for r in rows[-2:]))
    return pd.DataFrame(rows)


def core_rows(scenario: Scenario, repeats: int, days: int, seed: int = 0) -> pd.DataFrame:
    """Train both methods on one core, two, and so on up to those of the machine (twelve at most), in turn.

    Returns:
        A row per number, method and repeat: cores, method, repeat, train_s, cpu_s, env_steps, largest_share.
    """
    rows = []
    for repeat in range(repeats):
        for cores in range(1, min(usable_cores(), 12) + 1):
            for method in ("sarl", "amarl"):
                config = make_config(method=method, days=days, seed=seed)
                with on_cores(cores):
                    _, row = train_team(scenario, config, training_trace(scenario, config))
                rows.append({"cores": cores, "method": method, "repeat": repeat} | row)
        log.info("cores, repeat %d: AMARL %.2f s on %d", repeat + 1, rows[-1]["train_s"], rows[-1]["cores"])
    return pd.DataFrame(rows)


def thread_rows(scenario: Scenario, repeats: int, seed: int = 0, n_requests: int = 80_000) -> pd.DataFrame:
    """Serve a day by one thread, two, ... up to one for each service, in both orders of commits.

    Returns:
        A row per number, order and repeat: threads, order, repeat, test_s.
    """
    config = make_config(seed=seed)
    run, trace = untrained(scenario, config), scenario.training_trace(seed, 1).head(n_requests)
    rows = []
    for repeat in range(-1, repeats):  # the first warms up
        for order, lag_s in (("arrival", np.inf), ("free", 60.0)):
            for threads in range(1, len(run.team.agents) + 1):
                options = options_for(config, attempts=3, lag_s=lag_s, window=4)
                simulation = Simulation(scenario, run.world, trace, run.team, run.nets, options)
                start = time.perf_counter()
                _serve(simulation, threads, order)
                if repeat >= 0:
                    took = time.perf_counter() - start
                    rows.append({"threads": threads, "order": order, "repeat": repeat, "test_s": took})
    return pd.DataFrame(rows)


def _serve(simulation: Simulation, threads: int, order: str) -> None:
    """Serve a trace by the first so many threads; in evaluation any thread serves any agent."""
    run_threads(simulation.team.agents[:threads], lambda a: simulation.serve(a, order), simulation.stop, tick_s=0.01)
