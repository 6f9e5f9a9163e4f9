"""The native layer: mutexes, conditions and clocks under compiled code, and where compiled code is kept."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from amarl_core.native import lock, new_conditions, new_mutex, now_ns, signal, try_lock, unlock, wait

PROJECT = Path(__file__).resolve().parent.parent


@njit(nogil=True)
def count_up(mutex, counter, n):
    """Add 1 n times, each time reading and writing under the lock."""
    for _ in range(n):
        lock(mutex)
        seen = counter[0]
        for i in range(5):  # make losing an update without the lock all but certain
            counter[1 + i] += seen
        counter[0] = seen + 1
        unlock(mutex)


def test_six_threads_lose_no_update_under_the_lock():
    mutex, counter = new_mutex(), np.zeros(6, np.int64)
    count_up(mutex, counter, 1)
    threads = [threading.Thread(target=count_up, args=(mutex, counter, 50_000)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert counter[0] == 300_001


def test_a_taken_mutex_cannot_be_taken_again():
    mutex = new_mutex()
    assert try_lock(mutex)
    assert not try_lock(mutex)
    unlock(mutex)
    assert lock(mutex) == 0, "a free mutex costs no waiting"
    unlock(mutex)


def test_the_time_waited_for_a_mutex_is_measured():
    mutex, waited = new_mutex(), []
    lock(mutex)
    thread = threading.Thread(target=lambda: waited.append(lock(mutex)))
    thread.start()
    time.sleep(0.1)
    unlock(mutex)
    thread.join(10)
    assert 50_000_000 < waited[0] < 10_000_000_000


def test_a_wait_ends_after_its_time_and_holds_the_mutex_again():
    mutex, condition = new_mutex(), new_conditions(1)[0]
    lock(mutex)
    wait(condition, mutex, 1)
    start = now_ns()
    wait(condition, mutex, 50_000_000)
    assert now_ns() - start > 40_000_000
    assert not try_lock(mutex)
    unlock(mutex)


def test_a_signal_ends_a_wait():
    mutex, condition, ended = new_mutex(), new_conditions(2)[1], threading.Event()

    def sleeper():
        lock(mutex)
        wait(condition, mutex, 20_000_000_000)
        unlock(mutex)
        ended.set()

    thread = threading.Thread(target=sleeper, daemon=True)
    thread.start()
    assert not ended.wait(0.1)
    while not ended.wait(0.05):  # the sleeper may not have slept yet when the first signal comes
        signal(condition)
    thread.join(10)


def test_the_clock_is_wall_clock():
    assert abs(now_ns() / 1e9 - time.time()) < 1


def run(code: str, **environment: str) -> str:
    """Run code in a fresh process, in the project's folder; return what it printed."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT)} | environment
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


CACHE_PATH = """
import numpy as np
from amarl_core.departures import pop
from amarl_core.arena import make_flows
pop(make_flows(1), 1)
print(pop.stats.cache_path)
"""


def test_kernels_are_cached_under_the_digest_of_their_sources(tmp_path):
    path = run(CACHE_PATH, AMARL_CACHE_DIR=str(tmp_path))
    assert path.startswith(str(tmp_path / "kernels-"))
    assert "checked" not in path
    assert list(tmp_path.rglob("*.nbc"))


def test_kernels_are_cached_there_also_when_numba_was_there_first(tmp_path):
    first = "import numba\nnumba.njit(lambda x: x)(1)\n"
    assert run(first + CACHE_PATH, AMARL_CACHE_DIR=str(tmp_path)).startswith(str(tmp_path / "kernels-"))


def test_threads_of_openmp_are_limited_before_torch_is_imported():
    code = "import os, amarl_core, sys; print(os.environ['OMP_NUM_THREADS'], 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True,
                          env=environment | {"PYTHONPATH": str(PROJECT)}, timeout=100)  # fmt: skip
    assert done.stdout.split() == ["1", "False"]


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("CI") and os.environ.get("AMARL_SLOW") != "1",
    reason="compiles every kernel again (1 to 2 minutes): set AMARL_SLOW=1 or CI=true",
)
def test_no_kernel_reaches_beyond_its_arrays(checked_run):
    """Training, both orders and all rules with bounds checked, in a process and a cache of their own."""
    said, complaints = checked_run.communicate(timeout=900)
    assert said.splitlines() == ["bounds are checked", "no index out of bounds"], complaints
