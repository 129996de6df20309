"""A graft by itself: for one's own training loop, without the rest of the tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from topgraft.backbones import Backbone, load
from topgraft.chain import Block, Chain
from topgraft.chain.proof import GRADIENTS
from topgraft.choices import refuse_auto, resolve_freeze, resolve_keep
from topgraft.errors import RunningError, TopgraftError
from topgraft.graft import Graft
from topgraft.head import Head, OwnHead
from topgraft.history import Recipe
from topgraft.lora import add_lora
from topgraft.optimising import parameter_groups as groups_of
from topgraft.pooling import width
from topgraft.taps import resolve_taps, tapped

AnyHead = int | nn.Module | Callable[[int], nn.Module]


def graft(
    model: str | nn.Module | Backbone | Chain,
    *,
    freeze: str | int,
    head: AnyHead,
    keep: str | int = "all",
    taps: str | Sequence[int] = "none",
    hidden: Sequence[int] = (),
    dropout: float = 0.0,
    pooled: bool = True,
    tune_norms: bool = False,
    drop: bool = False,
    lora: int = 0,
    weights: str | Path | None = "auto",
    example: Tensor | Mapping[str, Tensor] | None = None,
) -> Graft:
    """Keep the first blocks of a pretrained network, freeze the first of those, and put a new head on top.

    The graft is an ordinary module: give it the network's inputs (a batch, or a dictionary by the names of
    the network's own ``forward``) and it gives logits. It owns copies; ``model`` is left as it was. It
    comes in training mode, in which the frozen part stays in eval mode, whatever is called.

    Parameters
    ----------
    model
        A name or a module, as for :func:`topgraft.load`, a backbone that it gave, or a chain.
    freeze
        How many of the kept blocks never change: a number, a share of them such as ``50%``, a block's name
        (up to and with it; the name of a stage means its last block), ``all``, or 0.
    head
        The number of logits, drawn at random from torch's generator; or a module of your own; or a function
        that makes one, given the number of pooled features.
    keep
        How many blocks are kept, said as ``freeze`` is.
    taps
        Earlier cuts whose pooled activations the head reads beside those of the last kept block: counts or
        names of blocks (``"4,9"`` or ``[4, 9]``), see :func:`topgraft.taps.tapped`.
    hidden, dropout
        Widths of hidden layers, and the share of pooled features set to zero in training, of the head that is
        made here; see :class:`topgraft.head.Head`.
    pooled
        Whether a head of your own reads pooled rows, ``(batch, features)`` float32, or the
        :class:`topgraft.State` after the last kept block: its ``tensors``, and the ``inputs`` that later
        blocks would read, such as an attention mask. To a function of your own the number given is then
        that of the first tensor's channels.
    tune_norms, drop
        Whether batch norms of trainable blocks renew their statistics, and whether dropout in them is on; see
        :class:`topgraft.Graft`.
    lora
        Of LoRA in the blocks that are not frozen, the rank, see :func:`topgraft.add_lora`; 0 for none.
    weights, example
        As for :func:`topgraft.load`, where ``model`` is a name or a module.

    Raises
    ------
    TopgraftError
        If keep, freeze or the head can't be meant (with the nearest names), or as :func:`topgraft.load` does.
    RunningError
        If the gradients of what trains are not those of the whole network with the same blocks frozen.

    Examples
    --------
    >>> import topgraft as tg
    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> graft = tg.graft(network, freeze=1, head=3, example=torch.randn(2, 4))
    >>> graft(torch.randn(5, 4)).shape
    torch.Size([5, 3])
    >>> [name for name, _, _ in graft.trainable()]
    ['2.weight', '2.bias', 'head.linear.weight', 'head.linear.bias']
    """
    chain, source = _chain_of(model, weights, example)
    refuse_auto("keep", keep, chain, least=1, most=len(chain))
    kept = resolve_keep(keep, chain, source)
    assert kept is not None
    refuse_auto("freeze", freeze, chain, least=0, most=kept)
    frozen = resolve_freeze(freeze, chain, source, kept)
    assert frozen is not None
    refuse_auto("taps", _said(taps), chain, least=1, most=kept)
    cuts = resolve_taps(_said(taps), chain, source, kept)
    assert cuts is not None
    chain = tapped(chain, cuts)
    if 0 < frozen < kept:
        _must_train_alike(chain, frozen)
    made = _head(chain, kept, head, hidden=hidden, dropout=dropout, pooled=pooled)
    grafted = Graft(chain, kept, frozen, made, tune_norms=tune_norms, drop=drop).train()
    if lora:
        add_lora(grafted, rank=lora)
    return grafted


def parameter_groups(
    graft: Graft,
    *,
    rate: float,
    decay: float = Recipe.decay,
    weight_decay: float = Recipe.weight_decay,
    beside: torch.optim.Optimizer | None = None,
) -> list[dict[str, Any]]:
    """Parameter groups with a rate a block, for an optimizer of your own; only what trains is in them.

    Parameters
    ----------
    graft
        Whose blocks and head train.
    rate
        Of the head and the last kept block.
    decay
        Each block further from the head learns at ``decay`` times the rate of the one after it; 1 for the
        same rate everywhere.
    weight_decay
        Of matrices and kernels; biases and norms have none.
    beside
        An optimizer: what it has already is left out, so that the groups can be added to it after
        :meth:`topgraft.Graft.freeze_to` (``optimizer.add_param_group``).

    Returns
    -------
    list of dict
        With ``params``, ``lr``, ``weight_decay``, and ``names``, those of the parameters in the network.

    References
    ----------
    Layer-wise rates: Howard & Ruder (2018), discriminative fine-tuning.

    Examples
    --------
    >>> import topgraft as tg
    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> graft = tg.graft(network, freeze=0, head=3, example=torch.randn(2, 4))
    >>> for group in tg.parameter_groups(graft, rate=0.1, decay=0.5):
    ...     print(group["names"], group["lr"], group["weight_decay"])
    ['0.weight'] 0.05 0.01
    ['0.bias'] 0.05 0.0
    ['2.weight', 'head.linear.weight'] 0.1 0.01
    ['2.bias', 'head.linear.bias'] 0.1 0.0
    """
    if not (rate > 0 and 0 < decay <= 1 and weight_decay >= 0):
        raise TopgraftError(
            f"rate={rate:g}, decay={decay:g}, weight_decay={weight_decay:g}: expected a rate over 0, a decay "
            "over 0 up to 1 (1: the same rate everywhere), a weight decay of 0 or more."
        )
    held = {id(p) for group in beside.param_groups for p in group["params"]} if beside is not None else set()
    groups = []
    for group in groups_of(graft, Recipe(rate=rate, decay=decay, weight_decay=weight_decay)):
        new = [pair for pair in zip(group["params"], group["names"], strict=True) if id(pair[0]) not in held]
        if new:
            groups.append({**group, "params": [p for p, _ in new], "names": [n for _, n in new]})
    return groups


def _said(taps: str | Sequence[int]) -> str:
    return taps if isinstance(taps, str) else ",".join(map(str, taps))


def _chain_of(
    model: object, weights: str | Path | None, example: Tensor | Mapping[str, Tensor] | None
) -> tuple[Chain, str]:
    """The chain of what was given, and its name for messages."""
    if isinstance(model, (Backbone, Chain)):
        if example is not None or weights != "auto":
            raise TopgraftError(
                "weights and example are for a name or a module; this network is loaded already."
            )
        if isinstance(model, Backbone):
            return model.chain, model.source
        return model, type(model.network).__qualname__
    if isinstance(model, str):
        backbone = load(model, weights=weights, example=example)
        return backbone.chain, backbone.source
    if isinstance(model, nn.Module):
        modes = [(module, module.training) for module in model.modules()]
        try:
            backbone = load(model, weights=weights, example=example)
        finally:
            for module, mode in modes:
                module.training = mode
        return backbone.chain, backbone.source
    raise TopgraftError(
        f"The model is {_in_words(model)}; expected a name such as timm/resnet18, a module, or what tg.load "
        "gives."
    )


def _must_train_alike(chain: Chain, freeze: int) -> None:
    """Refuse a cut at which gradients are not those of the whole network (see the architecture's Equal)."""
    apart, where = chain.gradients_apart(freeze)
    if not apart <= GRADIENTS:
        raise RunningError(
            f"With {freeze} blocks frozen (to {chain.blocks[freeze - 1].name}) gradients differ from those "
            f"of the whole network by {apart:.1e} at {where}. Another freeze may do."
        )


def _head(
    chain: Chain,
    keep: int,
    head: AnyHead,
    *,
    hidden: Sequence[int],
    dropout: float,
    pooled: bool,
) -> Head | OwnHead:
    """The head that was asked for, where the network's parameters are."""
    block = chain.blocks[keep - 1]
    device = next((p.device for p in chain[:keep].parameters()), torch.device("cpu"))
    if isinstance(head, int) and not isinstance(head, bool):
        if head < 1:
            raise TopgraftError(
                f"head={head} is no number of logits. Give 1 or more, or a module of your own."
            )
        if not pooled:
            raise TopgraftError(
                "pooled=False is for a head of your own; a head with a number pools by itself."
            )
        if not 0 <= dropout < 1 or any(size < 1 for size in hidden):
            raise TopgraftError(
                f"hidden={tuple(hidden)}, dropout={dropout:g}: expected widths of 1 or more, and a dropout "
                "of 0 or more, less than 1."
            )
        return Head(block.layout, width(block), head, hidden=hidden, dropout=dropout).to(device)
    if hidden or dropout:
        raise TopgraftError("hidden and dropout are of the head that is made here; yours has its own layers.")
    features = width(block) if pooled else _channels(block)
    module = head
    if not isinstance(head, nn.Module) and callable(head):
        module = head(features)
    if not isinstance(module, nn.Module):
        raise TopgraftError(
            f"The head is {_in_words(module)}; expected the number of logits, a module, or a function that "
            "makes a module, given the number of features."
        )
    own = OwnHead(block.layout, module, pooled=pooled).to(device)
    _try(own, chain, keep, features)
    return own


def _try(head: OwnHead, chain: Chain, keep: int, features: int) -> None:
    """Run a head of one's own on two examples, as it will be."""
    modes = [(module, module.training) for module in head.modules()]
    head.eval()
    device = next((p.device for p in chain[:keep].parameters()), torch.device("cpu"))
    fed = f"rows of {features} numbers (float32)" if head.pooled else "the State after the last kept block"
    name = type(head.module).__name__
    with torch.no_grad():
        given = torch.zeros(2, features, device=device) if head.pooled else chain[:keep].eval()(chain.example)
        try:
            logits = head(given)
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise TopgraftError(
                f"The head, {name}, can't read what it is fed, {fed}: {type(error).__name__}: {error}"
            ) from error
    for module, mode in modes:
        module.training = mode
    count = len(given)
    if not isinstance(logits, Tensor) or logits.ndim < 1 or len(logits) != count:
        found = f"{tuple(logits.shape)}" if isinstance(logits, Tensor) else _in_words(logits)
        raise TopgraftError(
            f"The head, {name}, gave {found} for {count} examples; expected a tensor with {count} rows."
        )


def _channels(block: Block) -> int:
    last = block.layout.split("+")[0] in ("tokens", "map_last")
    return block.shape[-1] if last else block.shape[0]


def _in_words(value: object) -> str:
    if isinstance(value, type) or (callable(value) and not isinstance(value, nn.Module)):
        return f"{getattr(value, '__name__', type(value).__name__)}, which is not called"
    return f"a {type(value).__name__}"
