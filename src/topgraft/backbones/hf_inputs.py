"""What a network of Transformers reads: texts by its tokenizer, pictures and sounds by its processor."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topgraft.backbones.described import Preprocess
from topgraft.backbones.picture_preprocess import Mode, PicturePreprocess, crop_of
from topgraft.backbones.preprocess import TextPreprocess
from topgraft.backbones.sound_extractor import extractor_in
from topgraft.backbones.types import Modality
from topgraft.canonical import parsed_json
from topgraft.errors import TopgraftError
from topgraft.regular import read_regular

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NETWORK_INPUTS = (
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "sentence_bert_config.json",
    "preprocessor_config.json",
    "README.md",
)
"""Files beside a configuration that say how examples are prepared, and the card."""
LONGEST = 512
"""Tokens, at most, that a text is cut to: what a network allows beyond that costs more than it tells."""
TEXT_KEYS = ("input_ids", "attention_mask", "token_type_ids")


def inputs_of(folder: Path, network: PreTrainedModel) -> tuple[Modality, Preprocess, list[str]]:
    """Modality, preprocessing and notes for a network whose files lie in ``folder``.

    Raises
    ------
    TopgraftError
        If the network reads something other than texts, pictures or sounds, or its files do not say how.
    """
    takes = network.main_input_name
    if takes == "pixel_values":
        return "picture", _pictures(folder), []
    if takes in ("input_values", "input_features"):
        sounds = extractor_in(folder)
        if sounds.key != takes:
            raise TopgraftError(
                f"{type(network).__name__} reads {takes}, and {sounds.extractor} gives {sounds.key}."
            )
        return "sound", sounds, []
    if takes != "input_ids":
        raise TopgraftError(
            f"{type(network).__name__} reads {takes}; "
            "expected a network that reads texts, pictures or sounds."
        )
    return "text", _texts(folder, network), []


def _texts(folder: Path, network: PreTrainedModel) -> TextPreprocess:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except Exception as error:
        reason = (str(error).splitlines() or [repr(error)])[0]
        raise TopgraftError(
            f"The tokenizer in {folder} could not be read: {reason}.\n"
            "Expected tokenizer.json and tokenizer_config.json; code that a tokenizer brings is not run."
        ) from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise TopgraftError(
            f"{type(tokenizer).__name__} has no tokenizer.json and can't be saved without its code."
        )
    forward = inspect.signature(network.forward).parameters
    known = set(tokenizer.model_input_names) | {"input_ids"}
    pad = tokenizer.pad_token_id
    return TextPreprocess(
        tokenizer=backend.to_str(),
        keys=tuple(k for k in TEXT_KEYS if k in known and k in forward),
        max_length=_longest(folder, network, tokenizer.model_max_length),
        pad_id=pad if pad is not None else (tokenizer.eos_token_id or 0),
        pad_token=str(tokenizer.pad_token if pad is not None else (tokenizer.eos_token or "[PAD]")),
        pad_type_id=tokenizer.pad_token_type_id,
        padding_side="left" if tokenizer.padding_side == "left" else "right",
        truncation_side="left" if tokenizer.truncation_side == "left" else "right",
    )


def _longest(folder: Path, network: PreTrainedModel, model_max_length: int) -> int:
    """The smallest limit of tokenizer, training, position table and :data:`LONGEST`."""
    limits = [LONGEST, model_max_length]
    trained = folder / "sentence_bert_config.json"
    if trained.is_file():
        try:
            limits.append(int(parsed_json(read_regular(trained))["max_seq_length"]))
        except (ValueError, KeyError, TypeError, ArithmeticError) as error:
            raise TopgraftError(f"{trained} is damaged: {error}.") from error
    positions = getattr(network.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        limits.append(positions)
    for name, module in network.named_modules():
        if name.endswith("position_embeddings") and hasattr(module, "num_embeddings"):
            # RoBERTa and its kin begin to count after the padding's own row
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - first)
    return max(1, min(limits))


def _pictures(folder: Path) -> PicturePreprocess:
    from transformers import AutoImageProcessor

    opener: Any = AutoImageProcessor  # carries no types
    try:
        processor = opener.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise TopgraftError(
            f"The image processor in {folder} could not be read: {str(error).splitlines()[0]}.\n"
            "Expected preprocessor_config.json."
        ) from error
    settings = {k: v for k, v in processor.to_dict().items() if v is not None}
    size = _size(settings, "size")
    whole = size
    mode: Mode = "squash"
    if "shortest_edge" in settings.get("size", {}):
        mode = "crop"
        if (share := settings.get("crop_pct")) is not None:  # ConvNeXt: cropped below 384, else stretched
            mode = "crop" if size[0] < 384 else "squash"
            whole = crop_of(size, share) if mode == "crop" else size
    if settings.get("do_center_crop"):
        whole, size = size, _size(settings, "crop_size")
    normal = settings.get("do_normalize", True)
    return PicturePreprocess(
        size=size,
        resize=whole,
        mean=tuple(settings["image_mean"]) if normal else (0.0, 0.0, 0.0),
        std=tuple(settings["image_std"]) if normal else (1.0, 1.0, 1.0),
        key="pixel_values",
        interpolation=_interpolation(settings.get("resample", 2)),
        mode=mode,
        scale=1 / settings["rescale_factor"] if settings.get("do_rescale", True) else 1.0,
    )


def _size(settings: dict[str, Any], name: str) -> tuple[int, int]:
    size = settings.get(name) or {}
    if "height" in size and "width" in size:
        return int(size["height"]), int(size["width"])
    if "shortest_edge" in size:
        return int(size["shortest_edge"]), int(size["shortest_edge"])
    raise TopgraftError(
        f"The image processor's {name} is {size}; expected a height and a width, or a shortest edge."
    )


def _interpolation(resample: int) -> str:
    from PIL import Image

    return Image.Resampling(int(resample)).name.lower()
