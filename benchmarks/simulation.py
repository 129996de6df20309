"""Where the truth is known: do the intervals cover it, and does the confidence set hold the best cut?

    python benchmarks/simulation.py                        2,000 repetitions a cell; writes docs/simulation.md
    python benchmarks/simulation.py --repetitions 100      fewer, to try it
    python benchmarks/simulation.py --minutes 30           what there is time for; the rest another time
    python benchmarks/simulation.py --jobs 16              on so many cores at once

What is measured is kept in ``build/simulation``, so that several sittings add up. The exit status is 1 if
the method does not hold its promise.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from machine import ROOT, code_digest, machine_lines, markdown_table

WORK = ROOT / "build" / "simulation"
PAGE = ROOT / "docs" / "simulation.md"
PACKAGES = ("topgraft", "torch", "numpy")
CODE = tuple(
    f"src/topgraft/{name}.py"
    for name in (
        *("advise", "chunked", "confidence", "data/splits", "linear", "objective"),
        *("probe", "ridge", "score", "softmax", "temperature"),
    )
)
"""What the numbers come from: other code, other numbers."""
REPETITIONS, BATCH = 2000, 10
TRUTHS = 2
"""Probes on fresh data by which the truth is measured, for each :data:`BATCH` repetitions."""
FOLDS, WIDTH, TESTED = 5, 12, 20_000
POOLED, LOWEST, BEST, SIZE, WORSE = (0.93, 0.98), 0.91, 0.95, 2.0, 0.05
"""Promised: coverage of all together and of each cut; the best in the set; its size; a cut that is worse."""
APART = 4.0
"""Paired standard errors by which a cut is worse that shall not be in the set."""
CUTS, BETTER = "close to one another", "one 5 points better"

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Cell:
    """Simulated data sets of one kind.

    Parameters
    ----------
    n
        Examples.
    shares
        Of the classes.
    correlation
        Of the noise between any two cuts.
    strengths
        Of the cuts: how far the classes' means are from the origin, in standard deviations of the noise.
        The first cut is the best.
    kind
        :data:`CUTS` or :data:`BETTER`.
    """

    n: int
    shares: tuple[float, ...]
    correlation: float
    strengths: tuple[float, ...]
    kind: str = CUTS

    @property
    def name(self) -> str:
        """Of the file that holds what was measured."""
        words = "better" if self.kind == BETTER else "close"
        return f"{words}-{len(self.shares)}-{self.n}"

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Array, list[Array]]:
        """Classes ``(n,)`` and, for each cut, features ``(n, WIDTH)`` float32.

        The mean of class ``k`` lies on axis ``k``; the noise is normal, a part of it common to all cuts.
        """
        classes = rng.choice(len(self.shares), n, p=self.shares)
        means = np.eye(len(self.shares), WIDTH)[classes]
        common = self.correlation**0.5 * rng.normal(size=(n, WIDTH))
        own = (1 - self.correlation) ** 0.5
        return classes, [
            (strength * means + common + own * rng.normal(size=(n, WIDTH))).astype(np.float32)
            for strength in self.strengths
        ]

    def data(self, rng: np.random.Generator) -> tuple[Array, list[Array], Array]:
        """Classes, features and folds of a data set that has all its folds."""
        import topgraft as tg

        while True:
            classes, features = self.draw(self.n, rng)
            if np.bincount(classes, minlength=len(self.shares)).min() >= FOLDS:
                break
        fold_of, _, _ = tg.assign_folds(
            classes, np.arange(self.n), folds=FOLDS, seed=int(rng.integers(2**31))
        )
        return classes, features, fold_of


EQUAL, UNEQUAL = (1 / 3, 1 / 3, 1 / 3), (0.4, 0.25, 0.2, 0.15)
LAST = {(3, 100): 1.0, (3, 300): 1.55, (3, 1000): 1.74, (4, 100): 0.9, (4, 300): 1.42, (4, 1000): 1.66}
"""Strength of the last cut by classes and examples: about :data:`APART` paired standard errors worse."""
CELLS = (
    *(
        Cell(n, shares, correlation, (2.0, 1.95, 1.9, 1.8, LAST[len(shares), n]))
        for shares, correlation in ((EQUAL, 0.9), (UNEQUAL, 0.5))
        for n in (100, 300, 1000)
    ),
    Cell(1000, EQUAL, 0.9, (2.0, 1.73, 1.73, 1.73, 1.73), BETTER),
    Cell(1000, UNEQUAL, 0.5, (2.0, 1.76, 1.76, 1.76, 1.76), BETTER),
)


def repetition(cell: Cell, number: int) -> dict[str, Any]:
    """What the probes and the advice say of one data set: the functions that ``topgraft probe`` calls."""
    import torch

    import topgraft as tg
    from topgraft.advise import advise_depth

    rng = np.random.default_rng((1, number, cell.n, len(cell.shares), len(cell.kind)))
    classes, drawn, fold_of = cell.data(rng)
    features = tg.Features({k: torch.from_numpy(x) for k, x in enumerate(drawn, start=1)}, "simulated")
    evidence = tg.probe(features, classes, fold_of, len(cell.shares))
    advice = advise_depth(evidence, {cut.keep: 1.0 / cut.keep for cut in evidence.cuts}, seed=number)
    mistakes = np.corrcoef(np.stack([cut.marks for cut in evidence.cuts]).astype(float))
    return {
        "score": [cut.score for cut in evidence.cuts],
        "low": [cut.low for cut in evidence.cuts],
        "high": [cut.high for cut in evidence.cuts],
        "in_set": [cut.keep in advice.in_set for cut in evidence.cuts],
        "alike": float(mistakes[np.triu_indices(len(mistakes), 1)].mean()),
    }


def fresh_accuracy(cell: Cell, number: int) -> list[float]:
    """Accuracy of a probe at each cut that was trained on the folds' share, on very many new examples."""
    import torch

    from topgraft.probe import fit_head

    rng = np.random.default_rng((2, number, cell.n, len(cell.shares), len(cell.kind)))
    classes, drawn, fold_of = cell.data(rng)
    train = fold_of != number % FOLDS
    wanted, unseen = cell.draw(TESTED, rng)
    found = []
    for seen, new in zip(drawn, unseen, strict=True):
        fit = fit_head(torch.from_numpy(seen[train]), torch.from_numpy(classes[train]), len(cell.shares))
        found.append(float((fit.logits(torch.from_numpy(new)).argmax(1).numpy() == wanted).mean()))
    return found


