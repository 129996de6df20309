from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from drawn import draw
from one_by_one import OneByOne
from sklearn.metrics import r2_score

from topgraft.advise import advise_depth
from topgraft.errors import TopgraftError
from topgraft.evidence import Evidence, Features
from topgraft.objective import losses
from topgraft.probe import fit_head, probe
from topgraft.side_by_side import of_threads
from topgraft.workers import led

KINDS = ("blend", "ridge", "logistic")


def folds(n: int, k: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(n) % k


@pytest.fixture(scope="module")
def features() -> tuple[Features, torch.Tensor]:
    x, y = draw(150, 40, 3)
    noise = torch.randn(150, 8, generator=torch.Generator().manual_seed(5))
    return Features({1: noise, 2: x[:, :10], 3: x}, "drawn"), y


@pytest.fixture(scope="module")
def evidence(features: tuple[Features, torch.Tensor]) -> Evidence:
    return probe(features[0], features[1], folds(150), 3)


def test_a_fold_of_one_example_is_scored() -> None:
    x, y = draw(20, 4, 2)
    fold_of = np.array([0] * 10 + [1] * 9 + [2])
    found = probe(Features({1: x}, "drawn"), y, fold_of, 2)
    assert np.isfinite(found.cuts[0].losses).all()
    assert (found.cuts[0].losses > 0).all()


def test_the_same_input_gives_the_same_bits(
    features: tuple[Features, torch.Tensor], evidence: Evidence
) -> None:
    again = probe(features[0], features[1], folds(150), 3)
    for cut, same in zip(evidence.cuts, again.cuts, strict=True):
        assert cut.losses.tobytes() == same.losses.tobytes()
        assert (cut.penalties, cut.temperatures) == (same.penalties, same.temperatures)


@pytest.mark.parametrize("width", [12, 400])  # few columns: moments are shared
@pytest.mark.parametrize("cores", [1, 3])
def test_folds_side_by_side_are_heads_fitted_one_by_one(width: int, cores: int) -> None:
    x, y = draw(160, width, 3)
    fold_of = folds(160, 4)
    with of_threads(cores):
        found = probe(Features({1: x}, "drawn"), y, fold_of, 3).cuts[0]
    for fold in range(4):
        train, test = torch.from_numpy(fold_of != fold), torch.from_numpy(fold_of == fold)
        fit = fit_head(x[train], y[train], 3)
        lost = losses(fit.logits(x[test]), y[test]).numpy()
        np.testing.assert_allclose(found.losses[test.numpy()], lost, rtol=1e-6, atol=1e-9)
        assert found.penalties[fold] == pytest.approx(fit.penalty)


@pytest.mark.parametrize("numbers", [False, True])
def test_what_is_sent_elsewhere_for_each_cut_gives_the_same_evidence(
    features: tuple[Features, torch.Tensor], *, numbers: bool
) -> None:
    found, y = features
    targets, classes = (found.cuts[3][:, :2].double() + y[:, None], 0) if numbers else (y, 3)
    told = {
        "penalties": [1e-2, 1.0],
        "emphasis": {cut: torch.linspace(0.5, 1, x.shape[1]) for cut, x in found.cuts.items()},
        "groups": np.arange(150),
    }
    here = probe(found, targets, folds(150), classes, **told)
    workers = OneByOne()
    with led(workers):
        there = probe(found, targets, folds(150), classes, **told)
    assert there.to_json() == here.to_json()
    assert [item.keep for item in workers.items] == [3, 2, 1]  # the widest first


def test_evidence_tells_what_each_example_lost(
    features: tuple[Features, torch.Tensor], evidence: Evidence
) -> None:
    assert [cut.keep for cut in evidence.cuts] == [1, 2, 3]
    assert evidence.best.keep == 3
    x, y, fold_of = features[0].cuts[3], features[1], folds(150)
    cut = evidence[3]
    test = torch.from_numpy(fold_of == 2)
    fit = fit_head(x[~test], y[~test], 3)
    loss = torch.nn.functional.cross_entropy(fit.logits(x[test]), y[test], reduction="none")
    np.testing.assert_allclose(cut.losses[fold_of == 2], loss.numpy(), rtol=1e-6, atol=1e-9)
    assert cut.score == np.mean(cut.predictions == y.numpy()) == cut.marks.mean()
    assert 0 < cut.low < cut.score < cut.high < 1
    assert len(cut.penalties) == len(cut.temperatures) == len(cut.edges) == 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [10, 200])
