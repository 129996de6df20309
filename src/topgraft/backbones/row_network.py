"""A network for rows of numbers and categories, ``rows/resnet``: residual blocks of linear layers.

It has no published weights: it is trained from random values on a table of one's own, and the graft that a
fit saves is then a backbone for related tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from topgraft.backbones.row_preprocess import RowPreprocess
from topgraft.backbones.types import Filled, Source
from topgraft.errors import TopgraftError, did_you_mean

NAME = "resnet"
WIDTH, DEPTH = 128, 6
ENTRY = 16
"""Numbers of an entry at most."""
MOST = 1 << 22
"""Entries, columns or widths of a description at most."""


class RowEmbedding(nn.Module):
    """From encoded rows to vectors: a linear layer over numbers, indicators and the entries of categories.

    What has not been seen in training says nothing: the weights of indicators start at zero, so that a
    missing number is the mean, and so do the entries for unknown and for missing categories.

    Parameters
    ----------
    numbers
        Columns of numbers.
    sizes
        Entries of each column of categories.
    width
        Of the vectors.
    """

    def __init__(self, numbers: int, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.numbers, self.sizes = numbers, tuple(sizes)
        widths = [min(ENTRY, (size + 1) // 2) for size in sizes]
        self.entries = nn.ModuleList(nn.Embedding(size, w) for size, w in zip(sizes, widths, strict=True))
        self.linear = nn.Linear(2 * numbers + sum(widths), width)
        with torch.no_grad():
            self.linear.weight[:, numbers : 2 * numbers].zero_()
            for entry in self.entries.parameters():
                entry[:2].zero_()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2 * numbers + categories) -> (B, width)."""
        start = 2 * self.numbers
        places = x[:, start:].long()
        parts = [x[:, :start], *(entry(places[:, at]) for at, entry in enumerate(self.entries))]
        vectors: Tensor = self.linear(torch.cat(parts, dim=1))
        return vectors


class RowBlock(nn.Module):
    """``x + linear(relu(linear(norm(x))))``, of one width with twice as many numbers between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, 2 * width)
        self.second = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width) -> (B, width)."""
        changed: Tensor = self.second(torch.relu(self.first(self.norm(x))))
        return x + changed


class RowNetwork(nn.Module):
    """The residual network for tables of Gorishniy et al. (2021), without its output layer.

    Other than there, norms are over the numbers of one row (LayerNorm) instead of over a batch, so that a
    row's answer does not depend on those beside it, and nothing is dropped.

    Parameters
    ----------
    numbers
        Columns of numbers.
    sizes
        Entries of each column of categories.
    width
        Of the vectors between blocks.
    depth
        Residual blocks.

    References
    ----------
    Gorishniy, Rubachev, Khrulkov and Babenko (2021), Revisiting deep learning models for tabular data.

    Examples
    --------
    >>> network = RowNetwork(3, [5], width=8, depth=2)
    >>> network(torch.zeros(4, 7)).shape
    torch.Size([4, 8])
    """

    def __init__(self, numbers: int, sizes: Sequence[int], *, width: int = WIDTH, depth: int = DEPTH) -> None:
        super().__init__()
        self.embedding = RowEmbedding(numbers, sizes, width)
        self.blocks = nn.ModuleList(RowBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2 * numbers + categories) float32 -> (B, width) float32."""
        x = self.embedding(x)
        for block in self.blocks:
            x = block(x)
        return torch.relu(self.norm(x))


def is_row_network(source: object) -> bool:
    """Whether a backbone of this name is the network for rows.

    Examples
    --------
    >>> is_row_network("rows/resnet"), is_row_network("rows"), is_row_network("timm/resnet18")
    (True, True, False)
    """
    return isinstance(source, str) and source.partition("/")[0] == "rows"


def load_rows(name: str, *, weights: str | Path, preprocess: Any) -> Source:
    """The network for rows, with random values.

    Parameters
    ----------
    name
        ``resnet``.
    weights
        ``"auto"`` or ``"none"``: random values, since there are no published ones.
    preprocess
        Of the rows that it is to learn from.

    Raises
    ------
    TopgraftError
        If the name is another, weights are asked for, or it is not said which columns there are.
    """
    if name != NAME:
        raise TopgraftError(
            f"There is no backbone rows/{name}.{did_you_mean(name, [NAME])} Expected rows/{NAME}."
        )
    if str(weights) not in ("auto", "none"):
        raise TopgraftError(
            f"weights={weights}: rows/{NAME} starts from random values. To start from what was learned "
            "before, give the folder of a saved graft as the backbone."
        )
    if not isinstance(preprocess, RowPreprocess):
        raise TopgraftError(
            f"rows/{NAME} is made for the columns of a table: give data (`topgraft fit table.csv "
            "--backbone rows`), or preprocess=RowPreprocess.of(rows)."
        )
    network = RowNetwork(preprocess.numbers, preprocess.sizes)
    recipe = {
        "kind": "rows",
        "name": NAME,
        "numbers": preprocess.numbers,
        "sizes": list(preprocess.sizes),
        "width": WIDTH,
        "depth": DEPTH,
    }
    return Source(
        network=network,
        modality="row",
        preprocess=preprocess,
        recipe=recipe,
        filled=Filled("random values", "random"),
        output_layers=(),
        example=preprocess.example(4),
        notes=("There are no published weights of it: it learns from your own table.",),
    )


def rebuild_rows(recipe: Mapping[str, Any]) -> nn.Module:
    """The empty network of a recipe, with random values."""
    sizes = [int(size) for size in recipe["sizes"]]
    shape = {name: int(recipe[name]) for name in ("numbers", "width", "depth")}
    if (
        recipe["name"] != NAME
        or sum(sizes) > MOST
        or min([*sizes, 2]) < 2
        or len(sizes) + shape["numbers"] < 1
    ):
        raise TopgraftError(f"There is no network for rows {recipe['name']!r} of {len(sizes)} categories.")
    if not (
        0 <= shape["numbers"] <= MOST and 0 < shape["width"] <= 1 << 14 and 0 < shape["depth"] <= 1 << 10
    ):
        raise TopgraftError(f"A network for rows can't have {shape}.")
    return RowNetwork(shape["numbers"], sizes, width=shape["width"], depth=shape["depth"])


def must_be_of(preprocess: Any, recipe: Mapping[str, Any]) -> None:
    """Refuse preprocessing that is not of the network's own columns.

    Raises
    ------
    ValueError
        If their numbers differ: it is read from files.
    """
    if recipe.get("kind") == "rows" or isinstance(preprocess, RowPreprocess):
        made = (preprocess.numbers, list(preprocess.sizes)) if isinstance(preprocess, RowPreprocess) else None
        if made != (recipe.get("numbers"), recipe.get("sizes")):
            raise ValueError("the columns of its preprocessing are not those of its network")
