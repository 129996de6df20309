"""A small model of every type that Transformers' ``AutoModel`` knows, with random weights.

A case starts from the default configuration of its type. Every setting whose name is known is made small, in
sub-configurations too; what a family needs beyond is in ``transformers_settings``. Of an encoder-decoder
the encoder is taken, of a model for texts and pictures or sound the language model. Nothing is fetched.
"""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from cases import Case, Unsupported
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES
from transformers_settings import (
    HEADS_OF_STATE_SPACE,
    HEEDS_NO_MASK,
    LAYERS,
    NOT_BUILT,
    PARTS,
    PER_STAGE,
    SETTINGS,
    SIZES,
    VOCABULARY,
    WITHOUT_BATCH,
)

from topgraft.errors import is_out_of_memory

BATCH, LENGTH = 3, 11
LENGTHS = (11, 8, 7)
"""Tokens of each example; the rest of the row is padding."""
MORE = 4
"""Columns of padding that ``padded`` has beyond."""
FIRST_WORD = 60
"""Ids below are left to special tokens."""


def _is_layer_index_list(name: str, value: Sequence[Any]) -> bool:
    words = ("index", "_idx", "layer_ids", "out_layers", "attention_blocks", "_layers", "out_indices")
    listed = any(word in name for word in words) and "num" not in name and not name.startswith("stage_")
    return listed and all(type(v) is int for v in value)


def _small_list(name: str, value: Sequence[Any], layers: int | None, depth: int) -> Any:
    kind = type(value)
    if layers is not None and len(value) == layers > 4:
        different = sorted(set(map(str, value)), key=[str(v) for v in value].index)
        pick = [next(v for v in value if str(v) == text) for text in different]
        pick = [min(SIZES[name], v) if name in SIZES else v for v in pick]
        return kind([pick[min(i, len(pick) - 1)] for i in range(depth)])
    if name in PER_STAGE and all(isinstance(v, int) for v in value):
        sizes = PER_STAGE[name]
        return kind([sizes[min(i, len(sizes) - 1)] for i in range(len(value))])
    if name in SIZES and all(isinstance(v, int) for v in value):
        return kind([min(SIZES[name], v) for v in value])
    if _is_layer_index_list(name, value) and value and max(value) >= depth:
        return kind(sorted({min(v, depth - 1) for v in value}))
    return value


