from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from child_process import drop_rights, in_child, killed

from topgraft import files
from topgraft.errors import TopgraftError
from topgraft.run import STATUS, RunFolder

COMMAND = {"settings": {"keep": "auto"}, "data": "0123"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_new_folder_is_claimed_with_its_command(tmp_path: Path) -> None:
    run = RunFolder.claim(tmp_path / "deep" / "run", COMMAND, overwrite=False)
    document = json.loads((run.path / STATUS).read_text())
    assert (document["status"], document["command"]) == ("unfinished", COMMAND)
    assert list(contents(run.path)) == [STATUS]


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert RunFolder.check(tmp_path / "run", overwrite=False) == ""
    RunFolder.claim(tmp_path / "run", COMMAND, overwrite=False)
    assert RunFolder.check(tmp_path / "run", overwrite=False) == "unfinished"


def test_an_unfinished_run_of_the_same_command_goes_on_with_its_files(tmp_path: Path) -> None:
    run = RunFolder.claim(tmp_path / "run", COMMAND, overwrite=False)
    (run.path / "plan.json").write_text("{}")
    (run.work / "trial.safetensors").write_text("x")
    before = contents(run.path)
    again = RunFolder.claim(tmp_path / "run", dict(reversed(COMMAND.items())), overwrite=False)
    assert contents(again.path) == before
    for overwrite in (False, True):
        RunFolder.claim(tmp_path / "run", COMMAND, overwrite=overwrite)
        assert contents(again.path) == before


def test_another_command_does_not_go_on_with_it(tmp_path: Path) -> None:
    run = RunFolder.claim(tmp_path / "run", COMMAND, overwrite=False)
    (run.path / "plan.json").write_text("{}")
    before = contents(run.path)
    other = {**COMMAND, "data": "4567"}
    with pytest.raises(TopgraftError, match="an unfinished run of another command or other data"):
        RunFolder.claim(tmp_path / "run", other, overwrite=False)
    assert contents(run.path) == before
    RunFolder.claim(tmp_path / "run", other, overwrite=True)
    assert list(contents(run.path)) == [STATUS]


def test_a_finished_run_is_only_replaced_when_that_is_asked_for(tmp_path: Path) -> None:
    run = RunFolder.claim(tmp_path / "run", COMMAND, overwrite=False)
    (run.work / "trial.safetensors").write_text("x")
    (run.path / "graft.json").write_text("{}")
    run.finish()
    assert sorted(contents(run.path)) == ["graft.json", STATUS]
    before = contents(run.path)
    with pytest.raises(
        TopgraftError, match=r"holds a finished run. Give another -o, or --overwrite"
    ) as caught:
        RunFolder.claim(tmp_path / "run", COMMAND, overwrite=False)
    assert caught.value.exit_status == 2
    assert contents(run.path) == before
    assert RunFolder.check(run.path, overwrite=True) == "finished"
    assert contents(run.path) == before
    RunFolder.claim(tmp_path / "run", COMMAND, overwrite=True)
    assert list(contents(run.path)) == [STATUS]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("there", ["folder", "file", "other run", "link"])
def test_anything_else_is_left_alone(tmp_path: Path, overwrite: bool, there: str) -> None:
    place = tmp_path / "precious"
    if there == "file":
        place.write_text("mine")
    elif there == "link":
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "thesis.txt").write_text("mine")
        place.symlink_to(tmp_path / "real")
    else:
        place.mkdir()
        (place / "thesis.txt").write_text("mine")
        if there == "other run":
            (place / STATUS).write_text('{"status": "somebody else\'s"}')
    before = contents(tmp_path)
    with pytest.raises(TopgraftError, match="is not a run of topgraft; it is left alone"):
        RunFolder.claim(place, COMMAND, overwrite=overwrite)
    assert contents(tmp_path) == before


def test_a_link_to_a_run_stays_a_link(tmp_path: Path) -> None:
    run = RunFolder.claim(tmp_path / "real", COMMAND, overwrite=False)
    run.finish()
    link = tmp_path / "link"
    link.symlink_to(run.path)
    RunFolder.claim(link, COMMAND, overwrite=True)
    assert link.is_symlink()
    assert json.loads((run.path / STATUS).read_text())["status"] == "unfinished"


def test_no_permission_is_told_and_leaves_nothing() -> None:
    place = Path(tempfile.mkdtemp())
    place.chmod(0o555)

    def claim() -> str:
        drop_rights()
        try:
            RunFolder.claim(place / "run", COMMAND, overwrite=False)
        except TopgraftError as error:
            return str(error)
        return "claimed"

    assert in_child(claim).startswith(f"No permission to write {place / 'run'}.")
    assert list(place.iterdir()) == []
    place.rmdir()


def test_leftovers_of_a_killed_writer_are_removed_on_going_on(tmp_path: Path) -> None:
    run = RunFolder.claim(tmp_path / "run", COMMAND, overwrite=False)

    def die_while_writing() -> None:
        def parts():  # type: ignore[no-untyped-def] (never gets to its end)
            yield b"half"
            os.kill(os.getpid(), 9)

        files.write_whole(run.path / "plan.json", parts())

    killed(die_while_writing)
    assert len(contents(run.path)) == 2
    RunFolder.claim(tmp_path / "run", COMMAND, overwrite=False)
    assert list(contents(run.path)) == [STATUS]
