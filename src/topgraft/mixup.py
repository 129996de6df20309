"""Mixup: training on mixtures of two examples, of what stands at the cut where training begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from topgraft.chain import State
from topgraft.errors import TopgraftError
from topgraft.objective import mean_loss

PICTURES = 1.0
"""``alpha`` for pictures where none is given: any share is as likely as another."""


def alpha_for(asked: float | None, modality: str) -> float:
    """What a training uses: what was asked for; else mixtures for pictures, and none for the rest.

    Raises
    ------
    TopgraftError
        If mixtures are asked of examples that differ in length.

    Examples
    --------
    >>> alpha_for(None, "picture"), alpha_for(None, "text"), alpha_for(0.2, "array")
    (1.0, 0.0, 0.2)
    """
    if asked is None:
        return PICTURES if modality == "picture" else 0.0
    if asked and modality == "row":
        raise TopgraftError(
            f"--mixup {asked:g} is for pictures and arrays: categories of rows have no mixture. "
            "Leave it out, or give 0."
        )
    if asked and modality in ("text", "sound"):
        raise TopgraftError(
            f"--mixup {asked:g} is for pictures and arrays: {modality}s differ in length, so that two have "
            "no mixture. Leave it out, or give 0."
        )
    return asked


def mixed(batch: Any, alpha: float) -> tuple[Any, Tensor | None, float]:
    """A batch, each example mixed with another one of it, in one random share.

    Drawn from PyTorch's global random state. On inputs it is the method of Zhang et al. (2018), on
    activations that of Verma et al. (2019, manifold mixup); here the activations are those stored where the
    frozen part ends.

    Parameters
    ----------
    batch
        A tensor, a mapping or a :class:`~topgraft.chain.State`; every tensor of it has the examples first,
        all of one shape.
    alpha
        Of the beta distribution that the share is drawn from; 1 makes all shares as likely, small values make
        mixtures that are nearly one of the two, 0 leaves the batch as it is and draws nothing.

    Returns
    -------
    mixture
        Of the form, shapes and dtypes of ``batch``.
    partner
        ``(n,)`` int64: which example of the batch each was mixed with; ``None`` where nothing was mixed.
    share
        Of the example itself, 0 to 1; the partner has the rest.
    """
    if not alpha:
        return batch, None, 1.0
    first = _first(batch)
    partner = torch.randperm(len(first)).to(first.device)
    share = float(torch.distributions.Beta(alpha, alpha).sample())

    def mix(tensor: Tensor) -> Tensor:
        return torch.lerp(tensor[partner], tensor, share) if tensor.is_floating_point() else tensor

    if isinstance(batch, State):
        return batch.map(mix), partner, share
    if isinstance(batch, Mapping):
        return {name: mix(tensor) for name, tensor in batch.items()}, partner, share
    return mix(batch), partner, share


def mixed_loss(
    logits: Tensor,
    wanted: Tensor,
    partner: Tensor | None,
    share: float,
    weight: Tensor | None = None,
    *,
    smoothing: float = 0.0,
) -> Tensor:
    """Loss of mixtures: that of either target, by its share.

    Parameters
    ----------
    logits
        ``(n, outputs)`` float32.
    wanted
        Targets before mixing, see :mod:`topgraft.objective`.
    partner, share
        As :func:`mixed` gives them.
    weight
        ``(classes,)``, or ``None`` for 1.
    smoothing
        Of the labels, see :func:`topgraft.objective.mean_loss`.
    """
    own = mean_loss(logits, wanted, weight, smoothing=smoothing)
    if partner is None:
        return own
    other = mean_loss(logits, wanted[partner], weight, smoothing=smoothing)
    return share * own + (1 - share) * other


def _first(batch: Any) -> Tensor:
    if isinstance(batch, State):
        return batch.tensors[0]
    first: Tensor = next(iter(batch.values())) if isinstance(batch, Mapping) else batch
    return first
