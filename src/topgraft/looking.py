"""Where in a picture a model looked: what each place of the last map adds to what the model says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from topgraft.backbones.picture_preprocess import PicturePreprocess
from topgraft.chain import Block, State
from topgraft.errors import TopgraftError
from topgraft.ordered import median_of
from topgraft.saved import Model

MOST = 0.5
"""Share of the weight that a ninth or a quarter of a picture needs to be where the model "mostly" looked."""
HALF = 2 / 3
"""The same of a half of it."""
PARTS = {
    (3, 3): (
        *("upper left", "upper middle", "upper right"),
        *("middle left", "middle", "middle right"),
        *("lower left", "lower middle", "lower right"),
    ),
    (2, 2): ("upper left quarter", "upper right quarter", "lower left quarter", "lower right quarter"),
    (1, 2): ("left half", "right half"),
    (2, 1): ("upper half", "lower half"),
}
"""Names of the parts of a picture, row by row, by how many there are from top to bottom and across."""


@dataclass(frozen=True)
class Grid:
    """How the state at a cut lies over the picture that the network gets.

    Parameters
    ----------
    cut
        After which block.
    layout
        Of the state's main activation, see :class:`topgraft.chain.Block`.
    height, width
        Places from top to bottom and from left to right.
    before
        Of tokens: how many stand before those of the places, such as a class token.
    """

    cut: int
    layout: str
    height: int
    width: int
    before: int = 0

    def places(self, x: Tensor) -> Tensor:
        """``(batch, height, width)``: an activation summed over its channels."""
        if self.layout == "map":
            return x.sum(1)
        if self.layout == "tokens":
            x = x[:, self.before :].unflatten(1, (self.height, self.width))
        return x.sum(-1)


@dataclass(frozen=True, eq=False)
class Looked:
    """Where the model looked in one picture.

    Parameters
    ----------
    of
        The class, label or number that it is about.
    score
        Of a class its logit less the mean of the others', of a label its logit, or the number itself.
    parts
        (height, width) float64: what each place adds to the score.
    seen
        Left, top, right and bottom of what the grid covers, as shares of the picture's width and height;
        outside 0 to 1 where the picture was given a border.
    """

    of: str
    score: float
    parts: NDArray[np.float64]
    seen: tuple[float, float, float, float]

    @property
    def rest(self) -> float:
        """What no place adds: the bias, tokens of no place, earlier cuts that the head reads."""
        return self.score - float(self.parts.sum())

    @property
    def shares(self) -> NDArray[np.float64]:
        """(height, width) float64, 0 to 1: what speaks for it, relative to the place that does most."""
        positive: NDArray[np.float64] = np.maximum(self.parts, 0.0)
        most = positive.max()
        return positive / most if most > 0 else positive

    @property
    def where(self) -> str:
        """In words.

        Examples
        --------
        >>> parts = np.zeros((3, 3))
        >>> parts[0, 0] = 1.0
        >>> Looked("cat", 1.0, parts, (0.0, 0.0, 1.0, 1.0)).where
        'mostly in the upper left (100 % of what speaks for it)'
        """
        return where(self.shares, self.seen)


def where(weights: NDArray[np.float64], seen: tuple[float, float, float, float]) -> str:
    """In which part of the picture most of a map's weight lies, in words.

    Examples
    --------
    >>> where(np.array([[1.0, 0.0], [1.0, 0.0]]), (0.0, 0.0, 1.0, 1.0))
    'mostly in the left half (100 % of what speaks for it)'
    >>> where(np.ones((2, 2)), (0.0, 0.0, 1.0, 1.0))
    'in no part more than in the others'
    >>> where(np.zeros((2, 2)), (0.0, 0.0, 1.0, 1.0))
    'nowhere: no part of the picture speaks for it'
    """
    total = float(weights.sum())
    if total <= 0:
        return "nowhere: no part of the picture speaks for it"
    left, top, right, bottom = seen
    height, width = weights.shape

    def largest(down: int, across: int) -> tuple[str, float]:
        rows, columns = _overlaps(height, top, bottom, down), _overlaps(width, left, right, across)
        shares = (rows @ weights @ columns.T).flatten() / total
        return PARTS[down, across][int(shares.argmax())], float(shares.max())

    ninth, quarter = largest(3, 3), largest(2, 2)
    half = max(largest(1, 2), largest(2, 1), key=lambda found: found[1])
    for (name, share), least in ((ninth, MOST), (quarter, MOST), (half, HALF)):
        if share > least:
            return f"mostly in the {name} ({100 * share:.0f} % of what speaks for it)"
    name, share = ninth
    if share < 2 / 9:
        return "in no part more than in the others"
    return f"in several parts, most in the {name} ({100 * share:.0f} % of what speaks for it)"


def _overlaps(count: int, begin: float, end: float, parts: int) -> NDArray[np.float64]:
    """(parts, count): of ``count`` places from ``begin`` to ``end`` the shares in each equal part of 0 to 1.

    What lies outside 0 to 1 counts for the part beside it.

    Examples
    --------
    >>> _overlaps(2, 0.0, 1.0, 3).round(2).tolist()
    [[0.67, 0.0], [0.33, 0.33], [0.0, 0.67]]
    """
    edges = begin + np.arange(count + 1) / count * (end - begin)
    bounds = np.arange(parts + 1) / parts
    bounds[[0, -1]] = -np.inf, np.inf
    low = np.maximum(edges[None, :-1], bounds[:-1, None])
    high = np.minimum(edges[None, 1:], bounds[1:, None])
    found: NDArray[np.float64] = np.maximum(high - low, 0.0) * count / (end - begin)
    return found


class Looker:
    """Says where in pictures a model looked.

    At the last cut whose state is a map, or tokens that lie as one over the picture, each number of the state
    times the gradient of the score by it is what it adds to the score, as far as the rest of the network is
    linear there; summed over the channels of a place, it is what that place adds. Behind the last cut this is
    exact: a head without hidden layers reads means and maxima, and the parts of all places, the bias, and
    what no place has (:attr:`Looked.rest`) make up the score. Where tokens stand before those of the places
    (a class token), the cut before the last block is taken, since the head reads such a token, too.

    The weights are those of the model, which is not changed.

    Parameters
    ----------
    model
        An opened graft that reads pictures.

    Raises
    ------
    TopgraftError
        If no state of the kept blocks lies over the picture, or has a gradient, with the reason.

    References
    ----------
    Gradient times activation, place by place: Draelos and Carin (2020), HiResCAM. With means of the last map
    and a linear head it is the class activation map of Zhou et al. (2016); where gradients are first averaged
    over places it is that of Selvaraju et al. (2017), Grad-CAM, whose parts add up to nothing.
    """

    def __init__(self, model: Model) -> None:
        if not isinstance(model.preprocess, PicturePreprocess):
            raise TopgraftError(f"Where it looked is for pictures; this model reads {model.modality}s.")
        self.model, self.preprocess = model, model.preprocess
        graft = model.graft
        self._chain = graft.bare.holding(graft.kept_tensors())
        self.grid = self._found()
        cut = self.grid.cut
        self._before = self._chain[:cut].eval()
        self._behind = self._chain[cut : graft.keep].eval() if cut < graft.keep else None
        self._try()

    def _try(self) -> None:
        """Refuse now what would fail at every picture."""
        from PIL import Image

        try:
            self.look([Image.new("RGB", self.preprocess.size[::-1], "grey")])
        except RuntimeError as error:
            said = " ".join(str(error).split())
            raise TopgraftError(
                f"There is no gradient from the answer back to the picture ({said:.100})."
            ) from error

    def look(self, pictures: Sequence[Any]) -> list[Looked]:
        """Where the model looked, as it decided for the class that it gives.

        Parameters
        ----------
        pictures
            Decoded, upright, in RGB.
        """
        graft = self.model.graft
        device = next(iter(graft.kept_tensors().values())).device
        inputs = {name: t.to(device) for name, t in self.preprocess.batch(pictures).items()}
        with torch.no_grad():
            state = self._before(inputs)
        leaves = [t.detach().clone().requires_grad_(t.is_floating_point()) for t in state.tensors]
        with torch.enable_grad():
            given = State(tuple(t * 1 for t in leaves), state.inputs)  # blocks may change what they are given
            said = graft.head(given if self._behind is None else self._behind(given))
            scores, of = self._scores(said.double())
            (slope,) = torch.autograd.grad(scores.sum(), leaves[:1])
        parts = self.grid.places(slope.double() * leaves[0].detach().double()).cpu().numpy()
        return [
            Looked(
                of[i],
                float(scores[i].detach()),
                parts[i],
                self.preprocess.seen(picture.height, picture.width),
            )
            for i, picture in enumerate(pictures)
        ]

    def _scores(self, said: Tensor) -> tuple[Tensor, list[str]]:
        """(batch,) what is explained, and the name of the class, label or number."""
        model = self.model
        if model.outputs:
            return said[:, 0], [model.outputs[0]] * len(said)
        if model.is_ordered:
            chances = torch.softmax(said.detach(), 1).tolist()
            best = torch.tensor([median_of(row) for row in chances], device=said.device)
        else:
            best = said.argmax(1)
        own = said.gather(1, best[:, None])[:, 0]
        names = [model.classes[i] for i in best.tolist()]
        if model.separator or said.shape[1] == 1:
            return own, names
        return own - (said.sum(1) - own) / (said.shape[1] - 1), names

    def _found(self) -> Grid:
        """The last cut that lies over the picture."""
        blocks = self._chain.blocks[: self.model.graft.keep]
        last = blocks[-1]
        found: list[Grid] = []
        for block in reversed(blocks):
            grid = _grid_of(block, self.preprocess.size)
            if grid is None or (grid.layout == "tokens" and not self._lies_over(grid)):
                continue
            found.append(grid)
            if not grid.before or block is not last:
                break
        if not found:
            raise TopgraftError(
                f"What comes out of the kept blocks (the last: {last.name}, {last.layout}) does not lie over "
                "the picture."
            )
        return found[-1]

    def _lies_over(self, grid: Grid) -> bool:
        """Whether tokens lie over the picture as a grid: a change in one place changes its token most.

        It is looked for where there are first so many tokens, before much is exchanged among them.
        """
        shape = self._chain.blocks[grid.cut - 1].shape
        first = next(b for b in self._chain.blocks if b.layout.split("+")[0] == "tokens" and b.shape == shape)
        height, width = self.preprocess.size
        places = [(0, grid.width - 1), (grid.height - 1, 0), (grid.height // 2, grid.width // 3)]
        noise = torch.Generator().manual_seed(0)
        picture = torch.randn(1, 3, height, width, generator=noise)
        batch = picture.repeat(1 + len(places), 1, 1, 1)
        for i, (row, column) in enumerate(places, start=1):
            rows = slice(row * height // grid.height, (row + 1) * height // grid.height)
            columns = slice(column * width // grid.width, (column + 1) * width // grid.width)
            change = batch[i, :, rows, columns]
            batch[i, :, rows, columns] = torch.randn(change.shape, generator=noise)
        with torch.no_grad():
            tokens = self._chain[: first.index].eval()({self.preprocess.key: batch}).tensors[0]
        moved: list[int] = (tokens[1:] - tokens[:1]).abs().sum(-1).argmax(1).tolist()
        return moved == [grid.before + row * grid.width + column for row, column in places]


def _grid_of(block: Block, size: tuple[int, int]) -> Grid | None:
    """How a block's state may lie over a picture of this height and width; ``None`` where it can't."""
    layouts = block.layout.split("+")
    if any(layout != "vector" for layout in layouts[1:]):
        return None
    shape = block.shape
    if layouts[0] in ("map", "map_last") and len(shape) == 3:
        height, width = shape[1:] if layouts[0] == "map" else shape[:2]
        return Grid(block.index, layouts[0], height, width) if height * width > 1 else None
    if layouts[0] != "tokens" or shape[0] < 4:
        return None
    steps, share = shape[0], size[0] / size[1]
    height = math.floor(math.sqrt(steps * share) + 1e-6)
    width = math.floor(height / share + 1e-6)
    if min(height, width) < 2:
        return None
    return Grid(block.index, "tokens", height, width, steps - height * width)
