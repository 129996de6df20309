from __future__ import annotations

import json
from pathlib import Path

import pytest

from topgraft.errors import TopgraftError
from topgraft.files import write_json
from topgraft.plan import Plan


def test_a_decision_is_written_before_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    plan = Plan(path)
    seen = []

    def make() -> tuple[int, str]:
        seen.append(json.loads(path.read_text())["decisions"].keys() if path.exists() else set())
        return 3, "three is enough"

    assert plan.decide("keep", make) == 3
    written = json.loads(path.read_text())
    assert written["decisions"] == {"keep": {"value": 3, "reason": "three is enough"}}
    assert plan.reason("keep") == "three is enough"
    assert plan.decide("freeze", lambda: (1, "so")) == 1
    assert list(json.loads(path.read_text())["decisions"]) == ["freeze", "keep"]
    assert [set(s) for s in seen] == [set()]


def test_what_is_decided_is_not_decided_again(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    Plan(path).decide("keep", lambda: (3, "measured"))
    again = Plan(path, Plan.read(path))

    def not_again() -> tuple[int, str]:
        raise AssertionError("it was decided already")

    assert again.decide("keep", not_again) == 3
    assert again.reason("keep") == "measured"


def test_values_of_every_kind_come_back(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    plan = Plan(path)
    values = {"a": 0, "b": 0.1 + 0.2, "c": "text", "d": [1, 2], "e": None, "f": False}
    for name, value in values.items():
        plan.decide(name, lambda value=value: (value, "r"))
    assert {n: d["value"] for n, d in Plan.read(path).items()} == values


def test_what_the_user_told_stands_beside_what_was_decided(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "plan.json")
    plan.decide("keep", lambda: (3, "measured"))
    plan.tell({"keep": 5, "seed": 7})
    assert Plan.read(tmp_path / "plan.json") == {
        "keep": {"value": 3, "reason": "measured"},
        "seed": {"value": 7, "reason": "as told"},
    }


def test_a_plan_of_an_earlier_run_is_a_repeat_and_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    Plan(path).decide("keep", lambda: (3, "measured"))
    before = path.read_bytes()
    given = Plan.read(path)
    repeat = Plan(tmp_path / "other.json", given)
    assert repeat.is_repeat
    assert not Plan(path).is_repeat
    repeat.decide("freeze", lambda: (1, "so"))
    assert path.read_bytes() == before
    assert list(given) == ["keep"]


def test_without_a_path_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Plan().decide("keep", lambda: (3, "so")) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"form": 99, "decisions": {}},
        {"form": 1},
        {"form": 1, "decisions": []},
        {"form": 1, "decisions": {"keep": 3}},
        {"form": 1, "decisions": {"keep": {"value": 3}}},
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, content: object) -> None:
    write_json(tmp_path / "plan.json", content)
    with pytest.raises(TopgraftError, match=r"plan\.json"):
        Plan.read(tmp_path / "plan.json")


def test_a_plan_that_is_not_there_or_damaged_is_told(tmp_path: Path) -> None:
    with pytest.raises(TopgraftError, match="does not exist"):
        Plan.read(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"form": 1, "decis')
    with pytest.raises(TopgraftError, match="damaged"):
        Plan.read(tmp_path / "half.json")
