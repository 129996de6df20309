"""Networks and weights of Transformers: ``hf/NAME``, ``hf/NAME@REVISION`` or ``hf/FOLDER``."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from topgraft.backbones.hf_building import built, must_be_described, unusable
from topgraft.backbones.hf_encoder import encoder_alone, encoder_of, has_decoder
from topgraft.backbones.hf_inputs import NETWORK_INPUTS, inputs_of
from topgraft.backbones.hub import cached_models, file_of, folder_of, split_revision, weights_of, where
from topgraft.backbones.packaged import HUB_NAMES, packaged_folder
from topgraft.backbones.types import Filled, Source
from topgraft.backbones.weights import Weights, files_in, read_files, read_weights
from topgraft.canonical import parsed_json
from topgraft.errors import TopgraftError, did_you_mean
from topgraft.regular import read_regular

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

BESIDE = ("*pooler.*", "cls.*", "lm_head.*", "classifier.*", "*position_ids")
"""What published weights hold beside the encoder: pooler, heads of pretraining, numbers 0, 1, 2, ..."""
_MACHINE_ONLY = (
    "auto_map",
    "attn_implementation",
    "_attn_implementation",
    "_name_or_path",
    "dtype",
    "torch_dtype",
)
"""Settings of a configuration that are about the machine or would run code, not about the network."""


def load_hf(name: str, *, weights: str | Path) -> Source:
    """A network of Transformers; nothing from the folder or the hub is run.

    Parameters
    ----------
    name
        A folder, or a name on the hub, ``@revision`` where it matters.
    weights
        ``"auto"`` (beside the configuration), ``"none"`` (random values), or a file.

    Raises
    ------
    TopgraftError
        If there is no such folder or model; if its type is unknown to Transformers or needs code of its own;
        if the weights or the tokenizer can't be read.
    """
    folder, origin, model = _place(name)
    config = config_of(_settings(folder / "config.json"))
    cls, options = class_of(config)
    heads: tuple[str, ...] = ()
    if weights == "none":
        network, filled = built(cls, config, options), Filled("random values", "random")
    else:
        found = _weights(folder, origin, model) if weights == "auto" else read_weights(weights)
        must_be_described(cls, config, options, found)
        network, filled = _filled(cls, config, options, found)
        heads = _heads(found, cls.base_model_prefix)
    network = network.to(torch.float32).eval()
    if has_decoder(config):
        network, filled = encoder_of(network, filled)
    modality, preprocess, notes = inputs_of(folder, network)
    return Source(
        network=network,
        modality=modality,
        preprocess=preprocess,
        recipe={"kind": "hf", "class": cls.__name__, "config": settings_of(config), "options": options},
        filled=filled,
        output_layers=(),
        beside=(*BESIDE, *heads, *(("shared.*", "decoder.*") if has_decoder(config) else ())),
        licence=_licence(folder) if weights == "auto" else None,
        notes=tuple(notes),
    )


def rebuild_hf(recipe: Mapping[str, Any]) -> nn.Module:
    """The empty network of a recipe, with random values."""
    import transformers

    cls = getattr(transformers, str(recipe["class"]), None)
    if not (inspect.isclass(cls) and issubclass(cls, transformers.PreTrainedModel)):
        raise TopgraftError(f"Transformers {transformers.__version__} has no network {recipe['class']!r}.")
    options = {k: bool(v) for k, v in recipe["options"].items() if k == "add_pooling_layer"}
    config = config_of(recipe["config"])
    network = built(cls, config, options)
    return encoder_alone(network) if has_decoder(config) else network


def config_of(settings: Mapping[str, Any]) -> PreTrainedConfig:
    """A configuration from its settings, without those that are about the machine or would run code.

    Raises
    ------
    TopgraftError
        If the type of network is not one of Transformers' own, its settings can't be used, or its weights
        are quantised.
    """
    from transformers import CONFIG_MAPPING

    kind = str(settings.get("model_type"))
    if kind not in CONFIG_MAPPING:
        own_code = " It brings code of its own, which is not run." if "auto_map" in settings else ""
        near = did_you_mean(kind, CONFIG_MAPPING)
        raise TopgraftError(f"Transformers has no network of the type {kind!r}.{own_code}{near}")
    if settings.get("quantization_config"):
        raise TopgraftError("These weights are quantised, which can't be trained on. Take the plain version.")
    try:
        config: PreTrainedConfig = CONFIG_MAPPING[kind].from_dict(
            {k: v for k, v in settings.items() if k not in _MACHINE_ONLY}
        )
    except Exception as error:  # it checks its settings in many ways, each with an error of its own
        raise unusable(kind, error) from error
    named: Any = config.architectures
    if not (named is None or (isinstance(named, list) and all(isinstance(name, str) for name in named))):
        raise unusable(kind, f"architectures is {named!r:.80}, expected a list of names")
    return config


def settings_of(config: PreTrainedConfig) -> dict[str, Any]:
    """The settings of a configuration as JSON values, from which :func:`config_of` makes it again."""
    settings = json.loads(config.to_json_string(use_diff=False))
    return {k: v for k, v in settings.items() if k not in _MACHINE_ONLY}


def class_of(config: PreTrainedConfig) -> tuple[Any, dict[str, Any]]:
    """The network without any head, and the options that leave its pooler out where it can be.

    Raises
    ------
    TopgraftError
        If Transformers has no headless network for the configuration.
    """
    from transformers import MODEL_MAPPING

    try:
        found: Any = MODEL_MAPPING[type(config)]
    except KeyError as error:
        raise TopgraftError(
            f"Transformers has no network without a head for {config.model_type!r}."
        ) from error
    if isinstance(found, tuple):
        found = next((c for c in found if c.__name__ in (config.architectures or ())), found[0])
    has_pooler = "add_pooling_layer" in inspect.signature(found.__init__).parameters
    return found, {"add_pooling_layer": False} if has_pooler else {}


def _place(name: str) -> tuple[Path, str, str | None]:
    """Folder with the configuration, what to call it, and the model's name where it is on the hub."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise TopgraftError(
                f"{folder} has no config.json, so it is not a folder with a model of Transformers."
            )
        return folder, str(folder), None
    if (packaged := packaged_folder(name)) is not None:
        return packaged[0], packaged[1], None
    model, revision = split_revision(HUB_NAMES.get(name, name))
    if name.startswith((".", "/", "~")) or model.count("/") > 1:
        raise TopgraftError(f"There is no folder {name}.{did_you_mean(name, [*HUB_NAMES, *cached_models()])}")
    folder = folder_of(model, revision=revision)
    for wanted in NETWORK_INPUTS:
        file_of(model, wanted, revision=revision)
    return folder, where(model, folder / "config.json"), name


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = parsed_json(read_regular(path))
    except (OSError, ValueError) as error:
        raise TopgraftError(f"{path} is damaged: {error}.") from error
    if not isinstance(settings, dict):
        raise TopgraftError(f"{path} does not describe a network: expected a JSON object.")
    return settings


