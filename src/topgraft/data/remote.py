"""Data at an address that fsspec reads (``s3://``, ``https://``): fetched into the store, then read there."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from topgraft.data.addresses import failing, is_safe, name_of, opened, shown
from topgraft.data.folders import natural
from topgraft.data.kinds import kind_of
from topgraft.data.notes import listed, number, printable
from topgraft.data.parts import PREFIX
from topgraft.data.shards import expanded
from topgraft.data.tables import Table, is_table_name
from topgraft.data.tars import is_tar_name
from topgraft.data.types import Found
from topgraft.errors import TopgraftError, TopgraftWarning

if TYPE_CHECKING:
    from topgraft.features.fetched import Brought, Fetched, Wanted

LARGE = 100_000_000
"""Bytes from which on it is said before they are fetched."""
MAX_DEPTH = 20
"""Folders in folders that are looked through over HTTP, where a listing may name itself."""
_VERSIONS = ("ETag", "etag", "version_id", "generation", "md5Hash", "Content-MD5", "Digest", "LastModified",
             "last_modified", "Last-Modified", "updated", "mtime", "modified", "created")  # fmt: skip
_MORE = (".arrow", "README.md")


class FetchWarning(TopgraftWarning):
    """Much is about to be fetched."""


@dataclass(frozen=True)
class Here:
    """What was fetched from an address, as a path.

    Parameters
    ----------
    path
        What a reader takes instead of the address: a folder, a file, or a range of shards.
    folder
        Where the files of the address lie.
    address
        Of that folder, for people.
    note
        What was fetched, in a sentence.
    bring
        Fetches more files of that folder, by their relative names.
    """

    path: str
    folder: Path
    address: str
    note: str
    bring: Callable[[Iterable[str]], str]

    def said(self, text: str) -> str:
        """A text in which the address stands instead of the folder."""
        return text.replace(str(self.folder), self.address)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """What is wrong with the files is told by their address."""
        try:
            yield
        except TopgraftError as error:
            if type(error) is not TopgraftError:
                raise
            raise TopgraftError(self.said(str(error))) from error

    def renamed(self, found: Found | Table) -> None:
        """Names, origin and notes of what was read speak of the address."""
        found.origin = self.said(found.origin)
        found.notes[:] = [self.note, *(self.said(note) for note in found.notes)]
        if isinstance(found, Found):
            found.names = [self.said(name) for name in found.names]
        else:
            found.here, found.stays_inside = self, True
            if (names := found.names) is not None:
                found.names = lambda cells: [self.said(name) for name in names(cells)]


def here(address: str) -> Here:
    """Fetch what is at an address, as far as it is not in the store already.

    Parameters
    ----------
    address
        Of a folder, a table, shards (``a-{000..003}.tar``) or one picture or sound. Credentials are found by
        fsspec where it always looks for them.

    Raises
    ------
    TopgraftError
        If a package is missing, there is nothing, it may not be read, or the store has no room.
    RunningError
        If the connection fails.
    """
    if "::" in address:
        raise TopgraftError(
            f"{shown(address)}: addresses inside archives are not read. Unpack the archive first."
        )
    if (scheme := address.partition("://")[0].lower()) in ("file", "local"):
        rest = address[len(scheme) + 3 :]
        raise TopgraftError(f"{address} is on this machine: give the path itself, {rest}")
    name = name_of(address)
    is_one = is_table_name(name) or is_tar_name(name) or kind_of(name) is not None
    files = opened(address)
    with failing(address):
        files.invalidate_cache()
        found, passed = (files_of(files, address), []) if is_one else below(files, address)
    from topgraft.features.fetched import Fetched

    # A query may be a key to one file only, and stands behind its name; a folder has none.
    base = address.split("?", maxsplit=1)[0].rstrip("/").rpartition("/")[0] if is_one else address.rstrip("/")
    place = Fetched(base, shown(base))
    brought = _brought(place, files, address, found)
    notes = [_note(brought, shown(address)), *passed]

    def bring(names: Iterable[str]) -> str:
        more = _those(files, base, names)
        return _note(_brought(place, files, base, more), shown(base)) if more else ""

    path = str(brought.folder / name) if is_one else str(brought.folder)
    return Here(path, brought.folder, shown(base), " ".join(notes), bring)


def files_of(files: Any, address: str) -> list[Wanted]:
    """One file, or those of a range."""
    head, mark, query = address.partition("?")
    base = head.rpartition("/")[0]
    name = head.rpartition("/")[2]
    return [_wanted(files, f"{base}/{each}{mark}{query}", each) for each in expanded(name)]


def below(files: Any, address: str) -> tuple[list[Wanted], list[str]]:
    """What can be an example, a table or a shard in a folder and below it, and notes on the rest."""
    root = str(files._strip_protocol(address)).rstrip("/")
    is_http = root.startswith("http")
    where = {"path": f"{root}/", "maxdepth": MAX_DEPTH} if is_http else {"path": root}
    found: dict[str, Any] = files.find(detail=True, **where)
    names: dict[str, tuple[str, Any]] = {}
    outside, others = [], []
    for place, info in found.items():
        inside = place.startswith(root + "/")
        name = place[len(root) + 1 :]
        name = unquote(re.split(r"[?#]", name)[0]) if is_http else name
        if not inside or not is_safe(name):
            outside.append(printable(place))
        elif _is_wanted(name) and not any(part.startswith(".") for part in name.split("/")):
            names[name] = (place, info)
        else:
            others.append(printable(name))
    if not names:
        said = f" (it holds {listed(others)})" if others else ""
        raise TopgraftError(f"{shown(address)} holds no pictures, sounds, tables or shards{said}.")
    order = sorted(names, key=natural)
    if is_http:  # its listings tell names alone
        with ThreadPoolExecutor(8) as pool:
            wanted = list(pool.map(lambda name: _wanted(files, names[name][0], name), order))
    else:
        wanted = [_of_info(names[name][0], name, names[name][1]) for name in order]
    notes = []
    if others:
        notes.append(
            f"{number(len(others), 'other file was', 'other files were')} not fetched: {listed(others)}."
        )
    if outside:
        lead = number(len(outside), "name leads", "names lead")
        notes.append(f"{lead} out of the folder, not fetched: {listed(outside)}.")
    return wanted, notes


def _is_wanted(name: str) -> bool:
    return kind_of(name) is not None or is_tar_name(name) or is_table_name(name) or name.endswith(_MORE)


def _wanted(files: Any, place: str, name: str) -> Wanted:
    return _of_info(place, unquote(name) if place.startswith("http") else name, files.info(place))


def _of_info(place: str, name: str, info: Any) -> Wanted:
    from topgraft.features.fetched import Wanted

    key = next((key for key in _VERSIONS if info.get(key)), None)
    size = info.get("size")
    version = f"{key}={info[key]} {size}" if key is not None else ""
    return Wanted(name, place, size if isinstance(size, int) else None, version)


def _those(files: Any, base: str, names: Iterable[str]) -> list[Wanted]:
    """Files by their relative names; those that are not there are left to the reader, which tells them."""

    def one(name: str) -> Wanted | None:
        try:
            return _wanted(files, f"{base}/{name}", name)
        except FileNotFoundError:
            return None

    safe = sorted({name for name in names if is_safe(name)})
    with failing(base), ThreadPoolExecutor(8) as pool:
        return [found for found in pool.map(one, safe) if found is not None]


def _brought(place: Fetched, files: Any, address: str, wanted: Sequence[Wanted]) -> Brought:
    more = sum(one.size or 0 for one in wanted)
    if more > LARGE and not place.folder.exists():
        from topgraft.console import size

        said = f"{shown(address)}: up to {size(more)} are fetched into the store now."
        if all(is_tar_name(one.name) for one in wanted):
            said += f" {PREFIX} before the address would leave the shards where they lie."
        warnings.warn(said, FetchWarning, stacklevel=2)

    def get(places: list[str], paths: list[str]) -> None:
        with failing(address):
            files.get(places, paths)

    return place.bring(wanted, get)


def _note(brought: Brought, address: str) -> str:
    from topgraft.console import size

    here_already = (
        f"; {number(brought.here, 'file was', 'files were')} in the store already" if brought.here else ""
    )
    mended = (
        f"; {number(brought.damaged, 'of them was', 'of them were')} damaged there" if brought.damaged else ""
    )
    fetched = f"Fetched {number(brought.fetched, 'file')} ({size(brought.bytes)}) from {address}"
    return f"{fetched}{here_already}{mended}; see `topgraft cache`."
