"""A store that machines share through an address: the same bits, and nothing that is not whole counts."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from command_line import called, tiny_job
from s3_server import s3_server
from small_networks import backbone_of, data_of_maps, example_maps, maps

from topgraft.backbones.types import Backbone
from topgraft.chain import State
from topgraft.errors import RunningError, TopgraftError
from topgraft.features import sources
from topgraft.features.passes import one_pass, states
from topgraft.features.sending import sendable
from topgraft.features.shared import SharedShelf
from topgraft.features.sources import StateSource
from topgraft.features.store import NotStored, Shelf, Store, StoreWarning

WHAT = {"weights": "abc", "cut": 3}
ADDRESS = "memory://bucket/store"


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def shelf_in(folder: Path) -> Shelf:
    return Store(folder, remote=ADDRESS).shelf(WHAT)


def fill(shelf: Shelf, *digests: str) -> torch.Tensor:
    rows = torch.tensor([[float(ord(d[0])), float(ord(d[-1]))] for d in digests])
    shelf.append(digests, {"x": rows})
    return rows


def there(files: Any) -> list[str]:
    """The shards at the address."""
    return sorted(files.find("/bucket"))


def spoil(files: Any, path: str, at: int) -> None:
    content = bytearray(files.cat(path))
    content[at] ^= 1
    files.pipe(path, bytes(content))


def test_what_one_machine_stored_another_finds_bit_for_bit(memory: Any, tmp_path: Path) -> None:
    first, second = shelf_in(tmp_path / "a"), shelf_in(tmp_path / "b")
    rows = fill(first, "a1", "a2")
    more = fill(first, "b1")
    assert len(there(memory)) == 2
    assert second.known() == {"a1", "a2", "b1"}
    assert not second.folder.exists()  # only headers were read
    assert torch.equal(second.read(["b1"])["x"], more)
    assert len(list(second.folder.glob("*.safetensors"))) == 1  # and only what was asked for came
    assert torch.equal(second.read(["a2", "b1", "a1"])["x"], torch.cat([rows[1:], more, rows[:1]]))
    names = {p.name: p.read_bytes() for p in first.folder.glob("*.safetensors")}
    assert {p.name: p.read_bytes() for p in second.folder.glob("*.safetensors")} == names


def test_what_moved_is_told_once(memory: Any, tmp_path: Path) -> None:
    store, other = (Store(tmp_path / name, remote=ADDRESS) for name in "ab")
    fill(store.shelf(WHAT), "a1")
    (path,) = there(memory)
    assert store.moved() == [f"{ADDRESS}: 1 shard ({memory.size(path)} B) sent"]
    assert store.moved() == []
    other.shelf(WHAT).read(["a1"])
    assert other.moved() == [f"{ADDRESS}: 1 shard ({memory.size(path)} B) fetched"]


def test_what_was_stored_before_there_was_an_address_is_sent_when_it_is_used(
    memory: Any, tmp_path: Path
) -> None:
    fill(Store(tmp_path / "a").shelf(WHAT), "a1")
    assert not there(memory)
    shelf_in(tmp_path / "a").read(["a1"])
    assert len(there(memory)) == 1
    assert shelf_in(tmp_path / "b").known() == {"a1"}


@pytest.mark.parametrize("at", [0, 20, -1], ids=["length", "header", "numbers"])
def test_a_flipped_bit_there_is_noticed_told_and_mended(memory: Any, tmp_path: Path, at: int) -> None:
    rows = fill(shelf_in(tmp_path / "a"), "a1")
    fill(shelf_in(tmp_path / "a"), "b1")
    path = next(p for p in there(memory) if b'[\\"a1\\"]' in memory.cat(p))
    right = memory.cat(path)
    spoil(memory, path, at)
    shelf = shelf_in(tmp_path / "b")
    where = r"memory://bucket/store/.*is damaged"
    with pytest.warns(StoreWarning, match=where), pytest.raises(NotStored):
        shelf.read(["a1", "b1"])
    assert torch.equal(shelf.read(["b1"])["x"], torch.tensor([[98.0, 49.0]]))
    assert not (shelf.folder / Path(path).name).exists()
    fill(shelf, "a1")  # made again: the same shard, which replaces the damaged one
    assert memory.cat(path) == right
    assert torch.equal(shelf_in(tmp_path / "c").read(["a1"])["x"], rows)


def test_half_a_shard_never_counts_and_is_made_whole(memory: Any, tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path / "a")
    fill(shelf, "a1", "a2")
    (path,) = there(memory)
    whole = memory.cat(path)
    for length in (0, 5, len(whole) // 2, len(whole) - 1):
        memory.pipe(path, whole[:length])
        other = shelf_in(tmp_path / f"b{length}")
        with pytest.warns(StoreWarning, match="damaged"):
            assert other.known() == frozenset()
    with pytest.warns(StoreWarning, match="damaged"):
        shelf_in(tmp_path / "a").read(["a1"])  # here it is whole, and goes there again
    assert memory.cat(path) == whole


def test_an_interrupted_sending_leaves_nothing_there_and_is_made_good(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise ConnectionResetError("the line went dead")

    shelf = shelf_in(tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "put_file", interrupted)
        with pytest.warns(StoreWarning, match=r"can't be written: the line went dead\n.*stored here"):
            fill(shelf, "a1")
        rows = fill(shelf, "b1")  # it was said once
    assert not there(memory)
    assert torch.equal(shelf.read(["b1"])["x"], rows)
    shelf_in(tmp_path / "a").read(["b1"])  # the next command
    assert shelf_in(tmp_path / "b").known() == {"a1", "b1"}


def test_a_shard_that_is_deleted_after_it_was_listed_is_made_again(memory: Any, tmp_path: Path) -> None:
    fill(shelf_in(tmp_path / "a"), "a1")
    shelf = shelf_in(tmp_path / "b")
    assert shelf.known() == {"a1"}
    memory.rm(there(memory)[0])
    with pytest.warns(StoreWarning, match=r"was deleted; its examples"), pytest.raises(NotStored):
        shelf.read(["a1"])
    fill(shelf, "a1")
    assert len(there(memory)) == 1


def test_what_is_not_of_the_shelf_is_left_alone(memory: Any, tmp_path: Path) -> None:
    fill(shelf_in(tmp_path / "a"), "a1")
    (path,) = there(memory)
    folder = path.rpartition("/")[0]
    memory.pipe(f"{folder}/notes.txt", b"a note")
    memory.pipe(f"{folder}/{'0' * 64}.safetensors/deeper", b"x")
    other = Store(tmp_path / "c", remote=ADDRESS).shelf({**WHAT, "cut": 4})
    fill(other, "z1")
    (strange,) = other.folder.glob("*.safetensors")
    memory.put_file(str(strange), f"{folder}/{strange.name}")
    with pytest.warns(StoreWarning, match="belongs to another shelf"):
        assert shelf_in(tmp_path / "b").known() == {"a1"}
    assert memory.cat(f"{folder}/notes.txt") == b"a note"


def test_a_shard_damaged_here_is_not_sent(memory: Any, tmp_path: Path) -> None:
    shelf = Store(tmp_path / "a").shelf(WHAT)
    fill(shelf, "a1")
    fill(shelf, "b1")
    path = next(p for p in shelf.folder.glob("*.safetensors") if b'[\\"a1\\"]' in p.read_bytes())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    shelf_in(tmp_path / "a").read(["b1"])
    assert path.name not in " ".join(there(memory))
    assert len(there(memory)) == 1


class Dying(io.BytesIO):
    """A connection that gives a few bytes and no more."""

    def read(self, _: int | None = -1) -> bytes:
        if self.tell():
            raise ConnectionResetError("the line went dead")
        return super().read(10)


def test_a_failing_connection_ends_with_its_address_and_nothing_half_fetched(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(shelf_in(tmp_path / "a"), "a1")
    shelf = shelf_in(tmp_path / "b")
    shelf.known()
    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "open", lambda self, path, *_, **__: Dying(self.cat(path)))
        with pytest.raises(
            RunningError, match=r"memory://bucket/store/.* can't be fetched: the line went dead"
        ):
            shelf.read(["a1"])
    assert [p.name for p in shelf.folder.iterdir()] == ["description.json"]
    assert shelf_in(tmp_path / "b").read(["a1"])["x"].shape == (1, 2)


@pytest.mark.usefixtures("memory")
def test_what_comes_counts_for_the_limit_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(shelf_in(tmp_path / "a"), "a1")
    old = Store(tmp_path / "b").shelf({**WHAT, "cut": 9})
    fill(old, "o1")
    kept = old.folder
    del old
    monkeypatch.setenv("TOPGRAFT_CACHE_LIMIT", f"{sum(p.stat().st_size for p in kept.iterdir()) + 100}B")
    with pytest.warns(StoreWarning, match="were dropped"):
        shelf_in(tmp_path / "b").read(["a1"])
    assert not kept.exists()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("photos/store", r"'photos/store' is no address that can be written to.*TOPGRAFT_CACHE"),
        ("file:///tmp/store", "no address that can be written to"),
        ("https://me:secret@host/store", "no address that can be written to"),
        ("s4://bucket/store", r"nothing reads s4://. Nearest: .*s3"),
    ],
)
def test_what_is_no_address_is_refused_before_anything_is_done(
    address: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOPGRAFT_CACHE_REMOTE", address)
    with pytest.raises(TopgraftError, match=f"(?s){said}") as error:
        Store()
    assert "secret" not in str(error.value)
    assert (
        Store(tmp_path).remote is None
    )  # a store with a folder of its own has only the address that it is given


@pytest.mark.usefixtures("memory")
def test_a_shelf_in_another_process_has_the_store_of_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = shelf_in(tmp_path / "a")
    rows = fill(shelf, "a1")
    sent = pickle.dumps(shelf)
    monkeypatch.setenv("TOPGRAFT_CACHE", str(tmp_path / "there"))
    found = pickle.loads(sent)
    assert isinstance(found, SharedShelf)
    assert found.folder.is_relative_to(tmp_path / "there")
    assert torch.equal(found.read(["a1"])["x"], rows)


@pytest.fixture
def backbone() -> Backbone:
    return backbone_of(maps(depth=2), example_maps())


@pytest.mark.usefixtures("memory")
def test_a_pass_on_a_second_machine_computes_nothing(tmp_path: Path, backbone: Backbone) -> None:
    data = data_of_maps(20)
    stores = [Store(tmp_path / name, remote=ADDRESS) for name in "ab"]
    (first, fresh), (second, reused) = (one_pass(backbone, data, store) for store in stores)
    assert (fresh, reused) == (0, 20)
    assert all(torch.equal(first.cuts[cut], second.cuts[cut]) for cut in first.cuts)
    shelf, reused = states(backbone, data, stores[0], 1)
    again, known = states(backbone, data, stores[1], 1)
    assert (reused, known) == (0, 20)
    rows = [3, 1, 19]
    ours, theirs = (StateSource(each, data.digests).batch(rows, training=False) for each in (shelf, again))
    assert torch.equal(ours.tensors[0], theirs.tensors[0])


def test_a_pass_mends_what_was_damaged_there(memory: Any, tmp_path: Path, backbone: Backbone) -> None:
    data = data_of_maps(20)
    first, _ = one_pass(backbone, data, Store(tmp_path / "a", remote=ADDRESS))
    for path in there(memory):
        spoil(memory, path, -1)
    with pytest.warns(StoreWarning, match="damaged"):
        second, _ = one_pass(backbone, data, Store(tmp_path / "b", remote=ADDRESS))
    assert all(torch.equal(first.cuts[cut], second.cuts[cut]) for cut in first.cuts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, reused = one_pass(backbone, data, Store(tmp_path / "c", remote=ADDRESS))
    assert reused == 20


class Refusing(BaseHTTPRequestHandler):
    """Answers as S3 does to somebody who has no permission."""

    protocol_version = "HTTP/1.1"  # with which a client waits to be asked for the body

    def _refuse(self) -> None:
        said = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(403)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else said)

    do_GET = do_PUT = do_HEAD = do_POST = _refuse  # noqa: N815 (names of the class that calls them)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with s3_server("bucket") as files:
        yield files


@pytest.fixture
def refusing(s3: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that refuses everything, in place of the usual one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    usual = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    type(s3).clear_instance_cache()
    yield
    type(s3).clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", usual)
    server.shutdown()
    server.server_close()
    thread.join()


def in_s3(folder: Path, place: str = "store") -> Shelf:
    return Store(folder, remote=f"s3://bucket/{place}").shelf(WHAT)


@pytest.mark.usefixtures("s3")
def test_two_commands_with_stores_of_their_own_share_a_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tiny_job(tmp_path / "job")
    monkeypatch.setenv("TOPGRAFT_CACHE_REMOTE", "s3://bucket/commands")
    said = []
    for name in "ab":
        monkeypatch.setenv("TOPGRAFT_CACHE", str(tmp_path / name))
        done = called("probe", job.table, "--backbone", job.backbone, "--seed", "1", "--json")
        assert done.status == 0, done.err
        said.append(done)
    assert "s3://bucket/commands: 1 shard (" in said[0].err
    assert "sent" in said[0].err
    assert "were stored by an earlier run" in said[1].err
    assert "fetched" in said[1].err
    assert [one["cuts"] for one in (said[0].json, said[1].json)] == [said[0].json["cuts"]] * 2
    assert called("cache", "--json").json["remote"] == "s3://bucket/commands"
    assert "Remote" in called("cache").out


READING = """
import pickle, sys
from pathlib import Path

