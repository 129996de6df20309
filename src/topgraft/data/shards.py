"""Shards: tar files whose members belong together by their names, as WebDataset has them.

``food/001.jpg`` and ``food/001.cls`` are one example: what stands before the first dot of the file's own name
is its key, what stands behind names a column. An index of places is held, no content.
"""

from __future__ import annotations

import json
import os
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topgraft.data.example import ExampleError
from topgraft.data.folders import natural, refuse_missing
from topgraft.data.kinds import Kind, as_kind, kind_of
from topgraft.data.lazily import Member
from topgraft.data.notes import listed, number, printable
from topgraft.data.parts import is_streamed
from topgraft.data.tables import LABELS, TEXTS, Table, obvious
from topgraft.data.tars import Opens, entries_of, is_tar_name
from topgraft.errors import TopgraftError

MAX_SHARDS = 100_000
MAX_FIELDS = 64
"""Different endings that members have at most."""
MAX_TEXT = 1 << 20
"""Bytes of the largest text, label or JSON of an example (1 MiB)."""
MAX_KEPT, KEPT = 4096, 64 << 20
"""Bytes of the largest text or label from elsewhere that is held once it was read, and of all of them."""
_ABOUT_EACH = 200  # bytes that holding one takes beside it
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_LOOKED_AT = 50  # examples whose JSON says which keys there are


def shards_at(given: str) -> list[Path] | None:
    """The shards that a path means: one tar file, several by a range, or a folder of them.

    Parameters
    ----------
    given
        ``a.tar``, ``a-{000..003}.tar``, or a folder that holds tar files and no folders.

    Returns
    -------
    list of Path or None
        ``None`` where it means something else.

    Raises
    ------
    TopgraftError
        If one of them is not there.
    """
    if is_tar_name(given):
        paths = [Path(one) for one in expanded(given)]
        for path in paths:
            refuse_missing(path, printable(str(path)))
        if folders := [path for path in paths if path.is_dir()]:
            raise TopgraftError(f"{folders[0]} is a folder. Expected a tar file.")
        return paths
    if given.lower().endswith(_COMPRESSED) and Path(given).is_file():
        raise TopgraftError(
            f"{printable(given)} is compressed. Unpack it to a .tar: examples are read in place."
        )
    try:
        shown = [entry for entry in os.scandir(given) if not entry.name.startswith(".")]
    except OSError:
        return None  # no folder, or one of which its reader says what is wrong
    if any(entry.is_dir() for entry in shown):
        return None
    found = sorted((e.name for e in shown if is_tar_name(e.name)), key=natural)
    return [Path(given) / name for name in found] or None


def expanded(given: str) -> list[str]:
    """The names that a range in braces stands for.

    Raises
    ------
    TopgraftError
        If the range is empty or too large.

    Examples
    --------
    >>> expanded("a-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar']
    """
    found = _RANGE.search(given)
    if found is None:
        return [given]
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < MAX_SHARDS:
        raise TopgraftError(f"{given}: expected a range from small to large, of up to {MAX_SHARDS:,} shards.")
    width = len(found[1])
    middle = (f"{given[: found.start()]}{n:0{width}d}{given[found.end() :]}" for n in range(first, last + 1))
    return [one for name in middle for one in expanded(name)]


def read_shards(paths: Sequence[Opens], origin: str, said: Callable[[Any], str] = str) -> Table:
    """The examples of some shards as a table: a column for each ending, and for each key of their JSON.

    Parameters
    ----------
    paths
        Of the shards, in order; or what stands for paths elsewhere.
    origin
        What the user gave, for messages.
    said
        How a shard is called in messages and names.

    Raises
    ------
    TopgraftError
        If one of them can't be read as a tar file, or there is no example in them.
    """
    index = _Index([str(path) for path in paths], [printable(said(path)) for path in paths])
    notes: list[str] = []
    for shard, path in enumerate(paths):
        index.add(shard, path, notes)
    if not index.keys:
        raise TopgraftError(f"{origin} holds no examples. Expected members such as 0001.jpg and 0001.cls.")
    notes.extend(index.notes())
    kinds: dict[str, Kind] = {}
    columns: dict[str, Sequence[Any]] = {}
    for kind in ("picture", "sound"):
        of_kind = [ending for ending in index.fields if kind_of(f"a.{ending}") == kind]
        if of_kind and (one := _Files(index, of_kind)).is_single:
            columns[kind], kinds[kind] = one, as_kind(kind) or "picture"
        for ending in of_kind:
            columns[ending], kinds[ending] = _Files(index, [ending]), as_kind(kind) or "picture"
    for ending in index.fields:
        if ending not in kinds and ending.rpartition(".")[2] != "json":
            columns[ending] = _Words(_Files(index, [ending]))
    if "json" in index.fields:
        described = _Described(_Files(index, ["json"]))
        for key in described.seen():
            columns.setdefault(key, _Values(described, key))
    return Table(origin, columns, Path(), {}, notes, kinds, names=index.names)


