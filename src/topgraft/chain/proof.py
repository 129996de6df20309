"""The proof of a cut: the rest of the network, run from the state, computes the same."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from topgraft.chain.anatomy import anatomy
from topgraft.chain.find import Layout
from topgraft.chain.gradients import gradients_apart
from topgraft.chain.pair import Pair
from topgraft.chain.point import Dim, Point
from topgraft.chain.record import evaluating
from topgraft.chain.state import Inputs, State
from topgraft.errors import RunningError, is_out_of_memory

TOLERANCE = 1e-5
"""Largest difference, relative to the output's scale, at which two runs count as equal in fp32."""
TOLERANCE_FP64 = 1e-12
"""The same in fp64, asked where fp32 is too noisy to tell."""

GRADIENTS = 1e-4
"""Largest difference of gradients, relative to the largest gradient, that counts as equal in fp32."""
GRADIENTS_FP64 = 1e-9
"""The same in fp64, asked where fp32 is too noisy to tell."""
PADDING = 4
"""Steps of padding that are added to see whether they matter."""
MOST_TRIED = 6
"""A state of more activations than this is not tried without each of them: it would take long."""


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference between two tensors, relative to the larger scale; infinite for not-a-numbers.

    Examples
    --------
    >>> difference(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]))
    0.2
    """
    if a.shape != b.shape:
        return inf
    if a.numel() == 0:
        return 0.0
    scale = max(float(a.abs().max()), float(b.abs().max()))
    gap = float((a.double() - b.double()).abs().max())
    if gap == 0.0:
        return 0.0
    return gap / scale if gap < inf and scale > 0 else inf


@dataclass
class Runs:
    """The states at every candidate cut, from runs of the whole network."""

    batch: dict[Point, State]
    again: dict[Point, State]
    alone: dict[Point, State]
    output: Tensor
    every: Sequence[Point] = ()
    padded: dict[Point, State] | None = None


def states(
    pair: Pair, found: Layout, points: Sequence[Point], inputs: Inputs
) -> tuple[dict[Point, State], Tensor]:
    """The state at every point, each copied before the network can change it in place, and the output."""
    states: dict[Point, State] = {}
    whole = anatomy(pair, found, points).segment(pair.network, 0, None, whole=True)
    with torch.no_grad(), evaluating(whole):
        output = whole(inputs, tap=lambda k, s: states.__setitem__(points[k - 1], s.map(torch.clone)))
    return states, output


def proof(pair: Pair, found: Layout, point: Point, runs: Runs) -> tuple[float, str]:
    """How far the rest of the network, run from the state, is from the network's output; why it failed."""
    try:
        rest = anatomy(pair, found, [point]).segment(pair.network, 1, None, whole=True)
        with torch.no_grad(), evaluating(rest):
            got = rest(runs.batch[point])
    except Exception as error:  # noqa: BLE001 (the network's own code may fail in any way: that is the finding)
        _unless_out_of_memory(error)
        return inf, f"the rest of the network does not run from here ({type(error).__name__}: {error})"
    gap = difference(got, runs.output)
    return gap, "more than one activation crosses here" if gap == inf else f"the output differs by {gap:.1e}"


def check(pair: Pair, found: Layout, point: Point, runs: Runs, *, gradients: bool) -> tuple[float, str]:
    """The difference at a cut; infinite, with the reason, if the cut does not hold."""
    if any(point not in some for some in (runs.batch, runs.again, runs.alone)):
        return inf, "another run does not pass the same functions on its way here"
    gap, why = proof(pair, found, point, runs)
    if gap > TOLERANCE:
        return gap, why
    if why := _why_not_reached(pair, found, point, runs):
        return inf, why
    states = runs.batch[point].tensors
    if (twice := _apart(runs.again[point].tensors, states)) > 0:
        return inf, f"two runs differ (by {twice:.1e})"
    apart = _apart(runs.alone[point].tensors, [t[:1] for t in states])
    if apart > TOLERANCE and not _equal_in_fp64(pair, found, point):
        return inf, f"an example alone differs from the same in a batch (by {apart:.1e})"
    if (apart := _padding_apart(pair, found, point, runs)) > TOLERANCE:
        return inf, f"padding changes what an example gives here (by {apart:.1e})"
    if not gradients:
        return gap, ""
    try:
        apart, where = _gradients_apart(pair, found, point, runs.batch[point])
    except Exception as error:  # noqa: BLE001 (as in proof)
        _unless_out_of_memory(error)
        return inf, f"the rest of the network can't be trained from here ({type(error).__name__}: {error})"
    if apart > GRADIENTS and not _gradients_equal_in_fp64(pair, found, point):
        said = "gradients differ from those of the whole network with its beginning frozen"
        return inf, f"{said} (by {apart:.1e} at {where})"
    return gap, ""


