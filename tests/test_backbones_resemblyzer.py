from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_sounds import harmonics, tone
from safetensors.torch import save_file

from topgraft.backbones import Backbone, SoundPreprocess, load, rebuild
from topgraft.backbones.packaged import packaged_sound
from topgraft.backbones.resemblyzer import SpeakerEncoder
from topgraft.chain import Chain
from topgraft.data import Sound
from topgraft.errors import TopgraftError
from topgraft.features.engine import engine_of
from topgraft.features.openvino import apart
from topgraft.pooling import pool

# Resemblyzer 0.1.4: VoiceEncoder("cpu").embed_utterance(normalize_volume(harmonics(s), -30, True)),
# by seconds: the six largest of its 256 numbers, by their places. All were within 1.4e-7 of ours.
ORIGINAL = {
    0.7: {243: 0.222378, 0: 0.214413, 9: 0.211361, 89: 0.209006, 160: 0.202251, 62: 0.191389},
    1.7: {248: 0.260627, 150: 0.181558, 18: 0.162802, 224: 0.161627, 10: 0.161615, 122: 0.161089},
    5.0: {18: 0.249947, 224: 0.234151, 131: 0.215235, 13: 0.178216, 122: 0.177698, 150: 0.174509},
}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """With the packaged weights."""
    return load(modality="sound")


def vectors(backbone: Backbone, *sounds: Sound) -> torch.Tensor:
    with torch.no_grad():
        return backbone.network(**backbone.preprocess.batch(sounds))


def test_all_weights_arrive_from_the_package(backbone: Backbone) -> None:
    report = backbone.report
    assert (backbone.source, backbone.modality) == ("sound/resemblyzer", "sound")
    assert (report.arrived, report.tensors, report.matched) == (14, 14, "name")
    assert report.beside == ("similarity_bias", "similarity_weight")
    assert report.weights == "the package Resemblyzer"
    assert backbone.licence == "apache-2.0"


def test_it_says_of_a_sound_what_resemblyzer_says(backbone: Backbone) -> None:
    sounds = [Sound(harmonics(seconds), 16_000) for seconds in ORIGINAL]
    together = vectors(backbone, *sounds)
    assert torch.allclose(together.norm(dim=1), torch.ones(3))
    for got, wanted in zip(together, ORIGINAL.values(), strict=True):
        assert got[list(wanted)].tolist() == pytest.approx(list(wanted.values()), abs=2e-6)
        assert got.max() == got[next(iter(wanted))]


