"""One's own network: a module, or a function ``package.module:function`` that makes one."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from topgraft.backbones.described import Preprocess
from topgraft.backbones.matching import fill
from topgraft.backbones.picture_preprocess import PicturePreprocess
from topgraft.backbones.preprocess import ArrayPreprocess, TextPreprocess
from topgraft.backbones.row_preprocess import RowPreprocess
from topgraft.backbones.sound_preprocess import SoundPreprocess
from topgraft.backbones.types import Filled, Modality, Source
from topgraft.backbones.weights import read_weights
from topgraft.errors import TopgraftError, did_you_mean

TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""``package.module:function``."""


def load_own(
    source: str | nn.Module,
    *,
    weights: str | Path,
    modality: Modality | None,
    example: Tensor | Mapping[str, Tensor] | None,
    preprocess: Preprocess | None,
) -> Source:
    """A module as it is, or the one that a function makes; naming the function is leave to run it.

    Parameters
    ----------
    source
        A module, used itself and not copied, or ``package.module:function``. The function takes no argument
        and gives a module, or a pair (module, preprocessing).
    weights
        ``"auto"`` (as the module comes), ``"none"`` (its own random initialisation), or a file.
    modality, example, preprocess
        What it reads, as far as it is not plain from the module.

    Raises
    ------
    TopgraftError
        If the function is not found, fails, or gives something else; if it is not plain what it reads.
    """
    target = None if isinstance(source, nn.Module) else source
    network = source if isinstance(source, nn.Module) else None
    if target is not None:
        network, brought = call_target(target)
        preprocess = preprocess or brought
    assert network is not None
    notes: tuple[str, ...] = ()
    if preprocess is None:
        modality, preprocess, notes = _usual(network, modality, example)
    name = type(network).__qualname__
    if weights == "auto":
        filled = Filled(f"the module {name} as it came", "as given", frozenset(network.state_dict()))
    elif weights == "none":
        if target is None:
            _reset(network)
        filled = Filled("random values", "random")
    else:
        filled = fill(network, read_weights(weights))
    return Source(
        network=network,
        modality=_modality_of(preprocess),
        preprocess=preprocess,
        recipe={"kind": "own", "target": target, "class": f"{type(network).__module__}:{name}"},
        filled=filled,
        example=example,
        notes=notes,
    )


def rebuild_own(recipe: Mapping[str, Any], *, module: nn.Module | None, trust_code: bool) -> nn.Module:
    """The network of a recipe: the one that is given, or what its function makes once code is trusted.

    Raises
    ------
    TopgraftError
        If no module is given and the function may not be run.
    """
    if module is not None:
        given = f"{type(module).__module__}:{type(module).__qualname__}"
        if given != recipe["class"]:
            raise TopgraftError(f"This graft was made from {recipe['class']}; the module given is {given}.")
        return module
    target = recipe.get("target")
    if not target:
        raise TopgraftError(
            f"This graft was made from a module of your own, {recipe['class']}. Give the module: module=..."
        )
    if not trust_code:
        raise TopgraftError(
            f"Opening this graft runs {target}, which is code of your own. "
            "Say so with --trust-code (trust_code=True), or give the module."
        )
    return call_target(str(target))[0]


def function_of(target: str) -> Any:
    """The function ``package.module:function``; modules beside where we run are found too.

    Raises
    ------
    TopgraftError
        If the module or the function is not found.
    """
    module_name, _, function_name = target.partition(":")
    with _beside():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise TopgraftError(f"{module_name} needs {error.name}, which is not installed.") from error
            raise TopgraftError(f"There is no Python module {error.name!r} for {target}.") from error
        function: Any = module
        for part in function_name.split("."):
            choices = [n for n in dir(function) if not n.startswith("_")]
            if (found := getattr(function, part, None)) is None:
                raise TopgraftError(f"{module_name} has no {function_name!r}.{did_you_mean(part, choices)}")
            function = found
        if not callable(function):
            raise TopgraftError(f"{target} is a {type(function).__name__}; expected a function.")
    return function


