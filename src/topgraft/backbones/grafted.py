"""A saved graft as a backbone: its kept blocks, with the weights that they ended with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from topgraft.backbones.matching import COUNTER, report_on
from topgraft.backbones.preprocess import AnyPreprocess, TextPreprocess, open_preprocess
from topgraft.backbones.row_network import must_be_of
from topgraft.backbones.types import Backbone, Filled, Modality
from topgraft.chain import Chain, Point
from topgraft.chain.point import Dim, Shape
from topgraft.errors import TopgraftError
from topgraft.files import DamagedFile, read_json, read_tensors

FORM = 1
DESCRIPTION, WEIGHTS, PREPROCESSING = "graft.json", "model.safetensors", "preprocessing"
BACKBONE, HEAD = "backbone.", "head."
UNUSABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, AssertionError, RuntimeError)
"""What goes wrong with a description that nobody wrote."""
LARGEST = 1 << 28
"""Numbers in the largest input of two examples that opening tries."""


def is_graft(source: str) -> bool:
    """Whether a folder of this name is a saved graft."""
    return (Path(source) / DESCRIPTION).is_file()


def described_in(folder: Path) -> dict[str, Any]:
    """The description of a saved graft.

    Raises
    ------
    TopgraftError
        If there is none, or it is damaged.
    """
    if not (folder / DESCRIPTION).is_file():
        unfinished = (folder / "run.json").is_file()
        why = "an unfinished run: give its `fit` command again" if unfinished else "not a saved graft"
        raise TopgraftError(
            f"{folder} is {why if folder.exists() else 'not there'}; "
            "expected a folder that `topgraft fit -o` wrote."
        )
    document = read_json(folder / DESCRIPTION)
    if not isinstance(document, dict) or document.get("form") != FORM:
        raise DamagedFile(folder / DESCRIPTION, f"not a description of form {FORM}")
    return document


def preprocess_in(folder: Path, description: Mapping[str, Any]) -> AnyPreprocess:
    """The preprocessing of a saved graft.

    Raises
    ------
    ValueError
        If it is of other columns than the network, or gives what the network does not take.
    """
    found = open_preprocess(folder / PREPROCESSING)
    must_be_of(found, description["backbone"]["recipe"])
    given = found.keys if isinstance(found, TextPreprocess) else (found.key,)
    if not given or not set(given) <= set(description["backbone"]["input_order"]):
        raise ValueError(f"its preprocessing gives {given!r:.80}, which is no input of the network")
    return found


def chain_of(
    description: Mapping[str, Any],
    *,
    module: nn.Module | None = None,
    trust_code: bool = False,
    keep: int | None = None,
) -> Chain:
    """The chain of a description, with random values.

    Parameters
    ----------
    description
        As :func:`topgraft.saved.describe` gives it.
    module, trust_code
        As for :func:`topgraft.open_model`.
    keep
        How many blocks the chain has; all those of the original network when not given.
    """
    from topgraft.backbones import rebuild

    backbone = description["backbone"]
    network = rebuild(backbone["recipe"], module=module, trust_code=trust_code)
    example = {name: _example(name, shape) for name, shape in input_shapes(description).items()}
    points = [Point.from_json(point) for point in backbone["points"]]
    return Chain.of(network, example, output_layer=backbone["output_layer"], points=points[:keep])


def load_graft(source: str, *, weights: str | Path = "auto", seed: int = 0) -> Backbone:
    """The kept blocks of a saved graft as a backbone, without the original weights and running no code.

    Parameters
    ----------
    source
        The folder that ``fit -o`` wrote.
    weights
        ``auto``: those that the graft ended with; ``none``: random values.
    seed
        Of random values.

    Raises
    ------
    TopgraftError
        If it is damaged, would run code, or other weights are asked for.
    """
    if str(weights) not in ("auto", "none"):
        raise TopgraftError(
            f"weights={weights}: {source} is a saved graft, which brings its own. "
            "Give auto, or none for random values."
        )
    folder = Path(source)
    document = described_in(folder)
    try:
        if document["modality"] not in get_args(Modality) or document["keep"] < 1:
            raise ValueError(f"modality {document['modality']!r}, keep {document['keep']!r}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            chain = chain_of(document, keep=int(document["keep"]))
        filled = _filled(chain, document, folder) if weights == "auto" else Filled("random values", "random")
        return Backbone(
            source=source,
            modality=document["modality"],
            chain=chain,
            preprocess=preprocess_in(folder, document),
            report=report_on(chain.network, filled, chain.names_of(len(chain)), source=source),
            recipe=dict(document["backbone"]["recipe"]),
            licence=document["backbone"]["licence"] if weights == "auto" else None,
        )
    except UNUSABLE as error:
        raise DamagedFile(folder / DESCRIPTION, f"it can't be used ({error!r})") from error


def _filled(chain: Chain, document: Mapping[str, Any], folder: Path) -> Filled:
    """Put the saved tensors into the network; all of the kept blocks' have to be there, in their shapes."""
    tensors, _ = read_tensors(folder / WEIGHTS)
    given = {name.removeprefix(BACKBONE): t for name, t in tensors.items() if name.startswith(BACKBONE)}
    state = chain.network.state_dict()
    kept = {name for name in chain.names_of(len(chain)) if name in state and not name.endswith(COUNTER)}
    odd = sorted(name for name in given if name not in state or state[name].shape != given[name].shape)
    odd += sorted(kept - given.keys())
    if odd:
        raise DamagedFile(
            folder / WEIGHTS, f"its tensors are not those of the description: {', '.join(odd[:3])}"
        )
    chain.network.load_state_dict(given, strict=False)
    made_from = document["backbone"]["source"]
    return Filled(f"the saved graft, which was made from {made_from}", "name", frozenset(given))


def input_shapes(description: Mapping[str, Any]) -> dict[str, Shape]:
    """The network's inputs by name, in the order of its forward, and how they grow with batch and length."""
    backbone = description["backbone"]
    return {
        name: Shape(
            tuple(Dim(*dims) for dims in backbone["inputs"][name]["dims"]),
            getattr(torch, backbone["inputs"][name]["dtype"]),
        )
        for name in backbone["input_order"]
    }


def _example(name: str, shape: Shape) -> Tensor:
    sizes = [d.size(2, 7) for d in shape.dims]
    if math.prod(sizes) > LARGEST:
        raise ValueError(f"input {name} would have {sizes} numbers")
    if shape.dtype.is_floating_point:
        return torch.zeros(sizes, dtype=shape.dtype)
    return torch.full(sizes, int("mask" in name), dtype=shape.dtype)
