"""Labels that are numbers to be predicted: when they are, and what they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topgraft.data.notes import listed, number
from topgraft.data.types import TASKS, Found, Task
from topgraft.errors import TopgraftError, did_you_mean

_BITS = {"0", "1", None}
MANY = 20
"""Different numbers, more than which are no classes if some have a fraction."""


def refuse_task(task: str | None) -> None:
    """Raise if there is no such task."""
    if task is not None and task not in TASKS:
        raise TopgraftError(
            f'task="{task}" is unknown.{did_you_mean(task, TASKS)} Expected one of {", ".join(TASKS)}.'
        )


def order_given(
    task: Task | None,
    order: str | Sequence[str] | None,
    separator: str | None = None,
    classes: Sequence[str] | None = None,
) -> tuple[str, ...] | None:
    """The names of ordered classes, from the first to the last; ``None`` where none were given.

    Raises
    ------
    TopgraftError
        If another task is asked for, there are fewer than two names, one is given twice, or a separator or
        classes are given too.

    Examples
    --------
    >>> order_given(None, "low, middle,high"), order_given("ordinal", None)
    (('low', 'middle', 'high'), None)
    """
    if order is None:
        return None
    if separator is not None:
        raise TopgraftError("--order is for one class an example, --separator for several labels. Give one.")
    if classes is not None:
        raise TopgraftError("classes are given in their order. Leave order out, or classes.")
    parts = order.split(",") if isinstance(order, str) else list(order)
    names = tuple(str(name).strip() for name in parts)
    if task not in (None, "ordinal"):
        raise TopgraftError(
            f"--order {','.join(names)} is for ordered classes (--task ordinal), not for --task {task}. "
            "Leave one of the two out."
        )
    if len(names) < 2 or not all(names):
        raise TopgraftError(
            f'--order "{",".join(names)}": give two names of classes or more, from the first to the last, '
            "such as low,middle,high."
        )
    if twice := [name for name in names if names.count(name) > 1]:
        raise TopgraftError(f'--order names "{twice[0]}" more than once. Give each class once.')
    return names


def order_of(column: Any) -> tuple[str, ...] | None:
    """Names of an ordered categorical (pandas; polars' ``Enum``), from the first to the last; else ``None``.

    Examples
    --------
    >>> import pandas as pd
    >>> order_of(pd.Categorical(["b", "a"], ["b", "a"], ordered=True)), order_of(["b", "a"])
    (('b', 'a'), None)
    """
    kind = getattr(column, "dtype", None)
    names = getattr(kind, "categories", None)
    if names is None or not (getattr(kind, "ordered", False) or type(kind).__name__ == "Enum"):
        return None
    return tuple(str(name) for name in names)


def in_ordered_classes(
    found: Found, labels: Sequence[str], order: Sequence[str] | None, notes: list[str]
) -> tuple[str, ...]:
    """The classes in their order: as given, as an ordered categorical has them, or numbers by their size.

    Raises
    ------
    TopgraftError
        If nothing says the order, or what was given names a class that no example has.
    """
    present = set(labels)
    if order is not None:
        if strange := [name for name in order if name not in present]:
            raise TopgraftError(
                f'{found.origin}: --order names "{strange[0]}", which no example has.'
                f"{did_you_mean(strange[0], present)} The labels: {listed(sorted(present), limit=20)}."
            )
        return tuple(order)
    if found.is_ordered and found.order is not None and present <= set(found.order):
        classes = tuple(name for name in found.order if name in present)
        notes.append(f"The classes have the order of the categorical: {' < '.join(classes[:20])}.")
        return classes
    values = {name: _number(name) for name in present}
    if odd := sorted(name for name, value in values.items() if value is None):
        raise TopgraftError(
            f'{found.origin}: nothing says the order of its classes; "{odd[0]}" is no number. Give them from '
            f"the first to the last: --order {','.join(sorted(present)[:5])}"
            f"{',…' if len(present) > 5 else ''} in the right order (or an ordered categorical in Python)."
        )
    known = {name: value for name, value in values.items() if value is not None}
    if len(set(known.values())) < len(known):
        same = next(a for a in sorted(known) for b in sorted(known) if a != b and known[a] == known[b])
        raise TopgraftError(
            f'{found.origin}: the number of "{same}" is written in several ways, which are several classes. '
            "Write it in one way."
        )
    return tuple(sorted(present, key=known.__getitem__))


def is_regression(
    found: Found, labels: Sequence[str], classes: Sequence[str] | None, task: Task | None, notes: list[str]
) -> bool:
    """Whether labels are numbers to be predicted; ``notes`` gets a sentence where nobody has said so.

    Where the task is not given they are if there are several columns of them, or if all labels are numbers,
    more than :data:`MANY` different ones, and some have a fraction. Whole numbers may as well be names, or
    numbers of rows that nobody wants predicted.
    """
    if found.numbers:
        if task == "classification":
            raise TopgraftError(
                f"{found.origin}: {len(found.numbers) + 1} columns of labels are numbers to be predicted. "
                "For classes name one column; for columns of 0 and 1, a label each: --task multilabel."
            )
        if task is None and {cell for column in (labels, *found.numbers) for cell in column} <= _BITS:
            notes.append(
                f"All {len(found.numbers) + 1} columns hold 0 and 1 only; they are predicted as numbers "
                "(--task multilabel for labels, of which an example may have several)."
            )
        return True
    if task is not None or classes is not None:
        return task == "regression"
    values = [_number(label) for label in labels]
    if any(value is None for value in values):
        return False
    different = {value for value in values if value is not None}
    if len(different) <= MANY or all(value.is_integer() for value in different):
        return False
    notes.append(
        f"The labels are {len(different):,} different numbers, so that numbers are predicted "
        "(--task classification for classes)."
    )
    return True


def hint(classes: Sequence[str]) -> str:
    """What to say of classes that look like numbers, behind an error about them.

    Examples
    --------
    >>> hint([str(i) for i in range(30)])
    ' If these are numbers to be predicted: --task regression.'
    >>> hint(["1", "2"]), hint(["cat", "dog"] * 20)
    ('', '')
    """
    if len(classes) <= MANY or any(_number(name) is None for name in classes):
        return ""
    return " If these are numbers to be predicted: --task regression."


def output_names(found: Found) -> tuple[str, ...]:
    """Names of the numbers: those of their columns, else ``target``, or ``target_1`` and so on."""
    if found.label_names:
        return found.label_names
    if "label" in found.columns:
        return (found.columns["label"],)
    count = 1 + len(found.numbers)
    return ("target",) if count == 1 else tuple(f"target_{i}" for i in range(1, count + 1))


def numbers_of(found: Found, columns: Sequence[Sequence[str]], kept: Sequence[int]) -> NDArray[np.float64]:
    """``(n, outputs)`` float64.

    Raises
    ------
    TopgraftError
        If a label is no finite number; the first are named with where they stand.
    """
    values = np.empty((len(kept), len(columns)))
    odd = []
    for place, cells in enumerate(columns):
        for row, cell in enumerate(cells):
            value = _number(cell)
            values[row, place] = math.nan if value is None else value
            if value is None:
                odd.append(f'"{cell}" ({found.names[kept[row]]})')
    if odd:
        are_none = number(len(odd), "label is no number", "labels are no numbers")
        raise TopgraftError(
            f"{found.origin}: {are_none}: {listed(odd)}. "
            "Expected finite numbers such as 3.5, with a point (--task classification for classes)."
        )
    return values


def said_of_numbers(values: NDArray[Any]) -> str:
    """The numbers of one example.

    Examples
    --------
    >>> said_of_numbers(np.array([1.5, 1200.0]))
    '1.5, 1200'
    """
    return ", ".join(f"{value:g}" for value in values.tolist())


def _number(text: str) -> float | None:
    """A finite number, else ``None``; not what only Python takes for one, such as 1_000."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None
