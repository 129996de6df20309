from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import called, done
from several_runs import answering, changed, fitted

from topgraft.confidence import Paired, pairwise_gains
from topgraft.report.runs import gather_runs

N = 120


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPGRAFT_CACHE", str(place / "store"))
        yield fitted(place)


@pytest.fixture
def copies(runs: dict[str, Path], tmp_path: Path) -> list[Path]:
    """The two that were judged on the same examples, and the first once more, to be changed."""
    names = ("shallow", "trained", "shallow")
    made = [tmp_path / f"{letter}.topgraft" for letter in "xyz"]
    for name, folder in zip(names, made, strict=True):
        shutil.copytree(runs[name], folder)
    return made


def test_the_numbers_are_those_of_both_runs(runs: dict[str, Path]):
    document = gather_runs([runs["shallow"], runs["trained"]])
    for run, folder in zip(document["runs"], (runs["shallow"], runs["trained"]), strict=True):
        result = json.loads((folder / "result.json").read_text())
        assert run["score"] == result["score"]
        assert run["scores"] == result["scores"]
        assert run["seconds"] == result["seconds"]
        assert run["seconds_alone"] == result["prediction"]["seconds"] > 0
        assert run["bytes"] == (folder / "model.safetensors").stat().st_size
        assert run["work"] == pytest.approx(result["blocks"]["work"][result["keep"] - 1])
        told = {(c["stage"], c["amount"]): c for c in run["costs"]}
        assert (
            told["one pass over the data", "seconds"]["actual"]
            == (result["forecast"]["pass"]["seconds"]["actual"])
        )
    assert [r["name"] for r in document["runs"]] == ["shallow.topgraft", "trained.topgraft"]


def test_what_differs_is_told_and_what_does_not_is_not(runs: dict[str, Path]):
    document = gather_runs([runs["shallow"], runs["trained"]])
    differs = {row["what"]: row["values"] for row in document["differs"]}
    assert differs == {
        "keep": ["1 of 3, to embeddings", "2 of 3, to encoder.layer.0"],
        "freeze": ["1, to embeddings", "0"],
        "epochs": differs["epochs"],
        "--keep": ["1", "2"],
        "--freeze": ["all", "0"],
        "--epochs": ["not given", "2"],
        **{n: differs[n] for n in ("soup",) if n in differs},
    }
    assert differs["epochs"][0].startswith("none")
    same = {row["what"] for row in document["same"]}
    assert {"backbone", "weights", "data", "untouched examples", "--seed", "version of torch"} <= same
    assert not same & differs.keys()
    split = {row["what"] for row in gather_runs([runs["shallow"], runs["other"]])["differs"]}
    assert split >= {"untouched examples", "examples to learn from", "--seed"}
    assert "data" not in split


def test_the_paired_difference_is_that_of_the_answers_to_the_same_examples(runs: dict[str, Path]):
    document = gather_runs([runs["shallow"], runs["trained"]])
    (pair,) = document["pairs"]
    wrong = []
    for name in ("shallow", "trained"):
        said = json.loads((runs[name] / "untouched.json").read_text())
        wrong.append(np.array(said["targets"]) != np.array(said["predictions"]))
    gains, low, high = pairwise_gains(
        Paired.of([np.column_stack(wrong).astype(float)], np.array(said["groups"]), seed=0)
    )
    assert (pair["gain"], pair["low"], pair["high"]) == (gains[1, 0], low[1, 0], high[1, 0])
    scores = [run["score"]["value"] for run in document["runs"]]
    assert pair["gain"] == pytest.approx(scores[1] - scores[0])
    counts = [pair[name] for name in ("both", "only_first", "only_second", "neither")]
    assert sum(counts) == pair["n"] == document["runs"][0]["score"]["n"]


@pytest.mark.parametrize(
    ("only_first", "only_second", "said"),
    [
        (2, 40, "B (y.topgraft) is better than A (x.topgraft): 31.7 points more of the same 120 untouched "),
        (40, 2, "A (x.topgraft) is better than B (y.topgraft): 31.7 points more of the same 120 untouched "),
        (0, 4, "Nobody can tell which is better, A (x.topgraft) or B (y.topgraft): B has 3.3 points more "),
        (9, 7, "Nobody can tell which is better, A (x.topgraft) or B (y.topgraft): A has 1.7 points more "),
        (0, 0, "Nobody can tell which is better, A (x.topgraft) or B (y.topgraft): both have as many "),
    ],
)
def test_the_first_sentence_says_which_is_better_or_that_nobody_can_tell(
    copies: list[Path], only_first: int, only_second: int, said: str
):
    right = np.arange(N) < 60
    first, second = right.copy(), right.copy()
    first[60 : 60 + only_first] = True
    second[119 - only_second : 119] = True
    answering(copies[0], first.tolist())
    answering(copies[1], second.tolist())
    document = gather_runs(copies[:2])
    assert document["summary"][0].startswith(said)
    (pair,) = document["pairs"]
    assert (pair["only_first"], pair["only_second"]) == (only_first, only_second)
    assert pair["low"] < pair["gain"] < pair["high"]


