"""What counts as examples, and what as a table of numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image

from topgraft.errors import TopgraftError
from topgraft.estimators.given import examples_in, read_examples

TEXTS = ["a grey bird", "a dry wine", "a kind person"]
PICTURES = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)


@pytest.mark.parametrize(
    "given",
    [
        TEXTS,
        tuple(TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object)[:, None],
        pd.Series(TEXTS, index=[5, 3, 1]),
        pd.DataFrame({"gloss": TEXTS}, index=[5, 3, 1]),
        pl.Series(TEXTS),
        pl.DataFrame({"gloss": TEXTS}),
    ],
    ids=lambda given: f"{type(given).__module__}.{type(given).__name__}",
)
def test_texts_come_out_of_every_container_in_their_order(given):
    assert examples_in(given) == TEXTS


@pytest.mark.parametrize(
    "given",
    [
        np.zeros((3, 2)),
        [[1.0, 2.0], [3.0, 4.0]],
        np.arange(3.0),
        [1.0, 2.0],
        pd.DataFrame({"a": [1, 2], "b": [3, 4]}),
        pl.DataFrame({"a": [1, 2]}),
        pd.Series([1, 2]),
        torch.zeros(3, 2),
        [],
        np.zeros((0, 3)),
    ],
    ids=str,
)
def test_numbers_are_left_to_scikit_learn(given):
    assert examples_in(given) is None


def test_pictures_paths_and_arrays_are_examples():
    pictures = [Image.fromarray(picture) for picture in PICTURES]
    assert examples_in(pictures) == pictures
    assert examples_in(np.array([Path("a.png"), Path("b.png")])) == [Path("a.png"), Path("b.png")]
    np.testing.assert_array_equal(examples_in(PICTURES), PICTURES)
    np.testing.assert_array_equal(examples_in(torch.from_numpy(PICTURES)), PICTURES)
    assert len(examples_in(list(PICTURES))) == 2


def test_a_frame_with_further_columns_is_refused_with_what_to_do():
    frame = pd.DataFrame({"stars": [1, 2, 3], "gloss": TEXTS})
    with pytest.raises(TopgraftError, match=r"columns stars, gloss.*give X\['gloss'\]"):
        examples_in(frame)


def test_every_example_is_read_or_it_is_an_error():
    data = read_examples([*TEXTS, TEXTS[0]], None, targets=[1, 0, 1, 0], classes=["x", "y"])
    assert list(data.inputs) == [*TEXTS, TEXTS[0]]
    assert (data.classes, data.targets.tolist()) == (("x", "y"), [1, 0, 1, 0])
    assert data.groups[0] == data.groups[3]
    assert read_examples(TEXTS, "text").targets is None
    with pytest.raises(TopgraftError, match="an empty text"):
        read_examples([*TEXTS, " "], None)
