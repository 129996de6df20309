from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from topgraft.advise import DepthAdvice, advise_depth
from topgraft.errors import TopgraftError
from topgraft.evidence import CutEvidence, Evidence, Features
from topgraft.probe import probe
from topgraft.score import cross_validated_interval

N = 400


def made(
    hardness: list[float], *, seed: int = 0, n: int = N, extra_loss: dict[int, float] | None = None
) -> Evidence:
    """Evidence as probes at ever deeper cuts leave it, each with its share of mistakes."""
    rng = np.random.default_rng(seed)
    targets, fold_of = np.arange(n) % 4, rng.permutation(n) % 5
    common, cuts = rng.random(n), []
    for keep, share in enumerate(hardness, start=1):
        difficulty = 0.75 * common + 0.25 * rng.random(n)
        correct = difficulty > np.quantile(difficulty, share)
        losses = 0.2 + np.where(correct, 0.0, 1.5) + 0.3 * rng.random(n) + (extra_loss or {}).get(keep, 0)
        predictions = np.where(correct, targets, (targets + 1) % 4)
        low, high = cross_validated_interval(correct, fold_of)
        cuts.append(
            CutEvidence(keep, losses, correct, predictions, correct.mean(), low, high, (1.0,) * 5, (0.1,) * 5)
        )
    return Evidence(
        tuple(cuts), fold_of, targets, 4, np.arange(n), np.full(n, np.log(4)), np.zeros(n, dtype=np.int64)
    )


COST = {1: 1.0, 2: 3.0, 3: 6.0, 4: 10.0}


def test_the_cheapest_that_can_not_be_told_from_the_best_is_advised() -> None:
    advice = advise_depth(made([0.6, 0.4, 0.2, 0.195]), COST)
    assert advice.best == 4
    assert advice.in_set == (3, 4)
    assert advice.keep == 3
    assert advice.reason == "as good as the best within noise, 40 % fewer parameters"
    assert advice.beats_chance


def test_a_best_that_stands_alone_is_advised() -> None:
    advice = advise_depth(made([0.6, 0.4, 0.1, 0.3]), COST)
    assert (advice.keep, advice.in_set) == (3, (3,))
    assert "every other is measurably worse, 40 % fewer" in advice.reason
    assert advice.p_best[3] > 0.99
    assert sum(advice.p_best.values()) == pytest.approx(1)


def test_cost_decides_what_is_cheap() -> None:
    advice = advise_depth(made([0.6, 0.2, 0.2, 0.2]), {1: 1, 2: 9, 3: 8, 4: 9}, saving="less work")
    assert advice.in_set == (2, 3, 4)
    assert advice.keep == 3
    assert "11 % less work" in advice.reason


def test_accuracy_can_be_preferred() -> None:
    advice = advise_depth(made([0.6, 0.4, 0.2, 0.195]), COST, prefer="accuracy")
    assert advice.keep == 4


def test_depths_that_can_not_be_told_apart_are_said_to_be_so() -> None:
    advice = advise_depth(made([0.2, 0.205, 0.21, 0.2]), COST)
    assert advice.in_set == (1, 2, 3, 4)
    assert advice.keep == 1
    assert "can't tell the 4 depths apart" in advice.reason


def test_a_higher_loss_keeps_a_depth_out_of_the_set() -> None:
    evidence = made([0.2, 0.21, 0.2, 0.205], extra_loss={1: 0.3, 2: 0.3})
    advice = advise_depth(evidence, COST)
    assert advice.in_set == (3, 4)


def test_where_nothing_beats_the_majority_it_is_said() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(4, (120,), generator=generator)
    cuts = {k: torch.randn(120, 6, generator=generator) for k in (1, 2, 3)}
    evidence = probe(Features(cuts, ""), y, np.arange(120) % 4, 4)
    advice = advise_depth(evidence, {1: 1, 2: 2, 3: 3})
    assert not advice.beats_chance
    assert "always answering the most frequent class" in advice.reason
    assert "can't tell how many blocks" in advice.reason


def test_the_smallest_difference_is_one_that_such_data_show() -> None:
    advice = advise_depth(made([0.6, 0.4, 0.2, 0.195], n=1000), COST)
    points = advice.smallest_difference
    assert 0.5 < points < 10
    wide = advise_depth(made([0.6, 0.4, 0.2, 0.195], n=250), COST).smallest_difference
    assert wide == pytest.approx(2 * points, rel=0.4)
    shown = 0
    for seed in range(20):
        evidence = made([0.6, 0.4, 0.2 + points / 100, 0.2], n=1000, seed=seed)
        shown += 3 not in advise_depth(evidence, COST).in_set
    assert shown >= 12  # 80 % or more: the loss helps


def test_groups_widen_the_set() -> None:
    free = made([0.45, 0.3, 0.25, 0.2], n=300)
    order = np.lexsort((free[1].losses, free[4].losses))
    groups = np.empty(300, dtype=np.int64)
    groups[order] = np.arange(300) // 50  # what errs together belongs together
    tied = Evidence(
        free.cuts, free.fold_of, free.targets, 4, groups, free.chance_losses, free.chance_predictions
    )
    assert len(advise_depth(tied, COST).in_set) > len(advise_depth(free, COST).in_set)


def test_advice_goes_through_json() -> None:
    advice = advise_depth(made([0.6, 0.4, 0.2, 0.195]), COST)
    assert DepthAdvice.from_json(json.loads(json.dumps(advice.to_json()))) == advice


def test_the_same_seed_gives_the_same_advice() -> None:
    evidence = made([0.5, 0.3, 0.25, 0.2])
    assert advise_depth(evidence, COST, seed=1) == advise_depth(evidence, COST, seed=1)


def test_a_missing_cost_and_an_unknown_preference_are_refused() -> None:
    evidence = made([0.5, 0.3])
    with pytest.raises(TopgraftError, match=r"lacks keep=2; it needs 1, 2"):
        advise_depth(evidence, {1: 1})
    with pytest.raises(TopgraftError, match="small, accuracy"):
        advise_depth(evidence, COST, prefer="fast")


def test_a_margin_bounds_how_much_worse_the_cheapest_may_have_measured() -> None:
    evidence = made([0.6, 0.4, 0.22, 0.2])
    free = advise_depth(evidence, COST)
    assert (free.keep, free.in_set) == (3, (3, 4))
    assert advise_depth(evidence, COST, margin=(1.0, 0.5)).keep == 4
    assert advise_depth(evidence, COST, margin=(3.0, 0.5)).keep == 3
