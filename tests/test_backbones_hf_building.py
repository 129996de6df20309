from __future__ import annotations

import resource

import pytest
from transformers import BertConfig, BertModel, PreTrainedConfig, Swinv2Config, Swinv2Model, T5Config, T5Model

from topgraft.backbones.hf_building import MOST_LAYERS, built, must_be_described, must_be_few
from topgraft.backbones.weights import Weights
from topgraft.errors import TopgraftError

SMALL = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 17,
}
OPTIONS = {"add_pooling_layer": False}


def weights() -> Weights:
    tensors = BertModel(BertConfig(**SMALL), **OPTIONS).state_dict()
    return Weights(tensors, "weights.safetensors", ordered=False)


def test_a_network_is_built_with_the_sizes_of_its_configuration():
    network = built(BertModel, BertConfig(**SMALL), OPTIONS)
    wanted = weights().tensors
    assert {n: t.shape for n, t in network.state_dict().items()} == {n: t.shape for n, t in wanted.items()}
    assert all(t.device.type == "cpu" for t in network.state_dict().values())


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (BertConfig(**SMALL | {"num_hidden_layers": MOST_LAYERS + 1}), "num_hidden_layers is 1,001"),
        (T5Config(num_decoder_layers=10**9), "num_decoder_layers is 1,000,000,000"),
        (Swinv2Config(depths=[2, 2, 10**6, 2]), "depths is 1,000,000"),
    ],
)
def test_more_layers_than_any_network_has_are_refused(config: PreTrainedConfig, name: str):
    with pytest.raises(TopgraftError, match=f"this {config.model_type} network can't be used: {name}"):
        must_be_few(config)
    cls = {"bert": BertModel, "t5": T5Model, "swinv2": Swinv2Model}[config.model_type]
    with pytest.raises(TopgraftError, match="expected at most 1,000"):
        built(cls, config, {})
    with pytest.raises(TopgraftError, match="expected at most 1,000"):
        must_be_described(cls, config, {}, weights())


def test_as_many_layers_as_a_network_may_have_are_not():
    must_be_few(BertConfig(**SMALL | {"num_hidden_layers": MOST_LAYERS}))
    must_be_few(T5Config())
    must_be_few(Swinv2Config())


def test_a_network_far_larger_than_its_weights_is_refused_before_memory_is_taken():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        TopgraftError, match=r"it is of 17,716,7\d\d,\d\d\d numbers, and weights.safetensors holds"
    ):
        must_be_described(BertModel, BertConfig(**SMALL | {"intermediate_size": 1 << 28}), OPTIONS, weights())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # kB


def test_weights_of_a_part_of_a_network_are_described_by_it():
    whole = BertModel(BertConfig(**SMALL), **OPTIONS).state_dict()
    few = {n: t for n, t in whole.items() if n.startswith("embeddings.")}
    must_be_described(BertModel, BertConfig(**SMALL), OPTIONS, Weights(few, "few", ordered=False))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"intermediate_size": -16}, "negative dimension -16"),
        ({"num_attention_heads": 3}, "not a multiple of the number of attention heads"),
        ({"hidden_act": "loud"}, "loud"),
    ],
)
def test_settings_that_no_network_can_have_are_refused_in_its_words(changed: dict[str, object], said: str):
    config = BertConfig(**SMALL | changed)
    for use in (
        lambda: built(BertModel, config, OPTIONS),
        lambda: must_be_described(BertModel, config, OPTIONS, weights()),
    ):
        with pytest.raises(TopgraftError, match=f"this bert network can't be used: .*{said}"):
            use()


class Greedy:
    """A network that wants more memory than there is."""

    def __init__(self, config: PreTrainedConfig) -> None:
        raise MemoryError(f"not enough memory for {config.model_type}")


def test_too_little_memory_is_no_fault_of_a_configuration():
    with pytest.raises(MemoryError, match="not enough memory for bert"):
        built(Greedy, BertConfig(**SMALL), {})
