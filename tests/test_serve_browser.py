"""The page of ``topgraft serve`` in a real browser: a file is dropped, a text typed, the answer read."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import VIEWS, opened, scrolls_sideways, violations
from hub_cache import tiny_bert
from made_rows import table
from packaged_data import pictures_of
from PIL import Image
from playwright.sync_api import expect
from served import CLASSES, asked, form, graft_model, in_thread, pairs_model, posted, rows_backbone, wav
from served import FORM as AS_FORM

from topgraft.backbones import load
from topgraft.data import read
from topgraft.features.store import Store
from topgraft.serve.examples import examples_of
from topgraft.serve.limits import Limits

pytestmark = pytest.mark.slow
DROP = """
([name, content]) => {
  const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name));
  const options = {dataTransfer: data, bubbles: true, cancelable: true};
  const place = document.getElementById('drop');
  const taken = ['dragenter', 'dragover', 'drop'].map(n => !place.dispatchEvent(new DragEvent(n, options)));
  return taken.every(t => t);
}
"""


@pytest.fixture(scope="module")
def pictures(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = graft_model(load("timm/test_efficientnet", weights="none", seed=4), 4, 3)
    store = Store(tmp_path_factory.mktemp("store"))
    with in_thread(
        model, Limits(body=300_000), examples=lambda p: examples_of(p, read(photos), store)
    ) as address:
        yield address


@pytest.fixture(scope="module")
def sounds() -> Iterator[str]:
    with in_thread(graft_model(load("sound/resemblyzer", weights="none", seed=3), 2, 1)) as address:
        yield address


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data = read(table(30, seed=2).drop(columns="spent"), label="bought", columns="all", modality="row")
    store = Store(tmp_path_factory.mktemp("store"))
    model = graft_model(rows_backbone(), 7, 0)
    with in_thread(model, examples=lambda p: examples_of(p, data, store)) as address:
        yield address


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("bert")
    tiny_bert(folder)
    with in_thread(graft_model(load(f"hf/{folder}"), 3, 2)) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened() as browser:
        yield browser


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A new page; whatever it complains of, or asks for elsewhere, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 844})
    new = context.new_page()
    new.set_default_timeout(120_000)  # milliseconds: on a busy machine a network takes its time
    yield watched(new)
    assert new.complaints == []
    context.close()


def visit(page: Any, address: str) -> None:
    """Open the page, and wait for the form that it shows once it knows the model."""
    page.goto(address)
    page.wait_for_selector("form:visible")


def watched(page: Any) -> Any:
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda said: page.complaints.append(said.text) if said.type == "error" else None)
    page.on("request", lambda r: page.complaints.append(r.url) if not is_own(r.url) else None)
    return page


def is_own(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:", "data:"))


def shown(page: Any) -> list[dict[str, Any]]:
    """What the answers say: title, the sentence, and the numbers beside the bars."""
    page.wait_for_selector(".answer")
    return page.evaluate("""() => [...document.querySelectorAll('.answer')].map(a => ({
      title: a.querySelector('h2').textContent, said: a.querySelector('p').textContent,
      rows: [...a.querySelectorAll('tbody tr')].map(r => [r.cells[0].textContent, r.cells[2].textContent]),
      bars: [...a.querySelectorAll('.bar')].map(b => b.getBoundingClientRect().width
        / b.parentElement.getBoundingClientRect().width)}))""")


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def check(answer: dict[str, Any], row: dict[str, Any], title: str) -> None:
    """An answer on the page is the row of the service."""
    shares = sorted(((row[f"p_{name}"], name) for name in CLASSES), reverse=True)
    assert answer["title"] == title
    assert answer["said"] == f"{row['label']}, {percent(row['confidence'])}"
    assert answer["rows"] == [[name, percent(share)] for share, name in shares]
    widest = answer["bars"][0] / shares[0][0]
    assert answer["bars"] == pytest.approx([widest * share for share, _ in shares], abs=0.02)


@pytest.mark.parametrize("how", ["choose", "drop"])
def test_a_picture_is_chosen_or_dropped_and_its_answer_is_read(page: Any, pictures: str, how: str):
    path = pictures_of("food", 0, 1)[0]
    visit(page, pictures)
    page.wait_for_selector("#files:visible")
    if how == "choose":
        page.get_by_label("Choose pictures, or drop them here").set_input_files(path)
    else:
        assert page.evaluate(DROP, [path.name, base64.b64encode(path.read_bytes()).decode()])
    (answer,) = shown(page)
    sent = form([(path.name, path.read_bytes())])
    (row,) = asked(pictures, "POST", "/predict", sent, AS_FORM).json
    check(answer, row, path.name)
    assert page.inner_text("[role=status]") == f"{path.name}: {answer['said']}"
    assert page.get_by_alt_text(f"The picture {path.name}").is_visible()
    assert page.title() == "small.topgraft – Topgraft"
    assert "87.5 %" in page.inner_text("#about")


def test_names_of_files_and_classes_are_text(page: Any, pictures: str, tmp_path: Path):
    path = tmp_path / "<img src=x onerror=alert(1)>.webp"
    path.write_bytes(pictures_of("food", 0, 1)[0].read_bytes())
    page.on("dialog", lambda dialog: page.complaints.append(dialog.message))
    visit(page, pictures)
    page.set_input_files("#files", path)
    (answer,) = shown(page)
    assert answer["title"] == path.name
    assert CLASSES[2] in [name for name, _ in answer["rows"]]
    assert page.locator(".answer b, .answer img[src=x], #about b").count() == 0


def test_several_pictures_and_what_is_wrong_with_them(page: Any, pictures: str, tmp_path: Path):
    whole = pictures_of("tools", 0, 1)[0]
    (tmp_path / "cut.webp").write_bytes(whole.read_bytes()[:300])
    visit(page, pictures)
    page.set_input_files("#files", [whole, tmp_path / "cut.webp"])
    good, bad = shown(page)
    assert len(good["rows"]) == 3
    assert (bad["said"], bad["rows"]) == ("No prediction: truncated after 300 bytes", [])
    assert page.inner_text("#status").startswith("2 predictions, 1 of them without an answer")
    (tmp_path / "large.png").write_bytes(b"x" * 300_001)
    page.set_input_files("#files", tmp_path / "large.png")
    expect(page.locator("#status")).to_contain_text("more than the 0.3 MB of one request")


def test_a_text_is_asked_by_keyboard_alone(page: Any, texts: str):
    visit(page, texts)
    page.wait_for_selector("#text:visible")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "text"
    assert "3px" in page.evaluate("getComputedStyle(document.activeElement).outline")
    page.keyboard.type("a good long film <b>")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "ask"
    page.keyboard.press("Enter")
    (answer,) = shown(page)
    (row,) = posted(texts, {"texts": ["a good long film <b>"]}).json
    check(answer, row, "a good long film <b>")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Control+a")
    page.keyboard.type("bad")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".answer h2")).to_have_text("bad")
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#status")).to_contain_text("the field is empty")


def test_a_file_is_chosen_by_keyboard_alone(page: Any, pictures: str):
    page.on(
        "filechooser", lambda _: None
    )  # from now on the browser asks us: set up by then, not while we press
    visit(page, pictures)
    page.wait_for_selector("#files:visible")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(pictures_of("food", 1, 1)[0])
    (answer,) = shown(page)
    assert answer["title"] == pictures_of("food", 1, 1)[0].name


def test_where_it_looked_lies_over_the_picture_and_is_said_in_words(page: Any, pictures: str, tmp_path: Path):
    """By keyboard alone: the map's numbers, as the service gives them, are what the canvas shows."""
    path = tmp_path / "wide.png"
    with Image.open(pictures_of("food", 0, 1)[0]) as opened:
        opened.convert("RGB").resize((320, 160)).save(path)
    (row,) = asked(pictures, "POST", "/looked", form([(path.name, path.read_bytes())]), AS_FORM).json
    visit(page, pictures)
    page.set_input_files("#files", path)
    shown(page)
    button = page.get_by_role("button", name="Where it looked of wide.png")
    page.focus("#files")
    page.keyboard.press("Tab")
    assert button.evaluate("b => b === document.activeElement")
    page.keyboard.press("Enter")
    words = f"for {row['of']} it looked {row['where']}."
    expect(page.locator("#status")).to_have_text(f"wide.png: {words}")
    assert button.get_attribute("aria-expanded") == "true"
    assert page.inner_text(".words") == (
        f"F{words[1:]} Bright is what speaks for it. The network does not see the dark edges."
    )
    assert page.get_by_role("img", name=f"Over the picture: {words}").is_visible()
    darkness = page.evaluate("""() => { const c = document.querySelector('.picture canvas');
      const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
      return [c.width, c.height, Array.from({length: c.width * c.height}, (_, i) => d[4 * i + 3])]; }""")
    dark = np.array(darkness[2]).reshape(darkness[1], darkness[0]) / 255
    seen, shares = row["seen"], np.array(row["map"])
    height, width = shares.shape
    x = seen["left"] + (np.arange(width) + 0.5) / width * (seen["right"] - seen["left"])
    y = seen["top"] + (np.arange(height) + 0.5) / height * (seen["bottom"] - seen["top"])
    there = dark[np.ix_((y * dark.shape[0]).astype(int), (x * dark.shape[1]).astype(int))]
    assert np.corrcoef(there.ravel(), -shares.ravel())[0, 1] > 0.97
    assert there.ravel()[shares.argmax()] < 0.1
    assert dark[:, 2] == pytest.approx(0.75, abs=0.01)  # outside what the network saw
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-expanded") == "false"
    assert page.locator(".picture canvas").is_hidden()


