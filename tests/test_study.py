"""The program of ``make study``: a fair best, regret, and a study that adds up over several sittings."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import study
import study_jobs
from made_sounds import write_sounds
from study_page import ADVISED, best_of, chosen_fairly, document, judged, right
from study_tasks import TASKS, Task, rows_of, tables, write_rows


def cell(keep: int, freeze: int, marks: np.ndarray, seconds: float = 1.0) -> dict:
    correct = "".join(map(str, marks.astype(int)))
    return {"keep": keep, "freeze": freeze, "epochs": 1, "seconds": seconds, "correct": correct}


def record(grid: list[dict], advised: dict, seeds: int = 3) -> dict:
    told = {"near": True, "said": "what", "examples": 10, "untouched": 10, "size": 64, "epochs": 3}
    keeps = sorted({one["keep"] for one in grid})
    cuts = [{"keep": k, "probe": k / 10, "logme": -k, "neighbours": k / 10} for k in keeps]
    return {
        "told": told,
        "seeds": {str(s): {"grid": grid, "advised": advised, "cuts": cuts} for s in range(seeds)},
    }


def test_a_grid_has_24_pairs_and_a_short_chain_all_that_there_are():
    assert len(study.grid(18)) == len(set(study.grid(18))) == 24
    assert all(0 <= freeze <= keep <= 18 for keep, freeze in study.grid(18))
    assert study.grid(2) == [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]


def test_the_best_of_many_equal_trainings_has_no_advantage_from_having_been_chosen():
    rng = np.random.default_rng(3)
    fair, naive = [], []
    for _ in range(20):
        grid = [cell(k, 0, rng.random(400) < 0.5) for k in range(60)]
        fair.append(chosen_fairly(grid).mean())
        naive.append(right(best_of(grid, np.arange(400))).mean())
    assert np.mean(naive) > 0.55
    assert np.mean(fair) == pytest.approx(0.5, abs=0.02)


def test_of_equals_the_best_is_the_one_that_trains_least():
    marks = np.ones(10, bool)
    grid = [cell(9, 0, marks), cell(6, 4, marks), cell(9, 9, ~marks), cell(4, 2, marks)]
    assert best_of(grid, np.arange(10)) is grid[3]


def test_regret_is_what_the_advice_loses():
    marks = np.arange(200) % 10 != 0  # 90 %
    worse = marks & (np.arange(200) % 10 != 1)  # 80 %
    some = record([cell(3, 0, marks), cell(3, 3, worse), cell(2, 0, worse, 6.0)], cell(3, 3, worse))
    assert [one.correct[ADVISED].mean() for one in judged(some)] == [0.8] * 3
    page = document({"made up": some})
    line = next(line for line in page.splitlines() if line.startswith("| made up | near"))
    assert line.endswith(" |")
    assert "| 90.0 | 80.0 | +10.0 (" in line
    assert "| 12 % |" in line
    assert "the mean regret is +10.00 points" in page
    assert "more than 1 point" in page
    assert "| made up | 1.00 | -1.00 | 1.00 |" in page
    assert "(3, 3), best (3, 0)" in page


def test_every_seed_learns_from_other_examples_and_is_scored_on_the_same(tmp_path: Path):
    rows = [(f"text {n}", "ab"[n % 2]) for n in range(100)]
    task = replace(TASKS["kinds"], examples=30, untouched=40)
    made = [tables(task, rows, seed, tmp_path) for seed in (0, 1)]
    first, second = (set(learned.read_text().splitlines()[1:]) for learned, _ in made)
    untouched = set(made[0][1].read_text().splitlines()[1:])
    assert (len(first), len(second), len(untouched)) == (30, 30, 40)
    assert first != second
    assert not untouched & (first | second)
    assert tables(task, rows, 0, tmp_path)[0].read_text().splitlines()[1:] != []


@pytest.mark.exhaustive
def test_a_study_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def sounds(folder: Path) -> Iterable[tuple[str, str]]:
        write_sounds(folder / "sounds", 20)
        return [(str(p.relative_to(folder)), p.parent.name) for p in sorted(folder.rglob("sounds/*/*"))]

    task = Task(
        "made", "sound", near=False, examples=30, untouched=30, size=None, epochs=1, make=sounds, said=""
    )
    monkeypatch.setattr(study, "grid", lambda blocks: [(blocks, blocks), (2, 1)])
    study.measure(task, tmp_path / "build", tmp_path, [0])
    file = tmp_path / "made.json"
    whole = json.loads(file.read_text())
    one = whole["seeds"]["0"]
    assert [(c["keep"], c["freeze"]) for c in one["grid"]] == [(4, 4), (2, 1)]
    assert [len(c["correct"]) for c in [*one["grid"], one["advised"]]] == [30] * 3
    assert [cut["keep"] for cut in one["cuts"]] == [1, 2, 3, 4]

    advised = one["advised"]
    del one["grid"][1]
    one["grid"][0]["seconds"] = 123.0  # that is not measured again
    file.write_text(json.dumps(whole))
    study.measure(task, tmp_path / "build", tmp_path, [0])
    again = json.loads(file.read_text())["seeds"]["0"]
    assert again["grid"][0]["seconds"] == 123.0
    assert [(c["keep"], c["freeze"]) for c in again["grid"]] == [(4, 4), (2, 1)]
    assert again["advised"] == advised
    assert len(rows_of(task, tmp_path / "build" / "made")) == 60

    with pytest.raises(SystemExit, match="holds another form of made"):
        study.measure(replace(task, epochs=2), tmp_path / "build", tmp_path, [0])


def test_draws_that_are_whole_are_put_together_and_others_are_lacking(tmp_path: Path) -> None:
    told, whole, part = {"size": 64}, {"grid": [1], "advised": {}, "cuts": []}, {"grid": [1]}
    results, made = tmp_path / "results", tmp_path / "made"
    for place in (results, made):
        place.mkdir()
    one = made / "digits.json"
    one.write_text(json.dumps({"told": told, "seeds": {"1": whole, "2": part}}))
    study_jobs.merged(results, one)
    found = json.loads((results / "digits.json").read_text())
    assert found == {"told": told, "seeds": {"1": whole}}
    assert study_jobs.lacking(["digits", "fonts"], [0, 1], results) == [
        ("digits", 0),
        ("fonts", 0),
        ("fonts", 1),
    ]
    one.write_text(json.dumps({"told": told, "seeds": {"0": whole}}))
    study_jobs.merged(results, one)
    assert list(json.loads((results / "digits.json").read_text())["seeds"]) == ["0", "1"]
    one.write_text(json.dumps({"told": {"size": 96}, "seeds": {"0": whole}}))
    with pytest.raises(SystemExit, match="another form of the task"):
        study_jobs.merged(results, one)


def test_what_is_among_the_untouched_too_is_not_learned_from(tmp_path: Path) -> None:
    learned, untouched = tmp_path / "learned.csv", tmp_path / "untouched.csv"
    rows = [
        (f"A text of its own kind, number {n} of all that there are,\nin two lines.", "ab"[n % 2])
        for n in range(8)
    ]
    write_rows(
        untouched,
        "text",
        [(f"{n} {n + 1} untouched", "ab"[n % 2]) for n in range(4)] + [(rows[3][0].upper(), "b")],
    )
    write_rows(learned, "text", rows)
    study.keep_apart(TASKS["kinds"], learned, untouched)
    with learned.open(encoding="utf-8", newline="") as file:
        left = [tuple(row) for row in csv.reader(file)]
    assert left == [("text", "label"), *rows[:3], *rows[4:]]
