"""The command line: one function a command, each a thin layer over the stages."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import time
from collections.abc import Callable
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from topgraft import cache, comparing, dataless, listing, model_commands, options
from topgraft.configuration import in_force
from topgraft.console import say_json
from topgraft.errors import TopgraftError
from topgraft.program import EPILOG, Program
from topgraft.stopped import Commands, Stopped, last_words
from topgraft.stopping import gently, said

if TYPE_CHECKING:
    from topgraft.console import Console
    from topgraft.data.types import Data

RARELY = (20_000, 20, 20)
"""When garbage is looked for: millions of objects of libraries stay, and looking at them takes seconds."""

app = Program(
    name="topgraft",
    cls=Commands,
    epilog=EPILOG,
    help="Reuse a pretrained network for your own pictures, texts, sounds or rows, its depth by evidence.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(*, asked: bool) -> None:
    if asked:
        from topgraft import __version__

        typer.echo(f"topgraft {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _version_asked: Annotated[
        bool,
        typer.Option(
            "--version", callback=lambda asked: _version(asked=asked), is_eager=True, help="Say it."
        ),
    ] = False,
) -> None:
    pass


def _console(*, json: bool, quiet: bool) -> Console:
    from topgraft.console import Console

    return Console.for_command(json=json, quiet=quiet)


def _read(
    data: str,
    *,
    text: str | None,
    label: str | None,
    path: str | None,
    group: str | None,
    max_unreadable: float,
    task: str | None,
    backbones: list[str] | None,
    columns: str | None,
    categories: str | None,
    separator: str | None,
    order: str | None,
    console: Console,
) -> Data:
    from topgraft.backbones.loading import reads_rows
    from topgraft.data import read

    return read(
        data,
        text=text,
        label=label,
        path=path,
        group=group,
        max_unreadable=max_unreadable,
        task=task,  # type: ignore[arg-type]  # what it can't be is refused with the nearest choice
        modality="row" if any(map(reads_rows, backbones or ())) else None,
        columns=columns,
        categories=categories,
        separator=separator,
        order=order,
        watch=console.reading,
    )


def _place(on: str | None, *, dry_run: bool) -> str | None:
    """Where the work is done; a process of torchrun that another leads does what that says, and ends here."""
    if on is not None and dry_run:
        raise TopgraftError(f"--dry-run measures this machine: leave --on {on} away.")
    if on is None and "WORLD_SIZE" in os.environ:
        from topgraft.workers import launched

        return launched.place(dry_run=dry_run)
    return on


app.command()(dataless.layers)


@app.command()
def probe(
    data: options.DataArgument,
    backbone: options.Backbones = None,
    weights: options.WeightsOption = "auto",
    allow_missing: options.AllowMissing = None,
    text: options.TextOption = None,
    label: options.LabelOption = None,
    path: options.PathOption = None,
    group: options.GroupOption = None,
    max_unreadable: options.Unreadable = 0.05,
    task: options.TaskOption = None,
    columns: options.Columns = None,
    categories: options.Categories = None,
    separator: options.SeparatorOption = None,
    order: options.OrderOption = None,
    test: options.TestOption = None,
    folds: options.Folds = 5,
    held_out: options.HeldOut = 0.2,
    engine: options.Engine = "auto",
    precision: options.Precision = "auto",
    prefer: options.Prefer = "small",
    windows: options.Windows = 1,
    size: options.Size = None,
    resize: options.Resize = "auto",
    batch_size: options.BatchSize = 32,
    seed: options.Seed = 0,
    on: options.On = None,
    *,
    allow_overlap: options.Overlap = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Measure every depth: a probe at each cut, on the part of the data that choices may use.

    Example: topgraft probe photos/
    """
    del debug
    from topgraft.measuring import run_probe
    from topgraft.settings import Settings
    from topgraft.workers import working_on

    on = _place(on, dry_run=dry_run)
    told = {
        "weights": weights,
        "allow_missing": allow_missing,
        "windows": windows,
        "folds": folds,
        "held_out": held_out,
        "engine": engine,
        "precision": precision,
        "prefer": prefer,
        "size": size,
        "resize": resize,
        "batch_size": batch_size,
        "seed": seed,
    }
    began, settings, console = time.monotonic(), Settings.of(told), _console(json=json, quiet=quiet)
    with working_on(on) as ran:
        document = run_probe(
            _read(
                data,
                text=text,
                label=label,
                path=path,
                group=group,
                max_unreadable=max_unreadable,
                task=task,
                separator=separator,
                order=order,
                backbones=backbone,
                columns=columns,
                categories=categories,
                console=console,
            ),
            settings,
            backbones=backbone or (),
            test=test,
            allow_overlap=allow_overlap,
            dry_run=dry_run,
            timed=json,
            began=began,
            console=console,
        )
    if not dry_run:
        document["on"] = ran()
    if json:
        say_json(document)


