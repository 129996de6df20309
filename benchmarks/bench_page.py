"""The page of the speed benchmarks: verdicts first, then the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from bench_gpu import BARE, OURS
from machine import machine_lines, markdown_table

PACKAGES = ("topgraft", "torch", "timm", "openvino", "scikit-learn", "numpy")
INTRODUCTION = """\
# Speed, beside what people use

Written by `make bench`. Every program is a cold process; each peer has a virtual environment of its own; ours
and theirs take turns, and medians are compared. Machines are noisy: read the ratios.
"""


def document(results: Mapping[str, Any]) -> tuple[str, bool]:
    """The page, and whether every promise that was measured holds."""
    verdicts: list[tuple[bool, str]] = []
    parts: list[str] = []
    for name, section in SECTIONS.items():
        if name in results:
            found, lines = section(results[name])
            verdicts += found
            parts += lines
    top = [f"- {'holds' if holds else 'FAILS'}: {text}" for holds, text in verdicts]
    left_out = [f"- {said}" for name, said in MEASURED.items() if name not in results]
    if left_out:
        parts += ["## Not measured in this run", "", *left_out, ""]
    machine = ["## Machine", "", *machine_lines(PACKAGES)]
    page = "\n".join([INTRODUCTION, "## Verdicts", "", *top, "", *parts, *machine, ""])
    return page, all(holds for holds, _ in verdicts)


Section = tuple[list[tuple[bool, str]], list[str]]


def _start(found: Mapping[str, Any]) -> Section:
    ratio = found["help"] / found["typer"]
    return [
        (ratio <= 2, f"`topgraft --help` takes {ratio:.2f} times a bare `import typer` (2 at most)"),
        (found["torch_modules"] == 0, f"`import topgraft` loads {found['torch_modules']} modules of torch"),
    ], []


def _forward(found: Mapping[str, Any]) -> Section:
    rows, verdicts = [], []
    for engine, times in found.items():
        ratio = times["every"] / times["once"]
        rows.append([engine, f"{times['once'] * 1e3:.1f}", f"{times['every'] * 1e3:.1f}", f"{ratio:.2f}"])
        verdicts.append(
            (ratio <= 1.3, f"{engine}: all cuts pooled in {ratio:.2f} forward passes (1.3 at most)")
        )
    header = ["engine", "one forward pass, ms a picture", "all cuts pooled", "ratio"]
    return verdicts, ["## All cuts against one forward pass", "", *markdown_table(header, rows), ""]


def _training(found: list[Mapping[str, Any]]) -> Section:
    verdicts, rows = [], []
    for one in found:
        share = one["reached"] / one["allowed"]
        verdicts.append(
            (
                share >= 0.8,
                f"{one['share']:.0%} frozen: {share:.2f} of the gain that the cost model allows (0.8)",
            )
        )
        numbers = [one["storing"], one["stored"], one["live"]]
        rows.append(
            [
                f"{one['freeze']} blocks, {one['share']:.0%} of the work",
                *(f"{n:.1f}" for n in numbers),
                f"{one['reached']:.2f}",
                f"{one['allowed']:.2f}",
            ]
        )
    header = ["frozen", "storing, s", "stored, s", "live, s", "times as fast", "allowed"]
    told = "20 epochs over 256 pictures by PyTorch in fp32; of the live ones 4 are run and multiplied."
    return verdicts, ["## Training from the store", "", told, "", *markdown_table(header, rows), ""]


def _evidence(found: Mapping[str, Any]) -> Section:
    ours, usual = found["ours"], {int(cut): s for cut, s in found["usual"].items()}
    mean, cuts = sum(usual.values()) / len(usual), len(found["scores"])
    every, last = mean * cuts / ours, usual[max(usual)] / ours
    counted = "" if len(usual) == cuts else f" (from {len(usual)} of {cuts} cuts, multiplied)"
    verdicts = [(every >= 25, f"the evidence at every cut is {every:.1f} times as fast{counted} (25)")]
    if max(usual) == cuts:
        verdicts.append(
            (last >= 5, f"and {last:.1f} times as fast as the usual script at its last layer (5)")
        )
    spoken = []
    if not found["bf16_units"]:
        spoken = [
            "This processor has no units for matrices of bf16, for which 25 and 5 are promised: here "
            + "; ".join(said for _, said in verdicts)
            + ".",
            "",
        ]
        verdicts = []
    rows = [
        [
            str(cut),
            f"{seconds:.1f}",
            f"{100 * found['usual_scores'][str(cut)]:.1f}",
            f"{100 * found['scores'][str(cut)]:.1f}",
        ]
        for cut, seconds in usual.items()
    ]
    header = ["cut", "usual script, s", "its accuracy", "ours at that cut"]
    told = (
        f"{found['pictures']:,} pictures; ours, all {cuts} cuts: {ours:.1f} s. That measures, too, whether "
        "pictures are better squashed than cropped, which the script does not; with `--resize pretrained` it "
        f"is {found['plain']:.1f} s: {mean * cuts / found['plain']:.1f} times as fast as the script at every "
        f"cut, {usual[max(usual)] / found['plain']:.1f} times as fast as at cut {max(usual)} alone."
    )
    return verdicts, ["## The evidence", "", told, "", *spoken, *markdown_table(header, rows), ""]


def _accuracy(found: Mapping[str, Any]) -> Section:
    best = max(found["fastai"], key=lambda one: one["test"])
    reached = [one for one in found["ours"] if one["test"] >= best["test"]]
    first = min(reached, key=lambda one: one["seconds"], default=None)
    said = f"fastai's best, {100 * best['test']:.1f} % in {best['seconds']:.0f} s, "
    said += (
        f"reached in {first['seconds'] / best['seconds']:.2f} of its time (0.1)" if first else "not reached"
    )
    verdicts = [(first is not None and first["seconds"] <= 0.1 * best["seconds"], said)]
    rows = [
        *(
            [f"topgraft fit --budget {budget}", f"{one['seconds']:.0f}", f"{100 * one['test']:.1f}"]
            for budget, one in zip(found["budgets"], found["ours"], strict=True)
        ),
        *(
            [f"fastai fine_tune({one['epochs']})", f"{one['seconds']:.0f}", f"{100 * one['test']:.1f}"]
            for one in found["fastai"]
        ),
        [
            "fastai frozen, 2 epochs",
            f"{found['frozen']['seconds']:.0f}",
            f"{100 * found['frozen']['test']:.1f}",
        ],
    ]
    lines = ["## Accuracy and time", "", *markdown_table(["program", "s", "test accuracy, %"], rows), ""]
    return verdicts, lines


def _forecasts(found: list[Mapping[str, Any]]) -> Section:
    rows, off = [], []
    for fit in found:
        for stage, amounts in fit["forecast"].items():
            ratio = _ratio((amounts or {}).get("seconds"))
            if ratio is not None:
                told = [f"{amounts['seconds'][name]:.1f}" for name in ("predicted", "actual")]
                rows.append([fit["what"], stage, *told, f"{ratio:.2f}"])
                off.append(max(ratio, 1 / ratio) - 1)
    said = f"forecasts of seconds are off by {median(off):.0%} in the median of {len(off)} (25 %)"
    header = ["fit", "stage", "foretold, s", "taken, s", "ratio"]
    lines = ["## Forecasts", "", *markdown_table(header, rows), ""]
    return [(median(off) <= 0.25, said)], lines


def _texts(found: Mapping[str, Any]) -> Section:
    ours, peer = found["ours"], found["peer"]
    rows = [
        [f"topgraft probe, {ours['cuts']} cuts", f"{ours['seconds']:.1f}", f"{100 * ours['score']:.1f}"],
        ["sentence-transformers, its last layer", f"{peer['seconds']:.1f}", f"{100 * peer['score']:.1f}"],
    ]
    told = f"{peer['texts']:,} texts, cold processes; accuracy by cross-validation at the last layer."
    header = ["program", "s", "accuracy, %"]
    return [], ["## Texts", "", told, "", *markdown_table(header, rows), ""]


def _precision(found: list[Mapping[str, Any]]) -> Section:
    verdicts, rows = [], []
    for one in found:
        mean, low, high = one["difference"]
        said = f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"
        verdicts.append(
            (high >= 0, f"{one['task']}: {one['chosen']} against torch fp32, {said} points of accuracy")
        )
        scores = [f"{one['scores'][name]:.1f}" for name in ("chosen", "exact")]
        rows.append([f"{one['task']}, by {one['chosen']}", *scores, said])
    told = (
        "Out of fold, at the advised cut, five seeds of the folds; 95 % intervals of the paired difference."
    )
    header = ["data and engine", "accuracy, %", "by torch fp32", "difference"]
    return verdicts, ["## What speed costs in accuracy", "", told, "", *markdown_table(header, rows), ""]


def _scale(found: list[Mapping[str, Any]]) -> Section:
    few, many = found
    times = many["count"] / few["count"]
    slower, larger = many["seconds"] / few["seconds"], many["peak"] / few["peak"]
    verdicts = [
        (slower <= 1.1 * times, f"{times:.0f} times more pictures take {slower:.1f} times as long (11)"),
        (larger <= 1.1, f"and {larger:.2f} times the memory at its peak (1.1)"),
    ]
    rows = [[f"{r['count']:,}", f"{r['seconds']:.0f}", f"{r['peak'] / 1e6:,.0f}"] for r in found]
    told = "`topgraft probe` on generated pictures; memory that belongs to no file, of the whole process."
    header = ["pictures", "s", "peak, MB"]
    return verdicts, ["## Ten times more examples", "", told, "", *markdown_table(header, rows), ""]


def _gpu(found: Mapping[str, Any]) -> Section:
    if not found:
        return [], ["## On a GPU", "", "Not measured: this machine has none.", ""]
    rates = found["throughput"]
    share = rates[OURS] / rates[BARE]
    verdicts = [(share >= 0.85, f"all cuts on {found['gpu']}: {share:.0%} of the bare forward pass (85 %)")]
    rows = [[said, f"{rate:,.0f}"] for said, rate in rates.items()]
    lines = ["## On a GPU", "", f"{found['gpu']}, in bf16, medians.", ""]
    lines += [*markdown_table(["work", "pictures a second"], rows), ""]
    rows = []
    for one in found["training"]:
        stored = one["storing"] + one["stored"]
        said = f"{one['freeze']} blocks, {one['share']:.0%} of the work"
        verdicts.append((stored <= one["live"], f"{said} frozen: {one['live'] / stored:.2f} times live (1)"))
        rows.append([said, *(f"{one[name]:.1f}" for name in ("storing", "stored", "live"))])
    told = "20 epochs over 256 pictures in fp32; live reads inputs that lie in memory, decoded."
    header = ["frozen", "storing, s", "stored, s", "live, s"]
    return verdicts, [*lines, told, "", *markdown_table(header, rows), ""]


def _ratio(told: Any) -> float | None:
    if not isinstance(told, Mapping) or not told.get("predicted") or not told.get("actual"):
        return None
    return float(told["actual"]) / float(told["predicted"])


MEASURED = {
    "start": "how long `topgraft --help` takes, and what `import topgraft` loads",
    "forward": "all cuts against one forward pass",
    "precision": "what the chosen engine and precision cost in accuracy",
    "texts": "texts, beside sentence-transformers",
    "training": "training from the store, beside the same live",
    "evidence": "the evidence at every cut, beside the usual script",
    "forecasts": "how right forecasts are",
    "accuracy": "accuracy and time beside fastai",
    "scale": "ten times more examples: time and memory",
    "gpu": "a GPU",
}
SECTIONS = {
    "start": _start,
    "forward": _forward,
    "precision": _precision,
    "texts": _texts,
    "training": _training,
    "evidence": _evidence,
    "forecasts": _forecasts,
    "accuracy": _accuracy,
    "scale": _scale,
    "gpu": _gpu,
}
