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

from topgraft.data.folders import natural, printable
from topgraft.data.kinds import kind_of
from topgraft.data.notes import listed, number
from topgraft.data.shards import expanded
from topgraft.data.tables import Table, is_table_name
from topgraft.data.tars import is_tar_name
from topgraft.data.types import Found
from topgraft.errors import RunningError, TopgraftError, TopgraftWarning, did_you_mean

if TYPE_CHECKING:
    from topgraft.features.fetched import Brought, Fetched, Wanted

LARGE = 100_000_000
"""Bytes from which on it is said before they are fetched."""
MAX_DEPTH = 20
"""Folders in folders that are looked through over HTTP, where a listing may name itself."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
_EXTRAS = {"s3fs": "topgraft[s3]"}
_VERSIONS = ("ETag", "etag", "version_id", "generation", "md5Hash", "Content-MD5", "Digest", "LastModified",
             "last_modified", "Last-Modified", "updated", "mtime", "modified", "created")  # fmt: skip
_MORE = (".arrow", "README.md")


class FetchWarning(TopgraftWarning):
    """Much is about to be fetched."""


def is_address(given: str) -> bool:
    """Whether a text is an address, not a path.

    Examples
    --------
    >>> is_address("s3://bucket/photos/"), is_address("photos/"), is_address("C:/photos")
    (True, False, False)
    """
    return _SCHEME.match(given) is not None


def shown(address: str) -> str:
    """An address without name, password and query, which may be keys.

    Examples
    --------
    >>> shown("https://me:secret@host/a.csv?token=1"), shown("s3://bucket/photos/")
    ('https://host/a.csv', 's3://bucket/photos')
    """
    scheme, _, rest = address.partition("://")
    host, slash, path = re.split(r"[?#]", rest)[0].partition("/")
    return printable(f"{scheme}://{host.rpartition('@')[2]}{slash}{path}".rstrip("/"))


def name_of(address: str) -> str:
    """The last part of an address, without a query.

    Examples
    --------
    >>> name_of("https://host/data/a.parquet?download=true"), name_of("s3://bucket/photos/")
    ('a.parquet', 'photos')
    """
    return shown(address).rpartition("/")[2]


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
        found, passed = (_files(files, address), []) if is_one else _below(files, address)
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


def opened(address: str) -> Any:
    """The file system of an address.

    Raises
    ------
    TopgraftError
        If nothing reads such addresses, or a package is missing.
    """
    import fsspec

    scheme = address.partition("://")[0].lower()
    try:
        return fsspec.core.url_to_fs(address)[0]
    except ImportError as error:
        package = _PACKAGES.get(scheme)
        if package is None:
            raise TopgraftError(f"{scheme}:// can't be read here: {_short(error)}") from None
        raise TopgraftError(
            f"{scheme}:// is read by the package {package}, which is not here ({_short(error)}).\n"
            f"Install it: pip install '{_EXTRAS.get(package, package)}'"
        ) from None
    except ValueError:
        known = sorted(fsspec.available_protocols())
        raise TopgraftError(
            f"{shown(address)}: nothing reads {scheme}://.{did_you_mean(scheme, known)} Expected a path, "
            "or an address that fsspec reads, such as s3://, gs:// or https://."
        ) from None
    except Exception as error:
        raise TopgraftError(f"{shown(address)} is no address that can be read: {_short(error)}") from error


@contextlib.contextmanager
def failing(address: str, done: str = "be fetched", verb: str = "read") -> Iterator[None]:
    """What file systems raise, as something that a person can act on."""
    said = shown(address)
    try:
        yield
    except TopgraftError:
        raise
    except FileNotFoundError as error:
        cause = error.__cause__  # HTTP's file system calls whatever goes wrong a missing file
        status = getattr(cause, "status", None)
        if cause is not None and not isinstance(cause, FileNotFoundError) and status not in (404, 410):
            kind = TopgraftError if status in (401, 403) else RunningError
            raise kind(f"{said} can't {done}: {_short(cause)}") from error
        raise TopgraftError(f"{said}: there is nothing at this address.") from error
    except PermissionError as error:
        raise TopgraftError(f"{said}: no permission to {verb} it: {_short(error)}") from error
    except Exception as error:
        if "redential" in type(error).__name__ + str(error):
            raise TopgraftError(f"{said}: fsspec found no credentials for it: {_short(error)}") from error
        raise RunningError(f"{said} can't {done}: {_short(error)}") from error


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200]
    return re.sub(r"\?\S+", "?…", text) or type(error).__name__


def _files(files: Any, address: str) -> list[Wanted]:
    """One file, or those of a range."""
    head, mark, query = address.partition("?")
    base = head.rpartition("/")[0]
    name = head.rpartition("/")[2]
    return [_wanted(files, f"{base}/{each}{mark}{query}", each) for each in expanded(name)]


def _below(files: Any, address: str) -> tuple[list[Wanted], list[str]]:
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


def is_safe(name: str) -> bool:
    """Whether a relative name stays inside its folder on every system.

    Examples
    --------
    >>> [is_safe(name) for name in ("food/a.jpg", "../a.jpg", "/a.jpg", "a/./b.jpg", "c:a.jpg")]
    [True, False, False, False, False]
    """
    parts = name.split("/")
    is_plain = all(
        part not in ("", ".", "..") and len(part.encode("utf-8", "replace")) < 240 for part in parts
    )
    return is_plain and not {"\\", "\0", ":"} & set(name)


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
