from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_cache import tiny_bert
from small_networks import (
    CLASSES,
    backbone_of,
    bits,
    data_of_maps,
    data_of_rows,
    differing,
    example_maps,
    kept,
    maps,
    material_of,
    small_rows,
)
from torch import nn

from topgraft.backbones import load
from topgraft.data import assign_folds, read
from topgraft.evaluating import evaluate, predict_logits
from topgraft.features.shelf import StoreWarning
from topgraft.features.sources import FeatureSource, LiveSource, StateSource, ViewSource
from topgraft.features.store import Store
from topgraft.head import steadiness
from topgraft.probe import fit_head, probe
from topgraft.search import (
    Material,
    Trial,
    affordable_epochs,
    class_weights,
    frozen_graft,
    head_trains,
    new_graft,
    reads_views,
    recipe_for,
    right_most_third,
    run_trial,
    source_at,
    trained_parameters,
)
from topgraft.settings import Settings


def of_arrays(root: Path, **settings: Any) -> Material:
    return material_of(backbone_of(maps(), example_maps()), data_of_maps(45), root, **settings)


def of_rows(root: Path, **settings: Any) -> Material:
    return material_of(backbone_of(small_rows(), torch.randn(4, 8)), data_of_rows(90), root, **settings)


def of_pictures(root: Path, **settings: Any) -> Material:
    noise = np.random.default_rng(0).integers(0, 120, (24, 60, 70, 3), dtype=np.uint8)
    targets = np.arange(24) % CLASSES
    noise[:, 20:40, 20:50] += (targets * 60).astype(np.uint8)[:, None, None, None]
    data = read((list(noise), [f"c{t}" for t in targets]), modality="picture")
    return material_of(load("timm/test_efficientnet", weights="none"), data, root, **settings)


def of_texts(root: Path, **settings: Any) -> Material:
    tiny_bert(root / "bert")
    words = ["a good film", "a bad story was long", "people"]
    texts = [
        f"{words[i % 3]} {' '.join(['the', 'and', 'about'][: i % 4])} {'a ' * (i // 3)}" for i in range(30)
    ]
    data = read((texts, [f"c{i % 3}" for i in range(30)]))
    return material_of(load(f"hf/{root / 'bert'}"), data, root / "store", **settings)


# the graft starts where the probe ended


@pytest.mark.parametrize(
    ("make", "cuts", "hidden"),
    [
        (of_arrays, [(1, 1), (3, 2), (4, 0)], ()),
        (of_arrays, [(4, 4), (4, 2)], (6,)),
        (of_rows, [(1, 0), (3, 1)], ()),
        (of_pictures, [(5, 0), (7, 7), (7, 4)], ()),
        (of_texts, [(1, 0), (3, 3), (3, 2)], ()),
    ],
    ids=["arrays", "hidden", "rows", "pictures", "texts"],
)
def test_before_the_first_step_the_loss_is_the_probes_out_of_fold(
    tmp_path: Path, make: Callable[..., Material], cuts: list[tuple[int, int]], hidden: tuple[int, ...]
) -> None:
    material = make(tmp_path, hidden=hidden, augment="none")
    targets = material.targets.numpy()
    fold_of, _, _ = assign_folds(
        targets, material.data.groups, folds=3, seed=0, classes=material.data.classes
    )
    validation = np.flatnonzero(fold_of == 0).tolist()
    material = replace(material, rows=np.flatnonzero(fold_of != 0).tolist(), validation=validation)
    evidence = probe(material.features, material.targets, fold_of, CLASSES)
    for keep, freeze in cuts:
        wanted = float(evidence[keep].losses[validation].mean())
        counts = steadiness(material.features.cuts[keep][material.rows])
        near = 1e-4 if freeze == keep or bool((counts == 1).all()) else 0.05  # else it leans less on some
        graft = new_graft(material, keep, freeze, material.rows)
        source, _ = source_at(material, keep, freeze)
        loss, _, correct = evaluate(graft, source, material.targets, validation)
        assert loss == pytest.approx(wanted, abs=near), (keep, freeze)
        assert correct.tolist() == evidence[keep].marks[validation].tolist()
    _, trial = trial_of(material, keep, freeze, epochs=1)
    assert trial.history.epochs[0].validation_loss == pytest.approx(wanted, abs=near)
    if make is of_texts:  # at early cuts their first steps hardly vary
        assert near > 1e-4


