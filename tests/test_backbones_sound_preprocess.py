from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_sounds import harmonics, tone

from topgraft.backbones import SoundPreprocess, open_preprocess
from topgraft.backbones.sound_preprocess import resampled
from topgraft.data import Sound
from topgraft.errors import TopgraftError

PLAIN = SoundPreprocess(loudness=None)

# librosa 0.11.0: feature.melspectrogram(y=harmonics(5.0), sr=16000, n_fft=400, hop_length=160, n_mels=40).T
# at (spectrum, band). The largest difference of all 800 from ours was 2.4e-7, where the largest is 0.82.
LIBROSA = {
    (0, 3): 0.014685302041471004,
    (0, 10): 0.0002321310166735202,
    (10, 3): 0.035384196788072586,
    (100, 10): 1.9184842585673323e-06,
    (117, 20): 4.4670537135971244e-07,
    (251, 30): 0.003073824569582939,
}


def spectra(samples: np.ndarray, rate: int = 16_000, preprocess: SoundPreprocess = PLAIN) -> torch.Tensor:
    return preprocess.mel(Sound(samples, rate))


def test_mel_spectra_are_those_of_librosa() -> None:
    mel, starts = spectra(harmonics(5.0)), PLAIN.starts(80_000)
    assert starts == [0, 77, 154, 231, 308]
    for (spectrum, band), wanted in LIBROSA.items():
        places = [w * 160 + spectrum - s for w, s in enumerate(starts) if 0 <= spectrum - s < 160]
        assert places
        for place in places:
            assert float(mel[place, band]) == pytest.approx(wanted, rel=1e-3, abs=1e-7)


def test_windows_that_overlap_hold_the_same_spectra() -> None:
    mel = spectra(tone("bell", 0, seconds=4.0)).reshape(-1, 160, 40)
    assert len(mel) == 4
    assert torch.equal(mel[0, 77:], mel[1, : 160 - 77])


@pytest.mark.parametrize(
    ("seconds", "windows"), [(0.01, 1), (1.6, 1), (1.9, 1), (2.0, 2), (5.0, 5), (40.0, 40), (600.0, 40)]
)
def test_a_sound_has_windows_by_its_length_up_to_a_limit(seconds: float, windows: int) -> None:
    samples = round(seconds * 16_000)
    starts = PLAIN.starts(samples)
    assert len(starts) == windows
    assert starts == sorted(set(starts))
    assert starts[-1] * 160 <= samples
    if windows > 1:  # three quarters of the last window are of the sound, and little of the sound is left out
        assert samples - starts[-1] * 160 >= 0.75 * 160 * 160
        assert samples - (starts[-1] + 160) * 160 < 77 * 160


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60_000), st.sampled_from([8_000, 11_025, 16_000, 44_100]))
def test_every_length_and_rate_gives_whole_windows_of_finite_numbers(length: int, rate: int) -> None:
    stream = np.random.default_rng(length)
    mel = spectra(stream.normal(0, 0.1, length).astype(np.float32), rate, SoundPreprocess())
    assert mel.shape[1] == 40
    assert len(mel) % 160 == 0
    assert torch.isfinite(mel).all()
    assert (mel >= 0).all()


def test_a_batch_is_filled_up_with_masked_windows_and_leaves_each_as_it_is_alone() -> None:
    sounds = [Sound(tone("pluck", i, seconds=s), 16_000) for i, s in enumerate((0.3, 2.0, 4.4))]
    batch = SoundPreprocess().batch(sounds)
    lengths = [160, 320, 800]
    assert batch["mel"].shape == (3, 800, 40)
    assert batch["attention_mask"].dtype == torch.int64
    for row, sound, length in zip(range(3), sounds, lengths, strict=True):
        alone = SoundPreprocess().batch([sound])
        assert torch.equal(batch["mel"][row, :length], alone["mel"][0])
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (800 - length)
        assert not batch["mel"][row, length:].any()


def test_quiet_sounds_are_raised_and_loud_ones_and_silence_stay() -> None:
    loud = tone("organ", 0, seconds=1.6)
    default = SoundPreprocess()
    assert torch.equal(spectra(loud, preprocess=default), spectra(loud))
    assert torch.allclose(
        spectra(1e-4 * loud, preprocess=default),
        spectra(1e-2 * loud, preprocess=default),
        rtol=1e-3,
        atol=1e-9,
    )
    quiet = 1e-3 * loud
    raised = quiet * 10 ** (-30 / 20) / np.sqrt(np.mean(quiet**2))
    assert torch.allclose(spectra(quiet, preprocess=default), spectra(raised), rtol=1e-3, atol=1e-9)
    assert not spectra(np.zeros(1_000, dtype=np.float32), preprocess=default).any()


def test_resampling_keeps_what_the_new_rate_can_hold_and_drops_the_rest() -> None:
    t = np.arange(44_100) / 44_100
    low, high = (np.sin(2 * np.pi * f * t).astype(np.float32) for f in (1_000, 12_000))
    at_16k = resampled(Sound(low + high, 44_100), 16_000)
    wanted = np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000)
    inner = slice(400, -400)
    assert at_16k.dtype == np.float32
    assert len(at_16k) == 16_000
    assert np.abs(at_16k[inner] - wanted[inner]).max() < 5e-3
    assert resampled(Sound(low, 16_000), 16_000) is low


def test_it_is_saved_whole_and_every_setting_counts(tmp_path: Path) -> None:
    changed = SoundPreprocess(bands=20, loudness=None)
    changed.save(tmp_path)
    assert open_preprocess(tmp_path) == changed
    assert open_preprocess(tmp_path).fingerprint == changed.fingerprint != SoundPreprocess().fingerprint
    assert "16,000 samples a second" in " ".join(changed.lines())


def test_what_is_no_sound_is_refused() -> None:
    with pytest.raises(TopgraftError, match=r"^Expected a sound, got str: 'a\.wav'"):
        SoundPreprocess().batch(["a.wav"])
    with pytest.raises(TopgraftError, match="at least one example"):
        SoundPreprocess().batch([])


@pytest.mark.parametrize("settings", [{"bands": 255}, {"rate": 100_000}, {"length": 7}])
def test_bands_that_would_hear_nothing_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(TopgraftError, match="mel bands are too many for spectra of"):  # with no warning
        SoundPreprocess(**settings).batch([Sound(np.zeros(16_000, np.float32), 16_000)])
