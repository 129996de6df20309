"""What each format gets, and what it gives back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topgraft.backbones.grafted import input_shapes
from topgraft.export.checking import Difference
from topgraft.export.outputs import answer_json, names_of
from topgraft.export.whole import Whole, length_of, open_shape, program_of, whole_of
from topgraft.saved import Model

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

    from topgraft.export.examples import Examples
    from topgraft.export.int8 import Told


@dataclass(frozen=True)
class ExportJob:
    """One export under way.

    Parameters
    ----------
    model
        The opened graft.
    source
        The folder that it was opened from, where there is one.
    folder
        Where files are written.
    examples
        Which it is made and checked with.
    module, trust_code
        As for :func:`topgraft.open_model`.
    int8, told
        Whether it is put into 8 bits, and the examples for that, see :mod:`topgraft.export.int8`.
    """

    model: Model
    source: Path | None
    folder: Path
    examples: Examples
    module: nn.Module | None = None
    trust_code: bool = False
    int8: bool = False
    told: Told | None = None

    def whole(self) -> Whole:
        """The graft as one module."""
        return whole_of(self.model, module=self.module, trust_code=self.trust_code)

    def program(self, *, guarded: bool = False) -> ExportedProgram:
        """The graft as a graph of ``torch.export``, see :func:`topgraft.export.whole.program_of`."""
        shapes, steps = input_shapes(self.model.description), length_of(self.model)
        return program_of(self.whole(), shapes, self.examples.traced, steps=steps, guarded=guarded)

    def notes(self) -> dict[str, str]:
        """What files carry as metadata: task, classes, preprocessing and where the graft comes from."""
        import topgraft

        backbone = self.model.description["backbone"]
        return {
            "topgraft.version": topgraft.__version__,
            "topgraft.task": self.model.task,
            "topgraft.classes": json.dumps(list(self.model.classes), ensure_ascii=False),
            "topgraft.numbers": json.dumps(list(self.model.outputs), ensure_ascii=False),
            "topgraft.answer": json.dumps(answer_json(self.model), ensure_ascii=False),
            "topgraft.preprocessing": json.dumps(self.model.preprocess.describe(), ensure_ascii=False),
            "topgraft.modality": self.model.modality,
            "topgraft.backbone": str(backbone["source"]),
            "topgraft.licence": str(backbone["licence"] or ""),
        }


@dataclass(frozen=True)
class Written:
    """What a format says of the files that it wrote.

    Parameters
    ----------
    runtime
        What opened them, with its version.
    difference
        From the graft in PyTorch in fp32.
    more
        Further entries of ``export.json``.
    """

    runtime: str
    difference: Difference
    more: Mapping[str, Any]


def inputs_json(model: Model) -> list[dict[str, Any]]:
    """Name, type and sizes of each input, in order."""
    steps = length_of(model)
    return [
        {"name": name, "dtype": str(shape.dtype).removeprefix("torch."), "shape": open_shape(shape, steps)}
        for name, shape in input_shapes(model.description).items()
    ]


def outputs_json(model: Model) -> list[dict[str, Any]]:
    """The same of what comes out."""
    sizes = ["batch", len(model.classes or model.outputs)]
    return [{"name": name, "dtype": "float32", "shape": sizes} for name in names_of(model.task)]
