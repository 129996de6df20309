"""Reading a file of weights without ever running code from it."""

from __future__ import annotations

import json
import math
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topgraft.errors import TopgraftError
from topgraft.regular import read_regular
from topgraft.tensorfile import open_regular

if TYPE_CHECKING:
    from torch import Tensor

PICKLE_ENDINGS = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".pkl")
CONTAINERS = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "teacher",
)
WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that data-parallel training and ``torch.compile`` put before every name."""


@dataclass(frozen=True)
class Weights:
    """Named tensors from a file.

    Parameters
    ----------
    tensors
        By the names in the file, on the CPU.
    origin
        Where they came from, in words.
    ordered
        Whether their order is the order in which the network's modules were made (pickles keep it,
        safetensors sort by name).
    """

    tensors: Mapping[str, Tensor]
    origin: str
    ordered: bool


def read_weights(path: str | Path, *, origin: str | None = None) -> Weights:
    """Read a safetensors file, or a pickle from ``torch.save``, weights only.

    Parameters
    ----------
    path
        A file, or a folder with ``model.safetensors`` (or its index and parts) or ``pytorch_model.bin``.
    origin
        What to call the place in the report; the path where it is not given.

    Raises
    ------
    TopgraftError
        If there is no such file; if it is empty, truncated, mislabelled or of another format; if it is a
        pickle that holds anything but plain values and tensors; if it holds no tensors.
    """
    path = Path(path)
    if path.is_dir():
        files = files_in(path)
        if not files:
            raise TopgraftError(
                f"{path} is a folder without weights.\n"
                "Expected model.safetensors, or its index and parts, or pytorch_model.bin."
            )
    else:
        files = [path]
    return read_files(files, origin=origin or str(path))


def read_files(files: Sequence[Path], *, origin: str) -> Weights:
    """Read the parts of one set of weights; errors as in :func:`read_weights`."""
    tensors: dict[str, Tensor] = {}
    ordered = True
    for file in files:
        kind = _kind(file)
        tensors |= _read_safetensors(file) if kind == "safetensors" else _read_pickle(file, kind)
        ordered = ordered and kind != "safetensors"
    if not tensors:
        raise TopgraftError(f"{origin} holds no tensors. Expected the weights of a network by their names.")
    return Weights(_unwrapped(tensors), origin, ordered)


def files_in(folder: Path) -> list[Path]:
    """The weight files of a model folder, safetensors first; ``[]`` where there are none.

    Raises
    ------
    TopgraftError
        If an index names a part that is not there, or that lies outside the folder.
    """
    for single, index in (
        ("model.safetensors", "model.safetensors.index.json"),
        ("pytorch_model.bin", "pytorch_model.bin.index.json"),
    ):
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            return [_part(folder, index, name) for name in parts_of(folder / index)]
    others = sorted(p for p in folder.glob("*.safetensors") if p.is_file())
    return others if len(others) == 1 else []


def parts_of(index: Path) -> list[str]:
    """File names that an index of a sharded checkpoint lists, sorted."""
    try:
        names = set(json.loads(read_regular(index))["weight_map"].values())
        if not all(isinstance(name, str) for name in names):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise TopgraftError(
            f'{index} is not an index of weights: expected JSON with a "weight_map".'
        ) from error
    return sorted(names)


def _part(folder: Path, index: str, name: str) -> Path:
    if Path(name).name != name:
        raise TopgraftError(f"{folder / index} names {name!r}, which lies outside its folder.")
    if not (folder / name).is_file():
        raise TopgraftError(
            f"{folder / index} names {name}, which is not there. The download is not complete."
        )
    return folder / name


def _kind(path: Path) -> str:
    """``"safetensors"``, ``"zip"`` (torch.save) or ``"pickle"`` (torch.save before 1.6)."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:  # a pipe in its place would never end
            size, start = os.fstat(file.fileno()).st_size, file.read(64)
    except FileNotFoundError as error:
        raise TopgraftError(f"There is no file of weights at {path}.") from error
    except OSError as error:
        raise TopgraftError(f"{path} could not be read: {error.strerror or error}.") from error
    if size == 0:
        raise TopgraftError(f"{path} is empty (0 bytes). Expected weights as safetensors or from torch.save.")
    if start.startswith(b"version https://git-lfs"):
        raise TopgraftError(
            f"{path} is a Git LFS pointer, not the weights. Fetch the file itself (git lfs pull)."
        )
    ending = path.suffix.lower()
    if start.startswith(b"PK\x03\x04"):
        kind = "zip"
    elif len(start) > 8 and start[8:9] == b"{":
        kind = "safetensors"
    elif start[:1] == b"\x80" and len(start) > 1 and start[1] <= 5:
        kind = "pickle"
    else:
        what = "a web page" if start.lstrip()[:5].lower() in (b"<!doc", b"<html") else "neither"
        raise TopgraftError(
            f"{path} is {what}{'' if what != 'neither' else ' safetensors nor a file from torch.save'} "
            f"(it starts with {start[:8]!r}).\nExpected weights as safetensors, or a pickle from torch.save."
        )
    if ending == ".safetensors" and kind != "safetensors":
        raise TopgraftError(
            f"{path} is named .safetensors but holds a pickle.\n"
            "Give it its own ending (.pth) if that is what you expected; it is then read weights-only."
        )
    if ending in PICKLE_ENDINGS and kind == "safetensors":
        raise TopgraftError(
            f"{path} is named {ending} but holds safetensors.\n"
            f"Rename it to {path.with_suffix('.safetensors').name}."
        )
    return kind


