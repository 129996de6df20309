"""Ten times more examples: time and peak memory of the evidence, on pictures that are made for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COUNTS = (10_000, 100_000)
SIDE = 64
"""Pixels: what a network makes of a picture takes as long for a small one."""
CLASSES = 4
INTERVAL = 0.1
"""Seconds between two looks at the memory."""


def made(folder: Path, count: int) -> Path:
    """So many JPEG pictures, one folder a class: noise around a colour of the class, all different."""
    import numpy as np
    from PIL import Image

    done = folder / f"made-{count}"
    if done.is_dir():
        return done
    rng = np.random.default_rng(0)
    colours = rng.uniform(80, 176, (CLASSES, 3))
    with tempfile.TemporaryDirectory(dir=folder) as new:
        for name in range(CLASSES):
            (Path(new) / "all" / f"class-{name}").mkdir(parents=True)
        for number in range(count):
            label = number % CLASSES
            coarse = rng.normal(colours[label], 40, (8, 8, 3)).clip(0, 255).astype(np.uint8)
            picture = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            picture.save(Path(new) / "all" / f"class-{label}" / f"{number:06}.jpg", quality=85)
        (Path(new) / "all").rename(done)
    return done


def watched(command: Sequence[str], environment: dict[str, str]) -> dict[str, Any]:
    """A process from start to end: its seconds, its peak of anonymous memory in bytes, its JSON."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out, tempfile.TemporaryFile("w+") as err:
        began = time.monotonic()
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=err, text=True)
        peak = 0
        while process.poll() is None:
            peak = max(peak, anonymous(process.pid))
            time.sleep(INTERVAL)
        seconds = time.monotonic() - began
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise SystemExit(
                f"{' '.join(command[:3])} … ended with {process.returncode}:\n{err.read()[-2000:]}"
            )
        return {**json.loads(out.read()), "seconds": seconds, "peak": peak}


def anonymous(process: int) -> int:
    """Bytes of a process that belong to no file; 0 where it has just ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)


def scale(build: Path, counts: Sequence[int] = COUNTS) -> list[dict[str, Any]]:
    """Per number of pictures: seconds and peak memory of a cold `topgraft probe` with an empty store."""
    found = []
    for count in counts:
        folder = made(build, count)
        with tempfile.TemporaryDirectory(dir=build) as cache:
            command = [str(Path(sys.executable).with_name("topgraft")), "probe", str(folder), "--json", "-q"]
            told = watched(command, os.environ | {"TOPGRAFT_CACHE": cache})
        found.append({name: told[name] for name in ("seconds", "peak")} | {"count": count})
    return found
