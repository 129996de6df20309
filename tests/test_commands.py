from __future__ import annotations

import csv
import io
import json
import os
import pty
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import LABELS, Job, called, done, table_of, tiny_job, word_texts
from packaged_data import pictures_of

from topgraft.data import hold_out, read

CLASSES = sorted(LABELS.values())
TEXTS = list(word_texts(15, seed=3))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where models are made once, with a store of their own."""
    place = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPGRAFT_CACHE", str(place / "cache"))
        yield place


@pytest.fixture(scope="module")
def job(folder: Path) -> Job:
    return tiny_job(folder / "job")


@pytest.fixture(scope="module")
def texts(job: Job, folder: Path) -> Path:
    """A model of texts."""
    assert job.fit(folder / "texts", "--freeze", "all", "--keep", "1").status == 0
    return folder / "texts"


@pytest.fixture(scope="module")
def pictures(photos: Path, folder: Path) -> Path:
    """A model of pictures."""
    arguments = (
        "--backbone",
        "timm/test_efficientnet",
        "--weights",
        "none",
        "--freeze",
        "all",
        "--keep",
        "2",
    )
    done("fit", photos, "-o", folder / "pictures", *arguments)
    return folder / "pictures"


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_the_fixed_columns_and_the_order_given(texts: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path / "new.csv", TEXTS)
    outcome = done("predict", texts, table)
    assert outcome.out.splitlines()[0] == ",".join(
        ["input", "label", "confidence", *(f"p_{c}" for c in CLASSES), "error"]
    )
    found = rows(outcome.out)
    assert [row["input"] for row in found] == [str(i) for i in range(len(TEXTS))]
    for row in found:
        p = {c: float(row[f"p_{c}"]) for c in CLASSES}
        assert sum(p.values()) == pytest.approx(1, abs=1e-12)
        assert row["label"] == max(p, key=p.__getitem__)
        assert float(row["confidence"]) == max(p.values())
        assert row["error"] == ""
    assert sum(row["label"] == label for row, (_, label) in zip(found, TEXTS, strict=True)) > 10


def test_json_lines_hold_the_same_numbers(texts: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path / "new.csv", TEXTS)
    lines = done("predict", texts, table, "--format", "jsonl").out.splitlines()
    found = rows(done("predict", texts, table).out)
    for line, row in zip(map(json.loads, lines), found, strict=True):
        assert list(line) == list(row)
        assert [repr(line[f"p_{c}"]) for c in CLASSES] == [row[f"p_{c}"] for c in CLASSES]
        assert line["error"] is None


def test_prediction_sets_hold_the_right_class_as_often_as_asked(texts: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path / "new.csv", TEXTS)
    plain = rows(done("predict", texts, table).out)
    sizes = {}
    for coverage in ("0.5", "0.9"):
        found = rows(done("predict", texts, table, "--coverage", coverage).out)
        assert [{**row, "set": None} for row in found] == [{**row, "set": None} for row in plain]
        sets = [row["set"].split("|") for row in found]
        assert all(row["label"] == inside[0] for row, inside in zip(found, sets, strict=True))
        held = [label in inside for inside, (_, label) in zip(sets, TEXTS, strict=True)]
        assert sum(held) / len(held) >= float(coverage) - 0.15
        sizes[coverage] = sum(map(len, sets))
    assert sizes["0.5"] <= sizes["0.9"]
    line = json.loads(
        done("predict", texts, table, "--coverage", "0.9", "--format", "jsonl").out.splitlines()[0]
    )
    assert line["set"] == sets[0]
    outcome = called("predict", texts, table, "--coverage", "90")
    assert outcome.status == 2
    assert "A coverage of 90 can't be meant" in outcome.err


def test_batches_and_their_order_do_not_change_a_row(texts: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path / "new.csv", TEXTS)
    whole = rows(done("predict", texts, table).out)
    parts = rows(done("predict", texts, table, "--batch-size", "4").out)
    assert [r["label"] for r in whole] == [r["label"] for r in parts]
    for a, b in zip(whole, parts, strict=True):
        assert float(a["confidence"]) == pytest.approx(float(b["confidence"]), abs=1e-6)


def test_a_table_gives_the_column_that_fit_used_unless_told_otherwise(texts: Path, tmp_path: Path) -> None:
    praise, blame = (next(t for t, label in TEXTS if label == wanted) for wanted in ("praise", "blame"))
    table = table_of(tmp_path / "two.csv", [(blame, praise)], ("other", "text"))
    assert rows(done("predict", texts, table).out)[0]["label"] == "praise"
    assert rows(done("predict", texts, table, "--text", "other").out)[0]["label"] == "blame"


@pytest.mark.parametrize("header", [True, False])
def test_standard_input_gives_texts(texts: Path, tmp_path: Path, header: bool) -> None:
    lines = ["text"] * header + [text for text, _ in TEXTS]
    found = rows(done("predict", texts, "-", stdin="\n".join(lines) + "\n").out)
    assert found == rows(done("predict", texts, table_of(tmp_path / "new.csv", TEXTS)).out)


def test_an_empty_text_is_a_row_with_an_error(texts: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path / "new.csv", [TEXTS[0], ("  ", "praise"), TEXTS[1]])
    found = rows(done("predict", texts, table).out)
    assert [bool(row["error"]) for row in found] == [False, True, False]
    assert found[1]["label"] == found[1]["confidence"] == found[1]["p_praise"] == ""


def test_pictures_that_cannot_be_read_are_rows_with_errors_and_the_rest_goes_on(
    pictures: Path, tmp_path: Path
) -> None:
    good = pictures_of("food", 20, 2)
    folder = tmp_path / "new"
    folder.mkdir()
    shutil.copy(good[0], folder / "a.webp")
    (folder / "b.webp").write_bytes(good[0].read_bytes()[:400])
    (folder / "c.png").write_bytes(b"not a picture")
    (folder / "d.png").write_bytes(
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0" + b"\0" * 40
    )
    (folder / "e.png").write_bytes(b"")
    shutil.copy(good[1], folder / "f.webp")
    found = rows(done("predict", pictures, folder).out)
    assert [row["input"] for row in found] == [
        str(folder / n) for n in ("a.webp", "b.webp", "c.png", "d.png", "e.png", "f.webp")
    ]
    assert [bool(row["error"]) for row in found] == [False, True, True, True, True, False]
    assert "truncated" in found[1]["error"]
    for row in found[1:5]:
        assert row["label"] == row["confidence"] == row["p_food"] == ""
    alone = rows(done("predict", pictures, folder / "f.webp", folder / "a.webp").out)
    assert [row["input"] for row in alone] == [str(folder / "f.webp"), str(folder / "a.webp")]
    assert [row["label"] for row in alone] == [found[5]["label"], found[0]["label"]]


def test_names_that_are_not_utf8_are_told_in_signs_that_can_be_written(
    pictures: Path, tmp_path: Path
) -> None:
    picture = pictures_of("food", 20, 1)[0]
    name = os.fsencode(tmp_path) + b'/caf\xe9, "big".webp'
    try:
        shutil.copy(picture, name)
    except OSError:
        pytest.skip("this disk takes names in UTF-8 only")
    for form in ("csv", "jsonl"):
        outcome = done("predict", pictures, os.fsdecode(name), "--format", form)
        text = outcome.out.encode("utf-8").decode()
        row = rows(text)[0] if form == "csv" else json.loads(text)
        assert row["input"].startswith(f"{tmp_path}/caf")
        assert row["label"]


def test_progress_counts_rows_on_standard_error(texts: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path / "new.csv", TEXTS)
    assert "15/15 inputs" in done("predict", texts, table).err
    counted = done("predict", texts, "-", stdin="".join(f"{text}\n" for text, _ in TEXTS)).err
    assert "15/?" in counted
    assert done("predict", texts, table, "--quiet").err == ""


def test_rows_go_to_the_file_although_progress_goes_to_a_terminal(texts: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path / "new.csv", TEXTS)
    ours, theirs = pty.openpty()
    seen: list[bytes] = []

    def watch() -> None:
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:
                return
            if not part:
                return
            seen.append(part)

    watcher = threading.Thread(target=watch)
    watcher.start()
    program = [sys.executable, "-c", "from topgraft.cli import main; main()"]
    with (tmp_path / "out.csv").open("wb") as out:
        ended = subprocess.run([*program, "predict", texts, table], stdout=out, stderr=theirs)
    os.close(theirs)
    watcher.join()
    os.close(ours)
    assert ended.returncode == 0
    assert len(rows((tmp_path / "out.csv").read_text())) == len(TEXTS)
    assert b"15/15" in b"".join(seen)


def test_evaluate_scores_what_predict_answers(texts: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path / "new.csv", [*TEXTS, *list(word_texts(6, seed=8))[:1]])
    answers = [row["label"] for row in rows(done("predict", texts, table).out)]
    wanted = [row["label"] for row in rows(table.read_text())]
    outcome = done("evaluate", texts, table, "--json")
    document = outcome.json
    right = [a == w for a, w in zip(answers, wanted, strict=True)]
    assert document["score"]["value"] == np.mean(right)
    assert document["score"]["low"] < document["score"]["value"] <= document["score"]["high"]
    assert document["score"]["n"] == 16
    assert document["majority"] == 6 / 16
    for entry in document["classes"]:
        name = entry["class"]
        said, is_so = [a == name for a in answers], [w == name for w in wanted]
        both = sum(a and b for a, b in zip(said, is_so, strict=True))
        assert entry["support"] == sum(is_so)
        assert entry["recall"] == pytest.approx(both / sum(is_so))
        assert entry["precision"] == pytest.approx(both / max(1, sum(said)))


def test_evaluate_tells_people_score_interval_and_classes(texts: Path, tmp_path: Path) -> None:
    outcome = done("evaluate", texts, table_of(tmp_path / "new.csv", TEXTS))
    assert "95 % interval" in outcome.out
    assert "precision" in outcome.out
    assert [line.split()[0] for line in outcome.out.splitlines()[-3:]] == CLASSES
    assert "Predicting" in outcome.err
    assert "Score" not in outcome.err


def test_evaluate_reads_a_folder_of_pictures(pictures: Path, photos: Path) -> None:
    document = done("evaluate", pictures, photos, "--json").json
    assert [c["support"] for c in document["classes"]] == [12, 12, 12]


def test_evaluate_takes_one_class_alone(texts: Path, tmp_path: Path) -> None:
    only = [row for row in TEXTS if row[1] == "praise"]
    document = done("evaluate", texts, table_of(tmp_path / "new.csv", only), "--json").json
    assert [c["support"] for c in document["classes"]] == [0, 0, 5]


def test_the_score_of_fit_is_that_of_predicts_rows_on_the_untouched_part(job: Job, texts: Path) -> None:
    data = read(job.table)
    _, untouched = hold_out(data, share=0.2, seed=1)
    answers = rows(done("predict", texts, job.table).out)
    assert data.targets is not None
    right = [answers[int(i)]["label"] == data.classes[data.targets[i]] for i in untouched]
    result = json.loads((texts / "result.json").read_text())
    assert result["score"]["n"] == len(untouched) == 9
    assert result["score"]["value"] == np.mean(right)


def test_a_closed_pipe_ends_quietly(texts: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path / "new.csv", TEXTS * 40)
    program = "from topgraft.cli import main; main()"
    running = subprocess.Popen(
        [sys.executable, "-c", program, "predict", texts, table, "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.readline()
    running.stdout.close()
    said = running.stderr.read()
    running.stderr.close()
    running.wait()
    assert b"Traceback" not in said


def test_an_unfinished_run_is_no_model_yet(texts: Path, job: Job, tmp_path: Path) -> None:
    shutil.copytree(texts, tmp_path / "half")
    (tmp_path / "half" / "graft.json").unlink()
    outcome = called("predict", tmp_path / "half", job.table)
    assert outcome.status == 2
    assert "an unfinished run: give its `fit` command again" in outcome.err
