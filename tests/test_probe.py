from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from topgraft.errors import TopgraftError
from topgraft.evidence import Evidence, Features
from topgraft.probe import fit_head, probe

KINDS = ("blend", "ridge", "logistic")


def draw(
    n: int, width: int, classes: int, *, apart: float = 1.0, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=generator)
    centres = torch.randn(classes, width, generator=generator) * apart / width**0.5
    return centres[y] * 3 + torch.randn(n, width, generator=generator), y


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
        for name in ("losses", "correct", "predictions"):
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


def test_done_is_told_after_each_cut(features: tuple[Features, torch.Tensor]) -> None:
    told: list[int] = []
    probe(features[0], features[1], folds(150, 2), 3, kind="ridge", done=told.append)
    assert told == [1, 2, 3]


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
