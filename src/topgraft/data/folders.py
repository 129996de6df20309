"""A folder with one folder a class, and walking through folders of pictures or sounds."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from topgraft.data.kinds import Kind, kind_of, most_are
from topgraft.data.notes import listed, number, printable
from topgraft.data.types import Found
from topgraft.errors import TopgraftError, did_you_mean

PARTS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"})
"""Names of folders that are parts of a data set, not classes."""


@dataclass
class Walk:
    """What is looked for in folders (``None``: pictures and sounds); what was passed by, for the notes."""

    kind: Kind | None = "picture"
    others: list[str] = field(default_factory=list)  # files that are of no such kind
    hidden: list[str] = field(default_factory=list)  # names that begin with a dot
    closed: list[str] = field(default_factory=list)  # folders that may not be read
    circles: list[str] = field(default_factory=list)  # links to a folder that was already visited

    def notes(self) -> list[str]:
        """One sentence for each kind."""
        said = []
        if self.others:
            one = self.kind or "picture"
            are = number(len(self.others), f"file is not a {one} and was", f"files are not {one}s and were")
            said.append(f"{are} skipped: {listed(self.others)}.")
        if self.hidden:
            were = number(len(self.hidden), "hidden file or folder was", "hidden files or folders were")
            said.append(f"{were} skipped: {listed(self.hidden)}.")
        if self.closed:
            may = number(len(self.closed), "folder", "folders")
            said.append(f"{may} may not be read and will be missing: {listed(self.closed)}.")
        if self.circles:
            lead = number(len(self.circles), "link leads", "links lead")
            said.append(f"{lead} to a folder that was already visited, not followed: {listed(self.circles)}.")
        return said


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """A key to sort names by, with numbers in their own order: ``a2`` before ``a10``.

    Examples
    --------
    >>> sorted(["a10", "b1", "a2", "10", "9"], key=natural)
    ['9', '10', 'a2', 'a10', 'b1']
    """
    pieces = re.split(r"([0-9]+)", name.casefold())
    key = [(0, int(p), "") if p.isdecimal() and p.isascii() else (1, 0, p) for p in pieces if p]
    return key, name


def files_below(folder: Path, walk: Walk, seen: set[tuple[int, int]] | None = None) -> Iterator[Path]:
    """Files of a kind in a folder and everything below it, sorted; links are followed, circles end.

    Parameters
    ----------
    folder
        Where to look.
    walk
        Says what is looked for, and is told what was passed by.
    seen
        Device and inode of the folders that were already visited: none is visited twice.
    """
    seen = set() if seen is None else seen
    waiting: list[Path] = [folder]
    while waiting:
        here = waiting.pop()
        try:
            status = here.stat()
            if (status.st_dev, status.st_ino) in seen:
                walk.circles.append(printable(str(here)))
                continue
            seen.add((status.st_dev, status.st_ino))
            names = _names_in(here)
        except OSError:
            walk.closed.append(printable(str(here)))
            continue
        below = []
        for name in names:
            path = here / name
            if name.startswith("."):
                walk.hidden.append(printable(str(path)))
            elif _is_folder(path):
                below.append(path)
            elif is_wanted(name, walk.kind) and _may_be_file(path):
                yield path
            else:
                walk.others.append(printable(str(path)))
        waiting.extend(reversed(below))


def is_wanted(name: str, kind: Kind | None) -> bool:
    """Whether a file is of the kind by the ending of its name; without a kind, a picture or a sound."""
    return kind_of(name) in (("picture", "sound") if kind is None else (kind,))


def read_folder(folder: Path, *, one_class: bool = False, kind: Kind | None = None) -> Found:
    """Pictures or sounds in a folder with one folder a class; deeper ones belong to the first folder's class.

    Parameters
    ----------
    folder
        Where to look.
    one_class
        Whether one class is enough, as in a test set.
    kind
        What to read; where it is not given, what most of the files are. The others are skipped and told.

    Raises
    ------
    TopgraftError
        If the folder is empty, it or the folder of a class may not be read, it holds no class folders, or
        its only folders are parts of a data set (``train``, ``test``).
    """
    origin = str(folder)
    try:
        names = _names_in(folder)
    except PermissionError:
        raise TopgraftError(f"{origin}: no permission to read this folder.") from None
    except OSError as error:
        raise TopgraftError(f"{origin}: can't be read ({error.strerror}).") from None
    if not names:
        raise TopgraftError(
            f"{origin} is an empty folder. Expected one folder of pictures (or sounds) for each class in it."
        )
    walk = Walk(kind, hidden=[printable(str(folder / n)) for n in names if n.startswith(".")])
    shown = [n for n in names if not n.startswith(".")]
    classes = [n for n in shown if _is_folder(folder / n)]
    loose = [n for n in shown if n not in set(classes)]
    walk.others.extend(printable(str(folder / n)) for n in loose if not is_wanted(n, kind))
    loose = [n for n in loose if is_wanted(n, kind)]
    _no_parts(origin, classes)
    if not classes:
        _no_classes(origin, [n for n in shown if n not in loose], loose)
    top = folder.stat()
    inside = {name: list(files_below(folder / name, walk, {(top.st_dev, top.st_ino)})) for name in classes}
    if closed := [name for name in classes if printable(str(folder / name)) in walk.closed]:
        are = number(len(closed), "class folder", "class folders")
        raise TopgraftError(
            f"{origin}: no permission to read {are}: {listed(closed)}. "
            "Mend the permissions; without them a class would be missing."
        )
    walk.kind = one = kind or most_are(path.name for paths in inside.values() for path in paths)
    walk.others.extend(printable(str(folder / n)) for n in loose if not is_wanted(n, one))
    loose = [n for n in loose if is_wanted(n, one)]
    found = Found(one, origin, [], [], labels=[])
    paths: list[Path] = []
    labels: list[str | None] = []
    for name, files in inside.items():
        mine = [path for path in files if is_wanted(path.name, one)]
        walk.others.extend(printable(str(path)) for path in files if not is_wanted(path.name, one))
        paths.extend(mine)
        labels.extend([printable(name)] * len(mine))
    if not paths:
        raise TopgraftError(
            f"{origin}: no {one}s were found in its {number(len(classes), 'folder')} ({listed(classes)}). "
            f"Expected one folder of {one}s for each class." + _tables_here(folder, shown)
        )
    if loose:
        lie = number(len(loose), f"{one} lies", f"{one}s lie")
        found.notes.append(f"{lie} in {origin} itself, in no class folder, and skipped: {listed(loose)}.")
    present = set(labels)
    if empty := [name for name in classes if printable(name) not in present]:
        hold = number(len(empty), f"folder holds no {one}s and is", f"folders hold no {one}s and are")
        found.notes.append(f"{hold} no class: {listed(empty)}.")
    found.notes.extend(walk.notes())
    found.names = [printable(str(p)) for p in paths]
    found.inputs = paths
    found.labels = labels
    if not one_class:
        _not_one_class(folder, labels, one)
    return found


def _no_parts(origin: str, classes: list[str]) -> None:
    parts = {n.casefold(): n for n in classes}
    if not parts or not set(parts) <= PARTS:
        return
    train = next((parts[n] for n in ("train", "training") if n in parts), None)
    test = next((parts[n] for n in sorted(parts) if parts[n] != train), None)
    say = f"{origin} holds the parts of a data set ({', '.join(classes)}), not one folder a class. "
    if train and test:
        raise TopgraftError(say + f"Give them by themselves: {origin}/{train} --test {origin}/{test}")
    raise TopgraftError(say + f"Give the part itself: {origin}/{classes[0]}")


def _no_classes(origin: str, others: list[str], loose: list[str]) -> None:
    one = most_are(loose)
    if loose:
        raise TopgraftError(
            f"{origin} holds {number(len(loose), one)} but no class folders. "
            f"Expected one folder of {one}s for each class, such as "
            f"{origin}/cat/{loose[0]}; or a table with a column of paths and one of labels."
        )
    raise TopgraftError(
        f"{origin} holds no pictures and no class folders "
        f"(it holds {listed(others) or 'hidden files only'}). "
        "Expected one folder of pictures for each class, or of sounds." + _tables_here(Path(origin), others)
    )


def _tables_here(folder: Path, names: list[str]) -> str:
    tables = [n for n in names if n.lower().endswith((".csv", ".tsv", ".jsonl", ".parquet"))]
    return f" Did you mean the table {folder / tables[0]}?" if tables else ""


def _not_one_class(folder: Path, labels: list[str | None], one: Kind) -> None:
    found = set(labels)
    if len(found) != 1:
        return
    (only,) = found
    inside = folder / str(only)
    deeper = [n for n in _names_in(inside) if not n.startswith(".") and _is_folder(inside / n)]
    hint = f" Did you mean {inside}? It holds {number(len(deeper), 'folder')}." if len(deeper) > 1 else ""
    raise TopgraftError(
        f'{folder}: only one class was found, "{only}" ({number(len(labels), one)}). '
        f"Two or more are needed to learn to tell them apart.{hint}"
    )


def _names_in(folder: Path) -> list[str]:
    return sorted((path.name for path in folder.iterdir()), key=natural)


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _may_be_file(path: Path) -> bool:
    """A regular file, or a link to nothing (which is told as unreadable); no pipe, device or socket."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def refuse_missing(path: Path, given: str) -> None:
    """Raise, with the nearest names beside it, if there is nothing at ``path`` or it may not be seen."""
    try:
        path.stat()
        return
    except (FileNotFoundError, NotADirectoryError):
        pass
    except PermissionError:
        raise TopgraftError(f"{given}: no permission to look at it.") from None
    except OSError as error:
        raise TopgraftError(f"{given:.80}: no path that can be read ({error.strerror}).") from None
    if path.is_symlink():
        raise TopgraftError(f"{given} is a link to something that is not there.")
    near = ""
    try:
        near = did_you_mean(path.name, [printable(name) for name in _names_in(path.parent)])
    except (FileNotFoundError, NotADirectoryError):
        near = f" There is no folder {path.parent} either."
    except OSError:
        near = " The folder that it should be in may not be read."
    raise TopgraftError(f"{given}: there is no such file or folder.{near}")
