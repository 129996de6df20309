"""Gradient health: healthy trainings get no verdict, sick ones the right one, and remedies cure.

    python benchmarks/verdicts.py                every case; writes docs/health.md
    python benchmarks/verdicts.py --only MiniLM  those whose name holds a word, without a page

The exit status is 1 if a verdict is not as it must be.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import ROOT, machine_lines, markdown_table
from verdicts_cases import HEALTHY_ONES, SICK_ONES, Case

from topgraft.health import HEALTHY, Diagnosis

PAGE = ROOT / "docs" / "health.md"
PACKAGES = ("topgraft", "torch", "timm", "transformers")
EPOCHS, REMEDIES = 6, 3
"""Of each training; remedies that are applied one after the other at most."""


@dataclass(frozen=True)
class Trained:
    """One training.

    Parameters
    ----------
    told
        Its settings, those of remedies included.
    found
        The verdict on each block that trained, and on the head.
    start, end
        Loss on the validation part before training and after the last epoch, in nats.
    learned
        Loss on the training part in the first epoch less that in the last.
    diverged
        What was seen when it ran away; empty where it did not.
    """

    told: Mapping[str, Any]
    found: Sequence[Diagnosis]
    start: float
    end: float
    learned: float
    diverged: str

    @property
    def is_healthy(self) -> bool:
        """Whether no block is sick and the loss did not run away."""
        return not self.diverged and all(d.verdict == HEALTHY for d in self.found)

    @property
    def verdicts(self) -> dict[int, str]:
        """Of the blocks that are not healthy."""
        return {d.block: d.verdict for d in self.found if d.verdict != HEALTHY}


def run(case: Case, folder: Path, told: Mapping[str, Any]) -> Trained:
    """Train as a fit does: from stored activations, the head at the probe's solution."""
    import topgraft as tg
    from topgraft import search
    from topgraft.settings import Settings
    from topgraft.show_health import checked

    backbone, data = case.make(folder)
    options = dict(told)
    keep = len(backbone.chain)
    freeze = int(options.pop("freeze", round(case.freeze * keep)))
    fold_of, _, _ = tg.assign_folds(np.asarray(data.targets), data.groups, folds=4)
    store = tg.Store(folder / "store")
    features, _ = tg.one_pass(backbone, data, store)
    material = search.Material(
        backbone=backbone,
        data=data,
        store=store,
        settings=Settings.of({"augment": "none", "engine": "torch", "precision": "fp32", **options}),
        features=features,
        targets=torch.as_tensor(np.asarray(data.targets)),
        rows=np.flatnonzero(fold_of != 0).tolist(),
        validation=np.flatnonzero(fold_of == 0).tolist(),
    )
    source, _ = search.source_at(material, keep, freeze)
    _, trial = search.run_trial(
        material,
        keep,
        freeze,
        source,
        epochs=EPOCHS,
        stop_after=None,
        checkpoint=None,
        deadline=None,
        from_start=True,
        advance=None,
    )
    history = trial.history
    recipe = search.recipe_for(material, keep, EPOCHS, material.rows)
    found = checked(backbone.chain, keep, history, recipe, normalised=material.settings.normalise)
    losses = [epoch.loss for epoch in history.epochs[1:]]
    first, last = history.epochs[0].validation_loss, history.epochs[-1].validation_loss
    return Trained(told, found, first, last, losses[0] - losses[-1] if losses else 0.0, history.diverged)


def cured(case: Case, folder: Path) -> list[Trained]:
    """The training as it is, and again after each remedy that its verdicts name, until it is healthy."""
    every = [run(case, folder, case.settings)]
    while not every[-1].is_healthy and len(every) <= REMEDIES:
        options = remedy_of(every[-1].found)
        if not options:
            break
        every.append(run(case, folder, {**every[-1].told, **options}))
    return every


def remedy_of(found: Sequence[Diagnosis]) -> dict[str, Any]:
    """The settings of the first remedy, of rates the lowest."""
    named = [dict(d.options) for d in found if d.verdict != HEALTHY and d.options]
    if not named:
        return {}
    if rates := [options["rate"] for options in named if "rate" in options]:
        return {"rate": min(rates)}
    return named[0]


def is_as_expected(case: Case, one: Trained) -> bool:
    """Whether those blocks are sick that were made so, with the right verdict, and all others healthy."""
    told = {block: verdict for block, verdict in one.verdicts.items() if block not in case.either}
    return told == dict(case.expected) and (bool(case.expected) or not one.diverged)


