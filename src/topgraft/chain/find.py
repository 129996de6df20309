"""Find the blocks of a network: the elements of its own lists of blocks, and what stands before and after."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from topgraft.chain.nesting import tensors_in
from topgraft.chain.record import Call, Recording
from topgraft.chain.recurrent import Layered

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, Layered)
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
    output_layers: list[Call]


def has_parameters(module: nn.Module) -> bool:
    """Whether the module or one inside it has a parameter."""
    return next(module.parameters(), None) is not None


def _elements(container: nn.Module) -> Iterable[nn.Module]:
    for child in container.children():
        if isinstance(child, _CONTAINERS):
            yield from _elements(child)
        else:
            yield child


_LISTS = ("block", "layer", "cell", "transformer", "stage", "encoder", "branches")
"""What networks call their lists of blocks."""


def _is_named_as_list(name: str) -> bool:
    return any(word in name.casefold() for word in _LISTS)


def _is_list_of_blocks(name: str, container: nn.Module) -> bool:
    """Whether a container is called a list of blocks and is not one block, a sequence of its parts."""
    if not _is_named_as_list(name):
        return False
    kinds = {type(child) for child in container.children() if has_parameters(child)}
    return not isinstance(container, nn.Sequential) or name.casefold() not in _LISTS or len(kinds) == 1


def _is_composite(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def _is_block(module: nn.Module) -> bool:
    """Whether a module has two layers with weights at least, as residual and attention blocks have."""
    weights = [
        m for m in module.modules() if any(p.ndim > 1 for p in m._parameters.values() if p is not None)
    ]
    return len(weights) > 1


def holds_blocks(module: nn.Module) -> bool:
    """Whether a list of blocks hangs below, or children that are numbered like one.

    The list is called one (``blocks``, ``layers``), or its elements are modules with parts, all of one class.

    Examples
    --------
    >>> from torch import nn
    >>> layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    >>> holds_blocks(nn.TransformerEncoder(layer, 2)), holds_blocks(layer)
    (True, False)
    """
    for name, child in module.named_children():
        if isinstance(child, _CONTAINERS):
            elements = [e for e in _elements(child) if has_parameters(e)]
            composite = [e for e in elements if _is_composite(e)]
            if composite and (_is_list_of_blocks(name, child) or len({type(e) for e in elements}) == 1):
                return True
        elif holds_blocks(child):
            return True
    return _holds_numbered(module)


def _holds_numbered(module: nn.Module) -> bool:
    """Whether several children are blocks of one class that differ by a number (``b1``, ``b2``)."""
    numbered: dict[tuple[str, type], int] = {}
    for name, child in module.named_children():
        if (stem := name.rstrip("0123456789")) != name and not isinstance(child, _CONTAINERS):
            numbered[stem, type(child)] = numbered.get((stem, type(child)), 0) + _is_block(child)
    return any(count > 1 for count in numbered.values())


def holds_named_blocks(module: nn.Module) -> bool:
    """Whether a list hangs below that is called one of blocks, and holds such."""
    return any(
        (
            isinstance(child, _CONTAINERS)
            and _is_list_of_blocks(name, child)
            and any(_is_block(e) for e in _elements(child))
        )
        or holds_named_blocks(child)
        for name, child in module.named_children()
    )


def units(call: Call, root: nn.Module, output_layers: Sequence[str] = ()) -> list[Call]:
    """The calls that a chain is made of: lists are opened, and so is what holds a list of blocks.

    An element of a list (or of a row of blocks of one class) is opened only if it holds a list that is called
    one of blocks: other lists inside blocks are their branches.
    """
    holds_output = any(name.startswith(f"{call.name}.") for name in output_layers)
    is_container = isinstance(call.module, _CONTAINERS)
    is_element = call.name and (
        _is_listed(call, root) or _is_numbered(call.name, root) or _is_one_of_a_row(call.name, root)
    )
    holds = holds_named_blocks if is_element else holds_blocks
    if call.children and (not call.name or holds_output or is_container or holds(call.module)):
        return [unit for child in call.children for unit in units(child, root, output_layers)]
    return [call]


def find_output_layers(recording: Recording, asked: str | None) -> list[str]:
    """Names of the old output layer, or of several whose outputs are taken together.

    As asked (``""`` says that there is none); else the linear layers from which alone the network's output is
    made, by functions without parameters (a softmax, the mean over two heads).
    """
    if asked is not None:
        return [asked] if asked else []
    output = next(iter(recording.root.left.values()), None)
    if output is None or len(recording.flow.values[output].shape) != 2:
        return []
    made_by: dict[int, Call] = {}
    for call in recording.calls():
        if isinstance(call.module, _OUTPUT_LAYERS) and not call.children:
            made_by |= dict.fromkeys(call.left.values(), call)
    found: dict[str, Call] = {}
    todo, seen = [output], set[int]()
    while todo:
        number = todo.pop()
        value = recording.flow.values[number]
        if number in seen:
            continue
        seen.add(number)
        if number in made_by:
            found[made_by[number].name] = made_by[number]
        elif (
            value.reads or not value.made_from or value.shape[-1:] != recording.flow.values[output].shape[-1:]
        ):
            return []
        else:
            todo += value.made_from
    given = [v for call in found.values() for v in call.entered.values()]
    if any(v in made_by and made_by[v].name in found for v in recording.flow.ancestors(given)):
        return []  # one of them goes by what another gives
    names = sorted(found, key=lambda name: found[name].start)
    with_parameters = [c for c in recording.calls() if has_parameters(c.module) and not c.children]
    last = {c.name for c in with_parameters if names and c.start >= found[names[0]].start}
    return names if last == set(names) else []


def is_listed_block(call: Call, root: nn.Module) -> bool:
    """Whether a call's module is one of a list that the network calls its blocks, layers or cells.

    So is one of those that are numbered side by side (``cell_0``, ``cell_1``), and one of several alike in a
    list of any name that hangs in no such block.

    Examples
    --------
    An element of ``stages.1.blocks`` is, one of ``mixer.conv_kxk`` is not, nor is a plain layer.
    """
    owner = call.name.rpartition(".")[0]
    if owner and isinstance(root.get_submodule(owner), Layered):
        return True
    if not _is_block(call.module):
        return False
    if _is_named_block(call.name, root):
        return True
    parts = owner.split(".") if owner else []
    if any(_is_named_block(".".join(parts[:n]), root) for n in range(1, len(parts) + 1)):
        return False
    if _is_listed(call, root):
        beside = _elements(root.get_submodule(_name_of_list(owner)))
        return sum(type(other) is type(call.module) for other in beside) > 1
    return _is_numbered(call.name, root)


def ends_sequence(call: Call, root: nn.Module) -> bool:
    """Whether a call is the last of a sequence of layers that is one of several in the network's own list.

    So is the activation function in ``layers = ModuleList(Sequential(conv, norm, relu), ...)``, where the
    list is a child of the network itself: what a dense network's forward loops over.
    """
    parts = call.name.split(".")
    if len(parts) != 3 or not _is_named_as_list(parts[0]):
        return False
    own_list, sequence = root.get_submodule(parts[0]), root.get_submodule(".".join(parts[:2]))
    if not isinstance(own_list, nn.ModuleList) or not isinstance(sequence, nn.Sequential):
        return False
    alike = [other for other in own_list if isinstance(other, nn.Sequential) and has_parameters(other)]
    return (
        len(alike) > 1 and has_parameters(sequence) and parts[2] == list(dict(sequence.named_children()))[-1]
    )


def _name_of_list(owner: str) -> str:
    """Of the list that an element's owner belongs to: lists in a list have numbers for names."""
    parts = owner.split(".")
    while parts and parts[-1].isdigit():
        parts.pop()
    return ".".join(parts)


