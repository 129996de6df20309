"""Shards at an address whose examples are read there: the same data, and no byte of it on disk."""

from __future__ import annotations

import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from child_process import run_in_program
from command_line import called
from made_shards import of_pictures, write_shards, write_tar
from packaged_data import glosses_of
from s3_server import s3_server
from test_data_parts import Line
from test_data_places import AS_SAID, NETWORK

from topgraft.data import parts, read, rows
from topgraft.data.places import has_columns
from topgraft.errors import RunningError, TopgraftError
from topgraft.features.reading import Batch

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards", shards=3, each=4)


@pytest.fixture
def line(shards: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The shards behind a line that tells what came over it."""
    fsspec.register_implementation("line", Line, clobber=True)
    files = fsspec.filesystem("line")
    Line.store.clear()
    files.put(f"{shards}/", "/shards/", recursive=True)
    monkeypatch.setattr(Line, "came", [])
    parts.forget()
    return "stream+line://shards"


def test_the_data_is_that_of_the_shards_here(line: str, shards: Path, cache: Path) -> None:
    here, there = read(shards), read(line)
    assert (there.digests, there.classes) == (here.digests, here.classes)
    assert np.array_equal(there.targets, here.targets)
    assert np.array_equal(there.thumbnails, here.thumbnails)
    assert there.names[0] == "line://shards/photos-000.tar:food/" + here.names[0].rpartition("/")[2]
    assert re.search(
        r"3 files are read where they lie, by parts \([\d.]+ kB at line://shards\)", there.notes[0]
    )
    assert read("stream+line://shards/photos-{000..002}.tar").digests == here.digests
    assert has_columns(line)
    assert not list(cache.rglob("*.tar"))


def test_labels_come_with_the_index_and_pictures_once_more(
    line: str, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sum(path.stat().st_size for path in shards.iterdir())
    monkeypatch.setattr(parts, "BLOCK", 20_000)
    monkeypatch.setattr(parts, "HELD", 4)  # nothing of a shard is left of one reading for the next
    read(line)
    assert whole < sum(size for _, size in Line.came) < 2.5 * whole


def test_texts_of_any_length_and_json(tmp_path: Path) -> None:
    glosses = list(glosses_of(["food", "animal"], 20))
    members: list[tuple[str, bytes]] = []
    for number, (text, label) in enumerate(glosses):
        said = text * 100 if number == 7 else text  # over what is held
        members += [
            (f"{number:03d}.txt", said.encode()),
            (f"{number:03d}.json", f'{{"kind": "{label}"}}'.encode()),
        ]
    write_tar(tmp_path / "texts.tar", members)
    fsspec.filesystem("memory").put(str(tmp_path / "texts.tar"), "/texts/texts.tar")
    there = read("stream+memory://texts/texts.tar", label="kind")
    here = read(tmp_path / "texts.tar", label="kind")
    assert (list(there.inputs), there.digests) == (list(here.inputs), here.digests)


def test_fit_and_predict_with_shards_in_s3_leave_nothing_on_disk(
    shards: Path, tmp_path: Path, cache: Path
) -> None:
    run = tmp_path / "streamed.topgraft"
    with s3_server("bucket") as files:
        files.put(f"{shards}/", "bucket/shards", recursive=True)
        how = (*NETWORK, *AS_SAID, "--keep", "3", "--freeze", "all", "--budget", "20", "--json")
        fitted = called("fit", "stream+s3://bucket/shards", *how, "-o", run)
        assert fitted.status == 0, fitted.err
        assert not list(cache.rglob("*.tar"))
        there = called("predict", run, "stream+s3://bucket/shards/photos-001.tar", "--format", "jsonl")
        here = called("predict", run, shards / "photos-001.tar", "--format", "jsonl")
        assert there.status == here.status == 0, there.err
        assert there.out.replace("s3://bucket/shards", str(shards)) == here.out
        again = called("fit", shards, *how, "-o", tmp_path / "here")
        assert again.json["score"] == fitted.json["score"]
        weights = [sorted(folder.glob("*.safetensors")) for folder in (run, tmp_path / "here")]
        assert [one.read_bytes() for one in weights[0]] == [one.read_bytes() for one in weights[1]] != []
        batch = Batch.of(read("stream+s3://bucket/shards"), [1, 5])
        assert batch.lacks() == ()
        (tmp_path / "batch").write_bytes(pickle.dumps(batch))
        filled = run_in_program(_filled, str(tmp_path / "batch"))
        assert filled.returncode == 0, filled.stderr


def _filled(path: str) -> None:
    """Another process, as a worker's, reads the examples of a batch."""
    import pickle
    from pathlib import Path

    batch = pickle.loads(Path(path).read_bytes())
    assert all(isinstance(one, bytes) and one[:4] == b"RIFF" for one in batch.filled().data.inputs)


def test_a_line_that_fails_leaves_no_example_out(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "WAITS", ())
    data = read(line)
    parts.forget()
    monkeypatch.setattr(Line, "failures", iter([ConnectionResetError("cut")] * 1_000))
    with pytest.raises(RunningError, match=r"line:///shards/photos-000.tar can't be read: cut"):
        data.decode(0)
    with pytest.raises(RunningError, match="cut"):
        read(line)


def test_a_picture_that_changed_in_a_shard_is_told(line: str) -> None:
    data = read(line)
    files: Any = fsspec.filesystem("line")
    content = bytearray(files.cat("/shards/photos-000.tar"))
    at = data.inputs[0].start
    content[at + 40] ^= 255
    files.pipe("/shards/photos-000.tar", bytes(content))
    parts.forget()
    with pytest.raises(TopgraftError, match="changed"):
        Batch.of(data, [0]).filled()


def test_rows_to_predict_and_what_a_folder_holds_besides(line: str) -> None:
    fsspec.filesystem("line").pipe("/shards/list.csv", b"a,b\n1,2\n")
    assert len(list(rows([line], modality="picture"))) == 24
    assert "1 file is no shard and not read: list.csv." in read(line).notes


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("stream+photos.tar", r"stream\+ stands before an address.*\n.*give photos.tar"),
        ("stream+file:///a/b.tar", r"give /a/b.tar"),
        ("stream+zip::s3://bucket/a.zip", "addresses inside archives are not read"),
        ("stream+memory://loose", r"holds no shards \(.tar\), but food/a.webp.*Leave out stream\+"),
        ("stream+memory://loose/none.tar", "there is nothing at this address"),
        ("stream+memory://loose/{3..1}.tar", "expected a range from small to large"),
        ("stream+memory://loose/zipped.tar", "is compressed by gzip"),
        ("stream+memory://loose/cut.tar", "is cut short"),
        ("stream+memory://loose/no.tar", "is no tar file"),
    ],
)
def test_what_can_not_be_streamed_is_told(address: str, said: str, tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/loose/food/a.webp", b"RIFF")
    whole = write_tar(tmp_path / "a.tar", of_pictures(0, 2)).read_bytes()
    try:
        if not address.endswith("loose"):
            for name, content in {
                "zipped": b"\x1f\x8b" + whole,
                "cut": whole[: len(whole) // 2 + 100],
                "no": b"no tar file at all, " * 100,
            }.items():
                files.pipe(f"/loose/{name}.tar", content)
        with pytest.raises(TopgraftError, match=rf"(?s){said}"):
            read(address)
    finally:
        files.rm("/loose", recursive=True)
        shutil.rmtree(tmp_path)
