"""Reading data from wherever the user has it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from topgraft.data import duplicates as dup
from topgraft.data.addresses import is_address
from topgraft.data.assemble import assemble
from topgraft.data.columns import ColumnKind, Rows
from topgraft.data.folders import read_folder
from topgraft.data.kinds import Kind, as_kind, kind_of
from topgraft.data.labels import separator_for
from topgraft.data.notes import listed, number
from topgraft.data.objects import column_files, read_object, refuse_modality
from topgraft.data.pairs import text_cells
from topgraft.data.parts import is_streamed
from topgraft.data.pictures import MAX_PIXELS
from topgraft.data.places import has_columns, table_at
from topgraft.data.remote import here
from topgraft.data.row_tables import first_labels, found_rows
from topgraft.data.shards import choose_fields
from topgraft.data.tables import ENDINGS, Table, choose_columns
from topgraft.data.targets import order_given, refuse_task
from topgraft.data.types import Data, Found, Modality, Task, Watch
from topgraft.errors import TopgraftError


def read(
    source: Any,
    *,
    text: str | None = None,
    label: str | None = None,
    path: str | None = None,
    group: str | None = None,
    modality: Modality | None = None,
    classes: Sequence[str] | None = None,
    targets: Any = None,
    max_unreadable: float = 0.05,
    max_pixels: int = MAX_PIXELS,
    near_duplicates: bool = True,
    task: Task | None = None,
    columns: str | Sequence[str] | Mapping[str, ColumnKind] | None = None,
    categories: str | Sequence[str] | None = None,
    separator: str | None = None,
    order: str | Sequence[str] | None = None,
    watch: Watch | None = None,
) -> Data:
    """Read labelled examples, decode each once to know that it can be used, and find duplicates.

    Parameters
    ----------
    source
        A folder with one folder of pictures or sounds a class; a table (.csv, .tsv, .jsonl, .parquet) with a
        column of paths or texts; a Hugging Face data set (``hf/NAME``, or a folder of one); shards of
        WebDataset (``a-{000..003}.tar``, or a folder of tar files); any of them at an address of fsspec (``s3://``),
        where ``stream+s3://`` reads shards and Parquet files by parts instead of fetching them.
        From Python
        also ``(X, y)``, an array (n, ...), lists of paths, texts, pictures or sounds (with ``targets``), a
        data frame, a torch ``Dataset`` of (input, label), or a Hugging Face ``Dataset``.
    text, path, label, group
        Columns of a table. Where they are not given, the obvious ones are taken, which a note says.
        Examples with the same value in the column ``group`` are kept on one side of every split. Several
        columns, of numbers to be predicted or of 0 and 1 a label, stand in ``label`` with commas between
        them.
    modality
        ``"picture"``, ``"text"``, ``"sound"``, ``"array"`` or ``"row"``, where it is not to be recognised.
    classes
        Names of the classes in the order to use; a label that is none of them is an error. Where
        not given, the labels found, sorted.
    targets
        Labels, one an example, for arrays and lists; without them the data is unlabelled. Also
        ``(n, outputs)`` numbers to be predicted; and where an example may have several labels ``(n, labels)``
        booleans, or a list of names for each.
    max_unreadable
        Share of the examples (0 to 1) that may be unreadable, empty or without label.
    max_pixels
        Pixels of the largest picture that is decoded.
    near_duplicates
        Whether to look for near duplicates too, beside exact ones.
    task
        ``"classification"``; ``"multilabel"``: an example may have several labels, or none; ``"ordinal"``:
        classes with an order; or ``"regression"`` for labels that are numbers to be predicted. Where not
        given, labels are classes, unless they are more than 20 different numbers of which some have a
        fraction, which a note says; and several columns are numbers, also where all are 0 and 1.
    order
        Names of ordered classes from the first to the last, also with commas between them; with it the task
        is ``"ordinal"``. Where that is asked for without, classes that are numbers are ordered by their size,
        and an ordered categorical (pandas, polars' ``Enum``) has its own order.
    separator
        What stands between several labels in one cell, ``|`` where ``task`` is ``"multilabel"`` and nothing
        else is given; with it the task is that.
    columns
        Of a table whose rows of numbers and categories are the examples: names, also with commas between
        them, or ``"all"`` for every column but those of labels and groups. With ``modality="row"`` all. Also
        the kind (``"number"``, ``"category"``) of each by name, as a model knows them: those that are not
        there are then left out.
    categories
        Those of them that are categories although they look like numbers.
    watch
        Called once where pictures or sounds are about to be decoded, with ``"picture"`` or ``"sound"`` and
        their number: gives a context, inside of which they are, whose value is called with how many have
        just been done.

    Returns
    -------
    Data
        In the order of the table, or sorted by class and name; ``notes`` says what was left out,
        skipped and found.

    Raises
    ------
    TopgraftError
        If there is no such path, nothing or too little in it, a column is missing, only one class
        is found, or too many examples can't be used.

    Examples
    --------
    >>> data = read(
    ...     ["dry white wine", "small brown bird", "sweet red wine", "large grey bird"],
    ...     targets=["food", "animal", "food", "animal"],
    ... )
    >>> data
    Data(4 examples, text, 2 classes, from 'the list')
    >>> data.classes, data.targets.tolist()
    (('animal', 'food'), [1, 0, 1, 0])
    """
    refuse_modality(modality)
    refuse_task(task)
    order, separator = order_given(task, order, separator, classes), separator_for(task, separator)
    found: Found | Table
    if isinstance(source, (str, os.PathLike)):
        if targets is not None:
            raise TopgraftError(
                "targets can't be given together with a path: the folder or table holds the labels."
            )
        found = _read_path(os.fspath(source), one_class=classes is not None, kind=as_kind(modality))
    else:
        found = read_object(source, targets, modality, separator)
    if isinstance(found, Table) and (modality == "row" or columns is not None or categories is not None):
        other = "texts" if text is not None else "paths" if path is not None else f"{modality}s"
        if other != "rows" and (text is not None or path is not None or modality is not None):
            raise TopgraftError(
                f"{found.origin} can't be read as rows of numbers and categories and as {other}, too. "
                "Give --columns alone, or leave it out."
            )
        found = found_rows(
            found, columns=columns, categories=categories, label=label, group=group, separator=separator
        )
    elif isinstance(found, Table):
        found = _of_table(
            found,
            text=text,
            path=path,
            label=label,
            group=group,
            modality=modality,
            separator=separator,
        )
    else:
        if columns is not None or categories is not None:
            raise TopgraftError(f"{found.origin} is no table, so it has no columns to choose.")
        for use, name in (("text", text), ("path", path), ("label", label), ("group", group)):
            if name is not None:
                raise TopgraftError(f'{found.origin} is no table, so it has no column "{name}" for {use}.')
        if modality is not None and modality != found.modality:
            raise TopgraftError(f"{found.origin} holds {found.modality}s, not {modality}s.")
    if separator is not None and not found.separator and found.labels is not None:
        raise TopgraftError(
            f"{found.origin} gives each example one label, its folder. For several labels an example give a "
            "table with a column of paths and one of labels."
        )
    return assemble(
        found,
        classes=classes,
        max_unreadable=max_unreadable,
        max_pixels=max_pixels,
        near_duplicates=near_duplicates,
        task=task,
        order=order,
        watch=watch,
    )


def read_test(
    source: Any,
    data: Data,
    *,
    allow_overlap: bool = False,
    targets: Any = None,
    max_unreadable: float = 0.05,
    near_duplicates: bool = True,
    watch: Watch | None = None,
) -> Data:
    """Read a test set for ``data``: the same columns and classes, and no example in common.

    Parameters
    ----------
    source
        As for :func:`read`.
    data
        What is trained and chosen on.
    allow_overlap
        Whether examples that are in ``data`` too, exactly or nearly, are said only.
    targets, max_unreadable, near_duplicates, watch
        As for :func:`read`.

    Raises
    ------
    TopgraftError
        As for :func:`read`; if a label is none of ``data.classes``; or at an overlap.
    """
    is_table = has_columns(source)
    test = read(
        source,
        **(data.columns if is_table else {}),
        modality=data.modality,
        classes=data.classes or None,
        task=data.task,
        separator=data.separator or None,
        targets=targets,
        max_unreadable=max_unreadable,
        max_pixels=data.max_pixels,
        near_duplicates=near_duplicates,
        columns=kinds_in(data) if is_table else None,
        watch=watch,
    )
    if test.targets is not None and len(test.outputs) != len(data.outputs):
        raise TopgraftError(
            f"{test.origin} has {number(len(test.outputs), 'number')} an example to be predicted, and "
            f"{data.origin} has {len(data.outputs)}."
        )
    pairs = overlap(test, data, near=near_duplicates)
    if not pairs:
        return test
    shown = [f"{test.names[i]} = {data.names[j]}" for i, j in pairs]
    are = number(len({i for i, _ in pairs}), "example of the test set is", "examples of the test set are")
    said = f"{are} in {data.origin} too, exactly or nearly: {listed(shown)}."
    if not allow_overlap:
        raise TopgraftError(
            f"{said} A score on them would be too good. Take them out of one, or allow it (--allow-overlap)."
        )
    from dataclasses import replace

    return replace(test, notes=(*test.notes, f"{said} The score on them is too good."))


def kinds_in(data: Data) -> dict[str, ColumnKind] | None:
    """Kind by column of rows; ``None`` of other data."""
    return {n: c.kind for n, c in data.inputs.columns.items()} if isinstance(data.inputs, Rows) else None


def overlap(test: Data, data: Data, *, near: bool = True) -> list[tuple[int, int]]:
    """Pairs (index in ``test``, index in ``data``) of the same example, one or more for each.

    Parameters
    ----------
    test, data
        Of the same modality.
    near
        Whether near duplicates count.
    """
    at = {digest: i for i, digest in reversed(list(enumerate(data.digests)))}
    pairs = {(i, at[digest]) for i, digest in enumerate(test.digests) if digest in at}
    done = {i for i, _ in pairs}
    rest = [i for i in range(len(test)) if i not in done]
    more: list[tuple[int, int]] = []
    if near and data.modality == "text":
        more = dup.near_texts([test.inputs[i] for i in rest], list(data.inputs))
    elif near and test.thumbnails is not None and data.thumbnails is not None:
        more = dup.near_pictures(np.asarray(test.thumbnails[rest]), data.thumbnails)
    return sorted({*pairs, *((rest[i], j) for i, j in more)})


def _read_path(given: str, *, one_class: bool, kind: Kind | None) -> Found | Table:
    path = Path(given)
    if not given.strip() or "\0" in given:
        what = "with a zero byte" if given.strip() else "that is empty"
        raise TopgraftError(
            f"A path {what} was given. Expected a folder with one folder a class, or a table."
        )
    if is_address(given) and not is_streamed(given):
        place = here(given)
        with place.told():
            found = _read_path(place.path, one_class=one_class, kind=kind)
        place.renamed(found)
        return found
    if (table := table_at(given)) is not None:
        return table
    if path.is_dir():
        return read_folder(path, one_class=one_class, kind=kind)
    if not path.is_file():
        raise TopgraftError(f"{given} is neither a file nor a folder.")
    if path.suffix.lower() in (".npy", ".npz"):
        raise TopgraftError(
            f"{given} holds arrays, which are given from Python: tg.read((X, y)). A table of numbers "
            f"({', '.join(ENDINGS)}) is read with --columns all."
        )
    one = kind_of(path.name)
    what = f"is one {one}" if one else f'ends in "{path.suffix}"'
    raise TopgraftError(
        f"{given} {what}. Expected a folder with one folder of {one or 'picture'}s a class, "
        f"or a table ({', '.join(ENDINGS)})."
    )


def _of_table(
    table: Table,
    *,
    text: str | None,
    path: str | None,
    label: str | None,
    group: str | None,
    modality: Modality | None,
    separator: str | None,
) -> Found:
    if modality == "array":
        raise TopgraftError(f"{table.origin} is a table of texts or paths; arrays are given from Python.")
    told = {"text": text, "path": path, "label": label, "group": group}
    named = {use: name for use, name in told.items() if name is not None}
    if table.names is not None:
        text, path, label = choose_fields(table, text=text, path=path, label=label, modality=modality)
    columns = choose_columns(table, text=text, path=path, label=label, group=group, modality=modality)
    if modality is not None and (as_kind(modality) is not None) != ("path" in columns):
        raise TopgraftError(f"{table.origin} is read as {columns}, which are not {modality}s.")
    rows = [str(i) for i in range(len(table))]
    names = rows
    inputs: Sequence[Any]
    kind = (as_kind(modality) or table.kind(columns["path"])) if "path" in columns else None
    if kind is not None:
        inputs, called = column_files(table, columns["path"], kind)
        names = rows if called is None else called
    else:
        inputs = [
            cell if cell is None or isinstance(cell, str) else _as_text(cell)
            for cell in text_cells(table, columns["text"])[:]
        ]
        names = rows if table.names is None else table.names(table.column(columns["text"]))
    labels = table.label_columns(columns["label"])
    return Found(
        kind or "text",
        table.origin,
        names,
        inputs,
        labels=first_labels(table, labels, separator),
        numbers=[table.cells(name) for name in labels[1:]],
        label_names=tuple(labels),
        separator=separator or "",
        groups=table.cells(columns["group"]) if "group" in columns else None,
        columns=columns if table.names is None else named,  # others are usual in shards, whatever is in them
        notes=table.notes,
        order=table.orders.get(columns["label"], table.classes.get(columns["label"])),
        is_ordered=columns["label"] in table.orders,
    )


def _as_text(cell: Any) -> Any:
    """Numbers become texts; lists and the like stay what they are, and are left out by name later."""
    if isinstance(cell, float) and np.isnan(cell):
        return None
    return str(cell) if isinstance(cell, (int, float)) else cell
