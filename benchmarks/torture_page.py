"""The pages that `make torture` writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from machine import machine_lines, markdown_table
from torture_job import MARKS

Row = Mapping[str, Any]
PACKAGES = ("topgraft", "torch", "timm", "safetensors", "pillow", "pyarrow")
NAMES = {
    "kills": "fits killed at random moments (`kill -9`)",
    "stops": "fits stopped by Ctrl-C, once or twice",
    "faults": "faults of disks, permissions, the store and a run's own files",
    "company": "data that change, others at the same store",
    "input": "kinds of bad and hostile input",
}
INTRODUCTION = """\
# Reliability

Written by `make torture`: real fits as processes of the command line, on real files, that are killed,
starved and lied to; nothing is replaced by a stand-in. After each disturbance the same command is given
again until it ends. It *survived* if what was saved then (weights, description, labels, predictions of the
untouched part, score) is bit for bit that of a fit that nobody disturbed, or if the input was refused with
one message and its exit status. It is *lost* where the command did not come to its end, *wrong* where
anything else is not as it must be: another bit, a silence, a traceback, something half-written left behind.
"""
HOW = """\
## How it was done

- The job: a residual network of one's own with six blocks (`benchmarks/torture_network.py`), 150
  pictures; it measures how to resize them, passes them, probes, searches M by ten short trainings,
  trains, fits again as the mean of two trainings, saves, and scores what it saved. Epochs and soup are
  given and the budget is ample, so that no decision depends on the time that a disturbed run has left;
  faults repeat the plan of the reference (`--plan`).
- A kill: signal 9 to a fit when a random share of the usual time of its stage is gone since the stage
  began, the shares spread evenly; every fifth fit is killed again while it goes on, every fourth repeats
  a plan.
- Passes: the network's first block notes a digest of each row that passes it in inference, across
  processes. What had been stored when a process was killed is read from the headers of the store's files.
  A process that goes on may pass each row as often as the undisturbed fit does in all, less how often it
  lay in the store by then; every pass beyond that is a *pass again*, of which there must be none. What a
  killed process had passed and not stored yet (batches under way; a shard is written after 256 examples
  or 10 seconds) is passed again, and is no fault.
- `resumed` of `fit --json` must name each stage of which a killed process had left something.
- Ten at once: ten processes start together on one empty store; each must give the reference's model, and
  every number in the store must fit its checksum.
- A clock that jumps while a fit runs could not be made here. Durations are measured by the monotonic
  clock; the time of day only decides which stored activations count as used last. Files of other years
  were tried.
