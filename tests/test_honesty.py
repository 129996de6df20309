"""The program of ``make honesty``: what it counts, and the page that it writes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from honesty import as_page, judged
from test_probe import draw, folds

from topgraft.evidence import Evidence, Features
from topgraft.probe import probe

FOUND = {
    "sentence": "Pretraining lost: the simple baseline is better by 9.0 points (95 % interval 5.0 to 13.0).",
    "verdict": "baseline_won",
    "untouched": 300,
    "notes": ["one seed was trained"],
    "arms": [{"name": "baseline", "score": 0.95, "low": 0.92, "high": 0.98}],
}


def probed(apart: float) -> Evidence:
    """Probes at two cuts: noise, and classes that lie so far apart."""
    x, y = draw(120, 10, 3, apart=apart)
    noise = torch.randn(120, 5, generator=torch.Generator().manual_seed(1))
    return probe(Features({1: noise, 2: x}, "drawn"), y, folds(120), 3)


@pytest.mark.parametrize(("apart", "found"), [(0.0, False), (3.0, True)])
def test_a_cut_that_knows_the_classes_is_seen_and_one_that_knows_nothing_is_not(apart: float, found: bool):
    said = judged(probed(apart), SimpleNamespace(beats_chance=found), 0)
    assert (said["simultaneous"], said["summary"]) == (found, found)
    assert (said["largest_gain"] > 0.3) == found


def test_the_page_counts_the_shuffles_and_shows_the_first_sentences():
    shuffles = [
        {"simultaneous": i < 2, "single": i < 9, "summary": i < 3, "largest_gain": 0.01 * i}
        for i in range(100)
    ]
    page = as_page(shuffles, ["No depth did better.", "Accuracy 10 %."], FOUND)
    assert "| simultaneous intervals of accuracy | 2 of 100 | at most 5 |" in page
    assert "| 3 of 100 |" in page
    assert "| 9 of 100 |" in page
    assert f"best of the 18 cuts is {100 * np.median([0.01 * i for i in range(100)]):+.1f} points" in page
    assert "> No depth did better.\n>\n> Accuracy 10 %." in page
    assert f"> {FOUND['sentence']}\n>\n> one seed was trained\n" in page
    assert "`baseline_won`, by 300 untouched examples" in page
