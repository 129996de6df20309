"""The commands on what a fit saved: predict, evaluate, report, export, serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from topgraft import options
from topgraft.console import Console, say_json


def predict(
    model: options.ModelArgument,
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, a table, or - for standard input.")],
    text: options.TextOption = None,
    path: options.PathOption = None,
    form: Annotated[str, typer.Option("--format", help="csv or jsonl.")] = "csv",
    coverage: options.Coverage = None,
    tta: options.Tta = 1,
    batch_size: options.BatchSize = 32,
    *,
    trust_code: options.Trust = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
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
        coverage=coverage,
        tta=tta,
        batch_size=batch_size,
        trust_code=trust_code,
        console=Console.for_command(json=True, quiet=quiet),
    )


def evaluate(
    model: options.ModelArgument,
    data: options.DataArgument,
    text: options.TextOption = None,
    label: options.LabelOption = None,
    path: options.PathOption = None,
    group: options.GroupOption = None,
    max_unreadable: options.Unreadable = 0.05,
    score: options.Scorers = None,
    tta: options.Tta = 1,
    *,
    trust_code: options.Trust = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
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
        console=Console.for_command(json=json, quiet=quiet),
        scorers=score or (),
        tta=tta,
    )
    if json:
        say_json(result)


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="What fit saved; several side by side; or the file that compare -o wrote."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The page; default: report.html in the run's folder, A-beside-B.html here for several, "
            "and beside the file of a comparison.",
        ),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="A folder for each figure as PNG, SVG and CSV, and numbers.json.")
    ] = None,
    *,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Write what was found out as one HTML page that needs no network: of a run, of several, of a comparison.

    Several runs are set side by side: what differs between them, and which is better where they were judged
    on the same untouched examples.

    Example: topgraft report photos.topgraft
    """
    del debug
    from topgraft.report.reports import write_report

    page, numbers = write_report(runs, out, figures)
    console = Console.for_command(json=json, quiet=quiet)
    is_one_run = "untouched" in numbers
    if not is_one_run:
        console.line("Found", numbers["summary"][0])
    console.line("Report", str(page))
    if json:
        told = {"report": str(page), "figures": None if figures is None else str(figures)}
        say_json(told if is_one_run else {**told, "numbers": numbers})


def export(
    model: options.ModelArgument,
    to: Annotated[str, typer.Option("--to", help="onnx, torch, openvino, state-dict or huggingface.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to make; default: NAME-FORMAT.")
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(help="Examples for --int8, as fit reads them: they set ranges, and tell the loss."),
    ] = None,
    *,
    int8: Annotated[
        bool,
        typer.Option("--int8", help="onnx, openvino: in whole numbers of 8 bits; what it costs is told."),
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier export.")] = False,
    trust_code: options.Trust = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Hand a saved model over to another runtime, checked by that runtime before it appears.

    Example: topgraft export photos.topgraft --to onnx -o photos-onnx
    """
    del debug
    from topgraft.export import export as run_export

    done = run_export(
        model,
        to,
        out,
        overwrite=overwrite,
        trust_code=trust_code,
        int8=int8,
        check_on=check,
        console=Console.for_command(json=json, quiet=quiet),
    )
    if json:
        say_json(dict(done.document))


def serve(
    model: options.ModelArgument,
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than this machine's own reach it.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes one that is free.")] = 8000,
    max_body: Annotated[float, typer.Option(help="MB of the largest request.")] = 16.0,
    max_inputs: Annotated[int, typer.Option(help="Inputs of the largest request.")] = 256,
    max_waiting: Annotated[int, typer.Option(help="Inputs that may wait for their turn.")] = 1024,
    max_seconds: Annotated[
        float, typer.Option(help="For reading a request, and again for its answer.")
    ] = 30.0,
    batch: Annotated[int, typer.Option(help="Inputs that are run at the same time.")] = 32,
    examples: Annotated[
        str | None,
        typer.Option(help="Data, as fit read them: the page shows which of them are nearest to an input."),
    ] = None,
    text: options.TextOption = None,
    label: options.LabelOption = None,
    path: options.PathOption = None,
    *,
    trust_code: options.Trust = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Serve a saved model over HTTP, with a page to try it; on this machine only, unless told otherwise.

    Example: topgraft serve photos.topgraft
    """
    del debug
    from topgraft.serve.limits import Limits, in_bytes
    from topgraft.serve.running import run_serve

    limits = Limits(
        body=in_bytes(max_body),
        inputs=max_inputs,
        waiting=max_waiting,
        seconds=max_seconds,
        batch=batch,
    )
    run_serve(
        model,
        host=host,
        port=port,
        limits=limits,
        trust_code=trust_code,
        as_json=json,
        console=Console.for_command(json=json, quiet=quiet),
        examples=examples,
        columns={"text": text, "label": label, "path": path},
    )
