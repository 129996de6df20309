"""Where pretrained networks come from, and the honest report of what arrived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from topgraft.backbones.described import Preprocess as Preprocess
    from topgraft.backbones.picture_preprocess import PicturePreprocess as PicturePreprocess
    from topgraft.backbones.preprocess import ArrayPreprocess as ArrayPreprocess
    from topgraft.backbones.preprocess import TextPreprocess as TextPreprocess
    from topgraft.backbones.preprocess import open_preprocess as open_preprocess
    from topgraft.backbones.row_preprocess import RowPreprocess as RowPreprocess
    from topgraft.backbones.sound_preprocess import SoundPreprocess as SoundPreprocess
    from topgraft.backbones.types import Backbone as Backbone
    from topgraft.backbones.types import LoadReport as LoadReport
    from topgraft.backbones.types import Modality

_HOMES = {
    "ArrayPreprocess": "preprocess",
    "Backbone": "types",
    "LoadReport": "types",
    "PicturePreprocess": "picture_preprocess",
    "Preprocess": "described",
    "RowPreprocess": "row_preprocess",
    "SoundPreprocess": "sound_preprocess",
    "TextPreprocess": "preprocess",
    "open_preprocess": "preprocess",
}
"""Public name -> the module of this package that holds it."""


def load(
    source: str | nn.Module | None = None,
    *,
    modality: Modality | None = None,
    weights: str | Path | None = "auto",
    allow_missing: Sequence[str] = (),
    example: Tensor | Mapping[str, Tensor] | None = None,
    preprocess: Preprocess | None = None,
    size: int | None = None,
    seed: int = 0,
) -> Backbone:
    """Load a pretrained network as a chain, with its preprocessing and a report on its weights.

    Parameters
    ----------
    source
        ``timm/NAME``, ``timm/NAME.TAG``, ``hf/NAME-or-folder``, ``torchvision/NAME``, ``sound/NAME``,
        ``rows/resnet`` (with the ``preprocess`` of one's own rows), ``package.module:function`` (which is
        run), the folder of a saved graft (for its kept blocks), or a module (used itself, not copied).
        ``None`` takes the packaged default for ``modality``.
    modality
        ``"picture"``, ``"text"``, ``"sound"``, ``"array"`` or ``"row"``: what the data are. An error where
        the network reads another.
    weights
        ``"auto"``: a package, the local cache, then the hub. ``"none"`` or ``None``: random values. Else a
        file or folder: safetensors, or a pickle from ``torch.save`` that is read weights-only.
    allow_missing
        Names of tensors or modules, or patterns, that the weights need not hold.
    example
        A batch of at least two inputs, for a module whose inputs are not plain.
    preprocess
        In place of what the weights were trained with.
    size
        Of pictures: pixels of the shorter side of what the network gets. By default those that the weights
        were trained with. Half of them take about a quarter of the time.
    seed
        Of random values.

    Raises
    ------
    TopgraftError
        If the name is unknown (with the nearest), the weights are out of reach, can't be read safely, or fill
        less than 95 % of the backbone; if the network can't be cut.

    Examples
    --------
    >>> backbone = load("timm/resnet10t", weights="none")
    >>> backbone.modality, backbone.preprocess.size
    ('picture', (176, 176))
    """
    from topgraft.backbones.loading import load_backbone

    return load_backbone(
        source,
        modality=modality,
        weights=weights,
        allow_missing=allow_missing,
        example=example,
        preprocess=preprocess,
        size=size,
        seed=seed,
    )


def rebuild(
    recipe: Mapping[str, Any], *, module: nn.Module | None = None, trust_code: bool = False
) -> nn.Module:
    """The empty network of a recipe, in eval mode, with random values; needs no weights.

    Parameters
    ----------
    recipe
        As :class:`Backbone` has it.
    module
        The module, where the recipe is for one's own.
    trust_code
        Whether the function that a recipe for one's own network names may be run.

    Raises
    ------
    TopgraftError
        If the recipe can't be used here, or would run code that is not trusted.
    """
    from topgraft.backbones.loading import rebuild_network

    return rebuild_network(recipe, module=module, trust_code=trust_code)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
