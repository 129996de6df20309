"""Recipes of training side by side, on clip art of six kinds that are not packaged: to choose defaults by.

    python benchmarks/recipes.py                                     the default beside none of its mixtures
    python benchmarks/recipes.py freeze=16,mixup=0.4 rate=1e-3 --splits 6

A recipe names what differs from the default: ``freeze``, ``views``, ``epochs``, ``rate``, ``decay``,
``weight_decay``, ``mixup``, ``batch_size``, ``clip``, ``taps`` (1: the usual ones, 0: none), ``squash`` (1:
pictures are squashed, 0: cropped) and ``soup``, the number of trainings whose weights are averaged. Each
trains for all its epochs on one half of the pictures and is scored on the other, at its start (the probe's
solution) and at its end; ``epochs=0`` is the start alone.
The comparison of ``make versus`` is on other pictures, so that no default is chosen on what it is judged by.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from bench_data import fetched, sampled
from machine import ROOT, markdown_table

CATEGORIES = ("computer", "geography", "office", "people", "recreation", "signs_and_symbols")
MOST = 120
"""Pictures of a category, as many as the packaged ones have at most."""
DEFAULT = {"freeze": 14, "views": 4, "epochs": 12, "taps": 1, "squash": 0, "soup": 1}


def pictures(build: Path, given: Path | None) -> Path:
    """A folder with one folder a category, made once; Debian's package is fetched where none is given."""
    done = build / "recipes"
    if done.is_dir():
        return done
    build.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=build) as folder:
        source, new = given or fetched(Path(folder)), Path(folder) / "new"
        for category in CATEGORIES:
            sampled(source / category, new / category, most=MOST, seed=1)
        new.rename(done)
    return done


def recipe_of(text: str) -> dict[str, float]:
    """``freeze=16,rate=3e-4`` as numbers by name.

    Raises
    ------
    SystemExit
        If a name is not one of a recipe.
    """
    from topgraft.history import Recipe

    known = {*DEFAULT, *(f.name for f in fields(Recipe))}
    found: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in known or not value:
            raise SystemExit(f"{part!r} is no NAME=NUMBER of a recipe: {', '.join(sorted(known))}")
        found[name] = float(value) if set(value) & set(".e") else int(value)
    return found


class Bench:
    """The pictures, the network and one pass over them, for all recipes and splits."""

    def __init__(self, folder: Path, build: Path) -> None:
        import topgraft as tg
        from topgraft.features.store import Store
        from topgraft.settings import Settings

        self.data, cropping = tg.read(folder), tg.load(None, modality="picture")
        self.store = Store(build / "recipes-store")
        self.settings = Settings(engine="openvino", precision="bf16")
        self.backbones = (cropping, cropping.resized("squash"))
        self.features: dict[int, Any] = {}

    def features_of(self, squash: int) -> Any:
        """Of the one pass, which is made when it is first asked for."""
        import topgraft as tg

        if squash not in self.features:
            how = {"engine": self.settings.engine, "precision": self.settings.precision}
            self.features[squash], _ = tg.one_pass(self.backbones[squash], self.data, self.store, **how)
        return self.features[squash]

    def halves(self, split: int) -> tuple[list[int], list[int]]:
        """Rows to train on and to score, stratified, duplicates on one side."""
        from topgraft.data import hold_out

        kept, away = hold_out(self.data, share=0.5, seed=split)
        return np.asarray(kept).tolist(), np.asarray(away).tolist()

    def run(self, told: dict[str, float], split: int) -> tuple[float, float, float, float, float]:
        """Score and loss at the start and at the end, and the seconds of the training."""
        import torch

        from topgraft import search
        from topgraft.checkpoint import put, weights_of
        from topgraft.evaluating import evaluate
        from topgraft.soup import mean_of
        from topgraft.taps import side_by_side, usual_taps, with_taps
        from topgraft.train import train

        rows, away = self.halves(split)
        settings = replace(self.settings, seed=split)
        targets = torch.as_tensor(self.data.targets)
        given: dict[str, Any] = {**DEFAULT, **told}
        members = int(given.pop("soup"))
        squash = int(given.pop("squash"))
        backbone, features = self.backbones[squash], self.features_of(squash)
        keep, freeze, views = len(backbone.chain), int(given.pop("freeze")), int(given.pop("views"))
        cuts = usual_taps(keep) if given.pop("taps") else ()
        material = search.Material(
            with_taps(backbone, cuts),
            self.data,
            self.store,
            settings,
            side_by_side(features, keep, cuts),
            targets,
            rows,
            away,
        )
        source, _ = search.source_at(material, keep, freeze, views=views)
        graft, ends = search.new_graft(material, keep, freeze, rows), []
        recipe = replace(search.recipe_for(material, keep, int(given["epochs"]), rows), **given)
        loss, score, _ = evaluate(graft, source, targets, away)
        began = time.monotonic()
        for member in range(members if recipe.epochs else 0):
            graft = search.new_graft(material, keep, freeze, rows)
            train(graft, source, targets, rows, recipe=replace(recipe, seed=recipe.seed + 1000 * member))
            ends.append(weights_of(graft))
        if ends:
            put(graft, {name: mean_of([end[name] for end in ends]) for name in ends[0]})
        seconds = time.monotonic() - began
        loss_after, score_after, _ = evaluate(graft, source, targets, away)
        return score, loss, score_after, loss_after, seconds


def gain_of(differences: np.ndarray[Any, np.dtype[Any]]) -> str:
    """Mean over the splits and its standard error, in points."""
    count = len(differences)
    error = differences.std(ddof=1) / count**0.5 if count > 1 else float("nan")
    return f"{100 * differences.mean():+.1f} ± {100 * error:.1f}"


def main() -> int:
    """Run the recipes and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipes", nargs="*", default=["", "mixup=0"], type=str)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--pictures", type=Path, help="a folder with one folder a category")
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    asked = parser.parse_args()
    recipes = {text or "the default": recipe_of(text) for text in asked.recipes}
    bench = Bench(pictures(asked.build, asked.pictures), asked.build)
    rows, first = [], None
    for name, told in recipes.items():
        each = np.array([bench.run(told, split) for split in range(asked.splits)])
        score, loss, score_after, loss_after, seconds = each.mean(0)
        first = each[:, 2] if first is None else first
        gain, beside = gain_of(each[:, 2] - each[:, 0]), gain_of(each[:, 2] - first)
        cells = [f"{100 * score:.1f}", f"{100 * score_after:.1f}", gain, beside]
        cells += [f"{loss:.3f}", f"{loss_after:.3f}"]
        rows.append([name, *cells, f"{seconds:.0f}"])
        print(" | ".join(rows[-1]), flush=True)
    header = ["recipe", "score before", "after", "gain", "over the first", "loss before", "after", "seconds"]
    print("\n".join(markdown_table(header, rows)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
