from __future__ import annotations

import torch
from torch import nn

from topgraft.features.structure import structure_of


def test_the_same_weights_in_a_network_of_another_kind_have_another_structure():
    def network(act: type[nn.Module]) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 4), act(), nn.Linear(4, 2))

    assert structure_of(network(nn.ReLU)) == structure_of(network(nn.ReLU).train())
    assert structure_of(network(nn.ReLU)) != structure_of(network(nn.GELU))
    attention = [nn.MultiheadAttention(4, heads) for heads in (1, 2)]
    assert structure_of(attention[0]) != structure_of(attention[1])
    hooked = network(nn.ReLU)
    hooked.register_forward_hook(lambda *_: None)
    assert structure_of(hooked) == structure_of(network(nn.ReLU))
