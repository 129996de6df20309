"""The store: arrays of examples on disk, found again by what made them.

A shelf holds the arrays that one description made (weights, cut, pooling, preprocessing, precision,
versions). Its folder is named after the description, and its shards after their content, so that
there is no index that could be wrong: processes that append at once write different files, and what
is stored is read from the shards' headers. Nothing is ever unpickled.

No number comes out of a shard whose bytes have not been compared with their checksums. Damage makes
examples count as not stored; it never changes a number.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from topgraft.errors import TopgraftError, did_you_mean
from topgraft.features.limit import Limit, limit_of, limit_of_environment, make_room, write_limit
from topgraft.features.remote import Remote
from topgraft.features.shared import SharedShelf
from topgraft.features.shelf import NotStored, Shelf, StoreWarning, key_of
from topgraft.features.stored import FOLDER, Stored, remove, shelves_in

__all__ = ["NotStored", "Shelf", "Store", "StoreWarning", "default_root"]


def default_root() -> Path:
    """``$TOPGRAFT_CACHE``, else ``$XDG_CACHE_HOME/topgraft``, else ``~/.cache/topgraft``.

    Raises
    ------
    TopgraftError
        If none of them is known.
    """
    if own := os.environ.get("TOPGRAFT_CACHE"):
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if Path(shared).is_absolute():  # the XDG rules: a relative one does not count
        return Path(shared, "topgraft")
    try:
        return Path.home() / ".cache" / "topgraft"
    except RuntimeError as error:
        raise TopgraftError(
            "There is no home folder for the store. Set TOPGRAFT_CACHE to a folder."
        ) from error


RECENT = 4
"""Shelves that a store gave last and keeps in use, so that a run drops nothing that its repetition needs."""


class Store:
    """Where arrays of examples are kept between commands.

    Parameters
    ----------
    root
        Its folder, made when something is first stored; :func:`default_root` when not given.
    remote
        An address at which other machines find what is stored, such as ``s3://bucket/topgraft``.
        ``$TOPGRAFT_CACHE_REMOTE`` when neither it nor ``root`` is given.

    Raises
    ------
    TopgraftError
        If ``$TOPGRAFT_CACHE_LIMIT`` is no size, or ``remote`` no address that can be written to.

    Examples
    --------
    >>> import tempfile, torch
    >>> shelf = Store(Path(tempfile.mkdtemp())).shelf({"weights": "abc", "cut": 3})
    >>> shelf.append(["e1", "e2"], {"3": torch.tensor([[1.0, 2.0], [3.0, 4.0]])})
    >>> sorted(shelf.known())
    ['e1', 'e2']
    >>> shelf.read(["e2", "e1", "e2"])["3"].tolist()
    [[3.0, 4.0], [1.0, 2.0], [3.0, 4.0]]
    """

    def __init__(self, root: Path | None = None, *, remote: str | None = None) -> None:
        self.root = default_root() if root is None else Path(root).expanduser().absolute()
        if remote is None and root is None:
            self.remote = Remote.of_environment()
        else:
            self.remote = None if remote is None else Remote(remote)
        self._folder = self.root / FOLDER
        self._recent: list[Shelf] = []
        limit_of_environment()  # better refused now than when there is something to store

    def shelf(self, description: Mapping[str, Any], *, passing: bool = False) -> Shelf:
        """The shelf for arrays that ``description`` made; the same description finds it again.

        Parameters
        ----------
        description
            Everything that the arrays depend on but the example itself, as JSON: digest of the
            weights, cut, pooling, preprocessing, precision, engine, versions.
        passing
            Whether the run needs it only while the caller does: it is not among the last
            :data:`RECENT` that stay in use, nor shared through an address.
        """
        folder = self._folder / key_of(description)
        if passing:
            return Shelf(folder, description)
        shelf = SharedShelf(folder, description, self.remote) if self.remote else Shelf(folder, description)
        others = [recent for recent in self._recent if recent.key != shelf.key]
        self._recent = [*others[1 - RECENT :], shelf]
        return shelf

    def moved(self) -> list[str]:
        """What came from the store's address and went there since this was last asked, if anything."""
        return self.remote.told() if self.remote is not None else []

    def size(self) -> int:
        """Bytes that the store takes."""
        return sum(shelf.bytes for shelf in shelves_in(self._folder))

    def shelves(self, keys: Sequence[str] = ()) -> list[Stored]:
        """What is stored, last used first.

        Parameters
        ----------
        keys
            Only the shelves whose keys begin with one of these; all when there is none.

        Raises
        ------
        TopgraftError
            If one of ``keys`` begins no shelf's key, or the store may not be read.
        """
        found = sorted(shelves_in(self._folder), key=lambda shelf: (-shelf.used, shelf.key))
        for key in keys:
            if not key or not any(shelf.key.startswith(key) for shelf in found):
                heads = [shelf.key[: max(8, len(key))] for shelf in found]
                hint = did_you_mean(key, heads) or (f" There are: {', '.join(heads[:5])}." if heads else "")
                raise TopgraftError(
                    f"Nothing in {self.root} has a key that begins with {key!r}.{hint}"
                    + ("\n`topgraft cache` lists all keys." if heads else " Nothing is stored there.")
                )
        return [shelf for shelf in found if not keys or shelf.key.startswith(tuple(keys))]

    def clear(self, keys: Sequence[str] = ()) -> int:
        """Delete what is stored, but not what others are using just now or what is not the store's.

        Parameters
        ----------
        keys
            Only the shelves whose keys begin with one of these; all when there is none.

        Returns
        -------
        int
            Bytes that became free.

        Raises
        ------
        TopgraftError
            As :meth:`shelves`, or if something may not be deleted.
        """
        before = self.size()
        for shelf in self.shelves(keys):
            remove(shelf, but_here=True)
        return max(0, before - self.size())

    @property
    def limit(self) -> Limit:
        """How much it may take, and who says so."""
        return limit_of(self.root)

    def set_limit(self, limit: int | None) -> list[Stored]:
        """Have it take at most ``limit`` bytes from now on, and drop what is too much already.

        Parameters
        ----------
        limit
            ``None`` for no limit. ``$TOPGRAFT_CACHE_LIMIT`` comes before it.

        Returns
        -------
        list
            What was dropped.

        Raises
        ------
        TopgraftError
            If the store may not be written to.
        RunningError
            If the disk is full or fails.
        """
        write_limit(self.root, limit)
        return make_room(self._folder, self.limit.bytes)
