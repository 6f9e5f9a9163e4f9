"""Serve a trace by a team or a rule whose plans are made on telemetry of a given age; see `telemetry`."""

import numpy as np

from amarl_core.arena import BUSY, DONE
from amarl_core.baselines import Baseline
from amarl_core.errors import AmarlError
from amarl_core.evaluation import EVAL_ATTEMPTS
from amarl_core.rule_play import ready_rule
from amarl_core.simulation import AgentError, Simulation, options_for, run_threads
from amarl_core.telemetry import make_feed, serve_late, serve_rule_late

AGES_S = (0.0, 0.1, 1.0, 5.0, 15.0, 60.0)
"""Ages of telemetry that are compared, s of simulated time."""


def play_late(policy, trace, age_s: float, attempts: int = EVAL_ATTEMPTS, scenario=None) -> Simulation:
    """Serve a trace in order of arrival, on one thread, every plan made on the state as it was `age_s` seconds before.

    Args:
        policy: a trained run or a baseline.
        trace: requests in order of arrival.
        age_s: age of the telemetry, s of simulated time; 0 is the serial run.
        attempts: plans of one request at most. After an abort the resource that refused is taken as full.
        scenario: the world of a baseline.

    Raises:
        AmarlError: an age below 0, a rule that lets requests wait or moves flows, or one without a scenario.
    """
    if not age_s >= 0:
        raise AmarlError(f"age_s is {age_s!r}; expected seconds, at least 0")
    if isinstance(policy, Baseline):
        return _play_rule_late(policy, trace, age_s, attempts, scenario)
    options = options_for(policy.config, attempts=attempts)
    simulation = Simulation(policy.scenario, policy.world, trace, policy.team, policy.nets, options)
    simulation.order = "arrival"
    arena, agent = simulation.arena, simulation.agents[0]
    feed = make_feed(len(arena.shared.used), attempts)
    _serve(simulation, lambda: serve_late(arena, agent, options, feed, float(age_s)))
    return simulation


def _play_rule_late(rule: Baseline, trace, age_s: float, attempts: int, scenario) -> Simulation:
    if scenario is None:
        raise AmarlError("a baseline needs scenario=...; a trained run brings its own")
    if {"window_s", "moves"} & set(rule.settings):
        raise AmarlError(f"{rule.name} decides by windows or moves flows; it needs to know the state as it is")
    simulation, search, planner = ready_rule(rule, scenario, trace, attempts)
    simulation.order = "arrival"
    arena, agent = simulation.arena, simulation.agents[0]
    feed = make_feed(len(arena.shared.used), attempts)
    _serve(simulation, lambda: serve_rule_late(arena, agent, search, planner, feed, float(age_s)))
    return simulation


def _serve(simulation: Simulation, kernel) -> None:
    """Call a kernel until nothing is left, on a thread of its own so that Ctrl-C works."""

    def work(_: int) -> None:
        code = BUSY
        while code == BUSY and not simulation.stopped:
            code = kernel()
        if code != DONE and not simulation.stopped:
            raise AgentError(f"{simulation.team.agents[0]}: stopped early with code {code}")

    run_threads(simulation.team.agents[:1], work, simulation.stop)


def outcome(simulation: Simulation) -> dict[str, float]:
    """Return gos (%), aborts and plans made anew (per 100 requests), and lost (% of requests rejected by an abort)."""
    rows = simulation.arena.records.rows
    n = max(len(rows), 1)
    conflicts = int(np.sum([agent.stream["conflicts"][0] for agent in simulation.agents]))
    decisions = simulation.decisions()
    lost = decisions["cause"].astype(str).str.startswith("conflict").sum()
    return {
        "gos": 100 * float(decisions["accepted"].mean()),
        "aborts": 100 * conflicts / n,
        "replans": 100 * float((rows["attempts"] - 1).sum()) / n,
        "lost": 100 * float(lost) / n,
    }
