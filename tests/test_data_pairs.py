"""Pairs of texts: from two columns to two parts of what a network reads."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from command_line import FILLING, Job, called, tiny_job
from hypothesis import given
from hypothesis import strategies as st
from packaged_data import glosses_of, write_table

import topgraft as tg
from topgraft.data.pairs import BETWEEN, in_words, is_pair, pair_of, parts_of
from topgraft.errors import TopgraftError

LABELS = ("good", "bad", "film")


def rows(count: int) -> list[tuple[str, str, str]]:
    """The label is the word that both texts hold, beside one that only one of them holds."""
    found = []
    for i in range(count):
        same, other = LABELS[i % 3], LABELS[(i + 1 + i // 3 % 2) % 3]
        filling = FILLING[i % len(FILLING)]
        found.append((f"the {same} {filling} {i}", f"{filling} {same} {other} was", same))
    return found


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return tiny_job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    write_table(path, [("question", "answer", "label"), *rows(90)])
    return path


@pytest.fixture(scope="module")
def model(job: Job, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "pairs.topgraft"
    command = ("fit", table, "--text", "question,answer", "--label", "label", "--backbone", job.backbone)
    done = called(*command, "--freeze", "all", "--engine", "torch", "-o", out)
    assert done.status == 0, done.err
    return out


parts = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: bool(text.strip()))


@given(parts, parts)
def test_a_pair_is_taken_apart_as_it_was_put_together(first, second):
    pair = pair_of(first, second)
    assert is_pair(pair)
    assert parts_of(pair) == (first.replace(BETWEEN, " "), second)


@given(parts.filter(lambda text: BETWEEN not in text))
def test_a_text_alone_is_no_pair(text):
    assert not is_pair(text)
    assert parts_of(text) == (text,)
    assert in_words(text) == text


def test_it_is_encoded_as_transformers_encodes_it(job: Job) -> None:
    from transformers import AutoTokenizer

    preprocess = tg.load(job.backbone).preprocess
    theirs = AutoTokenizer.from_pretrained(job.backbone.removeprefix("hf/"))
    pairs = [("the film was good", "a long film"), ("bad " * 40, "about people " * 30), ("good", "bad")]
    ours = preprocess.batch([pair_of(*pair) for pair in pairs])
    wanted = theirs(*map(list, zip(*pairs, strict=True)), padding=True, truncation=True, return_tensors="pt")
    assert set(ours) >= {"input_ids", "attention_mask", "token_type_ids"}
    for key, tensor in ours.items():
        assert torch.equal(tensor, wanted[key]), key
    assert ours["token_type_ids"].any()


def test_two_columns_are_learned_predicted_and_evaluated_together(model: Path, table: Path) -> None:
    assert json.loads((model / "graft.json").read_text())["pairs"] is True
    said = called("predict", model, table)
    assert said.status == 0, said.err
    found = list(csv.DictReader(said.out.splitlines()))
    pairs = [(first, second) for first, second, _ in rows(90)]
    again = tg.predict(model, pairs)
    assert [row["label"] for row in found] == [one.label for one in again]
    judged = called("evaluate", model, table, "--json")
    assert judged.status == 0, judged.err
    right = sum(row["label"] == label for row, (_, _, label) in zip(found, rows(90), strict=True))
    assert judged.json["score"]["value"] == pytest.approx(right / 90)
    assert right > 45  # the order of the texts and both of them matter: a third is chance
    by_line = called("predict", model, "-", stdin=table.read_text())
    assert list(csv.DictReader(by_line.out.splitlines())) == [{**row, "input": row["input"]} for row in found]
    swapped = tg.predict(model, [(second, first) for first, second in pairs])
    assert [one.probabilities for one in swapped] != [one.probabilities for one in again]


def test_one_text_where_two_are_expected_is_an_error_of_its_row_and_the_other_way_round(
    model: Path, job: Job, tmp_path: Path
) -> None:
    one, two = tg.predict(model, ["a film", ("a film", "good")])
    assert one.error == "one text; this model was fitted on pairs of texts"
    assert two.error is None
    single = job.fit(tmp_path / "single", "--freeze", "all")
    assert single.status == 0, single.err
    one, two = tg.predict(tmp_path / "single", ["a film", ("a film", "good")])
    assert one.error is None
    assert two.error == "a pair of texts; this model was fitted on single ones"


def test_a_row_without_one_of_the_texts_is_left_out_or_gets_an_error(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write_table(path, [("question", "answer", "label"), *rows(6), ("alone", "", "good")])
    data = tg.read(path, text="question, answer", label="label", max_unreadable=0.5)
    assert len(data) == 6
    assert [(one.name, one.reason) for one in data.left_out] == [("6", "an empty text")]
    assert data.inputs[0] == pair_of(*rows(1)[0][:2])
    said = called("predict", model, path, "--format", "jsonl")
    assert json.loads(said.out.splitlines()[6])["error"] == "an empty text"


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ("question,anser", r'has no column "anser"\. Nearest: answer'),
        ("question,answer,label", "3 columns were named. Expected one column of texts, or two for pairs"),
        ("question,question", "one column was named for both texts of a pair"),
    ],
)
def test_columns_that_make_no_pair_are_refused(table: Path, columns: str, says: str) -> None:
    with pytest.raises(TopgraftError, match=says):
        tg.read(table, text=columns, label="label")


def test_a_column_whose_name_has_a_comma_is_one_column(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write_table(path, [("a,b", "label"), ("one text", "x"), ("another text", "y")])
    assert list(tg.read(path, text="a,b", label="label").inputs) == ["one text", "another text"]


def test_an_estimator_takes_a_list_of_pairs(job: Job, tmp_path: Path) -> None:
    pairs, labels = [row[:2] for row in rows(90)], [row[2] for row in rows(90)]
    model = tg.TransferClassifier(job.backbone, freeze="all", store=tmp_path).fit(pairs, labels)
    assert model.score(pairs, labels) > 0.5
    swapped = model.predict_proba([(second, first) for first, second in pairs])
    assert (swapped != model.predict_proba(pairs)).any()


@pytest.mark.exhaustive
def test_real_weights_tell_how_many_of_two_glosses_are_of_food(tmp_path: Path) -> None:
    texts = list(glosses_of(("food", "animal"), 80))
    food, animal = ([text for text, label in texts if label == kind] for kind in ("food", "animal"))
    pairs = []
    for i in range(0, min(len(food), len(animal)) - 1, 2):
        pairs += [(food[i], food[i + 1], "two"), (animal[i], animal[i + 1], "none")]
        pairs += [(food[i], animal[i], "one"), (animal[i + 1], food[i + 1], "one")]
    table = write_table(tmp_path / "pairs.csv", [("first", "second", "label"), *pairs])
    run = tg.fit(table, tmp_path / "m", text="first,second", label="label", freeze="all")
    assert run.score > 0.65  # half of them are "one"
