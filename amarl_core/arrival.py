"""Commits in order of arrival: plans are made ahead in parallel and handed over to whoever has the turn.

Agents plan at most `window` requests ahead of the turn. An agent that finishes a plan before its turn leaves it in
the records and goes on; the agent that settles a turn goes on with the plans that are ready behind it. So nobody
waits to commit, and the outcome depends on time of arrival only through the age of the snapshots.
"""

import numpy as np
from numba import njit

from amarl_core.arena import BUSY, DONE, EVENTS_PER_CALL, NO_LEDGER, NO_ROOM, SETTLING, STOPPED, TURN
from amarl_core.departures import pop, push
from amarl_core.gate import signal_all, wait_for, wake
from amarl_core.native import INNER, KERNEL, give_way, lock, unlock
from amarl_core.rollout import depart, look_at_store, plan, try_commit
from amarl_core.routing import ACCEPTED, CONFLICT_LINK
from amarl_core.store import STOP

NEAR = 16
"""Requests from which on an agent watches its turn come instead of sleeping: waking a sleeper takes as long as
planning a request or two."""

LOOKS = 1000


@njit(**KERNEL)
def settle_departures(arena, agent, until_s):
    """Give back every flow that ends by then; return False when the ledger is full."""
    while arena.n_departures[0] > 0 and arena.departures.t_s[0] <= until_s:
        if depart(arena, agent.work, arena.departures.row[0], arena.departures.t_s[0]) < 0:
            return False
        pop(arena.departures, arena.n_departures[0])
        arena.n_departures[0] -= 1
    return True


@njit(**INNER)
def _settle(arena, agent, options, row, is_planned):
    """Decide the request whose turn it is: departures first, then its plan, then fresh plans while attempts last."""
    stream = agent.stream[0]
    request = arena.requests[row]
    record = arena.records.rows[row]
    if not settle_departures(arena, agent, request.t_s):
        return NO_LEDGER
    committed = 0
    if is_planned and record.cause == ACCEPTED:
        committed = try_commit(arena, agent.work, stream, row)
    while committed == 0 and (record.attempts == 0 or (is_planned and record.attempts < options.attempts)):
        look_at_store(arena, agent.work, row)
        if (
            record.attempts > 0
            and record.cause < CONFLICT_LINK
            and record.snapshot_version == agent.work.walk[0].version
        ):
            break  # it failed on this very state
        if not plan(arena, agent, options, row, request.agent):
            break
        committed = try_commit(arena, agent.work, stream, row)
    if committed < 0:
        return NO_LEDGER
    if committed == 1:
        stream.accepted += 1
        if arena.n_departures[0] >= arena.departures.row.shape[0]:
            return NO_ROOM
        push(arena.departures, arena.n_departures[0], request.t_s + request.hold_s, row)
        arena.n_departures[0] += 1
    return DONE


@njit(**INNER)
def _settle_turns(arena, agent, options, row, is_planned):
    """Settle the turn's request and all that are ready behind it; the caller has set SETTLING."""
    gate, records = arena.gate, arena.records
    while True:
        code = _settle(arena, agent, options, row, is_planned)
        if code == DONE and row + 1 == arena.requests.shape[0] and not settle_departures(arena, agent, np.inf):
            code = NO_LEDGER
        lock(gate.mutex)
        row += 1
        gate.state[TURN] = row
        is_planned = records.planned[row] == 1
        on = is_planned and code == DONE
        if not on:
            gate.state[SETTLING] = 0
        woken = wake(gate, float(row))
        unlock(gate.mutex)
        signal_all(gate, woken)
        if not on:
            return code


@njit(**INNER)
def _watch(gate, turn):
    """Watch the turn come near, giving way to other threads; for a bounded time."""
    for _ in range(LOOKS):
        if gate.state[TURN] >= turn:
            return
        give_way()


@njit(**KERNEL)
def serve_arrival(arena, agent, options):
    """Serve this agent's requests with commits in order of arrival over all agents (evaluation).

    Returns:
        DONE, BUSY, STOPPED, NO_LEDGER or NO_ROOM.
    """
    stream, gate, records = agent.stream[0], arena.gate, arena.records
    for _ in range(EVENTS_PER_CALL):
        if arena.shared.control[STOP]:
            return STOPPED
        if stream.cursor == agent.mine.shape[0]:
            return DONE
        row = agent.mine[stream.cursor]
        lock(gate.mutex)
        ahead = row - gate.state[TURN]
        if ahead == 0:
            gate.state[SETTLING] = 1
        unlock(gate.mutex)
        if ahead > options.window + NEAR:
            if not wait_for(arena, agent, float(row - options.window - NEAR), True):
                return BUSY
            continue
        if ahead > options.window:
            _watch(gate, row - options.window)
            continue
        stream.clock = arena.requests[row].t_s
        stream.cursor += 1
        settle = ahead == 0
        if not settle:
            look_at_store(arena, agent.work, row)
            plan(arena, agent, options, row, arena.requests[row].agent)
            lock(gate.mutex)
            records.planned[row] = 1
            settle = gate.state[TURN] == row and gate.state[SETTLING] == 0
            if settle:
                gate.state[SETTLING] = 1
            unlock(gate.mutex)
        if settle:
            code = _settle_turns(arena, agent, options, row, ahead > 0)
            if code != DONE:
                return code
    return BUSY