def test_the_nearest_examples_are_shown_with_label_and_small_picture(page: Any, pictures: str):
    path = pictures_of("food", 2, 1)[0]
    (row,) = asked(pictures, "POST", "/nearest", form([(path.name, path.read_bytes())]), AS_FORM).json
    visit(page, pictures)
    page.set_input_files("#files", path)
    page.get_by_role("button", name="Nearest examples of").click()
    expect(page.locator(".nearest li")).to_have_count(5)
    for i, one in enumerate(row["nearest"]):
        item = page.locator(".nearest li").nth(i)
        assert item.locator("strong").inner_text() == one["label"]
        assert item.locator("p").inner_text() == f"{one['name']}, similarity {one['similarity']:.2f}"
        picture = item.get_by_alt_text(f"The example {one['name']}")
        expect(picture).to_have_js_property("complete", value=True)
        assert 0 < picture.evaluate("i => Math.max(i.naturalWidth, i.naturalHeight)") <= 112
    labels = ", ".join(one["label"] for one in row["nearest"])
    expect(page.locator("#status")).to_have_text(f"{path.name}: nearest examples: {labels}.")


def test_without_examples_the_page_says_how_to_get_them(page: Any, texts: str):
    visit(page, texts)
    page.fill("#text", "bad")
    page.click("#ask")
    shown(page)
    expect(page.locator("#absent")).to_contain_text("topgraft serve MODEL --examples DATA")
    assert page.locator(".answer button").count() == 0


