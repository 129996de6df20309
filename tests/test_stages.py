from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_networks import backbone_of, data_of_maps, example_maps, maps

from topgraft.backbones.types import Backbone
from topgraft.console import Console
from topgraft.data import read
from topgraft.errors import TopgraftError
from topgraft.features.store import Store
from topgraft.kept_evidence import probe_all
from topgraft.settings import PREFERENCES, Settings
from topgraft.stages import advise, cost_of_cuts, load_for, measure, prepare, reuse, time_one_batch

DATA = data_of_maps(45)
SETTINGS = Settings(seed=2)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return backbone_of(maps(depth=2), example_maps())


def test_the_untouched_part_and_the_development_part_share_nothing(backbone: Backbone) -> None:
    ready = prepare(DATA, backbone, SETTINGS)
    parts = [set(ready.development.names), set(ready.untouched.names)]
    assert parts[0] | parts[1] == set(DATA.names)
    assert not parts[0] & parts[1]
    assert len(parts[1]) == 9
    assert sorted(set(ready.fold_of.tolist())) == [0, 1, 2, 3, 4]
    assert len(ready.fold_of) == 36


def test_an_untouched_part_of_one_group_is_refused_before_anything_is_measured(backbone: Backbone) -> None:
    inputs = np.asarray(DATA.inputs)[:6]
    twins = read((np.concatenate([inputs, inputs])[:9], ["a", "b", "c"] * 3))
    alike = replace(twins, groups=np.arange(9) // 3)
    with pytest.raises(TopgraftError, match=r"one group.*--test"):
        prepare(alike, backbone, SETTINGS)


def test_a_test_set_leaves_all_data_for_development(backbone: Backbone) -> None:
    other = data_of_maps(12, seed=99)
    test = (np.asarray(other.inputs), [other.classes[t] for t in np.asarray(other.targets)])
    ready = prepare(DATA, backbone, SETTINGS, test=test)
    assert (len(ready.development), len(ready.untouched)) == (45, 12)


def test_data_without_labels_is_refused(backbone: Backbone) -> None:
    with pytest.raises(TopgraftError, match="no labels"):
        prepare(replace(DATA, targets=None), backbone, SETTINGS)


def test_the_packaged_networks_are_not_for_arrays() -> None:
    data = read((np.zeros((6, 3), dtype=np.float32) + np.arange(6)[:, None], list("aabbab")))
    with pytest.raises(TopgraftError):
        load_for(data, Settings())


def test_a_pass_tells_what_was_stored(backbone: Backbone, tmp_path: Path) -> None:
    out, store = io.StringIO(), Store(tmp_path)
    first, told = measure(backbone, DATA, store, SETTINGS, Console(out))
    again, told_again = measure(backbone, DATA, store, SETTINGS, Console(out))
    assert (told["items_reused"], told_again["items_reused"]) == (0, 45)
    assert told["seconds_an_example"] > 0
    assert told_again["seconds_an_example"] == 0
    assert "45 were stored by an earlier run" in out.getvalue()
    for cut, array in first.cuts.items():
        assert array.equal(again.cuts[cut])


def test_the_cost_of_a_cut_is_its_parameters_and_those_before(backbone: Backbone) -> None:
    cost = cost_of_cuts(backbone.chain)
    sizes = [block.parameters for block in backbone.chain]
    assert cost == {i + 1: float(sum(sizes[: i + 1])) for i in range(len(sizes))}


def test_the_advice_is_one_of_the_cuts_that_cannot_be_told_apart(backbone: Backbone, tmp_path: Path) -> None:
    ready = prepare(DATA, backbone, SETTINGS)
    features, _ = measure(backbone, ready.development, Store(tmp_path), SETTINGS, Console())
    evidence, _ = probe_all(features, ready.development, ready.fold_of)
    chain = backbone.chain
    advice = {prefer: advise(evidence, chain, prefer=prefer, seed=1) for prefer in PREFERENCES}
    inside = advice["small"].in_set
    assert all(a.keep in inside and a.in_set == inside for a in advice.values())
    assert advice["accuracy"].keep == max(inside, key=lambda k: (evidence[k].score, -evidence[k].loss))
    assert advice["small"].keep == advice["fast"].keep <= advice["accuracy"].keep
    if advice["fast"].keep < len(chain):
        assert "less work in each prediction" in advice["fast"].reason
        assert "fewer parameters" in advice["small"].reason


def test_what_was_reused_has_its_fixed_form(backbone: Backbone) -> None:
    assert reuse("pass", 0, 1.0) == []
    assert reuse("pass", 7, 1.23456) == [{"stage": "pass", "items_reused": 7, "seconds_saved": 1.235}]
    assert time_one_batch(backbone, DATA, SETTINGS) > 0
