"""Files of a model: from a folder, from the local cache of the Hugging Face hub, else from the hub."""

from __future__ import annotations

import os
import socket
import urllib.parse
import urllib.request
from pathlib import Path

from topgraft.backbones.weights import Weights, parts_of, read_weights
from topgraft.errors import TopgraftError, did_you_mean

USUAL = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Names of weight files, in the order in which they are looked for."""


class NoSuchModel(TopgraftError):
    """The hub answered that it has no such model, or none that may be read."""


def split_revision(name: str) -> tuple[str, str | None]:
    """``org/name@revision`` in two.

    Examples
    --------
    >>> split_revision("org/name@v2"), split_revision("org/name")
    (('org/name', 'v2'), ('org/name', None))
    """
    model, _, revision = name.partition("@")
    return model, revision or None


def file_of(model: str, filename: str, *, revision: str | None = None) -> Path | None:
    """One file of a model on the hub; the local cache is asked first.

    Returns
    -------
    Path or None
        ``None`` where the model has no such file.

    Raises
    ------
    NoSuchModel
        If the hub has no such model.
    TopgraftError
        If it is not in the cache and the hub is out of reach.
    """
    from huggingface_hub import _CACHED_NO_EXIST, constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        cached = try_to_load_from_cache(model, filename, revision=revision)
    except HFValidationError as error:
        raise NoSuchModel(f"{model!r} is no name of a model on the hub.") from error
    if isinstance(cached, str):
        return Path(cached)
    if cached is _CACHED_NO_EXIST:
        return None
    if is_offline():
        if is_cached(model, revision):
            return None
        reason = (
            "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} can't be reached"
        )
        raise TopgraftError(_out_of_reach(model, reason))
    try:
        return Path(hf_hub_download(model, filename, revision=revision))
    except RepositoryNotFoundError as error:
        raise NoSuchModel(
            f"The hub has no model {model}, or it is private.{did_you_mean(model, cached_models())}"
        ) from error
    except RevisionNotFoundError as error:
        raise NoSuchModel(f"The hub's model {model} has no revision {revision}.") from error
    except LocalEntryNotFoundError as error:
        raise TopgraftError(_out_of_reach(model, "the connection failed")) from error
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError) as error:
        raise TopgraftError(_out_of_reach(model, str(error).splitlines()[0])) from error


def folder_of(model: str, *, revision: str | None = None) -> Path:
    """The folder with a model's description, tokenizer, preprocessing and card, without its weights.

    Raises
    ------
    TopgraftError
        As :func:`file_of`; and if the model has no ``config.json``.
    """
    config = file_of(model, "config.json", revision=revision)
    if config is None:
        raise TopgraftError(f"The model {model} has no config.json, so it is not a model of Transformers.")
    return config.parent


def weights_of(model: str, *, revision: str | None = None, names: tuple[str, ...] = ()) -> list[Path]:
    """The weight files of a model on the hub, safetensors first.

    Parameters
    ----------
    names
        File names to try before the usual ones.

    Raises
    ------
    TopgraftError
        As :func:`file_of`; and if the model has no weights that can be read.
    """
    for name in (*names, *USUAL):
        path = file_of(model, name, revision=revision)
        if path is None:
            continue
        if not name.endswith(".json"):
            return [path]
        found = {part: file_of(model, part, revision=revision) for part in parts_of(path)}
        if absent := [part for part, where in found.items() if where is None]:
            raise TopgraftError(
                f"The model {model} is not complete: its index names {absent[0]}, which is not there."
            )
        return [part for part in found.values() if part is not None]
    raise TopgraftError(
        f"The model {model} has no weights that can be read: "
        f"expected model.safetensors or pytorch_model.bin.\n"
        f"{WAYS_OUT}"
    )


def read_address(url: str) -> Weights:
    """Weights from an address, by way of torch's own cache (``$TORCH_HOME/hub/checkpoints``).

    Raises
    ------
    TopgraftError
        If they are neither cached nor within reach.
    """
    import torch

    filename = Path(url).name
    cached = Path(torch.hub.get_dir()) / "checkpoints" / filename
    if not cached.is_file():
        cached.parent.mkdir(parents=True, exist_ok=True)
        found = torch.hub.HASH_REGEX.search(filename)
        try:
            torch.hub.download_url_to_file(
                url, str(cached), found.group(1) if found else None, progress=False
            )
        except (OSError, RuntimeError) as error:
            raise TopgraftError(
                f"The weights {filename} are neither in torch's cache ({cached.parent}) nor within reach: "
                f"{error}.\n{WAYS_OUT}"
            ) from error
    return read_weights(cached, origin=f"{filename} in torch's cache")


def where(model: str, path: Path) -> str:
    """A line for the report: the model and the revision that was found.

    Examples
    --------
    >>> where("org/name", Path("hub/models--org--name/snapshots/0123456789abcdef/model.safetensors"))
    'org/name of the Hugging Face hub, revision 0123456789ab'
    """
    parts = path.parts
    at = parts.index("snapshots") + 1 if "snapshots" in parts else None
    revision = f", revision {parts[at][:12]}" if at is not None and at < len(parts) else ""
    return f"{model} of the Hugging Face hub{revision}"


def is_offline() -> bool:
    """Whether the hub is switched off, or its name can't be resolved (said at once, not after retries)."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return True
    if urllib.request.getproxies():
        return False
    try:
        socket.getaddrinfo(urllib.parse.urlparse(constants.ENDPOINT).hostname, None)
    except OSError:
        return True
    return False


def is_cached(model: str, revision: str | None = None) -> bool:
    """Whether the local cache has a snapshot of the model."""
    from huggingface_hub import constants

    base = Path(constants.HF_HUB_CACHE) / ("models--" + model.replace("/", "--"))
    ref = base / "refs" / (revision or "main")
    commit = ref.read_text().strip() if ref.is_file() else revision
    return commit is not None and (base / "snapshots" / commit).is_dir()


def cached_models() -> list[str]:
    """Names of the models in the local cache."""
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE)
    if not root.is_dir():
        return []
    return sorted(
        e.name.removeprefix("models--").replace("--", "/")
        for e in os.scandir(root)
        if e.name.startswith("models--")
    )


WAYS_OUT = "Give a file of weights with --weights FILE, or take random values with --weights none."


def _out_of_reach(model: str, reason: str) -> str:
    from huggingface_hub import constants

    return (
        f"{model} is neither in the local cache of the hub ({constants.HF_HUB_CACHE}) nor within reach: "
        f"{reason}."
        f"{did_you_mean(model, cached_models())}\n{WAYS_OUT}"
    )
