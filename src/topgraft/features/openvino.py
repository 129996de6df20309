"""The frozen part of a network as OpenVINO runs it: on CPUs several times as fast as PyTorch."""

from __future__ import annotations

import io
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from topgraft.chain import Segment, State
from topgraft.chain.running import Tap
from topgraft.errors import TopgraftError
from topgraft.features.engine import PRECISIONS, Engine, EngineWarning
from topgraft.pooling import POOLING, pool
from topgraft.side_by_side import cores

if TYPE_CHECKING:
    from topgraft.features.converted import Converted, Place
    from topgraft.features.store import Store

LARGEST = {"fp32": 1e-3, "bf16": 0.1}
"""Difference of pooled activations from PyTorch in fp32, as a share of their norm, that is refused above."""
UNPOOLED = 2.0
"""Whole states may differ by as many times that: pooling averages much of the rounding away."""
_HINT = {"fp32": "f32", "bf16": "bf16"}


def is_installed() -> bool:
    """Whether OpenVINO is there, which is an optional extra."""
    return find_spec("openvino") is not None


def library() -> Any:
    """OpenVINO, without the telemetry by which it else tells its makers of each import and conversion.

    Where the package for that is not installed, OpenVINO has a stub of its own in its place, so that to it
    the package is absent in this process; its one other way to be silent is a file in the home folder. Where
    somebody imported it before, it is as it was.
    """
    if "openvino" not in sys.modules:  # None: Python's own mark of a module that is not to be found
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def new_core() -> Any:
    """A ``Core`` of OpenVINO with its plugin for CPUs, loaded in a thread of its own, which ends with that.

    The plugin gives the thread that loads it an alternate stack for signals, and unmaps that stack when it is
    freed, in whatever thread that happens: a thread that lives on may be left without one, so that its next
    Ctrl-C is a segmentation fault.
    """
    openvino = library()

    def loaded() -> Any:
        core = openvino.Core()
        core.get_property("CPU", "FULL_DEVICE_NAME")
        return core

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(loaded).result()


