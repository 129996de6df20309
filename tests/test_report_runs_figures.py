from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from several_runs import fitted

from topgraft.report.ink import PAPER, VARIABLES, to_svg
from topgraft.report.runs import gather_runs
from topgraft.report.runs_figures import runs_figures


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    place = tmp_path_factory.mktemp("figures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPGRAFT_CACHE", str(place / "store"))
        yield fitted(place)


def test_each_figure_shows_the_numbers_of_the_json_and_says_what_to_conclude(runs: dict[str, Path]):
    document = gather_runs([runs["shallow"], runs["trained"]])
    figures = {one.name: one for one in runs_figures(document)}
    assert list(figures) == ["scores", "difference", "depths", "costs"]
    both = document["runs"]
    assert [r[2] for r in figures["scores"].rows] == [s["value"] for run in both for s in run["scores"]]
    (pair,) = document["pairs"]
    assert figures["difference"].rows[0][2:5] == (pair["gain"], pair["low"], pair["high"])
    cuts = [c for run in both for c in run["depth"]["cuts"]]
    assert [r[3] for r in figures["depths"].rows] == [c["score"] for c in cuts]
    seconds = [c for c in document["costs"] if c["amount"] == "seconds"]
    assert [r[3] for r in figures["costs"].rows] == [w for c in seconds for w in c["was"] if w is not None]
    for one in figures.values():
        assert len(one.title) > 20
        assert len(one.told) > 20
        text = to_svg(one)
        assert text == to_svg(one)
        assert not any(colour in text for colour in VARIABLES)


def test_spots_are_drawn_where_the_numbers_are(runs: dict[str, Path]):
    document = gather_runs([runs["shallow"], runs["trained"]])
    figures = {one.name: one for one in runs_figures(document)}
    panels = figures["depths"].draw(PAPER).axes
    assert len(panels) == 2
    for run, axes in zip(document["runs"], panels, strict=True):
        spots = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "o"]
        assert spots == pytest.approx([100 * c["score"] for c in run["depth"]["cuts"]])
        assert axes.get_ylim() == panels[0].get_ylim()
    spots = [x.get_xdata()[0] for x in figures["scores"].draw(PAPER).axes[0].lines if x.get_marker() == "o"]
    assert spots == pytest.approx([100 * run["score"]["value"] for run in document["runs"]])


def test_runs_that_are_not_paired_have_no_figure_of_a_difference(runs: dict[str, Path]):
    names = [one.name for one in runs_figures(gather_runs([runs["shallow"], runs["other"]]))]
    assert names == ["scores", "depths", "costs"]
