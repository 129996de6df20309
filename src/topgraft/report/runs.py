"""What a report of several runs says, as numbers and words: what differs, the scores, and who is better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from topgraft.confidence import Paired, pairwise_gains
from topgraft.console import counted, duration, percent, size
from topgraft.data.duplicates import same as same_keys
from topgraft.data.duplicates import united
from topgraft.errors import TopgraftError
from topgraft.files import read_json
from topgraft.mistakes import UNTOUCHED
from topgraft.plan import Plan
from topgraft.report.numbers import RESULT, gather
from topgraft.report.page import few, milliseconds

LETTERS = "ABCDEFGH"
FINGERPRINT = 12
"""Digits of a fingerprint that are shown."""
DECIDED = ("engine", "precision", "soup")
"""Decisions of a plan that are told beside keep, freeze, taps and the way of resizing."""

Array = np.ndarray[Any, np.dtype[Any]]


def gather_runs(folders: Sequence[Path]) -> dict[str, Any]:
    """Everything that the page of several runs shows, as plain JSON.

    Parameters
    ----------
    folders
        Two finished runs or more, in the order of the page.

    Raises
    ------
    TopgraftError
        If one is no finished run, was made by a version that kept less, or is given twice.
    """
    if len(folders) > len(LETTERS):
        raise TopgraftError(f"{len(folders)} runs are too many for one page: give at most {len(LETTERS)}.")
    twice = [f for f, many in Counter(f.resolve() for f in folders).items() if many > 1]
    if twice:
        raise TopgraftError(f"{twice[0].name} is given more than once: give different runs.")
    for folder in folders:
        if what := _other_than_classes(folder):
            raise TopgraftError(
                f"{folder} predicts {what}; runs are set side by side where they predict classes so far."
            )
    names = names_of(folders)
    runs = [_run(folder, letter, name) for folder, letter, name in zip(folders, LETTERS, names, strict=False)]
    right = [_right(folder) for folder in folders]
    facts = [_facts(folder) for folder in folders]
    pairs, apart = _pairs(runs, right)
    differs, same = _set_apart(facts)
    return {
        "title": " beside ".join(names),
        "summary": _summary(runs, pairs, apart, differs),
        "runs": runs,
        "differs": differs,
        "same": same,
        "pairs": pairs,
        "apart": apart,
        "costs": _costs(runs),
    }


def _other_than_classes(folder: Path) -> str:
    """What a run predicts, if it is something else than one class an example."""
    result = read_json(folder / RESULT) if (folder / RESULT).is_file() else {}
    other = {"regression": "numbers", "multilabel": "several labels an example", "ordinal": "ordered classes"}
    return other.get(result.get("task", ""), "")


def names_of(folders: Sequence[Path]) -> list[str]:
    """The folders' own names; where two are the same, the paths as they were given.

    Examples
    --------
    >>> names_of([Path("a/x.topgraft"), Path("b/y.topgraft")])
    ['x.topgraft', 'y.topgraft']
    >>> names_of([Path("a/x"), Path("b/x")])
    ['a/x', 'b/x']
    """
    names = [folder.name or folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def verdicts(runs: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which run is better, or that nobody can tell; nothing where none are paired."""
    named = {run["letter"]: f"{run['letter']} ({run['name']})" for run in runs}
    if len(pairs) == 1 or len(pairs) < len(runs) * (len(runs) - 1) / 2:
        return [_of_two(named, pair) for pair in pairs]
    best = max(runs, key=lambda run: run["score"]["value"])["letter"]
    beside = {_other(pair, best): pair for pair in pairs if best in (pair["first"], pair["second"])}
    level = [letter for letter, pair in beside.items() if _points(pair, best)[1] <= 0]
    by = f"by the same {pairs[0]['n']} untouched examples"
    if level:
        return [
            f"Nobody can tell which is best of {', '.join(named[x] for x in sorted([best, *level]))}, {by}."
        ]
    return [f"{named[best]} is better than every other, {by}."]


def _of_two(named: Mapping[str, str], pair: Mapping[str, Any]) -> str:
    first, second, n = pair["first"], pair["second"], pair["n"]
    better, worse = (second, first) if pair["gain"] >= 0 else (first, second)
    gain, low, high = _points(pair, better)
    within = f"(95 % interval {low:.1f} to {high:.1f})"
    if low > 0:
        return (
            f"{named[better]} is better than {named[worse]}: {gain:.1f} points more of the same {n} "
            f"untouched examples are right {within}."
        )
    told = f"{better} has {gain:.1f} points more of the same {n} untouched examples right"
    if gain == 0:
        told = f"both have as many of the same {n} untouched examples right, a difference of 0 points"
    return (
        f"Nobody can tell which is better, {named[first]} or {named[second]}: {told} {within}, and the "
        "interval holds 0."
    )


