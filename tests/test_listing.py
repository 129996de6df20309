from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import called, done
from hub_cache import use_cache


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cache(tmp_path, monkeypatch)


def test_the_table_has_only_columns_that_say_something() -> None:
    lines = done("backbones", "efficientnet_lite").out.splitlines()
    assert lines[0].split() == ["backbone", "reads", "parameters", "pixels", "licence", "where"]
    assert lines[1].split() == [
        "timm/tf_efficientnet_lite0",
        "pictures",
        "4.65",
        "M",
        "224",
        "apache-2.0",
        "packaged",
    ]
    assert lines[-1].startswith("What is to download comes from the hub")


def test_in_json_it_is_one_document() -> None:
    outcome = done("backbones", "--at-hand", "--json")
    assert [one["source"] for one in outcome.json["backbones"]] == [
        "hf/all-MiniLM-L6-v2",
        "sound/resemblyzer",
        "timm/tf_efficientnet_lite0",
    ]
    assert json.loads(outcome.out) == outcome.json
    assert outcome.json["backbones"][2]["parameters"] == 4_652_008


@pytest.mark.parametrize(
    ("asked", "said"), [(("resnt50",), "Nearest: resnet50"), (("--modality", "film"), "picture, text, sound")]
)
def test_what_is_not_there_is_said_with_what_is(asked: tuple[str, ...], said: str) -> None:
    outcome = called("backbones", *asked)
    assert outcome.status == 2
    assert said in outcome.err
