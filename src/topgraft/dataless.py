"""The commands that need no data of one's own: layers, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from topgraft import options
from topgraft.console import Console, say_json


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


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make.")] = Path("demo.topgraft"),
    budget: options.Budget = 60.0,
    seed: options.Seed = 0,
    *,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """The whole job on the packaged pictures, then two of the untouched pictures predicted.

    Example: topgraft demo
    """
    del debug
    from topgraft.commands import run_demo

    result = run_demo(out, budget=budget, seed=seed, console=Console.for_command(json=json, quiet=quiet))
    if json:
        say_json(result)
