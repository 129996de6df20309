"""Graft to folder and back: weights under their own names, a description in JSON, never code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from topgraft.backbones.described import Preprocess
from topgraft.backbones.grafted import (
    BACKBONE,
    DESCRIPTION,
    FORM,
    HEAD,
    PREPROCESSING,
    UNUSABLE,
    WEIGHTS,
    chain_of,
    described_in,
    preprocess_in,
)
from topgraft.backbones.types import Backbone
from topgraft.calibration import Calibration
from topgraft.data.types import MODALITIES, Task
from topgraft.errors import TopgraftError
from topgraft.features.engine import ENGINES, PRECISIONS
from topgraft.files import DamagedFile, new_folder, read_tensors, write_json, write_tensors
from topgraft.graft import Graft
from topgraft.head import Head
from topgraft.objective import Scale
from topgraft.pooling import width
from topgraft.settings import MOST_WINDOWS
from topgraft.taps import tapped


@dataclass(frozen=True)
class Model:
    """A graft with all that prediction needs beside it.

    Parameters
    ----------
    graft
        In eval mode.
    preprocess
        From decoded examples to the network's inputs.
    classes
        Names, in the order of the logits; empty where numbers are predicted.
    modality
        ``picture``, ``text``, ``sound``, ``array`` or ``row``.
    columns
        Of the table that it was fitted on.
    engine, precision
        Of the frozen part.
    description
        The whole description as JSON.
    """

    graft: Graft
    preprocess: Preprocess
    classes: tuple[str, ...]
    modality: str
    columns: Mapping[str, str]
    engine: str
    precision: str
    description: Mapping[str, Any]

    @property
    def task(self) -> Task:
        """``classification``, ``multilabel``, ``ordinal`` or ``regression``."""
        if self.separator:
            return "multilabel"
        if self.is_ordered:
            return "ordinal"
        return "regression" if self.outputs else "classification"

    @property
    def separator(self) -> str:
        """Where an example may have several labels, what stands between them; else empty."""
        return str(self.description.get("separator", ""))

    @property
    def is_ordered(self) -> bool:
        """Whether the classes are ordered, from the first to the last."""
        return bool(self.description.get("ordered", False))

    @property
    def takes_pairs(self) -> bool:
        """Whether it was fitted on pairs of texts."""
        return bool(self.description.get("pairs", False))

    @property
    def windows(self) -> int:
        """Pieces of a long text that are read, at most."""
        return int(self.description.get("windows", 1))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the numbers that are predicted; empty for classes."""
        return tuple(str(name) for name in self.description.get("outputs", ()))

    @property
    def spread(self) -> tuple[float, ...]:
        """Standard deviation of each predicted number where it was learned, in its own unit."""
        return tuple(float(value) for value in self.description["scale"]["spread"])

    @property
    def calibration(self) -> Calibration | None:
        """What prediction sets go by; ``None`` where the description has none.

        Raises
        ------
        TopgraftError
            If the description of it is damaged.
        """
        known = self.description.get("calibration")
        if known is None:
            return None
        try:
            return Calibration.from_json(known)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise TopgraftError(f"The model's calibration is damaged: {error!r}.") from error

    def backbone_weights(self) -> dict[str, Tensor]:
        """Kept parameters and buffers, to be loaded into timm or Transformers under their own names."""
        return self.graft.kept_weights()


