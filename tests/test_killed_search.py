"""A sample of ``benchmarks/killed_search.py``: kills at random moments, again and again, the same bits."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from killed_search import Search, decided_anew, killed, told, undisturbed
from torture_job import Job


@pytest.mark.exhaustive
@pytest.mark.usefixtures("one_thread")
def test_a_search_that_is_killed_at_random_moments_ends_with_the_same_bits(tmp_path: Path) -> None:
    job = Job(tmp_path, each=20)
    assert job.data.is_dir()
    for name in ("reference", "disturbed", "spoilt"):
        (tmp_path / name).mkdir()
    reference, usual = undisturbed(job, tmp_path / "reference")
    one = killed(job, tmp_path / "disturbed", reference, random.Random(0), usual=usual, most=3)
    assert one.wrong == []
    assert one.kills >= 1
    assert one.tried > 4
    # a run with other bits would be noticed
    shutil.copytree(tmp_path / "disturbed" / "run", tmp_path / "spoilt" / "run")
    weights = tmp_path / "spoilt" / "run" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    again = killed(job, tmp_path / "spoilt", reference, random.Random(0), usual=usual, most=0)
    assert again.wrong != []


def test_what_a_later_process_decides_again_is_noticed() -> None:
    assert decided_anew({"keep": 3}, {"keep": 3, "candidate": 2}) == []
    assert decided_anew({"keep": 3}, {}) == ["keep was decided anew"]


def test_searches_that_went_wrong_are_counted() -> None:
    said = told([Search(3, 1, 9), Search(2, 2, 9, ["model.safetensors differs"])])
    assert said == "2 searches of 9 short trainings, 5 kills, 3 amid the search: 1 ended with other bits"
