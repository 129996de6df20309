"""One shelf of the store: the arrays that one description made, in shards."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topgraft.errors import TopgraftError, TopgraftWarning, did_you_mean
from topgraft.features.holds import Hold
from topgraft.features.limit import limit_of, make_room, told_dropped, told_over
from topgraft.features.shards import SUFFIX, Form, Shard, pack_shard
from topgraft.features.stored import DESCRIPTION, SHARD, shelves_in
from topgraft.files import canonical_json, read_json, sweep, told, write_json, write_whole
from topgraft.tensorfile import DamagedFile, dtype_name, dtype_of

if TYPE_CHECKING:
    from torch import Tensor


class StoreWarning(TopgraftWarning):
    """Something in the store was damaged, deleted or dropped for its limit, or the limit can't be kept."""


class NotStored(TopgraftError):
    """Examples that were asked for are not stored (any more); ``digests`` says which, each once."""

    exit_status = 1

    def __init__(self, digests: Sequence[str]) -> None:
        self.digests = tuple(dict.fromkeys(digests))
        count = len(self.digests)
        example = f" (the first is {self.digests[0]!r})" if count else ""
        super().__init__(
            f"{count:,} of the examples asked for are not stored{example}; they must be made again."
        )

    def __reduce__(self) -> tuple[type[NotStored], tuple[tuple[str, ...]]]:
        return type(self), (self.digests,)


def key_of(description: Mapping[str, Any]) -> str:
    """The sha256 of the canonical JSON of what made a shelf's arrays, in hex."""
    return hashlib.sha256(canonical_json(description)).hexdigest()


