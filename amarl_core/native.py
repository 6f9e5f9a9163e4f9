"""POSIX mutexes, condition variables and clocks, callable from compiled code that holds no interpreter lock.

numba resolves the C functions in the running process, so the kernels stay cacheable. The memory of each
object is a row of int64 words that numpy owns; its address is stable for as long as the array lives.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numba import njit, types

KERNEL = dict(nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True, _nrt=False, forceinline=False)
"""Options of every kernel: no interpreter lock, cached on disk, no exceptions, and no memory management (`_nrt`): a
kernel works on arrays that its caller owns. Counting references to them took most of the time of a request, on one
thread already; in return, a kernel may neither allocate nor copy a whole array by slice. `forceinline` is said
because a kernel would otherwise take it over from the one that happens to have it compiled first."""

INNER = dict(KERNEL, no_cpython_wrapper=True)
"""Options of a kernel that only kernels call (calling it from Python would crash); it compiles in less time."""

INLINE = dict(KERNEL, forceinline=True)
"""Options of a kernel that becomes part of its callers. The tuples of arrays that kernels work on are long and are
passed by value: at every event and every hop that took nearly half of the time. Everywhere it would only add to the
time of compiling."""

ALLOCATING = dict(KERNEL, _nrt=True)
"""Options of the few kernels that need memory of their own."""

MUTEX_WORDS = 16
"""int64 words kept for a pthread_mutex_t or a pthread_cond_t (at most 64 bytes on Linux and macOS)."""

SPINS = 200
"""Tries for a mutex before its thread sleeps: the lock is held for less time than falling asleep takes."""

CLOCK_REALTIME = 0

_mutex_lock = types.ExternalFunction("pthread_mutex_lock", types.int32(types.uintp))
_mutex_trylock = types.ExternalFunction("pthread_mutex_trylock", types.int32(types.uintp))
_mutex_unlock = types.ExternalFunction("pthread_mutex_unlock", types.int32(types.uintp))
_cond_signal = types.ExternalFunction("pthread_cond_signal", types.int32(types.uintp))
_cond_timedwait = types.ExternalFunction("pthread_cond_timedwait", types.int32(types.uintp, types.uintp, types.uintp))
_sched_yield = types.ExternalFunction("sched_yield", types.int32())
clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.uintp))

_libc = ctypes.CDLL(None, use_errno=False)  # CDLL, not PyDLL: it lets go of the interpreter lock while it waits


def new_mutex() -> np.ndarray:
    """Return an initialised mutex: int64[MUTEX_WORDS]."""
    memory = np.zeros(MUTEX_WORDS, np.int64)
    if _libc.pthread_mutex_init(ctypes.c_void_p(memory.ctypes.data), None) != 0:
        raise OSError("pthread_mutex_init failed")
    return memory


def new_conditions(n: int) -> np.ndarray:
    """Return n initialised condition variables: int64[n, MUTEX_WORDS]."""
    memory = np.zeros((n, MUTEX_WORDS), np.int64)
    for row in memory:
        if _libc.pthread_cond_init(ctypes.c_void_p(row.ctypes.data), None) != 0:
            raise OSError("pthread_cond_init failed")
    return memory


@contextmanager
def held(mutex: np.ndarray) -> Iterator[None]:
    """Hold a mutex from Python, waiting without the interpreter lock; nothing inside may block or raise."""
    address = ctypes.c_void_p(mutex.ctypes.data)
    _libc.pthread_mutex_lock(address)
    try:
        yield
    finally:
        _libc.pthread_mutex_unlock(address)


@njit(**KERNEL)
def lock(mutex):
    """Take a mutex; return the nanoseconds waited (0 when it was free)."""
    if _mutex_trylock(mutex.ctypes.data) == 0:
        return 0
    start = now_ns()
    for _ in range(SPINS):
        if _mutex_trylock(mutex.ctypes.data) == 0:
            return now_ns() - start
    _mutex_lock(mutex.ctypes.data)
    return now_ns() - start


@njit(**KERNEL)
def try_lock(mutex):
    """Take a mutex if it is free; return whether it was."""
    return _mutex_trylock(mutex.ctypes.data) == 0


@njit(**KERNEL)
def unlock(mutex):
    """Give a mutex back."""
    _mutex_unlock(mutex.ctypes.data)


@njit(**KERNEL)
def give_way():
    """Let another thread have the core, if one is ready."""
    _sched_yield()


@njit(**KERNEL)
def signal(condition):
    """Wake the one thread that waits on this condition, if any."""
    _cond_signal(condition.ctypes.data)


@njit(**ALLOCATING)
def wait(condition, mutex, at_most_ns):
    """Wait on a condition, with its mutex held, for at most so many nanoseconds."""
    until = np.empty(2, np.int64)  # struct timespec: seconds, nanoseconds
    clock_gettime(CLOCK_REALTIME, until.ctypes.data)
    nanoseconds = until[1] + at_most_ns
    until[0] += nanoseconds // 1_000_000_000
    until[1] = nanoseconds % 1_000_000_000
    _cond_timedwait(condition.ctypes.data, mutex.ctypes.data, until.ctypes.data)
    return until[0]  # keeps the timespec alive across the call


@njit(**ALLOCATING)
def now_ns():
    """Return wall-clock nanoseconds."""
    time = np.empty(2, np.int64)
    clock_gettime(CLOCK_REALTIME, time.ctypes.data)
    return time[0] * 1_000_000_000 + time[1]
