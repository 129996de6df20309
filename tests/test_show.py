from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_networks import backbone_of, data_of_maps, example_maps, maps

from topgraft import show
from topgraft.advise import DepthAdvice
from topgraft.backbones.types import Backbone
from topgraft.chain import Block, Chain, Refused
from topgraft.console import Console
from topgraft.data.types import LeftOut
from topgraft.evidence import Evidence
from topgraft.features.store import Store
from topgraft.kept_evidence import probe_all
from topgraft.score import class_scores, score_predictions
from topgraft.settings import Settings
from topgraft.stages import advise, measure, prepare
from topgraft.transferability import Secondary

DATA = data_of_maps(45)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return backbone_of(maps(depth=2), example_maps())


@pytest.fixture(scope="module")
def found(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> tuple[Evidence, DepthAdvice]:
    ready = prepare(DATA, backbone, Settings())
    store = Store(tmp_path_factory.mktemp("store"))
    features, _ = measure(backbone, ready.development, store, Settings(), Console())
    evidence, _ = probe_all(features, ready.development, ready.fold_of)
    return evidence, advise(evidence, backbone.chain)


def written(what: Callable[..., None], *arguments: Any, **more: Any) -> list[str]:
    out = io.StringIO()
    what(Console(out), *arguments, **more)
    return out.getvalue().splitlines()


def with_other(chain: Chain, blocks: Sequence[Block], refused: Sequence[Refused] = ()) -> Chain:
    """The chain as if other blocks or refused cuts had been found."""
    return Chain(chain.network, blocks, chain.anatomy, refused, example=chain.example)


def test_the_load_report_the_input_and_the_licence_are_told(backbone: Backbone) -> None:
    lines = written(show.backbone_lines, replace(backbone, licence="mit"))
    assert lines[0].startswith("Weights ")
    assert any(line.startswith("Input ") for line in lines)
    assert lines[-1] == "Licence   weights: mit"
    assert len(written(show.backbone_lines, replace(backbone, licence=None))) == len(lines) - 1


def test_data_tells_its_size_and_lists_what_was_left_out() -> None:
    left = tuple(LeftOut(f"row {i}", "an empty text") for i in range(11))
    lines = written(show.data_lines, replace(DATA, left_out=left, notes=("A note.",)), untouched="9 kept")
    assert lines[0] == "Data      45 rows in 3 classes (15 each); 9 kept"
    assert lines[1] == "          A note."
    assert [line.split("    ")[-2:] for line in lines[2:10]] == [
        [f"row {i}", "an empty text"] for i in range(8)
    ]
    assert lines[10].strip() == "… and 3 more"
    uneven = DATA.subset(np.arange(44))
    assert "(14 to 15 each)" in written(show.data_lines, uneven)[0]


def test_shares_of_work_add_up(backbone: Backbone) -> None:
    rows = show.chain_rows(backbone.chain)
    shares = [row["share"] for row in rows]
    assert sum(shares) == pytest.approx(1)
    assert [row["cumulative"] for row in rows] == pytest.approx(np.cumsum(shares).tolist())
    lines = written(show.chain_table, backbone.chain)
    assert [line.split()[:2] for line in lines[1:]] == [[str(r["index"]), r["name"]] for r in rows]


def test_a_cut_that_differs_says_by_how_much(backbone: Backbone) -> None:
    blocks = [replace(b, verified=b.index > 1, difference=0.25) for b in backbone.chain]
    chain = with_other(backbone.chain, blocks)
    assert "differs by 2.5e-01" in written(show.chain_table, chain)[1]


def test_the_table_shows_every_activation_and_with_why_the_difference(backbone: Backbone) -> None:
    first, *rest = backbone.chain.blocks
    several = replace(first, layout="map+tokens", others=((-1, 8),), difference=1.25e-7)
    chain = with_other(backbone.chain, [several, *rest])
    sizes = "×".join(map(str, first.shape))
    assert f" {sizes} + n×8 " in written(show.chain_table, chain)[1]
    assert "difference" not in "".join(written(show.chain_table, chain))
    lines = written(show.chain_table, chain, why=True)[1:]
    assert lines[0].endswith("equal, difference 1.2e-07")
    assert all("equal, difference " in line for line in lines)
    assert show.chain_rows(chain)[0]["shapes"] == [list(first.shape), [-1, 8]]
    assert show.chain_rows(chain)[0]["shape"] == list(first.shape)
    assert f"  {first.name}: map {sizes} + tokens n×8" in written(show.chain_why, chain)
    assert not any("activations" in line for line in written(show.chain_why, backbone.chain))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_refused_cuts_are_counted_and_listed(backbone: Backbone, count: int) -> None:
    refused = [Refused(f"late.{i}", f"reason {i}") for i in range(count)]
    chain = with_other(backbone.chain, backbone.chain.blocks, refused)
    said = ["", "1 cut was tried and refused", "2 cuts were tried and refused"][count]
    summary = written(show.chain_summary, "own/maps", chain)
    assert summary[0] == f"own/maps: {len(chain)} blocks, every cut checked to compute the same"
    assert summary[1:] == ([f"{said}; --why tells the reason"] if count else [])
    assert len(written(show.chain_summary, "own/maps", chain, why=True)) == 1
    listed = [f"  late.{i}: reason {i}" for i in range(count)]
    assert written(show.chain_why, chain)[1 + (count > 0) :] == (listed or ["No cut was refused."])
    assert show.chain_json("own/maps", chain, None, None)["refused"] == [
        {"block": r.block, "reason": r.reason} for r in refused
    ]


def test_the_summary_does_not_say_that_a_cut_holds_that_does_not(backbone: Backbone) -> None:
    blocks = [replace(b, verified=b.index > 1) for b in backbone.chain.blocks]
    chain = with_other(backbone.chain, blocks)
    assert (
        f"{len(chain) - 1} of {len(chain)} cuts checked" in written(show.chain_summary, "own/maps", chain)[0]
    )


def test_the_evidence_has_a_row_a_depth_and_marks_the_advice(
    backbone: Backbone, found: tuple[Evidence, DepthAdvice]
) -> None:
    evidence, advice = found
    lines = written(show.evidence_table, backbone.chain, evidence, advice)
    rows = [line for line in lines if "±" in line]
    assert len(rows) == len(backbone.chain)
    assert "score, 5 folds" in lines[1]
    marked = [i for i, row in enumerate(rows, start=1) if row.lstrip().startswith(">")]
    assert marked == [advice.keep]
    assert rows[advice.keep - 1].endswith("advised")
    assert "100 %" in rows[-1]
    for cut, row in zip(evidence.cuts, rows, strict=True):
        assert f"{100 * cut.score:.1f} ± {50 * (cut.high - cut.low):.1f}" in row


def test_secondary_measures_have_columns_of_their_own(
    backbone: Backbone, found: tuple[Evidence, DepthAdvice]
) -> None:
    beside = {cut.keep: Secondary(0.1 * cut.keep, -0.25) for cut in found[0].cuts}
    lines = written(show.evidence_table, backbone.chain, *found, beside)
    assert "neighbours  LogME" in lines[1]
    for cut, row in zip(found[0].cuts, [line for line in lines if "±" in line], strict=True):
        assert f"{10 * cut.keep:.1f}  -0.25" in row


def test_probe_json_says_the_same(backbone: Backbone, found: tuple[Evidence, DepthAdvice]) -> None:
    evidence, advice = found
    beside = {cut.keep: Secondary(0.1 * cut.keep, -0.25) for cut in evidence.cuts}
    document = show.probe_json(backbone, evidence, advice, [], beside)
    assert [c["neighbours"] for c in document["cuts"]] == [0.1 * c.keep for c in evidence.cuts]
    assert {c["logme"] for c in document["cuts"]} == {-0.25}
    assert [c["keep"] for c in document["cuts"] if c["in_set"]] == list(advice.in_set)
    assert [c["score"] for c in document["cuts"]] == [c.score for c in evidence.cuts]
    assert document["cuts"][-1]["parameters"] == pytest.approx(1)
    assert document["advice"]["block"] == backbone.chain.blocks[advice.keep - 1].name
    assert document["resumed"] == []


def test_scores_stand_beside_the_most_frequent_class() -> None:
    targets = np.array([0, 0, 0, 1, 2, 2])
    scores = score_predictions(targets, np.array([0, 0, 1, 1, 2, 0]), groups=np.arange(6))
    lines = written(show.score_lines, scores, 0.5)
    assert lines[0].startswith("Score     accuracy 66.7 % on 6 untouched examples (95 % interval ")
    assert lines[0].endswith("the most frequent class alone: 50.0 %")
    assert "balanced accuracy" in lines[1]
    assert "macro F1" in lines[1]
    document = show.score_json(scores[0])
    assert document == {
        "metric": "accuracy",
        "value": scores[0].value,
        "low": scores[0].low,
        "high": scores[0].high,
        "n": 6,
    }


def test_each_class_has_precision_recall_and_support() -> None:
    targets, said = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    lines = written(show.class_table, ["yes", "no"], class_scores(targets, said, 2))
    assert lines[1].split() == ["yes", "100.0", "%", "66.7", "%", "80.0", "%", "3"]
    assert lines[2].split() == ["no", "50.0", "%", "100.0", "%", "66.7", "%", "1"]