def _small_rope(value: Mapping[str, Any]) -> dict[str, Any]:
    if any(isinstance(v, Mapping) for v in value.values()):
        return {kind: inner if inner is None else _small_rope(inner) for kind, inner in value.items()}
    kept = (
        "rope_theta",
        "partial_rotary_factor",
        "mrope_interleaved",
        "llama_4_scaling_beta",
        "original_max_position_embeddings",
    )
    rope = {"rope_type": "default", **{k: v for k, v in value.items() if k in kept}}
    if "mrope_section" in value:
        half = int(8 * rope.get("partial_rotary_factor", 1.0))
        rope["mrope_section"] = [half - 2 * (half // 4), half // 4, half // 4]
    return rope


def _value(config: PretrainedConfig, name: str) -> Any:
    try:
        return getattr(config, name, None)
    except RuntimeError:  # it differs between layers, and has no value of its own
        return None


def small_config(
    kind: type[PretrainedConfig], settings: Mapping[str, Any], like: Any = None
) -> PretrainedConfig:
    """A configuration of a class with every size that is known made small.

    Parameters
    ----------
    kind
        Of the configuration.
    settings
        What the family needs otherwise: by name, sub-configurations by dotted name.
    like
        The default that its owner has in its place.
    """
    default = kind() if like is None else like
    names = [f.name for f in dataclasses.fields(kind)]
    layers = _value(default, "num_hidden_layers")
    layers = layers if isinstance(layers, int) else None
    own = {k: v for k, v in settings.items() if "." not in k}
    depth = next((own[k] for k in ("num_hidden_layers", "num_layers") if k in own), LAYERS)
    chosen: dict[str, Any] = {}
    special = 3
    for name in names:
        value = _value(default, name)
        if isinstance(value, PretrainedConfig):
            inner = {k.partition(".")[2]: v for k, v in settings.items() if k.startswith(f"{name}.")}
            chosen[name] = small_config(type(value), inner, value)
        elif name.endswith(("token_id", "token_index")) and isinstance(value, int):
            chosen[name] = value if 0 <= value < 3 else special
            special += value >= 3
        elif name == "num_key_value_heads" and value == _value(default, "num_attention_heads"):
            chosen[name] = SIZES["num_attention_heads"]
        elif isinstance(value, (list, tuple)):
            chosen[name] = 2 if name == "eos_token_id" else _small_list(name, value, layers, depth)
        elif not name.startswith("_"):
            chosen[name] = _small(name, value)
    if "use_cache" in names:
        chosen["use_cache"] = False
    return kind(**{k: v for k, v in (chosen | own).items() if k in own or v is not None})


def _small(name: str, value: Any) -> Any:
    """What a setting becomes; None where it keeps its default."""
    if value is None:
        return {"head_dim": 16, "num_key_value_heads": 4}.get(name)
    if name == "rope_parameters" and isinstance(value, Mapping):
        return _small_rope(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return min(value, 8) if name == "patch_size" else HEADS_OF_STATE_SPACE.get(name, SIZES.get(name))


_LANGUAGE_MODELS = ("language_model", "text_model", "model.language_model", "text_encoder", "backbone_model")


def _part(name: str, model: nn.Module) -> tuple[nn.Module, str]:
    """The module that is cut, and where it is."""
    if name in PARTS:
        return model.get_submodule(PARTS[name]), PARTS[name]
    config = model.config
    if config.is_encoder_decoder:
        encoder = model.get_encoder()
        return encoder, next(n for n, m in model.named_modules() if m is encoder)
    if any(isinstance(_value(config, f.name), PretrainedConfig) for f in dataclasses.fields(config)):
        for path in _LANGUAGE_MODELS:
            found: Any = model
            for step in path.split("."):
                found = getattr(found, step, None)
            if isinstance(found, nn.Module):
                return found, path
    return model, ""


def _text(config: PretrainedConfig, accepts: Sequence[str], columns: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    pad = _value(config, "pad_token_id")
    ids = torch.full((BATCH, columns), pad if isinstance(pad, int) and pad >= 0 else 0)
    mask = torch.zeros(BATCH, columns, dtype=torch.int64)
    for row, length in enumerate(LENGTHS):
        ids[row, :length] = torch.randint(FIRST_WORD, VOCABULARY, (length,), generator=generator)
        mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask} if "attention_mask" in accepts else {"input_ids": ids}


def _pair(value: Any, default: int) -> tuple[int, int]:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return int(value[0]), int(value[1])
    return (value, value) if isinstance(value, int) else (default, default)


def _pixels(config: PretrainedConfig) -> Tensor:
    channels = next(
        (c for c in (_value(config, "num_channels"), _value(config, "in_channels")) if type(c) is int), 3
    )
    return torch.randn(BATCH, channels, *_pair(_value(config, "image_size"), 64), generator=_noise())


def _noise() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _random(*sizes: int) -> Tensor:
    return torch.randn(BATCH, *sizes, generator=_noise())


def _frames(name: str, count: int = 4) -> Callable[[PretrainedConfig], dict[str, Tensor]]:
    def inputs(config: PretrainedConfig) -> dict[str, Tensor]:
        return {name: _random(_value(config, "num_frames") or count, 3, 64, 64)}

    return inputs


def _time_first(
    bins: int, name: str = "input_features", steps: int = 128
) -> Callable[[Any], dict[str, Tensor]]:
    return lambda _: {name: _random(steps, bins)}


def _waveform(_: PretrainedConfig) -> dict[str, Tensor]:
    return {"input_values": _random(1, 1600)}


def _masked(config: PretrainedConfig) -> dict[str, Tensor]:
    mask = torch.ones(BATCH, 128, dtype=torch.int64)
    return {"input_features": _random(_value(config, "num_mel_bins") or 16, 128), "input_features_mask": mask}


INPUTS: dict[str, Callable[[PretrainedConfig], dict[str, Tensor]]] = {
    "audio-spectrogram-transformer": lambda c: {"input_values": _random(c.max_length, c.num_mel_bins)},
    **dict.fromkeys(
        [
            "canary",
            "cohere_asr",
            "lasr_ctc",
            "lasr_encoder",
            "nemotron3_5_asr",
            "nemotron3_5_transcribe_asr_audio",
            "nemotron3_diarization_audio",
            "nemotron_asr_streaming",
            "nemotron_asr_streaming_encoder",
            "parakeet_ctc",
            "parakeet_encoder",
            "parakeet_rnnt",
            "parakeet_tdt",
            "univnet",
        ],
        _time_first(16),
    ),
    "gemma4_audio": _time_first(128),
    "speech_to_text": _time_first(80),
    "wav2vec2-bert": _time_first(160),
    **dict.fromkeys(
        [
            "dac",
            "encodec",
            "mimi_encoder",
            "omniasr_audio",
            "omniasr_ctc",
            "pe_audio_encoder",
            "pocket_tts_audio_tokenizer_encoder",
            "vibevoice_acoustic_tokenizer",
            "xcodec",
        ],
        _waveform,
    ),
    **dict.fromkeys(["audioflamingo3_encoder", "qwen3_asr_encoder", "fun_asr_nano_encoder"], _masked),
    "patchtsmixer": lambda c: {"past_values": _random(c.context_length, c.num_input_channels)},
    "patchtst": lambda c: {"past_values": _random(c.context_length, c.num_input_channels)},
    "siglip2_vision_model": lambda c: {
        "pixel_values": _random(16, 3 * c.patch_size**2),
        "pixel_attention_mask": torch.ones(BATCH, 16, dtype=torch.int64),
        "spatial_shapes": torch.full((BATCH, 2), 4),
    },
    **dict.fromkeys(["timesformer", "videomae", "vivit"], _frames("pixel_values")),
    **dict.fromkeys(
        ["pe_video_encoder", "videoprism_vision_model", "vjepa2"], _frames("pixel_values_videos")
    ),
}
"""Inputs of types that need other shapes, or further inputs."""
FURTHER: dict[str, Callable[[PretrainedConfig, int], dict[str, Tensor]]] = {
    "bros": lambda _, columns: {"bbox": torch.arange(4).expand(BATCH, columns, 4)},
    "udop": lambda _, columns: {"bbox": torch.zeros(BATCH, columns, 4)},
    "lxmert": lambda c, _: {
        "visual_feats": _random(5, c.visual_feat_dim),
        "visual_pos": _random(5, c.visual_pos_dim),
    },
}
"""What texts come with, a row an example."""


def _inputs(
    name: str, part: nn.Module, config: PretrainedConfig
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    accepts = list(inspect.signature(part.forward).parameters)
    if name in INPUTS:
        return INPUTS[name](config), None
    if any(extra in accepts for extra in WITHOUT_BATCH) and "input_ids" not in accepts:
        raise Unsupported("the patches of all pictures come as one sequence without a batch")
    if "input_ids" in accepts:
        both = [
            {**_text(config, accepts, columns), **(FURTHER[name](config, columns) if name in FURTHER else {})}
            for columns in (LENGTH, LENGTH + MORE)
        ]
        return both[0], both[1]
    if "pixel_values" in accepts:
        return {"pixel_values": _pixels(config)}, None
    if "input_features" in accepts:
        return {"input_features": _random(_value(config, "num_mel_bins") or 16, 128)}, None
    if "input_values" in accepts:
        return {"input_values": _random(1600)}, None
    raise Unsupported(f"takes {', '.join(accepts)}, for which there is no small input here")


def names() -> list[str]:
    """Every model type that ``AutoModel`` knows."""
    return sorted(MODEL_MAPPING_NAMES)


def _model(config: PretrainedConfig) -> nn.Module:
    try:
        return AutoModel.from_config(config, attn_implementation="eager")
    except ValueError as problem:
        if "attn" not in str(problem) and "attention" not in str(problem):
            raise
        return AutoModel.from_config(config)


def build(name: str) -> Case:
    """The case of a model type.

    Raises
    ------
    Unsupported
        If there is none, with the reason.
    """
    if name in NOT_BUILT:
        raise Unsupported(NOT_BUILT[name])
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = _model(small_config(CONFIG_MAPPING[name], SETTINGS.get(name, {}))).float().eval()
        except Exception as problem:  # configurations and models refuse settings in any way
            raise _left_out("the small model does not build", problem) from problem
    part, path = _part(name, model)
    inputs, padded = _inputs(name, part, getattr(part, "config", model.config))
    try:
        with torch.no_grad():
            for batch in (inputs, padded or inputs):
                part(**batch)
    except Exception as problem:  # as above
        raise _left_out(f"{f'its {path}' if path else 'the small model'} does not run", problem) from problem
    notes = [f"its {path}"] if path else []
    if padded is not None and "attention_mask" not in padded:
        notes.append("takes no mask")
        padded = None
    if name in HEEDS_NO_MASK:
        notes.append(f"padding not checked: {HEEDS_NO_MASK[name]}")
        padded = None
    return Case(part, inputs, padded, "; ".join(notes))


def _left_out(what: str, problem: Exception) -> Exception:
    if is_out_of_memory(problem):
        return problem
    first_line = " ".join(str(problem).split())[:200]
    return Unsupported(f"{what} ({type(problem).__name__}: {first_line})")
