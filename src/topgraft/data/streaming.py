"""Shards and Parquet files at an address whose examples are read there, by parts, and never fetched whole."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

from topgraft.data import parquet_parts, parts
from topgraft.data.addresses import failing, name_of, opened, shown
from topgraft.data.notes import listed, number, printable
from topgraft.data.parquet_parts import read_parquet_parts
from topgraft.data.parts import PREFIX, open_parts, without_prefix
from topgraft.data.remote import LARGE, FetchWarning, below, files_of
from topgraft.data.shards import read_shards
from topgraft.data.tables import Table
from topgraft.data.tars import is_tar_name
from topgraft.errors import TopgraftError


@dataclass(frozen=True)
class Streamed:
    """A shard at an address, in the place of a path.

    Parameters
    ----------
    address
        As fsspec takes it.
    said
        For people, without keys.

    Examples
    --------
    >>> str(Streamed("s3://bucket/a.tar?token=1", "s3://bucket/a.tar"))
    'stream+s3://bucket/a.tar?token=1'
    """

    address: str
    said: str

    def __str__(self) -> str:
        """As a path of this kind is told from others."""
        return f"{PREFIX}{self.address}"

    def open(self, _mode: str = "rb", /) -> io.BufferedReader:
        """To read and seek in."""
        return open_parts(self.address)


def read_streamed(given: str) -> Table:
    """The examples of shards or Parquet files at an address, which stay there.

    Parameters
    ----------
    given
        ``stream+`` and the address of a shard, of several by a range, or of a folder of them; or of a Parquet
        file or a range of them.

    Returns
    -------
    Table
        As :func:`topgraft.data.shards.read_shards` and :func:`topgraft.data.tables.read_table` give it.

    Raises
    ------
    TopgraftError
        If there are none, one of them is none, may not be read, or its server gives no parts of files.
    RunningError
        If the connection fails.
    """
    address = without_prefix(given)
    name = name_of(address).lower()
    files = opened(address)
    is_one = is_tar_name(name) or name.endswith(".parquet")
    with failing(address, done="be read"):
        files.invalidate_cache()
        parts.forget()
        parquet_parts.forget()
        found, passed = (files_of(files, address), []) if is_one else below(files, address)
    wanted = found if is_one else [one for one in found if is_tar_name(one.name)]
    if not wanted:
        raise TopgraftError(
            f"{shown(given)} holds no shards (.tar), but {listed([one.name for one in found])}. Shards and "
            "Parquet files are read by parts, these by their names, as in train-{00..07}.parquet. "
            f"Leave out {PREFIX}, and all is fetched."
        )
    if not is_one and (others := [one.name for one in found if not is_tar_name(one.name)]):
        are = number(len(others), "file is no shard", "files are no shards")
        passed = [*passed, f"{are} and not read: {listed(others)}."]
    base = shown(address).rpartition("/")[0] if is_one else shown(address)
    paths = [
        Streamed(
            one.place if "://" in one.place else files.unstrip_protocol(one.place),
            f"{base}/{printable(one.name)}",
        )
        for one in wanted
    ]
    note = _told(sum(one.size or 0 for one in wanted), len(wanted), shown(address))
    if name.endswith(".parquet"):
        table = read_parquet_parts([str(path) for path in paths], [path.said for path in paths], shown(given))
    else:
        table = read_shards(paths, shown(given), lambda path: path.said)
    table.notes[:0] = [note, *passed]
    return table


def _told(whole: int, count: int, address: str) -> str:
    from topgraft.console import size

    where = "file is read where it lies" if count == 1 else "files are read where they lie"
    note = (
        f"{count:,} {where}, by parts ({size(whole)} at {address}); nothing comes onto the disk. A training "
        "that freezes nothing reads them again in each epoch."
    )
    if whole > LARGE:
        said = f"{note} Up to three times as many bytes come over the line before training: see docs/data.md."
        warnings.warn(said, FetchWarning, stacklevel=3)
    return note
