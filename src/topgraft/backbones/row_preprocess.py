"""From rows of numbers and categories to a network's inputs, by what the rows were that it learned from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from topgraft.backbones.described import Described, at_least_one
from topgraft.data.columns import ColumnKind, Rows, as_category, as_number, is_cell
from topgraft.data.example import ExampleError
from topgraft.data.notes import listed, number
from topgraft.errors import TopgraftError, did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

FURTHEST = 10.0
"""Standard deviations from the mean that a number is taken for at most."""
UNKNOWN, GONE = 0, 1
"""Places of the entries for a category that is not known and for one that is missing; names come behind."""
MOST_NAMES = 1000
"""Categories of a column that have an entry of their own, the most frequent ones."""
LEAST_ROWS = 2
"""Rows that a category needs for an entry of its own: those of the others teach what an unknown one means."""
LARGEST = 1 << 14
"""Columns at most."""


@dataclass(frozen=True)
class RowColumn:
    """What is known of one column.

    Parameters
    ----------
    name
        In the table.
    kind
        ``"number"`` or ``"category"``.
    mean, spread
        Of numbers, where they are not missing; the spread is their standard deviation, 1 where that is 0.
    names
        Categories with an entry of their own.

    Raises
    ------
    ValueError
        If these can't be such values.
    """

    name: str
    kind: ColumnKind
    mean: float = 0.0
    spread: float = 1.0
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        texts = all(isinstance(word, str) for word in (self.name, *self.names))
        if not texts or self.kind not in ("number", "category") or len(set(self.names)) < len(self.names):
            raise ValueError(f"column {self.name!r} of kind {self.kind!r} can't be used")
        if not (math.isfinite(self.mean) and math.isfinite(self.spread) and self.spread > 0):
            raise ValueError(f"column {self.name!r} has the mean {self.mean} and the spread {self.spread}")
        if self.kind == "number" and self.names:
            raise ValueError(f"column {self.name!r} is one of numbers and has names")


@dataclass(frozen=True)
class RowPreprocess(Described):
    """Standardise numbers, and give categories the places of their entries.

    A number becomes ``(x - mean) / spread``, at most :data:`FURTHEST` from 0, and 0 where it is missing,
    beside an indicator that says so. A category becomes the place of its entry: one of its own, or that for
    unknown or for missing ones. Columns are found by name; those that a row has beside them are not read.

    Parameters
    ----------
    columns
        In the order of the network's inputs.
    key
        Name of the network's input.

    Examples
    --------
    >>> rows = Rows.of({"age": [20, 40, None], "town": ["Ulm", "Ulm", "Rom"]})
    >>> known = RowPreprocess.of(rows)
    >>> known.batch([{"town": "Bonn", "age": 40}, {"town": "Ulm"}])["x"].tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 2.0]]
    """

    columns: tuple[RowColumn, ...]
    key: str = "x"

    def __post_init__(self) -> None:
        given: tuple[Any, ...] = tuple(self.columns)
        made = tuple(c if isinstance(c, RowColumn) else RowColumn(**c) for c in given)
        numbers_first = tuple(sorted(made, key=lambda column: column.kind != "number"))
        if not 0 < len(made) <= LARGEST or len({column.name for column in made}) < len(made):
            raise ValueError(f"{len(made)} columns, or two of one name")
        object.__setattr__(self, "columns", numbers_first)

    @classmethod
    def of(cls, rows: Rows) -> RowPreprocess:
        """With the statistics and categories of these rows: those that are learned from, and no others."""
        return cls(tuple(_column_of(rows, name) for name in rows.columns))

    @property
    def numbers(self) -> int:
        """Columns of numbers."""
        return sum(column.kind == "number" for column in self.columns)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries of each column of categories, those for unknown and missing ones included."""
        return tuple(len(column.names) + 2 for column in self.columns if column.kind == "category")

    @property
    def kinds(self) -> dict[str, ColumnKind]:
        """Kind by column."""
        return {column.name: column.kind for column in self.columns}

    def encoded(self, row: Any) -> NDArray[np.float32]:
        """One row as ``(2 * numbers + categories,)`` float32.

        Raises
        ------
        ExampleError
            If it is no row, or a cell can't be what its column holds.
        """
        whole: NDArray[np.float32] = self._encoded([row])[0]
        return whole

    def _encoded(self, raw: Sequence[Any]) -> NDArray[np.float32]:
        """(B, 2 * numbers + categories) float32, a column at a time."""
        for row in raw:
            if not isinstance(row, Mapping):
                raise ExampleError(
                    "", f"a {type(row).__name__}, not a row of cells by the names of their columns"
                )
        whole = np.zeros((len(raw), 2 * self.numbers + len(self.sizes)))
        for at, column in enumerate(self.columns):
            cells = [row.get(column.name) for row in raw]
            if column.kind == "category":
                whole[:, self.numbers + at] = self._places_of(column, cells)
                continue
            found = (_numbers(column, cells) - column.mean) / column.spread
            missing = np.isnan(found)
            whole[:, at] = np.clip(np.where(missing, 0.0, found), -FURTHEST, FURTHEST)
            whole[:, self.numbers + at] = missing
        return whole.astype(np.float32)

    def _places_of(self, column: RowColumn, cells: Sequence[Any]) -> list[int]:
        """Places of the entries of some cells."""
        places, found = self._places[column.name], []
        for cell in cells:
            if not is_cell(cell):
                raise ExampleError("", f'column "{column.name}" can\'t hold a {type(cell).__name__}')
            place = places.get(cell) if isinstance(cell, str) else None
            found.append(places.get(as_category(cell), UNKNOWN) if place is None else place)
        return found

    @cached_property
    def _places(self) -> Mapping[str, Mapping[str | None, int]]:
        """Place of the entry by category, by column."""
        return {
            c.name: {None: GONE, **{word: at for at, word in enumerate(c.names, start=2)}}
            for c in self.columns
        }

    def batch(self, raw: Sequence[Any]) -> dict[str, Tensor]:
        """Rows -> ``{key: float32 (B, 2 * numbers + categories)}``: numbers, what is missing, places.

        Raises
        ------
        ExampleError
            As :meth:`encoded`.
        """
        import torch

        at_least_one(raw)
        return {self.key: torch.from_numpy(self._encoded(raw))}

    def example(self, count: int, *, seed: int = 0) -> dict[str, Tensor]:
        """A batch of made-up rows: normal numbers, some of them missing, and categories of every kind."""
        import torch

        drawn = np.random.default_rng(seed)
        missing = drawn.random((count, self.numbers)) < 0.2
        numbers = np.where(missing, 0.0, drawn.normal(size=missing.shape))
        places = drawn.integers(0, self.sizes or 1, (count, max(1, len(self.sizes))))[:, : len(self.sizes)]
        whole = np.concatenate([numbers, missing, places], axis=1)
        return {self.key: torch.from_numpy(whole.astype(np.float32))}

    def matched(self, rows: Rows, origin: str) -> list[str]:
        """How a table fits what is known: what it lacks, what is left out, categories that are not known.

        Parameters
        ----------
        rows
            Of the table.
        origin
            Its name, for messages.

        Raises
        ------
        TopgraftError
            If no column is known, or one holds texts where numbers are known, or the other way round.
        """
        there = [column for column in self.columns if column.name in rows.columns]
        notes = self.found_by_name(list(rows.columns), origin)
        for column in there:
            given = rows.columns[column.name]
            words = Counter[str]()
            if given.kind == "category":
                counts = np.bincount(given.values[given.values >= 0], minlength=len(given.names))
                words.update(dict(zip(given.names, counts.tolist(), strict=True)))
            elif column.kind == "category":
                words.update(filter(None, map(as_category, given.values.tolist())))
            if column.kind == "number":
                if odd := [word for word in words if as_number(word) is None]:
                    raise TopgraftError(
                        f'Column "{column.name}" held numbers in what the network learned from (mean '
                        f"{column.mean:g}), and {origin} has {listed([repr(w) for w in odd])} there. "
                        "Rename it, or leave it out (--columns)."
                    )
                continue
            unknown = {word: n for word, n in words.items() if word not in self._places[column.name]}
            if given.kind == "number" and len(unknown) == len(words) and words:
                raise TopgraftError(
                    f'Column "{column.name}" held categories in what the network learned from '
                    f"({listed(column.names)}), and {origin} has numbers there. "
                    "Rename it, or leave it out (--columns)."
                )
            if unknown:
                most = sorted(unknown, key=lambda word: (-unknown[word], word))
                count = number(len(rows), "row")
                notes.append(
                    f'"{column.name}": {sum(unknown.values()):,} of {count} have a category without an entry '
                    f"of its own ({listed(most)}) and get the one for unknown ones."
                )
        return notes

    def found_by_name(self, names: Sequence[str], origin: str) -> list[str]:
        """Which columns are known; what is missing and what is left out, with near names.

        Raises
        ------
        TopgraftError
            If none is known.
        """
        lacking = [column.name for column in self.columns if column.name not in names]
        beside = [name for name in names if name not in self.kinds]
        if len(lacking) == len(self.columns):
            raise TopgraftError(
                f"{origin} has none of the columns that the network learned from "
                f"({listed(lacking, limit=8)}).{did_you_mean(lacking[0], beside)} "
                f"Its columns: {listed(list(names), limit=30)}."
            )
        if not lacking and not beside:
            return []
        notes = [
            f"{len(self.columns) - len(lacking)} of {number(len(self.columns), 'column')} were found by name."
        ]
        if lacking:
            near = did_you_mean(lacking[0], beside)
            notes.append(f"{origin} lacks {listed(lacking, limit=8)}: missing in every row.{near}")
        if beside:
            notes.append(f"Not known to the network, and left out: {listed(beside, limit=8)}.")
        return notes

    def describe(self) -> dict[str, Any]:
        """Every setting, as JSON values."""
        return {"kind": "row", "columns": list(map(_described, self.columns)), "key": self.key}

    def lines(self) -> list[str]:
        """What is done, in plain words."""
        return [" and ".join(self._parts())]

    def _parts(self) -> Iterator[str]:
        if self.numbers:
            yield f"rows: {number(self.numbers, 'number')}, standardised, with indicators of what is missing"
        if self.sizes:
            several = number(len(self.sizes), "category", "categories")
            yield f"{'' if self.numbers else 'rows: '}{several} ({sum(self.sizes):,} entries)"


