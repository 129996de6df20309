from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import backbone_of, blind_rows, data_of_rows, small_rows

import topgraft as tg
from topgraft.backbones.types import Backbone
from topgraft.console import Console
from topgraft.errors import TopgraftError
from topgraft.features.passes import pooled_shelf
from topgraft.measuring import run_probe
from topgraft.rivals import Rival, advise_backbone, measure_rivals, rivals_json, together
from topgraft.settings import Settings
from topgraft.stages import Prepared, cost_of_cuts, prepare

SEES, BLIND = "small_networks:small_rows", "small_networks:blind_rows"
MANY = data_of_rows(1260)
SETTINGS = Settings.of({"folds": 3, "engine": "torch", "precision": "fp32"})


@pytest.fixture(scope="module")
def ready() -> Prepared:
    return prepare(MANY, networks()[0], SETTINGS)


def networks() -> list[Backbone]:
    return [tg.load(name, modality="array", example=example()) for name in (SEES, BLIND)]


def example() -> Any:
    return torch.stack([torch.as_tensor(np.asarray(MANY.inputs[i])) for i in range(2)]).float()


@pytest.fixture(scope="module")
def measured(ready: Prepared, tmp_path_factory: pytest.TempPathFactory) -> list[Rival]:
    """The blind one first, so that both are measured on all examples."""
    sees, blind = networks()
    return measure_rivals(ready, [blind, sees], tg.Store(tmp_path_factory.mktemp("store")), Console())


def test_one_that_can_not_win_is_dropped_on_a_quarter_of_the_examples(
    ready: Prepared, tmp_path: Path
) -> None:
    store = tg.Store(tmp_path)
    first, second = measure_rivals(ready, networks(), store, Console())
    assert first.evidence is not None
    assert second.evidence is None
    assert "every depth is measurably worse than small_networks:small_rows" in second.dropped
    count = len(ready.development)
    for rival, runs in ((first, count), (second, round(count / 4))):
        shelf = pooled_shelf(rival.backbone, store, engine="torch", precision="fp32")
        assert len(shelf.known()) == pytest.approx(runs, abs=2)
    assert advise_backbone([first, second]).backbone == SEES


def test_a_second_one_that_may_win_is_measured_on_all_examples(
    measured: list[Rival], ready: Prepared
) -> None:
    for rival in measured:
        assert rival.evidence is not None
        assert len(rival.evidence.targets) == len(ready.development)
        assert not rival.dropped


def test_the_advice_is_the_cheapest_of_the_joint_set(measured: list[Rival]) -> None:
    advice = advise_backbone(measured)
    scores = {
        (rival.backbone.source, cut.keep): cut.score
        for rival in measured
        for cut in (rival.evidence.cuts if rival.evidence else ())
    }
    assert scores[advice.best] == max(scores.values())
    assert advice.best[0] == SEES
    assert {name for name, _ in advice.in_set} == {SEES}
    assert (advice.backbone, advice.keep) in advice.in_set
    assert sum(advice.p_best.values()) == pytest.approx(1)
    assert advice.p_best[SEES] > 0.99


def test_of_two_that_are_alike_the_one_with_fewer_parameters_is_advised(
    ready: Prepared, tmp_path: Path
) -> None:
    import torch
    from torch import nn

    small = backbone_of(small_rows(), example())
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    large = backbone_of(wide.eval(), example())
    rivals = measure_rivals(ready, [large, small], tg.Store(tmp_path), Console())
    advice = advise_backbone(rivals)
    costs = {
        (rival.backbone.source, keep): cost
        for rival in rivals
        for keep, cost in cost_of_cuts(rival.backbone.chain).items()
    }
    top = max(s for r in rivals if r.evidence for s in [r.evidence.best.score])
    near = [
        (r.backbone.source, cut.keep)
        for r in rivals
        if r.evidence
        for cut in r.evidence.cuts
        if (r.backbone.source, cut.keep) in advice.in_set and cut.score >= top - 0.01
    ]
    assert costs[advice.backbone, advice.keep] <= max(costs[place] for place in near)
    fastest = advise_backbone(rivals, prefer="accuracy")
    assert (fastest.backbone, fastest.keep) == fastest.best


