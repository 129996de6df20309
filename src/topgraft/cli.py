"""The command line: one function a command, each a thin layer over the stages."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from topgraft.errors import TopgraftError

if TYPE_CHECKING:
    from topgraft.console import Console
    from topgraft.data.types import Data

GO_ON = ("fit", "demo")
"""Commands that go on where they were stopped."""


class Stopped(TopgraftError):
    """The user stopped the command (Ctrl-C)."""

    exit_status = 130


class Commands(TyperGroup):
    """The commands; one that is stopped says whether it can go on."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was given."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            more = " The same command goes on where it was." if ctx.invoked_subcommand in GO_ON else ""
            raise Stopped(f"Stopped.{more}") from stop


app = typer.Typer(
    name="topgraft",
    cls=Commands,
    help="Reuse a pretrained network for your own pictures or texts, its depth chosen on evidence.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where in the code an error arose.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing for people but errors.")]
DataArgument = Annotated[str, typer.Argument(help="A folder with one folder a class, or a table.")]
BackboneOption = Annotated[
    str | None,
    typer.Option(help="timm/NAME, hf/NAME-or-folder, torchvision/NAME or package.module:function."),
]
WeightsOption = Annotated[str, typer.Option(help="auto, none (random values), or a file of weights.")]
AllowMissing = Annotated[
    list[str] | None, typer.Option(help="Tensors, by name or pattern, that the weights need not hold.")
]
TextOption = Annotated[str | None, typer.Option(help="Column of texts.")]
LabelOption = Annotated[str | None, typer.Option(help="Column of labels.")]
PathOption = Annotated[str | None, typer.Option(help="Column of paths of pictures.")]
GroupOption = Annotated[str | None, typer.Option(help="Column of groups that no split divides.")]
Unreadable = Annotated[float, typer.Option(help="Share of the examples that may be unusable.")]
TestOption = Annotated[str | None, typer.Option(help="A test set of its own, for the final score.")]
Overlap = Annotated[bool, typer.Option(help="Whether the test set may share examples with the data.")]
Seed = Annotated[int, typer.Option(help="Of every random choice.")]
Folds = Annotated[int, typer.Option(help="Folds of the probes.")]
HeldOut = Annotated[float, typer.Option(help="Share kept untouched for the final score.")]
Precision = Annotated[str, typer.Option(help="Of the frozen part: fp32 or bf16.")]
BatchSize = Annotated[int, typer.Option(help="Examples in a step.")]
Budget = Annotated[float, typer.Option(help="Seconds for the whole.")]
Keep = Annotated[str, typer.Option(help="auto, a count, a share (60%), a block's name, or all.")]
Freeze = Annotated[str, typer.Option(help="auto, 0, a count, a share of the kept, a block's name, or all.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder to make; default: NAME.topgraft.")]
Overwrite = Annotated[bool, typer.Option(help="Replace a finished run.")]
PlanOption = Annotated[Path | None, typer.Option(help="plan.json of a run to repeat.")]
Hidden = Annotated[list[int] | None, typer.Option(help="Width of a hidden layer; may be repeated.")]
Dropout = Annotated[float, typer.Option(help="In the head.")]
Augment = Annotated[str, typer.Option(help="Pictures: auto, none or standard.")]
ClassWeights = Annotated[str, typer.Option(help="none or balanced.")]
TuneNorms = Annotated[bool, typer.Option(help="Let batch norms of trainable blocks renew statistics.")]
Refit = Annotated[bool, typer.Option(help="Fit again on training and validation part together.")]
RefitAll = Annotated[bool, typer.Option(help="Then also learn from the untouched part.")]
Rate = Annotated[float | None, typer.Option(help="Peak learning rate.")]
Epochs = Annotated[int | None, typer.Option(help="Epochs for which training is laid out.")]
ModelArgument = Annotated[Path, typer.Argument(help="What fit saved.")]
Trust = Annotated[bool, typer.Option(help="Run the function that makes one's own network.")]


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


def _say_json(document: Any) -> None:
    typer.echo(json_module.dumps(document, ensure_ascii=False, indent=2, allow_nan=False))


