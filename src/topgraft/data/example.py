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
        self.name = name
        self.reason = reason


class ChangedError(ExampleError):
    """An example that is not what it was when it was first read.

    Examples
    --------
    >>> print(ChangedError("a.png"))
    a.png: its file changed after it was read; let data be while a command runs, and give it again
    """

    exit_status = 1

    def __init__(self, name: str) -> None:
        said = "its file changed after it was read; let data be while a command runs, and give it again"
        super().__init__(name, said)

    def __reduce__(self) -> tuple[type[ChangedError], tuple[str]]:
        return type(self), (self.name,)
