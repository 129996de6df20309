from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from child_process import drop_rights, finish, in_child, killed, limit_file_size, small_disk, start
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from topgraft.errors import RunningError, TopgraftError
from topgraft.features import shards
from topgraft.features.store import NotStored, Shelf, Store, StoreWarning, default_root
from topgraft.files import read_json, write_tensors

WHAT = {"weights": "0123abcd", "cut": 3, "pooling": ["average", "maximum"], "precision": "float32"}
DTYPES = [
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.float64,
    torch.int32,
    torch.uint8,
    torch.bool,
]


def bits(array: Tensor | Sequence[Tensor]) -> Any:
    """Type, shape and bytes: equal only for what is the same in every bit, NaNs included."""
    if not isinstance(array, Tensor):
        return [bits(part) for part in array]
    return (
        str(array.dtype),
        tuple(array.shape),
        bytes(array.contiguous().reshape(-1).view(torch.uint8).tolist()),
    )


def random_tensor(shape: Sequence[int], dtype: torch.dtype, seed: int) -> Tensor:
    """Random bits of the type, so that infinities, NaNs of every kind and negative zeros occur."""
    source = torch.Generator().manual_seed(seed)
    if dtype is torch.bool:
        return torch.randint(0, 2, tuple(shape), generator=source).bool()
    raw = torch.randint(0, 256, (*shape, dtype.itemsize), generator=source, dtype=torch.uint8)
    return raw.view(dtype).reshape(tuple(shape)) if raw.numel() else torch.empty(tuple(shape), dtype=dtype)


def names_of(count: int, start: int = 0) -> list[str]:
    return [hashlib.sha256(str(i).encode()).hexdigest() for i in range(start, start + count)]


@contextlib.contextmanager
def temporary_store() -> Iterator[Store]:
    folder = Path(tempfile.mkdtemp())
    try:
        yield Store(folder)
    finally:
        shutil.rmtree(folder)


def shard_files(shelf: Shelf) -> list[Path]:
    return sorted(shelf.folder.glob("*.safetensors"))


def unfinished(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if ".topgraft-part-" in path.name]


def fill(shelf: Shelf, count: int = 4, start: int = 0) -> tuple[list[str], dict[str, Any]]:
    digests = names_of(count, start)
    arrays = {
        "pooled": random_tensor((count, 5), torch.float32, start),
        "tokens": [random_tensor((1 + i % 3, 2), torch.bfloat16, start + i) for i in range(count)],
    }
    shelf.append(digests, arrays)
    return digests, arrays


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


# what is stored comes back


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[int], list[int], list[tuple[torch.dtype, list[int], bool]]]:
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    order = draw(st.lists(st.integers(0, sum(sizes) - 1), max_size=12))
    trailing = st.lists(st.integers(0, 3), max_size=2)
    forms = draw(
        st.lists(st.tuples(st.sampled_from(DTYPES), trailing, st.booleans()), min_size=1, max_size=3)
    )
    return sizes, order, forms


@settings(max_examples=60, deadline=None)
@given(batches(), st.integers(0, 1000), st.booleans())
def test_arrays_of_every_kind_come_back_in_the_order_asked_bit_for_bit(
    drawn: tuple[list[int], list[int], list[tuple[torch.dtype, list[int], bool]]], seed: int, reopen: bool
) -> None:
    sizes, order, forms = drawn
    total = sum(sizes)
    digests = names_of(total)
    whole: dict[str, Any] = {}
    for number, (dtype, trailing, ragged) in enumerate(forms):
        if ragged:
            parts = [random_tensor(((seed + i) % 4, *trailing), dtype, seed + i) for i in range(total)]
            whole[f"array/{number}"] = parts
        else:
            whole[f"array/{number}"] = random_tensor((total, *trailing), dtype, seed)
    with temporary_store() as store:
        shelf = store.shelf(WHAT)
        begin = 0
        for size in sizes:
            part = slice(begin, begin + size)
            shelf.append(digests[part], {name: array[part] for name, array in whole.items()})
            begin += size
        if reopen:
            shelf = Store(store.root).shelf(WHAT)
        assert shelf.known() == set(digests)
        found = shelf.read([digests[i] for i in order])
        assert found.keys() == whole.keys()
        for name, array in whole.items():
            want = array[order] if isinstance(array, Tensor) else [array[i] for i in order]
            assert bits(found[name]) == bits(want)


