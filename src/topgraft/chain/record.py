"""Watch a network run once: which modules were called in which order, and which parameters were read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from topgraft.chain.flow import Flow, Watch
from topgraft.chain.nesting import Path, nested

__all__ = ["Call", "Recording", "evaluating", "record"]


def _recurrent_flops(given: Any, weight: Any, recurrent: Any, *_rest: Any, **_more: Any) -> int:
    """Of a recurrent layer in one direction, from the shapes of its input (steps, batch, …) and weights."""
    steps, batch = given[:2]
    return int(2 * steps * batch * (weight[0] * weight[1] + recurrent[0] * recurrent[1]))


_UNCOUNTED = {torch.ops.aten.mkldnn_rnn_layer: _recurrent_flops}
"""What torch's counter of operations has no formula for, and counts as nothing."""


@dataclass
class Call:
    """One call of one module, with the moments at which it began and ended (counts of events).

    ``entered`` and ``left`` tell which values it was given and gave, by their paths.
    """

    index: int
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
    entered: dict[Path, int] = field(default_factory=dict)
    left: dict[Path, int] = field(default_factory=dict)


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
    flow
        The values of the run, and what each was made from.
    """

    root: Call
    uses: dict[str, list[int]]
    macs: int
    flow: Flow

    def calls(self) -> Iterator[Call]:
        """Every call, outer before inner, in the order in which they began."""
        todo = [self.root]
        while todo:
            call = todo.pop()
            yield call
            todo.extend(reversed(call.children))


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
    flops = FlopCounterMode(display=False, custom_mapping=_UNCOUNTED)

    def tick() -> int:
        nonlocal clock
        clock += 1
        return clock

    def enter(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nth = counts[name] = counts.get(name, 0) + 1
            index = len(finished) + len(stack)
            call = Call(index, name, nth, module, 0, args, kwargs, macs_before=flops.get_total_flops() // 2)
            call.entered = watch.values_in((args, kwargs))
            call.start = tick()
            if stack:
                stack[-1].children.append(call)
            stack.append(call)

        return hook

    def leave(_module: nn.Module, _args: Any, output: Any) -> None:
        call = stack[-1]
        call.left = watch.values_in(output, call.entered.values())
        stack.pop()
        call.end, call.output, call.macs_after = tick(), output, flops.get_total_flops() // 2
        finished.append(call)

    names = {id(tensor): name for name, tensor in (*network.named_parameters(), *network.named_buffers())}
    watch = Watch(names, tick, lambda: stack[-1].index if stack else -1)
    for name, tensor in inputs.items():
        watch.add_input(name, tensor)
    with ExitStack() as undo:
        for name, module in network.named_modules():
            undo.callback(module.register_forward_pre_hook(enter(name), with_kwargs=True).remove)
            undo.callback(module.register_forward_hook(leave).remove)
        undo.enter_context(evaluating(network))
        undo.enter_context(_without_gradients(network))
        undo.enter_context(torch.no_grad())
        undo.enter_context(flops)
        undo.enter_context(watch)
        network(**nested(inputs))
    recording = Recording(finished[-1], watch.uses, flops.get_total_flops() // 2, watch.flow)
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
