"""Stage results in plain words: what a person reads between the command and the saved model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from topgraft.advise import DepthAdvice, cut_rows
from topgraft.backbones.types import Backbone
from topgraft.chain import Chain
from topgraft.choices import fate
from topgraft.console import Console, bar, counted, percent
from topgraft.data.types import Data
from topgraft.evidence import Evidence
from topgraft.label_scores import RANKING
from topgraft.number_scores import MAE, R2, RMSE
from topgraft.objective import are_numbers
from topgraft.rank_scores import AGREEMENT, KAPPA
from topgraft.score import ClassScore, Score, optimism_in_words
from topgraft.transferability import Secondary

SHOWN = 8
"""Examples of a kind (left out, in conflict) that are listed one by one."""
UNITS = {"picture": "pictures", "text": "texts", "sound": "sounds", "array": "rows", "row": "rows"}


def backbone_lines(console: Console, backbone: Backbone) -> None:
    """The load report, the preprocessing and the licence."""
    console.line("Weights", *backbone.report.lines())
    console.line("Input", *backbone.preprocess.lines())
    if backbone.licence:
        console.line("Licence", f"weights: {backbone.licence}")


def data_lines(console: Console, data: Data, *, untouched: str = "") -> None:
    """Examples, classes, what was left out and why."""
    first = f"{len(data):,} {UNITS[data.modality]}"
    if data.outputs:
        targets = np.asarray(data.targets)
        low, high = targets.min(0), targets.max(0)
        spans = zip(data.outputs, low, high, strict=True)
        first += "; to be predicted: " + ", ".join(f"{name} ({a:g} to {b:g})" for name, a, b in spans)
    else:
        counts = list(data.counts.values())
        each = f"{min(counts)} to {max(counts)} each" if min(counts) != max(counts) else f"{counts[0]} each"
        first += f" with {len(data.classes)} labels" if data.separator else f" in {_classes(data)}"
        first += f" ({each})"
    console.line("Data", first + (f"; {untouched}" if untouched else ""), *data.notes)
    for left in data.left_out[:SHOWN]:
        console.text(f"            {left.name}    {left.reason}")
    if len(data.left_out) > SHOWN:
        console.text(f"            … and {len(data.left_out) - SHOWN} more")


def _classes(data: Data) -> str:
    """How many classes, and which way ordered ones rise."""
    if not data.is_ordered:
        return f"{len(data.classes)} classes"
    names = data.classes if len(data.classes) <= SHOWN else (*data.classes[:2], "…", data.classes[-1])
    return f"{len(data.classes)} ordered classes, {' < '.join(names)}"


def chain_rows(chain: Chain) -> list[dict[str, Any]]:
    """The blocks in the fixed form of ``layers --json``: one entry each."""
    share, total = chain.share_of_work(), 0.0
    rows = []
    for block, part in zip(chain, share, strict=True):
        total += part
        rows.append(
            {
                "index": block.index,
                "name": block.name,
                "kind": block.kind,
                "shape": list(block.shape),
                "shapes": [list(shape) for shape in block.shapes],
                "parameters": block.parameters,
                "macs": block.macs,
                "share": part,
                "cumulative": total,
                "verified": block.verified,
                "difference": block.difference,
            }
        )
    return rows


def chain_json(source: str, chain: Chain, keep: int | None, freeze: int | None) -> dict[str, Any]:
    """The fixed form of ``layers --json``; keep and freeze are ``null`` where they were not given."""
    return {
        "backbone": source,
        "blocks": chain_rows(chain),
        "refused": [{"block": cut.block, "reason": cut.reason} for cut in chain.refused],
        "keep": keep,
        "freeze": freeze,
    }


def chain_table(
    console: Console,
    chain: Chain,
    keep: int | None = None,
    freeze: int | None = None,
    *,
    why: bool = False,
) -> None:
    """The chain as a table; with keep, what becomes of each block, and with ``why`` how far a cut is off."""
    rows = [
        [
            str(r["index"]),
            r["name"],
            r["kind"],
            " + ".join(_sizes(shape) for shape in r["shapes"]),
            f"{r['parameters']:,}",
            f"{r['macs'] / 1e6:,.1f}",
            percent(r["share"], 1),
            percent(r["cumulative"], 1),
            _checked(r, why=why),
            fate(r["index"], keep, freeze),
        ]
        for r in chain_rows(chain)
    ]
    header = ["keep", "block", "kind", "output", "parameters", "M mult-adds", "work", "up to here", "cut"]
    shown = len(header) + (keep is not None)
    console.table([*header, ""][:shown], [row[:shown] for row in rows], left=(1, 2, 8, 9))


def chain_why(console: Console, chain: Chain) -> None:
    """Where several activations cross, which ones; then the cuts that were refused, with the reasons."""
    crossed = [b for b in chain if b.others]
    if crossed:
        console.text()
        console.text("Several activations cross the cuts after these blocks:")
    for block in crossed:
        words = block.layout.split("+")
        each = [f"{word} {_sizes(shape)}" for word, shape in zip(words, block.shapes, strict=True)]
        console.text(f"  {block.name}: {' + '.join(each)}")
    console.text()
    if not chain.refused:
        console.text("No cut was refused.")
        return
    console.text(
        f"{counted(len(chain.refused), 'cut')} that {_were(chain)} tried and refused, with the reason:"
    )
    for cut in chain.refused:
        console.text(f"  {cut.block}: {cut.reason}")


def chain_summary(console: Console, source: str, chain: Chain, *, why: bool = False) -> None:
    """How many blocks, whether every cut of them holds, and how many were refused."""
    equal = sum(block.verified for block in chain)
    cuts = "every cut" if equal == len(chain) else f"{equal} of {len(chain)} cuts"
    console.text(f"{source}: {counted(len(chain), 'block')}, {cuts} checked to compute the same")
    if chain.refused and not why:
        console.text(
            f"{counted(len(chain.refused), 'cut')} {_were(chain)} tried and refused; --why tells the reason"
        )


def _were(chain: Chain) -> str:
    return "was" if len(chain.refused) == 1 else "were"


def _sizes(shape: Sequence[int]) -> str:
    return "×".join("n" if s == -1 else str(s) for s in shape)


def _checked(row: dict[str, Any], *, why: bool) -> str:
    if not row["verified"]:
        return f"differs by {row['difference']:.1e}"
    return f"equal, difference {row['difference']:.2g}" if why else "equal"


def evidence_table(
    console: Console,
    chain: Chain,
    evidence: Evidence,
    advice: DepthAdvice,
    beside: Mapping[int, Secondary] | None = None,
) -> None:
    """One row a depth, with error bars, the share of parameters and of work up to there.

    ``beside`` adds two columns by keep: nearest neighbours and LogME.
    """
    more = ["neighbours", "LogME"] if beside else []
    parameters = np.cumsum(chain.share_of_parameters())
    work = np.cumsum(chain.share_of_work())
    folds = len(np.unique(evidence.fold_of))
    rows = []
    for cut in evidence.cuts:
        block = chain.blocks[cut.keep - 1]
        half = (cut.high - cut.low) / 2
        remark = ""
        if cut.keep == advice.keep:
            remark = "advised"
        elif cut.keep == advice.best:
            remark = "best"
        elif cut.keep in advice.in_set:
            remark = "can't be told from the best"
        rows.append(
            [
                ">" if cut.keep == advice.keep else "",
                str(cut.keep),
                block.name,
                f"{100 * cut.score:.1f} ± {100 * half:.1f}",
                bar(max(0.0, cut.score)),
                *(_beside(beside[cut.keep]) if beside else ()),
                percent(parameters[cut.keep - 1]),
                percent(work[cut.keep - 1]),
                remark,
            ]
        )
    console.text()
    metric = "R2" if are_numbers(evidence.targets) else "score"
    header = ["", "keep", "block", f"{metric}, {folds} folds", "", *more, "parameters", "work", ""]
    console.table(header, rows, left=(0, 2, 4, len(header) - 1))
    console.text()


def _beside(measured: Secondary) -> tuple[str, str]:
    return f"{100 * measured.neighbours:.1f}", f"{measured.logme:.2f}"


def score_lines(
    console: Console, scores: Sequence[Score], constant: float, *, examples: str = "untouched examples"
) -> None:
    """The score beside that of always giving the same answer, and what else was measured."""
    console.line(
        "Score",
        f"{scores[0].metric} {score_in_words(scores[0], f'on {scores[0].n} {examples}')}; "
        f"{constant_answer(scores[0].metric)} alone: {percent(constant, 1)}",
        ", ".join(
            f"{s.metric} {percent(s.value, 1)}" if is_share(s.metric) else f"{s.metric} {score_in_words(s)}"
            for s in scores[1:]
        ),
    )


def scorer_line(console: Console, score: Score) -> None:
    """A score by one of scikit-learn's names, as it is: not all are shares."""
    within = "" if math.isnan(score.low) else f" (95 % interval {score.low:.3g} to {score.high:.3g})"
    console.line("", f"{score.metric} {score.value:.3g}{within}")