def _summary(
    runs: Sequence[Mapping[str, Any]],
    pairs: Sequence[Mapping[str, Any]],
    apart: Sequence[Mapping[str, Any]],
    differs: Sequence[Mapping[str, Any]],
) -> list[str]:
    """The sentences that stand first."""
    found = verdicts(runs, pairs)
    found += [
        f"{one['first']} and {one['second']} were not judged on the same untouched examples, so their scores "
        f"are not paired: {one['reason']}."
        for one in apart
    ]
    for run in runs:
        score = run["score"]
        alone = run["seconds_alone"]
        told = "" if alone is None else f", {milliseconds(alone)} for a prediction"
        weighs = "" if run["bytes"] is None else f"; {size(run['bytes'])}"
        found.append(
            f"{run['letter']} ({run['name']}): {score['metric']} {percent(score['value'], 1)} on "
            f"{score['n']} untouched examples (95 % interval {percent(score['low'], 1)} to "
            f"{percent(score['high'], 1)}); fitted in {duration(run['seconds'])}{weighs}{told}."
        )
    what = [one["what"] for one in differs]
    found.append(f"They differ in {few(what)}." if what else "They differ in nothing that was kept.")
    if pairs:
        found.append(
            "Whoever chooses one of them by this has used the untouched examples for a choice: what is "
            "chosen then scores a little too high on average."
        )
    return found


def _run(folder: Path, letter: str, name: str) -> dict[str, Any]:
    """One run's numbers."""
    known, result = gather(folder), read_json(folder / RESULT)
    model = folder / "model.safetensors"
    cut = known["depth"]["cuts"][-1]
    kept = next((c for c in known["depth"]["cuts"] if c["keep"] == result["keep"]), cut)
    return {
        "letter": letter,
        "name": name,
        "score": result["score"],
        "scores": result["scores"],
        "majority": result["majority"],
        "calibration_error": known["calibration"]["error"],
        "optimism": result["optimism"],
        "seconds": result["seconds"],
        "seconds_alone": (result.get("prediction") or {}).get("seconds"),
        "bytes": model.stat().st_size if model.is_file() else None,
        "work": kept["work"],
        "parameters": kept["parameters"],
        "trained_parameters": result["trained_parameters"],
        "depth": known["depth"],
        "costs": known["costs"],
        "again": known["again"],
    }


def _facts(folder: Path) -> dict[str, str]:
    """What a run was made of, each in a few words, in the order of the page."""
    command, result = read_json(folder / "run.json")["command"], read_json(folder / RESULT)
    decisions = Plan.read(folder / "plan.json")
    weights = read_json(folder / "graft.json")["backbone"]["weights"]
    blocks, keep, freeze = result["blocks"]["all"], result["keep"], result["freeze"]
    epochs = len(result["history"] or [None]) - 1
    trained = f"{result['best_epoch']} of {epochs}" if epochs else "none: nothing but the head is new"
    asked = {f"--{name.replace('_', '-')}": _said(v) for name, v in command["settings"].items()}
    return {
        "backbone": result["backbone"],
        "weights": _short(weights["digest"]) if weights["matched"] != "random" else "random values",
        "keep": f"{keep} of {len(blocks)}, to {blocks[keep - 1]}",
        "freeze": f"{freeze}, to {blocks[freeze - 1]}" if freeze else "0",
        "taps": ", ".join(f"{t} ({blocks[t - 1]})" for t in result.get("taps", [])) or "none",
        "resize": str(result.get("resize", "pretrained")),
        "epochs": trained,
        **{name: _said(decisions[name]["value"]) for name in DECIDED if name in decisions},
        "data": _short(command["data"]),
        "examples to learn from": _short(command["development"]),
        "untouched examples": _short(command["untouched"]),
        "repeats a plan": "yes" if command["plan"] else "no",
        **asked,
        **{f"version of {name}": release for name, release in result["versions"].items()},
    }


def _short(fingerprint: Any) -> str:
    return str(fingerprint)[:FINGERPRINT]


def _said(value: Any) -> str:
    """A setting as a person would give it."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "not given"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _set_apart(facts: Sequence[Mapping[str, str]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What differs, with each run's value, and what does not."""
    differs, same = [], []
    for what in dict.fromkeys(name for one in facts for name in one):
        values = [one.get(what, "not kept") for one in facts]
        if len(set(values)) > 1:
            differs.append({"what": what, "values": values})
        else:
            same.append({"what": what, "value": values[0]})
    return differs, same


