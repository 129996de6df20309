"""A shelf of this machine's store that is shared through an address: what lies there counts as stored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topgraft.features.remote import Remote
from topgraft.features.shelf import NotStored, Shelf, key_of
from topgraft.features.stored import FOLDER

if TYPE_CHECKING:
    from torch import Tensor


class SharedShelf(Shelf):
    """A shelf whose shards are sent to an address, and fetched from there where they are not here.

    Parameters
    ----------
    folder, description
        As for :class:`topgraft.features.shelf.Shelf`.
    remote
        The store at that address.
    """

    def __init__(self, folder: Path, description: Mapping[str, Any], remote: Remote) -> None:
        super().__init__(folder, description)
        self.remote = remote
        self._there = remote.shelf(self.key)

    def __reduce__(self) -> tuple[Any, ...]:
        return elsewhere, (self.description, self.remote)

    def known(self) -> frozenset[str]:
        """Digests of the examples that are stored here or there.

        Raises
        ------
        TopgraftError
            If one of the two may not be read.
        RunningError
            If the connection fails.
        """
        with self._lock, self._telling():
            return super().known() | self._there.known()

    def has_all_there(self, digests: Sequence[str]) -> bool:
        """Whether all of these examples are at the address, so that other machines find them.

        Raises
        ------
        TopgraftError, RunningError
            As :meth:`known`.
        """
        with self._lock, self._telling():
            return set(digests) <= self._there.known()

    def append(self, digests: Sequence[str], arrays: Mapping[str, Tensor | Sequence[Tensor]]) -> None:
        """As :meth:`Shelf.append`; then what is here and not there is sent.

        What can't be sent is told by a :class:`StoreWarning`, and nothing is lost: it is stored here.
        """
        with self._lock:
            super().append(digests, arrays)
            self._send()

    def read(
        self, digests: Sequence[str], names: Sequence[str] | None = None, *, mapped: bool = False
    ) -> dict[str, Tensor | list[Tensor]]:
        """As :meth:`Shelf.read`, after what is not here was fetched.

        Raises
        ------
        RunningError
            If the connection fails, or the disk here is full.
        """
        with self._lock:
            try:
                found = super().read(digests, names, mapped=mapped)
            except NotStored as lacking:
                if not self._fetch(lacking.digests):
                    raise
                return self.read(digests, names, mapped=mapped)
            self._send()
            return found

    def _fetch(self, digests: Sequence[str]) -> bool:
        """Bring the shards there that hold some of these examples; whether there are any."""
        with self._telling():
            shards = self._there.holding(digests)
            for name, size in shards.items():
                self._make_room(size)
                self._there.fetch(name, self.folder / name, self._write)
        self._look()
        self._tell_limit()
        return bool(shards)

    def _send(self) -> None:
        with self._telling():
            self._there.send(self.folder, self._shards)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        yield
        for note in self._there.taken_notes():
            self._say(note)


def elsewhere(description: Mapping[str, Any], remote: Remote) -> SharedShelf:
    """The same shelf in another process: in the store of its machine, which may be another one."""
    from topgraft.features.store import default_root

    return SharedShelf(default_root() / FOLDER / key_of(description), description, remote)
