"""Every command and every piece of Python in the README and the guides runs, in order, as written.

Each document gets a folder of its own, with the data that the documents speak of (see `layout`). A block
is run whole: ```sh by bash, which stops at the first command that fails, and ```python by this Python.
A block with `<!-- not run: reason -->` on the line above it is not run; only commands that install or
check Topgraft itself may say so, since this test is one of those checks.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from made_sounds import write_sounds
from packaged_data import glosses_of, pictures_of, write_table
from PIL import Image

ROOT = Path(__file__).parent.parent
CLASSES = ("animals", "buildings", "food")
FENCE = re.compile(
    r"^(?:<!-- *not run: *(?P<reason>[^\n]*?) *-->\n+)?```(?P<language>sh|python)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
MAY_BE_LEFT_OUT = re.compile(
    r"(make|cd|git (add|clone|commit|switch)|python3 -m venv|(\.|source) \.venv/bin/activate|"
    r"(python3? -m )?pip install|pre-commit|(\.venv/bin/)?(python -m )?(mypy|pre-commit|pytest|ruff))( |$)"
)
LANGUAGE = re.compile(r"^[ >]*(?:`{3,}|~{3,}) *([^\s`]+)", re.MULTILINE)
MINUTES = {
    *(
        "command-line.md",
        "data.md",
        "export.md",
        "few-pictures.md",
        "how-many-layers.md",
        "index.md",
        "is-it-worth-it.md",
        "it-got-worse.md",
        "many-machines.md",
        "notebooks.md",
        "numbers.md",
    ),
    *(
        "ordered-classes.md",
        "pytorch.md",
        "rows.md",
        "scikit-learn.md",
        "serve.md",
        "several-labels.md",
        "sounds.md",
        "texts-in-my-language.md",
    ),
}
"""Guides to parts that have tests of their own; the README shows the first steps of each."""
NOT_CODE = {"csv", "html", "json", "text", "toml", "yaml"}


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    line: int  # of its first line of code, from 1
    reason: str | None  # why it is not run


def blocks(document: str) -> list[Block]:
    """The shell and Python blocks of a Markdown document, in order."""
    return [
        Block(
            found["language"],
            found["code"],
            document.count("\n", 0, found.start("code")) + 1,
            found["reason"],
        )
        for found in FENCE.finditer(document)
    ]


def commands(code: str) -> list[str]:
    """The commands of a shell block, one a line; comments and blank lines left out."""
    lines = code.replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := shlex.join(shlex.split(line, comments=True)))]


def first_lines(count: int) -> str:
    """The README's first lines."""
    return "".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines(keepends=True)[:count])


def documents() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """The folder that the documents' commands run in.

    photos/CLASS/*.webp (16 in each of 3 classes), new/*.jpg (6, without classes), more-photos/CLASS/*.webp
    (6 in each class, others than in photos/), reviews.csv (40 texts for each of the stars 1 to 3, in the
    columns text and stars), instruments/CLASS/* (12 sounds in each of 3 classes) and
    new-instruments/CLASS/* (4 others in each).
    """
    for name in CLASSES:
        for folder, start, count in (("photos", 0, 16), ("more-photos", 16, 6)):
            target = tmp_path / folder / name
            target.mkdir(parents=True)
            for picture in pictures_of(name, start, count):
                shutil.copy(picture, target)
        (tmp_path / "new").mkdir(exist_ok=True)
        for picture in pictures_of(name, 22, 2):
            with Image.open(picture) as opened:
                opened.convert("RGB").save(tmp_path / "new" / f"{picture.stem}.jpg")
    stars = {"food": "1", "person": "2", "animal": "3"}
    rows = [(text, stars[label]) for text, label in glosses_of(tuple(stars), 40)]
    write_table(tmp_path / "reviews.csv", [("text", "stars"), *rows])
    write_sounds(tmp_path / "instruments", 12)
    write_sounds(tmp_path / "new-instruments", 4, first=100)
    return tmp_path


