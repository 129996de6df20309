"""The order in which a network calls its modules, and which blocks of its own lists a chain cuts apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch
from torch import nn

from topgraft.chain import Chain, Point

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
LISTS = ("block", "layer", "cell", "transformer", "stage", "encoder", "branches", "features")
"""What networks call their lists of blocks."""
NUMBERED = ("s", "b")
"""What else they call blocks that are numbered (RegNet)."""


@dataclass
class Moments:
    """Modules as they were entered and left in one run, in this order.

    Parameters
    ----------
    events
        Name, ``enter`` or ``exit``, and the so-manieth call of that module.
    entered
        Per module (by identity) the number of the event at which it was first entered.
    """

    events: list[tuple[str, str, int]] = field(default_factory=list)
    entered: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, network: nn.Module, inputs: Mapping[str, Any]) -> Moments:
        """Watch the network's own forward in eval mode."""
        moments = cls()
        counts: dict[str, int] = {}
        hooks = []

        def on_enter(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, _given: Any) -> None:
                counts[name] = counts.get(name, 0) + 1
                moments.entered.setdefault(id(module), len(moments.events))
                moments.events.append((name, "enter", counts[name]))

            return hook

        def on_exit(name: str) -> Callable[..., None]:
            return lambda _module, _given, _result: moments.events.append((name, "exit", counts[name]))

        for name, module in network.named_modules():
            hooks.append(module.register_forward_pre_hook(on_enter(name)))
            hooks.append(module.register_forward_hook(on_exit(name)))
        try:
            with torch.no_grad():
                network.eval()(**inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return moments

    def at(self, point: Point) -> int:
        """The number of the event at which a cut lies."""
        return self.events.index((point.module, point.when, point.nth))

    def names_after(self, network: nn.Module, point: Point) -> set[str]:
        """Names of the modules that are entered after a cut and not before it."""
        moment = self.at(point)
        every = network.named_modules(remove_duplicate=False)
        return {name for name, module in every if self.entered.get(id(module), -1) >= moment}


def is_block(module: nn.Module) -> bool:
    """Whether it has two layers with weights at least."""
    return sum(any(p.ndim > 1 for p in m.parameters(recurse=False)) for m in module.modules()) > 1


def elements(container: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """What a list holds, lists inside it opened, with full names."""
    for key, child in container.named_children():
        if isinstance(child, CONTAINERS):
            yield from elements(child, f"{name}.{key}")
        else:
            yield f"{name}.{key}", child


def is_list_of_blocks(name: str) -> bool:
    """Whether a list of this name holds blocks."""
    return any(word in name.casefold() for word in LISTS)


def numbered_blocks(module: nn.Module) -> set[str]:
    """Names of children that are blocks of one class, called so, and differ by a number at the end."""
    groups: dict[tuple[str, type], set[str]] = {}
    for key, child in module.named_children():
        stem = key.rstrip("0123456789")
        called_so = stem in NUMBERED or is_list_of_blocks(stem)
        if called_so and stem != key and not isinstance(child, CONTAINERS) and is_block(child):
            groups.setdefault((stem, type(child)), set()).add(key)
    return {key for keys in groups.values() if len(keys) > 1 for key in keys}


def listed_blocks(module: nn.Module, name: str = "", *, inside: bool = False) -> list[str]:
    """Names of the innermost blocks that hang in lists called ``blocks``, ``layers``, ``cells`` and the like.

    So do blocks of one class in a list of another name, and those that are numbered beside each other
    (``block1``, ``block2``). A block that itself holds a list is opened if at least half of that list are
    blocks.
    """
    found: list[str] = []
    numbered = numbered_blocks(module)
    only_numbered = all(
        key in numbered for key, c in module.named_children() if any(True for _ in c.parameters())
    )
    for key, child in module.named_children():
        full = f"{name}.{key}" if name else key
        if not isinstance(child, CONTAINERS):
            within = inside or key in numbered
            deeper_ones = listed_blocks(child, full, inside=within)
            found += deeper_ones or ([full] if key in numbered and (not inside or only_numbered) else [])
            continue
        kinds = [type(e) for _, e in elements(child, full) if is_block(e)]
        alike = not inside and any(kinds.count(kind) > 1 for kind in kinds)
        if not is_list_of_blocks(key) and not alike:
            for deeper, element in elements(child, full):
                found += listed_blocks(element, deeper, inside=inside)
            continue
        held = [(n, e) for n, e in elements(child, full) if next(e.parameters(), None) is not None]
        if inside and 2 * sum(is_block(e) for _, e in held) < len(held):
            continue
        for deeper, element in held:
            if is_block(element):
                found += listed_blocks(element, deeper, inside=True) or [deeper]
            elif not inside:
                found += listed_blocks(element, deeper)
    return found


def not_cut_apart(chain: Chain, inputs: Mapping[str, Any]) -> tuple[int, list[str]]:
    """How many calls of listed blocks there are, and those after which there is no cut before the next."""
    moments = Moments.of(chain.network, inputs)
    listed = set(listed_blocks(chain.network))
    calls = [
        (i, name, nth)
        for i, (name, when, nth) in enumerate(moments.events)
        if when == "exit" and name in listed
    ]
    starts = [i for i, (name, when, _) in enumerate(moments.events) if when == "enter" and name in listed]
    cuts = [moments.at(point) for point in chain.points]
    merged = []
    for left, name, nth in calls:
        following = min((i for i in starts if i > left), default=inf)
        if not any(left <= cut <= following for cut in cuts):
            merged.append(name if nth == 1 else f"{name} (call {nth})")
    return len(calls), merged
