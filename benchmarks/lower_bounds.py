"""The oldest versions that pyproject.toml claims, in an environment of its own, and a sample of the tests there.

    python benchmarks/lower_bounds.py [--python python3.10] [--folder build/lowest]

Of each dependency with a lower bound the very version of that bound is installed; what those need in turn is as new
as it can be. Old versions warn of what newer ones changed: warnings are no failures here.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = None

ROOT = Path(__file__).parent.parent
EXTRAS = ("serve", "sound")
"""Those whose lower bounds are tried, too; the others claim none."""
TOOLS = ("pytest", "hypothesis", "polars")
SAMPLE = (
    *(
        "import",
        "chain",
        "fit",
        "estimators_classifier",
        "data",
        "data_tables",
        "data_pictures",
        "data_sounds",
    ),
    *("backbones_hf", "backbones_timm", "backbones_torchvision", "predict", "probe", "features_store"),
    *("tensorfile", "serve_app", "report_page", "commands", "train", "rows"),
)
"""Modules of tests that between them use every dependency."""


def pins(text: str) -> list[str]:
    """Each dependency of a pyproject.toml at its lower bound; those without one by name.

    >>> pins(
    ...     '[project]\\ndependencies = ["a>=1.2", "b"]\\n[project.optional-dependencies]\\nserve = ["c>=3"]'
    ... )
    ['a==1.2', 'b', 'c==3']
    """
    project = tomllib.loads(text)["project"]
    listed = [*project["dependencies"]]
    for extra in EXTRAS:
        listed += project.get("optional-dependencies", {}).get(extra, [])
    return [re.sub(r"\s*>=\s*([\w.]+).*", r"==\1", one) for one in listed]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--python", default="python3.10", help="the oldest one that is supported")
    options.add_argument("--folder", type=Path, default=ROOT / "build" / "lowest")
    given = options.parse_args()
    program = given.folder / "bin" / "python"
    if not program.exists():
        made = subprocess.run([given.python, "-m", "venv", given.folder])
        if made.returncode:
            print(f"{given.python} can't make an environment; give another: --python", file=sys.stderr)
            return 2
    wanted = pins((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    installed = subprocess.run([program, "-m", "pip", "install", "--quiet", *wanted, *TOOLS])
    if installed.returncode:
        print("These versions can't be installed together.", file=sys.stderr)
        return 1
    tests = [ROOT / "tests" / f"test_{name}.py" for name in SAMPLE]
    command = [program, "-m", "pytest", "-q", "-o", "filterwarnings=default"]
    return subprocess.run(
        [*command, "-m", "not slow and not exhaustive", *tests],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
