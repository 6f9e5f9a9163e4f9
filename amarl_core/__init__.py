"""Asynchronous multi-agent routing of service function chains over a shared O-RAN network.

Importing this package prepares the process for the compiled kernels: one OpenMP thread (agents are the
parallelism) and a cache folder for numba that changes with the kernels' sources, because numba's own
cache does not notice an edited callee in another module.
"""

import atexit
import hashlib
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

__version__ = "0.4.0"

KERNEL_SOURCES = (
    "native.py",
    "stopwatch.py",
    "store.py",
    "arrays.py",
    "prices.py",
    "reach.py",
    "routing.py",
    "inference.py",
    "arena.py",
    "departures.py",
    "gate.py",
    "rollout.py",
    "arrival.py",
    "clocks.py",
    "turns.py",
    "telemetry.py",
    "label_heap.py",
    "search.py",
    "k_shortest.py",
    "rule_routes.py",
    "moves.py",
    "reoptimise.py",
    "rule_service.py",
    "window_plans.py",
    "oracle.py",
    "bound_columns.py",
    "bound_master.py",
)


def _prepare_process() -> None:
    """Set OMP_NUM_THREADS and NUMBA_CACHE_DIR before numba and torch are imported."""
    if sys.platform == "win32":
        raise ImportError(
            "amarl_core needs POSIX threads (pthread mutexes inside compiled code), which Windows "
            "does not have; run it under WSL, Linux or macOS"
        )
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for name in KERNEL_SOURCES:
        source = package / name
        digest.update(source.read_bytes() if source.exists() else b"")
    bounds = "-checked" if os.environ.get("NUMBA_BOUNDSCHECK") == "1" else ""
    name = f"kernels-{digest.hexdigest()[:12]}{bounds}"
    folder = Path(os.environ.get("AMARL_CACHE_DIR", package.parent / ".cache")) / name
    os.environ["NUMBA_CACHE_DIR"] = str(folder if _can_be_written(folder) else _passing_cache(folder) / name)
    if "numba" in sys.modules:  # imported before us: it has read its settings already
        sys.modules["numba"].config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"]


def _can_be_written(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _passing_cache(folder: Path) -> Path:
    """Make a private folder for this process and those that it starts; it goes when the process ends."""
    place = tempfile.mkdtemp(prefix="amarl-kernels-")
    os.environ["AMARL_CACHE_DIR"] = place
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    logging.getLogger(__name__).warning(
        "%s cannot be written: kernels compile anew, a minute or two; set AMARL_CACHE_DIR to a folder that can", folder
    )
    return Path(place)


_prepare_process()
