"""Processes that torchrun started: the first one leads, and the bits are those of the plan in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Job, tiny_job

from topgraft.errors import TopgraftError
from topgraft.workers import launched, working_on

DEEP = ("--keep", "3", "--epochs", "2", "--engine", "torch", "--precision", "fp32")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return tiny_job(tmp_path_factory.mktemp("job") / "here")


def launch(*arguments: str | Path, store: Path) -> subprocess.CompletedProcess[str]:
    """A command in two processes, as torchrun starts them."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [*torchrun, "-m", "topgraft", *map(str, arguments)],
        env=os.environ | {"TOPGRAFT_CACHE": str(store), "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@pytest.mark.slow
@pytest.mark.usefixtures("own_store_one_thread")
def test_a_search_and_a_training_in_two_processes_are_those_of_their_plan_in_one(
    job: Job, tmp_path: Path
) -> None:
    done = launch(*job.arguments(tmp_path / "two", *DEEP), "--json", store=tmp_path / "store")
    assert done.returncode == 0, done.stderr
    assert "training on 2 workers: one a process of torchrun" in done.stderr
    result = json.loads(done.stdout)  # once: the other process says nothing
    here = job.fit(tmp_path / "plain", *DEEP, "--json").json
    timeless = [[{**one, "seconds": 0} for one in each["search"]] for each in (result, here)]
    assert timeless[0] == timeless[1] != []
    on = result["on"]
    assert (on["kind"], on["workers_lost"]) == ("torchrun", 0)
    assert on["pieces"] == on["machines"][0]["pieces"] > 10
    again = job.fit(tmp_path / "one", "--plan", tmp_path / "two" / "plan.json")
    assert again.status == 0, again.err
    model = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("two", "one")]
    assert model[0] == model[1]


@pytest.mark.slow
def test_a_mistake_ends_all_processes_with_its_message_once(tmp_path: Path) -> None:
    done = launch("fit", tmp_path / "nothing.csv", store=tmp_path / "store")
    assert done.returncode != 0
    assert done.stderr.count("nothing.csv: there is no such file or folder") == 1


def test_one_process_is_no_several(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert not launched.are_several()
    assert launched.place(dry_run=False) is None
    with pytest.raises(TopgraftError, match=r"--on torchrun is for what torchrun started"):
        working_on("torchrun").__enter__()


def test_a_dry_run_is_the_first_processes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert launched.place(dry_run=False) == "torchrun"
    assert launched.place(dry_run=True) is None
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as end:
        launched.place(dry_run=True)
    assert end.value.code == 0
