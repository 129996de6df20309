"""Find the blocks of a network: the elements of its own lists of blocks, and what stands before and after."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor, nn

from topgraft.chain.record import Call, Recording, tensors_in
from topgraft.chain.replay import Point

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_OUTPUT_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.LazyLinear)


@dataclass
class Group:
    """Neighbouring calls that make up one block."""

    calls: list[Call] = field(default_factory=list)

    @property
    def output(self) -> Tensor | None:
        """The first tensor of what the last call gives."""
        return next((t for _, t in tensors_in(self.calls[-1].output)), None)


@dataclass
class Layout:
    """The calls of a network, sorted: blocks, what comes after them without parameters, the output layer."""

    groups: list[Group]
    tail: list[Call]
    output_layer: Call | None


def has_parameters(module: nn.Module) -> bool:
    """Whether the module or one inside it has a parameter."""
    return next(module.parameters(), None) is not None


def _elements(container: nn.Module) -> Iterable[nn.Module]:
    for child in container.children():
        if isinstance(child, _CONTAINERS):
            yield from _elements(child)
        else:
            yield child


def holds_blocks(module: nn.Module) -> bool:
    """Whether a list of blocks hangs below: elements that are modules with parts, all of one class.

    Examples
    --------
    >>> from torch import nn
    >>> layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    >>> holds_blocks(nn.TransformerEncoder(layer, 2)), holds_blocks(layer)
    (True, False)
    """
    for child in module.children():
        if isinstance(child, _CONTAINERS):
            elements = [e for e in _elements(child) if has_parameters(e)]
            composite = [e for e in elements if any(True for _ in e.children())]
            if composite and len({type(e) for e in elements}) == 1:
                return True
        elif holds_blocks(child):
            return True
    return False


def units(call: Call, output_layer: str | None) -> list[Call]:
    """The calls that a chain is made of: lists are opened, and so is what holds a list of blocks."""
    holds_output = output_layer is not None and output_layer.startswith(f"{call.name}.")
    if call.children and (
        not call.name or holds_output or isinstance(call.module, _CONTAINERS) or holds_blocks(call.module)
    ):
        return [unit for child in call.children for unit in units(child, output_layer)]
    return [call]


def find_output_layer(recording: Recording, asked: str | None) -> str | None:
    """The name of the old output layer: as asked, else the linear layer whose output the network gives.

    Without parameters it may be followed by more (a softmax); ``""`` says that there is none.
    """
    if asked is not None:
        return asked or None
    last = next((t for _, t in tensors_in(recording.root.output)), None)
    if last is None or last.ndim != 2:
        return None
    with_parameters = [c for c in recording.calls() if has_parameters(c.module) and not c.children]
    if not with_parameters:
        return None
    final = max(with_parameters, key=lambda c: c.end)
    return final.name if isinstance(final.module, _OUTPUT_LAYERS) else None


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.casefold() and not any(
        has_parameters(c) for c in module.children()
    )


def _first_sizes(value: object) -> tuple[int, ...] | None:
    return next((tuple(t.shape) for _, t in tensors_in(value)), None)


def _pools(call: Call) -> bool:
    """Whether the call takes the places of a map together, after which little is left to probe."""
    before, after = _first_sizes(call.args), _first_sizes(call.output)
    if before is None or after is None or len(before) < 3:
        return False
    return len(after) < len(before) or (set(after[2:]) <= {1} and not set(before[2:]) <= {1})


def _is_listed(call: Call, root: nn.Module) -> bool:
    owner = call.name.rpartition(".")[0]
    return isinstance(root.get_submodule(owner), _CONTAINERS)


def layout(recording: Recording, output_layer: str | None = None) -> Layout:
    """Sort the calls of a recorded run into blocks.

    Parameters
    ----------
    recording
        From :func:`topgraft.chain.record.record`.
    output_layer
        Name of the old output layer, ``""`` for none, ``None`` to look for it.

    Returns
    -------
    Layout
        A call with parameters opens a block; what has none, and a norm that keeps the shape, joins the block
        before it (a norm that opens a part of the network joins the block after it); everything before the
        first list of blocks is one block (the stem).
    """
    name = find_output_layer(recording, output_layer)
    calls = units(recording.root, name)
    out = next((i for i, c in enumerate(calls) if c.name == name), len(calls))
    body = calls[:out]
    listed = [
        i for i, c in enumerate(body) if has_parameters(c.module) and _is_listed(c, recording.root.module)
    ]
    stem_ends = listed[0] if listed else 0
    parents = {id(child): call for call in recording.calls() for child in call.children}
    groups: list[Group] = []
    waiting: list[Call] = []
    for position, call in enumerate(body):
        follows = (
            bool(groups)
            and not waiting
            and _first_sizes(groups[-1].calls[-1].output) == _first_sizes(call.args)
        )
        if not has_parameters(call.module):
            if follows and not _pools(call):
                groups[-1].calls.append(call)
            else:
                waiting.append(call)
            continue
        norm = _is_norm(call.module) and _first_sizes(call.args) == _first_sizes(call.output)
        opens_parent = bool(groups) and parents[id(call)].start > groups[-1].calls[-1].end
        if groups and (position < stem_ends or (norm and follows and not opens_parent)):
            groups[-1].calls.extend([*waiting, call])
        elif norm and opens_parent and position + 1 < len(body) and not waiting:
            waiting.append(call)
            continue
        else:
            groups.append(Group([*waiting, call]))
        waiting = []
    if not groups:
        groups, waiting = [Group(waiting or [recording.root])], []
    return Layout(groups, waiting, calls[out] if out < len(calls) else None)


def boundary(group: Group, following: Group | None) -> list[Point]:
    """Where the cut after a block can lie, best first.

    The beginning of the next block is best, so that what is computed in between (adding positions) belongs
    to this block; where that would change the state's form (flattening), the end of this block is.
    """
    last = group.calls[-1]
    points: list[Point] = []
    exits = [(p, t) for p, t in tensors_in(last.output) if t.is_floating_point()]
    leave = Point(last.name, "exit", last.nth, (exits[0][0],)) if exits else None
    enter = None
    if following is not None:
        first = following.calls[0]
        entries = [(p, t) for p, t in tensors_in((first.args, first.kwargs)) if t.is_floating_point()]
        if entries:
            enter = Point(first.name, "enter", first.nth, (entries[0][0],))
            if leave is not None and entries[0][1].ndim != exits[0][1].ndim:
                return [leave, enter]
            points.append(enter)
    if leave is not None:
        points.append(leave)
    return points


def block_name(group: Group, recording: Recording) -> str:
    """The name that the block has in the network.

    That of its first part with parameters (``conv_stem`` for ``conv_stem`` and ``bn1``), or of the list that
    holds just its parts (``features.0`` for ``features.0.0`` and ``features.0.1``).
    """
    names = [c.name for c in group.calls if has_parameters(c.module)] or [group.calls[0].name]
    parents = {n.rpartition(".")[0] for n in names}
    if len(names) > 1 and len(parents) == 1 and (parent := parents.pop()):
        inside = [c for c in recording.calls() if c.name.startswith(f"{parent}.") and not c.children]
        if all(any(u.start <= c.start and c.end <= u.end for u in group.calls) for c in inside):
            return parent
    return names[0] or "network"
