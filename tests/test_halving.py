from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from topgraft.errors import RunningError
from topgraft.halving import Halving, MemoryWarning, part_of

TOO_MUCH = 2**46
"""Bytes: more than any machine gives, so that the allocator itself refuses."""


def needs(rows: Tensor, limit: int) -> Tensor:
    """Twice the rows; more than ``limit`` of them need more memory than there is."""
    torch.empty(TOO_MUCH if len(rows) > limit else 1, dtype=torch.uint8)
    return rows * 2


@given(st.integers(1, 40), st.integers(1, 40))
def test_what_fits_in_parts_is_run_in_parts_and_nothing_is_lost(count: int, limit: int) -> None:
    halving, rows = Halving(), torch.arange(count)
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MemoryWarning)
            assert torch.equal(halving.run(rows, lambda some: needs(some, limit), torch.cat), rows * 2)
    if count <= limit:
        assert halving.most is None
    else:
        assert halving.most is not None
        assert limit / 2 - 1 < halving.most <= limit


def test_each_smaller_size_is_said_once() -> None:
    halving, rows = Halving(), torch.arange(16)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            halving.run(rows, lambda some: needs(some, 5), torch.cat)
    assert [str(w.message) for w in told] == [
        "There was not enough memory for 16 examples at once: from now on 8.",
        "There was not enough memory for 8 examples at once: from now on 4.",
    ]


def test_one_that_does_not_fit_is_an_error_of_the_run() -> None:
    with pytest.raises(RunningError, match="not enough memory for one example"), pytest.warns(MemoryWarning):
        Halving().run(torch.arange(4), lambda some: needs(some, 0), torch.cat)


def test_other_failures_are_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError, match="must match"):
        Halving().run(torch.arange(4), lambda some: some + torch.ones(3), torch.cat)


def test_a_part_of_a_batch_is_of_every_tensor() -> None:
    part = part_of({"a": torch.arange(6), "b": torch.arange(12).view(6, 2)}, range(2, 5))
    assert part["a"].tolist() == [2, 3, 4]
    assert part["b"].tolist() == [[4, 5], [6, 7], [8, 9]]


SCRIPT = """
import gc, json, resource, sys, warnings
from pathlib import Path
import torch
from torch import nn
import topgraft as tg
from topgraft.features.store import Store

torch.manual_seed(0)
network = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 4, 3, padding=1)).eval()
maps = torch.randn(32, 3, 256, 256)
data = tg.read((maps.numpy(), [i % 2 for i in range(32)]))
backbone = tg.load(network, modality="array", example=maps[:2])
torch.set_num_threads(1)
usual, _ = tg.one_pass(backbone, data, Store(Path(sys.argv[1], "usual")))
gc.collect()  # else what the first pass left behind makes room for the second
used = int(next(l for l in open("/proc/self/status") if l.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + 200 * 2**20,) * 2)
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    few, _ = tg.one_pass(backbone, data, Store(Path(sys.argv[1], "few")))
gap = max(float((few.cuts[c] - usual.cuts[c]).abs().max()) for c in usual.cuts)
print(json.dumps({"gap": gap, "told": [str(w.message) for w in told]}))
"""


@pytest.mark.slow
def test_a_pass_with_too_little_memory_goes_on_with_smaller_batches(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["gap"] < 1e-4
    assert any("not enough memory for 16 examples at once: from now on 8" in line for line in found["told"])
