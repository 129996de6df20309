"""Heads in closed or convex form, and their score at every cut on the same folds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from topgraft.errors import TopgraftError
from topgraft.evidence import CutEvidence, Evidence, Features
from topgraft.ridge import Moments, Rows, choose, moments, pose
from topgraft.score import cross_validated_interval
from topgraft.side_by_side import in_order, single_threaded
from topgraft.softmax import refine, shrinkage

__all__ = ["CutEvidence", "Evidence", "Features", "Fit", "Kind", "fit_head", "probe"]

Kind = Literal["blend", "ridge", "logistic"]

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Fit:
    """A linear head: ``softmax(x @ weight.T + bias)`` are calibrated probabilities of raw features ``x``.

    Parameters
    ----------
    weight, bias
        ``(classes, width)`` and ``(classes,)`` float64; standardisation and temperature are folded in.
    temperature
        By which the ridge's scores were divided, fitted on its left-out scores.
    penalty
        Added to the eigenvalues of the standardised products, chosen by the left-out loss.
    loss
        Mean left-out loss of the ridge in nats at this penalty and temperature.
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
        """Logits ``(n, classes)`` float64 of raw features ``(n, width)``."""
        return x.double() @ self.weight.T + self.bias


def fit_head(
    x: Tensor | Callable[[], Iterable[Tensor]],
    targets: Tensor,
    classes: int,
    *,
    kind: Kind = "blend",
    penalties: Sequence[float] | None = None,
    class_weights: Tensor | None = None,
    emphasis: Tensor | None = None,
) -> Fit:
    """Fit a calibrated linear head on standardised features.

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
        ``(n,)`` int64 class indices.
    classes
        Number of classes.
    kind
        Which linear head.
    penalties
        Multiples of the problem's mean eigenvalue. Default: decades from 1e-6 to 1e3, then finer.
    class_weights
        ``(classes,)``: how much an example of each class counts.
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
    _check_targets(targets, classes)
    rows = Rows.of(x, len(targets))
    _check_rows(rows, len(targets))
    if class_weights is None:
        weights = torch.ones(len(targets), dtype=torch.float64)
    else:
        if class_weights.shape != (classes,) or not bool(
            ((class_weights > 0) & class_weights.isfinite()).all()
        ):
            raise TopgraftError(
                f"class_weights must be {classes} positive numbers; got {class_weights.tolist()}."
            )
        weights = class_weights.double()[targets]
        weights = weights * (len(targets) / weights.sum())
    with single_threaded():
        return _fit(rows, targets, classes, weights, kind=kind, penalties=penalties, emphasis=emphasis)


def _fit(
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
    if kind not in get_args(Kind):
        raise TopgraftError(f"kind={kind!r} is not a head. Give one of {', '.join(get_args(Kind))}.")
    problem = pose(rows, targets, classes, weights, emphasis=emphasis, known=known)
    choice = choose(problem, penalties)
    ridge, prior = problem.solution(choice.penalty) / choice.temperature, problem.priors()
    beta, offset = ridge, prior
    if kind != "ridge":
        penalty = shrinkage(problem, choice)
        beta, offset = refine(problem, rows, targets, weights, start=ridge, offset=prior, penalty=penalty)
    if kind == "blend":
        beta, offset = (beta + ridge) / 2, (offset + prior) / 2
    spectrum = problem.spectrum
    weight = (spectrum.inverse[:, None] * (spectrum.basis @ beta)).T.contiguous()
    return Fit(
        weight, offset - weight @ spectrum.mean, choice.temperature, choice.penalty, choice.loss, choice.edge
    )


def probe(
    features: Features,
    targets: Tensor | Array,
    fold_of: Array,
    classes: int,
    *,
    kind: Kind = "blend",
    penalties: Sequence[float] | None = None,
    emphasis: Mapping[int, Tensor] | None = None,
    groups: Array | None = None,
    done: Callable[[int], None] | None = None,
) -> Evidence:
    """Score a linear head at every cut by cross-validation.

    Everything that is fitted (standardisation, penalty, temperature, head) is fitted on a fold's training
    part alone, so that no prediction depends on the label of an example of its own fold.

    Parameters
    ----------
    features
        Activations of ``n`` examples, one ``(n, width)`` float array per cut.
    targets
        ``(n,)`` class indices.
    fold_of
        ``(n,)`` fold number of each example, the same for every cut, so that cuts are compared pairwise.
    classes
        Number of classes.
    kind, penalties
        As in :func:`fit_head`.
    emphasis
        By cut, as in :func:`fit_head`.
    groups
        ``(n,)`` numbers of the groups that the folds keep whole; default: every example by itself.
    done
        Called with ``keep`` after each cut.

    Returns
    -------
    Evidence
        Per cut the out-of-fold loss of every example (nats), the score with its 95 % interval, and the
        penalty and temperature chosen inside each fold.

    Raises
    ------
    TopgraftError
        If there are fewer than two folds, a group lies in two folds, or the shapes do not fit.

    Examples
    --------
    >>> x = torch.arange(12.0)[:, None]
    >>> late = (x > 5).float()
    >>> features = Features({1: torch.sin(x), 2: x + 9 * late}, key="an example")
    >>> evidence = probe(features, late[:, 0].long(), np.arange(12) % 3, 2)
    >>> evidence.best.keep, evidence.best.score
    (2, 1.0)
    """
    y = torch.as_tensor(targets).clone()
    y = y if y.is_floating_point() else y.to(torch.int64)
    _check_targets(y, classes)
    owners = np.arange(len(y)) if groups is None else np.asarray(groups)
    fold_of = np.asarray(fold_of)
    folds = _check_folds(fold_of, owners, len(y))
    parts = [
        (torch.from_numpy(np.flatnonzero(fold_of != f)), torch.from_numpy(np.flatnonzero(fold_of == f)))
        for f in folds
    ]

    def measure(keep: int) -> CutEvidence:
        x = features.cuts[keep]
        _check_rows(Rows.of(x, len(y)), len(y), where=f" at keep={keep}")
        fits = _fit_folds(
            x,
            y,
            classes,
            parts,
            kind=kind,
            penalties=penalties,
            emphasis=None if emphasis is None else emphasis[keep],
        )
        return _evidence(keep, x, y, fold_of=fold_of, groups=owners, parts=parts, fits=fits)

    cuts = []
    with single_threaded() as cores:
        for cut in in_order(measure, sorted(features.cuts), workers=cores):
            cuts.append(cut)
            if done is not None:
                done(cut.keep)
    chance_losses, chance_predictions = np.zeros(len(y)), np.zeros(len(y), dtype=np.int64)
    for train, test in parts:
        count = torch.bincount(y[train], minlength=classes).double() + 0.5
        where = test.numpy()
        chance_losses[where] = -(count / count.sum()).log()[y[test]].numpy()
        chance_predictions[where] = int(count.argmax())
    return Evidence(
        tuple(cuts),
        np.asarray(fold_of, dtype=np.int64),
        y.numpy().copy(),
        classes,
        np.asarray(owners, dtype=np.int64),
        chance_losses,
        chance_predictions,
        _notes(cuts),
    )


def _fit_folds(
    x: Tensor,
    y: Tensor,
    classes: int,
    parts: Sequence[tuple[Tensor, Tensor]],
    *,
    kind: Kind,
    penalties: Sequence[float] | None,
    emphasis: Tensor | None,
) -> list[Fit]:
    """A head a fold; where there are more examples than features each fold's moments are summed up once."""
    tall = min(len(train) for train, _ in parts) > x.shape[1]
    sums: list[Moments] = []
    if tall:
        shift = x[: 4 * len(parts)].double().mean(0)
        ones = torch.ones(len(y), dtype=torch.float64)
        sums = [moments(Rows.of(x, len(test), test), ones[: len(test)], shift) for _, test in parts]
    fits = []
    for fold, (train, _) in enumerate(parts):
        known = None
        if tall:
            first, *others = (s for f, s in enumerate(sums) if f != fold)
            known = sum(others, first)
        weights = torch.ones(len(train), dtype=torch.float64)
        rows = Rows.of(x, len(train), train)
        fits.append(
            _fit(
                rows,
                y[train],
                classes,
                weights,
                kind=kind,
                penalties=penalties,
                emphasis=emphasis,
                known=known,
            )
        )
    return fits


