"""Where there is nothing to find, and where a simple baseline is better: does Topgraft say so?

    python benchmarks/honesty.py                 both parts; writes docs/honesty.md
    python benchmarks/honesty.py --seeds 20      fewer shuffles, to try it

What is measured is kept in ``build/honesty``: a killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from machine import ROOT, code_digest, machine_lines, markdown_table

from topgraft import demo

WORK = ROOT / "build" / "honesty"
PAGE = ROOT / "docs" / "honesty.md"
KINDS, PARTS, ORDERS = 400, 150, 400
"""Of the second task: part numbers there are, those of an order, and orders."""
PACKAGES = ("topgraft", "torch", "timm", "transformers", "numpy", "scikit-learn")
ALLOWED = 0.05
CODE = tuple(
    f"src/topgraft/{name}.py" for name in ("probe", "chunked", "ridge", "softmax", "confidence", "advise")
)
"""What the first part's numbers come from: other code, other numbers."""
SAID = 2
"""Sentences of a summary that are shown."""
TEXT = """\
# Honesty: where there is nothing to find

Written by `make honesty`.

## Shuffled labels, {seeds} times

The labels of the 645 packaged pictures are shuffled, so that no network can know them. Probes at all 18
cuts of the packaged network are scored as in a fit. In how many shuffles does any cut look better than the
most frequent class?

{shuffles}

In the median shuffle the best of the 18 cuts is {largest:+.1f} points from the most frequent class, which
is predicted out of fold, too.

On shuffled labels of the packaged glosses the report of `topgraft fit` begins:

{said}

## A task on which a simple baseline is better

Is a certain part among the {parts} of an order? There are {kinds} part numbers, such as {example}. A
count of words knows. The packaged network cuts texts long before such an order ends, and `topgraft compare`
begins:

> {sentence}
{notes}
{arms}

The verdict in `--json` is `{verdict}`, by {untouched:,} untouched examples.

## Measured on

{machine}
"""

Array = np.ndarray[Any, np.dtype[Any]]


def shuffled(seeds: int) -> list[dict[str, Any]]:
    """For each seed what the probes at every cut say of the packaged pictures with shuffled labels."""
    import topgraft as tg

    name = f"shuffled-{code_digest(*CODE)}.json"
    known = _kept(name)
    left = [seed for seed in range(seeds) if str(seed) not in known]
    if left:
        data = tg.read(demo.pictures())
        backbone = tg.load(modality=data.modality)
        features, _ = tg.one_pass(backbone, data, tg.Store())
        targets, classes = np.asarray(data.targets), len(data.classes)
        for seed in left:
            drawn = np.random.default_rng(seed).permutation(targets)
            fold_of, _, _ = tg.assign_folds(drawn, data.groups, seed=seed)
            evidence = tg.probe(features, drawn, fold_of, classes, groups=data.groups)
            known[str(seed)] = judged(evidence, tg.advise(evidence, backbone.chain, seed=seed), seed)
            _keep(name, known)
            print(f"shuffle {seed}: {known[str(seed)]}", flush=True)
    return [known[str(seed)] for seed in range(seeds)]


def judged(evidence: Any, advice: Any, seed: int) -> dict[str, Any]:
    """Whether any cut looks better than the most frequent class.

    ``simultaneous``: by intervals of the differences in accuracy that hold together for all cuts, as wide as
    the largest studentised difference from the most frequent class that chance makes (max-t bootstrap).
    ``single``: by the interval that each cut has by itself. ``summary``: whether the summary believes it,
    which goes by accuracy and loss together.
    """
    from topgraft.confidence import Paired

    majority = evidence.chance_predictions != evidence.targets
    wrong = np.column_stack([majority, *(~cut.marks for cut in evidence.cuts)]).astype(float)
    paired = Paired.of([wrong], evidence.groups, seed=seed)
    critical = float(np.quantile(np.abs(paired.worse_by_chance(0)[:, 0]).max(1), 1 - ALLOWED))
    gains = paired.means[0, 0] - paired.means[0, 1:]
    low = gains - critical * paired.errors[0, 0, 1:]
    score = 1 - float(majority.mean())
    return {
        "simultaneous": bool((low > 0).any()),
        "single": bool(any(cut.low > score for cut in evidence.cuts)),
        "summary": bool(advice.beats_chance),
        "largest_gain": float(gains.max()),
    }


