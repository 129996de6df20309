"""Mixtures are what the papers say: between two examples, their labels in the same shares."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from topgraft.chain import State
from topgraft.errors import TopgraftError
from topgraft.mixup import alpha_for, mixed, mixed_loss


@given(seed=st.integers(0, 1000), alpha=st.floats(0.05, 20), count=st.integers(1, 9))
def test_each_example_is_mixed_with_its_partner_in_the_share_told(
    seed: int, alpha: float, count: int
) -> None:
    torch.manual_seed(seed)
    maps, vectors = torch.randn(count, 2, 3, 3), torch.randn(count, 4)
    mixture, partner, share = mixed(State((maps, vectors)), alpha)
    assert 0 <= share <= 1
    assert partner is not None
    assert sorted(partner.tolist()) == list(range(count))
    for before, after in zip((maps, vectors), mixture.tensors, strict=True):
        for i in range(count):
            wanted = share * before[i] + (1 - share) * before[partner[i]]
            torch.testing.assert_close(after[i], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["tensor", "mapping", "state"])
def test_every_form_of_batch_keeps_its_form_and_the_same_seed_gives_the_same_bits(form: str) -> None:
    tensor = torch.randn(5, 3, dtype=torch.bfloat16)
    batch = {"tensor": tensor, "mapping": {"x": tensor}, "state": State((tensor,))}[form]

    def again() -> torch.Tensor:
        torch.manual_seed(3)
        mixture = mixed(batch, 1.0)[0]
        assert type(mixture) is type(batch)
        found = {
            "tensor": lambda: mixture,
            "mapping": lambda: mixture["x"],
            "state": lambda: mixture.tensors[0],
        }
        inside: torch.Tensor = found[form]()
        return inside

    assert again().dtype == torch.bfloat16
    assert torch.equal(again(), again())
    assert not torch.equal(again(), tensor)


def test_without_mixtures_the_batch_is_the_same_and_nothing_is_drawn() -> None:
    batch = torch.randn(4, 2)
    before = torch.get_rng_state()
    mixture, partner, share = mixed(batch, 0.0)
    assert mixture is batch
    assert (partner, share) == (None, 1.0)
    assert torch.equal(torch.get_rng_state(), before)
    logits, wanted = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    assert torch.equal(mixed_loss(logits, wanted, None, 1.0), nn.functional.cross_entropy(logits, wanted))


def test_whole_numbers_are_left_as_they_are() -> None:
    numbers = torch.arange(4)[:, None]
    mixture, _, _ = mixed({"ids": numbers, "values": torch.randn(4, 2)}, 1.0)
    assert torch.equal(mixture["ids"], numbers)


def test_the_loss_is_that_of_labels_in_the_same_shares() -> None:
    logits, wanted, partner = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2]), torch.randperm(6)
    soft = 0.3 * nn.functional.one_hot(wanted, 3) + 0.7 * nn.functional.one_hot(wanted[partner], 3)
    torch.testing.assert_close(
        mixed_loss(logits, wanted, partner, 0.3), nn.functional.cross_entropy(logits, soft)
    )
    alone = mixed_loss(logits, wanted, torch.arange(6), 1.0)
    assert torch.equal(alone, nn.functional.cross_entropy(logits, wanted))


@pytest.mark.parametrize("modality", ["text", "sound"])
def test_what_differs_in_length_has_no_mixture(modality: str) -> None:
    assert alpha_for(None, modality) == alpha_for(0.0, modality) == 0.0
    with pytest.raises(TopgraftError, match=f"--mixup 0.5 is for pictures and arrays: {modality}s differ in"):
        alpha_for(0.5, modality)
