"""The command that asks whether pretraining was worth it, and its answer in words and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from topgraft import options
from topgraft.console import Console, duration, percent, say_json

if TYPE_CHECKING:
    from topgraft.curves import Comparison, Interval

BUDGET = 1800.0


def compare(
    data: options.DataArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File for outcomes as they come; a rerun goes on there."),
    ] = None,
    backbone: options.BackboneOption = None,
    weights: options.WeightsOption = "auto",
    text: options.TextOption = None,
    label: options.LabelOption = None,
    path: options.PathOption = None,
    group: options.GroupOption = None,
    max_unreadable: options.Unreadable = 0.05,
    columns: options.Columns = None,
    categories: options.Categories = None,
    test: options.TestOption = None,
    folds: options.Folds = 5,
    held_out: options.HeldOut = 0.2,
    budget: options.Budget = BUDGET,
    engine: options.Engine = "auto",
    precision: options.Precision = "auto",
    size: options.Size = None,
    batch_size: options.BatchSize = 32,
    seed: options.Seed = 0,
    *,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Was pretraining worth it: against training from scratch, random features and a simple baseline.

    Example: topgraft compare photos/
    """
    del debug
    from topgraft.backbones.loading import reads_rows
    from topgraft.compare import compare as run
    from topgraft.curves import RESULT
    from topgraft.data import read
    from topgraft.features.store import Store
    from topgraft.files import read_json, write_json
    from topgraft.settings import Settings
    from topgraft.show import backbone_lines, data_lines
    from topgraft.stages import development_of, load_for, prepare
    from topgraft.versions import versions

    console = Console.for_command(json=json, quiet=quiet)
    settings = Settings.of(
        {
            "backbone": backbone,
            "weights": weights,
            "folds": folds,
            "held_out": held_out,
            "budget": budget,
            "engine": engine,
            "precision": precision,
            "size": size,
            "batch_size": batch_size,
            "seed": seed,
        }
    )
    found = read(
        data,
        text=text,
        label=label,
        path=path,
        group=group,
        max_unreadable=max_unreadable,
        modality="row" if reads_rows(backbone) else None,
        columns=columns,
        categories=categories,
        watch=console.reading,
    )
    if found.task != "classification":
        from topgraft.errors import TopgraftError

        what = {"regression": "numbers to be predicted", "ordinal": "ordered classes"}.get(
            found.task, "several an example"
        )
        raise TopgraftError(
            f"compare is for classes so far; these labels are {what}. For their score on "
            "untouched data: topgraft fit."
        )
    network = load_for(found, settings, learned_from=development_of(found, settings, test))
    ready = prepare(found, network, settings, test=test, watch=console.reading)
    backbone_lines(console, network)
    data_lines(console, found, untouched=f"{len(ready.untouched):,} untouched, on which all are scored")
    console.line("Budget", f"about {duration(settings.budget)} for all (--budget)")
    comparison, notes = run(ready, store=Store(), console=console, file=out)
    comparison_lines(console, comparison, notes)
    document = comparison_json(comparison, notes)
    if out is not None:
        write_json(out, {**read_json(out), RESULT: document, "versions": versions()})
        console.line("Saved", f"{out}; as a page with figures: topgraft report {out}")
    if json:
        say_json(document)


def sentence(comparison: Comparison) -> str:
    """The answer in one sentence, also where pretraining lost."""
    from topgraft.curves import BASELINE, PRETRAINED, SAID, SCRATCH

    verdict = comparison.verdict()
    rest = [arm for arm in comparison.arms() if arm != PRETRAINED]
    rival = max(rest, key=lambda arm: comparison.score(arm).value)
    if verdict in ("scratch_won", "baseline_won"):
        winner = {"scratch_won": SCRATCH, "baseline_won": BASELINE}[verdict]
        gain = comparison.difference(winner, PRETRAINED)
        return f"Pretraining lost: {SAID[winner]} is better by {_points(gain)}."
    gain = comparison.difference(PRETRAINED, rival)
    if verdict == "pretrained_won":
        return f"Pretraining was worth it: better than {SAID[rival]}, the next best, by {_points(gain)}."
    return (
        f"No difference can be shown: the pretrained network and {SAID[rival]} differ by {_points(gain)}, "
        "and the interval holds 0."
    )


def comparison_lines(console: Console, comparison: Comparison, notes: list[str]) -> None:
    """The sentence, then learning curves as a table, then what was saved."""
    from topgraft.curves import PRETRAINED

    console.text()
    console.text(sentence(comparison))
    console.text()
    shares = comparison.shares(PRETRAINED)
    header = ["", *(f"{percent(s)} of the labels" for s in shares), "train − untouched", "time"]
    rows = []
    for arm in comparison.arms():
        cells = [_cell(comparison, arm, share) for share in shares]
        time = duration(comparison.seconds(arm))
        rows.append([arm, *cells, f"{100 * comparison.gap(arm):.1f}", time])
    console.table(header, rows, left=(0,))
    console.text()
    for label, said in saved_in_words(comparison):
        console.line(label, said)
    for note in notes:
        console.line("Note", note)


