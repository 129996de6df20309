"""Audio networks of Transformers, small and random, laid out as folders of the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_cache import snapshot, use_cache
from made_sounds import tone

from topgraft.backbones import load, open_preprocess, rebuild
from topgraft.backbones.catalogue import backbones
from topgraft.backbones.sound_extractor import ExtractorPreprocess, extractor_in
from topgraft.data import Sound
from topgraft.errors import TopgraftError

SOUNDS = [Sound(tone("pluck", i, seconds=s), 16_000) for i, s in enumerate((0.05, 0.6, 2.5))]
WAVES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8, 8, 8),
    "conv_stride": (10, 8, 8),
    "conv_kernel": (16, 8, 8),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}


def write(folder: Path, kind: str) -> Any:
    """A network with random values and its feature extractor in a folder; the extractor is returned."""
    import transformers as tf

    torch.manual_seed(0)
    extractor: Any
    if kind == "whisper":
        config = tf.WhisperConfig(
            d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=20,
            max_source_positions=50, vocab_size=30,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
            max_target_positions=10,
        )  # fmt: skip
        network = tf.WhisperModel(config)
        extractor = tf.WhisperFeatureExtractor(feature_size=20, chunk_length=1)
    elif kind == "ast":
        config = tf.ASTConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_length=64,
            num_mel_bins=32,
        )  # fmt: skip
        network = tf.ASTModel(config)
        extractor = tf.ASTFeatureExtractor(max_length=64, num_mel_bins=32)
    elif kind == "hubert":
        network = tf.HubertModel(tf.HubertConfig(**WAVES))
        extractor = tf.Wav2Vec2FeatureExtractor()
    else:
        network = tf.Wav2Vec2Model(tf.Wav2Vec2Config(**WAVES))
        extractor = tf.Wav2Vec2FeatureExtractor()
    network.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return extractor


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "ast", "whisper"])
def test_networks_of_transformers_read_sounds_in_blocks(kind: str, tmp_path: Path) -> None:
    write(tmp_path, kind)
    backbone = load(f"hf/{tmp_path}")
    assert backbone.modality == "sound"
    assert backbone.report.share == 1.0
    names = [block.name for block in backbone.chain]
    assert sum("layers.0" in n or "layer.0" in n for n in names) >= 1
    assert sum("layers.1" in n or "layer.1" in n for n in names) >= 1
    inputs = backbone.preprocess.batch(SOUNDS)
    with torch.no_grad():
        whole = backbone.chain[: len(names)](inputs).tensors[0]
        state = backbone.chain[:1](inputs)
        from_state = backbone.chain[1 : len(names)](state).tensors[0]
    assert torch.allclose(whole, from_state, atol=1e-5)
    for row, sound in zip(range(3), SOUNDS, strict=True):  # a row does not depend on its batch
        alone = backbone.preprocess.batch([sound])
        with torch.no_grad():
            assert torch.allclose(backbone.chain[: len(names)](alone).tensors[0][0], whole[row], atol=1e-5)
    again = rebuild(backbone.recipe)
    assert again.state_dict().keys() == backbone.network.state_dict().keys()


@pytest.mark.parametrize("kind", ["ast", "whisper"])
def test_spectra_are_those_of_the_extractor(kind: str, tmp_path: Path) -> None:
    extractor = write(tmp_path, kind)
    ours = extractor_in(tmp_path)
    for sound in SOUNDS[1:]:
        theirs = extractor(sound.samples[: ours.samples], sampling_rate=16_000, return_tensors="np")[
            ours.key
        ][0]
        assert np.allclose(ours.batch([sound])[ours.key][0], theirs, atol=1e-5)


def test_samples_are_scaled_by_the_sound_alone_and_then_filled_up(tmp_path: Path) -> None:
    write(tmp_path, "wav2vec2")
    ours = extractor_in(tmp_path)
    assert (ours.key, ours.rate, ours.samples) == ("input_values", 16_000, 80_000)
    (row,) = ours.batch([SOUNDS[1]])["input_values"]
    own = SOUNDS[1].samples
    assert np.allclose(row[: len(own)], (own - own.mean()) / own.std(), atol=1e-3)
    assert not row[len(own) :].any()


def test_it_is_saved_whole_and_opened_without_the_folder(tmp_path: Path) -> None:
    for kind in ("wav2vec2", "ast", "whisper"):
        folder = tmp_path / kind
        write(folder, kind)
        ours, place = extractor_in(folder), tmp_path / f"{kind}-saved"
        place.mkdir()
        ours.save(place)
        again = open_preprocess(place)
        assert again == ours
        assert again.fingerprint == ours.fingerprint
        assert torch.equal(again.batch(SOUNDS)[ours.key], ours.batch(SOUNDS)[ours.key])


def test_what_is_no_extractor_is_refused() -> None:
    for name in ("AutoConfig", "Trainer", "os"):
        with pytest.raises(TopgraftError, match=f"has no extractor '{name}'"):
            ExtractorPreprocess(name, "{}", 100).batch(SOUNDS)
    with pytest.raises(TopgraftError, match="Expected a sound, got str"):
        ExtractorPreprocess("Wav2Vec2FeatureExtractor", "{}", 100).batch(["a.wav"])


def test_a_folder_without_or_with_another_extractor_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "whisper")
    path = tmp_path / "preprocessor_config.json"
    path.write_text(
        json.dumps({"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16_000})
    )
    with pytest.raises(
        TopgraftError, match="reads input_features, and Wav2Vec2FeatureExtractor gives input_values"
    ):
        load(f"hf/{tmp_path}")
    path.unlink()
    with pytest.raises(TopgraftError, match=r"Expected preprocessor_config\.json"):
        load(f"hf/{tmp_path}")


def test_a_cached_network_for_sounds_is_listed_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = use_cache(tmp_path / "hub", monkeypatch)
    write(snapshot(cache, "someone/tiny-sounds"), "wav2vec2")
    found = {one.source: one for one in backbones(modality="sound", at_hand=True)}
    assert found["hf/someone/tiny-sounds"].at_hand == "cached"
    assert load("hf/someone/tiny-sounds").modality == "sound"
