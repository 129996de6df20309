"""A sample of `make torture`, and that it would notice what must not be."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from torture import PARTS, Kept, is_done
from torture_bench import REPAIRED, TRACE, Bench, flip, plainly, shards
from torture_company import at_once, data_during
from torture_faults import later
from torture_input import Bad, Place, all_cases, answer, own_cache
from torture_job import Done, Job, differences, passes, stored_rows
from torture_kills import Campaign, again
from torture_page import bad_input_page, page, verdicts
from torture_stops import stop

SAMPLE = (
    *("no such folder", "the same pictures in two classes", "broken JSON", "keep more than there is"),
    *("a PNG that is cut short", "a PNG that claims 3,600,000,000 pixels", "a plan without reasons"),
    *("a pickle that would run code, as torch.save packs it", "a header of 2^60 bytes"),
    *("weights that are a pickle which would run code", "a network that is code of one's own"),
    *("a head of 10^12 numbers", "one bit of the weights flipped", "an input that is not there"),
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Two fits that nobody disturbs, without and with a plan."""
    bench = Bench(Job(tmp_path_factory.mktemp("torture"), each=30))
    assert bench.references[True].passes
    return bench


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(1, id="search"),
        pytest.param(2, id="training"),
        pytest.param(4, id="pass, twice", marks=pytest.mark.exhaustive),
    ],
)
def test_a_killed_fit_ends_with_the_same_bits_and_passes_nothing_twice(bench: Bench, number: int) -> None:
    one = Campaign(bench).kill(number, 8)
    assert one.wrong == []
    assert one.again == 0
    assert one.kills == (2 if number == 4 else 1)
    if number != 4:
        assert one.resumed["pass"] == 72
        assert one.resumed["probe"] == 6


@pytest.mark.slow
def test_ctrl_c_keeps_the_step_under_way_and_the_same_command_goes_on(bench: Bench) -> None:
    one = stop(bench, "pass", 1, wait=0.2)
    assert one.wrong == []
    assert one.again == 0


@pytest.mark.slow
def test_a_flipped_bit_in_every_file_of_the_store_is_told_and_made_good(bench: Bench) -> None:
    met = later(bench, "store: one bit of each file's numbers flipped")
    assert (met.wrong, met.outcome, met.status) == ([], REPAIRED, 0)
    assert "is damaged" in met.told


@pytest.mark.slow
def test_two_fits_at_once_on_one_store_give_the_same_model(bench: Bench) -> None:
    assert at_once(bench, 2).wrong == []


@pytest.mark.slow
def test_pictures_that_change_during_a_fit_end_it_with_a_message(bench: Bench) -> None:
    met = data_during(bench, r"Data  ", "before the pass")
    assert (met.wrong, met.status) == ([], 1)


@pytest.mark.slow
def test_what_must_not_be_is_noticed(bench: Bench, tmp_path: Path) -> None:
    spoilt, reference = tmp_path / "spoilt", bench.reference
    shutil.copytree(reference, spoilt)
    assert differences(spoilt, reference) == []
    flip(spoilt / "model.safetensors")
    (spoilt / "chain.svg").unlink()
    assert differences(spoilt, reference) == ["model.safetensors differs", "chain.svg is missing"]
    (spoilt / "work").mkdir()
    assert "left behind: work" in differences(spoilt, reference)
    planned = bench.references[True]
    store = bench.job.place / "planned.store"
    stored = stored_rows(store, bench.names)
    assert set(stored) <= set(planned.passes)
    once_more = bench.start(tmp_path / "again", bench.job.place / "empty", counts=tmp_path / "counts")
    assert once_more.end().status == 0  # with an empty store everything passes again
    assert again(passes(tmp_path / "counts"), once_more, planned.passes, stored) == sum(stored.values())
    assert list(shards(store))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("input"))


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(
            bad, marks=() if bad.what in SAMPLE else pytest.mark.exhaustive, id=f"{bad.kind}: {bad.what}"
        )
        for bad in all_cases()
    ],
)
def test_bad_input_gets_its_message_and_its_status(place: Place, bad: Bad) -> None:
    with own_cache(place.root):
        _ = place.pictures, place.texts, place.model, place.text_model
        assert answer(bad, place).wrong == []


def test_there_are_many_kinds_of_bad_input_and_each_has_one_name() -> None:
    names = [f"{bad.kind}: {bad.what}" for bad in all_cases()]
    assert len(names) == len(set(names)) >= 60
    assert set(SAMPLE) <= {bad.what for bad in all_cases()}


ROW: dict[str, Any] = {"name": "a disk", "kind": "disk", "status": 1, "told": "full", "wrong": []}


def test_the_page_counts_what_survived_was_lost_and_was_wrong() -> None:
    rows: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
    rows["faults"] = [
        {**ROW, "outcome": "refused"},
        {**ROW, "outcome": "not tried"},
        {**ROW, "outcome": "refused", "wrong": ["then: ended with 1: Error: no"]},
        {**ROW, "name": "a | b", "outcome": "repaired", "wrong": ["model.safetensors differs"]},
    ]
    (found,) = verdicts(rows)
    assert (found.tried, found.survived, found.lost, found.wrong, found.untried) == (3, 1, 1, 1, 1)
    text = page(rows)
    assert "| faults of disks, permissions, the store and a run's own files | 3 | 1 | 1 | 1 | 1 |" in text
    assert "- faults: a | b: model.safetensors differs" in text
    assert "a \\| b" in text


def test_the_bad_input_page_counts_what_is_as_it_must_be() -> None:
    rows = [{"wrong": []}, {"wrong": ["not one message"]}]
    assert "2 kinds of bad input" in bad_input_page([], rows)
    assert "; 1 got the message" in bad_input_page([], rows)


def test_what_is_done_is_kept_for_the_same_code_only(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "build" / "kills.json", anew=False)
    kept.note([{"stage": "pass"}])
    assert Kept(tmp_path / "build" / "kills.json", anew=False).rows == [{"stage": "pass"}]
    assert Kept(tmp_path / "build" / "kills.json", anew=True).rows == []
    document = json.loads((tmp_path / "build" / "kills.json").read_text())
    (tmp_path / "build" / "kills.json").write_text(json.dumps(document | {"made_from": "other"}))
    assert Kept(tmp_path / "build" / "kills.json", anew=False).rows == []
    assert is_done("kills", [{}] * 3, 3)
    assert not is_done("faults", [{}], 3)


def test_messages_are_shown_without_the_folders_of_a_machine() -> None:
    text = "Error: /somewhere/run/x.json and /somewhere\nwere " + "ab" * 32
    assert plainly(text, Path("/somewhere")) == "Error: …/run/x.json and … were abababab…"


def test_a_refusal_must_be_one_message_with_its_status(tmp_path: Path) -> None:
    bench = Bench(Job(tmp_path))
    assert bench.refused(Done(2, "", "Error: the disk is full", 0.0), 2, "disk is full") == []
    found = bench.refused(Done(1, "", f"{TRACE}\nOSError", 0.0), 2, "disk is full")
    assert len(found) == 4


def test_passes_of_a_line_that_is_cut_short_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "counts").write_text("7 a b\n8 a\n7 a\n7 b")
    assert passes(tmp_path / "counts") == {7: Counter(a=2, b=1), 8: Counter(a=1)}
    assert passes(tmp_path / "nothing") == {}
