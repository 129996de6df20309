"""Ridge in closed form: one eigen-decomposition gives every penalty and every left-out prediction.

The narrower side is decomposed. With more examples than columns that is the ``width x width`` matrix of
products, added up chunk by chunk, so that memory does not grow with the number of examples; otherwise the
``n x n`` matrix of inner products. Both end in the same :class:`Spectrum`, and everything after it is shared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from topgraft.chunked import CHUNK, Rows, rows_at_once
from topgraft.objective import are_binary, are_numbers
from topgraft.temperature import fit_temperature

SCORED = 2**24
"""Numbers (rows x width) of the rows whose left-out predictions choose penalty and temperature: 128 MiB."""

RELATIVE_PENALTIES = tuple(10.0**e for e in range(-6, 4))
"""Penalties as multiples of the problem's mean eigenvalue, so that they mean the same at any n and width."""


@dataclass(frozen=True)
class Moments:
    """Sums over weighted examples of ``x - shift`` and of its products with itself; they add up."""

    weight: float
    total: Tensor
    product: Tensor
    shift: Tensor

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.weight + other.weight, self.total + other.total, self.product + other.product, self.shift
        )


def moments(rows: Rows, weights: Tensor, shift: Tensor) -> Moments:
    """First and second moments of ``rows`` about ``shift``, in one pass; memory ``width x width``."""
    total = torch.zeros(rows.width, dtype=torch.float64)
    product = torch.zeros(rows.width, rows.width, dtype=torch.float64)
    start = 0
    for chunk in rows.chunks():
        w = weights[start : start + len(chunk), None]
        start += len(chunk)
        away = chunk.sub_(shift)
        weighted = away * w
        total += weighted.sum(0)
        product.addmm_(weighted.T, away)
    return Moments(float(weights.sum()), total, product, shift)


@dataclass(frozen=True)
class Axes:
    """Orthonormal axes ``(width, r)`` of standardised features: ``right`` by itself, or ``left @ right``.

    Multiplied out they would cost more than all that is done with them.

    Parameters
    ----------
    right
        ``(width, r)`` float64; or ``(n, r)`` where there is a left part.
    left
        ``(width, n)`` float64.
    """

    right: Tensor
    left: Tensor | None = None

    def __matmul__(self, weights: Tensor) -> Tensor:
        """From ``(r, outputs)`` along the axes to ``(width, outputs)`` of the columns."""
        along = self.right @ weights
        return along if self.left is None else self.left @ along

    def of_columns(self, columns: Tensor) -> Tensor:
        """From ``(width, outputs)`` of the columns to ``(r, outputs)`` along the axes."""
        return self.right.T @ (columns if self.left is None else self.left.T @ columns)


@dataclass(frozen=True)
class Spectrum:
    """A standardised problem in its own axes: ``((x - mean) * inverse) @ axes`` are coordinates of ``x``.

    Parameters
    ----------
    mean, inverse
        ``(width,)`` float64: weighted mean, and emphasis over standard deviation (0 for constant columns).
    values
        ``(r,)`` float64: eigenvalues of the standardised, weighted products, ascending.
    axes
        ``(width, r)`` float64.
    own
        ``(n, r)`` float64: coordinates of the examples, where the decomposition gave them; else ``None``.
    """

    mean: Tensor
    inverse: Tensor
    values: Tensor
    axes: Axes
    own: Tensor | None = None

    def standardised(self, chunk: Tensor) -> Tensor:
        """Raw features ``(rows, width)`` float64, changed in place."""
        return chunk.sub_(self.mean).mul_(self.inverse)

    def coordinates_of(self, rows: Rows, index: Tensor | None = None) -> Tensor:
        """Of the rows ``index`` (ascending), or of all, a chunk at a time: nothing else is held of them.

        ``rows`` are those that were decomposed.
        """
        if self.own is not None:
            return self.own if index is None else self.own[index]
        count = rows.count if index is None else len(index)
        found, start = torch.empty(count, len(self.values), dtype=torch.float64), 0
        for chunk in rows.some(index):
            torch.mm(self.standardised(chunk), self.axes.right, out=found[start : start + len(chunk)])
            start += len(chunk)
        return found

    @property
    def scale(self) -> float:
        """Mean eigenvalue over those that are not nought: the unit of the penalties."""
        rank = int((self.values > 1e-9 * self.values.max().clamp_min(1e-300)).sum())
        return float(self.values.sum()) / rank if rank else 1.0


def _inverse(mean: Tensor, variance: Tensor, emphasis: Tensor | None) -> Tensor:
    """One over the standard deviation, 0 where a column is constant but for rounding."""
    deviation = variance.clamp_min(0).sqrt()
    positive = deviation[deviation > 0]
    typical = positive.median() if len(positive) else deviation.new_ones(())
    constant = deviation <= torch.maximum(1e-6 * mean.abs(), 1e-6 * typical)
    inverse = torch.where(constant, 0.0, 1 / torch.where(constant, 1.0, deviation))
    return inverse if emphasis is None else inverse * emphasis.double()


