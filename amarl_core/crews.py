"""Who does the work of a study: processes of this machine, or the workers of a Dask cluster.

A crew takes calls and gives futures, as `concurrent.futures` has them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from typing import Any

from joblib.externals.loky import ProcessPoolExecutor

from amarl_core.errors import AmarlError
from amarl_core.runs import CORES_SETTING, usable_cores

BACKENDS = ("local", "dask")
SECONDS_TO_CONNECT = 10
"""How long a scheduler may take to answer."""

SECONDS_TO_SAVE = 10.0
"""How long a trial may take to end by itself after Ctrl-C: a training writes its checkpoint."""


class LostWorkerError(AmarlError):
    """The worker of a cluster that was doing a trial died, and others that were given it as well."""


class Crew:
    """A number of workers that do calls; a context that ends with them."""

    n_workers: int = 1
    breaks_as_one: bool = False
    """Whether the death of one worker ends the work of all."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        """Let some worker do a call."""
        raise NotImplementedError

    def renew(self) -> None:
        """Engage new workers after one died."""

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        return None


class Alone(Crew):
    """This process itself."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        """Do the call now."""
        future: Future = Future()
        future.set_result(function(*arguments))
        if getattr(future.result(), "status", "") == "stopped":
            raise KeyboardInterrupt
        return future


class Processes(Crew):
    """Processes of this machine, through joblib's loky; each has its share of the cores.

    Args:
        n_workers: How many.
    """

    breaks_as_one = True

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers
        self._earlier = set(multiprocessing.active_children())
        self._futures: set[Future] = set()
        self._executor: Executor
        self.renew()

    def renew(self) -> None:
        """Engage new processes."""
        # a process that has grown much, as compiling makes it grow, is replaced by loky, which warns of it
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
        share = max(1, usable_cores() // self.n_workers)
        self._executor = ProcessPoolExecutor(
            self.n_workers, initializer=_begin_worker, initargs=(os.getpid(), share), timeout=None
        )

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        """Let some process do a call."""
        future = self._executor.submit(function, *arguments)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            for future in list(self._futures):
                future.cancel()
            for process in set(multiprocessing.active_children()) - self._earlier:
                os.kill(process.pid, signal.SIGTERM)
            wait([future for future in list(self._futures) if not future.cancelled()], SECONDS_TO_SAVE)
        self._executor.shutdown(kill_workers=error is not None)


def _begin_worker(parent: int, cores: int) -> None:
    """Prepare a process: its share of the cores, an end in good order, and none without its parent."""
    os.environ[CORES_SETTING] = str(cores)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent decides
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _end_with(parent: int) -> None:
    """End this process when its parent is no more: nobody would take what it finds."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


class Cluster(Crew):
    """The workers of a Dask cluster that runs already; all must reach the study's folder under the same path.

    Args:
        address: Of its scheduler.

    Raises:
        AmarlError: Dask is not installed, or there is no scheduler.
    """

    def __init__(self, address: str | None) -> None:
        try:
            from distributed import Client
            from distributed.scheduler import KilledWorker
        except ImportError as error:
            raise AmarlError("the dask backend needs Dask; install it with `pip install distributed`") from error
        if not address:
            raise AmarlError("the dask backend needs a scheduler; give its address, such as tcp://127.0.0.1:8786")
        try:
            self._client = Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
        except OSError as error:
            raise AmarlError(f"no Dask scheduler answers at {address} ({error}); start `dask scheduler`") from error
        self._killed = KilledWorker

    @property
    def n_workers(self) -> int:
        """Workers that the cluster has now, at least 1: it may wait for the first."""
        return max(1, len(self._client.nthreads()))

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        """Let some worker do a call."""
        future = self._client.submit(function, *arguments, pure=False)
        promise: Future = Future()
        future.add_done_callback(lambda done: self._settle(done, promise))
        return promise

    def _settle(self, done: Any, promise: Future) -> None:
        if done.status == "finished":
            promise.set_result(done.result())
            return
        error = done.exception() if done.status == "error" else AmarlError("the cluster let go of a trial")
        promise.set_exception(LostWorkerError(str(error)) if isinstance(error, self._killed) else error)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        self._client.close()


def make_crew(backend: str, jobs: int | None, scheduler: str | None, n_calls: int) -> Crew:
    """Engage a crew.

    Args:
        backend: One of `BACKENDS`.
        jobs: Processes of this machine; the number of cores when None, 0 for this process itself.
        scheduler: Address of a Dask scheduler.
        n_calls: How many calls there are: no more processes than that are started.

    Raises:
        AmarlError: An unknown backend, an invalid number of jobs, or no cluster.
    """
    if backend not in BACKENDS:
        raise AmarlError(f"backend is {backend!r}; expected one of {', '.join(BACKENDS)}")
    if backend == "dask":
        return Cluster(scheduler)
    if jobs is not None and (not isinstance(jobs, int) or jobs < 0):
        raise AmarlError(f"jobs is {jobs!r}; expected an integer of at least 0")
    n_workers = usable_cores() if jobs is None else jobs
    return Processes(min(n_workers, n_calls)) if n_workers else Alone()