def test_examples_that_belong_together_in_any_of_the_runs_make_the_interval_wider(copies: list[Path]):
    right = np.arange(N) < 60
    answering(copies[0], right.tolist())
    answering(copies[1], np.roll(right, 20).tolist())
    apart = gather_runs(copies[:2])["pairs"][0]
    changed(copies[1], "untouched.json", lambda d: d.update(groups=[i // 10 for i in range(N)]))
    together = gather_runs(copies[:2])["pairs"][0]
    assert together["gain"] == apart["gain"]
    assert together["high"] - together["low"] > 1.5 * (apart["high"] - apart["low"])


def test_other_untouched_examples_are_not_paired_and_it_is_said_why(
    runs: dict[str, Path], copies: list[Path]
):
    document = gather_runs([runs["shallow"], runs["other"]])
    assert document["pairs"] == []
    assert document["summary"][0] == (
        "A and B were not judged on the same untouched examples, so their scores are not paired: of the same "
        "data another part was kept untouched (--seed 0 and 1)."
    )
    assert not any("better" in sentence for sentence in document["summary"])
    changed(copies[1], "run.json", lambda d: d["command"].update(data="other", untouched="other"))
    assert "their data differ" in gather_runs(copies[:2])["summary"][0]


def test_of_three_runs_the_best_is_told_or_who_may_be(copies: list[Path], runs: dict[str, Path]):
    good, bad = np.arange(N) < 100, np.arange(N) < 50
    for folder, right in zip(copies, (bad, good, bad), strict=True):
        answering(folder, right.tolist())
    document = gather_runs(copies)
    assert [(p["first"], p["second"]) for p in document["pairs"]] == [("A", "B"), ("A", "C"), ("B", "C")]
    assert document["summary"][0].startswith("B (y.topgraft) is better than every other")
    answering(copies[2], np.roll(good, 1).tolist())
    assert gather_runs(copies)["summary"][0].startswith(
        "Nobody can tell which is best of B (y.topgraft), C (z.topgraft), by the same 120"
    )
    mixed = gather_runs([*copies[:2], runs["other"]])
    assert len(mixed["pairs"]) == 1
    assert len(mixed["apart"]) == 2
    assert mixed["summary"][0].startswith("B (y.topgraft) is better than A (x.topgraft)")


def test_runs_of_one_name_are_told_apart_by_their_paths(runs: dict[str, Path], tmp_path: Path):
    shutil.copytree(runs["trained"], tmp_path / "shallow.topgraft")
    both = [runs["shallow"], tmp_path / "shallow.topgraft"]
    assert [run["name"] for run in gather_runs(both)["runs"]] == [str(folder) for folder in both]


def test_what_is_no_finished_run_is_refused_and_nothing_is_written(runs: dict[str, Path], tmp_path: Path):
    (tmp_path / "empty").mkdir()
    shutil.copytree(runs["trained"], tmp_path / "older")
    changed(tmp_path / "older", "untouched.json", lambda d: d.pop("groups"))
    (tmp_path / "file.json").write_text("{}")
    page = tmp_path / "page.html"
    for other, said in (
        (tmp_path / "empty", "holds no finished run"),
        (tmp_path / "not-there", "holds no finished run"),
        (tmp_path / "older", "made by a version that kept less"),
        (runs["shallow"], "given more than once"),
        (tmp_path / "file.json", "report a comparison by itself"),
    ):
        outcome = called("report", runs["shallow"], other, "-o", page)
        assert outcome.status == 2
        assert said in outcome.err
        assert not page.exists()
    assert called("report", *[runs["shallow"]] * 9).status == 2


def test_the_command_says_the_first_sentence_and_json_gives_the_numbers(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    both = [runs["shallow"], runs["trained"]]
    outcome = done("report", *both, "--json", "--figures", tmp_path / "figures")
    document = json.loads(outcome.out)
    numbers = json.loads(json.dumps(gather_runs(both)))
    assert document["report"] == "shallow-beside-trained.html"
    assert (tmp_path / "shallow-beside-trained.html").is_file()
    assert document["numbers"] == numbers
    assert numbers["summary"][0] in outcome.err
    assert json.loads((tmp_path / "figures" / "numbers.json").read_text()) == numbers
    assert {p.name for p in (tmp_path / "figures").iterdir()} >= {
        f"{name}.{form}"
        for name in ("scores", "difference", "depths", "costs")
        for form in ("png", "svg", "csv")
    }
