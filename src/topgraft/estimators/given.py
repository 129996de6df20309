"""What users of scikit-learn give as X: tables of numbers, or examples such as texts, paths and pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from topgraft.data import read
from topgraft.data.columns import Rows
from topgraft.data.labels import SEPARATOR
from topgraft.data.objects import frame_cells
from topgraft.data.pairs import are_two
from topgraft.data.sounds import Sound
from topgraft.data.types import Data, Modality
from topgraft.errors import TopgraftError

Examples = list[Any] | np.ndarray[Any, Any] | Rows


def examples_in(X: Any) -> Examples | None:
    """The examples in ``X``, or ``None`` if it is to be read as a table of numbers.

    Parameters
    ----------
    X
        A list, a one-dimensional array or a column (pandas, polars) of texts, paths, pictures or sounds; a
        list of pairs of texts; a frame or a two-dimensional array with one such column; an array of three
        dimensions or more, such as pictures ``(n, height, width, 3)`` uint8.

    Raises
    ------
    TopgraftError
        If a frame has texts or paths and further columns.

    Examples
    --------
    >>> examples_in(["a bird", "a wine"]), examples_in(np.array([["a bird"], ["a wine"]], dtype=object))
    (['a bird', 'a wine'], ['a bird', 'a wine'])
    >>> examples_in(np.zeros((2, 3))), examples_in(np.zeros((2, 8, 8, 3), np.uint8)).shape
    (None, (2, 8, 8, 3))
    """
    if hasattr(X, "columns"):
        return _of_frame(X)
    if hasattr(X, "to_list"):  # a column of pandas or polars
        X = X.to_list()
    if isinstance(X, np.ndarray) or hasattr(X, "detach"):
        if X.ndim >= 3:
            return np.asarray(X.detach().cpu() if hasattr(X, "detach") else X)
        if X.ndim == 0 or (X.ndim == 2 and X.shape[1] != 1):
            return None
        X = X.reshape(-1).tolist() if _is_example(X.reshape(-1)[0] if X.size else None) else None
    if isinstance(X, (list, tuple)) and len(X) and _is_example(X[0]):
        return list(X)
    return None


def rows_in(X: Any) -> Rows:
    """The rows in ``X`` for a network that reads numbers and categories.

    Parameters
    ----------
    X
        A data frame (pandas, polars), or a list of mappings from the name of a column to its cell.

    Raises
    ------
    TopgraftError
        If it is neither, or a column can't be read.

    Examples
    --------
    >>> rows_in([{"age": 31, "town": "Ulm"}, {"town": "Rom"}])[1]
    {'age': None, 'town': 'Rom'}
    """
    if isinstance(X, Rows):
        return X
    if hasattr(X, "columns"):
        return Rows.of(frame_cells(X))
    if isinstance(X, (list, tuple)) and X and all(isinstance(row, Mapping) for row in X):
        return Rows.of_records(X)
    raise TopgraftError(
        f"X is a {type(X).__name__}. A network for rows finds columns by name: give a data frame, or a list "
        "of mappings from the name of a column to its cell."
    )


def read_examples(
    examples: Any,
    modality: Modality | None,
    *,
    targets: Any = None,
    classes: Sequence[str] = (),
    outputs: Sequence[str] = (),
) -> Data:
    """The examples as data, every one of them in their order; one that can't be used is an error.

    Parameters
    ----------
    examples
        What :func:`examples_in` or :func:`rows_in` gave, or an array of numbers.
    modality
        Where it is known already.
    targets
        ``(n,)`` indices into ``classes``, ``(n, classes)`` booleans where an example may have several, or
        ``(n, outputs)`` float64 numbers. With ``None`` there are no folds that must keep near duplicates
        together, so that these are not looked for.
    classes, outputs
        Names of the classes, or of the numbers.

    Raises
    ------
    TopgraftError
        If one can't be read, is empty or has values that are not finite.
    """
    data = read(examples, modality=modality, max_unreadable=0.0, near_duplicates=targets is not None)
    if targets is None:
        return data
    if outputs:
        return replace(data, targets=np.asarray(targets, dtype=np.float64), outputs=tuple(outputs))
    if np.ndim(targets) == 2:
        return replace(
            data, targets=np.asarray(targets, dtype=bool), classes=tuple(classes), separator=SEPARATOR
        )
    return replace(data, targets=np.asarray(targets, dtype=np.int64), classes=tuple(classes))


def names_of(labels: np.ndarray[Any, Any]) -> list[str]:
    """Labels as names of classes, written as :func:`topgraft.read` writes them.

    Examples
    --------
    >>> names_of(np.array([1.0, 2.5])), names_of(np.array([False, True])), names_of(np.array(["a", "b"]))
    (['1', '2.5'], ['False', 'True'], ['a', 'b'])
    """
    plain = labels.tolist()
    return [str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in plain]


def _of_frame(X: Any) -> Examples | None:
    """A frame's one column of examples; ``None`` for a frame of numbers."""
    names = list(X.columns)
    columns = {name: X[name] for name in names}
    found = [name for name, column in columns.items() if len(column) and _is_example(column.to_list()[0])]
    if not found:
        return None
    if len(names) > 1:
        raise TopgraftError(
            f"X has the columns {', '.join(map(str, names))}. Expected one column of texts or paths: "
            f"give X[{found[0]!r}], or choose it with scikit-learn's ColumnTransformer. "
            'To learn from all columns, numbers and categories: backbone="rows". '
            "From pairs of texts: list(zip(X[one], X[other]))."
        )
    return list(columns[found[0]].to_list())


def _is_example(value: Any) -> bool:
    """Whether a value is a text, a pair of them, a path, a picture, a sound or an array, and no number."""
    if isinstance(value, (str, bytes, os.PathLike, Sound)) or hasattr(value, "convert") or are_two(value):
        return True
    return getattr(value, "ndim", 0) >= 2
