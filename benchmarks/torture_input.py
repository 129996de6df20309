"""Bad input: every kind of it goes through the command line and must get one clear message and its status."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torture_bench import TRACE, plainly
from torture_network import pictures

SECONDS, MEGABYTES = 60.0, 600.0
"""Of processor time and of memory, beyond what the process holds already, that a command may take at most."""
NETWORK = ("--backbone", "timm/test_efficientnet", "--weights", "none", "--freeze", "all")
WORDS = ("good", "bad", "film", "was", "the", "and", "long", "story", "about", "people", "a")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class Place:
    """Small data, models that were fitted on them, and a folder for what a case makes.

    Parameters
    ----------
    root
        An empty folder for all of it.
    """

    root: Path

    @cached_property
    def pictures(self) -> Path:
        """18 pictures in 3 classes."""
        return pictures(self.root / "pictures", 6)

    @cached_property
    def texts(self) -> Path:
        """30 texts in 3 classes, as a table."""
        lines = [f"the {WORDS[i % 3]} story {i} about people,{WORDS[i % 3]}" for i in range(30)]
        return self.write("texts.csv", "\n".join(["text,label", *lines]) + "\n", beside=True)

    @cached_property
    def bert(self) -> str:
        """A small network for texts."""
        import torch
        from transformers import BertConfig, BertModel, BertTokenizer

        folder, words = self.root / "bert", [*SPECIAL, *WORDS]
        torch.manual_seed(3)
        sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
        config = BertConfig(vocab_size=len(words), num_hidden_layers=2, max_position_embeddings=40, **sizes)
        BertModel(config).save_pretrained(folder)
        vocabulary = {word: i for i, word in enumerate(words)}
        BertTokenizer(vocab=vocabulary, model_max_length=32).save_pretrained(folder)
        return f"hf/{folder}"

    @cached_property
    def model(self) -> Path:
        """A model of pictures."""
        return self._fitted("pictures.topgraft", self.pictures, *NETWORK)

    @cached_property
    def text_model(self) -> Path:
        """A model of texts."""
        return self._fitted("texts.topgraft", self.texts, "--backbone", self.bert, "--freeze", "all")

    def _fitted(self, name: str, data: Path, *more: str) -> Path:
        said = called(["fit", data, "-o", self.root / name, *more])
        if said.status:
            raise RuntimeError(f"the model for the bad input could not be made: {said.err}")
        return self.root / name

    @property
    def own(self) -> Path:
        """What the case at hand makes; empty before each."""
        (self.root / "own").mkdir(exist_ok=True)
        return self.root / "own"

    @property
    def out(self) -> Path:
        """Where a fit is to be saved, which must never come to be."""
        return self.own / "out"

    def write(self, name: str, content: str | bytes, *, beside: bool = False) -> Path:
        """A file of one's own."""
        path = (self.root if beside else self.own) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def fit(self, data: str | Path, *more: str | Path) -> list[str | Path]:
        """A fit on pictures."""
        return ["fit", data, "-o", self.out, *NETWORK, *more]

    def fit_texts(self, data: str | Path | None = None, *more: str | Path) -> list[str | Path]:
        """A fit on texts."""
        return ["fit", data or self.texts, "-o", self.out, "--backbone", self.bert, *more]

    def copied(self, folder: Path) -> Path:
        """A copy that may be spoilt."""
        return Path(shutil.copytree(folder, self.own / folder.name))


@dataclass(frozen=True)
class Bad:
    """A command with bad input.

    Parameters
    ----------
    what
        What is wrong, in few words; with ``kind`` it names the case.
    command
        Makes the input and gives the arguments.
    words
        That the message must have; for a status of 0, what must be told of the example that is left out.
    status
        It must end with: 2, or 0 where a bad example is left out by itself.
    """

    kind: str
    what: str
    command: Callable[[Place], Sequence[str | Path]]
    words: tuple[str, ...]
    status: int = 2


@dataclass
class Said:
    """What a command did: its status, and what it wrote."""

    status: int
    out: str
    err: str
    seconds: float
    megabytes: float

    @property
    def message(self) -> str:
        """The error, or all that was said."""
        return self.err[self.err.index("Error: ") :] if "Error: " in self.err else self.err


