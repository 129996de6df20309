"""Hostile input, as data: files that claim what they do not hold, would run code, or would never end."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torture_input import Bad, Place
from torture_media import MEDIA, zipped

WEIGHTS, GRAFTS = "Files of weights", "Saved models that were changed"
NUMBERS, TREES = "Texts and tables that claim too much", "Folders"


# weights


class _Runs:
    """A pickle of this would run code when it is opened."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.place), "w")


def _safetensors(header: Any, body: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def _entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def _of_weights(name: str, make: Callable[[Place], bytes]) -> Callable[[Place], list[str | Path]]:
    def command(p: Place) -> list[str | Path]:
        kept = [a for a in p.fit(p.pictures) if a not in ("--weights", "none")]
        return [*kept, "--weights", p.write(name, make(p))]

    return command


def _weights(what: str, name: str, make: Callable[[Place], bytes], *words: str) -> Bad:
    return Bad(WEIGHTS, what, _of_weights(name, make), (name, *words))


EXA = 1 << 60
OF_WEIGHTS = [
    _weights("an empty file", "w.pth", lambda _: b"", "empty"),
    _weights("a text", "w.pth", lambda _: b"hello, these are notes", "neither"),
    _weights("a web page", "w.safetensors", lambda _: b"<!doctype html><html>404</html>", "a web page"),
    _weights(
        "a pickle that would run code", "w.pkl", lambda p: pickle.dumps(_Runs(p.own / "ran"), 2), "w.pkl"
    ),
    _weights(
        "a pickle that would run code, as torch.save packs it",
        "w.pt",
        lambda p: zipped({"w/data.pkl": pickle.dumps(_Runs(p.own / "ran"), 2), "w/version": b"3"}),
        "w.pt",
    ),
    _weights(
        "a pickle named .safetensors",
        "w.safetensors",
        lambda p: pickle.dumps(_Runs(p.own / "ran"), 2),
        "holds a pickle",
    ),
    _weights(
        "a zip archive that unpacks to 100 MB",
        "w.pth",
        lambda _: zipped({"w/data.pkl": b"\0" * 10**8}, compressed=True),
        "unpack",
    ),
    _weights(
        "a zip archive of something else", "w.pth", lambda _: zipped({"readme": b"hello"}), "no data.pkl"
    ),
    _weights("a header of 2^60 bytes", "w.safetensors", lambda _: _safetensors({}, length=EXA), "truncated"),
    _weights(
        "a tensor of 2^60 bytes",
        "w.safetensors",
        lambda _: _safetensors({"a": _entry([EXA // 4], 0, EXA)}),
        "truncated",
    ),
    _weights(
        "a shape that is not its size",
        "w.safetensors",
        lambda _: _safetensors({"a": _entry([9], 0, 4)}, b"\0" * 4),
        "safetensors",
    ),
    _weights(
        "a shape whose product overflows",
        "w.safetensors",
        lambda _: _safetensors({"a": _entry([2**32, 2**32, 2], 0, 0)}),
        "safetensors",
    ),
    _weights(
        "tensors that overlap",
        "w.safetensors",
        lambda _: _safetensors({"a": _entry([2], 0, 8), "b": _entry([2], 4, 12)}, b"\0" * 12),
        "safetensors",
    ),
    _weights(
        "places below zero",
        "w.safetensors",
        lambda _: _safetensors({"a": _entry([1], -4, 0)}, b"\0" * 8),
        "safetensors",
    ),
    _weights("a header that is no JSON", "w.safetensors", lambda _: _safetensors(b'{"a": '), "header"),
    _weights(
        "a header nested 50,000 deep", "w.safetensors", lambda _: _safetensors(b'{"a":' * 50_000), "header"
    ),
    _weights(
        "a type that is none",
        "w.safetensors",
        lambda _: _safetensors({"a": _entry([1], 0, 4, "F33")}, b"\0" * 4),
        "safetensors",
    ),
    _weights(
        "weights of another network",
        "w.safetensors",
        lambda _: _safetensors({"a.weight": _entry([1], 0, 4)}, b"\0" * 4),
        "w.safetensors",
    ),
    _weights("no tensors", "w.safetensors", lambda _: _safetensors({}), "no tensors"),
]


# saved models


def _changed(what: str, change: Callable[[Path, Place], None], *words: str, texts: bool = False) -> Bad:
    def command(p: Place) -> list[str | Path]:
        folder = p.copied(p.text_model if texts else p.model)
        change(folder, p)
        return ["predict", folder, p.texts if texts else p.pictures]

    return Bad(GRAFTS, what, command, words)


def _set(*keys: str | int, value: Any) -> Callable[[Path, Place], None]:
    def change(folder: Path, _: Place) -> None:
        document = json.loads((folder / "graft.json").read_text())
        inner = document
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        (folder / "graft.json").write_text(json.dumps(document))

    return change


def _written(name: str, content: bytes) -> Callable[[Path, Place], None]:
    def change(folder: Path, _: Place) -> None:
        (folder / name).write_bytes(content)

    return change


def _cut(name: str) -> Callable[[Path, Place], None]:
    return lambda folder, _: _written(name, (folder / name).read_bytes()[:-40])(folder, _)


def _gone(name: str) -> Callable[[Path, Place], None]:
    return lambda folder, _: (folder / name).unlink()


def _flipped(folder: Path, _: Place) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-9] ^= 4
    (folder / "model.safetensors").write_bytes(content)


def _pickled(folder: Path, p: Place) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(_Runs(p.own / "ran"), 2))


def _own_code(folder: Path, p: Place) -> None:
    (p.own / "evil.py").write_text(f"open({str(p.own / 'ran')!r}, 'w')\ndef make(): ...\n")
    _set("backbone", "recipe", value={"kind": "own", "target": "evil:make", "class": "evil:Net"})(folder, p)


def _piped(folder: Path, _: Place) -> None:
    import os

    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


OF_GRAFTS = [
    _changed("no weights", _gone("model.safetensors"), "model.safetensors"),
    _changed("weights that are cut short", _cut("model.safetensors"), "model.safetensors", "damaged"),
    _changed("one bit of the weights flipped", _flipped, "model.safetensors", "damaged"),
    _changed("weights that are a pickle which would run code", _pickled, "model.safetensors"),
    _changed("weights that are a pipe", _piped, "model.safetensors"),
    _changed("no description", _gone("graft.json"), "an unfinished run"),
    _changed("a description that is cut short", _cut("graft.json"), "graft.json", "damaged"),
    _changed("a description that is empty", _written("graft.json", b""), "graft.json", "damaged"),
    _changed("a description that is a list", _written("graft.json", b"[]"), "graft.json", "damaged"),
    _changed(
        "a description nested 100,000 deep", _written("graft.json", b"[" * 100_000), "graft.json", "damaged"
    ),
    _changed("a description with a name twice", _written("graft.json", b'{"form": 1, "form": 1}'), "damaged"),
    _changed("a description of a later form", _set("form", value=99), "graft.json", "form"),
    _changed("a number that is a word", _set("keep", value="all of them"), "graft.json", "damaged"),
    _changed("more blocks than there are", _set("keep", value=10**9), "graft.json", "damaged"),
    _changed("a head of 10^12 numbers", _set("head", "width", value=10**12), "graft.json", "damaged"),
    _changed(
        "hidden layers that are no numbers", _set("head", "hidden", value=["x"]), "graft.json", "damaged"
    ),
    _changed(
        "an input of 10^15 numbers",
        _set("backbone", "inputs", value={"x": {"dims": [[10**5, 0, 0]] * 3, "dtype": "float32"}}),
        "graft.json",
        "damaged",
    ),
    _changed(
        "a type that is a function",
        _set("backbone", "inputs", "x", "dtype", value="load"),
        "graft.json",
        "damaged",
    ),
    _changed("a network that is code of one's own", _own_code, "--trust-code", "evil:make"),
    _changed(
        "a recipe that leads out of its folder",
        _set("backbone", "recipe", value={"kind": "hf", "folder": "../../etc"}),
        "can't be used",
    ),
    _changed(
        "a recipe of an unknown kind",
        _set("backbone", "recipe", value={"kind": "shell", "run": "touch ran"}),
        "Unknown kind of network",
    ),
    _changed("no preprocessing", lambda f, _: __import__("shutil").rmtree(f / "preprocessing"), "preprocess"),
    _changed(
        "a preprocessing to 10^6 x 10^6 pixels",
        lambda f, _: _preprocess(f, "size", [10**6, 10**6]),
        "preprocess",
    ),
    _changed(
        "a preprocessing of an unknown kind", lambda f, _: _preprocess(f, "kind", "os.system"), "preprocess"
    ),
    _changed("a tokenizer that is cut short", _cut("preprocessing/tokenizer.json"), "tokenizer", texts=True),
    _changed(
        "a tokenizer that is another file",
        _written("preprocessing/tokenizer.json", b"{}"),
        "tokenizer",
        texts=True,
    ),
]


def _preprocess(folder: Path, key: str, value: Any) -> None:
    place = folder / "preprocessing" / "preprocess.json"
    document = json.loads(place.read_text())
    document[key] = value
    place.write_text(json.dumps(document))


# texts, tables, folders


def _circle(p: Place) -> Path:
    for name in ("cat", "dog"):
        (p.own / "round" / name).mkdir(parents=True)
        (p.own / "round" / name / "again").symlink_to(p.own / "round")
    return p.own / "round"


def _parquet_bomb(p: Place) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    column = pa.array(["x" * 1000] * 300_000).dictionary_encode()
    parquet.write_table(
        pa.table({"text": column, "label": column}), p.own / "bomb.parquet", compression="zstd"
    )
    return p.own / "bomb.parquet"


OF_TREES = [
    Bad(TREES, "links that lead round in a circle", lambda p: p.fit(_circle(p)), ("no pictures",)),
    Bad(
        TREES,
        "a Parquet file of 10 kB that holds 600 MB of the same text",
        lambda p: p.fit_texts(_parquet_bomb(p)),
        ("only one class",),
    ),
    Bad(
        TREES,
        "a name that looks like an option",
        lambda p: p.fit("--overwrite=/", "--quiet"),
        ("--overwrite",),
    ),
]

HOSTILE: list[Bad] = [*MEDIA, *OF_WEIGHTS, *OF_GRAFTS, *OF_TREES]
