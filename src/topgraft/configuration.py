"""``topgraft.toml``: options of the command line in a file, which any flag overrides.

The file is data. What would run code or hand data to other machines is refused in it, and what a command
writes by it stays in the file's folder.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topgraft.errors import TopgraftError, did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = "topgraft.toml"
REFUSED = {
    "trust-code": "it runs code",
    "on": "it hands data to other machines",
    "debug": "it is for one command",
}
"""Options that a file can't give, and why."""
WRITTEN = ("out", "svg", "figures", "track-to")
"""Options that name what a command writes."""
READ = ("test", "plan", "weights", "backbone")
"""Options that may name what a command reads."""
NO_PATHS = ("auto", "none")
"""What they may say instead."""
NAMES_CODE = ("backbone", "augment")
"""Options that may name a function to be run, which a file can't."""
CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""``package.module:function``."""
KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path (a text)",
}
MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Key:
    """An option of a command as a key of the file.

    Parameters
    ----------
    name
        The long option without its dashes: ``batch-size``.
    parameter
        What the command calls it: ``batch_size``.
    kind
        ``bool``, ``int``, ``float``, ``str`` or ``Path``.
    several
        Whether it may be given several times: a list in the file.
    """

    name: str
    parameter: str
    kind: type
    several: bool = False

    @property
    def in_words(self) -> str:
        """What its value must be."""
        return f"{KINDS[self.kind]}, or a list of them" if self.several else KINDS[self.kind]


@dataclass(frozen=True)
class Told:
    """What a file told a command.

    Parameters
    ----------
    file
        As it was named.
    values
        By key, as the command takes them: paths are relative to where the command runs.
    overridden
        Keys that the command line said otherwise.
    """

    file: str
    values: Mapping[str, Any] = field(default_factory=dict)
    overridden: tuple[str, ...] = ()

    def __str__(self) -> str:
        """In one line.

        Examples
        --------
        >>> print(Told("topgraft.toml", {"keep": "14", "tune-norms": True}, ("seed",)))
        topgraft.toml: keep = "14", tune-norms = true; overridden on the command line: seed
        """
        values = ", ".join(f"{n} = {json.dumps(v, ensure_ascii=False)}" for n, v in self.values.items())
        over = f"overridden on the command line: {', '.join(self.overridden)}" if self.overridden else ""
        return f"{self.file}: {'; '.join(filter(None, (values, over))) or 'nothing for this command'}"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, for what a run records."""
        return {"file": self.file, "values": dict(self.values), "overridden": list(self.overridden)}


def read_configuration(path: Path, commands: Mapping[str, Sequence[Key]]) -> dict[str, dict[str, Any]]:
    """What a file says to each command: general keys, and those of the command's own table over them.

    Parameters
    ----------
    path
        The file.
    commands
        The keys of each command.

    Returns
    -------
    dict
        By command, values by key.

    Raises
    ------
    TopgraftError
        If the file can't be read, is no TOML, or holds a key that is unknown, not allowed or of the wrong
        type. All of it is checked, not only what one command reads.
    """
    document = _parsed(path)
    everywhere = {key.name: key for keys in commands.values() for key in keys}
    found: dict[str, dict[str, Any]] = {name: {} for name in commands}
    for name, value in document.items():
        if isinstance(value, dict):
            continue
        holders = {c: key for c, keys in commands.items() for key in keys if key.name == name}
        if name in REFUSED or not holders:
            _checked(path, "", name, value, everywhere, [*everywhere, *commands])
        for command, key in holders.items():
            found[command][name] = _checked(path, "", name, value, {name: key}, ())
    for table, content in document.items():
        if not isinstance(content, dict):
            continue
        if table not in commands:
            what = "is a key, not a table" if table in everywhere else "is no command"
            raise TopgraftError(f"{path}: [{table}] {what}.{did_you_mean(table, commands)}")
        known = {key.name: key for key in commands[table]}
        for name, value in content.items():
            found[table][name] = _checked(path, f"[{table}] ", name, value, known, list(known))
    return found


def _parsed(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise TopgraftError(f"{path} can't be read: {error.strerror or error}.") from error
    if len(raw) > MOST_BYTES:
        raise TopgraftError(f"{path} has more than {MOST_BYTES:,} bytes; that is no file of options.")
    try:
        return tomllib.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise TopgraftError(f"{path}, line {line}: it is not in UTF-8.") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise TopgraftError(f"{path} is no TOML: {error}.") from error


def _checked(
    path: Path, table: str, name: str, value: Any, known: Mapping[str, Key], choices: Sequence[str]
) -> Any:
    """The value as the command takes it."""
    where = f"{path}: {table}{name}"
    if name in REFUSED:
        raise TopgraftError(
            f"{where} can't be set by a file, since {REFUSED[name]}: give --{name} on the command line."
        )
    if name not in known:
        of = f"an option of `topgraft {table.strip('[] ')}`" if table else "an option of any command"
        raise TopgraftError(f"{where} is not {of}.{did_you_mean(name, choices)}")
    key = known[name]
    several = value if key.several and isinstance(value, list) else [value]
    clean = [_single(where, key, one, path.parent) for one in several]
    return clean if key.several else clean[0]


def _single(where: str, key: Key, value: Any, folder: Path) -> Any:
    if key.kind is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)  # keep = 14
    if key.kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    expected: Any = str if key.kind is Path else key.kind
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise TopgraftError(f"{where} = {_shown(value)} is {_named(value)}; expected {key.in_words}.")
    if key.name in NAMES_CODE and CODE.fullmatch(value):
        raise TopgraftError(
            f"{where} = {_shown(value)} names a function, and a file runs no code: "
            f"give --{key.name} on the command line."
        )
    if key.name in WRITTEN:
        return _written(where, value, folder)
    return _read(key.name, value, folder) if key.name in READ else value


def _written(where: str, value: str, folder: Path) -> str:
    """A path under the file's folder, or the address of a server."""
    if re.match(r"https?://", value):
        return value
    place = folder / Path(value).expanduser()
    if "://" in value or not place.resolve().is_relative_to(folder.resolve()):
        raise TopgraftError(
            f"{where} = {_shown(value)} leads out of the file's folder, {folder.resolve()}. "
            "Give it on the command line."
        )
    return str(place)


def _read(name: str, value: str, folder: Path) -> str:
    """A path relative to the file; what is no path, such as a backbone of a library, stays as it is."""
    if value in NO_PATHS or "://" in value:
        return value
    scheme, rest = ("hf/", value[3:]) if value.startswith("hf/") else ("", value)
    place = folder / Path(rest).expanduser()
    is_here = (folder / re.split("[:@]", rest)[0]).exists() if scheme else place.exists()
    may_be_a_name = scheme or name == "backbone"
    return value if may_be_a_name and not is_here else f"{scheme}{place}"


def _shown(value: Any) -> str:
    """A value as it stands in a file, cut to a line."""
    try:
        return f"{json.dumps(value, ensure_ascii=False):.60}"
    except TypeError:
        return f"{value!s:.60}"


def _named(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "a table"
    return next((words for kind, words in KINDS.items() if isinstance(value, kind)), "a date or time")


_TOLD: ContextVar[Told | None] = ContextVar("topgraft.configuration", default=None)


def in_force() -> Told | None:
    """What a file told the command under way; ``None`` where no file told it anything."""
    return _TOLD.get()


@contextmanager
def telling(told: Told | None) -> Iterator[None]:
    """In the block :func:`in_force` says so."""
    token = _TOLD.set(told)
    try:
        yield
    finally:
        _TOLD.reset(token)
