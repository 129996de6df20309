from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import planning
import pytest
from planning import Assumed, Measured, amount, hours, page, section

MADE_UP = Measured(
    bytes_read=5e3,
    pixels=9e4,
    reading=0.006,
    decoding=0.002,
    network=0.018,
    network_openvino=0.010,
    pooled=20_000,
    states={"stem": 1_600_000, "middle": 40_000, "last": 250_000},
    probing=0.0009,
    dispatching=0.004,
    listed=4_000.0,
    macs=4e8,
    machine=("- a core",),
)


def cells(text: str, first: str) -> list[str]:
    """The cells of the row that begins so."""
    row = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


def test_what_ten_million_take_is_what_the_arithmetic_says():
    text = section(10_000_000, MADE_UP, Assumed(core_hour=0.1, gigabyte_month=0.5, picture_bytes=1e5))
    assert cells(text, "read, by the workers") == ["10,000,000 x 100.0 kB", "1.0 TB"]
    assert cells(text, "the pass, by OpenVINO")[1] == "33 core-hours"  # 1e7 * 12 ms
    assert cells(text, "stored, pooled")[1] == "200.0 GB"
    assert cells(text, "stored, smallest state in bf16")[1] == "200.0 GB"
    assert cells(text, "the probes")[1] == "2.5 core-hours"
    assert cells(text, "money, computing")[1] == "3.6"
    assert cells(text, "money, a month of the store")[1] == "200"


def test_the_slowest_part_is_what_holds_the_pass_up():
    text = section(10_000_000, MADE_UP, Assumed(disk=1e9, picture_bytes=1e5))
    one, some = cells(text, "1"), cells(text, "16")
    assert one == ["2.1 h", "17 min", "42 min", "2.1 h", "computing"]  # 1e7 * 12 ms / 16 cores
    assert some == ["8 min", "17 min", "42 min", "42 min", "the leading process"]  # 625,000 batches of 4 ms
    slow = section(10_000_000, MADE_UP, Assumed(disk=1e8, picture_bytes=1e5))
    assert cells(slow, "256") == ["0 min", "2.8 h", "42 min", "2.8 h", "the file system"]


def test_the_page_tells_what_is_measured_what_is_assumed_and_what_breaks():
    text = page(MADE_UP, Assumed(memory=64e9))
    assert "the same by OpenVINO in fp32 | 10.0 ms" in text
    assert "64.0 GB / 20.0 kB = 3.2 million examples" in text
    assert "10,000,000 x 6.0 ms = 17 hours" in text
    assert "which keeps\n   48 cores busy" in text  # 16 examples in 4 ms, 12 ms each
    assert "## 1,000,000,000 examples" in text
    assert "{" not in text


def test_what_was_not_measured_is_said_so():
    text = page(replace(MADE_UP, network_openvino=None, dispatching=None), Assumed())
    assert "the same by OpenVINO in fp32 | not installed" in text
    assert "the leading process on Ray, for a batch of 16 | not measured" in text
    assert "the pass, by PyTorch" in text
    assert "4. **" not in text


def test_what_was_measured_is_kept_and_assumptions_are_options(tmp_path, monkeypatch):
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "planning.json").write_text(json.dumps(asdict(MADE_UP)))
    monkeypatch.setattr(planning, "ROOT", tmp_path)
    planning.main(["--core-hour", "7", "--page", str(tmp_path / "page.md")])
    written = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert written == page(MADE_UP, Assumed(core_hour=7.0))
    assert [path.name for path in Path(tmp_path).iterdir() if path.suffix == ".md"] == ["page.md"]


@pytest.mark.parametrize(
    ("given", "said"),
    [((512, "B"), "512 B"), ((2e15, "B"), "2.0 PB"), ((4.25, "core-hours"), "4.2 core-hours")],
)
def test_amounts_have_the_prefix_that_suits_them(given, said):
    assert amount(*given) == said


def test_times_are_in_the_unit_that_suits_them():
    assert [hours(s) for s in (60, 7200, 400 * 3600)] == ["1 min", "2.0 h", "17 days"]
