"""What every kind of preprocessing offers, and what the kinds share."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from topgraft.canonical import canonical_json
from topgraft.errors import TopgraftError
from topgraft.files import write_json

if TYPE_CHECKING:
    from torch import Tensor

FILE = "preprocess.json"


@runtime_checkable
class Preprocess(Protocol):
    """What every kind of preprocessing offers."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over everything that changes a batch."""

    def batch(self, raw: Sequence[Any]) -> dict[str, Tensor]:
        """Decoded examples -> the network's inputs by name, batch first."""

    def describe(self) -> dict[str, Any]:
        """Every setting, as JSON values."""

    def lines(self) -> list[str]:
        """What is done, in plain words."""

    def save(self, folder: Path) -> None:
        """Write what :func:`topgraft.backbones.open_preprocess` needs into an existing folder."""


class Described(ABC):
    """What the kinds share: their fingerprint and their file."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Every setting, as JSON values; each kind has its own."""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over everything that changes a batch."""
        return hashlib.sha256(canonical_json(self.describe())).hexdigest()

    def save(self, folder: Path) -> None:
        """Write what :func:`topgraft.backbones.open_preprocess` needs into an existing folder."""
        write_json(Path(folder) / FILE, self.describe())


def at_least_one(raw: Sequence[Any]) -> None:
    """Refuse an empty batch."""
    if len(raw) == 0:
        raise TopgraftError("A batch needs at least one example, got none.")


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON values."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
