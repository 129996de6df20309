from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from command_line import called, done

SOURCE = '''
import torch
from torch import nn


class Both(nn.Module):
    """Two maps of different sizes, side by side, each made from both."""

    def __init__(self):
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(4, 4, 1), nn.Conv2d(5, 5, 1)

    def forward(self, fine, coarse):
        level = fine.mean((1, 2, 3), keepdim=True) + coarse.mean((1, 2, 3), keepdim=True)
        return self.fine(fine) + level, self.coarse(coarse) + level


class Forking(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.side = nn.Conv2d(3, 4, 16, stride=16), nn.Conv2d(4, 5, 2, stride=2)
        self.blocks = nn.ModuleList([Both(), Both()])
        self.ends = nn.ModuleList([nn.Linear(9, 9) for _ in range(3)])
        self.fc = nn.Linear(9, 2)

    def forward(self, x):
        fine = self.stem(x)
        coarse = self.side(fine)
        for block in self.blocks:
            fine, coarse = block(fine, coarse)
        x = self.ends[0](torch.cat([fine.mean((2, 3)), coarse.mean((2, 3))], 1))
        x = self.ends[1](x)
        if x.abs().sum() > 0:
            x = x + 1
        return self.fc(self.ends[2](x))


def forking():
    return Forking()


def plain():
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(nn.Conv2d(3, 4, 16, stride=16), pool, nn.Flatten(), nn.Linear(4, 2))
'''
FORKING, PLAIN = "layers_for_a_test:forking", "layers_for_a_test:plain"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "layers_for_a_test.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("layers_for_a_test", None)


def test_without_why_one_line_says_how_many_cuts_were_refused() -> None:
    out = done("layers", FORKING).out
    count = len(done("layers", FORKING, "--json").json["refused"])
    assert count > 1
    assert out.count("refused") == 1
    assert out.splitlines()[-1] == f"{count} cuts were tried and refused; --why tells the reason"
    assert "refused" not in done("layers", PLAIN).out
    assert done("layers", PLAIN, "--why").out.count("No cut was refused.") == 1


def test_why_lists_refused_cuts_differences_and_the_shapes_of_several_activations() -> None:
    document = done("layers", FORKING, "--json").json
    out = done("layers", FORKING, "--why").out
    table, rest = out.split("\n\n", 1)
    for block, line in zip(document["blocks"], table.splitlines()[1:], strict=True):
        assert line.split()[1] == block["name"]
        assert line.endswith(f"equal, difference {block['difference']:.2g}")
    assert "  blocks.0: map 4×14×14 + map 5×7×7\n" in rest or "  blocks.0: map 5×7×7 + map 4×14×14\n" in rest
    refused = document["refused"]
    listed = "".join(f"  {cut['block']}: {cut['reason']}\n" for cut in refused)
    assert f"{len(refused)} cuts that were tried and refused, with the reason:\n{listed}" in rest
    assert refused[0]["block"] == "ends.2"
    assert "layers_for_a_test.py, line" in refused[0]["reason"]
    assert "--why" not in out


def test_json_has_every_activation_and_the_table_too() -> None:
    document = done("layers", FORKING, "--json").json
    assert document.keys() == {"backbone", "blocks", "refused", "keep", "freeze"}
    shapes = {b["name"]: b["shapes"] for b in document["blocks"]}
    assert sorted(shapes["blocks.0"]) == [[4, 14, 14], [5, 7, 7]]
    assert shapes["ends.0"] == [[9]]
    for block in document["blocks"]:
        assert block["shape"] == block["shapes"][0]
    [line] = [line for line in done("layers", FORKING).out.splitlines() if " blocks.0 " in line]
    assert " + ".join("×".join(map(str, shape)) for shape in shapes["blocks.0"]) in line


def test_keep_and_freeze_are_shown_in_the_table_in_words_and_in_json() -> None:
    names = [b["name"] for b in done("layers", FORKING, "--json").json["blocks"]]
    assert names == ["blocks.0", "blocks.1", "ends.0", "ends.1"]
    out = done("layers", FORKING, "--keep", "75%", "--freeze", "50%").out
    fates = [line.split()[-1] for line in out.splitlines()[1:5]]
    assert fates == ["frozen", "frozen", "trained", "dropped"]
    assert "keep 3 (to ends.0): 75 % of 4 blocks is 3\n" in out
    assert "freeze 2 (to blocks.1): 50 % of 3 kept blocks is 2\n" in out
    document = done("layers", FORKING, "--keep", "blocks", "--json").json
    assert (document["keep"], document["freeze"]) == (2, None)
    document = done("layers", FORKING, "--freeze", "1", "--json").json
    assert (document["keep"], document["freeze"]) == (4, 1)


def test_the_picture_is_written_and_shows_where_keep_and_freeze_fall(here: Path) -> None:
    out = done("layers", FORKING, "--svg", "chain.svg", "--keep", "3", "--freeze", "blocks").out
    assert "Drawn in chain.svg\n" in out
    written = (here / "chain.svg").read_text()
    assert ET.fromstring(written).attrib["role"] == "img"
    assert f"{FORKING}: 4 blocks, input side first" in written
    assert "frozen: blocks 1 to 2" in written
    assert "trained: block 3 and the new head" in written
    assert "dropped: block 4" in written
    done("layers", FORKING, "--svg", "chain.svg", "--json")
    assert "frozen:" not in (here / "chain.svg").read_text()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--keep", "0%"), "keep=0% is none of the 4 blocks"),
        (("--keep", "130%"), "keep=130% is more than all of the 4 blocks"),
        (("--keep", "abc%"), "keep=abc% is no share of the 4 blocks"),
        (("--keep", "2", "--freeze", "101%"), "freeze=101% is more than all of the 2 blocks that are kept"),
        (("--keep", "2", "--freeze", "3"), "freeze=3 is more than the 2 blocks that are kept"),
        (("--keep", "auto"), "keep=auto is decided on data"),
        (("--freeze", "auto"), "freeze=auto is decided on data"),
        (("--keep", "blocks.7"), "Nearest: blocks."),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_written(
    here: Path, more: tuple[str, ...], says: str
) -> None:
    (here / "chain.svg").write_text("an older picture")
    outcome = called("layers", FORKING, "--svg", "chain.svg", *more)
    assert outcome.status == 2
    assert says in outcome.err
    assert outcome.out == ""
    assert (here / "chain.svg").read_text() == "an older picture"


def test_a_picture_that_cannot_be_written_leaves_nothing(here: Path) -> None:
    (here / "folder").mkdir()
    before = sorted(here.rglob("*"))
    for place, says in (("nowhere/chain.svg", "nowhere does not exist"), ("folder", "could not be written")):
        outcome = called("layers", PLAIN, "--svg", place)
        assert outcome.status == 2
        assert says in outcome.err
    assert {p for p in here.rglob("*") if "__pycache__" not in p.parts} == set(before)
