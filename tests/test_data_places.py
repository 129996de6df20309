"""The same pictures wherever they lie: every command takes a name of the hub, shards and addresses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from command_line import called, done
from hub_datasets import CLASSES, snapshot_of, use_datasets, write_pictures
from made_shards import of_pictures, write_tar
from packaged_data import pictures_of

from topgraft.data import read
from topgraft.data.places import has_columns, table_at
from topgraft.errors import TopgraftError

NETWORK = ("--backbone", "timm/test_efficientnet", "--weights", "none")
AS_SAID = ("--engine", "torch", "--precision", "fp32", "--resize", "crop")  # nothing that a trial decides
pytestmark = pytest.mark.usefixtures("own_store_one_thread")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, tuple[str, str]]]:
    """The same pictures as a folder, a data set of the hub, shards and addresses; to train and to test."""
    write_pictures(snapshot_of(use_datasets(tmp_path, monkeypatch), "org/pictures"), train=12, test=6)
    write_tar(tmp_path / "train.tar", sorted(of_pictures(0, 12)))  # in the order of the folders
    write_tar(tmp_path / "test-0.tar", of_pictures(12, 3))
    write_tar(tmp_path / "test-1.tar", of_pictures(15, 3))
    for part, start, each in (("train", 0, 12), ("test", 12, 6)):
        for name in CLASSES:
            (tmp_path / part / name).mkdir(parents=True)
            for path in pictures_of(name, start, each):
                (tmp_path / part / name / path.name).write_bytes(path.read_bytes())
    files = fsspec.filesystem("memory")
    files.put(f"{tmp_path}/test/", "/place/test/", recursive=True)
    files.put(f"{tmp_path}/train.tar", "/place/train.tar")
    yield {
        "folder": (str(tmp_path / "train"), str(tmp_path / "test")),
        "hub": ("hf/org/pictures", "hf/org/pictures:test"),
        "shards": (str(tmp_path / "train.tar"), str(tmp_path / "test-{0..1}.tar")),
        "address": ("memory://place/train.tar", "memory://place/test/"),
    }
    files.rm("/place", recursive=True)


@pytest.mark.slow
def test_a_model_from_shards_says_the_same_of_pictures_wherever_they_lie(
    places: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    train, test = places["shards"]
    out = tmp_path / "model.topgraft"
    told = ("--freeze", "all", "--keep", "3", "--budget", "20", *AS_SAID)
    fitted = done("fit", train, "-o", out, *NETWORK, *told, "--test", test, "--json")
    document = fitted.json
    assert "24 pictures in 2 classes (12 each)" in fitted.err
    said = {}
    for kind, (_, where) in places.items():
        rows = done("predict", out, where, "--format", "json").json
        assert [row["error"] for row in rows] == [None] * 12
        said[kind] = sorted((row["label"], row["confidence"]) for row in rows)
        judged = done("evaluate", out, where, "--json").json
        assert judged["score"] == document["score"], kind
    assert said["hub"] == said["shards"] == said["address"] == said["folder"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hub", "shards"])
def test_probes_of_the_same_pictures_are_the_same(places: dict[str, tuple[str, str]], kind: str) -> None:
    found = [
        done("probe", places[of][0], *NETWORK, *AS_SAID, "--held-out", "0.25", "--json").json
        for of in (kind, "folder")
    ]
    digests = [sorted(read(places[of][0]).digests) for of in (kind, "folder")]
    assert digests[0] == digests[1]
    for mine, plain in zip(found[0]["cuts"], found[1]["cuts"], strict=True):
        assert mine["block"] == plain["block"]
        assert mine["loss"] == plain["loss"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf/org/picture", "Nearest: org/pictures"),
        ("hf/org/pictures:tset", "Nearest: test"),
        ("train-{0..3}.tar", "there is no such file"),
        ("memory://place/nothing.csv", "nothing at this address"),
        ("s4://bucket/photos", "nothing reads s4://"),
    ],
)
def test_what_is_not_there_ends_with_status_2_and_nothing_made(
    places: dict[str, tuple[str, str]], tmp_path: Path, name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del places
    monkeypatch.chdir(tmp_path)
    for command in ("fit", "probe", "compare"):
        outcome = called(command, name, *NETWORK)
        assert (outcome.status, outcome.out) == (2, "")
        assert outcome.err.startswith("Error: ")
        assert said in outcome.err
    assert not list(tmp_path.glob("*.topgraft"))


def test_what_has_columns_and_what_has_not(places: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    assert {kind: has_columns(train) for kind, (train, _) in places.items()} == {
        "folder": False,
        "hub": True,
        "shards": True,
        "address": True,
    }
    assert table_at(places["folder"][0]) is None
    table = table_at(places["shards"][0])
    assert table is not None
    assert set(table.columns) == {"picture", "webp", "cls"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(TopgraftError, match="is an empty folder"):
        read(tmp_path / "empty")
