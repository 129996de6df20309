"""The page of the coverage measurement: targets with their verdicts, then a table for each library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from machine import machine_lines, markdown_table

TIMM_MODULES, TIMM_TARGET, TRANSFORMERS_TARGET = 98, 97, 150
PACKAGES = ("topgraft", "torch", "timm", "torchvision", "transformers", "numpy")
TITLES = {
    "timm": "timm",
    "torchvision": "torchvision",
    "transformers": "Transformers",
    "own": "One's own networks",
}
INTRODUCTION = """\
# Every network a verified chain

Written by `make coverage`. Each network is built with random weights, noise in place of zeros and ones,
running statistics of its inputs, and small inputs; `Chain.of` turns it into a chain. At every cut k that the
chain accepts these are then checked, not by the chain's own verification but beside the network's own
forward, on inputs that the chain has not seen and with one example more:

- **equal**: `c[k:](c[:k](x))` is what the network gives just before its old output layer (caught there by a
  hook; at the first and last cut also its output), although other examples went through `c[:k]` in between;
- **alone**: an example gives the same activations alone as in a batch; two runs agree bit by bit;
- **padding**: where there is a mask, more padding does not change the activations of real steps;
- **gradients** ({gradients}): with the part before the cut frozen and in eval mode and the part after it in
  train mode, dropout drawing from the same seed, gradients are those of the whole network with the same
  parameters frozen. Modules that lie across the cut stay in eval mode; recurrent dropout is left out. Where
  the whole network itself does not run like that, or differs the second time, both are in eval mode.

