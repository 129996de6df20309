"""Changed files of every kind: opened rightly, or refused by an error of topgraft's own.

``make fuzz`` does the same for as long as one likes, guided by coverage.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from fuzz_changes import DROPPED, Change, Edit, Flip, Put, Turn, changes_of
from fuzz_checked import checked
from fuzz_readers import READERS
from hypothesis import HealthCheck, Phase, given, settings

from topgraft.files import DamagedFile
from topgraft.report.damage import drawing

FEW = {"hub folder": 12, "graft": 25, "run": 25, "sounds": 25, "graft of rows": 15}
"""Examples of those readers that take longer than the others."""


@pytest.fixture(scope="module")
def valid() -> dict[str, Path]:
    return {}


def made(name: str, valid: dict[str, Path], factory: pytest.TempPathFactory) -> Path:
    if name not in valid:
        place = factory.mktemp("valid") / "case"
        place.mkdir()
        READERS[name].make(place)
        READERS[name].open(place)
        valid[name] = place
    return valid[name]


@pytest.mark.parametrize("name", READERS)
def test_a_changed_file_is_opened_rightly_or_refused(
    name: str,
    valid: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOPGRAFT_CACHE", str(tmp_path_factory.getbasetemp() / "fuzz-store"))
    place = made(name, valid, tmp_path_factory)
    assert checked(READERS[name], place, []) == "opened"
    outcomes: list[str] = []

    @settings(
        max_examples=FEW.get(name, 40),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.reuse, Phase.generate),  # a change is small as it is; a hang takes long to make smaller
    )
    @given(changes_of(place, turned=READERS[name].turned))
    def hold(changes: Sequence[Change]) -> None:
        outcomes.append(checked(READERS[name], place, changes))

    hold()
    rarely = name in ("catalogue", "checkpoint")  # they are left out, or begun anew
    assert rarely or "refused" in outcomes, "the changes changed nothing that matters"


FOUND: tuple[tuple[str, Change], ...] = (
    ("checkpoint", Put("amid.json", (), None)),
    ("checkpoint", Put("history.json", ("epochs",), DROPPED)),
    ("graft", Put("graft.json", ("outputs",), 5)),
    ("graft", Put("preprocessing/preprocess.json", ("key",), [])),
    ("graft", Turn("preprocessing/preprocess.json", "pipe")),
    ("hub folder", Put("config.json", ("num_hidden_layers",), None)),
    ("hub folder", Put("config.json", ("num_hidden_layers",), 10**9)),
    ("hub folder", Put("config.json", ("intermediate_size",), 1 << 28)),
    ("hub folder", Put("config.json", ("intermediate_size",), -16)),
    ("hub folder", Put("config.json", ("num_attention_heads",), 0)),
    ("hub folder", Put("config.json", ("pad_token_id",), 255)),
    ("hub folder", Put("config.json", ("architectures",), 0.5)),
    ("hub folder", Put("tokenizer_config.json", ("unk_token",), "[UNJ]")),
    ("preprocessing", Put("text/preprocess.json", ("keys",), None)),
    ("preprocessing", Put("text/preprocess.json", ("pad_token",), None)),
    ("preprocessing", Put("sound/preprocess.json", ("coverage",), [])),
    ("preprocessing", Put("sound/preprocess.json", ("bands",), 255)),
    ("preprocessing", Put("sound/preprocess.json", ("rate",), 5)),
    ("run", Put("run/result.json", ("health", "verdicts"), 0.5)),
    ("run", Put("run/evidence.json", ("evidence",), None)),
    ("run", Turn("run/chain.svg", "pipe")),
    ("run", Put("run/result.json", ("score",), DROPPED)),
    ("weights", Turn("old.pth", "pipe")),
)
"""What once ended in something else than an error of topgraft's own, or did not end."""


@pytest.mark.parametrize(("name", "change"), FOUND)
def test_what_was_found_stays_refused(
    name: str, change: Change, valid: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = made(name, valid, tmp_path_factory)
    expected = "opened" if name == "checkpoint" else "refused"  # a training begins anew, and says so
    assert checked(READERS[name], place, [change]) == expected


def test_a_scale_beyond_all_whole_numbers_of_torch_is_a_scale(
    valid: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    change = Put("picture/preprocess.json", ("scale",), 10**30)
    assert (
        checked(READERS["preprocessing"], made("preprocessing", valid, tmp_path_factory), [change])
        == "opened"
    )


@pytest.mark.parametrize(
    "inside",
    [
        "<script/>",
        '<g onload="x()"/>',
        '<a href="https://example.org"/>',
        "<!-- <g> -->",
        '<foreignObject><meta http-equiv="refresh"/></foreignObject>',
    ],
)
def test_a_drawing_that_acts_is_not_put_into_a_page(tmp_path: Path, inside: str) -> None:
    place = tmp_path / "chain.svg"
    place.write_text(f'<svg xmlns="http://www.w3.org/2000/svg"><g/>{inside}</svg>')
    with pytest.raises(DamagedFile, match="not the drawing of a chain"):
        drawing(place)
    place.write_text('<svg xmlns="http://www.w3.org/2000/svg"><g/><text>a &lt;b&gt; c</text></svg>')
    assert "&lt;b&gt;" in drawing(place)


@pytest.mark.exhaustive
def test_changes_can_be_guided_by_coverage() -> None:
    pytest.importorskip("atheris")
    program = Path(__file__).parent.parent / "benchmarks" / "fuzz.py"
    command = [
        sys.executable,
        str(program),
        "--engine",
        "atheris",
        "--reader",
        "safetensors",
        "--minutes",
        "0.4",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"safetensors +[\d,]+ opened +[1-9][\d,]* refused +0 failed", done.stdout)


def test_no_change_writes_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / "a.json").write_text("{}")
    Turn("a.json", "secret").apply(tmp_path / "case")
    for change in (Put("a.json", (), 1), Edit("a.json", 0.0, 9, b"x"), Flip("a.json", 0.0, 1)):
        change.apply(tmp_path / "case")
    assert (tmp_path / "secret").read_text() == "a secret"
