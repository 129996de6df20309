from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from topgraft.chain import Chain
from topgraft.chain.crossing import CannotCross, Crossed
from topgraft.chain.pair import Pair, by_name
from topgraft.chain.point import Place

WIDTH = 3
INPUT = -1
"""In place of the number of a step: the network's input."""


@dataclass(frozen=True)
class Step:
    """One step of a random network: a layer, or a function of what earlier steps gave."""

    kind: str
    sources: tuple[int, ...]


FUNCTION_OF = {"cat": "cat", "relu": "relu", "shape": "ones_like", "add": "add"}
"""What the kinds of steps that are no layers call."""


class Program(nn.Module):
    """A network whose forward follows a list of steps: residual, dense and branched connections at random."""

    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        self.steps = steps
        self.widths: list[int] = []
        self.blocks = nn.ModuleDict()
        for number, step in enumerate(steps):
            sizes = [WIDTH if s == INPUT else self.widths[s] for s in step.sources]
            if step.kind == "layer":
                self.blocks[f"b{number}"] = nn.Linear(sizes[0], WIDTH)
            self.widths.append({"layer": WIDTH, "cat": sum(sizes)}.get(step.kind, min(sizes)))

    def __repr__(self) -> str:
        return f"Program({self.steps})"

    def forward(self, x: Tensor) -> Tensor:
        results: dict[int, Tensor] = {INPUT: x}
        for number, step in enumerate(self.steps):
            given = [results[s] for s in step.sources]
            if step.kind == "layer":
                results[number] = self.blocks[f"b{number}"](given[0])
            elif step.kind == "cat":
                results[number] = torch.cat(given, 1)
            elif step.kind == "relu":
                results[number] = torch.relu(given[0])
            elif step.kind == "shape":  # of its source only the shape
                results[number] = torch.ones_like(given[0])
            else:
                results[number] = torch.add(*given)
        return results[len(self.steps) - 1]


@st.composite
def programs(draw: st.DrawFn) -> Program:
    steps: list[Step] = []
    widths = {INPUT: WIDTH}
    for number in range(draw(st.integers(3, 8))):
        recent = st.sampled_from(sorted(widths)[-5:])
        kind = draw(st.sampled_from(["layer", "layer", "add", "cat", "relu", "shape"]))
        first = draw(recent)
        if kind in ("add", "cat"):
            second = draw(recent)
            if kind == "add" and widths[first] != widths[second]:
                kind = "cat"
            sources = (first, second)
        else:
            sources = (first,)
        steps.append(Step(kind, sources))
        sizes = [widths[s] for s in sources]
        widths[number] = {"layer": WIDTH, "cat": sum(sizes)}.get(kind, sizes[0])
    joined = tuple(sorted(widths)[-2:])
    steps += [Step("cat", joined), Step("layer", (len(steps),))]
    torch.manual_seed(0)
    return Program(steps).eval()


def constants(program: Program) -> set[int]:
    """Steps that follow from shapes and parameters alone."""
    found: set[int] = set()
    for number, step in enumerate(program.steps):
        if step.kind == "shape" or all(s in found for s in step.sources):
            found.add(number)
    return found


def computable(program: Program, known: set[int], later: int) -> bool:
    """Whether the output follows from ``known`` by functions, and by layers from step ``later`` on.

    Layers of constants are constants, which are made anew.
    """
    known = known | constants(program)
    grew = True
    while grew:
        before = len(known)
        for number, step in enumerate(program.steps):
            allowed = step.kind != "layer" or number >= later
            if allowed and all(s in known for s in step.sources):
                known.add(number)
        grew = len(known) > before
    return len(program.steps) - 1 in known


def step_of(program: Program, place: Place) -> int:
    """The step whose result is put in at a place, told from the place alone."""
    if place.when == "input":
        return INPUT
    if place.when == "exit":
        return int(place.module.removeprefix("blocks.b"))
    if place.when == "enter":
        return program.steps[int(place.module.removeprefix("blocks.b"))].sources[0]
    called = [n for n, step in enumerate(program.steps) if FUNCTION_OF.get(step.kind) == place.function]
    return called[place.op]


