"""Each bad input gets one clear message and its exit status, and leaves nothing behind."""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from child_process import drop_rights, in_child, limit_file_size, small_disk
from command_line import FILLING, Job, Outcome, called, content, table_of, tiny_job, word_texts
from packaged_data import pictures_of
from safetensors.torch import save_file

TINY_PICTURE_NETWORK = ("--backbone", "timm/test_efficientnet", "--weights", "none")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(autouse=True)
def _one_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPGRAFT_CACHE", str(store))


@dataclass(frozen=True)
class Place:
    """A job, a model that was fitted on it, pictures, and an empty folder for the test's own files."""

    job: Job
    model: Path
    photos: Path
    own: Path

    @property
    def out(self) -> Path:
        return self.own / "out"

    def fit(self, *more: str | Path) -> list[str | Path]:
        return ["fit", self.job.table, "-o", self.out, "--backbone", self.job.backbone, *more]

    def fit_on(self, data: Path, *more: str | Path) -> list[str | Path]:
        return ["fit", data, "-o", self.out, "--backbone", self.job.backbone, *more]

    def fit_pictures(self, data: Path, *more: str | Path) -> list[str | Path]:
        return ["fit", data, "-o", self.out, *TINY_PICTURE_NETWORK, "--freeze", "all", *more]

    def texts(self, rows: Sequence[Sequence[str]], header: Sequence[str] = ("text", "label")) -> Path:
        return table_of(self.own / "own.csv", rows, header)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Path]:
    folder = tmp_path_factory.mktemp("ready")
    job = tiny_job(folder / "job")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPGRAFT_CACHE", str(folder / "cache"))
        assert job.fit(folder / "model", "--freeze", "all").status == 0
    return job, folder / "model"


@pytest.fixture
def place(ready: tuple[Job, Path], photos: Path, tmp_path: Path) -> Place:
    (tmp_path / "own").mkdir()
    return Place(ready[0], ready[1], photos, tmp_path / "own")


def refused(place: Place, arguments: Sequence[str | Path], status: int, *parts: str) -> Outcome:
    """Run a command that must be refused, with these parts in its message and nothing left behind."""
    before = content(place.own), content(place.model)
    outcome = called(*arguments)
    message = outcome.err[outcome.err.index("Error: ") :] if "Error: " in outcome.err else outcome.err
    assert outcome.status == status, outcome.err
    assert message.startswith("Error: ")
    assert message.count("Error: ") == 1
    for part in parts:
        assert part in message
    assert "Traceback" not in outcome.err
    assert (content(place.own), content(place.model)) == before
    assert not place.out.exists()
    return outcome


def empty_folder(place: Place) -> Path:
    (place.own / "empty").mkdir()
    return place.own / "empty"


