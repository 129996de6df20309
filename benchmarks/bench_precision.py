"""Whether accuracy pays for speed: the engine and precision that were chosen, against PyTorch in fp32."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from paired import Judged, differences, mean_score

SEEDS = 5
DRAWS = 10_000


def precision(folder: Path) -> list[dict[str, Any]]:
    """Per kind of data: out-of-fold accuracy at the advised cut, over seeds of the folds, both ways.

    The depth is advised on the evidence of the engine that was chosen; examples are paired.
    """
    from topgraft import demo

    return [
        {"task": name, **_both(place)}
        for name, place in {"pictures": folder / "train", "texts": demo.glosses()}.items()
    ]


def _both(place: Path) -> dict[str, Any]:
    import topgraft as tg
    from topgraft.features.trial import choose_engine

    data = tg.read(place)
    backbone = tg.load(None, modality=data.modality)
    assert data.targets is not None
    with tempfile.TemporaryDirectory() as folder:
        store = tg.Store(Path(folder))
        choice = choose_engine(backbone, data, store)
        pairs = {"chosen": (choice.engine, choice.precision), "exact": ("torch", "fp32")}
        features = {
            name: tg.one_pass(backbone, data, store, engine=engine, precision=kind)[0]
            for name, (engine, kind) in pairs.items()
        }
        judged, keeps = [], []
        for seed in range(SEEDS):
            fold_of, _, _ = tg.assign_folds(data.targets, data.groups, folds=5, seed=seed)
            evidence = {
                name: tg.probe(f, data.targets, fold_of, len(data.classes), groups=data.groups)
                for name, f in features.items()
            }
            keep = tg.advise(evidence["chosen"], backbone.chain, seed=seed).keep
            keeps.append(keep)
            marks = {name: np.asarray(e.cuts[keep - 1].marks) for name, e in evidence.items()}
            judged.append(Judged(seed, np.asarray(data.groups), marks))
    drawn = differences(judged, "chosen", "exact", draws=DRAWS, seed=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    scores = {name: mean_score(judged, name) for name in pairs}
    return {
        "chosen": " ".join(pairs["chosen"]),
        "keeps": keeps,
        "scores": scores,
        "difference": [scores["chosen"] - scores["exact"], float(low), float(high)],
    }
