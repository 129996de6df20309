"""Decoded pictures and sounds kept in memory, for several networks that read the same examples."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

LIMIT = 512 * 2**20
"""Bytes that are kept by default."""


class Decoded:
    """What was decoded, until a limit is reached; what comes then is decoded each time it is asked for.

    The first are kept and not the latest: examples are read from first to last again and again, and what
    was used for longest would always be what is asked for next.

    Parameters
    ----------
    limit
        Bytes.

    Examples
    --------
    >>> import numpy as np
    >>> kept = Decoded(limit=1000)
    >>> one = kept.get("a", lambda: np.zeros(100))
    >>> kept.get("a", lambda: np.ones(100)) is one, kept.bytes
    (True, 800)
    >>> len(kept.get("b", lambda: np.zeros(100))), len(kept)
    (100, 1)
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.bytes = 0
        self.is_full = False
        self._known: dict[Any, Any] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of examples that are kept."""
        return len(self._known)

    def get(self, key: Any, decode: Callable[[], Any]) -> Any:
        """What was decoded under this key, or what ``decode`` gives now; nobody may change it."""
        if key in self._known:
            return self._known[key]
        value = decode()
        size = _bytes_of(value)
        with self._lock:
            if key not in self._known:
                self.is_full |= self.bytes + size > self.limit
                if not self.is_full:
                    self._known[key] = value
                    self.bytes += size
        return value


def _bytes_of(value: Any) -> int:
    """Of an array, of a sound's samples, or of an RGB picture's pixels (Pillow takes four bytes for each)."""
    array = getattr(value, "samples", value)
    found: int | None = getattr(array, "nbytes", None)
    return 4 * value.size[0] * value.size[1] if found is None else found
