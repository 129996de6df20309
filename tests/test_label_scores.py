from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support

from topgraft.calibration import Calibration, calibration_error
from topgraft.errors import TopgraftError
from topgraft.label_scores import (
    average_precision,
    chances_of,
    frequency_score,
    label_set,
    label_table,
    ranking_score,
    score_labels,
)


def drawn(n: int = 200, labels: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets of rarer and rarer labels, logits that know them partly, and their probabilities."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, labels)) - np.arange(labels)
    targets = rng.random((n, labels)) < chances_of(logits)
    return targets, logits, chances_of(logits)


def test_scores_are_those_of_scikit_learn() -> None:
    targets, _, chances = drawn()
    scores = {s.metric: s for s in score_labels(targets, chances.round(2))}  # rounded, so that there are ties
    given = chances.round(2) > 0.5
    expected = {
        "micro F1": f1_score(targets, given, average="micro"),
        "macro F1": f1_score(targets, given, average="macro", zero_division=0),
        "mean average precision": average_precision_score(targets, chances.round(2), average="macro"),
        "share of labels right": (given == targets).mean(),
    }
    for metric, value in expected.items():
        assert scores[metric].value == pytest.approx(value)
        assert scores[metric].low < value < scores[metric].high
    table = label_table(targets, given)
    for mine, theirs in zip(
        zip(*[(s.precision, s.recall, s.f1, s.support) for s in table], strict=True),
        precision_recall_fscore_support(targets, given, zero_division=0),
        strict=True,
    ):
        assert list(mine) == pytest.approx(theirs.tolist())


def test_a_sample_drawn_twice_weighs_twice() -> None:
    targets, _, chances = drawn(60)
    times = np.random.default_rng(1).multinomial(60, np.full(60, 1 / 60), size=3)
    drawn_by_hand = [np.repeat(np.arange(60), t) for t in times]
    for j in range(3):
        found = average_precision(targets[:, j], chances[:, j], times)
        expected = [average_precision(targets[i, j], chances[i, j])[0] for i in drawn_by_hand]
        assert found.tolist() == pytest.approx(expected)


def test_intervals_of_groups_that_err_together_are_wider() -> None:
    targets, _, chances = drawn(50)
    five = [np.repeat(a, 5, axis=0) for a in (targets, chances)]
    apart = score_labels(*five)[0]
    together = score_labels(*five, groups=np.repeat(np.arange(50), 5))[0]
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def test_knowing_the_frequencies_is_beaten_by_knowing_more() -> None:
    targets, logits, _ = drawn()
    assert frequency_score(targets) < ranking_score(targets, logits)


def test_probabilities_of_labels_are_calibrated_by_one_temperature_and_sets_hold_all_labels() -> None:
    targets, logits, _ = drawn(4000)
    known, new = slice(0, 2000), slice(2000, None)
    found = Calibration.of_outputs(3 * logits[known], targets[known])
    assert found.temperature == pytest.approx(3, rel=0.1)
    chances = chances_of(3 * logits[new] / found.temperature)
    assert calibration_error(chances, targets[new]) < 0.02
    measured = found.measured(chances, targets[new])
    assert measured["error_before"] > measured["error"] + 0.05
    limit = found.threshold(0.9)
    held = [
        set(np.flatnonzero(has)) <= set(label_set(share, limit))
        for has, share in zip(targets[new], chances.tolist(), strict=True)
    ]
    assert np.mean(held) == pytest.approx(0.9, abs=0.025)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TopgraftError, match="of one shape"):
        score_labels(np.zeros((3, 2), dtype=bool), np.zeros((3, 3)))


def test_where_no_label_is_wrong_the_interval_has_a_width() -> None:
    has = np.array([[True, False], [False, True], [True, True]] * 10)
    for score in score_labels(has, np.where(has, 0.9, 0.1)):
        assert score.value == score.high == 1
        assert 0.85 < score.low < 0.95
    groups = np.repeat(np.arange(5), 6)
    grouped = score_labels(has, np.where(has, 0.9, 0.1), groups=groups)
    assert all(score.low < 0.7 for score in grouped)