def _evidence(
    keep: int,
    x: Tensor,
    y: Tensor,
    *,
    fold_of: Array,
    groups: Array,
    parts: Sequence[tuple[Tensor, Tensor]],
    fits: Sequence[Fit],
) -> CutEvidence:
    losses, predictions = np.zeros(len(y)), np.zeros(len(y), dtype=np.int64)
    for (_, test), fit in zip(parts, fits, strict=True):
        logits = torch.cat([fit.logits(chunk) for chunk in Rows.of(x, len(test), test).chunks()])
        where = test.numpy()  # an array: of one number, torch would make a place out of it
        losses[where] = torch.nn.functional.cross_entropy(logits, y[test], reduction="none").numpy()
        predictions[where] = logits.argmax(1).numpy()
    correct = predictions == y.numpy()
    low, high = cross_validated_interval(correct, fold_of, groups)
    return CutEvidence(
        keep,
        losses,
        correct,
        predictions,
        float(correct.mean()),
        low,
        high,
        tuple(fit.penalty for fit in fits),
        tuple(fit.temperature for fit in fits),
        tuple(fit.edge for fit in fits),
    )


def _notes(cuts: Sequence[CutEvidence]) -> tuple[str, ...]:
    """A sentence where the best penalty may lie beyond those tried."""
    low = [str(cut.keep) for cut in cuts if cut.edges.count("low") * 2 > len(cut.edges)]
    high = [str(cut.keep) for cut in cuts if cut.edges.count("high") * 2 > len(cut.edges)]
    notes = []
    if low:
        notes.append(
            f"At keep {', '.join(low)} the smallest penalty tried was the best; a smaller may be better."
        )
    if high:
        notes.append(
            f"At keep {', '.join(high)} the largest penalty tried was the best; a larger may be better."
        )
    return tuple(notes)


def _check_targets(targets: Tensor, classes: int) -> None:
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


def _check_rows(rows: Rows, count: int, *, where: str = "") -> None:
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


def _check_folds(fold_of: Array, groups: Array, count: int) -> Array:
    if fold_of.shape != (count,) or groups.shape != (count,):
        raise TopgraftError(
            f"Folds and groups must have {count:,} numbers; got shapes {fold_of.shape} and {groups.shape}."
        )
    folds = np.unique(fold_of)
    if len(folds) < 2:
        raise TopgraftError("Cross-validation needs at least 2 folds; got 1.")
    pairs = np.unique(np.stack([groups, fold_of]), axis=1)
    if pairs.shape[1] != len(np.unique(groups)):
        owner = pairs[0][np.flatnonzero(np.diff(pairs[0]) == 0)[0]]
        raise TopgraftError(f"Group {owner} lies in more than one fold; each must lie in one.")
    return folds
