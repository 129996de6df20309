from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from compared import comparison_file
from several_runs import fitted

from topgraft.errors import TopgraftError
from topgraft.report.reports import weights_title, write_report


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    place = tmp_path_factory.mktemp("reports")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPGRAFT_CACHE", str(place / "store"))
        yield fitted(place)


def test_one_folder_is_a_run_several_are_side_by_side_and_a_file_is_a_comparison(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = comparison_file(tmp_path / "c.json")
    run, numbers = write_report(runs["trained"])
    assert run == runs["trained"] / "report.html"
    assert "untouched" in numbers
    assert write_report([runs["trained"]]) == (run, numbers)
    several, numbers = write_report([runs["trained"], runs["shallow"], runs["other"]])
    assert several == Path("trained-beside-shallow-beside-other.html")
    assert [one["letter"] for one in numbers["runs"]] == ["A", "B", "C"]
    comparison, numbers = write_report(file)
    assert comparison == tmp_path / "c.html"
    assert "comparison" in numbers
    assert all(page.is_file() for page in (run, several, comparison))


def test_every_page_needs_nothing_else_and_shows_names_as_text(runs: dict[str, Path], tmp_path: Path) -> None:
    file = comparison_file(tmp_path / "c.json")
    for places in (runs["trained"], [runs["trained"], runs["shallow"]], file):
        page = write_report(places, tmp_path / "page.html")[0].read_text(encoding="utf-8")
        assert "default-src 'none'" in page
        assert "<b>" not in page
        assert not any(word in page for word in ("<link", "<iframe", 'src="http', "@import"))


def test_a_place_that_can_not_be_written_is_told(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TopgraftError):
        write_report(runs["trained"], tmp_path / "page.html", tmp_path / "file")


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"matched": "random", "arrived": 0, "tensors": 2}, "Random values"),
        ({"matched": "name", "arrived": 2, "tensors": 2}, "All pretrained weights arrived"),
        ({"matched": "name", "arrived": 1, "tensors": 2}, "Not all pretrained weights arrived"),
    ],
)
def test_the_title_of_the_load_report_says_what_arrived(weights: dict[str, object], said: str) -> None:
    assert weights_title(weights).startswith(said)
