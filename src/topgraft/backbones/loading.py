"""From the name of a backbone to its chain, its preprocessing and its load report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from topgraft.backbones.described import Preprocess
from topgraft.backbones.grafted import described_in, is_graft, load_graft
from topgraft.backbones.matching import report_on, under
from topgraft.backbones.own import TARGET, load_own, rebuild_own
from topgraft.backbones.packaged import DEFAULTS, HUB_NAMES, default_source
from topgraft.backbones.picture_preprocess import LARGEST, PicturePreprocess
from topgraft.backbones.row_network import is_row_network, load_rows, rebuild_rows
from topgraft.backbones.row_preprocess import RowPreprocess
from topgraft.backbones.types import Backbone, LoadReport, Modality, Source
from topgraft.chain import Chain
from topgraft.errors import TopgraftError, did_you_mean

Found = TypeVar("Found", Source, Backbone)


def load_backbone(
    source: str | nn.Module | None,
    *,
    modality: Modality | None,
    weights: str | Path | None,
    allow_missing: Sequence[str],
    example: Tensor | Mapping[str, Tensor] | None,
    preprocess: Preprocess | None,
    size: int | None,
    seed: int,
) -> Backbone:
    """See :func:`topgraft.backbones.load`."""
    if size is not None and not 1 <= size <= LARGEST:
        raise TopgraftError(f"size={size}: give 1 to {LARGEST:,} pixels.")
    if source is None:
        source = default_source(modality)
    if isinstance(source, str) and is_graft(source):
        grafted = load_graft(source, weights="none" if weights is None else weights, seed=seed)
        must_read(source, grafted.modality, modality)
        grafted = grafted if preprocess is None else _with(grafted, preprocess)
        return grafted if size is None else sized(grafted, size)
    name = source if isinstance(source, str) else type(source).__qualname__
    found = find(
        source,
        weights="none" if weights is None else weights,
        modality=modality,
        example=example,
        preprocess=preprocess,
        size=size,
        seed=seed,
    )
    layers = found.output_layers
    report = None
    if layers is not None:  # what is wrong with the weights is said before anything is run
        report = report_of(found, name, allow_missing=allow_missing)
    given = example if example is not None else found.example
    try:
        chain = Chain.of(
            found.network,
            given if given is not None else example_of(found.preprocess),
            output_layer=None if layers is None else layers[0] if layers else "",
            gradients=False,  # they are compared at the cut that is used, before anything is trained from it
        )
    except TopgraftError as error:
        if size is None:
            raise
        raise TopgraftError(
            f"{error}\nNot every network takes other sizes than its own: size={size}."
        ) from error
    if report is None:
        report = report_of(found, name, allow_missing=allow_missing, chain=chain)
    return Backbone(
        source=name,
        modality=found.modality,
        chain=chain,
        preprocess=found.preprocess,
        report=report,
        recipe=found.recipe,
        licence=found.licence,
    )


def reads_rows(given: object) -> bool:
    """Whether a backbone, by name or loaded, reads rows of a table; known before any data are read.

    Examples
    --------
    >>> reads_rows("rows"), reads_rows("timm/resnet18"), reads_rows(None)
    (True, False, False)
    """
    if isinstance(given, Backbone):
        return given.modality == "row"
    if isinstance(given, str) and is_graft(given):
        return bool(described_in(Path(given)).get("modality") == "row")
    return is_row_network(given)


def rebuild_network(recipe: Mapping[str, Any], *, module: nn.Module | None, trust_code: bool) -> nn.Module:
    """See :func:`topgraft.backbones.rebuild`."""
    from topgraft.backbones.hf import rebuild_hf
    from topgraft.backbones.resemblyzer import rebuild_sound
    from topgraft.backbones.timm import rebuild_timm
    from topgraft.backbones.torchvision import rebuild_torchvision

    makers = {
        "timm": rebuild_timm,
        "hf": rebuild_hf,
        "torchvision": rebuild_torchvision,
        "sound": rebuild_sound,
        "rows": rebuild_rows,
    }
    kind = recipe.get("kind")
    try:
        if kind == "own":
            return rebuild_own(recipe, module=module, trust_code=trust_code).eval()
        if kind not in makers:
            raise TopgraftError(f"Unknown kind of network {kind!r}; expected {', '.join([*makers, 'own'])}.")
        with torch.random.fork_rng(devices=[]):
            return makers[kind](recipe).eval()
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise TopgraftError(f"The description of the network ({kind}) can't be used: {error!r}.") from error


def example_of(preprocess: Preprocess) -> dict[str, Tensor]:
    """A batch of two examples as the network will get them: noise; texts and sounds of different length.

    Raises
    ------
    TopgraftError
        For arrays, whose shape only the user knows.
    """
    import numpy as np
    from PIL import Image

    kind = preprocess.describe()["kind"]
    if kind == "text":
        return preprocess.batch(
            ["A text.", "Another text, which is longer, so that one of the two is filled up."]
        )
    if kind == "picture":
        noise = np.random.default_rng(0).integers(0, 256, (2, 320, 320, 3), dtype=np.uint8)
        return preprocess.batch([Image.fromarray(picture) for picture in noise])
    if kind in ("sound", "sound by extractor"):
        from topgraft.data.sounds import Sound

        samples = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
        return preprocess.batch([Sound(samples[:16_000], 16_000), Sound(samples, 16_000)])
    if isinstance(preprocess, RowPreprocess):
        return preprocess.example(4)
    raise TopgraftError("A network for arrays needs an example: example=, a batch of at least two.")


def find(
    source: str | nn.Module,
    *,
    weights: str | Path = "auto",
    modality: Modality | None = None,
    example: Tensor | Mapping[str, Tensor] | None = None,
    preprocess: Preprocess | None = None,
    size: int | None = None,
    seed: int = 0,
) -> Source:
    """The network of a source in eval mode, filled, with its preprocessing, not yet cut.

    Parameters and errors as those of :func:`topgraft.backbones.load`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = _found(
            source, weights=weights, modality=modality, example=example, preprocess=preprocess, size=size
        )
    if preprocess is not None:
        found = _with(found, preprocess)
    must_read(source if isinstance(source, str) else type(source).__qualname__, found.modality, modality)
    if size is not None:
        found = sized(found, size)
    found.network.eval()
    return found


