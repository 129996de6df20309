"""From a saved graft to a folder for another runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topgraft.backbones.grafted import PREPROCESSING
from topgraft.console import Console, counted, size
from topgraft.errors import TopgraftError, did_you_mean
from topgraft.export.checking import Difference, measured, must_hold, tolerance
from topgraft.export.examples import Examples, examples_of
from topgraft.export.int8 import say, told_by
from topgraft.export.job import ExportJob, Written, inputs_json, outputs_json
from topgraft.export.outputs import answer_json, outputs_of
from topgraft.export.place import DOCUMENT, check, export_folder
from topgraft.files import write_json
from topgraft.saved import Model, open_model
from topgraft.versions import versions

if TYPE_CHECKING:
    from torch import Tensor, nn

FORM = 1
FORMATS: Mapping[str, str] = {
    "onnx": "onnx",
    "torch": "program",
    "openvino": "openvino",
    "state-dict": "state_dict",
    "huggingface": "hugging_face",
}
"""What an export can be -> the module of this package that writes it."""


@dataclass(frozen=True)
class Export:
    """A folder for another runtime.

    Parameters
    ----------
    path
        The folder.
    format
        One of :data:`FORMATS`.
    document
        The fixed form of ``export --json``.
    """

    path: Path
    format: str
    document: Mapping[str, Any]

    @property
    def difference(self) -> Difference:
        """From the graft in PyTorch in fp32, as the format's own runtime gave it."""
        return Difference(**self.document["difference"])


def export(
    model: Model | str | Path,
    to: str,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    module: nn.Module | None = None,
    trust_code: bool = False,
    int8: bool = False,
    check_on: Any = None,
    console: Console | None = None,
) -> Export:
    """Hand a saved graft over to another runtime, in fp32 or, where asked for, in whole numbers of 8 bits.

    What was written is opened by the runtime itself and compared with the graft in PyTorch, on other numbers
    of examples than it was made with; where it differs by more than the tolerance, nothing is left.

    Parameters
    ----------
    model
        An opened graft, or its folder.
    to
        ``"onnx"``, ``"torch"`` (``torch.export``), ``"openvino"``, ``"state-dict"`` or ``"huggingface"``.
    out
        A folder that does not exist yet; named after the model and the format when not given.
    overwrite
        Whether an earlier export at ``out`` is replaced.
    module
        The network, where it is one's own.
    trust_code
        Whether the function that made one's own network, which the description names, may be run.
    int8
        ``"onnx"`` and ``"openvino"`` only: put the export into 8 bits, see :mod:`topgraft.export.int8`. It is
        compared in fp32 first, and then with itself in fp32, which is told and not bounded.
    check_on
        Examples for that, as for :func:`topgraft.read`: by a part the ranges of activations are set (not of
        texts in ONNX), on the others both are compared.
    console
        Where results are written; nowhere by default.

    Returns
    -------
    Export
        With the folder and everything that was measured.

    Raises
    ------
    TopgraftError
        If the format is unknown, its extra is not installed, the place is taken, or the network can't be
        exported.
    RunningError
        If the export computes something else than the graft.

    Examples
    --------
    >>> export("photos.topgraft", "onxx")
    Traceback (most recent call last):
        ...
    topgraft.errors.TopgraftError: --to onxx: give one of onnx, torch, ... Nearest: onnx.
    """
    if to not in FORMATS:
        raise TopgraftError(f"--to {to}: give one of {', '.join(FORMATS)}.{did_you_mean(to, FORMATS)}")
    source = None if isinstance(model, Model) else Path(model)
    path = default_folder(source, to) if out is None else Path(out)
    check(path, overwrite=overwrite)
    writer = import_module(f"topgraft.export.{FORMATS[to]}")
    if hasattr(writer, "must_be_installed"):
        writer.must_be_installed()
    opened = model if isinstance(model, Model) else open_model(model, module=module, trust_code=trust_code)
    if check_on is not None and not int8:
        raise TopgraftError("--check is for --int8; an export in fp32 is checked on packaged examples.")
    given = told_by(opened, check_on, to=to) if int8 else None
    write: Callable[[ExportJob], Written] = writer.write
    console = console or Console()
    examples = examples_of(opened)
    with export_folder(path, overwrite=overwrite) as folder:
        written = write(ExportJob(opened, source, folder, examples, module, trust_code, int8, given))
        most = tolerance(opened, examples.checked)
        must_hold(written.difference, most, written.runtime)
        document = _document(opened, to, written, most, examples)
        if to != "huggingface":
            (folder / PREPROCESSING).mkdir()
            opened.preprocess.save(folder / PREPROCESSING)
        write_json(folder / DOCUMENT, document)
    files = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    told = {
        "path": str(path),
        "bytes": sum((path / f).stat().st_size for f in files),
        "files": files,
        **document,
    }
    _say(console, told, examples)
    return Export(path, to, told)


