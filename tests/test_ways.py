"""The rows of ``make ways`` differ in what trained: by name, by number, and in the bits that came out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from ways import WAYS, Way, document, run_way

from topgraft.backbones import load
from topgraft.data import read

pytestmark = pytest.mark.slow  # every way is a whole fit of a real network, also with nothing frozen
PRETRAINED = [way.name for way in WAYS if way.weights == "auto"]


@dataclass(frozen=True)
class Reused:
    """One way, done: what ``fit`` reported, and the weights in the folder that it left."""

    way: Way
    result: dict[str, Any]
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class Rows:
    """All ways on one data set, beside the network that they started from."""

    original: dict[str, Tensor]
    parameters: dict[str, int]
    names: list[str]
    chain: Any
    classes: int
    by_way: dict[str, Reused]


@pytest.fixture(scope="module", params=["pictures", "texts"])
def rows(
    request: pytest.FixtureRequest, photos: Path, glosses: Path, tmp_path_factory: pytest.TempPathFactory
) -> Rows:
    """Every way of the benchmark, by its own function, on a few packaged examples and for one epoch."""
    data, modality = (read(photos), "picture") if request.param == "pictures" else (read(glosses), "text")
    few = data.subset(np.concatenate([np.flatnonzero(data.targets == c)[:8] for c in range(3)]))
    backbone = load(None, modality=modality)
    root = tmp_path_factory.mktemp("ways")
    done = {}
    for number, way in enumerate(WAYS):
        loaded = {"backbone": backbone} if way.weights == "auto" else {}
        folder = root / str(number)
        result = run_way(way, few, folder, epochs=1, refit=False, augment="none", folds=2, **loaded)
        done[way.name] = Reused(way, result, saved_weights(folder))
    return Rows(
        {n: t.detach().clone() for n, t in backbone.network.state_dict().items()},
        {n: p.numel() for n, p in backbone.network.named_parameters()},
        [block.name for block in backbone.chain],
        backbone.chain,
        3,
        done,
    )


def saved_weights(folder: Path) -> dict[str, Tensor]:
    """The kept blocks' tensors in a saved graft, under the names of the original network."""
    tensors = load_file(folder / "model.safetensors")
    return {n.removeprefix("backbone."): t for n, t in tensors.items() if n.startswith("backbone.")}


def trained_names(row: Reused) -> set[str]:
    """Names of the network's parameters that trained, without the head's."""
    return {name for name in row.result["trained_names"] if not name.startswith("head.")}


def names_between(rows: Rows, freeze: int, keep: int) -> set[str]:
    """Names of the network's parameters in the blocks after ``freeze`` up to ``keep``."""
    return (rows.chain.names_of(keep) - rows.chain.names_of(freeze)) & rows.parameters.keys()


def test_each_way_keeps_and_freezes_what_it_says(rows: Rows):
    every = len(rows.names)
    some = round(0.67 * every)
    wanted = {
        "initialiser": (every, 0),
        "feature extractor": (every, every),
        "partly frozen": (every, some),
        "fewer layers kept, all frozen": (some, some),
        "fewer layers kept, half frozen": (some, -(-some // 2)),
        "random values, all frozen (a contrast)": (every, every),
    }
    found = {name: (row.result["keep"], row.result["freeze"]) for name, row in rows.by_way.items()}
    assert found == wanted
    for row in rows.by_way.values():
        keep, freeze = row.result["keep"], row.result["freeze"]
        assert row.result["blocks"]["kept"] == rows.names[:keep]
        assert row.result["blocks"]["frozen"] == rows.names[:freeze]
        assert row.result["blocks"]["trained"] == rows.names[freeze:keep]


def test_the_parameters_that_trained_are_those_of_the_blocks_that_are_not_frozen(rows: Rows):
    for row in rows.by_way.values():
        wanted = names_between(rows, row.result["freeze"], row.result["keep"])
        assert trained_names(row) == wanted
        head = {"head.linear.weight", "head.linear.bias"}
        assert set(row.result["trained_names"]) == wanted | head
        in_head = row.result["trained_parameters"] - sum(rows.parameters[name] for name in wanted)
        assert in_head > 0
        assert in_head % rows.classes == 0  # a weight a feature and class, and a bias a class


def test_the_ways_differ_in_what_trained(rows: Rows):
    what = {name: (row.result["keep"], frozenset(trained_names(row))) for name, row in rows.by_way.items()}
    assert len({what[name] for name in PRETRAINED}) == len(PRETRAINED)
    counts = {name: rows.by_way[name].result["trained_parameters"] for name in PRETRAINED}
    assert counts["initialiser"] > counts["partly frozen"] > counts["feature extractor"]
    assert counts["initialiser"] > counts["fewer layers kept, half frozen"]
    assert counts["fewer layers kept, half frozen"] > counts["fewer layers kept, all frozen"]
    assert trained_names(rows.by_way["initialiser"]) == names_between(rows, 0, len(rows.names))
    assert not trained_names(rows.by_way["feature extractor"])


@pytest.mark.parametrize("name", PRETRAINED)
def test_frozen_weights_kept_every_bit_trained_ones_changed_and_dropped_ones_are_gone(rows: Rows, name: str):
    row = rows.by_way[name]
    keep, freeze = row.result["keep"], row.result["freeze"]
    assert row.weights.keys() == rows.chain.names_of(keep) & rows.original.keys()
    trained = names_between(rows, freeze, keep)
    alike = {n for n, t in row.weights.items() if torch.equal(t, rows.original[n])}
    assert row.weights.keys() - trained <= alike  # frozen parameters and buffers, and norms' statistics
    assert not trained & alike


def test_random_values_are_not_the_pretrained_ones(rows: Rows):
    row = rows.by_way["random values, all frozen (a contrast)"]
    assert row.weights.keys() == rows.by_way["feature extractor"].weights.keys()
    matrices = {n for n, t in row.weights.items() if n in rows.parameters and t.ndim > 1}
    assert matrices
    assert not {n for n in matrices if torch.equal(row.weights[n], rows.original[n])}


def test_the_page_has_a_row_for_each_way_with_its_blocks_and_numbers(rows: Rows):
    page = document({"task": [rows.by_way[way.name].result for way in WAYS]}, 5.0)
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [line[0] for line in cells[2:]] == [way.name for way in WAYS]
    for line, way in zip(cells[2:], WAYS, strict=True):
        result = rows.by_way[way.name].result
        assert f"`{result['blocks']['kept'][-1]}`" in line[1]
        assert (line[2] == "0") == (way.freeze == "0")
        assert line[3] == f"{result['trained_parameters']:,}"
        assert math.isclose(float(line[5].split()[0]), 100 * result["score"]["value"], abs_tol=0.05)
