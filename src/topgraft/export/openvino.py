"""A graft as an intermediate representation of OpenVINO (``.xml`` and ``.bin``)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from topgraft.backbones.grafted import input_shapes
from topgraft.errors import RunningError, TopgraftError
from topgraft.export.checking import Run, measured
from topgraft.export.job import ExportJob, Written
from topgraft.export.whole import OUTPUTS, open_shape
from topgraft.features.openvino import is_installed, version

FILE = "model.xml"


def write(job: ExportJob) -> Written:
    """Write the model in fp32, and open it in OpenVINO.

    Raises
    ------
    TopgraftError
        If the optional extra is not installed, or OpenVINO can't convert the network.
    RunningError
        If the files can't be written.
    """
    must_be_installed()
    import openvino

    path = job.folder / FILE
    shapes = input_shapes(job.model.description)
    program = job.program()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted = openvino.convert_model(program)
        for ports, names in ((converted.inputs, list(shapes)), (converted.outputs, list(OUTPUTS))):
            for port, name in zip(ports, names, strict=True):
                port.get_tensor().set_names({name})
        sizes = {
            name: openvino.PartialShape([s if isinstance(s, int) else -1 for s in open_shape(shape)])
            for name, shape in shapes.items()
        }
        converted.reshape(sizes)
        for name, text in job.notes().items():
            converted.set_rt_info(text, ["model_info", name.replace(".", "_")])
    except Exception as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[-1]
        raise TopgraftError(
            f"OpenVINO can't convert this network ({type(error).__name__}: {reason}). Take --to onnx."
        ) from error
    try:
        openvino.save_model(converted, str(path), compress_to_fp16=False)
    except (OSError, RuntimeError) as error:  # OpenVINO tells a full disk by the latter
        raise RunningError(f"{path} could not be written: {error}") from error
    difference = measured(runner(path), job.model.graft, job.examples.checked)
    return Written(f"OpenVINO {version()}", difference, {})


def runner(path: Path) -> Run:
    """The model as OpenVINO runs it on the CPU, in fp32."""
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = core.compile_model(core.read_model(str(path)), "CPU", options)
    request = compiled.create_infer_request()
    names = [port.get_any_name() for port in compiled.inputs]

    def run(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        found: Any = request.infer({n: batch[n].contiguous().numpy() for n in names})
        logits, probabilities = (torch.from_numpy(found[name].copy()) for name in OUTPUTS)
        return logits, probabilities

    return run


def must_be_installed() -> None:
    """Refuse where the optional extra is not there."""
    if not is_installed():
        raise TopgraftError(
            "--to openvino needs OpenVINO, an optional extra: pip install 'topgraft[openvino]'."
        )