def _is_numbered(name: str, root: nn.Module) -> bool:
    """Whether a module is one of several of a class that are called blocks and differ by a number."""
    owner, _, own = name.rpartition(".")
    stem, module = own.rstrip("0123456789"), root.get_submodule(name)
    if stem == own or not _is_named_as_list(stem) or not _is_block(module):
        return False
    beside = (
        child for n, child in root.get_submodule(owner).named_children() if n.rstrip("0123456789") == stem
    )
    return sum(type(child) is type(module) for child in beside) > 1


_ROW = 3
"""So many blocks of one class side by side are a list, whatever they are called."""


def _is_one_of_a_row(name: str, root: nn.Module) -> bool:
    """Whether a module is one of several blocks of a class side by side (``inception3a``, ``3b``)."""
    module = root.get_submodule(name)
    if isinstance(module, _CONTAINERS) or not _is_block(module) or _holds_numbered(module):
        return False  # a stage of blocks that are numbered themselves is none of them
    beside = root.get_submodule(name.rpartition(".")[0]).children()
    return sum(type(child) is type(module) for child in beside) >= _ROW


def _is_named_block(name: str, root: nn.Module) -> bool:
    """Whether a module is an element of a list that is called one of blocks."""
    owner = name.rpartition(".")[0]
    if not owner or not isinstance(root.get_submodule(owner), _CONTAINERS):
        return False
    listed = _name_of_list(owner)
    is_named = _is_list_of_blocks(listed.rpartition(".")[2], root.get_submodule(listed))
    return is_named and _is_block(root.get_submodule(name))


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
    names = find_output_layers(recording, output_layer)
    calls = units(recording.root, recording.root.module, names)
    out = next((i for i, c in enumerate(calls) if c.name in names), len(calls))
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
    return Layout(groups, waiting, [c for c in calls[out:] if c.name in names])


def block_name(group: Group, recording: Recording) -> str:
    """The name that the block has in the network.

    That of the last block of the network's own lists in it, if there is one; else that of its first part
    with parameters (``conv_stem`` for ``conv_stem`` and ``bn1``), or of the list that
    holds just its parts (``features.0`` for ``features.0.0`` and ``features.0.1``).
    """
    root = recording.root.module
    if listed := [c.name for c in group.calls if is_listed_block(c, root)]:
        return listed[-1]
    names = [c.name for c in group.calls if has_parameters(c.module)] or [group.calls[0].name]
    parents = {n.rpartition(".")[0] for n in names}
    if len(names) > 1 and len(parents) == 1 and (parent := parents.pop()):
        inside = [c for c in recording.calls() if c.name.startswith(f"{parent}.") and not c.children]
        if all(any(u.start <= c.start and c.end <= u.end for u in group.calls) for c in inside):
            return parent
    return names[0] or "network"
