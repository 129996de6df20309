from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topgraft.health import (
    DEAD,
    EXPLODING,
    HEALTHY,
    STILL,
    VANISHING,
    VERDICTS,
    Diagnosis,
    Reading,
    diagnose,
    inputs_look_strange,
)

WELL = Reading(step=0, block=1, gradient=0.1, relative=0.02, update=2e-3, share=1.0)


def blocks(*changes: dict[str, Any], steps: int = 3) -> list[Reading]:
    """Three steps of as many blocks as there are changes to a healthy one."""
    return [
        replace(WELL, block=i, step=step, **change)
        for step in range(steps)
        for i, change in enumerate(changes, start=1)
    ]


def verdicts(readings: list[Reading], **told: float) -> list[Diagnosis]:
    names = {r.block: f"block {r.block}" for r in readings}
    return diagnose(readings, names, **{"rate": 1e-3, "clip": 1.0, **told})


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, HEALTHY),
        ({"bad": 3, "relative": math.nan}, EXPLODING),
        ({"update": 0.2}, EXPLODING),
        ({"relative": 11.0}, EXPLODING),
        ({"dead": 0.95}, DEAD),
        ({"dead": 0.85}, HEALTHY),
        ({"saturated": 0.8}, DEAD),
        ({"relative": 1e-8}, VANISHING),
        ({"relative": 1e-8, "dead": 0.95}, DEAD),
        ({"update": 5e-6}, STILL),
    ],
)
def test_each_block_gets_the_verdict_of_its_own_numbers(change: dict[str, float], verdict: str):
    assert [d.verdict for d in verdicts(blocks({}, change, {}))] == [HEALTHY, verdict, HEALTHY]


def test_a_sick_block_is_told_with_its_numbers_and_what_to_do():
    found = verdicts(blocks({}, {"update": 0.35}))[1]
    assert "35 % of its weights" in found.why
    assert found.options == {"rate": 3e-6}
    assert "--rate 3e-06" in found.remedy
    assert verdicts(blocks({"relative": 20.0}), clip=100.0)[0].options == {"clip": 1.0}
    assert verdicts(blocks({"relative": 20.0}))[0].options == {"normalise": True}
    found = verdicts(blocks({"relative": 20.0}), normalised=True)[0]
    assert (found.verdict, dict(found.options)) == (EXPLODING, {})
    assert "came so" in verdicts(blocks({"dead": 1.0}))[0].remedy
    later = [replace(r, dead=0.0 if r.step == 0 else 1.0) for r in blocks({})]
    assert verdicts(later)[0].options == {"rate": 1e-4}


def test_blocks_that_no_gradient_reaches_are_to_be_frozen_up_to_the_last_of_them():
    weak = {"relative": 1e-9}
    found = verdicts(blocks(weak, weak, {}, weak, {}))
    assert [d.verdict for d in found] == [VANISHING, VANISHING, HEALTHY, VANISHING, HEALTHY]
    assert [dict(d.options) for d in found[:2]] == [{"freeze": 2}, {"freeze": 2}]
    assert dict(found[3].options) == {}


def test_a_rate_that_is_raised_is_raised_tenfold_at_most():
    assert verdicts(blocks({"update": 1e-9}))[0].options == {"rate": pytest.approx(1e-2)}


def test_early_gradients_that_outgrow_late_ones_are_told_but_not_those_of_the_head():
    far = blocks({"relative": 0.1}, {}, {"relative": 0.01}, {"relative": 1e-6})
    assert inputs_look_strange(far, head=4) == pytest.approx(10)
    assert inputs_look_strange(blocks({}, {}, {}, {"relative": 1e-6}), head=4) is None
    assert inputs_look_strange(blocks({"relative": 0.1}, {}, {}), head=3) is None  # two blocks tell nothing


@given(
    st.lists(
        st.builds(
            Reading,
            step=st.integers(0, 9),
            block=st.integers(1, 4),
            gradient=st.floats(0),
            relative=st.floats(0),
            update=st.floats(0),
            share=st.floats(0, 1),
            dead=st.none() | st.floats(0, 1),
            saturated=st.none() | st.floats(0, 1),
            bad=st.integers(0, 2),
        )
    )
)
def test_any_readings_get_one_verdict_a_block_with_a_remedy_where_it_is_sick(readings: list[Reading]):
    found = verdicts(readings)
    assert [d.block for d in found] == sorted({r.block for r in readings})
    for one in found:
        assert one.verdict in VERDICTS
        assert bool(one.why) == bool(one.remedy) == (one.verdict != HEALTHY)
