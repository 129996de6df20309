from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from topgraft.chunked import Rows
from topgraft.ridge import Moments, Problem, choose, decompose, moments, pose


def draw(n: int, width: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    centres = torch.randn(classes, width, generator=generator)
    x = centres[y] + 2 * torch.randn(n, width, generator=generator)
    return x * torch.logspace(-3, 3, width) + 7, y


def posed(x: torch.Tensor, y: torch.Tensor, classes: int, weights: torch.Tensor | None = None) -> Problem:
    weights = torch.ones(len(y)).double() if weights is None else weights
    return pose(Rows.of(x, len(y)), y, classes, weights)


def standardised(problem: Problem, x: torch.Tensor) -> np.ndarray:
    return ((x.double() - problem.spectrum.mean) * problem.spectrum.inverse).numpy()


@pytest.mark.parametrize(("n", "width"), [(60, 7), (25, 80), (30, 30)])
@pytest.mark.parametrize("penalty", [1e-3, 1.0, 300.0])
def test_solution_is_the_ridge_of_scikit_learn(n: int, width: int, penalty: float) -> None:
    x, y = draw(n, width, 3)
    problem = posed(x, y, 3)
    ours = (problem.spectrum.axes @ problem.solution(penalty)).T.numpy()
    theirs = Ridge(alpha=penalty, solver="cholesky").fit(standardised(problem, x), np.eye(3)[y])
    np.testing.assert_allclose(ours, theirs.coef_, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("n", "width"), [(40, 7), (20, 60)])
@pytest.mark.parametrize("penalty", [0.1, 30.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_left_out_scores_are_those_of_fits_without_the_example(
    n: int, width: int, penalty: float, weighted: bool
) -> None:
    x, y = draw(n, width, 3)
    weights = torch.ones(n).double()
    if weighted:
        weights = torch.tensor([1.0, 2.0, 5.0]).double()[y]
        weights = weights * n / weights.sum()
    problem = posed(x, y, 3, weights)
    a, one_hot = standardised(problem, x), np.eye(3)[y]
    found = problem.left_out(penalty).numpy()
    priors = problem.priors_left_out().exp().numpy()
    for i in range(n):
        rest = np.arange(n) != i
        w = weights.numpy()[rest]
        fit = Ridge(alpha=penalty, solver="cholesky").fit(a[rest], one_hot[rest], sample_weight=w)
        mean = w @ one_hot[rest] / w.sum()
        np.testing.assert_allclose(found[i], fit.predict(a[[i]])[0] - mean, rtol=1e-7, atol=1e-9)
        shares = (w @ one_hot[rest] + 0.5) / (w.sum() + 1.5)
        np.testing.assert_allclose(priors[i], shares, rtol=1e-9)


def test_wide_and_tall_forms_agree() -> None:
    x, y = draw(50, 49, 3)
    tall = posed(x, y, 3)
    wide = posed(torch.cat([x, torch.full((50, 5), 3.0)], 1), y, 3)  # constant columns change nothing
    assert len(tall.spectrum.values) == 49
    assert len(wide.spectrum.values) == 50
    torch.testing.assert_close(tall.left_out(2.0), wide.left_out(2.0), rtol=1e-6, atol=1e-9)
    assert wide.spectrum.inverse[49:].tolist() == [0.0] * 5


@pytest.mark.parametrize("n", [8, 40])
def test_constant_columns_have_no_weight_however_large_they_are(n: int) -> None:
    x, y = draw(n, 12, 2)
    x[:, 3], x[:, 5], x[:, 7] = 0.0, 1e7 / 3, -1e-9 / 3
    problem = posed(x, y, 2)
    assert problem.spectrum.inverse[[3, 5, 7]].tolist() == [0.0, 0.0, 0.0]
    assert (problem.spectrum.inverse[[0, 1, 2, 4, 6, 8]] > 0).all()
    assert problem.solution(1.0).isfinite().all()


def test_nothing_but_constant_columns_gives_the_shares_of_the_classes() -> None:
    y = torch.tensor([0, 0, 0, 1])
    problem = posed(torch.ones(4, 6), y, 2)
    choice = choose(problem)
    assert problem.solution(choice.penalty).abs().max() == 0
    np.testing.assert_allclose(problem.priors().exp().numpy(), [3.5 / 5, 1.5 / 5])


def test_moments_of_parts_add_up_to_those_of_the_whole() -> None:
    x, _ = draw(30, 5, 2)
    shift, ones = x[:3].double().mean(0), torch.ones(30).double()
    whole = moments(Rows.of(x, 30), ones, shift)
    parts = [
        moments(Rows.of(x, len(i), i), ones[: len(i)], shift)
        for i in (torch.arange(11), torch.arange(11, 30))
    ]
    summed: Moments = parts[0] + parts[1]
    torch.testing.assert_close(summed.product, whole.product)
    rows = Rows.of(x, 30)
    torch.testing.assert_close(
        decompose(rows, ones, known=summed).values, decompose(rows, ones).values, rtol=1e-9, atol=1e-9
    )


def test_a_large_mean_costs_no_precision() -> None:
    x, y = draw(200, 4, 2)
    x = x.double()
    near, far = posed(x, y, 2), posed(x + 1e3 * x.std(0), y, 2)
    torch.testing.assert_close(near.left_out(1.0), far.left_out(1.0), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("n", "width"), [(60, 20), (60, 600), (3000, 20), (400, 300)])
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_penalty_lies_inside_the_grid_and_does_not_depend_on_units(
    n: int, width: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(1)
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    x = torch.randn(n, width, generator=generator) / torch.arange(1, width + 1) @ turn
    signal = x @ torch.randn(width, generator=generator)
    y = (signal + 0.4 * signal.std() * torch.randn(n, generator=generator) > 0).long()
    choice, scaled = choose(posed(x, y, 2)), choose(posed(x * scale, y, 2))
    assert choice.edge == ""
    assert scaled.penalty == pytest.approx(choice.penalty, rel=1e-4)


def test_an_edge_of_the_penalties_is_told() -> None:
    x, y = draw(60, 5, 2, seed=4)
    problem = posed(x, y, 2)
    best = choose(problem).penalty / problem.spectrum.scale
    assert choose(problem, [best * 10, best * 100]).edge == "low"
    assert choose(problem, [best / 100, best / 10]).edge == "high"
    assert choose(problem, [best / 10, best, best * 10]).edge == ""


def test_many_rows_are_scored_on_a_part_and_fitted_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = draw(6000, 6, 3)
    whole = posed(x, y, 3)
    monkeypatch.setattr("topgraft.ridge.SCORED", 1)
    part = posed(x, y, 3)
    assert whole.is_whole
    assert not part.is_whole
    assert len(part.coordinates) == 4096
    torch.testing.assert_close(part.solution(3.0), whole.solution(3.0), rtol=1e-8, atol=1e-10)
    chosen = part.targets
    index = torch.randperm(6000, generator=torch.Generator().manual_seed(0))[:4096].sort().values
    assert torch.equal(chosen, y[index])
    torch.testing.assert_close(part.left_out(3.0), whole.left_out(3.0)[index], rtol=1e-8, atol=1e-10)


def test_of_wide_features_fewer_rows_are_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = draw(60, 20, 3)
    whole = posed(x, y, 3)
    assert [len(chunk) for chunk in Rows.of(x, 60).chunks()] == [60]
    monkeypatch.setattr("topgraft.chunked.CHUNKED", 7 * 20)
    assert [len(chunk) for chunk in Rows.of(x, 60).chunks()] == [7] * 8 + [4]
    parts = posed(x, y, 3)
    torch.testing.assert_close(parts.solution(3.0), whole.solution(3.0), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(parts.left_out(3.0), whole.left_out(3.0), rtol=1e-8, atol=1e-10)