def test_what_is_stored_is_not_stored_twice(store: Store) -> None:
    shelf = store.shelf(WHAT)
    digests, arrays = fill(shelf)
    size = store.size()
    store.shelf(WHAT).append(digests, arrays)
    assert store.size() == size > 0
    more = names_of(6)
    shelf.append(more, {"pooled": torch.ones(6, 5), "tokens": [torch.ones(2, 2, dtype=torch.bfloat16)] * 6})
    found = shelf.read(more)["pooled"]
    assert bits(found[:4]) == bits(arrays["pooled"])  # the first stored stays
    assert bits(found[4:]) == bits(torch.ones(2, 5))


def test_a_tensor_that_is_transposed_and_wants_a_gradient_is_stored(store: Store) -> None:
    array = torch.arange(6.0).reshape(2, 3).t().requires_grad_()
    store.shelf(WHAT).append(names_of(3), {"a": array})
    assert bits(store.shelf(WHAT).read(names_of(3))["a"]) == bits(array.detach().contiguous())


def test_reading_one_array_does_not_read_the_others(store: Store) -> None:
    shelf = store.shelf(WHAT)
    digests, arrays = fill(shelf)
    (path,) = shard_files(shelf)
    content = bytearray(path.read_bytes())
    tokens = b"".join(bits(part)[2] for part in arrays["tokens"])
    content[content.index(tokens)] ^= 1
    path.write_bytes(content)
    assert bits(shelf.read(digests, ["pooled"])["pooled"]) == bits(arrays["pooled"])
    with pytest.warns(StoreWarning, match="checksum"), pytest.raises(NotStored):
        shelf.read(digests, ["tokens"])


# what made it counts


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "0123abce"},
        {"cut": 4},
        {"pooling": ["average"]},
        {"precision": "bfloat16"},
        {"size": 224},
    ],
)
def test_what_was_made_otherwise_is_not_found(store: Store, change: dict[str, Any]) -> None:
    digests, _ = fill(store.shelf(WHAT))
    assert store.shelf(dict(reversed(WHAT.items()))).known() == set(digests)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)  # to warn is not enough: nothing may be found
        other = store.shelf({**WHAT, **change})
    assert other.known() == frozenset()
    with pytest.raises(NotStored) as error:
        other.read([digests[1], digests[0], digests[1]])
    assert error.value.digests == (digests[1], digests[0])


def test_a_shard_moved_from_another_shelf_is_refused(store: Store) -> None:
    digests, _ = fill(store.shelf({**WHAT, "cut": 9}))
    shelf = store.shelf(WHAT)
    shutil.copytree(store.shelf({**WHAT, "cut": 9}).folder, shelf.folder)
    with pytest.warns(StoreWarning, match="describes other arrays"):
        shelf = store.shelf(WHAT)
    with pytest.warns(StoreWarning, match="another shelf"):
        assert shelf.known() == frozenset()
    assert not shard_files(shelf)
    fill(shelf)
    assert read_json(shelf.folder / "description.json") == WHAT
    assert store.shelf(WHAT).known() == set(digests)


def test_a_damaged_description_is_told_and_written_again(store: Store) -> None:
    shelf = store.shelf(WHAT)
    digests, _ = fill(shelf)
    (shelf.folder / "description.json").write_bytes(b'{"cut"')
    with pytest.warns(StoreWarning, match=r"description.json is damaged \(it is not JSON"):
        shelf = store.shelf(WHAT)
    assert shelf.known() == set(digests)
    fill(shelf, 2, 50)
    assert read_json(shelf.folder / "description.json") == WHAT


