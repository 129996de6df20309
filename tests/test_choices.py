from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import example_maps, maps
from torch import Tensor, nn

from topgraft.chain import Chain
from topgraft.choices import (
    fate,
    freezes_to_try,
    named,
    resolve_freeze,
    resolve_keep,
    resolve_shown,
    share_in_words,
    share_of,
)
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
    assert resolve_keep(f"{share}%", CHAIN, SOURCE) == max(1, (2 * share * 6 + 100) // 200)
    assert resolve_freeze(f"{share} %", CHAIN, SOURCE, keep) == max(1, (2 * share * keep + 100) // 200)


@given(one=st.decimals(0, 100, places=3), other=st.decimals(0, 100, places=3), most=st.integers(1, 2000))
def test_a_larger_share_is_never_fewer_blocks_and_the_ends_are_exact(
    one: Decimal, other: Decimal, most: int
) -> None:
    less, more = sorted((one, other))
    few, many = share_of(f"{less:f}%", most), share_of(f"{more:f}%", most)
    assert few is not None
    assert many is not None
    assert 0 <= few <= many <= most
    assert (share_of("0%", most), share_of("100%", most), share_of("100.0 %", most)) == (0, most, most)
    assert (few > 0) == (less > 0)
    if few > 1:  # the nearest count: no other is nearer
        assert abs(few - less / 100 * most) <= Decimal("0.5")


@given(count=st.integers(1, 100), most=st.integers(1, 100))
def test_half_a_block_more_is_rounded_up(count: int, most: int) -> None:
    share = Fraction(2 * count - 1, 2 * most)
    exact = Decimal(share.numerator) * 100 / Decimal(share.denominator)
    if count <= most and Fraction(exact) == share * 100 and -int(exact.as_tuple().exponent) <= 9:
        assert share_of(f"{exact:f}%", most) == count


def test_words(chain):
    assert resolve_keep("auto", chain, SOURCE) is None
    assert resolve_freeze("auto", chain, SOURCE, 3) is None
    assert resolve_keep("all", chain, SOURCE) == 6
    assert resolve_freeze("all", chain, SOURCE, 4) == 4
    assert resolve_freeze("0", chain, SOURCE, 4) == 0
    assert resolve_freeze("0%", chain, SOURCE, 4) == 0
    assert resolve_keep("0.001%", chain, SOURCE) == resolve_freeze("1%", chain, SOURCE, 4) == 1


def test_without_data_what_is_not_given_stays_open(chain):
    assert resolve_shown(None, None, chain, SOURCE) == (None, None)
    assert resolve_shown("50%", None, chain, SOURCE) == (3, None)
    assert resolve_shown("50%", "34%", chain, SOURCE) == (3, 1)
    assert resolve_shown(None, "blocks.0", chain, SOURCE) == (6, 2)
    assert resolve_shown("all", "0", chain, SOURCE) == (6, 0)
    for keep, freeze in (("auto", None), (None, " auto ")):
        with pytest.raises(TopgraftError, match="=auto is decided on data, as `topgraft fit` does"):
            resolve_shown(keep, freeze, chain, SOURCE)


def test_what_a_share_came_to_is_told_and_nothing_else_is():
    assert share_in_words("60%", 18) == "60 % of 18 blocks is 11"
    assert share_in_words(" 12.5 % ", 8, "kept blocks") == "12.5 % of 8 kept blocks is 1"
    assert [share_in_words(given, 18) for given in (7, "7", "auto", "all", "blocks.1")] == [""] * 5


@given(keep=st.integers(1, 6), freeze=st.integers(0, 6))
def test_every_block_has_one_fate(keep: int, freeze: int) -> None:
    fates = [fate(index, keep, min(freeze, keep)) for index in range(1, 7)]
    frozen = min(freeze, keep)
    assert fates == ["frozen"] * frozen + ["trained"] * (keep - frozen) + ["dropped"] * (6 - keep)


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
        (
            "101%",
            r'than all of the 6 blocks of own/maps.\nGive 1 to 6, a share over 0% up to 100%.*"blocks.4"',
        ),
        ("100.001%", "more than all of the 6"),
        ("0%", "keep=0% is none of the 6 blocks of own/maps"),
        ("0.00%", "is none of the 6"),
        ("-5%", "keep=-5% is less than none of the 6"),
        ("abc%", "keep=abc% is no share of the 6"),
        ("%", "keep=% is no share of the 6"),
        ("nan%", "is no share"),
        ("1e1%", "is no share"),
        ("12,5%", "is no share"),
        ("0.6", r"keep=0.6 is no block of own/maps. A share has a percent sign: 60%. `topgraft layers"),
        ("9" * 5000, "is no block"),
        ("9" * 5000 + "%", "is no share"),
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
        (
            "130%",
            r"all of the 4 blocks that are kept.\nGive 0 to 4, a share of the kept blocks from 0% to 100%",
        ),
        ("-1%", "freeze=-1% is less than none of the 4 blocks that are kept"),
        ("half%", "freeze=half% is no share of the 4 blocks that are kept"),
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


def test_several_to_try_are_open_and_each_must_be_valid(chain):
    assert resolve_freeze("2, 0", chain, "here", 3) is None
    assert resolve_freeze("auto,1", chain, "here", 3) is None
    with pytest.raises(TopgraftError, match="freeze=9 is more than"):
        resolve_freeze("2,9", chain, "here", 3)
    with pytest.raises(TopgraftError, match="freeze=stm is no block"):
        resolve_freeze("2,stm", chain, "here", 3)
    with pytest.raises(TopgraftError, match="freeze=2,0 is decided on data"):
        resolve_shown("all", "2,0", chain, "here")


def test_what_is_tried_is_what_was_named_below_keep_and_the_usual_with_auto(chain):
    assert freezes_to_try("auto", chain, "here", 3, [2, 1, 0]) == [2, 1, 0]
    assert freezes_to_try("0,2", chain, "here", 3, [1]) == [2, 0]
    assert freezes_to_try("auto,0", chain, "here", 3, [2, 1]) == [2, 1, 0]
    assert freezes_to_try("2,50%,all", chain, "here", 2, [0]) == [1]  # of two blocks; nothing to train else
