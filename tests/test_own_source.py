"""The program of ``make source``: paired differences, and the page that says what came out."""

from __future__ import annotations

import numpy as np
import pytest
from own_source import BOOSTING, FROZEN, METHODS, OURS, SCRATCH, TARGETS, difference, document, verdict


def records(**by_method: list[float]) -> list[dict]:
    """Two draws or more, with areas in percent of some ways; the others have 60."""
    draws = len(next(iter(by_method.values())))
    named = {name: by_method.get(name, [60.0] * draws) for name in METHODS}
    told = {"keep": 3, "freeze": 2}
    return [
        {"methods": {n: {"area": a[i] / 100, "seconds": 1.0, "told": told} for n, a in named.items()}}
        for i in range(draws)
    ]


def test_differences_are_paired_and_their_interval_is_students():
    some = records(**{OURS: [70.0, 65.0, 75.0], BOOSTING: [69.0, 63.0, 72.0]})
    gain, half = difference(some, OURS, BOOSTING)
    assert gain == pytest.approx(2.0)
    assert half == pytest.approx(4.303 * 1.0 / np.sqrt(3), rel=1e-3)


def test_a_loss_is_called_one():
    some = records(**{OURS: [60.0, 60.1, 60.0], BOOSTING: [69.0, 69.2, 69.1], SCRATCH: [50.0, 50.2, 50.1]})
    assert verdict(some, OURS, BOOSTING).startswith("- **worse** than **boosting**: -9.1 points")
    assert verdict(some, OURS, SCRATCH).startswith("- better than **the same network on the target alone**")
    assert verdict(some, FROZEN, OURS).startswith("- no difference")


def test_the_page_holds_every_way_and_both_labels():
    told = {"rows": 1000, "seconds": 9.0, "score": 0.8, "majority": 0.7, "untouched": 500}
    by_task = {task: records(**{OURS: [61.0, 62.0]}) for task in TARGETS}
    page = document(by_task, {**told, "shares": dict.fromkeys(TARGETS, 0.25)})
    assert all(page.count(f"| {method} |") == 2 for method in METHODS)
    assert all(f"## The label: {task} (25 % are)" in page for task in TARGETS)
    assert "3 and 2, 3 and 2" in page
    assert "{" not in page
