"""What commands share, by running them."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Job, called, done, tiny_job
from typer.main import get_command

from topgraft import cli
from topgraft.plan import Plan
from topgraft.program import EPILOG

pytestmark = pytest.mark.usefixtures("own_store_one_thread")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return tiny_job(tmp_path_factory.mktemp("job"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new folder that commands run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_gives_the_options_any_flag_overrides_it_and_the_run_records_it(job: Job, here: Path) -> None:
    (here / "topgraft.toml").write_text(
        f'backbone = "{job.backbone}"\nseed = 5\n[fit]\nfreeze = "all"\nout = "a.topgraft"\n'
        "batch-size = 16\nrefit = false\nfolds = 4\nscore = 'f1_macro'\n[probe]\nfolds = 3\n"
    )
    outcome = done("fit", job.table, "--folds", "3", "--json")
    assert outcome.json["model"] == "a.topgraft"
    assert outcome.json["freeze"] == outcome.json["keep"]
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("Options")]
    assert line.startswith("Options   topgraft.toml: ")
    assert 'freeze = "all"' in line
    assert line.endswith("overridden on the command line: folds")
    recorded = json.loads((here / "a.topgraft" / "result.json").read_text())["configuration"]
    assert recorded["file"] == "topgraft.toml"
    assert recorded["values"] == {
        "backbone": [job.backbone],
        "seed": 5,
        "freeze": "all",
        "out": "a.topgraft",
        "batch-size": 16,
        "refit": False,
        "score": ["f1_macro"],
    }
    assert [score["metric"] for score in outcome.json["scorers"]] == ["f1_macro"]
    assert recorded["overridden"] == ["folds"]
    plan = Plan.read(here / "a.topgraft" / "plan.json")
    assert plan["batch_size"] == {"value": 16, "reason": "as told by topgraft.toml"}
    assert plan["refit"]["value"] is False
    assert plan["folds"] == {"value": 3, "reason": "as told"}
    assert plan["dropout"]["reason"] == "as told"


def test_a_file_gives_the_same_model_as_flags_and_none_is_read_where_it_is_not_wanted(
    job: Job, here: Path
) -> None:
    (here / "other.toml").write_text(
        f'[fit]\nbackbone = "{job.backbone}"\nseed = 1\nkeep = 2\nfreeze = "all"\n'
    )
    (here / "topgraft.toml").write_text("not toml")
    by_file = done("fit", job.table, "-o", here / "file", "--config", "other.toml", "--json").json
    by_flags = job.fit(here / "flags", "--keep", "2", "--freeze", "all", "--no-config", "--json").json
    assert by_file["configuration"]["file"] == "other.toml"
    assert by_flags["configuration"] is None
    model = [(here / name / "model.safetensors").read_bytes() for name in ("file", "flags")]
    assert model[0] == model[1]
    assert by_file["keep"] == by_flags["keep"] == 2


def test_a_mistake_in_the_file_ends_the_command_before_it_begins(job: Job, here: Path) -> None:
    (here / "topgraft.toml").write_text("[fit]\nkepe = 3\n")
    refused = job.fit(here / "model")
    assert refused.status == 2
    assert "topgraft.toml: [fit] kepe" in refused.err
    assert "Nearest: keep" in refused.err
    assert not (here / "model").exists()
    missing = called("cache", "--config", "none.toml")
    assert (missing.status, "none.toml can't be read" in missing.err) == (2, True)
    (here / "topgraft.toml").write_text("quiet = true\n")
    both = called("cache", "--config", "topgraft.toml", "--no-config")
    assert (both.status, "give one of them" in both.err) == (2, True)
    both = called("cache", "--no-config", "--config", "topgraft.toml")
    assert (both.status, "give one of them" in both.err) == (2, True)


def test_paths_and_lists_reach_a_command_as_it_takes_them(job: Job, here: Path) -> None:
    (here / "conf").mkdir()
    (here / "conf" / "a.toml").write_text('[layers]\nkeep = 2\nsvg = "chain.svg"\n[fit]\nhidden = [8, 4]\n')
    done("layers", job.backbone, "--config", "conf/a.toml")
    assert "keep 2" in (here / "conf" / "chain.svg").read_text()
    told = done("fit", job.table, "--backbone", job.backbone, "--config", "conf/a.toml", "--dry-run")
    assert "hidden = [8, 4]" in told.err


def test_quiet_and_json_count_in_a_file_and_in_a_group(here: Path) -> None:
    (here / "topgraft.toml").write_text("[cache]\njson = true\nquiet = true\n")
    for command in (("cache",), ("cache", "list"), ("cache", "--config", "topgraft.toml", "list")):
        outcome = done(*command)
        assert outcome.json.keys() >= {"shelves", "limit"}
        assert outcome.err == ""
    (here / "topgraft.toml").write_text("quiet = false\n")
    assert "Options   topgraft.toml: quiet = false" in done("cache").err
    assert done("cache", "--no-config").err == ""
    assert done("cache", "list", "--no-config").err == ""


def test_verbose_says_each_decision_with_its_reason_and_what_it_took(job: Job, here: Path) -> None:
    usual = job.fit(here / "a", "--freeze", "all")
    outcome = job.fit(here / "b", "--freeze", "all", "--verbose")
    assert outcome.status == 0
    decided = [line for line in outcome.err.splitlines() if line.startswith("Decided")]
    plan = Plan.read(here / "b" / "plan.json")
    assert f"Decided   keep = {plan['keep']['value']}: {plan['keep']['reason']}" in decided
    assert "Versions  python " in outcome.err
    assert "\nTook      " in outcome.err
    assert "Decided" not in usual.err
    assert not logging.getLogger("topgraft").handlers
    both = called("cache", "-v", "-q")
    assert (both.status, both.out) == (2, "")
    assert "--quiet and --verbose: give one of them" in both.err
    assert "Took" in done("cache", "-v", "list").err


def test_every_command_says_its_exit_status_and_takes_what_all_share() -> None:
    def leaves(command: object, name: str) -> list[tuple[str, object]]:
        subs = getattr(command, "commands", {})
        return [(name, command)] + [leaf for n, sub in subs.items() for leaf in leaves(sub, f"{name} {n}")]

    for name, command in leaves(get_command(cli.app), "topgraft"):
        assert command.epilog == EPILOG, name  # type: ignore[attr-defined]
        options = {o for p in command.params for o in p.opts}  # type: ignore[attr-defined]
        if name != "topgraft":
            assert {"--config", "--no-config", "--verbose", "-v", "--quiet", "-q", "--json"} <= options, name
            assert f"Example: {name}" in command.help  # type: ignore[attr-defined]


STATUSES = """
import sys
from topgraft import cli, errors

