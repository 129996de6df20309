"""The main job: probe, advise, train, evaluate on untouched data, save."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from topgraft.backbones.loading import reads_rows
from topgraft.backbones.types import PRETRAINED, Backbone
from topgraft.choices import AUTO, resolve_freeze, resolve_keep
from topgraft.configuration import Told
from topgraft.console import Console
from topgraft.data import read
from topgraft.data.types import Data, Task
from topgraft.features.engine import version_of
from topgraft.features.store import Store
from topgraft.files import write_json
from topgraft.job import Job
from topgraft.kept_evidence import keep_evidence
from topgraft.nested import Fit, must_be_nestable, run_parts
from topgraft.plan import Plan
from topgraft.rivals import (
    MOST_SPENT,
    advise_backbone,
    measure_rivals,
    must_be_open,
    must_differ,
    rivals_json,
    rivals_table,
)
from topgraft.run import RunFolder, alone
from topgraft.settings import REPEATED, Settings, agree
from topgraft.show import backbone_lines, data_lines
from topgraft.stages import AS_ASKED, Prepared, development_of, load_for, prepare
from topgraft.taps import resolve_taps
from topgraft.tracking import Asked, tracking
from topgraft.workers import working_on

DEFAULT_SUFFIX = ".topgraft"
RIVALS = "backbones.json"
Given = str | nn.Module | Backbone | None
"""What names a backbone: as for :func:`topgraft.load`, or what that gave."""


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

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        from topgraft.notebook import run

        return run(self)

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
    >>> default_folder("hf/org/name:test").name, default_folder("s3://bucket/a-{000..003}.tar").name
    ('name.topgraft', 'a.topgraft')
    """
    name = Path(source).resolve().name if isinstance(source, (str, Path)) else "run"
    stem = re.split(r"[.:@?{]", name)[0].rstrip("-_") or "run"
    return Path(f"{stem}{DEFAULT_SUFFIX}")


