"""Reading of tables, checked to the last cell: one clear error, or every value as promised.

A table is described by its columns. Whatever is wrong with a file (missing, empty, a Git-LFS pointer, a wrong
column name, a ragged row, a number that is none) becomes one error that names file, row, column, value,
expectation and remedy. Rows are counted as lines of the file, the header being line 1.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from amarl_core.errors import AmarlError, problem

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_MOST_SHOWN = 12
_MOST_DIGITS = 18


@dataclass(frozen=True)
class Column:
    """What one column may hold.

    Attributes:
        kind: "text" (not empty), "int" or "float" (finite).
        above: Values must be greater than this.
        least: Values must be at least this.
        most: Values must be at most this.
        unique: No value may occur twice.
        optional: The column may be missing from the file.
        blank: A text may be empty.
        unit: Unit shown in the error, such as "kbps".
    """

    kind: Literal["text", "int", "float"]
    above: float | None = None
    least: float | None = None
    most: float = 1e12
    unique: bool = False
    optional: bool = False
    blank: bool = False
    unit: str = ""

    def expectation(self) -> str:
        """Return what is expected in words."""
        if self.kind == "text":
            return "a text that is not empty"
        noun, article = ("integer", "an") if self.kind == "int" else ("finite number", "a")
        unit = f" ({self.unit})" if self.unit else ""
        if self.above == 0:
            words = f"a positive {noun}{unit}"
        elif self.above is not None:
            words = f"{article} {noun} above {self.above:g}{unit}"
        elif self.least is not None:
            words = f"{article} {noun} of at least {self.least:g}{unit}"
        else:
            words = f"{article} {noun}{unit}"
        return words if self.most >= 1e12 else f"{words}, at most {self.most:g}"

    def bad_values(self, values: np.ndarray) -> np.ndarray:
        """Return a mask, bool [n], of the numbers outside this column's range."""
        bad = ~np.isfinite(values) | (values > self.most)
        if self.above is not None:
            bad |= values <= self.above
        if self.least is not None:
            bad |= values < self.least
        return bad


@dataclass(frozen=True, eq=False)
class Table:
    """A table read and checked: columns by name, and the line of the file that each row came from."""

    path: Path
    error: type[AmarlError]
    columns: dict[str, Any]
    rows: Sequence[int]
    shown: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def __getitem__(self, column: str) -> Any:
        """Return a column: list of str for text, int64 [n] or float64 [n] for numbers."""
        return self.columns[column]

    def fail(self, index: int, column: str, expected: str, remedy: str = "") -> NoReturn:
        """Raise this table's error for the value at row `index` (counted from 0) of `column`."""
        given = self.shown[column] if column in self.shown else self.columns[column]
        value = given[index]
        value = value.item() if isinstance(value, np.generic) else value
        raise self.error(problem(self.path, self.rows[index], column, value, expected, remedy))

    def lookup(self, column: str, index: Mapping[str, int], what: str, remedy: str = "") -> np.ndarray:
        """Translate a text column by `index`.

        Args:
            column: Name of the text column.
            index: Number by identifier.
            what: What the identifiers are, such as "node".
            remedy: What to do about an unknown one.

        Returns:
            int64 [n].
        """
        found = [index.get(text, -1) for text in self.columns[column]]
        if -1 in found:
            self.fail(found.index(-1), column, f"a known {what}: {names(index)}", remedy)
        return np.array(found, dtype=np.int64)


def names(known: Mapping[str, Any] | Sequence[str]) -> str:
    """Return the identifiers as a short list in words."""
    listed = list(known)
    more = f" and {len(listed) - _MOST_SHOWN} more" if len(listed) > _MOST_SHOWN else ""
    return ", ".join(listed[:_MOST_SHOWN]) + more


def read_bytes(path: Path, error: type[AmarlError], remedy: str = "", content: str = "a header line and rows") -> bytes:
    """Return a file's content, refusing what is missing, empty or only a Git-LFS pointer."""
    if not path.is_file():
        raise error(problem(path, None, None, "no such file", f"a file at {path}", remedy))
    try:
        found = path.read_bytes()
    except OSError as reason:
        raise error(problem(path, None, None, f"not readable: {reason}", "a readable file", remedy)) from reason
    if found.startswith(LFS_POINTER):
        raise error(
            problem(
                path,
                None,
                None,
                "a Git-LFS pointer file",
                "the data itself",
                "Run `git lfs pull` to fetch it.",
            )
        )
    if not found.strip():
        raise error(problem(path, None, None, "an empty file", content, remedy))
    return found


