"""Heads in closed or convex form, and their score at every cut on the same folds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from topgraft.chunked import Rows
from topgraft.errors import TopgraftError
from topgraft.evidence import CutEvidence, Evidence, Features
from topgraft.linear import Fit, Kind, check_rows, check_targets, fit_head, fit_rows
from topgraft.number_scores import cross_validated_r2_interval
from topgraft.objective import Scale, are_binary, are_numbers, losses, marks
from topgraft.ridge import Moments, moments
from topgraft.score import cross_validated_interval
from topgraft.side_by_side import Shared, in_order, single_threaded
from topgraft.workers import Item, elsewhere

__all__ = ["CutEvidence", "Evidence", "Features", "Fit", "Kind", "fit_head", "probe"]

Array = np.ndarray[Any, np.dtype[Any]]


def probe(
    features: Features,
    targets: Tensor | Array,
    fold_of: Array,
    classes: int = 0,
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
        ``(n,)`` class indices, ``(n, labels)`` booleans, ``(n, steps)`` uint8 of ordered classes, or
        ``(n, outputs)`` numbers, which are standardised here: that changes no prediction, and makes one
        less the mean loss the R² of the predictions out of fold.
    fold_of
        ``(n,)`` fold number of each example, the same for every cut, so that cuts are compared pairwise.
    classes
        Number of classes, labels or steps; 0 for numbers.
    kind, penalties
        As in :func:`fit_head`.
    emphasis
        By cut, as in :func:`fit_head`.
    groups
        ``(n,)`` numbers of the groups that the folds keep whole; default: every example by itself.
    done
        Called with ``keep`` after each cut, the widest first.

    Returns
    -------
    Evidence
        Per cut the out-of-fold loss of every example, the score with its 95 % interval, and the penalty and
        temperature chosen inside each fold.

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
    y = _own(targets)
    check_targets(y, classes)
    if are_numbers(y):
        y = Scale.of(y.numpy()).standardised(y.numpy())
    owners = np.arange(len(y)) if groups is None else np.asarray(groups)
    fold_of = np.asarray(fold_of)
    _check_folds(fold_of, owners, len(y))
    parts = parts_of(fold_of)
    fitting = Fitting(y, classes, fold_of, owners, kind, None if penalties is None else tuple(penalties))
    cuts = []
    with single_threaded() as cores:
        for cut in _measured(fitting, features, emphasis, cores=cores):
            cuts.append(cut)
            if done is not None:
                done(cut.keep)
    chance_losses, chance_predictions = _chance(y, classes, parts)
    cuts.sort(key=lambda cut: cut.keep)
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


@dataclass(frozen=True)
class Cut(Item):
    """What is measured at one cut, as it is sent to another process.

    Parameters
    ----------
    keep
        Blocks up to the cut.
    x
        ``(n, width)`` activations.
    emphasis
        As in :func:`fit_head`.
    """

    keep: int
    x: Tensor
    emphasis: Tensor | None = None

    def __str__(self) -> str:
        return f"the probe at keep={self.keep}"


@dataclass(frozen=True, eq=False)
class Fitting:
    """A probe's work at each cut; a task for other processes, too.

    Parameters
    ----------
    y, classes, fold_of, groups, kind, penalties
        As for :func:`probe`; numbers standardised.
    """

    y: Tensor
    classes: int
    fold_of: Array
    groups: Array
    kind: Kind
    penalties: Sequence[float] | None

    def start(self) -> Callable[[Cut], CutEvidence]:
        """What scores the head at a cut."""

        def measure(cut: Cut) -> CutEvidence:
            folds = _Folds(self, cut)
            return folds.evidence([folds.fit(fold) for fold in range(len(folds.parts))])

        return measure


class _Folds:
    """The heads at one cut, a fold each, which threads fit side by side from moments that they share."""

    def __init__(self, fitting: Fitting, cut: Cut) -> None:
        self.fitting, self.cut, self.parts = fitting, cut, parts_of(fitting.fold_of)
        x = cut.x
        where = f" at keep={cut.keep}"
        self._checked = Shared([lambda: check_rows(Rows.of(x, len(fitting.y)), len(fitting.y), where=where)])
        self._sums: Shared[Moments] | None = None
        if min(len(train) for train, _ in self.parts) > x.shape[1]:
            # each fold's moments are summed up once, and for each head those of the others added
            shift = x[: 4 * len(self.parts)].double().mean(0)
            self._sums = Shared([partial(_moments, x, test, shift) for _, test in self.parts])

    def fit(self, fold: int) -> Fit:
        """The head that has not seen one fold."""
        fitting, known = self.fitting, None
        self._checked.results()
        if self._sums is not None:
            first, *others = (s for f, s in enumerate(self._sums.results()) if f != fold)
            known = sum(others, first)
        train, _ = self.parts[fold]
        return fit_rows(
            Rows.of(self.cut.x, len(train), train),
            fitting.y[train],
            fitting.classes,
            torch.ones(len(train), dtype=torch.float64),
            kind=fitting.kind,
            penalties=fitting.penalties,
            emphasis=self.cut.emphasis,
            known=known,
        )

    def evidence(self, fits: Sequence[Fit]) -> CutEvidence:
        """What the heads of all folds say of the examples that each has not seen."""
        fitting = self.fitting
        return _evidence(
            self.cut.keep,
            self.cut.x,
            fitting.y,
            fold_of=fitting.fold_of,
            groups=fitting.groups,
            parts=self.parts,
            fits=fits,
        )


def _moments(x: Tensor, rows: Tensor, shift: Tensor) -> Moments:
    return moments(Rows.of(x, len(rows), rows), torch.ones(len(rows), dtype=torch.float64), shift)


def _measured(
    fitting: Fitting, features: Features, emphasis: Mapping[int, Tensor] | None, *, cores: int
) -> Iterator[CutEvidence]:
    """The evidence at each cut, the widest first, measured on the cores here or by workers elsewhere."""
    cuts = (
        Cut(keep, features.cuts[keep], None if emphasis is None else emphasis[keep])
        for keep in features.widest_first
    )
    workers = elsewhere()
    if workers is None:
        return _measured_here(fitting, cuts, cores=cores)
    return workers.in_order(fitting, cuts)


def _measured_here(fitting: Fitting, cuts: Iterable[Cut], *, cores: int) -> Iterator[CutEvidence]:
    """Folds side by side, not cuts: one cut is often by far the widest, and would leave cores idle."""

    def pieces() -> Iterator[tuple[_Folds, int]]:
        for cut in cuts:
            folds = _Folds(fitting, cut)
            yield from ((folds, fold) for fold in range(len(folds.parts)))

    def work(piece: tuple[_Folds, int]) -> tuple[_Folds, Fit]:
        folds, fold = piece
        return folds, folds.fit(fold)

    fits: list[Fit] = []
    for folds, fit in in_order(work, pieces(), workers=cores):
        fits.append(fit)
        if len(fits) == len(folds.parts):
            yield folds.evidence(fits)
            fits = []


def parts_of(fold_of: Array) -> list[tuple[Tensor, Tensor]]:
    """For each fold the places of what is trained on and of what is tested on, int64."""
    return [
        (torch.from_numpy(np.flatnonzero(fold_of != f)), torch.from_numpy(np.flatnonzero(fold_of == f)))
        for f in np.unique(fold_of)
    ]


def _own(targets: Tensor | Array) -> Tensor:
    """A copy: int64, booleans, steps, or float64 with one column an output."""
    y = torch.as_tensor(targets).clone()
    if are_binary(y):
        return y
    if not y.is_floating_point():
        return y.to(torch.int64)
    return (y[:, None] if y.dim() == 1 else y).double()


def _room(y: Tensor) -> Array:
    """For predictions of all examples: indices of classes, logits of labels, or numbers."""
    return np.zeros(y.shape, dtype=np.int64 if y.dtype == torch.int64 else np.float64)


def _chance(y: Tensor, classes: int, parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Array, Array]:
    """Losses and predictions, out of fold, of knowing nothing of the inputs."""
    chances, said = np.zeros(len(y)), _room(y)
    for train, test in parts:
        where = test.numpy()
        if are_binary(y):
            held = y[train].double().sum(0)
            odds = ((held + 0.5) / (len(train) - held + 0.5)).log().expand(len(test), -1)
            chances[where], said[where] = losses(odds, y[test]).numpy(), odds.numpy()
            continue
        if are_numbers(y):
            mean = y[train].mean(0)
            chances[where] = losses(mean.expand(len(test), -1), y[test]).numpy()
            said[where] = mean.numpy()
            continue
        count = torch.bincount(y[train], minlength=classes).double() + 0.5
        chances[where] = -(count / count.sum()).log()[y[test]].numpy()
        said[where] = int(count.argmax())
    return chances, said


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
    several = are_numbers(y) or are_binary(y)
    lost, predictions = np.zeros(len(y)), _room(y)
    found: Array = np.zeros(len(y), dtype=np.float64 if several else np.bool_)
    for (_, test), fit in zip(parts, fits, strict=True):
        logits = torch.cat([fit.logits(chunk) for chunk in Rows.of(x, len(test), test).chunks()])
        where = test.numpy()  # an array: of one number, torch would make a place out of it
        lost[where] = losses(logits, y[test]).numpy()
        found[where] = marks(logits, y[test]).numpy()
        predictions[where] = logits.numpy() if several else logits.argmax(1).numpy()
    if are_binary(y):
        low, high = cross_validated_r2_interval(1 - found, np.ones(len(y)), fold_of, groups)
        low = max(0.0, low)
    elif are_numbers(y):
        low, high = cross_validated_r2_interval(lost, np.square(y.numpy()).mean(1), fold_of, groups)
    else:
        low, high = cross_validated_interval(found, fold_of, groups)
    return CutEvidence(
        keep,
        lost,
        found,
        predictions,
        float(found.mean()),
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


def _check_folds(fold_of: Array, groups: Array, count: int) -> None:
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
