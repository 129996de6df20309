"""Data sets laid out as the cache of the Hugging Face hub holds them, of packaged pictures and glosses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import datasets
import pytest
from hub_cache import REVISION, use_cache
from packaged_data import glosses_of, pictures_of

CLASSES = ("food", "tools")


def use_datasets(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the libraries of the hub use folders of their own below ``root``, with no connection."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(root / "prepared"))
    return use_cache(root / "hub", monkeypatch)


def snapshot_of(cache: Path, name: str) -> Path:
    """An empty snapshot of a data set, found under its branch ``main``."""
    base = cache / f"datasets--{name.replace('/', '--')}"
    folder = base / "snapshots" / REVISION
    folder.mkdir(parents=True)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text(REVISION)
    return folder


def pictures(start: int, each: int) -> datasets.Dataset:
    """Pictures with their bytes, and a ``ClassLabel``."""
    chosen = [(path, name) for name in CLASSES for path in pictures_of(name, start, each)]
    cells = {
        "image": [{"bytes": path.read_bytes(), "path": path.name} for path, _ in chosen],
        "label": [CLASSES.index(name) for _, name in chosen],
    }
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
    return datasets.Dataset.from_dict(cells, features=datasets.Features(features))


def write_pictures(folder: Path, *, train: int = 8, test: int = 4) -> Path:
    """``data/train-….parquet`` and ``data/test-….parquet``, as ``push_to_hub`` writes them."""
    (folder / "data").mkdir(parents=True)
    datasets.disable_progress_bars()
    pictures(0, train).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    pictures(train, test).to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    return folder


def write_texts(path: Path, names: Sequence[str] = ("animal", "food"), each: int = 10) -> Path:
    """A table of glosses as JSON lines."""
    import json

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"text": text, "label": label}) for text, label in glosses_of(names, each)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path
