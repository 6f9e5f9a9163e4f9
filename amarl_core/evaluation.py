"""Serve a trace with a trained team or a routing rule: one call for agents and baselines alike."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from amarl_core.baselines import Baseline
from amarl_core.errors import AmarlError
from amarl_core.rule_play import play_rule
from amarl_core.simulation import ORDERS, Clocked, Simulation, options_for, play
from amarl_core.store import LOCK_WAIT_NS, VERSION, Snapshot

EVAL_ATTEMPTS = 3
EVAL_LAG_S = 60.0
EVAL_WINDOW = 4
"""Defaults of evaluation: attempts of the headline, lag of free order (s of simulated time), requests ahead."""


@dataclass(frozen=True)
class Played:
    """A served trace: decisions and ledger as frames, and what serving took."""

    decisions: pd.DataFrame
    ledger: pd.DataFrame
    clocked: Clocked
    steps: int  # decisions asked of the policy
    conflicts: int
    stale: float  # mean number of commits and releases between a snapshot and its commit
    lock_wait_s: float  # all threads together, waiting for the store's lock
    moves: pd.DataFrame | None = None  # former routes of flows that a rule moved


def evaluate(
    policy,
    trace,
    order: str = "arrival",
    attempts: int = EVAL_ATTEMPTS,
    *,
    lag_s: float = EVAL_LAG_S,
    window: int = EVAL_WINDOW,
) -> pd.DataFrame:
    """Serve a trace from an empty network and return its decisions; see `play_trace`."""
    return play_trace(policy, trace, order, attempts, lag_s=lag_s, window=window).decisions


def play_trace(
    policy,
    trace,
    order: str = "arrival",
    attempts: int = EVAL_ATTEMPTS,
    *,
    lag_s: float = EVAL_LAG_S,
    window: int = EVAL_WINDOW,
    scenario=None,
) -> Played:
    """Serve a trace from an empty network, by a trained run or by a baseline.

    Args:
        policy: a run (`agents.train`, `agents.load_run`) or a `baselines.baseline(...)`.
        trace: requests in order of arrival.
        order: `arrival` commits in order of arrival over all services; `free` as soon as the lock is free;
            `pipeline` in order of arrival on one thread, with every plan exactly `window` requests old.
        attempts: plans of one request at most; 1 is the paper's, a conflict then rejects the request.
        lag_s: free order: how far an agent's clock may run ahead of the slowest, s of simulated time.
        window: arrival order and pipeline: how many requests ahead of its turn an agent may plan.
        scenario: the world of a baseline.

    Raises:
        AmarlError: a value out of range or an unknown order.
    """
    for name, value, least in (("attempts", attempts, 1), ("window", window, 0)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
            raise AmarlError(f"{name} is {value!r}; expected an integer of at least {least}")
    if not lag_s >= 0:
        raise AmarlError(f"lag_s is {lag_s!r}; expected seconds, at least 0 (infinity for no bound)")
    if order not in ORDERS:
        raise AmarlError(f"order is {order!r}; expected one of {', '.join(ORDERS)}")
    if isinstance(policy, Baseline):
        if order != "arrival":
            raise AmarlError(f"a baseline serves requests one by one in order of arrival; order is {order!r}")
        if scenario is None:
            raise AmarlError("a baseline needs scenario=...; a trained run brings its own")
        simulation, clocked, moves = play_rule(policy, scenario, trace)
        return _played(simulation, clocked, moves)
    options = options_for(policy.config, attempts=attempts, lag_s=lag_s, window=window)
    simulation = Simulation(policy.scenario, policy.world, trace, policy.team, policy.nets, options)
    return _played(simulation, play(simulation, order))


def route(run, request, snapshot: Snapshot) -> pd.Series:
    """Route one request on a snapshot with a trained run; nothing outside is changed.

    Args:
        run: a trained run.
        request: a trace of one request, such as `trace[5:6]`.
        snapshot: of a `ResourceStore` of the run's scenario.

    Returns:
        The request's decision: accepted, cause, latency_ms, links, hosts and the other columns of the records.

    Raises:
        AmarlError: not exactly one request, or a snapshot of another network.
    """
    if len(request) != 1:
        raise AmarlError(f"route takes one request, got {len(request)}; pass for example trace[5:6]")
    simulation = Simulation(run.scenario, run.world, request, run.team, run.nets, options_for(run.config))
    used = np.concatenate([snapshot.used_kbps, snapshot.used_mcpu])
    if used.shape != simulation.arena.shared.used.shape:
        raise AmarlError(
            f"the snapshot has {len(used)} links and nodes, the run's scenario "
            f"{len(simulation.arena.shared.used)}; take it from ResourceStore.of(run.scenario)"
        )
    simulation.arena.shared.used[:] = used
    simulation.arena.shared.control[VERSION] = snapshot.version
    simulation.serve(int(simulation.arena.requests["agent"][0]), "arrival")
    return simulation.decisions().iloc[0]


def time_trace(
    run, trace, order: str, attempts: int, *, lag_s: float = EVAL_LAG_S, window: int = EVAL_WINDOW
) -> Clocked:
    """Serve a trace as `play_trace` does, from first arrival to last departure; return only what it took."""
    options = options_for(run.config, attempts=attempts, lag_s=lag_s, window=window)
    return play(Simulation(run.scenario, run.world, trace, run.team, run.nets, options), order)


def _played(simulation: Simulation, clocked: Clocked, moves: pd.DataFrame | None = None) -> Played:
    streams = np.concatenate([agent.stream for agent in simulation.agents])
    commits = max(int(streams["commits"].sum()), 1)
    return Played(
        simulation.decisions(),
        simulation.ledger(),
        clocked,
        int(streams["steps"].sum()),
        int(streams["conflicts"].sum()),
        float(streams["stale"].sum() / commits),
        simulation.arena.shared.control[LOCK_WAIT_NS] / 1e9,
        moves,
    )
