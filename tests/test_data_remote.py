"""Data at addresses: memory, a plain HTTP server and an S3 server on this machine."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from command_line import called
from hub_datasets import write_pictures
from made_shards import write_shards
from packaged_data import pictures_of, write_table
from s3_server import s3_server

from topgraft.data import read, read_test, rows
from topgraft.data.places import has_columns
from topgraft.errors import RunningError, TopgraftError
from topgraft.features.limit import parse_limit
from topgraft.features.store import Store

pytestmark = pytest.mark.usefixtures("cache")


class Served(SimpleHTTPRequestHandler):
    """A folder over HTTP that remembers what was asked for."""

    asked: ClassVar[list[str]] = []

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if "." in self.path:  # else a listing
            self.asked.append(self.path)
        super().do_GET()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures in folders, a table that names them, shards and a Parquet file."""
    root = tmp_path / "served"
    lines = [("path", "kind")]
    for name in ("food", "tools"):
        (root / "photos" / name).mkdir(parents=True)
        for path in pictures_of(name, 0, 4):
            shutil.copy(path, root / "photos" / name / f"a {path.name}")
            lines.append((f"photos/{name}/a {path.name}", name))
    write_table(root / "list.csv", lines)
    write_shards(root / "shards")
    write_pictures(root / "hub", train=4, test=2)
    return root


