"""The waiting room of free order: agents sleep here, without burning a core, until the slowest clock reaches them.

`Gate.mutex` guards the thresholds and, in arrival order, the turn and the hand-over of plans. Waiting is on one
condition per agent and wakes by itself every few milliseconds, so that a stop flag is seen and a missed signal costs
little.
"""

import numpy as np
from numba import njit

from amarl_core.arena import WAITING
from amarl_core.native import KERNEL, lock, now_ns, signal, unlock, wait
from amarl_core.store import STOP

NAP_NS = 5_000_000
NAPS_PER_CALL = 20


@njit(**KERNEL)
def slowest(gate):
    """Return the least clock of all agents."""
    least = np.inf
    for a in range(gate.clock.shape[0]):
        least = min(least, gate.clock[a])
    return least


@njit(**KERNEL)
def wake(gate, progress):
    """Mark the agents whose threshold is reached, with the gate held; return them as bits."""
    woken = 0
    if gate.state[WAITING] > 0:
        for a in range(gate.threshold.shape[0]):
            if gate.threshold[a] <= progress:
                woken |= 1 << a
    return woken


@njit(**KERNEL)
def signal_all(gate, woken):
    """Signal the agents marked by `wake`; the gate need not be held."""
    a = 0
    while woken:
        if woken & 1:
            signal(gate.conditions[a])
        woken >>= 1
        a += 1


@njit(**KERNEL)
def announce(gate):
    """Wake the agents that waited for the slowest clock to get where it is now."""
    waited = lock(gate.mutex)
    woken = wake(gate, slowest(gate))
    unlock(gate.mutex)
    signal_all(gate, woken)
    return waited


@njit(**KERNEL)
def wait_for(arena, agent, threshold):
    """Sleep until the slowest clock reaches a threshold, in s of simulated time.

    Returns:
        Whether it was reached; False after about a tenth of a second or on the stop flag.
    """
    gate = arena.gate
    me = agent.stream[0].agent
    start = now_ns()
    lock(gate.mutex)
    gate.threshold[me] = threshold
    gate.state[WAITING] += 1
    naps = 0
    while True:
        least = slowest(gate)
        if least >= threshold or arena.shared.control[STOP] or naps == NAPS_PER_CALL:
            break
        wait(gate.conditions[me], gate.mutex, NAP_NS)
        naps += 1
    gate.threshold[me] = np.inf
    gate.state[WAITING] -= 1
    unlock(gate.mutex)
    agent.stream[0].wait_ns += now_ns() - start
    return least >= threshold
