"""Watch the gradients of a training, block by block, without changing a bit of it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from topgraft.graft import Graft
from topgraft.health import Reading

SAMPLES = 20
"""Steps of a training that are read, the first and the last among them."""
RECTIFIERS = {"relu", "relu_", "relu6", "hardtanh", "hardtanh_", "threshold", "threshold_"}
BOUNDED = {"sigmoid": (0.0, 1.0), "sigmoid_": (0.0, 1.0), "tanh": (-1.0, 1.0), "tanh_": (-1.0, 1.0)}
LEAST_STEPS = 10
"""From which on Adam's running means tell signal from noise."""
NEAR = 0.01
"""Share of the range next to a bound in which an output counts as saturated."""


def sampled(step: int, steps: int, samples: int = SAMPLES) -> bool:
    """Whether a step is among those that are read: evenly spread, the first and the last among them.

    Examples
    --------
    >>> [step for step in range(10) if sampled(step, 10, samples=4)]
    [0, 3, 6, 9]
    """
    last = max(1, steps - 1)
    count = min(samples, steps)
    return any(step == round(i * last / max(1, count - 1)) for i in range(count))


class _Listener(TorchFunctionMode):
    """Counts silent and saturated units; a unit belongs to the block whose parameter was used last."""

    def __init__(self, block_of: Mapping[int, int]) -> None:
        super().__init__()
        self.block_of, self.block = block_of, 0
        self.rectified: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.bounded: dict[int, list[tuple[int, int]]] = defaultdict(list)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        for given in (*args, *(kwargs or {}).values()):
            self.block = self.block_of.get(id(given), self.block) if isinstance(given, Tensor) else self.block
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in RECTIFIERS and _rectifies(name, args) and isinstance(result, Tensor) and result.ndim > 1:
            self.rectified[self.block].append(_silent(result))
        elif name in BOUNDED and isinstance(result, Tensor):
            self.bounded[self.block].append(_saturated(result, *BOUNDED[name]))
        return result


@torch.no_grad()
def _silent(output: Tensor) -> tuple[int, int]:
    """Units that are zero for the whole batch, and units: channels of maps, features of what else."""
    units = 1 if output.ndim in (2, 4, 5) else output.ndim - 1
    others = [d for d in range(output.ndim) if d != units]
    silent = output.amax(dim=others) <= 0
    return int(silent.sum()), silent.numel()


def _rectifies(name: str, given: Sequence[Any]) -> bool:
    """Whether this call is zero below zero; ``hardtanh`` is where its lower bound is zero (ReLU6)."""
    return not name.startswith("hardtanh") or (len(given) > 1 and given[1] == 0)


@torch.no_grad()
def _saturated(output: Tensor, low: float, high: float) -> tuple[int, int]:
    margin = NEAR * (high - low)
    near = (output < low + margin) | (output > high - margin)
    return int(near.sum()), near.numel()


class Watch:
    """Reads the gradients of every block in some steps of a training.

    Parameters
    ----------
    graft
        What trains.
    optimizer
        With Adam or one of its kind, the signal-to-noise ratio is read from the running means.
    steps
        Of the whole training.
    samples
        How many of them are read.
    """

    def __init__(self, graft: Graft, optimizer: Any, steps: int, samples: int = SAMPLES) -> None:
        self.optimizer, self.steps, self.samples = optimizer, steps, samples
        self.blocks: dict[int, list[nn.Parameter]] = defaultdict(list)
        block_of: dict[int, int] = {}
        for _, parameter, block in graft.trainable():
            self.blocks[block].append(parameter)
            block_of[id(parameter)] = block
        self._block_of = block_of
        self._before: dict[int, list[Tensor]] = {}
        self._seen: dict[int, tuple[float, int]] = {}
        self._heard: _Listener | None = None

    def wants(self, step: int) -> bool:
        """Whether this step is to be read."""
        return sampled(step, self.steps, self.samples)

    def listen(self) -> TorchFunctionMode:
        """Inside it the forward pass of this step runs."""
        self._heard = _Listener(self._block_of)
        return self._heard

    @torch.no_grad()
    def before(self) -> None:
        """Read gradients, before they are clipped, and remember the weights."""
        for block, parameters in self.blocks.items():
            gradients = [p.grad for p in parameters if p.grad is not None]
            bad = sum(int((~torch.isfinite(g)).sum()) for g in gradients)
            self._seen[block] = _norm(gradients), bad
            self._before[block] = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def after(self, step: int, share: float) -> list[Reading]:
        """A reading of each block, after the step is made."""
        readings = []
        for block, parameters in self.blocks.items():
            before = self._before.pop(block)
            weights = _norm(before)
            change = _norm([p.detach() - b for p, b in zip(parameters, before, strict=True)])
            gradient, bad = self._seen[block]
            heard = self._heard
            readings.append(
                Reading(
                    step=step,
                    block=block,
                    gradient=gradient,
                    relative=_over(gradient, weights),
                    update=_over(change, weights),
                    share=share,
                    signal=self._signal(parameters),
                    dead=None if heard is None else _share(heard.rectified[block]),
                    saturated=None if heard is None else _share(heard.bounded[block]),
                    bad=bad,
                )
            )
        self._heard = None
        return readings

    def _signal(self, parameters: Sequence[nn.Parameter]) -> float | None:
        """Squared mean over variance of the gradient, from Adam's running means.

        The running mean of the gradient still holds ``excess`` of its variance, which is taken out.
        """
        betas = self.optimizer.param_groups[0].get("betas")
        if betas is None:
            return None
        (first, second), mean, square, taken = betas, 0.0, 0.0, 0
        for state in filter(None, (self.optimizer.state.get(p) for p in parameters)):
            taken = int(state["step"])
            mean += _norm([state["exp_avg"]]) ** 2 / (1 - first**taken) ** 2
            square += float(state["exp_avg_sq"].sum()) / (1 - second**taken)
        if taken < LEAST_STEPS or not square > 0:
            return None
        excess = (1 - first) / (1 + first) * (1 + first**taken) / (1 - first**taken)
        power = max(0.0, (mean - excess * square) / (1 - excess))
        noise = square - power
        return power / noise if noise > 0 else None


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(torch.linalg.vector_norm(t.float())) ** 2 for t in tensors))


def _over(a: float, b: float) -> float:
    return a / b if b > 0 else math.inf if a > 0 else 0.0


def _share(counts: Sequence[tuple[int, int]]) -> float | None:
    total = sum(n for _, n in counts)
    return sum(k for k, _ in counts) / total if total else None
