"""All agents on one thread, in training: whoever has the earliest next event goes on until another's comes first.

Services interleave so finely that an agent is served for an event or two at a time. Handing over between them in Python
took longer than serving, so the kernel comes back only when Python has something to do: draws for a fresh rollout, an
update, the end of an agent.
"""

import numpy as np
from numba import njit

from amarl_core.arena import AHEAD, BUSY, Agent, buffer_of, lane_of
from amarl_core.native import INNER, KERNEL, now_ns
from amarl_core.rollout import serve_free

NOBODY = -1
"""Instead of an agent: all are done."""


@njit(**INNER)
def _next_turn(clock):
    """Return the agent whose next event is the earliest, the first of equals, and the earliest of the others."""
    chosen, least, horizon_s = NOBODY, np.inf, np.inf
    for a in range(clock.shape[0]):
        if clock[a] < least:
            chosen, least, horizon_s = a, clock[a], least
        else:
            horizon_s = min(horizon_s, clock[a])
    return chosen, horizon_s


@njit(**KERNEL)
def serve_turns(arena, worker, rollouts, options):
    """Serve all agents' events in order of time until one of them needs Python.

    Args:
        arena, options: the run; an agent that is done has an infinite clock.
        worker: lends its memory.
        rollouts: everybody's buffers.

    Returns:
        (agent, code, horizon_s). AHEAD: it is this agent's turn, up to the horizon, and its rollout is empty. Otherwise
        its turn ended with FULL, DONE, STOPPED, NO_LEDGER or NO_ROOM. The agent is NOBODY when all were done.
    """
    while True:
        a, horizon_s = _next_turn(arena.gate.clock)
        if a == NOBODY or rollouts.buffer.fill[rollouts.fill[a]] == 0:
            return a, AHEAD, horizon_s
        stream, mine, flows = lane_of(arena.lanes, a)
        agent = Agent(stream, mine, flows, worker.work, worker.scratch, buffer_of(rollouts, a))
        start, code = now_ns(), BUSY
        while code == BUSY:
            code = serve_free(arena, agent, options, horizon_s)
        stream[0].turns_ns += now_ns() - start
        if code != AHEAD:
            return a, code, horizon_s