def test_no_label_of_a_fold_changes_a_prediction_in_that_fold(kind: str, width: int) -> None:
    x, y = draw(120, width, 3)
    fold_of = folds(120, 4)
    before = probe(Features({1: x}, ""), y, fold_of, 3, kind=kind).cuts[0]
    changed = y.clone()
    here = torch.from_numpy(fold_of == 1)
    changed[here] = (changed[here] + 1) % 3
    after = probe(Features({1: x}, ""), changed, fold_of, 3, kind=kind).cuts[0]
    inside = fold_of == 1
    assert (before.predictions == after.predictions)[inside].all()
    assert (before.temperatures[1], before.penalties[1]) == (after.temperatures[1], after.penalties[1])
    assert not np.allclose(before.losses[~inside], after.losses[~inside])


def test_shuffled_labels_score_at_the_level_of_the_majority() -> None:
    x, y = draw(200, 60, 4)
    scores, losses = [], []
    for seed in range(5):
        shuffled = y[torch.randperm(200, generator=torch.Generator().manual_seed(seed))]
        found = probe(Features({1: x}, ""), shuffled, folds(200, 5, seed), 4)
        scores.append(found.cuts[0].score)
        losses.append(found.cuts[0].loss - found.chance_losses.mean())
    assert abs(np.mean(scores) - 0.25) < 3 * np.sqrt(0.25 * 0.75 / 1000) + 0.02
    assert -0.01 < np.mean(losses) < 0.02


def test_chance_knows_only_the_training_parts_shares(
    evidence: Evidence, features: tuple[Features, torch.Tensor]
) -> None:
    fold_of, y = folds(150), features[1].numpy()
    counts = np.bincount(y[fold_of != 0], minlength=3) + 0.5
    here = fold_of == 0
    np.testing.assert_allclose(evidence.chance_losses[here], -np.log(counts / counts.sum())[y[here]])
    assert (evidence.chance_predictions[here] == counts.argmax()).all()


def test_evidence_goes_through_json_bit_for_bit(evidence: Evidence) -> None:
    again = Evidence.from_json(json.loads(json.dumps(evidence.to_json(), allow_nan=False)))
    assert again.classes == evidence.classes
    assert again.notes == evidence.notes
    for name in ("fold_of", "targets", "groups", "chance_losses", "chance_predictions"):
        assert getattr(again, name).tobytes() == getattr(evidence, name).tobytes()
        assert getattr(again, name).dtype == getattr(evidence, name).dtype
    for cut, same in zip(evidence.cuts, again.cuts, strict=True):
        for name in ("losses", "marks", "predictions"):
            assert getattr(cut, name).tobytes() == getattr(same, name).tobytes()
            assert getattr(cut, name).dtype == getattr(same, name).dtype
        for name in ("keep", "score", "low", "high", "penalties", "temperatures", "edges"):
            assert getattr(cut, name) == getattr(same, name)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: d.update(form=99), "form 99"),
        (lambda d: d.pop("targets"), "damaged"),
        (lambda d: d["targets"].update(base64="AAAA"), "damaged"),
        (lambda d: d["targets"].update(dtype="|O"), "damaged"),
        (lambda d: d["cuts"][0].update(losses=d["cuts"][0]["losses"] | {"shape": [3]}), "damaged"),
    ],
)
def test_damaged_evidence_is_refused(evidence: Evidence, damage, words: str) -> None:
    document = json.loads(json.dumps(evidence.to_json()))
    damage(document)
    with pytest.raises(TopgraftError, match=words):
        Evidence.from_json(document)


