"""Weights, and of pictures activations too, in whole numbers of 8 bits; and what that costs in accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from topgraft.console import Console, percent, size
from topgraft.data import read
from topgraft.data.types import Data
from topgraft.errors import TopgraftError
from topgraft.export.checking import Run, round_up
from topgraft.export.outputs import answers_of, score_of
from topgraft.features.reading import batch_of
from topgraft.saved import Model
from topgraft.score import wilson_interval

Array = np.ndarray[Any, np.dtype[Any]]
BATCH = 16
MOST_CALIBRATED, LEAST = 128, 16
"""Examples by which the range of activations is set, at most; and examples that are needed for both."""
FIRST = 2
"""Convolutions that stay in fp32. On 60 pictures by 14 blocks of EfficientNet-Lite0 it was 93 instead of 90 %
that kept their answer, and the mean change of a probability 0.028 instead of 0.074."""
MODALITIES = ("picture", "text")
FORMATS = ("onnx", "openvino")


@dataclass(frozen=True)
class Told:
    """Examples that somebody gave: by some the ranges are set, on the others both models are compared."""

    data: Data
    calibrated: list[int]
    compared: list[int]


def told_by(model: Model, source: Any, *, to: str) -> Told | None:
    """The examples to calibrate and to compare on; ``None`` where none are given and none are needed.

    Raises
    ------
    TopgraftError
        If the format has no 8 bits here, examples are needed and not given, or too few.
    """
    if to not in FORMATS:
        raise TopgraftError(f"--int8 is for --to onnx and --to openvino; --to {to} is written in fp32 only.")
    if model.modality not in MODALITIES:
        raise TopgraftError(f"--int8 is for pictures and texts so far; this model reads {model.modality}s.")
    is_dynamic = model.modality == "text" and to == "onnx"
    if source is None:
        if is_dynamic:
            return None
        raise TopgraftError(
            "--int8 sets the range of activations by examples like those to come. Give some, best labelled "
            "ones that were not trained on: --check DATA."
        )
    data = source if isinstance(source, Data) else _read(model, source)
    if len(data) < LEAST:
        raise TopgraftError(f"--check has {len(data)} examples. At least {LEAST} are needed for --int8.")
    order = np.random.default_rng(0).permutation(len(data)).tolist()
    count = 0 if is_dynamic else min(MOST_CALIBRATED, len(data) // 2)
    return Told(data, order[:count], order[count:])


def _read(model: Model, source: Any) -> Data:
    """Examples as the model's own were read, their labels by its classes."""
    columns = {n: c for n, c in model.columns.items() if n in ("text", "path", "label")}
    is_table = isinstance(source, (str, Path)) and not Path(source).is_dir()
    return read(
        source,
        **(columns if is_table else {}),  # type: ignore[arg-type]  # names of columns
        classes=model.classes or None,
        task=model.task,
        separator=model.separator or None,
        modality=model.modality,  # type: ignore[arg-type]  # one that this version knows
    )


