"""The commands that list backbones, and the blocks of one."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from topgraft import options
from topgraft.console import Console, say_json

if TYPE_CHECKING:
    from topgraft.backbones.catalogue import Listed

_HERE = {"packaged": "packaged", "cached": "cached", "download": "to download"}


def layers(
    backbone: Annotated[str, typer.Argument(help="timm/NAME, hf/NAME-or-folder, torchvision/NAME, …")],
    weights: options.WeightsOption = "none",
    keep: options.ShownKeep = None,
    freeze: options.ShownFreeze = None,
    svg: options.Svg = None,
    *,
    why: options.Why = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Show a network as a chain of blocks, and where keep and freeze fall.

    Example: topgraft layers timm/tf_efficientnet_lite0
    """
    del debug
    from topgraft.layers import run_layers

    shown = Console.for_command(json=json, quiet=quiet or json)
    document = run_layers(backbone, weights, keep=keep, freeze=freeze, svg=svg, why=why, console=shown)
    if json:
        say_json(document)


def backbones(
    word: Annotated[str, typer.Argument(help="What names must contain, or a pattern: resnet*.")] = "",
    modality: Annotated[str | None, typer.Option(help="picture, text or sound.")] = None,
    *,
    at_hand: Annotated[bool, typer.Option("--at-hand", help="Only what needs no download.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """List the backbones that can be had, with what their libraries say of them.

    Example: topgraft backbones efficientnet_lite
    """
    del debug
    from topgraft.backbones.catalogue import backbones as listed
    from topgraft.data.types import MODALITIES
    from topgraft.errors import TopgraftError

    known = [m for m in MODALITIES if m not in ("array", "row")]
    if modality is not None and modality not in known:
        raise TopgraftError(f"--modality {modality}: give one of {', '.join(known)}.")
    console = Console.for_command(json=json, quiet=quiet)
    found = listed(word, modality=modality, at_hand=at_hand)
    header = [
        "backbone",
        "reads",
        "parameters",
        "pixels",
        "multiply-adds",
        "accuracy",
        "licence",
        "where",
        "notes",
    ]
    used = [any(_row(one)[i] for one in found) for i in range(len(header))]
    rows = [[cell for cell, show in zip(_row(one), used, strict=True) if show] for one in found]
    shown = [name for name, show in zip(header, used, strict=True) if show]
    left = [i for i, name in enumerate(shown) if name in ("backbone", "reads", "licence", "where", "notes")]
    console.table(shown, rows, left=left)
    console.text()
    if not word and not at_hand:
        console.text("More, of timm and torchvision, by a word: topgraft backbones resnet50")
    if any(one.at_hand == "download" for one in found):
        console.text("What is to download comes from the hub or its library's address when it is first used.")
    if json:
        say_json({"backbones": [asdict(one) for one in found]})


def _row(one: Listed) -> list[str]:
    return [
        one.source,
        f"{one.modality}s",
        "" if one.parameters is None else _short(one.parameters),
        "" if one.side is None else str(one.side),
        "" if one.macs is None else _short(one.macs),
        one.accuracy or "",
        one.licence or "",
        _HERE[one.at_hand],
        one.note,
    ]


def _short(number: float) -> str:
    """``4.65 M`` of 4,652,008."""
    step, unit = (1e9, "G") if number >= 1e9 else (1e6, "M")
    return f"{number / step:.3g} {unit}"
