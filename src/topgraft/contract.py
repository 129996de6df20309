"""The freeze contract in a training loop that is not ours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from torch import nn
from torch.utils.hooks import RemovableHandle

from topgraft.backbones.matching import digest_of
from topgraft.backbones.types import some
from topgraft.errors import RunningError, TopgraftError
from topgraft.graft import Graft

if TYPE_CHECKING:
    from typing_extensions import Self


class Optimizer(Protocol):
    """What has groups of parameters: torch's optimizers, and what libraries wrap them in."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups, each with its ``params``."""


@dataclass
class _Noted:
    """Up to where a graft was frozen, and a digest of each of its frozen tensors."""

    graft: Graft
    freeze: int = 0
    digests: dict[str, str] = field(default_factory=dict)


class Contract:
    """Holds every graft inside a module to the freeze contract while something else trains the module.

    At the beginning a parameter of a frozen block in an optimizer is an error. Before each forward pass
    frozen blocks are put back into eval mode, without gradients, should anything have changed that. At the
    end (and where :meth:`topgraft.Graft.freeze_to` was called in between) every parameter and buffer of
    frozen blocks is compared, bit for bit, with what it was.

    Parameters
    ----------
    module
        A graft, or any module with grafts somewhere inside.
    *optimizers
        Those that train it.

    Raises
    ------
    TopgraftError
        At the beginning, if there is no graft, or a parameter of a frozen block in an optimizer.
    RunningError
        At the end, if something of a frozen block has changed.

    Examples
    --------
    >>> import torch, topgraft as tg
    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> graft = tg.graft(network, freeze=1, head=3, example=torch.randn(2, 4))
    >>> optimizer = torch.optim.AdamW(tg.parameter_groups(graft, rate=1e-3))
    >>> with Contract(graft, optimizer):
    ...     graft(torch.randn(5, 4)).sum().backward()
    ...     optimizer.step()
    >>> with Contract(graft, torch.optim.SGD(graft.parameters())):
    ...     pass
    Traceback (most recent call last):
    ...
    topgraft.errors.TopgraftError: 2 parameters of frozen blocks are in the optimizer SGD: 0.weight, 0.bias.
    ...
    """

    def __init__(self, module: nn.Module, *optimizers: Optimizer) -> None:
        self.module, self.optimizers = module, optimizers
        self._noted: dict[str, _Noted] = {}
        self._handles: list[RemovableHandle] = []

    def begin(self) -> None:
        """Check the optimizers, note what is frozen, and listen for forward passes."""
        self.close()
        grafts = {name: one for name, one in self.module.named_modules() if isinstance(one, Graft)}
        if not grafts:
            raise TopgraftError(
                f"There is no graft in {type(self.module).__name__}; expected one, as tg.graft makes it, "
                "among its modules."
            )
        for graft in grafts.values():
            _restore(graft)
            for optimizer in self.optimizers:
                _refuse_frozen(graft, optimizer)
        for name, graft in grafts.items():
            self._note(name, graft)
            self._handles.append(graft.register_forward_pre_hook(partial(self._before, name)))

    def end(self) -> None:
        """Compare what is frozen with what it was, and stop listening."""
        changed = [one for name in self._noted for one in self._changed(name)]
        self.close()
        _refuse(changed)

    def close(self) -> None:
        """Stop listening, without a comparison."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._noted = [], {}

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        if kind is None:
            self.end()
        else:
            self.close()

    def _before(self, name: str, graft: Graft, _args: Any) -> None:
        """Before a forward pass."""
        if graft.freeze != self._noted[name].freeze:
            _refuse(self._changed(name))
            self._note(name, graft)
        _restore(graft)

    def _note(self, name: str, graft: Graft) -> None:
        tensors = graft.frozen_tensors()
        self._noted[name] = _Noted(graft, graft.freeze, {n: digest_of({"": t}) for n, t in tensors.items()})

    def _changed(self, name: str) -> list[str]:
        """Names of what is not what it was; with the graft's own name where it is one of several modules."""
        noted = self._noted[name]
        now = noted.graft.kept_tensors()
        changed = [n for n, was in noted.digests.items() if n not in now or digest_of({"": now[n]}) != was]
        return [f"{name}: {n}" if name and len(self._noted) > 1 else n for n in changed]


def _restore(graft: Graft) -> None:
    """Put frozen blocks into eval mode and without gradients, where they are not."""
    if graft.frozen is not None and (
        any(module.training for module in graft.frozen.modules())
        or any(parameter.requires_grad for parameter in graft.frozen.parameters())
    ):
        graft.uphold()
        graft.train(graft.training)


def _refuse_frozen(graft: Graft, optimizer: Optimizer) -> None:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    frozen = [name for name, parameter in graft.frozen_parameters() if id(parameter) in held]
    if frozen:
        kind = type(getattr(optimizer, "optimizer", optimizer)).__name__
        raise TopgraftError(
            f"{_counted(frozen, 'parameter')} of frozen blocks {'is' if len(frozen) == 1 else 'are'} in the "
            f"optimizer {kind}: {some(tuple(frozen), limit=3)}. Weight decay or momentum may change them "
            "without a gradient.\nGive it what trains: tg.parameter_groups(graft, rate=...), or "
            "[p for p in model.parameters() if p.requires_grad]."
        )


def _refuse(changed: Iterable[str]) -> None:
    names = tuple(changed)
    if names:
        raise RunningError(
            f"{_counted(names, 'tensor')} of frozen blocks changed in the training: {some(names, limit=3)}. "
            "Something wrote to them directly: an average of weights, statistics of batch norms that were "
            "reset, or weights that were loaded. The model is not the frozen network with a new head."
        )


def _counted(names: list[str] | tuple[str, ...], what: str) -> str:
    return f"{len(names)} {what}{'' if len(names) == 1 else 's'}"
