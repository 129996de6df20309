"""Whether a chain computes what its network computes, found without the chain's own verification.

The network's own forward, as its authors wrote it, is run beside the chain's parts; what it gives just before
its old output layer is caught by a hook. Where single precision is too noisy to tell, the same is asked in
double precision of a copy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch
from modes import buffers_kept, only_trainable, training, without_recurrent_dropout
from moments import Moments
from torch import Tensor, nn

from topgraft.chain import Chain, Segment, State

ACTIVATION = (1e-5, 1e-12)
"""Largest difference relative to the activation's scale, in single and in double precision."""
GRADIENT = (1e-4, 1e-9)
"""The same for gradients."""
LEAST_GRADIENT = 1e-6
"""A gradient below this share of the largest one of the network is rounding: its own scale says nothing."""
CUTS_WITH_GRADIENTS = 4
"""At how many cuts, spread over the chain, gradients are compared if not at all."""
CHECKS = ("equal", "output", "alone", "twice", "gradients", "padded")


@dataclass
class Found:
    """What the checks of one chain came to.

    Parameters
    ----------
    largest
        Per check the largest difference that counted (in double precision where that had to decide).
    doubled
        Checks that double precision decided, with the number of cuts.
    wrong
        What does not hold, one line each.
    trained
        Cuts at which gradients were compared.
    """

    largest: dict[str, float] = field(default_factory=dict)
    doubled: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)


@dataclass
class Subject:
    """A network beside the chain that was made of it."""

    network: nn.Module
    chain: Chain
    inputs: Mapping[str, Any]
    padded: Mapping[str, Any] | None = None
    _parts: dict[int, tuple[Segment, Segment]] = field(default_factory=dict, repr=False)

    def parts(self, cut: int) -> tuple[Segment, Segment]:
        """``chain[:cut]`` and ``chain[cut:]`` in eval mode; those of the last cut asked for are kept."""
        if cut not in self._parts:
            self._parts.clear()
            self._parts[cut] = (self.chain[:cut].eval(), self.chain[cut:].eval())
        return self._parts[cut]

    def in_double(self) -> Subject:
        """A copy in double precision; the network and the chain share parameters there too."""
        network, inside = copy.deepcopy((self.network, self.chain.network))
        network.double(), inside.double()
        chain = of_network(self.chain, inside)
        padded = None if self.padded is None else mapped(self.padded, as_double)
        return Subject(network, chain, mapped(self.inputs, as_double), padded)


def of_network(chain: Chain, network: nn.Module) -> Chain:
    """The same cuts of a copy of the chain's network."""
    other = copy.copy(chain)
    other.network = network
    return other


def as_double(tensor: Tensor) -> Tensor:
    """The tensor in double precision, whole numbers as they are."""
    return tensor.double() if tensor.is_floating_point() else tensor


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nesting of dictionaries with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    return {key: mapped(item, change) for key, item in value.items()}


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor inside what a network gives or takes."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (Mapping, tuple, list)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from tensors(item)


