"""Logistic regression (multinomial, or a label by itself), started at the ridge's solution.

It is preconditioned by the spectrum of the ridge.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from topgraft.chunked import Rows
from topgraft.objective import are_binary
from topgraft.ridge import Choice, Problem

MEMORY = 8
"""Pairs of steps and gradient changes that L-BFGS remembers."""

STEPS = 25
"""Steps at most; from the ridge's solution most problems need ten."""

ENOUGH = 1e-6
"""Stop when a step takes less than this share off the objective."""

Objective = Callable[[Tensor], tuple[float, Tensor]]


def shrinkage(problem: Problem, choice: Choice) -> float:
    """The logistic penalty that shrinks about as much as the calibrated ridge.

    The penalty for which the ridge's solution, by its temperature, is stationary along its own direction:
    so that its size, which left-out examples have shown to be right, stays. The residuals in it are those
    of the fit, which are too small, or those left out, which are too large; taken is the geometric mean.
    """
    beta = problem.solution(choice.penalty) / choice.temperature
    size = float((beta**2).sum())
    if size == 0:
        return choice.penalty
    scores = problem.coordinates @ beta
    targets = _wanted(problem.targets, problem.classes)
    found = []
    for logits in (
        scores + problem.priors(),
        problem.left_out(choice.penalty) / choice.temperature + problem.priors_left_out(),
    ):
        residual = problem.weights[:, None] * (targets - _shares(logits, problem.targets))
        found.append(float((residual * scores).sum()) / size * problem.count / len(scores))
    low, high = sorted(found)
    return math.sqrt(low * high) if low > 0 else max(high, choice.penalty / problem.classes)


def refine(
    problem: Problem,
    rows: Rows,
    targets: Tensor,
    weights: Tensor,
    *,
    start: Tensor,
    offset: Tensor,
    penalty: float,
) -> tuple[Tensor, Tensor]:
    """Minimise the penalised logistic loss by L-BFGS (Liu and Nocedal 1989).

    Parameters
    ----------
    problem
        The posed ridge: its coordinates where they are whole, else only its axes.
    rows, targets, weights
        All ``n`` examples, read again at every step where they are not whole in ``problem``.
    start, offset
        ``(r, classes)`` weights in the problem's axes and ``(classes,)`` offsets to start from.
    penalty
        Multiplies half the squared weights.

    Returns
    -------
    tuple of Tensor
        Weights ``(r, classes)`` in the problem's axes, and offsets ``(classes,)``, float64.
    """
    n, classes = rows.count, problem.classes
    axes = problem.spectrum.axes

    def objective(point: Tensor) -> tuple[float, Tensor]:
        beta, shift = point[:-1], point[-1]
        if problem.is_whole:
            parts, turned = iter((problem.coordinates,)), beta
        else:
            parts = map(problem.spectrum.standardised, rows.chunks())
            turned = axes @ beta
        value, slope, tilt, begin = 0.0, torch.zeros_like(turned), torch.zeros_like(shift), 0
        for part in parts:
            here = slice(begin, begin + len(part))
            begin += len(part)
            logits, w, wanted = part @ turned + shift, weights[here, None], targets[here]
            if are_binary(wanted):
                both = torch.nn.functional.logsigmoid(torch.where(wanted.bool(), logits, -logits))
                value -= float((w * both).sum())
                excess = w * (torch.sigmoid(logits) - wanted.double())
            else:
                log_p = torch.log_softmax(logits, 1)
                value -= float((w[:, 0] * log_p.gather(1, wanted[:, None])[:, 0]).sum())
                excess = w * (log_p.exp() - torch.nn.functional.one_hot(wanted, classes))
            slope += (excess.T @ part).T  # some libraries take three times as long for part.T @ excess
            tilt += excess.sum(0)
        if not problem.is_whole:
            slope = axes.of_columns(slope)
        value += 0.5 * penalty * float((beta**2).sum())
        return value, torch.cat([slope + penalty * beta, tilt[None]])

    steep = 4 if are_binary(targets) else classes  # a sigmoid is steepest at a half
    curvature = torch.cat([problem.spectrum.values / steep + penalty, start.new_full((1,), n / steep)])
    point = minimise(objective, torch.cat([start, offset[None]]), curvature[:, None])
    return point[:-1], point[-1]


def _wanted(targets: Tensor, classes: int) -> Tensor:
    """0 and 1, ``(n, classes)``."""
    return targets.double() if are_binary(targets) else torch.nn.functional.one_hot(targets, classes)


def _shares(logits: Tensor, targets: Tensor) -> Tensor:
    """Probabilities ``(n, classes)``; of labels each for itself."""
    return torch.sigmoid(logits) if are_binary(targets) else torch.softmax(logits, 1)


def minimise(objective: Objective, point: Tensor, curvature: Tensor) -> Tensor:
    """L-BFGS with halved steps (Armijo), its first metric the diagonal ``curvature``."""
    value, gradient = objective(point)
    steps: list[tuple[Tensor, Tensor, float]] = []
    for _ in range(STEPS):
        direction = _two_loops(steps, gradient, curvature)
        descent, length = float((gradient * direction).sum()), 1.0
        while True:
            following = point - length * direction
            reached, bent = objective(following)
            if reached <= value - 1e-4 * length * descent or length < 1e-6:
                break
            length /= 2
        if reached > value:
            return point
        step, change = following - point, bent - gradient
        if (product := float((step * change).sum())) > 0:
            steps = [*steps[1 - MEMORY :], (step, change, 1 / product)]
        finished = value - reached <= ENOUGH * abs(value)
        point, value, gradient = following, reached, bent
        if finished:
            break
    return point


def _two_loops(steps: list[tuple[Tensor, Tensor, float]], gradient: Tensor, curvature: Tensor) -> Tensor:
    direction, taken = gradient.clone(), []
    for step, change, inverse in reversed(steps):
        amount = inverse * float((step * direction).sum())
        taken.append(amount)
        direction -= amount * change
    direction = direction / curvature
    if steps:
        _, change, inverse = steps[-1]
        direction *= 1 / (inverse * float((change**2 / curvature).sum()))
    for (step, change, inverse), amount in zip(steps, reversed(taken), strict=True):
        direction += step * (amount - inverse * float((change * direction).sum()))
    return direction
