"""In which order a training reads its examples: each once an epoch, or every class as often as the others."""

from __future__ import annotations

import torch
from torch import Tensor

from topgraft.ordered import ranks_of

SAMPLINGS = ("shuffled", "balanced")


def order_of(targets: Tensor, *, balanced: bool) -> list[int]:
    """Places of the examples of one epoch, drawn from PyTorch's global random state.

    Parameters
    ----------
    targets
        ``(n,)`` indices of classes, or ``(n, steps)`` of ordered ones, where ``balanced``; else only their
        number matters.
    balanced
        Whether ``n`` examples are drawn with replacement, each class being as likely as the others; else each
        comes once.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> rare = torch.tensor([0] * 900 + [1] * 100)
    >>> order = order_of(rare, balanced=True)
    >>> len(order), 450 < int(rare[order].sum()) < 550
    (1000, True)
    >>> sorted(order_of(rare, balanced=False)) == list(range(1000))
    True
    """
    if not balanced:
        shuffled: list[int] = torch.randperm(len(targets)).tolist()
        return shuffled
    own = targets if targets.dim() == 1 else ranks_of(targets)
    counts = torch.bincount(own).double()
    drawn: list[int] = torch.multinomial(1 / counts[own], len(targets), replacement=True).tolist()
    return drawn
