"""What a path or a name leads to: a table of some kind, or a folder with one folder a class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from topgraft.data import hub
from topgraft.data.addresses import is_address, name_of
from topgraft.data.folders import refuse_missing
from topgraft.data.hugging_face import is_saved, open_saved
from topgraft.data.notes import printable
from topgraft.data.parts import is_streamed
from topgraft.data.remote import here
from topgraft.data.shards import read_shards, shards_at
from topgraft.data.streaming import read_streamed
from topgraft.data.tables import Table, is_table_name, read_table
from topgraft.data.tars import is_tar_name


def table_at(given: str) -> Table | None:
    """What has columns at a path or behind a name; ``None`` where what is there has none.

    Parameters
    ----------
    given
        A table, a data set of the hub (``hf/NAME``), shards (``a-{000..003}.tar``), or a folder of either;
        also at an address, where ``stream+`` before it leaves shards there.

    Raises
    ------
    TopgraftError
        If there is nothing, or it can't be read.
    """
    if is_streamed(given):
        return read_streamed(given)
    if is_address(given):
        place = here(given)
        with place.told():
            table = table_at(place.path)
        if table is not None:
            place.renamed(table)
        return table
    if hub.is_hub_name(given):
        return hub.read_hub(given)
    if (shards := shards_at(given)) is not None:
        return read_shards(shards, printable(given))
    path, said = Path(given), printable(given)
    refuse_missing(path, said)
    if path.is_dir():
        if (saved := open_saved(path, said)) is not None:
            return saved
        return hub.read_repository(path, said) if hub.is_repository(path) else None
    return read_table(path, said) if is_table_name(path.name) and path.is_file() else None


def has_columns(source: Any) -> bool:
    """Whether data has columns that can be named, as tables have and folders of classes have not.

    Examples
    --------
    >>> has_columns("a.csv"), has_columns("hf/mnist"), has_columns(["a", "b"])
    (True, True, False)
    """
    if not isinstance(source, (str, os.PathLike)):
        return hasattr(source, "columns") or hasattr(source, "column_names")
    given = os.fspath(source)
    if is_streamed(given) or is_table_name(given) or is_tar_name(given) or hub.is_hub_name(given):
        return True
    if is_address(given):
        name = name_of(given)
        return is_table_name(name) or is_tar_name(name) or has_columns(here(given).path)
    path = Path(given)
    if shards_at(given) is not None:
        return True
    return path.is_dir() and (is_saved(path) or hub.is_repository(path))
