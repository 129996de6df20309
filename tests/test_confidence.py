from __future__ import annotations

import numpy as np
import pytest

from topgraft.confidence import Paired, any_better, confidence_set, pairwise_gains
from topgraft.errors import TopgraftError


def draw(shares: list[float], n: int, seed: int, *, common: float = 0.7) -> list[np.ndarray]:
    """Mistakes and nats of candidates that err together: a share of the noise is common."""
    rng = np.random.default_rng(seed)
    noise = common**0.5 * rng.normal(size=(n, 1)) + (1 - common) ** 0.5 * rng.normal(size=(n, len(shares)))
    quantile = np.array([np.quantile(np.random.default_rng(0).normal(size=100_000), s) for s in shares])
    hardness = quantile + noise
    return [(hardness > 0).astype(float), np.log1p(np.exp(2 * hardness))]


def test_errors_are_those_of_the_paired_differences() -> None:
    losses = draw([0.3, 0.4, 0.5], 200, 0)
    paired = Paired.of(losses, np.arange(200), seed=0)
    expected = np.std(losses[1][:, 0] - losses[1][:, 2], ddof=1) / 200**0.5
    assert paired.errors[1, 0, 2] == pytest.approx(expected)
    zeros_and_ones = np.std(losses[0][:, 0] - losses[0][:, 2], ddof=1) ** 2 / 200 + 2 / 200**2
    assert paired.errors[0, 0, 2] == pytest.approx(zeros_and_ones**0.5)
    assert paired.errors[0, 1, 1] == 0
    assert paired.worse(2)[1, 0] == pytest.approx((losses[1][:, 2] - losses[1][:, 0]).mean() / expected)


def test_small_training_sets_widen_errors() -> None:
    losses = draw([0.3, 0.4], 100, 0)
    plain, wide = (Paired.of(losses, np.arange(100), seed=0, unstable=u) for u in (0.0, 4.4))
    np.testing.assert_allclose(wide.errors, 1.2 * plain.errors)


def test_groups_are_drawn_whole() -> None:
    losses = draw([0.3, 0.4], 100, 0)
    copied = [np.repeat(loss, 9, axis=0) for loss in losses]
    whole = Paired.of(copied, np.repeat(np.arange(100), 9), seed=0)
    once = Paired.of(losses, np.arange(100), seed=0)
    assert whole.errors[1, 0, 1] == pytest.approx(once.errors[1, 0, 1])


def test_many_units_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = draw([0.3, 0.4], 4000, 0)
    fine = Paired.of(losses, np.arange(4000), seed=0)
    monkeypatch.setattr("topgraft.confidence.MOST_UNITS", 500)
    coarse = Paired.of(losses, np.arange(4000), seed=0)
    assert coarse.units.shape[1] == 500
    assert coarse.errors[1, 0, 1] == pytest.approx(fine.errors[1, 0, 1], rel=0.15)


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topgraft.confidence.DRAWS", 500)


@pytest.mark.usefixtures("few_draws")
def test_the_truly_best_is_in_the_set() -> None:
    equal = first = 0
    for seed in range(120):
        losses = draw([0.3] * 6, 150, seed)
        equal += 0 in confidence_set(Paired.of(losses, np.arange(150), seed=seed)).members
        losses = draw([0.3, 0.31, 0.32, 0.35, 0.4, 0.5], 150, seed)
        first += 0 in confidence_set(Paired.of(losses, np.arange(150), seed=seed)).members
    assert equal >= 107  # 114 expected; 107 is three standard errors below
    assert first >= 107
    assert equal < 120  # else the level would not be used


@pytest.mark.usefixtures("few_draws")
def test_the_set_is_sharp() -> None:
    sizes, kept = [], 0
    for seed in range(20):
        losses = draw([0.25, 0.3, 0.3, 0.3, 0.3, 0.3], 1000, seed)
        found = confidence_set(Paired.of(losses, np.arange(1000), seed=seed)).members
        sizes.append(len(found))
        kept += 0 in found
    assert np.mean(sizes) <= 2
    assert kept == 20


def test_loss_tells_apart_what_accuracy_can_not() -> None:
    losses = draw([0.3, 0.3], 400, 1, common=0.9)
    losses[1] = losses[1] - losses[1].mean(0) + [1.0, 1.1]
    assert confidence_set(Paired.of(losses[:1], np.arange(400), seed=0)).members == (0, 1)
    assert confidence_set(Paired.of(losses, np.arange(400), seed=0)).members == (0,)


