"""Where the time of a training goes: seconds of every agent by phase, and when it did what.

A profiled training runs with the kernels' watches on (`stopwatch`); it is never the headline's, because reading the
clock costs something, which `cost_of_watching` measures.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from amarl_core.agents import Training, train
from amarl_core.config import TrainConfig, make_config
from amarl_core.stopwatch import PHASES, seconds_by_phase, waits_of

ALL_PHASES = (*PHASES[:-1], "update", "lag", "queue", "no_core", "python", "done")
"""Phases of an agent's wall-clock, which add up to the training: those of a rollout; the update; waiting for the
slowest clock; waiting until an update may begin; ready to run but without a core; Python between kernels; finished
while others go on."""


@dataclass(frozen=True)
class Profile:
    """A profiled training.

    Attributes:
        phases: a row per agent and phase: agent, phase (of `ALL_PHASES`), seconds.
        timeline: see `timeline.Timeline.frame`.
        train_s: wall-clock.
        cpu_s: processor time.
        steps: decisions of each agent.
    """

    phases: pd.DataFrame
    timeline: pd.DataFrame
    train_s: float
    cpu_s: float
    steps: dict[str, int]


def profile(scenario, config: TrainConfig, trace=None) -> Profile:
    """Train a team with the watches on."""
    trainings: list[Training] = []

    def begin(training: Training) -> None:
        trainings.append(training)
        training.simulation.time_phases()

    run = train(scenario, config=config, trace=trace, on_start=begin)
    watches = [agent.work.watch for agent in run.simulation.agents]
    timeline = trainings[0].timeline.frame(trainings[0].cast.names, [waits_of(watch) for watch in watches])
    train_s = run.timing["train_s"]
    parts = []
    for name, watch in zip(run.team.agents, watches, strict=True):
        seconds = split_wall(seconds_by_phase(watch), timeline[timeline["agent"] == name], train_s)
        parts.append(pd.DataFrame({"agent": name, "phase": list(seconds), "seconds": list(seconds.values())}))
    steps = {name: entry["steps"] for name, entry in run.timing["by_agent"].items()}
    return Profile(pd.concat(parts, ignore_index=True), timeline, train_s, run.timing["cpu_s"], steps)


def split_wall(watched: dict[str, float], timeline: pd.DataFrame, train_s: float) -> dict[str, float]:
    """Split one agent's wall-clock into `ALL_PHASES`.

    A thread without a core sees the clock run on. How long that was is known of whole rollouts and updates, as their
    wall-clock less waits and processor time; it is taken from the phases of the rollout in proportion.

    Args:
        watched: seconds of wall-clock by phase of the rollout.
        timeline: the agent's intervals.
        train_s: wall-clock of the training.
    """
    took = (timeline["end_s"] - timeline["start_s"]).groupby(timeline["interval"]).sum()
    cpu = timeline.groupby("interval")["cpu_s"].sum()
    rollout, update, queue = (float(took.get(name, 0.0)) for name in ("rollout", "update", "queue"))
    lag = min(watched["lag"], rollout)
    awake = max(rollout - lag, 1e-12)
    on_core = min(1.0, float(cpu.get("rollout", 0.0)) / awake)
    on_core_update = min(update, float(cpu.get("update", 0.0)))
    seconds = {phase: on_core * watched[phase] for phase in PHASES if phase != "lag"}
    seconds |= {"update": on_core_update, "lag": lag, "queue": queue}
    seconds["no_core"] = (1 - on_core) * sum(watched[p] for p in PHASES if p != "lag") + update - on_core_update
    end_s = min(float(timeline["end_s"].max()), train_s) if len(timeline) else 0.0
    seconds["python"] = max(0.0, end_s - sum(seconds.values()))
    seconds["done"] = max(0.0, train_s - end_s)
    return {phase: seconds[phase] for phase in ALL_PHASES}


def shares(phases: pd.DataFrame) -> pd.DataFrame:
    """Return each phase's share of an agent's wall-clock in percent, agents by phases in the order of `ALL_PHASES`."""
    table = phases.pivot_table(index="agent", columns="phase", values="seconds", aggfunc="sum", sort=False)
    table = table.reindex(columns=list(ALL_PHASES), fill_value=0.0)
    return 100 * table.div(table.sum(axis=1), axis=0)


def cost_of_watching(scenario, days: int, n_pairs: int, seed: int = 0) -> pd.DataFrame:
    """Train SARL with the watches on and off, in turn: columns pair, watched, train_s, cpu_s.

    SARL, because one thread is timed best.
    """
    config, rows = make_config(method="sarl", days=days, seed=seed), []
    for pair in range(n_pairs):
        for watched in (True, False) if pair % 2 else (False, True):
            took = profile(scenario, config) if watched else train(scenario, config=config)
            timing = {"train_s": took.train_s, "cpu_s": took.cpu_s} if watched else took.timing
            rows.append({"pair": pair, "watched": watched, "train_s": timing["train_s"], "cpu_s": timing["cpu_s"]})
    return pd.DataFrame(rows)


def watching_percent(rows: pd.DataFrame) -> np.ndarray:
    """Return by how many percent of processor time training takes longer with the watches on: float64[pairs]."""
    table = rows.pivot(index="pair", columns="watched", values="cpu_s")
    return (100 * (table[True] / table[False] - 1)).to_numpy()
