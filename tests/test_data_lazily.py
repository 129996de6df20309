"""Inputs that are read when they are asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from packaged_data import pictures_of

from topgraft.data import ExampleError, open_picture, read
from topgraft.data.example import ChangedError
from topgraft.data.lazily import Joined, Member, Picked
from topgraft.data.types import together


class Counted:
    """A sequence that counts what is read of it."""

    def __init__(self, count: int) -> None:
        self.count, self.read = count, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        self.read += 1
        return index * index


def test_a_part_of_a_part_reads_nothing_until_it_is_asked() -> None:
    whole = Counted(100)
    part = Picked(Picked(whole, range(50, 100)), [3, 1])
    both = together(part, Picked(whole, [2]))
    assert (len(part), len(both), whole.read) == (2, 3, 0)
    assert (list(part), list(both[1:])) == ([53 * 53, 51 * 51], [51 * 51, 4])
    assert part.whole is whole
    assert isinstance(both, Joined)


def test_a_member_is_the_picture_that_lies_in_its_shard(tmp_path: Path) -> None:
    picture = pictures_of("food", 0, 1)[0].read_bytes()
    shard = tmp_path / "a.tar"
    shard.write_bytes(b"x" * 700 + picture + b"y" * 300)
    member = Member(str(shard), "one.webp", 700, len(picture))
    assert member.read() == picture
    assert np.array_equal(np.asarray(open_picture(member)), np.asarray(open_picture(picture)))
    with pytest.raises(ExampleError, match="over the limit of 10"):
        member.read(limit=10)
    shard.unlink()
    with pytest.raises(ExampleError, match=r"a.tar:one.webp: its shard can't be read any more"):
        member.read()


def test_content_that_another_picture_took_the_place_of_is_noticed() -> None:
    first, second = (path.read_bytes() for path in pictures_of("food", 0, 2))
    data = read(([first, second], ["a", "b"]))
    assert data.decode(0).size == open_picture(first).size
    swapped = replace(data, inputs=[second, first])
    with pytest.raises(ChangedError):
        swapped.decode(0)
