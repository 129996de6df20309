"""Files that were fetched into the store: whole, of the right version, or not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from topgraft.errors import RunningError
from topgraft.features.fetched import Fetched, Wanted
from topgraft.features.store import Store

Get = Callable[[list[str], list[str]], None]


def giving(contents: dict[str, bytes], asked: list[str]) -> Get:
    """A file system that remembers what was asked of it."""

    def get(places: list[str], paths: list[str]) -> None:
        asked.extend(places)
        for place, path in zip(places, paths, strict=True):
            Path(path).write_bytes(contents[place])

    return get


@pytest.fixture
def place(tmp_path: Path) -> Fetched:
    return Fetched("memory://a?key=secret", "memory://a", Store(tmp_path))


def test_only_what_is_not_here_in_this_version_comes(place: Fetched) -> None:
    asked: list[str] = []
    contents = {"x": b"one", "y": b"two", "z": b"three"}
    wanted = [Wanted("a/x.jpg", "x", 3, "v1"), Wanted("y.jpg", "y", 3, "v1"), Wanted("z.jpg", "z", None, "")]
    first = place.bring(wanted, giving(contents, asked))
    assert (first.fetched, first.bytes, first.here, asked) == (3, 11, 0, ["x", "y", "z"])
    assert (first.folder / "a" / "x.jpg").read_bytes() == b"one"
    asked.clear()
    newer = [wanted[0], Wanted("y.jpg", "y", 3, "v2"), wanted[2]]
    again = place.bring(newer, giving(contents | {"y": b"TWO"}, asked))
    assert (again.fetched, again.here, asked) == (2, 1, ["y", "z"])  # of z the server says no version
    assert (again.folder / "y.jpg").read_bytes() == b"TWO"


def test_one_flipped_bit_and_a_lost_index_are_noticed(place: Fetched) -> None:
    asked: list[str] = []
    wanted = [Wanted("x.jpg", "x", 3, "v1"), Wanted("y.jpg", "y", 3, "v1")]
    get = giving({"x": b"one", "y": b"two"}, asked)
    place.bring(wanted, get)
    (place.files / "x.jpg").write_bytes(b"onf")
    asked.clear()
    found = place.bring(wanted, get)
    assert (asked, found.damaged, (place.files / "x.jpg").read_bytes()) == (["x"], 1, b"one")
    (place.folder / "files.json").write_text("{")
    asked.clear()
    assert place.bring(wanted, get).fetched == len(asked) == 2


def test_what_comes_cut_short_or_not_at_all_leaves_nothing_half_written(place: Fetched) -> None:
    asked: list[str] = []
    place.bring([Wanted("x.jpg", "x", 3, "v1")], giving({"x": b"one"}, asked))

    def broken(places: list[str], paths: list[str]) -> None:
        del places
        Path(paths[0]).write_bytes(b"o")
        raise OSError("the line is dead")

    with pytest.raises(OSError, match="the line is dead"):
        place.bring([Wanted("x.jpg", "x", 3, "v2"), Wanted("y.jpg", "y", 3, "v1")], broken)
    with pytest.raises(RunningError, match="y came with 2 of 3 bytes"):
        place.bring([Wanted("y.jpg", "y", 3, "v1")], giving({"y": b"tw"}, asked))
    assert [path.name for path in place.files.iterdir()] == ["x.jpg"]
    assert (place.files / "x.jpg").read_bytes() == b"one"


def test_the_key_in_an_address_is_written_nowhere_and_what_is_read_stays(
    place: Fetched, tmp_path: Path
) -> None:
    place.bring([Wanted("x.jpg", "x", 3, "v1")], giving({"x": b"one"}, []))
    written = [p.read_text() for p in tmp_path.rglob("*") if p.is_file()]
    assert not any("secret" in text for text in written)
    assert Fetched("memory://a?key=other", "memory://a", Store(tmp_path)).folder != place.folder
    (shelf,) = Store(tmp_path).shelves()
    assert (shelf.what, shelf.examples(), shelf.is_used) == ("fetched from memory://a", 1, True)
    assert Store(tmp_path).set_limit(0) == []  # this process still reads it
