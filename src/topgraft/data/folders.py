"""A folder with one folder a class, and walking through folders of pictures."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from topgraft.data.notes import listed, number
from topgraft.data.pictures import is_picture_name
from topgraft.data.types import Found
from topgraft.errors import TopgraftError, did_you_mean

PARTS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"})
"""Names of folders that are parts of a data set, not classes."""


@dataclass
class Walk:
    """What was passed by on the way through folders, for the notes."""

    others: list[str] = field(default_factory=list)  # files that are not pictures
    hidden: list[str] = field(default_factory=list)  # names that begin with a dot
    closed: list[str] = field(default_factory=list)  # folders that may not be read
    circles: list[str] = field(default_factory=list)  # links to a folder that was already visited

    def notes(self) -> list[str]:
        """One sentence for each kind."""
        said = []
        if self.others:
            are = number(len(self.others), "file is not a picture and was", "files are not pictures and were")
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


def printable(name: str) -> str:
    """The name with bytes that are not UTF-8 written as escapes, so that it can be printed and saved."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def pictures_below(folder: Path, walk: Walk, seen: set[tuple[int, int]] | None = None) -> Iterator[Path]:
    """Picture files in a folder and everything below it, sorted; links are followed, circles end.

    Parameters
    ----------
    folder
        Where to look.
    walk
        Is told what was passed by.
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
            elif is_picture_name(name) and _may_be_file(path):
                yield path
            else:
                walk.others.append(printable(str(path)))
        waiting.extend(reversed(below))


def read_folder(folder: Path, *, one_class: bool = False) -> Found:
    """Pictures in a folder with one folder a class; deeper ones belong to the first folder's class.

    Parameters
    ----------
    folder
        Where to look.
    one_class
        Whether one class is enough, as in a test set.

    Raises
    ------
    TopgraftError
        If the folder is empty, may not be read, holds pictures but no class folders, or its only
        folders are parts of a data set (``train``, ``test``).
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
            f"{origin} is an empty folder. Expected one folder of pictures for each class in it."
        )
    walk = Walk(hidden=[printable(str(folder / n)) for n in names if n.startswith(".")])
    shown = [n for n in names if not n.startswith(".")]
    classes = [n for n in shown if _is_folder(folder / n)]
    loose = [n for n in shown if n not in set(classes)]
    loose_pictures = [n for n in loose if is_picture_name(n)]
    walk.others.extend(printable(str(folder / n)) for n in loose if not is_picture_name(n))
    _no_parts(origin, classes)
    if not classes:
        _no_classes(origin, loose, loose_pictures)
    found = Found("picture", origin, [], [], labels=[])
    paths: list[Path] = []
    labels: list[str | None] = []
    empty = []
    top = folder.stat()
    for name in classes:
        before = len(paths)
        paths.extend(pictures_below(folder / name, walk, {(top.st_dev, top.st_ino)}))
        labels.extend([printable(name)] * (len(paths) - before))
        if len(paths) == before:
            empty.append(name)
    if not paths:
        raise TopgraftError(
            f"{origin}: no pictures were found in its {number(len(classes), 'folder')} ({listed(classes)}). "
            "Expected one folder of pictures for each class." + _tables_here(folder, loose)
        )
    if loose_pictures:
        lie = number(len(loose_pictures), "picture lies", "pictures lie")
        found.notes.append(
            f"{lie} in {origin} itself, in no class folder, and skipped: {listed(loose_pictures)}."
        )
    if empty:
        hold = number(len(empty), "folder holds no pictures and is", "folders hold no pictures and are")
        found.notes.append(f"{hold} no class: {listed(empty)}.")
    found.notes.extend(walk.notes())
    found.names = [printable(str(p)) for p in paths]
    found.inputs = paths
    found.labels = labels
    if not one_class:
        _not_one_class(folder, labels)
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


def _no_classes(origin: str, loose: list[str], loose_pictures: list[str]) -> None:
    if loose_pictures:
        raise TopgraftError(
            f"{origin} holds {number(len(loose_pictures), 'picture')} but no class folders. "
            "Expected one folder of pictures for each class, such as "
            f"{origin}/cat/{loose_pictures[0]}; or a table with a column of paths and one of labels."
        )
    raise TopgraftError(
        f"{origin} holds no pictures and no class folders (it holds {listed(loose) or 'hidden files only'}). "
        "Expected one folder of pictures for each class." + _tables_here(Path(origin), loose)
    )


def _tables_here(folder: Path, names: list[str]) -> str:
    tables = [n for n in names if n.lower().endswith((".csv", ".tsv", ".jsonl", ".parquet"))]
    return f" Did you mean the table {folder / tables[0]}?" if tables else ""


def _not_one_class(folder: Path, labels: list[str | None]) -> None:
    found = set(labels)
    if len(found) != 1:
        return
    (only,) = found
    inside = folder / str(only)
    deeper = [n for n in _names_in(inside) if not n.startswith(".") and _is_folder(inside / n)]
    hint = f" Did you mean {inside}? It holds {number(len(deeper), 'folder')}." if len(deeper) > 1 else ""
    raise TopgraftError(
        f'{folder}: only one class was found, "{only}" ({number(len(labels), "picture")}). '
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