def test_arrays_unlike_those_of_the_shelf_are_refused(store: Store) -> None:
    shelf = store.shelf(WHAT)
    fill(shelf)
    tokens = [torch.zeros(1, 2, dtype=torch.bfloat16)]
    for arrays in ({"pooled": torch.zeros(1, 6), "tokens": tokens}, {"pooled": torch.zeros(1, 5)}):
        with pytest.raises(
            ValueError, match=r"the shelf holds pooled: F32 \(5,\), tokens: ragged BF16 \(2,\)"
        ):
            shelf.append(names_of(1, 70), arrays)
    with pytest.raises(ValueError, match="array 'pooled' has 2 rows for 1 examples"):
        shelf.append(names_of(1, 70), {"pooled": torch.zeros(2, 5)})
    with pytest.raises(ValueError, match="twice"):
        shelf.append(["a", "a"], {"pooled": torch.zeros(2, 5), "tokens": tokens * 2})
    assert len(shard_files(shelf)) == 1


def test_an_unknown_array_gets_the_nearest_name(store: Store) -> None:
    shelf = store.shelf(WHAT)
    digests, _ = fill(shelf)
    with pytest.raises(TopgraftError, match=r"'poled' is stored; there are: pooled, tokens. Nearest: pooled"):
        shelf.read(digests, ["poled"])


# damage


def spoil(path: Path, kind: str, place: float) -> None:
    content = path.read_bytes()
    at = min(int(place * len(content)), len(content) - 1)
    if kind == "flip":
        changed = bytearray(content)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(changed)
    elif kind == "truncate":
        path.write_bytes(content[:at])
    elif kind == "longer":
        path.write_bytes(content + content[at:])
    elif kind == "swap":
        half = len(content) // 2
        path.write_bytes(content[half:] + content[:half])
    else:
        path.unlink()


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(["flip", "flip", "flip", "truncate", "longer", "swap", "delete"]),
    st.floats(0, 1),
    st.booleans(),
)
def test_damage_is_noticed_and_costs_only_the_examples_of_its_shard(
    kind: str, place: float, running: bool
) -> None:
    with temporary_store() as store:
        shelf = store.shelf(WHAT)
        first, arrays = fill(shelf, 4)
        second, others = fill(shelf, 3, 20)
        if running:
            assert bits(shelf.read(first)["pooled"]) == bits(arrays["pooled"])
        else:
            shelf = Store(store.root).shelf(WHAT)
        path = next(p for p in shard_files(shelf) if first[0].encode() in p.read_bytes())
        spoil(path, kind, place)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with pytest.raises(NotStored) as error:
                shelf.read([*first, *second])
        assert error.value.digests == tuple(first)
        assert shelf.known() == set(second)
        assert not path.exists()
        if running or kind != "delete":  # a shard deleted before the run was never seen by it
            assert [str(warning.message) for warning in told] == shelf.notes != []
        fill(shelf, 4)  # made again
        found = shelf.read([*second, *first])
        assert bits(found["pooled"]) == bits(torch.cat([others["pooled"], arrays["pooled"]]))
        assert bits(found["tokens"]) == bits([*others["tokens"], *arrays["tokens"]])


def test_a_bit_flipped_after_it_was_found_right_is_noticed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        shards, "_SETTLED", 0
    )  # as if the shard were old, so that it is not checked each time
    shelf = store.shelf(WHAT)
    digests, arrays = fill(shelf)
    time.sleep(0.05)
    for _ in range(2):
        assert bits(shelf.read(digests)["pooled"]) == bits(arrays["pooled"])
    (path,) = shard_files(shelf)
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 128]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # a time that was set back hides nothing
    with pytest.warns(StoreWarning, match="checksum"), pytest.raises(NotStored):
        shelf.read(digests)