def test_the_head_of_a_frozen_graft_is_the_probes_solution_on_everything(tmp_path):
    material = of_arrays(tmp_path)
    graft = frozen_graft(material, 3)
    fit = fit_head(material.features.cuts[3], material.targets, CLASSES)
    assert torch.equal(graft.head.linear.weight, fit.weight.float())
    assert graft.body is None
    without = frozen_graft(replace(material, settings=Settings(refit=False)), 3)
    fit = fit_head(material.features.cuts[3][material.rows], material.targets[material.rows], CLASSES)
    assert torch.equal(without.head.linear.weight, fit.weight.float())


def test_the_validation_part_has_no_say_in_where_training_starts(tmp_path):
    material = of_arrays(tmp_path)
    changed = material.targets.clone()
    changed[list(material.validation)] = (changed[list(material.validation)] + 1) % CLASSES
    grafts = [new_graft(m, 3, 1, m.rows) for m in (material, replace(material, targets=changed))]
    assert differing(kept(grafts[0]), kept(grafts[1])) == set()


# trials


def trial_of(material: Material, keep: int, freeze: int, **options: Any) -> tuple[Any, Trial]:
    source, _ = source_at(material, keep, freeze)
    given: dict[str, Any] = {
        "epochs": 2,
        "stop_after": None,
        "checkpoint": None,
        "deadline": None,
        "from_start": False,
        "advance": None,
    }
    return run_trial(material, keep, freeze, source, **{**given, **options})


def test_a_trial_trains_what_is_not_frozen_and_scores_the_validation_part(tmp_path):
    material = of_arrays(tmp_path, rate=0.01)
    start = kept(new_graft(material, 4, 2, material.rows))
    graft, trial = trial_of(material, 4, 2)
    logits = predict_logits(graft, source_at(material, 4, 2)[0], material.validation)
    assert trial.logits is not None
    assert torch.equal(trial.logits, logits)
    changed = differing(kept(graft), start)
    assert changed == {
        n for n in start if not n.startswith("frozen.") and "running" not in n and "num_b" not in n
    }
    assert (trial.keep, trial.freeze, len(trial.history.epochs)) == (4, 2, 3)
    assert len(trial.history.marks) == len(material.validation)
    source, _ = source_at(material, 4, 2)
    correct = evaluate(graft, source, material.targets, material.validation)[2].tolist()
    assert trial.history.marks == correct


# what training reads


def test_what_is_read_fits_what_is_frozen(tmp_path):
    material = of_pictures(tmp_path)
    assert isinstance(source_at(material, 5, 5)[0], FeatureSource)
    assert isinstance(source_at(material, 5, 3)[0], StateSource)
    free = source_at(material, 5, 0)[0]
    assert isinstance(free, LiveSource)
    assert free.augment is not None  # pictures, nothing frozen
    plain = replace(material, settings=Settings(augment="none"))
    assert source_at(plain, 5, 0)[0].augment is None
    asked = replace(material, settings=Settings(augment="standard"))
    for freeze in (0, 3, 5):
        source = source_at(asked, 5, freeze)[0]
        assert isinstance(source, LiveSource)
        assert source.augment is not None
        assert (source.engine is None) == (freeze == 0)
    arrays = of_arrays(tmp_path / "arrays", augment="standard")
    assert isinstance(source_at(arrays, 4, 2)[0], StateSource)


def test_views_are_read_where_pictures_train_from_a_cut_and_nobody_said_otherwise(tmp_path):
    material = of_pictures(tmp_path)
    backbone = material.backbone
    for freeze, wanted in ((0, False), (3, True), (5, False)):
        assert reads_views(backbone, Settings(), 5, freeze) is wanted
        assert not reads_views(backbone, Settings(augment="none"), 5, freeze)
        assert not reads_views(backbone, Settings(augment="standard"), 5, freeze)
    assert not reads_views(of_arrays(tmp_path / "arrays").backbone, Settings(), 4, 2)
    source, reused = source_at(material, 5, 3, views=2)
    assert isinstance(source, ViewSource)
    assert reused == 0
    plain, reused = source_at(material, 5, 3)
    assert reused == len(material.targets)
    rows = material.validation
    assert bits(source.batch(rows, training=False).tensors[0]) == bits(
        plain.batch(rows, training=True).tensors[0]
    )


