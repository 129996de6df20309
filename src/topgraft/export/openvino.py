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
from topgraft.export import int8_openvino
from topgraft.export.checking import Run, measured
from topgraft.export.int8 import compared
from topgraft.export.job import ExportJob, Written
from topgraft.export.outputs import names_of
from topgraft.features.openvino import is_installed, library, new_core, version

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
    if job.int8:
        int8_openvino.must_be_installed()
    openvino = library()
    path = job.folder / FILE
    shapes = input_shapes(job.model.description)
    program = job.program()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted = openvino.convert_model(program)
        for ports, names in (
            (converted.inputs, list(shapes)),
            (converted.outputs, list(names_of(job.model.task))),
        ):
            for port, name in zip(ports, names, strict=True):
                port.get_tensor().set_names({name})
        sizes = {
            name: openvino.PartialShape([-1 if d.batch or d.length else d.factor for d in shape.dims])
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
    _save(converted, path)
    difference = measured(runner(path), job.model, job.examples.checked)
    more: dict[str, Any] = {}
    if job.int8:
        more = {"precision": "int8", "int8": _in_int8(job, converted, path, list(shapes))}
    return Written(f"OpenVINO {version()}", difference, more)


def _save(network: Any, path: Path) -> None:
    try:
        library().save_model(network, str(path), compress_to_fp16=False)
    except (OSError, RuntimeError) as error:  # OpenVINO tells a full disk by the latter
        raise RunningError(f"{path} could not be written: {error}") from error


def _in_int8(job: ExportJob, network: Any, path: Path, names: list[str]) -> dict[str, Any]:
    """Put the files into 8 bits, open them again, and compare them with what they were."""
    assert job.told is not None
    try:
        small = int8_openvino.quantised(job.model, network, job.told, names)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise TopgraftError(
            f"NNCF can't put this network into 8 bits ({type(error).__name__}: {reason}). Leave out --int8."
        ) from error
    made = path.with_suffix(".int8.xml")
    _save(small, made)
    found = compared(job.model, runner(path), runner(made), job.told, job.examples.checked)
    before = _size(path)
    for ending in (".xml", ".bin"):
        made.with_suffix(ending).replace(path.with_suffix(ending))
    return {**found, "bytes_fp32": before, "bytes": _size(path), "nncf": int8_openvino.version()}


def _size(path: Path) -> int:
    """Bytes of a model's two files."""
    return sum(path.with_suffix(ending).stat().st_size for ending in (".xml", ".bin"))


def runner(path: Path) -> Run:
    """The model as OpenVINO runs it on the CPU, in fp32."""
    core = new_core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = core.compile_model(core.read_model(str(path)), "CPU", options)
    request = compiled.create_infer_request()
    names, outputs = ([port.get_any_name() for port in some] for some in (compiled.inputs, compiled.outputs))

    def run(batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        found: Any = request.infer({n: batch[n].contiguous().numpy() for n in names})
        return tuple(torch.from_numpy(found[name].copy()) for name in outputs)

    return run


def must_be_installed() -> None:
    """Refuse where the optional extra is not there."""
    if not is_installed():
        raise TopgraftError(
            "--to openvino needs OpenVINO, an optional extra: pip install 'topgraft[openvino]'."
        )
