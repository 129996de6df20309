"""Exports of models that read sounds: from the prepared spectra or samples, by the runtimes themselves."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from exported_grafts import model_of, real
from made_sounds import tone
from safetensors.torch import load_file
from test_backbones_sound_extractor import write as write_network
from test_export_outputs import RUN, must_say_what_predict_says
from torch import nn

from topgraft.backbones import load
from topgraft.backbones.resemblyzer import SpeakerEncoder
from topgraft.backbones.sound_preprocess import SoundPreprocess
from topgraft.data import Sound
from topgraft.data.types import Task
from topgraft.export import export
from topgraft.export.examples import examples_of
from topgraft.export.whole import length_of
from topgraft.predict import predict
from topgraft.saved import Model, open_model

FORMATS = ("onnx", "torch", "openvino")


def sounds(*seconds: float) -> list[Sound]:
    return [Sound(tone("bell", i, seconds=s), 16_000) for i, s in enumerate(seconds)]


def network() -> SpeakerEncoder:
    """Resemblyzer's network, but smaller: its windows, too, have ten spectra only."""
    torch.manual_seed(1)
    return SpeakerEncoder(hidden=8, depth=2, window=10).eval()


@cache
def encoder() -> Model:
    """The whole of it."""
    return model_of(load(network(), preprocess=SoundPreprocess(window=10, step=10)), 3, 3)


@cache
def waves(kind: str) -> Model:
    """A tiny audio network of Transformers."""
    folder = Path(mkdtemp())
    write_network(folder, kind)
    return model_of(load(f"hf/{folder}"), 2, 2)


def must_hold_for(model: Model, to: str, out: Path, *lengths: tuple[float, ...]) -> Any:
    """The runtime gives what ``predict`` says, in batches of other sizes and lengths."""
    told = export(model, to, out).document
    assert told["checked_on"] == "6 made-up sounds"
    for seconds in lengths:
        given = sounds(*seconds)
        outputs = RUN[to](out, model.preprocess.batch(given))
        must_say_what_predict_says(model, outputs, told, predict(model, given))
    return told


def test_examples_differ_in_length_and_fill_up() -> None:
    examples = examples_of(encoder())
    masks = [batch["attention_mask"] for batch in (examples.traced, *examples.checked)]
    assert len({mask.shape[1] for mask in masks}) == 3
    assert all(mask.shape[1] % 10 == 0 for mask in masks)
    assert bool((masks[2] == 0).any())


@pytest.mark.parametrize("to", ["onnx", "torch", pytest.param("openvino", marks=pytest.mark.exhaustive)])
def test_spectra_of_any_number_of_windows(to: str, tmp_path: Path) -> None:
    told = must_hold_for(encoder(), to, tmp_path / "out", (0.5,), (0.05,), (0.05, 0.05), (2.5, 0.3, 1.0, 2.0))
    sizes = {port["name"]: port["shape"] for port in told["inputs"]}
    assert sizes == {
        "mel": ["batch", "10*windows", 40],
        "attention_mask": ["batch", "10*windows"],
    }
    assert told["preprocessing"]["kind"] == "sound"
    assert length_of(encoder()).most == told["preprocessing"]["most"] == 40


@pytest.mark.parametrize(
    ("kind", "to"),
    [
        ("wav2vec2", "onnx"),
        *[
            pytest.param(kind, to, marks=pytest.mark.exhaustive)
            for kind in ("wav2vec2", "ast", "whisper", "hubert")
            for to in FORMATS
            if (kind, to) != ("wav2vec2", "onnx")
        ],
    ],
)
def test_audio_networks_of_transformers_with_any_batch(kind: str, to: str, tmp_path: Path) -> None:
    told = must_hold_for(waves(kind), to, tmp_path / "out", (0.5,), (1.5, 0.3, 2.0))
    (port,) = told["inputs"]
    assert port["shape"][0] == "batch"
    assert all(isinstance(size, int) for size in port["shape"][1:])


def test_the_weights_and_the_folder_for_the_hub(tmp_path: Path) -> None:
    model, own = encoder(), network()
    export(model, "state-dict", tmp_path / "weights", module=network())
    export(model, "huggingface", tmp_path / "hub", module=network())
    nn.init.zeros_(own.summary.linear.weight)
    own.load_state_dict(load_file(tmp_path / "weights" / "backbone.safetensors"))
    given = sounds(0.5, 3.0)
    batch = model.preprocess.batch(given)
    assert torch.equal(own(**batch), network()(**batch))
    assert predict(open_model(tmp_path / "hub", module=own), given) == predict(model, given)
    card = (tmp_path / "hub" / "README.md").read_text(encoding="utf-8")
    assert "audio-classification" in card
    assert "new/*.wav" in card


@pytest.mark.exhaustive
@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_so_it_is_for_the_packaged_weights(task: Task, to: str, tmp_path: Path) -> None:
    told = must_hold_for(real("sound", task), to, tmp_path / "out", (0.5,), (7.5, 0.3, 2.0, 4.0))
    assert max(told["difference"].values()) < 1e-4
    assert told["inputs"][0]["shape"] == ["batch", "160*windows", 40]
