"""The main job: probe, advise, train, evaluate on untouched data, save."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import topgraft.search as search
from topgraft.advise import DepthAdvice
from topgraft.card import model_card
from topgraft.choices import named, resolve_freeze, resolve_keep
from topgraft.console import Console, duration, percent, size
from topgraft.data import read
from topgraft.data.types import Data
from topgraft.errors import TopgraftError
from topgraft.features.store import Store
from topgraft.files import write_json, write_whole
from topgraft.graft import Graft
from topgraft.plan import Plan
from topgraft.predict import Predictor, predicted_classes, rows_of
from topgraft.run import RunFolder
from topgraft.saved import describe, open_model, save
from topgraft.score import majority_score, score_predictions
from topgraft.settings import Settings
from topgraft.show import backbone_lines, data_lines, evidence_table, score_json, score_lines
from topgraft.stages import Prepared, advise, load_for, measure, prepare, probe_all
from topgraft.train import Epoch, History, seconds_an_example

DEFAULT_SUFFIX = ".topgraft"


@dataclass(frozen=True)
class Run:
    """What a fit left behind.

    Parameters
    ----------
    folder
        The saved graft with evidence, plan and scores.
    result
        The fixed form of ``fit --json``.
    """

    folder: Path
    result: dict[str, Any]

    @property
    def keep(self) -> int:
        """Blocks kept."""
        return int(self.result["keep"])

    @property
    def freeze(self) -> int:
        """Blocks frozen."""
        return int(self.result["freeze"])

    @property
    def score(self) -> float:
        """Score on untouched data."""
        return float(self.result["score"]["value"])


def default_folder(source: Any) -> Path:
    """Where a run of this data is saved when nobody says: beside where one stands, named after the data.

    Examples
    --------
    >>> default_folder("some/reviews.csv").name
    'reviews.topgraft'
    """
    name = Path(source).resolve().name if isinstance(source, (str, Path)) else "run"
    stem = name.split(".")[0] or "run"
    return Path(f"{stem}{DEFAULT_SUFFIX}")


def fit(
    source: Any,
    out: str | Path | None = None,
    *,
    test: Any = None,
    allow_overlap: bool = False,
    text: str | None = None,
    label: str | None = None,
    path: str | None = None,
    group: str | None = None,
    targets: Any = None,
    max_unreadable: float = 0.05,
    plan: str | Path | None = None,
    overwrite: bool = False,
    store: Store | None = None,
    console: Console | None = None,
    **options: Any,
) -> Run:
    """From labelled examples to a saved model, its depth chosen on evidence.

    Parameters
    ----------
    source
        As for :func:`topgraft.read`, or what that gave.
    out
        A folder that does not exist yet; named after the data when not given. An unfinished run of the same
        command and data there goes on.
    test, allow_overlap
        A separate test set, see :func:`topgraft.data.read_test`.
    text, label, path, group, targets, max_unreadable
        As for :func:`topgraft.read`.
    plan
        ``plan.json`` of an earlier run, whose decisions are taken; bounded by its epochs instead of by time.
    overwrite
        Whether a finished run at ``out`` is replaced.
    store
        Where activations are kept; the user's cache by default.
    console
        Where results and progress are written; nowhere by default.
    **options
        See :class:`topgraft.settings.Settings`.

    Returns
    -------
    Run
        With the saved folder and the result as JSON.

    Raises
    ------
    TopgraftError
        For anything that the user can mend; nothing half-written is left behind.
    """
    began = time.monotonic()
    console = console or Console()
    settings = Settings.of(options)
    folder = Path(out) if out is not None else default_folder(source)
    RunFolder.check(folder, overwrite=overwrite)
    given = Plan.read(Path(plan)) if plan is not None else None

    if isinstance(source, Data):
        data = source
    else:
        data = read(
            source,
            text=text,
            label=label,
            path=path,
            group=group,
            targets=targets,
            max_unreadable=max_unreadable,
        )
    backbone = load_for(data, settings)
    keep = resolve_keep(settings.keep, backbone.chain, backbone.source)
    if keep is not None or settings.freeze != "auto":
        resolve_freeze(settings.freeze, backbone.chain, backbone.source, keep or len(backbone.chain))
    ready = prepare(data, backbone, settings, test=test, allow_overlap=allow_overlap)
    backbone_lines(console, backbone)
    data_lines(console, data, untouched=f"{len(ready.untouched):,} kept untouched for the final score")
    if ready.notes:
        console.line("Folds", *ready.notes)
    command = {
        "settings": settings.to_json(),
        "data": data.fingerprint,
        "development": ready.development.fingerprint,
        "untouched": ready.untouched.fingerprint,
        "weights": backbone.report.digest,
        "backbone": backbone.source,
        "plan": given,
    }
    run = RunFolder.claim(folder, command, overwrite=overwrite)
    decided = Plan(run.path / "plan.json", given)
    if given is None and decided.path is not None and decided.path.exists():
        decided.decisions = Plan.read(decided.path)
    return _Fit(ready, run, decided, store or Store(), console, began).go()


class _Fit:
    """One fit under way: the stages in their order, each decision written before it is used."""

    def __init__(
        self, ready: Prepared, run: RunFolder, plan: Plan, store: Store, console: Console, began: float
    ) -> None:
        self.ready, self.run, self.plan, self.store, self.console = ready, run, plan, store, console
        self.began = began
        self.settings = ready.settings
        self.resumed: list[dict[str, Any]] = []
        self.seconds_of_pass = 0.0
        self.skipped: list[str] = []

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.settings.budget - (time.monotonic() - self.began)

    def go(self) -> Run:
        ready, plan, console = self.ready, self.plan, self.console
        chain, source = ready.backbone.chain, ready.backbone.source
        plan.decide("threads", lambda: (torch.get_num_threads(), "as many as torch takes here"))
        plan.decide("precision", lambda: (self.settings.precision, "as asked for (--precision)"))
        plan.decide("batch_size", lambda: (self.settings.batch_size, "as asked for (--batch-size)"))
        limit = "as the plan says" if plan.is_repeat else duration(self.settings.budget)
        console.line("Budget", f"{limit} for the whole (--budget)")
        features, told = measure(ready.backbone, ready.development, self.store, self.settings, console)
        self._note_reuse("pass", told["items_reused"], told["items_reused"] * self._rate_of_pass(told))
        evidence, was_there = probe_all(
            features, ready.development, ready.fold_of, path=self.run.path / "evidence.json"
        )
        if was_there:
            self._note_reuse("probe", len(evidence.cuts), 0.0)
        advice = advise(evidence, chain, seed=self.settings.seed)
        evidence_table(console, chain, evidence, advice)
        for note in evidence.notes:
            console.line("Note", note)
        asked = resolve_keep(self.settings.keep, chain, source)
        keep = plan.decide("keep", lambda: (asked, "as asked") if asked else (advice.keep, advice.reason))
        console.line("Advice", *self._said_of_depth(advice, asked))
        material = search.Material(
            backbone=ready.backbone,
            data=ready.development,
            store=self.store,
            settings=self.settings,
            features=features,
            targets=torch.as_tensor(ready.development.targets),
            rows=np.flatnonzero(ready.fold_of != 0).tolist(),
            validation=np.flatnonzero(ready.fold_of == 0).tolist(),
        )
        graft, history, freeze = self._settle(material, keep, evidence)
        return self._finish(material, graft, history, keep, freeze, evidence, advice)

    def _rate_of_pass(self, told: dict[str, Any]) -> float:
        """Seconds an example of the pass, measured now or by the process that stored the rest."""
        measured = float(told["seconds_an_example"])
        rate = self.plan.decide(
            "seconds_an_example", lambda: (measured or self._time_one_batch(), "measured on this machine")
        )
        self.seconds_of_pass = rate * len(self.ready.development)
        return float(rate)

    def _time_one_batch(self) -> float:
        from topgraft.features.engine import Engine

        data, count = self.ready.development, min(8, len(self.ready.development))
        engine = Engine(self.ready.backbone.chain[:], precision=self.settings.precision)
        began = time.monotonic()
        inputs = self.ready.backbone.preprocess.batch([data.decode(i) for i in range(count)])
        engine.run(inputs)
        return (time.monotonic() - began) / count

    def _note_reuse(self, stage: str, items: int, seconds: float) -> None:
        if items:
            self.resumed.append({"stage": stage, "items_reused": items, "seconds_saved": round(seconds, 3)})

    def _said_of_depth(self, advice: DepthAdvice, asked: int | None) -> list[str]:
        chain = self.ready.backbone.chain
        said = [
            f"keep {advice.keep} of {len(chain)} (to {chain.blocks[advice.keep - 1].name}): {advice.reason}"
        ]
        if asked is not None:
            said.append(f"You decided: keep {named(chain, asked)}.")
        elif self.plan.is_repeat:
            said.append(f"The plan says: keep {named(chain, self.plan.decisions['keep']['value'])}.")
        return said

    def _settle(
        self, material: search.Material, keep: int, evidence: Any
    ) -> tuple[Graft, History | None, int]:
        """Decide how many blocks to freeze, and train if any block or hidden layer is to be trained."""
        chain, console, plan = self.ready.backbone.chain, self.console, self.plan
        asked = resolve_freeze(self.settings.freeze, chain, self.ready.backbone.source, keep)
        candidate = asked if asked is not None else search.right_most_third(keep)
        head_trains = bool(self.settings.hidden or self.settings.dropout)
        if candidate == keep and not head_trains:
            plan.decide("freeze", lambda: (keep, "as asked: only the head is new"))
            console.line(
                "Freeze", f"{named(chain, keep)}: all that is kept; the head is the probe's solution."
            )
            return self._frozen(material, keep), None, keep
        source, epochs = self._forecast(material, keep, candidate, forced=asked is not None or head_trains)
        if epochs == 0:
            freeze = plan.decide("freeze", lambda: (keep, self.skipped[-1] if self.skipped else "no time"))
            console.line("Freeze", f"{named(chain, keep)}: {plan.reason('freeze')}")
            return self._frozen(material, keep), None, freeze
        stop_after = plan.decisions.get("epochs_done", {}).get("value") if plan.is_repeat else None
        deadline = None if plan.is_repeat else time.monotonic() + max(1.0, self.left * 0.6)
        with console.progress("Training", epochs, "epochs") as bar:
            graft, trial = search.run_trial(
                material,
                keep,
                candidate,
                source,
                epochs=epochs,
                stop_after=stop_after,
                checkpoint=self.run.work / "trial.safetensors",
                deadline=deadline,
                from_start=asked is None,
                advance=lambda e: bar(1 if e.number else 0),
            )
        history = trial.history
        plan.decide("epochs_done", lambda: (len(history.epochs) - 1, history.stopped))
        spent = sum(e.seconds for e in history.epochs[: history.resumed + 1])
        self._note_reuse("training", history.resumed, spent)
        self._tell_history(history, "Training")
        better, why = search.is_better(trial, evidence, material.validation)
        freeze = plan.decide("freeze", lambda: self._freeze_of(asked, candidate, keep, better, why))
        console.line("Freeze", f"{named(chain, freeze)} of {named(chain, keep)}: {plan.reason('freeze')}")
        if freeze == keep and not head_trains:
            return self._frozen(material, keep), history, keep
        if not self.settings.refit or history.best == 0:
            return (
                (graft if history.best or not self.settings.refit else self._frozen(material, keep)),
                (history),
                freeze,
            )
        with console.progress("Refit", history.best, "epochs") as bar:
            graft, again = search.refit(
                material,
                trial,
                source,
                epochs=epochs,
                checkpoint=self.run.work / "refit.safetensors",
                advance=lambda e: bar(1 if e.number else 0),
            )
        self._note_reuse("refit", again.resumed, sum(e.seconds for e in again.epochs[: again.resumed + 1]))
        console.line(
            "Refit",
            f"on training and validation part together, {len(material.everything):,} examples, "
            f"{history.best * history.steps_an_epoch} steps",
        )
        return graft, history, freeze

    @staticmethod
    def _freeze_of(asked: int | None, candidate: int, keep: int, better: bool, why: str) -> tuple[int, str]:
        if asked is not None:
            return asked, f"as asked; {why}"
        return (candidate, why) if better else (keep, f"{why}, so nothing but the head is trained")

    def _frozen(self, material: search.Material, keep: int) -> Graft:
        rows = material.everything if self.settings.refit else list(material.rows)
        return search.new_graft(
            material, keep, keep, rows, class_weights=search.class_weights(material, rows)
        )

    def _forecast(
        self, material: search.Material, keep: int, freeze: int, *, forced: bool
    ) -> tuple[Any, int]:
        """Say what training would cost, decide how many epochs it may take, and make what it reads."""
        chain, console, plan = self.ready.backbone.chain, self.console, self.plan
        work = np.cumsum([0.0, *chain.share_of_work()])
        storing = self.seconds_of_pass * float(work[freeze]) if 0 < freeze < keep else 0.0
        if storing > 0.5 * self.left and not forced and not plan.is_repeat and "epochs" not in plan.decisions:
            self.skipped.append(f"{duration(self.left)} are left, too few to store what trainings read")
            plan.decide("epochs", lambda: (0, self.skipped[-1]))
            return None, 0
        label = "Storing"
        if 0 < freeze < keep and not search.augments(material, freeze):
            with console.progress(label, len(material.targets), f"at cut {freeze}") as advance:
                source, reused = search.source_at(material, keep, freeze, advance=advance)
            self._note_reuse("states", reused, reused * storing / len(material.targets))
        else:
            source, _ = search.source_at(material, keep, freeze)
        trial_graft = search.new_graft(material, keep, freeze, material.rows)
        one = seconds_an_example(
            trial_graft,
            source,
            material.targets,
            material.rows,
            search.recipe_for(material, keep, 1, material.rows),
        )

        def choose() -> tuple[int, str]:
            if self.settings.epochs is not None:
                return self.settings.epochs, "as asked (--epochs)"
            possible = search.affordable_epochs(
                self.left * 0.85, one, len(material.rows), refit=self.settings.refit
            )
            if possible < search.LEAST_EPOCHS and not forced:
                return (
                    0,
                    f"training needs {duration(one * len(material.rows) * 2.4)} an epoch; too little time is left",
                )
            return max(1, possible), f"{one * 1000:.1f} ms an example and step, {duration(self.left)} left"

        epochs = plan.decide("epochs", choose)
        if epochs == 0:
            self.skipped.append(plan.reason("epochs"))
            return None, 0
        total = one * len(material.rows) * epochs * (2.25 if self.settings.refit else 1.0)
        trained, _ = search.trained_parameters(trial_graft)
        share = float(work[keep] - work[freeze])
        full = total * float(work[keep]) / share if share > 0 and freeze else total
        stored = f" and {size(search.bytes_of_states(material, freeze))} stored" if 0 < freeze < keep else ""
        changed = "; pictures are changed at random (--augment)" if search.augments(material, freeze) else ""
        console.line(
            "Cost",
            f"training blocks {freeze + 1} to {keep} and the head, {trained:,} parameters, up to {epochs} "
            f"epochs: about {duration(total)}{stored}{changed}"
            if freeze < keep
            else f"training the head, {trained:,} parameters, up to {epochs} epochs: about {duration(total)}",
            *([f"full fine-tuning would take about {duration(full)}"] if 0 < freeze < keep else []),
        )
        return source, epochs

    def _tell_history(self, history: History, label: str) -> None:
        first, best = history.epochs[0], history.epochs[history.best]
        self.console.line(
            label,
            f"{len(history.epochs) - 1} epochs in {duration(sum(e.seconds for e in history.epochs))}, best after "
            f"{history.best}: {percent(first.validation_score, 1)} before, "
            f"{percent(best.validation_score, 1)} after, on the validation part ({history.stopped})",
        )

    def _finish(
        self,
        material: search.Material,
        graft: Graft,
        history: History | None,
        keep: int,
        freeze: int,
        evidence: Any,
        advice: DepthAdvice,
    ) -> Run:
        ready, console, settings = self.ready, self.console, self.settings
        chain = ready.backbone.chain
        trained, names = search.trained_parameters(graft)
        blocks = [b.name for b in chain.blocks[graft.freeze : keep]]
        console.line(
            "Trained",
            f"{trained:,} parameters: "
            + (f"blocks {', '.join(blocks)}, and the head" if blocks else "the head"),
        )
        description = describe(
            graft,
            ready.backbone,
            classes=ready.data.classes,
            columns=ready.data.columns,
            precision=settings.precision,
            seed=settings.seed,
        )
        save(self.run.path, graft, ready.backbone.preprocess, description)
        scores, majority = self._score()
        if settings.refit_all:
            self._refit_on_all(material, graft, history, description)
        score_lines(console, scores, majority)
        seconds = time.monotonic() - self.began
        result = {
            "keep": keep,
            "freeze": freeze,
            "blocks": {
                "all": [b.name for b in chain],
                "kept": [b.name for b in chain.blocks[:keep]],
                "frozen": [b.name for b in chain.blocks[:freeze]],
                "trained": blocks,
            },
            "trained_parameters": trained,
            "score": score_json(scores[0]),
            "scores": [score_json(s) for s in scores],
            "majority": majority,
            "seconds": seconds,
            "model": str(self.run.path),
            "resumed": self.resumed,
            "backbone": ready.backbone.source,
            "advice": advice.to_json(),
            "reasons": {n: d["reason"] for n, d in self.plan.decisions.items()},
            "left_out": self.skipped,
            "history": None if history is None else history.to_json()["epochs"],
        }
        result["trained_names"] = names
        write_json(self.run.path / "labels.json", list(ready.data.classes))
        write_json(self.run.path / "result.json", _without_nan(result))
        card = model_card(result, ready.backbone, ready.data, command_seed=settings.seed)
        write_whole(self.run.path / "README.md", card.encode())
        self.run.finish()
        total = sum(f.stat().st_size for f in self.run.path.rglob("*") if f.is_file())
        bought = f"{duration(seconds)} of {duration(settings.budget)} spent"
        left = f"; left out: {'; '.join(self.skipped)}" if self.skipped else ""
        console.line("Time", bought + left)
        console.line(
            "Saved", f"{self.run.path} ({size(total)}); new ones: topgraft predict {self.run.path} …"
        )
        return Run(self.run.path, _without_nan(result))

    def _score(self) -> tuple[Any, float]:
        """The score on untouched data, by the path that ``predict`` takes, from what was saved."""
        ready = self.ready
        model = open_model(self.run.path, module=_own_module(ready))
        with self.console.progress("Untouched", len(ready.untouched)) as bar:
            predictions = []
            for prediction in Predictor(model).predict(rows_of(ready.untouched)):
                predictions.append(prediction)
                bar(1)
        found = predicted_classes(predictions, model.classes)
        targets = ready.untouched.targets
        assert targets is not None
        if (found < 0).any():
            lost = next(p for p in predictions if p.error is not None)
            raise TopgraftError(f"{lost.input} can't be read any more: {lost.error}. Did the data change?")
        return score_predictions(targets, found, groups=ready.untouched.groups), majority_score(targets)

    def _refit_on_all(
        self, material: search.Material, graft: Graft, history: History | None, description: dict[str, Any]
    ) -> None:
        """Fit on everything, the untouched part included, with the same choices; the score stays the earlier one's."""
        ready, settings = self.ready, self.settings
        whole = _together(ready.development, ready.untouched)
        features, _ = measure(ready.backbone, whole, self.store, settings, Console())
        everything = replace(
            material,
            data=whole,
            features=features,
            targets=torch.as_tensor(whole.targets),
            rows=list(range(len(whole))),
            validation=(),
        )
        if history is None or graft.freeze == graft.keep:
            last = self._frozen(everything, graft.keep)
        else:
            trial = search.Trial(graft.keep, graft.freeze, history, 0.0)
            source, _ = search.source_at(everything, graft.keep, graft.freeze)
            epochs = int(self.plan.decisions["epochs"]["value"])
            last, _ = search.refit(everything, trial, source, epochs=epochs, checkpoint=None, advance=None)
        save(self.run.path, last, ready.backbone.preprocess, description)
        self.console.line(
            "Refit",
            f"on all {len(whole):,} examples, the untouched ones included; the score below is the earlier fit's",
        )


def _together(a: Data, b: Data) -> Data:
    inputs = (
        np.concatenate([a.inputs, b.inputs]) if isinstance(a.inputs, np.ndarray) else [*a.inputs, *b.inputs]
    )
    assert a.targets is not None
    assert b.targets is not None
    return replace(
        a,
        names=(*a.names, *b.names),
        inputs=inputs,
        targets=np.concatenate([a.targets, b.targets]),
        groups=np.arange(len(a) + len(b)),
        digests=(*a.digests, *b.digests),
        duplicates=(),
        conflicts=(),
        thumbnails=None,
    )


def _own_module(ready: Prepared) -> Any:
    """For one's own network the module itself, since a saved graft never runs code to make it."""
    if ready.backbone.recipe.get("kind") != "own":
        return None
    import copy

    return copy.deepcopy(ready.backbone.chain.network)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    if isinstance(value, Epoch):
        return _without_nan(value.__dict__)
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124 (NaN is not itself)