def craft(shelf: Shelf, header: bytes, data: bytes) -> Path:
    """A file with the right name for its header."""
    start = len(header).to_bytes(8, "little") + header
    path = shelf.folder / f"{hashlib.sha256(start).hexdigest()}.safetensors"
    shelf.folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(start + data)
    return path


def header_of(entry: dict[str, Any], shelf: Shelf, count: int) -> bytes:
    digests = json.dumps(names_of(count))
    metadata = {"version": shards.VERSION, "shelf": shelf.key, "digests": digests}
    return json.dumps({"rows/a": entry, "__metadata__": metadata}).encode()


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"dtype": "F32", "shape": [2, 1 << 50], "data_offsets": [0, 8 << 50]}, "bytes, and the file has"),
        ({"dtype": "F32", "shape": [2, 1 << 50], "data_offsets": [0, 8]}, "but 8 bytes"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}, "but -8 bytes"),
        ({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}, "no sizes"),
        ({"dtype": "F32", "shape": [True, 2], "data_offsets": [0, 8]}, "no sizes"),
        ({"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}, "no sizes"),
        ({"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}, "unknown type"),
        ({"dtype": "F32", "shape": [2]}, "unknown way"),
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}, "bytes, and the file has"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "bytes, and the file has"),
        ({"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}, "not one row an example"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "no checksums"),
    ],
)
def test_a_header_with_wrong_sizes_takes_no_memory_and_gives_no_number(
    store: Store, entry: dict[str, Any], reason: str
) -> None:
    shelf = store.shelf(WHAT)
    path = craft(shelf, header_of(entry, shelf, 2), b"\0" * 8)
    with pytest.warns(StoreWarning, match=reason):
        assert shelf.known() == frozenset()
    assert not path.exists()


def test_files_that_are_no_shards_are_noticed_and_never_run(store: Store, tmp_path: Path) -> None:
    shelf = store.shelf(WHAT)
    digests, _ = fill(shelf)

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "it ran",)

    named = [shelf.folder / f"{hashlib.sha256(str(i).encode()).hexdigest()}.safetensors" for i in range(5)]
    named[0].write_bytes(pickle.dumps(Evil()))
    named[1].write_bytes(b"")
    named[2].write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    write_tensors(named[3], {"rows/a": torch.ones(2)}, {"shelf": shelf.key})
    secret = tmp_path / "secret"
    secret.write_text("not to be touched")
    named[4].symlink_to(secret)
    os.mkfifo(shelf.folder / f"{'0' * 64}.safetensors")
    (shelf.folder / "notes.txt").write_text("a person's own")
    with pytest.warns(StoreWarning) as told:
        assert shelf.known() == set(digests)
    assert len(told) == 6
    assert not (tmp_path / "it ran").exists()
    assert secret.read_text() == "not to be touched"
    assert (shelf.folder / "notes.txt").exists()
    assert len(shard_files(shelf)) == 1


# several processes, and processes that die


def test_processes_that_append_at_once_lose_nothing(store: Store) -> None:
    whole = random_tensor((24, 7), torch.float16, 5)
    digests = names_of(24)

    def work(offset: int) -> int:
        shelf = store.shelf(WHAT)
        for number in range(24):
            row = (number * 5 + offset) % 24
            rows = [row, (row + 1) % 24]  # overlaps with what the others store
            shelf.append([digests[i] for i in rows], {"a": whole[rows]})
            assert bits(shelf.read([digests[i] for i in rows])["a"]) == bits(whole[rows])
        return len(shelf.notes)

    children = [start(lambda offset=offset: work(offset)) for offset in (0, 8, 16)]
    reader = store.shelf(WHAT)
    for _ in range(20):
        known = sorted(reader.known())
        if known:
            assert bits(reader.read(known)["a"]) == bits(whole[[digests.index(d) for d in known]])
    assert [finish(*child) for child in children] == [0, 0, 0]
    assert bits(store.shelf(WHAT).read(digests)["a"]) == bits(whole)
    assert unfinished(store.root) == []


def test_a_kill_between_writing_and_renaming_leaves_nothing_that_counts(store: Store) -> None:
    shelf = store.shelf(WHAT)
    fill(shelf, 2, 90)

    def work() -> None:
        Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        fill(store.shelf(WHAT), 4)

    killed(work)
    assert len(unfinished(store.root)) == 1  # it was written, and the kill came before the renaming
    assert store.shelf(WHAT).known() == set(names_of(2, 90))
    fill(store.shelf(WHAT), 4)
    assert store.shelf(WHAT).known() == set(names_of(2, 90) + names_of(4))
    assert unfinished(store.root) == []  # the next writer tidied up


def test_kills_at_any_moment_leave_whole_shards_only(store: Store) -> None:
    chance = random.Random(3)
    whole = random_tensor((200, 300), torch.float32, 5)
    digests = names_of(200)

    def work() -> None:
        shelf = store.shelf(WHAT)
        for row in range(200):
            shelf.append([digests[row]], {"a": whole[row : row + 1]})

    stored = 0
    for _ in range(6):
        child, reader = start(work)
        os.close(reader)
        time.sleep(chance.uniform(0.005, 0.08))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        shelf = store.shelf(WHAT)
        known = sorted(shelf.known())
        assert len(known) >= stored  # what was stored stays
        stored = len(known)
        if known:
            assert bits(shelf.read(known)["a"]) == bits(whole[[digests.index(d) for d in known]])
        assert shelf.notes == []
    assert stored > 0


# the disk


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_store_that_may_not_be_written_can_be_read_and_says_so(open_place: Path) -> None:
    store = Store(open_place)
    digests, arrays = fill(store.shelf(WHAT))
    for folder in (open_place, *(p for p in open_place.rglob("*") if p.is_dir())):
        folder.chmod(0o555)

    def work() -> list[Any]:
        drop_rights()
        shelf = store.shelf(WHAT)
        same = bits(shelf.read(digests)["pooled"]) == bits(arrays["pooled"])
        messages = []
        for target in (shelf, store.shelf({"new": "shelf"})):
            with pytest.raises(TopgraftError) as error:
                fill(target, 2, 60)
            messages.append([error.value.exit_status, str(error.value)])
        return [same, *messages]

    try:
        same, *messages = in_child(work)
    finally:
        for folder in (open_place, *(p for p in open_place.rglob("*") if p.is_dir())):
            folder.chmod(0o755)
    assert same
    for status, message in messages:
        assert status == 2
        assert "No permission to write" in message
        assert "TOPGRAFT_CACHE names another place" in message
    assert store.shelf(WHAT).known() == set(digests)
    assert unfinished(open_place) == []


def test_a_damaged_shard_that_can_not_be_deleted_is_left_out(open_place: Path) -> None:
    store = Store(open_place)
    fill(store.shelf(WHAT))
    (path,) = shard_files(store.shelf(WHAT))
    path.write_bytes(path.read_bytes()[:-3])
    path.parent.chmod(0o555)

    def work() -> list[Any]:
        drop_rights()
        shelf = store.shelf(WHAT)
        with pytest.warns(StoreWarning, match="could not be deleted and is left out"):
            known = shelf.known()
        return [sorted(known), sorted(shelf.known()), len(shelf.notes)]

    assert in_child(work) == [[], [], 1]
    assert path.exists()
    path.parent.chmod(0o755)


def test_a_store_that_may_not_be_read_says_so(open_place: Path) -> None:
    store = Store(open_place)
    fill(store.shelf(WHAT))
    store.shelf(WHAT).folder.chmod(0)

    def work() -> str:
        drop_rights()
        with pytest.raises(TopgraftError) as error:
            store.shelf(WHAT).known()
        return str(error.value)

    assert "No permission to read" in in_child(work)
    store.shelf(WHAT).folder.chmod(0o755)


def test_a_read_only_disk_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20, "ro") as disk:
        store = Store(disk)
        assert store.shelf(WHAT).known() == frozenset()
        with pytest.raises(TopgraftError, match="read-only") as error:
            fill(store.shelf(WHAT))
        assert error.value.exit_status == 2