Differences are relative to the activation's largest number: at most 1e-5 in single precision or, where that
is too noisy to tell, 1e-12 in double; gradients at most 1e-4 or 1e-9 (relative to each parameter's largest).
A block is *merged* if it stands in one of the network's own lists (`blocks`, `layers`, `cells`, `stages`, …)
and no cut lies between its end and the beginning of the next.
"""


def document(results: Mapping[str, Sequence[Mapping[str, Any]]], *, whole: bool) -> tuple[str, bool]:
    """The page, and whether every target holds; without ``whole`` numbers of cases are no targets."""
    found = verdicts(results, whole=whole)
    every = [r for some in results.values() for r in some]
    all_gradients = all(r["key"]["all_gradients"] for r in every)
    gradients = "at every cut" if all_gradients else "at up to four cuts of each network"
    lines = [
        INTRODUCTION.format(gradients=gradients),
        "## Verdicts",
        "",
        *(f"- {'holds' if holds else 'FAILS'}: {text}: {told}" for text, holds, told in found),
        "",
        *_summary(results),
        "",
    ]
    for library, some in results.items():
        lines += [f"## {TITLES[library]}", "", *_library_lines(some), ""]
    lines += ["## Machine", "", *machine_lines(PACKAGES)]
    if any(len({str(r["key"]) for r in some}) > 1 for some in results.values()):
        lines.append("- rows were measured with different versions of the code")
    return "\n".join(lines) + "\n", all(holds for _, holds, _ in found)


def verdicts(
    results: Mapping[str, Sequence[Mapping[str, Any]]], *, whole: bool
) -> list[tuple[str, bool, str]]:
    """Each target: what it says, whether it holds, and the numbers."""
    every = [r for some in results.values() for r in some]
    wrong = [r["name"] for r in every if r["outcome"] == "wrong"]
    cuts = sum(len(r.get("blocks", ())) for r in every)
    found = [
        (
            "no accepted cut that is not equal",
            not wrong,
            f"{cuts:,} cuts of {len(every)} networks{_such(wrong)}",
        )
    ]
    if "timm" in results:
        found.append(_timm_verdict(results["timm"], whole=whole))
    if "torchvision" in results:
        bad = [r["name"] for r in results["torchvision"] if r["outcome"] != "equal"]
        told = f"{len(results['torchvision']) - len(bad)} of {len(results['torchvision'])}{_such(bad)}"
        found.append(("all of torchvision's classification networks", not bad, told))
    if "transformers" in results:
        good = sum(r["outcome"] == "equal" for r in results["transformers"])
        target = TRANSFORMERS_TARGET if whole else len(results["transformers"])
        told = f"{good} of {len(results['transformers'])}"
        found.append((f"at least {target} types of Transformers", good >= target, told))
    if "own" in results:
        own = results["own"]
        bad = [r["name"] for r in own if r["outcome"] != "equal" or len(r["blocks"]) < r["fewest"]]
        told = f"{len(own) - len(bad)} of {len(own)}{_such(bad)}"
        found.append(("all of one's own networks, with the cuts that they must have", not bad, told))
    return found


def _timm_verdict(some: Sequence[Mapping[str, Any]], *, whole: bool) -> tuple[str, bool, str]:
    from cases_timm import module_of

    by_module: dict[str, bool] = {}
    for r in some:
        module = module_of(r["name"])
        full = r["outcome"] == "equal" and not r["merged"]
        by_module[module] = by_module.get(module, True) and full
    target = TIMM_TARGET if whole else len(by_module)
    full = sum(by_module.values())
    text = (
        f"at least {target} of timm's {TIMM_MODULES if whole else len(by_module)} modules cut at every block"
    )
    return text, full >= target, f"{full}{_such([module for module, good in by_module.items() if not good])}"


def _such(names: Sequence[str]) -> str:
    return f"; not {', '.join(names)}" if names else ""


def _summary(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    header = ["", "networks", "equal", "not equal", "no chain", "left out", "failed", "cuts", "several cross"]
    header.append("merged blocks")
    rows = []
    for library, some in results.items():
        outcomes = [r["outcome"] for r in some]
        counts = [outcomes.count(o) for o in ("equal", "wrong", "refused", "left out", "failed")]
        parts = [sum(len(r.get(part, ())) for r in some) for part in ("blocks", "tuples", "merged")]
        rows.append([TITLES[library], str(len(some)), *(str(n) for n in counts), *(f"{n:,}" for n in parts)])
    return markdown_table(header, rows)


def _library_lines(some: Sequence[Mapping[str, Any]]) -> list[str]:
    header = [
        "network",
        "blocks",
        "cuts",
        "several cross",
        "equal",
        "alone",
        "padding",
        "gradients",
        "s",
        "inputs",
    ]
    made = [r for r in some if "largest" in r]
    rows = []
    for r in made:
        largest, doubled = r["largest"], r["doubled"]
        equal = max((largest.get(name, 0.0) for name in ("equal", "output")), default=0.0)
        rows.append(
            [
                r["name"] if r["outcome"] == "equal" else f"**{r['name']}**",
                f"{r['listed'] - len(r['merged'])} of {r['listed']}" if r["listed"] else "none listed",
                str(len(r["blocks"])),
                str(len(r["tuples"])),
                _gap(equal, doubled=doubled.get("equal", 0)),
                *(
                    _gap(largest.get(name), doubled=doubled.get(name, 0))
                    for name in ("alone", "padded", "gradients")
                ),
                f"{r['seconds']:.0f}",
                r["note"],
            ]
        )
    lines = markdown_table(header, rows) if rows else []
    if in_eval := [r["name"] for r in made if r["in_eval"]]:
        lines += ["", f"Gradients in eval mode: {', '.join(in_eval)}."]
    if any(r["doubled"] for r in made):
        lines += ["", "d: decided in double precision at some cuts, whose difference counts there."]
    parts: list[tuple[str, list[str]]] = [
        ("Not equal", [f"{r['name']}: {line}" for r in made for line in r["wrong"]]),
        (
            "Blocks merged with the next",
            [f"{r['name']}: {', '.join(r['merged'])}" for r in made if r["merged"]],
        ),
        ("Cuts refused", [line for r in some for line in _refusals(r)]),
        (
            "Left out, refused or failed",
            [f"{r['name']} ({r['outcome']}): {_one_line(r['reason'])}" for r in some if "reason" in r],
        ),
    ]
    for title, items in parts:
        if items:
            lines += ["", f"### {title}", "", *(f"- {item}" for item in items)]
    return lines


def _gap(value: float | None, *, doubled: int) -> str:
    if value is None:
        return ""
    return ("0" if value == 0 else f"{value:.0e}") + (" d" if doubled else "")


def _refusals(result: Mapping[str, Any]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for block, reason in result.get("refused", ()):
        by_reason.setdefault(_one_line(reason), []).append(block)
    return [f"{result['name']}: {_few(blocks)}: {reason}" for reason, blocks in by_reason.items()]


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400].replace("|", "\\|")
