"""What the commands can be told: each argument and option once, with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where in the code an error arose.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing for people but errors.")]
DataArgument = Annotated[str, typer.Argument(help="A folder with one folder a class, a table, or hf/NAME.")]
_BACKBONE = (
    "timm/NAME, hf/NAME-or-folder, torchvision/NAME, sound/NAME, rows/resnet, package.module:function or a "
    "saved graft"
)
BackboneOption = Annotated[str | None, typer.Option(help=f"{_BACKBONE}.")]
Backbones = Annotated[
    list[str] | None,
    typer.Option("--backbone", help=f"{_BACKBONE}; of several, given each, the best is chosen."),
]
WeightsOption = Annotated[str, typer.Option(help="auto, none (random values), or a file of weights.")]
AllowMissing = Annotated[
    list[str] | None, typer.Option(help="Tensors, by name or pattern, that the weights need not hold.")
]
TextOption = Annotated[str | None, typer.Option(help="Column of texts; two columns for pairs of texts: a,b.")]
LabelOption = Annotated[
    str | None, typer.Option(help="Column of labels; of numbers, or of 0 and 1 a label, also several: a,b.")
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        help="classification; multilabel: several labels an example; ordinal: classes with an order; "
        "regression: numbers to be predicted."
    ),
]
OrderOption = Annotated[
    str | None,
    typer.Option("--order", help="Ordered classes from the first to the last, as in low,middle,high."),
]
SeparatorOption = Annotated[
    str | None, typer.Option(help="Between several labels in one cell; with --task multilabel it is |.")
]
PathOption = Annotated[str | None, typer.Option(help="Column of paths of pictures or sounds.")]
Columns = Annotated[
    str | None, typer.Option(help="Columns of numbers and categories to learn from: a,b,c, or all.")
]
Categories = Annotated[
    str | None, typer.Option(help="Those of them that are categories although they look like numbers: a,b.")
]
GroupOption = Annotated[str | None, typer.Option(help="Column of groups that no split divides.")]
Unreadable = Annotated[float, typer.Option(help="Share of the examples that may be unusable.")]
TestOption = Annotated[str | None, typer.Option(help="A test set of its own, for the final score.")]
Overlap = Annotated[bool, typer.Option(help="Whether the test set may share examples with the data.")]
On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="WHERE",
        help="Where the work is done: ray, ray://HOST:PORT or HOST:PORT; here by default.",
    ),
]
Seed = Annotated[int, typer.Option(help="Of every random choice.")]
Folds = Annotated[int, typer.Option(help="Folds of the probes.")]
HeldOut = Annotated[float, typer.Option(help="Share kept untouched for the final score.")]
Nested = Annotated[
    int,
    typer.Option(
        help="Little data: score by nested cross-validation in so many parts, and learn from all examples."
    ),
]
Engine = Annotated[str, typer.Option(help="Of the frozen part: auto (measured), torch, openvino or cuda.")]
Precision = Annotated[str, typer.Option(help="Of the frozen part: auto (measured), fp32 or bf16.")]
BatchSize = Annotated[int, typer.Option(help="Examples in a step.")]
Budget = Annotated[float, typer.Option(help="Seconds for the whole.")]
_KEEP = "a count, a share of the number of blocks (60%: rounded, at least 1), a block's name, or all."
_FREEZE = "0, a count, a share of the kept blocks (50%), a block's name, or all."
Keep = Annotated[str, typer.Option(help=f"auto, {_KEEP}")]
Freeze = Annotated[str, typer.Option(help=f"auto, {_FREEZE[:-1]}; several (12,9,0) are tried.")]
ShownKeep = Annotated[str | None, typer.Option("--keep", help=f"Show where it falls: {_KEEP}")]
ShownFreeze = Annotated[str | None, typer.Option("--freeze", help=f"Show where it falls: {_FREEZE}")]
Svg = Annotated[Path | None, typer.Option("--svg", help="File to write: the chain as a picture.")]
Why = Annotated[
    bool, typer.Option("--why", help="How each cut was checked, and why cuts were refused that were tried.")
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder to make; default: NAME.topgraft.")]
Overwrite = Annotated[bool, typer.Option(help="Replace a finished run.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what it would cost, in time, memory and disk, and stop.")
]
PlanOption = Annotated[Path | None, typer.Option(help="plan.json of a run to repeat.")]
Hidden = Annotated[list[int] | None, typer.Option(help="Width of a hidden layer; may be repeated.")]
Dropout = Annotated[float, typer.Option(help="In the head.")]
Augment = Annotated[
    str,
    typer.Option(
        help="Pictures: auto (a few stored views where a part is frozen), none, light, standard, strong, or "
        "package.module:function with --trust-code."
    ),
]
Mixup = Annotated[
    float | None,
    typer.Option(help="Train on mixtures of two examples: alpha, 0 for none; by default 1 for pictures."),
]
Windows = Annotated[
    int, typer.Option(help="Texts: read long ones in so many pieces at most, whose answers are averaged.")
]
Cutmix = Annotated[
    float,
    typer.Option(
        help="Pictures: train with a box of another one pasted in: alpha, 0 for none; alone, no mixup."
    ),
]
LabelSmoothing = Annotated[
    float, typer.Option(help="Share of each label that is spread over the classes in training.")
]
Size = Annotated[
    int | None,
    typer.Option(help="Pictures: pixels of the shorter side for the network; by default its own."),
]
Resize = Annotated[
    str,
    typer.Option(help="How pictures get the network's size: auto, pretrained, crop, squash or border."),
]
Taps = Annotated[
    str,
    typer.Option(help="Earlier cuts that the head reads, too: auto, none, or counts and names, as in 4,9."),
]
Soup = Annotated[
    int | None,
    typer.Option(help="Trainings whose weights are averaged at the end; by default up to 3, as time allows."),
]
TrainingWorkers = Annotated[
    int | None,
    typer.Option(help="Workers that share each step of a training; by default one a machine, with --on."),
]
ClassWeights = Annotated[str, typer.Option(help="none or balanced.")]
Sampling = Annotated[
    str,
    typer.Option(
        help="Examples in training: shuffled, or balanced (each class drawn as often as the others)."
    ),
]
Scorers = Annotated[
    list[str] | None,
    typer.Option("--score", help="Also tell this score, by scikit-learn's name for it; may be repeated."),
]
Track = Annotated[
    list[str] | None,
    typer.Option(help="Also tell losses, rates and scores to tensorboard, wandb or mlflow; may be repeated."),
]
TrackTo = Annotated[
    str | None, typer.Option(help="Folder that they write to (default: runs), or mlflow's address.")
]
Prefer = Annotated[str, typer.Option(help="Of depths as good as the best: small, fast or accuracy.")]
TuneNorms = Annotated[bool, typer.Option(help="Let batch norms of trainable blocks renew statistics.")]
Normalise = Annotated[bool, typer.Option(help="Let the head learn on standardised features.")]
Refit = Annotated[bool, typer.Option(help="Fit again on training and validation part together.")]
RefitAll = Annotated[bool, typer.Option(help="Then also learn from the untouched part.")]
Rate = Annotated[float | None, typer.Option(help="Peak learning rate.")]
Clip = Annotated[float, typer.Option(help="Largest norm of the gradient in a step.")]
Warmup = Annotated[float, typer.Option(help="Share of the steps in which the rate rises from zero.")]
Epochs = Annotated[int | None, typer.Option(help="Epochs for which training is laid out.")]
Coverage = Annotated[
    float | None,
    typer.Option(help="Also give the set of classes that holds the right one this often (0.9: conformal)."),
]
Tta = Annotated[
    int,
    typer.Option(help="Pictures: views (as it is, mirrored, shifted) whose answers are averaged: 1 to 10."),
]
ModelArgument = Annotated[Path, typer.Argument(help="What fit saved.")]
Trust = Annotated[bool, typer.Option(help="Run a function of one's own that was named.")]
