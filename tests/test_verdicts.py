"""The program of ``make health``: cures that are applied, what is as expected, and the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from verdicts import Trained, as_page, cured, is_as_expected, remedy_of, run
from verdicts_cases import HEALTHY_ONES, SICK_ONES, Case

from topgraft.health import DEAD, EXPLODING, HEALTHY, VANISHING, Diagnosis

CASES = {case.name: case for case in (*HEALTHY_ONES, *SICK_ONES)}
pytestmark = pytest.mark.usefixtures("one_thread")


def told(*verdicts: str, **of_first: object) -> Trained:
    """A training whose blocks have these verdicts."""
    found = [Diagnosis(i, f"block {i}", v, "so", "do") for i, v in enumerate(verdicts, start=1)]
    if of_first:
        found[0] = replace(found[0], options=of_first)
    return Trained({}, found, 1.0, 0.9, 0.1, "")


def test_the_cases_are_those_that_were_promised() -> None:
    assert len(HEALTHY_ONES) >= 10
    assert len({case.family.split(",")[0] for case in HEALTHY_ONES}) >= 3
    assert sum("real weights" in case.family for case in HEALTHY_ONES) >= 3
    assert {verdict for case in SICK_ONES for verdict in case.expected.values()} == {
        EXPLODING,
        DEAD,
        VANISHING,
    }


def test_gain_without_norms_and_without_clipping_is_cured_by_the_remedies_that_are_named(
    tmp_path: Path,
) -> None:
    case = CASES["the same, gradients not clipped"]
    sick, clipped, well = cured(case, tmp_path)
    assert sick.diverged
    assert is_as_expected(case, sick)
    assert clipped.told == {**case.settings, "clip": 1.0}
    assert well.told == {**clipped.told, "normalise": True}
    assert well.is_healthy
    assert well.end <= well.start < sick.end
    assert well.learned > 0.05


def test_a_healthy_training_needs_no_cure_and_to_normalise_it_harms_nothing(tmp_path: Path) -> None:
    case = CASES["four residual layers"]
    (plain,) = cured(case, tmp_path)
    normalised = run(case, tmp_path, {**case.settings, "normalise": True})
    assert is_as_expected(case, plain)
    assert is_as_expected(case, normalised)
    assert normalised.start == pytest.approx(plain.start, abs=1e-4)
    assert normalised.end < normalised.start


def test_a_verdict_on_another_block_or_another_verdict_is_not_as_expected() -> None:
    case = Case("drawn", "plain", lambda _: (None, None), expected={2: DEAD}, either=(3,))
    assert is_as_expected(case, told(HEALTHY, DEAD, VANISHING, HEALTHY))
    assert not is_as_expected(case, told(DEAD, HEALTHY, HEALTHY, HEALTHY))
    assert not is_as_expected(case, told(HEALTHY, EXPLODING, HEALTHY, HEALTHY))
    assert not is_as_expected(case, told(HEALTHY, DEAD, HEALTHY, DEAD))
    healthy = Case("drawn", "plain", lambda _: (None, None))
    assert is_as_expected(healthy, told(HEALTHY, HEALTHY))
    assert not is_as_expected(healthy, told(HEALTHY, EXPLODING))
    assert not is_as_expected(healthy, replace(told(HEALTHY), diverged="the loss is nan"))


def test_of_rates_the_lowest_is_taken_and_a_sick_block_without_a_setting_gives_none() -> None:
    one = told(EXPLODING, EXPLODING, rate=1e-3)
    both = [one.found[0], replace(one.found[1], options={"rate": 1e-4})]
    assert remedy_of(both) == {"rate": 1e-4}
    assert remedy_of(told(DEAD).found) == {}
    assert remedy_of(told(HEALTHY).found) == {}


def test_the_page_names_false_alarms_and_what_cured() -> None:
    healthy = [(case, told(HEALTHY, HEALTHY)) for case in HEALTHY_ONES]
    sick = Case("drawn", "plain", lambda _: (None, None), expected={1: EXPLODING, 2: EXPLODING})
    every = [
        told(EXPLODING, EXPLODING, HEALTHY),
        replace(told(HEALTHY), told={"normalise": True, "clip": 1.0}),
    ]
    page = as_page(healthy, [(sick, every)])
    assert f"{len(healthy)} trainings" in page
    assert "0 got a verdict that they must not get." in page
    assert "1 of 1 got the right verdict" in page
    assert "| exploding: 1 to 2 | yes | `--normalise`, `--clip 1` | healthy |" in page
    alarmed = as_page([(HEALTHY_ONES[0], told(HEALTHY, DEAD)), *healthy[1:]], [])
    assert f"1 got a verdict that they must not get: {HEALTHY_ONES[0].name}." in alarmed
