"""The end of a fit: save, score what was saved on untouched data, write everything down."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from topgraft import search
from topgraft.advise import DepthAdvice
from topgraft.answers import answers, own_module
from topgraft.augmented import sheet
from topgraft.card import model_card
from topgraft.console import Console, duration, size
from topgraft.data.pairs import have_pairs
from topgraft.data.types import Data, together
from topgraft.drawing import svg
from topgraft.errors import TopgraftError
from topgraft.files import write_json, write_whole
from topgraft.graft import Graft
from topgraft.history import History
from topgraft.label_scores import frequency_score, score_labels
from topgraft.mistakes import SHEET, UNTOUCHED, untouched_json
from topgraft.number_scores import r2, score_numbers
from topgraft.objective import encoded
from topgraft.ordered import middle_class
from topgraft.predict import Predictor, predicted_classes, rows_of
from topgraft.rank_scores import median_score, score_ranks
from topgraft.saved import describe, open_model, save
from topgraft.score import Score, judged_on, majority_score, optimism, score_predictions
from topgraft.settings import REPEATED
from topgraft.short_trainings import shorts
from topgraft.show import (
    calibration_line,
    intervals_line,
    optimism_line,
    score_json,
    score_lines,
    scorer_line,
)
from topgraft.show_cost import compared_lines
from topgraft.soup import refit
from topgraft.stages import measure
from topgraft.taps import side_by_side, with_taps
from topgraft.underway import Underway
from topgraft.versions import versions
from topgraft.windows import windowed

Array = np.ndarray[Any, np.dtype[Any]]
TIMED = 5
"""Untouched examples that are predicted one by one, to tell how long one takes."""


@dataclass(frozen=True)
class Judged:
    """What the saved model said of untouched data.

    Parameters
    ----------
    scores
        The main one first.
    constant
        The score of always giving the same answer: the most frequent class or labels, or the mean where it
        was learned.
    said
        Probabilities ``(n, classes)`` or numbers ``(n, outputs)``.
    seconds
        Of the prediction of one example by itself.
    """

    scores: tuple[Score, ...]
    constant: float
    said: Array
    seconds: float


def finish(
    at: Underway,
    material: search.Material,
    graft: Graft,
    history: History | None,
    advice: DepthAdvice,
    freeze: int,
) -> dict[str, Any]:
    """Save the graft, score it, and give the fixed form of ``fit --json``.

    Parameters
    ----------
    at
        The fit under way.
    material
        What trainings shared.
    graft
        The result.
    history
        Of its training on the training part, if any.
    advice
        On depth.
    freeze
        Blocks that did not change.
    """
    ready, console, run, calibration = at.ready, at.console, at.run, at.calibration
    chain, keep = ready.backbone.chain, graft.keep
    trained, names = search.trained_parameters(graft)
    blocks = [b.name for b in chain.blocks[freeze:keep]]
    what = f"blocks {', '.join(blocks)}, and the head" if blocks else "the head"
    console.line("Trained", f"{trained:,} parameters: {what}")
    description = describe(
        graft,
        ready.backbone,
        classes=ready.data.classes,
        outputs=ready.data.outputs,
        separator=ready.data.separator,
        is_ordered=ready.data.is_ordered,
        scale=ready.scale,
        columns=ready.data.columns,
        engine=at.settings.engine_or_torch,
        precision=at.settings.precision_or_fp32,
        seed=at.settings.seed,
        calibration=calibration.to_json(),
        pairs=have_pairs(ready.data),
        windows=at.settings.windows,
    )
    graft.head.finished(calibration.temperature, ready.scale, is_ordered=ready.data.is_ordered)
    save(run.path, graft, ready.backbone.preprocess, description)
    judged = score_untouched(at)
    if at.settings.refit_all:
        refit_on_all(at, material, graft, history, description)
    of = judged_on(at.settings.nested)
    score_lines(console, judged.scores, judged.constant, examples=of)
    scorers = scored_as_asked(at, judged.said)
    told = optimism(at.searched, judged.scores[0])
    optimism_line(console, told)
    trusted = trust(at, judged.said)
    compared = at.ledger.to_json()
    compared_lines(console, compared)
    seconds = time.monotonic() - at.began
    result: dict[str, Any] = _finite(
        {
            "keep": keep,
            "freeze": freeze,
            "resize": at.plan.decisions["resize"]["value"],
            "taps": graft.taps,
            "blocks": {
                "all": [b.name for b in chain],
                "kept": [b.name for b in chain.blocks[:keep]],
                "frozen": [b.name for b in chain.blocks[:freeze]],
                "trained": blocks,
                "parameters": np.cumsum(chain.share_of_parameters()).tolist(),
                "work": np.cumsum(chain.share_of_work()).tolist(),
            },
            "trained_parameters": trained,
            "trained_names": names,
            "score": score_json(judged.scores[0]),
            "scores": [score_json(s) for s in judged.scores],
            "scorers": scorers,
            "nested": at.settings.nested,
            "task": ready.data.task,
            "majority": judged.constant,
            "optimism": told,
            **trusted,
            "seconds": seconds,
            "prediction": {"seconds": judged.seconds},
            "model": str(run.path),
            "resumed": at.resumed,
            "backbone": ready.backbone.source,
            "advice": advice.to_json(),
            "reasons": {n: d["reason"] for n, d in at.plan.decisions.items() if n not in REPEATED},
            "skipped": at.skipped,
            "forecast": compared,
            "health": at.health,
            "search": shorts(at.plan.decisions),
            "candidate": at.plan.decisions.get("candidate", {}).get("value"),
            "history": None if history is None else history.to_json()["epochs"],
            "best_epoch": None if history is None else history.best,
            "configuration": None if at.told_by is None else at.told_by.to_json(),
            "versions": versions(),
        }
    )
    at.tracking.result(
        result["scores"], keep=keep, freeze=freeze, trained_parameters=trained, seconds=seconds
    )
    write_json(run.path / "labels.json", list(ready.data.classes or ready.data.outputs))
    write_json(run.path / UNTOUCHED, untouched_json(ready.untouched, judged.said))
    if history is not None:
        keep_sheet(at, material, freeze)
    picture = svg(chain.blocks, keep, freeze, title=ready.backbone.source)
    write_whole(run.path / "chain.svg", picture.encode())
    write_json(run.path / "result.json", result)
    card = model_card(result, ready.backbone, ready.data, command_seed=at.settings.seed)
    write_whole(run.path / "README.md", card.encode())
    run.finish()
    total = sum(f.stat().st_size for f in run.path.rglob("*") if f.is_file())
    left_out = f"; left out: {'; '.join(at.skipped)}" if at.skipped else ""
    bound = "bounded by the plan" if at.plan.is_repeat else f"of {duration(at.settings.budget)}"
    console.line("Time", f"{duration(seconds)} {bound}{left_out}")
    console.line("Saved", f"{run.path} ({size(total)}); for new ones: topgraft predict {run.path} …")
    return result


def keep_sheet(at: Underway, material: search.Material, freeze: int) -> None:
    """Write down a few pictures as training saw them, where it changed any."""
    at_cut = [n.removeprefix("views_at_") for n, d in at.plan.decisions.items() if n.startswith("views_at_")]
    stored = [int(at.plan.decisions[f"views_at_{cut}"]["value"]) for cut in at_cut]
    views = max(stored, default=0)
    if views or search.augments(material, freeze):
        document = sheet(at.ready.development, at.settings, views=views)
        write_json(at.run.path / SHEET, document)


def score_untouched(at: Underway) -> Judged:
    """Scores on untouched data, by the path that ``predict`` takes, from what was saved.

    Returns
    -------
    Judged
        With the seconds of one prediction by itself.

    Raises
    ------
    RunningError
        If an untouched example can't be read any more.
    """
    ready = at.ready
    predictor = Predictor(open_model(at.run.path, module=own_module(ready)), store=at.store)
    targets, groups = np.asarray(ready.untouched.targets), ready.untouched.groups
    if at.nested is not None:  # this model learned from all of them
        said, scores = at.nested.said, at.nested.scores(ready.data, ready.scale)
        constant = majority_score(targets) if ready.scale is None else 0.0
        return Judged(scores, constant, said, _seconds_alone(predictor, ready.untouched))
    predictions = answers(predictor, ready.untouched, at.console)
    seconds = _seconds_alone(predictor, ready.untouched)
    if ready.scale is not None:
        numbers = np.array([p.values for p in predictions])
        mean = np.broadcast_to(np.array(ready.scale.mean), targets.shape)
        scored = score_numbers(targets, numbers, ready.data.outputs, groups=groups)
        return Judged(scored, r2(targets, mean), numbers, seconds)
    chances = np.array([p.probabilities for p in predictions])
    if ready.data.separator:
        scores = score_labels(targets, chances, groups=groups)
        return Judged(scores, frequency_score(targets), chances, seconds)
    if ready.data.is_ordered:
        count = len(ready.data.classes)
        ranks = score_ranks(targets, middle_class(chances), count, groups=groups)
        return Judged(ranks, median_score(targets, count), chances, seconds)
    accuracies = score_predictions(targets, predicted_classes(predictions, ready.data.classes), groups=groups)
    return Judged(accuracies, majority_score(targets), chances, seconds)


def scored_as_asked(at: Underway, said: Array) -> list[dict[str, Any]]:
    """The scores by scikit-learn's names that were asked for; one that can't be told here has no value."""
    if not at.settings.score:
        return []
    from topgraft.scorers import score_by

    ready, found = at.ready, []
    targets, groups = np.asarray(ready.untouched.targets), ready.untouched.groups
    for name in at.settings.score:
        try:
            score = score_by(name, ready.data.task, targets, said, groups=groups)
        except TopgraftError as problem:
            at.console.line("", str(problem))
            score = Score(name, math.nan, math.nan, math.nan, len(targets))
        else:
            scorer_line(at.console, score)
        found.append(score_json(score))
    return found


def _seconds_alone(predictor: Predictor, untouched: Data) -> float:
    """Of one prediction, decoding included: the quickest of a few, as other programs only make it slower."""
    each = []
    for row in islice(rows_of(untouched), TIMED):
        began = time.monotonic()
        predictor.batch([row])
        each.append(time.monotonic() - began)
    return min(each)


def trust(at: Underway, said: Array) -> dict[str, Any]:
    """How far probabilities, or intervals of numbers, can be trusted on untouched data, in ``fit --json``.

    ``calibration`` is that of probabilities and ``intervals`` that of numbers; the other one is ``None``.
    """
    targets, calibration = np.asarray(at.ready.untouched.targets), at.calibration
    if at.ready.scale is None:
        measured = calibration.measured(said, targets, is_ordered=at.ready.data.is_ordered)
        calibration_line(at.console, measured)
        return {"calibration": measured, "intervals": None}
    found = calibration.intervals(said, targets, at.ready.scale.spread)
    intervals_line(at.console, found)
    return {"calibration": None, "intervals": found}


def refit_on_all(
    at: Underway,
    material: search.Material,
    graft: Graft,
    history: History | None,
    description: dict[str, Any],
) -> None:
    """Fit on everything, the untouched part included, with the same choices; the score stays as it was."""
    ready = at.ready
    rest, _ = windowed(ready.untouched, ready.backbone, at.settings.windows)
    whole = _together(ready.development, rest)
    features, _ = measure(with_taps(ready.backbone, ()), whole, at.store, at.settings, Console())
    features = side_by_side(features, graft.keep, graft.taps)
    everything = replace(
        material,
        data=whole,
        features=features,
        targets=encoded(whole, ready.scale),
        rows=list(range(len(whole))),
        validation=(),
    )
    if (
        history is None
        or history.best == 0
        or (graft.freeze == graft.keep and not search.head_trains(material))
    ):
        last = search.frozen_graft(everything, graft.keep)
    else:
        trial = search.Trial(graft.keep, graft.freeze, history, 0.0)
        views = int(at.plan.decisions.get(f"views_at_{graft.freeze}", {}).get("value", 0))
        source, _ = search.source_at(everything, graft.keep, graft.freeze, views=views)
        members = int(at.plan.decisions.get("soup", {}).get("value", 1))
        last, _ = refit(everything, trial, source, members=members, checkpoint=None, advance=None)
    last.head.finished(at.calibration.temperature, ready.scale, is_ordered=ready.data.is_ordered)
    save(at.run.path, last, ready.backbone.preprocess, description)
    at.console.line(
        "Refit",
        f"on all {len(whole):,} examples, the untouched ones included; the score below is the earlier fit's",
    )


def _together(a: Data, b: Data) -> Data:
    return replace(
        a,
        names=(*a.names, *b.names),
        inputs=together(a.inputs, b.inputs),
        targets=np.concatenate([np.asarray(a.targets), np.asarray(b.targets)]),
        groups=np.arange(len(a) + len(b)),
        digests=(*a.digests, *b.digests),
        duplicates=(),
        conflicts=(),
        thumbnails=None,
    )


def _finite(value: Any) -> Any:
    """The same with ``None`` for what is not a number, which JSON has no word for."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
