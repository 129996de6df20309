"""Whether training the rest from stored states is training the network with its beginning frozen."""

from __future__ import annotations

import copy
from math import isnan
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from topgraft.chain.nesting import nested
from topgraft.chain.pruning import is_skipped
from topgraft.chain.replay import Segment, first_tensor
from topgraft.chain.state import Inputs, State
from topgraft.errors import is_out_of_memory

_DROPS = {"dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "alpha_dropout"}


class WithoutChance(TorchFunctionMode):
    """Functions that draw random numbers give their mean, so that two runs can be compared."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in _DROPS:
            return args[0] if args else kwargs["input"]
        if name == "scaled_dot_product_attention":
            kwargs["dropout_p"] = 0.0
            args = args[:4]
        if name == "multi_head_attention_forward":
            kwargs["training"] = False
        result = func(*args, **kwargs)
        if name in ("bernoulli_", "bernoulli"):
            return result.fill_(1)
        if name in ("rand", "rand_like", "uniform_"):
            return result.fill_(0.5)
        return result.fill_(0) if name in ("randn", "randn_like", "normal_") else result


def gradients_apart(
    network: nn.Module, rest: Segment, frozen: set[str], inputs: Inputs, state: State
) -> tuple[float, str]:
    """The largest difference between gradients, relative to the largest gradient.

    Parameters
    ----------
    network
        The whole.
    rest
        The part from the cut on, through the old output layer.
    frozen
        Names of the parameters that belong to blocks before the cut.
    inputs, state
        A batch, and what crosses the cut in eval mode.

    Returns
    -------
    tuple of float and str
        And the name of the parameter that differs most. Both run in train mode, the frozen blocks of the
        whole in eval mode; what is drawn at random is set to its mean. A network that asks for more in train
        mode than its inputs (labels) is compared in eval mode.
    """
    present = dict(rest.network.named_modules(remove_duplicate=False))
    trained = {n for n, _ in rest.network.named_parameters()} - frozen
    if not trained:
        return 0.0, ""
    apart: set[str] = set()
    frozen_modules: set[str] = set()
    for name, module in network.named_modules(remove_duplicate=False):
        if name and (name not in present or is_skipped(present[name])):
            apart.add(name)
        elif module._parameters and not any(
            f"{name}.{own}".lstrip(".") in trained for own in module._parameters
        ):
            frozen_modules.add(name)
    with torch.enable_grad(), WithoutChance():
        whole, first, trains = _gradients_of_whole(network, apart | frozen_modules, trained, inputs)
        copied = dict(whole.named_parameters())
        shared = {id(p): copied[n] for n, p in rest.network.named_parameters() if n in copied}
        part = copy.deepcopy(rest, shared)  # with the copied parameters: large networks do not fit thrice
        _set_modes(part, part.network, frozen_modules, trained)
        if not trains:
            part.eval()
        second = _gradients(part.network, part(state))
    return _apart(first, second)


def _gradients_of_whole(
    network: nn.Module, resting: set[str], trained: set[str], inputs: Inputs
) -> tuple[nn.Module, dict[str, Tensor], bool]:
    """A copy, its gradients, and whether it ran in train mode."""
    whole = copy.deepcopy(network)
    _set_modes(whole, whole, resting, trained)
    try:
        return whole, _gradients(whole, first_tensor(whole(**nested(inputs)))), True
    except Exception as error:  # the network's own code may ask for anything in train mode
        if is_out_of_memory(error):
            raise
    whole = copy.deepcopy(network)  # the attempt may have changed running statistics
    _set_modes(whole, whole, resting, trained)
    whole.eval()
    return whole, _gradients(whole, first_tensor(whole(**nested(inputs)))), False


def _set_modes(runs: nn.Module, network: nn.Module, resting: set[str], trained: set[str]) -> None:
    """All in train mode but the modules at rest; gradients for the trained parameters only."""
    runs.train()
    for name, module in network.named_modules(remove_duplicate=False):
        if name in resting:
            module.eval()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trained)


def _gradients(module: nn.Module, output: Tensor) -> dict[str, Tensor]:
    if not output.requires_grad:
        return {}
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype, device=output.device)
    torch.autograd.backward((output * weights.view(output.shape)).sum())
    found = {n: p.grad for n, p in module.named_parameters() if p.requires_grad and p.grad is not None}
    module.zero_grad(set_to_none=True)
    return found


def _apart(first: dict[str, Tensor], second: dict[str, Tensor]) -> tuple[float, str]:
    scale = max((float(g.abs().max()) for g in first.values()), default=0.0)
    worst, at = 0.0, ""
    for name in first.keys() | second.keys():
        a, b = first.get(name), second.get(name)
        if a is None or b is None:
            one = a if a is not None else b
            gap = float(one.abs().max()) if one is not None else 0.0
        else:
            gap = float((a.double() - b.double()).abs().max())
        if isnan(gap) or gap > worst:
            worst, at = gap, name
    return (worst / scale if scale > 0 else worst), at
