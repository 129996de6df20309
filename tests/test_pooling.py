from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from topgraft.chain import Block, State
from topgraft.pooling import pool, width


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def block(layout: str, *shape: int) -> Block:
    return Block(1, "b", "B", shape, layout, 0, 0, verified=True, difference=0.0)


def test_maps_give_average_and_maximum_of_each_channel():
    x = random(3, 5, 4, 2)
    pooled = pool(State((x,)), "map")
    assert torch.allclose(pooled[:, :5], x.mean((2, 3)))
    assert torch.equal(pooled[:, 5:], x.amax((2, 3)))
    assert torch.equal(pool(State((x.permute(0, 2, 3, 1),)), "map_last"), pooled)
    assert torch.allclose(pool(State((x.to(memory_format=torch.channels_last),)), "map"), pooled)


def test_a_map_of_one_place_and_a_vector_stay():
    x = random(3, 5, 1, 1)
    assert torch.equal(pool(State((x,)), "map"), x[:, :, 0, 0])
    assert torch.equal(pool(State((x[:, :, 0, 0],)), "vector"), x[:, :, 0, 0])


def test_tokens_give_mean_maximum_and_first():
    x = random(2, 6, 3)
    assert torch.equal(pool(State((x,)), "tokens"), torch.cat([x.mean(1), x.amax(1), x[:, 0]], 1))


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    more=st.integers(0, 3),
    left=st.booleans(),
    seed=st.integers(0, 99),
)
def test_padding_on_either_side_changes_nothing(lengths: list[int], more: int, left: bool, seed: int) -> None:
    long = max(lengths) + more
    x, mask = torch.full((len(lengths), long, 3), 1e6), torch.zeros(len(lengths), long, dtype=torch.int64)
    alone = []
    for i, length in enumerate(lengths):
        part = slice(long - length, long) if left else slice(0, length)
        row = random(length, 3, seed=seed + i)
        x[i, part], mask[i, part] = row, 1
        alone.append(torch.cat([row.mean(0), row.amax(0), row[0]]))
    pooled = pool(State((x,), {"attention_mask": mask}), "tokens")
    assert torch.allclose(pooled, torch.stack(alone), atol=1e-6)


def test_an_example_without_a_single_step_gives_numbers():
    mask = torch.tensor([[1, 1], [0, 0]])
    pooled = pool(State((random(2, 2, 3),), {"attention_mask": mask}), "tokens")
    assert bool(pooled.isfinite().all())


def test_a_mask_of_another_length_is_not_meant_for_these_steps():
    x = random(2, 5, 3)
    assert torch.equal(
        pool(State((x,), {"attention_mask": torch.ones(2, 4)}), "tokens"), pool(State((x,)), "tokens")
    )


def test_half_precision_is_pooled_in_float32():
    x = random(2, 3, 4, 4).bfloat16()
    pooled = pool(State((x,)), "map")
    assert pooled.dtype == torch.float32
    assert torch.equal(pooled, pool(State((x.float(),)), "map"))


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        ("map", (5, 4, 2)),
        ("map", (5, 1, 1)),
        ("map_last", (4, 4, 5)),
        ("map_last", (1, 1, 5)),
        ("tokens", (7, 5)),
        ("vector", (5,)),
    ],
)
def test_the_width_is_told_beforehand(layout, shape):
    assert pool(State((random(2, *shape),)), layout).shape == (2, width(block(layout, *shape)))


def test_a_sequence_of_any_length_has_a_width():
    assert width(block("tokens", -1, 5)) == 15