@pytest.fixture
def http(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Served, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    Served.asked.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def memory(folder: Path) -> Iterator[str]:
    files = fsspec.filesystem("memory")
    files.put(f"{folder}/", "/bucket/", recursive=True)
    yield "memory://bucket"
    files.rm("/bucket", recursive=True)


def test_a_folder_is_what_it_is_here_and_fetched_once(http: str, folder: Path) -> None:
    data, plain = read(f"{http}/photos/"), read(folder / "photos")
    assert data.digests == plain.digests
    assert data.names == tuple(name.replace(str(folder), http) for name in plain.names)
    assert data.origin == f"{http}/photos"
    assert any(note.startswith("Fetched 8 files (") for note in data.notes)
    assert len(Served.asked) == 8
    again = read(f"{http}/photos")
    assert (again.digests, again.names) == (data.digests, data.names)
    assert len(Served.asked) == 8
    assert any(
        "Fetched 0 files (0 B)" in note and "8 files were in the store already" in note
        for note in again.notes
    )


def test_what_changed_there_or_was_damaged_here_is_fetched_again(http: str, folder: Path) -> None:
    data = read(f"{http}/photos")
    there = sorted((folder / "photos" / "food").iterdir())[0]
    shutil.copy(pictures_of("food", 9, 1)[0], there)
    os.utime(there, (1, 1))
    mine = Path(data.inputs[5])
    content = bytearray(mine.read_bytes())
    content[100] ^= 1
    mine.write_bytes(content)
    Served.asked.clear()
    again = read(f"{http}/photos")
    assert again.digests == read(folder / "photos").digests
    assert again.digests != data.digests
    assert len(Served.asked) == 2
    assert any("1 of them was damaged there" in note for note in again.notes)


def test_a_table_and_the_files_that_it_names(http: str, folder: Path) -> None:
    with (folder / "list.csv").open("a") as file:
        file.write("../secret.webp,food\n/etc/passwd,food\nphotos/food/gone.webp,food\n")
    shutil.copy(pictures_of("food", 9, 1)[0], folder.parent / "secret.webp")
    data = read(f"{http}/list.csv?token=abc", max_unreadable=0.5)
    assert len(data) == 8
    assert data.names[0] == f"{http}/photos/food/a {pictures_of('food', 0, 1)[0].name}"
    reasons = [out.reason for out in data.left_out]
    assert reasons == ["leads out of the folder of the data"] * 2 + ["no such file"]
    assert not any("secret" in path or "passwd" in path for path in Served.asked)
    assert "abc" not in f"{data.origin} {data.notes} {data.names} {Store().shelves()}"


def test_shards_and_parquet(memory: str, folder: Path) -> None:
    data = read(f"{memory}/shards/photos-{{000..001}}.tar")
    assert data.digests == read(folder / "shards").digests
    assert data.names[0].startswith("memory://bucket/shards/photos-000.tar:food/")
    assert read(f"{memory}/shards").digests == data.digests
    one = read(f"{memory}/hub/data/train-00000-of-00001.parquet")
    assert one.digests == read(folder / "hub" / "data" / "train-00000-of-00001.parquet").digests
    test = read_test(f"{memory}/hub/data/test-00000-of-00001.parquet", one)
    assert (len(test), test.classes) == (4, ("food", "tools"))


def test_what_is_predicted_at_an_address(memory: str) -> None:
    found = list(rows([f"{memory}/photos"], modality="picture"))
    assert len(found) == 8
    assert found[0].name == f"memory://bucket/photos/food/a {pictures_of('food', 0, 1)[0].name}"
    assert found[0].value.read_bytes() == pictures_of("food", 0, 1)[0].read_bytes()
    (one,) = rows([found[0].name], modality="picture")
    assert (one.name, one.error) == (found[0].name, None)
    assert len(list(rows([f"{memory}/list.csv"], modality="picture", column="path"))) == 8
    assert has_columns(f"{memory}/list.csv")
    assert has_columns(f"{memory}/shards")
    assert not has_columns(f"{memory}/photos")


def test_names_that_lead_out_of_a_listing_are_not_written(
    memory: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = fsspec.filesystem("memory")
    usual = type(files).find

    def find(self: object, path: str, **told: object) -> object:
        found = usual(self, path, **told)
        info = next(iter(found.values()))
        return found | {f"{path}/../../../up.webp": info, f"{path}/a\\b.webp": info, "/etc/x.webp": info}

    with monkeypatch.context() as patch:
        patch.setattr(type(files), "find", find)
        data = read(f"{memory}/photos")
    assert any("3 names lead out of the folder, not fetched" in note for note in data.notes)
    assert len(list(cache.rglob("*.webp"))) == 8


@pytest.mark.parametrize(
    ("address", "kind", "said"),
    [
        (
            "memory://nothing/here/",
            TopgraftError,
            "memory://nothing/here: there is nothing at this address|holds no",
        ),
        ("memory://nothing/a.csv", TopgraftError, "a.csv: there is nothing at this address"),
        ("http://127.0.0.1:9/a.csv?key=secret", RunningError, r"http://127.0.0.1:9/a.csv can't be fetched"),
        ("s4://bucket/photos", TopgraftError, r"nothing reads s4://. Nearest: .*s3"),
        ("file:///a/photos", TopgraftError, "is on this machine: give the path itself, /a/photos"),
        ("zip://a.csv::memory://a.zip", TopgraftError, "inside archives"),
    ],
)
def test_what_can_not_be_fetched_is_told(address: str, kind: type[TopgraftError], said: str) -> None:
    with pytest.raises(kind, match=said) as error:
        read(address)
    assert type(error.value) is kind
    assert "secret" not in str(error.value)


def test_a_package_that_is_missing_is_named() -> None:
    for address, package in {"gs://bucket/a": "gcsfs", "abfs://box/a": "adlfs"}.items():
        if find_spec(package) is None:
            with pytest.raises(
                TopgraftError, match=rf"(?s)read by the package {package}, which is not here.*pip install"
            ):
                read(address)


def test_the_cache_lists_bounds_and_frees_what_was_fetched(memory: str, cache: Path) -> None:
    read(f"{memory}/photos")
    listed = called("cache").out + called("cache").err
    assert "fetched from memory://bucket/photos" in listed
    (shelf,) = called("cache", "--json").json["shelves"]
    assert (shelf["examples"], shelf["bytes"] > 8_000, shelf["in_use"]) == (8, True, True)
    assert called("cache", "clear").status == 0
    assert not list(cache.rglob("*.webp"))
    assert len(read(f"{memory}/photos")) == 8


def test_what_was_fetched_is_dropped_for_what_is_needed_now(
    memory: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from topgraft.features import fetched

    read(f"{memory}/photos")
    fetched._HELD.clear()  # as when the command has ended
    Store().set_limit(parse_limit("75kB"))  # the pictures take 12, the shards 72
    with pytest.warns(match="were dropped: fetched from memory://bucket/photos"):
        read(f"{memory}/shards")
    assert not list(cache.rglob("*.webp"))
    monkeypatch.setenv("TOPGRAFT_CACHE_LIMIT", "1kB")
    fetched._HELD.clear()
    with pytest.warns(match="over its limit"), pytest.warns(match="were dropped"):
        assert len(read(f"{memory}/photos")) == 8


def test_a_disk_that_is_too_small_is_told_before(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(
        TopgraftError, match=r"bytes are to be fetched, and the disk of the store .* has 10 left"
    ):
        read(f"{memory}/photos")


def test_pictures_and_shards_in_s3(folder: Path) -> None:
    with s3_server("bucket") as files:
        files.put(f"{folder}/", "bucket/data", recursive=True)
        data = read("s3://bucket/data/photos/")
        assert data.digests == read(folder / "photos").digests
        assert data.names[0].startswith("s3://bucket/data/photos/food/")
        assert read("s3://bucket/data/shards").digests == read(folder / "shards").digests
        again = read("s3://bucket/data/photos")
        assert any("Fetched 0 files" in note for note in again.notes)
        shutil.copy(pictures_of("food", 9, 1)[0], folder / "new.webp")
        files.put(str(folder / "new.webp"), "bucket/data/photos/food/new.webp")
        more = read("s3://bucket/data/photos")
        assert (len(more), any("Fetched 1 file (" in note for note in more.notes)) == (9, True)
        with pytest.raises(TopgraftError, match=r"s3://bucket/none/a.csv: there is nothing"):
            read("s3://bucket/none/a.csv")