def choose_fields(
    table: Table, *, text: str | None, path: str | None, label: str | None, modality: str | None
) -> tuple[str | None, str | None, str | None]:
    """The columns of texts, files and labels: those that were named, else the usual ones of shards.

    Returns
    -------
    text, path, label
        ``None`` where nothing is usual, which is then as with any table.

    Raises
    ------
    TopgraftError
        If examples have several pictures or sounds and none was named.
    """
    notes = []
    if text is None and path is None:
        asked = as_kind(modality)
        files = [name for name, kind in table.kinds.items() if name == kind and asked in (None, kind)]
        several = [name for name in table.kinds if asked in (None, table.kinds[name])]
        if modality == "text" or not several:
            text = obvious(table.columns, ("txt", *TEXTS), taken=[label or ""])
            notes.append(f"texts are read from {_said(text)}" if text else "")
        elif len(files) == 1:
            path = files[0]
            notes.append(f"{path}s are read from its members")
        else:
            raise TopgraftError(
                f"{table.origin}: an example has several pictures or sounds. Which are meant (--path)? "
                f"There are {listed(several, limit=20)}."
            )
    if label is None:
        taken = [one for one in (text, path) if one]
        label = obvious(table.columns, ("cls", *LABELS, "txt"), taken=taken)
        if label is None:
            others = [name for name in table.columns if name not in table.kinds and name not in taken]
            raise TopgraftError(
                f"Which members of {table.origin}, or which key of their JSON, hold the labels? Name them "
                f"(--label). There are: {listed(others, limit=30) or 'no others than ' + listed(taken)}."
            )
        notes.append(f"labels are read from {_said(label)}")
    if told := " and ".join(note for note in notes if note):
        table.notes.append(f"{told[0].upper()}{told[1:]}.")
    return text, path, label


def _said(column: str | None) -> str:
    return f'"{column}"'


@dataclass
class _Field:
    """Where the members with one ending lie, by number of example; size -1 where there is none."""

    start: array[int] = field(default_factory=lambda: array("q"))
    size: array[int] = field(default_factory=lambda: array("q"))

    def put(self, example: int, start: int, size: int) -> None:
        missing = example + 1 - len(self.size)
        self.start.extend([0] * missing)
        self.size.extend([-1] * missing)
        self.start[example], self.size[example] = start, size


class _Index:
    """Keys of the examples, and where their members lie."""

    def __init__(self, shards: list[str], said: list[str]) -> None:
        self.shards, self.said = shards, said
        self.keys: list[str] = []
        self.shard: array[int] = array("l")
        self.fields: dict[str, _Field] = {}
        self.problems: dict[tuple[int, str], str] = {}
        self.others: list[str] = []  # members that are no part of an example
        self.kept: dict[tuple[int, str], bytes] = {}
        self.kept_bytes = 0

    def add(self, shard: int, path: Opens, notes: list[str]) -> None:
        """The members of a shard; those of a key need not stand side by side."""
        mine: dict[str, int] = {}
        origin = self.said[shard]
        is_elsewhere = is_streamed(self.shards[shard])
        for entry in entries_of(path, origin, notes):
            key, ending = _parts(entry.name)
            if not ending or entry.name.rpartition("/")[2].startswith("."):
                self.others.append(f"{origin}:{entry.name}")
                continue
            example = mine.setdefault(key, len(self.keys))
            if example == len(self.keys):
                self.keys.append(key)
                self.shard.append(shard)
            if ending not in self.fields and len(self.fields) == MAX_FIELDS:
                raise TopgraftError(
                    f"{origin}: members have more than {MAX_FIELDS} different endings, such as "
                    f"{listed([f'.{e:.30}' for e in self.fields])}. An ending begins at the first dot of a "
                    "name, which is the same for all examples: 0001.jpg, 0001.cls."
                )
            column = self.fields.setdefault(ending, _Field())
            if example < len(column.size) and column.size[example] >= 0:
                self.problems[example, ending] = f"two members are named {entry.name:.200}"
            elif entry.problem:
                self.problems[example, ending] = entry.problem
            column.put(example, entry.start, entry.size)
            if is_elsewhere and not entry.problem and kind_of(f"a.{ending}") is None:
                self.keep(example, ending, entry.size)

    def keep(self, example: int, ending: str, size: int) -> None:
        """Hold a label or the like from elsewhere, for which everything around it would come again."""
        if size <= MAX_KEPT and self.kept_bytes + size <= KEPT:
            member = self.at(example, ending)
            if isinstance(member, Member):
                self.kept[example, ending] = member.read()
                self.kept_bytes += size + _ABOUT_EACH

    def notes(self) -> list[str]:
        """What was found, in sentences."""
        said = [f"{number(len(self.keys), 'example')} in {number(len(self.shards), 'shard')}."]
        if self.others:
            are = number(len(self.others), "member is", "members are")
            said.append(f"{are} hidden or without an ending and skipped: {listed(self.others)}.")
        return said

    def at(self, example: int, ending: str) -> Member | ExampleError | None:
        """A member, or why it can't be used; ``None`` where there is none."""
        column = self.fields[ending]
        if (problem := self.problems.get((example, ending))) is not None:
            return ExampleError(f"{self.keys[example]}.{ending}", problem)
        if example >= len(column.size) or column.size[example] < 0:
            return None
        shard = self.shard[example]
        name = f"{self.keys[example]}.{ending}"
        start, size = column.start[example], column.size[example]
        return Member(
            self.shards[shard], name, start, size, self.said[shard], self.kept.get((example, ending))
        )

    def names(self, column: Sequence[Any]) -> list[str]:
        """A name for each example: the shard and the member, or the key where the column is no member."""
        endings = column.files.endings if isinstance(column, _Words) else getattr(column, "endings", ())
        found = []
        for example, key in enumerate(self.keys):
            mine = [e for e in endings if self.at(example, e) is not None] if len(endings) > 1 else endings
            ending = f".{mine[0]}" if mine else ""
            found.append(f"{self.said[self.shard[example]]}:{key}{ending}")
        return found