def summary_on_shuffled() -> list[str]:
    """The first sentences of the report of a fit on shuffled labels."""
    from topgraft.report.numbers import gather

    folder = WORK / "shuffled.topgraft"
    if not (folder / "result.json").is_file():
        rows = _glosses()
        labels = np.random.default_rng(0).permutation([label for _, label in rows])
        table = _table("shuffled.csv", [(text, label) for (text, _), label in zip(rows, labels, strict=True)])
        _topgraft("fit", table, "-o", folder, "--text", "text", "--label", "label", "--budget", "120")
    return list(gather(folder)["summary"][:SAID])


def baseline_task() -> dict[str, Any]:
    """What ``compare`` says of a task that a count of words solves."""
    file = WORK / "parts.json"
    if not file.is_file() or "result" not in json.loads(file.read_text(encoding="utf-8")):
        names, stream = part_numbers(), random.Random(1)
        orders = [(names[0],) * (i % 2) for i in range(ORDERS)]
        chosen = [[*held, *stream.sample(names[1:], PARTS - len(held))] for held in orders]
        rows = [
            (" ".join(stream.sample(some, PARTS)), "with" if names[0] in some else "without")
            for some in chosen
        ]
        table = _table("parts.csv", rows)
        _topgraft("compare", table, "-o", file, "--text", "text", "--label", "label", "--budget", "240")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["result"]
    return found


def part_numbers() -> list[str]:
    """Made up, all different: two letters, three figures and a letter."""
    stream, found = random.Random(0), dict[str, None]()
    letters = "bcdfghjklmnpqrstvwxz"
    while len(found) < KINDS:
        found[
            "".join([*stream.choices(letters, k=2), str(stream.randint(100, 999)), stream.choice(letters)])
        ] = None
    return list(found)


def as_page(shuffles: list[dict[str, Any]], said: list[str], found: dict[str, Any]) -> str:
    """What ``docs/honesty.md`` holds."""
    seeds = len(shuffles)
    rows = [
        [what, f"{sum(one[name] for one in shuffles)} of {seeds}", allowed]
        for name, what, allowed in (
            ("simultaneous", "simultaneous intervals of accuracy", f"at most {int(ALLOWED * seeds)}"),
            ("summary", "what the summary goes by: accuracy and loss together", f"about {ALLOWED:.0%}"),
            ("single", "each cut's own interval, as if it were the only one", "nothing for all together"),
        )
    ]
    arms = [
        [arm["name"], f"{100 * arm['score']:.1f}", f"{100 * arm['low']:.1f} to {100 * arm['high']:.1f}"]
        for arm in found["arms"]
    ]
    return TEXT.format(
        seeds=seeds,
        shuffles="\n".join(markdown_table(["judged by", "looks better in", "promised"], rows)),
        largest=100 * float(np.median([one["largest_gain"] for one in shuffles])),
        said="\n>\n".join(f"> {sentence}" for sentence in said),
        parts=PARTS,
        kinds=KINDS,
        example=" and ".join(part_numbers()[:2]),
        sentence=found["sentence"],
        notes="".join(f">\n> {note}\n" for note in found["notes"]),
        arms="\n".join(markdown_table(["way", "accuracy", "95 % interval"], arms)),
        verdict=found["verdict"],
        untouched=found["untouched"],
        machine="\n".join(machine_lines(PACKAGES)),
    )


def _glosses() -> list[tuple[str, str]]:
    import csv

    with demo.glosses().open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def _table(name: str, rows: list[tuple[str, str]]) -> Path:
    import csv

    with (WORK / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return Path(name)


def _topgraft(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "topgraft", *map(str, arguments)], check=True, cwd=WORK)


def _kept(name: str) -> dict[str, Any]:
    path = WORK / name
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return known


def _keep(name: str, known: dict[str, Any]) -> None:
    from topgraft.files import write_json

    write_json(WORK / name, known)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=100, help="how often labels are shuffled")
    asked = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TOPGRAFT_CACHE", str(WORK / "store"))
    text = as_page(shuffled(asked.seeds), summary_on_shuffled(), baseline_task())
    PAGE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
