"""The page of methods has every source that the code names, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CITED = re.compile(
    r"\b([A-Z][A-Za-z-]+)"
    r"(?:(?:, [A-Z][A-Za-z-]+)*,? (?:and|&) (?:Van |Lopez )?[A-Z][A-Za-z-]+| et al\.)?"
    r"\s\(?((?:19|20)\d\d)\b(?=[);,:]| in | for )"
)
NO_PAPERS = {"OpenVINO", "Copyright", "December"}


def cited(text: str) -> set[str]:
    """First author and year."""
    flat = " ".join(text.split())
    return {f"{name} {year}" for name, year in CITED.findall(flat) if name not in NO_PAPERS}


def in_code() -> dict[str, set[str]]:
    sources = ROOT.joinpath("src", "topgraft").rglob("*.py")
    return {str(path.relative_to(ROOT)): cited(path.read_text(encoding="utf-8")) for path in sources}


def test_every_source_that_the_code_names_is_on_the_page():
    page = cited(ROOT.joinpath("docs", "methods.md").read_text(encoding="utf-8"))
    missing = {path: sorted(names - page) for path, names in in_code().items() if names - page}
    assert not missing
    assert len(page) > 40


def test_the_page_says_where_a_source_is_named():
    """Each row's modules name one of its sources themselves, so that who reads the code finds it."""
    code = in_code()
    for line in ROOT.joinpath("docs", "methods.md").read_text(encoding="utf-8").splitlines():
        if sources := cited(line):
            for module in re.findall(r"`([\w/]+\.py)`", line):
                assert sources & code[f"src/topgraft/{module}"], (module, sources)
