"""A copy of a network that lacks what a part of a chain does not need; poison stands in its place."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from topgraft.chain.nesting import Path, mapped, put, take
from topgraft.chain.point import Shape
from topgraft.chain.running import RUN, Run


@dataclass(frozen=True)
class Skip:
    """One call that is left out.

    Parameters
    ----------
    shapes
        What it gives, with shapes in place of tensors.
    inside
        How often the call calls each module inside it.
    through
        Where it gives what it was given (paths in what it gives, and into its arguments).
    written
        Whether the network later changes what the call gives in place, so that it needs memory of its own.
    """

    shapes: Any
    inside: Mapping[str, int] = field(default_factory=dict)
    through: Mapping[Path, Path] = field(default_factory=dict)
    written: bool = False


def skipped(original: nn.Module, skip: Skip) -> nn.Module:
    """What stands where a block was that does not belong to a part: poison of the right shape, at no cost.

    It is still of the original's class, with the original's settings and methods, since the network around
    it may ask for them; it has no parameters, buffers or submodules. In their place are poison and further
    stubs, since the network may look at their precision or size.
    """
    stub = type(original).__new__(type(original))
    state = dict(vars(original))
    for name, value in state.items():
        if name in ("_parameters", "_buffers", "_modules") or name.endswith("_hooks"):
            state[name] = type(value)()
    state["_non_persistent_buffers_set"] = set()
    for name, tensor in (*original._parameters.items(), *original._buffers.items()):
        state[name] = None if tensor is None else _poison_like(tensor)
    for name, module in original._modules.items():
        state[name] = None if module is None else skipped(module, Skip(None))
    stub.__dict__.update(state)
    stub.__dict__["forward"] = partial(_give_poison, skip)
    if (some := next(original.parameters(), None)) is not None:
        stub.__dict__["parameters"] = partial(_stand_ins, _poison_like(some))
    stub.__dict__["extra_repr"] = partial(str, "not in this part")
    return stub


def _stand_ins(like: Tensor, *_recurse: Any) -> Iterator[Tensor]:
    """In place of ``parameters()`` of a module that has none in a part: networks ask for their precision."""
    run = RUN.get()
    yield like.to(run.like) if run is not None and run.like.is_floating_point() else like


def _poison_like(tensor: Tensor) -> Tensor:
    fill = float("nan") if tensor.is_floating_point() else 0
    return torch.full((), fill, dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)


def _give_poison(given: Skip, *args: Any, **kwargs: Any) -> Any:
    run = RUN.get()
    if run is None:
        raise RuntimeError("A part of a chain runs through its segment, not by itself.")
    for name, calls in given.inside.items():
        run.counts[name] = run.counts.get(name, 0) + calls
    run.busy = True
    poison = mapped(given.shapes, lambda leaf: _poisoned(leaf, run))
    if given.written:
        poison = mapped(poison, lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf)
    run.busy = False
    for out, into in given.through.items():
        poison = put(poison, out, take((args, kwargs), into))
    return poison


def _poisoned(leaf: Any, run: Run) -> Any:
    return leaf.poison(run.like, run.batch, run.length) if isinstance(leaf, Shape) else leaf


def is_skipped(module: nn.Module) -> bool:
    """Whether :func:`skipped` made the module."""
    forward = vars(module).get("forward")
    return isinstance(forward, partial) and forward.func is _give_poison


def _sometimes(module: nn.Module, name: str, skips: Mapping[int, Skip], *args: Any, **kwargs: Any) -> Any:
    """A module that is called in several blocks: poison where it is called before the part."""
    run = RUN.get()
    skip = None if run is None else skips.get(run.counts.get(name, 0))
    if skip is not None:
        return _give_poison(skip, *args, **kwargs)
    return type(module).forward(module, *args, **kwargs)


_PLAIN = (bool, int, float, str, bytes, type(None), torch.dtype, torch.device, torch.Size, type, FunctionType)


def _copied(network: nn.Module, instead: Mapping[int, Tensor] | None = None) -> nn.Module:
    """A copy of the module tree that shares parameters and buffers; many times faster than ``deepcopy``.

    ``instead`` has tensors that stand in the copy for others, by the identities of those.
    """
    memo: dict[int, Any] = {id(t): t for t in (*network.parameters(), *network.buffers())}
    memo |= instead or {}
    modules = list(network.modules())
    memo |= {id(module): type(module).__new__(type(module)) for module in modules}
    for module in modules:
        state = memo[id(module)].__dict__
        for name, value in vars(module).items():
            if name == "_modules":
                state[name] = {n: None if m is None else memo[id(m)] for n, m in value.items()}
            elif name in ("_parameters", "_buffers"):
                state[name] = {n: None if t is None else memo[id(t)] for n, t in value.items()}
            else:
                state[name] = _own(value, memo)
    return memo[id(network)]  # type: ignore[no-any-return]


def _own(value: Any, memo: dict[int, Any]) -> Any:
    """An attribute for the copy; ``deepcopy`` is asked only where there is something that could change."""
    if isinstance(value, _PLAIN) or (type(value) is tuple and all(isinstance(v, _PLAIN) for v in value)):
        return value
    if not value and type(value) in (OrderedDict, dict, list, set):
        return type(value)()
    return copy.deepcopy(value, memo)


def refilled(network: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the module tree with other parameters and buffers.

    Parameters
    ----------
    network
        The original; it is not changed.
    tensors
        Parameters and buffers by name, which the copy holds themselves. A shared one needs one of its names.
        In place of all others the copy has tensors of the same shape that take no memory.
    """
    named = (
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    )
    instead = {id(tensor): tensors[name] for name, tensor in named if name in tensors}
    return _copied(network, {id(t): _poison_like(t) for _, t in named if id(t) not in instead} | instead)


