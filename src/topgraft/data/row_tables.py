"""Tables whose rows are the examples: which columns are read, and what is told of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from topgraft.data.columns import ColumnKind, Rows, TypedColumn, as_category, is_cell
from topgraft.data.labels import joined
from topgraft.data.notes import listed, number
from topgraft.data.tables import LABELS, Table, obvious
from topgraft.data.types import Found
from topgraft.errors import TopgraftError, did_you_mean

ALL = "all"
"""Given for ``columns``: every one but those of labels and groups."""
SHOWN = 12
Columns = str | Sequence[str] | Mapping[str, ColumnKind] | None
"""Which columns are read, as for :func:`topgraft.read`."""


def found_rows(
    table: Table,
    *,
    columns: Columns,
    categories: str | Sequence[str] | None,
    label: str | None,
    group: str | None,
    separator: str | None = None,
) -> Found:
    """The rows of a table as examples; its notes get what was guessed, left out, and read as what.

    Parameters
    ----------
    table
        What was read.
    columns, categories, label, group, separator
        As for :func:`topgraft.read`.

    Raises
    ------
    TopgraftError
        If a named column is missing, named twice or can't be read, or no column is left.
    """
    names, chosen = choose_row_columns(table, columns=columns, label=label, group=group)
    if label is None:
        table.notes.append(f'Labels are read from the column "{chosen["label"]}".')
    forced = _named(categories) or []
    if isinstance(columns, Mapping):
        forced = [name for name in names if columns[name] == "category"]
    labels = table.label_columns(chosen["label"])
    return Found(
        "row",
        table.origin,
        [str(i) for i in range(len(table))],
        rows_of(table, names, categories=forced),
        labels=first_labels(table, labels, separator),
        numbers=[table.cells(name) for name in labels[1:]],
        label_names=tuple(labels),
        separator=separator or "",
        groups=table.cells(chosen["group"]) if "group" in chosen else None,
        columns=chosen,
        notes=table.notes,
        order=table.orders.get(chosen["label"], table.classes.get(chosen["label"])),
        is_ordered=chosen["label"] in table.orders,
    )


def first_labels(table: Table, labels: Sequence[str], separator: str | None) -> list[str | None]:
    """The cells of the first column of labels, in which an empty one holds none where several may stand."""
    if separator is not None and len(labels) == 1 and labels[0] not in table.classes:
        return joined(table.column(labels[0])[:], separator)
    return table.cells(labels[0])


def choose_row_columns(
    table: Table,
    *,
    columns: Columns,
    label: str | None,
    group: str | None,
) -> tuple[list[str], dict[str, str]]:
    """The columns of a table that are read as numbers and categories, and those of labels and groups.

    Parameters
    ----------
    table
        What was read; its notes get what was guessed and left out.
    columns, label, group
        As for :func:`topgraft.read`.

    Raises
    ------
    TopgraftError
        If a named column is missing or named twice, or no column is left.
    """
    if label is None and (label := obvious(table.columns, LABELS, taken=())) is None:
        raise TopgraftError(
            f"Which column of {table.origin} holds the labels? Name it (--label). "
            f"Its columns: {listed(list(table.columns), limit=30)}."
        )
    chosen = {"label": label}
    if group is not None:
        table.column(group)
        chosen["group"] = group
    aside = [*table.label_columns(label), *([group] if group is not None else [])]
    named = None if isinstance(columns, Mapping) else _named(columns)
    for name in named or ():
        table.column(name)
    if twice := sorted({n for n in named or () if (named or []).count(n) > 1 or n in aside}):
        raise TopgraftError(f"Columns of {table.origin} were named for two things: {listed(twice)}.")
    names = named if named is not None else [name for name in table.columns if name not in aside]
    if isinstance(columns, Mapping):
        names = [name for name in names if name in columns]
    elif named is None:
        names = [name for name in names if _is_usable(table, name)]
    if not names:
        wanted = f" Expected {listed(list(columns), limit=8)}." if isinstance(columns, Mapping) else ""
        raise TopgraftError(
            f"No column of {table.origin} is left to learn from.{wanted} "
            f"Its columns: {listed(list(table.columns), limit=30)}."
        )
    return names, chosen


def _named(columns: str | Sequence[str] | None) -> list[str] | None:
    if columns is None or columns == ALL:
        return None
    parts = columns.split(",") if isinstance(columns, str) else columns
    return [part.strip() for part in parts]


def _is_usable(table: Table, name: str) -> bool:
    """Whether a column that nobody named can be read; a note says so where not."""
    cells = table.column(name)[:]
    odd = next((c for c in cells if not is_cell(c) and type(c).__name__ not in ("NAType", "NaTType")), None)
    if odd is None and any(as_category(cell) is not None for cell in cells):
        return True
    why = "it is empty" if odd is None else f"its values are of the kind {type(odd).__name__}"
    table.notes.append(f'Column "{name}" was left out: {why}.')
    return False


def rows_of(table: Table, names: Sequence[str], *, categories: Iterable[str] = ()) -> Rows:
    """Columns of a table as rows; its notes get what was read as what, and what looks like an identifier.

    Raises
    ------
    TopgraftError
        If one of ``categories`` is no column, or a column can't be read.
    """
    forced = list(categories)
    for name in forced:
        if name not in names:
            raise TopgraftError(
                f'"{name}" is none of the columns that are read.{did_you_mean(name, names)} '
                f"They are: {listed(names, limit=30)}."
            )
    rows = Rows.of({name: table.cells_or_numbers(name) for name in names}, categories=forced)
    table.notes.extend(row_notes(rows))
    return rows


def row_notes(rows: Rows) -> list[str]:
    r"""What was read as numbers and what as categories, what is missing, what looks like an identifier.

    Examples
    --------
    >>> rows = Rows.of({"id": [f"a{i}" for i in range(30)], "age": [1.5, None] * 15})
    >>> print(*row_notes(rows), sep="\n")
    1 column of numbers (age) and 1 of categories (id: 30).
    Missing: age 50 %.
    Column "id" looks like an identifier (30 different values in 30 rows), which says nothing of new rows: leave it out (--columns).
    """  # noqa: E501 (as it is printed)
    kinds = {name: column.kind for name, column in rows.columns.items()}
    numbers = [name for name, kind in kinds.items() if kind == "number"]
    others = [f"{n}: {len(rows.columns[n].names)}" for n, kind in kinds.items() if kind == "category"]
    said = f"{number(len(numbers), 'column')} of numbers"
    said += f" ({listed(numbers, limit=SHOWN)})" if numbers else ""
    said += f" and {len(others):,} of categories"
    said += f" ({listed(others, limit=SHOWN)})" if others else ""
    notes = [f"{said}."]
    shares = {name: float(column.is_missing.mean()) for name, column in rows.columns.items()}
    lacking = [f"{name} {max(1, round(100 * share))} %" for name, share in shares.items() if share]
    if lacking:
        notes.append(f"Missing: {listed(lacking, limit=SHOWN)}.")
    for name, column in rows.columns.items():
        if (different := _like_identifier(name, column)) is not None:
            notes.append(
                f'Column "{name}" looks like an identifier ({different:,} different values in '
                f"{len(rows):,} rows), which says nothing of new rows: leave it out (--columns)."
            )
    return notes


def _like_identifier(name: str, column: TypedColumn) -> int | None:
    """How many different values there are, if nearly every row has one of its own; whole numbers in a run."""
    there = column.values[~column.is_missing]
    if len(there) < 20:
        return None
    different = len(np.unique(there))
    if column.kind == "category":
        return different if different > 0.9 * len(there) else None
    whole = bool((there == np.floor(there)).all())
    is_run = float(there.max() - there.min()) < 1.5 * len(there) or name.casefold().endswith("id")
    return different if whole and is_run and different > 0.99 * len(there) else None
