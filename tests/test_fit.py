from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import BLOCKS, Job, content, done, table_of, tiny_job, word_texts
from torch import Tensor

import topgraft
from topgraft.backbones import PicturePreprocess
from topgraft.data import read
from topgraft.errors import TopgraftError
from topgraft.features.engine import Engine
from topgraft.files import read_tensors
from topgraft.finish import TIMED
from topgraft.fit import default_folder, fit

TRAINED = ("--keep", "3", "--freeze", "1", "--epochs", "3")
PICTURES = ("--backbone", "timm/test_efficientnet", "--weights", "none", "--keep", "2", "--epochs", "1")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return tiny_job(tmp_path_factory.mktemp("job") / "here")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The same bits in this process as in one that it starts."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(autouse=True)
def _one_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPGRAFT_CACHE", str(store))


def tensors(folder: Path) -> dict[str, Tensor]:
    return dict(read_tensors(folder / "model.safetensors")[0])


def bits(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def fitted(job: Job, out: Path, *more: str | Path) -> dict[str, Any]:
    """A fit that must end well, as JSON."""
    outcome = job.fit(out, "--json", *more)
    assert outcome.status == 0, outcome.err
    return dict(outcome.json)


@pytest.mark.parametrize(
    "options",
    [
        ("--freeze", "0"),
        ("--freeze", "1"),
        ("--freeze", "all"),
        ("--freeze", "auto", "--hidden", "8"),
        ("--freeze", "all", "--hidden", "8"),
        ("--freeze", "1", "--no-refit"),
    ],
    ids=" ".join,
)
def test_what_is_said_to_be_frozen_has_the_old_bits_and_what_is_said_to_train_has_new_ones(
    job: Job, tmp_path: Path, options: tuple[str, ...]
) -> None:
    result = fitted(job, tmp_path / "model", "--keep", "3", "--epochs", "2", *options)
    before, _ = read_tensors(Path(job.backbone.removeprefix("hf/")) / "model.safetensors")
    after = tensors(tmp_path / "model")
    names = {n.removeprefix("backbone.") for n in after if n.startswith("backbone.")}
    changed = {n for n in names if not torch.equal(after[f"backbone.{n}"], before[n])}
    trained = {n for n in result["trained_names"] if not n.startswith("head.")}
    assert changed == trained
    assert {b for b in BLOCKS if any(n.startswith(b + ".") for n in changed)} == set(
        result["blocks"]["trained"]
    )
    assert result["blocks"]["frozen"] == list(BLOCKS[: result["freeze"]])


def test_hidden_layers_and_dropout_are_in_the_head(job: Job, tmp_path: Path) -> None:
    result = fitted(
        job, tmp_path / "model", "--hidden", "8", "--hidden", "4", "--dropout", "0.3", "--freeze", "all"
    )
    head = json.loads((tmp_path / "model" / "graft.json").read_text())["head"]
    assert (head["hidden"], head["dropout"]) == ([8, 4], 0.3)
    assert [n for n in result["trained_names"] if "hidden" in n]
    assert all(n.startswith("head.") for n in result["trained_names"])


def test_balanced_class_weights_favour_the_rare_class(job: Job, tmp_path: Path) -> None:
    # Labels that the texts do not tell, so that what is answered is how often each class counts.
    rows = [(text, "blame" if i % 8 == 0 else "praise") for i, (text, _) in enumerate(word_texts(64))]
    table = table_of(tmp_path / "uneven.csv", rows)
    given = {}
    for choice in ("none", "balanced"):
        arguments = ("--backbone", job.backbone, "--freeze", "all", "--keep", "1", "--class-weights", choice)
        done("fit", table, "-o", tmp_path / choice, *arguments)
        answers = done("predict", tmp_path / choice, table, "--json").json
        given[choice] = sum(a["p_blame"] for a in answers)
    assert given["balanced"] > 1.5 * given["none"]


def test_no_refit_leaves_the_validation_part_out(job: Job, tmp_path: Path) -> None:
    fitted(job, tmp_path / "refit", *TRAINED)
    outcome = job.fit(tmp_path / "plain", "--no-refit", *TRAINED)
    assert "\nRefit" in job.fit(tmp_path / "again", *TRAINED).out
    assert "\nRefit" not in outcome.out
    assert bits(tmp_path / "refit") == bits(tmp_path / "again")
    assert bits(tmp_path / "refit") != bits(tmp_path / "plain")


@pytest.mark.parametrize("options", [("--freeze", "all"), TRAINED], ids=["frozen", "trained"])
def test_refit_all_learns_from_the_untouched_part_and_keeps_the_earlier_score(
    job: Job, tmp_path: Path, options: tuple[str, ...]
) -> None:
    plain = fitted(job, tmp_path / "plain", *options)
    outcome = job.fit(tmp_path / "all", "--refit-all", *options)
    assert outcome.status == 0, outcome.err
    assert "on all 45 examples, the untouched ones included" in outcome.out
    assert "the earlier fit's" in outcome.out
    result = json.loads((tmp_path / "all" / "result.json").read_text())
    assert result["score"] == plain["score"]
    assert bits(tmp_path / "all") != bits(tmp_path / "plain")


@pytest.mark.parametrize("tune", [False, True])
def test_batch_norms_keep_their_statistics_unless_asked(photos: Path, tmp_path: Path, tune: bool) -> None:
    out, more = tmp_path / "model", ("--tune-norms",) if tune else ()
    done("fit", photos, "-o", out, *PICTURES, "--freeze", "1", *more)
    means = {n: t for n, t in tensors(out).items() if n.endswith("running_mean")}
    assert len(means) == 2
    fresh = [n for n, mean in means.items() if mean.abs().max() > 0]  # random networks start at 0
    assert fresh == ([n for n in means if ".blocks.0.0." in n] if tune else [])


def test_pictures_of_another_size_are_those_that_the_saved_graft_reads(photos: Path, tmp_path: Path) -> None:
    smaller = (*PICTURES, "--freeze", "2", "--size", "64", "--resize", "pretrained", "--taps", "none")
    done("fit", photos, "-o", tmp_path / "run", *smaller)
    model = topgraft.open_model(tmp_path / "run")
    assert isinstance(model.preprocess, PicturePreprocess)
    assert model.preprocess.size == (64, 64)
    done("fit", photos, "-o", tmp_path / "again", *PICTURES, "--plan", tmp_path / "run/plan.json")
    assert bits(tmp_path / "again") == bits(tmp_path / "run")


def test_pictures_are_changed_at_random_where_nothing_is_frozen_or_when_asked(
    photos: Path, tmp_path: Path
) -> None:
    said = "pictures are changed at random"
    plain = done("fit", photos, "-o", tmp_path / "plain", *PICTURES, "--freeze", "1")
    asked = done("fit", photos, "-o", tmp_path / "asked", *PICTURES, "--freeze", "1", "--augment", "standard")
    whole = done("fit", photos, "-o", tmp_path / "whole", *PICTURES, "--freeze", "0")
    assert [said in outcome.out for outcome in (plain, asked, whole)] == [False, True, True]
    assert bits(tmp_path / "plain") != bits(tmp_path / "asked")


def test_the_next_command_uses_what_is_stored(
    job: Job, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: Counter[int | None] = Counter()
    run = Engine.run

    def counting(engine: Engine, inputs: Any, **more: Any) -> Any:
        passed[engine.segment.stop] += len(next(iter(inputs.values())))
        return run(engine, inputs, **more)

    monkeypatch.setattr(Engine, "run", counting)
    done("probe", job.table, "--backbone", job.backbone, "--seed", "1")
    assert passed == {3: 36}
    passed.clear()
    fitted(job, tmp_path / "a", "--freeze", "all", "--keep", "2")
    assert passed[3] <= 8  # a few, to measure how long it takes
    assert passed[2] == 9 + TIMED  # the untouched ones, by the path of predict, and a few timed alone
    passed.clear()
    fitted(job, tmp_path / "b", *TRAINED)
    assert passed[1] == 36 + 9 + TIMED
    passed.clear()
    again = fitted(job, tmp_path / "c", *TRAINED, "--dropout", "0.5")
    assert passed[1] == 9 + TIMED
    stored = {entry["stage"]: entry["items_reused"] for entry in again["resumed"]}
    assert stored == {"pass": 36, "probe": 3, "states": 36}
    assert any(cache.rglob("*.safetensors"))


def test_the_same_seed_gives_the_same_bits_and_another_does_not(job: Job, tmp_path: Path) -> None:
    for name, seed in (("a", "4"), ("b", "4"), ("c", "5")):
        fitted(job, tmp_path / name, *TRAINED, "--seed", seed)
    assert bits(tmp_path / "a") == bits(tmp_path / "b")
    assert bits(tmp_path / "a") != bits(tmp_path / "c")


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--keep", "3", "--freeze", "1"),
        (
            "--keep",
            "3",
            "--hidden",
            "8",
            "--dropout",
            "0.2",
            "--class-weights",
            "balanced",
            "--rate",
            "0.001",
        ),
        ("--keep", "2", "--freeze", "0", "--no-refit", "--batch-size", "8"),
    ],
    ids=" ".join,
)
def test_a_plan_repeats_a_run_bit_for_bit(job: Job, tmp_path: Path, options: tuple[str, ...]) -> None:
    result = fitted(job, tmp_path / "first", *options)
    again = fitted(job, tmp_path / "again", "--plan", tmp_path / "first" / "plan.json", "--budget", "1")
    assert bits(tmp_path / "again") == bits(tmp_path / "first")
    assert (again["keep"], again["freeze"]) == (result["keep"], result["freeze"])
    assert again["score"] == result["score"]
    plans = [json.loads((tmp_path / n / "plan.json").read_text()) for n in ("first", "again")]
    assert (
        plans[1]["decisions"].items()
        >= {n: d for n, d in plans[0]["decisions"].items() if n in plans[1]["decisions"]}.items()
    )


