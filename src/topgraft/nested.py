"""Nested cross-validation: with little data, every example is scored by a model that had not seen it.

The data are dealt into parts. For each part everything is done anew on the others, every choice and every
training, and the model that comes out predicts that part. The model that is saved learns from all examples;
the score is of the procedure that made it (Varma and Simon 2006).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from topgraft.answers import answers, own_module
from topgraft.console import Console, counted
from topgraft.data.splits import assign_folds, strata
from topgraft.errors import TopgraftError
from topgraft.features.store import Store
from topgraft.files import read_json, write_json
from topgraft.number_scores import cross_validated_r2_interval, score_numbers
from topgraft.objective import Scale, scale_of
from topgraft.plan import Plan
from topgraft.predict import Predictor
from topgraft.run import RunFolder, alone
from topgraft.saved import open_model
from topgraft.score import Score, cross_validated_interval, score_predictions
from topgraft.stages import Prepared, load_for

if TYPE_CHECKING:
    from topgraft.data.types import Data

Array = np.ndarray[Any, np.dtype[Any]]
Fit = Callable[[Prepared, RunFolder, Plan, Console, float], object]
"""A whole fit of prepared data into a folder: data, folder, plan, console, and when its clock started."""


@dataclass(frozen=True)
class Nested:
    """What models said of examples that they had not seen.

    Parameters
    ----------
    part_of
        ``(n,)`` int64: the part that an example is in.
    said
        ``(n, classes)`` probabilities or ``(n, outputs)`` numbers.
    """

    part_of: Array
    said: Array

    @property
    def parts(self) -> int:
        """How many there are."""
        return int(self.part_of.max()) + 1

    def scores(self, data: Data, scale: Scale | None) -> tuple[Score, ...]:
        """The same as of untouched data; the interval of the first is that of a cross-validated score."""
        targets, groups = np.asarray(data.targets), data.groups
        if scale is not None:
            found = score_numbers(targets, self.said, data.outputs, groups=groups)
            spread = targets.std(0)
            losses = (((self.said - targets) / spread) ** 2).mean(1)
            squares = (((targets - targets.mean(0)) / spread) ** 2).mean(1)
            low, high = cross_validated_r2_interval(losses, squares, self.part_of, groups)
            return replace(found[0], low=low, high=high), *found[1:]
        classes = self.said.argmax(1)
        named = score_predictions(targets, classes, groups=groups)
        low, high = cross_validated_interval(classes == targets, self.part_of, groups)
        return replace(named[0], low=low, high=high), *named[1:]


def must_be_nestable(
    data: Data, parts: int, *, test: Any, backbones: int, plan: Any, refit_all: bool
) -> None:
    """Refuse what nested cross-validation can't go with.

    Raises
    ------
    TopgraftError
        With what to leave out.
    """
    if not parts:
        return
    reasons = {
        "--test: a test set of its own gives the score": test is not None,
        "--backbone more than once": backbones > 1,
        "--plan: its decisions were made on other examples": plan is not None,
        "--refit-all: the saved model learns from all examples anyway": refit_all,
        "several labels an example": bool(data.separator),
        "--task ordinal": data.is_ordered,
    }
    for reason, is_so in reasons.items():
        if is_so:
            raise TopgraftError(f"--nested {parts} does not go with {reason}. Leave one of them out.")


def parts_of(data: Data, parts: int, seed: int) -> tuple[Array, tuple[str, ...]]:
    """The part of each example, stratified, groups kept whole, and a sentence where there are fewer parts.

    Returns
    -------
    part_of, notes
        ``(n,)`` int64.

    Raises
    ------
    TopgraftError
        If a class has fewer than three groups: two to choose on, one to score.
    """
    targets, classes = strata(data)
    part_of, found, notes = assign_folds(targets, data.groups, folds=parts, seed=seed, classes=classes)
    if found < 3:
        raise TopgraftError(
            f"--nested {parts}: a class has only {found} examples or groups, and at least 3 are needed, 2 to "
            "choose on and 1 to score. Add examples, or leave the class out."
        )
    return part_of, tuple(note.replace("folds", "parts of --nested") for note in notes)


def without(ready: Prepared, part_of: Array, part: int) -> Prepared:
    """What is to be done on all parts but one, which is what the score of it comes from."""
    data, settings = ready.data, ready.settings
    development = data.subset(np.flatnonzero(part_of != part))
    untouched = data.subset(np.flatnonzero(part_of == part))
    targets, classes = strata(development)
    fold_of, _, notes = assign_folds(
        targets, development.groups, folds=settings.folds, seed=settings.seed, classes=classes
    )
    backbone = ready.backbone
    if backbone.is_untrained:  # it knows means and categories of what it is to learn from
        backbone = load_for(data, settings, learned_from=development)
    return replace(
        ready,
        backbone=backbone,
        development=development,
        untouched=untouched,
        fold_of=fold_of,
        notes=notes,
        scale=scale_of(development),
    )


def run_parts(
    ready: Prepared, run: RunFolder, store: Store, console: Console, fit: Fit, *, seconds: float
) -> Nested:
    """A whole fit for each part; what a killed run had finished is read back.

    Parameters
    ----------
    ready
        All examples.
    run
        The folder of the model that will learn from all of them.
    store
        Where activations are kept; the pass of one part serves all others.
    console
        Where a line for each part is written.
    fit
        See :data:`Fit`.
    seconds
        Budget of each part.
    """
    parts = ready.settings.nested
    part_of, notes = parts_of(ready.data, parts, ready.settings.seed)
    parts = int(part_of.max()) + 1
    for note in notes:
        console.line("Note", note)
    said: Array | None = None
    for part in range(parts):
        one = without(ready, part_of, part)
        file = run.work / f"part-{part}.json"
        if not file.is_file():
            began = time.monotonic()
            one = replace(one, settings=replace(one.settings, budget=seconds))
            found = _of_part(one, run, part, store, fit, progress=console)
            write_json(file, found | {"seconds": time.monotonic() - began})
            shutil.rmtree(run.work / f"part-{part}")
        found = read_json(file)
        answers = np.array(found["said"], dtype=np.float64)
        said = np.zeros((len(ready.data), answers.shape[1])) if said is None else said
        said[part_of == part] = answers
        console.line(
            "Nested",
            f"part {part + 1} of {parts}: learned from {len(one.development):,}, keep {found['keep']}, "
            f"freeze {found['freeze']}; {_right(one, answers)}",
        )
    assert said is not None
    return Nested(part_of, said)


def _of_part(
    one: Prepared, run: RunFolder, part: int, store: Store, fit: Fit, *, progress: Console
) -> dict[str, Any]:
    """The fit without a part, and what its model says of that part."""
    quiet = Console(None, progress.progress_to)
    place = run.work / f"part-{part}"
    command = {**run.document["command"], "part": part}
    if RunFolder.check(place, overwrite=True) != "finished":
        inner = RunFolder.claim(place, command, overwrite=True)
        with alone(inner.path):
            fit(one, inner, Plan.of_run(inner.path / "plan.json", None), quiet, time.monotonic())
    result = read_json(place / "result.json")
    predictor = Predictor(open_model(place, module=own_module(one)), store=store)
    said = [list(p.values or p.probabilities) for p in answers(predictor, one.untouched, quiet)]
    return {"keep": result["keep"], "freeze": result["freeze"], "said": said}


def _right(one: Prepared, said: Array) -> str:
    targets = np.asarray(one.untouched.targets)
    if one.scale is not None:
        return f"{counted(len(targets), 'example')} predicted"
    return f"{int((said.argmax(1) == targets).sum())} of {counted(len(targets), 'example')} right"
