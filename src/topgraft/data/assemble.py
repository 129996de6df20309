"""From what a reader found to checked data: decoding once, leaving out, classes, duplicates, groups."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from topgraft.data import duplicates as dup
from topgraft.data.columns import content_of_row
from topgraft.data.example import ExampleError
from topgraft.data.folders import natural
from topgraft.data.labels import labels_of, said_of_labels
from topgraft.data.lazily import is_file
from topgraft.data.notes import duplicate_notes, left_out_notes, listed, number, sound_notes
from topgraft.data.pictures import SIDE, PictureError, as_rgb, open_picture, read_bytes, thumbnail
from topgraft.data.sounds import MAX_BYTES, Sound, SoundError, reader, sound_of
from topgraft.data.targets import (
    hint,
    in_ordered_classes,
    is_regression,
    numbers_of,
    output_names,
    said_of_numbers,
)
from topgraft.data.types import Data, Found, Inputs, LeftOut, Task, Watch, differ, some_of, taken
from topgraft.errors import TopgraftError, did_you_mean
from topgraft.mapped import room
from topgraft.side_by_side import in_order

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

Look = tuple[str, "NDArray[np.uint8]"]
Seen = TypeVar("Seen")
_THREADS = max(2, min(16, os.cpu_count() or 2))


def assemble(
    found: Found,
    *,
    classes: Sequence[str] | None,
    max_unreadable: float,
    max_pixels: int,
    near_duplicates: bool,
    task: Task | None = None,
    order: Sequence[str] | None = None,
    watch: Watch | None = None,
) -> Data:
    """Check what a reader found, and make data of what can be used.

    Raises
    ------
    TopgraftError
        If nothing is left, more than ``max_unreadable`` had to be left out, there is one class
        only, or a label is not among ``classes``.
    """
    if not 0 <= max_unreadable <= 1:
        raise TopgraftError(f"max_unreadable={max_unreadable} is not a share between 0 and 1, such as 0.05.")
    if max_pixels < 1:
        raise TopgraftError(f"max_pixels={max_pixels} is not a number of pixels above 0.")
    total = len(found.names) + len(found.left_out)
    if total == 0:
        raise TopgraftError(f"{found.origin} holds no examples.")
    reasons: dict[int, str] = {}
    if found.labels is not None:
        reasons.update({i: "no label" for i, label in enumerate(found.labels) if label is None})
    several = [found.labels, *found.numbers] if found.labels is not None else []
    for cells in several[1:]:
        reasons.update({i: "no label" for i, cell in enumerate(cells) if cell is None})
    digests, thumbnails, seconds = _inspect(found, reasons, max_pixels, watch or _unwatched)
    kept = [i for i in range(len(found.names)) if i not in reasons]
    left_out = [*found.left_out, *(LeftOut(found.names[i], reasons[i]) for i in sorted(reasons))]
    notes = [*found.notes]
    notes.extend(left_out_notes(found, left_out, total, max_unreadable))
    labels = None if found.labels is None else [str(found.labels[i]) for i in kept]
    is_ordered = task == "ordinal" or order is not None
    outputs: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    targets: NDArray[Any] | None
    columns = [[str(cells[i]) for i in kept] for cells in several]
    if found.separator and labels is not None:
        named, targets = labels_of(found, columns, kept, classes, notes)
    elif labels is not None and not is_ordered and is_regression(found, labels, classes, task, notes):
        outputs, targets = output_names(found), numbers_of(found, columns, kept)
    elif is_ordered and labels is not None:
        named, targets = _ordered_classes(found, labels, order, classes, notes)
    else:
        named, targets = _classes(found, labels, classes, notes)
        if found.is_ordered and task is None and classes is None:
            notes.append(
                "The labels are an ordered categorical, taken as classes without an order "
                "(--task ordinal for ordered ones)."
            )
    names = tuple(found.names[i] for i in kept)
    inputs = _pick(found.inputs, kept)
    lengths = np.array([seconds[i] for i in kept]) if found.modality == "sound" else None
    notes.extend([] if lengths is None else sound_notes(lengths))
    content = tuple(digests[i] for i in kept)
    exact, near, alike = _duplicates(
        found.modality, content, inputs, thumbnails, near_duplicates=near_duplicates
    )
    sets = _sets(dup.united(len(kept), [*exact, *near]))
    conflicts = [s for s in alike if targets is not None and differ(targets, s)]
    given = None if found.groups is None else [found.groups[i] for i in kept]
    groups = dup.united(len(kept), [*exact, *near, *_given_groups(given, notes)])
    said = None if targets is None else [said_of_target(target, named, found.separator) for target in targets]
    notes.extend(duplicate_notes(names, sets, exact, conflicts=conflicts, labels=said))
    return Data(
        modality=found.modality,
        origin=found.origin,
        names=names,
        inputs=inputs,
        classes=named,
        targets=targets,
        groups=groups,
        digests=content,
        left_out=tuple(left_out),
        duplicates=tuple(sets),
        conflicts=tuple(tuple(sorted(s)) for s in conflicts),
        columns=found.columns,
        notes=tuple(notes),
        max_pixels=max_pixels,
        thumbnails=thumbnails,
        seconds=lengths,
        outputs=outputs,
        separator=found.separator,
        is_ordered=is_ordered and targets is not None,
    )


def said_of_target(target: Any, names: tuple[str, ...], separator: str) -> str:
    """The target of one example in words: its class, its labels, or its numbers."""
    if separator:
        return said_of_labels(target, names, separator) or "no label"
    return names[target] if names else said_of_numbers(target)


def digest_of(value: object) -> str:
    """SHA-256, as hexadecimal, of a text, bytes of a file, an array, a row, a sound or a Pillow picture."""
    whole = hashlib.sha256()
    if isinstance(value, str):
        whole.update(value.encode("utf-8", "surrogatepass"))
    elif isinstance(value, bytes):
        whole.update(value)
    elif isinstance(value, np.ndarray):
        whole.update(f"{value.dtype.str} {value.shape} ".encode())
        whole.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        whole.update(content_of_row(value))
    elif isinstance(value, Sound):
        whole.update(f"{value.rate} {len(value.samples)} ".encode())
        whole.update(np.ascontiguousarray(value.samples, dtype="<f4").tobytes())
    else:
        picture: Image.Image = as_rgb(value)  # type: ignore[arg-type]  # readers let nothing else through
        whole.update(f"{picture.mode} {picture.size} ".encode())
        whole.update(picture.tobytes())
    return whole.hexdigest()


def look(value: Any, max_pixels: int) -> Look:
    """Digest and thumbnail of a picture, which is decoded for it.

    Raises
    ------
    ExampleError
        If it can't be used.
    """
    if isinstance(value, ExampleError):
        raise value
    if is_file(value):
        value = read_bytes(value)
    if isinstance(value, bytes):
        return digest_of(value), thumbnail(open_picture(value, max_pixels=max_pixels, at_least=128))
    picture = as_rgb(value)
    if picture.width * picture.height > max_pixels or 0 in picture.size:
        raise PictureError("", f"{picture.width:,} x {picture.height:,} pixels, not 1 to {max_pixels:,}")
    return digest_of(value), thumbnail(picture)


def listen(value: Any) -> tuple[str, float]:
    """Digest of a sound, and its seconds; it is decoded for it.

    Raises
    ------
    SoundError
        If it can't be used.
    """
    if is_file(value):
        try:
            value = read_bytes(value, limit=MAX_BYTES)
        except PictureError as error:
            raise SoundError(str(value), error.reason) from None
    sound = sound_of(value)
    return digest_of(value), sound.seconds


def _inspect(
    found: Found, reasons: dict[int, str], max_pixels: int, watch: Watch
) -> tuple[dict[int, str], NDArray[np.uint8] | None, dict[int, float]]:
    """Digests by index, thumbnails in order, seconds by index; ``reasons`` gets those that can't be used."""
    digests: dict[int, str] = {}
    seconds: dict[int, float] = {}
    wanted = [i for i in range(len(found.names)) if i not in reasons]
    if found.modality == "picture":
        thumbnails = room((len(wanted), SIDE, SIDE, 3), np.uint8)
        with watch("picture", len(wanted)) as advance:
            one = partial(look, max_pixels=max_pixels)
            for i, seen in _looked_at(found, reasons, wanted, one, _THREADS, advance):
                thumbnails[len(digests)] = seen[1]
                digests[i] = seen[0]
        return digests, thumbnails[: len(digests)] if digests else None, seconds
    if found.modality == "sound":
        reader()
        with watch("sound", len(wanted)) as advance:
            for i, heard in _looked_at(found, reasons, wanted, listen, min(4, _THREADS), advance):
                digests[i], seconds[i] = heard
        return digests, None, seconds
    for i in wanted:
        value = found.inputs[i]
        if found.modality == "row" and all(cell is None for cell in value.values()):
            reasons[i] = "every cell is missing"
        elif isinstance(value, ExampleError):
            reasons[i] = value.reason
        elif found.modality == "text" and not (isinstance(value, str) and value.strip()):
            reasons[i] = (
                "an empty text"
                if value is None or isinstance(value, str)
                else f"a {type(value).__name__}, not a text"
            )
        elif found.modality == "array" and not np.isfinite(value).all():
            reasons[i] = "holds values that are not finite"
        else:
            digests[i] = digest_of(value)
    return digests, None, seconds


