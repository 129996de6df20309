"""Which values of a run were made from which: the graph that tells what crosses a moment.

A value is what one torch function gave, or an input of the network. Tensors are watched where Python code
calls torch functions, so that a value has a place in the network's own code: the so-manieth function called
directly in the so-manieth call of a module.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from topgraft.chain.nesting import Path, tensors_in

INPUT, FUNCTION, CHANGED, HIDDEN = "input", "function", "changed", "hidden"


@dataclass(frozen=True)
class Value:
    """A tensor as it was from one moment on.

    Parameters
    ----------
    index
        Its number, in the order of their making.
    kind
        ``input``; ``function``: the result of a torch function; ``changed``: another name of memory that a
        function changed; ``hidden``: it came from code that can't be watched.
    name
        Of the function, or of the input.
    time
        When it was made (counts of events).
    call
        Number of the call in whose own code it was made; -1 outside all.
    op
        The so-manieth call, from 0, of the function of that name by the call's own code; -1 if there is none.
    path
        Where it sits in what the function gave.
    made_from
        Numbers of the values that the function read.
    reads
        Names of the parameters and buffers that it read.
    shape, dtype
        Of the tensor.
    """

    index: int
    kind: str
    name: str
    time: int
    call: int
    op: int
    path: Path
    made_from: tuple[int, ...]
    reads: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        """Number of its numbers."""
        return int(torch.Size(self.shape).numel())


@dataclass(frozen=True)
class Asked:
    """Python code asked for the numbers of a value (``if``, ``.item()``), and may have gone by them.

    Parameters
    ----------
    value
        Its number.
    time
        When.
    call
        Number of the call in whose own code; -1 outside all.
    line
        File and line.
    """

    value: int
    time: int
    call: int
    line: str


@dataclass
class Flow:
    """The values of one run, each made from earlier ones.

    Parameters
    ----------
    values
        In the order of their making.
    asked
        Where Python code went by numbers.
    """

    values: list[Value] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def ancestors(self, values: Iterable[int]) -> set[int]:
        """The values, and all from which they are made."""
        todo = list(values)
        found = set(todo)
        while todo:
            new = set(self.values[todo.pop()].made_from) - found
            found |= new
            todo.extend(new)
        return found


_ASKS = {"item", "__bool__", "__int__", "__float__", "__index__", "__contains__", "tolist", "numpy", "equal"}
_SHAPE_ONLY = {"zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"} | {
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "new_tensor",
}
"""Functions that go by the shape of what they are given, not by its numbers."""


class Watch(TorchFunctionMode):
    """Notes every torch function that Python code calls while it is active.

    Parameters
    ----------
    names
        Per parameter and buffer (by identity) its name.
    now
        Counts an event and gives its number.
    frame
        Number of the innermost module call that is under way.
    """

    def __init__(self, names: Mapping[int, str], now: Callable[[], int], frame: Callable[[], int]) -> None:
        super().__init__()
        self.names, self.now, self.frame = names, now, frame
        self.flow = Flow()
        self.uses: dict[str, list[int]] = {}
        self._ops: dict[tuple[int, str], int] = {}
        self._known: dict[int, tuple[int, int]] = {}
        self._writer: dict[int, int] = {}
        self._alive: list[Tensor] = []
        self._busy = False

    def add_input(self, name: str, tensor: Tensor) -> None:
        """An input of the network."""
        self._note(INPUT, name, -1, -1, (), (), (), tensor, self.now())

    def values_in(self, nested: Any, made_from: Iterable[int] = ()) -> dict[Path, int]:
        """Per path the number of the value that a tensor holds now, parameters and buffers left out.

        One that was never seen came from code that can't be watched; it counts as made from ``made_from``.
        """
        self._busy = True
        found = {path: self._value_of(tensor, made_from) for path, tensor in tensors_in(nested)}
        self._busy = False
        return {path: value for path, value in found.items() if value is not None}

    def _value_of(self, tensor: Tensor, made_from: Iterable[int] = ()) -> int | None:
        if id(tensor) in self.names:
            return None
        version, memory = _version(tensor), _memory(tensor)
        if (known := self._known.get(id(tensor))) is None:
            return self._note(HIDDEN, "", self.frame(), -1, (), tuple(made_from), (), tensor, self.now())
        if known[1] == version:
            return known[0]
        sources = (known[0], *([self._writer[memory]] if memory in self._writer else []))
        return self._note(CHANGED, "", self.frame(), -1, (), sources, (), tensor, self.now())

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._busy:
            return func(*args, **kwargs)
        frame = self.frame()
        name = name_of(func)
        given = [t for _, t in tensors_in((args, kwargs))]
        reads = tuple(dict.fromkeys(self.names[id(t)] for t in given if id(t) in self.names))
        for read in reads:
            self.uses.setdefault(read, []).append(self.now())
        looked_at = () if name in _SHAPE_ONLY else given
        sources = tuple(dict.fromkeys(v for t in looked_at if (v := self._value_of(t)) is not None))
        versions = [_version(t) for t in given]
        result = func(*args, **kwargs)
        op = self._ops[frame, name] = self._ops.get((frame, name), -1) + 1
        if name in _ASKS:
            self.flow.asked += [Asked(source, self.now(), frame, _line()) for source in sources]
        time = self.now()
        for tensor, version in zip(given, versions, strict=True):
            if _version(tensor) != version and id(tensor) not in self.names:
                made = self._note(CHANGED, name, frame, -1, (), sources, reads, tensor, time)
                self._writer[_memory(tensor)] = made
        for path, tensor in tensors_in(result):
            if id(tensor) in self.names:
                continue
            known = self._known.get(id(tensor))
            if known is not None and known[1] == _version(tensor) and not self._changed_now(known[0], time):
                continue  # handed through
            self._note(FUNCTION, name, frame, op, path, sources, reads, tensor, time)
        return result

    def _changed_now(self, value: int, time: int) -> bool:
        return self.flow.values[value].time == time and self.flow.values[value].kind == CHANGED

    def _note(
        self,
        kind: str,
        name: str,
        call: int,
        op: int,
        path: Path,
        made_from: tuple[int, ...],
        reads: tuple[str, ...],
        tensor: Tensor,
        time: int,
    ) -> int:
        index = len(self.flow.values)
        self.flow.values.append(
            Value(
                index, kind, name, time, call, op, path, made_from, reads, tuple(tensor.shape), tensor.dtype
            )
        )
        self._known[id(tensor)] = (index, _version(tensor))
        self._alive.append(tensor)
        return index


def name_of(func: Any) -> str:
    """What a torch function is called."""
    return str(getattr(func, "__name__", func))


def _line() -> str:
    """The file and line of the network's code that called a torch function."""
    for frame in reversed(traceback.extract_stack()):
        folder = PurePath(frame.filename).parts
        if "torch" not in folder and "topgraft" not in folder[:-1]:
            return f"{PurePath(frame.filename).name}, line {frame.lineno}"
    return "unknown"


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _memory(tensor: Tensor) -> int:
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse and other kinds have no one storage
        return id(tensor)
