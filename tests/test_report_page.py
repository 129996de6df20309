from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from command_line import called, done, table_of, tiny_job, word_texts
from PIL import Image

from topgraft.evidence import Evidence
from topgraft.report.figures import figures
from topgraft.report.ink import PAPER, VARIABLES, to_svg
from topgraft.report.numbers import gather

ODD = {"praise": 'praise <b>"$x_1$" & </script>', "blame": "blame"}
"""A class whose name would be markup, or a formula, where it is not shown as it is."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fit that trained two blocks, on classes with odd names."""
    place = tmp_path_factory.mktemp("report")
    job = tiny_job(place / "job")
    rows = [(text, ODD.get(label, label)) for text, label in word_texts(45)]
    table = table_of(place / "odd.csv", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPGRAFT_CACHE", str(place / "store"))
        trained = ("--keep", "2", "--freeze", "0", "--epochs", "2")
        done("fit", table, "-o", place / "odd.topgraft", "--backbone", job.backbone, *trained)
        yield place / "odd.topgraft"


class Seen(HTMLParser):
    """What a browser would see: elements with their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.numbers = ""
        self._in = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in = tag

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self.numbers += data
        elif data.strip():
            self.texts.append(data.strip())


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    done("report", run)
    return (run / "report.html").read_text(encoding="utf-8")


def test_the_numbers_are_those_of_the_run(run: Path):
    document = gather(run)
    result = json.loads((run / "result.json").read_text())
    evidence = Evidence.from_json(json.loads((run / "evidence.json").read_text())["evidence"])
    assert [c["score"] for c in document["depth"]["cuts"]] == [c.score for c in evidence.cuts]
    assert [c["keep"] for c in document["depth"]["cuts"] if c["in_set"]] == result["advice"]["in_set"]
    matrix = np.array(document["untouched"]["confusion"])
    assert matrix.sum() == result["score"]["n"]
    assert np.trace(matrix) / matrix.sum() == pytest.approx(result["score"]["value"])
    mistakes = document["untouched"]["mistakes"]
    assert len(mistakes) == min(12, matrix.sum() - np.trace(matrix))
    sure = [m["confidence"] for m in mistakes]
    assert sure == sorted(sure, reverse=True)
    assert document["training"]["epochs"] == result["history"]
    assert len(result["history"]) > 1
    assert {v["name"] for v in document["health"]["verdicts"]} == {
        *result["blocks"]["trained"],
        "head",
    }
    assert document["again"]["data"] == json.loads((run / "run.json").read_text())["command"]["data"]


def test_each_figure_shows_the_numbers_that_the_page_holds_and_says_what_to_conclude(run: Path):
    document = gather(run)
    drawn = {one.name: one for one in figures(document)}
    assert list(drawn) == ["depth", "trade-off", "training", "health", "confusion", "calibration"]
    assert [row[2] for row in drawn["depth"].rows] == [c["score"] for c in document["depth"]["cuts"]]
    assert [list(row[1:]) for row in drawn["confusion"].rows] == document["untouched"]["confusion"]
    counts = [b["count"] for b in document["calibration"]["bins"]]
    assert [row[2] for row in drawn["calibration"].rows] == [n for n in counts if n]
    for one in drawn.values():
        assert len(one.title) > 20
        assert len(one.told) > 20
        text = to_svg(one)
        assert text == to_svg(one)  # the same bytes each time
        assert "var(--text)" in text
        assert not any(colour in text for colour in VARIABLES)
    axes = drawn["depth"].draw(PAPER).axes[0]
    heights = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert heights == pytest.approx([100 * c["score"] for c in document["depth"]["cuts"]])


def test_the_page_needs_nothing_else_and_holds_the_numbers_as_json(run: Path, page: str):
    seen = Seen(page)
    for tag, attributes in seen.elements:
        assert tag not in ("link", "iframe", "object", "embed")
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), (tag, value)
    assert [a.get("type") for t, a in seen.elements if t == "script"] == ["application/json"]
    document = gather(run)
    assert json.loads(seen.numbers) == json.loads(json.dumps(document))


def test_names_are_text_whatever_they_look_like(run: Path, page: str):
    del run
    seen = Seen(page)
    assert "b" not in {tag for tag, _ in seen.elements}
    assert any(ODD["praise"][-16:] in text or ODD["praise"] in text for text in seen.texts)


def test_every_figure_has_a_text_for_those_who_can_not_see_it(page: str):
    seen = Seen(page)
    drawn = [a for t, a in seen.elements if t == "div" and a.get("role") == "img"]
    assert len(drawn) == 6
    assert all(len(a["aria-label"] or "") > 20 for a in drawn)
    assert all(a.get("alt") for t, a in seen.elements if t == "img")


def test_figures_and_numbers_are_written_as_files(run: Path, tmp_path: Path):
    outcome = done("report", run, "-o", tmp_path / "page.html", "--figures", tmp_path / "figures", "--json")
    assert json.loads(outcome.out) == {
        "report": str(tmp_path / "page.html"),
        "figures": str(tmp_path / "figures"),
    }
    assert (tmp_path / "page.html").is_file()
    document = gather(run)
    for one in figures(document):
        with Image.open(tmp_path / "figures" / f"{one.name}.png") as picture:
            assert picture.width > 600
        assert (tmp_path / "figures" / f"{one.name}.svg").read_text().startswith("<?xml")
        rows = list(csv.reader(io.StringIO((tmp_path / "figures" / f"{one.name}.csv").read_text())))
        assert tuple(rows[0]) == one.header
        assert len(rows) == len(one.rows) + 1
    assert json.loads((tmp_path / "figures" / "numbers.json").read_text()) == json.loads(json.dumps(document))


def test_what_is_no_finished_run_is_refused_and_nothing_is_written(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "not-there"):
        outcome = called("report", folder)
        assert outcome.status == 2
        assert "holds no finished run" in outcome.err
    assert list((tmp_path / "empty").iterdir()) == []


def test_every_stage_of_a_fit_has_a_title() -> None:
    from topgraft.ledger import STAGES
    from topgraft.report.numbers import TITLES

    assert list(TITLES) == list(STAGES)
