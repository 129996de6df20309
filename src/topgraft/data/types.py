"""The examples that everything starts from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from topgraft.data.example import ChangedError
from topgraft.data.lazily import Joined, Picked, is_file
from topgraft.errors import TopgraftError
from topgraft.mapped import room

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from topgraft.data.columns import Record
    from topgraft.data.decoded import Decoded
    from topgraft.data.sounds import Sound

Modality = Literal["picture", "text", "sound", "array", "row"]
Task = Literal["classification", "multilabel", "ordinal", "regression"]
TASKS: tuple[Task, ...] = ("classification", "multilabel", "ordinal", "regression")

Watch = Callable[[Modality, int], AbstractContextManager[Callable[[int], None]]]
"""Told what is about to be decoded, and how many; what it gives is told of those that are done."""


@runtime_checkable
class Inputs(Protocol):
    """What holds the inputs: a list, an array, or something that reads them when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


MODALITIES: tuple[Modality, ...] = ("picture", "text", "sound", "array", "row")


@dataclass(frozen=True)
class LeftOut:
    """An example that could not be used, and why, in few words."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Data:
    """Examples with what is known about them; made by :func:`topgraft.data.read`.

    Parameters
    ----------
    modality
        ``"picture"``, ``"text"``, ``"sound"``, ``"array"`` or ``"row"``.
    origin
        Where they come from, as the user gave it.
    names
        One an example: the path as given (folder + relative path), or the row number, ``"0"`` for
        the first row of data.
    inputs
        Pictures: paths, or :class:`topgraft.data.lazily.Member` of shards (from Python also Pillow
        pictures, arrays or the bytes of a file). Texts: ``str``. Sounds: as pictures, or
        :class:`topgraft.data.sounds.Sound`. Arrays: one float32 array (n, ...). Rows:
        :class:`topgraft.data.columns.Rows`.
    classes
        Names of the classes; empty when unlabelled, and where targets are numbers.
    targets
        (n,) int64, indices into ``classes``; (n, classes) bool, which of several labels each has; or
        (n, outputs) float64, numbers to be predicted; ``None`` when unlabelled.
    groups
        (n,) int64. Examples with the same number must be on one side of every split: the user's
        groups, united with the sets of duplicates.
    digests
        SHA-256, as hexadecimal, of each example's content: the bytes of its file, its text in
        UTF-8, its array's bytes with dtype and shape, or its cells by the names of their columns.
    left_out
        Examples that could not be used.
    duplicates
        Sets of indices of examples that are the same or nearly so, each sorted, of two or more.
    conflicts
        Sets of indices of examples with the same content (texts: the same words) and different targets.
    columns
        For tables: the columns that were read, such as ``{"text": "gloss", "label": "stars"}``.
    notes
        Sentences for the user on what was found, decided and left out.
    max_pixels
        Pixels of the largest picture that is decoded.
    thumbnails
        Pictures: (n, 32, 32, 3) uint8, what near duplicates were found by; else ``None``.
    seconds
        Sounds: (n,) float64, how long each lasts; else ``None``.
    outputs
        Names of the numbers to be predicted; empty where targets are classes.
    separator
        Where an example may have several labels, what stands between them; else empty.
    is_ordered
        Whether the classes are ordered, from the first to the last.
    decoded
        Where decoded pictures and sounds are kept, for several networks; ``None`` to decode each time.
    """

    modality: Modality
    origin: str
    names: tuple[str, ...]
    inputs: Inputs
    classes: tuple[str, ...]
    targets: NDArray[np.int64] | NDArray[np.bool] | NDArray[np.float64] | None
    groups: NDArray[np.int64]
    digests: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()
    duplicates: tuple[tuple[int, ...], ...] = ()
    conflicts: tuple[tuple[int, ...], ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    max_pixels: int = 89_478_485
    thumbnails: NDArray[np.uint8] | None = field(default=None, repr=False)
    seconds: NDArray[np.float64] | None = field(default=None, repr=False)
    outputs: tuple[str, ...] = ()
    separator: str = ""
    is_ordered: bool = False
    decoded: Decoded | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.names)

    def __repr__(self) -> str:
        """One line; the examples themselves stay out of it."""
        labels = f"{len(self.classes)} classes" if self.targets is not None else "unlabelled"
        if self.outputs:
            labels = f"numbers of {', '.join(self.outputs)}"
        elif self.is_ordered:
            labels = f"{len(self.classes)} ordered classes"
        elif self.separator:
            labels = f"{len(self.classes)} labels, several an example"
        return f"Data({len(self)} examples, {self.modality}, {labels}, from {self.origin!r})"

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        from topgraft.notebook import data

        return data(self)

    @property
    def task(self) -> Task:
        """``classification``, ``multilabel``, ``ordinal``, or ``regression`` of numbers."""
        if self.separator:
            return "multilabel"
        if self.is_ordered:
            return "ordinal"
        return "regression" if self.outputs else "classification"

    @property
    def width(self) -> int:
        """Number of outputs of a model: classes, labels, numbers, or one less than the ordered classes."""
        return len(self.outputs) or self.logits

    @property
    def logits(self) -> int:
        """Number of logits of a model; 0 where numbers are predicted."""
        return len(self.classes) - self.is_ordered

    @property
    def counts(self) -> dict[str, int]:
        """Number of examples of each class, in the order of ``classes``."""
        if self.targets is None or self.outputs:
            return {}
        several = self.targets.ndim == 2
        found = self.targets.sum(0) if several else np.bincount(self.targets, minlength=len(self.classes))
        return {name: int(n) for name, n in zip(self.classes, found, strict=True)}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, as hexadecimal, over the content, the targets and the classes, in this order."""
        whole = hashlib.sha256()
        for digest in self.digests:
            whole.update(digest.encode())
        kind = "<f8" if self.outputs else "<i8"
        whole.update(b"unlabelled" if self.targets is None else self.targets.astype(kind).tobytes())
        if self.is_ordered:
            whole.update(b"ordered")
        for name in (*self.classes, *self.outputs):
            whole.update(f"{len(name)}:{name}".encode("utf-8", "surrogatepass"))
        return whole.hexdigest()

    def subset(self, indices: Iterable[int] | NDArray[np.integer[Any]]) -> Data:
        """The examples at ``indices``, in that order, with the same classes.

        Sets of duplicates and conflicts keep those members that are in the subset; groups keep
        their numbers, so that parts of the same data can be compared.

        Raises
        ------
        TopgraftError
            If an index is out of range or given twice.
        """
        chosen = np.asarray(list(indices), dtype=np.int64)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise TopgraftError(
                f"subset: indices are 0 to {len(self) - 1}, not {chosen.min()} to {chosen.max()}."
            )
        if len(np.unique(chosen)) != len(chosen):
            raise TopgraftError("subset: an index is given more than once.")
        place = {int(old): new for new, old in enumerate(chosen)}

        def kept(sets: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
            inside = (tuple(sorted(place[i] for i in s if i in place)) for s in sets)
            return tuple(s for s in inside if len(s) > 1)

        targets = None if self.targets is None else self.targets[chosen]
        conflicts = kept(self.conflicts)
        if targets is not None:
            conflicts = tuple(s for s in conflicts if differ(targets, s))
        return Data(
            modality=self.modality,
            origin=self.origin,
            names=tuple(self.names[i] for i in chosen),
            inputs=taken(self.inputs, chosen),
            classes=self.classes,
            targets=targets,
            groups=self.groups[chosen],
            digests=tuple(self.digests[i] for i in chosen),
            left_out=self.left_out,
            duplicates=kept(self.duplicates),
            conflicts=conflicts,
            columns=self.columns,
            notes=self.notes,
            max_pixels=self.max_pixels,
            thumbnails=None if self.thumbnails is None else some_of(self.thumbnails, chosen),
            seconds=None if self.seconds is None else self.seconds[chosen],
            outputs=self.outputs,
            separator=self.separator,
            is_ordered=self.is_ordered,
            decoded=self.decoded,
        )

    def decode(
        self, index: int, *, at_least: int | None = None
    ) -> Image | str | Sound | NDArray[np.float32] | Record:
        """One example, ready for preprocessing: an RGB picture, a text, a sound, a float32 array or a row.

        Parameters
        ----------
        index
            Which.
        at_least
            See :func:`topgraft.data.pictures.open_picture`.

        Raises
        ------
        ExampleError
            If a picture or a sound can't be opened any more, or its file has changed: what is computed from
            it is kept under the digest of what it was.
        """
        value = self.inputs[index]
        if self.modality == "text":
            return str(value)
        if self.modality == "array":
            return np.asarray(value, dtype=np.float32)
        if self.modality == "row":
            row: Record = value
            return row
        if self.decoded is None:
            return self._opened(index, at_least)
        key = self.digests[index], at_least
        found: Image | Sound = self.decoded.get(key, lambda: self._opened(index, at_least))
        return found

    def _opened(self, index: int, at_least: int | None) -> Image | Sound:
        value = self.inputs[index]
        from topgraft.data.pictures import as_rgb, content_of, open_picture, unchanged

        if is_file(value):
            value = unchanged(value, self.digests[index])
        elif isinstance(value, bytes) and hashlib.sha256(value).hexdigest() != self.digests[index]:
            raise ChangedError(self.names[index])  # the table that it is read from is another one now
        if self.modality == "sound":
            from topgraft.data.sounds import sound_of

            return sound_of(value)
        content = content_of(value)
        if content is None:
            return as_rgb(value)
        return open_picture(content, max_pixels=self.max_pixels, at_least=at_least)


def taken(inputs: Inputs, indices: NDArray[np.int64]) -> Inputs:
    """Some of the inputs, in the order of ``indices``.

    Arrays and rows stay what they are, and what reads on demand goes on doing so.
    """
    from topgraft.data.columns import Rows

    if isinstance(inputs, np.ndarray):
        return inputs[indices]
    if isinstance(inputs, Rows):
        return inputs.take(indices)
    if isinstance(inputs, (list, tuple)):
        return [inputs[int(i)] for i in indices]
    return Picked(inputs, indices)


def together(first: Inputs, second: Inputs) -> Inputs:
    """The inputs of two data sets of one kind, one after the other."""
    if isinstance(first, np.ndarray):
        return np.concatenate([first, np.asarray(second)])
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return [*first, *second]
    return Joined(first, second)


def some_of(thumbnails: NDArray[np.uint8], indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Thumbnails at some places, in a file where they are many."""
    out = room((len(indices), *thumbnails.shape[1:]), np.uint8)
    # indices are within bounds; with mode="raise" numpy would make a second copy in memory
    np.take(thumbnails, indices, axis=0, out=out, mode="clip")
    return out


def differ(targets: NDArray[Any], indices: Iterable[int]) -> bool:
    """Whether the targets of some examples are not all the same."""
    return len(np.unique(targets[list(indices)], axis=0)) > 1


@dataclass
class Found:
    """What a reader found, before anything is checked: one entry an example in each list."""

    modality: Modality
    origin: str
    names: list[str]
    inputs: Inputs
    labels: list[str | None] | None = None
    numbers: list[list[str | None]] = field(
        default_factory=list
    )  # further columns of numbers to be predicted
    label_names: tuple[str, ...] = ()
    separator: str = ""  # where an example may have several labels: what stands between them
    are_lists: bool = False  # whether these were given as lists, so that nothing is guessed from a cell
    groups: list[str | None] | None = None
    left_out: list[LeftOut] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    order: tuple[str, ...] | None = None  # classes in the order that the source itself gives
    is_ordered: bool = False  # whether that order means something: an ordered categorical
