"""Asynchronous multi-agent routing of service function chains over a shared O-RAN network.

Importing this package prepares the process for the compiled kernels: one OpenMP thread (agents are the
parallelism) and a cache folder for numba that changes with the kernels' sources, because numba's own
cache does not notice an edited callee in another module.
"""

import hashlib
import os
import sys
from pathlib import Path

__version__ = "0.3.0"

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
    root = Path(os.environ.get("AMARL_CACHE_DIR", package.parent / ".cache"))
    bounds = "-checked" if os.environ.get("NUMBA_BOUNDSCHECK") == "1" else ""
    os.environ["NUMBA_CACHE_DIR"] = str(root / f"kernels-{digest.hexdigest()[:12]}{bounds}")
    if "numba" in sys.modules:  # imported before us: it has read its settings already
        sys.modules["numba"].config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"]


_prepare_process()
