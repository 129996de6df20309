"""How much the store may take, and what is dropped so that it takes no more.

Whole shelves are dropped, those first that were not used for the longest time, and never one that is in use.
What a command needs while it runs is therefore stored even where the limit is too small for it: the limit
bounds what is kept, and a command is told when it can't.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from topgraft.console import size
from topgraft.errors import TopgraftError
from topgraft.features.stored import Stored, remove, shelves_in
from topgraft.files import read_json, told, write_json

VARIABLE = "TOPGRAFT_CACHE_LIMIT"
FILE = "limit.json"
DEFAULT = 20 * 10**9
"""Bytes that the store takes at most where nothing else was said, ..."""
SHARE = 0.1
"""... and the share of its disk that it takes at most."""
UNITS = {"b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
UNITS |= {f"{unit}b": step for unit, step in UNITS.items() if unit != "b"}
UNITS |= {f"{unit}ib": 1024**power for power, unit in enumerate("kmgt", start=1)}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.ASCII)
_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Limit:
    """How much the store may take.

    Parameters
    ----------
    bytes
        ``None`` for no limit.
    origin
        Who says so: ``default``, ``file`` or ``environment``.
    note
        What is wrong with the file that should have said it.
    """

    bytes: int | None
    origin: Literal["default", "file", "environment"]
    note: str = ""

    def __str__(self) -> str:
        return "none" if self.bytes is None else size(self.bytes)

    @property
    def because(self) -> str:
        """Who says so, in words."""
        share = f"{size(DEFAULT)} or {SHARE:.0%} of the disk, whichever is less"
        return {
            "default": f"the default: {share.replace('%', ' %')}",
            "file": "set by `topgraft cache limit`",
            "environment": f"set by ${VARIABLE}",
        }[self.origin]


def parse_limit(text: str, told_by: str = "The limit") -> int | None:
    """Bytes that a text such as ``5GB`` means; ``None`` for ``none``.

    Parameters
    ----------
    text
        A number and a unit: B, kB, MB, GB, TB (thousands), KiB, MiB, GiB, TiB; letter case doesn't count.
    told_by
        What gave it, for the message.

    Raises
    ------
    TopgraftError
        If it is no such text.

    Examples
    --------
    >>> parse_limit("5GB"), parse_limit("1.5 gib"), parse_limit("0"), parse_limit("none")
    (5000000000, 1610612736, 0, None)
    """
    plain = text.strip().casefold()
    if plain == "none":
        return None
    found = _SIZE.fullmatch(plain)
    number, unit = found.groups() if found else ("", "")
    if found and not unit and not float(number):
        return 0
    if unit not in UNITS:
        nearest = f" Nearest: {number}GB." if found and not unit else ""
        raise TopgraftError(
            f"{told_by} {text!r} is no size.{nearest}"
            "\nGive a number with its unit, such as 500MB, 5GB or 20GiB, or none for no limit."
        )
    whole, _, fraction = number.partition(".")
    value = int(whole + fraction) * UNITS[unit] // 10 ** len(fraction) if len(number) < 40 else _LARGEST + 1
    if value > _LARGEST:
        raise TopgraftError(f"{told_by} {text!r} is more than any disk holds.\nGive none for no limit.")
    return value


def limit_of_environment() -> Limit | None:
    """What ``$TOPGRAFT_CACHE_LIMIT`` says; ``None`` where it is not set or empty.

    Raises
    ------
    TopgraftError
        If it is no size.
    """
    text = os.environ.get(VARIABLE, "")
    return Limit(parse_limit(text, f"{VARIABLE}:"), "environment") if text.strip() else None


def limit_of(root: Path) -> Limit:
    """How much the store in ``root`` may take: by the environment, its file, or the default.

    Raises
    ------
    TopgraftError
        If the environment gives something that is no size.
    """
    return limit_of_environment() or _limit_of_file(root) or Limit(_default(root), "default")


def write_limit(root: Path, limit: int | None) -> None:
    """Have the store in ``root`` take at most ``limit`` bytes from now on; ``None`` for no limit.

    Raises
    ------
    TopgraftError
        If the folder may not be written in.
    RunningError
        If the disk is full or fails.
    """
    with told(root):
        root.mkdir(parents=True, exist_ok=True)
    write_json(root / FILE, {"limit": limit})


def make_room(folder: Path, limit: int | None, more: int = 0, *, keep: Path | None = None) -> list[Stored]:
    """Drop shelves until ``more`` bytes fit below a limit, or only what is in use is left.

    Two processes that do so at once may drop one shelf more than they need, or store one shard more than
    fits; the next one that stores something puts that right.

    Parameters
    ----------
    folder
        Where the shelves lie.
    limit
        Bytes that they may take together; ``None`` for no limit.
    more
        Bytes that are about to be written.
    keep
        The folder of a shelf that is not to be dropped.

    Returns
    -------
    list
        The shelves that were dropped.
    """
    if limit is None:
        return []
    shelves = list(shelves_in(folder))
    excess = sum(shelf.bytes for shelf in shelves) + more - limit
    dropped: list[Stored] = []
    for shelf in sorted(shelves, key=lambda shelf: (shelf.used, shelf.key)):
        if excess <= 0:
            break
        if not shelf.bytes or shelf.folder == keep:
            continue
        _ = shelf.description  # read and kept now, so that what was dropped can be told
        try:
            if remove(shelf):
                excess -= shelf.bytes
                dropped.append(shelf)
        except TopgraftError:  # another user's: it stays, and counts
            continue
    return dropped


def told_dropped(dropped: list[Stored], limit: Limit, root: Path) -> str:
    """What was dropped to keep the limit, in a sentence for the user."""
    freed = size(sum(shelf.bytes for shelf in dropped))
    named = "; ".join(f"{shelf} ({size(shelf.bytes)})" for shelf in dropped[:3])
    more = f"; and {len(dropped) - 3} more" if len(dropped) > 3 else ""
    return (
        f"To keep the store in {root} within its limit of {limit} ({limit.because}), {freed} that were not "
        f"used for longest were dropped: {named}{more}. What is needed of them will be made again."
    )


def told_over(taken: int, limit: Limit, root: Path) -> str:
    """That the limit could not be kept, in a sentence for the user."""
    return (
        f"The store in {root} takes {size(taken)}, over its limit of {limit} ({limit.because}): what running "
        "commands need is stored all the same, so that no work is lost. Later commands drop it when they "
        "store something; `topgraft cache clear` frees it, `topgraft cache limit` changes the limit."
    )


def _limit_of_file(root: Path) -> Limit | None:
    path = root / FILE
    if not os.path.lexists(path):
        return None
    try:
        document = read_json(path, limit=1 << 16)
        value = document["limit"] if isinstance(document, dict) and "limit" in document else ""
        if value is None or (type(value) is int and 0 <= value <= _LARGEST):
            return Limit(value, "file")
        reason = f"{path} gives no limit in bytes"
    except TopgraftError as error:
        reason = str(error).splitlines()[0].rstrip(".")
    note = f"{reason}; the default holds until `topgraft cache limit` sets one again."
    return Limit(_default(root), "default", note)


def _default(root: Path) -> int:
    place = root
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return min(DEFAULT, int(shutil.disk_usage(place).total * SHARE))
    except OSError:
        return DEFAULT
