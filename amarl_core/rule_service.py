"""The event loop of a routing rule, compiled: requests one by one in order of arrival, departures first."""

import numpy as np
from numba import njit

from amarl_core.arena import BUSY, DONE, LIMIT, NO_LEDGER, STOPPED
from amarl_core.arrival import note_admission, settle_departures
from amarl_core.moves import N_MOVES
from amarl_core.native import KERNEL
from amarl_core.reoptimise import make_room
from amarl_core.rollout import try_commit, write_route
from amarl_core.routing import ACCEPTED
from amarl_core.rule_routes import plan_by_rule
from amarl_core.store import STOP, read_snapshot

NO_MOVES = 100
"""The table of moves is full: enlarge it and go on."""


@njit(**KERNEL)
def decide(arena, agent, row):
    """Record the plan in the walk and commit it if it is complete; return DONE or what ran out."""
    stream, work = agent.stream[0], agent.work
    write_route(arena.records, work, row)
    if work.walk[0].cause != ACCEPTED:
        return DONE
    committed = try_commit(arena, work, stream, row)
    if committed < 0:
        return NO_LEDGER
    return note_admission(arena, stream, row) if committed == 1 else DONE


@njit(**KERNEL)
def serve_rule(arena, agent, search, planner, moves, n_requests):
    """Serve at most so many requests in order of arrival.

    Returns:
        DONE, BUSY (some are left), STOPPED, NO_MOVES (enlarge the table of moves first), or a failure.
    """
    stream, work = agent.stream[0], agent.work
    n_movable = moves.plan.row.shape[0]
    for _ in range(n_requests):
        if arena.shared.control[STOP]:
            return STOPPED
        if moves.made[N_MOVES] + n_movable > moves.table.shape[0]:
            return NO_MOVES
        row = stream.cursor
        if row == arena.gate.state[LIMIT]:
            is_last = row == arena.requests.shape[0]
            return DONE if not is_last or settle_departures(arena, agent, np.inf) else NO_LEDGER
        stream.cursor += 1
        request = arena.requests[row]
        if not settle_departures(arena, agent, request.t_s):
            return NO_LEDGER
        w = work.walk[0]
        w.version = read_snapshot(arena.shared, work.snapshot)
        plan_by_rule(arena.world, work, search, request, row, planner)
        if w.cause != ACCEPTED and n_movable > 0:
            if make_room(arena, agent, search, planner, moves, row) < 0:
                return NO_LEDGER
        code = decide(arena, agent, row)
        if code != DONE:
            return code
    return BUSY
