"""What the trial of recipes is told."""

from __future__ import annotations

import pytest
from recipes import CATEGORIES, recipe_of

from topgraft import demo


def test_a_recipe_is_numbers_by_name() -> None:
    told = recipe_of("freeze=16,rate=3e-4,mixup=0.5")
    assert told == {"freeze": 16, "rate": 3e-4, "mixup": 0.5}
    assert recipe_of("") == {}


@pytest.mark.parametrize("text", ["frezze=3", "freeze", "rate=", "freeze=1,lr=2"])
def test_another_name_is_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(SystemExit, match=r"is no NAME=NUMBER of a recipe: .*batch_size, .*weight_decay"):
        recipe_of(text)


def test_no_default_is_chosen_on_what_it_is_judged_by() -> None:
    packaged = {folder.name for folder in demo.pictures().iterdir() if folder.is_dir()}
    assert packaged
    assert not packaged & set(CATEGORIES)
