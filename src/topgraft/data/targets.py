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