def _unless_out_of_memory(error: Exception) -> None:
    """A cut that could not be tried for want of memory is no finding about the network.

    Raises
    ------
    RunningError
        If that is what the error says.
    """
    if is_out_of_memory(error):
        raise RunningError(
            "There is not enough memory to prove the cuts of this network, which takes about four times its "
            f"parameters: {error}"
        ) from error


def _why_not_reached(pair: Pair, found: Layout, point: Point, runs: Runs) -> str:
    """Why the network up to a cut, run by itself, does not give the state there; nothing where it does."""
    try:
        front = anatomy(pair, found, [point]).segment(pair.network, 0, 1)
        with torch.no_grad(), evaluating(front):
            gap = _apart(front(pair.inputs).tensors, runs.batch[point].tensors)
    except Exception as error:  # noqa: BLE001 (as in proof)
        _unless_out_of_memory(error)
        return f"the beginning of the network does not run up to here ({type(error).__name__}: {error})"
    return "" if gap <= TOLERANCE else f"the beginning of the network gives something else (by {gap:.1e})"


def _gradients_equal_in_fp64(pair: Pair, found: Layout, point: Point) -> bool:
    try:
        return _gradients_apart(*_doubled(pair, found, point))[0] <= GRADIENTS_FP64
    except RuntimeError as error:  # a function that fp64 lacks
        _unless_out_of_memory(error)
        return False


def _padding_apart(pair: Pair, found: Layout, point: Point, runs: Runs) -> float:
    """How much an example's own steps differ with more padding, where the network takes a mask."""
    given = runs.batch[point].inputs
    ids = given.get("input_ids")
    mask = given.get("attention_mask", None if ids is None else torch.ones_like(ids))
    if mask is None or mask.ndim != 2:
        return 0.0
    length = mask.shape[1]
    if runs.padded is None:
        longer = {
            n: torch.cat([t, torch.zeros(len(t), PADDING, *t.shape[2:], dtype=t.dtype)], 1)
            if t.shape[1:2] == (length,)
            else t
            for n, t in pair.inputs.items()
        }
        runs.padded, _ = states(pair, found, runs.every, longer)
    if point not in runs.padded:
        return inf
    real, worst = mask.bool(), 0.0
    both = zip(runs.batch[point].tensors, runs.padded[point].tensors, strict=True)
    for shape, (plain, padded) in zip(pair.state_shapes(point), both, strict=True):
        dims = shape.of_state().dims
        if any(d.length for d in dims[2:]):
            continue  # an attention map: it is made of padding too
        steps = len(dims) > 1 and dims[1] == Dim(1, length=1)
        apart = difference(plain[real], padded[:, :length][real]) if steps else difference(plain, padded)
        worst = max(worst, apart)
    return worst


def _gradients_apart(pair: Pair, found: Layout, point: Point, state: State) -> tuple[float, str]:
    body = anatomy(pair, found, [point])
    rest = body.segment(pair.network, 1, None, whole=True)
    frozen = {name for name, blocks in body.reads.items() if blocks and min(blocks) <= 1}
    return gradients_apart(pair.network, rest, frozen, pair.inputs, state)


def without_the_unused(pair: Pair, found: Layout, point: Point, runs: Runs) -> Point:
    """The point without activations that are handed on and have no say in the output (last states)."""
    for place in point.places if 1 < len(point.places) <= MOST_TRIED else ():
        if len(point.places) == 1:
            break
        fewer = replace(point, places=tuple(p for p in point.places if p is not place))
        state = runs.batch[point]
        kept = [t for t, p in zip(state.tensors, point.places, strict=True) if p is not place]
        without = replace(runs, batch={fewer: State(tuple(kept), state.inputs)})
        if proof(pair, found, fewer, without)[0] <= TOLERANCE:
            runs = replace(runs, batch=runs.batch | without.batch)
            point = fewer
    return point


def _apart(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return max(difference(x, y) for x, y in zip(a, b, strict=True))


def _doubled(pair: Pair, found: Layout, point: Point) -> tuple[Pair, Layout, Point, State]:
    """The same in fp64, where rounding can't be mistaken for a difference."""
    double = copy.copy(pair)
    double.network = copy.deepcopy(pair.network).double()
    double.inputs = {n: t.double() if t.is_floating_point() else t for n, t in pair.inputs.items()}
    states_there, _ = states(double, found, [point], double.inputs)
    return double, found, point, states_there[point]


def _equal_in_fp64(pair: Pair, found: Layout, point: Point) -> bool:
    try:
        double, _, _, batch = _doubled(pair, found, point)
    except RuntimeError as error:  # a function that fp64 lacks
        _unless_out_of_memory(error)
        return False
    alone, _ = states(double, found, [point], {n: t[:1] for n, t in double.inputs.items()})
    return _apart(alone[point].tensors, [t[:1] for t in batch.tensors]) <= TOLERANCE_FP64
