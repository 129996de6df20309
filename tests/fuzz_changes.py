"""Valid files, changed: bytes flipped or cut, values of JSON replaced, files gone or turned into others."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class Raw:
    """Text of JSON that no value of Python is written as."""

    text: str


DEEP = Raw("[" * 5_000 + "]" * 5_000)
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 255, 1 << 31, 1 << 63, -(1 << 63), 10**30, 10**9, 100_000),
    *(0.5, -0.0, 1e308, float("nan"), float("inf"), Raw("1e999"), Raw("9" * 5_000)),
    *(
        "",
        "x",
        "0",
        "../secret",
        "/etc/passwd",
        "a\0b",
        "\ud800",
        "é" * 3_000,
        "auto",
        "__class__",
        "os.system",
    ),
    *([], [None], [[]], ["x"], [0] * 1_000, [1, 2, 3], [[1, 2], [3]], {}, {"a": 1}, {"": None}, DEEP),
)
"""What a value is replaced by."""


@dataclass(frozen=True)
class Put:
    """A value of a JSON file (or of a safetensors header) replaced, or put where none was."""

    file: str
    keys: Keys
    value: Any

    def apply(self, folder: Path) -> None:
        path = folder / self.file
        if path.is_symlink() or not path.is_file():  # another change took it away; never write through a link
            return
        content = path.read_bytes()
        try:
            if self.file.endswith(".safetensors"):
                (length,) = struct.unpack_from("<Q", content)
                header, rest = json.loads(content[8 : 8 + length]), content[8 + length :]
                text = written(_with(header, self.keys, self.value))
                path.write_bytes(struct.pack("<Q", len(text)) + text + rest)
            else:
                path.write_bytes(written(_with(json.loads(content), self.keys, self.value)))
        except (ValueError, LookupError, TypeError, RecursionError, struct.error):
            return  # another change has left no such place


class Dropped:
    """In place of a value: there is none."""

    def __repr__(self) -> str:
        return "DROPPED"


DROPPED = Dropped()


@dataclass(frozen=True)
class Edit:
    """Bytes of a file replaced by others: ``count`` of them, from the share ``at`` of its length on."""

    file: str
    at: float
    count: int
    new: bytes

    def apply(self, folder: Path) -> None:
        path = folder / self.file
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            place = min(int(self.at * len(content)), len(content))
            path.write_bytes(content[:place] + self.new + content[place + self.count :])


@dataclass(frozen=True)
class Flip:
    """One bit of a file."""

    file: str
    at: float
    bit: int

    def apply(self, folder: Path) -> None:
        path = folder / self.file
        if path.is_file() and not path.is_symlink() and (content := bytearray(path.read_bytes())):
            content[min(int(self.at * len(content)), len(content) - 1)] ^= 1 << self.bit
            path.write_bytes(content)


@dataclass(frozen=True)
class Turn:
    """A file that is gone, a folder, a pipe, a link to nothing, out of its folder, or to itself."""

    file: str
    into: str

    def apply(self, folder: Path) -> None:
        path = folder / self.file
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if not path.parent.is_dir():
            return
        if self.into == "folder":
            path.mkdir()
        elif self.into == "pipe":
            os.mkfifo(path)
        elif self.into != "gone":
            secret = folder.parent / "secret"  # a file of our own: nothing of the machine may be at risk
            secret.write_text("a secret")
            outside = os.path.relpath(secret, path.parent)
            places = {"dangling": "nowhere", "circle": path.name, "secret": outside}
            path.symlink_to(places[self.into])


Change = Put | Edit | Flip | Turn


def written(value: Any) -> bytes:
    """JSON with what JSON does not have, as careless or hostile writers write it."""
    raw: list[str] = []

    def plain(one: Any) -> Any:
        if isinstance(one, Raw):
            raw.append(one.text)
            return f"\0raw{len(raw) - 1}\0"
        if isinstance(one, dict):
            return {name: plain(item) for name, item in one.items()}
        return [plain(item) for item in one] if isinstance(one, list) else one

    text = json.dumps(plain(value))
    for number, one in enumerate(raw):
        text = text.replace(f'"\\u0000raw{number}\\u0000"', one)
    return text.encode("ascii")


def places_of(value: Any, above: Keys = ()) -> Iterator[Keys]:
    """The keys of every value in a document; of long lists the first few and the last."""
    yield above
    if isinstance(value, dict):
        for name, item in value.items():
            yield from places_of(item, (*above, name))
        yield (*above, "unheard of")
    elif isinstance(value, list):
        for index in sorted({*range(min(3, len(value))), max(0, len(value) - 1)} if value else ()):
            yield from places_of(value[index], (*above, index))


def changes_of(folder: Path, *, turned: bool = True) -> st.SearchStrategy[list[Change]]:
    """One to three changes of the files in a folder."""
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    share, file = st.floats(0, 1, width=32), st.sampled_from(files)
    some = st.one_of(st.binary(max_size=8), st.sampled_from([b"\0" * 64, b"\xff" * 8, b'"', b"{", b"\n"]))
    kinds: list[st.SearchStrategy[Change]] = [
        st.builds(Flip, file, share, st.integers(0, 7)),
        st.builds(Edit, file, share, st.sampled_from([0, 1, 4, 8, 1 << 30]), some),
    ]
    documents = {name: _document(folder / name) for name in files}
    places = [(n, keys) for n, d in documents.items() if d is not None for keys in places_of(d)]
    if places:
        values = [_at(documents[n], keys) for n, keys in places if keys and keys[-1] != "unheard of"]
        by_file = {n: [keys for m, keys in places if m == n] for n in documents if documents[n] is not None}
        at = st.sampled_from(sorted(by_file)).flatmap(
            lambda n: st.tuples(st.just(n), st.sampled_from(by_file[n]))
        )
        value = st.one_of(st.sampled_from(ODD), st.just(DROPPED), st.sampled_from(values), st.integers())
        put = st.builds(lambda where, new: Put(where[0], where[1], new), at, value)
        kinds = [put, put, put, *kinds]
    if turned:
        into = st.sampled_from(["gone", "folder", "pipe", "dangling", "circle", "secret"])
        kinds.append(st.builds(Turn, file, into))
    return st.lists(st.one_of(kinds), min_size=1, max_size=3)


def _document(path: Path) -> Any:
    content = path.read_bytes()
    if path.suffix == ".safetensors":
        (length,) = struct.unpack_from("<Q", content)
        return json.loads(content[8 : 8 + length])
    return json.loads(content) if path.suffix == ".json" else None


def _at(document: Any, keys: Keys) -> Any:
    for key in keys:
        document = document[key]
    return document


def _with(document: Any, keys: Keys, value: Any) -> Any:
    if not keys:
        return None if value is DROPPED else value
    inner = _at(document, keys[:-1])
    if value is DROPPED:
        if isinstance(inner, list) or keys[-1] in inner:
            del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    return document