def quantise(model: Model, path: Path, told: Told | None, names: list[str]) -> None:
    """Put an ONNX file into 8 bits, in its place.

    Pictures: weights a channel and activations, whose ranges are those of the examples (static, with nodes
    that quantise and dequantise). Texts: weights, and activations batch by batch (dynamic). The head stays as
    it is, and so do the first convolutions of a picture's network, whose channels differ most in range (Nagel
    et al. 2019). Weights have 7 of the 8 bits, since processors without instructions for it overflow with 8.

    Parameters
    ----------
    model
        That the file was made of.
    path
        The file in fp32.
    told
        The examples that set the ranges.
    names
        Of the inputs.

    References
    ----------
    Jacob et al. (2018), Quantization and training of neural networks for efficient integer-arithmetic-only
    inference; Nagel et al. (2019), Data-free quantization through weight equalization and bias correction.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready, made = path.with_suffix(".ready.onnx"), path.with_suffix(".int8.onnx")
    quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
    graph = onnx.load(str(ready)).graph
    kept = _head_of(graph)
    if told is None or not told.calibrated:
        quantize_dynamic(
            str(ready),
            str(made),
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"],
            reduce_range=True,
            nodes_to_exclude=kept,
        )
    else:
        quantize_static(
            str(ready),
            str(made),
            _reader(batches_of(model, told.data, told.calibrated), names),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["Conv", "MatMul", "Gemm", "Add"],
            reduce_range=True,
            nodes_to_exclude=[*kept, *[node.name for node in graph.node if node.op_type == "Conv"][:FIRST]],
        )
    ready.unlink()
    made.replace(path)


def compared(
    model: Model, original: Run, made: Run, told: Told | None, packaged: tuple[Mapping[str, Tensor], ...]
) -> dict[str, Any]:
    """How far the answers in 8 bits are from those in fp32: an entry of ``export.json``.

    Parameters
    ----------
    model
        The graft.
    original, made
        Both files, as their runtime runs them.
    told
        Examples that were given; without any the packaged ones are compared.
    packaged
        Batches of these.

    Returns
    -------
    dict
        ``method``, ``calibrated_on``, ``examples``; of classes and labels ``agreement`` (the share of
        examples with the same answer) with its 95 % interval, and ``probabilities`` (the largest difference
        of one); of predicted numbers ``numbers`` (the largest difference, as a share of the standard
        deviation) and their mean; and ``score``, with the ``metric`` of the task, its value of both and the
        ``loss``; ``None`` where the examples have no labels.
    """
    batches = packaged if told is None else tuple(batches_of(model, told.data, told.compared))
    pairs = [(original(batch)[-1].numpy(), made(batch)[-1].numpy()) for batch in batches]
    before, after = (np.concatenate([pair[i] for pair in pairs]) for i in range(2))
    found: dict[str, Any] = {
        "method": "static" if told is not None and told.calibrated else "dynamic",
        "calibrated_on": 0 if told is None else len(told.calibrated),
        "examples": len(before),
        "origin": "packaged examples" if told is None else told.data.origin,
        **_change(model, before, after),
        "score": None,
    }
    if told is not None and told.data.targets is not None:
        wanted = np.asarray(told.data.targets)[told.compared]
        (metric, fp32), (_, int8) = (score_of(model.task, wanted, one) for one in (before, after))
        found["score"] = {"metric": metric, "fp32": fp32, "int8": int8, "loss": fp32 - int8}
    return found


def _change(model: Model, before: Array, after: Array) -> dict[str, Any]:
    """How far the last output in 8 bits is from that in fp32."""
    if model.task == "regression":
        shares = np.abs(after - before) / np.array(model.spread)
        return {"numbers": round_up(float(shares.max())), "numbers_mean": round_up(float(shares.mean()))}
    answers = [answers_of(model.task, said).reshape(len(said), -1) for said in (before, after)]
    same = (answers[0] == answers[1]).all(1)
    low, high = wilson_interval(float(same.mean()), len(same))
    return {
        "agreement": {"value": float(same.mean()), "low": low, "high": high},
        "probabilities": round_up(float(np.abs(before - after).max())),
    }


def say(console: Console, found: Mapping[str, Any]) -> None:
    """What it cost, in words."""
    how = (
        f"ranges set by {found['calibrated_on']} other examples of {found['origin']}"
        if found["calibrated_on"]
        else "weights only; activations batch by batch"
    )
    sizes = f"{size(found['bytes_fp32'])} in fp32, {size(found['bytes'])} in int8"
    lines = [f"{found['method']}, {how}; {sizes}", _change_in_words(found)]
    if (score := found["score"]) is not None:
        fp32, int8 = percent(score["fp32"], 1), percent(score["int8"], 1)
        loss = f"{'a loss' if score['loss'] >= 0 else 'a gain'} of {100 * abs(score['loss']):.1f} points"
        lines.append(f"{score['metric']} there {fp32} in fp32 and {int8} in int8: {loss}")
    console.line("Int8", *lines)


def _change_in_words(found: Mapping[str, Any]) -> str:
    of = f"{found['examples']} examples of {found['origin']}"
    if "numbers" in found:
        mean, most = percent(found["numbers_mean"], 1), percent(found["numbers"], 1)
        return f"numbers differ from those in fp32 by {mean} of a deviation, at most {most}, on {of}"
    same = found["agreement"]
    within = f"95 % interval {percent(same['low'], 1)} to {percent(same['high'], 1)}"
    agree = f"the same answer as in fp32 for {percent(same['value'], 1)} of {of} ({within})"
    return f"{agree}; probabilities differ by up to {found['probabilities']:.2g}"


def batches_of(
    model: Model, data: Data, rows: list[int], *, size: int = BATCH
) -> Iterator[dict[str, Tensor]]:
    """Some examples, preprocessed, so many at a time."""
    for begin in range(0, len(rows), size):
        yield batch_of(model.preprocess, data, rows[begin : begin + size])


def _head_of(graph: Any) -> list[str]:
    """Names of the nodes back from the outputs to the last product: 8 bits there would round answers."""
    makers = {name: node for node in graph.node for name in node.output}
    waiting, kept = [out.name for out in graph.output], []
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.name in kept:
            continue
        kept.append(node.name)
        if node.op_type not in ("MatMul", "Gemm"):
            waiting.extend(node.input)
    return kept


def _reader(batches: Iterator[dict[str, Tensor]], names: list[str]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Batches(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def get_next(self) -> dict[str, Array] | None:
            batch = next(batches, None)
            return None if batch is None else {name: batch[name].numpy() for name in names}

    return Batches()
