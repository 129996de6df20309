"""Two recordings of a network, of different batch sizes and lengths, and what follows from both."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from topgraft.chain.crossing import Graph
from topgraft.chain.flow import Value
from topgraft.chain.nesting import changed, flattened, nested, rebuilt, take
from topgraft.chain.point import Dim, Place, Point, Shape
from topgraft.chain.pruning import Skip
from topgraft.chain.record import Call, Recording, evaluating, record
from topgraft.chain.state import Inputs
from topgraft.errors import TopgraftError


class Pair:
    """Two recordings of a network, of different batch sizes and lengths, and what follows from both."""

    def __init__(self, network: nn.Module, inputs: Inputs) -> None:
        grown = _grown(inputs)
        self.network = network
        self.inputs = inputs
        try:
            with torch.no_grad(), evaluating(network):
                network(**nested(inputs))  # what a first run alone makes (tables of positions) is made now
            self.first, self.second = record(network, inputs), record(network, grown)
        except TopgraftError:
            raise
        except Exception as error:
            given = ", ".join(f"{n} {tuple(t.shape)}" for n, t in inputs.items())
            raise TopgraftError(f"{type(network).__name__} does not run on {given}: {error}") from error
        if [c.name for c in self.first.calls()] != [c.name for c in self.second.calls()]:
            raise TopgraftError(_says_where_it_forks(network, self.first))
        self.sizes = (_batch_and_length(inputs), _batch_and_length(grown))
        self.input_shapes = {name: self.shape(t, grown[name]) for name, t in inputs.items()}
        self.twin = {id(a): b for a, b in zip(self.first.calls(), self.second.calls(), strict=True)}
        self._keys = _keys(self.first)
        twins = zip(_keys(self.second), self.second.flow.values, strict=True)
        self._twins: dict[Any, Value] = dict(twins)
        output = next(iter(self.first.root.left.values()), None)
        if output is None:
            raise TopgraftError(f"{type(network).__name__} gives no tensor that depends on its inputs")
        self.shared = _shared(network)
        self.graph = Graph(self.first, output, self.of_value)
        self.skips: dict[int, Skip] = {}
        """What stands for a call where it is left out, by its number; as it is asked for."""

    def shape(self, first: Tensor | Value, second: Tensor | Value) -> Shape:
        """The shape of a tensor that was seen in both recordings."""
        dims = tuple(self._dim(a, b) for a, b in zip(first.shape, second.shape, strict=True))
        return Shape(dims, first.dtype)

    def of_value(self, number: int) -> Shape:
        """The shape of a value."""
        twin = self._twins.get(self._keys[number])
        value = self.first.flow.values[number]
        if twin is None or len(twin.shape) != len(value.shape):
            return Shape((), value.dtype)  # it has none in the other recording: a loop over steps, say
        return self.shape(value, twin)

    def _dim(self, a: int, b: int) -> Dim:
        (batch_a, length_a), (batch_b, length_b) = self.sizes
        if a == b:
            return Dim(a)
        for batch, length in ((1, 0), (0, 1), (1, 1)):
            unit_a = (batch_a if batch else 1) * (length_a if length else 1)
            unit_b = (batch_b if batch else 1) * (length_b if length else 1)
            if a % unit_a == 0 and a // unit_a * unit_b == b:
                return Dim(a // unit_a, batch, length)
        return Dim(a)

    def shapes(self, call: Call) -> Any:
        """The shapes of what a call gives, in the same nesting."""
        return _pairwise(call.output, self.twin[id(call)].output, self.shape)

    def moment(self, point: Point) -> tuple[int, int, Call]:
        """When a point lies in the first recording, the multiply-adds until then, and its call."""
        for call in self.first.calls():
            if call.name == point.module and call.nth == point.nth:
                if point.when == "enter":
                    return call.start, call.macs_before, call
                return call.end, call.macs_after, call
        raise TopgraftError(f"this network has no module {point.module!r} that is called {point.nth} times")

    def state_shapes(self, point: Point) -> list[Shape]:
        """The shapes of the activations at a point, as the network has them."""
        return [self._shape_at(places[0]) for places in point.places]

    def must_have(self, point: Point) -> None:
        """Check that a point that was written down fits this network.

        Raises
        ------
        TopgraftError
            If it does not.
        """
        self.moment(point)
        for place in (p for places in point.places for p in places):
            try:
                fits = self._shape_at(place).batch_axis == (place.axis, place.fold)
            except (StopIteration, LookupError, TypeError):
                fits = False
            if not fits:
                raise TopgraftError(f"this network has no activation at {place.when} of {place.module!r}")
        if not point.places:
            raise TopgraftError(
                f"the cut of this network at {point.when} of {point.module!r} names no activation"
            )

    def _shape_at(self, place: Place) -> Shape:
        if place.when == "input":
            return self.input_shapes[place.module]
        call = next(c for c in self.first.calls() if (c.name, c.nth) == (place.module, place.nth))
        if place.when == "op":
            number = next(
                v.index
                for v in self.first.flow.values
                if (v.call, v.name, v.op, v.path) == (call.index, place.function, place.op, place.path)
            )
            return self.of_value(number)
        held = [
            (c.args, c.kwargs) if place.when == "enter" else c.output for c in (call, self.twin[id(call)])
        ]
        return self.shape(take(held[0], place.path), take(held[1], place.path))


def _keys(recording: Recording) -> list[tuple[Any, ...]]:
    """Per value by what it is told in another recording: its call and its place among those of its kind."""
    seen: dict[tuple[Any, ...], int] = {}
    keys = []
    for value in recording.flow.values:
        key = (value.kind, value.name, value.call, value.op, value.path)
        seen[key] = seen.get(key, 0) + 1
        keys.append((*key, seen[key]))
    return keys


def _says_where_it_forks(network: nn.Module, recording: Recording) -> str:
    lines = ", ".join(dict.fromkeys(asked.line for asked in recording.flow.asked))
    where = f" It goes by the numbers of its inputs or activations in {lines}." if lines else ""
    return (
        f"{type(network).__name__} computes otherwise for another batch, so that its blocks can't be told."
        f"{where} A network whose path is the same for every batch is needed."
    )


def by_name(network: nn.Module, example: Tensor | Inputs | Sequence[Tensor]) -> dict[str, Tensor]:
    """The example by the names of the network's own forward.

    Examples
    --------
    >>> sorted(by_name(nn.Linear(2, 1), torch.zeros(3, 2)))
    ['input']
    """
    parameters = inspect.signature(network.forward).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if isinstance(example, Mapping):
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        required = [p.name for p in parameters if p.default is p.empty and p.name in names]
        if len(required) == 1 and not takes_any and not set(example) & set(names):
            inputs = flattened({required[0]: example})
        else:
            inputs = flattened(example)
    else:
        given = [example] if isinstance(example, Tensor) else list(example)
        if len(given) > len(names):
            raise TopgraftError(
                f"{len(given)} inputs given; {type(network).__name__} takes {', '.join(names)}"
            )
        inputs = dict(zip(names, given, strict=False))
    sizes = {t.shape[0] for t in inputs.values() if t.ndim}
    if len(sizes) != 1 or min(sizes) < 2:
        shapes = ", ".join(f"{n} {tuple(t.shape)}" for n, t in inputs.items())
        raise TopgraftError(f"example: {shapes}; expected a batch of at least two examples, batch first")
    return inputs


def _batch_and_length(inputs: Inputs) -> tuple[int, int]:
    batch = int(next(iter(inputs.values())).shape[0])
    lengths = [int(t.shape[1]) for t in inputs.values() if not t.is_floating_point() and t.ndim > 1]
    return batch, lengths[0] if lengths else 1


def _grown(inputs: Inputs) -> dict[str, Tensor]:
    """Twice the examples and one more, and three steps more where inputs are sequences.

    These are whole numbers (tokens), and floats that have as many steps as the mask beside them (spectra).
    """
    mask = inputs.get("attention_mask")
    steps = mask.shape[1] if mask is not None and mask.ndim == 2 else None
    longer = {
        n: torch.cat([t, t[:, -1:].expand(-1, 3, *t.shape[2:])], 1)
        if t.ndim > 1 and (not t.is_floating_point() or (t.ndim == 3 and t.shape[1] == steps))
        else t
        for n, t in inputs.items()
    }
    return {n: torch.cat([t, t, t[:1]]) for n, t in longer.items()}


def _pairwise(a: Any, b: Any, shape: Any) -> Any:
    if isinstance(a, Tensor):
        return shape(a, b)
    if isinstance(a, Mapping):
        return changed(a, {key: _pairwise(item, b[key], shape) for key, item in a.items()})
    if isinstance(a, (tuple, list)):
        return rebuilt(a, [_pairwise(x, y, shape) for x, y in zip(a, b, strict=True)])
    return a


def _shared(network: nn.Module) -> dict[str, str]:
    """Per further name of a parameter or buffer that has several: the name under which its reads stand."""
    first = {id(t): name for name, t in (*network.named_parameters(), *network.named_buffers())}
    every = (
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    )
    return {name: first[id(t)] for name, t in every if first[id(t)] != name}
