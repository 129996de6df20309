"""What the report of a comparison says, from the file that ``topgraft compare`` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topgraft.console import percent
from topgraft.curves import RESULT, SAID
from topgraft.errors import TopgraftError
from topgraft.files import read_json

FOUND = {
    *("arms", "best", "verdict", "sentence", "differences", "labels_saved", "time_saved", "saved_in_words"),
    *("untouched", "notes"),
}
"""What the answer of a comparison holds."""


def gather_comparison(file: Path) -> dict[str, Any]:
    """Everything that the page of a comparison shows, as plain JSON.

    Parameters
    ----------
    file
        What ``topgraft compare -o`` wrote and finished, or what ``topgraft compare --json`` said.

    Raises
    ------
    TopgraftError
        If it is none, or not finished yet.
    """
    whole = _read(file)
    if "outcomes" in whole and RESULT not in whole:
        raise TopgraftError(
            f"{file} holds a comparison that is not finished. Give the same `topgraft compare` again: "
            "it goes on where it was."
        )
    found = whole.get(RESULT, whole)
    if not isinstance(found, dict) or not found.keys() >= FOUND:
        raise TopgraftError(
            f"{file} is no comparison of this version; expected a file that `topgraft compare -o` wrote, or "
            "the folder of a run."
        )
    made_from = whole.get("made_from") or {}
    try:
        return {
            "title": file.stem,
            "summary": _summary(found),
            "comparison": {name: found[name] for name in sorted(FOUND)},
            "again": {
                "settings": {
                    k: v for k, v in made_from.get("settings", {}).items() if v not in (None, [], "auto")
                },
                "data": made_from.get("data", ""),
                "weights": made_from.get("weights", ""),
                "versions": whole.get("versions", {}),
            },
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TopgraftError(f"{file} is damaged: {error!r}.") from error


def _read(file: Path) -> dict[str, Any]:
    whole = read_json(file)
    if not isinstance(whole, dict):
        raise TopgraftError(
            f"{file} is no comparison; expected a file that `topgraft compare -o` wrote, or the folder of "
            "a run."
        )
    return whole


def _summary(found: Mapping[str, Any]) -> list[str]:
    """The sentences that stand first; fails where an arm lacks a number that the figures need."""
    first = str(found["sentence"])
    said = []
    for arm in found["arms"]:
        for point in arm["curve"]:
            _numbers(point, "examples", "seeds", "value", "low", "high", "seconds", "gap")
        _numbers(arm, "score", "low", "high", "seconds", "gap")
        within = f"{100 * arm['low']:.0f} to {100 * arm['high']:.0f}"
        said.append(f"{said_of(arm['name'])} {percent(arm['score'], 1)} ({within})")
    for other in found["differences"].values():
        _numbers(other, "value", "low", "high")
    scores = (
        f"Accuracy on the same {found['untouched']:,} untouched examples, each with its 95 % interval: "
        f"{'; '.join(said)}."
    )
    notes = [str(note) for note in found["notes"]]  # such as that it was no fair fight: before what was saved
    return [first, *notes, scores, *(_sentence(words) for words in found["saved_in_words"])]


def said_of(arm: str) -> str:
    """An arm as a sentence calls it; one that this version does not know by its name."""
    return SAID.get(arm, arm)


def _numbers(entry: Mapping[str, Any], *names: str) -> None:
    for name in names:
        float(entry[name])


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."