@app.command()
def fit(
    data: options.DataArgument,
    out: options.Out = None,
    backbone: options.Backbones = None,
    weights: options.WeightsOption = "auto",
    allow_missing: options.AllowMissing = None,
    keep: options.Keep = "auto",
    freeze: options.Freeze = "auto",
    text: options.TextOption = None,
    label: options.LabelOption = None,
    path: options.PathOption = None,
    group: options.GroupOption = None,
    max_unreadable: options.Unreadable = 0.05,
    task: options.TaskOption = None,
    columns: options.Columns = None,
    categories: options.Categories = None,
    separator: options.SeparatorOption = None,
    order: options.OrderOption = None,
    test: options.TestOption = None,
    folds: options.Folds = 5,
    held_out: options.HeldOut = 0.2,
    nested: options.Nested = 0,
    budget: options.Budget = 600.0,
    epochs: options.Epochs = None,
    rate: options.Rate = None,
    clip: options.Clip = 1.0,
    warmup: options.Warmup = 0.1,
    hidden: options.Hidden = None,
    dropout: options.Dropout = 0.0,
    augment: options.Augment = "auto",
    mixup: options.Mixup = None,
    cutmix: options.Cutmix = 0.0,
    label_smoothing: options.LabelSmoothing = 0.0,
    windows: options.Windows = 1,
    size: options.Size = None,
    resize: options.Resize = "auto",
    taps: options.Taps = "auto",
    soup: options.Soup = None,
    class_weights: options.ClassWeights = "none",
    sampling: options.Sampling = "shuffled",
    score: options.Scorers = None,
    prefer: options.Prefer = "small",
    engine: options.Engine = "auto",
    precision: options.Precision = "auto",
    batch_size: options.BatchSize = 32,
    seed: options.Seed = 0,
    plan: options.PlanOption = None,
    training_workers: options.TrainingWorkers = None,
    on: options.On = None,
    track: options.Track = None,
    track_to: options.TrackTo = None,
    *,
    allow_overlap: options.Overlap = False,
    tune_norms: options.TuneNorms = False,
    normalise: options.Normalise = False,
    refit: options.Refit = True,
    refit_all: options.RefitAll = False,
    trust_code: options.Trust = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Probe, advise, train, evaluate on untouched data, save.

    Example: topgraft fit photos/ -o photos.topgraft
    """
    del debug
    on = _place(on, dry_run=dry_run)
    if track and dry_run:
        raise TopgraftError(f"--dry-run finds nothing to track: leave --track {track[0]} away.")
    told: dict[str, Any] = {
        "test": test,
        "allow_overlap": allow_overlap,
        "text": text,
        "label": label,
        "path": path,
        "group": group,
        "max_unreadable": max_unreadable,
        "task": task,
        "columns": columns,
        "categories": categories,
        "separator": separator,
        "order": order,
        "plan": plan,
        "overwrite": overwrite,
        "console": _console(json=json, quiet=quiet),
        "backbone": backbone,
        "weights": weights,
        "allow_missing": allow_missing,
        "keep": keep,
        "freeze": freeze,
        "folds": folds,
        "held_out": held_out,
        "nested": nested,
        "budget": budget,
        "epochs": epochs,
        "rate": rate,
        "clip": clip,
        "warmup": warmup,
        "hidden": hidden,
        "dropout": dropout,
        "augment": augment,
        "trust_code": trust_code,
        "mixup": mixup,
        "cutmix": cutmix,
        "label_smoothing": label_smoothing,
        "windows": windows,
        "size": size,
        "resize": resize,
        "taps": taps,
        "soup": soup,
        "class_weights": class_weights,
        "sampling": sampling,
        "score": score,
        "prefer": prefer,
        "tune_norms": tune_norms,
        "normalise": normalise,
        "refit": refit,
        "refit_all": refit_all,
        "engine": engine,
        "precision": precision,
        "batch_size": batch_size,
        "training_workers": training_workers,
        "seed": seed,
    }
    if dry_run:
        from topgraft.forecast import forecast

        document = forecast(data, out, **told).to_json()
    else:
        from topgraft.fit import fit as run_fit

        told |= {"on": on, "told_by": in_force(), "track": track or (), "track_to": track_to}
        document = run_fit(data, out, **told).result
    if json:
        say_json(document)


for command in (
    model_commands.predict,
    model_commands.evaluate,
    model_commands.report,
    model_commands.export,
    model_commands.serve,
    comparing.compare,
    dataless.demo,
    listing.backbones,
):
    app.command()(command)


app.add_typer(cache.app)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command; errors that the user can mend are one message and the status 2 (1 while running)."""
    given = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may lack signs that tables have
    run: Callable[..., Any] = app
    command = next((word for word in given if not word.startswith("-")), None)
    if arguments is None:
        gc.set_threshold(*RARELY)
        atexit.register(gc.freeze)  # nor is it looked through when the process ends
    with gently(last_words(command)):
        try:
            run(given)
        except TopgraftError as error:
            if "--debug" in given:
                raise
            is_stopped = isinstance(error, Stopped)
            typer.echo(str(error) if is_stopped else f"Error: {error}", err=True)
            said()
            if is_stopped and arguments is None:  # no Ctrl-C may meet Python while it takes itself apart
                sys.stdout.flush()
                os._exit(error.exit_status)
            sys.exit(error.exit_status)
    sys.exit(0)