def must_read(name: str, what: Modality, wanted: Modality | None) -> None:
    """Refuse a network that reads something else than the data are."""
    if wanted is not None and wanted != what:
        raise TopgraftError(
            f"{name} reads {_plural(what)}, and the data are {_plural(wanted)}."
            + (f" For them there is {DEFAULTS[wanted]}." if wanted in DEFAULTS else "")
        )


def report_of(
    found: Source, name: str, *, allow_missing: Sequence[str] = (), chain: Chain | None = None
) -> LoadReport:
    """The load report; ``chain`` tells the old output layer where the source does not know it.

    Raises
    ------
    TopgraftError
        If too little of the backbone arrived.
    """
    kept = set(found.network.state_dict())
    if found.output_layers is not None:
        kept -= under(kept, found.output_layers)
    elif chain is not None:
        kept -= {n for n, block in chain.owner_of().items() if block > len(chain) + 1}
    return report_on(
        found.network,
        found.filled,
        kept,
        source=name,
        beside=found.beside,
        allow_missing=allow_missing,
        notes=found.notes,
    )


def _found(
    source: str | nn.Module,
    *,
    weights: str | Path,
    modality: Modality | None,
    example: Tensor | Mapping[str, Tensor] | None,
    preprocess: Preprocess | None,
    size: int | None,
) -> Source:
    if isinstance(source, nn.Module) or TARGET.fullmatch(source):
        return load_own(source, weights=weights, modality=modality, example=example, preprocess=preprocess)
    if is_row_network(source):
        return load_rows(source.partition("/")[2] or "resnet", weights=weights, preprocess=preprocess)
    kind, _, name = source.partition("/")
    if name and kind == "timm":
        from topgraft.backbones.timm import load_timm

        return load_timm(name, weights=weights, size=size)
    if name and kind == "hf":
        from topgraft.backbones.hf import load_hf

        return load_hf(name, weights=weights)
    if name and kind == "torchvision":
        from topgraft.backbones.torchvision import load_torchvision

        return load_torchvision(name, weights=weights)
    if name and kind == "sound":
        from topgraft.backbones.resemblyzer import load_sound

        return load_sound(name, weights=weights)
    raise TopgraftError(_unknown(source))


def _unknown(source: str) -> str:
    import timm

    short = source.rpartition("/")[2]
    known = [*(f"timm/{n}" for n in timm.list_models()), *(f"hf/{n}" for n in HUB_NAMES)]
    known += [DEFAULTS["sound"], DEFAULTS["row"]]
    exact = [k for k in known if k.rpartition("/")[2] == short]
    near = f" Nearest: {', '.join(exact)}." if exact else did_you_mean(f"timm/{short}", known)
    folder = f" hf/{source} is a folder." if source and Path(source).is_dir() else ""
    return (
        f"There is no backbone {source!r}.{folder or near}\n"
        "Give timm/NAME, hf/NAME-or-folder, torchvision/NAME, sound/NAME, rows/resnet, "
        "package.module:function or the folder of a saved graft."
    )


def sized(found: Found, side: int) -> Found:
    """With pictures of another size: pixels of the shorter side.

    Raises
    ------
    TopgraftError
        If the network reads no pictures.
    """
    if not isinstance(found.preprocess, PicturePreprocess):
        raise TopgraftError(f"size={side} is for pictures; the network reads {_plural(found.modality)}.")
    known = found.preprocess
    return found if min(known.size) == side else replace(found, preprocess=known.sized(side))


def _with(found: Found, preprocess: Preprocess) -> Found:
    if preprocess.describe()["kind"] != found.preprocess.describe()["kind"]:
        raise TopgraftError(
            f"The network reads {_plural(found.modality)}; "
            f"the preprocessing given is a {type(preprocess).__name__}."
        )
    return replace(found, preprocess=preprocess)


def _plural(modality: Modality) -> str:
    return {"picture": "pictures", "text": "texts", "sound": "sounds", "array": "arrays", "row": "rows"}[
        modality
    ]
