"""Probabilities that mean what they say: calibration error, temperature, prediction sets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from topgraft.errors import TopgraftError
from topgraft.evidence import CutEvidence
from topgraft.label_scores import chances_of, log_loss, own_improbable
from topgraft.objective import are_binary, are_labels, are_numbers, are_steps
from topgraft.ordered import chances_at, class_chances

Array = np.ndarray[Any, np.dtype[Any]]

BINS = 15
"""Of equal width, as in Guo et al. (2017)."""
COVERAGE = 0.9
"""Of intervals about predicted numbers, where nobody says another."""
COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures that are tried."""


@dataclass(frozen=True)
class Bin:
    """Predictions of about the same confidence.

    Parameters
    ----------
    low, high
        Confidences from ``low``, exclusive, to ``high``.
    count
        How many predictions.
    confidence, accuracy
        Their mean confidence, and the share that is right; not-a-number where there are none.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """What the examples that were not trained on say of a model's probabilities.

    Parameters
    ----------
    temperature
        By which the logits were divided; 1 where they were right already, and for numbers.
    scores
        Per such example one minus the probability of its own class (of the least probable of its labels, 0
        where it has none), ascending: what prediction sets go by. Of predicted
        numbers the largest error of its outputs, in units of their spread.
    examples
        Where they come from, in words.
    """

    temperature: float
    scores: tuple[float, ...]
    examples: str

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**asdict(self), "scores": list(self.scores)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Calibration:
        """The one that :meth:`to_json` wrote."""
        return cls(
            float(value["temperature"]), tuple(float(s) for s in value["scores"]), str(value["examples"])
        )

    def threshold(self, coverage: float) -> float:
        """See :func:`conformal_threshold`."""
        return conformal_threshold(self.scores, coverage)

    @classmethod
    def of_losses(cls, losses: Array) -> Calibration:
        """Of a probe, its temperature fitted inside each fold, by out-of-fold losses ``(n,)`` in nats."""
        scores = -np.expm1(-np.asarray(losses, dtype=np.float64))
        return cls(1.0, tuple(np.sort(scores).tolist()), f"{len(scores):,} examples out of fold")

    @classmethod
    def of_errors(cls, predictions: Array, targets: Array, examples: str) -> Calibration:
        """Of standardised numbers ``(n, outputs)`` predicted for examples that were not trained on."""
        scores = np.sort(np.abs(predictions - targets).max(1))
        return cls(1.0, tuple(scores.tolist()), f"{len(scores):,} examples {examples}")

    @classmethod
    def of_probe(cls, cut: CutEvidence, targets: Array) -> Calibration:
        """Of the probe at a cut, by the examples out of fold; targets as the evidence has them."""
        if are_numbers(targets):
            return cls.of_errors(cut.predictions, targets, "out of fold")
        if are_binary(targets):
            scores = np.sort(_improbable(cut.predictions, targets))
            return cls(1.0, tuple(scores.tolist()), f"{len(scores):,} examples out of fold")
        return cls.of_losses(cut.losses)

    @classmethod
    def of_outputs(cls, outputs: Array, targets: Array) -> Calibration:
        """Of a trained model, by its logits or numbers ``(n, outputs)`` on the validation part."""
        if are_numbers(targets):
            return cls.of_errors(outputs, targets, "of the validation part")
        temperature = fit_temperature(outputs, targets)
        if are_binary(targets):
            scores = np.sort(_improbable(outputs / temperature, targets))
        else:
            scores = np.sort(-np.expm1(-cooled_losses(outputs, targets)))
        return cls(
            temperature,
            tuple(scores.tolist()),
            f"{len(scores):,} examples of the validation part",
        )

    def measured(self, probabilities: Array, targets: Array, *, is_ordered: bool = False) -> dict[str, Any]:
        """The error on untouched data, with the temperature and without: the fixed form of ``fit --json``."""
        if is_ordered:
            before = chances_at(probabilities, 1 / self.temperature)
        else:
            before = at_temperature(probabilities, 1 / self.temperature, several=are_labels(targets))
        bins = reliability(probabilities, targets)
        return {
            "error": calibration_error(probabilities, targets),
            "error_before": calibration_error(before, targets),
            "temperature": self.temperature,
            "examples": self.examples,
            "bins": [asdict(b) for b in bins],
        }

    def intervals(
        self, numbers: Array, targets: Array, spread: Sequence[float], *, coverage: float = COVERAGE
    ) -> dict[str, Any]:
        """How many untouched targets lie in the intervals about predicted numbers: ``fit --json``.

        Parameters
        ----------
        numbers, targets
            ``(n, outputs)`` float, in the target's unit.
        spread
            Of each output.
        coverage
            Share of examples whose numbers all shall lie inside.

        Returns
        -------
        dict
            ``coverage`` asked for and ``measured``, ``half_widths`` in the unit of each output (``None``
            where there are too few examples for any), and where they come from.
        """
        limit = self.threshold(coverage)
        half = limit * np.array(spread)
        inside = (np.abs(numbers - targets) <= half).all(1)
        return {
            "coverage": coverage,
            "measured": float(inside.mean()),
            "half_widths": half.tolist() if math.isfinite(limit) else None,
            "examples": self.examples,
        }


def cooled_losses(logits: Array, targets: Array) -> Array:
    """What each example loses, in nats, at the temperature that suits all of them best: ``(n,)`` float64."""
    if are_binary(targets):
        return log_loss(np.asarray(logits, dtype=np.float64) / fit_temperature(logits, targets), targets)
    cooled = log_softmax(np.asarray(logits, dtype=np.float64) / fit_temperature(logits, targets))
    found: Array = -cooled[np.arange(len(targets)), targets]
    return found


def _improbable(logits: Array, targets: Array) -> Array:
    """One less the probability of what each example is, of logits of labels or steps: ``(n,)``."""
    if not are_steps(targets):
        return own_improbable(chances_of(logits), targets)
    own = targets.sum(1, dtype=np.int64)
    found: Array = 1 - class_chances(logits)[np.arange(len(own)), own]
    return found


NOT_CALIBRATED = Calibration(1.0, (), "no examples")


def reliability(probabilities: Array, targets: Array, *, bins: int = BINS) -> tuple[Bin, ...]:
    """Confidence against accuracy, bin by bin: the numbers of a reliability diagram.

    Parameters
    ----------
    probabilities
        ``(n, classes)`` float, rows that sum to 1; or each label's own.
    targets
        ``(n,)`` class indices; or ``(n, labels)`` bool, of which every one counts for itself: confidence is
        then the probability of the label, and accuracy the share that has it.
    bins
        Number of bins of equal width.

    Raises
    ------
    TopgraftError
        If the shapes do not fit, or there is no example.

    References
    ----------
    DeGroot & Fienberg (1983), The comparison and evaluation of forecasters.
    """
    confidence, right = _answers(probabilities, targets)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    found = []
    for i in range(bins):
        here = place == i
        count = int(here.sum())
        mean = (float(confidence[here].mean()), float(right[here].mean())) if count else (math.nan, math.nan)
        found.append(Bin(i / bins, (i + 1) / bins, count, *mean))
    return tuple(found)


def calibration_error(probabilities: Array, targets: Array, *, bins: int = BINS) -> float:
    """Expected calibration error: the mean distance of confidence and accuracy over bins, by their counts.

    Parameters
    ----------
    probabilities, targets, bins
        As in :func:`reliability`.

    Raises
    ------
    TopgraftError
        If the shapes do not fit, or there is no example.

    References
    ----------
    Naeini et al. (2015), Obtaining well calibrated probabilities using Bayesian binning; Guo et al. (2017),
    On calibration of modern neural networks.

    Examples
    --------
    >>> sure = np.array([[0.9, 0.1]] * 10)
    >>> round(calibration_error(sure, np.array([0] * 9 + [1])), 3)
    0.0
    >>> round(calibration_error(sure, np.array([0] * 5 + [1] * 5)), 3)
    0.4
    """
    table = reliability(probabilities, targets, bins=bins)
    total = sum(b.count for b in table)
    return sum(b.count / total * abs(b.confidence - b.accuracy) for b in table if b.count)


def fit_temperature(logits: Array, targets: Array) -> float:
    """The temperature by which logits must be divided to lose least on these examples.

    Parameters
    ----------
    logits
        ``(n, classes)`` float, of examples that were not trained on.
    targets
        ``(n,)`` class indices, ``(n, labels)`` bool, or ``(n, steps)`` uint8.

    Returns
    -------
    float
        Between 0.05 and 20.

    Raises
    ------
    TopgraftError
        If the shapes do not fit, or there is no example.

    References
    ----------
    Guo et al. (2017), On calibration of modern neural networks. As many pseudo-examples as Platt (1999) adds
    keep it finite where every example is right: each target is that class with ``(n + 1) / (n + 2)``.

    Examples
    --------
    >>> round(fit_temperature(np.array([[4.0, 0.0]] * 4), np.array([0, 0, 0, 1])), 1)
    5.8
    """
    from scipy.optimize import minimize_scalar

    logits, targets = np.asarray(logits, dtype=np.float64), np.asarray(targets)
    _check(logits, targets)
    n, classes = logits.shape
    wanted: Array
    if are_binary(targets):
        wanted = (targets * float(n) + 0.5) / (n + 1)
    else:
        wanted = np.full((n, classes), 1 / (n + 2) / max(1, classes - 1))
        wanted[np.arange(n), targets] = (n + 1) / (n + 2)

    def loss(log_temperature: float) -> float:
        cooled = logits / math.exp(log_temperature)
        if are_binary(targets):
            return float(log_loss(cooled, wanted).mean())
        return -float((wanted * log_softmax(cooled)).sum())

    bounds = (math.log(COLDEST), math.log(HOTTEST))
    return math.exp(float(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def at_temperature(probabilities: Array, temperature: float, *, several: bool = False) -> Array:
    """The probabilities ``(n, classes)`` that the same logits give at another temperature.

    With ``several`` they are of labels, each for itself.

    Examples
    --------
    >>> at_temperature(np.array([[0.8, 0.2]]), 2.0).round(2).tolist()
    [[0.67, 0.33]]
    """
    if several:
        from scipy.special import logit

        return chances_of(logit(np.asarray(probabilities, dtype=np.float64)) / temperature)
    with np.errstate(divide="ignore"):
        logits = np.log(np.asarray(probabilities, dtype=np.float64)) / temperature
    found: Array = np.exp(log_softmax(logits))
    return found


def log_softmax(logits: Array) -> Array:
    """Logarithms of the probabilities, ``(n, classes)``."""
    moved = logits - logits.max(1, keepdims=True)
    found: Array = moved - np.log(np.exp(moved).sum(1, keepdims=True))
    return found


def conformal_threshold(scores: Sequence[float], coverage: float) -> float:
    """How improbable a class may be, in one minus its probability, and still be in the prediction set.

    Parameters
    ----------
    scores
        Per calibration example one minus the probability of its own class.
    coverage
        Share of new examples whose own class the sets must hold, in (0, 1).

    Returns
    -------
    float
        The ``ceil((n + 1) coverage)``-th smallest score; infinite where there are too few examples for so
        high a coverage, so that sets hold every class.

    Raises
    ------
    TopgraftError
        If ``coverage`` is not between 0 and 1.

    References
    ----------
    Vovk et al. (2005), Algorithmic learning in a random world; Sadinle et al. (2019), Least ambiguous
    set-valued classifiers with bounded error levels.

    Examples
    --------
    >>> conformal_threshold([0.1, 0.2, 0.3, 0.9], 0.8), conformal_threshold([0.1], 0.9)
    (0.9, inf)
    """
    if not 0 < coverage < 1:
        raise TopgraftError(f"A coverage of {coverage:g} can't be meant. Give a share such as 0.9.")
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    return float(sorted(scores)[rank - 1]) if rank <= len(scores) else math.inf


def prediction_set(probabilities: Sequence[float], threshold: float) -> tuple[int, ...]:
    """The classes of one example that a threshold lets in, the most probable first; never none.

    Examples
    --------
    >>> prediction_set([0.1, 0.6, 0.3], 0.75)
    (1, 2)
    >>> prediction_set([0.4, 0.35, 0.25], 0.1)
    (0,)
    """
    order = sorted(range(len(probabilities)), key=lambda c: (-probabilities[c], c))
    inside = tuple(c for c in order if 1 - probabilities[c] <= threshold)
    return inside or (order[0],)


def _answers(probabilities: Array, targets: Array) -> tuple[Array, Array]:
    probabilities, targets = np.asarray(probabilities, dtype=np.float64), np.asarray(targets)
    _check(probabilities, targets)
    if are_labels(targets):
        return probabilities.ravel(), targets.ravel()
    return probabilities.max(1), probabilities.argmax(1) == targets


def _check(rows: Array, targets: Array) -> None:
    fits = rows.shape if are_binary(targets) else rows.shape[:1]
    if rows.ndim != 2 or targets.shape != fits or not len(rows):
        raise TopgraftError(
            f"Probabilities must be (n, classes) and targets (n,), n at least 1; got {rows.shape} and "
            f"{targets.shape}."
        )
