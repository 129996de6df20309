"""From decoded sounds to what an audio network of Transformers reads, by its feature extractor."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topgraft.backbones.described import Described
from topgraft.backbones.sound_preprocess import must_be_sounds, resampled
from topgraft.errors import TopgraftError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

SECONDS = 5.0
"""Of a sound for a network that reads samples, which sets no length of its own."""
_MACHINE_ONLY = ("feature_extractor_type", "processor_class", "auto_map", "_processor_class", "device")
_DERIVED = ("mel_filters", "window")  # follow from the other settings


@dataclass(frozen=True)
class ExtractorPreprocess(Described):
    """A feature extractor of Transformers, on the beginning of each sound; every input has one length.

    These networks have no mask of their own steps that holds at every cut, and some change with what fills up
    (a norm over time). So every sound is brought to the same length, and a row never depends on its batch.

    Parameters
    ----------
    extractor
        Name of a class of Transformers.
    settings
        Its settings as JSON, with sorted keys.
    samples
        Of a sound that are read; shorter ones are filled up as the extractor does.
    """

    extractor: str
    settings: str
    samples: int

    @cached_property
    def _extractor(self) -> Any:
        import transformers

        kind = getattr(transformers, self.extractor, None)
        if not (isinstance(kind, type) and issubclass(kind, transformers.SequenceFeatureExtractor)):
            near = did_you_mean(self.extractor, (n for n in dir(transformers) if n.endswith("Extractor")))
            raise TopgraftError(
                f"Transformers {transformers.__version__} has no extractor {self.extractor!r}.{near}"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of mel bands that are narrower than a frequency
            return kind(**json.loads(self.settings))

    @property
    def rate(self) -> int:
        """Samples a second that the network was trained with."""
        return int(self._extractor.sampling_rate)

    @property
    def key(self) -> str:
        """Name of the network's input."""
        return str(self._extractor.model_input_names[0])

    def batch(self, raw: Sequence[Any]) -> dict[str, Tensor]:
        """Sounds -> ``{key: float32 (B, ...)}``.

        Raises
        ------
        TopgraftError
            If an example is no sound.
        """
        import torch

        must_be_sounds(raw)
        features = [self.features(sound) for sound in raw]
        if len(shapes := {tuple(f.shape) for f in features}) > 1:
            raise TopgraftError(
                f"{self.extractor} gives spectra of {' and '.join(map(str, sorted(shapes)))} for sounds of "
                "different length; expected an extractor that gives one shape."
            )
        return {self.key: torch.stack(features)}

    def features(self, sound: Any) -> Tensor:
        """What the extractor makes of one sound, float32."""
        import numpy as np
        import torch

        samples = resampled(sound, self.rate)[: self.samples]
        samples = np.pad(samples, (0, max(0, self.rate // 10 - len(samples))))  # a tenth of a second at least
        found = self._extractor(samples, sampling_rate=self.rate, return_tensors="np")[self.key][0]
        features = torch.from_numpy(np.array(found, dtype=np.float32))
        if features.ndim == 1:  # samples, scaled by what is the sound's own: only then filled up
            features = torch.nn.functional.pad(features, (0, self.samples - len(features)))
        return features

    def describe(self) -> dict[str, Any]:
        """Every setting, as JSON values."""
        return {
            "kind": "sound by extractor",
            "extractor": self.extractor,
            "settings": self.settings,
            "samples": self.samples,
        }

    def lines(self) -> list[str]:
        """What is done, in plain words."""
        first = f"the first {self.samples / self.rate:g} s (shorter ones filled up)"
        return [f"sounds: one channel, {self.rate:,} samples a second, {first}, by {self.extractor}"]


def extractor_in(folder: Path) -> ExtractorPreprocess:
    """The preprocessing that a folder's ``preprocessor_config.json`` describes; no code of the folder is run.

    Raises
    ------
    TopgraftError
        If it can't be read, or is of a kind that is not Transformers' own.
    """
    from transformers import AutoFeatureExtractor

    try:
        found: Any = AutoFeatureExtractor.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise TopgraftError(
            f"The feature extractor in {folder} could not be read: {str(error).splitlines()[0]}.\n"
            "Expected preprocessor_config.json."
        ) from error
    settings = {k: v for k, v in found.to_dict().items() if k not in (*_MACHINE_ONLY, *_DERIVED)}
    return ExtractorPreprocess(type(found).__name__, json.dumps(settings, sort_keys=True), _samples(found))


def _samples(extractor: Any) -> int:
    """As many as the extractor cuts to: of itself (Whisper), by its spectra every 10 ms (AST), else 5 s."""
    if (own := getattr(extractor, "n_samples", None)) is not None:
        return int(own)
    rate = int(extractor.sampling_rate)
    spectra = getattr(extractor, "max_length", None)
    return int(spectra * rate // 100) if spectra is not None else round(SECONDS * rate)


def is_extractor(settings: Mapping[str, Any]) -> bool:
    """Whether a ``preprocessor_config.json`` is that of a network for sounds."""
    return "feature_extractor_type" in settings and "sampling_rate" in settings
