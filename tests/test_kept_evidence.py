from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_networks import backbone_of, data_of_maps, example_maps, maps

from topgraft import kept_evidence
from topgraft.console import Console
from topgraft.errors import DamageWarning
from topgraft.evidence import Evidence, Features
from topgraft.features.kept import Kept
from topgraft.features.shelf import StoreWarning
from topgraft.features.store import Store
from topgraft.kept_evidence import CODE, probe_all
from topgraft.settings import Settings
from topgraft.stages import Prepared, measure, prepare

SETTINGS = Settings(seed=2)


@pytest.fixture(scope="module")
def ready() -> Prepared:
    return prepare(data_of_maps(45), backbone_of(maps(depth=2), example_maps()), SETTINGS)


@pytest.fixture(scope="module")
def features(ready: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Features:
    store = Store(tmp_path_factory.mktemp("pass"))
    return measure(ready.backbone, ready.development, store, SETTINGS, Console())[0]


def bits(evidence: Evidence) -> str:
    return json.dumps(evidence.to_json())


def stored(store: Store) -> list[str]:
    return [str(shelf) for shelf in store.shelves()]


def test_a_file_is_read_back_only_for_the_same_features_data_and_folds(ready, features, tmp_path) -> None:
    path = tmp_path / "evidence.json"
    made, earlier = probe_all(features, ready.development, ready.fold_of, path=path)
    assert earlier is None
    read_back, earlier = probe_all(features, ready.development, ready.fold_of, path=path)
    assert earlier is not None
    assert bits(read_back) == bits(made)
    whole = path.read_bytes()
    for damage in (whole[:-30], whole.replace(b'"losses"', b'"lossss"')):
        path.write_bytes(damage)
        with pytest.warns(DamageWarning, match="the probes are fitted again"):
            again, earlier = probe_all(features, ready.development, ready.fold_of, path=path)
        assert earlier is None
        assert bits(again) == bits(made)
        assert path.read_bytes() == whole
    other_folds = (ready.fold_of + 1) % 5
    _, earlier = probe_all(features, ready.development, other_folds, path=path)
    assert earlier is None


def test_another_run_takes_the_same_bits_from_the_store_and_writes_its_own_file(
    ready, features, tmp_path
) -> None:
    store, path = Store(tmp_path / "store"), tmp_path / "evidence.json"
    made, earlier = probe_all(features, ready.development, ready.fold_of, store=store)
    assert earlier is None
    assert stored(store) == ["probes, all cuts"]
    taken, earlier = probe_all(features, ready.development, ready.fold_of, store=store, path=path)
    assert earlier is not None
    assert earlier > 0
    assert bits(taken) == bits(made)
    assert bits(Evidence.from_json(json.loads(path.read_text())["evidence"])) == bits(made)


def test_arrays_that_may_not_be_written_are_kept_too(ready, features, tmp_path) -> None:
    made, _ = probe_all(features, ready.development, ready.fold_of)
    for array in (made.fold_of, made.targets, made.groups, *(cut.losses for cut in made.cuts)):
        array.setflags(write=False)  # as they come from a worker elsewhere
    kept = Kept(Store(tmp_path), {"what": "evidence"}, only="evidence", said="The evidence")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept_evidence._put_in_store(kept, made, 1.0)
    found = kept_evidence._in_store(kept)
    assert found is not None
    assert bits(found[0]) == bits(made)


def relabelled(ready: Prepared) -> Prepared:
    targets = np.roll(np.asarray(ready.development.targets), 1)
    return replace(ready, development=replace(ready.development, targets=targets))


def regrouped(ready: Prepared) -> Prepared:
    groups = ready.development.groups.copy()
    one, other, *_ = np.flatnonzero(ready.fold_of == ready.fold_of[0])
    groups[other] = groups[one]
    return replace(ready, development=replace(ready.development, groups=groups))


def folded(ready: Prepared) -> Prepared:
    return replace(ready, fold_of=(ready.fold_of + 1) % 5)


@pytest.mark.parametrize("change", [relabelled, regrouped, folded])
def test_what_was_made_of_something_else_is_not_taken(change, ready, features, tmp_path) -> None:
    store = Store(tmp_path)
    probe_all(features, ready.development, ready.fold_of, store=store)
    other = change(ready)
    found, earlier = probe_all(features, other.development, other.fold_of, store=store)
    assert earlier is None
    expected, _ = probe_all(features, other.development, other.fold_of)
    assert bits(found) == bits(expected)


def test_other_features_make_it_anew(ready, features, tmp_path) -> None:
    store = Store(tmp_path)
    probe_all(features, ready.development, ready.fold_of, store=store)
    fewer = Features({1: features.cuts[1]}, features.key)
    assert probe_all(fewer, ready.development, ready.fold_of, store=store)[1] is None
    other = Features(features.cuts, "other weights")
    assert probe_all(other, ready.development, ready.fold_of, store=store)[1] is None


PROBED = """
import sys
from pathlib import Path
import numpy as np
import torch
import topgraft as tg
from topgraft.evidence import Features
from topgraft.kept_evidence import probe_all

rows = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
data = tg.read((rows, list("abc") * 10))
features = Features({1: torch.from_numpy(rows)}, "the same activations")
earlier = probe_all(features, data, np.arange(30) % 5, store=tg.Store(Path(sys.argv[1])))[1]
print(Path(tg.__file__).parent.parent, "made" if earlier is None else "taken")
"""


def test_another_process_takes_it_and_one_whose_code_is_changed_makes_it_anew(tmp_path) -> None:
    mine = Path(kept_evidence.__file__).parent
    copies = {name: tmp_path / name for name in ("changed", "changed elsewhere")}
    for folder in copies.values():
        shutil.copytree(mine, folder / "topgraft", ignore=shutil.ignore_patterns("__pycache__"))
    for name, module in (("changed", "softmax.py"), ("changed elsewhere", "show.py")):
        with (copies[name] / "topgraft" / module).open("a") as file:
            file.write("# another version")
    found = {}
    for name, folder in ({"first": mine.parent} | copies).items():
        command = [sys.executable, "-c", PROBED, str(tmp_path / "store")]
        environment = os.environ | {"PYTHONPATH": str(folder)}
        printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        where, _, found[name] = printed.strip().rpartition(" ")
        assert Path(where) == folder
    assert found == {"first": "made", "changed": "made", "changed elsewhere": "taken"}


def test_the_code_that_is_told_apart_is_all_that_the_numbers_come_from() -> None:
    import ast

    src, seen, waiting = Path(kept_evidence.__file__).parent, set(), ["probe"]
    beside = {"errors", "workers", "notebook", "data.types"}  # no number comes from these
    while waiting:
        name = waiting.pop()
        if name in seen | beside or not (src / f"{name}.py").is_file():
            continue
        seen.add(name)
        tree = ast.parse((src / f"{name}.py").read_text())
        found = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
        waiting += [module.removeprefix("topgraft.") for module in found if module.startswith("topgraft.")]
    assert seen <= set(CODE), sorted(seen - set(CODE))
    assert set(CODE) <= seen, sorted(set(CODE) - seen)


def test_a_damaged_one_is_told_and_made_again(ready, features, tmp_path) -> None:
    made, _ = probe_all(features, ready.development, ready.fold_of, store=Store(tmp_path))
    (shard,) = tmp_path.rglob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.warns(StoreWarning):
        again, earlier = probe_all(features, ready.development, ready.fold_of, store=Store(tmp_path))
    assert earlier is None
    assert bits(again) == bits(made)


def test_without_a_store_that_can_be_used_the_probes_are_fitted_and_that_is_said(
    ready, features, tmp_path
) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(StoreWarning, match="The evidence"):
        found, earlier = probe_all(features, ready.development, ready.fold_of, store=Store(tmp_path / "file"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected, _ = probe_all(features, ready.development, ready.fold_of)
    assert earlier is None
    assert bits(found) == bits(expected)
