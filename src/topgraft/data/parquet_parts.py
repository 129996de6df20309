"""Parquet files at an address whose pictures and sounds are read there, a group of rows at a time."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from topgraft.data.addresses import short
from topgraft.data.example import ExampleError
from topgraft.data.lazily import Member
from topgraft.data.parts import PREFIX, open_parts, without_prefix
from topgraft.data.tables import Table, described_by_hugging_face
from topgraft.errors import TopgraftError

HELD = 3
"""Groups of rows, of one column each, that a process holds."""
MAX_GROUP = 256 << 20
"""Bytes of the largest group, of one column, that is read (256 MiB)."""


def read_parquet_parts(paths: Sequence[str], said: Sequence[str], origin: str) -> Table:
    """Parquet files of one form as a table: pictures and sounds stay where they are, other columns are read.

    Parameters
    ----------
    paths
        ``stream+`` and the address of each, in order.
    said
        How each is called in messages.
    origin
        What the user gave, for messages.

    Raises
    ------
    TopgraftError
        If one is no Parquet file, has other columns than the first, or groups that are too large.
    RunningError
        If the connection fails.
    """
    import pyarrow as pa

    first: Any = None
    rows: list[int] = []
    read: dict[str, list[Any]] = {}
    files: list[str] = []
    for path, name in zip(paths, said, strict=True):
        file = _opened(path, name)
        schema = file.schema_arrow
        if first is None:
            first = schema
            files = [field.name for field in schema if _holds_files(field.type)]
            read = {field.name: [] for field in schema if field.name not in files}
        elif not schema.equals(first):
            raise TopgraftError(
                f"{name} has other columns or types than {said[0]}. Expected files of one form."
            )
        for column in files:
            _refuse_large(file, column, name)
        try:
            table = file.read(columns=list(read))
        except (pa.ArrowException, OSError) as error:
            raise TopgraftError(f"{name} is not a Parquet file that can be read: {short(error)}") from None
        for column, cells in read.items():
            cells.extend(table.column(column).to_pylist())
        rows.append(file.metadata.num_rows)
    if sum(rows) == 0:
        raise TopgraftError(f"{origin} has no rows.")
    classes, kinds = described_by_hugging_face(first.metadata)
    places = _Places(paths, said, np.cumsum([0, *rows]))
    columns: dict[str, Sequence[Any]] = {n: _Cells(places, n) if n in files else read[n] for n in first.names}
    kinds = {name: kind for name, kind in kinds.items() if name in files}
    return Table(origin, columns, Path(), classes, [], kinds, stays_inside=True)


@dataclass(frozen=True, slots=True)
class Cell(Member):
    """The bytes of a picture or a sound in a Parquet file, found by row instead of ``start`` and ``size``.

    Parameters
    ----------
    column, row
        Where it stands in its file.

    Examples
    --------
    >>> str(Cell("stream+s3://bucket/a.parquet", "row 7", 0, 0, "s3://bucket/a.parquet", row=7))
    's3://bucket/a.parquet:row 7'
    """

    column: str = ""
    row: int = 0

    def read(self, limit: int = 1 << 30) -> bytes:
        """Its content.

        Raises
        ------
        ExampleError
            If there is none in its file, or it is over ``limit`` bytes.
        TopgraftError, RunningError
            If the file at the address can't be read any more, which is no fault of the example.
        """
        cell = _held(os.getpid()).cell(self.shard, self.said, self.column, self.row)
        if isinstance(cell, dict):
            if cell.get("bytes") is None and cell.get("path"):
                raise ExampleError(str(self), f"a file beside the table: leave out {PREFIX}")
            cell = cell.get("bytes")
        if cell is None:
            raise ExampleError(str(self), "its cell is empty")
        if len(cell) > limit:
            raise ExampleError(str(self), f"{len(cell):,} bytes, over the limit of {limit:,}")
        return bytes(cell)


@dataclass(frozen=True)
class _Places:
    """Which file has which rows: file ``i`` those from ``starts[i]`` on."""

    paths: Sequence[str]
    said: Sequence[str]
    starts: np.ndarray[Any, np.dtype[np.int64]]


class _Cells(Sequence[Any]):
    """A column of pictures or sounds."""

    def __init__(self, places: _Places, column: str) -> None:
        self.places, self.column = places, column

    def __len__(self) -> int:
        return int(self.places.starts[-1])

    def __getitem__(self, index: Any) -> Any:
        at = range(len(self))[index]
        return [self.cell(i) for i in at] if isinstance(at, range) else self.cell(at)

    def cell(self, index: int) -> Cell:
        places = self.places
        file = int(np.searchsorted(places.starts, index, side="right")) - 1
        row = index - int(places.starts[file])
        said = places.said[file]
        return Cell(places.paths[file], f"row {row}", 0, 0, said, column=self.column, row=row)


def _holds_files(kind: Any) -> bool:
    """Whether a type is bytes, or what Hugging Face keeps pictures and sounds in."""
    from pyarrow import types

    if types.is_struct(kind):
        return {"bytes", "path"} <= {kind.field(i).name for i in range(kind.num_fields)}
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _refuse_large(file: Any, column: str, said: str) -> None:
    of_file = file.metadata
    for group in range(of_file.num_row_groups):
        parts = [of_file.row_group(group).column(i) for i in range(of_file.row_group(group).num_columns)]
        size = sum(p.total_uncompressed_size for p in parts if p.path_in_schema.split(".")[0] == column)
        if size > MAX_GROUP:
            raise TopgraftError(
                f'{said}: a group of rows of the column "{column}" takes {size:,} bytes, over the limit of '
                f"{MAX_GROUP:,} for what is read by parts. Write it with smaller ones (row_group_size=100), "
                f"or leave out {PREFIX}."
            )


def _opened(path: str, said: str) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(open_parts(without_prefix(path)))
    except (pa.ArrowException, OSError) as error:
        raise TopgraftError(f"{said} is not a Parquet file that can be read: {short(error)}") from None


@lru_cache(maxsize=1)
def _held(_process: int) -> _Groups:  # connections do not outlive a fork
    return _Groups()


def forget() -> None:
    """Let go of groups and open files, since they may have changed."""
    _held.cache_clear()


class _Groups:
    """The groups of rows that were read last; one is read at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.groups: OrderedDict[tuple[str, str, int], Any] = OrderedDict()
        self.files: OrderedDict[str, tuple[Any, Any]] = OrderedDict()

    def cell(self, path: str, said: str, column: str, row: int) -> Any:
        with self.lock:
            file, starts = self.file(path, said)
            group = int(np.searchsorted(starts, row, side="right")) - 1
            if group >= file.metadata.num_row_groups:
                raise TopgraftError(
                    f"{said} has {int(starts[-1]):,} rows now. Let data be while a command runs."
                )
            key = (path, column, group)
            if key not in self.groups:
                self.groups[key] = _group(file, said, column, group)
            self.groups.move_to_end(key)
            while len(self.groups) > HELD:
                self.groups.popitem(last=False)
            found = self.groups[key]
        return found[row - int(starts[group])].as_py()

    def file(self, path: str, said: str) -> tuple[Any, Any]:
        """An open file, and the first row of each of its groups."""
        if path not in self.files:
            file = _opened(path, said)
            of_file = file.metadata
            rows = [of_file.row_group(i).num_rows for i in range(of_file.num_row_groups)]
            self.files[path] = file, np.cumsum([0, *rows])
            while len(self.files) > 2 * HELD:
                self.files.popitem(last=False)
        return self.files[path]


def _group(file: Any, said: str, column: str, group: int) -> Any:
    import pyarrow as pa

    try:
        return file.read_row_group(group, columns=[column]).column(column)
    except (pa.ArrowException, OSError) as error:
        raise TopgraftError(f"{said}: its group {group} of rows can't be read: {short(error)}") from None