def _weights(folder: Path, origin: str, model: str | None) -> Weights:
    if model is None:
        if not files_in(folder):
            return read_weights(folder)  # says what is missing
        return read_files(files_in(folder), origin=origin)
    name, revision = split_revision(HUB_NAMES.get(model, model))
    return read_files(weights_of(name, revision=revision), origin=origin)


def _filled(
    cls: Any, config: PreTrainedConfig, options: Mapping[str, Any], weights: Weights
) -> tuple[PreTrainedModel, Filled]:
    """Built and filled by Transformers, which knows its older names; what arrived is what it says."""
    with _quiet():
        network, told = cls.from_pretrained(
            None,
            config=config,
            state_dict=dict(weights.tensors),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
            **options,
        )
    misshapen = {
        str(name): f"{name} has shape {tuple(given)} in the weights, {tuple(wanted)} in the network"
        for name, given, wanted in told["mismatched_keys"]
    }
    if told.get("error_msgs"):
        raise TopgraftError(f"{weights.origin} does not fit {cls.__name__}: {told['error_msgs'][0]}")
    absent = {str(n) for n in told["missing_keys"]} | set(misshapen)
    state = network.state_dict()
    bad = next(
        (n for n, t in state.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())), None
    )
    if bad is not None:
        raise TopgraftError(f"{weights.origin}: {bad} holds values that are not finite numbers.")
    known = set(state) | {f"{cls.base_model_prefix}.{n}" for n in state}
    ignored = {n for n in weights.tensors if n.endswith("position_ids") and n not in known}
    return network, Filled(
        origin=weights.origin,
        matched="name",
        arrived=frozenset(set(state) - absent),
        unused=frozenset(map(str, told["unexpected_keys"])) | ignored,
        misshapen=misshapen,
    )


def _heads(weights: Weights, inside: str) -> tuple[str, ...]:
    """Names beside the backbone in weights that hold it under its prefix: the heads of pretraining."""
    within = [name.startswith(f"{inside}.") for name in weights.tensors]
    return tuple(n for n, w in zip(weights.tensors, within, strict=True) if not w) if any(within) else ()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Transformers' own report and progress bars: ours takes their place."""
    from transformers import utils

    logging: Any = utils.logging  # carries no types

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _licence(folder: Path) -> str | None:
    """The licence that the model's card states in its first lines."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    head = card.read_text("utf-8", errors="replace").split("---")
    lines = head[1].splitlines() if len(head) > 2 and not head[0].strip() else []
    found = [line.partition(":")[2].strip().strip("'\"") for line in lines if line.startswith("license:")]
    return found[0] if found and found[0] else None
