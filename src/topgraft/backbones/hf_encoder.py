"""The encoder of an encoder-decoder of Transformers (T5, BART, Whisper), under the names of the whole."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from topgraft.backbones.types import Filled
from topgraft.errors import TopgraftError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


class Alone(nn.Module):
    """The encoder of a network; its parameters keep the names that they have in the whole network.

    Parameters
    ----------
    network
        The whole; its decoder is let go.

    Raises
    ------
    TopgraftError
        If it reads something else, or has no encoder of its own.
    """

    main_input_name: str

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        encoder: Any = network.get_encoder()
        name = next((n for n, module in network.named_modules() if module is encoder and n), None)
        if name is None or "." in name or network.main_input_name != self.main_input_name:
            raise TopgraftError(
                f"{type(network).__name__} has no encoder for texts or sounds; "
                "expected one that reads input_ids or input_features."
            )
        self.config = network.config
        self._name = name
        self.add_module(name, encoder)


class Encoder(Alone):
    """An encoder that reads tokens."""

    main_input_name = "input_ids"

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        """What the encoder gives."""
        return self.get_submodule(self._name)(input_ids=input_ids, attention_mask=attention_mask)


class SoundEncoder(Alone):
    """An encoder that reads spectra of sounds."""

    main_input_name = "input_features"

    def forward(self, input_features: Tensor) -> Any:
        """What the encoder gives."""
        return self.get_submodule(self._name)(input_features)


def encoder_alone(network: PreTrainedModel) -> Encoder | SoundEncoder:
    """The encoder of a network, for what that reads."""
    reads_sounds = network.main_input_name == SoundEncoder.main_input_name
    return SoundEncoder(network) if reads_sounds else Encoder(network)


def has_decoder(config: PreTrainedConfig) -> bool:
    """Whether the network of a configuration also has a decoder; one saved alone (T5's) is built with it."""
    return bool(config.is_encoder_decoder) or any(
        name.endswith("EncoderModel") for name in config.architectures or ()
    )


def encoder_of(network: PreTrainedModel, filled: Filled) -> tuple[Encoder | SoundEncoder, Filled]:
    """The encoder, and what of the weights arrived there; what the decoder got is not needed.

    Words are one table for encoder and decoder (``shared`` in T5, BART), which may be written once.
    """
    whole = network.state_dict()
    places = {(t.data_ptr(), t.shape, t.stride()) for n, t in whole.items() if n in filled.arrived}
    encoder = encoder_alone(network)
    state = encoder.state_dict()
    arrived = {n for n, t in state.items() if (t.data_ptr(), t.shape, t.stride()) in places}
    return encoder, replace(
        filled,
        arrived=frozenset(arrived),
        unused=filled.unused | (filled.arrived - set(state)),
        misshapen={n: said for n, said in filled.misshapen.items() if n in state},
    )
