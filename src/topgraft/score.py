"""Scores of predicted classes, and 95 % intervals that say what they are intervals of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from topgraft.errors import TopgraftError

Array = np.ndarray[Any, np.dtype[Any]]

DRAWS = 2000
"""Bootstrap samples."""

UNSTABLE = 20
"""Over the number of examples: what the luck of a small training set adds to the relative variance."""


@dataclass(frozen=True)
class Score:
    """A score with its 95 % interval, for ``n`` examples: a share of 1, or an error in the target's unit."""

    metric: str
    value: float
    low: float
    high: float
    n: int

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        from topgraft.notebook import scores

        return scores(self)


@dataclass(frozen=True)
class ClassScore:
    """Precision and recall of one class (0 where undefined), and its number of examples."""

    precision: float
    recall: float
    f1: float
    support: int


def accuracy(targets: Array, predictions: Array) -> float:
    """Share of examples predicted correctly.

    Examples
    --------
    >>> accuracy(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]))
    0.75
    """
    _check(targets, predictions)
    return float(np.mean(targets == predictions))


def balanced_accuracy(targets: Array, predictions: Array) -> float:
    """Mean recall of the classes that occur in ``targets``.

    Examples
    --------
    >>> balanced_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]))
    0.5
    """
    hits, support, _ = _tallies(targets, predictions)
    return float(_mean_recall(hits, support)[0])


def macro_f1(targets: Array, predictions: Array) -> float:
    """Mean F1 of the classes that occur in ``targets`` or ``predictions``.

    Examples
    --------
    >>> round(macro_f1(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0])), 3)
    0.429
    """
    return float(_mean_f1(*_tallies(targets, predictions))[0])


def majority_score(targets: Array) -> float:
    """Accuracy of always answering the most frequent class.

    Examples
    --------
    >>> majority_score(np.array([0, 2, 2, 2]))
    0.75
    """
    return float(np.bincount(targets).max() / len(targets))


def class_scores(targets: Array, predictions: Array, classes: int) -> tuple[ClassScore, ...]:
    """Precision, recall, F1 and support of each class.

    Examples
    --------
    >>> class_scores(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 2)[0]
    ClassScore(precision=1.0, recall=0.5, f1=0.6666666666666666, support=2)
    """
    hits, support, predicted = (t[0] for t in _tallies(targets, predictions, classes))
    return tuple(
        ClassScore(float(ratio(h, p)), float(ratio(h, s)), float(ratio(2 * h, s + p)), int(s))
        for h, s, p in zip(hits, support, predicted, strict=True)
    )