def decompose(
    rows: Rows, weights: Tensor, *, emphasis: Tensor | None = None, known: Moments | None = None
) -> Spectrum:
    """Standardise and decompose, on the narrower side.

    Parameters
    ----------
    rows
        ``n`` examples.
    weights
        ``(n,)`` float64, of sum ``n``.
    emphasis
        ``(width,)``: multiplies the standardised columns; one with ½ is penalised four times as much.
    known
        Moments of these rows, where they were added up before (only used when ``n > width``).
    """
    if rows.count > rows.width:
        if known is None:
            shift = next(iter(rows.chunks())).mean(0)
            known = moments(rows, weights, shift)
        away = known.total / known.weight
        covariance = known.product / known.weight - torch.outer(away, away)
        mean = known.shift + away
        inverse = _inverse(mean, covariance.diagonal(), emphasis)
        values, basis = torch.linalg.eigh(rows.count * covariance * torch.outer(inverse, inverse))
        return Spectrum(mean, inverse, values.clamp_min(0), Axes(basis))
    x = rows.whole()
    mean = (x * weights[:, None]).sum(0) / weights.sum()
    inverse = _inverse(mean, (weights[:, None] * (x - mean) ** 2).sum(0) / weights.sum(), emphasis)
    a = weights.sqrt()[:, None] * (x - mean) * inverse
    values, u = torch.linalg.eigh(a @ a.T)
    values = values.clamp_min(0)
    nought = values <= 1e-12 * values.max()
    values, lengths = torch.where(nought, 0.0, values), torch.where(nought, 1.0, values).sqrt()
    axes = Axes(torch.where(nought, 0.0, u / lengths), a.T)
    return Spectrum(mean, inverse, values, axes, u * values.sqrt() / weights.sqrt()[:, None])


@dataclass(frozen=True)
class Problem:
    """Ridge on one-hot targets of classes, on labels as 0 and 1, or on numbers, for every penalty at once.

    Parameters
    ----------
    spectrum
        The standardised features in their own axes.
    cross
        ``(r, outputs)``: products of the coordinates with the centred targets.
    mean
        ``(outputs,)``: weighted share of each class, or mean of the numbers.
    coordinates, targets, weights
        Of the rows whose left-out predictions are computed: all of them, or a random part where
        ``n x width`` is above :data:`SCORED`. Targets as :mod:`topgraft.objective` tells them apart.
    count
        Number ``n`` of all examples.
    """

    spectrum: Spectrum
    cross: Tensor
    mean: Tensor
    coordinates: Tensor
    targets: Tensor
    weights: Tensor
    count: int

    @property
    def classes(self) -> int:
        """Number of classes, or of outputs that are numbers."""
        return len(self.mean)

    @property
    def is_whole(self) -> bool:
        """Whether the coordinates of every example are in memory."""
        return len(self.coordinates) == self.count

    def solution(self, penalty: float) -> Tensor:
        """Ridge weights ``(r, outputs)`` in the problem's own axes; of labels see :attr:`lift`."""
        return self.lift * self.cross / (self.spectrum.values + penalty)[:, None]

    @property
    def lift(self) -> Tensor | float:
        """By how much scores of each label are multiplied, ``(labels,)``, to suit one temperature; else 1.

        The log-odds of a linear discriminant are the regression on 0 and 1 over the variance of the label
        (Fisher 1936): the rarer a label, the smaller are scores that mean the same.
        """
        if not are_binary(self.targets):
            return 1.0
        share = (self.count * self.mean + 0.5) / (self.count + 1)
        return 1 / (share * (1 - share))

    def priors(self) -> Tensor:
        """Log of each class's share, half an example added to each (Jeffreys), ``(classes,)``.

        Of several labels the log of the odds of each.
        """
        if are_binary(self.targets):
            return _log_odds(self.count * self.mean, self.count)
        return ((self.count * self.mean + 0.5) / (self.count + 0.5 * self.classes)).log()

    def priors_left_out(self) -> Tensor:
        """:meth:`priors` as they would be without each scored example, ``(rows, classes)``."""
        if are_binary(self.targets):
            held = self.targets.double() * self.weights[:, None]
            return _log_odds(self.count * self.mean - held, self.count - self.weights[:, None])
        held = _one_hot(self.targets, self.classes) * self.weights[:, None]
        rest = (self.count * self.mean - held).clamp_min(0) + 0.5
        return (rest / rest.sum(1, keepdim=True)).log()

    def residuals_left_out(self, penalty: float) -> Tensor:
        """What the ridge fitted without each scored example misses it by, ``(rows, outputs)`` float64.

        Exact (the scale of the columns held): the residual of a linear smoother left out is the residual
        over one minus the leverage (Allen 1974).
        """
        y, w, n = _values(self.targets, self.classes), self.weights[:, None], self.count
        shrunk = 1 / (self.spectrum.values + penalty)
        residual = (y - self.mean) - self.coordinates @ (self.cross * shrunk[:, None])
        width = self.coordinates.shape[1]
        squares = torch.cat([part**2 @ shrunk for part in self.coordinates.split(rows_at_once(width))])
        leverage = w * (1 / n + squares[:, None])
        return residual / (1 - leverage).clamp_min(1e-9)

    def left_out(self, penalty: float) -> Tensor:
        """Scores of each scored example by the ridge fitted without it, less that ridge's class means.

        ``(rows, classes)`` float64.
        """
        y, w, n = _values(self.targets, self.classes), self.weights[:, None], self.count
        return self.lift * (y - self.residuals_left_out(penalty) - (n * self.mean - w * y) / (n - w))