def sitting(
    cells: Sequence[Cell], repetitions: int, minutes: float, jobs: int = 1
) -> dict[str, dict[str, Any]]:
    """All that was measured so far; the cells that have least are measured first, until the time is over."""
    from topgraft.files import write_json

    folder = WORK / code_digest(*CODE)
    folder.mkdir(parents=True, exist_ok=True)
    known = {}
    for cell in cells:
        path = folder / f"{cell.name}.json"
        known[cell.name] = json.loads(path.read_text()) if path.is_file() else {}
        if known[cell.name].get("strengths") != list(cell.strengths):
            known[cell.name] = {"strengths": list(cell.strengths), "repetitions": [], "truths": []}
    deadline = time.monotonic() + 60 * minutes
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_on_one_core) as pool:
        while time.monotonic() < deadline:
            cell = min(cells, key=lambda cell: len(known[cell.name]["repetitions"]))
            one = known[cell.name]
            done, first = len(one["repetitions"]), len(one["truths"])
            if done >= repetitions:
                break
            batches = min(jobs, math.ceil((repetitions - done) / BATCH))
            last = min(done + BATCH * batches, repetitions)
            found = pool.map(partial(repetition, cell), range(done, last))
            fresh = pool.map(partial(fresh_accuracy, cell), range(first, first + TRUTHS * batches))
            one["repetitions"] += list(found)
            one["truths"] += list(fresh)
            write_json(folder / f"{cell.name}.json", one)
            print(f"{cell.name}: {last} of {repetitions}", flush=True)
    return known


