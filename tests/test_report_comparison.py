from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import called, done
from compared import CURVES, answer, comparison_file

from topgraft.curves import PRETRAINED, SCRATCH
from topgraft.report.comparison import gather_comparison


def test_it_is_the_answer_of_the_comparison_and_its_sentence_stands_first(tmp_path: Path):
    document = gather_comparison(comparison_file(tmp_path / "c.json"))
    said = answer()
    assert document["comparison"] == said
    assert document["summary"][0] == said["sentence"]
    assert document["summary"][0].startswith("Pretraining was worth it: ")
    assert document["summary"][1] == "a note <b>&</b> more"
    assert "120 untouched examples" in document["summary"][2]
    assert [s[:-1].casefold() for s in document["summary"][3:]] == [
        words.casefold() for words in said["saved_in_words"]
    ]
    assert document["again"] == {
        "settings": {"seed": 0, "budget": 60.0},
        "data": "d1",
        "weights": "w1",
        "versions": {"python": "3.11.7"},
    }


def test_what_json_said_serves_as_well(tmp_path: Path):
    (tmp_path / "said.json").write_text(json.dumps(answer()))
    whole = gather_comparison(comparison_file(tmp_path / "c.json"))
    document = gather_comparison(tmp_path / "said.json")
    assert (document["comparison"], document["summary"]) == (whole["comparison"], whole["summary"])


def test_where_pretraining_lost_the_first_sentence_says_so(tmp_path: Path):
    lost = CURVES | {SCRATCH: (0.8, 0.85, 0.9, 0.95), PRETRAINED: (0.2, 0.3, 0.3, 0.4)}
    document = gather_comparison(comparison_file(tmp_path / "c.json", lost))
    assert document["summary"][0].startswith("Pretraining lost: training from scratch is better by ")
    assert any(s.startswith("Labels: none saved: ") for s in document["summary"])
    assert any(s.startswith("Time: none saved: ") for s in document["summary"])


def spoilt(what: str) -> Any:
    found = answer()
    if what == "unfinished":
        return {"made_from": {}, "outcomes": []}
    if what == "older":
        return {"arms": [], "best": "", "verdict": ""}
    if what == "damaged":
        del found["arms"][0]["curve"][0]["low"]
    if what == "no numbers":
        found["arms"][0]["curve"][0]["low"] = "low"
    return [found] if what == "a list" else found


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("unfinished", "not finished"),
        ("older", "is no comparison of this version"),
        ("damaged", "is damaged"),
        ("no numbers", "is damaged"),
        ("a list", "is no comparison"),
    ],
)
def test_what_is_no_finished_comparison_is_refused_and_nothing_is_written(
    tmp_path: Path, what: str, message: str
):
    file = tmp_path / "c.json"
    file.write_text(json.dumps(spoilt(what)))
    outcome = called("report", file)
    assert outcome.status == 2
    assert message in outcome.err
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_is_no_json_is_refused(tmp_path: Path):
    (tmp_path / "c.txt").write_text("no JSON")
    assert called("report", tmp_path / "c.txt").status == 2


def test_the_page_is_written_beside_the_file_and_json_gives_its_numbers(tmp_path: Path):
    file = comparison_file(tmp_path / "c.json")
    outcome = done("report", file, "--json")
    document = json.loads(outcome.out)
    assert document["report"] == str(tmp_path / "c.html")
    assert document["numbers"] == gather_comparison(file)
    assert document["numbers"]["comparison"]["sentence"] in outcome.err
    assert (tmp_path / "c.html").is_file()
