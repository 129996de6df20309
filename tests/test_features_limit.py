from __future__ import annotations

import gc
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from child_process import drop_rights, finish, in_child, start
from hypothesis import given, settings
from hypothesis import strategies as st

from topgraft.errors import TopgraftError
from topgraft.features import holds
from topgraft.features import limit as limit_module
from topgraft.features import shelf as shelf_module
from topgraft.features.limit import FILE, VARIABLE, limit_of, make_room, parse_limit, write_limit
from topgraft.features.store import RECENT, NotStored, Shelf, Store, StoreWarning
from topgraft.features.stored import DESCRIPTION
from topgraft.files import read_json

ROWS = 8
VALUES = torch.arange(ROWS * 250, dtype=torch.float32).reshape(ROWS, 250)


@pytest.fixture(autouse=True)
def _no_limit_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def what(number: int) -> dict[str, Any]:
    return {"what": "state", "cut": number, "recipe": {"kind": "timm", "name": "net"}}


def values_of(shelf: int, rows: list[int]) -> torch.Tensor:
    """What the rows of a shelf are, different for each shelf and row."""
    return VALUES[rows] + 10_000 * shelf


def opened(store: Store, number: int) -> Shelf:
    """A shelf that only its own object keeps in use."""
    return Store(store.root).shelf(what(number))


def put(store: Store, number: int, rows: list[int] | None = None) -> Shelf:
    shelf, rows = opened(store, number), [0, 1] if rows is None else rows
    shelf.append([f"e{row}" for row in rows], {"a": values_of(number, rows)})
    return shelf


def used(store: Store, number: int, when: int) -> None:
    """Have a shelf last used at a time, in seconds since 1970."""
    for path in opened(store, number).folder.iterdir():
        os.utime(path, (when, when))


def numbers(store: Store) -> set[int]:
    """Which shelves are stored."""
    return {int(shelf.description["cut"]) for shelf in store.shelves()}


def size_of_one(store: Store) -> int:
    put(store, 1)
    size = store.size()
    store.clear()
    return size


# sizes that a person writes


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5GB", 5_000_000_000),
        ("500 mb", 500_000_000),
        ("1.5GB", 1_500_000_000),
        ("20GiB", 20 * 2**30),
        ("2T", 2 * 10**12),
        ("7 kB", 7000),
        ("12B", 12),
        ("0", 0),
        ("0.0", 0),
        (" None ", None),
    ],
)
def test_a_size_is_read_as_it_is_meant(text: str, number: int | None) -> None:
    assert parse_limit(text) == number


@pytest.mark.parametrize(
    "text", ["", "5", "GB", "-5GB", "5 G B", "five GB", "5PB", "nan", "1e3GB", "5,0GB", "٣GB"]
)
def test_what_is_no_size_is_refused_with_what_is_one(text: str) -> None:
    with pytest.raises(TopgraftError, match="is no size") as error:
        parse_limit(text)
    assert repr(text) in str(error.value)
    assert "500MB, 5GB or 20GiB, or none" in str(error.value)


@pytest.mark.parametrize("text", ["99999999999TB", "9" * 5000 + "B"])
def test_more_than_any_disk_holds_is_refused(text: str) -> None:
    with pytest.raises(TopgraftError, match="Give none for no limit"):
        parse_limit(text)


@given(st.integers(0, 2**63 - 1))
def test_bytes_are_read_exactly(number: int) -> None:
    assert parse_limit(f"{number}B") == number


# who says how much


