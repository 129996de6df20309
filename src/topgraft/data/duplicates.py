"""Finding examples that are the same, or nearly so; never by comparing all pairs."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The four bounds were set on the demonstration clip art: of copies at half size and JPEG quality 75, 95 %
# keep to them, and of pairs of different drawings none does.
MEAN_DIFFERENCE = 0.02
"""Thumbnails of near duplicates differ by at most this on average (of the range 0 to 1)."""

LARGEST_DIFFERENCE = 0.2
"""... and nowhere by more than this, so that two thin drawings on white are not taken for one."""

CORRELATION = 0.98
"""... and they correlate at least so, so that two dark or plain pictures are not taken for one."""

HARDLY = 0.012
"""Thumbnails that differ nowhere by more than this (3 of 255 levels) are the same, plain or not."""

ALIKE = 0.9
"""Jaccard similarity of the sets of words from which on two texts are near duplicates."""

_NEIGHBOURS = 8, 64  # looked at first; and where all of the first were near
_BATCH = 512  # pairs compared at a time (12 KiB each, four times over)

# Scripts that are written without spaces between words: each character counts as a word.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORDS = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")

Pair = tuple[int, int]


def same(keys: Sequence[Hashable]) -> list[list[int]]:
    """Sets of indices whose keys are equal, each of two or more.

    Examples
    --------
    >>> same(["a", "b", "a", "c", "b"])
    [[0, 2], [1, 4]]
    """
    at: dict[Hashable, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        at[key].append(i)
    return [members for members in at.values() if len(members) > 1]


def united(n: int, sets: Iterable[Sequence[int]]) -> NDArray[np.int64]:
    """(n,) int64: examples that are connected through the sets get the same number, others their own.

    Examples
    --------
    >>> united(5, [[0, 2], [2, 4]]).tolist()
    [0, 1, 0, 2, 0]
    """
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for members in sets:
        first = root(members[0]) if len(members) else 0
        for other in members[1:]:
            there = root(other)
            first, there = min(first, there), max(first, there)
            parent[there] = first
    _, numbers = np.unique([root(i) for i in range(n)], return_inverse=True)
    return numbers.astype(np.int64)


def near_pictures(thumbnails: NDArray[np.uint8], others: NDArray[np.uint8] | None = None) -> list[Pair]:
    """Pairs of thumbnails that show the same picture: re-encoded, resized or slightly changed.

    Both bounds together (mean and largest difference) bound the Euclidean distance, which no
    projection makes larger: so neighbours are looked up in a tree over the leading principal
    components, and only those are compared in full.

    Parameters
    ----------
    thumbnails
        (n, side, side, 3) uint8.
    others
        If given, pairs are between ``thumbnails`` (first index) and these (second index).

    Returns
    -------
    list of (i, j)
        Of a crowd, where eight or more are near one picture, only so many as unite it.
    """
    from scipy.spatial import cKDTree

    if (
        len(thumbnails) == 0
        or (others is not None and len(others) == 0)
        or (others is None and len(thumbnails) < 2)
    ):
        return []
    against = thumbnails if others is None else others
    project = _principal(against)
    tree = cKDTree(project(against))
    points = project(thumbnails)
    size = float(np.prod(thumbnails.shape[1:]))
    radius = float(np.sqrt(size * MEAN_DIFFERENCE * LARGEST_DIFFERENCE)) * 255 + 1.0
    pairs: set[Pair] = set()
    asked = np.arange(len(thumbnails))
    for k in _NEIGHBOURS:
        wanted = min(k + (others is None), len(against))
        _, found = tree.query(
            points[asked], k=np.arange(1, wanted + 1), distance_upper_bound=radius, workers=2
        )
        inside = found < len(against)
        first, second = np.repeat(asked, inside.sum(axis=1)), found[inside]
        if others is None:
            first, second = first[first != second], second[first != second]
            first, second = np.minimum(first, second), np.maximum(first, second)
        if len(first):
            candidates = np.unique(np.stack([first, second], axis=1), axis=0)
            if pairs and others is None:  # the second time: only what is not united yet
                number_of = united(len(thumbnails), pairs)
                candidates = candidates[number_of[candidates[:, 0]] != number_of[candidates[:, 1]]]
            near = confirmed(thumbnails, against, candidates)
            pairs.update((int(i), int(j)) for i, j in candidates[near])
        asked = asked[inside.all(axis=1)]
        if others is not None:
            asked = np.setdiff1d(asked, [i for i, _ in pairs])
        if not len(asked) or wanted == len(against):
            break
    return sorted(pairs)


def near_texts(texts: Sequence[str], others: Sequence[str] | None = None) -> list[Pair]:
    """Pairs of texts that say the same but for case, punctuation, spaces, order or one word in ten.

    Two texts whose sets of words have a Jaccard similarity of ``ALIKE`` or more must share one of
    their few rarest words: an index of those gives the candidates.

    Parameters
    ----------
    texts
        n texts.
    others
        If given, pairs are between ``texts`` (first index) and these (second index).

    References
    ----------
    Prefix filtering: Bayardo, Ma and Srikant (2007), Scaling up all pairs similarity search.

    Examples
    --------
    >>> near_texts(["A dry wine.", "a red wine", "a  dry WINE"])
    [(0, 2)]
    """
    split = len(texts)
    whole = [*texts, *(others or ())]
    sets = [frozenset(words(text)) for text in whole]
    commonness = Counter(word for s in sets for word in s)
    rank = {w: r for r, (w, _) in enumerate(sorted(commonness.items(), key=lambda item: (item[1], item[0])))}
    # One representative for each set of words; the others are paired with it directly.
    members: dict[frozenset[int], list[int]] = defaultdict(list)
    for i, s in enumerate(sets):
        members[frozenset(rank[w] for w in s)].append(i)
    distinct = sorted(members, key=len)
    index: dict[int, list[int]] = defaultdict(list)
    matches: list[tuple[list[int], list[int]]] = [(m, m) for m in members.values()]
    for here, ranks in enumerate(distinct):
        prefix = sorted(ranks)[: len(ranks) - _at_least(len(ranks)) + 1]
        tried: set[int] = set()
        for r in prefix:
            for there in index[r]:
                if there not in tried and len(distinct[there]) >= ALIKE * len(ranks):
                    tried.add(there)
                    common = len(ranks & distinct[there])
                    if common >= ALIKE * (len(ranks) + len(distinct[there]) - common):
                        matches.append((members[ranks], members[distinct[there]]))
            index[r].append(here)
    pairs: set[Pair] = set()
    for left, right in matches:
        if others is None:
            chain = sorted({*left, *right})
            pairs.update((chain[0], i) for i in chain[1:])
        else:
            both = {*left, *right}
            mine, theirs = [i for i in both if i < split], [i - split for i in both if i >= split]
            if theirs:
                pairs.update((i, min(theirs)) for i in mine)
    return sorted(pairs)


def words(text: str) -> list[str]:
    """The words of a text, with case folded and punctuation left out; symbols and emoji are words.

    Examples
    --------
    >>> words("Don't   say “C++”!")
    ['don', 't', 'say', 'c', '+', '+']
    >>> words("?!")
    ['?!']
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    found = [w for w in _WORDS.findall(folded) if len(w) > 1 or not unicodedata.category(w).startswith("P")]
    return found or [folded.strip()]


