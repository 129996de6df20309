"""Rows of a table as examples: which columns are numbers, which are categories, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from topgraft.errors import TopgraftError

if TYPE_CHECKING:
    from numpy.typing import NDArray

ColumnKind = Literal["number", "category"]
Cell = float | str | None
"""A number, a category, or ``None`` where it is missing."""
Record = Mapping[str, Cell]
"""One row: cells by the name of the column."""
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-", "."})
"""What stands for a missing number among numbers, whatever its case."""


@dataclass(frozen=True, eq=False)
class TypedColumn:
    """A column of numbers or of categories.

    Parameters
    ----------
    values
        Numbers: (n,) float64, not-a-number where missing. Categories: (n,) int32, places in ``names``,
        -1 where missing.
    names
        Of the categories, in the order in which they first appear; empty for numbers.
    """

    values: NDArray[np.float64] | NDArray[np.int32]
    names: tuple[str, ...] = ()

    @property
    def kind(self) -> ColumnKind:
        """``"number"`` or ``"category"``."""
        return "number" if self.values.dtype == np.float64 else "category"

    @property
    def is_missing(self) -> NDArray[np.bool_]:
        """(n,) bool."""
        found: NDArray[np.bool_] = np.isnan(self.values) if self.kind == "number" else self.values < 0
        return found

    def cell(self, index: int) -> Cell:
        """One cell."""
        value = self.values[index].item()
        if isinstance(value, float):
            return None if math.isnan(value) else value
        return None if value < 0 else self.names[value]


class Rows(Sequence[Record]):
    """Rows of numbers and categories; each is a mapping from the name of a column to its cell.

    Parameters
    ----------
    columns
        By name, all of one length.
    count
        Rows, where there may be no column.

    Examples
    --------
    >>> rows = Rows.of({"age": ["31", "NA", "7"], "town": ["Ulm", "", "Rom"]})
    >>> {name: column.kind for name, column in rows.columns.items()}
    {'age': 'number', 'town': 'category'}
    >>> rows[1], rows[2]
    ({'age': None, 'town': None}, {'age': 7.0, 'town': 'Rom'})
    """

    def __init__(self, columns: Mapping[str, TypedColumn], count: int | None = None) -> None:
        self.columns = dict(columns)
        self._count = len(next(iter(columns.values())).values) if count is None else count

    @classmethod
    def of(cls, cells: Mapping[str, Sequence[Any]], *, categories: Iterable[str] = ()) -> Rows:
        """Rows of columns whose cells are texts as written, numbers, booleans, or ``None``.

        Parameters
        ----------
        cells
            Of each column.
        categories
            Columns that hold categories, whatever they look like.

        Raises
        ------
        TopgraftError
            If a column holds something else, such as dates or lists.
        """
        forced = set(categories)
        columns = {
            name: as_column(name, column, is_category=name in forced) for name, column in cells.items()
        }
        return cls(columns)

    @classmethod
    def of_records(cls, records: Sequence[Mapping[str, Any]], *, categories: Iterable[str] = ()) -> Rows:
        """Rows of mappings; a column that one of them lacks is missing there."""
        names = list(dict.fromkeys(name for record in records for name in record))
        cells = {name: [record.get(name) for record in records] for name in names}
        return cls.of(cells, categories=categories) if names else cls({}, len(records))

    def __len__(self) -> int:
        """Number of rows."""
        return self._count

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> Record | Rows:
        """A row, or some of them."""
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} rows, not {index + 1}")
        return {name: column.cell(index) for name, column in self.columns.items()}

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Rows:
        """The rows at ``indices``, in that order."""
        places = np.asarray(indices, dtype=np.int64)
        return Rows({n: TypedColumn(c.values[places], c.names) for n, c in self.columns.items()}, len(places))


def as_number(cell: Any) -> float | None:
    """A cell as a number, not-a-number where it is missing; ``None`` where it is no finite number.

    Examples
    --------
    >>> as_number("3.5"), as_number(" NA "), as_number("seven"), as_number("1_000"), as_number(True)
    (3.5, nan, None, None, None)
    """
    if cell is None:
        return math.nan
    if isinstance(cell, str):
        if cell.strip().casefold() in MISSING:
            return math.nan
        try:
            value = float(cell)
        except ValueError:
            return None
        return value if math.isfinite(value) and "_" not in cell else None
    if isinstance(cell, (bool, np.bool_)) or not isinstance(cell, Real):
        return None
    try:
        value = float(cell)
    except OverflowError:  # a whole number that is too large
        return None
    return None if math.isinf(value) else value


def as_category(cell: Any) -> str | None:
    """A cell as the name of a category; ``None`` where it is missing.

    Examples
    --------
    >>> as_category(" a "), as_category(""), as_category(3.0), as_category(False), as_category("NA")
    ('a', None, '3', 'False', 'NA')
    """
    if cell is None or (isinstance(cell, (float, np.floating)) and cell != cell):  # noqa: PLR0124 (only NaN)
        return None
    if isinstance(cell, str):
        return cell.strip() or None
    value = as_number(cell)
    return str(int(value)) if value is not None and value.is_integer() else str(cell)


def is_cell(cell: Any) -> bool:
    """Whether a value can be a cell of a row: a text, a number, a boolean or nothing."""
    return cell is None or isinstance(cell, (str, bool, np.bool_, Real))


def as_column(name: str, cells: Sequence[Any], *, is_category: bool = False) -> TypedColumn:
    """A column of numbers where every cell is one or missing, else of categories.

    Numbers that begin with a zero (``00501``) are codes, hence categories.

    Raises
    ------
    TopgraftError
        If a cell is something else than a text, a number, a boolean or missing.
    """
    cells = [None if cell is None or type(cell).__name__ in ("NAType", "NaTType") else cell for cell in cells]
    odd = next((cell for cell in cells if not is_cell(cell)), None)
    if odd is not None:
        raise TopgraftError(
            f'Column "{name}" holds values of the kind {type(odd).__name__}, which are neither numbers nor '
            "categories. Leave it out (--columns), or make numbers of it first."
        )
    if not is_category:
        values = [as_number(cell) for cell in cells]
        is_number = None not in values and not all(value != value for value in values)  # noqa: PLR0124
        if is_number and not any(_is_code(cell) for cell in cells):
            return TypedColumn(np.array(values, dtype=np.float64))
    places: dict[str, int] = {}
    found = [
        -1 if (word := as_category(cell)) is None else places.setdefault(word, len(places)) for cell in cells
    ]
    return TypedColumn(np.array(found, dtype=np.int32), tuple(places))


def _is_code(cell: Any) -> bool:
    return isinstance(cell, str) and len(word := cell.strip()) > 1 and word[0] == "0" and word.isdecimal()


def content_of_row(row: Record) -> bytes:
    """What the digest of a row is of: its cells by name, in one order; missing ones are left out.

    Examples
    --------
    >>> content_of_row({"b": 1.0, "a": "x", "c": None})
    b"[('a', 'x'), ('b', 1.0)]"
    """
    return repr(sorted((n, cell) for n, cell in row.items() if cell is not None)).encode(
        "utf-8", "surrogatepass"
    )
