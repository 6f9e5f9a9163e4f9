"""Run folders: where records live, how they are written, and which of them may be believed.

A run folder is ``reports/runs/<study>/<method>/seed=<n>/``. Its life is written in ``status.json``:

    new -> running -> finished | stopped | failed

Every file is written beside its place and then moved there in one step (`files`), so that a reader meets the old
file or the new one, never half of one, whenever a process was killed. A finished run is never overwritten. A run
that is still marked running, stopped or failed is never taken for a finished one; starting it again removes what it
had recorded, going on with it keeps that.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from amarl_core.errors import HeldError, RunError
from amarl_core.files import storing, sweep, write_text, write_whole

ROOT = Path("reports") / "runs"
STATUSES = ("running", "finished", "stopped", "failed")
VARIANT_SUFFIX = {"arrival3": "", "arrival1": "_attempts1", "free3": "_free", "train": ""}
"""How a commit order and its number of attempts show in a record's file name."""

PACKAGES = ("numpy", "numba", "torch", "stable-baselines3", "sb3-contrib", "gymnasium", "pandas", "pyarrow")
THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
CORES_SETTING = "AMARL_CORES"
"""Environment variable: at most so many cores are used, whatever the machine has."""

_INSTEAD = "load it, choose another study or seed, or delete the folder to run it again"
_RUN_FILES = (
    "checkpoint/checkpoint.json",  # first: a checkpoint that is half removed is none
    "config.json",
    "provenance.json",
    "timing.json",
    "outcome.json",
    "error.txt",
    "*.parquet",
    "model",
    "checkpoint",
    "tensorboard",
)


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as JSON in one step.

    Args:
        path: Place of the file; its folder is made when missing.
        value: Anything made of mappings, sequences, dataclasses, paths, numpy scalars and arrays. A number
            that is not finite becomes null, since JSON has no word for it.
    """
    text = json.dumps(plain(value), indent=2, allow_nan=False) + "\n"
    write_text(path, text)


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        RunError: The file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path}: no such file; expected a JSON file of a run") from error
    except json.JSONDecodeError as error:
        message = f"not valid JSON ({error.msg}); delete it and run again"
        raise RunError(f"{path} line {error.lineno}: {message}") from error


def write_frame(path: str | Path, frame: pd.DataFrame | pa.Table) -> None:
    """Write a frame as Parquet in one step, without its index.

    Args:
        path: Place of the file; its folder is made when missing.
        frame: A DataFrame or an Arrow table. Columns of lists may hold Python lists or be Arrow-backed.
    """
    table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame, preserve_index=False)
    # pandas cannot read back its own metadata of a list<dictionary<string>> column; the schema says it all.
    table = table.replace_schema_metadata(None)
    write_whole(path, lambda file: pq.write_table(table, file, compression="zstd"))


def read_frame(path: str | Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a Parquet record.

    Args:
        path: Place of the file.
        columns: The columns wanted; all when None.

    Returns:
        A DataFrame whose columns of lists stay in Arrow (compact and quick; an element is a Python list).

    Raises:
        RunError: The file is missing, or is not Parquet, or has no such column.
    """
    try:
        # Not pq.read_table, which would make a column of the "seed=1" in the path; and group by group: a
        # list<dictionary<string>> column cannot be read across groups at once.
        with pq.ParquetFile(path) as file:
            groups = [file.read_row_group(i, columns) for i in range(file.num_row_groups)]
            table = pa.concat_tables(groups) if groups else file.read(columns)
    except FileNotFoundError as error:
        raise RunError(f"{path}: no such record; run the method that writes it first") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise RunError(f"{path}: cannot be read as Parquet ({error}); delete it and run again") from error
    missing = sorted(set(columns or ()) - set(table.column_names))
    if missing:
        raise RunError(f"{path}: no column {missing}; valid columns are {table.column_names}")
    return table.to_pandas(types_mapper=keep_lists, ignore_metadata=True)


def record_name(kind: str, day: str, variant: str = "arrival3") -> str:
    """Name the file of a record.

    Args:
        kind: "decisions", "ledger", or "moves" of a rule that moves flows.
        day: A test day, or "train".
        variant: "arrival3" or "arrival1" (order of arrival, that many attempts), "free3", or "train".

    Raises:
        RunError: There is no such variant.
    """
    if variant not in VARIANT_SUFFIX:
        raise RunError(f"variant is {variant!r}; expected one of {sorted(VARIANT_SUFFIX)}")
    return f"{kind}_{day}{VARIANT_SUFFIX[variant]}.parquet"


