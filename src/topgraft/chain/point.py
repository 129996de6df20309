"""Where cuts lie, and how shapes vary with the batch and the length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from topgraft.chain.nesting import Path


@dataclass(frozen=True, order=True)
class Place:
    """Where a tensor of the state is put into a run, or taken from it.

    Parameters
    ----------
    when
        ``enter``: among what a module is given (a path into ``(args, kwargs)``); ``exit``: in what it gives;
        ``op``: in what a torch function gives that a module's own code calls; ``input``: an input of the
        network.
    module
        Name of the module, or of the input.
    nth
        Its so-manieth call, from 1.
    path
        Where the tensor sits.
    op, function
        The so-manieth time, from 0, that the call's own code calls the torch function of this name; -1 and
        nothing elsewhere. Others are not counted: code that keeps a table calls fewer the second time.
    axis
        Which of its sizes is the batch.
    fold
        How many rows of it belong to one example.
    """

    when: str
    module: str
    nth: int
    path: Path
    op: int = -1
    axis: int = 0
    fold: int = 1
    function: str = ""

    def to_json(self) -> dict[str, Any]:
        """The place as plain JSON."""
        return {**vars(self), "path": list(self.path)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Place:
        """The place that :meth:`to_json` wrote."""
        if value["when"] not in ("enter", "exit", "op", "input"):
            raise ValueError(f"a tensor is put in at enter, exit, op or input, not {value['when']!r}")
        numbers = {name: int(value[name]) for name in ("nth", "op", "axis", "fold")}
        when, module, function = (str(value[name]) for name in ("when", "module", "function"))
        return cls(when, module, path=tuple(value["path"]), function=function, **numbers)

    def stored(self, tensor: Tensor) -> Tensor:
        """The tensor as a state holds it: one row an example, first."""
        if self.axis:
            tensor = tensor.movedim(self.axis, 0)
        return tensor if self.fold == 1 else tensor.unflatten(0, (-1, self.fold))

    def restored(self, tensor: Tensor) -> Tensor:
        """A copy of a state's tensor as the network had it, which the network may change in place."""
        if self.fold != 1:
            tensor = tensor.flatten(0, 1)
        return (tensor.movedim(0, self.axis) if self.axis else tensor).clone()


@dataclass(frozen=True, order=True)
class Point:
    """A moment of the run at which a cut lies: the ``nth`` call of a module begins or ends.

    ``places`` tell where each tensor of the state is put in, at the moment itself or before it: a tensor that
    modules hand through comes by at several places. It is taken at the first.
    """

    module: str
    when: str
    nth: int
    places: tuple[tuple[Place, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """The point as plain JSON."""
        return {
            "module": self.module,
            "when": self.when,
            "nth": self.nth,
            "places": [[p.to_json() for p in one] for one in self.places],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Point:
        """The point that :meth:`to_json` wrote."""
        if value["when"] not in ("enter", "exit"):
            raise ValueError(f"a cut lies where a module is entered or left, not {value['when']!r}")
        places = tuple(tuple(Place.from_json(p) for p in one) for one in value["places"])
        return cls(str(value["module"]), str(value["when"]), int(value["nth"]), places)


@dataclass(frozen=True)
class Dim:
    """A size as a multiple of the batch size and of the inputs' length: ``factor * batch**b * length**l``."""

    factor: int
    batch: int = 0
    length: int = 0

    def size(self, batch: int, length: int) -> int:
        """The size for a batch of ``batch`` examples of ``length`` steps.

        Examples
        --------
        >>> Dim(12, batch=1).size(batch=3, length=7)
        36
        """
        return self.factor * (batch if self.batch else 1) * (length if self.length else 1)


@dataclass(frozen=True)
class Shape:
    """The sizes of a tensor as the batch and the length vary, and whether it holds whole numbers."""

    dims: tuple[Dim, ...]
    dtype: torch.dtype

    @property
    def batch_axis(self) -> tuple[int, int] | None:
        """Which size is the batch, and how many rows an example has; ``None`` if none or several are.

        Examples
        --------
        >>> Shape((Dim(7), Dim(2, batch=1)), torch.float32).batch_axis
        (1, 2)
        """
        axes = [(i, d.factor) for i, d in enumerate(self.dims) if d.batch]
        return axes[0] if len(axes) == 1 and not self.dims[axes[0][0]].length else None

    def of_state(self) -> Shape:
        """The shape of what a state holds of it: one row an example, first."""
        found = self.batch_axis
        if found is None:
            return self
        axis, fold = found
        rest = (*self.dims[:axis], *self.dims[axis + 1 :])
        return Shape((Dim(1, batch=1), *((Dim(fold),) if fold != 1 else ()), *rest), self.dtype)

    def poison(self, like: Tensor, batch: int, length: int) -> Tensor:
        """Not-a-numbers of this shape on the device and in the precision of ``like``; one number in all."""
        if self.dtype.is_floating_point or self.dtype.is_complex:
            one = torch.full((), float("nan"), dtype=like.dtype, device=like.device)
        else:
            one = torch.zeros((), dtype=self.dtype, device=like.device)
        return one.expand(tuple(d.size(batch, length) for d in self.dims))
