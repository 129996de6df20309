"""Resemblyzer's speaker encoder, ``sound/resemblyzer``: three recurrent layers over windows of mel spectra.

Only the file of weights of the package Resemblyzer is used. None of its code is run, so that what it depends
on need not be installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from topgraft.backbones.matching import fill
from topgraft.backbones.packaged import packaged_sound
from topgraft.backbones.sound_preprocess import SoundPreprocess
from topgraft.backbones.types import Filled, Source
from topgraft.backbones.weights import read_weights
from topgraft.errors import TopgraftError, did_you_mean

NAME = "resemblyzer"
WINDOW = 160
"""Spectra after which the recurrent layers begin anew."""
BESIDE = ("similarity_weight", "similarity_bias")
"""What the weights hold beside the encoder: the scale of its training's loss."""


class Windowed(nn.Module):
    """One recurrent layer that begins anew with each window.

    Parameters
    ----------
    width, hidden
        Numbers of a step before and after it.
    window
        Steps of a window.
    """

    def __init__(self, width: int, hidden: int, window: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, batch_first=True)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, hidden); a last window that is not whole may be shorter."""
        steps = x.shape[1]
        whole = functional.pad(x, (0, 0, 0, -steps % self.window))
        windows = whole.reshape(-1, self.window, whole.shape[2])
        output: Tensor = self.lstm(windows)[0]
        return output.reshape(whole.shape[0], whole.shape[1], -1)[:, :steps]


class Summary(nn.Module):
    """From the last real step of each window to one unit vector: the mean over windows.

    Parameters
    ----------
    hidden, width
        Numbers of a step, and of the vector.
    window
        Steps of a window.
    """

    def __init__(self, hidden: int, width: int, window: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, width)
        self.window = window

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, T, hidden) and (B, T) zeros and ones -> (B, width)."""
        fill_up = -x.shape[1] % self.window
        x = functional.pad(x, (0, 0, 0, fill_up))
        x = x.reshape(x.shape[0], -1, self.window, x.shape[2])
        mask = functional.pad(attention_mask, (0, fill_up)).reshape(x.shape[0], -1, self.window)
        real = mask.sum(2)
        last = (real - 1).clamp(min=0)[:, :, None, None].expand(-1, -1, 1, x.shape[3])
        each = functional.normalize(torch.relu(self.linear(x.gather(2, last).squeeze(2))), dim=2)
        counts = (real > 0).to(each.dtype).unsqueeze(2)
        return functional.normalize((each * counts).sum(1), dim=1)


class SpeakerEncoder(nn.Module):
    """Three recurrent layers over windows of mel spectra, and what they say of the whole sound.

    Parameters
    ----------
    bands
        Of a spectrum.
    hidden
        Numbers of a step of a layer, and of the vector.
    depth
        Layers.
    window
        Spectra of a window.

    References
    ----------
    Wan, Wang, Papir and Lopez Moreno (2018), Generalized end-to-end loss for speaker verification.

    Examples
    --------
    >>> network = SpeakerEncoder(bands=4, hidden=8, depth=2, window=5)
    >>> network(torch.ones(3, 10, 4), torch.ones(3, 10, dtype=torch.int64)).shape
    torch.Size([3, 8])
    """

    def __init__(self, *, bands: int = 40, hidden: int = 256, depth: int = 3, window: int = WINDOW) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Windowed(hidden if number else bands, hidden, window) for number in range(depth)
        )
        self.summary = Summary(hidden, hidden, window)

    def forward(self, mel: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, T, bands) float32 and (B, T) int64 -> (B, hidden) float32, of length 1 each."""
        for layer in self.layers:
            mel = layer(mel)
        output: Tensor = self.summary(mel, attention_mask)
        return output


def load_sound(name: str, *, weights: str | Path) -> Source:
    """The speaker encoder.

    Parameters
    ----------
    name
        ``resemblyzer``.
    weights
        ``"auto"`` (the package's), ``"none"`` (random values), or a file.

    Raises
    ------
    TopgraftError
        If the name is another, the package is not there, or its file can't be read safely.
    """
    if name != NAME:
        raise TopgraftError(
            f"There is no backbone sound/{name}.{did_you_mean(name, [NAME])} Expected sound/{NAME}."
        )
    network = SpeakerEncoder()
    if weights == "none":
        filled = Filled("random values", "random")
    elif weights == "auto":
        found = packaged_sound()
        if found is None:
            raise TopgraftError(
                f"sound/{NAME} needs the weights in the package Resemblyzer, which is not installed.\n"
                "Install it without what its own code depends on: pip install --no-deps Resemblyzer\n"
                "Or give a file of weights (--weights FILE)."
            )
        path, origin = found
        filled = fill(network, read_weights(path, origin=origin), renamed)
    else:
        filled = fill(network, read_weights(weights), renamed)
    return Source(
        network=network,
        modality="sound",
        preprocess=SoundPreprocess(),
        recipe={"kind": "sound", "name": NAME},
        filled=filled,
        output_layers=(),
        beside=BESIDE,
        licence="apache-2.0" if weights == "auto" else None,
    )


def rebuild_sound(recipe: Mapping[str, Any]) -> nn.Module:
    """The empty network of a recipe, with random values."""
    if recipe["name"] != NAME:
        raise TopgraftError(f"There is no network for sounds {recipe['name']!r}; expected {NAME}.")
    return SpeakerEncoder()


def renamed(tensors: Mapping[str, Tensor], _network: nn.Module) -> dict[str, Tensor]:
    """Names of the package to those of :class:`SpeakerEncoder`.

    Examples
    --------
    >>> list(renamed({"lstm.bias_hh_l2": None, "linear.bias": None, "similarity_bias": None}, None))
    ['layers.2.lstm.bias_hh_l0', 'summary.linear.bias', 'similarity_bias']
    """
    return {_renamed(name): tensor for name, tensor in tensors.items()}


def _renamed(name: str) -> str:
    if name.startswith("lstm."):
        stem, _, layer = name.removeprefix("lstm.").rpartition("_l")
        return f"layers.{layer}.lstm.{stem}_l0"
    return f"summary.{name}" if name.startswith("linear.") else name
