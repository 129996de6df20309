from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from topgraft.chunked import Rows
from topgraft.ridge import choose, pose
from topgraft.softmax import minimise, refine, shrinkage


@pytest.mark.parametrize(("n", "width"), [(80, 6), (40, 90)])
def test_refined_head_is_the_logistic_regression_of_scikit_learn(n: int, width: int) -> None:
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(n) % 3
    x = torch.randn(n, width, generator=generator) + torch.randn(3, width, generator=generator)[y]
    weights = torch.ones(n).double()
    rows = Rows.of(x, n)
    problem = pose(rows, y, 3, weights)
    start, penalty = torch.zeros_like(problem.cross), 5.0
    beta, offset = refine(problem, rows, y, weights, start=start, offset=problem.priors(), penalty=penalty)
    a = ((x.double() - problem.spectrum.mean) * problem.spectrum.inverse).numpy()
    theirs = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=5000).fit(a, y.numpy())
    ours = (torch.from_numpy(a) @ (problem.spectrum.axes @ beta) + offset).softmax(1)
    np.testing.assert_allclose(ours.numpy(), theirs.predict_proba(a), atol=3e-3)


def test_rows_read_again_give_what_rows_in_memory_give(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(5000) % 3
    x = torch.randn(5000, 4, generator=generator) + torch.randn(3, 4, generator=generator)[y]
    weights, rows = torch.ones(5000).double(), Rows.of(x, 5000)
    results = []
    for limit in (2**25, 1):
        monkeypatch.setattr("topgraft.ridge.SCORED", limit)
        problem = pose(rows, y, 3, weights)
        assert problem.is_whole == (limit > 1)
        start = problem.solution(10.0)
        results.append(refine(problem, rows, y, weights, start=start, offset=problem.priors(), penalty=2.0))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-8)


def test_minimise_finds_the_bottom_of_an_ill_conditioned_bowl() -> None:
    steepness = torch.logspace(0, 4, 20).double()[:, None]
    bottom = torch.linspace(-1, 1, 20).double()[:, None]

    def bowl(point: torch.Tensor) -> tuple[float, torch.Tensor]:
        away = point - bottom
        return 1e-3 + float((steepness * away**2).sum()) / 2, steepness * away

    found = minimise(bowl, torch.zeros(20, 1).double(), torch.ones(20, 1).double() * 100)
    assert bowl(found)[0] < 1e-2 * bowl(torch.zeros(20, 1).double())[0]
    exact = minimise(bowl, torch.zeros(20, 1).double(), steepness)
    torch.testing.assert_close(exact, bottom)


def test_features_that_say_nothing_are_shrunk_as_hard_as_the_ridge() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(3, (120,), generator=generator)
    x = torch.randn(120, 10, generator=generator)
    weights, rows = torch.ones(120).double(), Rows.of(x, 120)
    problem = pose(rows, y, 3, weights)
    choice = choose(problem)
    beta, _ = refine(
        problem,
        rows,
        y,
        weights,
        start=problem.solution(choice.penalty),
        offset=problem.priors(),
        penalty=shrinkage(problem, choice),
    )
    assert float((problem.coordinates @ beta).abs().mean()) < 0.2
