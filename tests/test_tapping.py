"""Taps are measured once, on the folds of the depth, written into the plan and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_networks import backbone_of, data_of_maps, example_maps, maps

import topgraft as tg
from topgraft.errors import TopgraftError
from topgraft.estimators.on_all import fit_on_all
from topgraft.features.store import Store
from topgraft.fit import Run
from topgraft.saved import open_model
from topgraft.settings import Settings

PLAIN: dict[str, Any] = {"engine": "torch", "precision": "fp32"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def fitted(out: Path, store: Store, count: int = 60, **options: Any) -> Run:
    backbone = backbone_of(maps(), example_maps(2))
    return tg.fit(data_of_maps(count), out, backbone=backbone, store=store, **PLAIN, **options)


def plan_of(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.folder / "plan.json").read_text())["decisions"]
    return found


def test_what_is_measured_decides_and_is_saved(tmp_path: Path, store: Store) -> None:
    run = fitted(tmp_path / "run", store, keep=4)
    decided = plan_of(run)["taps"]
    assert decided["value"] in ([], [1, 2, 3])
    gain, _, error = decided["reason"].partition("a gain of ")[2].partition(")")[0].partition(" ± ")
    assert (float(gain) > float(error)) == bool(decided["value"])
    assert run.result["taps"] == decided["value"]
    model = open_model(run.folder, module=maps())
    assert list(model.graft.bare.taps) == decided["value"]
    again = fitted(tmp_path / "again", store, keep=4, plan=run.folder / "plan.json")
    assert (again.folder / "model.safetensors").read_bytes() == (
        run.folder / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("freeze", ["all", "2", "0"])
def test_those_asked_for_are_taken_at_every_freeze(freeze: str, tmp_path: Path, store: Store) -> None:
    run = fitted(tmp_path / "run", store, keep=4, freeze=freeze, taps="1,3", epochs=2)
    assert run.result["taps"] == [1, 3]
    assert run.result["reasons"]["taps"] == "as asked"
    model = open_model(run.folder, module=maps())
    assert model.graft.head.linear.in_features == 36
    assert "reads what comes out of blocks 1, 3" in (run.folder / "README.md").read_text()
    weight = model.graft.head.linear.weight
    assert all(part.abs().sum() > 0 for part in weight.split(12, 1))


def test_both_of_keep_and_freeze_given_means_the_last_kept_block_alone(tmp_path: Path, store: Store) -> None:
    run = fitted(tmp_path / "run", store, keep=3, freeze="all")
    assert (run.result["taps"], run.result["trained_parameters"]) == ([], 3 * 12 + 3)
    assert fitted(tmp_path / "other", store, taps="none").result["taps"] == []


def test_bad_ones_are_refused_before_anything_is_written(tmp_path: Path, store: Store) -> None:
    with pytest.raises(
        TopgraftError, match=r"taps=5: 5 is not before the last of the 3 kept blocks|more than"
    ):
        fitted(tmp_path / "run", store, keep=3, taps="5")
    assert not (tmp_path / "run").exists()
    run = fitted(tmp_path / "run", store, keep=4, freeze="all", taps="1")
    with pytest.raises(TopgraftError, match=r"taps=\[2\], but the plan says taps=\[1\]"):
        fitted(tmp_path / "again", store, keep=4, taps="2", plan=run.folder / "plan.json")


def test_the_untouched_part_is_learnt_with_the_same_taps(tmp_path: Path, store: Store) -> None:
    run = fitted(tmp_path / "run", store, keep=4, freeze="all", taps="2", refit_all=True)
    assert open_model(run.folder, module=maps()).graft.head.linear.in_features == 24


@pytest.mark.parametrize("options", [{"keep": 4, "freeze": "all"}, {"keep": 4, "freeze": 2, "epochs": 2}])
def test_the_estimators_fit_has_them_and_predicts_from_the_store_as_live(
    options: dict[str, Any], store: Store
) -> None:
    from topgraft.estimators.on_all import logits_of

    backbone, data = backbone_of(maps(), example_maps(2)), data_of_maps(45)
    settings = Settings.of(PLAIN | options | {"taps": [1, 3]})
    fit = fit_on_all(data, backbone, settings, store)
    assert fit.graft.bare.taps == (1, 3)
    model = fit.model(backbone, data.classes)
    stored = logits_of(model, data, backbone=backbone, store=store)
    np.testing.assert_allclose(stored, logits_of(model, data), atol=1e-4)
