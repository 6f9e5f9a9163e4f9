"""Tables of any size, read in chunks: the columns that a mapping names, with the row that each value came from.

Rows are counted as lines of a text file (a header is row 1; a line break inside quotes does not count) and as rows from
1 of a Parquet file. Texts are read as texts and made numbers here, so that nothing is taken for a number that a person
would not read as one: no thousands separators, no units, no decimal commas.
"""

from __future__ import annotations

import codecs
import csv
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from amarl_core.errors import TraceError, problem
from amarl_core.foreign.trace_mappings import TrafficMapping
from amarl_core.foreign.trace_reports import Report
from amarl_core.tables import LFS_POINTER, names

logger = logging.getLogger(__name__)

CHUNK_BYTES = 16_000_000
_BYTES_A_ROW = 64
_HEADER_BYTES = 100_000
_BLOCK_BYTES = 1_000_000
_BLANK_MOST = 1000
_LOG_EVERY_ROWS = 2_000_000
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_INTEGER = r"^[+-]?[0-9]{1,18}$"
_PLAIN = "Write a plain number with a point, without unit or thousands separator."
_DELIMITERS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t", ".txt": "\t", ".txt.gz": "\t"}
_READ_ERRORS = (pa.ArrowException, OSError, EOFError, ValueError, LookupError)


@dataclass(frozen=True)
class Chunk:
    """Some rows of a table.

    Attributes:
        path: The file.
        rows: Row of each value, int64 [n], as shown in errors.
        columns: An Arrow array of n values by name: texts, or the numbers or times of a Parquet file.
    """

    path: Path
    rows: np.ndarray
    columns: dict[str, pa.Array]

    def __len__(self) -> int:
        return len(self.rows)

    def fail(self, index: int, column: str, expected: str, remedy: str = "") -> NoReturn:
        """Raise an error that names the value at `index` of `column`."""
        value = self.columns[column][int(index)].as_py()
        raise TraceError(problem(self.path, int(self.rows[index]), column, value, expected, remedy))

    def texts(self, column: str) -> tuple[np.ndarray, list[str]]:
        """Return a column as the index, int32 [n], of each value among the different texts, without outer blanks."""
        values = self.columns[column]
        kind = values.type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
            raise TraceError(problem(self.path, None, column, f"of type {kind}", "texts", "Convert the column."))
        self.refuse_missing(column, "a text that is not empty")
        encoded = pc.dictionary_encode(values)
        different = [str(text).strip() for text in encoded.dictionary.to_pylist()]
        codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
        if "" in different:
            self.fail(
                np.flatnonzero(codes == different.index(""))[0], column, "a text that is not empty", "Fill the cell."
            )
        return codes, different

    def numbers(self, column: str, expected: str, blank: float | None = None) -> np.ndarray:
        """Return a column as finite numbers, float64 [n].

        Args:
            column: Its name.
            expected: What is expected, for the error.
            blank: What an empty cell (or "None") counts as; None to refuse it.
        """
        values = self.columns[column]
        if pa.types.is_string(values.type):
            values = pc.utf8_trim_whitespace(values)
            if blank is not None:
                is_blank = pc.is_in(values, pa.array(["", "None"]))
                values = pc.if_else(is_blank, pa.scalar(repr(float(blank))), values)
            numbers = self._parsed(values, column, expected)
        else:
            if blank is not None:
                values = pc.fill_null(self._only_numbers(values, column), blank)
            self.refuse_missing(column, expected, values)
            numbers = self._only_numbers(values, column).to_numpy(zero_copy_only=False).astype(np.float64)
        if not np.isfinite(numbers).all():
            self.fail(np.argmin(np.isfinite(numbers)), column, expected, _PLAIN)
        return numbers

    def integers(self, column: str, expected: str) -> np.ndarray:
        """Return a column as integers, int64 [n]."""
        values = self.columns[column]
        if pa.types.is_string(values.type):
            values = pc.utf8_trim_whitespace(values)
            good = pc.match_substring_regex(values, _INTEGER).to_numpy(zero_copy_only=False)
            if not good.all():
                self.fail(np.argmin(good), column, expected, _PLAIN)
            return pc.cast(pc.utf8_ltrim(values, "+"), pa.int64()).to_numpy(zero_copy_only=False)
        if not pa.types.is_integer(values.type) or values.type == pa.uint64():
            raise TraceError(
                problem(self.path, None, column, f"of type {values.type}", expected, "Convert the column.")
            )
        self.refuse_missing(column, expected)
        return values.to_numpy(zero_copy_only=False).astype(np.int64)

    def refuse_missing(self, column: str, expected: str, values: pa.Array | None = None) -> None:
        """Refuse a column of a Parquet file in which a value is missing."""
        values = self.columns[column] if values is None else values
        if values.null_count:
            self.fail(np.argmax(pc.is_null(values).to_numpy(zero_copy_only=False)), column, expected, "Fill the cell.")

    def _parsed(self, values: pa.Array, column: str, expected: str) -> np.ndarray:
        try:
            return pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:  # a bad one, or only a plus sign, which Arrow does not read
            good = pc.match_substring_regex(values, _NUMBER).to_numpy(zero_copy_only=False)
        if not good.all():
            self.fail(np.argmin(good), column, expected, _PLAIN)
        return np.array([float(text) for text in values.to_pylist()])

    def _only_numbers(self, values: pa.Array, column: str) -> pa.Array:
        kind = values.type
        if pa.types.is_decimal(kind):
            return pc.cast(values, pa.float64())
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise TraceError(problem(self.path, None, column, f"of type {kind}", "numbers", "Convert the column."))
        return values


