"""What a report says, as numbers and words, gathered from the folder that a run left behind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from topgraft.advise import DepthAdvice, cut_rows
from topgraft.console import counted, duration, percent
from topgraft.errors import TopgraftError
from topgraft.evidence import Evidence
from topgraft.files import read_json
from topgraft.health import HEALTHY
from topgraft.label_scores import HALF, RANKING, average_precision, label_table
from topgraft.mistakes import SHEET, UNTOUCHED
from topgraft.number_scores import R2
from topgraft.rank_scores import AGREEMENT
from topgraft.score import judged_on, optimism_in_words
from topgraft.show import constant_answer

RESULT, EVIDENCE = "result.json", "evidence.json"
TITLES = {
    "resizing": "how pictures are resized",
    "pass": "one pass over the data",
    "probes": "probes",
    "search": "short trainings of several choices",
    "storing": "storing what training reads",
    "training": "training",
}


def gather(folder: Path) -> dict[str, Any]:
    """Everything that a report shows, as plain JSON.

    Parameters
    ----------
    folder
        A finished run.

    Raises
    ------
    TopgraftError
        If it is none, or was made by a version that kept less.
    """
    if not (folder / RESULT).is_file():
        raise TopgraftError(
            f"{folder} holds no finished run; expected a folder that `topgraft fit -o` wrote and finished."
        )
    result = read_json(folder / RESULT)
    if not (folder / UNTOUCHED).is_file():
        raise TopgraftError(f"{folder} was made by a version without reports. Fit it again for one.")
    evidence = Evidence.from_json(read_json(folder / EVIDENCE)["evidence"])
    advice = DepthAdvice.from_json(result["advice"])
    command = read_json(folder / "run.json")["command"]
    seed = command["settings"]["seed"]
    return {
        "title": folder.name,
        "summary": _summary(result),
        "depth": _depth(result, evidence, advice),
        "search": _search(result),
        "training": _training(result),
        "health": _health(result),
        "metric": result["score"]["metric"],
        "untouched": _untouched(read_json(folder / UNTOUCHED), result["scores"]),
        "calibration": result["calibration"],
        "intervals": result["intervals"],
        "scorers": result.get("scorers", []),
        "augmented": read_json(folder / SHEET) if (folder / SHEET).is_file() else None,
        "costs": _costs(result["forecast"]),
        "weights": read_json(folder / "graft.json")["backbone"]["weights"],
        "reasons": {n: why for n, why in result["reasons"].items() if not n.startswith(("short_", "fold_"))},
        "again": {
            "command": f"topgraft fit DATA --plan {folder.name}/plan.json --seed {seed}",
            "settings": {k: v for k, v in command["settings"].items() if v not in (None, [], "auto")},
            "data": command["data"],
            "weights": command["weights"],
            "versions": result["versions"],
        },
    }


def _summary(result: Mapping[str, Any]) -> list[str]:
    """The sentences that stand first."""
    score, keep, freeze = result["score"], result["keep"], result["freeze"]
    of = judged_on(result.get("nested", 0))
    total, constant = len(result["blocks"]["all"]), constant_answer(score["metric"])
    first = (
        f"{score['metric'].capitalize()} {percent(score['value'], 1)} on {score['n']} {of} "
        f"(95 % interval {percent(score['low'], 1)} to {percent(score['high'], 1)}); {constant} alone gives "
        f"{percent(result['majority'], 1)}."
    )
    frozen = "all of them frozen" if freeze == keep else f"{freeze} of them frozen"
    second = (
        f"{keep} of {total} blocks of {result['backbone']} are kept, {frozen}; "
        f"{result['trained_parameters']:,} parameters were trained, in {duration(result['seconds'])} for all."
    )
    told = result["optimism"]
    third = (
        f"In the search this choice had {percent(told['searched'], 1)} on {told['n']:,} examples, "
        f"{100 * told['difference']:+.1f} ± {100 * told['error']:.1f} points from the untouched ones: "
        f"{optimism_in_words(told)}."
    )
    found = [first, second, third]
    if score["low"] <= result["majority"]:
        does = "knowing only" if score["metric"] == RANKING else "always answering"
        found.insert(0, f"This model can't be told from {does} {constant}.")
    if not result["advice"]["beats_chance"]:
        known = constant if score["metric"] in (R2, RANKING, AGREEMENT) else "how frequent each class is"
        found.insert(0, f"No depth did measurably better than knowing {known}.")
    sick = [v for v in (result["health"] or {}).get("verdicts", []) if v["verdict"] != HEALTHY]
    if sick:
        found.append(f"The gradients of {counted(len(sick), 'block')} were not healthy: see below.")
    if result["skipped"]:
        found.append(f"The time given left out: {'; '.join(result['skipped'])}.")
    return found


def _depth(result: Mapping[str, Any], evidence: Evidence, advice: DepthAdvice) -> dict[str, Any]:
    blocks = result["blocks"]
    rows = cut_rows(evidence, advice, blocks["all"], blocks["parameters"], blocks["work"])
    return {
        "cuts": rows,
        "keep": result["keep"],
        "freeze": result["freeze"],
        "why_kept": result["reasons"]["keep"].partition(":")[0],
        "advised": advice.keep,
        "reason": advice.reason,
        "chance": float(evidence.chance_marks.mean()),
        "folds": len(np.unique(evidence.fold_of)),
        "n": len(evidence.targets),
        "pareto": pareto([(row["work"], row["score"]) for row in rows]),
        "smallest_difference": advice.smallest_difference,
    }


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points no other beats: none costs no more and scores no less, and is better in one of the two.

    Examples
    --------
    >>> pareto([(1, 0.5), (2, 0.4), (3, 0.9)])
    [True, False, True]
    """
    return [
        not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points)
        for cost, score in points
    ]


