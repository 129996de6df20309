"""The weights of a graft: of the kept blocks under the names of the original network, and of the head."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from topgraft.backbones import rebuild
from topgraft.errors import RunningError
from topgraft.export.checking import measured
from topgraft.export.job import ExportJob, Written
from topgraft.files import read_tensors, write_tensors
from topgraft.saved import built_from
from topgraft.versions import versions

BACKBONE, HEAD = "backbone.safetensors", "head.safetensors"
LIBRARIES = {"timm": "timm", "hf": "transformers", "torchvision": "torchvision"}
"""Kind of a recipe -> the package that builds its network."""


def write(job: ExportJob) -> Written:
    """Write both files, and load them into a network that is built afresh.

    Raises
    ------
    RunningError
        If that network does not take them bit for bit.
    """
    graft, description = job.model.graft, job.model.description
    write_tensors(job.folder / BACKBONE, graft.kept_weights(), {"format": "pt"})
    write_tensors(job.folder / HEAD, graft.head.state_dict(), {"format": "pt"})
    kept, _ = read_tensors(job.folder / BACKBONE)
    head, _ = read_tensors(job.folder / HEAD)
    recipe = description["backbone"]["recipe"]
    network = rebuild(recipe, module=copy.deepcopy(job.module), trust_code=job.trust_code)
    loaded = network.load_state_dict(kept, strict=False)
    state = network.state_dict()
    odd = [*loaded.unexpected_keys, *(n for n in kept if n in state and not torch.equal(state[n], kept[n]))]
    if odd:
        raise RunningError(
            f"A new {type(network).__name__} does not take {', '.join(odd[:3])}. Nothing was written."
        )
    taken = {name: state[name] for name in kept}
    built = built_from(description, taken, head, module=job.module, trust_code=job.trust_code)

    def run(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            logits = built(dict(batch))
        return logits, torch.softmax(logits, 1)

    difference = measured(run, graft, job.examples.checked)
    more = {
        "tensors": len(kept),
        "not_there": list(loaded.missing_keys),
        "network": {"kind": recipe["kind"], "class": type(network).__name__, "name": recipe.get("name")},
        "head": description["head"],
    }
    return Written(_library(str(recipe["kind"])), difference, more)


def _library(kind: str) -> str:
    package = LIBRARIES.get(kind)
    if package is None:
        return "the module that was given"
    return f"{package} {versions()[package]}"
