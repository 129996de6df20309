from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import called, done, tiny_job

from topgraft.curves import ARMS


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(autouse=True)
def _store(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPGRAFT_CACHE", str(place / "store"))


def _which(outcome: dict[str, Any]) -> tuple[str, float, int]:
    return outcome["arm"], outcome["share"], outcome["seed"]


def test_five_ways_are_scored_on_the_same_examples_and_a_killed_comparison_goes_on(place: Path):
    """The classes go by single words: with all texts, TF-IDF and the probe are right on every one."""
    job = tiny_job(place / "job")
    command = ("compare", job.table, "--backbone", job.backbone, "--budget", "30", "-o", place / "out.json")
    outcome = done(*command, "--json")
    document = json.loads(outcome.out)
    assert [arm["name"] for arm in document["arms"]] == list(ARMS)
    by_name = {arm["name"]: arm for arm in document["arms"]}
    assert by_name["baseline"]["score"] == by_name["pretrained"]["score"] == 1.0
    assert by_name["majority class"]["score"] < 0.5
    assert document["verdict"] == "no_difference"
    assert document["sentence"].startswith("No difference can be shown: ")
    assert document["sentence"] in outcome.err
    assert {o["arm"] for o in json.loads((place / "out.json").read_text())["outcomes"]} == set(ARMS)
    shares = [point["share"] for point in by_name["pretrained"]["curve"]]
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    assert by_name["scratch"]["curve"][-1]["seconds"] > 0
    assert json.loads((place / "out.json").read_text())["result"] == document
    assert str(place / "out.json") in outcome.err

    kept = json.loads((place / "out.json").read_text())
    whole = {_which(outcome) for outcome in kept["outcomes"]}
    kept["outcomes"] = [o for o in kept["outcomes"] if o["arm"] != "scratch" or o["share"] == 1.0]
    del kept["result"]
    (place / "out.json").write_text(json.dumps(kept))
    assert "not finished" in called("report", place / "out.json").err
    again = json.loads(done(*command, "--json").out)
    outcomes = json.loads((place / "out.json").read_text())["outcomes"]
    assert outcomes[: len(kept["outcomes"])] == kept["outcomes"]
    assert {_which(outcome) for outcome in outcomes} >= whole  # more, where the first had less time
    assert len({_which(outcome) for outcome in outcomes}) == len(outcomes)
    numbers = json.loads(done("report", place / "out.json", "--json").out)["numbers"]
    assert numbers["comparison"] == again
    for arm in again["arms"]:
        if arm["name"] != "scratch" and {_which(o) for o in outcomes if o["arm"] == arm["name"]} <= whole:
            assert arm["score"] == by_name[arm["name"]]["score"]
            assert arm["curve"] == by_name[arm["name"]]["curve"]


def test_random_values_have_no_pretraining_to_compare_with(place: Path):
    job = tiny_job(place / "other")
    outcome = called("compare", job.table, "--backbone", job.backbone, "--weights", "none")
    assert outcome.status == 2
    assert "random values itself" in outcome.err
