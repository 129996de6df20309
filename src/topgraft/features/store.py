"""The store: arrays of examples on disk, found again by what made them.

A shelf holds the arrays that one description made (weights, cut, pooling, preprocessing, precision,
versions). Its folder is named after the description, and its shards after their content, so that
there is no index that could be wrong: processes that append at once write different files, and what
is stored is read from the shards' headers. Nothing is ever unpickled.

No number comes out of a shard whose bytes have not been compared with their checksums. Damage makes
examples count as not stored; it never changes a number.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from topgraft.errors import TopgraftError
from topgraft.features.shelf import DESCRIPTION, SHARD, NotStored, Shelf, StoreWarning, key_of
from topgraft.files import sweep, told

__all__ = ["NotStored", "Shelf", "Store", "StoreWarning", "default_root"]

_KEY = re.compile(r"[0-9a-f]{64}")


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


class Store:
    """Where arrays of examples are kept between commands.

    Parameters
    ----------
    root
        Its folder, made when something is first stored; :func:`default_root` when not given.

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

    def __init__(self, root: Path | None = None) -> None:
        self.root = default_root() if root is None else Path(root).expanduser().absolute()
        self._folder = self.root / "features-1"

    def shelf(self, description: Mapping[str, Any]) -> Shelf:
        """The shelf for arrays that ``description`` made; the same description finds it again.

        Parameters
        ----------
        description
            Everything that the arrays depend on but the example itself, as JSON: digest of the
            weights, cut, pooling, preprocessing, precision, engine, versions.
        """
        return Shelf(self._folder / key_of(description), description)

    def size(self) -> int:
        """Bytes that the store takes."""
        return sum(_size(path) for folder in self._shelves() for path in folder.iterdir())

    def clear(self) -> int:
        """Delete what is stored, but not what others are writing just now or what is not the store's.

        Returns
        -------
        int
            Bytes that became free.
        """
        before = self.size()
        for folder in self._shelves():
            with told(folder):
                for path in folder.iterdir():
                    if SHARD.fullmatch(path.name) or path.name == DESCRIPTION:
                        path.unlink(missing_ok=True)
                sweep(folder)
            with contextlib.suppress(OSError):  # not empty: something there is not ours
                folder.rmdir()
        return before - self.size()

    def _shelves(self) -> Iterator[Path]:
        with told(self._folder, reading=True):
            paths = sorted(self._folder.iterdir()) if self._folder.exists() else []
        for path in paths:
            if _KEY.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                yield path


def _size(path: Path) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0
