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
from topgraft.data.types import Task
from topgraft.export.examples import examples_of
from topgraft.objective import Scale
from topgraft.saved import Model, describe, save

NAMES = ("cat", "dog", 'épée, or "sword"')
SCALE = Scale((1000.0, 0.0, -2.0), (30.0, 0.25, 4.0))
MORE: dict[Task, dict[str, object]] = {
    "classification": {"classes": NAMES},
    "multilabel": {"classes": NAMES, "separator": "|"},
    "ordinal": {"classes": ("low", *NAMES), "is_ordered": True},
    "regression": {"classes": (), "outputs": ("width", "height", "depth"), "scale": SCALE},
}
"""What the description of a model of each task says of what it was taught."""
REAL = {"picture": (4, 2), "text": (2, 1), "sound": (4, 4)}
"""How many blocks of the packaged backbones are kept and frozen."""


def model_of(
    backbone: Backbone,
    keep: int,
    freeze: int,
    *,
    precision: str = "fp32",
    engine: str = "torch",
    task: Task = "classification",
) -> Model:
    """A model in memory, its trainable part moved away from the weights that it started with."""
    graft = graft_of(backbone.chain, keep, freeze)
    with torch.no_grad():
        for i, (_, parameter, _) in enumerate(graft.trainable()):
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    ran, more = {"engine": engine, "precision": precision}, MORE[task]
    graft.head.finished(1.0, more.get("scale"), is_ordered=task == "ordinal")
    description = describe(graft, backbone, columns={}, **ran, **more)
    names = tuple(description["classes"])
    return Model(graft, backbone.preprocess, names, backbone.modality, {}, engine, precision, description)


def saved(model: Model, folder: Path) -> Path:
    """The folder, with the model in it."""
    folder.mkdir(parents=True, exist_ok=True)
    save(folder, model.graft, model.preprocess, model.description)
    return folder


@cache
def arrays(keep: int = 4, freeze: int = 4, precision: str = "fp32", task: Task = "classification") -> Model:
    """A residual network of maps of one's own, for arrays."""
    return model_of(backbone_of(maps(), example_maps()), keep, freeze, precision=precision, task=task)


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
def real(modality: str, task: Task = "classification") -> Model:
    """The first blocks of EfficientNet-Lite0, MiniLM or the speaker encoder, with their published weights."""
    backbone = load(modality=modality)
    assert backbone.report.matched != "random"
    return model_of(backbone, *REAL[modality], task=task)


def fresh(model: Model, count: int) -> list[object]:
    """What :func:`fresh_batch` is made of, as ``predict`` takes it: pictures, texts or arrays."""
    if model.modality == "array":
        return list(fresh_batch(model, count)["x"].numpy())
    if model.modality == "text":
        return [" ".join(["a good film"] * (i + 1)) for i in range(count)]
    numbers = torch.Generator().manual_seed(count)
    return list(torch.randint(0, 256, (count, 100, 80, 3), dtype=torch.uint8, generator=numbers).numpy())


def fresh_batch(model: Model, count: int) -> dict[str, Tensor]:
    """Examples that no export was checked with, of one more word or of other pictures and arrays."""
    if model.modality in ("picture", "text"):
        return model.preprocess.batch(fresh(model, count))
    ready = examples_of(model).checked[-1]
    return {name: torch.cat([tensor.flip(-1)] * count)[:count] for name, tensor in ready.items()}


def expected(model: Model, batch: dict[str, Tensor]) -> Tensor:
    """Logits by PyTorch in fp32."""
    with torch.inference_mode():
        return model.graft(batch)
