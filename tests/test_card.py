from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_networks import backbone_of, data_of_maps, example_maps, maps

import topgraft
from topgraft.backbones.types import Backbone
from topgraft.card import model_card

DATA = data_of_maps(12)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return backbone_of(maps(depth=2), example_maps())


def result(**more: Any) -> dict[str, Any]:
    names = ["stem", "blocks.0", "blocks.1"]
    score = {"metric": "accuracy", "value": 0.875, "low": 0.7, "high": 0.951, "n": 40}
    return {
        "keep": 2,
        "freeze": 1,
        "taps": [1],
        "trained_parameters": 12_345,
        "model": "photos.topgraft",
        "majority": 0.25,
        "blocks": {"all": names, "kept": names[:2], "frozen": names[:1]},
        "score": score,
        "scores": [score, {**score, "metric": "macro F1", "value": 0.8}],
        **more,
    }


def test_the_card_says_what_a_person_should_know(backbone: Backbone) -> None:
    card = model_card(result(), replace(backbone, licence="mit"), DATA, command_seed=7)
    for part in (
        f"Made by Topgraft {topgraft.__version__}",
        "licence of the weights: mit",
        "keeps 2 of 3 blocks, to `blocks.0`",
        "of these 1 never changed, to `stem`",
        "the head also reads what comes out of blocks 1\n- 12,345 parameters were trained",
        "accuracy 87.5 % on 40 untouched examples",
        "70.0 % to 95.1 %",
        "25.0 %",
        DATA.fingerprint,
        "seed 7",
        "- class 0: 4",
    ):
        assert part in card


def test_the_card_begins_with_metadata(backbone: Backbone) -> None:
    lines = model_card(result(), backbone, DATA, command_seed=0).splitlines()
    assert lines[:4] == [
        *("---", "library_name: topgraft", "pipeline_tag: tabular-classification", "---"),
    ]
    for modality, tag in (("picture", "image"), ("text", "text")):
        data = replace(DATA, modality=modality)
        assert f"pipeline_tag: {tag}-classification" in model_card(result(), backbone, data, command_seed=0)


def test_nothing_frozen_and_an_unknown_licence_are_said(backbone: Backbone) -> None:
    whole = result(freeze=0, blocks={"all": ["stem"], "kept": ["stem"], "frozen": []})
    card = model_card(whole, replace(backbone, licence=None), DATA, command_seed=0)
    assert "of these 0 never changed\n" in card
    assert "licence of the weights: not known" in card


def test_names_cannot_act_in_the_card(backbone: Backbone) -> None:
    data = replace(DATA, classes=("<script>alert(1)</script>", "a\n# heading", "[x](http://y)"))
    card = model_card(result(model="m`odel\n---"), backbone, data, command_seed=0)
    assert "<script>" not in card
    assert "\n# heading" not in card
    assert "[x](" not in card
    assert "\\<script\\>" in card
    assert card.count("\n---\n") == 1


def test_the_card_of_numbers_tells_their_errors_and_no_classes(backbone: Backbone) -> None:
    data = replace(DATA, classes=(), outputs=("width", "<b>height"), targets=np.zeros((len(DATA), 2)))
    score = {"metric": "R2", "value": 0.5, "low": 0.25, "high": 0.75, "n": 40}
    errors = [
        {**score, "metric": f"mean absolute error of {n}", "value": v}
        for n, v in (("width", 3.25), ("b", 7e4))
    ]
    found = result(score=score, scores=[score, *errors], majority=-0.01)
    card = model_card(found, backbone, data, command_seed=0)
    assert "pipeline_tag: tabular-regression" in card
    assert "R2 50.0 % on 40 untouched examples" in card
    assert "always answering the mean gives -1.0 %" in card
    assert "mean absolute error of width 3.25; mean absolute error of b 70,000" in card
    assert "To be predicted: width, \\<b\\>height." in card
    assert "Probabilities" not in card
