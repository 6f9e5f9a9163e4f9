"""Nanoseconds by phase of a thread that serves requests: off unless a run is profiled, and then a clock read a phase.

A watch is one int64 array that its thread owns (`Work.watch`). A lap charges the time since the last one to a phase, so
that the phases of a rollout add up to the rollout. Switched off, a lap is one look at memory that only its thread
touches. What it measures never decides anything: a run is the same with it and without it.
"""

import numpy as np
from numba import njit

from amarl_core.native import CLOCK_REALTIME, INLINE, clock_gettime

PHASES = ("events", "snapshot", "lock", "reach", "mask", "prices", "observe", "forward", "commit", "release", "lag")
(EVENTS, SNAPSHOT, LOCK, REACH, MASK, PRICES, OBSERVE, FORWARD, COMMIT, RELEASE, LAG) = range(len(PHASES))
"""What a thread does: its event loop and the rewards of a finished request; copying the state; waiting for the store's
lock; the search that the action mask looks ahead with (and the hop before it); the mask itself; the search for the
priced cost; the observation; the policy; the commit; departures; waiting for the slowest clock."""

ON, SECONDS, NANOSECONDS, LAST, N_WAITS, FIRST = 8, 9, 10, 11, 12, 16
"""Places in a watch: whether it runs, the clock's two words, the last lap, waits noted, the first phase. What stands
before and behind is room, so that no other thread writes to the same line of the cache."""

WAITS, MOST_WAITS = 40, 1024
"""Where the waits for the slowest clock begin, a start and an end each, and how many are noted."""


def make_watch() -> np.ndarray:
    """Return a watch that is off: int64[WAITS + 2 MOST_WAITS + room]."""
    return np.zeros(WAITS + 2 * MOST_WAITS + 8, np.int64)


@njit(**INLINE)
def _now(watch):
    """Return wall-clock nanoseconds, as `native.now_ns`, in memory of the watch."""
    clock_gettime(CLOCK_REALTIME, watch[SECONDS:].ctypes.data)
    return watch[SECONDS] * 1_000_000_000 + watch[NANOSECONDS]


@njit(**INLINE)
def begin_laps(watch):
    """Start the first lap now."""
    if watch[ON]:
        watch[LAST] = _now(watch)


@njit(**INLINE)
def lap(watch, phase):
    """Charge the time since the last lap to a phase."""
    if watch[ON]:
        now = _now(watch)
        watch[FIRST + phase] += now - watch[LAST]
        watch[LAST] = now


@njit(**INLINE)
def lap_of_lag(watch):
    """Charge the time since the last lap to waiting for the slowest clock, and note when that was."""
    if watch[ON]:
        start = watch[LAST]
        lap(watch, LAG)
        if watch[N_WAITS] < MOST_WAITS:
            at = WAITS + 2 * watch[N_WAITS]
            watch[at], watch[at + 1] = start, watch[LAST]
            watch[N_WAITS] += 1


@njit(**INLINE)
def note_lock(watch, waited_ns):
    """Take a wait for the store's lock out of the lap under way."""
    if watch[ON] and waited_ns > 0:
        watch[FIRST + LOCK] += waited_ns
        watch[LAST] += waited_ns


def seconds_by_phase(watch: np.ndarray) -> dict[str, float]:
    """Return the seconds that a watch has charged to each phase."""
    return {phase: watch[FIRST + i] / 1e9 for i, phase in enumerate(PHASES)}


def waits_of(watch: np.ndarray) -> np.ndarray:
    """Return float64[n, 2]: start and end of the waits for the slowest clock, in seconds of wall-clock."""
    return watch[WAITS : WAITS + 2 * watch[N_WAITS]].reshape(-1, 2) / 1e9