def _right(folder: Path) -> dict[str, Any]:
    """Which untouched examples a run got right, and what tells whether another was judged on the same."""
    command, untouched = read_json(folder / "run.json")["command"], read_json(folder / UNTOUCHED)
    if "groups" not in untouched:
        raise TopgraftError(f"{folder} was made by a version that kept less. Fit it again to set it beside.")
    return {
        "right": np.array(untouched["targets"]) == np.array(untouched["predictions"]),
        "groups": np.array(untouched["groups"]),
        "untouched": command["untouched"],
        "data": command["data"],
        "settings": command["settings"],
    }


def _pairs(
    runs: Sequence[Mapping[str, Any]], right: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Paired differences of those judged on the same examples, and why the others are not paired."""
    pairs, apart = [], []
    for digest in dict.fromkeys(one["untouched"] for one in right):
        inside = [i for i, one in enumerate(right) if one["untouched"] == digest]
        if len(inside) > 1:
            pairs += _paired([runs[i]["letter"] for i in inside], [right[i] for i in inside])
    for (i, a), (j, b) in combinations(enumerate(right), 2):
        if a["untouched"] != b["untouched"]:
            apart.append(
                {"first": runs[i]["letter"], "second": runs[j]["letter"], "reason": _why_apart(a, b)}
            )
    return pairs, apart


def _paired(letters: Sequence[str], right: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The later run's share right minus the earlier one's, with intervals that hold all together."""
    wrong = 1 - np.column_stack([one["right"] for one in right]).astype(float)
    gains, low, high = pairwise_gains(Paired.of([wrong], _groups(right), seed=0))
    found = []
    for i, j in combinations(range(len(right)), 2):
        a, b = right[i]["right"], right[j]["right"]
        found.append(
            {
                "first": letters[i],
                "second": letters[j],
                "n": len(a),
                "gain": float(gains[j, i]),
                "low": float(low[j, i]),
                "high": float(high[j, i]),
                "both": int((a & b).sum()),
                "only_first": int((a & ~b).sum()),
                "only_second": int((b & ~a).sum()),
                "neither": int((~a & ~b).sum()),
            }
        )
    return found


def _groups(right: Sequence[Mapping[str, Any]]) -> Array:
    """Examples that belong together in any of the runs belong together."""
    together = [members for one in right for members in same_keys(one["groups"].tolist())]
    return united(len(right[0]["right"]), together)


def _why_apart(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    if a["data"] != b["data"]:
        return "their data differ"
    for name in ("seed", "held_out"):
        if a["settings"][name] != b["settings"][name]:
            option = f"--{name.replace('_', '-')}"
            told = f"{option} {_said(a['settings'][name])} and {_said(b['settings'][name])}"
            return f"of the same data another part was kept untouched ({told})"
    return "of the same data another part was kept untouched"


def _costs(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each amount of each stage, told and measured, a run beside the other."""
    known = [{(c["stage"], c["amount"]): c for c in run["costs"]} for run in runs]
    rows = dict.fromkeys((c["stage"], c["amount"]) for run in runs for c in run["costs"])
    return [
        {
            "stage": stage,
            "amount": amount,
            "told": [one.get((stage, amount), {}).get("predicted") for one in known],
            "was": [one.get((stage, amount), {}).get("actual") for one in known],
        }
        for stage, amount in rows
    ]


def _other(pair: Mapping[str, Any], letter: str) -> str:
    return str(pair["first"] if pair["second"] == letter else pair["second"])


def _points(pair: Mapping[str, Any], better: str) -> tuple[float, float, float]:
    """Gain of one of the two with its interval, in points."""
    gain, low, high = (100 * pair[name] for name in ("gain", "low", "high"))
    return (gain, low, high) if better == pair["second"] else (-gain, -high, -low)


def in_words(pair: Mapping[str, Any]) -> str:
    """Who was right where the other was not.

    Examples
    --------
    >>> in_words({"first": "A", "second": "B", "only_first": 1, "only_second": 4, "both": 9, "neither": 2})
    'Right by A alone: 1 example; by B alone: 4 examples; by both: 9; by neither: 2.'
    """
    alone = "; ".join(
        f"by {pair[run]} alone: {counted(pair[f'only_{run}'], 'example')}" for run in ("first", "second")
    )
    return f"Right {alone}; by both: {pair['both']}; by neither: {pair['neither']}."