@contextmanager
def _unwatched(_kind: str, _count: int) -> Iterator[Callable[[int], None]]:
    yield lambda _done: None


def _looked_at(
    found: Found,
    reasons: dict[int, str],
    wanted: list[int],
    one: Callable[[Any], Seen],
    threads: int,
    advance: Callable[[int], None],
) -> Iterator[tuple[int, Seen]]:
    """What ``one`` finds in each example that can be used; ``reasons`` gets the others."""

    def tried(i: int) -> Seen | ExampleError:
        try:
            return one(found.inputs[i])
        except ExampleError as error:
            return error

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on what is refused or mended here anyway
        for i, result in zip(wanted, in_order(tried, wanted, workers=threads), strict=True):
            advance(1)
            if isinstance(result, ExampleError):
                reasons[i] = result.reason
            else:
                yield i, result


def _classes(
    found: Found, labels: list[str] | None, given: Sequence[str] | None, notes: list[str]
) -> tuple[tuple[str, ...], NDArray[np.int64] | None]:
    """Names of the classes in their order, and indices into them."""
    if labels is None:
        if given is not None:
            raise TopgraftError(f"{found.origin}: classes were given, but the data has no labels.")
        return (), None
    present = set(labels)
    if given is not None:
        classes = tuple(str(c) for c in given)
        strange = sorted(present - set(classes), key=natural)
        if strange:
            raise TopgraftError(
                f'{found.origin}: the label "{strange[0]}" is none of the '
                f"{number(len(classes), 'class', 'classes')}.{did_you_mean(strange[0], classes)} "
                f"Expected: {listed(classes, limit=20)}."
                + (f" Other strange labels: {listed(strange[1:])}." if strange[1:] else "")
            )
    else:
        classes = _in_order(present, found.order)
        if len(classes) == 1:
            raise TopgraftError(
                f'{found.origin}: only one class was found, "{classes[0]:.60}" '
                f"({number(len(labels), 'example')}). Two or more are needed to learn to tell them apart."
            )
        if len(classes) > 20 and len(classes) * 2 > len(labels):
            where = f' (column "{found.columns["label"]}")' if "label" in found.columns else ""
            raise TopgraftError(
                f"{found.origin}: {len(classes):,} different labels for {number(len(labels), 'example')}"
                f"{where} are no classes. "
                f"Expected several examples of each class: is this the column of the labels?{hint(classes)}"
            )
    if found.labels is not None:
        lost = sorted({str(label) for label in found.labels if label is not None} - present, key=natural)
        if lost and given is None:
            notes.append(f"Nothing is left of {listed(lost)}: no example of it could be used.")
    place = {name: i for i, name in enumerate(classes)}
    return classes, np.array([place[label] for label in labels], dtype=np.int64)


