from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "mutants" / "run.py"
CODE = "def double(x):\n    return 2 * x\n"
TEST = """
import pytest
from topgraft import double

def test_three():
    assert double(3) == 6

def test_nothing():
    assert double(0) == 0
"""


def patch(
    new: str, *, contract: str = "Equal", test: str = "test_three", old: str = "    return 2 * x"
) -> str:
    return (
        f"# contract: {contract}\n# test: tests/test_it.py::{test}\n"
        "--- a/src/topgraft/__init__.py\n+++ b/src/topgraft/__init__.py\n"
        f"@@ -1,2 +1,2 @@\n def double(x):\n-{old}\n+{new}\n"
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small repository with one function and two tests."""
    for name, content in {
        "src/topgraft/__init__.py": CODE,
        "tests/test_it.py": TEST,
        "pyproject.toml": "[tool.pytest.ini_options]\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "tests" / "mutants").mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


def state(tree: Path) -> dict[str, bytes]:
    paths = [path for path in tree.rglob("*") if path.is_file() and ".git" not in path.parts]
    return {str(path.relative_to(tree)): path.read_bytes() for path in paths}


def run(tree: Path, **patches: str) -> tuple[int, str]:
    for name, content in patches.items():
        (tree / "tests" / "mutants" / f"{name}.patch").write_text(content)
    before = state(tree)
    done = subprocess.run([sys.executable, RUN, "Equal", "--root", tree], capture_output=True, text=True)
    assert state(tree) == before  # the working tree is never touched
    assert not done.stderr
    return done.returncode, done.stdout


def test_a_broken_contract_that_a_test_notices_is_red(tree: Path) -> None:
    status, said = run(tree, equal=patch("    return 3 * x"), other=patch("    return 0", contract="Safe"))
    assert status == 0
    assert [line.split() for line in said.splitlines()] == [
        ["contract", "patch", "test", "red?"],
        ["Equal", "equal.patch", "test_three", "yes"],
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (patch("    return x + x"), "none failed by assertion; all green"),
        (patch("    return 3 * x", test="test_nothing"), "none failed by assertion; all green"),
        (patch("    return 2 * y"), "none failed by assertion; error (NameError)"),
        (patch("    return 2 * x ("), "none failed by assertion; no test could be run"),
        (patch("    return 3 * x", old="    return x * 2"), "the patch no longer applies"),
        (
            patch("    return 3 * x").replace("src/topgraft/__init__.py", "tests/test_it.py"),
            "under src/ only",
        ),
    ],
)
def test_a_mutant_that_no_assertion_notices_fails_the_run(tree: Path, content: str, reason: str) -> None:
    status, said = run(tree, equal=content)
    assert status == 1
    assert reason in said.splitlines()[1]
    assert said.splitlines()[1].endswith("NO")


def test_tests_that_are_missing_or_red_without_a_patch_fail_the_run(tree: Path) -> None:
    status, said = run(tree, equal=patch("    return 3 * x", test="test_four"))
    assert status == 1
    assert "not green without any patch; missing: ['tests/test_it.py::test_four']" in said
    (tree / "tests" / "test_it.py").write_text(TEST.replace("== 6", "== 7"))
    status, said = run(tree, equal=patch("    return 3 * x"))
    assert status == 1
    assert "not green without any patch; missing: none" in said


def test_a_contract_without_a_patch_fails_the_run(tree: Path) -> None:
    status, said = run(tree, safe=patch("    return 3 * x", contract="Safe"))
    assert status == 1
    assert "there is no patch for this contract" in said


def test_a_patch_that_does_not_say_what_it_breaks_fails_the_run(tree: Path) -> None:
    status, said = run(tree, equal=patch("    return 3 * x", contract="Quick"))
    assert status == 1
    assert "equal.patch must begin with '# contract: Equal|Frozen|Fresh|Untouched|Whole|Safe'" in said
