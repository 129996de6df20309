"""``topgraft cache``: what it shows, bounds and frees."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import torch
from child_process import drop_rights, finish, in_child, start
from command_line import called, content, done, tiny_job
from test_import import LIBRARIES, modules_after
from typer.main import get_command

from topgraft import cache as command
from topgraft.cli import main
from topgraft.features.limit import VARIABLE
from topgraft.features.store import Store

POOLED = {"what": "pooled", "recipe": {"kind": "timm", "name": "tiny"}}
STATES = {
    "what": "state",
    "cut": 2,
    "blocks": [{"module": "stem", "when": "enter"}, {"module": "blocks.0", "when": "exit"}],
    "recipe": {"kind": "own", "class": "mine:Net", "target": None},
}


@pytest.fixture(autouse=True)
def _own_store(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPGRAFT_CACHE", str(cache))
    monkeypatch.delenv(VARIABLE, raising=False)


def put(description: dict[str, Any], count: int = 3, when: int | None = None) -> str:
    shelf = Store().shelf(description)
    shelf.append([f"e{i}" for i in range(count)], {"a": torch.ones(count, 100)})
    for path in shelf.folder.iterdir() if when is not None else ():
        os.utime(path, (when, when))
    return shelf.key


def rows(out: str) -> list[list[str]]:
    """The cells of a table, which two spaces or more divide."""
    lines = out.splitlines()
    return [re.split(r" {2,}", line.strip()) for line in lines[: lines.index("") if "" in lines else None]]


# the list


@pytest.mark.parametrize("arguments", [("cache",), ("cache", "list")])
def test_what_is_stored_is_listed_last_used_first(arguments: tuple[str, ...], cache: Path) -> None:
    now = datetime.now(timezone.utc).timestamp()
    states, pooled = put(STATES, 1, int(now) - 200_000), put(POOLED, 3, int(now) - 7300)
    found = rows(done(*arguments).out)
    assert found[0] == ["key", "what", "backbone", "examples", "size", "used"]
    first, second = found[1:3]
    assert [first[0], *first[1:4], first[5]] == [pooled[:8], "pooled, all cuts", "timm/tiny", "3", "2 h ago"]
    assert [*second[:4], second[5]] == [
        states[:8],
        "states at cut 2 (after blocks.0)",
        "mine:Net",
        "1",
        "2 days ago",
    ]
    assert found[3] == ["Store", str(cache)]
    assert found[4][0] == "Total"
    assert found[5][0] == "Limit"


def test_json_has_the_fixed_form_and_people_read_standard_error(cache: Path) -> None:
    key = put(POOLED, 3, 1_700_000_000)
    for arguments in (("cache", "--json"), ("cache", "list", "--json"), ("cache", "--json", "list")):
        outcome = done(*arguments)
        size = Store().size()
        assert outcome.json == {
            "folder": str(cache),
            "remote": None,
            "bytes": size,
            "limit": Store().limit.bytes,
            "limit_from": "default",
            "shelves": [
                {
                    "key": key,
                    "what": "pooled, all cuts",
                    "backbone": "timm/tiny",
                    "examples": 3,
                    "bytes": size,
                    "used": "2023-11-14T22:13:20+00:00",
                    "in_use": False,
                }
            ],
        }
        assert "pooled, all cuts" in outcome.err
        assert done(*arguments, "--quiet").err == ""


def test_nothing_stored_is_no_error_and_makes_no_folder(cache: Path) -> None:
    assert "nothing is stored" in done("cache").out
    assert done("cache", "--json").json["shelves"] == []
    assert done("cache", "clear", "--json").json["freed"] == 0
    assert "nothing is stored" in done("cache", "limit").out
    assert not cache.exists()


def test_to_list_changes_nothing_even_where_something_is_damaged(cache: Path) -> None:
    folder = Store().root / "features-1" / put(POOLED)
    (shard,) = folder.glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-5])
    for text in ('{"what"', "[]", '{"what": "state", "cut": 9, "blocks": [3], "recipe": {"kind": 1}}'):
        (folder / "description.json").write_text(text)
        before = content(cache)
        (listed,) = done("cache", "--json").json["shelves"]
        assert (listed["examples"], listed["backbone"]) == (0, "")
        assert content(cache) == before


def test_a_real_run_is_told_by_its_network(tmp_path: Path) -> None:
    job = tiny_job(tmp_path / "job")
    assert job.fit(tmp_path / "model", "--keep", "2", "--freeze", "1", "--epochs", "1").status == 0
    shelves = done("cache", "--json").json["shelves"]
    assert {shelf["what"]: shelf["examples"] for shelf in shelves} == {
        "pooled, all cuts": 36,
        "probes, all cuts": 1,
        "states at cut 1 (before encoder.layer.0)": 36,
    }
    assert {shelf["backbone"] for shelf in shelves} == {"hf/BertModel"}


# clearing


def test_everything_is_freed_and_told(cache: Path) -> None:
    keys = {put(STATES), put(POOLED)}
    size = Store().size()
    outcome = done("cache", "clear", "--json")
    assert outcome.json["freed"] == size
    assert set(outcome.json["cleared"]) == keys
    assert (outcome.json["left"], outcome.json["shelves"], outcome.json["bytes"]) == ([], [], 0)
    assert "of 2 shelves" in outcome.err
    assert content(cache) == {}


def test_only_what_has_the_key_is_freed() -> None:
    states, pooled = put(STATES), put(POOLED)
    outcome = done("cache", "clear", states[:8])
    assert outcome.out.startswith("Freed")
    assert [shelf.key for shelf in Store().shelves()] == [pooled]


@pytest.mark.parametrize("key", ["zz", "", "../..", "*"])
def test_an_unknown_key_is_refused_and_nothing_is_freed(cache: Path, key: str) -> None:
    pooled = put(POOLED)
    before = content(cache)
    outcome = called("cache", "clear", pooled[:6], key)
    assert outcome.status == 2
    assert f"begins with {key!r}" in outcome.err
    assert pooled[:8] in outcome.err
    assert outcome.out == ""
    assert content(cache) == before


def test_a_mistyped_key_gets_the_nearest() -> None:
    pooled = put(POOLED)
    put(STATES)
    wrong = pooled[:3] + ("0" if pooled[3] != "0" else "1") + pooled[4:8]
    assert f"Nearest: {pooled[:8]}" in called("cache", "clear", wrong).err


def test_what_a_running_command_uses_is_left_and_told() -> None:
    pooled, states = put(POOLED), put(STATES)
    go, ready = os.pipe(), os.pipe()

    def work() -> int:
        shelf = Store().shelf(POOLED)
        known = len(shelf.known())
        os.write(ready[1], b".")
        os.read(go[0], 1)
        return known

    child = start(work)
    os.read(ready[0], 1)
    assert "in use" in done("cache").out
    outcome = done("cache", "clear", "--json")
    os.write(go[1], b".")
    assert finish(*child) == 3
    assert (outcome.json["cleared"], outcome.json["left"]) == ([states], [pooled])
    assert "in use just now" in outcome.err


def test_a_persons_own_files_are_left_and_told(cache: Path) -> None:
    folder = cache / "features-1" / put(POOLED)
    (folder / "notes.txt").write_text("mine")
    assert "not the store's" in done("cache", "clear").out
    assert content(folder) == {"notes.txt": b"mine"}


# the limit


def test_the_limit_is_set_shown_and_lifted(cache: Path) -> None:
    assert done("cache", "limit", "--json").json["limit_from"] == "default"
    outcome = done("cache", "limit", "5GB", "--json")
    assert (outcome.json["limit"], outcome.json["limit_from"]) == (5_000_000_000, "file")
    assert "5.0 GB" in outcome.err
    assert json.loads((cache / "limit.json").read_text()) == {"limit": 5_000_000_000}
    assert "5.0 GB" in done("cache", "limit").out
    assert "5.0 GB" in done("cache").out
    assert done("cache", "limit", "none", "--json").json["limit"] is None
    assert "none" in done("cache", "limit").out


def test_a_lower_limit_frees_at_once_and_says_what() -> None:
    put(STATES, when=1000)
    pooled = put(POOLED, when=2000)
    size = Store().size()
    outcome = done("cache", "limit", f"{size - 1}B", "--json")
    assert [shelf["key"] for shelf in outcome.json["shelves"]] == [pooled]
    assert len(outcome.json["dropped"]) == 1
    assert outcome.json["freed"] + outcome.json["bytes"] == size
    assert "states at cut 2 (after blocks.0) of mine:Net" in outcome.err


def test_the_environment_comes_first_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "7GB")
    outcome = done("cache", "limit", "5GB", "--json")
    assert (outcome.json["limit"], outcome.json["limit_from"]) == (7_000_000_000, "environment")
    assert f"${VARIABLE} comes before it" in outcome.err


def test_over_the_limit_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    put(POOLED)
    monkeypatch.setenv(VARIABLE, "100B")
    assert "over it, dropped when something is stored next" in done("cache").out


def test_a_damaged_limit_is_told(cache: Path) -> None:
    done("cache", "limit", "5GB")
    (cache / "limit.json").write_text("{")
    outcome = done("cache")
    assert "limit.json is damaged" in outcome.out
    assert "the default" in outcome.out
    assert done("cache", "limit", "6GB", "--json").json["limit"] == 6_000_000_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("cache", "limit", "5"), "Nearest: 5GB."),
        (("cache", "limit", "much", "--json"), "'much' is no size"),
        (("cache", "limit", "-5GB"), "-5"),
        (("cache", "limit", "5GB", "6GB"), "6GB"),
        (("cache", "cleer"), "cleer"),
        (("cache", "--all"), "--all"),
    ],
)
def test_bad_input_has_one_message_and_status_2(arguments: tuple[str, ...], said: str, cache: Path) -> None:
    outcome = called(*arguments)
    assert outcome.status == 2
    assert said in outcome.err
    assert outcome.out == ""
    assert outcome.err.splitlines()[-1].startswith(("Error: ", "Give a number"))
    assert not cache.exists()


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "5 bananas")
    outcome = called("cache")
    assert outcome.status == 2
    assert f"Error: {VARIABLE}: '5 bananas' is no size" in outcome.err


def test_a_folder_that_may_not_be_written_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Path(tempfile.mkdtemp())
    monkeypatch.setenv("TOPGRAFT_CACHE", str(place))
    key = put(POOLED)
    for folder in (place, place / "features-1", place / "features-1" / key):
        folder.chmod(0o555)

    def work() -> list[Any]:
        drop_rights()
        outcomes = [called("cache", *more) for more in (("--json",), ("limit", "5GB"), ("clear",))]
        return [[outcome.status, outcome.err] for outcome in outcomes]

    try:
        listed, limited, cleared = in_child(work)
    finally:
        for folder in (place, place / "features-1", place / "features-1" / key):
            folder.chmod(0o755)
        shutil.rmtree(place)
    assert listed[0] == 0
    for status, message in (limited, cleared):
        assert status == 2
        assert "No permission to write" in message


# the command line as a whole


def test_each_form_has_an_example_and_json() -> None:
    group = get_command(command.app)
    for name, form in group.commands.items():  # type: ignore[attr-defined]  # it is a group
        assert f"Example: topgraft cache {name}" in (form.help or "")
        assert "--json" in {o for p in form.params for o in p.opts}


def test_it_loads_nothing_heavy() -> None:
    put(POOLED)
    loaded = modules_after(
        "from topgraft.cli import main\ntry:\n    main(['cache', '--quiet'])\nexcept SystemExit: pass"
    )
    assert "typer" in loaded
    assert loaded.isdisjoint(LIBRARIES - {"typer", "rich"})


def test_debug_shows_where_an_error_arose() -> None:
    from topgraft.errors import TopgraftError

    with pytest.raises(TopgraftError):
        main(["cache", "limit", "5", "--debug"])
