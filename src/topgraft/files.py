"""Files and folders that appear complete or not at all, and readers that notice damage.

Everything is written under a temporary name beside its place, brought to the disk, and renamed. The
writer holds a lock on it, so that :func:`sweep` can tell what a killed writer left from what a living
one is still writing, without trusting clocks or process numbers.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topgraft.canonical import canonical_json, parsed_json, readable_json
from topgraft.errors import RunningError, TopgraftError
from topgraft.tensorfile import DamagedFile, TensorFile, open_regular, pack

if sys.platform != "win32":  # there, what killed writers left stays until a person deletes it
    import fcntl

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "DamagedFile",
    "canonical_json",
    "new_folder",
    "read_json",
    "read_tensors",
    "sweep",
    "told",
    "write_json",
    "write_tensors",
    "write_whole",
]

_WRONG_PLACE = frozenset(
    (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP)
)
_PART = re.compile(r"\.topgraft-part-[0-9a-f]{12}-[0-9a-f]{16}")


def write_whole(path: str | os.PathLike[str], data: bytes | Iterable[bytes | memoryview]) -> None:
    """Write a file that is there complete or not at all; one that was there is replaced.

    Parameters
    ----------
    path
        The file; its folder must exist.
    data
        The content, or its parts in order.

    Raises
    ------
    TopgraftError
        If the folder doesn't exist or may not be written in.
    RunningError
        If the disk is full or fails.
    """
    path = Path(path)
    with told(path), contextlib.ExitStack() as undo:
        temporary, descriptor = _begin(path, _create_file)
        undo.callback(_forget, temporary)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            for part in [data] if isinstance(data, bytes) else data:
                rest = memoryview(part)
                while rest:
                    rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
            temporary.replace(path)
        _sync_folder(path.parent)


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Build a folder that is there complete or not at all.

    What is written into the folder given to the ``with`` block appears under ``path`` when the block
    ends well, and is removed when it doesn't. What a killed process left of the same folder is removed.

    Parameters
    ----------
    path
        A folder that doesn't exist yet; its parent must exist.

    Raises
    ------
    TopgraftError
        If there is something at ``path``, or its parent may not be written in.
    RunningError
        If the disk is full or fails.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp())
    >>> with new_folder(place / "photos.topgraft") as folder:
    ...     write_json(folder / "labels.json", ["cat", "dog"])
    ...     (place / "photos.topgraft").exists()
    False
    >>> read_json(place / "photos.topgraft" / "labels.json")
    ['cat', 'dog']
    """
    path = Path(path)
    _refuse_existing(path)
    sweep(path.parent, only=path.name)
    with contextlib.ExitStack() as undo:
        with told(path):
            temporary, descriptor = _begin(path, _create_folder)
        undo.callback(os.close, descriptor)
        undo.callback(shutil.rmtree, temporary, ignore_errors=True)
        try:
            yield temporary
        except OSError as error:
            place = Path(os.fsdecode(error.filename)) if error.filename else temporary
            if not place.is_relative_to(temporary):
                raise
            told_as = _known(path / place.relative_to(temporary), error, "write")
            if told_as is None:
                raise
            raise told_as from error
        with told(path):
            for folder, _, names in os.walk(temporary):
                for name in names:
                    _sync_file(Path(folder, name))
                _sync_folder(Path(folder))
            _refuse_existing(path)
            temporary.rename(path)
            _sync_folder(path.parent)


def is_leftover(name: str) -> bool:
    """Whether a file of this name is what a killed writer left unfinished."""
    return _PART.fullmatch(name) is not None


