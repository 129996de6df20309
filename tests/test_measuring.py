from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from small_networks import data_of_rows, small_rows

import topgraft as tg
from topgraft.console import Console
from topgraft.kept_evidence import probe_all
from topgraft.measuring import run_probe
from topgraft.settings import Settings
from topgraft.stages import prepare

DATA = data_of_rows()
SETTINGS = Settings.of({"folds": 3, "backbone": "small_networks:small_rows"})


@pytest.fixture
def probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TOPGRAFT_CACHE", str(tmp_path / "cache"))

    def run(**changes: bool) -> dict[str, Any]:
        told = {"allow_overlap": False, "dry_run": False, "timed": True, **changes}
        return run_probe(DATA, SETTINGS, test=None, began=time.monotonic(), console=Console(), **told)

    return run


def example() -> Any:
    import numpy as np
    import torch

    return torch.stack([torch.as_tensor(np.asarray(DATA.inputs[i])) for i in range(2)]).float()


def test_it_gives_the_evidence_that_the_stages_give(probed: Any, tmp_path: Path) -> None:
    found = probed()
    backbone = tg.load(small_rows(), modality="array", example=example())
    ready = prepare(DATA, backbone, SETTINGS)
    features, _ = tg.one_pass(backbone, ready.development, tg.Store(tmp_path / "other"))
    evidence, _ = probe_all(features, ready.development, ready.fold_of)
    assert [cut["score"] for cut in found["cuts"]] == [cut.score for cut in evidence.cuts]
    assert found["advice"]["keep"] in range(1, len(backbone.chain) + 1)


def test_what_a_run_stored_the_next_one_says_it_saved(probed: Any) -> None:
    assert probed()["resumed"] == []
    saved, probes = probed()["resumed"]
    assert (saved["stage"], probes["stage"]) == ("pass", "probe")
    assert probes["seconds_saved"] > 0
    assert saved["items_reused"] == 48
    assert saved["seconds_saved"] > 0
    untimed, _ = probed(timed=False)["resumed"]
    assert untimed["seconds_saved"] == 0


def test_a_dry_run_measures_no_depth(probed: Any, tmp_path: Path) -> None:
    assert "pass" in probed(dry_run=True)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