def _ordered_classes(
    found: Found,
    labels: list[str],
    order: Sequence[str] | None,
    given: Sequence[str] | None,
    notes: list[str],
) -> tuple[tuple[str, ...], NDArray[np.int64] | None]:
    """:func:`_classes` of classes with an order; those given are in theirs."""
    if found.numbers:
        raise TopgraftError(
            f"{found.origin}: {len(found.numbers) + 1} columns of labels; ordered classes stand in one."
        )
    if given is None:
        if order is None:
            _classes(found, labels, None, [])  # refused: one class only, or too many
        given = in_ordered_classes(found, labels, order, notes)
    return _classes(found, labels, given, notes)


def _in_order(present: set[str], order: tuple[str, ...] | None) -> tuple[str, ...]:
    """The source's own order, else sorted with numbers by their size."""
    if order is not None and present <= set(order):
        return tuple(name for name in order if name in present)
    try:
        return tuple(sorted(present, key=lambda name: (float(name), name)))
    except ValueError:
        return tuple(sorted(present, key=natural))


def _pick(inputs: Inputs, kept: list[int]) -> Inputs:
    """The inputs that are kept; a sequence that reads on demand goes on doing so."""
    return inputs if len(kept) == len(inputs) else taken(inputs, np.array(kept, dtype=np.int64))


def _duplicates(
    modality: str,
    digests: Sequence[str],
    inputs: Inputs,
    looks: NDArray[np.uint8] | None,
    *,
    near_duplicates: bool,
) -> tuple[list[list[int]], list[tuple[int, int]], list[list[int]]]:
    """Sets with the same content, near pairs, and sets whose content is the same to a reader."""
    exact = dup.same(digests)
    alike = exact
    firsts = sorted({digest: i for i, digest in reversed(list(enumerate(digests)))}.values())
    near: list[tuple[int, int]] = []
    if modality == "text":
        alike = dup.same([tuple(dup.words(text)) for text in inputs])
        if near_duplicates:
            near = dup.near_texts([inputs[i] for i in firsts])
    elif looks is not None and near_duplicates:
        near = dup.near_pictures(looks if len(firsts) == len(looks) else some_of(looks, np.array(firsts)))
    return exact, [(firsts[i], firsts[j]) for i, j in near], alike


def _sets(numbers: NDArray[np.int64]) -> list[tuple[int, ...]]:
    return [tuple(members) for members in dup.same(numbers.tolist())]


def _given_groups(groups: list[str | None] | None, notes: list[str]) -> list[list[int]]:
    """The user's groups as sets; a row without one stands by itself."""
    if groups is None:
        return []
    alone = sum(g is None for g in groups)
    if alone:
        notes.append(
            f"{number(alone, 'example has', 'examples have')} no group and may go to either side of a split."
        )
    return dup.same([("alone", i) if g is None else ("group", g) for i, g in enumerate(groups)])
