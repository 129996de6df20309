"""What the commands on a saved model do, beside the stages of a fit."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from topgraft.calibration import calibration_error, prediction_set
from topgraft.configuration import in_force
from topgraft.console import Console
from topgraft.data.notes import number
from topgraft.data.types import Data
from topgraft.data.unlabelled import Row, rows
from topgraft.errors import TopgraftError
from topgraft.label_scores import HALF, frequency_score, label_set, label_table, score_labels
from topgraft.labelled import data_for
from topgraft.number_scores import r2, score_numbers
from topgraft.predict import (
    Prediction,
    Predictor,
    column_notes,
    number_columns,
    predicted_classes,
    rows_of,
)
from topgraft.rank_scores import median_score, score_ranks
from topgraft.run import RunFolder
from topgraft.saved import Model, open_model
from topgraft.score import class_scores, majority_score, score_predictions
from topgraft.show import class_table, data_lines, score_json, score_lines, scorer_line
from topgraft.tta import in_words, must_view

FORMS = ("csv", "jsonl", "json")


def run_predict(
    folder: Path,
    inputs: Sequence[str],
    *,
    column: str | None,
    form: str,
    coverage: float | None,
    batch_size: int,
    trust_code: bool,
    console: Console,
    tta: int = 1,
) -> None:
    """Write a row for each input to standard output, as soon as it is known.

    Raises
    ------
    TopgraftError
        If the model can't be opened or an input does not exist; an input that can't be read is a row.
    """
    if form not in FORMS:
        raise TopgraftError(f"--format {form}: give one of {', '.join(FORMS[:2])}.")
    if batch_size < 1:
        raise TopgraftError(f"--batch-size {batch_size} is out of range: give 1 or more.")
    model = open_model(folder, trust_code=trust_code)
    _tell_views(model, tta, console)
    if coverage is not None and tta > 1:
        raise TopgraftError(
            f"--coverage {coverage:g} rests on predictions without --tta, so that sets with it would "
            "hold the right class another share of times. Give one of the two."
        )
    threshold = None if coverage is None else _threshold(model, coverage)
    given: Iterable[Row] = rows(inputs, modality=_modality(model), column=column or _column(model))
    if "-" in inputs:  # read as it comes
        total = None
    else:
        given = list(given)
        total = len(given)
        for note in _row_notes(model, given):
            console.line("Columns", note)
    shown = Console() if sys.stdout.isatty() else console  # on a terminal the rows themselves are progress
    with shown.progress("Predicting", total, "inputs") as advance:
        predictions = Predictor(model, tta=tta).predict(given, batch_size=batch_size)
        _write(_counted(predictions, advance), model, form, threshold)


def _tell_views(model: Model, tta: int, console: Console) -> None:
    """Refuse views that there are not, and say what is averaged."""
    must_view(tta, model.modality)
    if tta > 1:
        console.line("Views", f"answers are the mean over {tta}: {in_words(tta)} (--tta)")


def _counted(predictions: Iterable[Prediction], advance: Callable[[int], None]) -> Iterator[Prediction]:
    for prediction in predictions:
        yield prediction
        advance(1)


def _row_notes(model: Model, given: Sequence[Row]) -> list[str]:
    """How tables of rows fit the columns that the model knows; nothing for other models."""
    records = [row.value for row in given if isinstance(row.value, Mapping)]
    names = list(dict.fromkeys(name for record in records for name in record))
    return column_notes(model, names, "the table") if records else []


def _modality(model: Model) -> Any:
    return model.modality


def _column(model: Model) -> str | None:
    return model.columns.get("text") or model.columns.get("path")


def _threshold(model: Model, coverage: float) -> float:
    known = model.calibration
    if known is None:
        raise TopgraftError("This model was saved without what prediction sets need; fit it again.")
    return known.threshold(coverage)


def _row(prediction: Prediction, model: Model, threshold: float | None) -> dict[str, Any]:
    """The fixed columns, and the prediction set or the intervals where they are asked for."""
    row = prediction.row(model.classes, model.outputs)
    if threshold is None:
        return row
    if model.separator:
        given = label_set(prediction.probabilities, threshold) if prediction.error is None else ()
        return row | {"set": [model.classes[c] for c in given]}
    if not model.outputs:
        inside = prediction_set(prediction.probabilities, threshold) if prediction.error is None else ()
        return row | {"set": [model.classes[c] for c in inside]}
    halves = [threshold * spread for spread in model.spread]
    for name, value, half in zip(
        number_columns(model.outputs), prediction.values or (None,) * len(halves), halves, strict=True
    ):
        row[f"{name}_low"] = None if value is None else value - half
        row[f"{name}_high"] = None if value is None else value + half
    return row


def _columns(model: Model, threshold: float | None) -> list[str]:
    """Names of the columns of CSV, in their order."""
    return list(_row(Prediction("", None, None, error=""), model, threshold))


def _write(predictions: Iterable[Prediction], model: Model, form: str, threshold: float | None) -> None:
    if form == "json":
        document = [_row(p, model, threshold) for p in predictions]
        sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")
        return
    if form == "jsonl":
        for p in predictions:
            sys.stdout.write(json.dumps(_row(p, model, threshold), ensure_ascii=False) + "\n")
            sys.stdout.flush()
        return
    writer = csv.DictWriter(sys.stdout, _columns(model, threshold), lineterminator="\n")
    writer.writeheader()
    for p in predictions:
        writer.writerow({n: _cell(v) for n, v in _row(p, model, threshold).items()})
        sys.stdout.flush()


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return "|".join(value)
    return "" if value is None else repr(value) if isinstance(value, float) else value


def run_evaluate(
    folder: Path,
    source: str,
    *,
    columns: Mapping[str, str | None],
    max_unreadable: float,
    trust_code: bool,
    console: Console,
    scorers: Sequence[str] = (),
    tta: int = 1,
) -> dict[str, Any]:
    """Score a saved model on labelled data: the fixed form of ``evaluate --json``."""
    model = open_model(folder, trust_code=trust_code)
    _tell_views(model, tta, console)
    if scorers:
        from topgraft.scorers import must_be_scorers

        must_be_scorers(scorers, model.task, classes=len(model.classes))
    data, notes = data_for(model, source, columns, max_unreadable=max_unreadable, watch=console.reading)
    if data.targets is None:
        raise TopgraftError(f"{source} has no labels to compare with. Name their column (--label).")
    data_lines(console, data)
    for note in notes:
        console.line("Columns", note)
    with console.progress("Predicting", len(data)) as advance:
        predictions = []
        for p in Predictor(model, tta=tta).predict(rows_of(data)):
            predictions.append(p)
            advance(1)
    if model.outputs:
        document = _score_numbers(model, data, predictions, console)
    elif model.separator:
        document = _score_labels(model, data, predictions, console)
    elif model.is_ordered:
        document = _score_ranks(model, data, predictions, console)
    else:
        document = _score_classes(model, data, predictions, console)
    more: dict[str, Any] = (
        {"scorers": _as_asked(scorers, model, data, predictions, console)} if scorers else {}
    )
    if tta > 1:
        more["tta"] = tta
    return {"model": str(folder), **document, **more}


def _as_asked(
    scorers: Sequence[str], model: Model, data: Data, predictions: Sequence[Prediction], console: Console
) -> list[dict[str, Any]]:
    """Scores by scikit-learn's names; examples that can't be read any more are not among them."""
    from topgraft.scorers import score_by

    known = [i for i, p in enumerate(predictions) if p.error is None]
    said = np.array([predictions[i].values or predictions[i].probabilities for i in known])
    targets, groups = np.asarray(data.targets)[known], data.groups[known]
    scores = [score_by(name, model.task, targets, said, groups=groups) for name in scorers]
    for score in scores:
        scorer_line(console, score)
    found = [score_json(score) for score in scores]
    return [
        {n: None if isinstance(v, float) and math.isnan(v) else v for n, v in one.items()} for one in found
    ]


def _score_classes(
    model: Model, data: Data, predictions: Sequence[Prediction], console: Console
) -> dict[str, Any]:
    """Scores of one class an example; an example that can't be read any more is a mistake."""
    assert data.targets is not None
    found = predicted_classes(predictions, model.classes)
    scores = score_predictions(data.targets, found, groups=data.groups)
    answered = [i for i, p in enumerate(predictions) if p.error is None]
    chances = np.array([predictions[i].probabilities for i in answered])
    off = calibration_error(chances, data.targets[answered]) if answered else None
    majority = majority_score(data.targets)
    each = class_scores(data.targets, found, len(model.classes))
    score_lines(console, scores, majority, examples="examples")
    if off is not None:
        console.line("", f"probabilities are off by {100 * off:.1f} points on average (calibration error)")
    class_table(console, model.classes, each)
    return {
        "score": score_json(scores[0]),
        "scores": [score_json(s) for s in scores],
        "majority": majority,
        "calibration_error": off,
        "classes": [
            {"class": n, "precision": s.precision, "recall": s.recall, "f1": s.f1, "support": s.support}
            for n, s in zip(model.classes, each, strict=True)
        ],
    }