def call_target(target: str) -> tuple[nn.Module, Preprocess | None]:
    """What ``package.module:function`` makes; modules beside where we run are found too.

    Raises
    ------
    TopgraftError
        If the module or the function is not found, fails, or makes something else.
    """
    function = function_of(target)
    with _beside():
        try:
            made = function()
        except Exception as error:
            raise TopgraftError(f"{target} failed: {type(error).__name__}: {error}") from error
    network, preprocess = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(network, nn.Module):
        raise TopgraftError(
            f"{target} gave a {type(made).__name__}; "
            "expected an nn.Module, or a pair (module, preprocessing)."
        )
    if preprocess is not None:
        _modality_of(preprocess)
    return network, preprocess


def input_name(network: nn.Module) -> str:
    """The first name that the network's ``forward`` takes.

    Examples
    --------
    >>> input_name(nn.Linear(2, 1))
    'input'
    """
    for parameter in inspect.signature(network.forward).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            return parameter.name
    raise TopgraftError(f"The forward of {type(network).__name__} names no input.")


def _usual(
    network: nn.Module, modality: Modality | None, example: Tensor | Mapping[str, Tensor] | None
) -> tuple[Modality, Preprocess, tuple[str, ...]]:
    """The preprocessing that is taken where none came with the network, and a sentence that says so."""
    key = input_name(network)
    first = next(iter(example.values())) if isinstance(example, Mapping) else example
    if modality is None:
        convolution = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
        if first is not None:
            modality = (
                "picture" if first.ndim == 4 and first.shape[1] == 3 and convolution is not None else "array"
            )
        elif convolution is not None and convolution.in_channels == 3:
            modality = "picture"
        else:
            raise TopgraftError(
                f"It is not plain what {type(network).__name__} reads. "
                "Give an example: example=, a batch of at least two."
            )
    if isinstance(example, Mapping) and len(example) == 1:
        key = next(iter(example))
    if modality == "array":
        return "array", ArrayPreprocess(key), ()
    if modality == "row":
        raise TopgraftError(
            "A network for rows needs to know their columns: give preprocess=RowPreprocess.of(rows)."
        )
    if modality == "text":
        raise TopgraftError("A network for texts needs its tokenizer: give preprocess=TextPreprocess(...).")
    if modality == "sound":
        raise TopgraftError(
            "A network for sounds needs the settings of its spectra: give preprocess=SoundPreprocess(...)."
        )
    size = (int(first.shape[2]), int(first.shape[3])) if first is not None else (224, 224)
    resize = (round(size[0] / 0.875), round(size[1] / 0.875))
    note = "preprocessing: ImageNet's usual one, as none came with the network"
    return "picture", PicturePreprocess(size=size, resize=resize, interpolation="bilinear", key=key), (note,)


def _modality_of(preprocess: Any) -> Modality:
    kinds: dict[type, Modality] = {
        PicturePreprocess: "picture",
        TextPreprocess: "text",
        SoundPreprocess: "sound",
        ArrayPreprocess: "array",
        RowPreprocess: "row",
    }
    for kind, modality in kinds.items():
        if isinstance(preprocess, kind):
            return modality
    raise TopgraftError(
        f"The preprocessing is a {type(preprocess).__name__}; expected PicturePreprocess, TextPreprocess, "
        "SoundPreprocess, ArrayPreprocess or RowPreprocess, which can be saved without code."
    )


def _reset(network: nn.Module) -> None:
    """Random values by each layer's own rule."""
    layers: list[Any] = [m for m in network.modules() if next(m.parameters(recurse=False), None) is not None]
    for layer in layers:
        if not hasattr(layer, "reset_parameters"):
            raise TopgraftError(
                f"{type(layer).__name__} has no reset_parameters, so it can't be given random values. "
                "Make the module anew, or give package.module:function."
            )
    for layer in layers:
        layer.reset_parameters()


@contextmanager
def _beside() -> Iterator[None]:
    """With the current folder among those where modules are looked for, as ``python -m`` has it."""
    here = str(Path.cwd())
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
