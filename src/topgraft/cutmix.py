"""CutMix: training on pictures, or maps of activations, with a box of another one pasted in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from topgraft.backbones.types import Backbone
from topgraft.chain import Chain, State
from topgraft.choices import resolve_freeze, resolve_keep
from topgraft.errors import TopgraftError
from topgraft.history import Recipe
from topgraft.mixup import alpha_for, mixed
from topgraft.settings import Settings

ALIKE = 0.5
"""How often a step pastes where both kinds of mixtures are asked for; else it mixes as mixup does."""
_SIDES = {"map": (2, 3), "map_last": (1, 2)}


def alphas(settings: Settings, modality: str) -> tuple[float, float]:
    """``alpha`` of mixup and of CutMix; the mixup that pictures have by default gives way to CutMix.

    Examples
    --------
    >>> alphas(Settings(), "picture"), alphas(Settings(cutmix=1.0), "picture")
    ((1.0, 0.0), (0.0, 1.0))
    """
    if settings.cutmix and settings.mixup is None:
        return 0.0, settings.cutmix
    return alpha_for(settings.mixup, modality), settings.cutmix


def mixtures_in_words(mixup: float, cutmix: float) -> str:
    """What steps do with pairs of examples, as the end of a sentence.

    Examples
    --------
    >>> mixtures_in_words(0.0, 1.0), mixtures_in_words(0.0, 0.0)
    ('; steps paste a box of another one into each (--cutmix)', '')
    """
    mixes, pastes = "mix them in pairs (--mixup)", "paste a box of another one into each (--cutmix)"
    if mixup and cutmix:
        return f"; steps {mixes} or {pastes}, each as often"
    return f"; steps {mixes if mixup else pastes}" if mixup or cutmix else ""


def has_maps(chain: Chain, freeze: int) -> bool:
    """Whether a box can be pasted where training begins: in pictures, or in a state with a map."""
    return freeze == 0 or any(word in _SIDES for word in chain.blocks[freeze - 1].layout.split("+"))


def must_be_pasted(settings: Settings, backbone: Backbone) -> None:
    """Refuse CutMix where training begins at something without height and width, before anything is measured.

    Raises
    ------
    TopgraftError
        With the nearest cut that has a map.
    """
    if not settings.cutmix:
        return
    asked = f"--cutmix {settings.cutmix:g}"
    if backbone.modality != "picture":
        raise TopgraftError(
            f"{asked} pastes parts of pictures; the data are {backbone.modality}s. Leave it out."
        )
    chain, source = backbone.chain, backbone.source
    keep = resolve_keep(settings.keep, chain, source) or len(chain)
    freeze = resolve_freeze(settings.freeze, chain, source, keep)
    if freeze == keep or (freeze is None and (settings.hidden or settings.dropout)):
        raise TopgraftError(
            f"{asked} needs blocks that train: a head alone reads pooled numbers, into which nothing can be "
            f"pasted. Give --freeze 0 to {keep - 1}, or leave --cutmix out."
        )
    if freeze is not None and not has_maps(chain, freeze):
        nearest = max(cut for cut in range(freeze) if has_maps(chain, cut))
        raise TopgraftError(
            f"{asked} needs a map where training begins; after {chain.blocks[freeze - 1].name} (--freeze "
            f"{freeze}) the layout is {chain.blocks[freeze - 1].layout}. Nearest: --freeze {nearest}"
            f"{'' if nearest else ', where training begins at the pictures themselves'}."
        )


def mixture(batch: Any, recipe: Recipe, layout: str) -> tuple[Any, Tensor | None, float]:
    """A batch as a step trains on it: :func:`topgraft.mixup.mixed`, :func:`pasted`, or as it is.

    Where the recipe has both, one of them at random, as often as the other; see these for what is given back.
    """
    pastes = recipe.cutmix and (not recipe.mixup or float(torch.rand(())) < ALIKE)
    return pasted(batch, layout, recipe.cutmix) if pastes else mixed(batch, recipe.mixup)


def pasted(batch: Any, layout: str, alpha: float) -> tuple[Any, Tensor, float]:
    """A batch, each example with one box of another one of it in the same place.

    Drawn from PyTorch's global random state: a share from Beta(alpha, alpha) that the example keeps, a box of
    the rest of the area with the form of the picture, its middle anywhere, cut off at the edges (Yun et al.
    2019). Where several maps cross the cut, the box is drawn on the coarsest and is the same part of each. A
    vector beside maps is what was pooled over a whole map: it is mixed in the same share.

    Parameters
    ----------
    batch
        Pictures (a tensor, or a mapping with one) or a :class:`~topgraft.chain.State`.
    layout
        Of the state, see :class:`topgraft.chain.Block`; of pictures ``map``.
    alpha
        Above 0.

    Returns
    -------
    mixture
        Of the form, shapes and dtypes of ``batch``.
    partner
        ``(n,)`` int64: from which example of the batch each box is.
    share
        Of the example's own area, exactly; the box has the rest.

    Raises
    ------
    TopgraftError
        If there is no map, or the sizes of several are no multiples of the coarsest.

    Examples
    --------
    >>> _ = torch.manual_seed(1)
    >>> pictures = torch.arange(2.0)[:, None, None, None].expand(2, 1, 4, 4)
    >>> found, partner, share = pasted(pictures, "map", 1.0)
    >>> partner.tolist(), share, found.mean((1, 2, 3)).tolist()
    ([1, 0], 0.875, [0.125, 0.875])
    """
    tensors = _tensors(batch)
    words = (
        layout.split("+") if isinstance(batch, State) else ["map" if t.dim() == 4 else "" for t in tensors]
    )
    sizes = [_size(t, word) for t, word in zip(tensors, words, strict=True) if word in _SIDES]
    if not sizes:
        raise TopgraftError(f"CutMix needs a map (batch, channels, height, width); the layout is {layout}.")
    high, wide = min(sizes)
    if any(a % high or b % wide for a, b in sizes):
        raise TopgraftError(f"CutMix needs maps whose sizes are multiples of the smallest; got {sizes}.")
    partner = torch.randperm(len(tensors[0])).to(tensors[0].device)
    box = _box(high, wide, float(torch.distributions.Beta(alpha, alpha).sample()))
    share = 1 - (box[1] - box[0]) * (box[3] - box[2]) / (high * wide)

    def paste(tensor: Tensor, word: str) -> Tensor:
        if word not in _SIDES:
            return torch.lerp(tensor[partner], tensor, share) if tensor.is_floating_point() else tensor
        size, (rows, columns) = _size(tensor, word), _SIDES[word]
        down, across = size[0] // high, size[1] // wide
        made, place = tensor.clone(), [slice(None)] * tensor.dim()
        place[rows] = slice(box[0] * down, box[1] * down)
        place[columns] = slice(box[2] * across, box[3] * across)
        made[tuple(place)] = tensor[partner][tuple(place)]
        return made

    made = [paste(tensor, word) for tensor, word in zip(tensors, words, strict=True)]
    if isinstance(batch, State):
        return State(tuple(made), dict(batch.inputs)), partner, share
    if isinstance(batch, Mapping):
        return dict(zip(batch, made, strict=True)), partner, share
    return made[0], partner, share


def _box(high: int, wide: int, own: float) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of a box of the rest of the area, the ends excluded."""
    side = math.sqrt(1 - own)
    tall, broad = round(high * side), round(wide * side)
    row, column = int(torch.randint(high, ())), int(torch.randint(wide, ()))
    top, left = row - tall // 2, column - broad // 2
    return max(0, top), min(high, top + tall), max(0, left), min(wide, left + broad)


def _size(tensor: Tensor, word: str) -> tuple[int, int]:
    rows, columns = _SIDES[word]
    return tensor.shape[rows], tensor.shape[columns]


def _tensors(batch: Any) -> Sequence[Tensor]:
    if isinstance(batch, State):
        return batch.tensors
    return list(batch.values()) if isinstance(batch, Mapping) else [batch]
