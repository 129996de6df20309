"""What holds for every test and for every example in a docstring; it is set before torch is loaded."""

from __future__ import annotations

import os
import tempfile

import pytest
from hypothesis import settings

# The networks of tests are so small that threads inside an operation only wait for one another: on busy
# cores ten times longer. Tests run side by side instead; what a test starts as a program inherits this.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

# No hub is asked: what a test loads is packaged or made by the test.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["NO_COLOR"] = "1"

# The store of the person who runs the tests is left alone, and two runs of the tests share none.
_STORE = tempfile.TemporaryDirectory(prefix="topgraft-tests-", ignore_cleanup_errors=True)
os.environ["TOPGRAFT_CACHE"] = _STORE.name

# On busy cores the time of one example says nothing; where CI is set, the examples are the same each time.
settings.register_profile(
    "topgraft", settings.get_profile("ci" if os.environ.get("CI") else "default"), deadline=None
)
settings.load_profile("topgraft")


def pytest_unconfigure() -> None:
    _STORE.cleanup()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The README's commands come first: they take minutes one after another, and others run beside them."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")
