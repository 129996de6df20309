"""Rows for ``predict``: files, folders, a table or standard input, in the order given."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, TextIO

from topgraft.data.addresses import is_address
from topgraft.data.example import ExampleError
from topgraft.data.folders import Walk, files_below, is_wanted
from topgraft.data.kinds import as_kind
from topgraft.data.notes import listed, printable
from topgraft.data.objects import column_files, file_cell
from topgraft.data.pairs import are_two, pair_of, text_cells, text_columns
from topgraft.data.places import has_columns, table_at
from topgraft.data.remote import here
from topgraft.data.sounds import reader
from topgraft.data.tables import ENDINGS, PATHS, TEXTS, Table
from topgraft.data.types import Modality
from topgraft.errors import TopgraftError


@dataclass(frozen=True)
class Row:
    """One thing to predict.

    Parameters
    ----------
    name
        The path as given (folder + relative path), or the row number, ``"0"`` for the first.
    value
        A path or the bytes of a picture or sound, not decoded yet; a text; an array; or a row, as cells by
        the names of their columns. ``None`` at an error.
    error
        Why there is nothing to predict, in few words, or ``None``.
    digest
        SHA-256, as hexadecimal, that the bytes of a path must have; any where it is ``None``.
    """

    name: str
    value: Any | None
    error: str | None = None
    digest: str | None = None


def rows(
    sources: Sequence[str], *, modality: Modality, column: str | None = None, stdin: TextIO | None = None
) -> Iterator[Row]:
    """Rows of all sources, in the order given; what can't be used is a row with an error.

    Parameters
    ----------
    sources
        Files, folders (with everything below, sorted), tables, or ``"-"`` for standard input: one
        path or text a line, or CSV whose header holds ``column``; rows as CSV with a header.
    modality
        What the model takes.
    column
        Column of a table: the one that ``fit`` used, or the user named.
    stdin
        What ``"-"`` reads, instead of standard input.

    Raises
    ------
    TopgraftError
        Before the first row: if a source does not exist, a folder holds no pictures (or sounds), a table
        lacks the column, a source is of another modality, or sounds can't be read here at all.
    """
    if not sources:
        raise TopgraftError(
            "Nothing was given to predict. Expected files, folders, a table, or - for standard input."
        )
    if modality == "array":
        raise TopgraftError("Arrays are predicted from Python, not from files.")
    if modality == "sound":
        reader()
    if modality == "row" and (odd := [s for s in sources if s != "-" and not _is_table(s)]):
        raise TopgraftError(
            f"{odd[0]}: this model takes rows of a table. Expected {', '.join(ENDINGS)} or -."
        )
    several = sum(s == "-" or has_columns(s) for s in sources) > 1
    parts = [_rows_of(s, modality, column, f"{s}:" if several else "", stdin or sys.stdin) for s in sources]
    return chain.from_iterable(parts)


def _rows_of(
    source: str, modality: Modality, column: str | None, prefix: str, stdin: TextIO
) -> Iterator[Row]:
    """Checks at once, and gives what yields the rows."""
    if source == "-":
        return _of_lines(stdin, modality, column, prefix)
    if is_address(source) and not has_columns(source):
        place = here(source)
        with place.told():
            found = _rows_of(place.path, modality, column, prefix, stdin)
        return (replace(row, name=place.said(row.name)) for row in found)
    path = Path(source)
    if (table := table_at(source)) is not None:
        if modality == "row":
            return _of_rows(table, prefix)
        return _of_table(table, _column(table, modality, column), modality, prefix)
    kind = as_kind(modality)
    if kind is None:
        raise TopgraftError(
            f"{source}: this model takes texts. Expected a table with a column of texts, "
            "or - for one text a line."
        )
    if path.is_dir():
        walk = Walk(kind)
        paths = list(files_below(path, walk))
        if not paths:
            raise TopgraftError(f"{source} holds no {kind}s. {' '.join(walk.notes())}".rstrip())
        return (Row(printable(str(p)), p) for p in paths)
    if not is_wanted(path.name, kind) and path.is_file() and path.suffix:
        return iter([Row(printable(source), None, f'not a {kind} (its name ends in "{path.suffix}")')])
    return iter([Row(printable(source), path)])


def _column(table: Table, modality: Modality, column: str | None) -> str:
    if column is not None:
        if modality == "text":
            text_columns(table, column)
        else:
            table.column(column)
        return column
    usual = ("txt", *TEXTS) if modality == "text" else PATHS
    by_fold = {name.strip().casefold(): name for name in table.columns}
    name = next((by_fold[u] for u in usual if u in by_fold), None)
    if name is None and len(table.columns) == 1:
        name = next(iter(table.columns))
    if name is None:
        what = "texts (--text)" if modality == "text" else f"paths of {modality}s (--path)"
        raise TopgraftError(
            f"Which column of {table.origin} holds the {what}? "
            f"Its columns: {listed(list(table.columns), limit=30)}."
        )
    return name


def _of_table(table: Table, column: str, modality: Modality, prefix: str) -> Iterator[Row]:
    kind = as_kind(modality)
    if kind is None:
        cells = text_cells(table, column)
        called = None if table.names is None else table.names(cells)
        for i, cell in enumerate(cells):
            yield text_row(f"{prefix}{i}" if called is None else called[i], cell)
        return
    inputs, names = column_files(table, column, kind)
    for i, value in enumerate(inputs):
        is_numbered = names is None or names[i] == str(i)
        name = f"{prefix}{i}" if names is None or is_numbered else names[i]
        is_error = isinstance(value, ExampleError)
        yield Row(name, None, value.reason) if is_error else Row(name, value)


def _is_table(source: str) -> bool:
    path = Path(source)
    return not path.exists() or path.is_dir() or has_columns(source)


def _of_rows(table: Table, prefix: str) -> Iterator[Row]:
    cells = {name: table.cells_or_numbers(name) for name in table.columns}
    for i, row in enumerate(zip(*cells.values(), strict=True)):
        yield Row(f"{prefix}{i}", dict(zip(cells, row, strict=True)))


def text_row(name: str, cell: Any) -> Row:
    r"""A cell of a table, or of a list that was sent, as a text to predict.

    Examples
    --------
    >>> text_row("0", "a film"), text_row("1", " ").error, text_row("2", ["a"]).error
    (Row(name='0', value='a film', error=None, digest=None), 'an empty text', 'a list, not a text')
    >>> text_row("3", ["Is it good?", "A film."]).value
    'Is it good?\x1eA film.'
    """
    if are_two(cell):
        cell = pair_of(*cell)
    if isinstance(cell, ExampleError):
        return Row(name, None, cell.reason)
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return Row(name, None, "an empty text")
    if not isinstance(cell, (str, int, float)):
        return Row(name, None, f"a {type(cell).__name__}, not a text")
    text = str(cell)
    try:
        text.encode()
    except UnicodeEncodeError:
        return Row(name, None, "not a text: half of a Unicode character")
    return Row(name, text)


def _row(name: str, cell: Any, modality: Modality, folder: Path) -> Row:
    if modality == "text":
        return text_row(name, cell)
    value = file_cell(cell, folder, as_kind(modality) or "picture")
    if isinstance(value, ExampleError):
        return Row(name, None, value.reason)
    return Row(printable(str(value)) if isinstance(value, Path) else name, value)


def _places(header: list[str], column: str, modality: Modality) -> list[int]:
    """Where in a header a column is, or both of a pair of texts; nowhere where it is no such header."""
    names = [column]
    if modality == "text" and column not in header and column.count(",") == 1:
        names = [part.strip() for part in column.split(",")]
    return [header.index(name) for name in names] if all(name in header for name in names) else []


def _of_lines(stdin: TextIO, modality: Modality, column: str | None, prefix: str) -> Iterator[Row]:
    """One path or text a line, read as they come; or CSV, if the first line is a header with the column."""
    first = stdin.readline()
    if modality == "row":
        names = next(csv.reader([first]), [])
        try:
            for i, cells in enumerate(csv.reader(stdin)):
                yield Row(f"{prefix}{i}", dict(zip_longest(names, cells[: len(names)])))
        except csv.Error as error:
            raise TopgraftError(f"Standard input can't be read as CSV: {error}.") from None
        return
    header = next(csv.reader([first]), []) if column is not None else []
    if column is not None and (places := _places(header, column, modality)):
        try:
            for i, cells in enumerate(csv.reader(stdin)):
                found = [cells[at] if at < len(cells) else None for at in places]
                yield _row(f"{prefix}{i}", pair_of(*found) if len(found) == 2 else found[0], modality, Path())
        except csv.Error as error:
            raise TopgraftError(f"Standard input can't be read as CSV: {error}.") from None
        return
    for i, line in enumerate(chain([first] if first else [], stdin)):
        yield _row(f"{prefix}{i}", line.rstrip("\r\n"), modality, Path())
