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
from topgraft.export.outputs import outputs_of
from topgraft.files import read_tensors, write_tensors
from topgraft.saved import Model, built_from
from topgraft.versions import versions

BACKBONE, HEAD = "backbone.safetensors", "head.safetensors"
LIBRARIES = {
    "timm": "timm",
    "hf": "transformers",
    "torchvision": "torchvision",
    "sound": "topgraft",
    "rows": "topgraft",
}
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

    def run(batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            return outputs_of(job.model.task, built(dict(batch)))

    difference = measured(run, job.model, job.examples.checked)
    more = {
        "tensors": len(kept),
        "not_there": list(loaded.missing_keys),
        "network": {"kind": recipe["kind"], "class": type(network).__name__, "name": recipe.get("name")},
        "head": {
            **description["head"],
            "outputs": graft.head.linear.out_features,
            "gives": _gives(job.model),
        },
    }
    return Written(_library(str(recipe["kind"])), difference, more)


def _gives(model: Model) -> str:
    """What the layers of the head give, in words: outputs follow from it."""
    if model.task == "regression":
        return f"numbers in the unit that was learned from: {', '.join(model.outputs)}"
    if model.task == "ordinal":
        return (
            "logits of lying above each class but the last; sorted falling, the probability of a class is "
            "that of lying above the one before it less that of lying above it"
        )
    return f"logits, whose {'sigmoid' if model.task == 'multilabel' else 'softmax'} is the probability"


def _library(kind: str) -> str:
    package = LIBRARIES.get(kind)
    if package is None:
        return "the module that was given"
    return f"{package} {versions().get(package, '')}".rstrip()
