"""An OpenVINO model in whole numbers of 8 bits, by NNCF."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from typing import Any

from topgraft.errors import TopgraftError
from topgraft.export.int8 import FIRST, Array, Told, batches_of
from topgraft.saved import Model

PRODUCTS, CONVOLUTIONS = ("MatMul",), ("Convolution", "GroupConvolution")
"""Types of operations in OpenVINO."""
SILENT = {"NNCF_CI": "1"}
"""NNCF tells its makers of each use unless that is set where it is imported."""


def quantised(model: Model, network: Any, told: Told, names: list[str]) -> Any:
    """An OpenVINO model in 8 bits: weights, and activations by the ranges that the examples have.

    As in ONNX (:func:`topgraft.export.int8.quantise`) the head stays in fp32, and so do a picture network's
    first convolutions; weights have half of the range, since processors without instructions for 8 bits
    overflow. Networks of texts are smoothed first: a part of the range of activations goes into the weights.

    Parameters
    ----------
    model
        That the network was made of.
    network
        ``openvino.Model`` in fp32; it is left as it is.
    told
        The examples that set the ranges.
    names
        Of the inputs.

    References
    ----------
    Jacob et al. (2018), Quantization and training of neural networks for efficient integer-arithmetic-only
    inference; Xiao et al. (2023), SmoothQuant: accurate and efficient post-training quantization for large
    language models.
    """
    with _quietly():
        import nncf
        from nncf.quantization.advanced_parameters import OverflowFix

        ranges = nncf.Dataset(list(_arrays(model, told, names)))
        return nncf.quantize(
            network,
            ranges,
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(told.calibrated),
            model_type=nncf.ModelType.TRANSFORMER if model.modality == "text" else None,
            ignored_scope=nncf.IgnoredScope(names=_in_fp32(model, network), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
        )


def version() -> str:
    """Of NNCF."""
    with _quietly():
        import nncf

        return str(nncf.__version__)


def must_be_installed() -> None:
    """Refuse where NNCF is not there.

    Raises
    ------
    TopgraftError
        If it is missing.
    """
    if find_spec("nncf") is None:
        raise TopgraftError(
            "--to openvino --int8 needs nncf, an optional extra: pip install 'topgraft[openvino]'."
        )


def _arrays(model: Model, told: Told, names: list[str]) -> Iterator[dict[str, Array]]:
    """One example after the other: what fills up a batch of texts would count for the ranges."""
    for batch in batches_of(model, told.data, told.calibrated, size=1):
        yield {name: batch[name].numpy() for name in names}


def _in_fp32(model: Model, network: Any) -> list[str]:
    """Names of the operations from the last product to the outputs, and of a picture's first convolutions."""
    waiting, kept = [port.get_node() for port in network.outputs], set()
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() in kept:
            continue
        kept.add(node.get_friendly_name())
        if node.get_type_name() not in PRODUCTS:
            waiting.extend(port.get_source_output().get_node() for port in node.inputs())
    if model.modality == "picture":
        found = [node for node in network.get_ordered_ops() if node.get_type_name() in CONVOLUTIONS]
        kept.update(node.get_friendly_name() for node in found[:FIRST])
    return sorted(kept)


@contextmanager
def _quietly() -> Iterator[None]:
    """NNCF without its progress bars and without word to its makers."""
    before = {name: os.environ.get(name) for name in SILENT}
    os.environ.update(SILENT)
    try:
        import nncf

        nncf.set_log_level(40)  # errors
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
