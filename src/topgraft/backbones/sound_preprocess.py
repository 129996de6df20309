"""From decoded sounds to mel spectra in windows of fixed length, as a network was trained on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from topgraft.backbones.described import Described, at_least_one, plain
from topgraft.errors import TopgraftError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from topgraft.data.sounds import Sound

LARGEST = 1 << 20
"""Of any of its sizes."""


@dataclass(frozen=True)
class SoundPreprocess(Described):
    """Resample, raise quiet sounds, and take mel spectra of windows that overlap.

    A sound that is shorter than a window is filled up with silence, which is part of the window: the network
    was trained on whole windows. Masked are only the windows that others of the batch have more of.

    Parameters
    ----------
    rate
        Samples a second that the network was trained with.
    length, hop
        Samples of one spectrum, and from one spectrum to the next.
    bands
        Of the mel scale, from 0 to half of ``rate``.
    window, step
        Spectra in one window, and from the beginning of one window to that of the next.
    coverage
        Share of the last window that the sound must fill; otherwise there is none there.
    most
        Windows of one sound; of a longer one so many are taken, spread evenly over it.
    loudness
        Decibels of full scale (root mean square) to which quieter sounds are raised; ``None`` leaves all as
        they are.
    key
        Name of the network's input.

    Examples
    --------
    >>> import numpy as np
    >>> from topgraft.data import Sound
    >>> short, long = (Sound(np.ones(n, dtype=np.float32), 8_000) for n in (800, 24_000))
    >>> batch = SoundPreprocess().batch([short, long])
    >>> batch["mel"].shape, batch["attention_mask"].sum(1).tolist()
    (torch.Size([2, 480, 40]), [160, 480])
    """

    rate: int = 16_000
    length: int = 400
    hop: int = 160
    bands: int = 40
    window: int = 160
    step: int = 77
    coverage: float = 0.75
    most: int = 40
    loudness: float | None = -30.0
    key: str = "mel"

    def __post_init__(self) -> None:
        """Refuse what can't be meant, such as a changed file would have it."""
        sizes: tuple[object, ...] = (
            self.rate,
            self.length,
            self.hop,
            self.bands,
            self.window,
            self.step,
            self.most,
        )
        if not all(type(size) is int and 1 <= size <= LARGEST for size in sizes):
            raise ValueError(f"sizes are whole numbers from 1 to {LARGEST:,}, not {sizes!r:.100}")
        shares: tuple[object, ...] = (self.coverage, 0.0 if self.loudness is None else self.loudness)
        if not all(isinstance(share, (int, float)) and math.isfinite(share) for share in shares):
            raise ValueError(f"coverage and loudness are numbers, not {shares!r:.80}")
        if not isinstance(self.key, str):
            raise TypeError(f"key is a text, not {self.key!r:.40}")

    def batch(self, raw: Sequence[Any]) -> dict[str, Tensor]:
        """Sounds -> mel spectra float32 (B, T, bands), and ``attention_mask`` int64 (B, T); T whole windows.

        Raises
        ------
        TopgraftError
            If an example is no sound.
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        must_be_sounds(raw)
        mels = [self.mel(sound) for sound in raw]
        real = [torch.ones(len(mel), dtype=torch.int64) for mel in mels]
        return {
            self.key: pad_sequence(mels, batch_first=True),
            "attention_mask": pad_sequence(real, batch_first=True),
        }

    def mel(self, sound: Sound) -> Tensor:
        """Spectra of one sound, window after window: float32 (windows x ``window``, bands)."""
        import torch
        from torch.nn import functional

        samples = torch.from_numpy(self._raised(resampled(sound, self.rate)))
        starts = torch.tensor(self.starts(len(samples)))
        needed = (int(starts[-1]) + self.window) * self.hop
        half = self.length // 2
        padded = functional.pad(samples, (half, half + max(0, needed - len(samples))))
        spectra = (starts[:, None] + torch.arange(self.window)).flatten()
        # only the windows' own spectra: memory does not grow with the length of the sound
        pieces = padded.unfold(0, self.length, self.hop)[spectra]
        power = torch.fft.rfft(pieces * torch.hann_window(self.length)).abs().square()
        mel: Tensor = power @ self._filters
        return mel

    def starts(self, samples: int) -> list[int]:
        """The first spectrum of each window of a sound of so many samples.

        Examples
        --------
        >>> SoundPreprocess().starts(16_000), SoundPreprocess().starts(48_000)
        ([0], [0, 77, 154])
        """
        spectra = math.ceil((samples + 1) / self.hop)
        starts = list(range(0, max(1, spectra - self.window + self.step + 1), self.step))
        covered = (samples / self.hop - starts[-1]) / self.window
        if covered < self.coverage and len(starts) > 1:
            starts.pop()
        if len(starts) > self.most:
            apart = starts[-1] / max(1, self.most - 1)
            starts = [round(i * apart) for i in range(self.most)]
        return starts

    def _raised(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        import numpy as np

        power = float(np.mean(np.square(samples, dtype=np.float64)))
        if self.loudness is None or power == 0:
            return samples
        change = self.loudness - 10 * math.log10(power)
        return samples if change < 0 else samples * np.float32(10 ** (change / 20))

    @cached_property
    def _filters(self) -> Tensor:
        """(``length`` // 2 + 1, bands) float32: triangles of equal area, on Slaney's mel scale."""
        import torch
        from transformers.audio_utils import mel_filter_bank

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "At least one mel filter")  # it is an error, below
            filters = mel_filter_bank(
                num_frequency_bins=self.length // 2 + 1,
                num_mel_filters=self.bands,
                min_frequency=0.0,
                max_frequency=self.rate / 2,
                sampling_rate=self.rate,
                norm="slaney",
                mel_scale="slaney",
            )
        if not filters.any(axis=0).all():
            raise TopgraftError(
                f"{self.bands} mel bands are too many for spectra of {self.length} samples at {self.rate:,} "
                "a second: some would hear nothing. Expected fewer bands, or a greater length."
            )
        return torch.from_numpy(filters).float()

    def describe(self) -> dict[str, Any]:
        """Every setting, as JSON values."""
        return {"kind": "sound", **plain(asdict(self))}

    def lines(self) -> list[str]:
        """What is done, in plain words."""
        second = self.rate / self.hop
        raised = "" if self.loudness is None else f", quiet ones raised to {self.loudness:g} dB"
        longest = (self.step * (self.most - 1) + self.window) / second
        windows = f"in windows of {self.window / second:g} s, one every {self.step / second:g} s"
        return [
            f"sounds: one channel, {self.rate:,} samples a second{raised}; {self.bands} mel bands",
            f"{windows}; of sounds longer than {longest:.0f} s {self.most} windows, spread evenly",
        ]


def must_be_sounds(raw: Sequence[Any]) -> None:
    """Refuse an empty batch, and examples that are no decoded sounds.

    Raises
    ------
    TopgraftError
        With what it is instead.
    """
    from topgraft.data.sounds import Sound

    at_least_one(raw)
    for sound in raw:
        if not isinstance(sound, Sound):
            raise TopgraftError(f"Expected a sound, got {type(sound).__name__}: {sound!r:.80}.")


def resampled(sound: Sound, rate: int) -> NDArray[np.float32]:
    """(n,) float32 samples at another rate, by a polyphase filter that lets no mirrored frequencies through.

    Examples
    --------
    >>> import numpy as np
    >>> from topgraft.data import Sound
    >>> resampled(Sound(np.ones(441, dtype=np.float32), 44_100), 16_000).shape
    (160,)
    """
    import numpy as np
    from scipy.signal import resample_poly

    if sound.rate == rate:
        return np.ascontiguousarray(sound.samples, dtype=np.float32)
    shared = math.gcd(sound.rate, rate)
    changed = resample_poly(sound.samples, rate // shared, sound.rate // shared)
    return np.ascontiguousarray(changed, dtype=np.float32)
