"""Data sets of the library datasets: in memory, and in folders that its ``save_to_disk`` wrote."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from topgraft.data.kinds import Kind
from topgraft.data.tables import Table
from topgraft.errors import TopgraftError


def table_of_dataset(source: Any) -> Table:
    """A Hugging Face data set as columns that read on demand; pictures and sounds stay encoded.

    Raises
    ------
    TopgraftError
        If it has several parts, or can't be read by number of row.
    """
    import datasets

    if isinstance(source, (datasets.DatasetDict, datasets.IterableDatasetDict)):
        raise TopgraftError(
            f"A data set with the parts {', '.join(source)} was given. "
            f'Give one of them, such as data["{next(iter(source), "train")}"].'
        )
    if not isinstance(source, datasets.Dataset):
        raise TopgraftError(
            f"{type(source).__name__} can't be read by number of row. Expected datasets.Dataset."
        )
    classes: dict[str, tuple[str, ...]] = {}
    kinds: dict[str, Kind] = {}
    source = source.with_format(None)
    for name, feature in source.features.items():
        if isinstance(feature, datasets.ClassLabel):
            classes[name] = tuple(feature.names)
        elif isinstance(feature, datasets.Image):
            source = source.cast_column(name, datasets.Image(decode=False))
            kinds[name] = "picture"
        elif isinstance(feature, datasets.Audio):
            source = source.cast_column(name, datasets.Audio(decode=False))
            kinds[name] = "sound"
    columns: dict[str, Sequence[Any]] = {name: Column(source, name) for name in source.column_names}
    return Table("the data set", columns, Path(), classes, [], kinds)


def open_saved(folder: Path, origin: str) -> Table | None:
    """A folder that Hugging Face's ``save_to_disk`` wrote, or ``None`` if it is none."""
    try:
        names = {p.name for p in folder.iterdir()}
    except OSError:
        return None  # the reader of folders says why
    if "dataset_dict.json" in names:
        parts = sorted(p.name for p in folder.iterdir() if p.is_dir())
        example = (
            f"{origin}/train --test {origin}/test"
            if {"train", "test"} <= set(parts)
            else f"{origin}/{parts[0]}"
        )
        raise TopgraftError(
            f"{origin} holds the parts {', '.join(parts)}. Give them by themselves: {example}"
        )
    if not is_saved(folder):
        return None
    import datasets

    try:
        table = table_of_dataset(datasets.load_from_disk(str(folder)))
    except (OSError, ValueError, KeyError) as error:
        raise TopgraftError(f"{origin} is not a whole Hugging Face data set: {error}") from None
    table.origin = origin
    return table


def is_saved(folder: Path) -> bool:
    """Whether Hugging Face's ``save_to_disk`` wrote a folder."""
    return all(os.path.isfile(folder / name) for name in ("dataset_info.json", "state.json"))  # noqa: PTH113 (no error where nothing may be seen)


class Column(Sequence[Any]):
    """One column of a Hugging Face data set, a cell read when it is asked for."""

    def __init__(self, source: Any, name: str) -> None:
        self.source, self.name = source.select_columns([name]), name

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Any) -> Any:
        return self.source[index][self.name]