def test_states_are_made_once(tmp_path):
    material = of_arrays(tmp_path)
    assert source_at(material, 4, 2)[1] == 0
    assert source_at(material, 4, 2)[1] == len(material.targets)


def test_a_damaged_store_of_states_is_made_again(tmp_path):
    material = of_arrays(tmp_path)
    before = source_at(material, 4, 2)[0].batch(material.validation, training=False).tensors[0]
    for shard in material.store.root.rglob("*.safetensors"):
        content = bytearray(shard.read_bytes())
        content[-1] ^= 1
        shard.write_bytes(bytes(content))
    fresh = replace(material, store=Store(material.store.root))
    with pytest.warns(StoreWarning, match="is damaged"):
        source, _ = source_at(fresh, 4, 2)
    after = source.batch(material.validation, training=False).tensors[0]
    assert bits(after) == bits(before)


# decisions


@pytest.mark.parametrize("keep", range(1, 20))
def test_the_right_most_third_is_a_third_rounded_up(keep):
    assert keep - right_most_third(keep) == -(-keep // 3)


def test_epochs_fit_the_time_and_have_an_end():
    assert affordable_epochs(1e9, 0.01, 100, refits=1) == 10
    assert affordable_epochs(0.0, 0.01, 100, refits=1) == 0
    alone, both, thrice = (affordable_epochs(6.0, 0.01, 100, refits=refits) for refits in (0, 1, 3))
    assert alone > both > thrice > 0
    assert both * 0.01 * 100 * 2 <= 6.0
    assert thrice * 0.01 * 100 * 4 <= 6.0


def test_class_weights_make_classes_count_the_same(tmp_path):
    material = of_arrays(tmp_path, class_weights="balanced")
    rows = [i for i in range(45) if i % 3 or i < 9]
    weights = class_weights(material, rows)
    counts = torch.bincount(material.targets[rows], minlength=CLASSES)
    assert torch.allclose(weights * counts, torch.full((3,), len(rows) / 3, dtype=torch.float64))
    assert class_weights(replace(material, settings=Settings()), rows) is None
    assert recipe_for(material, 3, 2, rows).class_weights == tuple(weights.tolist())
    plain = new_graft(material, 3, 3, rows)
    balanced = new_graft(material, 3, 3, rows, class_weights=weights)
    assert differing(kept(plain.head), kept(balanced.head))


def test_the_recipe_is_what_was_asked_or_what_suits(tmp_path):
    material = of_arrays(tmp_path, rate=0.02, batch_size=8, seed=5)
    recipe = recipe_for(material, 3, 7, material.rows)
    assert (recipe.rate, recipe.batch_size, recipe.seed, recipe.epochs) == (0.02, 8, 5, 7)
    usual = recipe_for(replace(material, settings=Settings()), 3, 7, material.rows)
    assert 1e-5 < usual.rate < 1e-2


def test_what_trains_is_counted_and_named(tmp_path):
    material = of_arrays(tmp_path)
    graft = new_graft(material, 4, 3, material.rows)
    count, names = trained_parameters(graft)
    assert names == [
        "blocks.2.conv.weight",
        "blocks.2.norm.weight",
        "blocks.2.norm.bias",
        "head.linear.weight",
        "head.linear.bias",
    ]
    assert count == 6 * 6 * 9 + 12 + 3 * 12 + 3
    assert not head_trains(material)
    assert head_trains(replace(material, settings=Settings(hidden=(4,))))
    assert head_trains(replace(material, settings=Settings(dropout=0.1)))


def test_hidden_layers_start_the_same_whatever_was_drawn_before(tmp_path):
    material = of_arrays(tmp_path, hidden=(5,))
    heads = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        graft = new_graft(material, 3, 1, material.rows)
        assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(seed)))
        heads.append(kept(graft.head))
    assert differing(*heads) == set()
    assert any(isinstance(m, nn.GELU) for m in graft.head.modules())
