"""What a network computes, as far as its weights don't tell: a digest of how it is built."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

_MODES = ("training", "_is_full_backward_hook")
"""Attributes of a module that say in which state it is, not what it computes in eval mode."""


def structure_of(network: nn.Module) -> str:
    """SHA-256 (hex) over how a network is built and the files with its code: what its weights don't tell.

    The same weights give other activations with another activation function, another number of attention
    heads, or another forward.
    """
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", repr(network)).encode())
    for name, module in network.named_modules():
        plain = {n: v for n, v in vars(module).items() if _is_plain(v) and n not in _MODES}
        digest.update(repr((name, sorted(plain.items()))).encode())
    kinds = {type(module) for module in network.modules()}
    homes = {getattr(sys.modules.get(kind.__module__), "__file__", None) for kind in kinds}
    for name in sorted({f"{kind.__module__}.{kind.__qualname__}" for kind in kinds}):
        digest.update(name.encode())
    for home in sorted(home for home in homes if home is not None and Path(home).is_file()):
        digest.update(hashlib.sha256(Path(home).read_bytes()).digest())
    return digest.hexdigest()


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str, torch.dtype))
