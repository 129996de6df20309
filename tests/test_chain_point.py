from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from topgraft.chain import Point
from topgraft.chain.point import Dim, Place, Shape


@given(
    factor=st.integers(1, 9),
    batch=st.integers(0, 1),
    length=st.integers(0, 1),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_sizes_follow_the_batch_and_the_length(
    factor: int, batch: int, length: int, sizes: tuple[int, int]
) -> None:
    dim = Dim(factor, batch, length)
    assert dim.size(*sizes) == factor * sizes[0] ** batch * sizes[1] ** length


def test_poison_is_one_number_of_the_right_shape_and_kind():
    shape = Shape((Dim(1, batch=1), Dim(4)), torch.float32)
    poison = shape.poison(torch.zeros(1, dtype=torch.bfloat16), 3, 7)
    assert (poison.shape, poison.dtype) == ((3, 4), torch.bfloat16)
    assert bool(poison.isnan().all())
    assert poison.untyped_storage().nbytes() == 2
    whole = Shape((Dim(2, length=1),), torch.int64).poison(torch.zeros(1), 3, 7)
    assert (whole.tolist(), whole.dtype) == ([0] * 14, torch.int64)


def test_points_come_back_from_json():
    point = Point(
        "blocks.1",
        "enter",
        2,
        (
            (Place("enter", "blocks.1", 2, (0, 0)),),
            (Place("op", "", 1, (), op=7, axis=1, fold=2), Place("exit", "a", 1, ("x",))),
        ),
    )
    assert Point.from_json(point.to_json()) == point
    with pytest.raises(ValueError, match="entered or left, not 'never'"):
        Point.from_json({**point.to_json(), "when": "never"})


@given(axis=st.integers(0, 2), fold=st.integers(1, 3), batch=st.integers(1, 4))
def test_a_state_holds_one_row_an_example_first_and_gives_back_what_was_there(
    axis: int, fold: int, batch: int
) -> None:
    sizes = [2, 3]
    sizes.insert(axis, batch * fold)
    tensor = torch.randn(sizes)
    place = Place("exit", "a", 1, (), axis=axis, fold=fold)
    stored = place.stored(tensor)
    assert stored.shape[0] == batch
    restored = place.restored(stored)
    assert torch.equal(restored, tensor)
    assert restored.data_ptr() != tensor.data_ptr()
    dims = [Dim(2), Dim(3)]
    dims.insert(axis, Dim(fold, batch=1))
    shape = Shape(tuple(dims), torch.float32)
    assert shape.batch_axis == (axis, fold)
    assert [d.size(batch, 1) for d in shape.of_state().dims] == list(stored.shape)


def test_a_size_that_grows_with_the_batch_and_the_length_is_no_batch():
    assert Shape((Dim(1, batch=1, length=1), Dim(4)), torch.float32).batch_axis is None
    assert Shape((Dim(3), Dim(4)), torch.float32).batch_axis is None
    assert Shape((Dim(1, batch=1), Dim(1, batch=1)), torch.float32).batch_axis is None
