"""Data sets of the Hugging Face hub, by name or as a folder laid out as one; their own code never runs."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from topgraft.data.hugging_face import table_of_dataset
from topgraft.data.notes import listed
from topgraft.data.objects import is_inside
from topgraft.data.tables import Table
from topgraft.errors import TopgraftError, did_you_mean

PREFIX = "hf/"
CARD, LARGEST_CARD = "README.md", 1 << 24
"""A data set's description, and how many bytes of it are looked through."""
READERS = frozenset({"parquet", "arrow", "csv", "json", "text", "imagefolder", "audiofolder"})
"""Readers of the library datasets that are used: none of them runs code or opens a pickle."""
ENDINGS = ("parquet", "arrow", "csv", "tsv", "json", "jsonl", "ndjson", "txt")
_PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
_SOUNDS = ("wav", "flac", "ogg", "mp3", "opus")
_FORM = "hf/NAME[:CONFIGURATION][:SPLIT][@REVISION]"


@dataclass(frozen=True)
class Asked:
    """What a name such as ``hf/org/name:config:test@v2`` asks for.

    Examples
    --------
    >>> Asked.of("hf/org/name:test@v2")
    Asked(name='org/name', words=('test',), revision='v2')
    >>> Asked.of("hf/a:b:c:d")
    Traceback (most recent call last):
        ...
    topgraft.errors.TopgraftError: hf/a:b:c:d is no name of a data set. Expected hf/NAME[:CONFIGURATION]...
    """

    name: str
    words: tuple[str, ...]
    revision: str | None

    @classmethod
    def of(cls, given: str) -> Asked:
        """Take the name apart.

        Raises
        ------
        TopgraftError
            If it has another form.
        """
        body, _, revision = given.removeprefix(PREFIX).partition("@")
        name, *words = body.split(":")
        if not name.strip("/") or len(words) > 2 or not all(words) or given.endswith("@"):
            raise TopgraftError(f"{given} is no name of a data set. Expected {_FORM}.")
        return cls(name.rstrip("/"), tuple(words), revision or None)


def is_hub_name(given: str) -> bool:
    """Whether a name is one of the hub; what is there as a path is not.

    Examples
    --------
    >>> is_hub_name("hf/mnist"), is_hub_name("photos/")
    (True, False)
    """
    return given.startswith(PREFIX) and not os.path.lexists(given)


def read_hub(given: str) -> Table:
    """A data set by its name: from the local cache of the hub, else from the hub; or one in a folder.

    Parameters
    ----------
    given
        ``hf/NAME[:CONFIGURATION][:SPLIT][@REVISION]``, where ``NAME`` may be a folder.

    Raises
    ------
    TopgraftError
        If there is none of that name, it is out of reach, or it holds nothing that can be read.
    """
    asked = Asked.of(given)
    folder = Path(asked.name)
    if folder.is_dir() and asked.revision is None:
        return read_repository(folder, given, asked.words)
    found = _snapshot(asked, given)
    table = read_repository(found, given, asked.words)
    table.notes.insert(0, f"{asked.name} of the Hugging Face hub, revision {found.name[:12]}.")
    return table


def is_repository(folder: Path) -> bool:
    """Whether a folder is laid out as a data set of the hub: described by its card, or holding Parquet."""
    card = _card(folder)
    if "configs" in card or "dataset_info" in card:
        return True
    with contextlib.suppress(OSError):  # its reader says what is wrong
        inside = [folder, folder / "data"] if (folder / "data").is_dir() else [folder]
        return any(p.suffix == ".parquet" and p.is_file() for place in inside for p in place.iterdir())
    return False


def read_repository(folder: Path, origin: str, words: Sequence[str] = ()) -> Table:
    """A data set in a folder that is laid out as one of the hub.

    Parameters
    ----------
    folder
        Of the snapshot.
    origin
        What the user gave, for messages.
    words
        Its configuration, its split, or both in this order.

    Raises
    ------
    TopgraftError
        If it holds nothing that can be read, patterns of its card lead out of the folder, or it has no such
        configuration or split.
    """
    import datasets

    folder = folder.resolve()
    _refuse_patterns(folder, origin)
    if (script := folder / f"{folder.name}.py").is_file():  # which old releases of the library would run
        raise TopgraftError(
            f"{origin} holds {script.name}, code of its own, which is never run. Take it away."
        )
    with _told(folder, origin), _quiet():
        names = datasets.get_dataset_config_names(str(folder))
        usual = datasets.get_dataset_default_config_name(str(folder)) or names[0]
    is_clear = len(names) == 1 or usual != names[0] or "default" in names
    config, split = _chosen(folder, origin, words, names, usual if is_clear else None)
    with _told(folder, origin), _quiet():
        builder = datasets.load_dataset_builder(str(folder), name=config)
        _refuse_reader(builder, origin)
        _refuse_outside(builder, folder, origin)
        splits = _splits(builder)
        split = _split(origin, split, splits)
        builder.download_and_prepare()
        table = table_of_dataset(builder.as_dataset(split=split))
    table.origin, table.folder, table.stays_inside = origin, folder, True
    if len(splits) > 1:
        others = [name for name in splits if name != split]
        table.notes.append(f'Its split "{split}" is read; there are also {listed(others, limit=8)}.')
    if len(names) > 1:
        others = [name for name in names if name != config]
        table.notes.append(f'Its configuration "{config}" is read; there are also {listed(others, limit=8)}.')
    return table


