"""Sounds from the folder to predictions, through the command line, with real weights."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import called, done
from made_sounds import INSTRUMENTS, tone, write_sounds
from packaged_data import write_table
from served import assert_same, serving
from test_backbones_sound_extractor import write as write_network

from topgraft.data import Sound, open_sound, read
from topgraft.predict import Predictor, predict, rows_of
from topgraft.saved import open_model

EACH = 20


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """``notes/`` with 60 sounds, ``new/`` with 12 others, and the store of this module."""
    place = tmp_path_factory.mktemp("sounds")
    write_sounds(place / "notes", EACH)
    write_sounds(place / "new", 4, first=100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPGRAFT_CACHE", str(place / "cache"))
        yield place


@pytest.fixture(scope="module")
def fitted(place: Path) -> tuple[Path, dict[str, object]]:
    """The folder of a graft that ``fit`` made of ``notes/`` by itself, and its result."""
    out = place / "notes.topgraft"
    outcome = done("fit", place / "notes", "-o", out, "--budget", "20", "--seed", "1", "--json")
    return out, outcome.json


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_fit_takes_the_packaged_encoder_and_scores_untouched_sounds(fitted) -> None:
    folder, result = fitted
    assert result["score"]["n"] == 12
    assert result["score"]["value"] >= 0.9
    model = open_model(folder)
    assert model.modality == "sound"
    assert model.classes == INSTRUMENTS
    assert model.description["backbone"]["source"] == "sound/resemblyzer"
    assert "audio-classification" in (folder / "README.md").read_text("utf-8")


def test_predict_names_the_instrument_of_new_files_folders_and_tables(fitted, place: Path) -> None:
    folder, _ = fitted
    found = table(done("predict", folder, place / "new").out)
    assert len(found) == 12
    right = [row["label"] == Path(row["input"]).parent.name for row in found]
    assert sum(right) >= 11
    paths = [row["input"] for row in found]
    listed = write_table(place / "new.csv", [("path",), *[(p,) for p in paths]])
    again = table(done("predict", folder, listed).out)
    assert [{**row, "input": ""} for row in again] == [{**row, "input": ""} for row in found]


def test_a_file_that_can_not_be_read_is_an_error_of_its_row_alone(
    fitted, place: Path, tmp_path: Path
) -> None:
    folder, _ = fitted
    good = sorted((place / "new").rglob("*.wav"))[0]
    (tmp_path / "cut.wav").write_bytes(good.read_bytes()[:999])
    (tmp_path / "text.wav").write_text("no sound at all")
    outcome = called("predict", folder, tmp_path / "cut.wav", good, tmp_path / "text.wav")
    rows = table(outcome.out)
    assert [row["error"] for row in rows] == [
        "truncated after 999 bytes",
        "",
        "not a sound in a format that libsndfile reads",
    ]
    assert rows[1]["label"] == good.parent.name


def test_a_sound_alone_and_among_longer_ones_gets_the_same_probabilities(fitted) -> None:
    model = open_model(fitted[0])
    sounds = [Sound(tone("bell", i, seconds=s), 16_000) for i, s in enumerate((0.2, 9.0, 1.0, 3.3))]
    together = [p.probabilities for p in predict(model, sounds)]
    alone = [predict(model, [sound])[0].probabilities for sound in sounds]
    assert np.allclose(together, alone, atol=1e-5)


def test_what_fit_says_is_what_predict_says(fitted, place: Path) -> None:
    folder, result = fitted
    data = read(place / "notes")
    model = open_model(folder)
    predicted = list(Predictor(model).predict(rows_of(data)))
    (run,) = [json.loads((folder / "untouched.json").read_text("utf-8"))]
    by_name = {p.input: p for p in predicted}
    for name, confidence, index in zip(run["names"], run["confidence"], run["predictions"], strict=True):
        assert by_name[name].label == run["classes"][index]
        assert by_name[name].confidence == pytest.approx(confidence, abs=1e-5)
    assert result["keep"] == model.graft.keep


def test_a_saved_graft_needs_no_package_of_weights(
    fitted, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = fitted
    before = table(done("predict", folder, place / "new").out)
    monkeypatch.setitem(sys.modules, "resemblyzer", None)
    outcome = called("probe", place / "notes")
    assert outcome.status == 2
    assert "pip install --no-deps Resemblyzer" in outcome.err
    assert table(done("predict", folder, place / "new").out) == before


def test_without_the_reader_predict_ends_with_the_extra(
    fitted, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    outcome = called("predict", fitted[0], place / "new")
    assert outcome.status == 2
    assert "pip install 'topgraft[sound]'" in outcome.err


def test_evaluate_scores_a_folder_and_a_table(fitted, place: Path, tmp_path: Path) -> None:
    folder, _ = fitted
    score = done("evaluate", folder, place / "new", "--json").json["score"]
    assert score["n"] == 12
    assert score["value"] >= 11 / 12
    paths = sorted((place / "new").rglob("*.*"))
    lines = [(str(p), p.parent.name) for p in paths]
    listed = write_table(tmp_path / "new.csv", [("file", "label"), *lines])
    again = done("evaluate", folder, listed, "--path", "file", "--label", "label", "--json").json["score"]
    assert again["value"] == score["value"]


def test_training_from_stored_states_of_different_length_keeps_the_frozen_layers(place: Path) -> None:
    out = place / "trained.topgraft"
    arguments = ("--keep", "3", "--freeze", "1", "--budget", "15", "--seed", "1", "--json")
    result = done("fit", place / "notes", "-o", out, *arguments).json
    assert (result["keep"], result["freeze"]) == (3, 1)
    assert result["trained_parameters"] > 2 * 500_000
    from topgraft.backbones import load

    original = load("sound/resemblyzer").network.state_dict()
    kept = open_model(out).graft.kept_weights()
    same = {name: torch.equal(tensor, original[name]) for name, tensor in kept.items()}
    assert all(value for name, value in same.items() if name.startswith("layers.0."))
    assert not any(value for name, value in same.items() if name.startswith("layers.2.lstm.weight"))


def test_an_audio_network_of_transformers_is_fitted_and_opened_again(place: Path, tmp_path: Path) -> None:
    write_network(tmp_path / "wav2vec2", "wav2vec2")
    out = tmp_path / "out.topgraft"
    backbone = f"hf/{tmp_path / 'wav2vec2'}"
    done("fit", place / "notes", "-o", out, "--backbone", backbone, "--keep", "2", "--freeze", "all")
    shutil.rmtree(tmp_path / "wav2vec2")
    model, paths = open_model(out), sorted((place / "new").rglob("*.wav"))
    found = predict(model, paths)
    inputs = model.preprocess.batch([open_sound(path) for path in paths])
    with torch.no_grad():
        wanted = torch.softmax(model.graft.eval()(inputs).double(), 1)
    assert np.allclose([p.probabilities for p in found], wanted, atol=1e-5)


def test_probe_and_layers_and_backbones_know_sounds(place: Path, tmp_path: Path) -> None:
    small = tmp_path / "notes"
    for name in INSTRUMENTS:
        shutil.copytree(place / "notes" / name, small / name)
    cuts = done("probe", small, "--json").json["cuts"]
    assert [cut["block"] for cut in cuts] == ["layers.0", "layers.1", "layers.2", "summary"]
    blocks = done("layers", "sound/resemblyzer", "--json").json["blocks"]
    assert [block["name"] for block in blocks] == [cut["block"] for cut in cuts]
    assert all(block["macs"] > 0 for block in blocks)
    listed = done("backbones", "--modality", "sound", "--json").json["backbones"]
    first, *others = [(one["source"], one["at_hand"]) for one in listed]
    assert first == ("sound/resemblyzer", "packaged")
    assert all(name.startswith("hf/") for name, _ in others)


def test_served_they_get_the_rows_of_predict(fitted, place: Path) -> None:
    folder, _ = fitted
    paths = sorted((place / "new").rglob("*.*"))
    expected = done("predict", folder, *paths, "--json").json
    with serving(folder) as served:
        reply = served.predict_files([(str(path), path.read_bytes()) for path in paths])
    assert_same(reply.json, expected, apart=1e-5)
    assert all(row["error"] is None for row in reply.json)


def test_the_mel_baseline_tells_instruments_apart(place: Path) -> None:
    from topgraft.baselines import answers, fit_baseline, raw_features

    data, new = read(place / "notes"), read(place / "new")
    features = raw_features(data)
    assert features.shape == (60, 80)
    model = fit_baseline("sound", features, data.targets)
    assert (answers(model, raw_features(new)) == new.targets).mean() >= 0.75
    assert open_sound(new.inputs[0]).seconds == new.seconds[0]
