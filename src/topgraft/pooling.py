"""From an activation of any form to one row of numbers an example."""

from __future__ import annotations

import torch
from torch import Tensor

from topgraft.chain import Block, State

POOLING = 1
"""Version of the pooling; stored features are used only if it is the same."""


def pool(state: State, layout: str) -> Tensor:
    """Pool a state to features, each place or step counting once.

    Parameters
    ----------
    state
        At a cut; its first activation is pooled, in its own precision.
    layout
        Of the activation, see :class:`topgraft.chain.Block`.

    Returns
    -------
    Tensor
        ``(batch, width)`` float32: maps give average and maximum over their places, one after the other
        (once where there is one place); token sequences give mean, maximum and first step, padding on
        either side left out (the state's ``attention_mask``); vectors stay.

    Examples
    --------
    >>> pool(State((torch.tensor([[[[1.0, 3.0]]]]),)), "map")
    tensor([[2., 3.]])
    """
    x = state.tensors[0].float()
    if layout == "vector":
        return x
    if layout == "tokens":
        mask = state.inputs.get("attention_mask")
        if mask is None or mask.shape[1] != x.shape[1]:
            return torch.cat([x.mean(1), x.amax(1), x[:, 0]], 1)
        real = mask.bool().unsqueeze(-1)
        mean = x.masked_fill(~real, 0).sum(1) / real.sum(1).clamp(min=1)
        first = x[torch.arange(len(x), device=x.device), mask.bool().long().argmax(1)]
        largest = x.masked_fill(~real, float("-inf")).amax(1).masked_fill(~real.any(1), 0)
        return torch.cat([mean, largest, first], 1)
    places = x.flatten(1, -2) if layout == "map_last" else x.flatten(2).transpose(1, 2)
    if places.shape[1] == 1:
        return places[:, 0]
    return torch.cat([places.mean(1), places.amax(1)], 1)


def width(block: Block) -> int:
    """Number of features that :func:`pool` gives after a block."""
    if block.layout == "vector":
        return block.shape[0]
    if block.layout == "tokens":
        return 3 * block.shape[-1]
    channels, places = (
        (block.shape[-1], block.shape[:-1])
        if block.layout == "map_last"
        else (block.shape[0], block.shape[1:])
    )
    return channels if all(p == 1 for p in places) else 2 * channels
