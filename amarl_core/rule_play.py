"""Serve a whole trace by a routing rule, on one thread, and return its records."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from amarl_core.arena import BUSY, DONE
from amarl_core.arrays import Rules, make_world, slot_count
from amarl_core.baselines import Baseline
from amarl_core.config import TrainConfig
from amarl_core.inference import make_nets
from amarl_core.k_shortest import list_routes
from amarl_core.moves import N_MOVES, Moves, enlarged, make_moves
from amarl_core.routing import DELAY, STATIC
from amarl_core.rule_routes import Planner
from amarl_core.rule_service import NO_MOVES, serve_rule
from amarl_core.search import Search, make_search
from amarl_core.simulation import AgentError, Clocked, Simulation, Team, list_column, options_for, run_threads
from amarl_core.windows import batch_bounds, held, serve_windows, window_bounds

REQUESTS_PER_CALL = 2000
MAX_HOPS = 24


def ready_rule(rule: Baseline, scenario, trace, attempts: int = 1) -> tuple[Simulation, Search, Planner]:
    """Return an empty network and a trace, ready to be served by a rule, and what the rule plans with."""
    world = make_world(scenario, rule.mu)
    team = Team.of(scenario, rule.name)
    nets = make_nets(1, 1, 1, slot_count(world, at_most=world.links.shape[0]), "relu")
    options = options_for(TrainConfig(max_hops=MAX_HOPS, may_refuse=False), attempts=attempts)
    n_ledger = len(trace) * (2 + attempts + 2 * int(rule.settings.get("moves", 0)))
    simulation = Simulation(scenario, world, trace, team, nets, options, n_ledger=n_ledger)
    return simulation, make_search(world), make_planner(rule, scenario, simulation)


def play_rule(
    rule: Baseline, scenario, trace, begin: Callable[[Simulation], None] = lambda simulation: None
) -> tuple[Simulation, Clocked, pd.DataFrame | None]:
    """Serve a trace by a rule; one that lets requests wait serves `windows.held` of it.

    Args:
        rule: the rule.
        scenario: the world.
        trace: requests in order of arrival.
        begin: called before the first request; it may put flows into the empty network.

    Returns:
        The served simulation, what it took (lists of k shortest routes are made before the clock starts), and the
        table of moves of a rule that moves flows.
    """
    trace = held(trace, rule.waits_s)
    simulation, search, planner = ready_rule(rule, scenario, trace)
    begin(simulation)
    n_movable, world = int(rule.settings.get("moves", 0)), simulation.arena.world
    kept = [make_moves(world, n_movable, MAX_HOPS)]

    def serve(a: int) -> None:
        if "window_s" in rule.settings:
            bounds = batch_bounds(trace.t_s) if rule.waits_s else window_bounds(trace.t_s, rule.settings["window_s"])
            serve_windows(simulation, search, planner, rule.settings["k"], bounds)
            return
        while True:
            code = serve_rule(simulation.arena, simulation.agents[0], search, planner, kept[0], REQUESTS_PER_CALL)
            if code == DONE or simulation.stopped:
                return
            if code == NO_MOVES:
                kept[0] = enlarged(kept[0])
            elif code != BUSY:
                raise AgentError(f"{rule.name}: stopped early with code {code}")

    clocked = run_threads(simulation.team.agents, serve, simulation.stop)
    return simulation, clocked, moves_frame(simulation, kept[0]) if n_movable else None


def make_planner(rule: Baseline, scenario, simulation: Simulation) -> Planner:
    """Return a rule and all that it plans with, for the kernels."""
    arena, work = simulation.arena, simulation.agents[0].work
    return Planner(
        rule.rule,
        rule.rule._replace(sees_load=0),
        rule.method,
        np.uint64(rule.settings.get("seed", 0)),
        int(rule.name == "k_shortest_least_loaded"),
        Rules(DELAY, STATIC, MAX_HOPS),
        np.array([tier == "cu" for tier in scenario.network.tier]),
        list_routes(arena.world, work, arena.requests, int(rule.settings.get("k", 0)), MAX_HOPS),
        MAX_HOPS,
    )


def moves_frame(simulation: Simulation, moves: Moves) -> pd.DataFrame:
    """Return one row per move, in order: the flow, when and for which request, and its record before the move."""
    n, network = int(moves.made[N_MOVES]), simulation.scenario.network
    table, ids, some = moves.table[:n], simulation.trace.request_id, np.arange(n)
    return pd.DataFrame(
        {
            "request_id": ids[table["row"]],
            "t_s": table["t_s"],
            "made_for": ids[table["made_for"]],
            "latency_ms": table["latency"],
            "links": list_column(moves.links, some, table["n_links"], network.link_ids),
            "hosts": list_column(moves.hosts, some, table["n_hosts"], network.node_ids),
            "snapshot_version": table["snapshot_version"],
            "commit_version": table["commit_version"],
        }
    )