def fit(
    source: Any,
    out: str | Path | None = None,
    *,
    test: Any = None,
    backbone: Given | Sequence[Given] = None,
    allow_overlap: bool = False,
    text: str | None = None,
    label: str | None = None,
    path: str | None = None,
    group: str | None = None,
    targets: Any = None,
    max_unreadable: float = 0.05,
    task: Task | None = None,
    columns: str | Sequence[str] | None = None,
    categories: str | Sequence[str] | None = None,
    separator: str | None = None,
    order: str | Sequence[str] | None = None,
    plan: str | Path | None = None,
    overwrite: bool = False,
    store: Store | None = None,
    console: Console | None = None,
    on: str | None = None,
    told_by: Told | None = None,
    track: Sequence[str] = (),
    track_to: str | Path | None = None,
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
    backbone
        As for :func:`topgraft.load`, or what that gave; the packaged one for the data by default. Of several,
        all depths are measured on the same folds, and one is chosen: see :mod:`topgraft.rivals`.
    test, allow_overlap
        A separate test set, see :func:`topgraft.data.read_test`.
    text, label, path, group, targets, max_unreadable, task, columns, categories, separator, order
        As for :func:`topgraft.read`.
    plan
        ``plan.json`` of an earlier run, whose decisions are taken; bounded by its epochs instead of by time.
    overwrite
        Whether a finished run at ``out`` is replaced.
    store
        Where activations are kept; the user's cache by default.
    console
        Where results and progress are written; nowhere by default.
    on
        Where the work is done, see :func:`topgraft.workers.working_on`; here by default.
    told_by
        What of all this a configuration file said, for the records; no number depends on it.
    track, track_to
        Who is told losses, rates and scores, too: ``tensorboard``, ``wandb``, ``mlflow``; and the folder or
        address that they write to (``runs``). See :mod:`topgraft.tracking`.
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
    folder = Path(out) if out is not None else default_folder(source)
    RunFolder.check(folder, overwrite=overwrite)
    trackers = Asked.of([track] if isinstance(track, str) else list(track), track_to)
    start = begin(
        source,
        test=test,
        backbone=backbone,
        allow_overlap=allow_overlap,
        text=text,
        label=label,
        path=path,
        group=group,
        targets=targets,
        max_unreadable=max_unreadable,
        task=task,
        columns=columns,
        categories=categories,
        separator=separator,
        order=order,
        plan=plan,
        console=console,
        **options,
    )
    ready, given = start.ready, start.given
    settings = ready.settings
    command = {
        "settings": settings.to_json(),
        "data": ready.data.fingerprint,
        "development": ready.development.fingerprint,
        "untouched": ready.untouched.fingerprint,
        "weights": [b.report.digest for b in start.rivals] or ready.backbone.report.digest,
        "backbone": [b.source for b in start.rivals] or ready.backbone.source,
        "plan": given,
    }
    with working_on(on) as ran:
        run = RunFolder.claim(folder, command, overwrite=overwrite)
        with alone(run.path):
            decided = Plan.of_run(run.path / "plan.json", given)
            store = store or Store()
            if start.rivals:
                ready = settle_backbone(start, run, decided, store, console, began)
                settings = ready.settings
            decided.tell({name: settings.to_json()[name] for name in REPEATED}, by=told_by)
            parameters = {
                **settings.to_json(),
                "backbone": ready.backbone.source,
                "examples": len(ready.data),
            }
            nested = None
            if settings.nested:
                each = settings.budget / (settings.nested + 1)
                nested = run_parts(ready, run, store, console, _whole(store), seconds=each)
            with tracking(trackers, run.work, parameters, console) as told:
                job = Job(ready, run, decided, store, console, began, told_by=told_by, tracking=told)
                job.nested = nested
                result = job.go()
        result["on"] = ran()
    return Run(run.path, result)


def _whole(store: Store) -> Fit:
    def whole(ready: Prepared, run: RunFolder, plan: Plan, console: Console, began: float) -> None:
        Job(ready, run, plan, store, console, began).go()

    return whole


@dataclass(frozen=True)
class Beginning:
    """A fit before its first measurement; nothing is written yet.

    Parameters
    ----------
    given
        Decisions of a plan, if one was given.
    ready
        Data and backbone; of several backbones the first.
    rivals
        All of them, where several were given.
    """

    given: dict[str, Any] | None
    ready: Prepared
    rivals: tuple[Backbone, ...] = ()


def begin(
    source: Any,
    *,
    test: Any = None,
    backbone: Given | Sequence[Given] = None,
    allow_overlap: bool = False,
    text: str | None = None,
    label: str | None = None,
    path: str | None = None,
    group: str | None = None,
    targets: Any = None,
    max_unreadable: float = 0.05,
    task: Task | None = None,
    columns: str | Sequence[str] | None = None,
    categories: str | Sequence[str] | None = None,
    separator: str | None = None,
    order: str | Sequence[str] | None = None,
    plan: str | Path | None = None,
    console: Console,
    **options: Any,
) -> Beginning:
    """Check what was told, read the data, load the backbone, and say what they are; see :func:`fit`."""
    several: list[Any] = list(backbone) if isinstance(backbone, (list, tuple)) else [backbone]
    first = several[0] if len(several) == 1 else None
    settings = Settings.of({**options, "backbone": first if isinstance(first, str) else None})
    given = Plan.read(Path(plan)) if plan is not None else None
    if len(several) > 1:
        must_be_open(settings, given)
    settings = settings.repeating(given or {})

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
            task=task,
            modality="row" if any(map(reads_rows, several)) else None,
            columns=columns,
            categories=categories,
            separator=separator,
            order=order,
            watch=console.reading,
        )
    must_be_nestable(
        data, settings.nested, test=test, backbones=len(several), plan=plan, refit_all=settings.refit_all
    )
    known = development_of(data, settings, test)
    networks = [_network(data, settings, one, known) for one in several]
    for network in networks:
        _check_depth(settings, given or {}, network)
    must_differ(networks)
    ready = prepare(
        data, networks[0], settings, test=test, allow_overlap=allow_overlap, watch=console.reading
    )
    if len(networks) > 1:
        ready = replace(ready, settings=settings, asked=AS_ASKED)
    for network in networks:
        backbone_lines(console, network)
    kept = f"{len(ready.untouched):,} kept untouched for the final score"
    if settings.nested:
        kept = f"all are learned from; the score is by nested cross-validation in {settings.nested} parts"
    data_lines(console, data, untouched=kept)
    if ready.notes:
        console.line("Folds", *ready.notes)
    if ready.in_windows:
        console.line("Windows", ready.in_windows)
    return Beginning(given, ready, tuple(networks) if len(networks) > 1 else ())


