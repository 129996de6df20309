from __future__ import annotations

import pytest
import torch
from small_networks import differing, example_maps, kept, maps

from topgraft.chain.point import Dim, Shape
from topgraft.chain.pruning import Skip, pruned


def test_pruning_shares_what_stays_and_leaves_the_original_alone():
    network = maps()
    before = kept(network)
    shape = Shape((Dim(1, batch=1), Dim(6), Dim(6), Dim(6)), torch.float32)
    result = pruned(network, skip={"blocks.0": Skip(shape)}, absent=["fc.weight"])
    assert differing(kept(network), before) == set()
    assert result.stem.weight is network.stem.weight
    assert not list(result.blocks[0].named_parameters())
    assert all(bool(p.isnan().all()) for p in result.blocks[0].parameters())
    assert type(result.blocks[0]) is type(network.blocks[0])
    assert bool(result.fc.weight.isnan().all())
    assert "fc.weight" not in result.state_dict()
    with pytest.raises(RuntimeError, match="runs through its segment"):
        result(example_maps())