def _on_one_core() -> None:
    import torch

    torch.set_num_threads(1)


@dataclass(frozen=True)
class Found:
    """What one cell shows.

    Parameters
    ----------
    cell
        Of which.
    repetitions
        How many.
    truth
        ``(cuts,)``: expected accuracy of a probe trained on the folds' share.
    covered
        ``(cuts,)``: share of repetitions whose interval holds the truth.
    best
        Share of repetitions whose set holds the truly best cut.
    size
        Mean number of cuts in the set.
    apart
        ``(cuts,)``: by how many paired standard errors each cut is worse than the best, by the spread of the
        difference over the repetitions.
    kept
        ``(cuts,)``: share of repetitions whose set holds it.
    alike
        Mean correlation of the mistakes of two cuts.
    """

    cell: Cell
    repetitions: int
    truth: Array
    covered: Array
    best: float
    size: float
    apart: Array
    kept: Array
    alike: float


def found_in(cell: Cell, measured: dict[str, Any]) -> Found:
    """What the repetitions of a cell show."""
    every = measured["repetitions"]
    score, low, high, in_set = (
        np.array([one[name] for one in every]) for name in ("score", "low", "high", "in_set")
    )
    truth = np.mean(measured["truths"], axis=0)
    spread = np.std(score[:, :1] - score, axis=0, ddof=1)
    apart = np.divide(truth[0] - truth, spread, out=np.zeros_like(truth), where=spread > 0)
    return Found(
        cell,
        len(every),
        truth,
        ((low <= truth) & (truth <= high)).mean(0),
        float(in_set[:, 0].mean()),
        float(in_set.sum(1).mean()),
        apart,
        in_set.mean(0),
        float(np.mean([one["alike"] for one in every])),
    )


def promises(every: Sequence[Found]) -> list[tuple[str, str, str, bool]]:
    """What is promised, what was measured, and whether it holds."""
    pooled = float(np.mean(np.concatenate([one.covered for one in every])))
    lowest = min(float(one.covered.min()) for one in every)
    best = min(one.best for one in every)
    size = max((one.size for one in every if one.cell.kind == BETTER), default=math.nan)
    far = [float(k) for one in every for k, z in zip(one.kept, one.apart, strict=True) if z >= APART]
    worse = max(far, default=math.nan)
    return [
        (
            "95 % intervals of all cuts and cells hold the truth",
            f"{POOLED[0]:.0%} to {POOLED[1]:.0%}",
            f"{pooled:.1%}",
            POOLED[0] <= pooled <= POOLED[1],
        ),
        ("the same, lowest of any cut in any cell", f"{LOWEST:.0%}", f"{lowest:.1%}", lowest >= LOWEST),
        ("the set holds the truly best cut, lowest of any cell", f"{BEST:.0%}", f"{best:.1%}", best >= BEST),
        ("mean size of the set with one cut 5 points better", f"{SIZE:g}", f"{size:.2f}", size <= SIZE),
        (
            f"cuts that are {APART:g} or more paired standard errors worse are in the set, most often one",
            f"under {WORSE:.0%}",
            f"{worse:.1%} ({len(far)} cuts)",
            worse < WORSE,
        ),
    ]