def _score_ranks(
    model: Model, data: Data, predictions: Sequence[Prediction], console: Console
) -> dict[str, Any]:
    """Scores of ordered classes; examples that can't be read any more are not among them."""
    known = _readable(data, predictions)
    targets, classes = np.asarray(data.targets)[known], len(model.classes)
    found = predicted_classes([predictions[i] for i in known], model.classes)
    chances = np.array([predictions[i].probabilities for i in known])
    scores = score_ranks(targets, found, classes, groups=data.groups[known])
    constant, off = median_score(targets, classes), calibration_error(chances, targets)
    each = class_scores(targets, found, classes)
    score_lines(console, scores, constant, examples="examples")
    console.line("", f"probabilities are off by {100 * off:.1f} points on average (calibration error)")
    class_table(console, model.classes, each)
    return {
        "score": score_json(scores[0]),
        "scores": [score_json(s) for s in scores],
        "majority": constant,
        "calibration_error": off,
        "classes": [{"class": name, **asdict(one)} for name, one in zip(model.classes, each, strict=True)],
        "errors": [p.input for p in predictions if p.error is not None],
    }


def _readable(data: Data, predictions: Sequence[Prediction]) -> list[int]:
    """Which examples have a prediction; refused where none has."""
    known = [i for i, p in enumerate(predictions) if p.error is None]
    if not known:
        raise TopgraftError(
            f"None of the {number(len(data), 'example')} of {data.origin} can be read any more."
        )
    return known