def describe(
    graft: Graft,
    backbone: Backbone,
    *,
    classes: Sequence[str],
    columns: Mapping[str, str],
    engine: str = "torch",
    precision: str,
    outputs: Sequence[str] = (),
    scale: Scale | None = None,
    separator: str = "",
    is_ordered: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """The description that is saved as ``graft.json``."""
    import topgraft

    anatomy = backbone.chain.anatomy
    shapes = {
        name: {
            "dims": [[d.factor, d.batch, d.length] for d in s.dims],
            "dtype": str(s.dtype).removeprefix("torch."),
        }
        for name, s in anatomy.inputs.items()
    }
    names = [block.name for block in backbone.chain]
    return {
        "form": FORM,
        "topgraft": topgraft.__version__,
        "torch": torch.__version__,
        "modality": backbone.modality,
        "backbone": {
            "source": backbone.source,
            "recipe": dict(backbone.recipe),
            "weights": backbone.report.to_json(),
            "licence": backbone.licence,
            "points": [point.to_json() for point in backbone.chain.points],
            "output_layer": anatomy.output.module if anatomy.output is not None else "",
            "inputs": shapes,
            "input_order": list(anatomy.inputs),
        },
        "blocks": names,
        "keep": graft.keep,
        "freeze": graft.freeze,
        "kept": names[: graft.keep],
        "frozen": names[: graft.freeze],
        "taps": graft.taps,
        "head": {
            "layout": graft.head.layout,
            "width": graft.head.linear.in_features,
            "hidden": [m.out_features for m in graft.head.hidden or [] if isinstance(m, nn.Linear)][:-1],
            "dropout": graft.head.dropout.p,
        },
        "classes": list(classes),
        "outputs": list(outputs),
        "separator": separator,
        "ordered": is_ordered,
        "scale": None if scale is None else asdict(scale),
        "columns": dict(columns),
        "engine": engine,
        "precision": precision,
        **more,
    }


def save(folder: Path, graft: Graft, preprocess: Preprocess, description: Mapping[str, Any]) -> None:
    """Write weights, preprocessing and description into a folder; the description last.

    Raises
    ------
    RunningError
        If the disk is full; each file is whole or absent.
    """
    import shutil

    tensors = {BACKBONE + name: t for name, t in graft.kept_weights().items()}
    tensors |= {HEAD + name: t for name, t in graft.head.state_dict().items()}
    write_tensors(
        folder / WEIGHTS, {n: t.detach().cpu().contiguous() for n, t in tensors.items()}, {"format": "pt"}
    )
    if (folder / PREPROCESSING).exists():
        shutil.rmtree(folder / PREPROCESSING)
    with new_folder(folder / PREPROCESSING) as there:
        preprocess.save(there)
    write_json(folder / DESCRIPTION, dict(description))


def open_model(folder: str | Path, *, module: nn.Module | None = None, trust_code: bool = False) -> Model:
    """Open a saved graft.

    Neither the original weights nor the package that carried them are needed, and no code is run from it;
    the network's library is.

    Parameters
    ----------
    folder
        What ``fit -o`` wrote.
    module
        The network, where it is one's own.
    trust_code
        Whether the function that made one's own network, which the description names, may be run.

    Raises
    ------
    TopgraftError
        If it is no saved graft, is damaged, or would run code that is not trusted.
    """
    folder = Path(folder)
    document = described_in(folder)
    try:
        return _open(folder, document, module=module, trust_code=trust_code)
    except UNUSABLE as error:
        raise DamagedFile(folder / DESCRIPTION, f"it can't be used ({error!r})") from error


def _open(folder: Path, document: dict[str, Any], *, module: nn.Module | None, trust_code: bool) -> Model:
    known = {"modality": MODALITIES, "precision": PRECISIONS, "engine": ENGINES}
    if odd := [
        f"{name} {document[name]!r}" for name, choices in known.items() if document[name] not in choices
    ]:
        raise ValueError(", ".join(odd))
    graft = _empty(document, int(document["freeze"]), module=module, trust_code=trust_code)
    tensors, _ = read_tensors(folder / WEIGHTS)
    _fill(graft, tensors, folder / WEIGHTS)
    model = Model(
        graft=graft.eval(),
        preprocess=preprocess_in(folder, document),
        classes=tuple(str(c) for c in document["classes"]),
        modality=str(document["modality"]),
        columns=dict(document["columns"]),
        engine=str(document["engine"]),
        precision=str(document["precision"]),
        description=document,
    )
    if model.outputs:
        _ = model.spread
    if not 1 <= model.windows <= MOST_WINDOWS:
        raise ValueError(f"windows {model.windows} are not 1 to {MOST_WINDOWS}")
    _must_be_texts(document)
    return model


def _must_be_texts(document: Mapping[str, Any]) -> None:
    """Refuse names that are no texts, which would fail later and elsewhere."""
    blocks, source = document["blocks"], document["backbone"]["source"]
    for name in (*document["classes"], *document["outputs"], *blocks, source, document.get("separator", "")):
        if not isinstance(name, str):
            raise TypeError(f"{name!r:.40} is no name")


def built_from(
    description: Mapping[str, Any],
    kept: Mapping[str, Tensor],
    head: Mapping[str, Tensor],
    *,
    module: nn.Module | None = None,
    trust_code: bool = False,
) -> Graft:
    """A graft in eval mode of given weights that is one part from the inputs to its head: nothing is frozen.

    Parameters
    ----------
    description
        As :func:`describe` gives it.
    kept, head
        Just the tensors of the kept blocks and of the head, under their own names.
    module, trust_code
        As for :func:`open_model`.

    Raises
    ------
    TopgraftError
        If these are not just the tensors of the description, or code would run that is not trusted.
    """
    graft = _empty(description, 0, module=module, trust_code=trust_code)
    tensors = {BACKBONE + n: t for n, t in kept.items()} | {HEAD + n: t for n, t in head.items()}
    _fill(graft, tensors, Path(WEIGHTS))
    return graft.eval()


def _empty(document: Mapping[str, Any], freeze: int, *, module: nn.Module | None, trust_code: bool) -> Graft:
    """The graft of a description, with random values."""
    chain = chain_of(document, module=module, trust_code=trust_code)
    chain = tapped(chain, [int(cut) for cut in document.get("taps", [])])
    shape, block = document["head"], chain.blocks[int(document["keep"]) - 1]
    if (shape["layout"], shape["width"]) != (block.layout, width(block)):
        raise ValueError(f"the head does not fit what comes out of {block.name}")
    is_ordered = bool(document.get("ordered", False))
    head = Head(
        shape["layout"],
        int(shape["width"]),
        len(document["classes"]) - is_ordered or len(document["outputs"]),
        hidden=shape["hidden"],
        dropout=shape["dropout"],
    )
    head.is_ordered = is_ordered
    return Graft(chain, int(document["keep"]), freeze, head)


def _fill(graft: Graft, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put saved tensors in; names and shapes must be just those expected."""
    parts = [(part, BACKBONE) for part in (graft.frozen, graft.body) if part is not None]
    wanted: dict[str, list[Tensor]] = {}
    for part, prefix in parts:
        for name, tensor in part.weights().items():
            wanted.setdefault(prefix + name, []).append(tensor)
    for name, tensor in graft.head.state_dict().items():
        wanted.setdefault(HEAD + name, []).append(tensor)
    if odd := sorted(wanted.keys() ^ tensors.keys()):
        raise DamagedFile(path, f"its tensors are not those of the description: {', '.join(odd[:3])}")
    with torch.no_grad():
        for name, places in wanted.items():
            for place in places:
                if place.shape != tensors[name].shape or place.dtype != tensors[name].dtype:
                    raise DamagedFile(
                        path, f"{name} has shape {tuple(tensors[name].shape)}, not {tuple(place.shape)}"
                    )
                place.copy_(tensors[name])
