"""The health of a training's gradients in plain words and in JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from topgraft.chain import Chain
from topgraft.console import Console, percent
from topgraft.errors import RunningError
from topgraft.health import HEALTHY, Diagnosis, diagnose, inputs_look_strange
from topgraft.history import History, Recipe


def checked(
    chain: Chain, keep: int, history: History, recipe: Recipe, *, normalised: bool = False
) -> list[Diagnosis]:
    """The verdict on each block that trained, and on the head; ``normalised`` as in :func:`diagnose`."""
    names = {block.index: block.name for block in chain.blocks[:keep]} | {keep + 1: "head"}
    return diagnose(
        history.readings, names, rate=recipe.rate, clip=recipe.clip, head=keep + 1, normalised=normalised
    )


def health_lines(console: Console, keep: int, history: History, found: Sequence[Diagnosis]) -> None:
    """That all is well, or each sick block with the numbers and the remedy."""
    if not found:
        return
    sick = [d for d in found if d.verdict != HEALTHY]
    if sick:
        first = f"{len(sick)} of {len(found)} blocks are not healthy"
    else:
        first = f"gradients are healthy in {_what(len(found))}"
    clipped = history.clipped / max(1, history.steps)
    said = [in_words(d, keep) for d in sick]
    strange = inputs_look_strange(history.readings, keep + 1)
    if strange is not None:
        said.append(
            f"Gradients are {strange:.1f} times as large in early blocks as in late ones, relative to their "
            "weights: the inputs may differ from what the backbone knew. A smaller --freeze may help."
        )
    console.line("Health", f"{first}; {percent(clipped)} of the steps were clipped", *said)


def must_not_be_lost(keep: int, history: History, found: Sequence[Diagnosis]) -> None:
    """Refuse a training that was asked for and diverged before any epoch was worth keeping.

    Raises
    ------
    RunningError
        With the first verdict and its remedy.
    """
    if history.diverged and not history.best:
        sick = next((in_words(d, keep) for d in found if d.verdict != HEALTHY), "")
        advice = sick or "A lower --rate may help."
        raise RunningError(f"The training diverged before any epoch helped: {history.diverged}. {advice}")


def health_json(history: History, found: Sequence[Diagnosis]) -> dict[str, Any]:
    """Verdicts, readings, and the share of the steps that were clipped."""
    return {
        "verdicts": [d.to_json() for d in found],
        "clipped": history.clipped / max(1, history.steps),
        "diverged": history.diverged or None,
        "readings": history.to_json()["readings"],
    }


def _what(count: int) -> str:
    """The parts that trained, of which the head is one.

    Examples
    --------
    >>> _what(1), _what(2), _what(4)
    ('the head', 'the block that trained and the head', 'all 3 blocks that trained and the head')
    """
    blocks = "the block" if count == 2 else f"all {count - 1} blocks"
    return "the head" if count == 1 else f"{blocks} that trained and the head"


def in_words(found: Diagnosis, keep: int) -> str:
    """The verdict on one block with its numbers and the remedy."""
    return f"{_name(found, keep)}: {found.verdict}: {found.why}. Remedy: {found.remedy}."


def _name(found: Diagnosis, keep: int) -> str:
    return "the head" if found.block > keep else f"block {found.block} ({found.name})"
