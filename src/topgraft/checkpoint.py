"""The state of a training after an epoch, or amid one: what going on from there needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from topgraft.errors import warn_of_damage
from topgraft.files import DamagedFile, read_tensors, write_tensors
from topgraft.graft import Graft
from topgraft.history import History


@dataclass(frozen=True)
class Amid:
    """A place in the middle of an epoch.

    Parameters
    ----------
    step
        The next one of the whole training.
    total, seen, seconds
        Sum of the loss over the examples of the epoch so far, their number, and the time they took.
    random
        State of torch's streams of numbers: that of the CPU, then those of devices.
    """

    step: int
    total: float
    seen: int
    seconds: float
    random: tuple[Tensor, ...]

    @classmethod
    def here(cls, step: int, total: float, seen: int, seconds: float) -> Amid:
        """With the streams as they are now."""
        devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return cls(step, total, seen, seconds, (torch.get_rng_state(), *devices))

    def take_up(self) -> None:
        """Let the streams go on from there."""
        torch.set_rng_state(self.random[0])
        if torch.cuda.is_available() and len(self.random) == 1 + torch.cuda.device_count():
            torch.cuda.set_rng_state_all(list(self.random[1:]))


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


def save(
    path: Path,
    graft: Graft,
    optimizer: Any,
    history: History,
    best: Mapping[str, Tensor],
    amid: Amid | None = None,
) -> None:
    """Write everything that going on needs, whole or not at all."""
    tensors = {f"now.{n}": t for n, t in weights_of(graft).items()}
    tensors |= {f"best.{n}": t for n, t in best.items()}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimizer.state[parameter].items():
                tensors[f"optimizer.{key}.{name}"] = value.detach().cpu().clone()
    metadata = {"history": json.dumps(history.to_json())}
    if amid is not None:
        tensors |= {f"random.{number}": state.cpu() for number, state in enumerate(amid.random)}
        metadata["amid"] = json.dumps([amid.step, amid.total, amid.seen, amid.seconds])
    write_tensors(path, tensors, metadata)


def restore(
    path: Path | None, graft: Graft, optimizer: Any
) -> tuple[History, dict[str, Tensor], Amid | None] | None:
    """Put what :func:`save` wrote back; ``None`` where nothing whole is there.

    Returns
    -------
    History, dict, Amid or None
        Best weights by name; the place in the epoch under way, if the state is from its middle.
    """
    if path is None or not path.exists():
        return None
    try:
        tensors, metadata = read_tensors(path)
        found = _told(tensors, metadata)
        _take_up(graft, optimizer, tensors)
    except DamagedFile as error:
        reason = error.reason
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
        RuntimeError,
        RecursionError,
    ) as error:
        reason = f"it can't be used: {error!r:.200}"
    else:
        return found
    warn_of_damage(path, reason, "this training begins anew")
    path.unlink()
    return None


def _told(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> tuple[History, dict[str, Tensor], Amid | None]:
    """What a state says of its training."""
    best = {n.removeprefix("best."): t for n, t in tensors.items() if n.startswith("best.")}
    amid = None
    if "amid" in metadata:
        count = sum(name.startswith("random.") for name in tensors)
        step, total, seen, seconds = json.loads(metadata["amid"])
        random = tuple(tensors[f"random.{i}"] for i in range(count))
        amid = Amid(int(step), float(total), int(seen), float(seconds), random)
    return History.from_json(json.loads(metadata["history"])), best, amid


def _take_up(graft: Graft, optimizer: Any, tensors: Mapping[str, Tensor]) -> None:
    """Put a state's weights and those of its optimiser back, once all of them are known to be there."""
    now = {n.removeprefix("now."): t for n, t in tensors.items() if n.startswith("now.")}
    shapes = {name: tensor.shape for name, tensor in weights_of(graft).items()}
    if odd := sorted(n for n, shape in shapes.items() if n not in now or now[n].shape != shape):
        raise ValueError(f"it has no weights {odd[0]} of this training")
    states: dict[Tensor, dict[str, Tensor]] = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            if f"optimizer.step.{name}" in tensors:  # else it never had a gradient
                states[parameter] = {
                    key: tensors[f"optimizer.{key}.{name}"].to(parameter.device if key != "step" else "cpu")
                    for key in ("step", "exp_avg", "exp_avg_sq")
                }
    put(graft, now)
    optimizer.state.update(states)
