"""A network of one's own and pictures for `make torture`, small enough that a whole fit takes seconds.

The backbone is ``torture_network:counted``. Where ``TORTURE_COUNTS`` names a file, each batch that passes
the first block in inference (the one pass, stored states, predictions; no training) appends a line to it: the
number of the process and a digest of each row. So passes are counted example by example, across processes,
however these ended.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from topgraft.backbones.picture_preprocess import PicturePreprocess

SIDE = 24
CHANNELS = 8
BLOCKS = 5
CLASSES = ("across", "down", "aslant")
COUNTS = "TORTURE_COUNTS"
PAUSE = "TORTURE_PAUSE"
"""Seconds that a batch waits in the first block, so that a pass lasts long enough to be disturbed."""


class Block(nn.Module):
    """A residual block with a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.norm(self.conv(x)))


class Small(nn.Module):
    """Stem, blocks, average, output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.fc = nn.Linear(CHANNELS, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean((2, 3)))


def counted() -> tuple[nn.Module, PicturePreprocess]:
    """The network, with the same made-up weights each time, and how pictures are read for it."""
    torch.manual_seed(5)
    network = Small().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    network.stem.register_forward_pre_hook(_count)
    size = (SIDE, SIDE)
    return network, PicturePreprocess(size=size, resize=size, interpolation="bilinear", key="x")


def rows_of(x: Tensor) -> list[str]:
    """A digest of each row of a batch."""
    rows = x.detach().cpu().contiguous()
    return [hashlib.sha256(row.numpy().tobytes()).hexdigest()[:16] for row in rows]


def _count(_module: nn.Module, given: tuple[Any, ...]) -> None:
    place = os.environ.get(COUNTS)
    if not place or not torch.is_inference_mode_enabled():
        return
    with torch._C.DisableTorchFunction():  # looks without being recorded
        line = " ".join([str(os.getpid()), *rows_of(given[0])])
    descriptor = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode() + b"\n")  # in one call: lines of several processes stay whole
    finally:
        os.close(descriptor)
    time.sleep(float(os.environ.get(PAUSE, "0")))


def pictures(folder: Path, each: int = 50) -> Path:
    """A folder of small pictures with waves in one of three directions, under noise; no two are alike."""
    stream = np.random.default_rng(0)
    y, x = np.mgrid[0:26, 0:30]
    for name, along in zip(CLASSES, (x, y, x + y), strict=True):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            wave = np.sin(along * stream.uniform(0.5, 1.1) + stream.uniform(0, 6))
            colour, noise = stream.uniform(0.4, 1, 3), stream.normal(0, 40, (26, 30, 3))
            values = (127 + 45 * wave[..., None] * colour + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(values).save(folder / name / f"{i:03}.png")
    return folder
