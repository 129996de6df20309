from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from topgraft.data import assign_folds, hold_out, read
from topgraft.data.splits import strata
from topgraft.errors import TopgraftError

TEXTS = [f"a text that speaks of {name} number {i}" for i, name in enumerate("abcdefghij" * 8)]


def indicator(shares: tuple[float, ...], count: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, len(shares))) < shares


def test_rare_labels_are_left_out_and_named() -> None:
    has = indicator((0.5, 0.3))
    rare = np.arange(80) < 2
    data = read(TEXTS, targets=np.column_stack([has, rare]), near_duplicates=False)
    assert data.classes == ("label_1", "label_2")
    assert (data.targets == has).all()
    assert any("label_3 (2)" in note for note in data.notes)
    assert data.counts == {"label_1": has[:, 0].sum(), "label_2": has[:, 1].sum()}


def test_a_missing_cell_is_unknown_and_an_empty_one_is_no_label() -> None:
    cells = ["red|round", "red", "", "round"] * 20
    cells[7] = None
    data = read(
        pd.DataFrame({"text": TEXTS, "tags": cells}), label="tags", task="multilabel", near_duplicates=False
    )
    assert [(out.name, out.reason) for out in data.left_out] == [("7", "no label")]
    assert data.targets.sum(1).min() == 0
    assert data.subset([0, 1, 2]).targets.tolist() == [[True, True], [True, False], [False, False]]


def test_lists_in_a_table_are_labels() -> None:
    lists = [["red", "round"], [], ["round"], ["red"]] * 20
    data = read(
        pd.DataFrame({"text": TEXTS, "tags": lists}), label="tags", task="multilabel", near_duplicates=False
    )
    assert data.targets[:4].tolist() == [[True, True], [False, False], [False, True], [True, False]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"targets": ["red"] * 80, "task": "multilabel"}, "no cell has several labels"),
        ({"targets": ["red;round", "red"] * 40, "task": "multilabel"}, 'Some hold ";"'),
        ({"targets": [["a|b", "c"]] * 80}, 'holds "|", which parts labels'),
        ({"targets": np.full((80, 2), 2), "task": "multilabel"}, "neither 0 nor 1"),
        ({"targets": indicator((0.5, 0.0))}, "1 label can be learned of 2 found"),
        ({"targets": ["a|b"] * 80, "separator": ""}, "empty separator"),
        ({"targets": indicator((0.5, 0.5))[:5]}, "80 examples but 5 targets"),
        ({"targets": indicator((0.5, 0.5)), "classes": ["x", "y", "z"]}, "none of its labels"),
    ],
)
def test_what_cannot_be_learned_is_refused(options: dict, words: str) -> None:
    with pytest.raises(TopgraftError, match=words.replace("|", r"\|")):
        read(TEXTS, near_duplicates=False, **options)


def test_folders_have_one_label_an_example(tmp_path: Path) -> None:
    from packaged_data import pictures_of

    for name in ("animals", "food"):
        (tmp_path / name).mkdir()
        for picture in pictures_of(name, 0, 3):
            (tmp_path / name / picture.name).write_bytes(picture.read_bytes())
    with pytest.raises(TopgraftError, match="gives each example one label"):
        read(tmp_path, task="multilabel")


def test_each_label_has_its_share_in_every_part_and_groups_stay_whole() -> None:
    has = indicator((0.5, 0.3, 0.1, 0.06, 0.05), 400, seed=2)
    texts = [f"{text} {i}" for i, text in enumerate(TEXTS * 5)]
    groups = np.arange(400) // 2
    data = read(texts, targets=has, near_duplicates=False)
    data = data.__class__(**{**data.__dict__, "groups": groups})
    kept, away = hold_out(data, share=0.2, seed=1)
    assert not set(groups[kept]) & set(groups[away])
    share = data.targets[away].sum(0) / data.targets.sum(0)
    assert share == pytest.approx(0.2, abs=0.07)
    targets, names = strata(data)
    assert names[-1] == "no label"
    fold_of, folds, notes = assign_folds(targets, groups, classes=names)
    assert (folds, notes) == (5, ())
    each = np.stack([targets[fold_of == fold].sum(0) for fold in range(5)])
    assert (each.max(0) - each.min(0)).max() <= 4
    assert all(len(set(fold_of[groups == g])) == 1 for g in range(200))


def test_a_label_too_rare_for_every_fold_is_named() -> None:
    has = np.column_stack([indicator((0.5,), 60)[:, 0], np.arange(60) < 3])
    fold_of, folds, notes = assign_folds(has, np.arange(60), classes=("often", "seldom"))
    assert folds == 5
    assert "seldom" in notes[0]
    assert len(set(fold_of[:3])) == 3