failure = {"1": errors.RunningError("The disk is full."), "2": errors.TopgraftError("No such data."),
           "130": KeyboardInterrupt(), "0": None}[sys.argv[1]]

@cli.app.command()
def fail() -> None:
    "Example: topgraft fail"
    if failure is not None:
        raise failure

cli.main(["fail"])
"""


@pytest.mark.parametrize("status", [0, 1, 2, 130])
def test_the_exit_status_is_as_documented(status: int) -> None:
    run = subprocess.run([sys.executable, "-c", STATUSES, str(status)], capture_output=True, text=True)
    assert run.returncode == status
    assert "Traceback" not in run.stderr
    documented = (Path(__file__).parent.parent / "docs" / "command-line.md").read_text(encoding="utf-8")
    assert f"| {status} |" in documented


BAR = """
import sys
from topgraft.console import Console

with Console.for_command(json=False).progress("Trying", 3) as advance:
    advance(3)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
def test_no_color_leaves_colour_out_of_a_terminal() -> None:
    import pty

    def shown(**more: str) -> str:
        ours, theirs = pty.openpty()
        environment = {n: v for n, v in os.environ.items() if n not in ("NO_COLOR", "TERM", "FORCE_COLOR")}
        with subprocess.Popen(
            [sys.executable, "-c", BAR],
            stderr=theirs,
            stdout=theirs,
            env={**environment, "TERM": "xterm", **more},
        ) as running:
            os.close(theirs)
            found = io.BytesIO()
            while True:
                try:
                    piece = os.read(ours, 1024)
                except OSError:  # so Linux says that the other side is closed
                    break
                if not piece:
                    break
                found.write(piece)
            os.close(ours)
            assert running.wait() == 0
        return found.getvalue().decode()

    colours = "\x1b[3", "\x1b[9", ";3"
    assert any(code in shown() for code in colours)
    plain = shown(NO_COLOR="1")
    assert "Trying" in plain
    assert not any(code in plain for code in colours)
