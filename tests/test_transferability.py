from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.neighbors import KNeighborsClassifier

from topgraft.errors import TopgraftError
from topgraft.evidence import Features
from topgraft.transferability import MOST_EXAMPLES, logme, neighbour_accuracy, secondary


def problem(n: int, width: int, *, signal: float, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % 3
    x = rng.normal(size=(n, width))
    x[:, :3] += signal * np.eye(3)[targets]
    return torch.from_numpy(x), targets


@pytest.mark.parametrize(("n", "width"), [(60, 8), (20, 40)])
def test_logme_is_the_log_evidence_at_its_maximum(n: int, width: int):
    """The evidence is the density of the targets when the weights are integrated out: here in full, n x n."""
    x, targets = problem(n, width, signal=1.5)
    y = np.eye(3)[targets]

    def evidence(logs: np.ndarray, column: np.ndarray) -> float:
        alpha, beta = np.exp(logs)
        covariance = np.eye(n) / beta + x.numpy() @ x.numpy().T / alpha
        return float(multivariate_normal(np.zeros(n), covariance).logpdf(column)) / n

    best = [
        -minimize(lambda logs, c=c: -evidence(logs, c), [0.0, 0.0], method="Nelder-Mead").fun for c in y.T
    ]
    assert logme(x, targets) == pytest.approx(np.mean(best), abs=2e-3)


def test_neighbours_answer_as_scikit_learns_do():
    x, targets = problem(90, 5, signal=1.0)
    fold_of = np.arange(90) // 3 % 5
    right = 0
    for fold in range(5):
        train, test = fold_of != fold, fold_of == fold
        mean, spread = x[train].mean(0), x[train].std(0, correction=0)
        z = ((x - mean) / spread).numpy()
        model = KNeighborsClassifier(1, metric="cosine").fit(z[train], targets[train])
        right += int((model.predict(z[test]) == targets[test]).sum())
    assert neighbour_accuracy(x, targets, fold_of, neighbours=1) == right / 90


def test_both_rank_cuts_by_what_they_hold_of_the_classes():
    cuts = {
        keep: problem(150, 6, signal=s, seed=keep)[0].float() for keep, s in ((1, 0.0), (2, 1.0), (3, 4.0))
    }
    targets = np.arange(150) % 3
    found = secondary(Features(cuts, "test"), targets, np.arange(150) // 3 % 5)
    assert list(found) == [1, 2, 3]
    assert found[1].neighbours < 0.5 < found[2].neighbours < found[3].neighbours
    assert found[1].logme < found[2].logme < found[3].logme


def test_of_many_examples_a_sample_is_taken_and_is_the_same_for_the_same_seed():
    n = MOST_EXAMPLES + 500
    x, targets = problem(n, 4, signal=2.0)
    fold_of = np.arange(n) // 3 % 5
    features = Features({1: x.float()}, "test")
    assert secondary(features, targets, fold_of) == secondary(features, targets, fold_of)
    assert secondary(features, targets, fold_of)[1] != secondary(features, targets, fold_of, seed=1)[1]


def test_constant_features_say_nothing_and_numbers_that_are_none_are_refused():
    targets = np.arange(30) % 3
    assert np.isfinite(logme(torch.ones(30, 4), targets))
    assert neighbour_accuracy(torch.ones(30, 4), targets, np.arange(30) % 5) < 0.6
    with pytest.raises(TopgraftError, match="finite"):
        logme(torch.full((30, 4), float("nan")), targets)
