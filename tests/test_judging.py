"""Whether a training is taken: by the validation part, and by further folds where that can't tell."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Watching
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import topgraft as tg
from topgraft import judging
from topgraft.calibration import Calibration
from topgraft.console import Console
from topgraft.evidence import CutEvidence, Evidence
from topgraft.fit import Run
from topgraft.history import History
from topgraft.judging import CLEAR, SETTLED, Seen, is_better
from topgraft.search import Trial


@pytest.mark.parametrize(
    ("sharper", "turned", "better"),
    [(2.0, 0, False), (2.0, 3, True), (1.0, 3, True), (1.0, -3, False), (0.2, 3, True), (5.0, -3, False)],
)
def test_the_lower_loss_at_its_best_temperature_is_taken(sharper: float, turned: int, better: bool) -> None:
    n, own = 40, torch.Generator().manual_seed(0)
    targets = torch.arange(n) % 3
    logits = 1.5 * torch.nn.functional.one_hot(targets, 3) + torch.randn(n, 3, generator=own)
    logits = logits.double()
    before = Calibration.of_outputs(logits.numpy(), targets.numpy()).temperature
    losses = torch.nn.functional.cross_entropy(logits / before, targets, reduction="none")
    correct = logits.argmax(1) == targets
    changed = logits.clone()
    rows = (~correct if turned > 0 else correct).nonzero()[:, 0][: abs(turned)].tolist()
    for row in rows:  # the answer becomes right, or another
        changed[row, targets[row]] = changed[row].max() + 1 if turned > 0 else changed[row].min() - 2
    right = changed.argmax(1) == targets
    assert int(right.sum() - correct.sum()) == turned
    cut = CutEvidence(3, losses.numpy(), correct.numpy(), logits.argmax(1).numpy(), 0.0, 0.0, 0.0, (), (), ())
    evidence = Evidence(
        (cut,), np.zeros(n, dtype=np.int64), targets.numpy(), 3, np.arange(n), losses.numpy(), targets.numpy()
    )
    history = History(marks=right.tolist(), best=SETTLED)
    trial = Trial(3, 1, history, 1.0, (sharper * changed).float())
    took, why = is_better(trial, evidence, range(n), probed=trial.keep)
    assert took == better
    assert f"{100 * correct.double().mean():.1f} % frozen, {100 * right.double().mean():.1f} % trained" in why
    short = replace(trial, history=History(marks=right.tolist(), best=SETTLED - 1))
    gain, _, error = why.partition("a gain of ")[2].partition(" ± ")
    is_clear = bool(gain) and float(gain) > float(error)
    assert is_better(short, evidence, range(n), probed=short.keep)[0] == (better and is_clear)


@given(st.lists(st.integers(3, 9), max_size=3), st.integers(0, 99))
def test_further_folds_count_as_the_first_does(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 6 + sum(sizes)
    frozen, trained = rng.uniform(0, 2, n), rng.uniform(0, 2, n)
    numbers = rng.normal(size=(n, 1))  # squared errors, so that no temperature comes in
    cut = CutEvidence(2, frozen, 1 - frozen, numbers, 0.0, 0.0, 0.0, (), (), ())
    evidence = Evidence((cut,), np.zeros(n, dtype=np.int64), numbers, 0, np.arange(n), frozen, numbers)
    outputs = torch.from_numpy(numbers[:6] + np.sqrt(trained[:6, None]))
    trial = Trial(4, 1, History(marks=(1 - trained[:6]).tolist(), best=SETTLED), 1.0, outputs)
    more, start = [], 6
    for size in sizes:
        rows = np.arange(start, start + size)
        more.append(Seen(rows, trained[rows], 1 - trained[rows]))
        start += size
    took, why = is_better(trial, evidence, range(6), probed=2, more=more)
    assert took == (frozen.mean() > trained.mean())
    assert f"loss {frozen.mean():.3f} and {trained.mean():.3f}" in why
    assert (f"of {1 + len(sizes)} folds" in why) == bool(sizes)


TOLD: dict[str, Any] = {
    "epochs": 6,
    "taps": "none",
    "engine": "torch",
    "budget": 600,
    "rate": 0.01,
    "keep": 2,
}


def fit(folder: Path, store: Path, **more: Any) -> Run:
    """Of a table that blocks must learn from: whether two numbers have one sign."""
    x = np.random.default_rng(0).normal(size=(240, 6)).astype(np.float32)
    data = tg.read(x, targets=[f"c{int(a * b > 0)}" for a, b in x[:, :2]])
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(24 if k else 6, 24), nn.Tanh()) for k in range(3)]
    backbone = tg.load(nn.Sequential(*blocks), modality="array", example=torch.from_numpy(x[:2]))
    return tg.fit(data, folder, backbone=backbone, store=tg.Store(store), **{**TOLD, **more})


def decisions_of(run: Path) -> dict[str, Any]:
    found = json.loads((run / "plan.json").read_text())["decisions"]
    return {name: decision["value"] for name, decision in found.items()}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp("judged")
    return fit(place / "run", place / "store")


def asked_of(run: Path) -> dict[str, float]:
    return {name: value for name, value in decisions_of(run).items() if name.startswith("fold_")}


def test_folds_are_asked_until_they_tell(fitted: Run) -> None:
    asked, reason = asked_of(fitted.folder), fitted.result["reasons"]["freeze"]
    assert list(asked) == [f"fold_{number}" for number in range(1, 1 + len(asked))]
    assert asked
    assert f"of {1 + len(asked)} folds" in reason
    gain, _, error = reason.partition("a gain of ")[2].partition(" ± ")
    assert len(asked) == decisions_of(fitted.folder)["folds"] - 1 or (
        abs(float(gain)) > CLEAR * float(error) - 0.01
    )


def test_a_fit_that_was_killed_while_it_judged_goes_on_and_a_plan_repeats_it(
    fitted: Run, tmp_path: Path
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    store, killed = tmp_path / "store", tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        fit(killed, store, console=Console(progress=Watching("Judging", stop)))
    assert "freeze" not in decisions_of(killed)
    fit(killed, store)
    assert asked_of(killed) == asked_of(fitted.folder)
    again = fit(tmp_path / "again", store, plan=fitted.folder / "plan.json").folder
    weights = [(one / "model.safetensors").read_bytes() for one in (fitted.folder, killed, again)]
    assert weights[0] == weights[1] == weights[2]


def test_where_there_is_no_time_for_a_further_fold_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "SPARE", 0.0)
    run = fit(tmp_path / "run", tmp_path / "store")
    assert asked_of(run.folder) == {}
    assert "judging the training on further folds: no time" in run.result["skipped"]


def test_what_was_asked_for_is_not_judged_by_further_folds(tmp_path: Path) -> None:
    assert not asked_of(fit(tmp_path / "run", tmp_path / "store", freeze=1).folder)
