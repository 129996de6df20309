"""Bad input of people who mean well: paths, tables, options, plans; as data."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torture_input import Bad, Place

PATHS, TABLES, OPTIONS = "Paths and folders", "Tables", "Options"
BACKBONES, PLANS, MODELS, OTHERS = "Backbones", "Plans and places", "Saved models", "Other commands"


def _link(p: Place) -> Path:
    (p.own / "link").symlink_to(p.own / "nothing")
    return p.own / "link"


def _folder(p: Place, *names: str) -> Path:
    for name in names:
        (p.own / "data" / name).mkdir(parents=True)
    (p.own / "data").mkdir(exist_ok=True)
    return p.own / "data"


def _some(p: Place, *names: str, each: int = 3) -> Path:
    """A folder with some pictures for each name."""
    folder = _folder(p, *names)
    for name in names:
        for source in sorted((p.pictures / "down").iterdir())[:each]:
            (folder / name / source.name).write_bytes(source.read_bytes())
    return folder


def _loose(p: Place) -> Path:
    folder = _folder(p)
    (folder / "a.png").write_bytes((p.pictures / "down" / "000.png").read_bytes())
    return folder


def _pipe(p: Place) -> Path:
    os.mkfifo(p.own / "pipe.csv")
    return p.own / "pipe.csv"


def _rows(*rows: str, header: str = "text,label") -> str:
    return "\n".join([header, *rows]) + "\n"


def _good(count: int = 30) -> list[str]:
    return [f"the {'good' if i % 2 else 'bad'} story {i},{'yes' if i % 2 else 'no'}" for i in range(count)]


def _table(name: str, content: str | bytes, *more: str) -> Any:
    return lambda p: p.fit_texts(p.write(name, content), *more)


def _option(*more: str) -> Any:
    return lambda p: p.fit(p.pictures, *more)


def _text_option(*more: str) -> Any:
    return lambda p: p.fit_texts(None, *more)


def _plan(content: str) -> Any:
    return lambda p: p.fit(p.pictures, "--plan", p.write("plan.json", content))


def _parquet(p: Place, columns: dict[str, Sequence[Any]]) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), p.own / "t.parquet")
    return p.own / "t.parquet"


CASES: list[Bad] = [
    Bad(PATHS, "no such folder", lambda p: p.fit(p.root / "picturs"), ("no such file or folder", "pictures")),
    Bad(PATHS, "an empty name", lambda p: p.fit(""), ("empty",)),
    Bad(PATHS, "an empty folder", lambda p: p.fit(_folder(p)), ("empty folder", "for each class")),
    Bad(PATHS, "folders of classes that are empty", lambda p: p.fit(_folder(p, "a", "b")), ("no pictures",)),
    Bad(PATHS, "a link to nothing", lambda p: p.fit(_link(p)), ("link to something that is not there",)),
    Bad(
        PATHS,
        "one picture instead of a folder",
        lambda p: p.fit(p.pictures / "down/000.png"),
        ("is one picture",),
    ),
    Bad(PATHS, "pictures, but no folders of classes", lambda p: p.fit(_loose(p)), ("no class folders",)),
    Bad(PATHS, "one class only", lambda p: p.fit(_some(p, "cat")), ("only one class", "cat")),
    Bad(PATHS, "a class with one example", lambda p: p.fit(_some(p, "cat", "dog", each=1)), ("cat",)),
    Bad(
        PATHS,
        "the same pictures in two classes",
        lambda p: p.fit(_some(p, "cat", "dog")),
        ("one group", "--test"),
    ),
    Bad(
        PATHS,
        "parts of a data set instead of classes",
        lambda p: p.fit(_some(p, "train", "test")),
        ("--test",),
    ),
    Bad(PATHS, "a name of 5,000 letters", lambda p: p.fit("x" * 5000), ("no path that can be read",)),
    Bad(
        PATHS, "a pipe instead of a table", lambda p: p.fit_texts(_pipe(p)), ("neither a file nor a folder",)
    ),
    Bad(PATHS, "a file of an unknown kind", lambda p: p.fit(p.write("notes.docx", "x")), ("docx", ".csv")),
    Bad(PATHS, "a test set that is not there", _option("--test", "nowhere"), ("nowhere",)),
    Bad(
        PATHS,
        "a test set that overlaps with the data",
        lambda p: p.fit(p.pictures, "--test", p.pictures),
        ("18 examples of the test set", "--allow-overlap"),
    ),
    Bad(PATHS, "the place to save is a file", lambda p: [*p.fit(p.pictures), "-o", p.texts], ("texts.csv",)),
    Bad(
        PATHS,
        "the place to save holds something else",
        lambda p: ["fit", p.pictures, "-o", p.pictures],
        ("not a run of topgraft", "left alone"),
    ),
    Bad(
        PATHS,
        "the place to save is a finished run",
        lambda p: ["fit", p.pictures, "-o", p.model],
        ("--overwrite",),
    ),
    Bad(TABLES, "an empty file", _table("t.csv", ""), ("empty file",)),
    Bad(TABLES, "no rows", _table("t.csv", _rows()), ("no rows",)),
    Bad(TABLES, "not UTF-8", _table("t.csv", "text,label\nd\xe9j\xe0,vu\n".encode("latin-1")), ("UTF-8",)),
    Bad(TABLES, "zero bytes in it", _table("t.csv", b"te\0xt,label\na,b\n"), ("zero bytes",)),
    Bad(TABLES, "a picture named .csv", _table("t.csv", b"\x89PNG\r\n\x1a\n\0\0\0\r"), ("UTF-8",)),
    Bad(
        TABLES,
        "a column twice",
        _table("t.csv", _rows("a,b,c", header="text,text,label")),
        ("more than one",),
    ),
    Bad(
        TABLES,
        "a row with too many cells",
        _table("t.csv", _rows("a,b", "c,d,e")),
        ("t.csv", "Expected 2 columns"),
    ),
    Bad(TABLES, "a quote that is never closed", _table("t.csv", _rows('"a,b', "c,d")), ("t.csv",)),
    Bad(TABLES, "an empty line instead of a header", _table("t.csv", "\n\na,b\n"), ("header",)),
    Bad(TABLES, "no such column of texts", _text_option("--text", "txet"), ("txet", "Nearest: text")),
    Bad(TABLES, "no such column of labels", _text_option("--label", "lable"), ("lable", "Nearest: label")),
    Bad(TABLES, "no such column of groups", _text_option("--group", "who"), ("who",)),
    Bad(TABLES, "texts and paths at once", _text_option("--text", "text", "--path", "text"), ("Name one",)),
    Bad(
        TABLES,
        "one column for two things",
        _text_option("--text", "text", "--label", "text"),
        ("two things",),
    ),
    Bad(
        TABLES,
        "columns that say nothing",
        _table("t.csv", _rows(*_good(), header="a,b")),
        ("--text", "a, b"),
    ),
    Bad(TABLES, "too many empty texts", _table("t.csv", _rows(*_good(), " ,no", ",yes")), ("2 of 32",)),
    Bad(
        TABLES, "too many rows without label", _table("t.csv", _rows(*_good(), "a b,", "c d, ")), ("2 of 32",)
    ),
    Bad(
        TABLES,
        "paths that lead nowhere",
        _table("t.csv", _rows("a.png,x", "b.png,y", header="path,label")),
        ("a.png",),
    ),
    Bad(TABLES, "broken JSON", _table("t.jsonl", '{"text": "a", "label": "b"}\n{"text": \n'), ("line 2",)),
    Bad(TABLES, "JSON that is no table", _table("t.jsonl", "[1, 2]\n"), ("expected an object",)),
    Bad(
        TABLES, "JSON of wrong types", _table("t.jsonl", '{"text": {"a": 1}, "label": [2]}\n' * 3), ("dict",)
    ),
    Bad(TABLES, "JSON nested 100,000 deep", _table("t.json", "[" * 100_000), ("not JSON",)),
    Bad(
        TABLES,
        "a text file named .parquet",
        _table("t.parquet", "text,label\na,b\n"),
        ("not a Parquet file",),
    ),
    Bad(
        TABLES,
        "a Parquet file that is cut short",
        lambda p: p.fit_texts(p.write("s.parquet", _parquet(p, {"text": ["a"]}).read_bytes()[:-30])),
        ("not a Parquet file",),
    ),
    Bad(
        TABLES,
        "a Parquet file without rows",
        lambda p: p.fit_texts(_parquet(p, {"text": [], "label": []})),
        ("no rows",),
    ),
    Bad(OPTIONS, "keep more than there is", _option("--keep", "99"), ("keep=99", "Give 1 to")),
    Bad(OPTIONS, "keep nothing", _option("--keep", "0"), ("keep=0",)),
    Bad(OPTIONS, "keep a share over 100 %", _option("--keep", "130%"), ("130%",)),
    Bad(
        OPTIONS, "keep a block that is not there", _option("--keep", "blocks.9.9"), ("blocks.9.9", "Nearest")
    ),
    Bad(OPTIONS, "freeze more than is kept", _text_option("--keep", "1", "--freeze", "2"), ("freeze=2",)),
    Bad(OPTIONS, "freeze less than nothing", _text_option("--freeze", "-1"), ("freeze=-1",)),
    Bad(OPTIONS, "no time", _option("--budget", "0"), ("--budget 0", "out of range")),
    Bad(OPTIONS, "time that is no number", _option("--budget", "nan"), ("--budget",)),
    Bad(OPTIONS, "a word for a number", _option("--epochs", "many"), ("--epochs", "integer")),
    Bad(OPTIONS, "no epochs", _option("--epochs", "0"), ("--epochs 0",)),
    Bad(OPTIONS, "batches of nothing", _option("--batch-size", "0"), ("--batch-size 0",)),
    Bad(OPTIONS, "one fold", _option("--folds", "1"), ("--folds 1", "2 to 100")),
    Bad(OPTIONS, "all held out", _option("--held-out", "1"), ("--held-out 1",)),
    Bad(OPTIONS, "a rate below zero", _option("--rate", "-1"), ("--rate -1",)),
    Bad(OPTIONS, "a rate that is not finite", _option("--rate", "inf"), ("--rate inf",)),
    Bad(OPTIONS, "dropout of everything", _option("--dropout", "1"), ("--dropout 1",)),
    Bad(OPTIONS, "a hidden layer without units", _option("--hidden", "0"), ("--hidden 0",)),
    Bad(OPTIONS, "a seed that is too large", _option("--seed", str(2**70)), ("--seed",)),
    Bad(OPTIONS, "an engine that is none", _option("--engine", "steam"), ("steam", "torch, openvino")),
    Bad(OPTIONS, "a precision that is none", _option("--precision", "fp8"), ("fp8", "fp32, bf16")),
    Bad(OPTIONS, "an augmentation that is none", _option("--augment", "some"), ("some", "standard")),
    Bad(OPTIONS, "a way to resize that is none", _option("--resize", "melt"), ("melt", "squash")),
    Bad(OPTIONS, "taps behind the last block", _option("--keep", "2", "--taps", "2"), ("tap",)),
    Bad(OPTIONS, "mixtures of texts", _text_option("--mixup", "1"), ("mixup",)),
    Bad(OPTIONS, "a preference that is none", _option("--prefer", "best"), ("best", "small, fast, accuracy")),
    Bad(OPTIONS, "a share over 1", _option("--max-unreadable", "2"), ("max_unreadable=2",)),
    Bad(OPTIONS, "an option that is none", _option("--epoch", "3"), ("--epoch",)),
    Bad(
        BACKBONES,
        "an unknown name",
        lambda p: ["fit", p.pictures, "-o", p.out, "--backbone", "timm/resnet81"],
        ("resnet18",),
    ),
    Bad(
        BACKBONES,
        "an unknown kind",
        lambda p: ["fit", p.pictures, "-o", p.out, "--backbone", "tim/resnet18"],
        ("timm/",),
    ),
    Bad(
        BACKBONES,
        "an empty name",
        lambda p: ["fit", p.pictures, "-o", p.out, "--backbone", ""],
        ("timm/NAME",),
    ),
    Bad(BACKBONES, "a network for other data", lambda p: p.fit(p.texts), ("reads pictures",)),
    Bad(BACKBONES, "no such function", lambda _: ["layers", "json:dumb"], ("dumb", "Nearest: dump")),
    Bad(BACKBONES, "no such module", lambda _: ["layers", "no_such_module:make"], ("no_such_module",)),
    Bad(
        BACKBONES,
        "a function that makes no network",
        lambda _: ["layers", "os:getcwd"],
        ("expected an nn.Module",),
    ),
    Bad(
        BACKBONES,
        "the same network twice",
        lambda p: [*p.fit(p.pictures), "--backbone", "timm/test_efficientnet"],
        ("more than once",),
    ),
    Bad(PLANS, "a plan that is not there", _option("--plan", "plan.json"), ("does not exist",)),
    Bad(PLANS, "a plan that is none", _plan('["first"]'), ("no plan",)),
    Bad(
        PLANS, "a plan of a later form", _plan('{"form": 99, "decisions": {}}'), ("no plan of this version",)
    ),
    Bad(PLANS, "a plan without reasons", _plan('{"form": 1, "decisions": {"keep": 3}}'), ("damaged",)),
    Bad(
        PLANS,
        "a plan for more blocks",
        _plan(json.dumps({"form": 1, "decisions": {"keep": {"value": 99, "reason": ""}}})),
        ("keep=99",),
    ),
    Bad(
        PLANS,
        "a plan with a word for a number",
        _plan(json.dumps({"form": 1, "decisions": {"threads": {"value": "all", "reason": ""}}})),
        ("threads",),
    ),
    Bad(
        PLANS,
        "a plan with a list for a name",
        _plan(json.dumps({"form": 1, "decisions": {"backbone": {"value": [1], "reason": ""}}})),
        ("backbone",),
    ),
    Bad(
        PLANS,
        "an option against the plan",
        lambda p: p.fit(p.pictures, "--plan", p.model / "plan.json", "--dropout", "0.5"),
        ("dropout=0.5",),
    ),
    Bad(MODELS, "a model that is not there", lambda p: ["predict", p.root / "modl", p.texts], ("not there",)),
    Bad(
        MODELS,
        "a folder that is no model",
        lambda p: ["predict", p.pictures, p.texts],
        ("not a saved graft",),
    ),
    Bad(MODELS, "nothing to predict", lambda p: ["predict", p.model], ("Missing argument",)),
    Bad(
        MODELS, "an input that is not there", lambda p: ["predict", p.model, "nothing.png"], ("nothing.png",)
    ),
    Bad(MODELS, "pictures for a model of texts", lambda p: ["predict", p.text_model, p.pictures], ("texts",)),
    Bad(
        MODELS,
        "a table without its column",
        lambda p: ["predict", p.text_model, p.write("t.csv", _rows("a,b", header="body,title"))],
        ("text", "body, title"),
    ),
    Bad(
        MODELS,
        "a format that is none",
        lambda p: ["predict", p.model, p.pictures, "--format", "xml"],
        ("xml", "csv, jsonl"),
    ),
    Bad(
        MODELS,
        "a coverage over 1",
        lambda p: ["predict", p.model, p.pictures, "--coverage", "2"],
        ("coverage",),
    ),
    Bad(
        MODELS,
        "a class that the model does not know",
        lambda p: ["evaluate", p.model, _some(p, "down", "up")],
        ("up",),
    ),
    Bad(
        MODELS,
        "data without labels",
        lambda p: ["evaluate", p.text_model, p.write("t.csv", _rows("a", "b", header="text"))],
        ("label",),
    ),
    Bad(MODELS, "a report of something else", lambda p: ["report", p.pictures], ("pictures",)),
    Bad(
        MODELS,
        "an export to an unknown format",
        lambda p: ["export", p.model, "--to", "coreml"],
        ("coreml", "onnx"),
    ),
    Bad(
        MODELS,
        "an export over something else",
        lambda p: ["export", p.model, "--to", "state-dict", "-o", p.pictures],
        ("pictures",),
    ),
    Bad(MODELS, "a port that is none", lambda p: ["serve", p.model, "--port", "99999"], ("port", "99999")),
    Bad(MODELS, "a service of no model", lambda p: ["serve", p.pictures], ("not a saved graft",)),
    Bad(OTHERS, "a command that is none", lambda p: ["fitt", p.pictures], ("fitt",)),
    Bad(OTHERS, "an option without its value", lambda p: ["fit", p.pictures, "--keep"], ("--keep",)),
    Bad(OTHERS, "no data", lambda _: ["fit"], ("Missing argument",)),
    Bad(OTHERS, "a size that is none", lambda _: ["cache", "limit", "plenty"], ("plenty",)),
    Bad(OTHERS, "a key that is none", lambda _: ["cache", "clear", "zzzz"], ("zzzz",)),
    Bad(
        OTHERS,
        "a picture where none can be",
        lambda p: ["layers", "timm/test_efficientnet", "--svg", p.root / "no" / "x.svg"],
        ("does not exist",),
    ),
    Bad(OTHERS, "no such kind of backbone", lambda _: ["backbones", "--modality", "smell"], ("smell",)),
]
