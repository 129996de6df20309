"""Tables of numbers and categories, made on the spot: who buys goes by age, income and town."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

EFFECTS = {"Ulm": 1.0, "Rom": -1.0, "Oslo": 0.5, "Lyon": 2.0}


def table(count: int, *, seed: int = 0, missing: float = 0.1) -> pd.DataFrame:
    """Columns age, income, town and kids, and the labels bought (yes, no) and spent."""
    drawn = np.random.default_rng(seed)
    age, income = drawn.normal(40, 12, count), drawn.lognormal(3, 1, count)
    town = drawn.choice(list(EFFECTS), count)
    pull = np.array([EFFECTS[name] for name in town]) * (income > 20) + np.sin(age / 8)
    found = pd.DataFrame(
        {
            "age": age.round(1),
            "income": income.round(2),
            "town": town,
            "kids": drawn.integers(0, 4, count),
            "bought": np.where(pull > 0, "yes", "no"),
            "spent": (50 + 20 * pull).round(3),
        }
    )
    found.loc[drawn.random(count) < missing, "income"] = np.nan
    found.loc[drawn.random(count) < missing / 2, "town"] = None
    return found


def written(frame: pd.DataFrame, path: Path) -> Path:
    """The frame as CSV or Parquet."""
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)
    return path


def as_read(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """Cells by column, ``None`` where missing."""
    return {name: [None if pd.isna(cell) else cell for cell in frame[name]] for name in frame}