def _chosen(
    folder: Path, origin: str, words: Sequence[str], names: Sequence[str], usual: str | None
) -> tuple[str, str | None]:
    """Which configuration is read, and the split that was asked for."""
    import datasets

    if len(words) == 2 or (words and words[0] in names):
        config, split = words[0], words[1] if len(words) == 2 else None
        if config not in names:
            raise TopgraftError(
                f'{origin} has no configuration "{config}".{did_you_mean(config, names)} '
                f"It has {listed(names, limit=20)}."
            )
        if split is None and usual is not None and config != usual:
            twice = False  # where the files of the usual one were not fetched, nobody can tell
            with contextlib.suppress(TopgraftError), _told(folder, origin), _quiet():
                twice = config in _splits(datasets.load_dataset_builder(str(folder), name=usual))
            if twice:
                raise TopgraftError(
                    f'{origin}: "{config}" is a configuration and a split. Give both: {_FORM}.'
                )
        return config, split
    if usual is None:
        asked = f' has no configuration "{words[0]}".' if words else " has several configurations."
        raise TopgraftError(f"{origin}{asked} Give one of {listed(names, limit=20)}: {_FORM}.")
    return usual, words[0] if words else None


def _split(origin: str, asked: str | None, splits: Sequence[str]) -> str:
    if asked is not None:
        if asked in splits:
            return asked
        raise TopgraftError(
            f'{origin} has no configuration or split "{asked}".{did_you_mean(asked, splits)} '
            f"Its splits: {listed(splits, limit=20)}."
        )
    if len(splits) == 1 or "train" in splits:
        return "train" if "train" in splits else splits[0]
    raise TopgraftError(f"{origin} has the splits {listed(splits, limit=20)}. Give one: {_FORM}.")


def _splits(builder: Any) -> list[str]:
    return [str(name) for name in (builder.config.data_files or {})]


def _refuse_reader(builder: Any, origin: str) -> None:
    found = re.search(r"packaged_modules\.(\w+)", type(builder).__module__)
    reader = found[1] if found else type(builder).__name__
    if reader == "webdataset":
        raise TopgraftError(f"{origin} holds shards. Give the folder in which its .tar files lie.")
    if reader not in READERS:
        raise TopgraftError(
            f'{origin} is read by "{reader}", which is not used here. Expected Parquet, Arrow, CSV, JSON, '
            "texts, or folders of pictures or sounds."
        )


def _refuse_outside(builder: Any, folder: Path, origin: str) -> None:
    """Refuse files that are none of the folder's, however their names came about; links are followed."""
    for paths in (builder.config.data_files or {}).values():
        if odd := [str(path) for path in paths if not is_inside(str(path), folder)]:
            raise TopgraftError(f'{origin}: its card names files out of its folder ("{odd[0]:.80}").')


def _card(folder: Path) -> Mapping[str, Any]:
    """The description at the head of the data set's card; empty where there is none."""
    path = folder / CARD
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_CARD:
            return {}
        from huggingface_hub import metadata_load

        found = metadata_load(path)
    except Exception:  # noqa: BLE001 (YAML raises almost anything; the library says it when it reads the folder)
        return {}
    return found if isinstance(found, dict) else {}


def _refuse_patterns(folder: Path, origin: str) -> None:
    """Refuse a card whose patterns of files lead out of the folder, or that is too large to look through."""
    with contextlib.suppress(OSError):
        if (folder / CARD).stat().st_size > LARGEST_CARD:
            raise TopgraftError(
                f"{origin}: its {CARD} has more than {LARGEST_CARD >> 20} MB, and is not read."
            )
    configs = _card(folder).get("configs")
    if (folder / ".huggingface.yaml").exists():
        raise TopgraftError(f"{origin} is described by a .huggingface.yaml. Expected it in its README.md.")
    for config in configs if isinstance(configs, list) else []:
        for pattern in _texts([config.get("data_files"), config.get("data_dir")] if config else []):
            if (
                "://" in pattern
                or "::" in pattern
                or Path(pattern).is_absolute()
                or ".." in Path(pattern).parts
            ):
                raise TopgraftError(
                    f'{origin}: its card names files out of its folder ("{pattern:.80}"), which are not read.'
                )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


