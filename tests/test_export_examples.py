"""Examples to check with: other sizes and lengths than were traced, none of them twice."""

from __future__ import annotations

import pytest
import torch
from exported_grafts import arrays, pictures, texts

from topgraft.export.examples import examples_of


@pytest.mark.parametrize("model", [arrays, pictures], ids=lambda f: f.__name__)
def test_batches_differ_in_size_and_hold_no_example_twice(model):
    examples = examples_of(model())
    batches = [examples.traced, *examples.checked]
    first = [next(iter(b.values())) for b in batches]
    assert [len(t) for t in first] == [3, 1, 5]
    assert examples.count == 6
    rows = [tuple(row[row != 0].flatten().tolist()) for t in first for row in t]
    assert len(set(rows)) == 9


def test_texts_that_are_checked_have_other_lengths_and_padding():
    examples = examples_of(texts())
    traced, (one, five) = examples.traced["input_ids"], (b["input_ids"] for b in examples.checked)
    assert len({traced.shape[1], one.shape[1], five.shape[1]}) >= 2
    assert five.shape[1] != traced.shape[1]
    mask = examples.checked[1]["attention_mask"]
    assert bool((mask == 0).any())
    assert torch.equal(mask.bool(), five != texts().preprocess.pad_id)
