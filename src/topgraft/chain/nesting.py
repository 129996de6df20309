"""Tensors inside nested tuples, lists and dictionaries."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import Tensor

Path = tuple[Any, ...]
"""Where a tensor sits inside nested tuples, lists and dictionaries: one index or key a level."""


def tensors_in(value: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """Every tensor inside nested tuples, lists and dictionaries, with its path.

    Examples
    --------
    >>> import torch
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
    """A copy of ``value`` with ``new`` at ``path``; containers on the way keep their type."""
    if not path:
        return new
    inner = put(value[path[0]], path[1:], new)
    if isinstance(value, Mapping):
        return changed(value, {path[0]: inner})
    items = list(value)
    items[path[0]] = inner
    return rebuilt(value, items)


def changed(mapping: Any, items: Mapping[Any, Any]) -> Any:
    """A copy of a mapping, of its own type, with other items."""
    result = copy.copy(mapping)
    for key, item in items.items():
        result[key] = item
    return result


def rebuilt(like: Any, items: list[Any]) -> Any:
    """A tuple (also one with names) or list of ``like``'s type."""
    if isinstance(like, list):
        return items
    return type(like)(*items) if hasattr(like, "_fields") else tuple(items)


def mapped(value: Any, change: Any) -> Any:
    """The same nesting with ``change`` applied to every leaf; containers keep their types."""
    if isinstance(value, Mapping):
        return changed(value, {key: mapped(item, change) for key, item in value.items()})
    if isinstance(value, (tuple, list)):
        return rebuilt(value, [mapped(item, change) for item in value])
    return change(value)


def flattened(inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of a nested mapping by dotted names.

    Examples
    --------
    >>> import torch
    >>> sorted(flattened({"batch": {"image": torch.zeros(1), "size": torch.ones(1)}}))
    ['batch.image', 'batch.size']
    """
    return {".".join(map(str, path)): tensor for path, tensor in tensors_in(inputs)}


def nested(inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """What :func:`flattened` made flat: a dotted name leads into dictionaries."""
    result: dict[str, Any] = {}
    for name, tensor in inputs.items():
        *outer, last = name.split(".")
        inner = result
        for step in outer:
            inner = inner.setdefault(step, {})
        inner[last] = tensor
    return result


def by_names(given: Mapping[str, Any], names: Collection[str]) -> dict[str, Tensor]:
    """Inputs by the dotted ``names`` of a network, also where it has one dictionary whose content is given.

    Examples
    --------
    >>> import torch
    >>> list(by_names({"image": torch.zeros(1)}, ["batch.image"]))
    ['batch.image']
    """
    flat = flattened(given)
    outer = {name.split(".")[0] for name in names}
    if len(outer) == 1 and not flat.keys() <= set(names):
        prefixed = {f"{next(iter(outer))}.{name}": tensor for name, tensor in flat.items()}
        if prefixed.keys() <= set(names):
            return prefixed
    return flat
