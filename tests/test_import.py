"""The package itself: light to import, its public names true and in one place."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import topgraft as tg

LIBRARIES = {"PIL", "datasets", "numpy", "pandas", "rich", "scipy", "sklearn", "timm", "torch", "typer"}


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after ``code``."""
    listing = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\n{listing}"], capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    loaded = modules_after("import topgraft")
    assert "topgraft" in loaded
    assert loaded.isdisjoint(LIBRARIES)


def test_the_demonstration_data_loads_nothing_heavy():
    loaded = modules_after("from topgraft import demo; demo.pictures(); demo.glosses()")
    assert loaded.isdisjoint(LIBRARIES)


@pytest.mark.parametrize("name", sorted(tg._HOMES))
def test_public_names_come_from_the_module_that_the_table_says(name):
    home = import_module(f"topgraft.{tg._HOMES[name]}")
    assert getattr(tg, name) is getattr(home, name)
    assert name in dir(tg)


def test_a_public_name_wins_over_a_module_of_the_same_name_whatever_is_imported_first():
    code = """
import importlib, sys
import topgraft
for name, home in topgraft._HOMES.items():
    module = importlib.import_module(f"topgraft.{home}")
    assert getattr(topgraft, name) is getattr(module, name), name
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_type_checkers_are_told_the_same_names_from_the_same_modules():
    tree = ast.parse(Path(tg.__file__).read_text(encoding="utf-8"))
    told = {
        alias.name: statement.module
        for statement in ast.walk(tree)
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
        if alias.asname == alias.name
    }
    assert told == {name: f"topgraft.{home}" for name, home in tg._HOMES.items()}


def test_an_unknown_name_is_an_attribute_error_that_says_it():
    with pytest.raises(AttributeError, match="module 'topgraft' has no attribute 'grafft'"):
        _ = tg.grafft


def test_the_version_in_the_source_is_the_one_that_is_installed():
    assert version("topgraft") == tg.__version__