def has_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this processor where it is asked to; else it takes fp32."""
    return "BF16" in new_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def version() -> str:
    """Of OpenVINO.

    Raises
    ------
    TopgraftError
        If it is not installed.
    """
    _must_be_installed()
    return str(library().__version__)


class OpenVinoEngine(Engine):
    """The same as :class:`Engine`, traced and compiled by OpenVINO when the first batch comes.

    What it gives for the first batch is compared with PyTorch in fp32, for another number of examples than
    it was traced with; where it differs by more than :data:`LARGEST` (whole states: :data:`UNPOOLED` times
    that), it is refused.

    Parameters
    ----------
    segment, precision
        As for :class:`Engine`. Where the processor has no bf16, OpenVINO takes fp32, which is told by an
        :class:`EngineWarning`.
    store
        Where the converted network is kept for the next engine of the same part; nowhere by default.

    Raises
    ------
    TopgraftError
        If OpenVINO is not installed; in a run, if the network can't be converted.
    """

    name = "openvino"

    def __init__(
        self,
        segment: Segment,
        *,
        precision: str = "fp32",
        store: Store | None = None,
    ) -> None:
        _must_be_installed()
        if precision == "bf16" and not has_bf16():
            warnings.warn(
                "OpenVINO computes in fp32 on this processor, which has no instructions for bf16.",
                EngineWarning,
                stacklevel=2,
            )
        super().__init__(segment, precision="fp32")
        self.precision, self.dtype = precision, PRECISIONS[precision]
        self._store = store
        self._compiled: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._own = threading.local()
        self._threads = cores()  # it is often made where each operation has one thread

    def run(self, inputs: Mapping[str, Tensor], *, tap: Tap | None = None) -> State:
        """The state at the segment's end, in the engine's precision; ``tap`` is not supported."""
        if tap is not None:
            raise TypeError("OpenVINO gives no states on the way: take pooled()")
        names = list(self.segment.input_shapes)
        given = [inputs[n] for n in names]

        def state(*tensors: Tensor) -> tuple[Tensor, ...]:
            reached: State = self.segment(dict(zip(names, tensors, strict=True)))
            return reached.tensors

        found = self._infer("state", state, given)
        carried = {n: t for n, t in inputs.items() if not t.is_floating_point()}
        return State(tuple(t.to(self.dtype) if t.is_floating_point() else t for t in found), carried)

    def pooled(self, inputs: Mapping[str, Tensor], layouts: Mapping[int, str]) -> dict[int, Tensor]:
        """Pooled activations at every cut, all by one graph."""
        names = list(self.segment.input_shapes)
        given = [inputs[n] for n in names]

        def every(*tensors: Tensor) -> tuple[Tensor, ...]:
            found: list[Tensor] = []
            self.segment(
                dict(zip(names, tensors, strict=True)), tap=lambda k, s: found.append(pool(s, layouts[k]))
            )
            return tuple(found)

        how = {"pooling": POOLING, "layouts": {str(cut): layout for cut, layout in layouts.items()}}
        return dict(enumerate(self._infer("pooled", every, given, **how), start=1))

    def _infer(self, use: str, work: Callable[..., Any], given: Sequence[Tensor], **how: Any) -> list[Tensor]:
        with self._lock:
            if use not in self._compiled:
                place = self._place({"use": use, **how}) if self._store is not None else None
                self._compiled[use] = self._opened(use, place) or self._converted(use, work, given, place)
        requests: dict[str, Any] = self._own.__dict__.setdefault("requests", {})
        if use not in requests:  # a request is one thread's own
            requests[use] = self._compiled[use].create_infer_request()
        return _run(requests[use], given)

    def _place(self, how: Mapping[str, Any]) -> Place:
        """Where this engine's network is kept, for one use."""
        from topgraft.features.converted import Place, identity_of

        assert self._store is not None
        made_by = {
            "engine": f"openvino {version()}",
            "precision": self.precision,
            "processor": str(new_core().get_property("CPU", "FULL_DEVICE_NAME")),
        }
        return Place(self._store, {**identity_of(self.segment), **made_by, **how})

    def _opened(self, use: str, place: Place | None) -> Any:
        """What was kept, compiled; ``None`` where nothing was, or OpenVINO can't read it, which is said."""
        kept: Converted | None = place.read() if place is not None else None
        if kept is None:
            return None
        try:
            compiled = new_core().import_model(io.BytesIO(kept.graph), "CPU", self._options())
        except Exception as error:  # noqa: BLE001 (OpenVINO says in many ways that it can't read a graph)
            warnings.warn(
                f"OpenVINO can't read the network that was kept ({error}): it is converted again.",
                EngineWarning,
                stacklevel=2,
            )
            return None
        self.differences[use], self.seconds[use] = kept.difference, kept.seconds
        return compiled

    def _converted(
        self, use: str, work: Callable[..., Any], given: Sequence[Tensor], place: Place | None
    ) -> Any:
        """Traced with two examples, and compared with PyTorch on three; kept if there is a place."""
        from topgraft.features.converted import Converted

        openvino = library()

        began = time.monotonic()
        two, three = ([_some(t, count) for t in given] for count in (2, 3))
        kind = type(self.segment.network).__name__
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # of sizes that tracing takes for constants: it is checked below
                traced = torch.jit.trace(_Work(work), tuple(two), check_trace=False, strict=False)
                model = openvino.convert_model(traced, example_input=tuple(two))
                compiled = new_core().compile_model(model, "CPU", self._options())
                expected = work(*three)
            found = _run(compiled.create_infer_request(), three)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [repr(error)])[-1]
            raise TopgraftError(
                f"OpenVINO can't run {kind} ({type(error).__name__}: {reason}). Take --engine torch."
            ) from error
        difference = max(apart(a, b) for a, b in zip(found, expected, strict=True))
        self.differences[use] = difference
        largest = LARGEST[self.precision] * (UNPOOLED if use == "state" else 1)
        if not difference <= largest:
            raise TopgraftError(
                f"OpenVINO computes something else than PyTorch for {kind}: activations differ by "
                f"{difference:.1e}, expected at most {largest:g} in {self.precision}. "
                "Take --engine torch."
            )
        self.seconds[use] = time.monotonic() - began
        if place is not None:
            place.keep(Converted(_exported(compiled), difference, self.seconds[use]))
        return compiled

    def _options(self) -> dict[str, Any]:
        """As many streams as cores, a thread each: whole batches run side by side (see side_by_side)."""
        return {
            "INFERENCE_PRECISION_HINT": _HINT[self.precision],
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": self._threads,
        }


class _Work(nn.Module):
    """A function as a module, which is what can be traced."""

    def __init__(self, work: Callable[..., Any]) -> None:
        super().__init__()
        self.work = work

    def forward(self, *tensors: Tensor) -> Any:
        return self.work(*tensors)


def _some(tensor: Tensor, count: int) -> Tensor:
    """The first examples, repeated where there are fewer."""
    return torch.cat([tensor] * count)[:count].contiguous()


def _exported(compiled: Any) -> bytes:
    written = compiled.export_model()
    return written if isinstance(written, bytes) else bytes(written.getbuffer())


def _run(request: Any, given: Sequence[Tensor]) -> list[Tensor]:
    results = request.infer([t.contiguous().numpy() for t in given], share_inputs=True)
    return [torch.from_numpy(results[i].copy()) for i in range(len(results))]


def apart(a: Tensor, b: Tensor) -> float:
    """How far ``a`` is from ``b``, as a share of the norm of ``b``; infinite where shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    scale = float(b.double().norm())
    gap = float((a.double() - b.double()).norm())
    return gap / scale if scale else gap


def _must_be_installed() -> None:
    if not is_installed():
        raise TopgraftError(
            "--engine openvino needs OpenVINO, an optional extra: pip install 'topgraft[openvino]'."
        )
