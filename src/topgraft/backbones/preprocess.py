"""From decoded texts and arrays to a network's inputs; opening any preprocessing that was saved."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from topgraft.backbones.described import FILE, Described, at_least_one, plain
from topgraft.backbones.picture_preprocess import PicturePreprocess
from topgraft.backbones.row_preprocess import RowPreprocess
from topgraft.backbones.sound_extractor import ExtractorPreprocess
from topgraft.backbones.sound_preprocess import SoundPreprocess
from topgraft.canonical import parsed_json
from topgraft.data.pairs import is_pair, parts_of
from topgraft.errors import TopgraftError
from topgraft.files import write_whole
from topgraft.regular import read_regular

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

TOKENIZER_FILE = "tokenizer.json"
SHARED = 8
"""One of so many tokens of a window is in the next one, too."""
COLUMNS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""Inputs of networks for texts, by what a tokenizer calls them."""


@contextmanager
def _usable() -> Iterator[None]:
    """What a tokenizer can be read with and not encode by is an error that says so."""
    try:
        yield
    except Exception as error:  # the library has no error of its own
        raise TopgraftError(f"The tokenizer can't be used: {error}.") from error


@dataclass(frozen=True)
class TextPreprocess(Described):
    """Split texts into tokens, cut after ``max_length`` and fill up to the longest of the batch.

    Parameters
    ----------
    tokenizer
        Content of a ``tokenizer.json``, of the library ``tokenizers``.
    keys
        The network's inputs, out of ``input_ids``, ``attention_mask`` and ``token_type_ids``.
    max_length
        Tokens, the special ones included.
    pad_id, pad_token, pad_type_id
        What fills up.
    padding_side, truncation_side
        ``"right"`` or ``"left"``.
    """

    tokenizer: str
    keys: tuple[str, ...] = ("input_ids", "attention_mask")
    max_length: int = 512
    pad_id: int = 0
    pad_token: str = "[PAD]"  # noqa: S105 (a token of text, not a secret)
    pad_type_id: int = 0
    padding_side: Literal["right", "left"] = "right"
    truncation_side: Literal["right", "left"] = "right"

    def __post_init__(self) -> None:
        """Refuse what can't be meant, such as a changed file would have it."""
        numbers: tuple[object, ...] = (self.max_length, self.pad_id, self.pad_type_id)
        if not all(type(number) is int and 0 <= number < 1 << 31 for number in numbers):
            raise ValueError(f"max_length, pad_id and pad_type_id are whole numbers, not {numbers!r:.80}")
        texts: tuple[object, ...] = (self.tokenizer, self.pad_token)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"pad_token is a text, not {self.pad_token!r:.40}")
        keys: object = self.keys
        if not isinstance(keys, tuple) or not keys or not all(key in tuple(COLUMNS) for key in keys):
            raise ValueError(f"keys are some of {', '.join(COLUMNS)}, not {keys!r:.80}")
        if not {self.padding_side, self.truncation_side} <= {"right", "left"}:
            raise ValueError("padding_side and truncation_side are right or left")

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_str(self.tokenizer)
        except Exception as error:
            raise TopgraftError(f"The tokenizer could not be read: {error}.") from error
        tokenizer.enable_truncation(self.max_length, direction=self.truncation_side)
        tokenizer.enable_padding(
            direction=self.padding_side,
            pad_id=self.pad_id,
            pad_type_id=self.pad_type_id,
            pad_token=self.pad_token,
        )
        return tokenizer

    def batch(self, raw: Sequence[Any]) -> dict[str, Tensor]:
        """Texts -> per key an int64 (B, T), T the longest of the batch and at least 1.

        A pair (:mod:`topgraft.data.pairs`) is encoded as the tokenizer does it, its longer text cut first.
        """
        import torch

        at_least_one(raw)
        for text in raw:
            if not isinstance(text, str):
                raise TopgraftError(f"Expected a text, got {type(text).__name__}: {text!r:.80}.")
        parts = [parts_of(text) for text in raw]
        given = [p if len(p) == 2 else p[0] for p in parts]
        with _usable():
            encoded = self._tokenizer.encode_batch(given)
        batch = {
            key: torch.tensor([getattr(e, COLUMNS[key]) for e in encoded], dtype=torch.int64)
            for key in self.keys
        }
        if next(iter(batch.values())).shape[1] == 0:  # nothing but empty texts, and no special tokens
            fill = {"input_ids": self.pad_id, "attention_mask": 0, "token_type_ids": self.pad_type_id}
            batch = {key: torch.full((len(raw), 1), fill[key], dtype=torch.int64) for key in self.keys}
        return batch

    @cached_property
    def _uncut(self) -> Tokenizer:
        from tokenizers import Tokenizer

        whole = Tokenizer.from_str(self.tokenizer)
        whole.no_truncation()
        whole.no_padding()
        return whole

    def windows(self, text: str, most: int) -> list[str]:
        """The text where it fits; else pieces of it that fit, from its beginning to its end.

        Neighbours share an eighth of their tokens. Where that would be more than ``most`` pieces, so many are
        taken, spread evenly. A pair of texts is one piece.
        """
        if is_pair(text) or most == 1:
            return [text]
        with _usable():
            spans = self._uncut.encode(text, add_special_tokens=False).offsets
        room = max(1, self.max_length - self._uncut.num_special_tokens_to_add(is_pair=False))
        over = len(spans) - room
        if over <= 0:
            return [text]
        count = min(most, 1 + math.ceil(over / max(1, room - room // SHARED)))
        starts = [round(over * number / (count - 1)) for number in range(count)] if count > 1 else [0]
        return [text[spans[start][0] : spans[start + room - 1][1]] for start in starts]

    def count_tokens(self, text: str) -> int:
        """Tokens of one text before anything is cut off."""
        whole = self._uncut
        first, *second = parts_of(text)
        with _usable():
            return len(whole.encode(first, second[0] if second else None).ids)

    def describe(self) -> dict[str, Any]:
        """Every setting, as JSON values; the tokenizer by its SHA-256 (its content is saved beside)."""
        settings = plain({k: v for k, v in asdict(self).items() if k != "tokenizer"})
        digest = hashlib.sha256(self.tokenizer.encode()).hexdigest()
        return {"kind": "text", "tokenizer_sha256": digest, **settings}

    def save(self, folder: Path) -> None:
        """Write what :func:`open_preprocess` needs into an existing folder."""
        write_whole(Path(folder) / TOKENIZER_FILE, self.tokenizer.encode())
        super().save(folder)

    def lines(self) -> list[str]:
        """What is done, in plain words."""
        count = self._tokenizer.get_vocab_size()
        return [f"texts: {count:,} kinds of tokens, cut after {self.max_length} tokens"]


@dataclass(frozen=True)
class ArrayPreprocess(Described):
    """Stack arrays of one shape.

    Parameters
    ----------
    key
        Name of the network's input.
    """

    key: str = "x"

    def batch(self, raw: Sequence[Any]) -> dict[str, Tensor]:
        """Arrays -> ``{key: float32 (B, ...)}``.

        Raises
        ------
        TopgraftError
            If the arrays differ in shape or do not hold numbers.
        """
        import numpy as np
        import torch

        at_least_one(raw)
        try:
            arrays = [np.asarray(a, dtype=np.float32) for a in raw]
        except (TypeError, ValueError) as error:
            raise TopgraftError(f"Expected arrays of numbers: {error}.") from error
        shapes = sorted({a.shape for a in arrays})
        if len(shapes) > 1:
            raise TopgraftError(f"Expected arrays of one shape, got {' and '.join(map(str, shapes[:3]))}.")
        return {self.key: torch.from_numpy(np.stack(arrays))}

    def describe(self) -> dict[str, Any]:
        """Every setting, as JSON values."""
        return {"kind": "array", "key": self.key}

    def lines(self) -> list[str]:
        """What is done, in plain words."""
        return ["arrays: as they are, in 32-bit floats"]


AnyPreprocess = (
    PicturePreprocess
    | TextPreprocess
    | SoundPreprocess
    | ExtractorPreprocess
    | ArrayPreprocess
    | RowPreprocess
)
KINDS: Mapping[str, type[AnyPreprocess]] = {
    "picture": PicturePreprocess,
    "text": TextPreprocess,
    "sound": SoundPreprocess,
    "sound by extractor": ExtractorPreprocess,
    "array": ArrayPreprocess,
    "row": RowPreprocess,
}


def open_preprocess(folder: str | Path) -> AnyPreprocess:
    """The preprocessing that :meth:`Preprocess.save` wrote; runs no code from the folder.

    Raises
    ------
    TopgraftError
        If a file is missing, is not what was saved, or asks for an unknown kind or setting.
    """
    folder = Path(folder)
    path = folder / FILE
    try:
        settings = parsed_json(read_regular(path))
        kind = KINDS[settings.pop("kind")]
        digest = settings.pop("tokenizer_sha256", None)
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        if kind is TextPreprocess:
            content = read_regular(folder / TOKENIZER_FILE)
            if hashlib.sha256(content).hexdigest() != digest:
                raise TopgraftError(
                    f"{folder / TOKENIZER_FILE} is not the one that was saved (its SHA-256 differs)."
                )
            values["tokenizer"] = content.decode()
        return kind(**values)
    except FileNotFoundError as error:
        raise TopgraftError(f"{error.filename} is missing; it says how examples are prepared.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise TopgraftError(f"{path} does not describe a preprocessing: {error}.") from error