def test_a_pair_of_texts_has_two_fields(page: Any, tmp_path: Path):
    tiny_bert(tmp_path)
    with in_thread(pairs_model(load(f"hf/{tmp_path}"))) as address:
        visit(page, address)
        page.get_by_label("First text").fill("a good film")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#status")).to_have_text("Nothing to predict: the second text is empty.")
        assert page.evaluate("document.activeElement.id") == "second-text"
        page.keyboard.type("bad")
        page.keyboard.press("Control+Enter")
        (answer,) = shown(page)
        (row,) = posted(address, {"texts": [["a good film", "bad"]]}).json
        check(answer, row, "a good film | bad")
        assert violations(page) == []


def test_a_sound_is_chosen_and_can_be_heard(page: Any, sounds: str, tmp_path: Path):
    path = tmp_path / "bell.wav"
    path.write_bytes(wav("bell", 1, seconds=0.5))
    visit(page, sounds)
    page.get_by_label("Choose sounds, or drop them here").set_input_files(path)
    (answer,) = shown(page)
    (row,) = asked(sounds, "POST", "/predict", form([(path.name, path.read_bytes())]), AS_FORM).json
    check(answer, row, path.name)
    sound = page.get_by_label("The sound bell.wav")
    expect(sound).to_have_js_property("duration", 0.5)
    assert "sounds of 3 classes" in page.inner_text("#about")
    (tmp_path / "no.wav").write_bytes(b"no sound")
    page.set_input_files("#files", tmp_path / "no.wav")
    expect(page.locator(".answer .sick")).to_contain_text("No prediction: not a sound")