@dataclass
class Codes:
    """Numbers for the different texts of a column, given as they appear over all chunks."""

    path: Path
    column: str
    texts: list[str] = field(default_factory=list)
    first_row: list[int] = field(default_factory=list)
    _index: dict[str, int] = field(default_factory=dict)

    def encode(self, chunk: Chunk) -> np.ndarray:
        """Return the number of each value of the chunk, int32 [n]."""
        codes, different = chunk.texts(self.column)
        _, first = np.unique(codes, return_index=True)  # every text of a dictionary occurs
        number = np.empty(len(different), dtype=np.int32)
        for i in np.argsort(first, kind="stable").tolist():
            text = different[i]
            if text not in self._index:
                self._index[text] = len(self.texts)
                self.texts.append(text)
                self.first_row.append(int(chunk.rows[first[i]]))
            number[i] = self._index[text]
        return number[codes]

    def fail(self, code: int, expected: str, remedy: str = "") -> NoReturn:
        """Raise an error that names a text where it first occurs."""
        raise TraceError(problem(self.path, self.first_row[code], self.column, self.texts[code], expected, remedy))


def suffix_of(path: Path) -> str:
    """Return the ending that says what kind of table a file is: .csv, .csv.gz, .tsv, .txt, .parquet ..."""
    endings = path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:]
    return "".join(endings).lower()


def read_chunks(path: Path, mapping: TrafficMapping, report: Report, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Chunk]:
    """Read a table's columns that a mapping uses, some rows at a time.

    Args:
        path: A .csv, .tsv or .txt file, perhaps with .gz, or a .parquet file.
        mapping: Which columns, and how a text table is written.
        report: Where to report how many rows there are.
        chunk_bytes: Size of a chunk, in bytes of text; a Parquet row is taken for 64.

    Yields:
        Chunks of one row at least, in the order of the file.

    Raises:
        TraceError: The file is missing, empty, a Git-LFS pointer, damaged, not of its kind, or lacks a column.
    """
    suffix = suffix_of(path)
    if suffix not in (*_DELIMITERS, ".parquet"):
        raise TraceError(
            problem(path, None, "file name", path.name, f"one ending in {', '.join((*_DELIMITERS, '.parquet'))}")
        )
    _refuse_no_file(path)
    n_rows, told, blank = 0, _LOG_EVERY_ROWS, []
    chunks = _parquet_chunks if suffix == ".parquet" else _text_chunks
    for chunk in chunks(path, mapping, chunk_bytes):
        chunk, blank_rows = _without_blank_rows(chunk)
        blank += blank_rows[: _BLANK_MOST - len(blank)].tolist()
        n_rows += len(chunk)
        if len(chunk):
            yield chunk
        if n_rows >= told:
            logger.info("%s: %s rows read", path.name, f"{n_rows:,}")
            told += _LOG_EVERY_ROWS
    if not n_rows:
        raise TraceError(problem(path, None, None, "a table without rows", "at least one row", "Add the rows."))
    report.note("rows", n_rows, "", "read")
    more = " and more" if len(blank) == _BLANK_MOST else ""
    report.warn("blank row", len(blank), f"row {blank[0]}{more}" if blank else "", "ignored: no cell in use is filled")


def _refuse_no_file(path: Path) -> None:
    if not path.is_file():
        raise TraceError(problem(path, None, None, "no such file", f"a file at {path}"))
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError as reason:
        raise TraceError(problem(path, None, None, f"not readable: {reason}", "a readable file")) from reason
    if start.startswith(LFS_POINTER):
        raise TraceError(
            problem(path, None, None, "a Git-LFS pointer file", "the data itself", "Run `git lfs pull` to fetch it.")
        )
    if not start.strip():
        raise TraceError(problem(path, None, None, "an empty file", "rows"))


