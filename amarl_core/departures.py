"""Active flows as a binary heap by departure time."""

from numba import njit

from amarl_core.native import INLINE


@njit(**INLINE)
def push(flows, n, t_s, row):
    """Add a flow to a heap of n."""
    i = n
    while i > 0 and flows.t_s[(i - 1) // 2] > t_s:
        flows.t_s[i] = flows.t_s[(i - 1) // 2]
        flows.row[i] = flows.row[(i - 1) // 2]
        i = (i - 1) // 2
    flows.t_s[i] = t_s
    flows.row[i] = row


@njit(**INLINE)
def pop(flows, n):
    """Remove the earliest of n flows."""
    t_s, row = flows.t_s[n - 1], flows.row[n - 1]
    n -= 1
    i = 0
    while 2 * i + 1 < n:
        child = 2 * i + 1
        if child + 1 < n and flows.t_s[child + 1] < flows.t_s[child]:
            child += 1
        if flows.t_s[child] >= t_s:
            break
        flows.t_s[i] = flows.t_s[child]
        flows.row[i] = flows.row[child]
        i = child
    flows.t_s[i] = t_s
    flows.row[i] = row