def test_a_full_disk_is_told_and_leaves_what_was_stored(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 200_000) as disk:
        shelf = Store(disk).shelf(WHAT)
        digests, arrays = fill(shelf)
        big = {
            "pooled": torch.zeros(9000, 5),
            "tokens": [torch.zeros(9, 2, dtype=torch.bfloat16)] * 9000,
        }
        with pytest.raises(RunningError, match=r"The disk is full(.|\n)*TOPGRAFT_CACHE"):
            shelf.append(names_of(9000, 100), big)
        assert unfinished(disk) == []
        assert len(shard_files(shelf)) == 1
        assert shelf.known() == set(digests)
        assert bits(shelf.read(digests)["tokens"]) == bits(arrays["tokens"])
        fill(shelf, 2, 50)  # what is small enough still fits


def test_a_file_size_limit_is_told_and_leaves_nothing(store: Store) -> None:
    def work() -> list[Any]:
        limit_file_size(4096)
        with pytest.raises(RunningError, match="over the limit for the size of one file") as error:
            store.shelf(WHAT).append(names_of(2), {"a": torch.zeros(2, 5000)})
        return [error.value.exit_status, unfinished(store.root)]

    assert in_child(work) == [1, []]
    assert store.shelf(WHAT).known() == frozenset()


def test_a_store_cleared_while_another_shelf_is_open_takes_new_arrays(store: Store) -> None:
    shelf = store.shelf(WHAT)
    fill(shelf)
    size = store.size()
    (shelf.folder / "notes.txt").write_text("a person's own")
    assert Store(store.root).clear() == size
    assert [path.name for path in shelf.folder.iterdir()] == ["notes.txt"]
    (shelf.folder / "notes.txt").unlink()
    assert store.clear() == 0
    assert not shelf.folder.exists()
    with pytest.warns(StoreWarning, match="was deleted"):
        assert shelf.known() == frozenset()
    digests, arrays = fill(shelf, 3, 40)
    assert bits(store.shelf(WHAT).read(digests)["pooled"]) == bits(arrays["pooled"])
    assert read_json(shelf.folder / "description.json") == WHAT


