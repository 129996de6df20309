"""The program of ``make simulation``: what it draws, what it counts, and a sample of what it finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulation
from simulation import (
    BETTER,
    CELLS,
    EQUAL,
    Cell,
    as_page,
    found_in,
    fresh_accuracy,
    promises,
    repetition,
    sitting,
)

SMALL = Cell(100, EQUAL, 0.9, (2.5, 1.5, 0.5))


def test_noise_is_correlated_as_stated_and_means_lie_as_far_as_stated() -> None:
    classes, features = SMALL.draw(20_000, np.random.default_rng(0))
    first, last = features[0], features[2]
    assert first[classes == 1].mean(0)[:3] == pytest.approx([0, 2.5, 0], abs=0.05)
    assert last[classes == 2].mean(0)[:3] == pytest.approx([0, 0, 0.5], abs=0.05)
    noise = [x - s * np.eye(3, x.shape[1])[classes] for s, x in zip((2.5, 0.5), (first, last), strict=True)]
    assert np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1] == pytest.approx(0.9, abs=0.01)
    assert noise[0].std() == pytest.approx(1, abs=0.01)


def test_the_promised_cells_are_there() -> None:
    assert {cell.n for cell in CELLS} == {100, 300, 1000}
    assert len({cell.correlation for cell in CELLS}) == 2
    assert all(cell.n == 1000 for cell in CELLS if cell.kind == BETTER)
    assert all(cell.strengths[0] == max(cell.strengths) for cell in CELLS)
    assert len({cell.name for cell in CELLS}) == len(CELLS)


def test_a_sample_of_data_sets_is_covered_and_the_best_cut_is_found() -> None:
    truth = np.mean([fresh_accuracy(SMALL, number) for number in range(5)], axis=0)
    assert (np.diff(truth) < 0).all()
    every = [repetition(SMALL, number) for number in range(8)]
    held = [
        low <= t <= high for one in every for low, t, high in zip(one["low"], truth, one["high"], strict=True)
    ]
    assert np.mean(held) >= 0.75  # 95 % expected of 24, of which three cuts each err together
    assert sum(one["in_set"][0] for one in every) >= 6
    assert not any(one["in_set"][2] for one in every)  # chance is 30 points away
    assert repetition(SMALL, 3) == every[3]  # so that a further sitting adds to the same numbers


def measured(cell: Cell, covered: int, kept: int, size: int = 1) -> dict[str, Any]:
    """A hundred repetitions: so many intervals hold the truth, so many sets hold the last cut."""
    rng = np.random.default_rng(0)
    truth = np.array([0.8, *[0.75] * (len(cell.strengths) - 2), 0.7])
    repetitions = []
    for number in range(100):
        score = truth + 0.01 * rng.normal(size=len(truth))
        off = 0.0 if number < covered else 0.3
        repetitions.append(
            {
                "score": score.tolist(),
                "low": (truth - 0.1 + off).tolist(),
                "high": (truth + 0.1 + off).tolist(),
                "in_set": [k < size or (k == len(truth) - 1 and number < kept) for k in range(len(truth))],
                "alike": 0.5,
            }
        )
    return {"repetitions": repetitions, "truths": [truth.tolist()] * 3}


def test_what_is_promised_is_counted() -> None:
    found = [found_in(cell, measured(cell, 96, 3)) for cell in CELLS]
    assert [holds for *_, holds in promises(found)] == [True] * 5
    assert found[0].covered.tolist() == [0.96] * 5
    assert found[0].apart[-1] == pytest.approx(0.1 / (2**0.5 * 0.01), rel=0.2)
    page = as_page(found, 3)
    assert "| 96.0% | yes |" in page
    assert "So far 100 repetitions a cell" in page


@pytest.mark.parametrize(
    ("which", "covered", "kept", "size"), [(0, 92, 0, 1), (1, 90, 0, 1), (3, 96, 0, 3), (4, 96, 5, 1)]
)
def test_each_promise_can_be_broken(which: int, covered: int, kept: int, size: int) -> None:
    found = [found_in(cell, measured(cell, covered, kept, size)) for cell in CELLS]
    assert not promises(found)[which][-1]


def test_a_best_cut_that_is_not_in_the_set_is_counted() -> None:
    found = replace(found_in(CELLS[0], measured(CELLS[0], 96, 3)), best=0.94)
    assert not promises([found])[2][-1]


def test_sittings_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "WORK", tmp_path)
    monkeypatch.setattr(simulation, "BATCH", 1)
    monkeypatch.setattr(simulation, "TRUTHS", 1)
    first = sitting([SMALL], 1, 60)[SMALL.name]
    both = sitting([SMALL], 2, 60)[SMALL.name]
    assert both["repetitions"][:1] == first["repetitions"]
    assert [len(both[what]) for what in ("repetitions", "truths")] == [2, 2]
    assert sitting([SMALL], 9, 0)[SMALL.name] == both  # no time: what is known already
