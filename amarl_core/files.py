"""Files that are whole or absent: written in one step, swept when a process was killed, one clear error when they
cannot be written.

A file is filled beside its place under a name of its own (`.name.<host>-<process>-<random>.tmp`) and then moved there
in one step. A process that is killed leaves at most such a file or folder; `sweep` removes those whose process is gone.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

from amarl_core.errors import StorageError

DAY_S = 86_400.0
CLOCK_S = 5.0
"""How far the start of a process and the time of a file may be off against each other."""

_BESIDE = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{12}\.tmp")
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|%]|^\.+$')
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_OURS = (errno.EROFS, errno.EACCES, errno.EPERM)
_NO_FOLDER = (errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.EISDIR)


def beside(path: Path) -> Path:
    """Return a name beside `path` that nobody else uses and that says which process does."""
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{uuid.uuid4().hex[:12]}.tmp")


def write_whole(path: str | Path, fill: Callable[[IO[bytes]], Any]) -> Path:
    """Fill a file beside `path`, then move it there in one step: a reader meets the old file or the new one.

    Args:
        path: place of the file; its folder is made when missing.
        fill: writes into the open file.

    Returns:
        The path.

    Raises:
        StorageError: it cannot be written; what was there before stays.
    """
    path = Path(path)
    place = beside(path)
    with storing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(place, "xb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())  # or a power cut could leave the new name without the new bytes
            os.replace(place, path)
        except BaseException:
            with suppress(OSError):
                place.unlink(missing_ok=True)
            raise
    return path


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file (UTF-8, line ends as they are) in one step; raises what `write_whole` raises."""
    return write_whole(path, lambda file: file.write(text.encode("utf-8")))


def file_name(text: str) -> str:
    """Return a text as the name of a file or folder: what could lead elsewhere, or is no name, stands as %xx."""
    return _NOT_IN_NAMES.sub(lambda found: "".join(f"%{ord(c):02X}" for c in found[0]), text)


def inside(folder: str | Path, name: str) -> bool:
    """Whether a path stays in a folder, whatever `..`, absolute path or symbolic link it is made of."""
    home = Path(folder).resolve()
    return "\0" not in name and (home / name).resolve().is_relative_to(home)


@contextmanager
def storing(folder: str | Path) -> Iterator[None]:
    """Turn an error of the operating system into one that names the folder and what to do.

    Raises:
        StorageError: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"{folder}: {_said(error)}") from error


def _said(error: OSError) -> str:
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    if error.errno in _FULL:
        remedy = "make room there, or choose another folder, and run the same command again"
    elif error.errno == errno.EFBIG:
        remedy = "raise the limit on the size of files (ulimit -f)"
    elif error.errno in _NOT_OURS:
        remedy = "choose a folder that may be written, or have it unlocked"
    elif error.errno in _NO_FOLDER:
        remedy = "choose another folder, whose path leads through folders only"
    else:
        remedy = "choose another folder, or have the disk looked at"
    return f"cannot be written ({reason}); {remedy}"


def sweep(folder: str | Path) -> int:
    """Remove what killed processes left half-written anywhere below a folder.

    Args:
        folder: where to look; it need not exist, and is left alone where it cannot be written.

    Returns:
        How many files and folders were removed.
    """
    return sum(sweep_one(path) for path in list(Path(folder).rglob(".*.tmp")))


def sweep_one(path: Path) -> bool:
    """Remove a file or folder if it is what a killed process left half-written; return whether it was."""
    if not _is_left_over(path):
        return False
    with suppress(OSError):  # where nothing can be removed, whatever comes next says why
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return not path.exists()


def is_half_written(path: Path) -> bool:
    """Whether this is the name of a file or folder in the making, or of one that was cut short."""
    return _BESIDE.fullmatch(path.name) is not None


def _is_left_over(path: Path) -> bool:
    """Whether the process that wrote it is gone; one of another machine is given a day."""
    match = _BESIDE.fullmatch(path.name)
    if match is None:
        return False
    try:
        written = path.lstat().st_mtime
        if match[1] != _host():
            return time.time() - written > DAY_S
        return psutil.Process(int(match[2])).create_time() > written + CLOCK_S  # its number was given away again
    except (psutil.NoSuchProcess, OverflowError):
        return True
    except (OSError, psutil.Error):
        return False


def _host() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"