def is_sometimes_skipped(module: nn.Module) -> bool:
    """Whether some calls of the module are left out, and others not."""
    forward = vars(module).get("forward")
    return isinstance(forward, partial) and forward.func is _sometimes


def pruned(
    network: nn.Module,
    *,
    skip: Mapping[str, Skip],
    absent: Iterable[str],
    sometimes: Mapping[str, Mapping[int, Skip]] | None = None,
) -> nn.Module:
    """A copy of the module tree that shares parameters and buffers and lacks what is skipped.

    Parameters
    ----------
    network
        The original; it is not changed.
    skip
        Module names that become what :func:`skipped` makes.
    absent
        Parameters and buffers by name that this part never reads in earnest; poison stands in their place.
    sometimes
        Module names of which just some calls are left out, by their number.
    """
    result = _copied(network)
    by_id: dict[int, Any] = {}
    modules = dict(result.named_modules(remove_duplicate=False))
    for name, left_out in skip.items():
        by_id[id(modules[name])] = skipped(modules[name], left_out)
    for name, by_call in (sometimes or {}).items():
        module = modules[name]
        module.__dict__["forward"] = partial(_sometimes, module, name, dict(by_call))
    for module in list(modules.values()):
        for child_name, child in list(module._modules.items()):
            if child is not None and id(child) in by_id:
                module._modules[child_name] = by_id[id(child)]
    remaining = dict(result.named_modules(remove_duplicate=False))
    for full in absent:
        owner_name, _, own = full.rpartition(".")
        owner = remaining.get(owner_name)
        if owner is None or is_skipped(owner):
            continue
        tensor = owner._parameters.pop(own, None)
        if tensor is None:
            tensor = owner._buffers.pop(own, None)
        if tensor is not None:
            owner.register_buffer(own, _poison_like(tensor), persistent=False)
    for name, module in network.named_modules(remove_duplicate=False):
        left = remaining.get(name)
        some = next(module.parameters(), None)
        if left is not None and some is not None and next(left.parameters(), None) is None:
            left.__dict__["parameters"] = partial(_stand_ins, _poison_like(some))
    return result
