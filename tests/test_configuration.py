from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from topgraft import cli
from topgraft.configuration import READ, REFUSED, WRITTEN, Key, Told, in_force, read_configuration, telling
from topgraft.errors import TopgraftError
from topgraft.program import keys_of

COMMANDS = {
    "fit": [
        Key("keep", "keep", str),
        Key("budget", "budget", float),
        Key("batch-size", "batch_size", int),
        Key("tune-norms", "tune_norms", bool),
        Key("hidden", "hidden", int, several=True),
        Key("backbone", "backbone", str, several=True),
        Key("out", "out", Path),
        Key("test", "test", str),
        Key("weights", "weights", str),
        Key("augment", "augment", str),
        Key("track-to", "track_to", str),
    ],
    "compare": [Key("backbone", "backbone", str), Key("budget", "budget", float)],
}


def read(folder: Path, text: str, name: str = "topgraft.toml") -> dict[str, dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return read_configuration(folder / name, COMMANDS)


def test_general_keys_reach_every_command_that_has_them_and_tables_come_before_them(tmp_path: Path) -> None:
    found = read(
        tmp_path, 'budget = 30\nbackbone = "rows"\nkeep = 14\n[fit]\nbudget = 60.5\nhidden = [64, 32]\n'
    )
    assert found == {
        "fit": {"budget": 60.5, "backbone": ["rows"], "keep": "14", "hidden": [64, 32]},
        "compare": {"budget": 30.0, "backbone": "rows"},
    }
    assert isinstance(found["compare"]["budget"], float)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[fit]\nbatch-siez = 3",
            r"topgraft.toml: \[fit\] batch-siez is not an option of `topgraft fit`.*batch-size",
        ),
        ("kep = 3", r"topgraft.toml: kep is not an option of any command.*keep"),
        ("fit = 3", "fit is not an option of any command.*fit"),
        ("[fti]\nkeep = 3", r"\[fti\] is no command.*fit"),
        ("[keep]\nx = 3", r"\[keep\] is a key, not a table"),
        ('[fit]\nbatch-size = "32"', r'\[fit\] batch-size = "32" is a text; expected a whole number'),
        ("[fit]\nbatch-size = true", "batch-size = true is true or false; expected a whole number"),
        ("[fit]\nbatch-size = 1.5", "batch-size = 1.5 is a number; expected a whole number"),
        ("[fit]\ntune-norms = 1", "tune-norms = 1 is a whole number; expected true or false"),
        ("[fit]\nkeep = true", "keep = true is true or false; expected a text"),
        ("[fit]\nkeep = [1, 2]", r"keep = \[1, 2\] is a list; expected a text"),
        ("[fit]\nbudget = 2020-01-01", "budget = 2020-01-01 is a date or time; expected a number"),
        ("[fit.more]\nkeep = 1", r"\[fit\] more is not an option"),
        ("[fit]\nkeep = {a = 1}", "keep = .* is a table; expected a text"),
        ('[fit]\nhidden = [64, "x"]', 'hidden = "x" is a text; expected a whole number, or a list of them'),
        ('backbone = ["a", "b"]', r"backbone = \[\"a\", \"b\"\] is a list; expected a text"),
        ("[fit]\nkeep = 3\nkeep = 4\n\n", "is no TOML: .*line 3"),
        ("[fit]\nkeep = \nbudget = 3", "is no TOML: .*line 2"),
        ("[fit]\ntrust-code = true", "since it runs code: give --trust-code on the command line"),
        ('on = "ray://far:1"', "since it hands data to other machines: give --on on the command line"),
        ('[fit]\nbackbone = "evil.module:make"', "names a function, and a file runs no code"),
        ('[fit]\nbackbone = ["rows", "evil:make"]', "names a function"),
        ('[fit]\naugment = "evil:change"', "names a function, and a file runs no code: give --augment"),
        ('[fit]\nout = "../elsewhere"', "leads out of the file's folder"),
        ('[fit]\nout = "/etc/elsewhere"', "leads out of the file's folder"),
        ('[fit]\nout = "~/elsewhere"', "leads out of the file's folder"),
        ('[fit]\nout = "linked/elsewhere"', "leads out of the file's folder"),
        ('[fit]\ntrack-to = "sqlite:////tmp/x.db"', "leads out of the file's folder"),
    ],
)
def test_what_a_file_may_not_say_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path)
    with pytest.raises(TopgraftError, match=said) as refused:
        read(folder, text)
    assert str(folder / "topgraft.toml") in str(refused.value)