def read_csv(path: Path, columns: Mapping[str, Column], error: type[AmarlError]) -> Table:
    """Read a CSV or CSV.gz file and check every cell.

    Args:
        path: The file; gzip is recognised by its content.
        columns: What each column may hold, by name.
        error: The class of error to raise.

    Returns:
        The table, with at least one row.

    Raises:
        AmarlError: The class given, at the first fault found.
    """
    content = read_bytes(path, error)
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as reason:
            raise error(
                problem(path, None, None, f"broken gzip: {reason}", "a complete gzip file", "Write it again.")
            ) from reason
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(
            problem(path, None, None, f"not UTF-8: {reason.reason}", "UTF-8 text", "Save the table as UTF-8.")
        ) from reason
    rows, lines = _split_rows(path, text, error)
    header = [name.strip() for name in rows.pop(0)]
    lines.pop(0)
    check_header(path, header, columns, error)
    if not rows:
        raise error(problem(path, None, None, "a header without rows", "at least one row", "Add the rows."))
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise error(
                problem(
                    path,
                    line,
                    None,
                    f"{len(row)} cells",
                    f"{len(header)} as in the header",
                    "Check the commas.",
                )
            )
    cells = {name: list(column) for name, column in zip(header, zip(*rows, strict=True), strict=True)}
    table = Table(path, error, {}, lines, cells)
    for name, texts in cells.items():
        table.columns[name] = _parse(table, name, columns[name], texts)
    check_unique(table, columns)
    return table


def _split_rows(path: Path, text: str, error: type[AmarlError]) -> tuple[list[list[str]], list[int]]:
    rows: list[list[str]] = []
    lines: list[int] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if row:
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as reason:
        raise error(
            problem(
                path,
                reader.line_num,
                None,
                f"not CSV: {reason}",
                "comma-separated cells",
                "Check the quotes.",
            )
        ) from reason
    if not rows:
        raise error(problem(path, None, None, "an empty file", "a header line and rows"))
    return rows, lines


def check_header(path: Path, header: Sequence[str], columns: Mapping[str, Column], error: type[AmarlError]) -> None:
    """Refuse unknown, repeated and missing column names, listing the valid ones."""
    valid = ", ".join(columns)
    for name in header:
        if name not in columns:
            raise error(problem(path, 1, "column name", name, f"one of {valid}", "Rename or remove the column."))
    for name in header:
        if list(header).count(name) > 1:
            raise error(problem(path, 1, "column name", name, "each column once", "Remove the repeated column."))
    for name, column in columns.items():
        if name not in header and not column.optional:
            raise error(problem(path, 1, None, f"no column {name!r}", f"the columns {valid}", "Add the column."))


def _parse(table: Table, name: str, column: Column, texts: list[str]) -> Any:
    stripped = [text.strip() for text in texts]
    if column.kind == "text":
        if not column.blank and "" in stripped:
            table.fail(stripped.index(""), name, column.expectation(), "Fill the cell.")
        return stripped
    pattern = _INTEGER if column.kind == "int" else _NUMBER
    for index, text in enumerate(stripped):
        if pattern.fullmatch(text) is None:
            table.fail(
                index,
                name,
                column.expectation(),
                "Write a plain number, without unit or thousands separator.",
            )
    if column.kind == "int":
        for index, text in enumerate(stripped):
            if len(text.lstrip("+-0")) > _MOST_DIGITS:
                table.fail(index, name, column.expectation())
        array = np.array([int(text) for text in stripped], dtype=np.int64)
    else:
        array = np.array([float(text) for text in stripped], dtype=np.float64)
    check_range(table, name, column, array)
    return array


def check_range(table: Table, name: str, column: Column, values: np.ndarray) -> None:
    """Refuse the first number outside the column's range."""
    bad = column.bad_values(values)
    if bad.any():
        table.fail(int(np.argmax(bad)), name, column.expectation())


def check_unique(table: Table, columns: Mapping[str, Column]) -> None:
    """Refuse the first repeated value of a column whose values must differ."""
    for name, values in table.columns.items():
        if not columns[name].unique:
            continue
        seen: set[Any] = set()
        for index, value in enumerate(values):
            if value in seen:
                table.fail(index, name, "each value once", "Remove or rename the duplicate.")
            seen.add(value)
