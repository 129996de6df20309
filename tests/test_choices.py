from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import example_maps, maps
from torch import Tensor, nn

from topgraft.chain import Chain
from topgraft.choices import named, resolve_freeze, resolve_keep
from topgraft.errors import TopgraftError

SOURCE = "own/maps"
CHAIN = Chain.of(maps(depth=5), example_maps())


class Staged(nn.Module):
    """A network whose blocks lie in two stages."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.stages = nn.ModuleList(nn.Sequential(*(nn.Linear(4, 4) for _ in range(n))) for n in (2, 3))
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.fc(x)


@pytest.fixture
def chain() -> Chain:
    return CHAIN


@pytest.fixture(scope="module")
def staged() -> Chain:
    return Chain.of(Staged(), torch.randn(2, 4))


@given(count=st.integers(1, 6))
def test_a_count_is_itself_as_number_or_text(count: int) -> None:
    assert resolve_keep(count, CHAIN, SOURCE) == resolve_keep(str(count), CHAIN, SOURCE) == count
    assert resolve_freeze(count, CHAIN, SOURCE, 6) == count


@given(share=st.integers(1, 100), keep=st.integers(1, 6))
def test_a_share_is_rounded_and_at_least_one(share: int, keep: int) -> None:
    assert resolve_keep(f"{share}%", CHAIN, SOURCE) == max(1, round(share * 6 / 100))
    assert resolve_freeze(f"{share} %", CHAIN, SOURCE, keep) == max(1, round(share * keep / 100))


def test_words(chain):
    assert resolve_keep("auto", chain, SOURCE) is None
    assert resolve_freeze("auto", chain, SOURCE, 3) is None
    assert resolve_keep("all", chain, SOURCE) == 6
    assert resolve_freeze("all", chain, SOURCE, 4) == 4
    assert resolve_freeze("0", chain, SOURCE, 4) == 0
    assert resolve_freeze("0%", chain, SOURCE, 4) == 0


@pytest.mark.parametrize(
    ("name", "count"), [("stem", 1), ("stages.0.0", 2), ("stages.0", 3), ("stages.1.1", 5), ("stages", 6)]
)
def test_a_blocks_name_means_up_to_and_with_it_and_a_stages_its_last(staged, name, count):
    assert [b.name for b in staged] == [
        "stem",
        *(f"stages.{i}.{j}" for i, j in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]),
    ]
    assert resolve_keep(name, staged, SOURCE) == count
    assert resolve_freeze(name, staged, SOURCE, 6) == count


@pytest.mark.parametrize(
    ("given_keep", "says"),
    [
        (
            "7",
            r'keep=7 is more than the 6 blocks of own/maps.\nGive 1 to 6, a share such as 60%, .*"blocks.4"',
        ),
        ("0", "keep=0 is less than the least, 1"),
        ("-1", "keep=-1 is less than"),
        ("101%", "more than all. Give a share from 0% to 100%"),
        ("block.3", r"keep=block.3 is no block of own/maps. Nearest: blocks.3.*`topgraft layers own/maps`"),
        ("blocks.1.conv", r"is no block of own/maps. Nearest: blocks.1"),
        ("", "is no block"),
        ("1.5", "is no block"),
    ],
)
def test_what_keep_cannot_mean_gets_the_nearest_choice(chain, given_keep, says):
    with pytest.raises(TopgraftError, match=says):
        resolve_keep(given_keep, chain, SOURCE)


@pytest.mark.parametrize(
    ("freeze", "says"),
    [
        ("5", r"freeze=5 is more than the 4 blocks that are kept \(to blocks.2\).\s*Give 0 to 4"),
        ("blocks.4", r"freeze=6 is more than the 4 blocks that are kept"),
        ("9", "freeze=9 is more than the 6 blocks of own/maps"),
        ("-2", "freeze=-2 is less than the least, 0"),
        ("stages", "is no block"),
    ],
)
def test_what_freeze_cannot_mean_gets_the_nearest_choice(chain, freeze, says):
    with pytest.raises(TopgraftError, match=says):
        resolve_freeze(freeze, chain, SOURCE, 4)


def test_a_number_is_told_with_its_block(chain):
    assert named(chain, 3) == "3 (to blocks.1)"
    assert named(chain, 0) == "0"