def _read(
    data: str,
    *,
    text: str | None,
    label: str | None,
    path: str | None,
    group: str | None,
    max_unreadable: float,
    classes: list[str] | None = None,
    modality: Any = None,
) -> Data:
    from topgraft.data import read

    return read(
        data,
        text=text,
        label=label,
        path=path,
        group=group,
        max_unreadable=max_unreadable,
        classes=classes,
        modality=modality,
    )


@app.command()
def layers(
    backbone: Annotated[str, typer.Argument(help="timm/NAME, hf/NAME-or-folder, torchvision/NAME, …")],
    weights: WeightsOption = "none",
    *,
    why: Annotated[bool, typer.Option("--why", help="List the cuts that were refused.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show a network as a chain of blocks: names, output shapes, parameters, share of the work.

    Example: topgraft layers timm/tf_efficientnet_lite0
    """
    del debug
    from topgraft.backbones import load
    from topgraft.show import chain_rows, chain_table

    found = load(backbone, weights=weights)
    console = _console(json=json, quiet=quiet)
    refused = [{"block": r.block, "reason": r.reason} for r in found.chain.refused]
    if json:
        _say_json({"backbone": backbone, "blocks": chain_rows(found.chain), "refused": refused})
        return
    chain_table(console, found.chain)
    console.text()
    tail = f"; {len(refused)} cuts were refused (--why)" if refused and not why else ""
    console.text(f"{backbone}: {len(found.chain)} blocks, every cut checked to compute the same{tail}")
    for entry in refused if why else []:
        console.text(f"  {entry['block']}: {entry['reason']}")


@app.command()
def probe(
    data: DataArgument,
    backbone: BackboneOption = None,
    weights: WeightsOption = "auto",
    allow_missing: AllowMissing = None,
    text: TextOption = None,
    label: LabelOption = None,
    path: PathOption = None,
    group: GroupOption = None,
    max_unreadable: Unreadable = 0.05,
    test: TestOption = None,
    folds: Folds = 5,
    held_out: HeldOut = 0.2,
    precision: Precision = "fp32",
    batch_size: BatchSize = 32,
    seed: Seed = 0,
    *,
    allow_overlap: Overlap = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure every depth: a probe at each cut, on the part of the data that choices may use.

    Example: topgraft probe photos/
    """
    del debug
    from topgraft.features.store import Store
    from topgraft.settings import Settings
    from topgraft.show import backbone_lines, data_lines, evidence_table, probe_json
    from topgraft.stages import advise, load_for, measure, prepare, probe_all, reuse, time_one_batch

    console = _console(json=json, quiet=quiet)
    options = {
        "backbone": backbone,
        "weights": weights,
        "allow_missing": allow_missing,
        "folds": folds,
        "held_out": held_out,
        "precision": precision,
        "batch_size": batch_size,
        "seed": seed,
    }
    settings = Settings.of(options)
    found = _read(data, text=text, label=label, path=path, group=group, max_unreadable=max_unreadable)
    network = load_for(found, settings)
    ready = prepare(found, network, settings, test=test, allow_overlap=allow_overlap)
    backbone_lines(console, network)
    away = f"{len(ready.untouched):,} kept untouched for the final score"
    data_lines(console, found, untouched=away)
    if ready.notes:
        console.line("Folds", *ready.notes)
    features, told = measure(network, ready.development, Store(), settings, console)
    evidence, _ = probe_all(features, ready.development, ready.fold_of)
    advice = advise(evidence, network.chain, seed=seed)
    evidence_table(console, network.chain, evidence, advice)
    for note in evidence.notes:
        console.line("Note", note)
    block = network.chain.blocks[advice.keep - 1].name
    console.line("Advice", f"keep {advice.keep} of {len(network.chain)} (to {block}): {advice.reason}")
    if json:
        rate = told["seconds_an_example"]
        if told["items_reused"] and not rate:
            rate = time_one_batch(network, ready.development, settings)
        resumed = reuse("pass", told["items_reused"], told["items_reused"] * rate)
        _say_json(probe_json(network, evidence, advice, resumed))


@app.command()
def fit(
    data: DataArgument,
    out: Out = None,
    backbone: BackboneOption = None,
    weights: WeightsOption = "auto",
    allow_missing: AllowMissing = None,
    keep: Keep = "auto",
    freeze: Freeze = "auto",
    text: TextOption = None,
    label: LabelOption = None,
    path: PathOption = None,
    group: GroupOption = None,
    max_unreadable: Unreadable = 0.05,
    test: TestOption = None,
    folds: Folds = 5,
    held_out: HeldOut = 0.2,
    budget: Budget = 600.0,
    epochs: Epochs = None,
    rate: Rate = None,
    hidden: Hidden = None,
    dropout: Dropout = 0.0,
    augment: Augment = "auto",
    class_weights: ClassWeights = "none",
    precision: Precision = "fp32",
    batch_size: BatchSize = 32,
    seed: Seed = 0,
    plan: PlanOption = None,
    *,
    allow_overlap: Overlap = False,
    tune_norms: TuneNorms = False,
    refit: Refit = True,
    refit_all: RefitAll = False,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Probe, advise, train, evaluate on untouched data, save.

    Example: topgraft fit photos/ -o photos.topgraft
    """
    del debug
    from topgraft.fit import fit as run_fit

    run = run_fit(
        data,
        out,
        test=test,
        allow_overlap=allow_overlap,
        text=text,
        label=label,
        path=path,
        group=group,
        max_unreadable=max_unreadable,
        plan=plan,
        overwrite=overwrite,
        console=_console(json=json, quiet=quiet),
        backbone=backbone,
        weights=weights,
        allow_missing=allow_missing,
        keep=keep,
        freeze=freeze,
        folds=folds,
        held_out=held_out,
        budget=budget,
        epochs=epochs,
        rate=rate,
        hidden=hidden,
        dropout=dropout,
        augment=augment,
        class_weights=class_weights,
        tune_norms=tune_norms,
        refit=refit,
        refit_all=refit_all,
        precision=precision,
        batch_size=batch_size,
        seed=seed,
    )
    if json:
        _say_json(run.result)


@app.command()
def predict(
    model: ModelArgument,
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, a table, or - for standard input.")],
    text: TextOption = None,
    path: PathOption = None,
    form: Annotated[str, typer.Option("--format", help="csv or jsonl.")] = "csv",
    batch_size: BatchSize = 32,
    *,
    trust_code: Trust = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Give label and probabilities of new inputs, in the order given, as CSV or JSON lines.

    Example: topgraft predict photos.topgraft new/*.jpg
    """
    del debug
    from topgraft.commands import run_predict

    run_predict(
        model,
        inputs,
        column=text or path,
        form="json" if json else form,
        batch_size=batch_size,
        trust_code=trust_code,
        console=_console(json=True, quiet=quiet),
    )


@app.command()
def evaluate(
    model: ModelArgument,
    data: DataArgument,
    text: TextOption = None,
    label: LabelOption = None,
    path: PathOption = None,
    group: GroupOption = None,
    max_unreadable: Unreadable = 0.05,
    *,
    trust_code: Trust = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Score a saved model on new labelled data, with the precision, recall and support of each class.

    Example: topgraft evaluate photos.topgraft more-photos/
    """
    del debug
    from topgraft.commands import run_evaluate

    columns = {"text": text, "label": label, "path": path, "group": group}
    result = run_evaluate(
        model,
        data,
        columns=columns,
        max_unreadable=max_unreadable,
        trust_code=trust_code,
        console=_console(json=json, quiet=quiet),
    )
    if json:
        _say_json(result)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make.")] = Path("demo.topgraft"),
    budget: Budget = 60.0,
    seed: Seed = 0,
    *,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """The whole job on the packaged pictures, then two of the untouched pictures predicted.

    Example: topgraft demo
    """
    del debug
    from topgraft.commands import run_demo

    result = run_demo(out, budget=budget, seed=seed, console=_console(json=json, quiet=quiet))
    if json:
        _say_json(result)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command; errors that the user can mend are one message and the status 2 (1 while running)."""
    given = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may lack signs that tables have
    run: Callable[..., Any] = app
    try:
        run(given)
    except TopgraftError as error:
        if "--debug" in given:
            raise
        typer.echo(str(error) if isinstance(error, Stopped) else f"Error: {error}", err=True)
        sys.exit(error.exit_status)
    sys.exit(0)
