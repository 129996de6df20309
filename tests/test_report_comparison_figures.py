from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compared import CURVES, comparison_file

from topgraft.curves import MAJORITY, PRETRAINED, SCRATCH
from topgraft.report.comparison import gather_comparison
from topgraft.report.comparison_figures import comparison_figures
from topgraft.report.ink import PAPER, VARIABLES, Drawn, to_svg


def drawn(path: Path, curves: dict[str, tuple[float, ...]] | None = None) -> tuple[dict, dict[str, Drawn]]:
    document = gather_comparison(comparison_file(path / "c.json", curves))
    return document["comparison"], {one.name: one for one in comparison_figures(document)}


def test_each_figure_shows_the_numbers_of_the_json_and_says_what_to_conclude(tmp_path: Path):
    found, figures = drawn(tmp_path)
    assert list(figures) == ["differences", "examples", "seconds", "gaps"]
    points = [(a["name"], p["examples"], p["value"]) for a in found["arms"] for p in a["curve"]]
    for name in ("examples", "seconds"):
        assert [(r[0], r[2], r[4]) for r in figures[name].rows] == points
    assert [r[1] for r in figures["differences"].rows] == [d["value"] for d in found["differences"].values()]
    gaps = {a["name"]: a["gap"] for a in found["arms"] if a["name"] != MAJORITY}
    assert {r[0]: r[3] for r in figures["gaps"].rows} == gaps
    for one in figures.values():
        assert len(one.title) > 20
        assert len(one.told) > 20
        text = to_svg(one)
        assert text == to_svg(one)
        assert not any(colour in text for colour in VARIABLES)


@pytest.mark.parametrize(("name", "across"), [("examples", "examples"), ("seconds", "seconds")])
def test_curves_are_drawn_where_the_numbers_are(tmp_path: Path, name: str, across: str):
    found, figures = drawn(tmp_path)
    axes = figures[name].draw(PAPER).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    for arm in found["arms"]:
        shown = [100 * p["value"] for p in arm["curve"]]
        if arm["name"] == MAJORITY:
            assert lines[MAJORITY].get_ydata() == pytest.approx([100 * arm["score"]] * 2)
            continue
        assert list(lines[arm["name"]].get_ydata()) == pytest.approx(shown)
        places = [p[across] for p in arm["curve"]]
        assert list(lines[arm["name"]].get_xdata()) == pytest.approx(places, rel=0.1)
    intervals = [tuple(line.get_ydata()) for line in axes.lines if line.get_label().startswith("_")]
    known = [p for a in found["arms"] if a["name"] != MAJORITY for p in a["curve"]]
    wanted = np.array(sorted((100 * p["low"], 100 * p["high"]) for p in known))
    assert np.allclose(np.array(sorted(intervals)), wanted)


def test_titles_say_what_the_numbers_say(tmp_path: Path):
    _, figures = drawn(tmp_path)
    assert figures["differences"].title == "The pretrained network is better for sure than 4 of 4 other ways"
    assert figures["examples"].title == (
        "At least 90 % of the labels can be spared: with the rest the pretrained network is as good as "
        "training from scratch with all"
    )
    assert "training from scratch 5.5 min for " in figures["seconds"].title
    lost = CURVES | {SCRATCH: (0.8, 0.85, 0.9, 0.95), PRETRAINED: (0.2, 0.3, 0.3, 0.4)}
    _, figures = drawn(tmp_path, lost)
    assert figures["differences"].title.endswith(", and worse for sure than training from scratch")
    assert figures["examples"].title.startswith(
        "With all labels the pretrained network is not yet as good as "
    )


def test_the_title_on_labels_goes_by_the_better_rival(tmp_path: Path):
    _, figures = drawn(tmp_path, CURVES | {SCRATCH: (0.1, 0.1, 0.1, 0.15)})
    assert figures["examples"].title.endswith("is as good as the simple baseline with all")


def test_without_training_from_scratch_the_figures_do_without_it(tmp_path: Path):
    _, figures = drawn(tmp_path, {arm: curve for arm, curve in CURVES.items() if arm != SCRATCH})
    assert "the simple baseline" in figures["examples"].title
    assert all("scratch" not in one.title + one.told for one in figures.values())