def test_evidence_on_other_folds_is_not_put_together(measured: list[Rival]) -> None:
    from dataclasses import replace

    a, b = (rival.evidence for rival in measured)
    assert a is not None
    assert b is not None
    with pytest.raises(ValueError, match="same folds"):
        together([a, replace(b, fold_of=(b.fold_of + 1) % 3)])


def test_after_the_deadline_no_further_one_is_begun(ready: Prepared, tmp_path: Path) -> None:
    late = measure_rivals(ready, networks(), tg.Store(tmp_path), Console(), deadline=time.monotonic() - 1)
    assert late[0].evidence is not None
    assert late[1].dropped == "no time of the budget was left for it"
    assert rivals_json(late)[1]["score"] is None


def test_fit_takes_the_best_of_several_and_its_plan_says_so(tmp_path: Path) -> None:
    data = data_of_rows(90)
    options = {"store": tg.Store(tmp_path / "store"), "folds": 3, "freeze": "all", "budget": 30}
    run = tg.fit(data, tmp_path / "run", backbone=[BLIND, SEES], **options)
    assert run.result["backbone"] == SEES
    plan = json.loads((run.folder / "plan.json").read_text())["decisions"]
    assert plan["backbone"]["value"] == SEES
    assert plan["keep"]["value"] == run.keep
    assert "best" in plan["backbone"]["reason"] or "cheapest" in plan["backbone"]["reason"]
    kept = json.loads((run.folder / "backbones.json").read_text())
    assert [one["backbone"] for one in kept["backbones"]] == [BLIND, SEES]
    again = tg.fit(data, tmp_path / "again", plan=run.folder / "plan.json", **{**options, "freeze": "auto"})
    assert again.result["backbone"] == SEES
    assert (again.folder / "model.safetensors").read_bytes() == (
        run.folder / "model.safetensors"
    ).read_bytes()


def test_probe_shows_each_and_advises_over_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPGRAFT_CACHE", str(tmp_path))
    found = run_probe(
        data_of_rows(90),
        SETTINGS,
        backbones=[BLIND, SEES],
        test=None,
        allow_overlap=False,
        dry_run=False,
        timed=False,
        began=time.monotonic(),
        console=Console(),
    )
    assert [one["backbone"] for one in found["backbones"]] == [BLIND, SEES]
    assert all(one["cuts"] and one["advice"] for one in found["backbones"])
    assert found["advice"]["backbone"] == SEES
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": "2"}, "--keep 2: with several backbones it is chosen"),
        ({"freeze": "2"}, "--freeze 2: with several backbones give auto, all, 0 or a share"),
        ({"weights": "some.pt"}, "--weights some.pt: with several backbones give auto or none"),
        ({"backbone": [SEES, SEES]}, "--backbone small_networks:small_rows was given more than once"),
    ],
)
def test_what_only_one_network_can_be_told_is_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(TopgraftError, match=message):
        tg.fit(data_of_rows(60), tmp_path / "run", **{"backbone": [SEES, BLIND], **options})
    assert not (tmp_path / "run").exists()


def test_a_blind_network_is_as_large_as_the_one_that_sees() -> None:
    sees, blind = networks()
    assert sees.report.parameters == blind.report.parameters
    assert not np.array_equal(
        *(next(network.parameters()).detach().numpy() for network in (small_rows(), blind_rows()))
    )


def test_pictures_are_decoded_once_for_all_networks_and_features_are_those_of_each_alone(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from topgraft.data import pictures

    data = tg.read(photos)
    pair = [tg.load(name, weights="none", seed=1) for name in ("timm/test_efficientnet", "timm/test_vit")]
    ready = prepare(data, pair[0], SETTINGS)
    opened: list[int] = []
    first = pictures.open_picture
    monkeypatch.setattr(pictures, "open_picture", lambda *a, **k: opened.append(1) or first(*a, **k))
    said = io.StringIO()
    rivals = measure_rivals(ready, pair, tg.Store(tmp_path / "both"), Console(said))
    distinct = len(set(ready.development.digests))
    assert len(opened) == distinct
    assert f"{distinct} examples once for all networks" in said.getvalue()
    for backbone, rival in zip(pair, rivals, strict=True):
        alone, _ = tg.one_pass(backbone, ready.development, tg.Store(tmp_path / backbone.source[5:]))
        assert rival.features is not None
        assert all(torch.equal(rival.features.cuts[keep], alone.cuts[keep]) for keep in alone.cuts)
    assert ready.development.decoded is None
