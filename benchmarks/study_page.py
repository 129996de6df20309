"""What the study found: regret of the advice, and which measure of a cut foretells fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from machine import markdown_table
from paired import Judged, differences, mean_score

from topgraft.console import counted

BEST, ADVISED = "best of the grid", "advised"
MEASURES = {"probe": "probe", "logme": "LogME", "neighbours": "nearest neighbours"}
DRAWS = 10_000
MARGIN = 1.0
"""Points that the advice may fall behind on average."""
SHARE = 1 / 5
"""Of the grid's time."""
TEXT = """\
# Is the advice good?

Written by `make study`. For each task a grid of full trainings over keep and freeze, and `topgraft fit`
with both on `auto`; all with the same recipe (`--epochs` as shown, no augmentation, no mixup, no taps,
`--soup 1`), the same {draws} of the examples that are learned from, and the same untouched
examples. Pictures are small, so that a grid can be afforded on 2 cores.

**Regret** is what the advice loses against the best pair of the grid, in points of accuracy. That best
pair is chosen on one half of the untouched examples and scored on the other, halves swapped and
averaged, so that it has no advantage from having been chosen; of equals the one that trains fewer
blocks. Negative: the advice did better. 95 % intervals by the pigeonhole bootstrap over seeds and
untouched examples (Owen 2007).

**Time** is that of whole fits, from reading the table to the written model. A training of the grid begins
with what the ones before it stored (activations, and what the probes found); the advised fit begins with
nothing. The draws of clothes and fonts, and two of digits, were measured when what the probes found was not
stored yet: there each training of the grid fitted them anew, which took about a sixth of its time.

{regret}

{together}

## What foretells fine-tuning

Spearman's rank correlation, over the grid's depths, between a measure of the cut and the untouched score
of the network that keeps so many blocks and trains all of them (freeze 0); mean over seeds. 1: the same
order of depths.

{ranks}

## What was chosen

{chosen}

## Tasks

{tasks}
"""
Array = np.ndarray[Any, np.dtype[Any]]
Record = Mapping[str, Any]


def right(cell: Record) -> Array:
    """Of each untouched example whether it was predicted rightly."""
    return np.array([mark == "1" for mark in cell["correct"]])


def halves(count: int) -> Array:
    """Which half an untouched example belongs to: at random, the same for all seeds."""
    return np.random.default_rng(0).permutation(count) % 2


def best_of(grid: Sequence[Record], rows: Array) -> Record:
    """The training of the highest accuracy on some of the untouched examples; of equals the smallest."""
    return max(
        grid, key=lambda cell: (right(cell)[rows].mean(), -(cell["keep"] - cell["freeze"]), -cell["keep"])
    )


def chosen_fairly(grid: Sequence[Record]) -> Array:
    """Of each untouched example whether the best of the grid, chosen on the other half, is right."""
    half = halves(len(grid[0]["correct"]))
    found = np.zeros(len(half), bool)
    for one in (0, 1):
        found[half == one] = right(best_of(grid, half != one))[half == one]
    return found


def judged(record: Record) -> list[Judged]:
    """Both methods on the untouched examples, for every seed that is done."""
    return [
        Judged(
            int(seed),
            np.arange(len(one["advised"]["correct"])),
            {BEST: chosen_fairly(one["grid"]), ADVISED: right(one["advised"])},
        )
        for seed, one in record["seeds"].items()
        if "advised" in one
    ]


def share_of_time(record: Record) -> float:
    """Seconds of the advised fit by those of the grid, mean over seeds."""
    return float(
        np.mean(
            [
                one["advised"]["seconds"] / sum(cell["seconds"] for cell in one["grid"])
                for one in record["seeds"].values()
                if "advised" in one
            ]
        )
    )


def rank_correlation(record: Record, measure: str) -> float:
    """Over the grid's depths, between a measure of the cut and the score of training all that is kept."""
    from scipy.stats import spearmanr

    found = []
    for one in record["seeds"].values():
        if "cuts" not in one:
            continue
        said = {cut["keep"]: cut[measure] for cut in one["cuts"]}
        tuned = {cell["keep"]: right(cell).mean() for cell in one["grid"] if cell["freeze"] == 0}
        keeps = sorted(tuned)
        found.append(float(spearmanr([said[k] for k in keeps], [tuned[k] for k in keeps]).statistic))
    return float(np.nanmean(found))


def document(records: Mapping[str, Record]) -> str:
    """The page, of all tasks that are done."""
    done = {name: record for name, record in records.items() if judged(record)}
    rows, means, drawn, ranks, chosen = [], [], [], [], []
    for number, (name, record) in enumerate(done.items()):
        some = judged(record)
        draws = -differences(some, ADVISED, BEST, draws=DRAWS, seed=number)
        mean = mean_score(some, BEST) - mean_score(some, ADVISED)
        low, high = np.quantile(draws, [0.025, 0.975])
        means.append(mean)
        drawn.append(draws)
        pairs = len(next(iter(record["seeds"].values()))["grid"])
        rows.append(
            [
                name,
                "near" if record["told"]["near"] else "far",
                f"{len(some)}",
                f"{pairs}",
                f"{mean_score(some, BEST):.1f}",
                f"{mean_score(some, ADVISED):.1f}",
                f"{mean:+.1f} ({low:+.1f} to {high:+.1f})",
                f"{100 * share_of_time(record):.0f} %",
            ]
        )
        ranks.append([name, *(f"{rank_correlation(record, measure):.2f}" for measure in MEASURES)])
        chosen.append([name, "; ".join(_pair(one) for one in record["seeds"].values() if "advised" in one)])
    together = ""
    if means:
        low, high = np.quantile(np.mean(drawn, axis=0), [0.025, 0.975])
        within = "within" if np.mean(means) <= MARGIN else "more than"
        together = (
            f"Over {counted(len(means), 'task')} the mean regret is {np.mean(means):+.2f} points "
            f"({low:+.2f} to {high:+.2f}): {within} {MARGIN:g} point of the best. "
            f"At most {SHARE:.0%} of the grid's time was promised."
        )
        ranks.append(
            ["mean", *(f"{np.mean([rank_correlation(r, m) for r in done.values()]):.2f}" for m in MEASURES)]
        )
    header = ["task", "world", "seeds", "pairs", BEST, ADVISED, "regret", "share of the grid's time"]
    told = [
        [
            name,
            record["told"]["said"],
            str(record["told"]["examples"]),
            str(record["told"]["untouched"]),
            str(record["told"]["size"] or ""),
            str(record["told"]["epochs"]),
        ]
        for name, record in done.items()
    ]
    return TEXT.format(
        draws=counted(max((len(judged(record)) for record in done.values()), default=0), "draw"),
        regret="\n".join(markdown_table(header, rows)),
        together=together,
        ranks="\n".join(markdown_table(["task", *MEASURES.values()], ranks)),
        chosen="\n".join(
            markdown_table(
                ["task", "advised, and the best of the grid on all untouched data, by seed"], chosen
            )
        ),
        tasks="\n".join(
            markdown_table(["task", "what", "learned from", "untouched", "pixels", "epochs"], told)
        ),
    )


def _pair(one: Record) -> str:
    best = best_of(one["grid"], np.ones(len(one["advised"]["correct"]), bool))
    advised = one["advised"]
    return f"({advised['keep']}, {advised['freeze']}), best ({best['keep']}, {best['freeze']})"
