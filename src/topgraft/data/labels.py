"""Several labels an example: a cell with a separator, lists of names, or columns of 0 and 1."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from topgraft.data.folders import natural
from topgraft.data.notes import listed, number
from topgraft.data.tables import cell_text
from topgraft.data.types import Found, Task
from topgraft.errors import TopgraftError, did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEPARATOR = "|"
"""Between the labels of one example, where nobody says another."""
LEAST = 3
"""Examples that a label needs, and that have to be without it: two to choose on and one to score."""

_TRUTH = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


def separator_for(task: Task | None, separator: str | None) -> str | None:
    """What parts the labels of a cell; ``None`` where an example has one label only.

    Raises
    ------
    TopgraftError
        If a separator was given that can't be one, or for another task.

    Examples
    --------
    >>> separator_for(None, None), separator_for("multilabel", None), separator_for(None, ";")
    (None, '|', ';')
    """
    if separator is None:
        return SEPARATOR if task == "multilabel" else None
    if task not in (None, "multilabel"):
        raise TopgraftError(
            f'A separator ("{separator}") parts several labels of one example; --task {task} has one. '
            "Leave one of the two out."
        )
    if not separator:
        raise TopgraftError(
            'An empty separator parts nothing. Give what stands between labels: --separator "|".'
        )
    return separator


def is_indicator(targets: Any) -> bool:
    """Whether targets given in Python can only be several labels: booleans ``(n, labels)`` or lists of texts.

    Examples
    --------
    >>> is_indicator(np.eye(2, dtype=bool)), is_indicator([["red"], []]), is_indicator(np.eye(2))
    (True, True, False)
    """
    if getattr(targets, "ndim", 0) == 2:
        kinds = getattr(targets, "dtypes", None)
        if kinds is not None:
            return all(str(kind) == "bool" for kind in kinds)
        return str(targets.dtype) in ("bool", "torch.bool")
    if not isinstance(targets, (list, tuple)) or not targets:
        return False
    several = (list, tuple, set, frozenset)
    return all(isinstance(one, several) and all(isinstance(name, str) for name in one) for one in targets)


def joined(cells: Iterable[Any], separator: str) -> list[str | None]:
    """Cells as text with the separator between labels; ``None`` where one is missing, empty for no label.

    Raises
    ------
    TopgraftError
        If a label of a list holds the separator itself.

    Examples
    --------
    >>> joined(["red|round", "", None, ["red", "round"], []], "|")
    ['red|round', '', None, 'red|round', '']
    """
    found: list[str | None] = []
    for cell in cells:
        if isinstance(cell, (list, tuple, set, frozenset, np.ndarray)):
            names = sorted(map(str, cell)) if isinstance(cell, (set, frozenset)) else [str(n) for n in cell]
            if odd := [name for name in names if separator in name]:
                raise TopgraftError(
                    f'The label "{odd[0]}" holds "{separator}", which parts labels. '
                    "Give another separator (--separator)."
                )
            found.append(separator.join(names))
        elif isinstance(cell, str) and not cell.strip():
            found.append("")
        else:
            found.append(cell_text(cell))
    return found


def labels_of(
    found: Found,
    columns: Sequence[Sequence[str]],
    kept: Sequence[int],
    classes: Sequence[str] | None,
    notes: list[str],
) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
    """Names of the labels in their order, and which examples have them.

    Parameters
    ----------
    found
        With its separator.
    columns
        One column of cells with separators, or one of 0 and 1 for each label; of the examples that are used.
    kept
        Which examples these are, for messages.
    classes
        Names of the labels in the order to use; where not given those found, sorted.
    notes
        Get what was decided.

    Returns
    -------
    names, targets
        ``(n, labels)`` booleans.

    Raises
    ------
    TopgraftError
        If nothing holds the separator, a cell of a column of a label is neither 0 nor 1, or fewer than two
        labels can be learned.
    """
    if len(columns) == 1:
        names, matrix = _separated(found, columns[0], notes, check=classes is None and not found.are_lists)
    else:
        names, matrix = _zeros_and_ones(found, columns, kept, classes)
    if classes is not None:
        return _as_given(found, names, matrix, [str(c) for c in classes], notes)
    counts = matrix.sum(0)
    rare = np.minimum(counts, len(matrix) - counts) < LEAST
    if rare.any():
        out = [f"{name} ({n})" for name, n, few in zip(names, counts.tolist(), rare, strict=True) if few]
        notes.append(
            f"{number(len(out), 'label is', 'labels are')} left out, since fewer than {LEAST} examples have "
            f"or lack {'it' if len(out) == 1 else 'them'}: {listed(out, limit=8)}."
        )
    if (~rare).sum() < 2:
        raise TopgraftError(
            f"{found.origin}: {number(int((~rare).sum()), 'label')} can be learned of "
            f"{len(names):,} found ({listed(names)}). Two or more are needed, each on {LEAST} examples or "
            "more; for one question with one answer use --task classification."
        )
    none = int((~matrix[:, ~rare].any(1)).sum())
    if none:
        notes.append(f"{number(none, 'example has', 'examples have')} no label.")
    return tuple(name for name, few in zip(names, rare, strict=True) if not few), matrix[:, ~rare]


def said_of_labels(row: NDArray[np.bool_], names: Sequence[str], separator: str) -> str:
    """The labels of one example.

    Examples
    --------
    >>> said_of_labels(np.array([True, False, True]), ["red", "round", "sweet"], "|")
    'red|sweet'
    """
    return separator.join(name for name, has in zip(names, row.tolist(), strict=True) if has)


def _separated(
    found: Found, cells: Sequence[str], notes: list[str], *, check: bool
) -> tuple[list[str], NDArray[np.bool_]]:
    each = [{part.strip() for part in cell.split(found.separator)} - {""} for cell in cells]
    names = sorted({name for one in each for name in one}, key=natural)
    where = f' of the column "{found.columns["label"]}"' if "label" in found.columns else ""
    if check and not any(len(one) > 1 for one in each):
        others = [s for s in (";", ",", "|", "/") if s != found.separator and any(s in c for c in cells)]
        hint = f' Some hold "{others[0]}": --separator "{others[0]}"?' if others else ""
        raise TopgraftError(
            f'{found.origin}: no cell{where} has several labels with "{found.separator}" between them.{hint} '
            "If each example has one label: --task classification."
        )
    if check and where:
        notes.append(f'Labels{where} are parted by "{found.separator}" (--separator).')
    place = {name: i for i, name in enumerate(names)}
    matrix = np.zeros((len(cells), len(names)), dtype=bool)
    for row, one in enumerate(each):
        matrix[row, [place[name] for name in one]] = True
    return names, matrix


def _zeros_and_ones(
    found: Found, columns: Sequence[Sequence[str]], kept: Sequence[int], classes: Sequence[str] | None
) -> tuple[list[str], NDArray[np.bool_]]:
    names = list(found.label_names)
    if not names:
        alike = classes is not None and len(classes) == len(columns)
        names = list(map(str, classes or ())) if alike else [f"label_{i + 1}" for i in range(len(columns))]
    matrix = np.zeros((len(kept), len(columns)), dtype=bool)
    odd = []
    for place, cells in enumerate(columns):
        for row, cell in enumerate(cells):
            truth = _TRUTH.get(cell.strip().casefold())
            matrix[row, place] = bool(truth)
            if truth is None:
                odd.append(f'"{cell:.40}" ({names[place]} of {found.names[kept[row]]})')
    if odd:
        are = number(len(odd), "cell is", "cells are")
        raise TopgraftError(
            f"{found.origin}: {are} neither 0 nor 1: {listed(odd)}. Expected 1 where an example has the "
            "label, else 0 (or true and false); for numbers to be predicted use --task regression."
        )
    return names, matrix


def _as_given(
    found: Found, names: Sequence[str], matrix: NDArray[np.bool_], classes: Sequence[str], notes: list[str]
) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
    """The columns in the order of given labels; others are left out, which a note says."""
    place = {name: i for i, name in enumerate(names)}
    known = [name for name in classes if name in place]
    if not known:
        raise TopgraftError(
            f"{found.origin}: none of its labels ({listed(names)}) is one of the "
            f"{number(len(classes), 'label')} expected: {listed(classes, limit=20)}."
            + (did_you_mean(names[0], classes) if names else "")
        )
    strange = [name for name in names if name not in classes and matrix[:, place[name]].any()]
    if strange:
        notes.append(
            f"{number(len(strange), 'label that is', 'labels that are')} none of the {len(classes):,} known "
            f"{'is' if len(strange) == 1 else 'are'} left out: {listed(strange, limit=8)}."
        )
    targets = np.zeros((len(matrix), len(classes)), dtype=bool)
    for column, name in enumerate(classes):
        if name in place:
            targets[:, column] = matrix[:, place[name]]
    return tuple(classes), targets
