from __future__ import annotations

import json
from typing import Any

import pytest

from topgraft.errors import TopgraftError
from topgraft.settings import REPEATED, Settings, agree


def decisions(**values: Any) -> dict[str, dict[str, Any]]:
    return {name: {"value": value, "reason": "as told"} for name, value in values.items()}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("augment", "wild", "auto, none, light, standard, strong"),
        ("class_weights", "fair", "none, balanced"),
        ("precision", "int8", "auto, fp32, bf16"),
        ("folds", 1, "2 to 100"),
        ("folds", 101, "2 to 100"),
        ("held_out", 0, "0.01 to 0.9"),
        ("held_out", float("nan"), "0.01 to 0.9"),
        ("budget", 0.5, "1 to 31536000"),
        ("budget", float("inf"), "1 to 31536000"),
        ("budget", float("nan"), "1 to 31536000"),
        ("dropout", -0.1, "0 to 0.95"),
        ("batch_size", 0, "1 to 4096"),
        ("rate", 0.0, "out of range"),
        ("epochs", 0, "1 to 10000"),
        ("hidden", [16, 0], "1 to 65536"),
        ("seed", -1, "0 to 4294967295"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_choices(name: str, value: Any, said: str) -> None:
    with pytest.raises(TopgraftError, match=f"--{name.replace('_', '-')}") as told:
        Settings.of({name: value})
    assert said in str(told.value)
    assert told.value.exit_status == 2


def test_options_that_were_not_given_stay_as_they_are() -> None:
    assert Settings.of({"rate": None, "hidden": None, "allow_missing": None}) == Settings()


def test_counts_and_names_of_blocks_are_both_words() -> None:
    assert Settings.of({"keep": 3, "freeze": "stem"}).keep == "3"


def test_an_unknown_option_gets_the_nearest() -> None:
    with pytest.raises(TopgraftError, match=r"no option 'budgt'\. Nearest: budget"):
        Settings.of({"budgt": 3})


def test_as_json_and_back() -> None:
    settings = Settings.of({"hidden": [8, 4], "rate": 0.01, "allow_missing": ["a.*"], "freeze": 0})
    assert Settings.of(json.loads(json.dumps(settings.to_json()))) == settings


def test_a_plan_gives_what_was_not_said() -> None:
    planned = Settings.of({"hidden": [8], "augment": "none", "refit": False, "seed": 3, "budget": 7})
    taken = Settings.of({"seed": 5}).repeating(decisions(**{n: planned.to_json()[n] for n in REPEATED}))
    assert (taken.hidden, taken.augment, taken.refit) == ((8,), "none", False)
    assert (taken.seed, taken.budget) == (5, 600.0)


def test_an_option_may_repeat_the_plan_but_not_contradict_it() -> None:
    plan = decisions(dropout=0.2, hidden=[8])
    assert Settings.of({"dropout": 0.2}).repeating(plan) == Settings(dropout=0.2, hidden=(8,))
    with pytest.raises(TopgraftError, match=r"dropout=0\.5, but the plan says dropout=0\.2"):
        Settings.of({"dropout": 0.5}).repeating(plan)


def test_what_a_plan_says_must_be_possible() -> None:
    with pytest.raises(TopgraftError, match="--dropout 7"):
        Settings().repeating(decisions(dropout=7))


def test_nothing_said_agrees_with_every_plan() -> None:
    agree("keep", None, 3)
    agree("keep", 3, 3)
    with pytest.raises(TopgraftError, match="keep=2, but the plan says keep=3"):
        agree("keep", 2, 3)
