"""Run the first blocks of a chain without gradients, as fast as the machine allows."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from topgraft.chain import Segment, State
from topgraft.chain.running import Tap
from topgraft.device import has_gpu
from topgraft.errors import TopgraftWarning
from topgraft.memory import MemoryFormat
from topgraft.pooling import pool

if TYPE_CHECKING:
    from topgraft.features.store import Store

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
ENGINES = ("torch", "openvino", "cuda")
BATCH = 16
"""Examples in a batch on one core."""


class Engine:
    """The frozen part of a network, in eval mode, channels last, in one precision; run by PyTorch.

    Parameters
    ----------
    segment
        From the network's inputs to a cut. The engine works on a copy.
    precision
        ``fp32``, or ``bf16`` where a small difference is accepted.
    device
        Where it runs.
    """

    name = "torch"

    def __init__(self, segment: Segment, *, precision: str = "fp32", device: str = "cpu") -> None:
        self.precision, self.device = precision, device
        self.dtype = PRECISIONS[precision]
        self.segment = copy.deepcopy(segment).eval().requires_grad_(requires_grad=False)
        self.segment.to(device=device, dtype=self.dtype)
        self._format = MemoryFormat(self.segment)
        self.seconds: dict[str, float] = {}
        """Per use (``state``, ``pooled``) how long the network's conversion took, where there is one."""
        self.differences: dict[str, float] = {}
        """Per use how far a converted network was from PyTorch in fp32 when it was converted."""

    def run(self, inputs: Mapping[str, Tensor], *, tap: Tap | None = None) -> State:
        """The state at the segment's end.

        Parameters
        ----------
        inputs
            A batch by the names of the network's forward.
        tap
            Called with every cut that is passed and the state there.
        """
        with torch.inference_mode():
            prepared = {n: self.prepare(t) for n, t in inputs.items()}
            state: State = self._format.run(self.segment, prepared, tap=tap)
        return state

    def pooled(self, inputs: Mapping[str, Tensor], layouts: Mapping[int, str]) -> dict[int, Tensor]:
        """What :func:`topgraft.pooling.pool` gives at every cut, in one run.

        Parameters
        ----------
        inputs
            A batch by the names of the network's forward.
        layouts
            Per cut, see :class:`topgraft.chain.Block`.

        Returns
        -------
        dict
            Per cut ``(batch, width)`` float32 on the CPU.
        """
        found: dict[int, Tensor] = {}

        def tap(cut: int, state: State) -> None:
            found[cut] = pool(state, layouts[cut]).cpu().clone()

        self.run(inputs, tap=tap)
        return found

    def examples_at_once(self, inputs: Mapping[str, Tensor]) -> int:  # noqa: ARG002 (of engines that measure)
        """How many examples like these batches of a pass may have."""
        return BATCH

    def prepare(self, tensor: Tensor) -> Tensor:
        """An input on the device, in the engine's precision."""
        if not tensor.is_floating_point():
            return tensor.to(self.device)
        return tensor.to(device=self.device, dtype=self.dtype)


def engine_of(
    segment: Segment,
    *,
    name: str = "torch",
    precision: str = "fp32",
    store: Store | None = None,
) -> Engine:
    """The engine of a name for a segment.

    Parameters
    ----------
    segment, precision
        As for :class:`Engine`.
    name
        ``torch``, ``openvino`` or ``cuda``.
    store
        Where a converted network is kept, for engines that convert.

    Raises
    ------
    TopgraftError
        If it is not installed, or this machine has no such device.
    """
    if name == "torch":
        return Engine(segment, precision=precision)
    if name == "cuda":
        from topgraft.features.cuda import CudaEngine

        return CudaEngine(segment, precision=precision)
    from topgraft.features.openvino import OpenVinoEngine

    return OpenVinoEngine(segment, precision=precision, store=store)


def examples_a_batch(
    segment: Segment, inputs: Mapping[str, Tensor], count: int, cores: int, *, name: str, precision: str
) -> int:
    """Examples in a batch of a pass: as many as the engine wants, and enough batches for every core.

    Parameters
    ----------
    segment, name, precision
        As for :func:`engine_of`.
    inputs
        Of a few examples such as those that will come.
    count, cores
        Examples of the whole pass, and cores that decode them.
    """
    if name != "cuda":
        return BATCH
    most = engine_of(segment, name=name, precision=precision).examples_at_once(inputs)
    return min(most, max(BATCH, math.ceil(count / (2 * cores))))


class EngineWarning(TopgraftWarning):
    """Another engine runs the frozen part than the one that a model was made with."""


def usable(name: str) -> str:
    """The engine of a name, or PyTorch where it is not there, which is said."""
    from topgraft.features.openvino import is_installed

    if name == "openvino" and not is_installed():
        said = (
            "This model was made with OpenVINO, which is not installed here: PyTorch runs it, and "
            "probabilities may differ in the last digits (pip install 'topgraft[openvino]')."
        )
    elif name == "cuda" and not has_gpu():
        said = (
            "This model was made on a GPU, and there is none here: PyTorch runs it on the processor, and "
            "probabilities may differ in the last digits."
        )
    else:
        return name
    warnings.warn(said, EngineWarning, stacklevel=3)
    return "torch"


def version_of(name: str) -> str:
    """The engine and its version: numbers that one gave are not taken for those of another."""
    if name == "torch":
        return f"torch {torch.__version__}"
    if name == "cuda":
        from topgraft.features import cuda

        return cuda.version()
    from topgraft.features.openvino import version

    return f"openvino {version()}"
