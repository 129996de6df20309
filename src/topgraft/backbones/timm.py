"""Networks and weights of timm: ``timm/NAME`` or ``timm/NAME.TAG``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topgraft.backbones.hub import WAYS_OUT, read_address, split_revision, weights_of, where
from topgraft.backbones.matching import fill
from topgraft.backbones.packaged import packaged_timm
from topgraft.backbones.picture_preprocess import Mode, PicturePreprocess, crop_of, scaled
from topgraft.backbones.types import Filled, Source
from topgraft.backbones.weights import Weights, read_files, read_weights
from topgraft.errors import TopgraftError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor, nn

    from topgraft.backbones.matching import Rename

_MODES: Mapping[str, Mode] = {"center": "crop", "squash": "squash", "border": "border"}


def load_timm(name: str, *, weights: str | Path, size: int | None = None) -> Source:
    """A network of timm with the weights of its tag.

    Parameters
    ----------
    name
        Such as ``resnet18`` or ``resnet18.a1_in1k``.
    weights
        ``"auto"`` (a package, the local cache, the hub), ``"none"`` (random values), or a file.
    size
        Pixels of the shorter side of pictures; that of the weights by default. Networks that are built for
        one size are built for this one, and timm interpolates their positions.

    Raises
    ------
    TopgraftError
        If timm has no such name or tag, or the weights are not within reach.
    """
    cfg = _cfg_of(name)
    if size is not None and "input_size" in cfg:
        channels, *sides = cfg["input_size"]
        cfg |= {"input_size": (channels, *scaled(tuple(sides), tuple(sides), size))}
    architecture = str(cfg["architecture"])
    found = None
    if weights != "none":
        found = _published(name, cfg) if weights == "auto" else read_weights(weights)
    network, rename = _build(architecture, cfg)
    classifier = cfg.get("classifier") or ()
    layers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return Source(
        network=network,
        modality="picture",
        preprocess=preprocess_of(cfg, name),
        recipe={"kind": "timm", "name": architecture, "pretrained_cfg": _plain(cfg)},
        output_layers=tuple(layer for layer in layers if _has_parameters(network, layer)),
        filled=fill(network, found, rename) if found is not None else Filled("random values", "random"),
        licence=cfg.get("license") if weights == "auto" else None,
    )


def rebuild_timm(recipe: Mapping[str, Any]) -> nn.Module:
    """The empty network of a recipe, with random values."""
    import timm

    name = str(recipe["name"])
    if not timm.is_model(name):
        raise TopgraftError(_unknown(name))
    return timm.create_model(name, pretrained=False, pretrained_cfg=dict(recipe["pretrained_cfg"]))


def preprocess_of(cfg: Mapping[str, Any], name: str) -> PicturePreprocess:
    """The preprocessing of timm's evaluation, as ``timm.data.create_transform`` does it.

    Raises
    ------
    TopgraftError
        If the network reads anything but three channels.
    """
    from timm.data import config

    resolve: Any = config.resolve_data_config  # carries no types
    settings = resolve(pretrained_cfg=dict(cfg))
    channels, height, width = settings["input_size"]
    if channels != 3:
        raise TopgraftError(f"timm/{name} reads pictures of {channels} channels; expected 3 (RGB).")
    return PicturePreprocess(
        size=(height, width),
        resize=crop_of((height, width), settings["crop_pct"]),
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        key="x",
        interpolation=settings["interpolation"],
        mode=_MODES[settings["crop_mode"]],
    )


def _cfg_of(name: str) -> dict[str, Any]:
    import timm
    from timm.models import get_pretrained_cfg

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise TopgraftError(_unknown(name))
    tags = [n.partition(".")[2] for n in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        known = f"It has {', '.join(tags)}." if tags else "It has none."
        raise TopgraftError(f"timm/{architecture} has no weights with the tag {tag!r}. {known}")
    cfg: Any = get_pretrained_cfg(name)
    return {"architecture": architecture, **(cfg.to_dict() if cfg is not None else {})}


def _unknown(name: str) -> str:
    import timm

    return (
        f"timm {timm.__version__} has no network {name!r}."
        f"{did_you_mean(name.partition('.')[0], timm.list_models())}"
    )


def _published(name: str, cfg: Mapping[str, Any]) -> Weights:
    """From a package, else from the hub and its cache, else from the address that timm knows."""
    tagged = f"{cfg['architecture']}.{cfg.get('tag')}"
    if (packaged := packaged_timm(tagged)) is not None:
        path, origin = packaged
        return read_weights(path, origin=origin)
    if model := cfg.get("hf_hub_id"):
        model, revision = split_revision(str(model))
        names = tuple(n for n in [cfg.get("hf_hub_filename")] if n)
        files = weights_of(model, revision=revision, names=names)
        return read_files(files, origin=where(model, files[0]))
    if url := cfg.get("url"):
        return read_address(url if isinstance(url, str) else url[0])
    raise TopgraftError(f"timm knows no pretrained weights for {name}.\n{WAYS_OUT}")


# timm keeps the function that brings published names and shapes to those of the network inside its
# factory, chosen by variant, and hands it to one loader. The loader's place is taken while we build, in our
# own thread's context only, to be told that function; everything else is timm's own.
_caught: ContextVar[list[Callable[..., Any]] | None] = ContextVar("caught", default=None)
_lock = threading.Lock()


@contextmanager
def _catching() -> Iterator[list[Callable[..., Any]]]:
    from timm.models import _builder

    original = _builder.load_pretrained

    def catch(model: nn.Module, *args: Any, **options: Any) -> None:
        caught = _caught.get()
        if caught is None:
            original(model, *args, **options)
        elif options.get("filter_fn") is not None:
            caught.append(options["filter_fn"])

    with _lock:
        caught: list[Callable[..., Any]] = []
        token = _caught.set(caught)
        _builder.load_pretrained = catch
        try:
            yield caught
        finally:
            _builder.load_pretrained = original
            _caught.reset(token)


def _build(architecture: str, cfg: Mapping[str, Any]) -> tuple[nn.Module, Rename | None]:
    import timm

    with _catching() as caught:
        network = timm.create_model(architecture, pretrained=True, pretrained_cfg=dict(cfg))
    return network, _renaming(caught[0]) if caught else None


def _renaming(change: Callable[..., Any]) -> Rename:
    def rename(tensors: Mapping[str, Tensor], network: nn.Module) -> Mapping[str, Tensor]:
        try:
            changed = change(dict(tensors), network)
        except TypeError:
            changed = change(dict(tensors))
        return dict(changed)

    return rename


def _has_parameters(network: nn.Module, layer: str) -> bool:
    try:
        return next(network.get_submodule(layer).parameters(), None) is not None
    except AttributeError:
        return False


def _plain(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What building needs, as JSON values, without where the weights came from and the old class names."""
    unneeded = {"url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "label_names"}
    unneeded |= {"label_descriptions", "custom_load"}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in cfg.items() if k not in unneeded}