"""


@dataclass(frozen=True)
class Verdict:
    """A campaign in numbers."""

    what: str
    tried: int
    lost: int
    wrong: int
    untried: int = 0

    @property
    def survived(self) -> int:
        """What was as it must be."""
        return self.tried - self.lost - self.wrong


def verdicts(rows: Mapping[str, Sequence[Row]]) -> list[Verdict]:
    """Each campaign that was run."""
    found = []
    for part, some in rows.items():
        if not some:
            continue
        untried = sum(row.get("outcome") == "not tried" for row in some)
        lost = sum(any("ended with" in w for w in row["wrong"]) for row in some) if part != "input" else 0
        wrong = sum(bool(row["wrong"]) for row in some) - lost
        found.append(Verdict(NAMES[part], len(some) - untried, lost, wrong, untried))
    return found


def page(rows: Mapping[str, Sequence[Row]]) -> str:
    """docs/reliability.md."""
    header = ["campaign", "tried", "survived", "lost", "wrong", "could not be tried here"]
    found = verdicts(rows)
    cells = [[v.what, *map(str, (v.tried, v.survived, v.lost, v.wrong, v.untried))] for v in found]
    lines = [INTRODUCTION, *markdown_table(header, cells), ""]
    if rows["kills"]:
        lines += ["## Killed", "", *_kills(rows["kills"]), ""]
    if rows["stops"]:
        lines += ["## Stopped by Ctrl-C", "", *_stops(rows["stops"]), ""]
    for part, title in (("faults", "## Faults"), ("company", "## Not alone")):
        if rows[part]:
            lines += [title, "", *_met(rows[part]), ""]
    if rows["input"]:
        lines += ["## Bad input", "", _input(rows["input"]), ""]
    if wrong := [(part, row) for part, some in rows.items() for row in some if row["wrong"]]:
        lines += ["## What was lost or wrong", ""]
        lines += [f"- {part}: {_named(row)}: {'; '.join(row['wrong'])}" for part, row in wrong]
        lines.append("")
    return "\n".join([*lines, HOW, "## Machine", "", *machine_lines(PACKAGES)]) + "\n"


def _named(row: Row) -> str:
    return str(row.get("name") or row.get("what") or f"in {row['stage']}")


def _kills(some: Sequence[Row]) -> list[str]:
    header = ["stage", "fits", "kills", "the same model", "passes again", "passes under way", "found done"]
    cells = []
    for stage in MARKS:
        mine = [row for row in some if row["stage"] == stage]
        stages = Counter(name for row in mine for name in row["resumed"])
        cells.append(
            [
                stage,
                str(len(mine)),
                str(sum(row["kills"] for row in mine)),
                str(sum(not row["wrong"] for row in mine)),
                str(sum(row["again"] for row in mine)),
                str(sum(row["in_flight"] for row in mine)),
                ", ".join(f"{name} {count}" for name, count in stages.items()),
            ]
        )
    text = (
        "Passes under way: of rows whose outcome was not stored when the process was killed, and of those "
        "that are never stored (the trial of training, the network's own example). Found done: how many of "
        "the fits that went on named each stage in `resumed`."
    )
    return [*markdown_table(header, cells), "", text]


def _stops(some: Sequence[Row]) -> list[str]:
    header = ["while", "Ctrl-C", "status", "seconds to the end", "the same command then", "passes again"]
    cells = [
        [
            row["stage"],
            "once" if row["presses"] == 1 else "twice",
            str(row["status"]),
            f"{row['seconds']:.1f}",
            "; ".join(row["wrong"]) or ("the same model" if row["status"] else "had ended: the same model"),
            str(row["again"]),
        ]
        for row in some
    ]
    text = (
        "Once: a pass stores the batches that are under way, a training keeps the step that is under way, "
        "wherever in its epoch; what takes no time is left at once. Twice: at once. The last line says that "
        "the same command goes on."
    )
    return [text, "", *markdown_table(header, cells)]


def _input(some: Sequence[Row]) -> str:
    slowest, most = (max(row[n] for row in some) for n in ("seconds", "megabytes"))
    ran = sum("CODE FROM THE INPUT RAN" in row["wrong"] for row in some)
    return (
        f"{len(some)} kinds, each with its message: [bad-input.md](bad-input.md). Code that a file carried "
        f"was run {ran} times. The slowest took {slowest:.0f} s; the most memory that one "
        f"took beyond what the process held was {most:.0f} MB."
    )


def _met(some: Sequence[Row]) -> list[str]:
    header = "| fault | became | status | what was said |"
    lines = [header, "| --- | --- | ---: | --- |"]
    for row in some:
        became = f"**{'; '.join(row['wrong'])}**" if row["wrong"] else row["outcome"]
        status = "" if row["status"] is None else str(row["status"])
        cells = [row["name"], became, status, row["told"]]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def bad_input_page(lines: Sequence[str], some: Sequence[Row]) -> str:
    """docs/bad-input.md."""
    right = sum(not row["wrong"] for row in some)
    told = (
        f"# Bad input and what is said to it\n\nWritten by `make torture`: {len(some)} kinds of bad input, "
        f"each put through the command line; {right} got the message and the exit status that they must get, "
        "and left nothing behind. The exit status is 2 for what was wrong from the start, 1 for a failure "
        "while running, and 0 where a bad example is left out by itself. `…` is the folder of the case.\n"
    )
    return "\n".join([told, *lines])
