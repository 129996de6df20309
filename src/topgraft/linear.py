"""Linear heads in closed or convex form: ridge, multinomial logistic regression, and the mean of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from topgraft.chunked import Rows
from topgraft.errors import TopgraftError
from topgraft.objective import are_binary, are_labels, are_numbers, are_steps
from topgraft.ordered import ranks_of
from topgraft.ridge import Moments, choose, pose
from topgraft.side_by_side import single_threaded
from topgraft.softmax import refine, shrinkage

Kind = Literal["blend", "ridge", "logistic"]


@dataclass(frozen=True)
class Fit:
    """A linear head: ``softmax(x @ weight.T + bias)`` are calibrated probabilities of raw features ``x``.

    Of labels, and of steps of ordered classes, it is the sigmoid. Where targets are numbers,
    ``x @ weight.T + bias`` are the predictions.

    Parameters
    ----------
    weight, bias
        ``(outputs, width)`` and ``(outputs,)`` float64; standardisation and temperature are folded in.
    temperature
        By which the ridge's scores were divided, fitted on its left-out scores; 1 for numbers.
    penalty
        Added to the eigenvalues of the standardised products, chosen by the left-out loss.
    loss
        Mean left-out loss of the ridge at this penalty and temperature.
    edge
        "low" or "high" when the penalty is the first or last of those tried, else "".
    """

    weight: Tensor
    bias: Tensor
    temperature: float
    penalty: float
    loss: float
    edge: str = ""

    def logits(self, x: Tensor) -> Tensor:
        """Logits (or numbers) ``(n, outputs)`` float64 of raw features ``(n, width)``."""
        return x.double() @ self.weight.T + self.bias


def fit_head(
    x: Tensor | Callable[[], Iterable[Tensor]],
    targets: Tensor,
    classes: int = 0,
    *,
    kind: Kind = "blend",
    penalties: Sequence[float] | None = None,
    class_weights: Tensor | None = None,
    emphasis: Tensor | None = None,
) -> Fit:
    """Fit a calibrated linear head on standardised features.

    Where targets are numbers it is the ridge, whose penalty has the smallest squared error on exactly
    left-out examples; ``kind`` then says nothing. Of classes:

    The ridge on one-hot targets has its penalty and temperature chosen by the loss on exactly left-out
    examples. Its scores move the log shares of the classes, so that features which say nothing end at
    those shares. ``"logistic"`` goes on from there to the multinomial logistic regression that shrinks as
    much, and ``"blend"`` takes the mean of both heads' logits: squared and logistic loss err differently,
    and on pictures and texts the mean lost less than either at every cut.

    Parameters
    ----------
    x
        ``(n, width)`` raw features, or a function that gives them in ``(rows, width)`` chunks, always
        from the first to the last. Chunks are read several times and not kept.
    targets
        ``(n,)`` int64 class indices, ``(n, labels)`` booleans, ``(n, steps)`` uint8 of ordered classes, or
        ``(n, outputs)`` float numbers.
    classes
        Number of classes, labels or steps; 0 for numbers.
    kind
        Which linear head.
    penalties
        Multiples of the problem's mean eigenvalue. Default: decades from 1e-6 to 1e3, then finer.
    class_weights
        ``(classes,)``: how much an example of each class counts. Of labels how many times those count that an
        example has, which moves the log-odds by its logarithm (King and Zeng 2001).
    emphasis
        ``(width,)``, finite and not negative: multiplies the standardised features, so that a column
        with ½ is penalised four times as much.

    Returns
    -------
    Fit
        Weights in float64. The same bits for the same input and number of threads.

    Raises
    ------
    TopgraftError
        If the shapes do not fit, a target is out of range, or a feature is not finite.

    References
    ----------
    Left-out residuals in closed form: Allen (1974), PRESS. Pseudo-example of the temperature: Platt (1999).

    Examples
    --------
    >>> x = torch.tensor([[0.0], [0.2], [0.4], [1.0], [1.2], [1.4]])
    >>> fit = fit_head(x, torch.tensor([0, 0, 0, 1, 1, 1]), 2)
    >>> fit.logits(torch.tensor([[0.1], [1.3]])).argmax(1).tolist()
    [0, 1]
    """
    check_targets(targets, classes)
    rows = Rows.of(x, len(targets))
    check_rows(rows, len(targets))
    if class_weights is not None and are_numbers(targets):
        raise TopgraftError("class_weights are for classes; these targets are numbers.")
    known = classes + 1 if are_steps(targets) else classes
    if class_weights is not None and (
        class_weights.shape != (known,) or not bool(((class_weights > 0) & class_weights.isfinite()).all())
    ):
        raise TopgraftError(f"class_weights must be {known} positive numbers; got {class_weights.tolist()}.")
    if class_weights is None or are_labels(targets):
        weights = torch.ones(len(targets), dtype=torch.float64)
    else:
        weights = class_weights.double()[ranks_of(targets) if are_steps(targets) else targets]
        weights = weights * (len(targets) / weights.sum())
    with single_threaded():
        fit = fit_rows(rows, targets, classes, weights, kind=kind, penalties=penalties, emphasis=emphasis)
    if class_weights is None or not are_labels(targets):
        return fit
    return replace(fit, bias=fit.bias + class_weights.double().log())


def fit_rows(
    rows: Rows,
    targets: Tensor,
    classes: int,
    weights: Tensor,
    *,
    kind: Kind,
    penalties: Sequence[float] | None,
    emphasis: Tensor | None,
    known: Moments | None = None,
) -> Fit:
    """:func:`fit_head` with a weight an example, ``(n,)``, and moments where they were added up before."""
    if kind not in get_args(Kind):
        raise TopgraftError(f"kind={kind!r} is not a head. Give one of {', '.join(get_args(Kind))}.")
    numbers = are_numbers(targets)
    outputs = targets.shape[1] if numbers else classes
    problem = pose(rows, targets, outputs, weights, emphasis=emphasis, known=known)
    choice = choose(problem, penalties)
    ridge = problem.solution(choice.penalty) / choice.temperature
    prior = problem.mean if numbers else problem.priors()
    beta, offset = ridge, prior
    if numbers:
        kind = "ridge"
    if kind != "ridge":
        penalty = shrinkage(problem, choice)
        beta, offset = refine(problem, rows, targets, weights, start=ridge, offset=prior, penalty=penalty)
    if kind == "blend":
        beta, offset = (beta + ridge) / 2, (offset + prior) / 2
    spectrum = problem.spectrum
    weight = (spectrum.inverse[:, None] * (spectrum.axes @ beta)).T.contiguous()
    return Fit(
        weight, offset - weight @ spectrum.mean, choice.temperature, choice.penalty, choice.loss, choice.edge
    )


def check_targets(targets: Tensor, classes: int) -> None:
    """Refuse targets that are neither indices of classes nor labels, steps or numbers ``(n, outputs)``."""
    if are_binary(targets):
        if targets.dim() != 2 or len(targets) < 2 or targets.shape[1] != classes:
            raise TopgraftError(
                f"{'Labels must be booleans' if are_labels(targets) else 'Steps must be bytes'} "
                f"(n, {classes}), n at least 2; got {tuple(targets.shape)}."
            )
        return
    if are_numbers(targets) and not classes:
        if targets.dim() != 2 or len(targets) < 2 or not bool(targets.isfinite().all()):
            raise TopgraftError(
                "Numbers to be predicted must be finite, (n, outputs), n at least 2; "
                f"got {tuple(targets.shape)}."
            )
        return
    if targets.dim() != 1 or targets.dtype != torch.int64:
        raise TopgraftError(
            f"Targets must be class indices, int64 of shape (n,); "
            f"got {targets.dtype} of {tuple(targets.shape)}."
        )
    if len(targets) < 2:
        raise TopgraftError(f"A head needs at least 2 examples; got {len(targets)}.")
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= classes:
        raise TopgraftError(f"Targets must be 0 to {classes - 1} for {classes} classes; got {low} to {high}.")


def check_rows(rows: Rows, count: int, *, where: str = "") -> None:
    """Refuse features of another number of examples, of several widths, or not finite."""
    seen, bad = 0, 0
    for chunk in rows.chunks():
        if chunk.shape[1] != rows.width:
            raise TopgraftError(
                f"Features{where} have {chunk.shape[1]} columns after chunks of {rows.width}."
            )
        seen += len(chunk)
        bad += int((~chunk.isfinite()).any(1).sum())
    if seen != count:
        raise TopgraftError(f"Features{where} are of {seen:,} examples, and targets of {count:,}.")
    if bad:
        raise TopgraftError(f"Features{where} of {bad:,} of {count:,} examples are not finite numbers.")
