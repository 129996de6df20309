"""Whether a chain computes what its network computes, found without the chain's own verification.

The network's own forward, as its authors wrote it, is run beside the chain's parts; what it gives just before
its old output layer is caught by a hook. Where single precision is too noisy to tell, the same is asked in
double precision of a copy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import Any

import torch
from modes import buffers_kept, only_trainable, training, without_recurrent_dropout
from moments import Moments
from torch import Tensor, nn

from topgraft.chain import Chain, State

ACTIVATION = (1e-5, 1e-12)
"""Largest difference relative to the activation's scale, in single and in double precision."""
GRADIENT = (1e-4, 1e-9)
"""The same for gradients."""
LEAST_GRADIENT = 1e-6
"""A gradient below this share of the largest one of the network is rounding: its own scale says nothing."""
CUTS_WITH_GRADIENTS = 4
"""At how many cuts, spread over the chain, gradients are compared if not at all."""


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
    in_eval
        Those of them where the network itself can't be compared in train mode, so that it was in eval mode.
    """

    largest: dict[str, float] = field(default_factory=dict)
    doubled: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)
    in_eval: list[int] = field(default_factory=list)


@dataclass
class Subject:
    """A network beside the chain that was made of it."""

    network: nn.Module
    chain: Chain
    inputs: Mapping[str, Any]
    padded: Mapping[str, Any] | None = None

    def in_double(self) -> Subject:
        """A copy in double precision; the network and the chain share parameters there too."""
        network, inside = copy.deepcopy((self.network, self.chain.network))
        network.double(), inside.double()
        chain = of_network(self.chain, inside)
        padded = None if self.padded is None else mapped(self.padded, as_double)
        return Subject(network, chain, mapped(self.inputs, as_double), padded)


class At:
    """One cut of a subject, and runs of both parts and of the whole network that several checks look at.

    Parameters
    ----------
    subject
        The network and its chain.
    cut
        Counted from 1.
    given
        Inputs.
    whole
        What the whole network gives for them, see :func:`whole_run`.
    """

    def __init__(
        self, subject: Subject, cut: int, given: Mapping[str, Any], whole: tuple[Tensor, Tensor]
    ) -> None:
        self.subject, self.cut, self.given, self.whole = subject, cut, given, whole
        self.in_eval = False
        self.first, self.rest = subject.chain[:cut].eval(), subject.chain[cut:].eval()

    @cached_property
    def state(self) -> State:
        """The state at the cut."""
        with torch.no_grad():
            return self.first(self.given).map(torch.clone)

    @cached_property
    def alone(self) -> list[tuple[int, State]]:
        """The states of the first and the last example alone, by their rows in the batch."""
        with torch.no_grad():
            rows = (0, len(self.state) - 1)
            return [(i, self.first(mapped(self.given, lambda t, i=i: t[i : i + 1]))) for i in rows]


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


def whole_at(subject: Subject, given: Mapping[str, Any]) -> Callable[[int], At]:
    """The cuts of a subject, with one run of the whole network for all of them."""
    subject.network.eval()
    with torch.no_grad():
        whole = whole_run(subject, given)
    return lambda cut: At(subject, cut, given, whole)


def check(
    subject: Subject, *, all_gradients: bool = False, say: Callable[[str], None] = lambda _: None
) -> Found:
    """Every promise at every cut."""
    found = Found()
    given = fresh(subject.inputs, 1)
    count = len(subject.chain)
    can_train = [cut for cut in range(1, count + 1) if parameters_after(subject.chain, cut)]
    found.trained = can_train if all_gradients else spread(can_train, CUTS_WITH_GRADIENTS)
    single = whole_at(subject, given)
    double: Callable[[int], At] | None = None

    def settle(name: str, at: At) -> str:
        nonlocal double
        limit, limit_in_double = LIMITS.get(name, ACTIVATION)
        gap = MEASURES[name](at)
        said = f"differs by {gap:.1e}"
        if gap > limit:
            double = double or whole_at(subject.in_double(), mapped(given, as_double))
            limit, gap = limit_in_double, MEASURES[name](double(at.cut))
            said += f", in double precision {gap:.1e}"
            found.doubled[name] = found.doubled.get(name, 0) + 1
        found.largest[name] = max(found.largest.get(name, 0.0), gap)
        return said if gap > limit else ""

    for cut in range(1, count + 1):
        say(f"cut {cut} of {count}")
        at = single(cut)
        asked = {
            "gradients": cut in found.trained,
            "padded": subject.padded is not None,
            "output": cut in (1, count),
        }
        for name in MEASURES:
            if not asked.get(name, True):
                continue
            try:
                problem = settle(name, at)
            except Exception as error:  # noqa: BLE001 (whatever a part of the chain raises is a finding)
                problem = f"{type(error).__name__}: {str(error)[:300]}"
            if name == "gradients" and at.in_eval:
                found.in_eval.append(cut)
            if problem:
                found.wrong.append(f"cut {cut} ({subject.chain.blocks[cut - 1].name}), {name}: {problem}")
    return found


def spread(cuts: list[int], most: int) -> list[int]:
    """Up to ``most`` of the cuts, the first and the last among them."""
    if len(cuts) <= most:
        return cuts
    return [cuts[round(i * (len(cuts) - 1) / (most - 1))] for i in range(most)]


@torch.no_grad()
def alone(at: At) -> float:
    """How far the activations of an example are from those of the same in a batch, for two examples."""
    return max(states_apart(own, at.state.map(lambda t, i=i: t[i : i + 1])) for i, own in at.alone)


@torch.no_grad()
def twice(at: At) -> float:
    """How far two runs are from each other, with runs of other inputs between them."""
    assert at.state is not None
    assert at.alone
    return states_apart(at.first(at.given), at.state)


@torch.no_grad()
def equal(at: At) -> float:
    """How far the rest of the chain, run from the state, is from the network.

    Other inputs ran through the first part before the state is used: nothing but the state may be carried.
    """
    assert at.state is not None
    assert at.alone
    return difference(at.rest(at.state), at.whole[0])


@torch.no_grad()
def output(at: At) -> float:
    """The same with the old output layer."""
    chain = at.subject.chain
    rest = chain.anatomy.segment(chain.network, at.cut, None, whole=True).eval()
    return difference(rest(at.state), at.whole[1])


@torch.no_grad()
def padded(at: At) -> float:
    """How far the activations of real steps are from those of the same with more padding.

    Whole numbers in a state (which steps a sparse attention looks at) name steps of padding too: there what
    the rest of the chain makes of both states is compared.
    """
    inputs, more = at.subject.inputs, at.subject.padded
    assert more is not None
    short, long = at.first(inputs), at.first(more)
    masks = [t for n, t in inputs.items() if "mask" in n and t.ndim == 2 and set(t.shape[1:]) - {1}]
    real = masks[0].bool() if masks else None
    pairs = [(a, b) for a, b in zip(short.tensors, long.tensors, strict=True) if a.is_floating_point()]
    if len(pairs) < len(short.tensors):
        pairs.append((at.rest(short), at.rest(long)))
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


def gradients(at: At) -> float:
    """How far gradients of what comes after the cut are from those of the whole network.

    What comes before is frozen and in eval mode, what comes after trains; dropout draws from the same seed.
    Modules that are entered before the cut and left after it (the network itself) stay in eval mode, and so
    does dropout that belongs to the old output layer: a chain may end on either side of it. Where
    the whole network does not run like that, or gives other gradients the second time (it draws from a seed
    of its own), all of both is in eval mode.
    """
    inside = at.subject.chain.network
    moments = Moments.of(inside, at.given)
    after = moments.names_after(inside, at.subject.chain.points[at.cut - 1])
    after -= old_dropout(inside, moments)
    mine = parameters_after(at.subject.chain, at.cut)
    try:
        theirs = _whole_gradients(at, mine, after)
    except Exception:  # noqa: BLE001 (the network's own code may ask for anything in train mode)
        at.in_eval = True
    else:
        gap = _apart(_rest_gradients(at, mine, after), theirs)
        at.in_eval = gap > GRADIENT[0] and _apart(_whole_gradients(at, mine, after), theirs) > GRADIENT[0]
    if at.in_eval:
        return _apart(_rest_gradients(at, mine, set()), _whole_gradients(at, mine, set()))
    return gap


def old_dropout(network: nn.Module, moments: Moments) -> set[str]:
    """Names of dropout that is entered after the last layer with parameters but the very last."""
    weighty = [
        index
        for index, (name, when, _) in enumerate(moments.events)
        if when == "exit" and any(True for _ in network.get_submodule(name).parameters(recurse=False))
    ]
    since = weighty[-2] if len(weighty) > 1 else len(moments.events)
    entered = [name for name, when, _ in moments.events[since:] if when == "enter"]
    return {
        name for name in entered if isinstance(network.get_submodule(name), nn.modules.dropout._DropoutNd)
    }


def _whole_gradients(at: At, mine: list[nn.Parameter], after: set[str]) -> tuple[Tensor | None, ...]:
    network = at.subject.network
    alike = only_trainable(network, mine), without_recurrent_dropout(network, at.rest.network)
    with alike[0], alike[1], buffers_kept(network), training(network, after):
        return gradients_of(lambda: whole_run(at.subject, at.given)[0], mine)


def _rest_gradients(at: At, mine: list[nn.Parameter], after: set[str]) -> tuple[Tensor | None, ...]:
    network, rest, state = at.subject.network, at.rest, at.state
    alike = only_trainable(network, mine), without_recurrent_dropout(network, rest.network)
    with alike[0], alike[1], buffers_kept(network), training(rest.network, after):
        return gradients_of(lambda: rest(state), mine)


def _apart(ours: tuple[Tensor | None, ...], theirs: tuple[Tensor | None, ...]) -> float:
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


MEASURES: Mapping[str, Callable[[At], float]] = {
    "alone": alone,
    "twice": twice,
    "equal": equal,
    "output": output,
    "gradients": gradients,
    "padded": padded,
}
LIMITS = {"gradients": GRADIENT, "twice": (0.0, 0.0)}
"""Where they are not those of activations."""