def _network(data: Data, settings: Settings, given: Given, known: Data) -> Backbone:
    if isinstance(given, str):
        return load_for(data, replace(settings, backbone=given), learned_from=known)
    return load_for(data, settings, given=given, learned_from=known)


def settle_backbone(
    start: Beginning, run: RunFolder, plan: Plan, store: Store, console: Console, began: float
) -> Prepared:
    """Measure several backbones and choose one; what was chosen is read back on going on."""
    ready, prefer, seed = start.ready, start.ready.settings.prefer, start.ready.settings.seed
    if "backbone" not in plan.decisions:
        deadline = began + MOST_SPENT * ready.settings.budget
        rivals = measure_rivals(ready, start.rivals, store, console, deadline=deadline)
        advice = advise_backbone(rivals, prefer=prefer, seed=seed)
        rivals_table(console, rivals, advice)
        taken = next(r for r in rivals if r.backbone.source == advice.backbone)
        if taken.features is not None and taken.evidence is not None:
            place = run.path / "evidence.json"
            keep_evidence(place, taken.evidence, taken.features, ready.development, ready.fold_of)
        write_json(run.path / RIVALS, {"backbones": rivals_json(rivals), "advice": advice.to_json()})
        asked = ready.settings.resize
        how = PRETRAINED if asked == "auto" else asked
        plan.decide("resize", lambda: (how, "the backbones were compared so"))
        plan.decide(
            "keep", lambda: (advice.keep, advice.reason)
        )  # before the name, which says that it is done
        plan.decide("backbone", lambda: (advice.backbone, advice.reason))
    chosen = next(b for b in start.rivals if b.source == plan.decisions["backbone"]["value"])
    console.line("Backbone", f"{chosen.source}: {plan.reason('backbone')}")
    return replace(ready, backbone=chosen, settings=replace(ready.settings, backbone=chosen.source))


def _check_depth(settings: Settings, given: dict[str, Any], backbone: Backbone) -> None:
    """Refuse what is out of range, not installed, or said otherwise by the plan."""
    chain, source = backbone.chain, backbone.source
    for name, asked in (("engine", settings.engine), ("precision", settings.precision)):
        if name in given:
            agree(name, None if asked == "auto" else asked, given[name]["value"])
    version_of(settings.engine_or_torch)  # it is there
    keep, freeze = resolve_keep(settings.keep, chain, source), None
    if "keep" in given:
        planned = resolve_keep(given["keep"]["value"], chain, source)
        agree("keep", keep, planned)
        keep = planned
    if keep is not None or settings.freeze != AUTO:
        freeze = resolve_freeze(settings.freeze, chain, source, keep or len(chain))
    if "freeze" in given and keep is not None:
        agree("freeze", freeze, resolve_freeze(given["freeze"]["value"], chain, source, keep))
    if "resize" in given:
        agree("resize", None if settings.resize == "auto" else settings.resize, given["resize"]["value"])
    taps = resolve_taps(settings.taps, chain, source, keep or len(chain))
    if taps is not None and "taps" in given:
        agree("taps", list(taps), given["taps"]["value"])
    for name in ("soup", "epochs", "training_workers"):
        if name in given:
            agree(name, getattr(settings, name), given[name]["value"])