class Shelf:
    """The stored arrays of one description; made by :meth:`topgraft.features.store.Store.shelf`.

    Parameters
    ----------
    folder
        Where its shards lie; need not exist.
    description
        What made the arrays.
    """

    def __init__(self, folder: Path, description: Mapping[str, Any]) -> None:
        self.folder = folder
        self.description = dict(description)
        self.key = key_of(description)
        self.notes: list[str] = []
        """What was found damaged or missing, and what became of the store's limit, in plain sentences."""
        self._shards: dict[str, Shard] = {}
        self._where: dict[str, tuple[str, int]] = {}
        self._refused: dict[str, tuple[int, ...]] = {}
        self._lock = threading.RLock()
        self._hold = Hold(folder)
        self._is_over_told = False
        self._described = self._compare_description()

    def __reduce__(self) -> tuple[type[Shelf], tuple[Path, dict[str, Any]]]:
        return type(self), (self.folder, self.description)

    def known(self) -> frozenset[str]:
        """Digests of the examples that are stored, as far as the headers of the shards tell.

        Raises
        ------
        TopgraftError
            If the store may not be read.
        """
        with self._lock:
            self._look()
            return frozenset(self._where)

    def size(self) -> int:
        """Bytes that it takes on disk."""
        with contextlib.suppress(FileNotFoundError):
            return sum(entry.stat().st_size for entry in os.scandir(self.folder))
        return 0

    def append(self, digests: Sequence[str], arrays: Mapping[str, Tensor | Sequence[Tensor]]) -> None:
        """Store the arrays of some examples as one shard; examples that are stored already are left out.

        Where the store would take more than its limit, shelves that nobody uses are dropped first, those
        before others that were not used for longest. Where that is not enough it is stored all the same.
        Either is told by a :class:`StoreWarning`.

        Parameters
        ----------
        digests
            One text an example, different for different content.
        arrays
            By name, a tensor ``(n, ...)`` with a row an example, or ``n`` tensors whose first
            dimension differs (ragged). Kept bit for bit. All shards of a shelf have the same names,
            types and shapes.

        Raises
        ------
        RunningError
            If the disk is full or fails; nothing half-written is left.
        TopgraftError
            If the store may not be written to.
        ValueError
            If the arrays don't fit the digests or what the shelf holds.
        """
        for name, array in arrays.items():
            if len(array) != len(digests):
                raise ValueError(f"array {name!r} has {len(array)} rows for {len(digests)} examples")
        if len(set(digests)) != len(digests):
            raise ValueError("an example is given twice")
        with self._lock:
            self._look()
            fresh = [row for row, digest in enumerate(digests) if digest not in self._where]
            if not fresh:
                self._touch()
                return
            if not arrays:
                raise ValueError("there are no arrays to store")
            forms = {name: _form(name, array) for name, array in sorted(arrays.items())}
            for shard in self._shards.values():
                if shard.forms != forms:
                    raise ValueError(
                        f"the shelf holds {_told_forms(shard.forms)}, and was given {_told_forms(forms)}"
                    )
            chosen = {name: _rows(array, fresh, len(digests)) for name, array in arrays.items()}
            parts = pack_shard(self.key, [digests[row] for row in fresh], chosen)
            name = hashlib.sha256(parts[0]).hexdigest() + SUFFIX
            self._make_room(sum(memoryview(part).nbytes for part in parts))
            self._write(name, parts)
            self._refused.pop(name, None)
            self._touch()
            self._look()
            self._tell_limit()

    def read(
        self, digests: Sequence[str], names: Sequence[str] | None = None, *, mapped: bool = False
    ) -> dict[str, Tensor | list[Tensor]]:
        """The arrays of some examples, in the order asked for.

        Parameters
        ----------
        digests
            Examples, repeats allowed.
        names
            Only these arrays; all when not given.
        mapped
            Large ones lie in files without a name beside the store, see :func:`topgraft.mapped.room`.

        Returns
        -------
        dict
            By name, a new tensor ``(n, ...)`` on the CPU, or a list of ``n`` tensors for a ragged array.

        Raises
        ------
        NotStored
            If examples are not stored, or were found damaged just now: they must be made again.
        TopgraftError
            If there is no array of such a name, or the store may not be read.
        """
        with self._lock:
            while True:
                if any(digest not in self._where for digest in digests):
                    self._look()
                missing = [digest for digest in digests if digest not in self._where]
                if missing:
                    raise NotStored(missing)
                try:
                    found = self._gather(digests, names, mapped=mapped)
                except _Dropped:
                    continue
                self._touch()
                return found

    def _gather(
        self, digests: Sequence[str], names: Sequence[str] | None, *, mapped: bool
    ) -> dict[str, Tensor | list[Tensor]]:
        import torch

        from topgraft.mapped import room

        forms = next(iter(self._shards.values())).forms if self._shards else {}
        for name in names or ():
            if name not in forms:
                held = ", ".join(forms) or "none"
                raise TopgraftError(
                    f"No array {name!r} is stored; there are: {held}.{did_you_mean(name, forms)}"
                )
        by_shard: dict[str, tuple[list[int], list[int]]] = {}
        for place, digest in enumerate(digests):
            shard_name, row = self._where[digest]
            rows, places = by_shard.setdefault(shard_name, ([], []))
            rows.append(row)
            places.append(place)
        found: dict[str, Tensor | list[Tensor]] = {}
        for name in forms if names is None else names:
            form = forms[name]
            out: Tensor | list[Tensor]
            if form.ragged:
                out = [torch.empty(0)] * len(digests)
            elif mapped and form.dtype == "F32":
                out = torch.from_numpy(room((len(digests), *form.shape), "f4", self.folder))
            else:
                out = torch.empty((len(digests), *form.shape), dtype=dtype_of(form.dtype))
            for shard_name, (rows, places) in by_shard.items():
                self._read_shard(shard_name, name, rows, places, out)
            found[name] = out
        return found

    def _read_shard(
        self, shard: str, name: str, rows: list[int], places: list[int], out: Tensor | list[Tensor]
    ) -> None:
        try:
            self._shards[shard].read(name, rows, places, out)
        except (DamagedFile, OSError) as error:
            self._drop(shard, error)
            raise _Dropped from error

    def _look(self) -> None:
        """Bring what is known in line with what lies in the folder, which is in use from now on."""
        self._hold.take()
        with told(self.folder, reading=True):
            try:
                present = {entry.name for entry in os.scandir(self.folder) if SHARD.fullmatch(entry.name)}
            except FileNotFoundError:
                present = set()
        gone = sorted(self._shards.keys() - present)
        for name in gone:
            del self._shards[name]
        if gone:
            self._find_again()
            for name in gone:
                self._say(f"{self.folder / name} was deleted; its examples will be made again.")
        for name in sorted(present - self._shards.keys()):
            try:
                if name in self._refused and _identity(self.folder / name) == self._refused[name]:
                    continue
                shard = Shard(self.folder / name, self.key)
            except FileNotFoundError:
                continue
            except (DamagedFile, OSError) as error:
                self._drop(name, error)
                continue
            first = next(iter(self._shards.values()), shard)
            if shard.forms != first.forms:
                with contextlib.suppress(FileNotFoundError):
                    self._refused[name] = _identity(shard.path)
                self._say(f"{shard.path} holds other arrays than the rest of its shelf; it was left out.")
                continue
            self._shards[name] = shard
            for row, digest in enumerate(shard.digests):
                self._where.setdefault(digest, (name, row))

    def _find_again(self) -> None:
        self._where.clear()
        for name, shard in self._shards.items():
            for row, digest in enumerate(shard.digests):
                self._where.setdefault(digest, (name, row))

    def _drop(self, name: str, error: DamagedFile | OSError) -> None:
        """Forget a shard that can't be read, delete it where that is possible, and say so."""
        path = self.folder / name
        if isinstance(error, PermissionError):
            with told(path, reading=True):
                raise error
        with contextlib.suppress(OSError):
            self._refused[name] = _identity(path)
            path.unlink()
        if self._shards.pop(name, None):
            self._find_again()
        if isinstance(error, FileNotFoundError):
            self._say(f"{path} was deleted; its examples will be made again.")
        else:
            reason = error.reason if isinstance(error, DamagedFile) else error.strerror or str(error)
            done = "could not be deleted and is left out" if os.path.lexists(path) else "was deleted"
            self._say(f"{path} is damaged ({reason}); it {done}, and its examples will be made again.")

    def _write(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        try:
            for last in (False, False, True):
                with told(self.folder):
                    self.folder.mkdir(parents=True, exist_ok=True)
                self._hold.take()
                try:
                    sweep(self.folder)
                    if not self._described or not (self.folder / DESCRIPTION).exists():
                        write_json(self.folder / DESCRIPTION, self.description)
                        self._described = True
                    write_whole(self.folder / name, parts)
                    return
                except TopgraftError:
                    if last or self.folder.exists():  # else another process cleared the store: once more
                        raise
        except TopgraftError as error:
            raise type(error)(
                f"{error}\nThe store lies in {self.folder.parent.parent}; TOPGRAFT_CACHE names another place."
            ) from error

    def _make_room(self, more: int) -> None:
        """Drop what is not in use until ``more`` bytes fit below the store's limit, and say so."""
        root = self.folder.parent.parent
        limit = limit_of(root)
        dropped = make_room(self.folder.parent, limit.bytes, more, keep=self.folder)
        if limit.note and limit.note not in self.notes:
            self._say(limit.note)
        if dropped:
            self._say(told_dropped(dropped, limit, root))

    def _tell_limit(self) -> None:
        """Say, once, that the store takes more than its limit."""
        root = self.folder.parent.parent
        limit = limit_of(root)
        if limit.bytes is None or self._is_over_told:
            return
        taken = sum(shelf.bytes for shelf in shelves_in(self.folder.parent))
        if taken > limit.bytes:
            self._is_over_told = True
            self._say(told_over(taken, limit, root))

    def _touch(self) -> None:
        """Note that the shelf was used just now, where its folder may be written in."""
        with contextlib.suppress(OSError):
            os.utime(self.folder / DESCRIPTION)

    def _compare_description(self) -> bool:
        path = self.folder / DESCRIPTION
        try:
            if canonical_json(read_json(path)) == canonical_json(self.description):
                return True
            reason = "it describes other arrays"
        except DamagedFile as error:
            reason = error.reason
        except TopgraftError as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                return False  # never written, or dropped by another process just now
            raise
        self._say(f"{path} is damaged ({reason}); it will be written again.")
        return False

    def _say(self, text: str) -> None:
        self.notes.append(text)
        warnings.warn(text, StoreWarning, stacklevel=2)


class _Dropped(Exception):
    """A shard was dropped while it was read: look again."""


def _form(name: str, array: Tensor | Sequence[Tensor]) -> Form:
    import torch

    parts = [array] if isinstance(array, torch.Tensor) else list(array)
    forms = {(dtype_name(part.dtype), tuple(part.shape[1:])) for part in parts if part.dim()}
    if len(forms) != 1 or not all(part.dim() for part in parts):
        raise ValueError(f"array {name!r} differs from example to example in more than its first dimension")
    ((dtype, shape),) = forms
    return Form(dtype, shape, ragged=not isinstance(array, torch.Tensor))


def _rows(array: Tensor | Sequence[Tensor], rows: list[int], count: int) -> Tensor | Sequence[Tensor]:
    import torch

    if len(rows) == count:
        return array
    return array[rows] if isinstance(array, torch.Tensor) else [array[row] for row in rows]


def _told_forms(forms: Mapping[str, Form]) -> str:
    return ", ".join(f"{name}: {form}" for name, form in forms.items())


def _identity(path: Path) -> tuple[int, ...]:
    seen = os.lstat(path)
    return (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
