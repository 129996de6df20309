"""A graft as one module from plain tensors to plain tensors, and as a graph with open batch and length."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn import functional

from topgraft.backbones.sound_preprocess import SoundPreprocess
from topgraft.chain import Segment, State
from topgraft.chain.point import Dim, Shape
from topgraft.data.types import Task
from topgraft.errors import TopgraftError
from topgraft.export.outputs import outputs_of
from topgraft.head import Head
from topgraft.saved import Model, built_from

if TYPE_CHECKING:
    from torch.export import ExportedProgram


class Whole(nn.Module):
    """Kept blocks and head as one module: the network's inputs in order -> what is told of them.

    Parameters
    ----------
    kept
        From the network's inputs to the last cut.
    head
        Reads the state there.
    task
        By which outputs follow from what the head gives.
    """

    def __init__(self, kept: Segment, head: Head, task: Task) -> None:
        super().__init__()
        self.kept, self.head, self.task = kept, head, task
        self.names = tuple(kept.input_shapes)
        self.least: dict[str, tuple[int, int]] = {}
        self.to(memory_format=torch.contiguous_format)
        self.requires_grad_(requires_grad=False).eval()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs ``(batch, ...)`` float32, see :func:`topgraft.export.outputs.outputs_of`."""
        given = dict(zip(self.names, inputs, strict=True))
        for name, (axis, least) in self.least.items():
            given[name] = _filled(given[name], axis, least)
        return outputs_of(self.task, self.head(self._reached(given)))

    def _reached(self, inputs: Mapping[str, Tensor]) -> State:
        """The state at the last cut, where the run stops by an exception that leaves modules half-way.

        The tracer of ``torch.export`` notes in which modules it is and expects each of them to end; what it
        had noted before the run is put back.
        """
        mode = get_proxy_mode()
        if mode is None:
            state: State = self.kept(inputs)
            return state
        tracer: Any = mode.tracer
        inside = tracer.module_stack.copy()
        state = self.kept.forward(inputs)
        tracer.module_stack = inside
        return state


def whole_of(model: Model, *, module: nn.Module | None = None, trust_code: bool = False) -> Whole:
    """A model's graft as one module, in fp32; what was frozen is no part of its own any more.

    Parameters
    ----------
    model
        It is left as it is.
    module, trust_code
        As for :func:`topgraft.open_model`; needed for one's own network of which some kept blocks are
        frozen and others are not.
    """
    graft = model.graft
    if graft.frozen is None or graft.body is None:
        part = graft.body if graft.frozen is None else graft.frozen
        head = copy.deepcopy(graft.head)
    else:
        built = built_from(
            model.description,
            graft.kept_weights(),
            graft.head.state_dict(),
            module=module,
            trust_code=trust_code,
        )
        part, head = built.body, built.head
    assert part is not None
    return Whole(copy.deepcopy(part), head, model.task)


@dataclass(frozen=True)
class Length:
    """What the length of inputs may be.

    Parameters
    ----------
    step
        It is a multiple of this.
    most
        So many steps at most; ``None`` where there is no limit.

    Examples
    --------
    >>> Length().name, Length(160).name
    ('length', '160*windows')
    """

    step: int = 1
    most: int | None = None

    @property
    def name(self) -> str:
        """As it is told."""
        return "length" if self.step == 1 else f"{self.step}*windows"

    def dim(self) -> Any:
        """As ``torch.export`` takes it."""
        more = {} if self.most is None else {"max": self.most}
        if self.step == 1:
            return torch.export.Dim("length", **more)
        return self.step * torch.export.Dim("windows", **more)


def length_of(model: Model) -> Length:
    """What its preprocessing gives: whole windows of sounds, tokens up to the number that it cuts at."""
    if isinstance(model.preprocess, SoundPreprocess):
        return Length(model.preprocess.window, model.preprocess.most)
    return Length(most=getattr(model.preprocess, "max_length", None))


def program_of(
    whole: Whole,
    shapes: Mapping[str, Shape],
    example: Mapping[str, Tensor],
    *,
    steps: Length,
    guarded: bool = False,
) -> ExportedProgram:
    """The graph of ``torch.export``, for any batch and, where inputs have a length, for any length.

    Parameters
    ----------
    whole
        The graft.
    shapes
        Of the inputs, see :func:`topgraft.backbones.grafted.input_shapes`.
    example
        Two inputs or more, which are run once.
    steps
        What their length may be.
    guarded
        Whether the graph will refuse sizes that it was not made for, as PyTorch's own does. It takes a size
        that may be 1 for one that is not, so that inputs of one window are then filled up to two.

    Raises
    ------
    TopgraftError
        If the network can't be exported.
    """
    batch, length = torch.export.Dim("batch"), steps.dim()
    sizes = tuple(
        {axis: _open(dim, batch, length) for axis, dim in enumerate(shape.dims) if dim.batch or dim.length}
        for shape in shapes.values()
    )
    if guarded and steps.step > 1:
        whole.least = {
            name: (axis, 2 * steps.step)
            for name, shape in shapes.items()
            for axis, dim in enumerate(shape.dims)
            if dim.length and not dim.batch
        }
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch about itself; what it gave is checked
            return torch.export.export(
                whole, tuple(example[n] for n in whole.names), dynamic_shapes=(sizes,), strict=False
            )
    except Exception as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise TopgraftError(
            f"PyTorch can't export {type(whole.kept.network).__name__} with an open batch size "
            f"({type(error).__name__}: {reason}). Take --to state-dict or --to huggingface."
        ) from error


def _filled(x: Tensor, axis: int, least: int) -> Tensor:
    """So many steps or more, by zeros at the end, as a shorter input is filled beside a longer one."""
    more: Any = torch.sym_max(0, least - x.shape[axis])
    return functional.pad(x, [0, 0] * (x.ndim - 1 - axis) + [0, more])


def _open(dim: Dim, batch: Any, length: Any) -> Any:
    if dim.batch and dim.length:
        return torch.export.Dim.AUTO
    size = batch if dim.batch else length
    return size if dim.factor == 1 else dim.factor * size


def open_shape(shape: Shape, steps: Length) -> list[int | str]:
    """Sizes of an input, ``"batch"`` and ``"length"`` for those that are open.

    Examples
    --------
    >>> open_shape(Shape((Dim(1, batch=1), Dim(3), Dim(4, length=1)), torch.float32), Length())
    ['batch', 3, '4*length']
    """
    return [_size_name(dim, steps.name) for dim in shape.dims]


def _size_name(dim: Dim, length: str) -> int | str:
    names = [name for name, is_there in (("batch", dim.batch), (length, dim.length)) if is_there]
    if not names:
        return dim.factor
    return "*".join(names if dim.factor == 1 else [str(dim.factor), *names])
