"""The memory layout in which a network runs: channels last, where its code allows that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from topgraft.chain import State


def laid_out(given: Any, form: torch.memory_format) -> Any:
    """The same state, inputs or tensor, with every tensor of four sizes in a memory layout."""
    if isinstance(given, State):
        return given.map(lambda tensor: laid_out(tensor, form))
    if isinstance(given, Mapping):
        return {name: laid_out(tensor, form) for name, tensor in given.items()}
    return given.contiguous(memory_format=form) if given.ndim == 4 else given


class Layout:
    """Runs one part of a network with maps channels last, in which convolutions are up to five times as fast.

    Code that takes an activation's memory for granted (``x.view(len(x), -1)`` of a map) says so by an error;
    from then on the network runs in the usual layout. Numbers are the same but for rounding.
    """

    def __init__(self) -> None:
        self.form = torch.channels_last

    def run(self, part: nn.Module, given: Any, **options: Any) -> Any:
        """``part(given, **options)``, in the layout that suits it."""
        if self.form == torch.channels_last:
            try:
                return part(laid_out(given, self.form), **options)
            except RuntimeError as error:
                if "view size is not compatible" not in str(error):
                    raise
                self.form = torch.contiguous_format
                part.to(memory_format=self.form)
        return part(laid_out(given, self.form), **options)
