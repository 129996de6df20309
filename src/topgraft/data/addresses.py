"""Addresses of fsspec: what is one, how it is told without its secrets, and what goes wrong at it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from topgraft.data.notes import printable
from topgraft.errors import RunningError, TopgraftError, did_you_mean

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
_EXTRAS = {"s3fs": "topgraft[s3]"}


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
            raise TopgraftError(f"{scheme}:// can't be read here: {short(error)}") from None
        raise TopgraftError(
            f"{scheme}:// is read by the package {package}, which is not here ({short(error)}).\n"
            f"Install it: pip install '{_EXTRAS.get(package, package)}'"
        ) from None
    except ValueError:
        known = sorted(fsspec.available_protocols())
        raise TopgraftError(
            f"{shown(address)}: nothing reads {scheme}://.{did_you_mean(scheme, known)} Expected a path, "
            "or an address that fsspec reads, such as s3://, gs:// or https://."
        ) from None
    except Exception as error:
        raise TopgraftError(f"{shown(address)} is no address that can be read: {short(error)}") from error


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
            raise kind(f"{said} can't {done}: {short(cause)}") from error
        raise TopgraftError(f"{said}: there is nothing at this address.") from error
    except PermissionError as error:
        raise TopgraftError(f"{said}: no permission to {verb} it: {short(error)}") from error
    except Exception as error:
        if "redential" in type(error).__name__ + str(error):
            raise TopgraftError(f"{said}: fsspec found no credentials for it: {short(error)}") from error
        raise RunningError(f"{said} can't {done}: {short(error)}") from error


def short(error: BaseException) -> str:
    """What an error says, on one line, without queries, which may be keys."""
    text = " ".join(str(error).split())[:200]
    return re.sub(r"\?\S+", "?…", text) or type(error).__name__


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
