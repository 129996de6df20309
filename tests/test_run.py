from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from child_process import in_child, killed, limit_file_size, small_disk
from command_line import content, tiny_job

from topgraft.errors import TopgraftError
from topgraft.run import RunFolder, alone

TRAINED = ("--keep", "3", "--freeze", "1", "--epochs", "2")
COMMAND: dict[str, Any] = {"settings": {"keep": "auto"}, "data": "abc"}


def claim(path: Path, command: dict[str, Any] = COMMAND, *, overwrite: bool = False) -> RunFolder:
    return RunFolder.claim(path, command, overwrite=overwrite)


def test_a_new_folder_is_claimed_with_its_parents_and_finished_once(tmp_path: Path) -> None:
    run = claim(tmp_path / "deep" / "run")
    document = json.loads((run.path / "run.json").read_text())
    assert (document["status"], document["command"]) == ("unfinished", COMMAND)
    (run.work / "state").write_text("half")
    run.finish()
    assert json.loads((run.path / "run.json").read_text())["status"] == "finished"
    assert not (run.path / "work").exists()


def test_the_same_command_goes_on_with_what_is_there(tmp_path: Path) -> None:
    first = claim(tmp_path / "run")
    (first.work / "state").write_text("half")
    again = claim(tmp_path / "run", {"data": "abc", "settings": {"keep": "auto"}})
    assert (again.work / "state").read_text() == "half"


def test_who_was_killed_just_when_the_folder_was_claimed_is_in_nobodys_way(tmp_path: Path) -> None:
    def die() -> None:
        Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment,return-value]
        claim(tmp_path / "run")

    killed(die)
    assert len(list((tmp_path / "run").iterdir())) == 1  # half a run.json
    run = claim(tmp_path / "run")
    assert [entry.name for entry in run.path.iterdir()] == ["run.json"]


def test_another_command_is_refused_unless_it_may_replace(tmp_path: Path) -> None:
    first = claim(tmp_path / "run")
    (first.work / "state").write_text("half")
    before = content(tmp_path)
    with pytest.raises(TopgraftError, match="another command or other data"):
        claim(tmp_path / "run", {**COMMAND, "data": "xyz"})
    assert content(tmp_path) == before
    claim(tmp_path / "run", {**COMMAND, "data": "xyz"}, overwrite=True)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["run.json"]


def test_a_finished_run_is_refused_unless_it_may_be_replaced(tmp_path: Path) -> None:
    claim(tmp_path / "run").finish()
    before = content(tmp_path)
    with pytest.raises(TopgraftError, match="finished run"):
        claim(tmp_path / "run")
    assert content(tmp_path) == before
    claim(tmp_path / "run", overwrite=True)
    assert RunFolder.check(tmp_path / "run", overwrite=False) == "unfinished"


def test_looking_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nothing"):
        assert RunFolder.check(tmp_path / name, overwrite=True) == ""
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]
    assert claim(tmp_path / "empty").path == tmp_path / "empty"


def test_what_a_link_stands_for_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    claim(tmp_path / "real").finish()
    (tmp_path / "real" / "old").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    claim(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert [p.name for p in (tmp_path / "real").iterdir()] == ["run.json"]


@pytest.mark.parametrize("text", ['{"status": "a marathon"}', "[]", '"finished"'])
def test_what_is_no_run_is_refused_even_if_it_may_be_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "run.json").write_text(text)
    with pytest.raises(TopgraftError, match="left alone"):
        claim(tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "run.json").read_text() == text


def test_a_damaged_run_is_left_alone_and_says_what_helps(tmp_path: Path) -> None:
    status = claim(tmp_path / "run").path / "run.json"
    status.write_bytes(status.read_bytes()[:-20])
    before = content(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(TopgraftError, match=r"damaged: .*\n.*Delete .*run, or give another -o"):
            claim(tmp_path / "run", overwrite=overwrite)
    assert content(tmp_path) == before


def test_a_file_in_the_way_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TopgraftError, match="file"):
        claim(tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("was_there", [False, True])
def test_a_start_that_fails_leaves_what_it_found(tmp_path: Path, was_there: bool) -> None:
    if was_there:
        (tmp_path / "run").mkdir()

    def task() -> int:
        limit_file_size(10)
        try:
            claim(tmp_path / "run")
        except TopgraftError as error:
            return error.exit_status
        return 0

    assert in_child(task) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["run"] * was_there
    assert content(tmp_path) == {}


def test_a_read_only_disk_is_the_users_to_mend(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8_192, "ro") as disk, pytest.raises(TopgraftError, match="read-only"):
        claim(disk / "run")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_that_another_process_is_at_is_left_alone(tmp_path: Path, overwrite: bool) -> None:
    (claim(tmp_path / "run").work / "state").write_text("half")
    before = content(tmp_path)

    def task() -> str:
        with pytest.raises(TopgraftError) as refused:
            claim(tmp_path / "run", overwrite=overwrite)
        return str(refused.value)

    with alone(tmp_path / "run"):
        assert in_child(task).startswith(f"Another process is at work in {tmp_path / 'run'}.")
        assert content(tmp_path) == before
    assert (claim(tmp_path / "run").work / "state").read_text() == "half"


def test_who_was_killed_is_at_no_run_any_more(tmp_path: Path) -> None:
    claim(tmp_path / "run")

    def task() -> None:
        with alone(tmp_path / "run"):
            os.kill(os.getpid(), signal.SIGKILL)

    killed(task)
    with alone(claim(tmp_path / "run").path):
        pass


@pytest.mark.usefixtures("cache")
def test_a_second_fit_beside_the_first_is_refused(tmp_path: Path) -> None:
    job = tiny_job(tmp_path / "job")
    assert job.interrupted("Refit", tmp_path / "model", *TRAINED).status == 130
    before = content(tmp_path / "model")
    with alone(tmp_path / "model"):
        second = job.fit(tmp_path / "model", *TRAINED)
    assert second.status == 2
    assert "Another process is at work in" in second.err
    assert content(tmp_path / "model") == before
    assert job.fit(tmp_path / "model", *TRAINED).status == 0
