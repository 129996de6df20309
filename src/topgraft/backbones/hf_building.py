"""Networks built from a configuration of Transformers, which anybody may have written."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from topgraft.backbones.weights import Weights
from topgraft.errors import TopgraftError, is_out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

MOST_LAYERS = 1000
"""Of a network: building ever more of them would take all memory before anything else is noticed."""
TIMES, BESIDE = 8, 1 << 24
"""A network has at most so many times the numbers that its weights hold, and so many more."""
_LAYERS = re.compile(r"(^|_)(layers?|depths?)$")


def unusable(kind: str, why: object) -> TopgraftError:
    """The error that a configuration can't be used.

    Parameters
    ----------
    kind
        Its type of network.
    why
        What is wrong, or the error that said so.
    """
    said = " ".join(str(why).split()) or type(why).__name__
    return TopgraftError(f"The configuration of this {kind} network can't be used: {said:.200}")


def built(cls: Any, config: PreTrainedConfig, options: Mapping[str, Any]) -> Any:
    """The network of a configuration, with random values.

    Raises
    ------
    TopgraftError
        If the configuration is of no network that can be built.
    """
    must_be_few(config)
    return _tried(config, lambda: cls(config, **options))


def must_be_described(
    cls: Any, config: PreTrainedConfig, options: Mapping[str, Any], weights: Weights
) -> None:
    """Refuse a configuration that is of another network than its weights, before memory is taken for it.

    Raises
    ------
    TopgraftError
        If no network can be built by it, or one that is far larger than the weights.
    """
    must_be_few(config)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = _tried(config, lambda: cls(config, **options))
    wanted = sum(tensor.numel() for tensor in network.state_dict().values())
    given = sum(tensor.numel() for tensor in weights.tensors.values())
    if wanted > TIMES * given + BESIDE:
        raise unusable(
            config.model_type, f"it is of {wanted:,} numbers, and {weights.origin} holds {given:,}"
        )


def must_be_few(config: PreTrainedConfig) -> None:
    """Refuse a configuration of more than :data:`MOST_LAYERS` layers."""
    for name, count in _counts(config.to_dict()):
        if count > MOST_LAYERS:
            raise unusable(config.model_type, f"{name} is {count:,}, expected at most {MOST_LAYERS:,}")


def _counts(settings: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """How many layers a configuration and those inside it want, by the names of the settings."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _counts(value)
        elif _LAYERS.search(str(name)):
            several = value if isinstance(value, (list, tuple)) else [value]
            yield from ((str(name), one) for one in several if isinstance(one, int))


def _tried(config: PreTrainedConfig, build: Callable[[], Any]) -> Any:
    """What ``build`` gives; what goes wrong in a network with its settings is said."""
    try:
        return build()
    except TopgraftError:
        raise
    except Exception as error:  # every network checks its settings, if at all, in its own way
        if is_out_of_memory(error):
            raise
        raise unusable(config.model_type, error) from error