def test_the_environment_comes_before_the_file_and_the_file_before_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "not" / "there"
    total = shutil.disk_usage(tmp_path).total
    assert (limit_of(root).bytes, limit_of(root).origin) == (min(20 * 10**9, total // 10), "default")
    assert not root.exists()
    write_limit(root, 70)
    assert (limit_of(root).bytes, limit_of(root).origin) == (70, "file")
    monkeypatch.setenv(VARIABLE, "3kB")
    assert (limit_of(root).bytes, limit_of(root).origin) == (3000, "environment")
    monkeypatch.setenv(VARIABLE, "none")
    assert limit_of(root).bytes is None
    monkeypatch.setenv(VARIABLE, " ")
    assert limit_of(root).bytes == 70
    write_limit(root, None)
    assert (limit_of(root).bytes, limit_of(root).origin) == (None, "file")


def test_a_small_disk_is_not_filled_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"total": 5 * 10**9})
    monkeypatch.setattr(limit_module.shutil, "disk_usage", lambda _: usage)
    assert limit_of(tmp_path).bytes == 5 * 10**8


def test_a_wrong_environment_is_refused_before_there_is_anything_to_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "much")
    with pytest.raises(TopgraftError, match=f"{VARIABLE}: 'much' is no size"):
        Store(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"limit": "5GB"}', '{"limit": -1}', '{"limit": true}', "{}"])
def test_a_damaged_file_is_told_and_the_default_holds(store: Store, text: str) -> None:
    write_limit(store.root, 1)
    (store.root / FILE).write_text(text)
    assert store.limit.origin == "default"
    with pytest.warns(StoreWarning, match=r"limit\.json.*the default holds"):
        shelf = put(store, 1)
    shelf.append(["e5"], {"a": values_of(1, [5])})  # and it is told once
    assert len(shelf.notes) == 1
    write_limit(store.root, 10**9)
    assert store.limit.bytes == 10**9


# what is dropped


def test_those_not_used_for_longest_are_dropped_whole_and_it_is_said(store: Store) -> None:
    each = size_of_one(store)
    for number, when in ((1, 3000), (2, 1000), (3, 2000)):
        put(store, number)
        used(store, number, when)
    write_limit(store.root, 2 * each)
    with pytest.warns(StoreWarning) as told:
        put(store, 4)
    assert numbers(store) == {1, 4}
    (message,) = [str(warning.message) for warning in told]
    assert "states at cut 2 of timm/net" in message
    assert "states at cut 3 of timm/net" in message
    assert "`topgraft cache limit`" in message
    assert store.size() <= 2 * each


@pytest.mark.parametrize("way", ["read", "append", "append what is there"])
def test_a_shelf_that_is_used_counts_as_used_last(store: Store, way: str) -> None:
    each = size_of_one(store)
    for number, when in ((1, 1000), (2, 2000)):
        put(store, number)
        used(store, number, when)
    if way == "read":
        opened(store, 1).read(["e0"])
    else:
        put(store, 1, [3] if way == "append" else [0])
    write_limit(store.root, int(3.5 * each) if way == "append" else int(2.5 * each))
    with pytest.warns(StoreWarning, match="cut 2"):
        put(store, 3, [0, 1, 2, 3] if way == "append" else [0, 1])
    assert numbers(store) == {1, 3}


def test_what_this_process_uses_stays_beyond_the_limit_and_that_is_told_once(store: Store) -> None:
    first = put(store, 1)
    write_limit(store.root, 10)
    with pytest.warns(StoreWarning, match=r"over its limit of 10 B .*no work is lost"):
        second = put(store, 2)
    second.append(["e7"], {"a": values_of(2, [7])})
    assert len(second.notes) == 1
    assert torch.equal(first.read(["e1", "e0"])["a"], values_of(1, [1, 0]))
    assert torch.equal(second.read(["e7", "e0"])["a"], values_of(2, [7, 0]))
    assert first.notes == []


def test_a_lower_limit_drops_at_once_but_not_what_is_in_use(store: Store) -> None:
    shelf = put(store, 1)
    put(store, 2)
    assert [int(dropped.description["cut"]) for dropped in store.set_limit(0)] == [2]
    assert numbers(store) == {1}
    del shelf
    assert [int(dropped.description["cut"]) for dropped in store.set_limit(0)] == [1]
    assert store.shelves() == []


