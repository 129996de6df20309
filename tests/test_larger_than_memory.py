"""Shards larger than the memory are read, passed and probed: it does not grow with their bytes."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROGRAM = """
import json, os, resource, sys, threading, time
import timm, torch
from topgraft.backbones import load
import topgraft.measuring, topgraft.cli
from topgraft.cli import main

def kept(of="RssAnon"):
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith(of))

shards, more = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
if more:
    resource.setrlimit(resource.RLIMIT_DATA, (kept("VmData") + more,) * 2)
before = peak = kept()
done = threading.Event()

def watch():
    global peak
    while not done.wait(0.02):
        peak = max(peak, kept())

watching = threading.Thread(target=watch)
watching.start()
try:
    main(["probe", shards, "--backbone", "timm/test_efficientnet", "--weights", "none", "--engine", "torch",
          "--precision", "fp32", "--resize", "crop", "--batch-size", "8", "--json"])
finally:
    done.set()
    watching.join()
    print(json.dumps({"before": before, "peak": peak}), file=sys.stderr)
"""


def write_large_shards(folder: Path, count: int, *, side: int = 516, each: int = 125) -> int:
    """Shards of pictures of 3 side² bytes, of two classes that differ in colour; their bytes."""
    stream = np.random.default_rng(0)
    noises = [stream.integers(0, 12, (side, side, 3), dtype=np.uint8) for _ in range(8)]
    folder.mkdir()
    for first in range(0, count, each):
        with tarfile.open(folder / f"large-{first // each:03d}.tar", "w") as archive:
            for number in range(first, min(first + each, count)):
                patches = stream.integers(40, 180, (4, 4, 3), dtype=np.uint8)
                patches[..., number % 2] += 60
                picture = patches.repeat(side // 4, axis=0).repeat(side // 4, axis=1) + noises[number % 8]
                file = io.BytesIO()
                Image.fromarray(picture).save(file, "BMP")
                for name, content in (
                    (f"{number:05d}.bmp", file.getvalue()),
                    (f"{number:05d}.cls", b"%d" % (number % 2)),
                ):
                    one = tarfile.TarInfo(name)
                    one.size = len(content)
                    archive.addfile(one, io.BytesIO(content))
    return sum(path.stat().st_size for path in folder.iterdir())


def probed(shards: Path, store: Path, *, more: int = 0) -> tuple[dict[str, int], int]:
    """Bytes of private memory before and at most while the shards were probed, and the number of examples.

    With ``more`` the program gets no more than so many bytes beside what its libraries have taken.
    """
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(shards), str(more)],
        env={**os.environ, "TOPGRAFT_CACHE": str(store), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = re.search(r"([\d,]+) pictures in 2 classes", run.stderr)
    assert found is not None, run.stderr
    assert json.loads(run.stdout)["cuts"]
    return json.loads(run.stderr.splitlines()[-1]), int(found[1].replace(",", ""))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured as Linux tells it")
def test_memory_does_not_grow_with_the_bytes_of_shards(tmp_path: Path) -> None:
    size = write_large_shards(tmp_path / "shards", 500)
    memory, examples = probed(tmp_path / "shards", tmp_path / "store")
    assert examples == 500
    assert size > 390_000_000
    assert memory["peak"] - memory["before"] < 240_000_000, memory


@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_two_gigabytes_of_shards_are_probed_within_one(tmp_path: Path) -> None:
    size = write_large_shards(tmp_path / "shards", 650, side=1032)
    assert size > 2_000_000_000
    memory, examples = probed(tmp_path / "shards", tmp_path / "store", more=500_000_000)
    assert examples == 650
    assert memory["peak"] < 1_000_000_000, memory
