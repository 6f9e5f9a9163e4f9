"""Whether every file below a folder is whole: JSON, tables, arrays and weights can be read, pages are complete."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from amarl_core.errors import RunError
from amarl_core.files import is_half_written
from amarl_core.policy import read_weights


def damaged(folder: str | Path) -> list[str]:
    """Check every file below a folder; files in the making (`files.beside`) and lock files are passed over.

    Args:
        folder: where to look.

    Returns:
        A sentence for each file that is not whole, or of a kind that nobody here can judge.
    """
    return [f"{path}: {said}" for path in files_below(folder) if (said := _complaint(path))]


def files_below(folder: str | Path) -> list[Path]:
    """List the files below a folder that should be whole."""
    found = [path for path in Path(folder).rglob("*") if path.is_file() and path.name != ".lock"]
    return sorted(path for path in found if not _in_the_making(path))


def half_written(folder: str | Path) -> list[Path]:
    """List the files and folders in the making."""
    return sorted(path for path in Path(folder).rglob(".*.tmp") if is_half_written(path))


def _in_the_making(path: Path) -> bool:
    return any(is_half_written(part) for part in (path, *path.parents))


def _complaint(path: Path) -> str | None:
    """Say what is wrong with a file, if anything is."""
    check = CHECKS.get(path.suffix)
    if check is None:
        return "no check knows this kind of file"
    try:
        check(path)
    except (ValueError, OSError, EOFError, KeyError, pa.ArrowException, zipfile.BadZipFile, RunError) as error:
        return f"not whole ({type(error).__name__}: {error})"
    return None


def _check_arrays(path: Path) -> None:
    with np.load(path, allow_pickle=False) as arrays:
        for name in arrays:
            arrays[name]


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    if broken:
        raise ValueError(f"member {broken} is damaged")
    read_weights(path)


def _check_page(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if not (text.lstrip().lower().startswith("<!doctype html>") and text.rstrip().endswith("</html>")):
        raise ValueError("it does not begin and end as a page")


def _check_png(path: Path) -> None:
    content = path.read_bytes()
    if not (content.startswith(b"\x89PNG") and b"IEND" in content[-12:]):
        raise ValueError("it does not begin and end as a picture")


def _check_lines(path: Path) -> None:
    if not path.read_text(encoding="utf-8").endswith("\n"):
        raise ValueError("its last line does not end")


def _check_table(path: Path) -> None:
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            file.read_row_group(group)


CHECKS: dict[str, Callable[[Path], object]] = {
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".parquet": _check_table,
    ".npz": _check_arrays,
    ".zip": _check_archive,
    ".html": _check_page,
    ".ipynb": lambda path: nbformat.read(path, as_version=4),
    ".png": _check_png,
    ".md": _check_lines,
    ".csv": _check_lines,
    ".toml": _check_lines,
    ".txt": _check_lines,
}
"""How a file is read to the end, by its suffix; raises if it cannot be."""
