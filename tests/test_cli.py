from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import (
    BLOCKS,
    LABELS,
    Job,
    Outcome,
    called,
    content,
    done,
    interrupted,
    table_of,
    tiny_job,
    word_texts,
)
from typer.main import get_command

from topgraft import cli, demo

TRAINED = ("--keep", "2", "--freeze", "1", "--epochs", "2")
RESUMED = {"stage", "items_reused", "seconds_saved"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(autouse=True)
def _one_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPGRAFT_CACHE", str(store))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return tiny_job(tmp_path_factory.mktemp("job") / "here")


@pytest.fixture(scope="module")
def fitted(job: Job, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A finished run in a store of its own, and what ``fit --json`` said; to be read, not changed."""
    place = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPGRAFT_CACHE", str(place / "cache"))
        outcome = job.fit(place / "model", "--json", *TRAINED)
    assert outcome.status == 0, outcome.err
    return place / "model", outcome


def is_whole(document: Any) -> bool:
    """Whether every number in a document is finite."""
    return bool(json.dumps(document, allow_nan=False))


def test_layers_json_has_the_fixed_form(job: Job) -> None:
    outcome = done("layers", job.backbone, "--json")
    blocks = outcome.json["blocks"]
    assert [b["name"] for b in blocks] == list(BLOCKS)
    assert [b["index"] for b in blocks] == [1, 2, 3]
    for block in blocks:
        assert block.keys() == {
            *("index", "name", "kind", "shape", "parameters", "macs", "share", "cumulative"),
            *("verified", "difference", "shapes"),
        }
        assert block["verified"] is True
        assert block["parameters"] > 0
    assert sum(b["share"] for b in blocks) == pytest.approx(1)
    assert blocks[-1]["cumulative"] == pytest.approx(1)
    assert outcome.err == ""


def test_layers_lists_the_blocks_for_people(job: Job) -> None:
    lines = done("layers", job.backbone).out.splitlines()
    assert "block" in lines[0]
    for name, line in zip(BLOCKS, lines[1:], strict=False):
        assert name in line
    assert "every cut checked" in lines[-1]


def test_probe_json_has_the_fixed_form_and_people_read_standard_error(job: Job) -> None:
    outcome = done("probe", job.table, "--backbone", job.backbone, "--json")
    document = outcome.json
    assert [(c["keep"], c["block"]) for c in document["cuts"]] == list(enumerate(BLOCKS, start=1))
    for cut in document["cuts"]:
        assert cut.keys() >= {"keep", "block", "score", "low", "high", "in_set"}
        assert 0 <= cut["low"] <= cut["score"] <= cut["high"] <= 1
    advice = document["advice"]
    assert advice["keep"] in (1, 2, 3)
    assert document["cuts"][advice["keep"] - 1]["in_set"] is True
    assert advice["reason"]
    assert "Advice" in outcome.err
    assert is_whole(document)


def test_what_a_probe_found_stored_has_the_same_form_as_in_fit(job: Job) -> None:
    arguments = ("probe", job.table, "--backbone", job.backbone, "--json", "--seed", "5")
    done(*arguments)
    again = done(*arguments).json["resumed"]
    assert [entry.keys() for entry in again] == [RESUMED] * 2
    assert [(entry["stage"], entry["items_reused"]) for entry in again] == [("pass", 36), ("probe", 3)]
    assert all(entry["seconds_saved"] > 0 for entry in again)


def test_fit_json_has_the_fixed_form_and_people_read_standard_error(fitted: tuple[Path, Outcome]) -> None:
    folder, outcome = fitted
    document = outcome.json
    assert (document["keep"], document["freeze"]) == (2, 1)
    shares = {name: document["blocks"].pop(name) for name in ("parameters", "work")}
    assert document["blocks"] == {
        "all": list(BLOCKS),
        "kept": list(BLOCKS[:2]),
        "frozen": list(BLOCKS[:1]),
        "trained": [BLOCKS[1]],
    }
    for share in shares.values():  # up to each block
        assert share == sorted(share)
        assert share[-1] == pytest.approx(1)
    document["blocks"] |= shares
    assert [v["name"] for v in document["health"]["verdicts"]] == [BLOCKS[1], "head"]
    assert document["calibration"]["temperature"] > 0
    assert document["score"].keys() >= {"metric", "value", "low", "high"}
    assert document["score"]["metric"] == "accuracy"
    assert document["score"]["low"] <= document["score"]["value"] <= document["score"]["high"]
    assert document["seconds"] > 0
    assert document["model"] == str(folder)
    assert document["resumed"] == []
    for label in ("Weights", "Data", "One pass", "Advice", "Training", "Score", "Saved"):
        assert label in outcome.err
    assert document.pop("on") is None  # which machines measured is no part of what was found
    assert json.loads((folder / "result.json").read_text()) == document


def test_the_number_of_trained_parameters_is_that_of_their_tensors(fitted: tuple[Path, Outcome]) -> None:
    from topgraft.files import read_tensors

    folder, outcome = fitted
    document = outcome.json
    tensors, _ = read_tensors(folder / "model.safetensors")
    names = document["trained_names"]
    assert all(n.startswith((BLOCKS[1] + ".", "head.")) for n in names)
    sizes = [tensors[n if n.startswith("head.") else f"backbone.{n}"].numel() for n in names]
    assert sum(sizes) == document["trained_parameters"]


def test_fit_prints_its_sections_in_order_and_progress_apart(job: Job, tmp_path: Path) -> None:
    outcome = job.fit(tmp_path / "model", *TRAINED)
    sections = [
        *("Weights", "Input", "Data", "Budget", "Engine", "Cost", "One pass", " keep  block", "Advice"),
        *("Training", "Health", "Freeze", "Refit", "Trained", "Score", "Forecast", "Time", "Saved"),
    ]
    starts = [line for line in outcome.out.splitlines() if line[:1].strip() or " keep  block" in line]
    found = [next((s for s in sections if s in line[:20]), line) for line in starts]
    assert [s for i, s in enumerate(found) if s not in found[:i]] == sections
    table = outcome.out.split(" keep  block")[1].split("\n\n")[0].splitlines()[1:]
    assert [next(n for n in BLOCKS if n in row) for row in table] == list(BLOCKS)
    assert all("±" in row for row in table)
    assert "95 % interval" in outcome.out
    assert "the most frequent class alone" in outcome.out
    for label in ("One pass", "Training", "Refit", "Untouched"):
        assert label in outcome.err
    assert "Score" not in outcome.err


def test_quiet_says_nothing(job: Job, tmp_path: Path) -> None:
    outcome = job.fit(tmp_path / "model", "--quiet", "--freeze", "all")
    assert (outcome.out, outcome.err) == ("", "")


def test_evaluate_json_has_the_fixed_form(fitted: tuple[Path, Outcome], tmp_path: Path) -> None:
    table = table_of(tmp_path / "new.csv", list(word_texts(12, seed=9)))
    outcome = done("evaluate", fitted[0], table, "--json")
    document = outcome.json
    assert document["score"].keys() >= {"metric", "value", "low", "high"}
    assert [c["class"] for c in document["classes"]] == sorted(LABELS.values())
    assert [c["support"] for c in document["classes"]] == [4, 4, 4]
    for each in document["classes"]:
        assert each.keys() >= {"class", "precision", "recall", "support"}
    assert "Score" in outcome.err


def test_predict_json_is_one_document(fitted: tuple[Path, Outcome], job: Job) -> None:
    outcome = done("predict", fitted[0], job.table, "--json")
    names = [*(f"p_{c}" for c in sorted(LABELS.values()))]
    assert [list(row) for row in outcome.json] == [["input", "label", "confidence", *names, "error"]] * 45


@pytest.mark.parametrize(
    ("option", "given", "keep", "freeze"),
    [
        ("--keep", "2", 2, 2),
        ("--keep", "60%", 2, 2),
        ("--keep", "1%", 1, 1),
        ("--keep", "encoder.layer.0", 2, 2),
        ("--keep", "encoder", 3, 3),
        ("--keep", "all", 3, 3),
        ("--freeze", "0", 3, 0),
        ("--freeze", "2", 3, 2),
        ("--freeze", "50%", 3, 2),
        ("--freeze", "embeddings", 3, 1),
        ("--freeze", "all", 3, 3),
    ],
)
def test_keep_and_freeze_take_counts_shares_names_and_all(
    job: Job, tmp_path: Path, option: str, given: str, keep: int, freeze: int
) -> None:
    other = ("--freeze", "all") if option == "--keep" else ("--keep", "all")
    outcome = job.fit(tmp_path / "model", option, given, *other, "--epochs", "1", "--json")
    assert outcome.status == 0, outcome.err
    document = outcome.json
    assert (document["keep"], document["freeze"]) == (keep, freeze)
    assert document["blocks"]["trained"] == list(BLOCKS[freeze:keep])


def test_what_a_share_came_to_is_told(job: Job, tmp_path: Path) -> None:
    said = job.fit(tmp_path / "model", "--keep", "60%", "--freeze", "50%", "--epochs", "1").out
    assert "You decided: keep 2 (to encoder.layer.0): 60 % of 3 blocks is 2." in said
    assert "as asked (50 % of 2 kept blocks is 1)" in said
    decided = json.loads((tmp_path / "model" / "plan.json").read_text())
    assert "60 % of 3 blocks is 2" in json.dumps(decided)


def test_auto_takes_the_advice(job: Job, tmp_path: Path) -> None:
    document = job.fit(tmp_path / "model", "--epochs", "1", "--json").json
    assert document["keep"] == document["advice"]["keep"]
    assert 0 <= document["freeze"] <= document["keep"]


def test_random_weights_are_a_choice_for_texts_too(job: Job, tmp_path: Path) -> None:
    outcome = job.fit(tmp_path / "model", "--weights", "none", "--freeze", "all")
    assert outcome.status == 0, outcome.err
    assert "random values, no weights were loaded" in outcome.out


def test_a_finished_run_is_refused_and_left_alone_unless_it_may_be_replaced(job: Job, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    assert job.fit(folder, "--freeze", "all", "--keep", "1").status == 0
    before = content(folder)
    refused = job.fit(folder, "--freeze", "all", "--keep", "1")
    assert refused.status == 2
    assert "finished run" in refused.err
    assert "--overwrite" in refused.err
    assert content(folder) == before
    assert job.fit(folder, "--freeze", "all", "--keep", "3", "--overwrite").status == 0
    assert content(folder)["model.safetensors"] != before["model.safetensors"]


@pytest.mark.parametrize("kind", ["folder", "file", "other run.json", "link to nothing"])
def test_anything_else_at_the_place_is_refused_and_left_alone(job: Job, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "mine"
    if kind == "file":
        place.write_text("my notes")
    elif kind == "link to nothing":
        place.symlink_to(tmp_path / "nothing")
    else:
        place.mkdir()
        (place / "run.json").write_text('{"status": "a marathon"}')
        (place / ("thesis.txt")).write_text("years of work")
        if kind == "folder":
            (place / "run.json").unlink()
    before = content(tmp_path)
    for more in ((), ("--overwrite",)):
        outcome = job.fit(place, *more)
        assert outcome.status == 2
        assert "left alone" in outcome.err
        assert content(tmp_path) == before
    assert place.is_symlink() == (kind == "link to nothing")


def test_an_unfinished_run_of_another_command_is_refused(job: Job, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    assert job.fit(folder, "--freeze", "all").status == 0
    document = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**document, "status": "unfinished"}))
    before = content(folder)
    refused = job.fit(folder, "--freeze", "0")
    assert refused.status == 2
    assert "another command or other data" in refused.err
    assert content(folder) == before


def test_the_demonstration_replaces_a_finished_one_and_nothing_else(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "demo.topgraft"
    assert job.fit(out, "--freeze", "all").status == 0
    monkeypatch.setattr(demo, "pictures", lambda: job.table)  # texts: their network is quicker here
    assert done("demo", "-o", out, "--json", "--budget", "1").json["backbone"] != job.backbone
    (out / "run.json").write_text("{}")
    before = content(out)
    assert called("demo", "-o", out).status == 2
    assert content(out) == before


def test_the_version_is_said() -> None:
    import topgraft

    assert done("--version").out == f"topgraft {topgraft.__version__}\n"


def test_every_command_has_an_example_and_json() -> None:
    commands = get_command(cli.app).commands  # type: ignore[attr-defined]  # it is a group
    assert set(commands) >= {"layers", "probe", "fit", "predict", "evaluate", "demo"}
    for name, command in commands.items():
        assert f"Example: topgraft {name}" in (command.help or "")
        assert "--json" in {o for p in command.params for o in p.opts}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fit", "--kep", "3", "photos"), "--kep"),
        (("fit",), "{data}"),
        (("fit", "photos", "--seed", "many"), "--seed"),
        (("fight",), "fight"),
        (("predict", "model"), "inputs"),
        (("fit", "photos", "--keep"), "--keep"),
    ],
)
def test_what_is_no_command_has_status_2_and_a_message(arguments: tuple[str, ...], said: str) -> None:
    outcome = called(*arguments)
    assert outcome.status == 2
    assert said in outcome.err
    assert outcome.out == ""
    assert outcome.err.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in outcome.err


def test_debug_shows_where_an_error_arose(job: Job) -> None:
    with pytest.raises(cli.TopgraftError, match="not there"):
        cli.main(["evaluate", "no-model", str(job.table), "--debug"])


def test_a_stopped_fit_says_that_it_goes_on_and_does(job: Job, tmp_path: Path) -> None:
    arguments = ("fit", job.table, "-o", tmp_path / "model", "--backbone", job.backbone, *TRAINED)
    stopped = interrupted("Refit", *arguments)
    assert stopped.status == 130
    assert stopped.err.endswith("Stopped. The same command goes on where it was.\n")
    assert "Score" not in stopped.out
    resumed = done(*arguments, "--json").json["resumed"]
    assert [entry.keys() for entry in resumed] == [RESUMED] * len(resumed)
    assert {entry["stage"] for entry in resumed} >= {"pass", "probe", "states", "training"}


def test_another_stopped_command_does_not_say_that_it_goes_on(job: Job) -> None:
    stopped = interrupted("One pass", "probe", job.table, "--backbone", job.backbone)
    assert stopped.status == 130
    assert stopped.err.endswith("Stopped.\n")


def test_a_terminal_without_our_signs_gets_escapes_not_a_crash(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    terminal = io.TextIOWrapper(written, encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", terminal)
    with pytest.raises(SystemExit) as end:
        cli.main(["layers", job.backbone])
    assert end.value.code == 0
    assert b"n\\xd716" in written.getvalue()
