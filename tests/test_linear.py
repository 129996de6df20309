"""Linear heads: what they give, on what they are fitted, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn import draw
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.preprocessing import StandardScaler

from topgraft.errors import TopgraftError
from topgraft.linear import fit_head

KINDS = ("blend", "ridge", "logistic")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "width"), [(400, 12), (60, 150)])
def test_folded_head_gives_calibrated_probabilities(kind: str, n: int, width: int) -> None:
    x, y = draw(n + 4000, width, 3, seed=2)
    fit = fit_head(x[:n] * 50 + 9, y[:n], 3, kind=kind)
    assert fit.weight.dtype == fit.bias.dtype == torch.float64
    assert fit.weight.shape == (3, width)
    logits = fit.logits(x[n:] * 50 + 9)
    losses = [float(torch.nn.functional.cross_entropy(logits * hot, y[n:])) for hot in (0.6, 1.0, 1.6)]
    assert losses[1] < min(losses[0], losses[2])
    assert losses[1] < 0.8 * np.log(3)
    sure = logits.softmax(1).max(1)
    assert float(sure.values.mean()) == pytest.approx(float((sure.indices == y[n:]).float().mean()), abs=0.06)


@pytest.mark.parametrize("kind", KINDS)
def test_left_out_loss_foretells_the_loss_on_new_examples(kind: str) -> None:
    x, y = draw(5000, 30, 3, seed=4)
    fit = fit_head(x[:1000], y[:1000], 3, kind=kind)
    new = float(torch.nn.functional.cross_entropy(fit.logits(x[1000:]), y[1000:]))
    assert fit.loss == pytest.approx(new, abs=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_features_that_say_nothing_give_the_shares_of_the_classes(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.tensor([0] * 150 + [1] * 50)
    x = torch.randn(200, 30, generator=generator)
    x = x - x[y == 0].mean(0) * (y == 0)[:, None] - x[y == 1].mean(0) * (y == 1)[:, None]
    p = fit_head(x, y, 2, kind=kind).logits(torch.randn(50, 30, generator=generator)).softmax(1)
    assert float((p[:, 0] - 0.75).abs().max()) < 0.02


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [2**25, 1])
def test_chunks_give_what_a_tensor_gives(kind: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topgraft.ridge.SCORED", limit)
    x, y = draw(4500, 6, 3)
    together = fit_head(x, y, 3, kind=kind)
    apart = fit_head(lambda: iter(x.split(700)), y, 3, kind=kind)
    torch.testing.assert_close(apart.weight, together.weight, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(apart.bias, together.bias, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("width", [6, 400])
@pytest.mark.parametrize("limit", [2**25, 1])
def test_features_are_left_as_they_were_given(
    width: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topgraft.ridge.SCORED", limit)
    x, y = draw(4500 if width == 6 else 300, width, 3)
    given, parts = x.double(), x.double().split(100)
    fit_head(given, y, 3)
    fit_head(lambda: iter(parts), y, 3)
    assert torch.equal(given, x.double())
    assert torch.equal(torch.cat(parts), x.double())


@pytest.mark.parametrize("kind", KINDS)
def test_class_weights_move_the_answers_towards_the_class(kind: str) -> None:
    x, y = draw(300, 5, 2, apart=0.3)
    plain, equal, second = (
        fit_head(x, y, 2, kind=kind, class_weights=w)
        for w in (None, torch.ones(2) * 3, torch.tensor([1.0, 9.0]))
    )
    torch.testing.assert_close(plain.weight, equal.weight, rtol=1e-9, atol=1e-12)
    share = [float((f.logits(x).argmax(1) == 1).float().mean()) for f in (plain, second)]
    assert share[1] > share[0] + 0.1


def test_emphasis_of_nought_is_a_column_left_out() -> None:
    x, y = draw(100, 6, 3)
    emphasis = torch.tensor([1.0, 1, 1, 1, 0, 0])
    some, without = fit_head(x, y, 3, emphasis=emphasis), fit_head(x[:, :4], y, 3)
    assert some.weight[:, 4:].abs().max() == 0
    assert not torch.allclose(fit_head(x, y, 3).weight[:, :4], without.weight)
    np.testing.assert_allclose(some.loss, without.loss, atol=0.01)


def test_a_class_with_one_example_and_one_with_none_are_no_obstacle() -> None:
    x, y = draw(30, 50, 2)
    y[0] = 2
    fit = fit_head(x, y, 4)
    assert fit.logits(x).isfinite().all()
    assert fit.weight.shape == (4, 50)


@pytest.mark.parametrize(("n", "width"), [(300, 12), (40, 90)])
def test_of_numbers_it_is_scikit_learns_ridge_at_the_penalty_of_the_least_left_out_error(
    n: int, width: int
) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(n, width, generator=generator).double() * 7 + 2
    y = x[:, :3] @ torch.randn(3, 2, generator=generator).double() + torch.randn(n, 2, generator=generator)
    fit = fit_head(x, y)
    standard = StandardScaler().fit_transform(x.numpy())
    peer = Ridge(fit.penalty).fit(standard, y.numpy())
    assert np.allclose(fit.logits(x).numpy(), peer.predict(standard), rtol=1e-6, atol=1e-6)
    assert fit.temperature == 1.0

    def left_out(penalty: float) -> float:
        away = cross_val_predict(Ridge(penalty), standard, y.numpy(), cv=LeaveOneOut()) - y.numpy()
        return float(np.square(away).mean())

    assert fit.loss == pytest.approx(
        left_out(fit.penalty), rel=0.02
    )  # the peer's columns keep their scale, too
    assert fit.loss <= min(left_out(fit.penalty * factor) for factor in (0.1, 10)) * 1.02


def test_numbers_in_chunks_give_what_a_tensor_gives() -> None:
    x, y = draw(5000, 6, 3)
    numbers = torch.stack([y.double(), x[:, 0].double()], 1)
    whole = fit_head(x, numbers)
    chunked = fit_head(lambda: iter(x.split(700)), numbers)
    assert torch.allclose(whole.weight, chunked.weight, atol=1e-9)
    assert torch.allclose(whole.bias, chunked.bias, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"targets": torch.full((20, 1), float("nan"))}, "must be finite"),
        ({"targets": torch.zeros(20)}, r"\(n, outputs\)"),
        ({"classes": 3}, "int64"),
        ({"class_weights": torch.ones(3)}, "class_weights are for classes"),
    ],
)
def test_numbers_that_can_not_be_meant_are_refused(change: dict, words: str) -> None:
    given = {"targets": torch.randn(20, 1), "classes": 0} | change
    with pytest.raises(TopgraftError, match=words):
        fit_head(torch.randn(20, 4), given.pop("targets"), given.pop("classes"), **given)
