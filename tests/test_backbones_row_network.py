"""The network for rows: its chain, its start, its recipe."""

from __future__ import annotations

import pytest
import torch
from made_rows import as_read, table

from topgraft.backbones import RowPreprocess, load, rebuild
from topgraft.backbones.row_network import DEPTH, WIDTH, RowNetwork, must_be_of
from topgraft.backbones.row_preprocess import GONE, UNKNOWN
from topgraft.data.columns import Rows
from topgraft.errors import TopgraftError

ROWS = Rows.of(as_read(table(40).drop(columns=["bought", "spent"])))
KNOWN = RowPreprocess.of(ROWS)


@pytest.fixture(scope="module")
def backbone():
    return load("rows", preprocess=KNOWN)


def test_its_blocks_compose_to_the_network(backbone):
    assert [block.name for block in backbone.chain] == ["embedding", *(f"blocks.{i}" for i in range(DEPTH))]
    x = KNOWN.batch(list(ROWS))
    with torch.no_grad():
        whole = backbone.network(**x)
        for cut in range(1, len(backbone.chain)):
            state = backbone.chain[:cut].eval()(x)
            rest = backbone.chain[cut:].eval()(state)
            torch.testing.assert_close(rest, whole)
    assert whole.shape == (40, WIDTH)


def test_a_row_does_not_depend_on_those_beside_it(backbone):
    x = KNOWN.batch(list(ROWS))["x"]
    with torch.no_grad():
        torch.testing.assert_close(backbone.network(x[:1]), backbone.network(x)[:1])


def test_what_was_never_seen_says_nothing():
    network = RowNetwork(2, [5], width=8, depth=1)
    seen = torch.tensor([[0.0, 1.0, 0.0, 0.0, 3.0]])
    missing = torch.tensor([[0.0, 1.0, 1.0, 0.0, 3.0]])
    torch.testing.assert_close(network(seen), network(missing))
    unknown, gone = ([[0.0, 1.0, 0.0, 0.0, place]] for place in (UNKNOWN, GONE))
    torch.testing.assert_close(network(torch.tensor(unknown)), network(torch.tensor(gone)))
    assert not torch.allclose(network(seen), network(torch.tensor(gone)))


def test_random_values_go_by_the_seed_and_are_told(backbone):
    same, other = (load("rows/resnet", preprocess=KNOWN, seed=seed) for seed in (0, 1))
    assert same.report.digest == backbone.report.digest != other.report.digest
    assert backbone.is_untrained
    assert "no weights were loaded" in backbone.report.lines()[0]
    assert "no published weights" in " ".join(backbone.report.notes)


def test_its_recipe_gives_the_same_network(backbone):
    again = rebuild(backbone.recipe)
    assert {n: t.shape for n, t in again.state_dict().items()} == {
        n: t.shape for n, t in backbone.network.state_dict().items()
    }
    for wrong in ({"sizes": [1]}, {"depth": 0}, {"width": 1 << 20}, {"name": "mlp"}, {"numbers": -1}):
        with pytest.raises(TopgraftError):
            rebuild({**backbone.recipe, **wrong})


def test_what_can_not_be_meant_is_refused():
    with pytest.raises(TopgraftError, match="Nearest: resnet"):
        load("rows/resnett", preprocess=KNOWN)
    with pytest.raises(TopgraftError, match="starts from random values"):
        load("rows", preprocess=KNOWN, weights="x.safetensors")
    with pytest.raises(TopgraftError, match="made for the columns of a table"):
        load("rows")
    with pytest.raises(TopgraftError, match="reads rows, and the data are texts"):
        load("rows", preprocess=KNOWN, modality="text")


def test_preprocessing_of_other_columns_is_refused(backbone):
    must_be_of(KNOWN, backbone.recipe)
    other = RowPreprocess.of(Rows.of({"age": [1, 2]}))
    with pytest.raises(ValueError, match="not those of its network"):
        must_be_of(other, backbone.recipe)
