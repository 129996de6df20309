"""What backbones there are: packaged, in local caches, in the libraries' registries, and a short list."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from topgraft.backbones.hub import cached_models
from topgraft.backbones.packaged import DEFAULTS, HUB_NAMES, packaged_folder, packaged_sound, packaged_timm
from topgraft.backbones.sound_extractor import is_extractor
from topgraft.canonical import parsed_json
from topgraft.errors import TopgraftError, did_you_mean
from topgraft.regular import read_regular

AtHand = Literal["packaged", "cached", "download"]
COUNTED = 40
"""Networks of timm at most whose parameters are counted: each has to be built for it, without memory."""


@dataclass(frozen=True)
class Listed:
    """A backbone that can be had.

    Parameters
    ----------
    source
        As :func:`topgraft.load` and ``--backbone`` take it.
    modality
        What it reads: ``picture``, ``text`` or ``sound``.
    at_hand
        ``packaged``, ``cached`` (in the hub's or torch's local cache), or ``download``.
    parameters
        Numbers in the whole published network; ``None`` where nobody says it and it was not counted.
    side
        Pixels of the side of the pictures that it was trained with.
    macs
        Multiply-adds for one of them, as its library says.
    licence
        Of the weights, as its library says.
    accuracy
        As its library publishes it, with the data.
    note
        Languages of a text encoder; how to get weights that come as a package.
    """

    source: str
    modality: str
    at_hand: AtHand
    parameters: int | None = None
    side: int | None = None
    macs: float | None = None
    licence: str | None = None
    accuracy: str | None = None
    note: str = ""


_CURATED = (
    ("sentence-transformers/all-MiniLM-L6-v2", "text", 22_700_000, "apache-2.0", "English"),
    ("BAAI/bge-small-en-v1.5", "text", 33_400_000, "mit", "English"),
    ("distilbert/distilbert-base-uncased", "text", 66_400_000, "apache-2.0", "English"),
    ("google-bert/bert-base-uncased", "text", 109_500_000, "apache-2.0", "English"),
    ("FacebookAI/roberta-base", "text", 124_600_000, "mit", "English"),
    ("intfloat/multilingual-e5-small", "text", 117_700_000, "mit", "about 100 languages"),
    ("google-bert/bert-base-multilingual-cased", "text", 177_900_000, "apache-2.0", "104 languages"),
    ("FacebookAI/xlm-roberta-base", "text", 278_000_000, "mit", "100 languages"),
    ("google-bert/bert-base-german-cased", "text", 109_100_000, "mit", "German"),
    ("almanach/camembert-base", "text", 110_600_000, "mit", "French"),
    ("google-bert/bert-base-chinese", "text", 102_300_000, "apache-2.0", "Chinese"),
    ("facebook/dinov2-small", "picture", 22_100_000, "apache-2.0", ""),
    ("google/vit-base-patch16-224", "picture", 86_600_000, "apache-2.0", ""),
    ("facebook/wav2vec2-base", "sound", 95_000_000, "apache-2.0", "English speech"),
    ("openai/whisper-tiny", "sound", 39_000_000, "apache-2.0", "99 languages"),
    ("MIT/ast-finetuned-audioset-10-10-0.4593", "sound", 86_600_000, "bsd-3-clause", "sounds of all kinds"),
)
"""Encoders of Transformers that people start with; parameters as their pages say, rounded."""


def backbones(word: str = "", *, modality: str | None = None, at_hand: bool = False) -> list[Listed]:
    """Backbones that can be had, those at hand first.

    Parameters
    ----------
    word
        What their names must contain, or a pattern (``resnet*``); letter case does not count. Without a word
        the registries of timm and torchvision are left out, but for what is at hand.
    modality
        ``picture``, ``text`` or ``sound``; all by default.
    at_hand
        Only what needs no download.

    Raises
    ------
    TopgraftError
        If there is none such.
    """
    everything = list(_all())
    wanted = [one for one in everything if _fits(one, word, modality, at_hand=at_hand)]
    if not word:
        registries = ("timm/", "torchvision/")
        wanted = [w for w in wanted if w.at_hand != "download" or not w.source.startswith(registries)]
    if not wanted:
        names = [one.source.partition("/")[2] for one in everything]
        limits = " of what is at hand" if at_hand else ""
        raise TopgraftError(f"No backbone{limits} has {word!r} in its name.{did_you_mean(word, names)}")
    order = {"packaged": 0, "cached": 1, "download": 2}
    wanted.sort(key=lambda one: (order[one.at_hand], one.source))
    unknown = [one for one in wanted if one.parameters is None and one.source.startswith("timm/")]
    return [_counted(one) if one in unknown[:COUNTED] else one for one in wanted]


def _fits(one: Listed, word: str, modality: str | None, *, at_hand: bool) -> bool:
    name, asked = one.source.casefold(), word.casefold()
    named = fnmatch(name.partition("/")[2], asked) if any(sign in word for sign in "*?[") else asked in name
    return named and modality in (None, one.modality) and not (at_hand and one.at_hand == "download")


def _all() -> Iterator[Listed]:
    cached = set(cached_models())
    known = set()
    for name, modality, parameters, licence, note in _CURATED:
        short = next((s for s, full in HUB_NAMES.items() if full == name), name)
        known.add(name)
        yield Listed(
            f"hf/{short}",
            modality,
            "packaged" if packaged_folder(name) else "cached" if name in cached else "download",
            parameters=parameters,
            licence=licence,
            note=note,
        )
    yield Listed(
        DEFAULTS["sound"],
        "sound",
        "packaged" if packaged_sound() else "download",
        parameters=1_423_616,
        licence="apache-2.0",
        note="" if packaged_sound() else "pip install --no-deps Resemblyzer",
    )
    for name in sorted(cached - known):
        if not name.startswith("timm/"):
            yield Listed(f"hf/{name}", _modality_of(name), "cached")
    yield from _of_timm(cached)
    yield from _of_torchvision()


def _modality_of(model: str) -> str:
    """What a model in the hub's cache reads, by its description."""
    from topgraft.backbones.hub import folder_of

    try:
        settings = parsed_json(read_regular(folder_of(model) / "preprocessor_config.json"))
    except (TopgraftError, OSError, ValueError):
        return "text"
    return "sound" if isinstance(settings, dict) and is_extractor(settings) else "picture"


