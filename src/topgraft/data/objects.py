"""Data that is already in Python: arrays, lists, data frames, torch and Hugging Face data sets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from topgraft.data.assemble import digest_of
from topgraft.data.columns import Rows
from topgraft.data.example import ExampleError
from topgraft.data.hugging_face import table_of_dataset
from topgraft.data.kinds import Kind, as_kind, kind_of, most_are
from topgraft.data.labels import SEPARATOR, is_indicator, joined
from topgraft.data.lazily import Member
from topgraft.data.notes import number, printable
from topgraft.data.pairs import are_two, pair_of
from topgraft.data.row_tables import row_notes
from topgraft.data.sounds import Sound
from topgraft.data.tables import Table, cell_text
from topgraft.data.targets import order_of
from topgraft.data.types import MODALITIES, Found, Modality
from topgraft.errors import TopgraftError


def read_object(
    source: Any, targets: Any, modality: Modality | None, separator: str | None = None
) -> Found | Table:
    """Recognise what ``source`` is; ``separator`` where an example may have several labels.

    Raises
    ------
    TopgraftError
        If it is nothing that can be read, or the number of targets differs from that of the inputs.
    """
    if isinstance(source, tuple) and len(source) == 2 and targets is None and not isinstance(source[0], str):
        source, targets = source
    if _is_frame(source, targets):
        _no_targets(targets, "a data frame: name its column of labels")
        cells = dict[str, Sequence[Any]](frame_cells(source))
        orders = {n: order for n in cells if (order := order_of(source[n])) is not None}
        return Table("the data frame", cells, Path(), {}, [], orders=orders)
    if _is_hugging_face(source):
        _no_targets(targets, "a Hugging Face data set: name its column of labels")
        return table_of_dataset(source)
    if _is_torch_dataset(source) and not isinstance(source, Rows):
        _no_targets(targets, "a torch Dataset: its items hold the labels")
        if separator is not None:
            raise TopgraftError(
                "A torch Dataset gives one label an example. For several give inputs and targets (n, labels)."
            )
        return _torch_dataset(source, modality)
    if isinstance(source, Rows):
        found = Found("row", "the rows", _names(len(source)), source, notes=row_notes(source))
    elif isinstance(source, (list, tuple)):
        found = _items(list(source), modality)
    else:
        found = _array(source, modality)
    if targets is not None and (separator is not None or is_indicator(targets)):
        found.separator = separator or SEPARATOR
        found.label_names = tuple(map(str, getattr(targets, "columns", ())))
        if getattr(targets, "ndim", 1) != 2:
            each = targets.tolist() if hasattr(targets, "tolist") else list(targets)
            found.labels = joined(each, found.separator)
            found.are_lists = is_indicator(each)
            _must_be_as_many(len(found.names), len(found.labels))
            return found
    first, *more = _label_columns(targets)
    found.labels = _labels(first, len(found.names))
    _take_order(found, first)
    found.numbers = [labels for column in more if (labels := _labels(column, len(found.names))) is not None]
    return found


def _take_order(found: Found, targets: Any) -> None:
    order = order_of(targets)
    if order is not None:
        found.order, found.is_ordered = order, True


def frame_cells(frame: Any) -> dict[str, list[Any]]:
    """The cells of each column of a data frame of pandas or polars."""
    columns = {str(name): frame[name] for name in frame.columns}
    return {name: c.to_list() if hasattr(c, "to_list") else c.tolist() for name, c in columns.items()}


def _label_columns(targets: Any) -> list[Any]:
    """The columns of ``(n, outputs)`` numbers; of anything else itself."""
    if getattr(targets, "ndim", 1) != 2:
        return [targets]
    values = targets.to_numpy() if hasattr(targets, "to_numpy") else _numpy(targets)
    return [values[:, place] for place in range(values.shape[1])]


def _no_targets(targets: Any, what: str) -> None:
    if targets is not None:
        raise TopgraftError(f"targets can't be given together with {what}.")


def _labels(targets: Any, count: int) -> list[str | None] | None:
    if targets is None:
        return None
    values = targets.tolist() if hasattr(targets, "tolist") else list(targets)
    if not isinstance(values, list) or any(isinstance(v, (list, tuple, dict)) for v in values):
        raise TopgraftError("targets: expected one label for each example, a flat list or array.")
    _must_be_as_many(count, len(values))
    return [cell_text(int(v) if isinstance(v, float) and v.is_integer() else v) for v in values]


def _must_be_as_many(count: int, targets: int) -> None:
    if targets != count:
        raise TopgraftError(
            f"{number(count, 'example')} but {number(targets, 'target')}. Expected as many of each."
        )


def _names(count: int) -> list[str]:
    return [str(i) for i in range(count)]


def _items(items: list[Any], modality: Modality | None) -> Found:
    """A list of paths, texts, Pillow pictures, sounds or arrays."""
    from PIL import Image

    if not items:
        raise TopgraftError("The list holds no examples.")
    if all(isinstance(item, (str, os.PathLike)) for item in items):
        paths = any(isinstance(item, os.PathLike) for item in items)
        names = [str(i) for i in items]
        kind = as_kind(modality)
        if modality is None and (paths or all(kind_of(name) == kind_of(names[0]) for name in names)):
            kind = most_are(names) if paths else kind_of(names[0])
        if kind is not None:
            return Found(kind, "the list", names, [Path(i) for i in items])
        if paths or modality == "array":
            raise TopgraftError(f"A list of {type(items[0]).__name__} was given for {modality}s.")
        return Found("text", "the list", _names(len(items)), items)
    if modality in (None, "text") and all(are_two(item) for item in items):
        return Found("text", "the list of pairs", _names(len(items)), [pair_of(*item) for item in items])
    if modality == "text" and all(item is None or isinstance(item, str) for item in items):
        return Found("text", "the list", _names(len(items)), items)
    if all(isinstance(item, Sound) for item in items) or modality == "sound":
        return Found("sound", "the list", _names(len(items)), [_file(item, "sound") for item in items])
    if all(isinstance(item, (Image.Image, bytes)) for item in items) or modality == "picture":
        return Found("picture", "the list", _names(len(items)), [_file(item, "picture") for item in items])
    if all(item is None or isinstance(item, str) for item in items):
        return Found("text", "the list", _names(len(items)), items)
    try:
        stacked = np.stack([_numpy(item) for item in items])
    except (ValueError, TypeError):
        kinds = sorted({type(item).__name__ for item in items})
        raise TopgraftError(
            f"The list holds {', '.join(kinds)} of different shapes or kinds. "
            "Expected paths, texts, pictures, sounds, or arrays of one shape."
        ) from None
    return _array(stacked, modality)


def _array(source: Any, modality: Modality | None) -> Found:
    """(n, ...) numbers, one row an example."""
    values = _numpy(source)
    if values.ndim == 1 and values.dtype.kind in "USO":
        return _items(values.tolist(), modality)
    if values.ndim < 2 or values.size == 0:
        raise TopgraftError(
            f"An array of shape {values.shape} was given. Expected (examples, ...), not empty."
        )
    if values.dtype.kind not in "biuf":
        raise TopgraftError(f"An array of {values.dtype} was given. Expected whole numbers or floats.")
    if modality == "text":
        raise TopgraftError("An array of numbers was given for texts. Expected a list of str.")
    if modality == "sound":
        raise TopgraftError(
            "An array of numbers was given for sounds. Expected a list of paths or of topgraft.data.Sound, "
            "which says how many samples there are in a second."
        )
    as_pictures = values.dtype == np.uint8 and values.ndim == 4 and values.shape[3] in (1, 3, 4)
    if modality == "picture" or (modality is None and as_pictures):
        said = f"The array {values.shape} of uint8 was taken for pictures, height x width x channels."
        notes = [] if modality else [said]
        return Found("picture", "the array", _names(len(values)), list(values), notes=notes)
    return Found("array", "the array", _names(len(values)), np.ascontiguousarray(values, dtype=np.float32))


def _numpy(value: Any) -> np.ndarray[Any, Any]:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()
        return np.asarray(value.numpy())
    if value is None or isinstance(value, (str, bytes, dict)) or callable(getattr(value, "read", None)):
        raise TopgraftError(
            f"{type(value).__name__} is nothing that can be read as data. Expected a path, arrays (X, y), "
            "lists of paths or texts with targets, a data frame, a torch Dataset or a Hugging Face Dataset."
        )
    array = np.asarray(value)
    if array.ndim == 0:
        raise TopgraftError(f"{type(value).__name__} is nothing that can be read as data.")
    return array


def _file(value: Any, kind: Kind) -> Any:
    """What is decoded later: a path, bytes, or what is decoded already; else an error for its row."""
    if isinstance(value, dict) and ("bytes" in value or "path" in value):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        return Path(value)
    if value is None:
        return ExampleError("", f"no {kind}")
    if isinstance(value, (bytes, os.PathLike, Member, ExampleError)):
        return value
    if kind == "sound":
        return (
            value if isinstance(value, Sound) else ExampleError("", f"a {type(value).__name__}, not a sound")
        )
    if hasattr(value, "detach"):
        value = _numpy(value)
        if value.ndim == 3 and value.shape[0] in (1, 3, 4) and value.shape[2] not in (1, 3, 4):
            value = np.moveaxis(value, 0, 2)
    if isinstance(value, np.ndarray) or hasattr(value, "convert"):
        return value
    return ExampleError("", f"a {type(value).__name__}, not a picture")


def file_cell(cell: Any, folder: Path, kind: Kind, *, stays_inside: bool = False) -> Any:
    """A table's cell as a picture or a sound: a path relative to the table, or bytes.

    With ``stays_inside`` a path that leads out of the folder is an error of its example.
    """
    if isinstance(cell, dict) and not cell.get("bytes"):
        cell = cell.get("path")
    if isinstance(cell, str):
        if "://" in cell[:12]:
            return ExampleError(cell, "an address, not a file: download it first")
        if stays_inside and not is_inside(cell, folder):
            return ExampleError(cell, "leads out of the folder of the data")
        return folder / cell if cell.strip() and "\0" not in cell else ExampleError("", "no path")
    return _file(cell, kind)


def column_files(table: Table, column: str, kind: Kind) -> tuple[Sequence[Any], list[str] | None]:
    """A column's pictures or sounds as inputs, and their names where these are no row numbers.

    What lies elsewhere is fetched first.
    """
    cells = table.column(column)
    if not isinstance(cells, list):
        return CellFiles(table, cells, kind), None if table.names is None else table.names(cells)
    if table.here is not None:
        paths = [
            cell.get("path") if isinstance(cell, dict) and not cell.get("bytes") else cell for cell in cells
        ]
        if note := table.here.bring(
            os.path.normpath(path) for path in paths if isinstance(path, str) and path
        ):
            table.notes.append(note)
    inputs = [file_cell(cell, table.folder, kind, stays_inside=table.stays_inside) for cell in cells]
    said = str if table.here is None else table.here.said
    return inputs, [printable(said(str(v))) if isinstance(v, Path) else str(i) for i, v in enumerate(inputs)]


class CellFiles(Sequence[Any]):
    """A column of pictures or sounds that are read when they are asked for."""

    def __init__(self, table: Table, cells: Sequence[Any], kind: Kind) -> None:
        self.cells, self.folder, self.kind = cells, table.folder, kind
        self.stays_inside = table.stays_inside

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, index: Any) -> Any:
        return file_cell(self.cells[int(index)], self.folder, self.kind, stays_inside=self.stays_inside)


def is_inside(path: str, folder: Path) -> bool:
    """Whether a path, if relative then to the folder, leads into the folder; links are not looked at.

    Examples
    --------
    >>> is_inside("a/../b.png", Path("/data")), is_inside("../b.png", Path("/data"))
    (True, False)
    >>> is_inside("/etc/passwd", Path("/data")), is_inside("/data/b.png", Path("/data"))
    (False, True)
    """
    whole = os.path.normpath(folder / path)
    return "\\" not in path and whole.startswith(os.path.join(os.path.normpath(folder), ""))  # noqa: PTH118


def _is_frame(source: Any, targets: Any) -> bool:
    """Whether it is a table; one of polars with targets beside it is an array of numbers."""
    kinds = "pandas" if targets is not None else ("pandas", "polars")
    return type(source).__module__.startswith(kinds) and hasattr(source, "columns")


def _is_hugging_face(source: Any) -> bool:
    return type(source).__module__.split(".")[0] == "datasets"


def _is_torch_dataset(source: Any) -> bool:
    if isinstance(source, (np.ndarray, list, tuple, str, bytes, dict, range)) or hasattr(source, "detach"):
        return False
    return (
        hasattr(type(source), "__getitem__")
        and hasattr(type(source), "__len__")
        and not hasattr(source, "shape")
    )


class Items(Sequence[Any]):
    """The inputs of a torch Dataset, each read when it is asked for."""

    def __init__(self, source: Any, kind: Kind = "picture") -> None:
        self.source, self.kind = source, kind
        self.lock = Lock()  # one's own Dataset need not bear several threads at once

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Any) -> Any:
        with self.lock:
            return _file(self.source[int(index)][0], self.kind)


def _torch_dataset(source: Any, modality: Modality | None) -> Found:
    """Items (input, label); pictures and sounds are read again when they are needed."""
    count = len(source)
    if count == 0:
        raise TopgraftError("The data set holds no examples.")
    labels, inputs = [], []
    for i in range(count):
        item = source[i]
        if not (isinstance(item, (tuple, list)) and len(item) == 2):
            raise TopgraftError(f"Item {i} of the data set is not a pair (input, label).")
        label = item[1].item() if hasattr(item[1], "item") else item[1]
        labels.append(cell_text(label))
        if i == 0:
            kind = modality or _kind(item[0])
        if as_kind(kind) is None:
            inputs.append(item[0])
    own = getattr(source, "classes", None)
    order = None
    if isinstance(own, (list, tuple)) and all(
        n is None or (n.isdecimal() and int(n) < len(own)) for n in labels
    ):
        order = tuple(str(name) for name in own)
        labels = [None if n is None else order[int(n)] for n in labels]
    if (files := as_kind(kind)) is not None:
        items = Items(source, files)
        _steady(items)
        return Found(files, "the data set", _names(count), items, labels=labels, order=order)
    found = _items(inputs, kind)
    found.origin, found.labels, found.order = "the data set", labels, order
    return found


def _kind(value: Any) -> Modality:
    if isinstance(value, str):
        return "text"
    if isinstance(value, Sound) or (isinstance(value, os.PathLike) and kind_of(str(value)) == "sound"):
        return "sound"
    return "picture" if hasattr(value, "convert") or isinstance(value, (bytes, os.PathLike)) else "array"


def _steady(items: Items) -> None:
    """Refuse a data set that gives another example each time, since what is stored would be another's."""
    for i in range(min(3, len(items))):
        first, again = items[i], items[i]
        if isinstance(first, (ExampleError, str, os.PathLike)):
            continue
        if digest_of(first) != digest_of(again):
            raise TopgraftError(
                f"Item {i} of the data set was another {items.kind} when it was read again. "
                "Give the data set without random augmentation."
            )


def refuse_modality(modality: str | None) -> None:
    """Raise if there is no such modality."""
    if modality is not None and modality not in MODALITIES:
        raise TopgraftError(f'modality="{modality}" is unknown. Expected one of {", ".join(MODALITIES)}.')
