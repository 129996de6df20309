"""Data read as a saved model wants them: its columns, its classes, its modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from topgraft.backbones.row_preprocess import RowPreprocess
from topgraft.data import read
from topgraft.data.columns import Rows
from topgraft.data.places import has_columns
from topgraft.data.types import Data, Modality, Watch
from topgraft.saved import Model


def data_for(
    model: Model,
    source: str,
    columns: Mapping[str, str | None],
    *,
    max_unreadable: float,
    watch: Watch | None = None,
) -> tuple[Data, list[str]]:
    """Read labelled data for a saved model.

    Parameters
    ----------
    model
        Whose columns count where the table has columns and none are named.
    source
        A folder, a table, or whatever else ``fit`` reads.
    columns
        Those that are named, by ``text``, ``label``, ``path`` and ``group``; ``None`` where one is not.
    max_unreadable
        Share of the examples that may be unusable.
    watch
        As for :func:`topgraft.data.read`.

    Returns
    -------
    Data, list of str
        The data, and how their columns fit those that a model of rows knows.

    Raises
    ------
    TopgraftError
        If they can't be read, or don't fit.
    """
    named: dict[str, Any] = {name: column for name, column in columns.items() if column is not None}
    if has_columns(source):
        named = {n: c for n, c in model.columns.items() if n in ("text", "path", "label")} | named
    known = model.preprocess
    data = read(
        source,
        columns=known.kinds if isinstance(known, RowPreprocess) else None,
        text=named.get("text"),
        label=named.get("label"),
        path=named.get("path"),
        group=named.get("group"),
        classes=model.classes or None,
        task=model.task,
        separator=model.separator or None,
        modality=cast("Modality", model.modality),
        max_unreadable=max_unreadable,
        watch=watch,
    )
    if isinstance(known, RowPreprocess) and isinstance(data.inputs, Rows):
        return data, known.matched(data.inputs, data.origin)
    return data, []