def _values(targets: Tensor, outputs: int) -> Tensor:
    """What the ridge is fitted to, ``(n, outputs)`` float64."""
    if are_numbers(targets) or are_binary(targets):
        return targets.double()
    return _one_hot(targets, outputs)


def _log_odds(held: Tensor, count: Tensor | float) -> Tensor:
    """Of labels that ``held`` of ``count`` examples have, half an example added to either side."""
    held = held.clamp_min(0)
    return ((held + 0.5) / (count - held).clamp_min(0).add(0.5)).log()


def _one_hot(targets: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(targets, classes).double()


def pose(
    rows: Rows,
    targets: Tensor,
    classes: int,
    weights: Tensor,
    *,
    emphasis: Tensor | None = None,
    known: Moments | None = None,
) -> Problem:
    """Decompose the features and take the targets along; ``classes`` is the number of outputs."""
    spectrum = decompose(rows, weights, emphasis=emphasis, known=known)
    n = rows.count
    mean = (weights[:, None] * _values(targets, classes)).sum(0) / weights.sum()
    scored = max(CHUNK, SCORED // rows.width)
    if n <= scored:
        coordinates = spectrum.coordinates_of(rows)
        cross = coordinates.T @ (weights[:, None] * (_values(targets, classes) - mean))
        return Problem(spectrum, cross, mean, coordinates, targets, weights, n)
    raw, start = torch.zeros(rows.width, classes, dtype=torch.float64), 0
    for chunk in rows.chunks():
        here = slice(start, start + len(chunk))
        start += len(chunk)
        held = weights[here, None] * (_values(targets[here], classes) - mean)
        raw.addmm_(spectrum.standardised(chunk).T, held)
    some = torch.randperm(n, generator=torch.Generator().manual_seed(0))[:scored].sort().values
    coordinates = spectrum.coordinates_of(rows, some)
    return Problem(
        spectrum, spectrum.axes.of_columns(raw), mean, coordinates, targets[some], weights[some], n
    )


@dataclass(frozen=True)
class Choice:
    """The penalty that lost least on left-out examples, and the temperature that goes with it (numbers: 1).

    ``edge`` is "low" or "high" when the penalty is the first or last of those tried.
    """

    penalty: float
    temperature: float
    loss: float
    edge: str


def choose(problem: Problem, penalties: Iterable[float] | None = None) -> Choice:
    """Penalty and temperature by the exact leave-one-out loss.

    Parameters
    ----------
    problem
        The posed ridge.
    penalties
        Multiples of the problem's mean eigenvalue. Default: :data:`RELATIVE_PENALTIES`, then quarters of
        a decade about the best.
    """
    scale = problem.spectrum.scale
    offsets = None if are_numbers(problem.targets) else problem.priors_left_out()
    tried: dict[float, tuple[float, float]] = {}

    def left_out_at(penalty: float) -> tuple[float, float]:
        if offsets is None:
            squares = problem.residuals_left_out(penalty).square().mean(1)
            return float((problem.weights * squares).sum() / problem.weights.sum()), 1.0
        scores = problem.left_out(penalty)
        temperature, loss = fit_temperature(scores, offsets, problem.targets, problem.weights)
        return loss, temperature

    def attempt(relative: float) -> float:
        if relative not in tried:
            tried[relative] = left_out_at(relative * scale)
        return tried[relative][0]

    grid = sorted(RELATIVE_PENALTIES if penalties is None else penalties)
    best = min(grid, key=attempt)
    edge = "" if len(grid) == 1 else {grid[0]: "low", grid[-1]: "high"}.get(best, "")
    if penalties is None:
        for step in (0.5, 0.25):
            around = [best * 10.0**-step, best, best * 10.0**step]
            best = min((r for r in around if grid[0] <= r <= grid[-1]), key=attempt)
    loss, temperature = tried[best]
    return Choice(best * scale, temperature, loss, edge)
