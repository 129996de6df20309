"""Break each contract of the design on purpose, in a copy, and require that a test turns red.

    python tests/mutants/run.py            every contract
    python tests/mutants/run.py Fresh      only these

Each ``*.patch`` beside this file breaks one contract. Its first lines say which, and which tests must
notice:

    # contract: Fresh
    # test: tests/test_features_store.py::test_one tests/test_features_store.py::test_two

The rest is a patch of files under ``src`` as ``git diff`` writes it. The tests must be green without the
patch, and at least one of them must fail with it by an assertion; an import error or another exception
does not count, since any nonsense would cause one. Nothing in the working tree is changed. Several run side
by side, each in a copy of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

CONTRACTS = ("Equal", "Frozen", "Fresh", "Untouched", "Whole", "Safe")
HERE = Path(__file__).resolve().parent
LONGEST = 900
"""Seconds after which one run of tests counts as hanging."""


class Broken(Exception):
    """A patch, or the tree, is not as it must be."""


@dataclass(frozen=True)
class Mutant:
    """A patch, the contract that it breaks, and the tests that must notice."""

    path: Path
    contract: str
    tests: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Mutant:
        contract, tests = "", []
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                break
            name, _, value = line.lstrip("# ").partition(":")
            if name == "contract":
                contract = value.strip()
            elif name == "test":
                tests += value.split()
        if contract not in CONTRACTS or not tests:
            raise Broken(f"{path.name} must begin with '# contract: {'|'.join(CONTRACTS)}' and '# test: ...'")
        return cls(path, contract, tuple(tests))


def copy_tree(root: Path, to: Path) -> None:
    """Copy what git tracks and what it doesn't ignore; of a tree without git, sources and tests."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if listed.returncode == 0 and (root / ".git").exists():
        names = {name for name in listed.stdout.split("\0") if name}
    else:
        places = [root / "src", root / "tests", root / "pyproject.toml", root / "conftest.py"]
        found = [path for place in places for path in [place, *place.rglob("*")] if path.is_file()]
        names = {str(path.relative_to(root)) for path in found if "__pycache__" not in path.parts}
    for name in sorted(names):
        if (root / name).is_file():  # a tracked file may have been deleted, and a submodule is a folder
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, to / name)


def apply(mutant: Mutant, tree: Path) -> None:
    """Apply a patch to a tree; it must fit exactly and touch nothing but ``src``."""
    outside_of_git = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    for options in (["--numstat"], []):
        done = subprocess.run(
            ["git", "apply", *options, str(mutant.path)],
            cwd=tree,
            env=outside_of_git,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Broken(f"the patch no longer applies: {done.stderr.strip()}")
        if options:
            touched = [line.split("\t")[2] for line in done.stdout.splitlines()]
            if not touched or not all(name.startswith("src/") for name in touched):
                raise Broken(f"the patch must change files under src/ only, and changes {touched}")


def run_tests(tree: Path, tests: tuple[str, ...], *, stop: bool) -> tuple[dict[str, str], str]:
    """How each test of a tree ended, and what pytest said; with ``stop`` until one fails by assertion."""
    with tempfile.TemporaryDirectory() as scratch:
        outcomes = Path(scratch, "outcomes")
        outcomes.touch()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tree / "src"), str(HERE)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TOPGRAFT_CACHE": str(Path(scratch, "cache")),
            "MUTANT_OUTCOMES": str(outcomes),
            "MUTANT_STOP": str(int(stop)),
        }
        quiet = ["-q", "--no-header", "-p", "no:cacheprovider", "-p", "outcome"]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *quiet, *tests],
                cwd=tree,
                env=environment,
                capture_output=True,
                text=True,
                timeout=LONGEST,
            )
        except subprocess.TimeoutExpired as error:
            raise Broken(f"the tests took more than {LONGEST} seconds") from error
        ended = dict(json.loads(line) for line in outcomes.read_text(encoding="utf-8").splitlines())
    return ended, done.stdout + done.stderr