def test_a_store_keeps_the_shelves_in_use_that_it_gave_last(store: Store) -> None:
    for number in range(RECENT + 2):
        store.shelf(what(number)).append(["e0"], {"a": values_of(number, [0])})
        store.shelf(what(number)).known()  # asked for twice, it counts once
    assert len(Store(store.root).set_limit(0)) == 2
    assert numbers(store) == set(range(2, RECENT + 2))


def test_no_limit_drops_nothing(store: Store) -> None:
    put(store, 1)
    assert store.set_limit(None) == []
    assert numbers(store) == {1}


def test_files_that_are_not_the_stores_survive(store: Store) -> None:
    folder = put(store, 1).folder
    (folder / "notes.txt").write_text("a person's own")
    (store.root / "features-1" / "other").mkdir()
    store.set_limit(0)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert (store.root / "features-1" / "other").is_dir()


class Model:
    """What a store must do, kept beside one: shelves by number, each with the rows that were stored."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.open: dict[int, Shelf] = {}
        self.stored: dict[int, set[int]] = {}  # rows that are there for sure, since their shelf is in use

    def append(self, number: int, rows: list[int]) -> None:
        gc.collect()  # an error that was caught may still hold a shelf that was closed
        shelf = self.open.setdefault(number, opened(self.store, number))
        shelf.append([f"e{row}" for row in rows], {"a": values_of(number, rows)})
        assert set(shelf.known()) >= {f"e{row}" for row in rows}
        self.stored.setdefault(number, set()).update(rows)
        self.read(number, rows)

    def read(self, number: int, rows: list[int]) -> None:
        shelf = self.open.get(number) or opened(self.store, number)
        digests = [f"e{row}" for row in rows]
        known = shelf.known()
        assert known >= {f"e{row}" for row in self.stored.get(number, ())}
        if known >= set(digests):
            assert torch.equal(shelf.read(digests)["a"], values_of(number, rows))
        else:
            with pytest.raises(NotStored) as error:
                shelf.read(digests)
            assert set(error.value.digests) == set(digests) - known

    def close(self, number: int, _: None) -> None:
        self.open.pop(number, None)
        self.stored.pop(number, None)

    def limit(self, number: int, _: None) -> None:
        gc.collect()  # an error that was caught may still hold a shelf that was closed
        self.store.set_limit(number)

    def is_bounded(self) -> bool:
        """Whether the size is within the limit, or nothing is left that could be dropped."""
        shelves, limit = self.store.shelves(), self.store.limit.bytes
        in_use = {shelf.key for shelf in self.open.values()}
        taken = sum(shelf.bytes for shelf in shelves)
        return limit is not None and (taken <= limit or {shelf.key for shelf in shelves} <= in_use)


ROW_LISTS = st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=4, unique=True)
STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 3), ROW_LISTS),
    st.tuples(st.just("read"), st.integers(0, 3), ROW_LISTS),
    st.tuples(st.just("limit"), st.integers(0, 40_000), st.none()),
    st.tuples(st.just("close"), st.integers(0, 3), st.none()),
)


@settings(max_examples=8, deadline=None)
@given(st.lists(STEPS, max_size=14))
def test_whatever_is_done_what_is_read_is_right_and_the_size_within_the_limit(steps: list[Any]) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StoreWarning)
            model = Model(folder)
            model.limit(20_000, None)
            for kind, number, rows in steps:
                getattr(model, kind)(number, rows)
                if kind in ("append", "limit"):
                    assert model.is_bounded()
    finally:
        shutil.rmtree(folder)


# several processes


def test_what_another_process_uses_is_not_dropped(store: Store) -> None:
    go, wait = os.pipe(), os.pipe()
    put(store, 1)
    put(store, 2)

    def work() -> bool:
        shelf = opened(store, 1)
        shelf.known()
        os.write(wait[1], b".")
        os.read(go[0], 1)
        return torch.equal(shelf.read(["e1"])["a"], values_of(1, [1]))

    child = start(work)
    os.read(wait[0], 1)
    assert [shelf.is_used for shelf in sorted(store.shelves(), key=lambda s: s.description["cut"])] == [
        True,
        False,
    ]
    store.set_limit(0)
    assert numbers(store) == {1}
    assert store.clear() == 0
    assert numbers(store) == {1}
    os.write(go[1], b".")
    assert finish(*child) is True
    store.set_limit(0)  # its lock ended with it
    assert store.shelves() == []


def test_without_locks_a_shelf_dropped_under_its_reader_is_not_stored(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "_lock", lambda *_, **__: None)
    put(store, 1)
    shelf = opened(store, 1)
    assert shelf.known() == {"e0", "e1"}
    assert in_child(lambda: _dropped_elsewhere(store)) == 1
    with pytest.warns(StoreWarning, match="was deleted"), pytest.raises(NotStored):
        shelf.read(["e0"])
    write_limit(store.root, None)
    shelf.append(["e0"], {"a": values_of(1, [0])})
    assert torch.equal(shelf.read(["e0"])["a"], values_of(1, [0]))


def _dropped_elsewhere(store: Store) -> int:
    """Drop everything, as a process does that has no objects of this one."""
    holds._HERE.clear()
    return len(store.set_limit(0))


def test_a_shelf_dropped_while_its_description_is_read_is_an_empty_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, 1)

    def read(path: Path) -> Any:
        assert _dropped_elsewhere(store) == 1  # another process, at the worst moment
        return read_json(path)

    monkeypatch.setattr(shelf_module, "read_json", read)
    shelf = opened(store, 1)
    assert shelf.notes == []
    assert shelf.known() == frozenset()
    write_limit(store.root, None)
    shelf.append(["e0"], {"a": values_of(1, [0])})
    assert torch.equal(shelf.read(["e0"])["a"], values_of(1, [0]))


def test_processes_that_append_at_once_below_a_limit_read_only_what_is_right(store: Store) -> None:
    write_limit(store.root, 20_000)

    def work(offset: int) -> int:
        right = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StoreWarning)
            for turn in range(25):
                number, rows = (turn + offset) % 5, [turn % ROWS, (turn + 3) % ROWS]
                put(store, number, rows)
                try:
                    found = opened(store, number).read([f"e{row}" for row in rows])["a"]
                except NotStored:  # the other one needed the room
                    continue
                assert torch.equal(found, values_of(number, rows))
                right += 1
        return right

    children = [start(lambda offset=offset: work(offset)) for offset in (0, 2)]
    assert all(finish(*child) > 0 for child in children)
    make_room(store.root / "features-1", 20_000)
    assert store.size() <= 20_000


# folders that may not be written in


def test_what_may_not_be_dropped_stays_and_the_excess_is_told() -> None:
    place = Path(tempfile.mkdtemp())
    place.chmod(0o777)
    store = Store(place)
    folder = put(store, 1).folder
    folder.parent.chmod(0o777)
    folder.chmod(0o555)
    write_limit(store.root, 10)

    def work() -> list[str]:
        drop_rights()
        with pytest.warns(StoreWarning):
            shelf = put(store, 2)
        opened(store, 1).read(["e0"])  # its use can't be noted: that is no error
        return shelf.notes

    try:
        (note,) = in_child(work)
        assert "over its limit" in note
        assert numbers(store) == {1, 2}
    finally:
        shutil.rmtree(place)


def test_last_used_is_noted_where_that_is_possible(store: Store) -> None:
    folder = put(store, 1).folder
    used(store, 1, 1000)
    (folder / DESCRIPTION).unlink()
    opened(store, 1).read(["e0"])  # there is nothing to touch
    assert store.shelves()[0].used == 1000
    assert store.shelves()[0].what == "unknown: no description"
    put(store, 1, [4])
    assert store.shelves()[0].used > 1000
    assert store.shelves()[0].what == "states at cut 1"
