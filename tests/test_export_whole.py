"""A graft as one module, and as a graph whose batch and length are open."""

from __future__ import annotations

import pytest
import torch
from exported_grafts import arrays, expected, fresh_batch, model_of, pictures, texts
from small_networks import CLASSES, backbone_of, differing, example_maps, kept, maps
from torch import Tensor, nn

from topgraft.backbones.grafted import input_shapes
from topgraft.errors import TopgraftError
from topgraft.export.examples import examples_of
from topgraft.export.whole import length_of, program_of, whole_of
from topgraft.saved import Model


@pytest.mark.parametrize("freeze", [0, 2, 4])
def test_the_whole_gives_what_the_graft_gives_and_leaves_it_as_it_was(freeze):
    model = arrays(4, freeze)
    before = kept(model.graft)
    whole = whole_of(model, module=maps(seed=8))
    batch = fresh_batch(model, 6)
    logits, probabilities = whole(*batch.values())
    torch.testing.assert_close(logits, expected(model, batch), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(probabilities, torch.softmax(logits, 1))
    assert differing(kept(model.graft), before) == set()
    assert not any(p.requires_grad for p in whole.parameters())


def program(model: Model, *, module: nn.Module | None = None) -> nn.Module:
    whole, steps = whole_of(model, module=module), length_of(model)
    made = program_of(whole, input_shapes(model.description), examples_of(model).traced, steps=steps)
    return made.module()


@pytest.mark.parametrize("model", [arrays, pictures, texts], ids=lambda f: f.__name__)
def test_a_graph_takes_batches_and_lengths_that_it_was_not_traced_with(model):
    run = program(model())
    for count in (1, 4, 9):
        batch = fresh_batch(model(), count)
        logits, _ = run(*batch.values())
        torch.testing.assert_close(logits, expected(model(), batch), rtol=1e-5, atol=1e-5)


class Between(nn.Module):
    """A network whose states lie between modules, where its own code calls torch functions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.fc = nn.Conv2d(2, 4, 1), nn.Linear(4, CLASSES)
        self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("freeze", [0, 2, 3])
def test_a_graph_ends_where_a_torch_function_gave_the_state(freeze):
    backbone = backbone_of(Between(), example_maps())
    model = model_of(backbone, 3, freeze)
    places = [place for one in backbone.chain.points[2].places for place in one]
    assert {place.when for place in places} == {"op"}
    run = program(model, module=Between())
    batch = fresh_batch(model, 6)
    logits, _ = run(*batch.values())
    torch.testing.assert_close(logits, expected(model, batch), rtol=1e-5, atol=1e-5)


class CountsItsBatch(nn.Module):
    """A network whose code makes a plain number of its batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(2, 4, 1), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x * (len(x) / len(x)))
        return self.fc(torch.relu(x).mean((2, 3)))


def test_a_batch_size_that_became_a_number_is_refused():
    backbone = backbone_of(CountsItsBatch(), example_maps())
    model = model_of(backbone, len(backbone.chain), len(backbone.chain))
    with pytest.raises(TopgraftError, match="PyTorch can't export CountsItsBatch with an open batch size"):
        program(model)