def run(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one block in ``folder``, as someone with Topgraft's environment activated would."""
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    if block.language == "python":
        program = [sys.executable, "-c", block.code]
    else:
        tell = """trap 'echo "failed with status $?: $BASH_COMMAND" >&2' ERR"""
        program = ["bash", "-eEuo", "pipefail", "-c", f"{tell}\n{block.code}"]
    return subprocess.run(
        program, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def problem(block: Block, folder: Path) -> str | None:
    """What went wrong with a block, or nothing."""
    if block.reason is None:
        done = run(block, folder)
        if done.returncode:
            return (
                f"exit status {done.returncode}\n{block.code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
            )
        return None
    if not block.reason:
        return "is not run, without a reason"
    if block.language == "python":
        return "Python blocks are always run"
    wrong = [command for command in commands(block.code) if not MAY_BE_LEFT_OUT.match(command)]
    return f"may not be left out: {'; '.join(wrong)}" if wrong else None


def parametrized() -> list[Any]:
    """Every document; the guides that take minutes are left to `make exhaustive`."""
    return [
        pytest.param(
            path,
            id=str(path.relative_to(ROOT)),
            marks=[pytest.mark.exhaustive] if path.name in MINUTES else [],
        )
        for path in documents()
    ]


@pytest.mark.parametrize("path", parametrized())
@pytest.mark.usefixtures("cache")
def test_every_block_of_the_documents_runs(path: Path, layout: Path) -> None:
    document = path.read_text(encoding="utf-8")
    code = [language for language in LANGUAGE.findall(document) if language not in NOT_CODE]
    assert code == [block.language for block in blocks(document)], "write ```sh or ```python, not indented"
    for block in blocks(document):
        assert (said := problem(block, layout)) is None, f"{path.name}:{block.line}: {said}"


def test_the_readme_shows_how_to_start():
    readme = ROOT / "README.md"
    assert readme.is_file(), "there is no README.md"
    found = blocks(readme.read_text(encoding="utf-8"))
    shown = [command for block in found if block.language == "sh" for command in commands(block.code)]
    for needed in ("make demo", "make test", "topgraft fit", "topgraft predict", "topgraft evaluate"):
        assert any(command.startswith(needed) for command in shown), f"README.md doesn't show {needed!r}"


EXAMPLE = """
text
```sh
cp photos/food/food-000.webp \\
  copy.webp  # a comment
test -f copy.webp
```
<!-- not run: it installs -->
```sh
make demo
```

```python
from pathlib import Path
from typing import Any
assert Path("copy.webp").is_file()
```
```
no language: output
```
"""


def test_blocks_are_found_with_their_lines_and_reasons():
    found = blocks(EXAMPLE)
    assert [(block.language, block.line, block.reason) for block in found] == [
        ("sh", 4, None),
        ("sh", 10, "it installs"),
        ("python", 14, None),
    ]
    assert commands(found[0].code) == ["cp photos/food/food-000.webp copy.webp", "test -f copy.webp"]


def test_blocks_run_in_one_folder_in_order(layout: Path) -> None:
    assert [problem(block, layout) for block in blocks(EXAMPLE)] == [None, None, None]


@pytest.mark.parametrize(
    ("markdown", "said"),
    [
        ("```sh\ntrue\nls no-such-file\ntrue\n```\n", "ls no-such-file"),
        ("```python\nraise ValueError('wrong')\n```\n", "ValueError: wrong"),
        (
            "<!-- not run: it is slow -->\n```sh\nmake demo\ntopgraft fit photos/\n```\n",
            "topgraft fit photos/",
        ),
        ("<!-- not run: -->\n```sh\nmake demo\n```\n", "without a reason"),
        ("<!-- not run: it is slow -->\n```python\n1\n```\n", "always run"),
    ],
)
def test_a_block_that_fails_or_hides_is_told(markdown: str, said: str, tmp_path: Path) -> None:
    (block,) = blocks(markdown)
    assert said in (problem(block, tmp_path) or "")


@pytest.mark.parametrize(
    ("language", "interface"),
    [("sh", "topgraft fit"), ("python", "TransferClassifier"), ("python", "tg.graft(")],
)
def test_the_first_40_lines_have_a_block_that_runs_for_each_interface(language: str, interface: str) -> None:
    found = blocks(first_lines(40))
    assert any(b.language == language and interface in b.code and b.reason is None for b in found)
