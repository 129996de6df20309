"""Pairs of texts, such as a question and an answer: two columns of a table, or two texts beside each other.

Wherever a text goes, a pair goes as one: both with ``BETWEEN`` between them, a control character that no
text is written with. So digests, duplicates, baselines and stores need not know of pairs; what turns texts
into tokens does (:meth:`topgraft.backbones.preprocess.TextPreprocess.batch`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from topgraft.errors import TopgraftError

if TYPE_CHECKING:
    from topgraft.data.tables import Table
    from topgraft.data.types import Data

BETWEEN = "\x1e"
"""Unicode's record separator, U+001E."""


def pair_of(first: Any, second: Any) -> Any:
    r"""Two texts as one; ``None`` where one of them is missing or empty, and what is no text as it is.

    Examples
    --------
    >>> pair_of("Is it raining?", "It is."), pair_of("Is it raining?", " ")
    ('Is it raining?\x1eIt is.', None)
    """
    for part in (first, second):
        if _is_missing(part):
            return None
        if not isinstance(part, (str, int, float)):
            return part
    return f"{str(first).replace(BETWEEN, ' ')}{BETWEEN}{second}"


def parts_of(text: str) -> tuple[str, ...]:
    """The two texts of a pair, or the one text.

    Examples
    --------
    >>> parts_of(pair_of("one", "two")), parts_of("one")
    (('one', 'two'), ('one',))
    """
    return tuple(text.split(BETWEEN, 1))


def is_pair(text: Any) -> bool:
    """Whether it is two texts."""
    return isinstance(text, str) and BETWEEN in text


def are_two(item: Any) -> bool:
    """Whether it is a tuple or list of two texts, either of which may be missing."""
    return (
        isinstance(item, (tuple, list))
        and len(item) == 2
        and all(part is None or isinstance(part, str) for part in item)
    )


def have_pairs(data: Data) -> bool:
    """Whether the examples are pairs of texts."""
    return data.modality == "text" and len(data) > 0 and all(map(is_pair, data.inputs))


def in_words(text: str) -> str:
    """As a person reads it.

    Examples
    --------
    >>> in_words(pair_of("one", "two"))
    'one | two'
    """
    return " | ".join(parts_of(text))


def text_columns(table: Table, name: str) -> tuple[str, ...]:
    """The column of that name, or the two of the names with a comma between them.

    Raises
    ------
    TopgraftError
        If there is no such column, or more than two are named.
    """
    names = tuple(part.strip() for part in name.split(","))
    if name in table.columns or len(names) == 1:
        names = (name,)
    for one in names:
        table.column(one)
    if len(names) > 2:
        raise TopgraftError(
            f"--text {name}: {len(names)} columns were named. Expected one column of texts, or two for pairs."
        )
    if any(one == other for one, other in pairwise(names)):
        raise TopgraftError(f"--text {name}: one column was named for both texts of a pair.")
    return names


def text_cells(table: Table, name: str) -> Sequence[Any]:
    """The cells of a column of texts, or the pairs that two columns make, row by row."""
    names = text_columns(table, name)
    if len(names) == 1:
        return table.column(name)
    first, second = (table.column(one)[:] for one in names)
    return [pair_of(one, other) for one, other in zip(first, second, strict=True)]


def _is_missing(part: Any) -> bool:
    if isinstance(part, float):
        return math.isnan(part)
    return part is None or (isinstance(part, str) and not part.strip())
