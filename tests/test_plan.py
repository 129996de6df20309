from __future__ import annotations

import json
from pathlib import Path

import pytest

from topgraft.errors import TopgraftError
from topgraft.plan import Plan

SHORT = {"freeze": 1, "epochs": 2, "loss": 0.5, "score": 0.8, "seconds": 1.5}


def never() -> tuple[int, str]:
    raise AssertionError("it was decided already")


def test_a_decision_is_written_before_it_is_used_and_read_back(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "plan.json")
    assert plan.decide("epochs", lambda: (7, "there is time")) == 7
    assert json.loads((tmp_path / "plan.json").read_text())["decisions"] == {
        "epochs": {"value": 7, "reason": "there is time"}
    }
    assert plan.decide("epochs", never) == 7
    assert plan.reason("epochs") == "there is time"
    assert not plan.is_repeat


def test_what_a_plan_was_given_is_taken(tmp_path: Path) -> None:
    Plan(tmp_path / "plan.json").decide("epochs", lambda: (7, "there is time"))
    repeat = Plan(tmp_path / "other.json", Plan.read(tmp_path / "plan.json"))
    assert repeat.is_repeat
    assert repeat.decide("epochs", never) == 7
    repeat.tell({"dropout": 0.5})
    repeat.tell({"dropout": 0.1})
    assert Plan.read(tmp_path / "other.json") == {
        "epochs": {"value": 7, "reason": "there is time"},
        "dropout": {"value": 0.5, "reason": "as told"},
    }


def test_a_plan_without_a_file_decides_all_the_same() -> None:
    plan = Plan()
    assert plan.decide("keep", lambda: (3, "why not")) == 3
    assert plan.decide("keep", never) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "no plan of this version"),
        ('{"form": 99, "decisions": {}}', "no plan of this version"),
        ('{"form": 1}', "damaged"),
        ('{"form": 1, "decisions": {"keep": {"value": 3}}}', "damaged"),
        ("{", "plan.json"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(TopgraftError, match=said):
        Plan.read(tmp_path / "plan.json")


def test_a_run_whose_plan_is_damaged_says_how_to_go_on(tmp_path: Path) -> None:
    place = tmp_path / "plan.json"
    given = {"keep": {"value": 3, "reason": "so"}}
    assert Plan.of_run(place, given).decisions == given
    Plan(place).decide("keep", lambda: (2, "measured"))
    assert Plan.of_run(place, given).decisions == {"keep": {"value": 2, "reason": "measured"}}
    place.write_text(place.read_text()[:-9])
    with pytest.raises(TopgraftError, match=f"damaged: .*\nDelete {tmp_path} to begin this run anew"):
        Plan.of_run(place, given)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("threads", "all", "not a number of threads"),
        ("threads", 0, "not a number of threads"),
        ("keep", "most", "not a whole number"),
        ("epochs_done_at_4", -1, "not a whole number"),
        ("freeze", True, "not a whole number"),
        ("rate", "fast", "not a number or null"),
        ("backbone", [1], "not a text or null"),
        ("refit", "yes", "not true or false"),
        ("hidden", [8, "x"], "not a list of whole numbers"),
        ("allow_missing", "all", "not a list of texts"),
        ("short_1_2", {"freeze": 1}, "not a short training"),
        ("short_1_2_1", {**SHORT, "seed": -1}, "not a short training"),
        ("seeds", 0.5, "not a whole number"),
    ],
)
def test_a_decision_that_cannot_be_one_is_refused(
    tmp_path: Path, name: str, value: object, said: str
) -> None:
    document = {"form": 1, "decisions": {name: {"value": value, "reason": "so"}}}
    (tmp_path / "plan.json").write_text(json.dumps(document))
    with pytest.raises(TopgraftError, match=f"its decision on {name} is .*{said}"):
        Plan.read(tmp_path / "plan.json")


def test_decisions_of_other_names_are_not_looked_at(tmp_path: Path) -> None:
    Plan(tmp_path / "plan.json").decide("later", lambda: ({"any": "thing"}, "of a later version"))
    assert Plan.read(tmp_path / "plan.json")["later"]["value"] == {"any": "thing"}