def _score_numbers(
    model: Model, data: Data, predictions: Sequence[Prediction], console: Console
) -> dict[str, Any]:
    """Scores of predicted numbers; examples that can't be read any more are not among them."""
    if len(data.outputs) != len(model.outputs):
        raise TopgraftError(
            f"The model predicts {', '.join(model.outputs)}; the data have {', '.join(data.outputs)}. "
            "Name as many columns (--label)."
        )
    known = [i for i, p in enumerate(predictions) if p.error is None]
    targets = np.asarray(data.targets)[known]
    found = np.array([predictions[i].values for i in known])
    scores = score_numbers(targets, found, model.outputs, groups=data.groups[known])
    mean = np.broadcast_to(np.array(model.description["scale"]["mean"]), targets.shape)
    score_lines(console, scores, r2(targets, mean), examples="examples")
    return {
        "score": score_json(scores[0]),
        "scores": [score_json(s) for s in scores],
        "majority": r2(targets, mean),
        "errors": [p.input for p in predictions if p.error is not None],
    }


def _score_labels(
    model: Model, data: Data, predictions: Sequence[Prediction], console: Console
) -> dict[str, Any]:
    """Scores of several labels an example; examples that can't be read any more are not among them."""
    known = _readable(data, predictions)
    targets = np.asarray(data.targets)[known]
    chances = np.array([predictions[i].probabilities for i in known])
    scores, constant = score_labels(targets, chances, groups=data.groups[known]), frequency_score(targets)
    off = calibration_error(chances, targets)
    each = label_table(targets, chances > HALF)
    score_lines(console, scores, constant, examples="examples")
    console.line("", f"probabilities are off by {100 * off:.1f} points on average (calibration error)")
    class_table(console, model.classes, each, kind="label")
    return {
        "score": score_json(scores[0]),
        "scores": [score_json(s) for s in scores],
        "majority": constant,
        "calibration_error": off,
        "labels": [{"label": name, **asdict(one)} for name, one in zip(model.classes, each, strict=True)],
        "errors": [p.input for p in predictions if p.error is not None],
    }


def run_demo(out: Path, *, budget: float, seed: int, console: Console) -> dict[str, Any]:
    """The whole job on the packaged pictures; a finished demonstration there is made anew."""
    from topgraft.demo import pictures
    from topgraft.fit import fit

    status = RunFolder.check(out, overwrite=True)
    run = fit(
        pictures(),
        out,
        budget=budget,
        seed=seed,
        console=console,
        overwrite=status == "finished",
        told_by=in_force(),
    )
    console.text()
    console.text("That was the whole job. With your own pictures, one folder a class:")
    console.text("  topgraft fit photos/ -o photos.topgraft")
    console.text(f"New pictures with this model:  topgraft predict {out} PICTURE …")
    return run.result
