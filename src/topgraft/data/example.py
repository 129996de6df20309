"""The error of one example that can't be used, whatever it is."""

from __future__ import annotations

from topgraft.errors import TopgraftError


class ExampleError(TopgraftError):
    """An example that can't be used; ``reason`` says why in few words, without the name.

    Examples
    --------
    >>> error = ExampleError("a.wav", "an empty file (0 bytes)")
    >>> str(error), error.reason
    ('a.wav: an empty file (0 bytes)', 'an empty file (0 bytes)')
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}" if name else reason)
        self.reason = reason