@contextlib.contextmanager
def _told(folder: Path, origin: str) -> Iterator[None]:
    """What the library says of a folder that it can't read, as an error that a user can mend."""
    try:
        yield
    except TopgraftError:
        raise
    except Exception as error:
        script = next((p.name for p in folder.glob("*.py")), None)
        if script is not None and not any(p.suffix[1:] in ENDINGS for p in folder.rglob("*")):
            raise TopgraftError(
                f"{origin} is made by code of its own ({script}), which is never run. The hub keeps most of "
                "such data sets as Parquet, too: add @refs/convert/parquet to the name."
            ) from None
        cause = error.__cause__ or error
        said = " ".join(str(cause).split()).replace(str(folder), origin)[:300]
        raise TopgraftError(f"{origin} can't be read as a Hugging Face data set: {said}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's own bars."""
    import datasets

    before = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            datasets.enable_progress_bars()


def _snapshot(asked: Asked, given: str) -> Path:
    """The folder of a data set in the hub's cache, its files brought there where the hub can be reached."""
    from huggingface_hub import constants, hf_hub_download, snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    is_offline = constants.HF_HUB_OFFLINE or not _can_reach(constants.ENDPOINT)
    told: dict[str, Any] = {
        "repo_type": "dataset",
        "revision": asked.revision,
        "local_files_only": is_offline,
    }
    card: Mapping[str, Any] = {}
    try:
        with contextlib.suppress(EntryNotFoundError):
            card = _card(Path(hf_hub_download(asked.name, "README.md", **told)).parent)
        return Path(snapshot_download(asked.name, allow_patterns=wanted(card, asked.words), **told))
    except HFValidationError:
        raise TopgraftError(f"{given} is no name of a data set. Expected {_FORM}.") from None
    except RevisionNotFoundError:
        raise TopgraftError(f"The hub's data set {asked.name} has no revision {asked.revision}.") from None
    except LocalEntryNotFoundError:
        why = (
            "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} can't be reached"
        )
    except RepositoryNotFoundError:
        near = did_you_mean(asked.name, _cached())
        raise TopgraftError(
            f"The hub has no data set {asked.name}, or it is private; nor is there such a folder.{near}"
        ) from None
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
    version = f" at {asked.revision}" if asked.revision else ""
    raise TopgraftError(
        f"{given}: the data set {asked.name}{version} is neither in the "
        f"local cache of the hub ({constants.HF_HUB_CACHE}) nor within reach: {why}."
        f"{did_you_mean(asked.name, _cached())}"
    )


def wanted(card: Mapping[str, Any], words: Sequence[str]) -> list[str]:
    """Patterns of the files that are fetched: those of the configuration that is asked for, else all data.

    The library looks at the first configuration too, whichever is meant.

    Examples
    --------
    >>> files = {"en": [{"split": "test", "path": "en/*"}], "de": "de/*", "fr": "fr/*"}
    >>> card = {"configs": [{"config_name": name, "data_files": paths} for name, paths in files.items()]}
    >>> wanted(card, ["de"])
    ['README.md', 'en/*', 'de/*']
    >>> wanted(card, ["other"])[:3]
    ['README.md', '*.parquet', '*.arrow']
    """
    known = card.get("configs")
    configs = [one for one in known if isinstance(one, dict)] if isinstance(known, list) else []
    meant = [one for one in configs if one.get("config_name") in words]
    if not meant or not all(one.get("data_files") for one in (configs[0], *meant)):
        return ["README.md", *(f"*.{ending}" for ending in (*ENDINGS, *_PICTURES, *_SOUNDS))]
    found = ["README.md"]
    for one in (configs[0], *meant):
        files = one["data_files"] if isinstance(one["data_files"], list) else [one["data_files"]]
        found.extend(_texts([f.get("path") if isinstance(f, dict) else f for f in files]))
    return list(dict.fromkeys(found))


def _can_reach(endpoint: str) -> bool:
    """Whether the hub's name can be resolved, said at once and not after retries."""
    if urllib.request.getproxies():
        return True
    try:
        socket.getaddrinfo(urlparse(endpoint).hostname, None)
    except OSError:
        return False
    return True


def _cached() -> list[str]:
    """Names of the data sets in the local cache."""
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE)
    kind = "datasets--"
    found = (path.name for path in root.iterdir()) if root.is_dir() else ()
    return sorted(name.removeprefix(kind).replace("--", "/") for name in found if name.startswith(kind))