def require_green(pristine: Path, mutants: list[Mutant]) -> None:
    """All named tests, run in the unpatched copy, must exist and pass."""
    where = subprocess.run(
        [sys.executable, "-c", "import topgraft; print(topgraft.__file__)"],
        cwd=pristine,
        env={**os.environ, "PYTHONPATH": str(pristine / "src")},
        capture_output=True,
        text=True,
    )
    if not where.stdout.startswith(str(pristine)):
        raise Broken(f"the copy's own package is not imported:\n{where.stdout}{where.stderr}")
    tests = tuple(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    ended, said = run_tests(pristine, tests, stop=False)
    absent = [test for test in tests if not any(_belongs(found, test) for found in ended)]
    if absent or set(ended.values()) - {"passed", "skipped"}:
        raise Broken(f"not green without any patch; missing: {absent or 'none'}\n{said}")


def judge(mutant: Mutant, pristine: Path, work: Path) -> tuple[bool, str, str]:
    """Whether a test turned red by assertion, which, and what to say when none did."""
    tree = work / mutant.path.stem
    shutil.copytree(pristine, tree)
    try:
        apply(mutant, tree)
        ended, said = run_tests(tree, mutant.tests, stop=True)
    except Broken as error:
        return False, str(error).splitlines()[0], str(error)
    finally:
        shutil.rmtree(tree)
    red = [test for test, how in ended.items() if how == "assertion"]
    if red:
        return True, red[0].partition("::")[2], ""
    others = sorted({how for how in ended.values() if how.startswith("error")})
    told = ", ".join(others) or ("all green" if ended else "no test could be run")
    return False, f"none failed by assertion; {told}", said


def _belongs(found: str, test: str) -> bool:
    return found == test or found.startswith((f"{test}[", f"{test}::"))


def main(arguments: list[str] | None = None) -> int:
    """Run the mutants; 0 if every one of the contracts has some and all turned red."""
    parser = argparse.ArgumentParser(
        description="Break contracts in a copy and require a red test each time."
    )
    parser.add_argument(
        "contract", nargs="*", help=f"only these; all of {', '.join(CONTRACTS)} when none is given"
    )
    parser.add_argument("--workers", type=int, default=2, help="how many run side by side")
    parser.add_argument("--root", type=Path, default=HERE.parent.parent, help="the repository")
    given = parser.parse_args(arguments)
    wanted = {name.casefold() for name in given.contract} or {name.casefold() for name in CONTRACTS}
    if unknown := wanted - {name.casefold() for name in CONTRACTS}:
        parser.error(f"unknown contract {', '.join(sorted(unknown))}; there are {', '.join(CONTRACTS)}")
    contracts = [name for name in CONTRACTS if name.casefold() in wanted]
    root = given.root.resolve()
    with tempfile.TemporaryDirectory(prefix="topgraft-mutants-") as name:
        work = Path(name).resolve()
        try:
            read = [Mutant.read(path) for path in sorted((root / "tests" / "mutants").glob("*.patch"))]
            mutants = sorted(
                (mutant for mutant in read if mutant.contract in contracts),
                key=lambda mutant: (CONTRACTS.index(mutant.contract), mutant.path.name),
            )
            copy_tree(root, work / "pristine")
            with ThreadPoolExecutor(given.workers) as pool:
                shutil.copytree(work / "pristine", work / "green")  # tests may leave files where they run
                green = pool.submit(require_green, work / "green", mutants) if mutants else None
                judged = [pool.submit(judge, one, work / "pristine", work) for one in mutants]
                if green is not None:
                    try:
                        green.result()
                    except Broken:
                        pool.shutdown(wait=True, cancel_futures=True)
                        raise
        except Broken as error:
            print(error)
            return 1
        rows, details = [("contract", "patch", "test", "red?")], []
        for mutant, one in zip(mutants, judged, strict=True):
            red, test, detail = one.result()
            rows.append((mutant.contract, mutant.path.name, test, "yes" if red else "NO"))
            details += [] if red else [f"{mutant.path.name}\n{detail}"]
        without = [name for name in contracts if not any(mutant.contract == name for mutant in mutants)]
        rows += [(contract, "none", "there is no patch for this contract", "NO") for contract in without]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for detail in details:
        print(f"\n{detail}")
    return int(any(row[3] == "NO" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
