"""Networks of timm with random weights: the smallest of each module, or all."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from cases import Case, Unsupported
from torch import Tensor

from topgraft.errors import is_out_of_memory

SIZES = (64, 96, 128, 160, 192, 224, 256, None)
"""Sides of the pictures that are tried, smallest first; None is the size that the network was made for."""
EXAMPLES = 3


def names() -> list[str]:
    """All names that timm can make."""
    import timm

    return list(timm.list_models())


def build(name: str) -> Case:
    """The network for the smallest pictures that it takes."""
    import timm

    problems: list[str] = []
    for size in SIZES:
        for options in ({"img_size": size}, {}) if size else ({},):
            torch.manual_seed(0)
            try:
                network = timm.create_model(name, pretrained=False, **options).eval()
                channels, own = (
                    network.pretrained_cfg["input_size"][0],
                    network.pretrained_cfg["input_size"][-1],
                )
                pictures = torch.randn(EXAMPLES, channels, size or own, size or own)
                with torch.no_grad():
                    output = network(pictures)
            except Exception as error:  # a network says in any way that it does not take a size
                if is_out_of_memory(error):
                    raise
                problems.append(f"{type(error).__name__}: {error}")
                continue
            if not isinstance(output, Tensor):
                output = output[0]
            if not bool(torch.isfinite(output).all()):
                problems.append(f"not finite at {size or own}")
                continue
            first = next(iter(inspect.signature(network.forward).parameters))
            note = "" if size in (None, own) else f"pictures of {size} × {size}"
            return Case(network, {first: pictures}, note=note)
    raise Unsupported(f"it runs on no size tried; the last: {problems[-1]}")


def smallest(cache: Path) -> dict[str, tuple[int, str]]:
    """Per module of timm its smallest network: parameters and name; counted once, in a process of its own."""
    file = cache / f"smallest-timm-{version('timm')}.json"
    if not file.is_file():
        counted = subprocess.run(
            [sys.executable, __file__], capture_output=True, text=True, encoding="utf-8", check=True
        )
        cache.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(".new")
        new.write_text(counted.stdout, encoding="utf-8")
        new.replace(file)
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return {module: (int(count), str(name)) for module, (count, name) in found.items()}


def module_of(name: str) -> str:
    """The module of timm that makes a network (``resnet`` for ``resnet18``)."""
    from timm.models import model_entrypoint

    return str(model_entrypoint(name).__module__).rpartition(".")[2]


def count_all() -> dict[str, tuple[int, str]]:
    """Count the parameters of every name, without giving them memory."""
    import timm

    found: dict[str, tuple[int, str]] = {}
    for name in names():
        try:
            with torch.device("meta"):
                network = timm.create_model(name, pretrained=False)
        except (RuntimeError, NotImplementedError):  # some make numbers of tensors when they are made
            network = timm.create_model(name, pretrained=False)
        count = sum(p.numel() for p in network.parameters())
        found[module_of(name)] = min(found.get(module_of(name), (count, name)), (count, name))
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(count_all()))