TEXT = """\
# Gradient health: who is told to be sick

Written by `make health`. Each training is done as a fit does it: from stored activations, the head at the
probe's solution, {epochs} epochs, a quarter of the examples validates. The thresholds are those of
`topgraft.health`, which [the evidence](evidence.md) names with their sources; none was moved for this page.

## Healthy trainings

{healthy_said}

{healthy}

Loss is that of the validation part before and after; "learned" is by how much the loss of the training part
fell. A training can be healthy and yet gain nothing on unseen examples.

## Networks made sick on purpose

{sick_said}

{sick}

Remedies are applied one after the other, as each training's verdicts name them. A dead layer lets no gradient
through, so that those before it vanish. To freeze what nothing reaches saves time and cures nothing. A block
that hardly counts has no remedy that a setting could apply: its weights are to be looked at.

## Measured on

{machine}
"""


def as_page(healthy: Sequence[tuple[Case, Trained]], sick: Sequence[tuple[Case, list[Trained]]]) -> str:
    """What ``docs/health.md`` holds."""
    alarms = [case.name for case, one in healthy if not one.is_healthy]
    right = sum(is_as_expected(case, every[0]) for case, every in sick)
    families = len({case.family for case, _ in healthy})
    said = (
        f"{len(healthy)} trainings of {families} families; {len(alarms)} got a verdict that they must not get"
    )
    healthy_rows = [
        [case.name, case.family, _verdicts(one), f"{one.start:.3f} to {one.end:.3f}", f"{one.learned:.3f}"]
        for case, one in healthy
    ]
    sick_rows = [
        [
            case.name,
            _verdicts(every[0]),
            "yes" if is_as_expected(case, every[0]) else "**no**",
            _remedies(every),
            _cure(every),
            f"{every[0].start:.3f} to {every[0].end:.3g}",
            f"{every[-1].end:.3f}" if len(every) > 1 else "",
        ]
        for case, every in sick
    ]
    return TEXT.format(
        epochs=EPOCHS,
        healthy_said=f"{said}{': ' + ', '.join(alarms) if alarms else ''}.",
        healthy="\n".join(markdown_table(["training", "family", "verdict", "loss", "learned"], healthy_rows)),
        sick_said=f"{right} of {len(sick)} got the right verdict on the right block.",
        sick="\n".join(
            markdown_table(
                ["what is sick", "verdict", "right", "remedies", "then", "loss", "after the cure"], sick_rows
            )
        ),
        machine="\n".join(machine_lines(PACKAGES)),
    )


def _verdicts(one: Trained) -> str:
    """Blocks by their verdict, runs of numbers put together."""
    if not one.verdicts:
        return "healthy" if not one.diverged else "diverged"
    head = max(d.block for d in one.found)
    parts = []
    for verdict in dict.fromkeys(one.verdicts.values()):
        blocks = [block for block, said in one.verdicts.items() if said == verdict]
        runs: list[list[int]] = []
        for block in blocks:
            if runs and block == runs[-1][-1] + 1 and block != head:
                runs[-1].append(block)
            else:
                runs.append([block])
        named = [
            "the head" if run == [head] else f"{run[0]} to {run[-1]}" if run[1:] else f"{run[0]}"
            for run in runs
        ]
        parts.append(f"{verdict}: {', '.join(named)}")
    return "; ".join(parts) + ("; diverged" if one.diverged else "")


def _remedies(every: Sequence[Trained]) -> str:
    told = []
    for before, after in pairwise(every):
        changed = {name: value for name, value in after.told.items() if before.told.get(name) != value}
        told += [
            f"`--{name}`" if value is True else f"`--{name} {value:g}`" for name, value in changed.items()
        ]
    return ", ".join(told)


def _cure(every: Sequence[Trained]) -> str:
    if len(every) == 1:
        return "healthy" if every[0].is_healthy else ""
    return _verdicts(every[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="a word that the name of the case holds")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    healthy, sick = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate((*HEALTHY_ONES, *SICK_ONES)):
            if asked.only.lower() not in case.name.lower():
                continue
            place = Path(folder) / str(number)
            place.mkdir()
            if case.expected:
                every = cured(case, place)
                sick.append((case, every))
                print(
                    f"{case.name}: {'; then '.join(map(_verdicts, every))} ({_remedies(every)})", flush=True
                )
            else:
                one = run(case, place, case.settings)
                healthy.append((case, one))
                print(f"{case.name}: {_verdicts(one)}", flush=True)
                for d in one.found:
                    if d.verdict != HEALTHY:
                        print(f"    {d.name}: {d.why}")
    if not asked.only:
        PAGE.write_text(as_page(healthy, sick), encoding="utf-8")
    right = all(is_as_expected(case, one) for case, one in healthy)
    sys.exit(0 if right and all(is_as_expected(case, every[0]) for case, every in sick) else 1)


if __name__ == "__main__":
    main()
