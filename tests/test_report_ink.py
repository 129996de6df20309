from __future__ import annotations

import io

import pytest
from PIL import Image

from topgraft.report.ink import (
    PAGE,
    PAPER,
    VARIABLES,
    Drawn,
    axes_of,
    interval,
    logarithmic,
    name_rows,
    short,
    stacked,
    to_file,
    to_svg,
)
from topgraft.report.ink import labels as spread


def one(name: str = "one") -> Drawn:
    def draw(ink):
        figure, axes = axes_of(ink, "across & <up>", "up")
        interval(axes, ink.accent, 0, (1.0, 2.0, 4.0))
        name_rows(axes, [short("a name with $x_1$")])
        return figure

    return Drawn(name, "A title", "the same in words", draw, ("a",), [(1,)])


def test_a_figure_of_a_page_takes_the_colours_of_its_style_and_one_of_a_file_its_own() -> None:
    page, file = to_svg(one()), to_file(one(), "svg").decode()
    assert page.startswith("<svg")
    assert all(variable in page for variable in ("var(--text)", "var(--faint)", "var(--accent)"))
    assert not any(colour in page for colour in VARIABLES)
    assert PAPER.accent in file
    assert "var(" not in file
    assert to_file(one(), "svg").decode() == file


def test_letters_stay_letters_and_what_looks_like_markup_or_a_formula_is_text() -> None:
    page = to_svg(one())
    assert "across &amp; &lt;up&gt;" in page
    assert "$x_1$" in page


def test_a_picture_of_its_own_has_twice_the_dots_of_a_phone() -> None:
    with Image.open(io.BytesIO(to_file(one(), "png"))) as picture:
        assert picture.width == 880


def test_an_interval_lies_with_its_spot_in_it_and_rows_are_named_from_the_top() -> None:
    axes = one().draw(PAGE).axes[0]
    line, spot = axes.lines
    assert list(line.get_xdata()) == [1, 4]
    assert list(spot.get_xdata()) == [2]
    assert axes.get_ylim() == (0.5, -0.5)


def test_panels_share_one_scale() -> None:
    _, panels = stacked(PAPER, 3, height=4)
    panels[0].plot([0, 1], [5, 9])
    assert len({panel.get_ylim() for panel in panels}) == 1


@pytest.mark.parametrize("many", [1, 5, 40])
def test_names_are_spread_evenly_where_there_are_too_many(many: int) -> None:
    places, names = spread([str(i) for i in range(many)], most=12)
    assert len(names) <= 12
    assert names == [str(p) for p in places]


@pytest.mark.parametrize("values", [(2.0, 9.0), (0.4, 30.0), (0.02, 800.0), (5.0, 5.0)])
def test_an_axis_by_powers_has_ticks_in_plain_numbers(values: tuple[float, float]) -> None:
    figure, axes = axes_of(PAPER, "seconds", "up")
    axes.plot(values, [1, 2], "o")
    logarithmic(axes, values)
    figure.draw_without_rendering()
    low, high = axes.get_xlim()
    told = [t.get_text() for t in axes.get_xticklabels() if low <= t.get_position()[0] <= high]
    assert (2 if values[0] < values[1] else 1) <= len(told) <= 8
    assert all(float(text) > 0 for text in told)
