"""LoRA in the kept blocks that are not frozen, by peft: a third choice beside freezing and tuning."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from topgraft.errors import TopgraftError, did_you_mean
from topgraft.graft import Graft, named_tensors

_BASE = ".base_layer."
_ADDED = ".lora_"


def add_lora(
    graft: Graft, *, rank: int = 8, alpha: int | None = None, targets: str | Sequence[str] | None = None
) -> None:
    """Train small matrices beside the layers of the blocks that are not frozen, in place of these layers.

    Of the blocks nothing changes from then on but what is added, neither weights nor biases, norms nor
    buffers. It starts at zero: the graft gives what it gave before. Make the optimizer after this.

    Parameters
    ----------
    graft
        Changed in place.
    rank
        Of the matrices that are added: a layer of ``a`` inputs and ``b`` outputs gets ``rank * (a + b)``
        parameters.
    alpha
        What is added counts ``alpha / rank`` times; ``2 * rank`` by default.
    targets
        Names or patterns (``"*.query"``) of linear layers and convolutions. By default every linear layer of
        these blocks; where there is none, every convolution that has no groups.

    Raises
    ------
    TopgraftError
        If all blocks are frozen, the graft has LoRA already, a target matches nothing (with the nearest
        names), or peft is not installed.

    References
    ----------
    Hu et al. (2022), LoRA; on every linear layer: Dettmers et al. (2023), QLoRA.

    Examples
    --------
    >>> import torch, topgraft as tg
    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> graft = tg.graft(network, freeze=1, head=3, example=torch.randn(2, 4))
    >>> add_lora(graft, rank=2)
    >>> [name for name, _, _ in graft.trainable()][:2]
    ['2.lora_A.default.weight', '2.lora_B.default.weight']
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise TopgraftError("LoRA needs peft, an optional extra: pip install 'topgraft[peft]'.") from error
    if graft.body is None:
        raise TopgraftError(
            f"All {graft.keep} kept blocks are frozen, and LoRA is for those that are not: freeze fewer."
        )
    if has_lora(graft):
        raise TopgraftError("The graft has LoRA already; merge it first: tg.merge_lora.")
    if rank < 1 or (alpha is not None and alpha < 1):
        raise TopgraftError(f"rank={rank}, alpha={alpha}: expected whole numbers of 1 or more.")
    names = _targets(graft, targets)
    chain = graft.bare.holding(graft.kept_tensors())
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        target_modules="|".join(re.escape(name) for name in names),
        bias="none",
    )
    inject_adapter_in_model(config, chain.network)
    blocks = graft.bare.owner_of()
    owner = {name: block for name, block in blocks.items() if block <= graft.freeze}
    for name, _ in named_tensors(chain[graft.freeze : graft.keep].network):
        layer, added, _ = name.partition(_ADDED)
        if added:
            owner[name] = blocks[f"{layer}.weight"]
        elif graft.freeze < blocks.get(name.replace(_BASE, "."), 0) <= graft.keep:
            owner[name] = 0
    graft.take(chain, graft.freeze, owner)


def merge_lora(graft: Graft) -> None:
    """Add what LoRA has learnt to the layers' own weights; the graft then gives the same, but for rounding.

    It is then an ordinary graft: ``kept_weights`` has the original names, and its blocks train again.

    Raises
    ------
    TopgraftError
        If there is no LoRA in it.

    Examples
    --------
    >>> import torch, topgraft as tg
    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> graft = tg.graft(network, freeze=1, head=3, lora=2, example=torch.randn(2, 4))
    >>> merge_lora(graft)
    >>> sorted(graft.kept_weights())
    ['0.bias', '0.weight', '2.bias', '2.weight']
    """
    if graft.body is None or not has_lora(graft):
        raise TopgraftError("There is no LoRA in this graft to be merged.")
    from peft.tuners.lora import LoraLayer

    layers: list[Any] = [module for module in graft.body.network.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer.merge(safe_merge=True)
    tensors = {
        name.replace(_BASE, "."): tensor
        for name, tensor in graft.kept_tensors().items()
        if _ADDED not in name
    }
    graft.take(graft.bare.holding(tensors), graft.freeze, graft.bare.owner_of())


def has_lora(graft: Graft) -> bool:
    """Whether there is LoRA in the blocks of a graft."""
    return graft.body is not None and any(_ADDED in name for name, _ in graft.body.network.named_parameters())


def _targets(graft: Graft, wanted: str | Sequence[str] | None) -> list[str]:
    """Names of the layers that are adapted: of blocks that train, with weights of their own."""
    assert graft.body is not None
    blocks = graft.bare.owner_of()
    layers = {
        name: module
        for name, module in graft.body.network.named_modules()
        if _can_be_adapted(module) and graft.freeze < blocks.get(f"{name}.weight", 0) <= graft.keep
    }
    if wanted is None:
        linear = [name for name, module in layers.items() if isinstance(module, nn.Linear)]
        if not layers:
            raise TopgraftError("There is no linear layer and no convolution in the blocks that train.")
        return linear or list(layers)
    names: list[str] = []
    for one in [wanted] if isinstance(wanted, str) else wanted:
        found = [name for name in layers if fnmatchcase(name, one)]
        if not found:
            raise TopgraftError(
                f"{one} matches no layer that LoRA can be added to in blocks {graft.freeze + 1} to "
                f"{graft.keep}.{did_you_mean(one, layers)}"
            )
        names += found
    return list(dict.fromkeys(names))


def _can_be_adapted(module: nn.Module) -> bool:
    """Whether a layer can be wrapped; attention of torch reads its layer's weights without calling it."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return type(module) in kinds and bool(getattr(module, "groups", 1) == 1)