def boundaries(program: Program) -> list[tuple[Crossed | str, int]]:
    """What crosses before and after every layer, with the first step that comes later."""
    pair = Pair(program, by_name(program, torch.randn(4, WIDTH)))
    found: list[tuple[Crossed | str, int]] = []
    for call in pair.graph.calls[1:]:
        number = int(call.name.removeprefix("blocks.b"))
        for when, later in (("enter", number), ("exit", number + 1)):
            try:
                found.append((pair.graph.crossed(when, call), later))
            except CannotCross as problem:  # noqa: PERF203 (a dozen at most)
                found.append((str(problem), later))
    return found


@settings(max_examples=150, report_multiple_bugs=False)
@given(programs())
def test_the_state_at_every_boundary_is_the_smallest_set_that_is_enough(program: Program) -> None:
    for crossed, later in boundaries(program):
        size = {INPUT: WIDTH} | dict(enumerate(program.widths))
        before = [n for n in size if n < later]
        if isinstance(crossed, str):
            assert computable(program, set(), later), crossed
            continue
        state = {step_of(program, places[0]) for places in crossed.point.places}
        assert len(state) == len(crossed.values)
        assert computable(program, state, later)
        for member in state:
            assert not computable(program, state - {member}, later), member
            assert member not in constants(program)
        total = sum(size[n] for n in state)
        smaller = [
            some
            for count in range(len(before) + 1)
            for some in combinations(before, count)
            if sum(size[n] for n in some) < total and computable(program, set(some), later)
        ]
        assert smaller == []


@settings(max_examples=60)
@given(programs())
def test_chains_of_random_networks_compose_at_every_cut(program: Program) -> None:
    x = torch.randn(4, WIDTH)
    assume(any(isinstance(crossed, Crossed) for crossed, _ in boundaries(program)))
    chain = Chain.of(program, x, output_layer="", gradients=False)
    assert chain.refused == ()
    fresh = torch.randn(5, WIDTH)
    with torch.no_grad():
        wanted = program(fresh)
        for k in range(1, len(chain) + 1):
            assert torch.equal(chain[k:].eval()(chain[:k].eval()(fresh)), wanted), k


def test_views_and_masks_are_made_anew_and_what_a_block_gave_keeps_its_form() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 2, stride=2)
            self.layers = nn.ModuleList(
                nn.TransformerEncoderLayer(4, 2, 8, batch_first=True) for _ in range(2)
            )

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.conv(x).flatten(2).transpose(1, 2)
            mask = torch.zeros(tokens.shape[1], tokens.shape[1])
            for layer in self.layers:
                tokens = layer(tokens, src_mask=mask)
            return tokens.mean(1)

    chain = Chain.of(Tokens().eval(), torch.randn(3, 1, 4, 4), output_layer="")
    assert [(b.name, b.shapes) for b in chain] == [
        ("conv", ((4, 2, 2),)),
        ("layers.0", ((4, 4),)),
        ("layers.1", ((4, 4),)),
    ]


def test_a_cut_after_code_that_goes_by_numbers_is_refused_and_the_line_is_named() -> None:
    class Forks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x = self.blocks[0](x)
            x = self.blocks[1](x)
            if x.abs().sum() > 0:  # always
                x = x + 1
            return self.blocks[2](x)

    chain = Chain.of(Forks().eval(), torch.randn(4, 3), output_layer="")
    assert [b.name for b in chain] == ["blocks.0", "blocks.1"]
    assert [r.block for r in chain.refused] == ["blocks.2"]
    assert "goes by the numbers of an activation (test_chain_crossing.py, line" in chain.refused[0].reason


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_what_a_state_holds_is_needed_even_if_code_hands_more_on(kind: type[nn.RNNBase]) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = kind(3, 5, num_layers=3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            output, _ = self.layers(x)
            return output[:, -1]

    chain = Chain.of(Last().eval(), torch.randn(4, 6, 3), output_layer="")
    assert [(b.name, b.layout) for b in chain][:2] == [
        ("layers.layer0", "tokens"),
        ("layers.layer1", "tokens"),
    ]
