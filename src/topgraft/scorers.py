"""Any of scikit-learn's scorers by its name, with an interval; it is told, and no choice is made by it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import get_scorer, get_scorer_names

from topgraft.data.types import Task
from topgraft.errors import TopgraftError, nearest
from topgraft.label_scores import HALF
from topgraft.ordered import middle_class
from topgraft.score import Score, flawless_interval

Array = np.ndarray[Any, np.dtype[Any]]

DRAWS = 400
"""Bootstrap samples; a scorer is called for each, so that there are fewer than for our own scores."""
LEAST = 0.9
"""Share of the samples on which a score must exist for an interval."""


class _Said(BaseEstimator):
    """What was predicted for each row, as an estimator whose X are the rows' numbers."""

    def __init__(self, said: Array | None = None) -> None:
        self.said = said

    def fit(self, X: Array, y: Array) -> _Said:  # pragma: no cover - scikit-learn asks that there is one
        """Nothing is learned."""
        del X, y
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def _rows(self, X: Array) -> Array:
        assert self.said is not None
        found: Array = self.said[np.asarray(X)[:, 0].astype(int)]
        return found


class _Classes(ClassifierMixin, _Said):
    def __init__(self, said: Array | None = None) -> None:
        super().__init__(said)
        self.classes_ = np.arange(0 if said is None else said.shape[1])

    def predict(self, X: Array) -> Array:
        found: Array = self._rows(X).argmax(1)
        return found

    def predict_proba(self, X: Array) -> Array:
        return self._rows(X)


class _Labels(_Classes):
    def predict(self, X: Array) -> Array:
        found: Array = (self._rows(X) > HALF).astype(int)
        return found


class _Ranks(_Classes):
    def predict(self, X: Array) -> Array:
        return middle_class(self._rows(X))


class _Numbers(RegressorMixin, _Said):
    def predict(self, X: Array) -> Array:
        return self._rows(X)


ONE_CLASS: tuple[Task, ...] = ("classification", "ordinal")
"""Tasks in which an example has one class; numbers of ordered ones may be scored as numbers, too."""
_KINDS: dict[Task, type[_Said]] = {
    "classification": _Classes,
    "multilabel": _Labels,
    "ordinal": _Ranks,
    "regression": _Numbers,
}


def must_be_scorers(
    names: Sequence[str],
    task: Task,
    targets: Array | None = None,
    *,
    classes: int = 0,
    untouched: Array | None = None,
) -> None:
    """Refuse what is no name of a scorer, or scores another task.

    Where ``targets`` are given each scorer is tried on them as if they had been predicted; where a number of
    ``classes`` is, on two examples of each, since data that lack one may look like another task.
    ``untouched`` are the targets that will be scored at the end: where these lack a class that a scorer
    needs, it is refused now and not after the training.

    Raises
    ------
    TopgraftError
        With what scikit-learn says, and the nearest name of a scorer that can score this.

    Examples
    --------
    >>> must_be_scorers(["balanced_accuracy"], "classification")
    >>> must_be_scorers(["f1_makro"], "classification")
    Traceback (most recent call last):
        ...
    topgraft.errors.TopgraftError: --score f1_makro is none of scikit-learn's scorers. Nearest: f1_macro, ...
    """
    tried = [] if targets is None else [targets]
    if classes and task in ONE_CLASS:
        tried.insert(0, np.repeat(np.arange(classes), 2))
    for name in names:
        _or_nearest(name, task, tried, classes, untouched)


def _or_nearest(name: str, task: Task, tried: Sequence[Array], classes: int, untouched: Array | None) -> None:
    try:
        _must_be_scorer(name, task, tried, classes, untouched)
    except TopgraftError as problem:
        raise TopgraftError(f"{problem}{_nearest(name, task, tried, classes, untouched)}") from problem


def _must_be_scorer(
    name: str, task: Task, tried: Sequence[Array], classes: int, untouched: Array | None
) -> None:
    if name not in get_scorer_names():
        raise TopgraftError(f"--score {name} is none of scikit-learn's scorers.")
    home = get_scorer(name)._score_func.__module__
    if ".cluster" in home:
        raise TopgraftError(f"--score {name} compares clusterings; the task is {task}.")
    of_numbers = home.endswith("_regression")
    if of_numbers and task not in ("regression", "ordinal"):
        raise TopgraftError(f"--score {name} scores predicted numbers; the task is {task}.")
    for some in tried:
        _must_score(name, task, some, classes)
    if untouched is None:
        return
    try:
        exists = math.isfinite(_must_score(name, task, untouched, classes))
    except TopgraftError as problem:
        raise TopgraftError(f"{problem}{_lacking(task, untouched, classes)}") from problem
    if not exists:
        raise TopgraftError(
            f"--score {name} does not exist on the untouched examples.{_lacking(task, untouched, classes)}"
        )


