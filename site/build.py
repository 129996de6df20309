"""The documentation as a site: docs/*.md, the reference from docstrings and --help, in one navigation.

    python site/build.py [--out build/site]

Every page of ``docs`` has its place in :data:`PAGES`; one that has none is an error, and so is a link that
leads nowhere. Nothing is fetched from anywhere.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PAGES = {
    "Guides": (
        *("few-pictures", "texts-in-my-language", "sounds", "numbers", "several-labels", "ordered-classes"),
        *("rows", "own-source", "data", "bring-your-own-network", "how-many-layers", "is-it-worth-it"),
        *("it-got-worse", "gpu", "many-machines"),
    ),
    "Interfaces": ("command-line", "scikit-learn", "pytorch", "notebooks", "serve", "export"),
    "Methods": ("evidence", "methods", "health", "architecture"),
    "As measured": ("versus", "ways", "coverage", "reliability", "bad-input", "what-works"),
}
"""Chapter -> pages of ``docs``, without those that are put in by the tables below."""
REFERENCE = ("commands", "python")
BESIDE = {"CONTRIBUTING": "contributing", "CHANGELOG": "changelog"}
"""Files beside README.md -> the names of their pages."""
ROUTING = "set_fit_request, set_partial_fit_request, set_score_request, set_predict_request"
"""What scikit-learn gives every estimator, with links into its own documentation."""
MORE = {
    "dependencies": "Methods",
    "study": "As measured",
    "honesty": "As measured",
    "benchmarks": "As measured",
}
MORE |= {"simulation": "As measured", "planning": "As measured"}
"""Pages that programs write, or may write some day -> their chapter."""
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")


def chapters() -> dict[str, tuple[str, ...]]:
    """Every page of ``docs`` in its chapter.

    Raises
    ------
    SystemExit
        If a page has no place, or a place no page.
    """
    there = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    found = {chapter: list(pages) for chapter, pages in PAGES.items()}
    for page, chapter in MORE.items():
        if page in there:
            found[chapter].append(page)
    listed = {page for pages in found.values() for page in pages}
    if there - listed:
        raise SystemExit(f"docs/{min(there - listed)}.md has no place in site/build.py: name it in PAGES.")
    if listed - there:
        raise SystemExit(f"site/build.py lists {min(listed - there)}, and docs/ has no such page.")
    return {chapter: tuple(pages) for chapter, pages in found.items()}


def moved(text: str, *, from_docs: bool) -> str:
    """Links between files of the repository as links between pages; to files that are no pages, as words."""
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}

    def target(match: re.Match[str]) -> str:
        before, link, after = match.groups()
        if re.match(r"[a-z]+:", link):
            return match.group(0)
        path = ((ROOT / "docs" if from_docs else ROOT) / link).resolve()
        if path.parent == ROOT / "docs" and path.stem in pages:
            return f"{before}{path.name}{after}"
        if path.parent == ROOT and path.stem in BESIDE:
            return f"{before}{BESIDE[path.stem]}.md{after}"
        if path == ROOT / "README.md":
            return f"{before}index.md{after}"
        if not path.exists():
            raise SystemExit(f"A link leads nowhere: {link}")
        return f"{before}files/{path.relative_to(ROOT).as_posix()})"

    lines, fenced = [], ""
    for line in text.split("\n"):
        fence = re.match(r"[ >]*(`{3,}|~{3,})", line)
        if fence and (not fenced or fence.group(1).startswith(fenced)):
            fenced = "" if fenced else fence.group(1)
        # between backticks stands code, in which brackets mean something else
        parts = [line] if fenced or fence else re.split(r"(`+[^`]*`+)", line)
        lines.append(
            "".join(p if p.startswith("`") or fenced or fence else LINK.sub(target, p) for p in parts)
        )
    return "\n".join(lines)


def linked_files(text: str) -> set[str]:
    """Files of the repository that pages link to, which the site carries along."""
    return set(re.findall(r"\]\(files/([^)#]+)\)", text))


def contents(chapter: str, pages: tuple[str, ...]) -> str:
    """One chapter of the navigation."""
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {chapter}", "", *pages, "```", ""])


def commands() -> str:
    """What each command says of itself by ``--help``."""
    from topgraft.cli import app

    names = [command.name or command.callback.__name__ for command in app.registered_commands]  # type: ignore[union-attr]
    names += [str(group.name or group.typer_instance.info.name) for group in app.registered_groups]  # type: ignore[union-attr]
    parts = ["# Commands", "", "What `topgraft COMMAND --help` prints.", ""]
    for name in names:
        done = subprocess.run(
            [sys.executable, "-m", "topgraft", name, "--help"], capture_output=True, text=True, check=True
        )
        parts += [f"## topgraft {name}", "", "```text", done.stdout.strip("\n"), "```", ""]
    return "\n".join(parts)


def python() -> str:
    """The public names, from their docstrings."""
    import topgraft as tg

    parts = [
        "# Python",
        "",
        "`import topgraft as tg`: the public names. Each is loaded when it is first used.",
        "",
    ]
    for name in sorted(tg.__all__, key=str.lower):
        one = getattr(tg, name)
        if not hasattr(one, "__module__"):
            continue
        kind = "autoexception" if isinstance(one, type) and issubclass(one, BaseException) else "autofunction"
        kind = "autoclass" if isinstance(one, type) and not issubclass(one, BaseException) else kind
        members = ["   :members:", f"   :exclude-members: {ROUTING}"] if kind == "autoclass" else []
        where = f"{one.__module__}.{one.__qualname__}"
        parts += [f"## {name}", "", "```{eval-rst}", f".. {kind}:: {where}", *members, "```", ""]
    return "\n".join(parts)


def assemble(folder: Path) -> None:
    """What Sphinx reads, into an empty folder."""
    found = chapters()
    texts = {
        path.stem: moved(path.read_text(encoding="utf-8"), from_docs=True)
        for path in sorted((ROOT / "docs").glob("*.md"))
    }
    for name, page in BESIDE.items():
        texts[page] = moved((ROOT / f"{name}.md").read_text(encoding="utf-8"), from_docs=False)
    texts["commands"], texts["python"] = commands(), python()
    tree = [contents(chapter, pages) for chapter, pages in found.items()]
    tree += [contents("Reference", REFERENCE), contents("Project", tuple(BESIDE.values()))]
    texts["index"] += "\n" + "\n".join(tree)
    for name, text in texts.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
        for file in linked_files(text):
            source = ROOT / file
            place = folder / "files" / file
            place.parent.mkdir(parents=True, exist_ok=True)
            if source.is_file():
                shutil.copy(source, place)
    shutil.copy(HERE / "conf.py", folder)
    shutil.copytree(HERE / "static", folder / "static")


def open_to_all(page: str) -> str:
    """A page as Furo makes it, with what axe misses: names of landmarks, levels, what keys can scroll."""
    page = page.replace(
        '<p class="caption" role="heading">', '<p class="caption" role="heading" aria-level="2">'
    )
    page = page.replace(
        '<aside class="sidebar-drawer">', '<aside class="sidebar-drawer" aria-label="All pages">'
    )
    page = re.sub(
        r'<aside class="toc-drawer([^"]*)">', r'<aside class="toc-drawer\1" aria-label="This page">', page
    )
    page = page.replace("<pre>", '<pre tabindex="0">')
    page = re.sub(r'<div class="table-wrapper([^"]*)">', r'<div class="table-wrapper\1" tabindex="0">', page)
    page = re.sub(r"<th (class=\"head[^>]*)>(?:<p></p>)?</th>", r"<td \1></td>", page)
    if "<h1" not in page:
        page = page.replace('<div id="search-results">', '<h1>Search</h1>\n<div id="search-results">')
    return page


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site", help="the site")
    asked = parser.parse_args()
    source = asked.out.parent / f"{asked.out.name}-source"
    for folder in (source, asked.out):
        shutil.rmtree(folder, ignore_errors=True)
    source.mkdir(parents=True)
    assemble(source)
    # one process: Sphinx's own, whose status is ours
    told = ["-b", "html", "-W", "--keep-going", "-q", str(source), str(asked.out)]
    status = subprocess.run([sys.executable, "-m", "sphinx", *told], check=False).returncode
    for page in asked.out.glob("*.html"):
        page.write_text(open_to_all(page.read_text(encoding="utf-8")), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
