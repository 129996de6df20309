"""What a chain tells of its links, and of the cuts that do not hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """One link of a chain.

    Parameters
    ----------
    index
        1 is nearest the input; "keep N" keeps blocks 1 to N.
    name
        The name that it has in the original network.
    kind
        The class of its main module.
    shape
        Sizes of the state's main activation after it, without the batch; -1 where the inputs' length decides.
    layout
        ``map`` (batch, channels, height, width), ``map_last`` (channels last), ``tokens`` (batch, steps,
        channels) or ``vector`` (batch, channels). Where several activations cross the cut, one word each with
        ``+`` between them.
    parameters
        How many numbers in it can train.
    macs
        Multiply-adds for one example (of the example's length).
    verified
        Whether the rest of the network gives the network's own output from the state after this block.
    difference
        The largest difference found in doing so, relative to the output's scale.
    others
        Sizes of the state's further activations, where several cross.
    """

    index: int
    name: str
    kind: str
    shape: tuple[int, ...]
    layout: str
    parameters: int
    macs: int
    verified: bool
    difference: float
    others: tuple[tuple[int, ...], ...] = ()

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Sizes of every activation of the state, the main one first."""
        return (self.shape, *self.others)


@dataclass(frozen=True)
class Refused:
    """A cut that was tried and does not hold, with the reason."""

    block: str
    reason: str
