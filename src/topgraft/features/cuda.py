"""The frozen part of a network on a GPU: a batch is one recorded launch, and copies run beside it."""

from __future__ import annotations

import queue
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from topgraft.chain import Segment, State
from topgraft.chain.recurrent import compact
from topgraft.chain.running import Tap
from topgraft.device import has_gpu
from topgraft.errors import TopgraftError, is_out_of_memory
from topgraft.features.engine import PRECISIONS, Engine
from topgraft.pooling import pool

SLOTS = 3
"""Batches under way at once: one is copied to the GPU, one computed, one copied back."""
MOST = 256
"""Examples in a batch of a pass: more do not make an H100 faster."""
SHARE = 0.5
"""Of the GPU's free memory that batches under way may take."""
MEASURED = 4
"""Examples by which the memory of one is measured."""
AFTER = 8
"""Batches of a form after which its launches are recorded, which takes as long as launching several."""
RECORDED = 4
"""Forms of batches whose launches a slot keeps; texts have one for each length."""

Tensors = dict[str, Tensor]
Key = tuple[object, ...]


def has_bf16() -> bool:
    """Whether the GPU multiplies bf16 numbers by units of its own (compute capability 8.0 and higher)."""
    return has_gpu() and torch.cuda.get_device_capability() >= (8, 0)


def version() -> str:
    """Of PyTorch, and that a GPU ran it.

    Raises
    ------
    TopgraftError
        If there is none.
    """
    _must_be_there()
    return f"torch {torch.__version__} on cuda"


@dataclass(frozen=True)
class _Recording:
    """Launches that were recorded once and are repeated as one, and the memory that they read and write.

    Source: Nguyen et al., "Accelerating PyTorch with CUDA Graphs", PyTorch's blog, 2021.
    """

    graph: torch.cuda.CUDAGraph
    inputs: Tensors
    found: tuple[Tensor, ...]


class _Slot:
    """What one batch under way has to itself: a stream, and recordings that share their memory."""

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()
        self.recordings: OrderedDict[Key, _Recording] = OrderedDict()

    def recording(self, key: Key) -> _Recording | None:
        """That of a form, which is then the last to be forgotten."""
        if key in self.recordings:
            self.recordings.move_to_end(key)
        return self.recordings.get(key)

    def keep(self, key: Key, recording: _Recording) -> None:
        """One more; the one that was not used for longest is forgotten for it."""
        self.recordings[key] = recording
        if len(self.recordings) > RECORDED:
            self.recordings.popitem(last=False)


