"""Tables of paths or texts: CSV, TSV, JSON lines and Parquet, read as they are written."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topgraft.data.example import ExampleError
from topgraft.data.kinds import Kind, as_kind, kind_of, most_are
from topgraft.data.lazily import Member
from topgraft.data.notes import listed
from topgraft.data.pairs import text_columns
from topgraft.errors import TopgraftError, did_you_mean

if TYPE_CHECKING:
    from topgraft.data.remote import Here

ENDINGS = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".parquet")
"""Endings of the names of tables."""

TEXTS = ("text", "sentence", "content", "review", "comment", "message", "body", "document", "question",
         "description", "title")  # fmt: skip
PATHS = ("path", "image", "picture", "file", "filename", "file_name", "filepath", "file_path", "image_path",
         "img", "photo", "audio", "sound", "audio_path", "wav", "recording")  # fmt: skip
LABELS = ("label", "class", "target", "category", "labels", "y")


@dataclass
class Table:
    """Columns of equal length; a cell that is missing is ``None``.

    Parameters
    ----------
    origin
        What the user gave, for messages.
    columns
        Cells by the name of the column: text as written, or what the file's own type gives.
    folder
        What paths in the cells are relative to.
    classes
        Names of the classes of a column that holds their numbers (Hugging Face's ``ClassLabel``).
    notes
        What was decided while reading.
    kinds
        What a column of files holds, where the source itself says it (Hugging Face's ``Image``, ``Audio``).
    stays_inside
        Whether paths in the cells may not lead out of ``folder``: someone else wrote them.
    names
        Of shards: what the examples are called whose inputs stand in a column.
    here
        Where it was fetched to, if it comes from elsewhere.
    orders
        Names of a column that is an ordered categorical, from the first to the last.
    """

    origin: str
    columns: dict[str, Sequence[Any]]
    folder: Path
    classes: dict[str, tuple[str, ...]]
    notes: list[str]
    kinds: dict[str, Kind] = field(default_factory=dict)
    stays_inside: bool = False
    names: Callable[[Sequence[Any]], list[str]] | None = None
    here: Here | None = None
    orders: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values()), ()))

    def column(self, name: str) -> Sequence[Any]:
        """The cells of a column.

        Raises
        ------
        TopgraftError
            If there is no such column; the message names the nearest and lists all.
        """
        if name in self.columns:
            return self.columns[name]
        raise TopgraftError(
            f'{self.origin} has no column "{name}".{did_you_mean(name, self.columns)} '
            f"Its columns: {listed(list(self.columns), limit=30)}."
        )

    def cells(self, name: str) -> list[str | None]:
        """The cells of a column as text, numbers of classes as their names; ``None`` where empty."""
        names = self.classes.get(name)
        return [cell_text(cell, names) for cell in self.column(name)[:]]

    def cells_or_numbers(self, name: str) -> list[Any]:
        """The cells of a column as they are, but numbers of classes as their names."""
        return self.cells(name) if name in self.classes else list(self.column(name)[:])

    def label_columns(self, name: str) -> list[str]:
        """The column of that name, or those of the names with commas between them.

        Raises
        ------
        TopgraftError
            If there is no such column; the message names the nearest and lists all.
        """
        several = [part.strip() for part in name.split(",")]
        if name in self.columns or len(several) == 1:
            several = [name]
        for one in several:
            self.column(one)
        return several

    def kind(self, name: str) -> Kind:
        """What a column of paths or files holds: what the source says, else what most of the first are."""
        if name in self.kinds:
            return self.kinds[name]
        return most_are(_file_name(cell) for cell in self.column(name)[:50])


def is_table_name(name: str) -> bool:
    """Whether the ending of a file name is that of a table."""
    return name.lower().endswith(ENDINGS)


def cell_text(cell: Any, names: Sequence[str] | None = None) -> str | None:
    """A cell as text; ``None`` where it is missing or holds spaces only.

    Examples
    --------
    >>> cell_text("NA"), cell_text(3), cell_text("  "), cell_text(float("nan")), cell_text(1, ["no", "yes"])
    ('NA', '3', None, None, 'yes')
    """
    if cell is None or isinstance(cell, ExampleError) or (isinstance(cell, float) and cell != cell):  # noqa: PLR0124 (only NaN differs from itself)
        return None
    if names is not None and isinstance(cell, int) and not isinstance(cell, bool):
        return names[cell] if 0 <= cell < len(names) else None
    text = cell if isinstance(cell, str) else str(cell)
    return text if text.strip() else None


def read_table(path: Path, origin: str) -> Table:
    """Read a table whole.

    Raises
    ------
    TopgraftError
        If it is empty, may not be read, or is not what its ending says; the message says in which line.
    """
    try:
        if path.stat().st_size == 0:
            raise TopgraftError(f"{origin} is an empty file. Expected a table with a header.")
        ending = path.suffix.lower()
        if ending == ".parquet":
            table = _read_parquet(path, origin)
        elif ending in (".jsonl", ".ndjson", ".json"):
            table = _read_json(path, origin)
        else:
            table = _read_csv(path, origin)
    except PermissionError:
        raise TopgraftError(f"{origin}: no permission to read this file.") from None
    except OSError as error:
        raise TopgraftError(f"{origin}: can't be read ({error.strerror or error}).") from None
    if len(table) == 0:
        raise TopgraftError(f"{origin} has a header ({listed(list(table.columns), limit=10)}) but no rows.")
    return table


def _read_csv(path: Path, origin: str) -> Table:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    delimiter, names = _header(path, origin)
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise TopgraftError(f"{origin} has more than one column {listed([repr(n) for n in twice])}.")
    try:
        table = arrow_csv.read_csv(
            path,
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except pa.ArrowInvalid as error:
        raise TopgraftError(
            f"{origin} can't be read as a table: {' '.join(str(error).split())[:200]}"
        ) from None
    notes = [] if delimiter == _usual(path) else [f"Columns of {origin} are parted by {_SAID[delimiter]}."]
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    return Table(origin, columns, path.parent, {}, notes)


_SAID = {",": "commas", ";": "semicolons", "\t": "tabs"}


def _usual(path: Path) -> str:
    return "\t" if path.suffix.lower() in (".tsv", ".tab") else ","


def _header(path: Path, origin: str) -> tuple[str, list[str]]:
    """The delimiter (the usual one, unless only another one parts the header) and the columns' names."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline(1 << 20)
    except UnicodeDecodeError as error:
        raise TopgraftError(f"{origin} is not UTF-8 (byte {error.start:,}). Save it as UTF-8.") from None
    if "\0" in line:
        raise TopgraftError(f"{origin} is not a table of text: it holds zero bytes.")
    if not line.strip():
        raise TopgraftError(f"{origin} begins with an empty line. Expected a header with the columns' names.")
    for delimiter in (_usual(path), *_SAID):
        names = next(csv.reader([line], delimiter=delimiter))
        if len(names) > 1:
            return delimiter, names
    return _usual(path), next(csv.reader([line], delimiter=_usual(path)))


def _read_json(path: Path, origin: str) -> Table:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TopgraftError(f"{origin} is not UTF-8 (byte {error.start:,}). Save it as UTF-8.") from None
    rows: list[tuple[str, Any]] = []
    try:
        if text.lstrip().startswith("["):
            rows = [(f"item {i}", row) for i, row in enumerate(json.loads(text))]
        else:
            for at, line in enumerate(text.split("\n"), start=1):
                if line.strip():
                    rows.append((f"line {at}", json.loads(line)))
    except (ValueError, RecursionError) as error:
        where = f" in line {at}" if not text.lstrip().startswith("[") else ""
        raise TopgraftError(f"{origin} is not JSON{where}: {error}. Expected one object a line.") from None
    columns: dict[str, list[Any]] = {}
    for i, (where, row) in enumerate(rows):
        if not isinstance(row, dict):
            raise TopgraftError(
                f'{origin}, {where}: expected an object such as {{"text": …}}, not {row!r:.40}.'
            )
        for name, cell in row.items():
            columns.setdefault(name, [None] * i).append(cell)
        for cells in columns.values():
            if len(cells) == i:
                cells.append(None)
    if not columns:
        raise TopgraftError(f"{origin} holds no rows.")
    return Table(origin, dict(columns), path.parent, {}, [])


_KINDS: dict[str, Kind] = {"Image": "picture", "Audio": "sound"}


def _read_parquet(path: Path, origin: str) -> Table:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise TopgraftError(f"{origin} is not a Parquet file that can be read: {error}") from None
    classes, kinds = described_by_hugging_face(table.schema.metadata)
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    return Table(origin, columns, path.parent, classes, [], kinds)


def described_by_hugging_face(
    metadata: Mapping[bytes, bytes] | None,
) -> tuple[dict[str, tuple[str, ...]], dict[str, Kind]]:
    """Names of classes, and kinds of files, by column, as the library datasets notes them."""
    described = (metadata or {}).get(b"huggingface")
    if not described:
        return {}, {}
    try:
        features = json.loads(described)["info"]["features"]
        classes = {n: tuple(f["names"]) for n, f in features.items() if f.get("_type") == "ClassLabel"}
        return classes, {n: _KINDS[f["_type"]] for n, f in features.items() if f.get("_type") in _KINDS}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}, {}  # a foreign note in the file: the numbers themselves are then the labels


def choose_columns(
    table: Table,
    *,
    text: str | None,
    path: str | None,
    label: str | None,
    group: str | None,
    modality: str | None,
    needs_label: bool = True,
) -> dict[str, str]:
    """Which columns to read: those that were named, else the obvious ones; ``table.notes`` says which.

    Returns
    -------
    dict
        ``"text"`` or ``"path"`` and, where there is one, ``"label"`` and ``"group"``, each with the
        name of a column.

    Raises
    ------
    TopgraftError
        If a named column is missing, or none is obvious.
    """
    if text is not None and path is not None:
        raise TopgraftError(
            f'Both a column of texts ("{text}") and one of paths ("{path}") were named. Name one.'
        )
    told = {"text": text, "path": path, "label": label, "group": group}
    chosen = {use: name for use, name in told.items() if name is not None}
    for use, name in chosen.items():
        _must_have(table, use, name)
    guessed = []
    if "label" not in chosen and needs_label:
        usual = obvious(table.columns, LABELS, taken=chosen.values()) or _one(table.classes, chosen)
        if usual is not None:
            chosen["label"] = usual
            guessed.append(f'labels are read from the column "{usual}"')
    if "text" not in chosen and "path" not in chosen:
        use, name = _inputs(table, chosen, modality)
        chosen[use] = name
        what = "texts" if use == "text" else f"paths of {as_kind(modality) or table.kind(name)}s"
        guessed.insert(0, f'{what} are read from the column "{name}"')
    if "label" not in chosen and needs_label:
        left = _other(table, chosen)
        if left is None:
            raise TopgraftError(
                f"Which column of {table.origin} holds the labels? Name it (--label). "
                f"Its columns: {listed(list(table.columns), limit=30)}."
            )
        chosen["label"] = left
        guessed.append(f'labels are read from the column "{left}"')
    if len(set(chosen.values())) < len(chosen):
        raise TopgraftError(f"One column of {table.origin} was named for two things: {chosen}.")
    if guessed:
        said = " and ".join(guessed)
        table.notes.append(f"{said[0].upper()}{said[1:]}.")
    return chosen


def _must_have(table: Table, use: str, name: str) -> None:
    if use == "label":
        table.label_columns(name)
    elif use == "text":
        text_columns(table, name)
    else:
        table.column(name)


def _inputs(table: Table, chosen: dict[str, str], modality: str | None) -> tuple[str, str]:
    text = None if as_kind(modality) else obvious(table.columns, TEXTS, taken=chosen.values())
    path = None if modality == "text" else obvious(table.columns, PATHS, taken=chosen.values())
    if path is None and modality != "text":
        path = _one(table.kinds, chosen)
    if path is not None and (text is None or _looks_like_files(table, path)):
        return "path", path
    if text is not None:
        return "text", text
    name = _other(table, chosen) if "label" in chosen else None
    if name is not None:
        return ("path" if as_kind(modality) or _looks_like_files(table, name) else "text"), name
    raise TopgraftError(
        f"Which column of {table.origin} holds the texts (--text) or the paths of pictures or sounds "
        f"(--path)? Its columns: {listed(list(table.columns), limit=30)}. "
        "To learn from the columns themselves, numbers and categories: --columns all."
    )


def obvious(columns: Iterable[str], usual: Sequence[str], *, taken: Iterable[str]) -> str | None:
    """The column with the first of the usual names, whatever its case."""
    used = set(taken)
    by_fold = {name.strip().casefold(): name for name in reversed(list(columns)) if name not in used}
    return next((by_fold[name] for name in usual if name in by_fold), None)


def _one(declared: Iterable[str], chosen: dict[str, str]) -> str | None:
    """The one column that the source itself declares, if it is one."""
    left = [name for name in declared if name not in chosen.values()]
    return left[0] if len(left) == 1 else None


def _other(table: Table, chosen: dict[str, str]) -> str | None:
    """The one column that is left, if it is one."""
    left = [name for name in table.columns if name not in chosen.values()]
    return left[0] if len(left) == 1 else None


def _looks_like_files(table: Table, name: str) -> bool:
    some = [cell for cell in table.column(name)[:50] if cell is not None]
    return bool(some) and all(
        isinstance(cell, (dict, bytes, Member)) or (isinstance(cell, str) and kind_of(cell) is not None)
        for cell in some
    )


def _file_name(cell: Any) -> str:
    """The name of a cell's file, as far as it has one."""
    name = cell.get("path") if isinstance(cell, dict) else cell
    return name if isinstance(name, str) else ""
