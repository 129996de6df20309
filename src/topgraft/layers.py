"""What ``topgraft layers`` does: a network as a chain, in a table, as JSON and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from topgraft.backbones import load
from topgraft.choices import named, resolve_shown, share_in_words
from topgraft.console import Console
from topgraft.drawing import svg as draw
from topgraft.files import write_whole
from topgraft.show import chain_json, chain_summary, chain_table, chain_why


def run_layers(
    source: str,
    weights: str,
    *,
    keep: str | None = None,
    freeze: str | None = None,
    svg: Path | None = None,
    why: bool = False,
    console: Console,
) -> dict[str, Any]:
    """Show a network as a chain, draw it where asked, and give the fixed form of ``layers --json``.

    Parameters
    ----------
    source, weights
        As for :func:`topgraft.load`.
    keep, freeze
        As for ``topgraft fit``, without ``auto``, to show where they fall.
    svg
        File for the picture, which is there complete or not at all.
    why
        Whether to tell how each cut was checked, and which cuts were refused.
    console
        What a person sees.

    Raises
    ------
    TopgraftError
        If there is no such network, keep or freeze can't be meant, or the picture can't be written.
    """
    chain = load(source, weights=weights).chain
    kept, frozen = resolve_shown(keep, freeze, chain, source)
    if svg is not None:
        write_whole(svg, draw(chain.blocks, kept, frozen, title=source).encode())
    chain_table(console, chain, kept, frozen, why=why)
    if why:
        chain_why(console, chain)
    console.text()
    chain_summary(console, source, chain, why=why)
    if kept is not None:
        share = share_in_words(keep or "", len(chain))
        console.text(f"keep {named(chain, kept)}{f': {share}' if share else f' of {len(chain)} blocks'}")
    if kept is not None and frozen is not None:
        share = share_in_words(freeze or "", kept, "kept blocks")
        console.text(f"freeze {named(chain, frozen)}{f': {share}' if share else f' of {kept} kept blocks'}")
    if svg is not None:
        console.text(f"Drawn in {svg}")
    return chain_json(source, chain, kept, frozen)
