"""Long texts in windows: what is learned, and what is said of a whole text."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import FILLING, LABELS, Job, called, tiny_job
from hypothesis import given
from hypothesis import strategies as st
from packaged_data import write_table

import topgraft as tg
from topgraft.backbones.preprocess import TextPreprocess
from topgraft.errors import TopgraftError
from topgraft.predict import Predictor, rows_of
from topgraft.windows import windowed

LENGTH = 32
"""Tokens that the small network reads, two special ones among them."""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return tiny_job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def preprocess(job: Job) -> TextPreprocess:
    found = tg.load(job.backbone).preprocess
    assert isinstance(found, TextPreprocess)
    return found


def late(count: int) -> list[tuple[str, str]]:
    """Texts of 50 words, the last of which give the label: cut off unless there are windows."""
    stream, words = random.Random(0), list(LABELS)
    return [
        (
            " ".join([*(f"x{stream.random()}"[:9].replace(".", "") for _ in range(45)), *[words[i % 3]] * 5]),
            LABELS[words[i % 3]],
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("late") / "late.csv", [("text", "label"), *late(90)])


@given(st.integers(1, 200), st.integers(1, 12))
def test_pieces_fit_reach_from_the_beginning_to_the_end_and_are_as_few_as_asked(preprocess, words, most):
    text = " ".join(FILLING[i % len(FILLING)] for i in range(words))
    pieces = preprocess.windows(text, most)
    room = LENGTH - 2
    assert 1 <= len(pieces) <= most
    if most == 1 or words <= room:
        assert pieces == [text]
        return
    assert all(preprocess.count_tokens(piece) <= LENGTH for piece in pieces)
    assert text.startswith(pieces[0])
    assert text.endswith(pieces[-1])
    assert all(piece in text and len(piece.split()) == room for piece in pieces)
    if len(pieces) < most:  # more were not needed: nothing is left out
        assert sum(len(piece.split()) for piece in pieces) >= words


def test_examples_of_one_text_are_one_group_with_its_label(job: Job, table: Path) -> None:
    data = tg.read(table, text="text", label="label")
    backbone = tg.load(job.backbone)
    found, said = windowed(data, backbone, 3)
    assert said.startswith("90 of 90 texts are longer than 32 tokens; in up to 3 windows each they are 180 ")
    assert found.names[:3] == ("0", "0, window 2", "1")
    assert np.array_equal(np.unique(found.groups, return_counts=True)[1] % 2, np.zeros(len(set(data.groups))))
    assert np.array_equal(found.targets[::2], data.targets)
    assert np.array_equal(found.targets[1::2], data.targets)
    assert len(set(found.digests)) > 90
    assert windowed(data, backbone, 1) == (data, "")


def test_what_was_cut_off_is_learned_and_a_text_gets_the_mean_of_its_pieces(
    job: Job, table: Path, tmp_path: Path
) -> None:
    scores: dict[int, Any] = {}
    for windows in (1, 3):
        out = tmp_path / str(windows)
        command = ("fit", table, "--text", "text", "--label", "label", "--backbone", job.backbone)
        done = called(*command, "--freeze", "all", "--windows", str(windows), "--engine", "torch", "-o", out)
        assert done.status == 0, done.err
        scores[windows] = json.loads((out / "result.json").read_text())["score"]["value"]
    assert scores[3] > scores[1] + 0.2
    model = tg.open_model(tmp_path / "3")
    assert model.windows == 3
    text = late(1)[0][0]
    pieces = model.preprocess.windows(text, 3)
    (whole,) = tg.predict(model, [text])
    short = [one.probabilities for one in tg.predict(model, pieces)]
    assert whole.probabilities == pytest.approx(np.mean(short, axis=0), abs=1e-6)
    data = tg.read(table, text="text", label="label")
    assert len(list(Predictor(model).predict(rows_of(data)))) == 90


def test_all_texts_are_learned_from_in_windows_when_the_untouched_ones_are_too(
    job: Job, table: Path, tmp_path: Path
) -> None:
    command = ("fit", table, "--text", "text", "--label", "label", "--backbone", job.backbone)
    done = called(*command, "--freeze", "all", "--windows", "3", "--refit-all", "-o", tmp_path / "m")
    assert done.status == 0, done.err
    assert "on all 180 examples" in done.out


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (("--windows", "0"), "--windows 0"),
        (("--windows", "2", "--nested", "3"), "a text is scored as a whole"),
        (("--windows", "2", "--backbone", "hf/all-MiniLM-L6-v2"), "with several backbones tokens differ"),
    ],
)
def test_what_it_does_not_go_with_is_refused(
    job: Job, tmp_path: Path, told: tuple[str, ...], says: str
) -> None:
    refused = job.fit(tmp_path / "m", *told)
    assert refused.status == 2
    assert says in refused.err
    assert not (tmp_path / "m").exists()


def test_pictures_have_none(photos: Path) -> None:
    with pytest.raises(TopgraftError, match=r"--windows 2 is for texts; timm/test_vit reads pictures\."):
        tg.fit(photos, "nowhere", backbone="timm/test_vit", weights="none", windows=2)
    assert not Path("nowhere").exists()


def test_a_changed_number_of_windows_is_refused(job: Job, tmp_path: Path) -> None:
    assert job.fit(tmp_path / "m", "--freeze", "all", "--keep", "1").status == 0
    path = tmp_path / "m" / "graft.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"windows": 0}))
    with pytest.raises(TopgraftError, match="windows 0 are not 1 to 1000"):
        tg.open_model(tmp_path / "m")
