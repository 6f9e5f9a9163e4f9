"""Records that grow: a Parquet file written group by group, whole or absent, and read back in the same groups.

A run of a million requests does not hold its decisions in memory: every chunk is a row group of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from amarl_core.errors import RunError
from amarl_core.files import beside, storing
from amarl_core.runs import keep_lists


class RecordFile:
    """A record in the making, beside its place.

    Args:
        path: Its place; the folder is made when missing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with storing(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._beside = beside(self.path)
        self._writer: pq.ParquetWriter | None = None

    def append(self, frame: pd.DataFrame) -> None:
        """Add the frame as one row group; all frames have the same columns and categories."""
        table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        with storing(self.path.parent):
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._beside, table.schema, compression="zstd")
            self._writer.write_table(table, row_group_size=max(len(frame), 1))

    def close(self) -> None:
        """Write the end of the file, which is still beside its place."""
        if self._writer is not None:
            with storing(self.path.parent):
                self._writer.close()

    def put_in_place(self) -> None:
        """Move the closed file to its place."""
        with storing(self.path.parent):
            os.replace(self._beside, self.path)

    def discard(self) -> None:
        """Delete what was written, unless it is in its place."""
        if self._writer is not None and self._writer.is_open:
            self._writer.close()
        self._beside.unlink(missing_ok=True)


class RecordFiles:
    """Several records that belong together: all of them appear when the block ends well, none otherwise.

    Args:
        paths: Their places.
    """

    def __init__(self, *paths: str | Path) -> None:
        self._files = [RecordFile(path) for path in paths]

    def append(self, *frames: pd.DataFrame) -> None:
        """Add a row group to each."""
        for file, frame in zip(self._files, frames, strict=True):
            file.append(frame)

    def __enter__(self) -> RecordFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                for file in self._files:
                    file.close()
                for file in self._files:
                    file.put_in_place()
        finally:
            for file in self._files:
                file.discard()


def read_groups(path: str | Path, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
    """Read a Parquet record one row group after the other; see `runs.read_frame` for the whole.

    Raises:
        RunError: The file is missing, is not Parquet, or has no such column.
    """
    wanted = None if columns is None else list(columns)
    try:
        with pq.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
            missing = sorted(set(wanted or ()) - set(file.schema_arrow.names))
            if missing:
                raise RunError(f"{path}: no column {missing}; valid columns are {file.schema_arrow.names}")
            for i in range(file.num_row_groups):
                table = file.read_row_group(i, wanted)
                yield table.to_pandas(types_mapper=keep_lists, ignore_metadata=True)
    except FileNotFoundError as error:
        raise RunError(f"{path}: no such record; run the method that writes it first") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise RunError(f"{path}: cannot be read as Parquet ({error}); delete it and run again") from error