def _safetensors_header(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > size - 8:
            raise TopgraftError(_truncated(path, size, 8 + length))
        if length > 100_000_000:
            raise TopgraftError(
                f"{path} has a header of {length:,} bytes, over the format's limit of 100,000,000."
            )
        try:
            header = json.loads(file.read(length))
            ends = [t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"]
            promised = 8 + length + max(ends, default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise TopgraftError(f"{path} has no valid safetensors header.") from error
    if promised > size:
        raise TopgraftError(_truncated(path, size, promised))
    return dict(header)


def _truncated(path: Path, size: int, promised: int) -> str:
    return (
        f"{path} is truncated: it has {size:,} bytes, its header promises {promised:,}.\nGet the file again."
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _safetensors_header(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise TopgraftError(f"{path} is not a valid safetensors file: {error}.") from error


def _check_zip(path: Path) -> None:
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise TopgraftError(
            f"{path} is truncated or damaged: it starts as a file from torch.save, but its table of contents "
            f"is not at its end ({size:,} bytes).\nGet the file again."
        ) from error
    if not any(entry.filename.endswith("/data.pkl") for entry in entries):
        raise TopgraftError(f"{path} is a zip archive, but not one from torch.save (it has no data.pkl).")
    inside = sum(entry.file_size for entry in entries)
    if inside > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise TopgraftError(
            f"{path} would unpack to {inside:,} bytes from {size:,}. torch.save never compresses; "
            "the file was made by something else and is refused."
        )


def _read_pickle(path: Path, kind: str) -> dict[str, Tensor]:
    """Weights-only: shapes are checked on the meta device against the file's size before memory is taken."""
    size = path.stat().st_size
    if kind == "zip":
        _check_zip(path)
        shapes = _torch_load(path, map_location="meta")
        needed = sum(t.untyped_storage().nbytes() for t in _storages(_named_tensors(shapes, path)).values())
        if needed > size:
            raise TopgraftError(
                f"{path} claims {needed:,} bytes of tensors in a file of {size:,}, and is refused."
            )
        return _named_tensors(_torch_load(path, map_location="cpu", mmap=True), path)
    return _named_tensors(_torch_load(path, map_location="cpu"), path)


def _torch_load(path: Path, **options: Any) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an unusual protocol: it reads, or is refused below
            return torch.load(path, weights_only=True, **options)
    except pickle.UnpicklingError as error:
        reason = str(error)
        if "weights_only" not in reason.lower() and "unsupported" not in reason.lower():
            raise TopgraftError(f"{path} is truncated or damaged: {reason.splitlines()[0]}.") from error
        raise TopgraftError(
            f"{path} holds more than tensors{_refused(reason)}. Reading that could run code: it is refused.\n"
            "Save only the weights: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors'), "
            "or torch.save(model.state_dict(), 'weights.pth')."
        ) from error
    except (RuntimeError, EOFError, MemoryError, OSError, ValueError, KeyError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TopgraftError(f"{path} is truncated or damaged, torch can't read it: {reason[:200]}") from error
    except (TypeError, AttributeError, AssertionError, struct.error, UnicodeDecodeError) as error:
        raise TopgraftError(f"{path} is not a file of weights: {type(error).__name__}, {error}.") from error


def _refused(reason: str) -> str:
    """The name that torch refused, out of its message."""
    for mark in ("GLOBAL ", "Unsupported global: "):
        if mark in reason:
            return f" ({reason.split(mark, 1)[1].split(maxsplit=1)[0].strip('.,')})"
    return ""


def _named_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors by name, out of the containers that training scripts save them in."""
    import torch

    if not isinstance(content, Mapping):
        raise TopgraftError(f"{path} holds a {type(content).__name__}; expected tensors by their names.")
    for key in CONTAINERS:
        inner = content.get(key)
        if isinstance(inner, Mapping) and any(isinstance(v, torch.Tensor) for v in inner.values()):
            return _named_tensors(inner, path)
    named = {}
    for name, value in content.items():
        if not isinstance(value, torch.Tensor):
            continue
        if value.layout != torch.strided or value.is_quantized:
            raise TopgraftError(f"{path}: {name} is a sparse or quantised tensor; expected plain ones.")
        extent = sum((n - 1) * s for n, s in zip(value.shape, value.stride(), strict=True) if n) + 1
        repeated = math.prod(value.shape) > extent
        if repeated:
            raise TopgraftError(f"{path}: {name} has shape {tuple(value.shape)} over only {extent} numbers.")
        named[str(name)] = value.detach()
    return named


def _storages(tensors: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """One tensor a storage, so that shared memory counts once."""
    return {t.untyped_storage()._cdata: t for t in tensors.values()}


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefixes of data-parallel training and compilation, where all have them."""
    named = dict(tensors)
    for _ in range(3):
        for prefix in WRAPPERS:
            if named and all(name.startswith(prefix) for name in named):
                named = {name[len(prefix) :]: tensor for name, tensor in named.items()}
    return named