def test_done_is_told_after_each_cut_and_the_widest_is_the_first(
    features: tuple[Features, torch.Tensor],
) -> None:
    found, y = features
    wide = torch.cat([found.cuts[1]] * 9, 1)
    told: list[int] = []
    evidence = probe(
        Features({**found.cuts, 1: wide}, ""), y, folds(150, 2), 3, kind="ridge", done=told.append
    )
    assert told == [1, 3, 2]
    assert [cut.keep for cut in evidence.cuts] == [1, 2, 3]


def test_an_edge_of_the_penalties_is_noted(features: tuple[Features, torch.Tensor]) -> None:
    only = Features({3: features[0].cuts[3]}, "")
    found = probe(only, features[1], folds(150, 3), 3, penalties=[1e4, 1e5])
    assert set(found.cuts[0].edges) == {"low"}
    assert "keep 3" in found.notes[0]
    assert "smallest penalty" in found.notes[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"targets": torch.tensor([0, 1, 2, 3] * 5)}, "0 to 2"),
        ({"targets": torch.zeros(20)}, "int64"),
        ({"targets": torch.zeros(19, dtype=torch.int64), "fold_of": np.arange(19) % 2}, "20 examples"),
        ({"fold_of": np.zeros(20, dtype=int)}, "at least 2 folds"),
        ({"fold_of": np.zeros(3, dtype=int)}, "20 numbers"),
        ({"groups": np.arange(20) // 3}, "more than one fold"),
        ({"features": Features({1: torch.full((20, 3), torch.nan)}, "")}, "keep=1 of 20 of 20"),
        ({"kind": "tree"}, "blend, ridge, logistic"),
    ],
)
def test_bad_input_is_refused_with_what_was_wrong(change: dict, words: str) -> None:
    x, y = draw(20, 3, 3)
    given = {"features": Features({1: x}, ""), "targets": y, "fold_of": np.arange(20) % 2, "classes": 3}
    with pytest.raises(TopgraftError, match=words):
        probe(**(given | change))


def test_missing_cut_is_refused_with_those_measured(evidence: Evidence) -> None:
    with pytest.raises(TopgraftError, match=r"keep=7; measured were 1, 2, 3"):
        evidence[7]


def test_of_numbers_the_score_is_r2_out_of_fold_whatever_their_unit() -> None:
    x, _ = draw(150, 20, 3)
    numbers = (
        x @ torch.randn(20, 2, generator=torch.Generator().manual_seed(1)) + torch.randn(150, 2)
    ).double()
    given = Features({1: x[:, :4], 2: x}, "drawn")
    found = probe(given, numbers, folds(150))
    standard = found.targets
    for cut in found.cuts:
        assert cut.predictions.shape == (150, 2)
        assert cut.score == pytest.approx(r2_score(standard, cut.predictions))
        assert np.allclose(cut.losses, np.square(standard - cut.predictions).mean(1))
        assert cut.low < cut.score < cut.high
    scaled = probe(given, numbers * 1e5 - 7, folds(150))
    assert np.allclose(scaled.cuts[1].predictions, found.cuts[1].predictions)
    flat = probe(given, numbers[:, 0], folds(150))
    assert flat.cuts[1].predictions.shape == (150, 1)
    assert Evidence.from_json(json.loads(json.dumps(found.to_json()))).to_json() == found.to_json()
    advice = advise_depth(found, {1: 1.0, 2: 2.0})
    assert (advice.keep, advice.beats_chance) == (2, True)


def test_no_number_of_a_fold_changes_a_prediction_in_that_fold() -> None:
    x, _ = draw(60, 8, 3)
    y, fold_of = x[:, :1].double() + torch.randn(60, 1), folds(60, 3)
    before = probe(Features({1: x}, "drawn"), y, fold_of).cuts[0].predictions
    changed = y.clone()
    inside = torch.from_numpy(fold_of == 0)
    order = torch.randperm(int(inside.sum()), generator=torch.Generator().manual_seed(0))
    changed[inside] = y[inside][order]
    after = probe(Features({1: x}, "drawn"), changed, fold_of).cuts[0].predictions
    assert np.allclose(after[fold_of == 0], before[fold_of == 0])
    assert not np.allclose(after[fold_of == 1], before[fold_of == 1])
