"""A fit, or its probes, up to the first piece of work: what all of it would cost."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from topgraft.console import Console
from topgraft.cost import Forecast
from topgraft.cost import forecast as together
from topgraft.errors import TopgraftError
from topgraft.features.store import Store
from topgraft.fit import begin
from topgraft.rehearsal import candidates, costs_for
from topgraft.resizing import resizing_foreseen
from topgraft.run import RunFolder
from topgraft.rungs import search_foreseen
from topgraft.show_cost import cost_tables
from topgraft.stages import Prepared, engine_for, engine_in_words, planned


def forecast(
    source: Any,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    store: Store | None = None,
    console: Console | None = None,
    **options: Any,
) -> Forecast:
    """What :func:`topgraft.fit` with the same arguments would cost, without doing it.

    Data are read and the backbone is loaded; then a few examples are run. No activation is stored, and no
    folder is made; a network that was converted is kept.

    Parameters
    ----------
    source, out, overwrite, store, console, **options
        As for :func:`topgraft.fit`; without ``out``, what lies at a fit's default place does not matter.

    Returns
    -------
    Forecast
        Seconds, memory and disk of the pass and the probes, and of choices of keep and freeze.

    Raises
    ------
    TopgraftError
        As :func:`topgraft.fit` does before its first piece of work.
    """
    began = time.monotonic()
    console = console or Console()
    if out is not None:
        RunFolder.check(Path(out), overwrite=overwrite)
    start = begin(source, console=console, **options)
    if start.rivals:
        raise TopgraftError(f"A forecast is for one backbone at a time; {len(start.rivals)} were given.")
    return foretell(start.ready, store or Store(), console, began=began, decisions=start.given)


def foretell(
    ready: Prepared,
    store: Store,
    console: Console,
    *,
    began: float,
    decisions: dict[str, Any] | None = None,
    choices: bool = True,
) -> Forecast:
    """Run the trial and say what the work costs.

    Parameters
    ----------
    ready
        Data and backbone.
    store
        Where activations are kept; none is written to it, but converted networks are.
    console
        Where the tables go.
    began
        ``time.monotonic()`` at the start.
    decisions
        Of a plan.
    choices
        Whether keep and freeze are to be chosen, too.
    """
    settings = planned(ready.settings, decisions or {})
    choice = engine_for(ready.backbone, ready.development, store, settings)
    if decisions and decisions.keys() >= {"engine", "precision"}:
        choice = replace(choice, reason=str(decisions["engine"]["reason"]))
    console.line("Engine", engine_in_words(choice))
    ready = replace(ready, settings=replace(ready.settings, engine=choice.engine, precision=choice.precision))
    costs = costs_for(ready, store, spent=time.monotonic() - began, decisions=decisions)
    resizing = resizing_foreseen(ready, store, costs, repeat=decisions is not None, choices=choices)
    after = costs
    if resizing is not None:
        after = replace(costs, work=replace(costs.work, spent=costs.work.spent + resizing.seconds))
    search = search_foreseen(after, ready, store) if choices and decisions is None else None
    told = together(costs, candidates(after, ready, store, decisions) if choices else (), resizing, search)
    cost_tables(console, told, ready.backbone.chain)
    if parts := ready.settings.nested:
        console.line(
            "Nested", f"but for the pass, all of it {parts + 1} times, each with its share of --budget"
        )
    return told