TEXT = """\
# Simulation: intervals and confidence sets where the truth is known

Written by `make simulation`, which goes on where it was. So far {repetitions} repetitions a cell.

## What is promised and what was measured

{promises}

With {least:,} repetitions a share of 95 % is measured to {error:.1f} points (standard error). The lowest of
{many} such shares lies about {below:.1f} points below its truth by chance alone.

## The cells

{cells}

The cut that is worse is the last one: by how many paired standard errors (the spread of the difference from
the best over the repetitions), and how often it is in the set.

## How it is done

- **Data.** {classes}. The mean of a class lies on an axis of its own, at the cut's strength; the noise is
  normal with variance 1 on {width} axes. A part of it is common to all five cuts of an example, so that the
  noise of two cuts is correlated as stated; what that makes of their mistakes is in the table. The strengths
  are {strengths} and one that is about {apart:g} paired standard errors worse than the best; or the best and
  four that are 5 points worse.
- **Method.** The functions that `topgraft probe` calls, with its {folds} stratified folds: probes, intervals
  and confidence set. The set goes by accuracy and loss (max-t bootstrap, stepping down as in the model
  confidence set of Hansen, Lunde and Nason 2011); its errors are widened for the luck of small training sets.
  The interval is Wilson's with the variance that the docstring of `topgraft.score.cross_validated_interval`
  gives, with its sources.
- **Truth.** The expected accuracy of a probe that is trained on the folds' share of the examples: the mean of
  probes trained on {truths} fresh data sets a cell, each scored on {tested:,} new examples.

## Measured on

{machine}
"""


def as_page(every: Sequence[Found], truths: int) -> str:
    """What ``docs/simulation.md`` holds."""
    counts = sorted({one.repetitions for one in every})
    many, least = sum(len(one.covered) for one in every), counts[0]
    error = 100 * math.sqrt(0.95 * 0.05 / least)
    rows = [
        [
            f"{one.cell.kind}; {len(one.cell.shares)} classes",
            f"{one.cell.n:,}",
            f"{one.cell.correlation:g}",
            f"{one.alike:.2f}",
            " ".join(f"{100 * t:.1f}" for t in one.truth),
            f"{one.covered.mean():.1%}",
            f"{one.covered.min():.1%}",
            f"{one.best:.1%}",
            f"{one.size:.2f}",
            f"{one.apart[-1]:.1f}",
            f"{one.kept[-1]:.1%}",
        ]
        for one in every
    ]
    header = ["cuts", "n", "noise corr.", "mistakes corr.", "true accuracy of each cut", "coverage"]
    header += ["lowest cut", "best in set", "size", "worse by", "worse in set"]
    return TEXT.format(
        repetitions=f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}",
        least=least,
        error=error,
        many=many,
        below=error * math.sqrt(2 * math.log(many)),
        promises="\n".join(
            markdown_table(
                ["", "promised", "measured", "holds"],
                [
                    [what, wanted, found, "yes" if holds else "**no**"]
                    for what, wanted, found, holds in promises(every)
                ],
            )
        ),
        cells="\n".join(markdown_table(header, rows)),
        classes="Three equally frequent classes, or four of 40, 25, 20 and 15 %",
        width=WIDTH,
        strengths=", ".join(f"{s:g}" for s in CELLS[0].strengths[:-1]),
        apart=APART,
        folds=FOLDS,
        truths=f"{truths:,}",
        tested=TESTED,
        machine="\n".join(machine_lines(PACKAGES)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, help="data sets a cell")
    parser.add_argument("--minutes", type=float, default=math.inf, help="no new batch begins after these")
    parser.add_argument("--page", type=Path, default=PAGE, help="what is written")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    asked = parser.parse_args()
    known = sitting(CELLS, asked.repetitions, asked.minutes, asked.jobs)
    enough = [cell for cell in CELLS if len(known[cell.name]["repetitions"]) > 1]
    every = [found_in(cell, known[cell.name]) for cell in enough]
    text = as_page(every, min(len(known[cell.name]["truths"]) for cell in enough))
    asked.page.write_text(text, encoding="utf-8")
    print(text)
    sys.exit(0 if all(holds for *_, holds in promises(every)) else 1)


if __name__ == "__main__":
    main()
