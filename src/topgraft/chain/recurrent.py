"""Recurrent networks of several layers, taken apart so that they can be cut between their layers.

``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` run all their layers in one kernel. Here the same parameters run in one
kernel a layer (and the dropout between layers stays where it was): the same numbers, with places to cut.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


class Layered(nn.Module):
    """What the layered forms of recurrent networks share: ``layer0``, ``layer1``, … one after another."""

    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002 (torch's own name)
        """As the original: the last layer's output and every layer's last state."""
        count, dropout = int(_setting(self, "num_layers")), float(_setting(self, "dropout"))
        directions = 2 if self.bidirectional else 1
        last: list[Any] = []
        for number in range(count):
            part = slice(number * directions, (number + 1) * directions)
            start = None if hx is None else hx[part] if isinstance(hx, Tensor) else tuple(h[part] for h in hx)
            input, state = getattr(self, f"layer{number}")(input, start)  # noqa: A001 (as above)
            last.append(state)
            if dropout and self.training and number + 1 < count:
                input = _dropped(input, dropout)  # noqa: A001 (as above)
        if isinstance(last[0], Tensor):
            return input, torch.cat(last)
        return input, tuple(torch.cat(states) for states in zip(*last, strict=True))


class LayeredLSTM(Layered, nn.LSTM):
    """An ``nn.LSTM`` whose layers are modules."""


class LayeredGRU(Layered, nn.GRU):
    """An ``nn.GRU`` whose layers are modules."""


class LayeredRNN(Layered, nn.RNN):
    """An ``nn.RNN`` whose layers are modules."""


_FORMS: dict[type, type[nn.RNNBase]] = {nn.LSTM: LayeredLSTM, nn.GRU: LayeredGRU, nn.RNN: LayeredRNN}


def _setting(module: Any, name: str) -> Any:
    return getattr(module, name)


def _is_deep(module: nn.Module) -> bool:
    return type(module) in _FORMS and int(_setting(module, "num_layers")) > 1


def _dropped(given: Any, share: float) -> Any:
    if isinstance(given, PackedSequence):
        return given._replace(data=nn.functional.dropout(given.data, share))
    return nn.functional.dropout(given, share)


def layered(network: nn.Module) -> nn.Module:
    """The network with every recurrent module of several layers in its layered form.

    Parameters
    ----------
    network
        Not changed; itself where it has no such module.

    Returns
    -------
    nn.Module
        It shares all parameters and buffers with the original, under the original's names.

    Examples
    --------
    >>> original = nn.LSTM(3, 4, num_layers=2)
    >>> x = torch.randn(5, 2, 3)
    >>> torch.allclose(layered(original)(x)[0], original(x)[0], atol=1e-6)
    True
    >>> layered(original).state_dict().keys() == original.state_dict().keys()
    True
    """
    if not any(_is_deep(m) for m in network.modules()):
        return network
    memo: dict[int, Any] = {id(t): t for t in (*network.parameters(), *network.buffers())}
    result = copy.deepcopy(network, memo)
    for module in list(result.modules()):
        if _is_deep(module):
            _take_apart(module)
    return result


def compact(network: nn.Module) -> None:
    """Put the weights of each recurrent layer side by side, as GPUs want them; after a move to one.

    Moving a module in its layered form leaves them in the order of all its layers. Does nothing elsewhere.
    """
    for module in network.modules():
        if isinstance(module, nn.RNNBase) and type(module) in _FORMS:
            module.flatten_parameters()


def _take_apart(module: Any) -> None:
    kind = type(module)
    names = [n for n, _ in module.named_parameters(recurse=False)]
    directions = 2 if module.bidirectional else 1
    width = (getattr(module, "proj_size", 0) or module.hidden_size) * directions
    options = {"proj_size": module.proj_size} if kind is nn.LSTM else {}
    if kind is nn.RNN:
        options["nonlinearity"] = module.nonlinearity
    module.__class__ = _FORMS[kind]
    for number in range(module.num_layers):
        layer = kind(
            module.input_size if number == 0 else width,
            module.hidden_size,
            bias=module.bias,
            batch_first=module.batch_first,
            bidirectional=module.bidirectional,
            device="meta",
            **options,
        )
        for name in names:
            stem, _, rest = name.rpartition("_l")
            if rest.removesuffix("_reverse") == str(number):
                setattr(layer, f"{stem}_l0{rest[len(str(number)) :]}", getattr(module, name))
        module.add_module(f"layer{number}", layer.train(module.training))
    module.register_state_dict_post_hook(_leave_out_second_names)
    module.register_load_state_dict_pre_hook(_add_second_names)


def _second_names(module: nn.Module, prefix: str) -> dict[str, str]:
    """Per name of a parameter inside a layer its name in the original; both may be left out of a part."""
    names: dict[str, str] = {}
    for child_name, child in module.named_children():
        number = child_name.removeprefix("layer")
        for name in child._parameters:
            first = name.replace("_l0", f"_l{number}")
            names[f"{prefix}{child_name}.{name}"] = prefix + first
    return names


def _leave_out_second_names(module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    for second in _second_names(module, prefix):
        state.pop(second, None)


def _add_second_names(module: nn.Module, state: dict[str, Any], prefix: str, *_rest: Any) -> None:
    for second, first in _second_names(module, prefix).items():
        if first in state and second not in state:
            state[second] = state[first]
