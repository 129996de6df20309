"""The state of a training after an epoch: what going on from there needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from topgraft.files import DamagedFile, read_tensors, write_tensors
from topgraft.graft import Graft
from topgraft.history import History


def weights_of(graft: Graft) -> dict[str, Tensor]:
    """What training can change, copied: parameters that train, and buffers beside them."""
    parts: dict[str, Tensor] = {}
    for prefix, module in (("body.", graft.body), ("head.", graft.head)):
        if module is not None:
            for name, tensor in module.state_dict().items():
                parts[prefix + name] = tensor.detach().cpu().clone()
    return parts


@torch.no_grad()
def put(graft: Graft, weights: Mapping[str, Tensor]) -> None:
    """Put weights that :func:`weights_of` copied back, tensor by tensor.

    Not by ``load_state_dict``, in which a batch norm wants a counter that its stand-in lacks.
    """
    for prefix, module in (("body.", graft.body), ("head.", graft.head)):
        if module is not None:
            for name, tensor in module.state_dict().items():
                tensor.copy_(weights[prefix + name])


def save(path: Path, graft: Graft, optimizer: Any, history: History, best: Mapping[str, Tensor]) -> None:
    """Write everything that going on needs, whole or not at all."""
    tensors = {f"now.{n}": t for n, t in weights_of(graft).items()}
    tensors |= {f"best.{n}": t for n, t in best.items()}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimizer.state[parameter].items():
                tensors[f"optimizer.{key}.{name}"] = value.detach().cpu().clone()
    write_tensors(path, tensors, {"history": json.dumps(history.to_json())})


def restore(path: Path | None, graft: Graft, optimizer: Any) -> tuple[History, dict[str, Tensor]] | None:
    """Put what :func:`save` wrote back: history and best weights; ``None`` where nothing whole is there."""
    if path is None or not path.exists():
        return None
    try:
        tensors, metadata = read_tensors(path)
    except DamagedFile:
        path.unlink()
        return None
    put(graft, {n.removeprefix("now."): t for n, t in tensors.items() if n.startswith("now.")})
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            if f"optimizer.step.{name}" in tensors:  # else it never had a gradient
                optimizer.state[parameter] = {
                    key: tensors[f"optimizer.{key}.{name}"].to(parameter.device if key != "step" else "cpu")
                    for key in ("step", "exp_avg", "exp_avg_sq")
                }
    best = {n.removeprefix("best."): t for n, t in tensors.items() if n.startswith("best.")}
    return History.from_json(json.loads(metadata["history"])), best