def _lacking(task: Task, untouched: Array, classes: int) -> str:
    """How many classes the untouched examples lack, as a sentence; empty where they have all."""
    missing = classes - len(np.unique(untouched)) if task in ONE_CLASS else 0
    if missing <= 0:
        return ""
    which = "1 of the classes has" if missing == 1 else f"{missing} of the classes have"
    return f" {which} no untouched example."


def _nearest(name: str, task: Task, tried: Sequence[Array], classes: int, untouched: Array | None) -> str:
    """The nearest names among the scorers that can score this."""
    if not tried:
        usual = {"multilabel": np.eye(3, dtype=bool), "regression": np.array([[0.5], [1.5], [3.0]])}
        tried = [usual.get(task, np.array([0, 0, 1, 1, 2, 2]))]

    def works(other: str) -> bool:
        try:
            _must_be_scorer(other, task, tried, classes, untouched)
        except TopgraftError:
            return False
        return True

    close = nearest(name, [other for other in get_scorer_names() if other != name and works(other)])
    return f" Nearest: {', '.join(close)}." if close else ""


def _must_score(name: str, task: Task, targets: Array, classes: int = 0) -> float:
    try:
        return _scoring(name, task, targets, _as_predicted(task, targets, classes))(np.arange(len(targets)))
    except (ValueError, TypeError, AttributeError) as error:
        raise _refused(name, task, error) from error


def _refused(name: str, task: Task, error: Exception) -> TopgraftError:
    why = " ".join(str(error).split())[:200]
    return TopgraftError(f"--score {name} can't score this {task}: {why}")


def _scoring(name: str, task: Task, targets: Array, said: Array) -> Callable[[Array], float]:
    """The score of some rows, by their numbers."""
    scorer, model = get_scorer(name), _KINDS[task](said)
    rows, wanted = np.arange(len(targets))[:, None], targets
    if task == "multilabel":
        wanted = targets.astype(int)
    elif task == "regression" and targets.shape[1] == 1:
        wanted, model = targets[:, 0], _Numbers(said[:, 0])

    def on(some: Array) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes that a sample lacks
            return float(scorer(model, rows[some], wanted[some]))

    return on


def _as_predicted(task: Task, targets: Array, classes: int = 0) -> Array:
    """Targets as what would be said by a model that knows them."""
    if task in ONE_CLASS:
        return np.eye(max(classes, int(targets.max()) + 1))[targets]
    return targets.astype(float)


def score_by(
    name: str, task: Task, targets: Array, said: Array, *, groups: Array | None = None, seed: int = 0
) -> Score:
    """A score by one of scikit-learn's scorers, with its 95 % interval by the bootstrap.

    Parameters
    ----------
    name
        As scikit-learn has it: what is called ``neg_…`` is an error with its sign changed.
    task
        Of the model. Of two classes scorers such as ``precision`` are about the second one.
    targets
        ``(n,)`` indices of classes, ``(n, labels)`` booleans, or ``(n, outputs)`` numbers.
    said
        Probabilities ``(n, classes)``, of labels each for itself, or predicted numbers ``(n, outputs)``.
    groups
        ``(n,)`` group numbers, drawn whole; default: every example by itself.
    seed
        Of the bootstrap.

    Returns
    -------
    Score
        Its interval is not-a-number where the score doesn't exist on a tenth of the samples or more. Where
        the samples all have one value, since nothing is wrong or all is, it is that of a share, see
        :func:`topgraft.score.flawless_interval`; of errors (``neg_…``) there is none then.

    Raises
    ------
    TopgraftError
        If there is no such scorer, or it can't score this task.

    Examples
    --------
    >>> said = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    >>> score_by("balanced_accuracy", "classification", np.array([0, 0, 1, 1]), said).value
    0.75
    """
    _must_be_scorer(name, task, (), 0, None)
    on = _scoring(name, task, targets, said)
    every = np.arange(len(targets))
    try:
        value = on(every)
    except (ValueError, TypeError, AttributeError) as error:
        raise _refused(name, task, error) from error
    _, owner = np.unique(every if groups is None else groups, return_inverse=True)
    members = [np.flatnonzero(owner == unit) for unit in range(int(owner.max()) + 1)]
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        some = np.concatenate([members[unit] for unit in rng.integers(len(members), size=len(members))])
        try:
            drawn.append(on(some))
        except ValueError:  # the sample lacks a class that the scorer needs
            drawn.append(math.nan)
    exists = np.array(drawn)[np.isfinite(drawn)]
    if len(exists) < LEAST * DRAWS:
        return Score(name, value, math.nan, math.nan, len(targets))
    low, high = (float(q) for q in np.quantile(exists, (0.025, 0.975)))
    if low == high:
        is_error = name.startswith("neg_")
        low, high = (math.nan, math.nan) if is_error else flawless_interval(value, len(targets), groups)
    return Score(name, value, min(low, value), max(high, value), len(targets))