def _at_least(size: int) -> int:
    return int(np.ceil(ALIKE * size - 1e-9))


def _principal(thumbnails: NDArray[np.uint8], *, components: int = 16, sample: int = 400) -> _Projection:
    """The leading principal components, near enough, by subspace iteration.

    Any orthonormal axes would find the same pairs; the better they are, the fewer candidates. An
    exact eigenvalue decomposition takes ten times as long while the processors are busy.
    """
    flat = thumbnails.reshape(len(thumbnails), -1)
    some = flat[:: max(1, len(flat) // sample)].astype(np.float32)
    centre = some.mean(axis=0)
    some -= centre
    axes = np.random.default_rng(0).normal(size=(some.shape[1], components)).astype(np.float32)
    for _ in range(3):
        axes, _ = np.linalg.qr(some.T @ (some @ axes) + 1e-3 * axes)
    return _Projection(centre, axes)


class _Projection:
    """Coordinates along orthonormal axes; distances never grow."""

    def __init__(self, centre: NDArray[np.float32], axes: NDArray[np.float32]) -> None:
        self.centre, self.axes = centre, axes

    def __call__(self, thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
        flat = thumbnails.reshape(len(thumbnails), -1)
        pieces = [(flat[i : i + _BATCH] - self.centre) @ self.axes for i in range(0, len(flat), _BATCH)]
        return np.concatenate(pieces)


def confirmed(a: NDArray[np.uint8], b: NDArray[np.uint8], pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(pairs,) whether each pair of thumbnails keeps to the bounds above."""
    near = np.zeros(len(pairs), dtype=np.bool_)
    for start in range(0, len(pairs), _BATCH):
        some = slice(start, start + _BATCH)
        i, j = pairs[some].T
        first = a[i].reshape(len(i), -1).astype(np.float32) / 255
        second = b[j].reshape(len(j), -1).astype(np.float32) / 255
        difference = np.abs(first - second)
        largest = difference.max(axis=1)
        first -= first.mean(axis=1, keepdims=True)
        second -= second.mean(axis=1, keepdims=True)
        power = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
        correlates = (first * second).sum(axis=1) >= CORRELATION * np.maximum(power, 1e-6)
        within = (difference.mean(axis=1) <= MEAN_DIFFERENCE) & (largest <= LARGEST_DIFFERENCE)
        near[some] = within & (correlates | (largest <= HARDLY))
    return near
