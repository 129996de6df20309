"""One's own networks: a case for each way of wiring, see :mod:`own_networks`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from cases import Case
from own_networks import (
    Attention,
    Branching,
    Dense,
    DictionaryOutput,
    Encoder,
    Functional,
    Heads,
    InPlace,
    LastStates,
    Nested,
    OneDictionary,
    Recurrent,
    Reshaping,
    Residual,
    SavedAttribute,
    SequenceFirst,
    SeveralInputs,
    Shared,
    SharedInALoop,
    Siamese,
    TupleOutput,
    UNet,
)
from torch import Tensor, nn
from torch.nn import functional

EXAMPLES = 3


def picture(channels: int = 3, side: int = 16) -> Tensor:
    return torch.randn(EXAMPLES, channels, side, side)


def steps(length: int = 9, width: int = 6) -> Tensor:
    return torch.randn(EXAMPLES, length, width)


def plain() -> nn.Module:
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 4)]
    return nn.Sequential(OrderedDict((f"part{i}", layer) for i, layer in enumerate(layers)))


def two_pictures() -> dict[str, Any]:
    return {"left": picture(), "right": picture()}


def picture_and_row() -> dict[str, Any]:
    return {"image": picture(), "row": torch.randn(EXAMPLES, 5)}


def tokens(more: int = 0) -> dict[str, Any]:
    lengths = torch.tensor([7, 4, 6])[:, None]
    mask = (torch.arange(7 + more)[None] < lengths).long()
    ids = torch.randint(1, 20, (EXAMPLES, 7), generator=torch.Generator().manual_seed(3))
    return {"ids": functional.pad(ids, (0, more)) * mask, "mask": mask}


KINDS: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, Any]]]] = {
    "plain": (plain, lambda: {"input": torch.randn(EXAMPLES, 6)}),
    "nested": (Nested, lambda: {"x": picture()}),
    "residual": (Residual, lambda: {"x": picture()}),
    "dense": (Dense, lambda: {"x": picture()}),
    "lstm": (lambda: Recurrent(nn.LSTM), lambda: {"x": steps()}),
    "lstm-dropout": (lambda: Recurrent(nn.LSTM, dropout=0.2), lambda: {"x": steps()}),
    "gru": (lambda: Recurrent(nn.GRU), lambda: {"x": steps()}),
    "rnn": (lambda: Recurrent(nn.RNN, nonlinearity="relu"), lambda: {"x": steps()}),
    "lstm-bidirectional": (lambda: Recurrent(nn.LSTM, bidirectional=True), lambda: {"x": steps()}),
    "lstm-last-states": (LastStates, lambda: {"x": steps()}),
    "sequence-first": (SequenceFirst, lambda: {"x": steps()}),
    "encoder": (Encoder, tokens),
    "several-inputs": (SeveralInputs, picture_and_row),
    "one-dictionary": (
        OneDictionary,
        lambda: {"batch": {"image": picture(), "meta": torch.randn(EXAMPLES, 5)}},
    ),
    "shared": (Shared, lambda: {"x": picture()}),
    "shared-in-a-loop": (SharedInALoop, lambda: {"x": steps()}),
    "functional": (Functional, lambda: {"x": picture()}),
    "u-net": (UNet, lambda: {"x": picture()}),
    "siamese": (Siamese, two_pictures),
    "tuple-output": (TupleOutput, lambda: {"x": steps()}),
    "dictionary-output": (DictionaryOutput, lambda: {"x": picture()}),
    "in-place": (InPlace, lambda: {"x": picture()}),
    "branching": (Branching, lambda: {"x": picture()}),
    "saved-attribute": (SavedAttribute, lambda: {"x": picture()}),
    "two-heads": (Heads, lambda: {"x": steps()}),
    "attention": (Attention, lambda: {"x": steps()}),
    "reshaping": (Reshaping, lambda: {"x": steps()}),
}


FEWEST = {
    "plain": 2,
    "nested": 7,
    "dense": 3,
    "lstm": 3,
    "lstm-dropout": 3,
    "gru": 3,
    "rnn": 3,
    "lstm-bidirectional": 3,
    "lstm-last-states": 3,
    "sequence-first": 6,
    "encoder": 4,
    "several-inputs": 2,
    "one-dictionary": 2,
    "shared": 3,
    "shared-in-a-loop": 4,
    "functional": 3,
    "tuple-output": 3,
    "branching": 2,
    "two-heads": 2,
    "attention": 2,
    "reshaping": 3,
}
"""How many cuts there must be at least, where it is more than one."""


def names() -> list[str]:
    """All kinds."""
    return list(KINDS)


def build(name: str) -> Case:
    """A network of that kind."""
    torch.manual_seed(0)
    network, inputs = KINDS[name]
    made = network().eval()
    torch.manual_seed(1)
    given = inputs()
    return Case(made, given, tokens(more=4) if network is Encoder else None, fewest=FEWEST.get(name, 1))