def _search(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Short trainings in the order in which they ran, the choice that won them, and why."""
    if not result["search"] or "candidate" not in result:  # made by a version that did not keep it
        return None
    keep, freeze = result["candidate"]
    return {
        "tried": result["search"],
        "keep": keep,
        "freeze": freeze,
        "reason": result["reasons"]["candidate"],
        "taken": (keep, freeze) == (result["keep"], result["freeze"]),
    }


def _training(result: Mapping[str, Any]) -> dict[str, Any] | None:
    if not result["history"]:
        return None
    return {"epochs": result["history"], "best": result["best_epoch"]}


def _health(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Verdicts, and the relative gradients as a table of blocks by steps."""
    health = result["health"]
    if not health or not health["verdicts"]:
        return None
    steps = sorted({r["step"] for r in health["readings"]})
    known = {(r["block"], r["step"]): r["relative"] for r in health["readings"]}
    blocks = [v["block"] for v in health["verdicts"]]
    table = [[known.get((block, step)) for step in steps] for block in blocks]
    return {
        "verdicts": health["verdicts"],
        "clipped": health["clipped"],
        "diverged": health["diverged"],
        "steps": steps,
        "relative": table,
    }


def _untouched(document: Mapping[str, Any], scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The confusion matrix (rows: the true class), a row a label, or predicted numbers; mistakes."""
    if "labels" in document:
        targets, chances = np.array(document["targets"], dtype=bool), np.array(document["probabilities"])
        table = [asdict(one) for one in label_table(targets, chances > HALF)]
        for one, has, chance in zip(table, targets.T, chances.T, strict=True):
            area = float(average_precision(has, chance)[0])
            one |= {"area": None if math.isnan(area) else area}
        return {"labels": document["labels"], "table": table, "mistakes": document["mistakes"]}
    if "outputs" in document:
        kept = ("outputs", "names", "targets", "predictions", "mistakes")
        return {**{name: document[name] for name in kept}, "scores": list(scores)}
    classes = document["classes"]
    matrix = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(matrix, (np.array(document["targets"]), np.array(document["predictions"])), 1)
    return {"classes": classes, "confusion": matrix.tolist(), "mistakes": document["mistakes"]}


def _costs(forecast: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for stage, amounts in forecast.items():
        for name, both in (amounts or {}).items():
            predicted, actual = both.get("predicted"), both.get("actual")
            if actual is not None and math.isfinite(actual):
                rows.append(
                    {"stage": TITLES[stage], "amount": name, "predicted": predicted, "actual": actual}
                )
    return rows
