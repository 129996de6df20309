"""Grafts for the tests of exporting: small ones made on the spot, and parts of the packaged backbones."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch
from hub_cache import tiny_bert
from small_networks import backbone_of, example_maps, graft_of, maps
from torch import Tensor

from topgraft.backbones import load
from topgraft.backbones.types import Backbone
from topgraft.export.examples import examples_of
from topgraft.saved import Model, describe, save

NAMES = ("cat", "dog", 'épée, or "sword"')
REAL = {"picture": (4, 2), "text": (2, 1)}
"""How many blocks of the packaged backbones are kept and frozen."""


def model_of(
    backbone: Backbone, keep: int, freeze: int, *, precision: str = "fp32", engine: str = "torch"
) -> Model:
    """A model in memory, its trainable part moved away from the weights that it started with."""
    graft = graft_of(backbone.chain, keep, freeze)
    with torch.no_grad():
        for i, (_, parameter, _) in enumerate(graft.trainable()):
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    ran = {"engine": engine, "precision": precision}
    description = describe(graft, backbone, classes=NAMES, columns={}, **ran)
    return Model(graft, backbone.preprocess, NAMES, backbone.modality, {}, engine, precision, description)


def saved(model: Model, folder: Path) -> Path:
    """The folder, with the model in it."""
    folder.mkdir(parents=True, exist_ok=True)
    save(folder, model.graft, model.preprocess, model.description)
    return folder


@cache
def arrays(keep: int = 4, freeze: int = 4, precision: str = "fp32") -> Model:
    """A residual network of maps of one's own, for arrays."""
    return model_of(backbone_of(maps(), example_maps()), keep, freeze, precision=precision)


@cache
def pictures(keep: int = 4, freeze: int = 2) -> Model:
    """timm's network for tests, with random values."""
    return model_of(load("timm/test_efficientnet", weights="none", seed=4), keep, freeze)


@cache
def texts(keep: int = 3, freeze: int = 1) -> Model:
    """A BERT of two layers."""
    folder = Path(mkdtemp())
    tiny_bert(folder)
    return model_of(load(f"hf/{folder}"), keep, freeze)


@cache
def real(modality: str) -> Model:
    """The first blocks of EfficientNet-Lite0 or MiniLM, with their published weights."""
    backbone = load(modality=modality)  # type: ignore[arg-type] (picture or text)
    assert backbone.report.matched != "random"
    return model_of(backbone, *REAL[modality])


def fresh_batch(model: Model, count: int) -> dict[str, Tensor]:
    """Examples that no export was checked with, of one more word or of other pictures and arrays."""
    if model.modality == "picture":
        numbers = torch.Generator().manual_seed(count)
        noise = torch.randint(0, 256, (count, 100, 80, 3), dtype=torch.uint8, generator=numbers)
        return model.preprocess.batch(list(noise.numpy()))
    if model.modality == "text":
        return model.preprocess.batch([" ".join(["a good film"] * (i + 1)) for i in range(count)])
    ready = examples_of(model).checked[-1]
    return {name: torch.cat([tensor.flip(-1)] * count)[:count] for name, tensor in ready.items()}


def expected(model: Model, batch: dict[str, Tensor]) -> Tensor:
    """Logits by PyTorch in fp32."""
    with torch.inference_mode():
        return model.graft(batch)
