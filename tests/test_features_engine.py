from __future__ import annotations

import pytest
import torch
from small_networks import bits, differing, example_maps, kept, maps
from torch import nn

from topgraft.chain import Chain
from topgraft.features.engine import Engine
from topgraft.pooling import pool


@pytest.fixture(scope="module")
def chain() -> Chain:
    return Chain.of(maps(dropout=0.5), example_maps())


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_it_gives_what_the_part_gives(chain, cut):
    x = example_maps(5, seed=2)
    with torch.no_grad():
        expected = chain[:cut].eval()(x).tensors[0]
    got = Engine(chain[:cut]).run({"x": x}).tensors[0]
    assert torch.allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_the_part_that_it_was_made_from_stays_as_it_was(chain):
    segment = chain[:3].train()
    before = kept(segment)
    engine = Engine(segment, precision="bf16")
    engine.run({"x": example_maps(3)})
    assert differing(kept(segment), before) == set()
    assert segment.training
    assert all(p.requires_grad for p in segment.parameters())
    assert all(p.dtype == torch.float32 for p in segment.parameters())


def test_it_runs_in_eval_mode_without_gradients_and_gives_the_same_bits_twice(chain):
    engine = Engine(chain[:4].train())
    x = example_maps(3)
    first, second = (engine.run({"x": x}).tensors[0] for _ in range(2))
    assert bits(first) == bits(second)
    assert not first.requires_grad
    assert not any(p.requires_grad for p in engine.segment.parameters())


def test_every_cut_is_seen_on_the_way(chain):
    seen = {}
    engine = Engine(chain[:3])
    end = engine.run({"x": example_maps(4)}, tap=lambda k, s: seen.__setitem__(k, s.map(torch.clone)))
    assert list(seen) == [1, 2, 3]
    assert torch.equal(seen[3].tensors[0], end.tensors[0])
    for cut, state in seen.items():
        alone = Engine(chain[:cut]).run({"x": example_maps(4)})
        assert torch.allclose(state.tensors[0], alone.tensors[0], atol=1e-6)


def test_bf16_is_near_and_not_the_same(chain):
    x = example_maps(6)
    exact, rough = (pool(Engine(chain[:4], precision=p).run({"x": x}), "map") for p in ("fp32", "bf16"))
    assert not torch.equal(exact, rough)
    assert torch.allclose(exact, rough, rtol=0.05, atol=0.1)
    assert Engine(chain[:4], precision="bf16").run({"x": x}).tensors[0].dtype == torch.bfloat16


def test_whole_numbers_stay_whole():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    ids = torch.randint(0, 9, (3, 5))
    chain = Chain.of(network, ids, output_layer="")
    engine = Engine(chain[:2], precision="bf16")
    state = engine.run({"input": ids})
    assert state.tensors[0].dtype == torch.bfloat16
    assert torch.equal(state.inputs["input"], ids)
