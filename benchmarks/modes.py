"""Modes of a network for a while: what trains, what is kept, what is left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def training(network: nn.Module, names: set[str]) -> Iterator[None]:
    """The named modules in train mode, all others in eval mode; all in eval mode afterwards."""
    for name, module in network.named_modules(remove_duplicate=False):
        module.training = name in names
    try:
        yield
    finally:
        network.eval()


@contextmanager
def only_trainable(network: nn.Module, parameters: list[nn.Parameter]) -> Iterator[None]:
    """Gradients for these parameters only, for a while."""
    before = [(p, p.requires_grad) for p in network.parameters()]
    mine = {id(p) for p in parameters}
    try:
        for p, _ in before:
            p.requires_grad_(id(p) in mine)
        yield
    finally:
        for p, asked in before:
            p.requires_grad_(asked)


@contextmanager
def buffers_kept(network: nn.Module) -> Iterator[None]:
    """Running statistics as they were afterwards."""
    before = [(b, b.clone()) for b in network.buffers()]
    try:
        yield
    finally:
        for buffer, values in before:
            buffer.copy_(values)


@contextmanager
def without_recurrent_dropout(*networks: nn.Module) -> Iterator[None]:
    """torch's recurrent kernels draw dropout in an order of their own: it is left out."""
    some = [(m, m.dropout) for network in networks for m in network.modules() if isinstance(m, nn.RNNBase)]
    try:
        for module, _ in some:
            module.dropout = 0.0
        yield
    finally:
        for module, share in some:
            module.dropout = share