def test_no_code_of_the_package_is_run() -> None:
    program = (
        "import sys; from topgraft.backbones import load; load('sound/resemblyzer');"
        "sys.exit(bool({'resemblyzer', 'librosa', 'webrtcvad'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_each_recurrent_layer_is_a_block_and_every_cut_is_equal(backbone: Backbone) -> None:
    chain = backbone.chain
    assert [b.name for b in chain] == ["layers.0", "layers.1", "layers.2", "summary"]
    assert [(b.shape, b.layout) for b in chain] == [*[((-1, 256), "tokens")] * 3, ((256,), "vector")]
    assert not chain.refused
    sounds = [Sound(tone("bell", i, seconds=s), 16_000) for i, s in enumerate((0.5, 4.4, 2.0))]
    inputs = backbone.preprocess.batch(sounds)
    wanted = vectors(backbone, *sounds)
    for cut in range(1, 5):
        with torch.no_grad():
            state = chain[:cut](inputs)
            got = chain[cut:](state) if cut < 4 else state.tensors[0]
        assert torch.allclose(got, wanted, atol=1e-6)


def test_a_layer_costs_what_its_matrices_cost(backbone: Backbone) -> None:
    steps = backbone.chain.example["mel"].shape[1]
    assert [b.macs for b in backbone.chain][:3] == [
        steps * 1024 * (40 + 256),
        steps * 1024 * (256 + 256),
        steps * 1024 * (256 + 256),
    ]


def test_features_at_every_cut_are_the_same_alone_and_beside_longer_sounds(backbone: Backbone) -> None:
    sounds = [Sound(tone("pluck", i, seconds=s), 16_000) for i, s in enumerate((0.4, 1.6, 5.2))]
    chain = backbone.chain
    together = backbone.preprocess.batch(sounds)
    for cut, block in enumerate(chain, start=1):
        with torch.no_grad():
            rows = pool(chain[:cut](together), block.layout)
            for row, sound in zip(rows, sounds, strict=True):
                alone = pool(chain[:cut](backbone.preprocess.batch([sound])), block.layout)[0]
                assert torch.allclose(row, alone, atol=1e-5)


def test_gradients_of_a_part_are_those_of_the_whole() -> None:
    torch.manual_seed(0)
    network = SpeakerEncoder(bands=4, hidden=8, depth=3, window=5).eval()
    mask = torch.ones(2, 15, dtype=torch.int64)
    mask[0, 5:] = 0
    chain = Chain.of(
        network, {"mel": torch.rand(2, 15, 4), "attention_mask": mask}, output_layer="", gradients=True
    )
    assert len(chain) == 4
    assert not chain.refused


@pytest.mark.parametrize("steps", [1, 4, 5, 7, 10])
def test_windows_need_not_be_whole_and_masked_steps_do_not_count(steps: int) -> None:
    torch.manual_seed(0)
    network = SpeakerEncoder(bands=4, hidden=8, depth=2, window=5).eval()
    mel = torch.rand(3, steps, 4)
    longer = torch.cat([mel, torch.full((3, 6, 4), 9.0)], 1)
    ones = torch.ones(3, steps, dtype=torch.int64)
    with torch.no_grad():
        plain = network(mel, ones)
        padded = network(longer, torch.cat([ones, torch.zeros(3, 6, dtype=torch.int64)], 1))
    assert torch.allclose(plain, padded, atol=1e-6)


def test_a_window_begins_anew() -> None:
    torch.manual_seed(0)
    network = SpeakerEncoder(bands=4, hidden=8, depth=2, window=5).eval()
    mel, ones = torch.rand(1, 10, 4), torch.ones(1, 10, dtype=torch.int64)
    with torch.no_grad():
        both = network(mel, ones)
        each = [network(mel[:, part], ones[:, :5]) for part in (slice(0, 5), slice(5, 10))]
        wanted = torch.nn.functional.normalize(sum(each), dim=1)
    assert torch.allclose(both, wanted, atol=1e-6)


def test_it_is_built_again_without_the_package(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resemblyzer", None)
    assert packaged_sound() is None
    again = rebuild(backbone.recipe)
    assert {n: t.shape for n, t in again.state_dict().items()} == {
        n: t.shape for n, t in backbone.network.state_dict().items()
    }
    with pytest.raises(TopgraftError, match="pip install --no-deps Resemblyzer"):
        load("sound/resemblyzer")


def test_weights_can_be_a_file_or_random(backbone: Backbone, tmp_path: Path) -> None:
    save_file(backbone.network.state_dict(), tmp_path / "own.safetensors")
    from_file = load("sound/resemblyzer", weights=tmp_path / "own.safetensors")
    assert from_file.report.digest == backbone.report.digest
    assert from_file.licence is None
    random = load("sound/resemblyzer", weights="none")
    assert random.report.digest != backbone.report.digest


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(TopgraftError, match=r"no backbone sound/resemblizer\. Nearest: resemblyzer"):
        load("sound/resemblizer")
    with pytest.raises(TopgraftError, match="sound/resemblyzer"):
        load("resemblyzer")
    with pytest.raises(TopgraftError, match=r"reads sounds, and the data are texts"):
        load("sound/resemblyzer", weights="none", modality="text")


def test_a_network_of_ones_own_takes_sounds_by_its_preprocessing() -> None:
    network = SpeakerEncoder(bands=20, hidden=8, depth=2)
    mine = load(network, preprocess=SoundPreprocess(bands=20))
    assert (mine.modality, len(mine.chain)) == ("sound", 3)
    with pytest.raises(TopgraftError, match=r"give preprocess=SoundPreprocess\(\.\.\.\)"):
        load(network, modality="sound")


def test_openvino_gives_the_same_for_other_numbers_and_lengths_than_it_was_traced_with(
    backbone: Backbone,
) -> None:
    layouts = {block.index: block.layout for block in backbone.chain}
    engines = [engine_of(backbone.chain[:4], name=name) for name in ("openvino", "torch")]
    for lengths in ((1.0, 3.0), (5.0, 0.7, 1.1), (1.0,)):
        sounds = [Sound(tone("bell", i, seconds=s), 16_000) for i, s in enumerate(lengths)]
        found, wanted = (e.pooled(backbone.preprocess.batch(sounds), layouts) for e in engines)
        assert all(apart(found[cut], wanted[cut]) < 1e-5 for cut in layouts)


def test_silence_and_a_click_give_finite_vectors(backbone: Backbone) -> None:
    click = np.zeros(1, dtype=np.float32)
    assert torch.isfinite(vectors(backbone, Sound(np.zeros(90_000, dtype=np.float32), 16_000))).all()
    assert torch.isfinite(vectors(backbone, Sound(click, 8_000), Sound(click + 1, 48_000))).all()
