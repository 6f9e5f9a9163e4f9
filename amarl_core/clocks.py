"""Free order in evaluation: every agent keeps a clock of its own, and threads serve whichever agent is behind.

A thread takes the slowest agent that nobody serves, serves its events until its clock is `lag_s` ahead of the slowest,
and takes the next. The order of one agent's events, and the bound between clocks, are those of `rollout.serve_free`,
in which an agent that is ahead sleeps; here no thread sleeps as long as some agent may go on, because waking up takes
longer than serving an event.
"""

import numpy as np
from numba import njit

from amarl_core.arena import BUSY, DONE, EVENTS_PER_CALL, STOPPED, Agent, lane_of
from amarl_core.gate import slowest
from amarl_core.native import INLINE, INNER, KERNEL, give_way, lock, now_ns, unlock
from amarl_core.rollout import next_event, serve_event
from amarl_core.store import STOP

LOOKS = 1000
"""Looks at the clocks, giving way after each, before a thread checks the stop flag again."""


@njit(**INNER)
def _candidate(gate, lag_s):
    """Return the slowest agent that nobody serves; -1 if it is beyond the lag, and A when all are done."""
    least, waiting, chosen = np.inf, np.inf, -1
    for a in range(gate.clock.shape[0]):
        least = min(least, gate.clock[a])
        if gate.served[a] == 0 and gate.clock[a] < waiting:
            waiting, chosen = gate.clock[a], a
    if least == np.inf:
        return gate.clock.shape[0]
    return -1 if waiting - least > lag_s else chosen


@njit(**INNER)
def _claim(gate, lag_s):
    """Take the candidate; return it."""
    lock(gate.mutex)
    a = _candidate(gate, lag_s)
    if 0 <= a < gate.clock.shape[0]:
        gate.served[a] = 1
    unlock(gate.mutex)
    return a


@njit(**INNER)
def _watch(gate, lag_s):
    """Give way to other threads until there is something to claim, for a bounded time; return the nanoseconds."""
    start = now_ns()
    for _ in range(LOOKS):
        if _candidate(gate, lag_s) >= 0:
            break
        give_way()
    return now_ns() - start


@njit(**INNER)
def _let_go(gate, a):
    """Leave an agent to whoever comes next."""
    lock(gate.mutex)
    gate.served[a] = 0
    unlock(gate.mutex)


@njit(**INLINE)
def _serve_agent(arena, agent, options, at_most):
    """Serve an agent's events until it is `lag_s` ahead, or has none left; return (events left, code)."""
    gate, me = arena.gate, agent.stream[0].agent
    while at_most > 0:
        arrival, departure = next_event(arena, agent)
        t_s = min(arrival, departure)
        gate.clock[me] = t_s
        if t_s == np.inf or t_s - slowest(gate) > options.lag_s:
            break
        code = serve_event(arena, agent, options, arrival, departure)
        at_most -= 1
        if code != DONE:
            return at_most, code
    return at_most, DONE


@njit(**KERNEL)
def serve_clocks(arena, worker, options):
    """Serve all agents' events, each agent's in order of its clock, as one of several threads.

    Args:
        arena, options: the run.
        worker: lends its memory; its lane notes how long this thread found nothing to do.

    Returns:
        DONE, BUSY, STOPPED, NO_LEDGER or NO_ROOM.
    """
    gate, at_most = arena.gate, EVENTS_PER_CALL
    while at_most > 0:
        if arena.shared.control[STOP]:
            return STOPPED
        a = _claim(gate, options.lag_s)
        if a == gate.clock.shape[0]:
            return DONE
        if a < 0:
            worker.stream[0].wait_ns += _watch(gate, options.lag_s)
            continue
        stream, mine, flows = lane_of(arena.lanes, a)
        agent = Agent(stream, mine, flows, worker.work, worker.scratch, worker.buffer)
        at_most, code = _serve_agent(arena, agent, options, at_most)
        _let_go(gate, a)
        if code != DONE:
            return code
    return BUSY