def _numbers(column: RowColumn, cells: Sequence[Any]) -> NDArray[np.float64]:
    """Numbers of some cells, not-a-number where missing."""
    if all(cell is None or type(cell) is float for cell in cells):  # what was read is
        plain = np.array(cells, dtype=np.float64)
        if not np.isinf(plain).any():
            return plain
    found = []
    for cell in cells:
        if (value := as_number(cell)) is None:
            raise ExampleError("", f'column "{column.name}" holds numbers, and {cell!r:.40} is none')
        found.append(value)
    return np.array(found, dtype=np.float64)


def _column_of(rows: Rows, name: str) -> RowColumn:
    """What rows say of a column."""
    column = rows.columns[name]
    if column.kind == "number":
        there = column.values[~column.is_missing]
        mean, spread = (float(there.mean()), float(there.std())) if len(there) else (0.0, 1.0)
        return RowColumn(name, "number", mean, spread if spread > 1e-12 * max(1.0, abs(mean)) else 1.0)
    counts = np.bincount(column.values[column.values >= 0], minlength=len(column.names)).tolist()
    often = sorted(range(len(counts)), key=lambda place: (-counts[place], place))[:MOST_NAMES]
    known = sorted(column.names[place] for place in often if counts[place] >= LEAST_ROWS)
    return RowColumn(name, "category", names=tuple(known))


def _described(column: RowColumn) -> dict[str, Any]:
    told: dict[str, Any] = {"name": column.name, "kind": column.kind}
    if column.kind == "number":
        return {**told, "mean": column.mean, "spread": column.spread}
    return {**told, "names": list(column.names)}