def test_a_row_is_filled_in_by_keyboard_alone(page: Any, rows: str):
    visit(page, rows)
    page.wait_for_selector("#cells:visible")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.labels[0].textContent") == "age"
    page.keyboard.type("31.5")
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.labels[0].textContent") == "town"
    page.keyboard.type("Rom")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    (answer,) = shown(page)
    sent = {"age": 31.5, "income": None, "kids": None, "town": "Rom"}
    (row,) = posted(rows, {"rows": [sent]}).json
    check(answer, row, "age 31.5, town Rom")
    assert page.locator("#notes").is_hidden()
    (near,) = posted(rows, {"rows": [sent]}, "/nearest").json
    page.get_by_role("button", name="Nearest examples of age 31.5, town Rom").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".nearest li")).to_have_count(5)
    cells = near["nearest"][0]["row"]
    assert f"town {cells['town']}" in page.locator(".nearest li").first.inner_text()
    page.fill("#cell-0", "old")
    page.press("#cell-0", "Enter")
    expect(page.locator(".answer .sick")).to_contain_text("column \"age\" holds numbers, and 'old' is none")
    page.fill("#cell-0", "")
    page.select_option("#cell-3", "")
    page.press("#cell-0", "Enter")
    expect(page.locator("#status")).to_contain_text("every field is empty")


def test_a_service_that_is_gone_is_said(browser: Any, tmp_path: Path):
    tiny_bert(tmp_path)
    page = browser.new_page()
    with in_thread(graft_model(load(f"hf/{tmp_path}"), 2, 1)) as address:
        visit(page, address)
        page.wait_for_selector("#text:visible")
    page.fill("#text", "bad")
    page.click("#ask")
    expect(page.locator("#status")).to_have_text("The service can't be reached.")
    page.close()


@pytest.mark.parametrize(
    ("kind", "width", "scheme"),
    [
        *(("pictures", *view) for view in VIEWS),
        *(("texts", *view) for view in VIEWS),
        *((kind, *VIEWS[at]) for kind, at in (("rows", 0), ("rows", 3), ("sounds", 1))),
        *(
            pytest.param(kind, *VIEWS[at], marks=pytest.mark.exhaustive)
            for kind, at in (("rows", 1), ("rows", 2), ("sounds", 0), ("sounds", 2), ("sounds", 3))
        ),
    ],
)
def test_nothing_scrolls_sideways_or_keeps_anybody_out(
    request: pytest.FixtureRequest, browser: Any, width: int, scheme: str, kind: str, tmp_path: Path
):
    address = request.getfixturevalue(kind)
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = watched(context.new_page())
    visit(page, address)
    page.wait_for_selector("form:visible")
    assert violations(page) == []
    if kind == "pictures":
        (tmp_path / f"{'long' * 30}.webp").write_bytes(b"x")
        page.set_input_files("#files", [*pictures_of("food", 0, 1), tmp_path / f"{'long' * 30}.webp"])
        for i, name in enumerate(("Where it looked", "Nearest examples")):
            page.get_by_role("button", name=name).click()
            page.wait_for_selector((".picture canvas", ".nearest img")[i])
    elif kind == "sounds":
        (tmp_path / "bell.wav").write_bytes(wav("bell", 1, seconds=0.5))
        page.set_input_files("#files", tmp_path / "bell.wav")
    elif kind == "rows":
        page.fill("#cell-0", "31")
        page.press("#cell-0", "Enter")
        page.get_by_role("button", name="Nearest examples").click()
        page.wait_for_selector(".nearest li")
    else:
        page.fill("#text", "good" * 100)
        page.click("#ask")
    assert shown(page)
    assert not scrolls_sideways(page)
    assert violations(page) == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}[scheme]
    assert re.fullmatch(r".+: .+, \d+\.\d %|.+: nearest examples: .+\.", page.inner_text("#status"))
    assert page.complaints == []
    context.close()
