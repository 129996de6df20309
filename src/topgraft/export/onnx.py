"""A graft as an ONNX model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from topgraft.backbones.grafted import input_shapes
from topgraft.errors import TopgraftError
from topgraft.export.checking import Run, measured
from topgraft.export.int8 import compared, quantise
from topgraft.export.job import ExportJob, Written
from topgraft.export.outputs import names_of
from topgraft.export.whole import length_of, open_shape
from topgraft.files import told

FILE = "model.onnx"
NEEDED = ("onnx", "onnxruntime", "onnxscript")


def write(job: ExportJob) -> Written:
    """Write the model, and open it in ONNX Runtime.

    Raises
    ------
    TopgraftError
        If the optional extra is not installed, or the network has operations that ONNX has no words for.
    """
    must_be_installed()
    import onnx
    import onnxruntime
    import onnxscript

    path = job.folder / FILE
    steps = length_of(job.model)
    shapes = {n: open_shape(s, steps) for n, s in input_shapes(job.model.description).items()}
    program = job.program()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter about itself
            made: Any = torch.onnx.export(
                program,
                dynamo=True,
                input_names=list(shapes),
                output_names=list(names_of(job.model.task)),
                verbose=False,
            )
    except Exception as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise TopgraftError(
            f"PyTorch can't write this network as ONNX ({type(error).__name__}: {reason}). Take --to torch."
        ) from error
    with told(path):
        made.save(path)
        document = onnx.load(str(path), load_external_data=False)
        _name_sizes(document, shapes)
        onnx.helper.set_model_props(document, job.notes())
        onnx.save(document, str(path))
    onnx.checker.check_model(str(path))
    difference = measured(runner(path), job.model, job.examples.checked)
    more: dict[str, Any] = {
        "opset": int(document.opset_import[0].version),
        "onnxscript": str(onnxscript.__version__),
    }
    if job.int8:
        more |= {"precision": "int8", "int8": _in_int8(job, path, list(shapes))}
    return Written(f"ONNX Runtime {onnxruntime.__version__}", difference, more)


def _in_int8(job: ExportJob, path: Path, names: list[str]) -> dict[str, Any]:
    """Put the file into 8 bits, open it again, and compare it with what it was."""
    original, before = runner(path), path.stat().st_size
    try:
        with told(path):
            quantise(job.model, path, job.told, names)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise TopgraftError(
            f"ONNX Runtime can't put this network into 8 bits ({type(error).__name__}: {reason}). Leave out "
            "--int8."
        ) from error
    found = compared(job.model, original, runner(path), job.told, job.examples.checked)
    return {**found, "bytes_fp32": before, "bytes": path.stat().st_size}


def runner(path: Path) -> Run:
    """The model as ONNX Runtime runs it on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names, outputs = ([port.name for port in some] for some in (session.get_inputs(), session.get_outputs()))

    def run(batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        found = session.run(outputs, {n: batch[n].numpy() for n in names})
        return tuple(torch.from_numpy(one) for one in found)

    return run


def _name_sizes(document: Any, shapes: Mapping[str, list[int | str]]) -> None:
    """Let open sizes have the names that are told of them instead of the exporter's numbers."""
    graph, names = document.graph, {}
    for given in graph.input:
        for size, name in zip(given.type.tensor_type.shape.dim, shapes[given.name], strict=True):
            if isinstance(name, str) and size.dim_param:
                names[size.dim_param] = name
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param in names:
                size.dim_param = names[size.dim_param]


def must_be_installed(needed: Sequence[str] = NEEDED) -> None:
    """Refuse where the optional extra is not there.

    Raises
    ------
    TopgraftError
        If one of the packages is missing.

    Examples
    --------
    >>> must_be_installed(["torch", "onnxrun"])
    Traceback (most recent call last):
        ...
    topgraft.errors.TopgraftError: --to onnx needs onnxrun, an optional extra: pip install 'topgraft[onnx]'.
    """
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise TopgraftError(
            f"--to onnx needs {', '.join(missing)}, an optional extra: pip install 'topgraft[onnx]'."
        )