def sweep(folder: str | os.PathLike[str], *, only: str | None = None) -> int:
    """Remove what killed writers left unfinished in ``folder``; what is being written stays.

    Parameters
    ----------
    folder
        Where to look, not below.
    only
        The final name of the file or folder whose leftovers are meant; all when not given.

    Returns
    -------
    int
        How many leftovers were removed.
    """
    try:
        paths = sorted(Path(folder).iterdir())
    except OSError:
        return 0
    prefix = "" if only is None else _prefix(only)
    return sum(_remove_abandoned(p) for p in paths if p.name.startswith(prefix) and is_leftover(p.name))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` for people and programs: sorted names, two spaces, floats exact, a last newline.

    Takes what :func:`canonical_json` takes, writes as :func:`write_whole` does, and raises as both do.
    """
    write_whole(path, readable_json(value))


def read_json(path: str | os.PathLike[str], *, limit: int = 1 << 28) -> Any:
    """What :func:`write_json` wrote.

    Parameters
    ----------
    path
        The file.
    limit
        Bytes of the largest file that is read (256 MiB).

    Raises
    ------
    DamagedFile
        If it isn't JSON, holds a name twice or a number that isn't finite, or is over the limit.
    TopgraftError
        If it doesn't exist or may not be read.
    """
    path = Path(path)
    with told(path, reading=True), os.fdopen(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        text = file.read(limit + 1) if size <= limit else b""
    if size > limit or len(text) > limit:
        raise DamagedFile(path, f"it has {size:,} bytes, over the limit of {limit:,}")
    try:
        return parsed_json(text)
    except ValueError as error:
        raise DamagedFile(path, str(error)) from None


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    checksums: bool = True,
) -> None:
    """Write a safetensors file, complete or not at all; the same content gives the same bytes.

    Parameters
    ----------
    path
        The file; its folder must exist.
    tensors
        Tensors by name, of any type but complex; kept bit for bit.
    metadata
        Texts by name.
    checksums
        Whether the file carries the sha256 of each tensor, checked on reading.

    Raises
    ------
    TopgraftError, RunningError
        As :func:`write_whole`.
    """
    write_whole(path, pack(tensors, metadata or {}, checksums=checksums))


def read_tensors(
    path: str | os.PathLike[str], names: Sequence[str] | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file.

    Parameters
    ----------
    path
        The file, written by :func:`write_tensors` or by others.
    names
        Only these tensors; all when not given.

    Returns
    -------
    tuple
        Tensors by name on the CPU, and metadata by name (without the checksums).

    Raises
    ------
    DamagedFile
        If the header doesn't fit the file, or bytes don't match their checksums.
    TopgraftError
        If the file doesn't exist, may not be read or lacks one of ``names``.
    """
    path = Path(path)
    with told(path, reading=True), TensorFile(path) as file:
        wanted = list(file.entries) if names is None else list(names)
        for name in wanted:
            if name not in file.entries:
                raise TopgraftError(f"{path} has no tensor {name!r}; it has {len(file.entries)} others.")
        return {name: file.read(name) for name in wanted}, file.metadata


@contextlib.contextmanager
def told(path: Path, *, reading: bool = False) -> Iterator[None]:
    """Turn an ``OSError`` inside the block into a message about ``path`` that a person can act on.

    Parameters
    ----------
    path
        What is being written or read.
    reading
        Whether it is being read.
    """
    try:
        yield
    except OSError as error:
        known = _known(path, error, "read" if reading else "write")
        raise known or _other(path, error, "read" if reading else "written") from error


def _known(path: Path, error: OSError, verb: str) -> TopgraftError | None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = "The disk is full" if error.errno == errno.ENOSPC else "The disk quota is used up"
        return RunningError(
            f"{what}: {path} could not be written, and nothing half-written was left."
            f"\nFree some space on the disk of {path.parent} and give the same command again."
        )
    if error.errno == errno.EFBIG:
        return RunningError(
            f"{path} could not be written: it is over the limit for the size of one file (see `ulimit -f`)."
            "\nNothing half-written was left."
        )
    if error.errno == errno.EROFS:
        return TopgraftError(
            f"{path} could not be written: its disk is read-only.\nGive a place that you may write to."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return TopgraftError(
            f"No permission to {verb} {path}.\nGive a place that you may {verb}, or mend its permissions."
        )
    return None


def _other(path: Path, error: OSError, done: str) -> TopgraftError:
    if error.errno == errno.ENOENT:
        missing = path if done == "read" else path.parent
        return TopgraftError(f"{missing} does not exist, so {path.name} could not be {done}.")
    if error.errno in _WRONG_PLACE:
        return TopgraftError(f"{path} could not be {done}: {error.strerror}.")
    return RunningError(f"{path} could not be {done}: {error.strerror or error}.")


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise TopgraftError(
            f"{path} exists already and was left alone.\nGive the name of a folder that does not exist yet."
        )


def _prefix(name: str) -> str:
    return f".topgraft-part-{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}-"


def _create_file(temporary: Path) -> int:
    return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)


def _create_folder(temporary: Path) -> int:
    temporary.mkdir()
    return os.open(temporary, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))


def _begin(path: Path, create: Any) -> tuple[Path, int]:
    """A new temporary name for ``path``, locked, and its descriptor."""
    while True:
        temporary = path.parent / (_prefix(path.name) + secrets.token_hex(8))
        descriptor: int = create(temporary)
        if sys.platform != "win32":
            with contextlib.suppress(OSError):  # no locks on this disk: then sweep gets none either
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), temporary.stat()):
                return temporary, descriptor
        os.close(descriptor)  # swept by another process between creation and lock


def _remove_abandoned(temporary: Path) -> bool:
    """Remove what a killed writer left; False when its writer lives or nothing can be known."""
    if sys.platform == "win32":
        return False
    try:
        descriptor = os.open(temporary, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _forget(temporary)  # under the lock, so that a writer that has just begun sees it gone
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return not os.path.lexists(temporary)


def _forget(temporary: Path) -> None:
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(os.lstat(temporary).st_mode):
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink()


def _sync_file(path: Path) -> None:
    if path.is_symlink() or not path.is_file():
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):  # disks that can't sync a folder
            raise
    finally:
        os.close(descriptor)