source = pickle.loads(Path(sys.argv[1]).read_bytes())
sys.stdout.buffer.write(source.batch([3, 1, 9], training=True).tensors[0].numpy().tobytes())
"""


@pytest.mark.usefixtures("s3")
def test_a_worker_in_another_process_finds_in_the_bucket_what_is_too_large_to_be_sent(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "IN_MEMORY", 10)
    data = data_of_maps(12)
    shelf, _ = states(backbone, data, Store(tmp_path / "a", remote="s3://bucket/states"), 1)
    source = StateSource(shelf, data.digests)
    (tmp_path / "sent").write_bytes(pickle.dumps(sendable(source)))
    own = {**os.environ, "TOPGRAFT_CACHE": str(tmp_path / "b"), "PYTHONPATH": os.pathsep.join(sys.path)}
    read = subprocess.run(
        [sys.executable, "-c", READING, tmp_path / "sent"], env=own, capture_output=True, check=True
    )
    here = source.batch([3, 1, 9], training=True)
    assert isinstance(here, State)
    assert read.stdout == here.tensors[0].numpy().tobytes()
    assert len(list((tmp_path / "b").rglob("*.safetensors"))) == 1


def test_damage_in_a_bucket_is_noticed_and_mended(s3: Any, tmp_path: Path) -> None:
    rows = fill(in_s3(tmp_path / "a"), "a1")
    (path,) = s3.find("bucket/store")
    content = s3.cat(path)
    s3.pipe(path, content[:-1] + bytes([content[-1] ^ 1]))
    shelf = in_s3(tmp_path / "b")
    with pytest.warns(StoreWarning, match=r"s3://bucket/store/.* is damaged"), pytest.raises(NotStored):
        shelf.read(["a1"])
    fill(shelf, "a1")
    s3.invalidate_cache()
    assert s3.cat(path) == content
    assert torch.equal(in_s3(tmp_path / "c").read(["a1"])["x"], rows)


def test_parts_of_a_sending_that_never_ended_do_not_count(s3: Any, tmp_path: Path) -> None:
    shelf = in_s3(tmp_path / "a", "parts")
    fill(shelf, "a1")
    (path,) = s3.find("bucket/parts")
    content, key = s3.cat(path), path.partition("/")[2]
    s3.rm(path)
    begun = s3.call_s3("create_multipart_upload", Bucket="bucket", Key=key)
    part = {"UploadId": begun["UploadId"], "PartNumber": 1, "Body": content}
    s3.call_s3("upload_part", Bucket="bucket", Key=key, **part)
    assert in_s3(tmp_path / "b", "parts").known() == frozenset()
    in_s3(tmp_path / "a", "parts").read(["a1"])
    assert in_s3(tmp_path / "b", "parts").known() == {"a1"}


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_not_there_is_told_before_anything_is_computed(tmp_path: Path) -> None:
    shelf = Store(tmp_path, remote="s3://nobodys/store").shelf(WHAT)
    with pytest.raises(TopgraftError, match=r"s3://nobodys/store can't be used: .*bucket does not exist"):
        shelf.known()


@pytest.mark.usefixtures("refusing")
def test_no_permission_is_told_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(TopgraftError, match=r"s3://bucket/store: no permission to read it") as error:
        in_s3(tmp_path).known()
    assert error.value.exit_status == 2


@pytest.mark.usefixtures("refusing")
def test_no_permission_to_write_is_told_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = in_s3(tmp_path, "readable")
    monkeypatch.setattr(shelf._there, "_sizes", {})  # as where reading is allowed, and nothing is there
    with pytest.warns(StoreWarning, match=r"s3://bucket/readable: no permission to write it"):
        rows = fill(shelf, "a1")
    assert torch.equal(shelf.read(["a1"])["x"], rows)
