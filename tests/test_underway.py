from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from topgraft.files import write_json
from topgraft.underway import speed_in
from topgraft.workload import Speed

SPEED = Speed(example=0.25, decoding=0.125, cores=2, training=0.5, kept=32)


def test_what_a_trial_measured_is_read_back_but_not_what_it_stored(tmp_path: Path) -> None:
    write_json(tmp_path / "speed.json", asdict(SPEED))
    assert speed_in(tmp_path / "speed.json") == replace(SPEED, kept=0)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"slow": 1}', "null", '{"example": 1.0}'])
def test_nothing_and_what_is_damaged_is_measured_anew(tmp_path: Path, text: str) -> None:
    assert speed_in(tmp_path / "speed.json") is None
    (tmp_path / "speed.json").write_text(text)
    assert speed_in(tmp_path / "speed.json") is None