def _parts(name: str) -> tuple[str, str]:
    """Key and ending.

    Examples
    --------
    >>> _parts("./food/001.left.JPG"), _parts("readme")
    (('food/001', 'left.jpg'), ('readme', ''))
    """
    folder, slash, file = name.removeprefix("./").rpartition("/")
    key, _, ending = file.partition(".")
    return f"{folder}{slash}{key}", ending.lower()


class _Column(Sequence[Any]):
    """Cells that are read when they are asked for."""

    length: int

    def cell(self, index: int) -> Any:
        raise NotImplementedError

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        at = range(self.length)[index]
        return [self.cell(i) for i in at] if isinstance(at, range) else self.cell(at)


class _Files(_Column):
    """Members with one ending, or with the one of several that an example has."""

    def __init__(self, places: _Index, endings: Sequence[str]) -> None:
        self.places, self.endings, self.length = places, tuple(endings), len(places.keys)

    @property
    def is_single(self) -> bool:
        """Whether no example has two of them."""
        if len(self.endings) == 1:
            return True
        return all(
            sum(self.places.at(i, e) is not None for e in self.endings) < 2 for i in range(self.length)
        )

    def cell(self, index: int) -> Member | ExampleError | None:
        found = (self.places.at(index, ending) for ending in self.endings)
        return next((one for one in found if one is not None), None)


class _Words(_Column):
    """Members that hold a text, such as a label; what is none is told as the error of its example."""

    def __init__(self, files: _Files) -> None:
        self.files, self.length = files, len(files)

    def cell(self, index: int) -> str | ExampleError | None:
        found = self.files.cell(index)
        if not isinstance(found, Member):
            return found
        try:
            return found.read(MAX_TEXT).decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            return ExampleError(str(found), "a text that is not UTF-8")
        except ExampleError as error:
            return error


class _Described:
    """The JSON of each example; the last is kept, since several of its keys may be asked for in turn."""

    def __init__(self, files: _Files) -> None:
        self.words = _Words(files)
        self._last: tuple[int, Any] = (-1, None)

    def seen(self) -> list[str]:
        """The keys that the first ones have."""
        some = [self.of(i) for i in range(min(_LOOKED_AT, len(self.words)))]
        return list(dict.fromkeys(key for one in some if isinstance(one, dict) for key in one))

    def of(self, index: int) -> Any:
        last = self._last
        if last[0] == index:
            return last[1]
        said = self.words.cell(index)
        try:
            found = json.loads(said) if isinstance(said, str) else said
        except (ValueError, RecursionError):
            found = ExampleError(self.words.files.places.keys[index], "its .json is not JSON")
        self._last = (index, found)
        return found


class _Values(_Column):
    """What each example's JSON has under a key."""

    def __init__(self, described: _Described, key: str) -> None:
        self.described, self.key, self.length = described, key, len(described.words)

    def cell(self, index: int) -> Any:
        found = self.described.of(index)
        return found.get(self.key) if isinstance(found, dict) else None

    def __iter__(self) -> Iterator[Any]:
        return (self.cell(i) for i in range(self.length))
