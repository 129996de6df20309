from __future__ import annotations

import pytest

from topgraft.ledger import STAGES, Ledger


def test_predicted_corrected_and_actual_stand_side_by_side():
    ledger = Ledger()
    ledger.predict("training", seconds=10.0, epochs=5)
    ledger.correct("training", seconds=8.0)
    ledger.spend("training", seconds=3.0, epochs=4)
    ledger.spend("training", seconds=4.0)
    assert ledger.to_json()["training"] == {
        "seconds": {"predicted": 10.0, "corrected": 8.0, "actual": 7.0},
        "epochs": {"predicted": 5, "actual": 4},
    }


def test_a_stage_that_is_to_do_more_is_corrected_from_what_was_said_last():
    ledger = Ledger()
    ledger.predict("training", seconds=10.0)
    ledger.enlarge("training", seconds=3.0)
    ledger.enlarge("training", seconds=4.0)
    ledger.spend("training", seconds=16.0)
    assert ledger.to_json()["training"] == {"seconds": {"predicted": 10.0, "corrected": 17.0, "actual": 16.0}}


def test_the_most_memory_is_kept_and_what_is_not_told_is_null():
    ledger = Ledger()
    ledger.predict("pass", memory=None)
    for memory in (5.0, 9.0, None, 7.0):
        ledger.spend("pass", memory=memory)
    assert ledger.to_json()["pass"] == {"memory": {"predicted": None, "actual": 9.0}}


def test_stages_that_were_not_done_are_null():
    ledger = Ledger()
    ledger.predict("storing", seconds=1.0)
    ledger.spend("probes", seconds=1.0)
    ledger.forget("probes")
    assert ledger.to_json() == dict.fromkeys(STAGES)


def test_an_unknown_stage_is_a_mistake():
    with pytest.raises(ValueError, match="'rest' is no stage"):
        Ledger().predict("rest", seconds=1.0)
