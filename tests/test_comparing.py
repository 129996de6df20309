from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from test_curves import comparison

from topgraft.comparing import comparison_json, labels_in_words, sentence, time_in_words
from topgraft.curves import BASELINE, MAJORITY, PRETRAINED, SCRATCH


def of(pretrained: float, scratch: float, baseline: float) -> object:
    rates = {PRETRAINED: pretrained, SCRATCH: scratch, BASELINE: baseline, MAJORITY: 0.2}
    return comparison({arm: {0.5: rate - 0.1, 1.0: rate} for arm, rate in rates.items()})


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ((0.9, 0.6, 0.5), "Pretraining was worth it: better than training from scratch, the next best, by "),
        ((0.6, 0.9, 0.5), "Pretraining lost: training from scratch is better by "),
        ((0.6, 0.5, 0.9), "Pretraining lost: the simple baseline is better by "),
        (
            (0.7, 0.5, 0.7),
            "No difference can be shown: the pretrained network and the simple baseline differ",
        ),
    ],
)
def test_the_first_sentence_says_who_won_also_where_pretraining_lost(rates, said):
    assert sentence(of(*rates)).startswith(said)


def test_json_has_the_fixed_form():
    document = comparison_json(of(0.9, 0.6, 0.5), ["a note"])
    assert {"arms", "best", "verdict"} <= document.keys()
    assert document["verdict"] == "pretrained_won"
    assert document["best"] == PRETRAINED
    for arm in document["arms"]:
        assert {"name", "score", "low", "high", "seconds"} <= arm.keys()
        assert arm["low"] <= arm["score"] <= arm["high"]
        assert [point["share"] for point in arm["curve"]] == [0.5, 1.0]
        assert arm["curve"][-1]["gap"] == arm["gap"]
    assert document["differences"][SCRATCH]["low"] > 0
    assert document["labels_saved"][SCRATCH]["value"] >= 0.5
    assert document["time_saved"].keys() == document["labels_saved"].keys() == {SCRATCH, BASELINE}
    assert all(words.split(":")[0] in ("Labels", "Time") for words in document["saved_in_words"][:3])
    assert document["notes"] == ["a note"]


def test_labels_saved_are_told_with_their_interval_or_that_there_are_none():
    assert labels_in_words(of(0.9, 0.6, 0.5), SCRATCH).startswith("at least 50 % saved (95 % interval ")
    assert labels_in_words(of(0.5, 0.9, 0.5), SCRATCH).startswith("none saved")
    assert np.isfinite(of(0.9, 0.6, 0.5).score(PRETRAINED).value)


def test_time_saved_is_told_with_its_interval_or_that_there_is_none():
    said = time_in_words(of(0.9, 0.6, 0.5), SCRATCH)
    assert re.fullmatch(
        r"at least \d+ % saved \(95 % interval .*\): so much less gives what training .*", said
    )
    assert time_in_words(of(0.5, 0.9, 0.5), SCRATCH).startswith("none saved")
    found = of(0.9, 0.6, 0.5)
    slow = [replace(o, seconds=100.0 if o.arm == PRETRAINED else 1.0) for o in found.outcomes]
    assert time_in_words(replace(found, outcomes=slow), SCRATCH).startswith("none saved: until it is as good")