class RunFolder:
    """One run on disk, from start to its last record.

    A process that has started a run holds a lock file until the run ends (or the process does), so that two
    processes never write into one folder.

    Args:
        path: The folder; made by ``start``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = FileLock(self.path / ".lock", timeout=0, thread_local=False)

    @classmethod
    def of(cls, study: str, method: str, seed: int, root: str | Path = ROOT) -> RunFolder:
        """Return the run folder of a method and a seed in a study."""
        return cls(Path(root) / study / method / f"seed={seed}")

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r}, status={self.status!r})"

    @property
    def status(self) -> str:
        """Where the run stands: one of STATUSES, or "new". A killed run stays "running"."""
        return str(self._state()["status"])

    @property
    def error(self) -> str | None:
        """What made the run fail, if it failed."""
        return self._state().get("error")

    @property
    def is_finished(self) -> bool:
        """Whether the run came to its end, so that its records may be used as results."""
        return self.status == "finished"

    def start(self, config: Mapping[str, Any], provenance: Mapping[str, Any] | None = None) -> RunFolder:
        """Begin the run: remove what an unfinished one left, and record how this one was configured.

        Args:
            config: All values, resolved; kept as config.json.
            provenance: See ``provenance``; kept as provenance.json when given.

        Raises:
            RunError: The run is finished.
            HeldError: Another process is writing it.
        """
        self._take()
        if self.status != "new":
            self._remove_records()
        self._set("running")
        write_json(self.path / "config.json", config)
        if provenance is not None:
            write_json(self.path / "provenance.json", provenance)
        return self

    def go_on(self) -> RunFolder:
        """Go on with an unfinished run, and keep what it has recorded.

        Raises:
            RunError: The run is new or finished.
            HeldError: Another process is writing it.
        """
        if self.status == "new":
            raise RunError(f"{self.path}: there is no run to go on with; start it")
        self._take()
        self._set("running")
        return self

    def _take(self) -> None:
        """Hold the folder's lock file."""
        self._refuse_finished()
        with storing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except Timeout as error:
                message = "another run is writing this folder; wait for it to end, or choose another study or seed"
                raise HeldError(f"{self.path}: {message}") from error
        try:
            self._refuse_finished()  # another process may have finished it just before the lock was taken
        except RunError:
            self._lock.release()
            raise
        sweep(self.path)

    def _refuse_finished(self) -> None:
        if self.is_finished:
            raise RunError(f"{self.path}: this run is finished and is never overwritten; {_INSTEAD}")

    def finish(self) -> None:
        """Mark the run finished: from now on its records are results.

        Raises:
            RunError: The run is not running.
        """
        self._end("finished")

    def stop(self) -> None:
        """Mark the run stopped by its user, with what it had."""
        self._end("stopped")

    def fail(self, error: BaseException | str) -> None:
        """Mark the run failed.

        Args:
            error: What went wrong.
        """
        text = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else error
        self._end("failed", text)

    def require_finished(self) -> RunFolder:
        """Return the folder itself when its run is finished.

        Raises:
            RunError: It is not, and how it stands.
        """
        if not self.is_finished:
            because = f" ({self.error})" if self.error else ""
            message = f"the run is {self.status}{because}; only a finished one counts as a result; run it again"
            raise RunError(f"{self.path}: {message}")
        return self

    def save_json(self, name: str, value: Any) -> None:
        """Write a JSON file of this run; one that a finished run already has is not replaced."""
        write_json(self._place(name), value)

    def save_frame(self, name: str, frame: pd.DataFrame | pa.Table) -> None:
        """Write a Parquet record of this run; one that a finished run already has is not replaced."""
        write_frame(self._place(name), frame)

    def json(self, name: str) -> Any:
        """Read a JSON file of this run, such as "timing.json"."""
        return read_json(self.path / name)

    def frame(self, name: str, columns: list[str] | None = None) -> pd.DataFrame:
        """Read a Parquet record of this run, such as ``record_name("decisions", day)``."""
        return read_frame(self.path / name, columns)

    def _place(self, name: str) -> Path:
        place = self.path / name
        if self.is_finished and place.exists():
            raise RunError(f"{place}: the run is finished and its records are never overwritten; {_INSTEAD}")
        return place

    def _state(self) -> dict[str, Any]:
        if not (self.path / "status.json").exists():
            return {"status": "new"}
        state = read_json(self.path / "status.json")
        if not isinstance(state, dict) or state.get("status") not in STATUSES:
            message = f"status is {state!r}; expected one of {STATUSES}; delete the folder to run it again"
            raise RunError(f"{self.path / 'status.json'}: {message}")
        return state

    def _set(self, status: str, error: str | None = None) -> None:
        write_json(self.path / "status.json", {"status": status, "error": error})

    def _end(self, status: str, error: str | None = None) -> None:
        if self.status != "running":
            message = f"cannot be marked {status}, it is {self.status}; only a run that was started can end"
            raise RunError(f"{self.path}: {message}")
        try:
            self._set(status, error)
        finally:
            self._lock.release()

    def _remove_records(self) -> None:
        # Status first: a folder whose records are half removed must not look like one that stopped properly.
        self._set("running")
        for pattern in _RUN_FILES:
            for place in self.path.glob(pattern):
                shutil.rmtree(place) if place.is_dir() else place.unlink()


def provenance(scenario: Any = None, traces: Iterable[Any] = ()) -> dict[str, Any]:
    """Say what a run was made with.

    Args:
        scenario: Anything with ``name`` and ``digest``.
        traces: Things with ``name`` and ``sha256``.

    Returns:
        Python, platform, cores, thread settings, package versions (None where not installed), git commit
        (None outside a repository), and the checksums of the scenario and the traces.
    """
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": usable_cores(),
        "threads": {name: os.environ.get(name) for name in THREAD_SETTINGS},
        "versions": {package: _version(package) for package in PACKAGES},
        "git_commit": _git_commit(),
        "scenario": None if scenario is None else {"name": scenario.name, "digest": scenario.digest},
        "traces": {trace.name: trace.sha256 for trace in traces},
    }


def usable_cores() -> int:
    """Count the cores that this process may use: at most AMARL_CORES, if the environment sets it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get(CORES_SETTING, "")
    return max(1, min(cores, int(limit))) if limit.isdecimal() else cores


def plain(value: Any) -> Any:
    """Turn a value into what JSON knows; a number that is not finite becomes None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return value


def keep_lists(kind: pa.DataType) -> pd.ArrowDtype | None:
    """Say which columns stay in Arrow when a record is read: those of lists."""
    return pd.ArrowDtype(kind) if pa.types.is_list(kind) or pa.types.is_large_list(kind) else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    """Return the commit of the code, with "+" when the working tree differs from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