def pictures(place: Place, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (place.own / "photos" / name).mkdir(parents=True)
        for picture in pictures_of(name, 0, count):
            shutil.copy(picture, place.own / "photos" / name)
    return place.own / "photos"


def huge_picture(path: Path) -> Path:
    """A PNG of few bytes that claims 3,600,000,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def spoilt_pictures(place: Place) -> Path:
    """12 pictures, of which three can't be used."""
    folder = pictures(place, {"food": 6, "tools": 6})
    first, second, third = sorted((folder / "food").iterdir())[:3]
    first.write_bytes(first.read_bytes()[:300])
    second.write_bytes(b"no picture at all")
    huge_picture(third.with_suffix(".png"))
    third.unlink()
    return folder


def weights_of_another(place: Place) -> Path:
    save_file({"some.weight": torch.zeros(3, 3)}, place.own / "other.safetensors")
    return place.own / "other.safetensors"


def half_of_the_weights(place: Place) -> Path:
    from topgraft.files import read_tensors

    folder = Path(place.job.backbone.removeprefix("hf/"))
    tensors, _ = read_tensors(folder / "model.safetensors")
    kept = {n: t.clone() for n, t in tensors.items() if "layer.1" not in n}
    save_file(kept, place.own / "half.safetensors")
    return place.own / "half.safetensors"


def saved(place: Place, name: str, text: str) -> Path:
    (place.own / name).write_text(text)
    return place.own / name


def damaged_model(place: Place) -> Path:
    shutil.copytree(place.model, place.own / "damaged")
    weights = place.own / "damaged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    return place.own / "damaged"


Make = Callable[[Place], Sequence[str | Path]]

NOT_THERE = ("phots", "there is no such file or folder")
CASES: dict[str, tuple[Make, tuple[str, ...]]] = {
    "fit: no such path": (lambda p: p.fit_on(p.own / "phots"), NOT_THERE),
    "probe: no such path": (
        lambda p: ["probe", p.own / "phots"],
        NOT_THERE,
    ),
    "evaluate: no such path": (
        lambda p: ["evaluate", p.model, p.own / "phots"],
        NOT_THERE,
    ),
    "predict: no such path": (
        lambda p: ["predict", p.model, p.own / "phots"],
        NOT_THERE,
    ),
    "predict: no such model": (lambda p: ["predict", p.own / "modl", p.job.table], ("modl", "not there")),
    "predict: no model": (lambda p: ["predict", p.own, p.job.table], ("not a saved graft", "fit -o")),
    "fit: --test does not exist": (lambda p: p.fit("--test", p.own / "tst.csv"), ("tst.csv",)),
    "fit: empty folder": (lambda p: p.fit_pictures(empty_folder(p)), ("empty",)),
    "predict: empty folder": (lambda p: ["predict", p.model, empty_folder(p)], ("empty",)),
    "fit: empty file": (lambda p: p.fit_on(saved(p, "nothing.csv", "")), ("nothing.csv",)),
    "fit: a table without rows": (lambda p: p.fit_on(p.texts([])), ("own.csv",)),
    "fit: one class of pictures": (lambda p: p.fit_pictures(pictures(p, {"food": 4})), ("food", "class")),
    "fit: one class of texts": (
        lambda p: p.fit_on(p.texts([(text, "same") for text, _ in word_texts(9)])),
        ("same", "class"),
    ),
    "fit: a class with one example": (
        lambda p: p.fit_on(p.texts([*word_texts(9), ("a lone text", "lonely")])),
        ("lonely", "1"),
    ),
    "fit: too many pictures that can't be used": (
        lambda p: p.fit_pictures(spoilt_pictures(p)),
        ("3 of 12", "limit 5 %", "--max-unreadable", "food"),
    ),
    "fit: no such column": (
        lambda p: p.fit("--text", "txet"),
        ("txet", "text", "label"),
    ),
    "fit: no such label column": (lambda p: p.fit("--label", "lable"), ("lable", "label")),
    "fit: no such group column": (lambda p: p.fit("--group", "patient"), ("patient", "text")),
    "fit: columns that say nothing": (
        lambda p: p.fit_on(p.texts(list(word_texts(9)), ("one", "two"))),
        ("one", "two"),
    ),
    "predict: no such column": (
        lambda p: ["predict", p.model, p.job.table, "--text", "txet"],
        ("txet", "text"),
    ),
    "predict: the column that fit used is missing": (
        lambda p: ["predict", p.model, p.texts([("a", "b")], ("body", "title"))],
        ("text", "body", "title"),
    ),
    "fit: too many empty texts": (
        lambda p: p.fit_on(p.texts([*word_texts(12), (" ", "praise"), ("", "blame")])),
        ("2 of 14", "--max-unreadable"),
    ),
    "fit: too many missing labels": (
        lambda p: p.fit_on(p.texts([*word_texts(12), ("so long", ""), ("and on", " ")])),
        ("2 of 14", "--max-unreadable"),
    ),
    "fit: unknown timm name": (
        lambda p: ["fit", p.photos, "-o", p.out, "--backbone", "timm/resnet81"],
        ("resnet81", "resnet18"),
    ),
    "fit: unknown torchvision name": (
        lambda p: ["fit", p.photos, "-o", p.out, "--backbone", "torchvision/resnet81"],
        ("resnet81", "resnet18"),
    ),
    "fit: unknown kind of backbone": (
        lambda p: ["fit", p.photos, "-o", p.out, "--backbone", "tim/resnet18"],
        ("tim/resnet18", "timm/"),
    ),
    "layers: unknown name": (lambda _: ["layers", "timm/test_efficientnett"], ("test_efficientnet",)),
    "fit: hf folder does not exist": (
        lambda p: ["fit", p.job.table, "-o", p.out, "--backbone", f"hf/{p.own}/brt"],
        ("brt",),
    ),
    "fit: weights of another network": (
        lambda p: p.fit("--weights", weights_of_another(p)),
        ("other.safetensors",),
    ),
    "fit: half of the weights": (
        lambda p: p.fit("--weights", half_of_the_weights(p)),
        ("95 %", "--allow-missing", "layer.1"),
    ),
    "fit: a file of weights that is none": (
        lambda p: p.fit("--weights", saved(p, "notes.txt", "hello")),
        ("notes.txt",),
    ),
    "fit: weights do not exist": (lambda p: p.fit("--weights", p.own / "w.safetensors"), ("w.safetensors",)),
    "fit: allowing what is not there": (lambda p: p.fit("--allow-missing", "layr.*"), ("layr",)),
    "fit: keep 21": (lambda p: p.fit("--keep", "21"), ("keep=21", "3 blocks", "60%", "encoder.layer.1")),
    "fit: keep 0": (lambda p: p.fit("--keep", "0"), ("keep=0", "Give 1 to 3")),
    "fit: keep -1": (lambda p: p.fit("--keep", "-1"), ("keep=-1", "Give 1 to 3")),
    "fit: keep 130%": (lambda p: p.fit("--keep", "130%"), ("130%", "100%")),
    "fit: keep no block": (
        lambda p: p.fit("--keep", "encoder.layr.0"),
        ("encoder.layr.0", "encoder.layer.0", "topgraft layers"),
    ),
    "fit: freeze more than there are": (lambda p: p.fit("--freeze", "9"), ("freeze=9",)),
    "fit: freeze more than keep": (
        lambda p: p.fit("--keep", "1", "--freeze", "2"),
        ("freeze=2", "1 block", "Give 0 to 1"),
    ),
    "fit: freeze a block that is not kept": (
        lambda p: p.fit("--keep", "embeddings", "--freeze", "encoder.layer.0"),
        ("freeze=2", "embeddings"),
    ),
    "fit: freeze -1": (lambda p: p.fit("--freeze", "-1"), ("freeze=-1", "0 to 3")),
    "fit: budget 0": (lambda p: p.fit("--budget", "0"), ("--budget", "out of range")),
    "fit: budget nan": (lambda p: p.fit("--budget", "nan"), ("--budget",)),
    "fit: folds 1": (lambda p: p.fit("--folds", "1"), ("--folds 1", "give 2 to 100")),
    "fit: held-out 2": (lambda p: p.fit("--held-out", "2"), ("--held-out 2", "give 0.01 to 0.9")),
    "fit: dropout 1": (lambda p: p.fit("--dropout", "1"), ("--dropout 1",)),
    "fit: batch size 0": (lambda p: p.fit("--batch-size", "0"), ("--batch-size 0",)),
    "fit: hidden 0": (lambda p: p.fit("--hidden", "0"), ("--hidden 0",)),
    "fit: rate -1": (lambda p: p.fit("--rate", "-1"), ("--rate -1",)),
    "fit: epochs 0": (lambda p: p.fit("--epochs", "0"), ("--epochs 0",)),
    "fit: augment some": (
        lambda p: p.fit("--augment", "some"),
        ("--augment some", "auto, none, light, standard, strong"),
    ),
    "fit: class weights": (lambda p: p.fit("--class-weights", "fair"), ("fair", "none, balanced")),
    "fit: precision fp8": (lambda p: p.fit("--precision", "fp8"), ("fp8", "fp32, bf16")),
    "fit: max-unreadable 2": (lambda p: p.fit("--max-unreadable", "2"), ("unreadable", "2")),
    "fit: max-unreadable -1": (lambda p: p.fit("--max-unreadable", "-1"), ("unreadable", "-1")),
    "fit: max-unreadable nan": (lambda p: p.fit("--max-unreadable", "nan"), ("unreadable", "nan")),
    "fit: seed too large": (lambda p: p.fit("--seed", str(2**70)), ("--seed", "out of range")),
    "fit: seed -1": (lambda p: p.fit("--seed", "-1"), ("--seed -1", "out of range")),
    "predict: format xml": (
        lambda p: ["predict", p.model, p.job.table, "--format", "xml"],
        ("--format xml", "csv, jsonl"),
    ),
    "predict: batch size 0": (
        lambda p: ["predict", p.model, p.job.table, "--batch-size", "0"],
        ("--batch-size 0",),
    ),
    "predict: pictures for a model of texts": (
        lambda p: ["predict", p.model, p.photos / "food"],
        ("texts",),
    ),
    "predict: weights are damaged": (
        lambda p: ["predict", damaged_model(p), p.job.table],
        ("model.safetensors",),
    ),
    "evaluate: a class that the model does not know": (
        lambda p: ["evaluate", p.model, p.texts([*word_texts(6), ("so so", "shrug")])],
        ("shrug", "praise"),
    ),
    "evaluate: no labels": (
        lambda p: ["evaluate", p.model, p.texts([(t,) for t, _ in word_texts(6)], ("text",))],
        ("label",),
    ),
    "fit: the test set overlaps": (
        lambda p: p.fit("--test", p.texts(list(word_texts(12)))),
        ("overlap",),
    ),
    "fit: no such plan": (lambda p: p.fit("--plan", p.own / "plan.json"), ("plan.json", "does not exist")),
    "fit: a plan that is none": (
        lambda p: p.fit("--plan", saved(p, "plan.json", '["first", "second"]')),
        ("plan.json", "no plan"),
    ),
    "fit: a plan that is damaged": (
        lambda p: p.fit("--plan", saved(p, "plan.json", '{"form": 1, "decisions": {"keep": 3}}')),
        ("plan.json", "damaged"),
    ),
    "fit: a plan for more blocks": (
        lambda p: p.fit(
            "--plan",
            saved(p, "plan.json", '{"form": 1, "decisions": {"keep": {"value": 18, "reason": "so"}}}'),
        ),
        ("keep=18", "3 blocks"),
    ),
    "fit: an option against the plan": (
        lambda p: p.fit("--keep", "1", "--plan", p.model / "plan.json", "--dropout", "0.5"),
        ("dropout=0.5", "the plan says dropout=0.0"),
    ),
}


@pytest.mark.parametrize(("make", "parts"), CASES.values(), ids=CASES.keys())
def test_bad_input_is_refused_with_a_message(place: Place, make: Make, parts: tuple[str, ...]) -> None:
    arguments = make(place)
    refused(place, arguments, 2, *parts)


def test_pictures_that_cannot_be_used_are_left_out_and_listed(place: Place) -> None:
    folder = spoilt_pictures(place)
    outcome = called(*place.fit_pictures(folder, "--max-unreadable", "0.3"))
    assert outcome.status == 0, outcome.err
    assert "9 pictures in 2 classes" in outcome.out
    first, second, third = sorted((folder / "food").iterdir())[:3]
    for name, reason in (
        (first, "truncated"),
        (second, "not a picture"),
        (third, "3,600,000,000 pixels"),
    ):
        line = next(line for line in outcome.out.splitlines() if name.name in line)
        assert reason in line


def test_empty_texts_and_labels_are_left_out_and_listed(place: Place) -> None:
    table = place.texts([*word_texts(40), ("  ", "praise"), ("the long one", "")])
    outcome = called(*place.fit_on(table, "--freeze", "all"))
    assert outcome.status == 0, outcome.err
    assert "40 texts in 3 classes" in outcome.out
    lines = [line.split() for line in outcome.out.splitlines()]
    assert ["40", "empty", "text"] in lines or ["40", "an", "empty", "text"] in lines
    assert ["41", "no", "label"] in lines


def test_fewer_examples_than_folds_are_said_and_folds_reduced(place: Place) -> None:
    rows = [row for row in word_texts(30) if row[1] != "neither"]
    rare = [(f"{word} {word} the end", "rare") for word in FILLING[:4]]
    outcome = called(*place.fit_on(place.texts([*rows, *rare]), "--freeze", "all"))
    assert outcome.status == 0, outcome.err
    folds = next(line for line in outcome.out.splitlines() if line.startswith("Folds"))
    assert "rare" in folds
    assert "score, 3 folds" in outcome.out


def as_nobody(arguments: Sequence[str | Path], *, first: Callable[[], None]) -> Outcome:
    """Run a command in a child of this process, after ``first``."""

    def task() -> dict[str, str | int]:
        torch.set_num_threads(1)
        first()
        return vars(called(*arguments))

    return Outcome(**in_child(task))


@pytest.fixture
def nobodys(place: Place) -> Place:
    """The place, where nobody special may do everything that the owner may."""
    ours = [place.own, place.job.table.parent, place.model]
    for path in {parent for folder in ours for parent in (folder, *folder.parents)}:
        if path.owner() == place.own.owner() and path != path.parent:
            path.chmod(path.stat().st_mode | 0o555)
    for path in place.job.table.parent.rglob("*"):
        path.chmod(path.stat().st_mode | 0o444)
    place.own.chmod(0o777)
    return place


@pytest.mark.parametrize("what", ["place for the run", "what is there", "data", "model"])
def test_no_permission_is_said(nobodys: Place, what: str) -> None:
    place, closed = nobodys, nobodys.own / "closed"
    closed.mkdir()
    shutil.copy(place.job.table, closed)
    arguments: dict[str, Sequence[str | Path]] = {
        "place for the run": ["fit", place.job.table, "-o", closed / "out", "--backbone", place.job.backbone],
        "what is there": ["fit", place.job.table, "-o", closed, "--backbone", place.job.backbone],
        "data": place.fit_on(closed / place.job.table.name),
        "model": ["predict", closed, place.job.table],
    }
    closed.chmod(0o500 if what == "place for the run" else 0o000)
    if what == "place for the run":
        closed.chmod(0o555)
    outcome = as_nobody(arguments[what], first=drop_rights)
    closed.chmod(0o700)
    assert outcome.status == 2, outcome.err
    assert "ermission" in outcome.err
    assert "closed" in outcome.err
    assert "Traceback" not in outcome.err
    assert [p.name for p in closed.iterdir()] == [place.job.table.name]
    assert not place.out.exists()


def test_a_full_disk_is_a_failure_while_running_and_nothing_half_written_stays(place: Place) -> None:
    with small_disk(place.own / "disk", 40_960) as disk:
        arguments = ["fit", place.job.table, "-o", disk / "out", "--backbone", place.job.backbone]
        outcome = called(*arguments, "--freeze", "all")
        assert outcome.status == 1, outcome.err
        assert "The disk is full" in outcome.err
        assert "Traceback" not in outcome.err
        left = {p.name for p in (disk / "out").rglob("*")}
        assert "graft.json" not in left
        assert not [name for name in left if "part" in name]


def test_a_full_disk_for_the_store_is_a_failure_while_running(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(place.own / "disk", 8_192) as disk:
        monkeypatch.setenv("TOPGRAFT_CACHE", str(disk / "cache"))
        outcome = called("probe", place.job.table, "--backbone", place.job.backbone)
        assert outcome.status == 1, outcome.err
        assert "The disk is full" in outcome.err


def test_no_place_for_the_first_file_leaves_no_folder(place: Place) -> None:
    outcome = as_nobody(place.fit("--freeze", "all"), first=lambda: limit_file_size(100))
    assert outcome.status == 1, outcome.err
    assert "run.json" in outcome.err
    assert not place.out.exists()