@dataclass
class Answer:
    """A row of the table."""

    kind: str
    what: str
    command: str
    status: int
    message: str
    seconds: float
    megabytes: float
    wrong: list[str] = field(default_factory=list)


def called(arguments: Sequence[str | Path]) -> Said:
    """Run a command in this process, as the console script does."""
    from topgraft.cli import main

    out, err, before = io.StringIO(), io.StringIO(), _most_held()
    began, status = time.process_time(), -1
    stdin, sys.stdin = sys.stdin, io.StringIO("")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main([str(a) for a in arguments])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except Exception as error:  # noqa: BLE001 (the user would see a traceback)
        err.write(f"{TRACE}: {type(error).__name__}: {error}")
    finally:
        sys.stdin = stdin
    return Said(status, out.getvalue(), err.getvalue(), time.process_time() - began, _most_held() - before)


def _most_held() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def answer(bad: Bad, place: Place) -> Answer:
    """What the command line says to a bad input, and what is not right about that."""
    shutil.rmtree(place.own)
    arguments = list(bad.command(place))
    before = _content(place.own.parent)
    said = called(arguments)
    wrong = [] if said.status == bad.status else [f"ended with {said.status}, not {bad.status}"]
    if TRACE in said.err:
        wrong.append("a traceback instead of a message")
    told = said.message if bad.status else said.out + said.err
    if bad.status and (not told.startswith("Error: ") or told.count("Error: ") != 1):
        wrong.append("not one message")
    wrong += [f"the message lacks {word!r}" for word in bad.words if word not in told]
    if said.seconds > SECONDS:
        wrong.append(f"took {said.seconds:.0f} s")
    if said.megabytes > MEGABYTES:
        wrong.append(f"took {said.megabytes:.0f} MB")
    if (place.own / "ran").exists():
        wrong.append("CODE FROM THE INPUT RAN")
    if bad.status:
        after = _content(place.root)
        wrong += [f"left behind: {n}" for n in sorted(after.keys() - before.keys())]
        wrong += [f"changed: {n}" for n in sorted(n for n in before if after.get(n) != before[n])]
    shown = told.removeprefix("Error: ") if bad.status else _line_with(told, bad.words[0])
    words = [plainly(str(a), place.own, place.root) or "''" for a in arguments]
    command = " ".join(w if len(w) < 60 else f"{w[:50]}…" for w in words)
    message = plainly(shown, place.own, place.root)
    return Answer(
        bad.kind, bad.what, command, said.status, message, round(said.seconds, 1), said.megabytes, wrong
    )


def _line_with(text: str, word: str) -> str:
    return next((line for line in text.splitlines() if word in line), text[:300])


def _content(root: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder but the cache, with its size and time."""
    found = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name != "cache"]
        for name in [*names, *folders]:
            seen = os.lstat(Path(folder, name))
            stamp = (seen.st_size, seen.st_mtime_ns) if name in names else (0, 0)
            found[str(Path(folder, name).relative_to(root))] = stamp
    return found


@contextlib.contextmanager
def own_cache(place: Path) -> Iterator[None]:
    """A store of this campaign's own, and no hub."""
    told = {"TOPGRAFT_CACHE": str(place / "cache"), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def all_cases() -> list[Bad]:
    """Every kind of bad input, in the order of the table."""
    from torture_cases import CASES
    from torture_hostile import HOSTILE

    return [*CASES, *HOSTILE]


def answers(root: Path, cases: Sequence[Bad] | None = None) -> list[Answer]:
    """The table: every case through the command line."""
    place = Place(root)
    with own_cache(root):
        _ = place.pictures, place.texts, place.model, place.text_model
        called(["layers", "no/such"])  # what the first error loads is no case's own
        return [answer(bad, place) for bad in (cases or all_cases())]


def table(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table in Markdown, by kind."""
    lines = []
    for kind in dict.fromkeys(row["kind"] for row in found):
        lines += [
            f"## {kind}",
            "",
            "| what is wrong | command | status | message |",
            "| --- | --- | --- | --- |",
        ]
        for row in (r for r in found if r["kind"] == kind):
            cells = [row["what"], f"`{row['command']}`", str(row["status"]), row["message"]]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return lines
