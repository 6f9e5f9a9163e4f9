"""Commits in order of arrival: plans are made ahead in parallel and handed over to whoever has the turn.

Every thread takes the next request that nobody plans yet, at most `window` requests ahead of the turn, and plans it on
a snapshot of its own with the policy of that request's agent. A plan that is finished before its turn is left in the
records; the thread that settles a turn goes on with the plans that are ready behind it. So nobody waits to commit, and
the outcome depends on time of arrival only through the age of the snapshots.

A thread is not tied to its agent's requests here: waking the one thread that may plan a request takes longer than
planning it.
"""

import numpy as np
from numba import njit

from amarl_core.arena import BUSY, CLAIMED, DONE, EVENTS_PER_CALL, LIMIT, NO_LEDGER, NO_ROOM, SETTLING, STOPPED, TURN
from amarl_core.departures import pop, push
from amarl_core.native import INLINE, INNER, KERNEL, give_way, lock, unlock
from amarl_core.rollout import depart, look_at_store, plan, try_commit
from amarl_core.routing import ACCEPTED, CONFLICT_LINK
from amarl_core.store import STOP

LOOKS = 1000
"""Looks at the turn, giving way after each, before a thread checks the stop flag again."""


@njit(**KERNEL)
def settle_departures(arena, agent, until_s):
    """Give back every flow that ends by then; return False when the ledger is full."""
    while arena.n_departures[0] > 0 and arena.departures.t_s[0] <= until_s:
        if depart(arena, agent.work, arena.departures.row[0], arena.departures.t_s[0]) < 0:
            return False
        pop(arena.departures, arena.n_departures[0])
        arena.n_departures[0] -= 1
    return True


@njit(**INLINE)
def note_admission(arena, stream, row):
    """Count a committed request and remember when it departs; return DONE, or NO_ROOM for one more flow."""
    stream.accepted += 1
    if arena.n_departures[0] >= arena.departures.row.shape[0]:
        return NO_ROOM
    push(arena.departures, arena.n_departures[0], arena.requests[row].t_s + arena.requests[row].hold_s, row)
    arena.n_departures[0] += 1
    return DONE


@njit(**INLINE)
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
    return note_admission(arena, stream, row) if committed == 1 else DONE


@njit(**INLINE)
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
        unlock(gate.mutex)
        if not on:
            return code


@njit(**INNER)
def _watch(gate, claimed, window):
    """Watch the turn come near, giving way to other threads; for a bounded time."""
    for _ in range(LOOKS):
        if gate.state[CLAIMED] != claimed or claimed - gate.state[TURN] <= window:
            return
        give_way()


@njit(**INLINE)
def _claim(gate, n_requests, window):
    """Claim the next request that nobody plans; return (row, how far ahead of the turn), row -1 when out of reach."""
    lock(gate.mutex)
    row = gate.state[CLAIMED]
    ahead = row - gate.state[TURN]
    if row == n_requests or ahead > window:
        row = -1
    else:
        gate.state[CLAIMED] = row + 1
        if ahead == 0:
            gate.state[SETTLING] = 1
    unlock(gate.mutex)
    return row, ahead


@njit(**KERNEL)
def serve_arrival(arena, agent, options):
    """Serve requests with commits in order of arrival over all agents (evaluation), as one of several threads.

    Returns:
        DONE, BUSY, STOPPED, NO_LEDGER or NO_ROOM.
    """
    stream, gate, records = agent.stream[0], arena.gate, arena.records
    n_requests = gate.state[LIMIT]
    for _ in range(EVENTS_PER_CALL):
        if arena.shared.control[STOP]:
            return STOPPED
        row, ahead = _claim(gate, n_requests, options.window)
        if row < 0:
            if gate.state[CLAIMED] == n_requests:
                return DONE
            _watch(gate, gate.state[CLAIMED], options.window)
            continue
        stream.clock = arena.requests[row].t_s
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


@njit(**KERNEL)
def serve_pipeline(arena, agent, options):
    """Serve all requests on one thread, each planned on the state exactly `window` requests before its turn.

    What the threads of `serve_arrival` do at worst on a machine with that many cores, and the same at every run.

    Returns:
        DONE, BUSY, STOPPED, NO_LEDGER or NO_ROOM.
    """
    gate, n_requests = arena.gate, arena.requests.shape[0]
    for _ in range(EVENTS_PER_CALL):
        if arena.shared.control[STOP]:
            return STOPPED
        turn, row = gate.state[TURN], gate.state[CLAIMED]
        if turn == gate.state[LIMIT]:
            return DONE if turn < n_requests or settle_departures(arena, agent, np.inf) else NO_LEDGER
        if options.window > 0 and row < n_requests and row <= turn + options.window:
            look_at_store(arena, agent.work, row)
            plan(arena, agent, options, row, arena.requests[row].agent)
            arena.records.planned[row] = 1
            gate.state[CLAIMED] = row + 1
            continue
        code = _settle(arena, agent, options, turn, arena.records.planned[turn] == 1)
        if code != DONE:
            return code
        gate.state[TURN] = turn + 1
        gate.state[CLAIMED] = max(row, turn + 1)
    return BUSY