def default_folder(source: Path | None, to: str) -> Path:
    """Where an export goes when nobody says: beside where one stands, named after model and format.

    Examples
    --------
    >>> default_folder(Path("runs/photos.topgraft"), "onnx").name
    'photos-onnx'
    """
    stem = "graft" if source is None else source.resolve().name.split(".")[0] or "graft"
    return Path(f"{stem}-{to}")


def _document(
    model: Model, to: str, written: Written, most: Difference, examples: Examples
) -> dict[str, Any]:
    """What ``export.json`` holds: all that a person needs to run it without topgraft."""
    description = model.description
    return {
        "form": FORM,
        "format": to,
        "inputs": inputs_json(model),
        "outputs": outputs_json(model),
        "task": model.task,
        "classes": list(model.classes),
        "numbers": list(model.outputs),
        "answer": answer_json(model),
        "modality": model.modality,
        "preprocessing": model.preprocess.describe(),
        "precision": "fp32",
        "runtime": written.runtime,
        "checked_on": f"{examples.count} {examples.kind}",
        "difference": written.difference.to_json(),
        "tolerance": most.to_json(),
        "from_predict": _from_predict(model, to, examples),
        "backbone": description["backbone"]["source"],
        "licence": description["backbone"]["licence"],
        "keep": description["keep"],
        "kept": description["kept"],
        "versions": versions(),
        **written.more,
    }


def _from_predict(model: Model, to: str, examples: Examples) -> dict[str, Any] | None:
    """Where ``predict`` runs the frozen part in another precision: how far its answers are from fp32."""
    if model.precision == "fp32" or model.graft.frozen is None or to == "huggingface":
        return None
    from topgraft.predict import Predictor

    predictor = Predictor(model)

    def run(batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return outputs_of(model.task, predictor.logits(dict(batch)))

    found = measured(run, model, examples.checked)
    return {"precision": model.precision, "engine": model.engine, "difference": found.to_json()}


def _say(console: Console, told: Mapping[str, Any], examples: Examples) -> None:
    files, more = told["files"], len(told["files"]) - 4
    shown = ", ".join(files[:4]) + (f" and {counted(more, 'other')}" if more > 0 else "")
    console.line("Exported", f"{told['path']} ({size(told['bytes'])}): {shown}")
    for label, key in (("Reads", "inputs"), ("Gives", "outputs")):
        ports = [f"{p['name']} {p['dtype']} ({', '.join(map(str, p['shape']))})" for p in told[key]]
        console.line(label, ", ".join(ports))
    difference, most = (Difference(**told[key]) for key in ("difference", "tolerance"))
    console.line(
        "Checked",
        f"by {told['runtime']} on {examples.count} {examples.kind}, in batches of "
        f"{' and '.join(str(len(next(iter(b.values())))) for b in examples.checked)}. They differ from "
        f"PyTorch's in fp32 by at most: {difference.in_words()} (limits: {most.in_words()})",
    )
    console.line("Answer", f"from {told['answer']['from']}: {told['answer']['told']}")
    if "int8" in told:
        say(console, told["int8"])
    if (other := told["from_predict"]) is not None:
        console.line(
            "Note",
            f"predict runs the frozen part in {other['precision']} by {other['engine']}, and this is fp32: "
            f"on the same examples they differ by up to: {Difference(**other['difference']).in_words()}",
        )
