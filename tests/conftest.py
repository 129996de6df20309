"""Small data made from the packaged pictures and glosses, for every test that wants some."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaged_data import glosses_of, pictures_of, write_table


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 real pictures, 12 in each of the classes buildings, food and tools; to be read, not changed."""
    root = tmp_path_factory.mktemp("data") / "photos"
    for name in ("buildings", "food", "tools"):
        folder = root / name
        folder.mkdir(parents=True)
        for picture in pictures_of(name, 0, 12):
            shutil.copy(picture, folder)
    return root


@pytest.fixture(scope="session")
def glosses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 real glosses, 20 in each of 3 classes, in the columns text and label; to be read, not changed."""
    rows = [("text", "label"), *glosses_of(("animal", "food", "person"), 20)]
    return write_table(tmp_path_factory.mktemp("data") / "glosses.csv", rows)


@pytest.fixture(scope="module")
def own_store_one_thread(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One store for the commands that a module's tests run, and one thread an operation."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPGRAFT_CACHE", str(tmp_path_factory.mktemp("store")))
        yield
    torch.set_num_threads(before)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new, empty store for this test and for the programs that it starts."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TOPGRAFT_CACHE", str(folder))
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums have other bits with another number of threads, and a forked process can use but one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
