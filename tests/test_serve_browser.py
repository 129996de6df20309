"""The page of ``topgraft serve`` in a real browser: a file is dropped, a text typed, the answer read."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import VIEWS, opened, scrolls_sideways, violations
from hub_cache import tiny_bert
from packaged_data import pictures_of
from playwright.sync_api import expect
from served import CLASSES, asked, form, graft_model, in_thread, posted
from served import FORM as AS_FORM

from topgraft.backbones import load
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
def pictures() -> Iterator[str]:
    model = graft_model(load("timm/test_efficientnet", weights="none", seed=4), 4, 3)
    with in_thread(model, Limits(body=300_000)) as address:
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
    page.goto(pictures)
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
    page.goto(pictures)
    page.set_input_files("#files", path)
    (answer,) = shown(page)
    assert answer["title"] == path.name
    assert CLASSES[2] in [name for name, _ in answer["rows"]]
    assert page.locator(".answer b, .answer img[src=x], #about b").count() == 0


def test_several_pictures_and_what_is_wrong_with_them(page: Any, pictures: str, tmp_path: Path):
    whole = pictures_of("tools", 0, 1)[0]
    (tmp_path / "cut.webp").write_bytes(whole.read_bytes()[:300])
    page.goto(pictures)
    page.set_input_files("#files", [whole, tmp_path / "cut.webp"])
    good, bad = shown(page)
    assert len(good["rows"]) == 3
    assert (bad["said"], bad["rows"]) == ("No prediction: truncated after 300 bytes", [])
    assert page.inner_text("#status").startswith("2 predictions, 1 of them without an answer")
    (tmp_path / "large.png").write_bytes(b"x" * 300_001)
    page.set_input_files("#files", tmp_path / "large.png")
    expect(page.locator("#status")).to_contain_text("more than the 0.3 MB of one request")


def test_a_text_is_asked_by_keyboard_alone(page: Any, texts: str):
    page.goto(texts)
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
    page.goto(pictures)
    page.wait_for_selector("#files:visible")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(pictures_of("food", 1, 1)[0])
    (answer,) = shown(page)
    assert answer["title"] == pictures_of("food", 1, 1)[0].name


def test_a_service_that_is_gone_is_said(browser: Any, tmp_path: Path):
    tiny_bert(tmp_path)
    page = browser.new_page()
    with in_thread(graft_model(load(f"hf/{tmp_path}"), 2, 1)) as address:
        page.goto(address)
        page.wait_for_selector("#text:visible")
    page.fill("#text", "bad")
    page.click("#ask")
    expect(page.locator("#status")).to_have_text("The service can't be reached.")
    page.close()


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
@pytest.mark.parametrize("kind", ["pictures", "texts"])
def test_nothing_scrolls_sideways_or_keeps_anybody_out(
    request: pytest.FixtureRequest, browser: Any, width: int, scheme: str, kind: str, tmp_path: Path
):
    address = request.getfixturevalue(kind)
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = watched(context.new_page())
    page.goto(address)
    page.wait_for_selector("form:visible")
    assert violations(page) == []
    if kind == "pictures":
        (tmp_path / f"{'long' * 30}.webp").write_bytes(b"x")
        page.set_input_files("#files", [*pictures_of("food", 0, 1), tmp_path / f"{'long' * 30}.webp"])
    else:
        page.fill("#text", "good" * 100)
        page.click("#ask")
    assert shown(page)
    assert not scrolls_sideways(page)
    assert violations(page) == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}[scheme]
    assert re.fullmatch(r".+: .+, \d+\.\d %|2 predictions.+", page.inner_text("#status"))
    assert page.complaints == []
    context.close()