def test_what_can_not_be_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "topgraft.toml"
    for content, said in (
        (b"[fit]\n\nkeep = '\xff'", "line 3: it is not in UTF-8"),
        (b"# \n" * 500_000, "more than 1,000,000 bytes"),
        (b"a = " + b"[" * 100_000, "is no TOML"),
    ):
        file.write_bytes(content)
        with pytest.raises(TopgraftError, match=said):
            read_configuration(file, COMMANDS)
    for place in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(TopgraftError, match=f"{place} can't be read"):
            read_configuration(place, COMMANDS)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbfkeep = 3\n")
    assert read_configuration(tmp_path / "a.toml", COMMANDS)["fit"] == {"keep": "3"}


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf" / "graft").mkdir(parents=True)
    (tmp_path / "test.csv").touch()  # where the command runs: not what the file means
    monkeypatch.chdir(tmp_path)
    text = 'out = "a.topgraft"\ntest = "test.csv"\nbackbone = ["graft", "hf/graft", "timm/x", "rows"]\n'
    found = read(Path("conf"), f'[fit]\n{text}weights = "none"\ntrack-to = "logs"')["fit"]
    assert found["out"] == "conf/a.topgraft"
    assert found["test"] == "conf/test.csv"
    assert found["backbone"] == ["conf/graft", "hf/conf/graft", "timm/x", "rows"]
    assert found["weights"] == "none"
    assert found["track-to"] == "conf/logs"
    assert read(Path(), f"[fit]\n{text}")["fit"]["out"] == "a.topgraft"
    for given, meant in (("hf/graft:test", "hf/conf/graft:test"), ("hf/mnist:test", "hf/mnist:test")):
        assert read(Path("conf"), f'[fit]\ntest = "{given}"')["fit"] == {"test": meant}
    assert read(Path("conf"), '[fit]\ntest = "../test.csv"\ntrack-to = "http://x:5000"')["fit"] == {
        "test": "conf/../test.csv",
        "track-to": "http://x:5000",
    }


def test_every_option_of_a_path_is_known_as_written_or_read() -> None:
    keys = {key for keys in keys_of(get_command(cli.app)).values() for key in keys}
    assert {key.name for key in keys if key.kind is Path} <= {*WRITTEN, *READ}


def test_the_options_of_every_command_are_keys_but_those_refused() -> None:
    commands = keys_of(get_command(cli.app))
    fit = {key.name: key for key in commands["fit"]}
    assert fit["batch-size"] == Key("batch-size", "batch_size", int)
    assert fit["backbone"] == Key("backbone", "backbone", str, several=True)
    assert fit["refit"].kind is bool
    assert fit["rate"].kind is float
    assert fit["plan"].kind is Path
    assert {key.parameter for key in commands["predict"] if key.name == "format"} == {"form"}
    assert {"json", "quiet", "verbose"} <= {key.name for key in commands["cache"]}
    assert REFUSED.keys().isdisjoint(key.name for keys in commands.values() for key in keys)


def test_what_is_told_holds_in_its_block_alone() -> None:
    told = Told("a.toml", {"keep": "3"})
    assert in_force() is None
    with telling(told):
        assert in_force() is told
    assert in_force() is None
    assert str(Told("a.toml")) == "a.toml: nothing for this command"
