"""The forecast in plain words: before the work as lines and tables, after it beside what was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from topgraft.chain import Chain
from topgraft.choices import named
from topgraft.console import Console, aligned, counted, duration, size
from topgraft.cost import Candidate, Forecast, Stage
from topgraft.ledger import STAGES
from topgraft.workload import REFITS

NONE = "-"
"""In a table, for what is not done or can't be told."""


def about(seconds: float) -> str:
    """Seconds as far as a forecast can tell them.

    Examples
    --------
    >>> about(0.004), about(0.44), about(12.3), about(600)
    ('0.0 s', '0.4 s', '12 s', '10 min')
    """
    return f"{seconds:.1f} s" if seconds < 9.95 else duration(seconds)


def pass_line(console: Console, forecast: Forecast) -> None:
    """One line before the pass."""
    stage, stored = forecast.one_pass, _stored(forecast)
    memory = "" if stage.memory is None else f", {size(stage.memory)} of memory"
    resizing = forecast.resizing
    first = "" if resizing is None else f"how pictures are resized about {about(resizing.seconds)}; "
    console.line(
        "Cost",
        f"{first}the pass about {about(stage.seconds)}{memory}, {size(stage.disk)} on disk{stored}; "
        f"the probes about {about(forecast.probes.seconds)}",
    )


def cost_tables(console: Console, forecast: Forecast, chain: Chain) -> None:
    """The stages up to the choice of keep and freeze, then each of these, and what the budget allows."""
    work = forecast.work
    console.line(
        "Cost", f"estimated from a trial on a few of {counted(work.examples, 'example')}{_stored(forecast)}"
    )
    console.text()
    rows = [_stage("one pass", forecast.one_pass), _stage("probes", forecast.probes)]
    if forecast.resizing is not None:
        rows.insert(0, _stage("resizing", forecast.resizing))
    if forecast.search is not None:
        rows.append(_stage("search", forecast.search))
    console.table(["", "time", "memory", "disk"], rows, left=(0,))
    console.text()
    if not forecast.candidates:
        return
    header = [
        *("freeze", "parameters", "in training", "stored", "storing", "an epoch", "training"),
        f"within {duration(work.budget)}",
    ]
    for keep in dict.fromkeys(c.keep for c in forecast.candidates):
        here = [c for c in forecast.candidates if c.keep == keep]
        saved = size(here[0].model)
        console.text(
            f"keep {named(chain, keep)} of {counted(len(chain), 'block')}; the saved model takes {saved}"
        )
        console.table(header, [_row(c, chain) for c in here], left=(0, 7))
        console.text()
    refit = f" and {'the refit' if work.refits == 1 else f'{work.refits} refits'}" if work.refits else ""
    console.text(
        "parameters: those that train; in training: bytes of these, their gradients and AdamW's moments,"
    )
    views = any(candidate.views for candidate in forecast.candidates)
    more = f" ({work.epochs_with_views} where changed views of pictures are stored)" if views else ""
    console.text(f"activations not counted; training: {counted(work.epochs, 'epoch')}{more}{refit}")
    if work.more_refits:
        console.text(
            f"where time is left, up to {REFITS} refits are done and their weights averaged (--soup)"
        )
    first = 0.0 if forecast.resizing is None else forecast.resizing.seconds
    if work.spent + first + forecast.one_pass.seconds + forecast.probes.seconds > work.budget:
        console.text(
            f"The budget of {duration(work.budget)} is too short for the pass and the probes, which are done "
            "in any case."
        )


def _stored(forecast: Forecast) -> str:
    stored = forecast.work.stored
    return f"; {stored:,} are stored already" if stored else ""


def _stage(name: str, stage: Stage) -> list[str]:
    memory = NONE if stage.memory is None else size(stage.memory)
    return [name, about(stage.seconds), memory, size(stage.disk) if stage.disk else NONE]


def _row(candidate: Candidate, chain: Chain) -> list[str]:
    c, trains = candidate, candidate.epochs > 0
    return [
        named(chain, c.freeze) + (", as asked" if c.asked else ""),
        f"{c.trained_parameters:,}",
        size(c.optimizer) if trains else NONE,
        size(c.stored) if c.stored else NONE,
        about(c.storing) if c.storing else NONE,
        about(c.epoch) if trains else NONE,
        about(c.training) if trains else NONE,
        _fits(c),
    ]


def _fits(candidate: Candidate) -> str:
    if not candidate.epochs:
        return "yes, the probe's solution"
    if not candidate.affordable:
        return "no"
    if candidate.affordable == candidate.epochs:
        return f"yes, {counted(candidate.epochs, 'epoch')}"
    return f"{candidate.affordable} of {counted(candidate.epochs, 'epoch')}"


def compared_lines(console: Console, told: Mapping[str, Any]) -> None:
    """Predicted and actual side by side, for the stages that were done."""
    rows = []
    for stage in STAGES:
        for name, pair in (told.get(stage) or {}).items():
            said = _amount(name, pair["predicted"])
            if "corrected" in pair:
                said += f", then {_amount(name, pair['corrected'])}"
            label = "one pass" if stage == "pass" else stage
            what = "time" if name == "seconds" else name
            rows.append([f"{label}, {what}", said, _amount(name, pair["actual"])])
    if rows:
        lines = aligned(["", "predicted", "actual"], rows, left=(0,))
        console.line("Forecast", *(line[1:] for line in lines))


def _amount(name: str, amount: float | None) -> str:
    if amount is None:
        return NONE
    if name == "seconds":
        return about(amount)
    return size(amount) if name in ("memory", "disk") else f"{amount:g}"
