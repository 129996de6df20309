"""Shards at an address whose examples are read there, by parts, and never fetched whole."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

from topgraft.data.addresses import failing, name_of, opened, shown
from topgraft.data.notes import listed, number, printable
from topgraft.data.parts import PREFIX, forget, open_parts, without_prefix
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
    """The examples of shards at an address, as :func:`topgraft.data.shards.read_shards` gives them.

    Parameters
    ----------
    given
        ``stream+`` and the address of a shard, of several by a range, or of a folder of them.

    Raises
    ------
    TopgraftError
        If there are no shards, one of them is none, may not be read, or its server gives no parts of files.
    RunningError
        If the connection fails.
    """
    address = without_prefix(given)
    files = opened(address)
    is_one = is_tar_name(name_of(address))
    with failing(address, done="be read"):
        files.invalidate_cache()
        forget()
        found, passed = (files_of(files, address), []) if is_one else below(files, address)
    shards = [one for one in found if is_tar_name(one.name)]
    if not shards:
        raise TopgraftError(
            f"{shown(given)} holds no shards (.tar), but {listed([one.name for one in found])}. Only shards "
            f"are read by parts: leave out {PREFIX}, and the files are fetched."
        )
    if others := [one.name for one in found if not is_tar_name(one.name)]:
        are = number(len(others), "file is no shard", "files are no shards")
        passed = [*passed, f"{are} and not read: {listed(others)}."]
    base = shown(address).rpartition("/")[0] if is_one else shown(address)
    paths = [
        Streamed(
            one.place if "://" in one.place else files.unstrip_protocol(one.place),
            f"{base}/{printable(one.name)}",
        )
        for one in shards
    ]
    from topgraft.console import size

    whole = sum(one.size or 0 for one in shards)
    where = "shard is read where it lies" if len(shards) == 1 else "shards are read where they lie"
    note = (
        f"{len(shards):,} {where}, by parts ({size(whole)} at {shown(address)}); nothing comes onto the disk."
        " A training that freezes nothing reads them again in each epoch."
    )
    if whole > LARGE:
        said = f"{note} Up to three times as many bytes come over the line before training: see docs/data.md."
        warnings.warn(said, FetchWarning, stacklevel=2)
    table = read_shards(paths, shown(given), lambda path: path.said)
    table.notes[:0] = [note, *passed]
    return table