def saved_in_words(comparison: Comparison) -> list[tuple[str, str]]:
    """What pretraining saves in labels and in time, each with its label."""
    from topgraft.curves import BASELINE, PRETRAINED, SCRATCH

    found = [
        ("Labels", labels_in_words(comparison, other))
        for other in (SCRATCH, BASELINE)
        if other in comparison.arms()
    ]
    if SCRATCH in comparison.arms():
        ratio = comparison.seconds(SCRATCH) / max(comparison.seconds(PRETRAINED), 1e-9)
        found.append(("Time", time_in_words(comparison, SCRATCH)))
        found.append(("", f"with all labels, training from scratch took {ratio:.1f} times as long"))
    return found


def labels_in_words(comparison: Comparison, other: str) -> str:
    """How many labels pretraining saves against another way."""
    from topgraft.curves import SAID

    saved = comparison.labels_saved(other)
    if saved is None:
        return f"none saved: with all labels the pretrained network is not yet as good as {SAID[other]}"
    said = f"so many fewer give what {SAID[other]} gives with all"
    return f"{_at_least(comparison, other)}{_share_saved(saved)}: {said}"


def time_in_words(comparison: Comparison, other: str) -> str:
    """How much time pretraining saves against another way."""
    from topgraft.curves import SAID

    saved = comparison.time_saved(other)
    if saved is None:
        return f"none saved: the pretrained network is not as good as {SAID[other]}, however long"
    if saved.value <= 0:
        return f"none saved: until it is as good, the pretrained network takes longer than {SAID[other]}"
    said = f"so much less gives what {SAID[other]} gives"
    return f"{_at_least(comparison, other)}{_share_saved(saved)}: {said}"


def _at_least(comparison: Comparison, other: str) -> str:
    """Where the pretrained network is as good at the smallest size that was measured already."""
    from topgraft.curves import PRETRAINED

    least = min(comparison.shares(PRETRAINED))
    saved = comparison.labels_saved(other)
    return "at least " if saved is not None and saved.value >= 1 - least - 1e-9 else ""


def _share_saved(saved: Interval) -> str:
    return f"{percent(saved.value)} saved (95 % interval {percent(saved.low)} to {percent(saved.high)})"


def comparison_json(comparison: Comparison, notes: list[str]) -> dict[str, Any]:
    """The fixed form of ``compare --json``."""
    from topgraft.curves import BASELINE, PRETRAINED, SCRATCH

    arms = []
    for arm in comparison.arms():
        score = comparison.score(arm)
        curve = [
            {
                "share": share,
                "examples": comparison.at(arm, share)[0].examples,
                "seeds": len(comparison.at(arm, share)),
                **_interval(comparison.score(arm, share)),
                "seconds": comparison.seconds(arm, share),
                "gap": comparison.gap(arm, share),
            }
            for share in comparison.shares(arm)
        ]
        arms.append(
            {
                "name": arm,
                "score": score.value,
                "low": score.low,
                "high": score.high,
                "seconds": comparison.seconds(arm),
                "gap": comparison.gap(arm),
                "told": comparison.at(arm, 1.0)[0].told,
                "curve": curve,
            }
        )
    others = [arm for arm in comparison.arms() if arm != PRETRAINED]
    rivals = [other for other in (SCRATCH, BASELINE) if other in others]
    labels = {other: comparison.labels_saved(other) for other in rivals}
    time = {other: comparison.time_saved(other) for other in rivals}
    return {
        "arms": arms,
        "best": comparison.best(),
        "verdict": comparison.verdict(),
        "sentence": sentence(comparison),
        "differences": {arm: _interval(comparison.difference(PRETRAINED, arm)) for arm in others},
        "labels_saved": {arm: None if i is None else _interval(i) for arm, i in labels.items()},
        "time_saved": {arm: None if i is None else _interval(i) for arm, i in time.items()},
        "saved_in_words": [
            f"{label}: {said}" if label else said for label, said in saved_in_words(comparison)
        ],
        "untouched": len(comparison.groups),
        "notes": notes,
    }


def _interval(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _cell(comparison: Comparison, arm: str, share: float) -> str:
    if not comparison.at(arm, share):
        return "–"
    score = comparison.score(arm, share)
    return f"{100 * score.value:.1f} ({100 * score.low:.0f} to {100 * score.high:.0f})"


def _points(gain: Interval) -> str:
    return f"{100 * gain.value:.1f} points (95 % interval {100 * gain.low:.1f} to {100 * gain.high:.1f})"
