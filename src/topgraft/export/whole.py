"""A graft as one module from plain tensors to plain tensors, and as a graph with open batch and length."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from topgraft.chain import Segment, State
from topgraft.chain.point import Dim, Shape
from topgraft.errors import TopgraftError
from topgraft.head import Head
from topgraft.saved import Model, built_from

if TYPE_CHECKING:
    from torch.export import ExportedProgram

OUTPUTS = ("logits", "probabilities")


class Whole(nn.Module):
    """Kept blocks and head as one module: the network's inputs in order -> logits and probabilities.

    Parameters
    ----------
    kept
        From the network's inputs to the last cut.
    head
        Reads the state there.
    """

    def __init__(self, kept: Segment, head: Head) -> None:
        super().__init__()
        self.kept, self.head = kept, head
        self.names = tuple(kept.input_shapes)
        self.to(memory_format=torch.contiguous_format)
        self.requires_grad_(requires_grad=False).eval()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and probabilities, each ``(batch, classes)`` float32."""
        logits = self.head(self._reached(dict(zip(self.names, inputs, strict=True))))
        return logits, torch.softmax(logits, 1)

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
    return Whole(copy.deepcopy(part), head)


def program_of(
    whole: Whole, shapes: Mapping[str, Shape], example: Mapping[str, Tensor], *, longest: int | None
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
    longest
        The greatest length; ``None`` where there is none.

    Raises
    ------
    TopgraftError
        If the network can't be exported.
    """
    batch = torch.export.Dim("batch")
    length = torch.export.Dim("length") if longest is None else torch.export.Dim("length", max=longest)
    sizes = tuple(
        {axis: _open(dim, batch, length) for axis, dim in enumerate(shape.dims) if dim.batch or dim.length}
        for shape in shapes.values()
    )
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


def _open(dim: Dim, batch: Any, length: Any) -> Any:
    if dim.batch and dim.length:
        return torch.export.Dim.AUTO
    size = batch if dim.batch else length
    return size if dim.factor == 1 else dim.factor * size


def open_shape(shape: Shape) -> list[int | str]:
    """Sizes of an input, ``"batch"`` and ``"length"`` for those that are open.

    Examples
    --------
    >>> open_shape(Shape((Dim(1, batch=1), Dim(3), Dim(4, length=1)), torch.float32))
    ['batch', 3, '4*length']
    """
    return [_size_name(dim) for dim in shape.dims]


def _size_name(dim: Dim) -> int | str:
    names = [name for name, is_there in (("batch", dim.batch), ("length", dim.length)) if is_there]
    if not names:
        return dim.factor
    return "*".join(names if dim.factor == 1 else [str(dim.factor), *names])
