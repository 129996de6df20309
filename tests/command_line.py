"""The command line inside the test's own process, and a job so small that it takes a second.

The backbone is a BERT of two layers (three blocks) made on the spot; one word of each text gives its label.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from child_process import program
from hub_cache import tiny_bert
from packaged_data import write_table

from topgraft.cli import main

LABELS = {"good": "praise", "bad": "blame", "film": "neither"}
FILLING = ("the", "and", "long", "about", "people", "was", "a")
BLOCKS = ("embeddings", "encoder.layer.0", "encoder.layer.1")


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as the one JSON document that it must be."""
        return json.loads(self.out)


def called(*arguments: str | Path, stdin: str = "", err: io.StringIO | None = None) -> Outcome:
    """Run a command in this process; ``err`` is what it takes for standard error."""
    out, err = io.StringIO(), io.StringIO() if err is None else err
    before, sys.stdin = sys.stdin, io.StringIO(stdin)
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as end,
        ):
            main([str(a) for a in arguments])
    finally:
        sys.stdin = before
    status = end.value.code
    assert isinstance(status, int)
    return Outcome(status, out.getvalue(), err.getvalue())


def done(*arguments: str | Path, stdin: str = "") -> Outcome:
    """Run a command that must end well."""
    outcome = called(*arguments, stdin=stdin)
    assert outcome.status == 0, outcome.err
    return outcome


def word_texts(count: int, *, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Texts and their labels, the classes in turn, none the same."""
    stream, seen = random.Random(seed), set()
    words = list(LABELS)
    while len(seen) < count:
        text = stream.choices(FILLING, k=stream.randint(4, 12))
        word = words[len(seen) % len(words)]
        text.insert(stream.randrange(len(text)), word)
        if " ".join(text) not in seen:
            seen.add(" ".join(text))
            yield " ".join(text), LABELS[word]


def table_of(path: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = ("text", "label")) -> Path:
    """A table of texts."""
    return write_table(path, [header, *rows])


@dataclass(frozen=True)
class Job:
    """A table of 45 texts and the backbone for it."""

    table: Path
    backbone: str

    def arguments(self, out: Path, *more: str | Path) -> tuple[str | Path, ...]:
        """Those of ``topgraft fit`` on it."""
        return ("fit", self.table, "-o", out, "--backbone", self.backbone, "--seed", "1", *more)

    def fit(self, out: Path, *more: str | Path, err: io.StringIO | None = None) -> Outcome:
        """``topgraft fit`` on it."""
        return called(*self.arguments(out, *more), err=err)

    def interrupted(self, word: str, out: Path, *more: str | Path) -> Outcome:
        """``topgraft fit`` on it, with Ctrl-C when it writes ``word``."""
        return interrupted(word, *self.arguments(out, *more))


def tiny_job(folder: Path) -> Job:
    """A job in a new folder."""
    (folder / "bert").mkdir(parents=True)
    tiny_bert(folder / "bert")
    return Job(table_of(folder / "words.csv", list(word_texts(45))), f"hf/{folder / 'bert'}")


class Watching(io.StringIO):
    """A stream at which something happens, once, when a word is written to it."""

    def __init__(self, word: str, happen: Callable[[], object]) -> None:
        super().__init__()
        self.word, self.happen = word, happen

    def write(self, text: str) -> int:
        if self.word and self.word in text:
            self.word = ""
            self.happen()
        return super().write(text)


def interrupted(word: str, *arguments: str | Path) -> Outcome:
    """Run a command in a program of its own, which gets what Ctrl-C sends when it writes ``word``."""
    done = program(INTERRUPTED, word, *map(str, arguments))
    return Outcome(done.returncode, done.stdout, done.stderr)


INTERRUPTED = """
import os, signal, sys
from command_line import Watching
from topgraft.cli import main

word, *arguments = sys.argv[1:]
sys.stderr = Watching(word, lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    main(arguments)
finally:
    sys.__stderr__.write(sys.stderr.getvalue())
"""


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, byte for byte, by its path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
