"""The last fit: on everything, by several trainings whose weights are averaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import backbone_of, data_of_maps, differing, example_maps, kept, maps, material_of

import topgraft as tg
from topgraft.errors import TopgraftError
from topgraft.features.store import Store
from topgraft.search import Material, Trial, new_graft, run_trial, source_at
from topgraft.soup import mean_of, members_for, refit
from topgraft.workload import REFITS


def material(root: Path, **settings: Any) -> Material:
    return material_of(backbone_of(maps(), example_maps()), data_of_maps(36), root, rate=0.01, **settings)


def trial_of(made: Material, *, epochs: int = 3) -> Trial:
    source, _ = source_at(made, 4, 2)
    _, trial = run_trial(
        made,
        4,
        2,
        source,
        epochs=epochs,
        stop_after=None,
        checkpoint=None,
        deadline=None,
        from_start=False,
        advance=None,
    )
    return trial


def test_refit_takes_the_steps_that_were_found_on_everything(tmp_path: Path) -> None:
    made = material(tmp_path)
    trial, (source, _) = trial_of(made), source_at(made, 4, 2)
    graft, (history,) = refit(made, trial, source, checkpoint=None, advance=None)
    per_epoch = history.steps_an_epoch
    assert per_epoch == -(-len(made.targets) // 32)
    assert len(history.epochs) - 1 == -(-trial.history.best * trial.history.steps_an_epoch // per_epoch)
    assert differing(kept(graft), kept(new_graft(made, 4, 2, made.everything)))
    again, _ = refit(made, trial, source, checkpoint=None, advance=None)
    assert differing(kept(again), kept(graft)) == set()


@pytest.mark.parametrize("tune_norms", [False, True])
def test_the_soup_is_the_mean_of_its_members_and_leaves_the_frozen_part(
    tmp_path: Path, *, tune_norms: bool
) -> None:
    made = material(tmp_path, tune_norms=tune_norms)
    trial, (source, _) = trial_of(made), source_at(made, 4, 2)
    files = [tmp_path / name for name in ("refit.safetensors", "refit-1.safetensors", "refit-2.safetensors")]
    soup, histories = refit(made, trial, source, members=3, checkpoint=files[0], advance=None)
    assert len(histories) == 3
    ends = []
    for file in files:
        assert file.is_file()
        only = file.with_stem("only")
        only.write_bytes(file.read_bytes())  # as a killed run leaves it: the training is done already
        single, (history,) = refit(made, trial, source, checkpoint=only, advance=None)
        assert history.resumed == len(histories[0].epochs) - 1
        ends.append(kept(single))
    assert differing(ends[0], kept(refit(made, trial, source, checkpoint=None, advance=None)[0])) == set()
    assert differing(ends[0], ends[1])
    start = kept(new_graft(made, 4, 2, made.everything))
    for name, tensor in kept(soup).items():
        if name.startswith("frozen."):
            assert torch.equal(tensor, start[name])
        elif tensor.is_floating_point():
            wanted = torch.stack([end[name].double() for end in ends]).mean(0).to(tensor.dtype)
            assert torch.equal(tensor, wanted)
    norms = [name for name in start if "running_mean" in name and name.startswith("body.")]
    assert norms
    moved = any(not torch.equal(kept(soup)[name], start[name]) for name in norms)
    assert moved == tune_norms


def test_equal_members_give_their_bits_back() -> None:
    tensor = torch.randn(50, generator=torch.Generator().manual_seed(0))
    for count in range(1, 8):
        assert torch.equal(mean_of([tensor] * count), tensor)


def test_as_many_as_there_is_time_for() -> None:
    def told(seconds: float, left: float) -> int:
        return members_for(None, timeless=False, seconds=seconds, left=left)[0]

    assert [told(10, left) for left in (0, 10, 23, 24, 36, 1000)] == [1, 1, 1, 2, 3, REFITS]
    assert told(0, 5) == REFITS
    assert members_for(5, timeless=False, seconds=1e9, left=0)[0] == 5


def test_a_fit_decides_once_and_a_plan_repeats_it(tmp_path: Path) -> None:
    told: dict[str, Any] = {"engine": "torch", "precision": "fp32", "keep": 4, "freeze": 2, "epochs": 2}
    store, backbone, data = Store(tmp_path / "s"), backbone_of(maps(), example_maps(2)), data_of_maps(45)
    run = tg.fit(data, tmp_path / "run", backbone=backbone, store=store, soup=2, **told)
    decided = json.loads((run.folder / "plan.json").read_text())["decisions"]["soup"]
    assert decided == {"value": 2, "reason": "as asked (--soup)"}
    again = tg.fit(data, tmp_path / "b", backbone=backbone, store=store, plan=run.folder / "plan.json")
    name = "model.safetensors"
    assert (again.folder / name).read_bytes() == (run.folder / name).read_bytes()
    alone = tg.fit(data, tmp_path / "c", backbone=backbone, store=store, **told)
    assert alone.result["reasons"]["soup"] == "epochs or a plan were given, and no --soup"
    assert (alone.folder / name).read_bytes() != (run.folder / name).read_bytes()
    with pytest.raises(TopgraftError, match="soup=3, but the plan says soup=2"):
        tg.fit(data, tmp_path / "d", backbone=backbone, store=store, plan=run.folder / "plan.json", soup=3)
    with pytest.raises(TopgraftError, match="--soup 0 is out of range"):
        tg.fit(data, tmp_path / "d", backbone=backbone, store=store, soup=0)