def test_measures_that_contradict_each_other_leave_the_first_to_decide() -> None:
    losses = draw([0.2, 0.5], 500, 1)
    losses[1] = losses[1][:, ::-1].copy()
    assert confidence_set(Paired.of(losses, np.arange(500), seed=0)).members == (0,)


def test_copies_and_single_candidates_stay() -> None:
    losses = [np.repeat(loss, 3, axis=1) for loss in draw([0.3], 50, 0)]
    assert confidence_set(Paired.of(losses, np.arange(50), seed=0)).members == (0, 1, 2)
    alone = [loss[:, :1] for loss in losses]
    assert confidence_set(Paired.of(alone, np.arange(50), seed=0)).members == (0,)


def test_a_few_discordant_pairs_are_no_evidence() -> None:
    mistakes = np.zeros((100, 2))
    mistakes[:3, 1] = 1  # a sign test gives 1/8
    assert confidence_set(Paired.of([mistakes], np.arange(100), seed=0)).members == (0, 1)
    mistakes[:15, 1] = 1
    assert confidence_set(Paired.of([mistakes], np.arange(100), seed=0)).members == (0,)


def test_shares_of_being_best_add_up_and_follow_the_means() -> None:
    shares = Paired.of(draw([0.3, 0.32, 0.6], 300, 0), np.arange(300), seed=0).shares_best()
    assert shares.sum() == pytest.approx(1)
    assert shares[0] > shares[1] > shares[2] == 0
    even = Paired.of([np.repeat(draw([0.3], 50, 0)[0], 2, axis=1)], np.arange(50), seed=0).shares_best()
    np.testing.assert_allclose(even, 0.5)


@pytest.mark.usefixtures("few_draws")
def test_chance_is_rarely_beaten_by_chance() -> None:
    beaten = 0
    for seed in range(100):
        losses = draw([0.5] * 7, 100, seed)
        beaten += any_better([v[:, 1:] for v in losses], [v[:, 0] for v in losses], np.arange(100), seed=0)
    assert beaten <= 12  # 5 expected; 12 is three standard errors above
    losses = draw([0.5, 0.45, 0.3], 200, 0)
    assert any_better([v[:, 1:] for v in losses], [v[:, 0] for v in losses], np.arange(200), seed=0)


def test_one_group_is_refused() -> None:
    with pytest.raises(TopgraftError, match="one group"):
        Paired.of(draw([0.3, 0.4], 20, 0), np.zeros(20), seed=0)


def test_gains_of_all_pairs_mirror_each_other_and_a_candidate_gains_nothing_over_itself() -> None:
    gains, low, high = pairwise_gains(Paired.of(draw([0.3, 0.4, 0.5], 200, 0)[:1], np.arange(200), seed=0))
    assert np.allclose(gains, -gains.T)
    assert np.allclose(low, -high.T)
    assert np.diag(low).tolist() == np.diag(high).tolist() == [0, 0, 0]
    assert gains[0, 2] > gains[0, 1] > 0


@pytest.mark.parametrize(("shares", "n"), [([0.3, 0.4], 60), ([0.3, 0.3, 0.35], 100)])
def test_intervals_of_all_pairs_hold_the_truth_together_as_often_as_they_say(
    shares: list[float], n: int
) -> None:
    truth = np.subtract.outer(shares, shares).T
    held = 0
    for trial in range(100):
        mistakes = draw(shares, n, trial + 1)[:1]
        _, low, high = pairwise_gains(Paired.of(mistakes, np.arange(n), seed=trial))
        held += bool(((low <= truth) & (truth <= high)).all())
    assert held / 100 >= 0.88  # 95 % less three standard errors


def test_four_examples_that_one_alone_has_right_show_nothing() -> None:
    wrong = np.ones((100, 2))
    wrong[:50] = 0
    wrong[50:54, 0] = 0
    _, low, high = pairwise_gains(Paired.of([wrong], np.arange(100), seed=0))
    assert low[0, 1] < 0 < high[0, 1]  # an exact test gives 0.125
    wrong[54:60, 0] = 0
    _, low, _ = pairwise_gains(Paired.of([wrong], np.arange(100), seed=0))
    assert low[0, 1] > 0  # and here 0.002