def fresh(inputs: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Other inputs of the same kind, one example more.

    Numbers are shuffled over all places and, where there are negative ones, given the other sign; whole
    numbers (tokens and their masks belong together) change their places in the batch.
    """
    dice = torch.Generator().manual_seed(seed)

    def change(tensor: Tensor) -> Tensor:
        rows = [len(tensor) - 1, *range(len(tensor))]
        if not tensor.is_floating_point():
            return tensor[rows]
        order = torch.randperm(tensor.numel(), generator=dice)
        sign = -1 if bool((tensor < 0).any()) else 1
        shuffled = sign * tensor.flatten()[order].view(tensor.shape)
        more = shuffled[-1:].flatten().flip(0).view(shuffled[-1:].shape)
        return torch.cat([more, shuffled])

    return mapped(inputs, change)


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference relative to the scale of ``b``; infinite where it can't be told."""
    if a.shape != b.shape:
        if len(a) != len(b) or a.numel() != b.numel():
            return inf
        a, b = a.flatten(1), b.flatten(1)  # a pooled map is given before it is made flat
    if b.numel() == 0 or torch.equal(a, b):
        return 0.0 if bool(torch.isfinite(b).all()) else inf
    gap = float((a.double() - b.double()).abs().max())
    scale = float(b.double().abs().max())
    return gap / scale if gap < inf and 0 < scale < inf else inf


def states_apart(a: State, b: State) -> float:
    """The largest difference between the activations of two states."""
    if len(a.tensors) != len(b.tensors):
        return inf
    return max(difference(x, y) for x, y in zip(a.tensors, b.tensors, strict=True))


def whole_run(subject: Subject, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """What the network gives before its old output layer (if it has none, its output), and its output.

    Where several output layers read different parts of one activation, that activation is caught.
    """
    point = subject.chain.anatomy.output
    if point is None:
        output = next(tensors(subject.network(**inputs)))
        return output, output
    place = point.places[0][0]
    entered: list[Tensor] = []
    left: list[Any] = []
    layer = subject.network.get_submodule(point.module)
    hooks = [layer.register_forward_pre_hook(lambda _module, given: entered.append(given[0]))]
    if place.when == "exit":
        source = subject.network.get_submodule(place.module)
        hooks.append(source.register_forward_hook(lambda _module, _given, result: left.append(result)))
    try:
        output = next(tensors(subject.network(**inputs)))
    finally:
        for hook in hooks:
            hook.remove()
    before = entered[point.nth - 1]
    if left and isinstance(whole := left[place.nth - 1], Tensor) and whole.numel() > before.numel():
        before = place.stored(whole)
    return before, output


def check(
    subject: Subject, *, all_gradients: bool = False, say: Callable[[str], None] = lambda _: None
) -> Found:
    """Every promise at every cut."""
    found = Found()
    given = fresh(subject.inputs, 1)
    count = len(subject.chain)
    places = range(1, count + 1)
    can_train = [cut for cut in places if parameters_after(subject.chain, cut)]
    found.trained = can_train if all_gradients else spread(can_train, CUTS_WITH_GRADIENTS)
    double: Subject | None = None

    def settle(cut: int, name: str, gap: float, limits: tuple[float, float]) -> None:
        nonlocal double
        limit, said = limits[0], f"{gap:.1e}"
        if gap > limit:
            double = double or subject.in_double()
            limit, gap = limits[1], MEASURES[name](double, cut, mapped(given, as_double))
            said += f", in double precision {gap:.1e}"
            found.doubled[name] = found.doubled.get(name, 0) + 1
        if gap > limit:
            found.wrong.append(f"cut {cut} ({subject.chain.blocks[cut - 1].name}), {name}: differs by {said}")
        found.largest[name] = max(found.largest.get(name, 0.0), gap)

    for cut in places:
        say(f"cut {cut} of {count}")
        for name in CHECKS:
            if (name == "gradients" and cut not in found.trained) or (
                name == "padded" and subject.padded is None
            ):
                continue
            if name == "output" and cut not in (1, count):
                continue
            limits = GRADIENT if name == "gradients" else (0.0, 0.0) if name == "twice" else ACTIVATION
            try:
                settle(cut, name, MEASURES[name](subject, cut, given), limits)
            except Exception as error:  # noqa: BLE001 (whatever a part of the chain raises is a finding)
                block = subject.chain.blocks[cut - 1].name
                found.wrong.append(f"cut {cut} ({block}), {name}: {type(error).__name__}: {str(error)[:300]}")
    return found


def spread(cuts: list[int], most: int) -> list[int]:
    """Up to ``most`` of the cuts, the first and the last among them."""
    if len(cuts) <= most:
        return cuts
    return [cuts[round(i * (len(cuts) - 1) / (most - 1))] for i in range(most)]


@torch.no_grad()
def equal(subject: Subject, cut: int, given: Mapping[str, Any]) -> float:
    """How far the rest of the chain, run from the state, is from the network.

    Other examples run through the first part before the state is used: nothing but the state may be carried.
    """
    first, rest = subject.parts(cut)
    state = first(given)
    first(fresh(given, 2))
    return difference(rest(state), whole_run(subject, given)[0])


@torch.no_grad()
def output(subject: Subject, cut: int, given: Mapping[str, Any]) -> float:
    """The same with the old output layer."""
    state = subject.parts(cut)[0](given)
    chain = subject.chain
    rest = chain.anatomy.segment(chain.network, cut, None, whole=True).eval()
    return difference(rest(state), whole_run(subject, given)[1])


@torch.no_grad()
def alone(subject: Subject, cut: int, given: Mapping[str, Any]) -> float:
    """How far the activations of an example are from those of the same in a batch, for two examples."""
    part, _ = subject.parts(cut)
    batch = part(given)
    gaps = []
    for row in (0, len(batch) - 1):
        own = part(mapped(given, lambda t, row=row: t[row : row + 1]))
        gaps.append(states_apart(own, batch.map(lambda t, row=row: t[row : row + 1])))
    return max(gaps)


@torch.no_grad()
def twice(subject: Subject, cut: int, given: Mapping[str, Any]) -> float:
    """How far two runs are from each other."""
    part, _ = subject.parts(cut)
    before = part(given).map(torch.clone)
    part(fresh(given, 2))
    return states_apart(part(given), before)


@torch.no_grad()
def padded(subject: Subject, cut: int, _given: Mapping[str, Any]) -> float:
    """How far the activations of real steps are from those of the same with more padding."""
    assert subject.padded is not None
    part, _ = subject.parts(cut)
    short, long = part(subject.inputs), part(subject.padded)
    masks = [t for n, t in subject.inputs.items() if "mask" in n and t.ndim == 2 and set(t.shape[1:]) - {1}]
    real = masks[0].bool() if masks else None
    pairs = zip(short.tensors, long.tensors, strict=True)
    return max(difference(*real_steps(a, b, real)) for a, b in pairs)


def real_steps(a: Tensor, b: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
    """Two activations without what stands for padding: the longer one shortened, the rest set to 0."""
    grown = [axis for axis in range(1, a.ndim) if a.shape[axis] < b.shape[axis]]
    for axis in grown:
        b = b.narrow(axis, 0, a.shape[axis])
        if real is None:
            continue
        if a.shape[axis] == real.shape[1]:
            counts = real
        else:  # shortened by strided layers: of the last steps some see padding
            kept = (real.sum(1) * a.shape[axis] // real.shape[1]).clamp(min=1)
            counts = torch.arange(a.shape[axis])[None] < kept[:, None]
        sizes = [len(real) if i == 0 else a.shape[axis] if i == axis else 1 for i in range(a.ndim)]
        a, b = (t.masked_fill(~counts.reshape(sizes), 0) for t in (a, b))
    return a, b


def gradients(subject: Subject, cut: int, given: Mapping[str, Any]) -> float:
    """How far gradients of what comes after the cut are from those of the whole network.

    What comes before is frozen and in eval mode, what comes after trains; dropout draws from the same seed.
    Modules that are entered before the cut and left after it (the network itself) stay in eval mode.
    """
    chain = subject.chain
    after = Moments.of(chain.network, given).names_after(chain.network, chain.points[cut - 1])
    mine = parameters_after(chain, cut)
    first, rest = subject.parts(cut)
    with torch.no_grad():
        state = first(given)
    with only_trainable(subject.network, mine), without_recurrent_dropout(subject.network, rest.network):
        with buffers_kept(subject.network), training(rest.network, after):
            ours = gradients_of(lambda: rest(state), mine)
        with buffers_kept(subject.network), training(subject.network, after):
            theirs = gradients_of(lambda: whole_run(subject, given)[0], mine)
    largest = max((float(g.abs().max()) for g in theirs if g is not None and g.numel()), default=0.0)
    if largest == 0.0 and any(g is not None for g in theirs):
        return inf
    return max(_gradient_gap(a, b, largest) for a, b in zip(ours, theirs, strict=True))


def parameters_after(chain: Chain, cut: int) -> list[nn.Parameter]:
    """The parameters that belong to what comes after a cut and before the old output layer."""
    owners, before_output = chain.owner_of(), len(chain) + 1
    named = chain.network.named_parameters()
    return [p for n, p in named if cut < owners.get(n, 0) <= before_output and p.is_floating_point()]


def _gradient_gap(ours: Tensor | None, theirs: Tensor | None, largest: float) -> float:
    if ours is None or theirs is None:
        other = ours if theirs is None else theirs
        return 0.0 if other is None or float(other.abs().max()) <= LEAST_GRADIENT * largest else inf
    scale = max(float(theirs.abs().max()), LEAST_GRADIENT * largest)
    gap = float((ours - theirs).abs().max())
    return gap / scale if gap < inf else inf


def gradients_of(run: Callable[[], Tensor], parameters: list[nn.Parameter]) -> tuple[Tensor | None, ...]:
    """Gradients of a fixed weighted sum of what ``run`` gives; random draws from a fixed seed."""
    torch.manual_seed(5)
    with torch.enable_grad():
        result = run()
        if not result.requires_grad:  # what is left gives further outputs (a pooler), not the first
            return (None,) * len(parameters)
        weights = torch.randn(result.numel(), generator=torch.Generator().manual_seed(6), dtype=torch.float64)
        total = (result.flatten() * weights.to(result.dtype)).sum()
        return torch.autograd.grad(total, parameters, allow_unused=True)


MEASURES: Mapping[str, Callable[[Subject, int, Mapping[str, Any]], float]] = {
    "equal": equal,
    "output": output,
    "alone": alone,
    "twice": twice,
    "gradients": gradients,
    "padded": padded,
}
