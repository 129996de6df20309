"""What a notebook shows: results as tables and figures, progress, and the example notebooks."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from command_line import table_of, tiny_job
from nbclient import NotebookClient
from torch import nn

import topgraft as tg
from topgraft.history import Epoch, History
from topgraft.notebook import MOST_ROWS, table
from topgraft.plan import Plan
from topgraft.score import Score

NOTEBOOKS = sorted((Path(__file__).parent.parent / "docs" / "notebooks").glob("*.ipynb"))
NAMES = ("<script>alert(1)</script>", "a & b")
IMAGE = re.compile(r'<img alt="[^"]+" src="data:image/svg\+xml;base64,([^"]+)">')


class Parsed(HTMLParser):
    """Tags that are opened and closed in order, and the text between them."""

    def __init__(self, shown: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text = ""
        self.feed(shown)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not [name for name, _ in attrs if name.startswith("on")]
        self.seen.append(tag)
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data}\n"


def shown(result: Any) -> Parsed:
    """What a notebook shows: well-formed, with no tag that runs anything, and pictures that are SVG."""
    code = result._repr_html_()
    parsed = Parsed(code)
    assert set(parsed.seen) <= {"p", "table", "caption", "thead", "tbody", "tr", "th", "td", "img"}
    for picture in IMAGE.findall(code):
        root = ET.fromstring(base64.b64decode(picture))
        assert root.tag.endswith("svg")
    assert parsed.seen.count("img") == len(IMAGE.findall(code))
    return parsed


@pytest.fixture(scope="module")
def backbone() -> tg.Backbone:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    return tg.load(network, modality="array", example=torch.randn(2, 4))


@pytest.fixture(scope="module")
def evidence() -> tg.Evidence:
    drawn = np.random.default_rng(0)
    targets = np.arange(60) % 2
    cuts = {
        k: torch.tensor(drawn.normal(targets[:, None] * k, 1, (60, 3)), dtype=torch.float32) for k in (1, 2)
    }
    return tg.probe(tg.Features(cuts, "key"), targets, np.arange(60) // 2 % 5, 2)


def test_whatever_the_data_holds_is_text(tmp_path: Path) -> None:
    rows = [(f"text {n} <img src=x onerror=alert(1)>", NAMES[n % 2]) for n in range(12)]
    data = tg.read(table_of(tmp_path / "<b>.csv", rows))
    found = shown(data)
    assert "script" not in found.seen
    assert "img" not in found.seen
    for name in NAMES:
        assert f"\n{name}\n6\n" in f"\n{found.text}"
    assert "12 examples, text, 2 classes" in found.text


def test_a_long_table_says_how_long_it_is() -> None:
    parsed = Parsed(table(["n"], [[n] for n in range(1000)]))
    assert parsed.seen.count("td") == MOST_ROWS + 1
    assert f"{MOST_ROWS} of 1,000 rows" in parsed.text


def test_a_backbone_shows_its_report_and_its_blocks(backbone: tg.Backbone) -> None:
    for result, pictures in ((backbone, 1), (backbone.chain, 1), (backbone.report, 0)):
        assert shown(result).seen.count("img") == pictures
    found = shown(backbone).text
    assert all(line in found for line in backbone.report.lines())
    for block in backbone.chain:
        assert f"\n{block.index}\n{block.name}\n{block.kind}\n" in found


def test_evidence_and_advice_show_every_depth(backbone: tg.Backbone, evidence: tg.Evidence) -> None:
    found = shown(evidence)
    assert found.seen.count("img") == 1
    for cut in evidence.cuts:
        assert f"\n{cut.keep}\n{100 * cut.score:.1f} %\n" in found.text
    advice = tg.advise(evidence, backbone.chain)
    assert f"keep {advice.keep}: {advice.reason}\n" in shown(advice).text


def test_a_history_shows_its_epochs_and_leaves_out_what_is_no_number() -> None:
    first = Epoch(0, float("nan"), 0.9, 0.5, 0.0, 0.0)
    history = History([first, Epoch(1, 0.8, 0.7, 0.625, 1e-4, 2.0)], best=1, stopped="all 1 epochs are done")
    found = shown(history)
    assert "0\n–\n0.900\n50.0 %\n0\n0.0\n" in found.text
    assert "1\n0.800\n0.700\n62.5 %\n0.0001\n2.0\nkept\n" in found.text
    assert found.seen.count("img") == 1
    assert shown(History([first])).seen.count("img") == 0


def test_scores_and_plans_show_values_and_reasons() -> None:
    assert (
        "accuracy\n71.3 %\n62.2 % to 79.0 %\n129\n" in shown(Score("accuracy", 0.713, 0.622, 0.79, 129)).text
    )
    assert "\n0.123\n– to –\n" in shown(Score("mean absolute error", 0.123, *[float("nan")] * 2, 9)).text
    plan = Plan()
    plan.decide("keep", lambda: (3, "<b>because</b>"))
    assert "keep\n3\n<b>because</b>\n" in shown(plan).text


@pytest.mark.usefixtures("own_store_one_thread")
def test_a_run_shows_its_scores_and_reasons(tmp_path: Path) -> None:
    job = tiny_job(tmp_path / "job")
    run = tg.fit(job.table, tmp_path / "a.topgraft", backbone=job.backbone, freeze="all")
    found = shown(run).text
    assert f"keep {run.keep} of 3" in found
    assert f"accuracy\n{100 * run.score:.1f} %\n" in found
    assert str(run.folder) in found
    assert all(reason in found for reason in run.result["reasons"].values())


def test_there_are_notebooks_for_pictures_and_texts() -> None:
    assert [path.name for path in NOTEBOOKS] == ["pictures.ipynb", "texts.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_outputs(path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert cells
    assert not [cell for cell in cells if cell.outputs or cell.execution_count]


def executed(book: Any, folder: Path) -> list[Any]:
    """The outputs of a notebook that is run whole, in a kernel of this Python."""
    NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return [output for cell in book.cells for output in cell.get("outputs", ())]


def terminal(text: str) -> list[str]:
    """Lines as a notebook shows them: what follows a carriage return takes the place of what was before."""
    plain = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", text)
    return [line.rpartition("\r")[2] for line in plain.split("\n")]


@pytest.mark.filterwarnings("ignore")  # of Jupyter's own parts
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=p.stem, marks=pytest.mark.slow if p.stem == "texts" else pytest.mark.exhaustive)
        for p in NOTEBOOKS
    ],
)
def test_a_notebook_runs_and_results_show_themselves(path: Path, tmp_path: Path, cache: Path) -> None:
    outputs = executed(nbformat.read(path, as_version=4), tmp_path)
    htmls = [o.data["text/html"] for o in outputs if "text/html" in o.get("data", {})]
    assert len(htmls) >= 3
    assert all(Parsed(html).seen for html in htmls)
    said = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stderr")
    bars = [line for line in terminal(said) if line.startswith("Untouched")]
    assert len(bars) == 1, "one line, redrawn"
    assert re.search(r"━ +(\d+)/\1 examples", bars[0]), "it ends full"
    assert 'install "ipywidgets"' not in said, "rich's own way, without which it shows nothing"
    assert cache.is_dir()
