"""The one exception that a user can mend, and the nearest valid choice for its message."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable
from pathlib import Path


class TopgraftError(Exception):
    """Something that the user can mend: the message says what was given, what was expected and where.

    ``exit_status`` is what the command line ends with: 2 for input that was wrong from the start,
    1 for a failure while running (see :class:`RunningError`).
    """

    exit_status = 2


class RunningError(TopgraftError):
    """A failure while running, such as a full disk: nothing was wrong with the command itself."""

    exit_status = 1


class TopgraftWarning(UserWarning):
    """Something that was decided for the user or noticed on the way; the command line says it in a line."""


class DamageWarning(TopgraftWarning):
    """A file of an unfinished run was damaged, and what it held is made again."""


def warn_of_damage(path: Path, reason: str, instead: str) -> None:
    """Say that a file is damaged, why, and what is done instead."""
    warnings.warn(f"{path} is damaged ({reason}): {instead}.", DamageWarning, stacklevel=3)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a failure only says that there was not enough memory, of the host or of a device.

    Examples
    --------
    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."))
    True
    >>> is_out_of_memory(RuntimeError("shape '[2, 3]' is invalid for input of size 4"))
    False
    """
    said = str(error).casefold()
    told = ("not enough memory", "allocate memory", "out of memory")
    return isinstance(error, MemoryError) or any(words in said for words in told)


def nearest(word: str, choices: Iterable[str], *, limit: int = 3) -> list[str]:
    """Choices that look most like ``word``, best first.

    Parameters
    ----------
    word
        What the user gave.
    choices
        What would have been valid.
    limit
        At most so many.

    Examples
    --------
    >>> nearest("block.5.0", ["conv_stem", "blocks.5.0", "blocks.5.1"], limit=1)
    ['blocks.5.0']
    """
    by_fold = {choice.casefold(): choice for choice in choices}
    close = difflib.get_close_matches(word.casefold(), by_fold, n=limit, cutoff=0.4)
    return [by_fold[c] for c in close]


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """A sentence with the nearest choices, or nothing where none is near.

    Examples
    --------
    >>> did_you_mean("resnet81", ["resnet18", "vit_tiny"])
    ' Nearest: resnet18.'
    >>> did_you_mean("zzz", ["resnet18"])
    ''
    """
    close = nearest(word, choices)
    return f" Nearest: {', '.join(close)}." if close else ""