def _text_chunks(path: Path, mapping: TrafficMapping, chunk_bytes: int) -> Iterator[Chunk]:
    delimiter = mapping.delimiter or _DELIMITERS[suffix_of(path)]
    used = mapping.used_columns()
    try:
        _refuse_no_utf8(path)
        header = _read_header(path, delimiter) if mapping.header else list(mapping.columns)
        _check_header(path, header, used, delimiter)
        ragged: list[pa.csv.InvalidRow] = []

        def note(row: pa.csv.InvalidRow) -> str:
            ragged.append(row)
            return "skip"

        reader = pa.csv.open_csv(
            _open(path),
            read_options=pa.csv.ReadOptions(
                use_threads=False,  # with threads, Arrow does not know the number of a ragged row
                block_size=chunk_bytes,
                column_names=header,
                skip_rows=int(mapping.header),
            ),
            parse_options=pa.csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=False, ignore_empty_lines=False, invalid_row_handler=note
            ),
            convert_options=pa.csv.ConvertOptions(
                include_columns=used, column_types=dict.fromkeys(used, pa.string()), strings_can_be_null=False
            ),
        )
        row = 1 + int(mapping.header)
        for batch in reader:
            if ragged:
                break
            yield Chunk(
                path,
                np.arange(row, row + batch.num_rows),
                dict(zip(batch.schema.names, batch.columns, strict=True)),
            )
            row += batch.num_rows
    except _READ_ERRORS as reason:
        raise TraceError(
            problem(path, None, None, f"not a readable table: {reason}", "a complete text table in UTF-8")
        ) from reason
    if ragged:
        raise TraceError(
            problem(
                path,
                ragged[0].number,
                None,
                f"{ragged[0].actual_columns} cells",
                f"{len(header)} {'as in the header' if mapping.header else 'as the mapping names'}",
                f"Check the delimiter {delimiter!r}; a thousands separator or decimal comma counts as one.",
            )
        )


def _refuse_no_utf8(path: Path) -> None:
    """Read a text table once for its encoding, because Arrow looks at the columns in use only."""
    decoder, row = codecs.getincrementaldecoder("utf-8")(), 1
    with _open(path) as file:
        while True:
            block = file.read(_BLOCK_BYTES)
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as reason:
                row += block[: reason.start].count(b"\n")
                raise TraceError(
                    problem(path, row, None, f"not UTF-8: {reason.reason}", "UTF-8 text", "Save the table as UTF-8.")
                ) from reason
            row += block.count(b"\n")
            if not block:
                return


def _open(path: Path) -> pa.NativeFile:
    return pa.input_stream(str(path), compression="gzip" if path.suffix == ".gz" else None)


def _read_header(path: Path, delimiter: str) -> list[str]:
    with _open(path) as file:
        start = file.read(_HEADER_BYTES)
    text = start.decode("utf-8-sig", errors="ignore" if len(start) == _HEADER_BYTES else "strict")
    try:
        first = next(csv.reader(io.StringIO(text.replace("\r", "\n"), newline=""), delimiter=delimiter), [])
    except csv.Error as reason:
        raise ValueError(reason) from reason
    return [name.strip() for name in first]


def _check_header(path: Path, header: Sequence[str], used: Sequence[str], delimiter: str) -> None:
    for name in used:
        if name not in header:
            raise TraceError(
                problem(
                    path,
                    1,
                    None,
                    f"no column {name!r}",
                    f"the columns {', '.join(used)} among those of the file: {names(header)[:200]}",
                    f"Correct the mapping; its delimiter is {delimiter!r}.",
                )
            )
        if list(header).count(name) > 1:
            raise TraceError(problem(path, 1, "column name", name, "each column once", "Rename the other one."))


def _without_blank_rows(chunk: Chunk) -> tuple[Chunk, np.ndarray]:
    """Return a chunk without rows of empty texts only, and the numbers of these."""
    is_blank = np.ones(len(chunk), dtype=bool)
    for values in chunk.columns.values():
        if not pa.types.is_string(values.type):
            return chunk, chunk.rows[:0]
        if is_blank.any():
            is_blank &= pc.fill_null(pc.equal(values, ""), False).to_numpy(zero_copy_only=False)
    if not is_blank.any():
        return chunk, chunk.rows[:0]
    kept = pa.array(~is_blank)
    columns = {name: values.filter(kept) for name, values in chunk.columns.items()}
    return Chunk(chunk.path, chunk.rows[~is_blank], columns), chunk.rows[is_blank]


def _parquet_chunks(path: Path, mapping: TrafficMapping, chunk_bytes: int) -> Iterator[Chunk]:
    used = mapping.used_columns()
    row = 1
    try:
        with pq.ParquetFile(path) as file:
            _check_header(path, file.schema_arrow.names, used, "none: it is Parquet")
            for batch in file.iter_batches(max(1, chunk_bytes // _BYTES_A_ROW), columns=list(used)):
                columns = {name: _plain(batch.column(name)) for name in used}
                yield Chunk(path, np.arange(row, row + batch.num_rows), columns)
                row += batch.num_rows
    except _READ_ERRORS as reason:
        raise TraceError(
            problem(path, None, None, f"not Parquet: {reason}", "a Parquet file", "Write it again.")
        ) from reason


def _plain(values: pa.Array) -> pa.Array:
    """Return a column without dictionary, and its texts as plain strings."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return values.cast(pa.string()) if pa.types.is_large_string(values.type) else values