def is_share(metric: str) -> bool:
    """Whether a metric is a share, told in percent, and not an error in the target's unit or a kappa."""
    return not metric.startswith((MAE, RMSE, KAPPA))


def constant_answer(metric: str) -> str:
    """What somebody who knows nothing of the inputs answers."""
    known = {R2: "the mean", RANKING: "how frequent each label is", AGREEMENT: "the median class"}
    return known.get(metric, "the most frequent class")


def in_unit(value: float) -> str:
    """A number in the target's unit, in a few digits.

    Examples
    --------
    >>> in_unit(1234567.8), in_unit(0.012345)
    ('1,234,568', '0.0123')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def score_in_words(score: Score, behind: str = "") -> str:
    """A score with its interval: ``82.1 % on 60 examples (95 % interval 70.0 % to 90.1 %)``, or in the unit.

    Examples
    --------
    >>> score_in_words(Score("R2", 0.5, 0.25, 0.625, 9)), score_in_words(Score(MAE, 1234.5, 0.1234, 2e6, 9))
    ('50.0 % (95 % interval 25.0 % to 62.5 %)', '1,234 (95 % interval 0.123 to 2,000,000)')
    """
    value, low, high = (
        percent(v, 1) if is_share(score.metric) else in_unit(v) for v in (score.value, score.low, score.high)
    )
    within = "no interval can be told" if math.isnan(score.low) else f"95 % interval {low} to {high}"
    return f"{value}{f' {behind}' if behind else ''} ({within})"


def intervals_line(console: Console, found: Mapping[str, Any]) -> None:
    """How wide intervals about predicted numbers are, and how many untouched targets they hold."""
    if found["half_widths"] is None:
        console.line("", f"there are too few examples for intervals that hold {percent(found['coverage'])}")
        return
    wide = ", ".join(f"± {half:.3g}" for half in found["half_widths"])
    console.line(
        "",
        f"intervals of {wide} shall hold {percent(found['coverage'])} of new targets, and hold "
        f"{percent(found['measured'], 1)} of the untouched ones",
    )


def optimism_line(console: Console, told: Mapping[str, float]) -> None:
    """The winner's score in the search beside the untouched one, which no choice has seen."""
    than = "more" if told["difference"] >= 0 else "less"
    console.line(
        "",
        f"the search had {percent(told['searched'], 1)} on {told['n']:,} examples: "
        f"{100 * abs(told['difference']):.1f} ± {100 * told['error']:.1f} points {than} "
        f"({optimism_in_words(told)})",
    )