# where it lies


def test_the_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TOPGRAFT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_root() == tmp_path / "home" / ".cache" / "topgraft"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_root() == tmp_path / "home" / ".cache" / "topgraft"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_root() == tmp_path / "xdg" / "topgraft"
    monkeypatch.setenv("TOPGRAFT_CACHE", str(tmp_path / "own"))
    assert Store().root == tmp_path / "own"
    assert not (tmp_path / "own").exists()  # nothing is made before something is stored


def test_a_file_where_the_store_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TopgraftError, match="Not a directory"):
        fill(Store(tmp_path / "file").shelf(WHAT))


def test_a_shelf_can_be_handed_to_another_process(store: Store) -> None:
    shelf = store.shelf(WHAT)
    digests, arrays = fill(shelf)
    copy = pickle.loads(pickle.dumps(shelf))
    assert bits(copy.read(digests)["tokens"]) == bits(arrays["tokens"])
    error = pickle.loads(pickle.dumps(NotStored(["a", "b", "a"])))
    assert error.digests == ("a", "b")


def test_a_description_must_be_plain_json(store: Store) -> None:
    with pytest.raises(TypeError, match=r"value\['weights'\] is a bytes"):
        store.shelf({"weights": b"0"})
    assert store.shelf({"size": (3, 224)}).key == store.shelf({"size": [3, 224]}).key
