"""In which order a training reads its examples: each once an epoch, or every class as often as the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from topgraft.errors import TopgraftError
from topgraft.ordered import ranks_of

if TYPE_CHECKING:
    from topgraft.data.types import Data
    from topgraft.settings import Settings

SAMPLINGS = ("shuffled", "balanced")


def must_suit(settings: Settings, data: Data) -> None:
    """Refuse what is for classes, or for one class an example, where the targets are something else.

    Raises
    ------
    TopgraftError
        With the option.
    """
    if data.separator and settings.sampling != "shuffled":
        raise TopgraftError(
            "--sampling balanced is for one class an example, since one of several labels belongs to several "
            "classes. For several labels: --class-weights balanced."
        )
    usual = {"class_weights": "none", "sampling": "shuffled", "label_smoothing": 0.0}
    for option, value in usual.items():
        told = getattr(settings, option)
        if data.outputs and told != value:
            raise TopgraftError(f"--{option.replace('_', '-')} {told} is for classes, not for numbers.")


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
