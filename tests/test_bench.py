from __future__ import annotations

from typing import Any

import pytest
from bench_page import document


def evidence(ours: float, usual: dict[str, float]) -> dict[str, Any]:
    scores = {str(cut): 0.5 for cut in range(1, 19)}
    return {"pictures": 100, "ours": ours, "scores": scores, "usual": usual, "usual_scores": scores}


def verdicts(results: dict[str, Any]) -> list[str]:
    page, holds = document(results)
    found = [line for line in page.splitlines() if line.startswith(("- holds: ", "- FAILS: "))]
    assert holds is all(line.startswith("- holds") for line in found)
    return found


def test_the_evidence_is_compared_with_the_script_run_for_every_cut() -> None:
    every = {str(cut): 30.0 for cut in range(1, 19)}
    assert [v[2:7] for v in verdicts({"evidence": evidence(21.0, every)})] == ["holds", "FAILS"]
    assert [v[2:7] for v in verdicts({"evidence": evidence(22.0, every | {"18": 120.0})})] == [
        "holds",
        "holds",
    ]
    (few,) = verdicts({"evidence": evidence(30.0, {"1": 20.0, "9": 40.0})})  # the last layer was not run
    assert "FAILS" in few
    assert "18.0 times as fast (from 2 of 18 cuts, multiplied)" in few


@pytest.mark.parametrize(("every", "said"), [(1.29, "holds"), (1.31, "FAILS")])
def test_all_cuts_may_cost_a_third_more_than_one_pass(every: float, said: str) -> None:
    (line,) = verdicts({"forward": {"torch fp32": {"once": 1.0, "every": every}}})
    assert line[2:7] == said


def test_training_from_the_store_is_compared_with_what_the_cost_model_allows() -> None:
    one = {"freeze": 9, "share": 0.5, "storing": 1.0, "stored": 10.0, "live": 13.0}
    low, high = ({**one, "allowed": 1.6, "reached": r} for r in (1.2, 1.3))
    assert [v[2:7] for v in verdicts({"training": [low, high]})] == ["FAILS", "holds"]


def test_accuracy_is_compared_with_the_best_of_fastais_epochs() -> None:
    fastai = [{"epochs": n, "test": t, "seconds": 100.0 * n} for n, t in ((1, 0.7), (2, 0.8), (3, 0.75))]
    stage = {"seconds": {"predicted": 10.0, "actual": 11.0}}
    told = {"pass": stage, "probes": stage, "storing": None, "training": stage}
    results = {"budgets": [60, 180], "fastai": fastai, "frozen": fastai[0]}
    ours = [{"seconds": s, "test": t, "forecast": told} for s, t in ((15.0, 0.79), (19.0, 0.81))]
    assert [v[2:7] for v in verdicts({"accuracy": {**results, "ours": ours}})] == ["holds", "holds"]
    slow = [{**ours[0], "forecast": {"pass": {"seconds": {"predicted": 1.0, "actual": 2.0}}}}]
    both = verdicts({"accuracy": {**results, "ours": slow, "budgets": [60]}})
    assert [v[2:7] for v in both] == ["FAILS", "FAILS"]
    assert "not reached" in both[0]
