"""Made-up outcomes of a comparison, as numbers and as the file that ``topgraft compare -o`` writes."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from topgraft.comparing import comparison_json
from topgraft.curves import BASELINE, MAJORITY, PRETRAINED, RANDOM, SCRATCH, Comparison, Outcome

N = 120
SHARES = (0.1, 0.25, 0.5, 1.0)
SECONDS = {PRETRAINED: 4.0, SCRATCH: 300.0, RANDOM: 3.0, BASELINE: 0.4, MAJORITY: 0.0}
CURVES = {
    PRETRAINED: (0.62, 0.68, 0.72, 0.75),
    SCRATCH: (0.24, 0.31, 0.38, 0.47),
    RANDOM: (0.22, 0.25, 0.27, 0.30),
    BASELINE: (0.27, 0.31, 0.36, 0.40),
    MAJORITY: (0.19, 0.19, 0.19, 0.19),
}


def outcomes(curves: dict[str, tuple[float, ...]], *, n: int = N, seeds: int = 3) -> list[Outcome]:
    """For each arm and share a rate of right answers, each seed with luck of its own."""
    found = []
    for a, (arm, curve) in enumerate(curves.items()):
        for share, rate in zip(SHARES, curve, strict=True):
            for seed in range(seeds):
                luck = np.random.default_rng([a, int(100 * share), seed]).random(n) < rate
                seconds = SECONDS[arm] * (0.2 + 0.8 * share) * (1 + 0.1 * seed)
                train = min(1.0, rate + 0.1 * (a + 1))
                right = tuple(luck.tolist())
                found.append(Outcome(arm, share, seed, int(500 * share), right, train, seconds, "as told", 3))
    return found


def answer(curves: dict[str, tuple[float, ...]] | None = None) -> dict[str, Any]:
    """What ``topgraft compare --json`` says of them."""
    return json.loads(_answer(tuple((curves or CURVES).items())))


@functools.cache
def _answer(curves: tuple[tuple[str, tuple[float, ...]], ...]) -> str:
    found = Comparison(outcomes(dict(curves)), np.arange(N))
    return json.dumps(comparison_json(found, ["a note <b>&</b> more"]))


def comparison_file(path: Path, curves: dict[str, tuple[float, ...]] | None = None) -> Path:
    """The file of a finished comparison."""
    document = {
        "made_from": {
            "data": "d1",
            "untouched": "u1",
            "weights": "w1",
            "settings": {"seed": 0, "budget": 60.0},
        },
        "outcomes": [o.to_json() for o in outcomes(curves or CURVES)],
        "result": answer(curves),
        "versions": {"python": "3.11.7"},
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    return path
