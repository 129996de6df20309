"""Classification networks of torchvision: ``torchvision/NAME`` or ``torchvision/NAME.WEIGHTS``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topgraft.backbones.hub import WAYS_OUT, read_address
from topgraft.backbones.matching import fill
from topgraft.backbones.picture_preprocess import PicturePreprocess
from topgraft.backbones.types import Filled, Source
from topgraft.backbones.weights import Weights, read_weights
from topgraft.errors import TopgraftError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor, nn

SIDE_OUTPUTS = {
    "googlenet": {"aux_logits": False, "transform_input": True, "init_weights": False},
    "inception_v3": {"aux_logits": False, "transform_input": True, "init_weights": False},
}
"""Networks with side outputs for training, which are left out; their weights expect ``transform_input``."""
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12])\.(.*)$")


def load_torchvision(name: str, *, weights: str | Path) -> Source:
    """A classification network of torchvision with its newest or the named weights.

    Parameters
    ----------
    name
        Such as ``resnet50`` or ``resnet50.IMAGENET1K_V1``.
    weights
        ``"auto"`` (torch's cache, else their address), ``"none"`` (random values), or a file.

    Raises
    ------
    TopgraftError
        If torchvision has no such network or weights, or they are not within reach.
    """
    from torchvision.models import get_model_weights

    architecture, _, tag = name.partition(".")
    options = SIDE_OUTPUTS.get(architecture, {})
    network = rebuild_torchvision({"name": architecture, "options": options})
    entries = {w.name: w for w in get_model_weights(architecture)}
    if tag and tag not in entries:
        raise TopgraftError(
            f"torchvision/{architecture} has no weights {tag!r}. It has {', '.join(entries) or 'none'}."
        )
    entry = entries.get(tag) or getattr(get_model_weights(architecture), "DEFAULT", None)
    if weights == "none":
        filled = Filled("random values", "random")
    else:
        filled = fill(
            network, _published(name, entry) if weights == "auto" else read_weights(weights), renamed
        )
    notes = () if entry else ("preprocessing: ImageNet's usual one, as no published weights say another",)
    return Source(
        network=network,
        modality="picture",
        preprocess=preprocess_of(entry),
        recipe={"kind": "torchvision", "name": architecture, "options": dict(options)},
        filled=filled,
        output_layers=(last_layer(network),),
        beside=("aux1.*", "aux2.*", "AuxLogits.*"),
        notes=notes,
    )


def rebuild_torchvision(recipe: Mapping[str, Any]) -> nn.Module:
    """The empty network of a recipe, with random values."""
    from torchvision import models

    name = str(recipe["name"])
    if name not in models.list_models(module=models):
        import torchvision

        raise TopgraftError(
            f"torchvision {torchvision.__version__} has no classification network {name!r}."
            f"{did_you_mean(name, models.list_models(module=models))}"
        )
    network: nn.Module = models.get_model(name, weights=None, **recipe["options"])
    return network


def preprocess_of(entry: Any) -> PicturePreprocess:
    """The preprocessing of published weights; ImageNet's usual one where there are none."""
    if entry is None:
        return PicturePreprocess(size=(224, 224), resize=(256, 256), interpolation="bilinear")
    settings = entry.transforms()
    (size,), (resize,) = settings.crop_size, settings.resize_size
    return PicturePreprocess(
        size=(size, size),
        resize=(resize, resize),
        mean=tuple(settings.mean),
        std=tuple(settings.std),
        key="x",
        interpolation=settings.interpolation.value,
    )


def last_layer(network: nn.Module) -> str:
    """The name of the last layer with parameters, which in torchvision's networks gives the classes.

    Examples
    --------
    >>> from torch import nn
    >>> last_layer(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2), nn.Dropout()))
    '2'
    """
    modules = network.named_modules()
    own: list[str] = [name for name, m in modules if next(m.parameters(recurse=False), None) is not None]
    return own[-1]


def renamed(tensors: Mapping[str, Tensor], _network: nn.Module) -> dict[str, Tensor]:
    """DenseNet's first published names, which no longer are names of modules, to today's.

    Examples
    --------
    >>> list(renamed({"features.denseblock1.denselayer1.norm.1.weight": None}, None))
    ['features.denseblock1.denselayer1.norm1.weight']
    """
    return {_OLD_DENSENET.sub(r"\1\2.\3", name): tensor for name, tensor in tensors.items()}


def _published(name: str, entry: Any) -> Weights:
    if entry is None:
        raise TopgraftError(f"torchvision publishes no weights for {name}.\n{WAYS_OUT}")
    return read_address(str(entry.url))
