"""How much the service takes in, and for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass

from topgraft.errors import TopgraftError

MEGABYTE = 1_000_000
BODIES = 32
"""So many of the largest bodies are held at the same time."""


@dataclass(frozen=True)
class Limits:
    """What is refused, and how batches are made up.

    Parameters
    ----------
    body
        Bytes of the largest body of a request.
    inputs
        Texts, pictures, sounds, arrays or rows of one request.
    waiting
        Inputs of all requests that may wait for their turn.
    seconds
        For reading a request, and again for answering it.
    batch
        Inputs that are run at the same time by one worker.
    pixels
        Of all pictures that one worker decodes at the same time; a larger picture is run alone.
    sound
        Seconds of all sounds that one worker runs at the same time, each filled up to the longest of them.

    Raises
    ------
    TopgraftError
        If a number is out of range.

    Examples
    --------
    >>> Limits(batch=0)
    Traceback (most recent call last):
        ...
    topgraft.errors.TopgraftError: batch 0 is out of range: give 1 or more.
    """

    body: int = 16 * MEGABYTE
    inputs: int = 256
    waiting: int = 1024
    seconds: float = 30.0
    batch: int = 32
    pixels: int = 100_000_000
    sound: int = 600

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        for name in ("body", "inputs", "waiting", "batch", "pixels", "sound"):
            if getattr(self, name) < 1:
                raise TopgraftError(f"{name} {getattr(self, name)} is out of range: give 1 or more.")
        if self.waiting < self.inputs:
            raise TopgraftError(
                f"waiting {self.waiting} is less than inputs {self.inputs}: the largest request would never "
                "find room."
            )
        if not 0 < self.seconds < math.inf:
            raise TopgraftError(f"seconds {self.seconds:g} is out of range: give more than 0.")

    @property
    def held(self) -> int:
        """Bytes of all bodies that are held at the same time."""
        return BODIES * self.body


def in_bytes(megabytes: float) -> int:
    """A size that was given in MB.

    Raises
    ------
    TopgraftError
        If it is no size.

    Examples
    --------
    >>> in_bytes(0.5)
    500000
    """
    if not 0 < megabytes < math.inf:
        raise TopgraftError(f"--max-body {megabytes:g} is out of range: give MB, more than 0.")
    return max(1, round(megabytes * MEGABYTE))
