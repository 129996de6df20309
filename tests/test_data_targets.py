"""Labels that are numbers to be predicted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from packaged_data import write_table

from topgraft.data import assign_folds, hold_out, read, read_test
from topgraft.data.splits import strata
from topgraft.errors import TopgraftError


def texts(count: int, *, start: int = 0) -> list[str]:
    """Texts that are no near duplicates."""
    trees = ("oak", "elm", "ash", "fir", "yew", "box", "bay", "fig", "pear", "plum", "lime", "pine", "rowan")
    return [
        " ".join(trees[(i * step + i // 7) % len(trees)] for step in (1, 2, 3, 5, 7)) + f" n{i}"
        for i in range(start, start + count)
    ]


def table(folder: Path, count: int = 30, name: str = "homes.csv", start: int = 0) -> Path:
    rows = [(text, f"{i / 4}", str(i % 3), f"{-i / 8}") for i, text in enumerate(texts(count, start=start))]
    return write_table(folder / name, [("text", "price", "rooms", "loss, net"), *rows])


def test_a_column_of_fractions_is_predicted_as_numbers_and_that_is_said(tmp_path: Path) -> None:
    data = read(table(tmp_path), text="text", label="price")
    assert data.task == "regression"
    assert data.outputs == ("price",)
    assert data.classes == ()
    assert data.targets is not None
    assert data.targets.dtype == np.float64
    assert data.targets[:, 0].tolist() == [i / 4 for i in range(30)]
    assert any("numbers are predicted (--task classification for classes)" in note for note in data.notes)


def test_few_different_numbers_stay_classes_unless_asked_otherwise(tmp_path: Path) -> None:
    path = table(tmp_path)
    assert read(path, text="text", label="rooms").classes == ("0", "1", "2")
    data = read(path, text="text", label="rooms", task="regression")
    assert data.targets is not None
    assert data.targets[:4, 0].tolist() == [0.0, 1.0, 2.0, 0.0]
    with pytest.raises(TopgraftError, match="30 different labels for 30 examples"):
        read(path, text="text", label="price", task="classification")


def test_many_whole_numbers_as_classes_get_a_hint_where_they_fail() -> None:
    data = read(texts(90), targets=[i % 40 for i in range(90)])
    assert data.task == "classification"
    with pytest.raises(TopgraftError, match=r"numbers to be predicted: --task regression"):
        hold_out(data)


def test_several_columns_and_a_name_with_a_comma_in_it(tmp_path: Path) -> None:
    path = table(tmp_path)
    both = read(path, text="text", label="price,rooms")
    assert both.outputs == ("price", "rooms")
    assert both.targets is not None
    assert both.targets[5].tolist() == [1.25, 2.0]
    assert read(path, text="text", label="loss, net").outputs == ("loss, net",)
    with pytest.raises(TopgraftError, match=r'no column "romms"\. Nearest: rooms'):
        read(path, text="text", label="price,romms")


def test_what_is_no_number_is_refused_with_where_it_stands(tmp_path: Path) -> None:
    rows = [(text, "1,5" if i == 4 else str(i)) for i, text in enumerate(texts(12))]
    path = write_table(tmp_path / "odd.csv", [("text", "label"), *rows])
    with pytest.raises(TopgraftError, match=r'1 label is no number: "1,5" \(4\)'):
        read(path, task="regression")
    with pytest.raises(TopgraftError, match=r'task="regresion" is unknown\. Nearest: regression'):
        read(path, task="regresion")  # type: ignore[arg-type]


def test_numbers_from_python_lose_no_digit() -> None:
    values = np.random.default_rng(0).normal(size=(25, 3)) * 1e7
    X = np.random.default_rng(1).normal(size=(25, 4))
    for given in (values, pd.DataFrame(values, columns=list("abc"))):
        data = read((X, given))
        assert np.array_equal(data.targets, values)
        assert data.outputs == ("target_1", "target_2", "target_3")
    single = read((X, values[:, 0].astype(np.float32)), task="regression")
    assert np.array_equal(single.targets[:, 0], values[:, 0].astype(np.float32).astype(float))


def test_the_fingerprint_goes_by_the_numbers_and_their_names(tmp_path: Path) -> None:
    path = table(tmp_path)
    marks = {
        read(path, text="text", label=label, task="regression").fingerprint
        for label in ("price", "rooms", "price,rooms", "rooms,price")
    }
    assert len(marks) == 4


def test_same_texts_with_other_numbers_are_listed() -> None:
    data = read([*texts(24), texts(24)[3]], targets=[*np.arange(24) / 2, 99.5])
    assert data.conflicts == ((3, 24),)
    assert any("(1.5)" in note and "(99.5)" in note for note in data.notes)
    assert data.subset([3, 24]).conflicts == ((0, 1),)


def test_splits_keep_the_shares_of_small_and_large_numbers() -> None:
    values = np.random.default_rng(3).lognormal(size=200)
    data = read(texts(200), targets=values)
    kept, away = hold_out(data, share=0.25, seed=1)
    assert sorted([*kept, *away]) == list(range(200))
    for quantile in (0.1, 0.5, 0.9):
        assert (values[away] <= np.quantile(values, quantile)).mean() == pytest.approx(quantile, abs=0.03)
    parts, names = strata(data.subset(kept))
    fold_of, folds, _ = assign_folds(parts, data.subset(kept).groups, classes=names)
    assert folds == 5
    assert [len(np.unique(parts[fold_of == f])) for f in range(5)] == [len(names)] * 5


def test_too_few_examples_for_numbers_are_refused() -> None:
    data = read(texts(9), targets=np.arange(9) / 2, task="regression")
    with pytest.raises(
        TopgraftError, match=r"only 9 examples beside duplicates\. To predict numbers at least 10"
    ):
        hold_out(data)


def test_a_test_set_has_the_same_columns(tmp_path: Path) -> None:
    data = read(table(tmp_path), text="text", label="price,rooms")
    test = read_test(table(tmp_path, 12, "test.csv", start=100), data)
    assert test.outputs == data.outputs
    assert test.targets is not None
    assert test.targets.shape == (12, 2)
    with pytest.raises(TopgraftError, match=r"1 number an example to be predicted, and .* has 2"):
        read_test(texts(12, start=200), data, targets=np.arange(12.0))