def test_a_plan_carries_what_was_told_to_the_next_data(job: Job, tmp_path: Path) -> None:
    fitted(job, tmp_path / "first", "--keep", "2", "--freeze", "all", "--precision", "bf16")
    other = table_of(tmp_path / "other.csv", list(word_texts(30, seed=8)))
    done("fit", other, "-o", tmp_path / "other", "--plan", tmp_path / "first" / "plan.json")
    description = json.loads((tmp_path / "other" / "graft.json").read_text())
    assert description["precision"] == "bf16"
    assert description["keep"] == 2
    assert description["backbone"]["source"] == job.backbone


def test_threads_are_those_of_the_plan_and_put_back(job: Job, tmp_path: Path) -> None:
    fitted(job, tmp_path / "first", "--freeze", "all")
    plan = json.loads((tmp_path / "first" / "plan.json").read_text())
    assert plan["decisions"]["threads"]["value"] == 1
    torch.set_num_threads(2)
    fitted(job, tmp_path / "again", "--plan", tmp_path / "first" / "plan.json")
    assert torch.get_num_threads() == 2
    again = json.loads((tmp_path / "again" / "plan.json").read_text())
    assert again["decisions"]["threads"]["value"] == 1


def test_a_killed_run_goes_on_to_the_same_bits(job: Job, tmp_path: Path) -> None:
    options = ("--keep", "3", "--freeze", "1", "--epochs", "40", "--batch-size", "4")
    command = ["fit", str(job.table), "-o", str(tmp_path / "killed"), "--backbone", job.backbone, *options]
    program = [sys.executable, "-c", "from topgraft.cli import main; main()"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(
        [*program, *command, "--seed", "1"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoint = tmp_path / "killed" / "work" / "trial-3-1.safetensors"
    while not checkpoint.exists() and running.poll() is None:
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert json.loads((tmp_path / "killed" / "run.json").read_text())["status"] == "unfinished"
    assert not (tmp_path / "killed" / "model.safetensors").exists()

    resumed = fitted(job, tmp_path / "killed", *options)
    undisturbed = fitted(job, tmp_path / "undisturbed", *options)
    stages = {entry["stage"]: entry["items_reused"] for entry in resumed["resumed"]}
    assert stages["pass"] == 36
    assert stages["probe"] == 3
    assert 1 <= stages["training"] < len(resumed["history"]) - 1
    assert bits(tmp_path / "killed") == bits(tmp_path / "undisturbed")
    assert resumed["score"] == undisturbed["score"]
    losses = [[e["loss"] for e in r["history"]] for r in (resumed, undisturbed)]
    assert losses[0] == losses[1]
    assert not (tmp_path / "killed" / "work").exists()


def test_a_test_set_of_its_own_gives_the_score(job: Job, tmp_path: Path) -> None:
    test = table_of(tmp_path / "test.csv", list(word_texts(21, seed=77)))
    overlapping = job.fit(tmp_path / "model", "--freeze", "all", "--test", test, "--allow-overlap", "--json")
    assert overlapping.status == 0, overlapping.err
    result = overlapping.json
    assert result["score"]["n"] == 21
    evaluated = done("evaluate", tmp_path / "model", test, "--json").json
    assert evaluated["score"]["value"] == result["score"]["value"]


def test_from_python_data_that_was_read_gives_the_same_model(job: Job, tmp_path: Path) -> None:
    fitted(job, tmp_path / "table", "--freeze", "all", "--keep", "1")
    data = read(job.table)
    run = fit(data, tmp_path / "data", backbone=job.backbone, freeze="all", keep=1, seed=1)
    assert bits(tmp_path / "table") == bits(tmp_path / "data")
    assert run.folder == tmp_path / "data"
    assert (run.keep, run.freeze) == (1, 1)
    assert run.score == run.result["score"]["value"]


def test_from_python_an_unknown_option_gets_the_nearest(job: Job, tmp_path: Path) -> None:
    with pytest.raises(TopgraftError, match=r"no option 'droput'\. Nearest: dropout"):
        topgraft.fit(job.table, tmp_path / "model", droput=0.1)
    assert not (tmp_path / "model").exists()


def test_a_run_is_named_after_its_data(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done("fit", job.table, "--backbone", job.backbone, "--freeze", "all")
    assert "graft.json" in content(tmp_path / "words.topgraft")
    assert default_folder(tmp_path) == Path(f"{tmp_path.name}.topgraft")
    assert default_folder(["a", "b"]) == Path("run.topgraft")
