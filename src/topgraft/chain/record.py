"""Watch a network run once: which modules were called in which order, and which parameters were read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

Path = tuple[Any, ...]
"""Where a tensor sits inside nested tuples, lists and dictionaries: one index or key a level."""


@dataclass
class Call:
    """One call of one module, with the moments at which it began and ended (counts of events)."""

    name: str
    nth: int
    module: nn.Module
    start: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    macs_before: int = 0
    end: int = -1
    macs_after: int = 0
    output: Any = None
    children: list[Call] = field(default_factory=list)


@dataclass
class Recording:
    """What one run of a network showed.

    Parameters
    ----------
    root
        The call of the network itself; the others hang below it.
    uses
        For each parameter and buffer the moments at which a torch function read it.
    macs
        Multiply-adds of the whole run.
    """

    root: Call
    uses: dict[str, list[int]]
    macs: int

    def calls(self) -> Iterator[Call]:
        """Every call, outer before inner, in the order in which they began."""
        todo = [self.root]
        while todo:
            call = todo.pop()
            yield call
            todo.extend(reversed(call.children))


def tensors_in(value: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """Every tensor inside nested tuples, lists and dictionaries, with its path.

    Examples
    --------
    >>> [path for path, _ in tensors_in({"a": (torch.zeros(1), 3), "b": torch.ones(2)})]
    [('a', 0), ('b',)]
    """
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors_in(item, (*path, key))
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            yield from tensors_in(item, (*path, index))


def take(value: Any, path: Path) -> Any:
    """What sits at ``path`` inside ``value``."""
    for step in path:
        value = value[step]
    return value


def put(value: Any, path: Path, new: Any) -> Any:
    """A copy of ``value`` with ``new`` at ``path``; containers on the way keep their type where they can."""
    if not path:
        return new
    if isinstance(value, Mapping):
        return {**value, path[0]: put(value[path[0]], path[1:], new)}
    items = list(value)
    items[path[0]] = put(items[path[0]], path[1:], new)
    return items if isinstance(value, list) else tuple(items)


class _Reads(TorchFunctionMode):
    def __init__(self, names: Mapping[int, str], now: Callable[[], int]) -> None:
        super().__init__()
        self.names, self.now = names, now
        self.uses: dict[str, list[int]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for _, tensor in tensors_in((args, kwargs or {})):
            if name := self.names.get(id(tensor)):
                self.uses.setdefault(name, []).append(self.now())
        return func(*args, **(kwargs or {}))


@contextmanager
def _without_gradients(network: nn.Module) -> Iterator[None]:
    """No parameter asks for gradients for a while: torch's counter of operations fails on views of such."""
    asking = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in asking:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad = True


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in eval mode for a while; each module's own mode comes back afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def record(network: nn.Module, inputs: Mapping[str, Tensor]) -> Recording:
    """Run ``network(**inputs)`` once, without gradients, in eval mode, and note every call.

    Parameters
    ----------
    network
        Any module; it is not changed.
    inputs
        A batch by the names of the network's own ``forward``.

    Returns
    -------
    Recording
        Outputs are kept, so that tensors can be told apart by identity.
    """
    clock = 0
    stack: list[Call] = []
    counts: dict[str, int] = {}
    finished: list[Call] = []
    flops = FlopCounterMode(display=False)

    def tick() -> int:
        nonlocal clock
        clock += 1
        return clock

    def enter(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nth = counts[name] = counts.get(name, 0) + 1
            call = Call(name, nth, module, tick(), args, kwargs, macs_before=flops.get_total_flops() // 2)
            if stack:
                stack[-1].children.append(call)
            stack.append(call)

        return hook

    def leave(_module: nn.Module, _args: Any, output: Any) -> None:
        call = stack.pop()
        call.end, call.output, call.macs_after = tick(), output, flops.get_total_flops() // 2
        finished.append(call)

    names = {id(tensor): name for name, tensor in (*network.named_parameters(), *network.named_buffers())}
    reads = _Reads(names, tick)
    with ExitStack() as undo:
        for name, module in network.named_modules():
            undo.callback(module.register_forward_pre_hook(enter(name), with_kwargs=True).remove)
            undo.callback(module.register_forward_hook(leave).remove)
        undo.enter_context(evaluating(network))
        undo.enter_context(_without_gradients(network))
        undo.enter_context(torch.no_grad())
        undo.enter_context(flops)
        undo.enter_context(reads)
        network(**inputs)
    recording = Recording(finished[-1], reads.uses, flops.get_total_flops() // 2)
    _add_reads_that_torch_hides(network, recording)
    return recording


def _add_reads_that_torch_hides(network: nn.Module, recording: Recording) -> None:
    """Some kernels (recurrent ones) read parameters unseen: they count as read when their module ran."""
    tensors = {name for name, _ in (*network.named_parameters(), *network.named_buffers())}
    for call in recording.calls():
        prefix = f"{call.name}." if call.name else ""
        for own in (*call.module._parameters, *call.module._buffers):
            if prefix + own in tensors - recording.uses.keys():
                recording.uses[prefix + own] = [call.start]