def _of_timm(cached: set[str]) -> Iterator[Listed]:
    import timm
    from timm.models import get_pretrained_cfg

    for name in timm.list_pretrained():
        cfg = get_pretrained_cfg(name)
        if cfg is None:
            continue
        packaged = packaged_timm(f"{cfg.architecture}.{cfg.tag}")
        held = cfg.hf_hub_id in cached or _in_torchs_cache(cfg.url)
        short = DEFAULTS["picture"].partition("/")[2]
        source = short if packaged and name.startswith(f"{short}.") else name
        yield Listed(
            f"timm/{source}",
            "picture",
            "packaged" if packaged else "cached" if held else "download",
            side=int(cfg.input_size[-1]),
            licence=cfg.license,
        )


def _of_torchvision() -> Iterator[Listed]:
    from torchvision import models

    for name in models.list_models(module=models):
        for entry in models.get_model_weights(name):
            meta: dict[str, Any] = entry.meta
            measured = next(iter(meta.get("_metrics", {}).items()), None)
            accuracy = f"{measured[1]['acc@1']:.1f} % on {measured[0]}" if measured else None
            (side,) = entry.transforms().crop_size
            yield Listed(
                f"torchvision/{name}.{entry.name}",
                "picture",
                "cached" if _in_torchs_cache(entry.url) else "download",
                parameters=int(meta["num_params"]),
                side=int(side),
                macs=float(meta["_ops"]) * 1e9 if "_ops" in meta else None,
                accuracy=accuracy,
            )


def _in_torchs_cache(url: object) -> bool:
    from torch import hub

    return isinstance(url, str) and Path(hub.get_dir(), "checkpoints", url.rpartition("/")[2]).is_file()


def _counted(one: Listed) -> Listed:
    """With its parameters, for which it is built without memory; as it is where that can't be done."""
    import timm
    import torch

    architecture = one.source.removeprefix("timm/").partition(".")[0]
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = timm.create_model(architecture, pretrained=False)
    except (RuntimeError, NotImplementedError):  # it makes numbers of tensors when it is built
        return one
    return replace(one, parameters=sum(p.numel() for p in network.parameters()))