def calibration_line(console: Console, measured: Mapping[str, Any]) -> None:
    """How far the probabilities are off, with the temperature that was fitted and without."""
    said = f"probabilities are off by {100 * measured['error']:.1f} points on average (calibration error)"
    if measured["temperature"] != 1:
        said += f"; {100 * measured['error_before']:.1f} before temperature {measured['temperature']:.2f}"
    console.line("", said)


def class_table(
    console: Console, classes: Iterable[str], scores: Sequence[ClassScore], *, kind: str = "class"
) -> None:
    """Precision, recall, F1 and support of each class or label."""
    rows = [
        [name, percent(s.precision, 1), percent(s.recall, 1), percent(s.f1, 1), str(s.support)]
        for name, s in zip(classes, scores, strict=True)
    ]
    console.table([kind, "precision", "recall", "F1", "support"], rows, left=(0,))


def score_json(score: Score) -> dict[str, Any]:
    """A score as JSON: ``metric``, ``value``, ``low``, ``high``, ``n``."""
    return {
        "metric": score.metric,
        "value": score.value,
        "low": score.low,
        "high": score.high,
        "n": score.n,
    }


def probe_json(
    backbone: Backbone,
    evidence: Evidence,
    advice: DepthAdvice,
    resumed: Sequence[dict[str, Any]],
    beside: Mapping[int, Secondary] | None,
) -> dict[str, Any]:
    """The fixed form of ``probe --json``."""
    chain = backbone.chain
    parameters, work = np.cumsum(chain.share_of_parameters()), np.cumsum(chain.share_of_work())
    names = [block.name for block in chain]
    rows = cut_rows(evidence, advice, names, parameters.tolist(), work.tolist())
    return {
        "backbone": backbone.source,
        "cuts": [{**row, **(asdict(beside[row["keep"]]) if beside else {})} for row in rows],
        "advice": {**advice.to_json(), "block": chain.blocks[advice.keep - 1].name},
        "resumed": list(resumed),
    }