def wilson_interval(share: float, n: float, *, freedom: float = math.inf) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927), with Student's point where ``freedom`` is finite.

    Parameters
    ----------
    share
        Proportion seen.
    n
        Number of independent examples that it is worth; need not be whole.
    freedom
        Degrees of freedom of the variance behind ``n``.

    Examples
    --------
    >>> low, high = wilson_interval(1.0, 20)
    >>> round(low, 3), high
    (0.839, 1.0)
    """
    from scipy.special import stdtrit  # scipy.stats has it, too, and takes ten times as long to import

    z = float(stdtrit(freedom, 0.975))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if share == 0 else max(0.0, middle - half)
    high = 1.0 if share == 1 else min(1.0, middle + half)
    return min(low, share), max(high, share)


def accuracy_interval(correct: Array, groups: Array | None = None) -> tuple[float, float]:
    """95 % interval of a fixed model's accuracy, from untouched examples.

    Where groups are given and their members err together, the examples count as fewer.

    Parameters
    ----------
    correct
        ``(n,)`` bool.
    groups
        ``(n,)`` group numbers; default: every example by itself.
    """
    n, freedom = _worth(correct, groups)
    return wilson_interval(float(np.mean(correct)), n, freedom=freedom)


def cross_validated_interval(
    correct: Array, fold_of: Array, groups: Array | None = None
) -> tuple[float, float]:
    """95 % interval of the expected accuracy of a probe trained on the folds' share of ``n`` examples.

    For a stable learner the mean over all out-of-fold examples is asymptotically normal with the variance
    of the examples pooled (Bayle et al. 2020), so folds need no correction for testing. That variance is
    about the models that were trained; the expectation over training sets also varies with those sets,
    which overlap, and no unbiased estimate of that exists (Bengio and Grandvalet 2004). In simulations of
    this package's probe (three and five classes, 30 to 120 features) the variance of the mean was 1.2 to
    1.6 times the examples' own at n = 100, 1.1 to 1.3 at 300 and 1.0 to 1.2 at 1,000. The interval takes
    ``k / (k - 1) + 20 / n``: a probe's training set is as small as that, and the fewer examples the less
    stable the probe. The corrected test of Nadeau and Bengio (2003) would take 2.25 at five folds, too
    much here: it is made for differences that rest on whole folds.

    Parameters
    ----------
    correct
        ``(n,)`` bool, out of fold.
    fold_of
        ``(n,)`` fold numbers.
    groups
        ``(n,)`` group numbers that no fold splits; default: every example by itself.
    """
    n, freedom = _worth(correct, groups)
    k = len(np.unique(fold_of))
    return wilson_interval(float(np.mean(correct)), n / (k / (k - 1) + UNSTABLE / n), freedom=freedom)


def score_predictions(
    targets: Array, predictions: Array, *, groups: Array | None = None, seed: int = 0
) -> tuple[Score, Score, Score]:
    """Accuracy, balanced accuracy and macro F1 with 95 % intervals, on untouched examples.

    Parameters
    ----------
    targets, predictions
        ``(n,)`` class indices.
    groups
        ``(n,)`` group numbers, drawn whole; default: every example by itself.
    seed
        Of the bootstrap behind the intervals of balanced accuracy and macro F1.
    """
    _check(targets, predictions)
    n, value = len(targets), accuracy(targets, predictions)
    low, high = accuracy_interval(targets == predictions, groups)
    draws = [
        (_mean_recall(hits, support), _mean_f1(hits, support, predicted))
        for hits, support, predicted in _resampled(targets, predictions, groups, seed)
    ]
    scores = [Score("accuracy", value, low, high, n)]
    values = (balanced_accuracy(targets, predictions), macro_f1(targets, predictions))
    for i, (metric, point) in enumerate(zip(("balanced accuracy", "macro F1"), values, strict=True)):
        low, high = (float(q) for q in np.quantile(np.concatenate([d[i] for d in draws]), (0.025, 0.975)))
        if low == high:  # no example, or every one, is wrong: what was never seen can't be drawn
            counts = np.bincount(targets)
            counts = counts[counts > 0]
            worth, freedom = _worth(targets == predictions, groups)
            share = worth / n
            low, high = wilson_interval(point, share * len(counts) ** 2 / (1 / counts).sum(), freedom=freedom)
        scores.append(Score(metric, point, min(low, point), max(high, point), n))
    return scores[0], scores[1], scores[2]


def judged_on(parts: int) -> str:
    """What a final score is of, to stand behind the number of examples.

    Parameters
    ----------
    parts
        Of nested cross-validation; 0 where a part was kept untouched.
    """
    if not parts:
        return "untouched examples"
    return f"examples, each by a model that had not seen it, in nested cross-validation of {parts} parts"


def flawless_interval(value: float, n: int, groups: Array | None = None) -> tuple[float, float]:
    """95 % interval of a share of 1 (or 0) whose bootstrap has nothing else to draw.

    That of a proportion (Wilson 1927) of as many examples as these are worth, all of them right (or wrong).

    Parameters
    ----------
    value
        The score.
    n
        Number of examples.
    groups
        ``(n,)`` group numbers; default: every example by itself.

    Returns
    -------
    low, high
        Not-a-number where the score is neither 0 nor 1, so that nobody knows what it could have been, or all
        examples are of one group.

    Examples
    --------
    >>> [round(end, 3) for end in flawless_interval(1.0, 20)], flawless_interval(0.4, 20)
    ([0.839, 1.0], (nan, nan))
    """
    if value not in (0.0, 1.0) or (groups is not None and len(np.unique(groups)) == 1):
        return math.nan, math.nan
    worth, freedom = _worth(np.full(n, value == 1), groups)
    return wilson_interval(value, worth, freedom=freedom)


def optimism(searched: Array, untouched: Score) -> dict[str, float]:
    """By how much the search thought better of the winner than untouched data do.

    A choice among several is partly a choice of luck, so that the winner's own score in the search is too
    high on average (Cawley and Talbot 2010).

    Parameters
    ----------
    searched
        ``(n,)`` marks in the search, whose mean is the score: right or not, or shares of the variance.
    untouched
        The score on untouched data.

    Returns
    -------
    dict
        ``searched``, ``n``, ``untouched``, ``difference`` (the first minus the second), and ``error``, the
        standard error of that difference of two independent means.

    Examples
    --------
    >>> found = optimism(np.arange(400) < 320, Score("accuracy", 0.75, 0.66, 0.83, 100))
    >>> round(found["difference"], 3), round(found["error"], 3)
    (0.05, 0.048)
    """
    share, n = float(searched.mean()), len(searched)
    if untouched.metric == "accuracy":
        apart = untouched.value * (1 - untouched.value) / untouched.n
    else:
        apart = ((untouched.high - untouched.low) / (2 * 1.96)) ** 2
    variance = float(searched.astype(float).var()) / n + apart
    return {
        "searched": share,
        "n": n,
        "untouched": untouched.value,
        "difference": share - untouched.value,
        "error": math.sqrt(variance),
    }


def optimism_in_words(told: Mapping[str, float]) -> str:
    """What the difference that :func:`optimism` gives is a sign of, in few words.

    Examples
    --------
    >>> [optimism_in_words({"difference": d, "error": 0.02}) for d in (0.05, 0.03, -0.01)]
    ['optimism of choosing', 'optimism of choosing, or chance', 'no optimism of choosing']
    """
    if told["difference"] < 0:
        return "no optimism of choosing"
    return "optimism of choosing" + ("" if told["difference"] > 1.96 * told["error"] else ", or chance")


def _worth(correct: Array, groups: Array | None) -> tuple[float, float]:
    """Independent examples that these are worth, and the degrees of freedom behind that number."""
    n = len(correct)
    if n == 0:
        raise TopgraftError("There is no example to score.")
    share = float(np.mean(correct))
    if groups is None or len(np.unique(groups)) == n:
        return float(n), math.inf
    _, owner = np.unique(groups, return_inverse=True)
    many = int(owner.max()) + 1
    if many < 2:
        raise TopgraftError(
            f"All {n:,} examples are of one group, so the error of their score can't be told."
        )
    if share in (0.0, 1.0):
        return float(many), float(many - 1)
    sums = np.bincount(owner, weights=correct - share)
    variance = float((sums**2).sum()) * many / (many - 1) / n**2
    return min(float(n), share * (1 - share) / max(variance, 1e-300)), float(many - 1)


def _check(targets: Array, predictions: Array) -> None:
    if targets.shape != predictions.shape or targets.ndim != 1 or not len(targets):
        raise TopgraftError(
            f"Targets and predictions must be two arrays of one length; got {targets.shape} and "
            f"{predictions.shape}."
        )


def _tallies(targets: Array, predictions: Array, classes: int = 0) -> tuple[Array, Array, Array]:
    """Per class: predicted correctly, occurred, predicted; each ``(1, classes)``."""
    _check(targets, predictions)
    size = max(classes, int(targets.max()) + 1, int(predictions.max()) + 1)
    kinds = (targets[targets == predictions], targets, predictions)
    hits, support, predicted = (np.bincount(k, minlength=size).astype(float)[None] for k in kinds)
    return hits, support, predicted


def _resampled(
    targets: Array, predictions: Array, groups: Array | None, seed: int
) -> Iterator[tuple[Array, Array, Array]]:
    """:func:`_tallies` of bootstrap samples, each ``(draws, classes)``."""
    from scipy.sparse import csr_array

    n, size = len(targets), int(max(targets.max(), predictions.max())) + 1
    cells, cell_of = np.unique(targets * size + predictions, return_inverse=True)
    owner = cell_of if groups is None else np.unique(groups, return_inverse=True)[1]
    units = int(owner.max()) + 1
    # A unit is a group, or all examples of one cell of the confusion matrix (drawn together by their number).
    chance = np.full(units, 1 / units) if groups is not None else np.bincount(owner) / n
    number = units if groups is not None else n
    table = csr_array((np.ones(n), (owner, cell_of)), shape=(units, len(cells)))
    if groups is None:
        table = csr_array((np.ones(units), (np.arange(units), np.arange(units))), shape=(units, units))
    truth, answer = cells // size, cells % size
    rows = np.arange(len(cells))
    to_truth = table @ csr_array((np.ones(len(cells)), (rows, truth)), shape=(len(cells), size))
    to_answer = table @ csr_array((np.ones(len(cells)), (rows, answer)), shape=(len(cells), size))
    to_hit = table @ csr_array(((truth == answer).astype(float), (rows, truth)), shape=(len(cells), size))
    rng = np.random.default_rng(seed)
    for _ in range(0, DRAWS, 100):
        times = rng.multinomial(number, chance, size=100).astype(float)
        yield times @ to_hit, times @ to_truth, times @ to_answer


def ratio(above: Array, below: Array) -> Array:
    """One over the other, 0 where there is nothing below."""
    found: Array = np.divide(above, below, out=np.zeros_like(np.asarray(above, dtype=float)), where=below > 0)
    return found


def _mean_recall(hits: Array, support: Array) -> Array:
    occurs: Array = support > 0
    mean: Array = ratio(hits, support).sum(1) / np.maximum(occurs.sum(1), 1)
    return mean


def _mean_f1(hits: Array, support: Array, predicted: Array) -> Array:
    occurs: Array = support + predicted > 0
    mean: Array = ratio(2 * hits, support + predicted).sum(1) / np.maximum(occurs.sum(1), 1)
    return mean
