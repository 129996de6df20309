"""Depths that go into the search: which ones, and fits whose trainings settle another than is advised."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Job, Watching, tiny_job
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import topgraft as tg
from topgraft.advise import DepthAdvice, advise_depth
from topgraft.console import Console
from topgraft.evidence import Evidence, Features
from topgraft.finalists import APART, MOST, finalists
from topgraft.fit import Run
from topgraft.probe import probe
from topgraft.report.figures import depth
from topgraft.report.numbers import gather

pytestmark = pytest.mark.usefixtures("own_store_one_thread")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return tiny_job(tmp_path_factory.mktemp("job") / "here")


def measured(strengths: list[float], n: int, seed: int) -> tuple[Evidence, DepthAdvice]:
    """Probes of two classes that are as far apart as told at each cut, and the advice."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    cuts = {
        k: torch.from_numpy((s * y[:, None] + rng.normal(size=(n, 3))).astype(np.float32))
        for k, s in enumerate(strengths, start=1)
    }
    evidence = probe(Features(cuts, "made"), y, np.arange(n) // 2 % 5, 2)
    return evidence, advise_depth(evidence, {k: float(k) for k in cuts})


@given(st.lists(st.floats(0, 4), min_size=1, max_size=9), st.integers(0, 99))
@settings(max_examples=20)
def test_they_are_the_advised_one_and_others_of_the_set_that_are_apart(
    strengths: list[float], seed: int
) -> None:
    evidence, advice = measured(strengths, 60, seed)
    found = finalists(evidence, advice, len(strengths))
    assert found[0] == advice.keep
    assert len(found) <= MOST
    assert set(found) <= set(advice.in_set)
    least = max(1, round(APART * len(strengths)))
    ascending = sorted(found)
    assert all(b - a >= least for a, b in itertools.pairwise(ascending))
    others = [evidence[keep].loss for keep in found[1:]]
    assert others == sorted(others)


def test_a_depth_that_is_measurably_the_best_is_alone() -> None:
    evidence, advice = measured([0.0, 5.0, 0.0], 400, 0)
    assert finalists(evidence, advice, 3) == (2,)


def test_neighbours_of_a_deep_chain_are_not_tried_side_by_side() -> None:
    evidence, advice = measured([2.0] * 18, 40, 3)
    found = sorted(finalists(evidence, advice, 18))
    assert len(found) == MOST
    assert min(np.diff(found)) >= 2


def decisions_of(folder: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((folder / "plan.json").read_text())["decisions"]
    return found


TOLD: dict[str, Any] = {"epochs": 8, "taps": "none", "engine": "torch", "budget": 600, "rate": 0.01}
OPEN = ("--epochs", "3", "--taps", "none", "--budget", "600")


@pytest.fixture(scope="module")
def fitted(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("open") / "model"
    outcome = job.fit(folder, *OPEN)
    assert outcome.status == 0, outcome.err
    return folder


def test_an_open_fit_trains_several_depths_and_keeps_what_its_plan_says(fitted: Path) -> None:
    decisions, result = decisions_of(fitted), json.loads((fitted / "result.json").read_text())
    advised, tried = result["advice"]["keep"], result["search"]
    assert len({one["keep"] for one in tried}) > 1
    assert {one["keep"] for one in tried} <= set(result["advice"]["in_set"])
    keep, freeze = decisions["candidate"]["value"]
    assert (keep, freeze) in {(one["keep"], one["freeze"]) for one in tried}
    assert (result["keep"], result["freeze"]) in ((keep, freeze), (advised, advised))
    assert result["keep"] == decisions["keep"]["value"]
    if result["keep"] != advised:
        assert "its trainings did better" in decisions["keep"]["reason"]


def test_a_plan_repeats_it_to_the_bit(job: Job, fitted: Path, tmp_path: Path) -> None:
    outcome = job.fit(tmp_path / "again", "--plan", fitted / "plan.json")
    assert outcome.status == 0, outcome.err
    weights = [(folder / "model.safetensors").read_bytes() for folder in (fitted, tmp_path / "again")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("word", ["Trying", "Training"])
def test_a_killed_fit_goes_on_to_the_same_depth(job: Job, fitted: Path, tmp_path: Path, word: str) -> None:
    folder = tmp_path / "model"
    assert job.interrupted(word, folder, *OPEN).status == 130
    assert job.fit(folder, *OPEN).status == 0
    for name in ("candidate", "keep", "freeze"):
        assert decisions_of(folder)[name]["value"] == decisions_of(fitted)[name]["value"]
    weights = [(each / "model.safetensors").read_bytes() for each in (fitted, folder)]
    assert weights[0] == weights[1]


def test_another_depth_than_the_advised_one_is_kept_where_its_trainings_do_better(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(240, 6)).astype(np.float32)
    data = tg.read(x, targets=[f"c{int(a * b > 0)}" for a, b in x[:, :2]])

    def fit(folder: Path, **more: Any) -> Run:
        torch.manual_seed(3)
        blocks = [nn.Sequential(nn.Linear(24 if k else 6, 24), nn.Tanh()) for k in range(4)]
        backbone = tg.load(nn.Sequential(*blocks), modality="array", example=torch.from_numpy(x[:2]))
        store = tg.Store(tmp_path / "store")
        return tg.fit(data, folder, backbone=backbone, store=store, **TOLD, **more)

    run = fit(tmp_path / "run")
    kept, advised = run.keep, run.result["advice"]["keep"]
    assert (kept, advised) == (2, 3)
    assert f"did better than those of keep {advised}" in run.result["reasons"]["keep"]
    assert run.result["trained_names"]
    title = depth(gather(run.folder)).title
    assert title.startswith("Keep 2: its trainings did better than those of keep 3; the probes advise 3: ")

    def stop() -> None:
        raise KeyboardInterrupt

    stopped = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, console=Console(progress=Watching("Refit", stop)))
    assert decisions_of(stopped)["keep"]["value"] == kept
    on = fit(stopped)
    again = fit(tmp_path / "again", plan=run.folder / "plan.json")
    weights = [(one.folder / "model.safetensors").read_bytes() for one in (run, on, again)]
    assert weights[0] == weights[1] == weights[2]


def test_where_depth_or_freeze_is_given_one_depth_trains(job: Job, tmp_path: Path) -> None:
    for number, given_ones in enumerate((("--keep", "2"), ("--freeze", "0"))):
        folder = tmp_path / str(number)
        assert job.fit(folder, *OPEN, *given_ones).status == 0
        result = json.loads((folder / "result.json").read_text())
        assert {one["keep"] for one in result["search"]} <= {result["keep"]}
        assert result["keep"] == (2 if number == 0 else result["advice"]["keep"])


def test_what_is_named_is_tried_and_nothing_else(job: Job, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    assert job.fit(folder, *OPEN, "--keep", "3", "--freeze", "2,0").status == 0
    tried = json.loads((folder / "result.json").read_text())["search"]
    assert {(one["keep"], one["freeze"]) for one in tried} == {(3, 2), (3, 0)}
    outcome = job.fit(tmp_path / "other", *OPEN, "--keep", "2", "--freeze", "1,3")
    assert outcome.status == 2
    assert "freeze=3 is more than the 2 blocks that are kept" in outcome.err
    assert not (tmp_path / "other").exists()
