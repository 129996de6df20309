"""Kills, faults and bad input, on real processes and real files; what survived, and what was wrong.

    python benchmarks/torture.py                   everything; writes docs/reliability.md, docs/bad-input.md
    python benchmarks/torture.py --parts kills --kills 8
    python benchmarks/torture.py --parts input

What is done is kept in ``build/torture``, one file a part, as long as the code is the same: a campaign that
was ended goes on where it was. The exit status is 1 if anything was lost or wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from machine import ROOT, code_digest
from torture_bench import Bench, Met
from torture_company import company
from torture_faults import faults
from torture_input import answers, table
from torture_job import Job
from torture_kills import run_kills
from torture_page import bad_input_page, page, verdicts
from torture_stops import run_stops

Rows = list[dict[str, Any]]
PARTS = ("kills", "stops", "faults", "company", "input")
KILLS = 50


class Kept:
    """What was done of one part, as long as the code is the same.

    Parameters
    ----------
    file
        Where it is kept.
    """

    def __init__(self, file: Path, *, anew: bool) -> None:
        self.file = file
        mine = sorted(path.relative_to(ROOT).as_posix() for path in Path(__file__).parent.glob("torture*.py"))
        self.made_from = code_digest(
            "src/topgraft", *(name for name in mine if not name.endswith("_page.py"))
        )
        self.rows: Rows = []
        if file.is_file() and not anew:
            found = json.loads(file.read_text(encoding="utf-8"))
            self.rows = found["rows"] if found["made_from"] == self.made_from else []

    def note(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep what is done so far."""
        self.rows = [dict(row) for row in rows]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps({"made_from": self.made_from, "rows": self.rows}), encoding="utf-8")
        new.replace(self.file)


def run_faults(which: Mapping[str, Callable[[Bench], Met]], bench: Bench, kept: Kept) -> None:
    """Every fault that is not kept."""
    done = {row["case"]: row for row in kept.rows}
    for name, meet in which.items():
        if name in done:
            continue
        met = meet(bench)
        done[name] = {"case": name, **asdict(met)}
        kept.note([done[n] for n in which if n in done])
        said = "; ".join(met.wrong) or met.outcome
        print(f"{met.name}: status {met.status}, {said}", flush=True)


def run(part: str, kept: Kept, kills: int, place: Path) -> None:
    """One part, in an empty place."""
    bench = Bench(Job(place))
    if part == "kills":
        run_kills(bench, kills, done=list(kept.rows), note=kept.note)
    elif part == "stops":
        run_stops(bench, done=list(kept.rows), note=kept.note)
    elif part == "input":
        if not kept.rows:
            kept.note([asdict(found) for found in answers(place)])
    else:
        run_faults(faults() if part == "faults" else company(), bench, kept)


def is_done(part: str, rows: Rows, kills: int) -> bool:
    """Whether nothing of a part is left to do."""
    if part in ("faults", "company"):
        return len(rows) == len(faults() if part == "faults" else company())
    return len(rows) >= {"kills": kills, "stops": 12, "input": 1}[part]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=KILLS, help="fits that are killed")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--build", type=Path, default=ROOT / "build" / "torture", help="where results are kept"
    )
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the pages are written")
    parser.add_argument("--anew", action="store_true", help="forget what was done before")
    asked = parser.parse_args()
    kept = {
        part: Kept(asked.build / f"{part}.json", anew=asked.anew and part in asked.parts) for part in PARTS
    }
    for part in asked.parts:
        if not is_done(part, kept[part].rows, asked.kills):
            with tempfile.TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as place:
                run(part, kept[part], asked.kills, Path(place))
    rows = {part: Kept(asked.build / f"{part}.json", anew=False).rows for part in PARTS}
    asked.docs.mkdir(parents=True, exist_ok=True)
    told = asked.docs / "reliability.md"
    before = told.read_text(encoding="utf-8") if told.exists() else ""
    _, mark, soak = before.partition("\n## Soak\n")  # which `make soak` writes, at the end of the page
    told.write_text(f"{page(rows).rstrip()}\n{mark}{soak}", encoding="utf-8")
    if rows["input"]:
        (asked.docs / "bad-input.md").write_text(bad_input_page(table(rows["input"]), rows["input"]), "utf-8")
    found = verdicts(rows)
    for verdict in found:
        print(f"{verdict.what}: {verdict.tried} tried, {verdict.lost} lost, {verdict.wrong} wrong")
    return 1 if any(verdict.lost or verdict.wrong for verdict in found) else 0


if __name__ == "__main__":
    sys.exit(main())