class CudaEngine(Engine):
    """The same as :class:`Engine`, on a GPU. Several threads may call it.

    Inputs are put into pinned memory in the engine's precision and copied on a stream of their own, so that
    the GPU computes one batch while the next is on its way. After :data:`AFTER` batches of a form all
    launches of a batch are repeated as one (CUDA graphs), since starting them one by one takes a processor
    longer than the GPU takes to do them. fp32 is fp32: convolutions do not round to TF32.

    Parameters
    ----------
    segment, precision
        As for :class:`Engine`.

    Raises
    ------
    TopgraftError
        If there is no GPU, or it has no units for bf16.
    """

    name = "cuda"

    def __init__(self, segment: Segment, *, precision: str = "fp32") -> None:
        _must_be_there(precision)
        super().__init__(segment, precision=precision, device="cuda")
        compact(self.segment)
        self._slots: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        for _ in range(SLOTS):
            self._slots.put(_Slot())
        self._lock = threading.Lock()
        self._seen: Counter[Key] = Counter()
        self._widths: dict[Key, dict[int, int]] = {}
        self._plain: set[Key] = set()
        """Forms of batches that can't be recorded: such a network asks the GPU for numbers on its way."""

    def run(self, inputs: Mapping[str, Tensor], *, tap: Tap | None = None) -> State:
        """The state at the segment's end, on the GPU in the engine's precision."""
        if tap is not None:
            with self._lock, _exact():
                return super().run(inputs, tap=tap)
        carried = {n: t.to(self.device) for n, t in inputs.items() if not t.is_floating_point()}

        def state(given: Tensors) -> tuple[Tensor, ...]:
            reached: State = self._format.run(self.segment, given)
            return reached.tensors

        return State(tuple(self._infer(("state",), state, inputs, torch.clone)), carried)

    def pooled(self, inputs: Mapping[str, Tensor], layouts: Mapping[int, str]) -> dict[int, Tensor]:
        """Pooled activations at every cut, all by one run; they come back by one copy."""
        key = ("pooled", *sorted(layouts.items()))

        def every(given: Tensors) -> tuple[Tensor, ...]:
            found: dict[int, Tensor] = {}

            def tap(cut: int, state: State) -> None:
                found[cut] = pool(state, layouts[cut])

            self._format.run(self.segment, given, tap=tap)
            self._widths[key] = {cut: found[cut].shape[1] for cut in sorted(found)}
            return (torch.cat([found[cut] for cut in sorted(found)], 1),)

        (together,) = self._infer(key, every, inputs, Tensor.cpu)
        widths = self._widths[key]
        parts = together.split(list(widths.values()), 1)
        return {cut: part.contiguous() for cut, part in zip(widths, parts, strict=True)}

    def examples_at_once(self, inputs: Mapping[str, Tensor]) -> int:
        """How many examples like these batches may have, by the memory that a few take and what is free."""
        few = {n: torch.cat([t] * MEASURED)[:MEASURED] for n, t in inputs.items()}
        torch.cuda.empty_cache()
        with self._lock, _exact(), torch.inference_mode():
            self._format.run(self.segment, self._prepared(few))  # loads kernels, which take memory, too
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self._format.run(self.segment, self._prepared(few))
            each = max(1, torch.cuda.max_memory_allocated() - before) / MEASURED
        free, _ = torch.cuda.mem_get_info()
        fits = int(SHARE * free / (SLOTS * each))
        return min(MOST, 1 << max(0, fits.bit_length() - 1))

    def _infer(
        self,
        use: Key,
        work: Callable[[Tensors], tuple[Tensor, ...]],
        inputs: Mapping[str, Tensor],
        out: Callable[[Tensor], Tensor],
    ) -> list[Tensor]:
        """``out`` of every tensor that ``work`` gives for a batch."""
        pinned = {n: self._pinned(t) for n, t in inputs.items()}
        key = (*use, *((n, tuple(t.shape), t.dtype) for n, t in sorted(pinned.items())))
        slot = self._slots.get()
        try:
            with torch.inference_mode(), torch.cuda.stream(slot.stream):
                recording = slot.recording(key)
                if recording is None and self._seen[key] >= AFTER and key not in self._plain:
                    recording = self._record(slot, key, work, pinned)
                self._seen[key] += 1
                if recording is None:
                    with self._lock, _exact():
                        found = work(self._prepared(pinned))
                else:
                    for name, tensor in recording.inputs.items():
                        tensor.copy_(pinned[name], non_blocking=True)
                    recording.graph.replay()
                    found = recording.found
                plain = [out(tensor) for tensor in found]
                slot.stream.synchronize()
        except BaseException:
            slot.recordings.clear()  # with the memory that they hold
            raise
        finally:
            self._slots.put(slot)
        return plain

    def _record(
        self, slot: _Slot, key: Key, work: Callable[[Tensors], tuple[Tensor, ...]], pinned: Tensors
    ) -> _Recording | None:
        """Record what ``work`` launches for a form of batches, after a run that loads its kernels.

        ``None`` where it can't be recorded: it is then launched step by step, with the same numbers.
        """
        with self._lock, _exact():
            inputs = self._prepared(pinned)
            work(inputs)
            slot.stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, stream=slot.stream, capture_error_mode="thread_local"):
                    found = work(inputs)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                self._plain.add(key)
                return None
        recording = _Recording(graph, inputs, found)
        slot.keep(key, recording)
        return recording

    def _pinned(self, tensor: Tensor) -> Tensor:
        """In memory that the GPU copies from by itself, and in the engine's precision."""
        if tensor.device.type != "cpu":
            return self.prepare(tensor)
        dtype = self.dtype if tensor.is_floating_point() else tensor.dtype
        return torch.empty(tensor.shape, dtype=dtype, pin_memory=True).copy_(tensor)

    def _prepared(self, inputs: Mapping[str, Tensor]) -> Tensors:
        return {n: self.prepare(t) for n, t in inputs.items()}


@contextmanager
def _exact() -> Iterator[None]:
    """No TF32 in convolutions, as there is none in matrix products by default; the same bits each time."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def _must_be_there(precision: str = "fp32") -> None:
    if not has_gpu():
        raise TopgraftError(
            "--engine cuda needs a GPU, and PyTorch sees none (torch.cuda.is_available() is False): take "
            "--engine torch."
        )
    if precision == "bf16" and not has_bf16():
        name = torch.cuda.get_device_name()
        raise TopgraftError(
            f"--precision {precision} needs a GPU with units for it (compute capability 8.0 or higher), and "
            f"{name} has none: take --precision fp32. Known precisions: {', '.join(PRECISIONS)}."
        )
