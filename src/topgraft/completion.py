"""What a shell is offered for the values of options; nothing heavy is loaded for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

CHOICES: dict[str, Sequence[str]] = {
    "augment": ("auto", "none", "light", "standard", "strong"),
    "class_weights": ("none", "balanced"),
    "engine": ("auto", "torch", "openvino", "cuda"),
    "form": ("csv", "jsonl"),
    "freeze": ("auto", "all", "0"),
    "keep": ("auto", "all"),
    "modality": ("picture", "text", "sound"),
    "precision": ("auto", "fp32", "bf16"),
    "prefer": ("small", "fast", "accuracy"),
    "resize": ("auto", "pretrained", "crop", "squash", "border"),
    "sampling": ("shuffled", "balanced"),
    "taps": ("auto", "none"),
    "task": ("classification", "multilabel", "ordinal", "regression"),
    "to": ("onnx", "torch", "openvino", "state-dict", "huggingface"),
    "track": ("tensorboard", "wandb", "mlflow"),
    "weights": ("auto", "none"),
}
"""By parameter. The modules that check the values load torch; a test holds these to them."""


def offered(parameter: str) -> Callable[[str], list[str]] | None:
    """What completes the values of a parameter, or nothing.

    Examples
    --------
    >>> offered("engine")("to"), offered("seed")
    (['torch'], None)
    """
    if parameter == "backbone":
        return backbones
    if parameter not in CHOICES:
        return None
    return lambda incomplete: [value for value in CHOICES[parameter] if value.startswith(incomplete)]


def backbones(incomplete: str) -> list[str]:
    """Backbones that are at hand: packaged, in the hub's cache, and grafts saved in this folder.

    The registries of timm and torchvision would take seconds; ``topgraft backbones WORD`` lists them.
    """
    from topgraft.backbones.hub import cached_models
    from topgraft.backbones.packaged import DEFAULTS

    cached = [name if name.startswith("timm/") else f"hf/{name}" for name in cached_models()]
    grafts = sorted(file.parent.name for file in Path().glob("*/graft.json"))
    return [name for name in (*DEFAULTS.values(), *grafts, *cached) if name.startswith(incomplete)]
