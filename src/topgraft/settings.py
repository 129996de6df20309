"""Everything that a fit can be told, in one place."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from topgraft.choices import is_open
from topgraft.errors import TopgraftError, did_you_mean
from topgraft.sampling import SAMPLINGS

AUGMENTATIONS = ("auto", "none", "light", "standard", "strong")
RESIZE_CHOICES = ("auto", "pretrained", "crop", "squash", "border")
MOST_WINDOWS = 1000
MOST_BUDGET = 31_536_000
"""Seconds: a year. A budget without end would be no number in the run's own files, which are JSON."""
CLASS_WEIGHTS = ("none", "balanced")
PREFERENCES = ("small", "fast", "accuracy")
ENGINE_CHOICES = ("auto", "torch", "openvino", "cuda")
PRECISION_CHOICES = ("auto", "fp32", "bf16")
REPEATED = (
    *("backbone", "weights", "allow_missing", "size", "folds", "held_out", "hidden", "dropout", "augment"),
    *(
        "windows",
        "mixup",
        "cutmix",
        "label_smoothing",
        "class_weights",
        "sampling",
        "prefer",
        "tune_norms",
        "normalise",
        "refit",
        "refit_all",
        "rate",
        "clip",
        "warmup",
    ),
    "batch_size",
)
"""What a plan repeats as it was told, beside what was decided on the way; seed and budget are free."""


@dataclass(frozen=True)
class Settings:
    """What ``fit`` is told beside the data and where to save.

    Parameters
    ----------
    backbone
        As for :func:`topgraft.load`; the packaged one for the data by default.
    weights, allow_missing
        As for :func:`topgraft.load`.
    keep, freeze
        ``auto``, a count, a share, a block's name, ``all``; freeze also 0, and several with commas between
        them, which are tried by short trainings (``auto`` among them: beside the usual ones).
    folds
        Of the probes.
    held_out
        Share of the examples kept untouched for the final score.
    nested
        Parts of nested cross-validation, by which the final score is then told, and no example is kept
        untouched; 0 for none. See :mod:`topgraft.nested`.
    budget
        Seconds for the whole fit.
    hidden
        Widths of hidden layers in the head.
    dropout
        In the head.
    augment
        Pictures: ``none``; ``light``, ``standard`` or ``strong``, each changed at random whenever it is read,
        for which the frozen part runs again; ``auto``: as ``standard`` where nothing is frozen, and where a
        part is, a few changed views of each picture are stored at the cut, as many as there is time for. Also
        one's own: ``package.module:function``, or in Python anything that takes a Pillow picture and gives
        one. Only what it draws from torch goes by the seed. See :mod:`topgraft.features.augmentation`.
    trust_code
        Whether a function that ``augment`` names may be run.
    mixup
        ``alpha`` of the mixtures of two examples that are trained on, 0 for none; not given, 1 for pictures.
    cutmix
        ``alpha`` of the share of its area that a picture keeps where a box of another is pasted in, 0 for
        none.
        Without ``mixup`` it takes its place; with it each step does one of the two.
    label_smoothing
        Share of each label that is spread evenly over the classes in training, 0 for none; validation and
        scores know nothing of it.
    windows
        Pieces of a long text that are read, at most; 1 to cut it. See :mod:`topgraft.windows`.
    size
        Of pictures: pixels of the shorter side of what the network gets, as for :func:`topgraft.load`.
    resize
        How pictures are brought to the network's size: ``pretrained``, as they were when the weights were
        made; ``crop``, ``squash`` or ``border``, see :meth:`topgraft.Backbone.resized`; ``auto``: ``squash``
        instead of a crop where that measured better, and ``pretrained`` where both keep and freeze are
        given. See :mod:`topgraft.resizing`.
    taps
        Earlier cuts that the head reads, too: ``none``; counts and names of blocks with commas between them;
        ``auto``: those after a quarter, half and three quarters of the kept blocks, where they measurably
        help, and none where both keep and freeze are given. See :mod:`topgraft.taps`.
    soup
        Trainings whose weights are averaged at the end, 1 for none; not given, up to 3 as time allows, and 1
        where ``epochs`` is given. See :mod:`topgraft.soup`.
    class_weights
        ``none`` or ``balanced``: in the loss an example counts inversely to how many its class has; of
        several labels those that have one count as much as those that lack it.
    sampling
        ``shuffled``: an epoch reads each example once; ``balanced``: it draws as many with replacement, each
        class as likely as the others (one class an example only). What is fitted in closed form has weights.
    prefer
        Of depths that can't be told from the best: the ``small`` one, the ``fast`` one (with one backbone
        these are the same), or that of highest ``accuracy``.
    tune_norms
        Whether batch norms of trainable blocks renew their statistics.
    normalise
        Whether the head learns on standardised features, see :meth:`topgraft.head.Head.standardise`.
    refit
        Whether the graft is fitted again on training and validation part together.
    refit_all
        Whether the saved graft also learns from the untouched part, after the score is known.
    rate, epochs
        Of the training; chosen by the form of the network and by the time there is when not given.
    clip
        Largest norm of the gradient in a step.
    warmup
        Share of the steps in which the rate rises from zero.
    batch_size
        Examples at once.
    training_workers
        Workers among which each step of the training is divided, see :mod:`topgraft.data_parallel`; not
        given, one a machine of the cluster that the fit runs on, and 1 elsewhere.
    score
        Names of scikit-learn's scorers, told of untouched data beside our own; no choice is made by them. See
        :mod:`topgraft.scorers`.
    engine, precision
        Of the frozen part: ``auto`` (measured), ``torch``, ``openvino`` or ``cuda``; ``auto``, ``fp32`` or
        ``bf16``.
    seed
        Of every random choice.
    """

    backbone: str | None = None
    weights: str = "auto"
    allow_missing: tuple[str, ...] = ()
    keep: str = "auto"
    freeze: str = "auto"
    folds: int = 5
    held_out: float = 0.2
    nested: int = 0
    budget: float = 600.0
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    augment: str | Callable[[Any], Any] = "auto"
    trust_code: bool = False
    mixup: float | None = None
    cutmix: float = 0.0
    label_smoothing: float = 0.0
    windows: int = 1
    size: int | None = None
    resize: str = "auto"
    taps: str = "auto"
    soup: int | None = None
    class_weights: str = "none"
    sampling: str = "shuffled"
    prefer: str = "small"
    tune_norms: bool = False
    normalise: bool = False
    refit: bool = True
    refit_all: bool = False
    rate: float | None = None
    clip: float = 1.0
    warmup: float = 0.1
    epochs: int | None = None
    batch_size: int = 32
    training_workers: int | None = None
    score: tuple[str, ...] = ()
    engine: str = "auto"
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        if isinstance(self.augment, str) and ":" not in self.augment:
            _one_of("augment", self.augment, AUGMENTATIONS)
        _one_of("resize", self.resize, RESIZE_CHOICES)
        _one_of("class-weights", self.class_weights, CLASS_WEIGHTS)
        _one_of("sampling", self.sampling, SAMPLINGS)
        if self.sampling == self.class_weights == "balanced":
            raise TopgraftError(
                "--sampling balanced and --class-weights balanced both make classes count alike; together "
                "they would overdo it. Give one of them."
            )
        _one_of("prefer", self.prefer, PREFERENCES)
        _one_of("engine", self.engine, ENGINE_CHOICES)
        _one_of("precision", self.precision, PRECISION_CHOICES)
        _between("folds", self.folds, 2, 100)
        _between("held-out", self.held_out, 0.01, 0.9)
        if self.nested:
            _between("nested", self.nested, 3, 100)
        _between("budget", self.budget, 1, MOST_BUDGET)
        _between("dropout", self.dropout, 0, 0.95)
        _between("label-smoothing", self.label_smoothing, 0, 0.9)
        _between("batch-size", self.batch_size, 1, 4096)
        _between("windows", self.windows, 1, MOST_WINDOWS)
        _between("seed", self.seed, 0, 2**32 - 1)
        _between("clip", self.clip, 1e-6, 1e6)
        _between("warmup", self.warmup, 0, 1)
        if self.rate is not None:
            _between("rate", self.rate, 1e-8, 10)
        if self.size is not None:
            _between("size", self.size, 1, 8192)
        if self.mixup is not None:
            _between("mixup", self.mixup, 0, 100)
        _between("cutmix", self.cutmix, 0, 100)
        if self.soup is not None:
            _between("soup", self.soup, 1, 100)
        if self.training_workers is not None:
            _between("training-workers", self.training_workers, 1, 1024)
            if self.tune_norms and self.training_workers > 1:
                raise TopgraftError(
                    f"--training-workers {self.training_workers} divides each batch, and --tune-norms renews "
                    "the statistics of batch norms from whole batches. Give one of them."
                )
        if self.epochs is not None:
            _between("epochs", self.epochs, 1, 10_000)
        for width in self.hidden:
            _between("hidden", width, 1, 65_536)

    @property
    def engine_or_torch(self) -> str:
        """The engine, once it is decided; PyTorch before."""
        return "torch" if self.engine == "auto" else self.engine

    @property
    def precision_or_fp32(self) -> str:
        """The precision, once it is decided; fp32 before."""
        return "fp32" if self.precision == "auto" else self.precision

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; a function by its name."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {n: list(v) if isinstance(v, tuple) else named_or_same(v) for n, v in plain.items()}

    @property
    def is_decided(self) -> bool:
        """Whether keep and freeze are given, so that nothing is to be chosen."""
        return not (is_open(self.keep) or is_open(self.freeze))

    @property
    def refits(self) -> int:
        """Trainings on all of the development part that are certain to be done, 0 where none is wanted."""
        return (self.soup or 1) if self.refit else 0

    @property
    def changes_anew(self) -> bool:
        """Whether pictures are changed anew in each epoch wherever training begins."""
        return self.augment not in ("auto", "none")

    def repeating(self, decisions: Mapping[str, Mapping[str, Any]]) -> Settings:
        """These with what a plan says of the rest.

        Raises
        ------
        TopgraftError
            If an option that was given says something else than the plan.
        """
        taken: dict[str, Any] = {}
        for name in REPEATED:
            if name in decisions:
                value = decisions[name]["value"]
                planned = tuple(value) if isinstance(value, list) else value
                given = getattr(self, name)
                told = named_or_same(given)
                agree(name, None if given == getattr(Settings, name) else told, planned)
                taken[name] = given if told != given else planned
        return replace(self, **taken)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Settings:
        """From keyword arguments; unknown ones get the nearest known.

        Raises
        ------
        TopgraftError
            If a name is unknown or a value can't be meant.
        """
        known = set(cls.__dataclass_fields__)
        for name in options:
            if name not in known:
                raise TopgraftError(f"fit has no option {name!r}.{did_you_mean(name, known)}")
        clean: dict[str, Any] = {
            n: tuple(v) if isinstance(v, list) else v for n, v in options.items() if v is not None
        }
        if isinstance(clean.get("score"), str):
            clean["score"] = (clean["score"],)
        if isinstance(clean.get("freeze"), tuple):
            clean["freeze"] = ",".join(map(str, clean["freeze"]))
        for name in ("keep", "freeze"):
            if name in clean:
                clean[name] = str(clean[name])
        if "taps" in clean and not isinstance(clean["taps"], str):
            several = clean["taps"] if isinstance(clean["taps"], tuple) else (clean["taps"],)
            clean["taps"] = ",".join(map(str, several)) or "none"
        return replace(cls(), **clean)


def named_or_same(value: Any) -> Any:
    """A function or transform by its name, as JSON has no other word for it; all else as it is.

    Examples
    --------
    >>> named_or_same(len), named_or_same(0.5)
    ('builtins:len', 0.5)
    """
    if not callable(value):
        return value
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}:{name}" if name else " ".join(re.sub(r" at 0x\w+", "", repr(value)).split())


def agree(name: str, asked: Any, planned: Any) -> None:
    """Refuse an option that says something else than the plan; ``None`` where nothing was said.

    Raises
    ------
    TopgraftError
        With both values.
    """
    if asked is not None and asked != planned:
        option = name.replace("_", "-")
        raise TopgraftError(
            f"{option}={asked}, but the plan says {option}={planned}. "
            "Leave the option away to repeat the plan, or the plan to decide anew."
        )


def _one_of(name: str, given: str, choices: tuple[str, ...]) -> None:
    if given not in choices:
        raise TopgraftError(f"--{name} {given}: give one of {', '.join(choices)}.")


def _between(name: str, given: float, low: float, high: float) -> None:
    if not low <= given <= high:
        raise TopgraftError(f"--{name} {given:g} is out of range: give {low:.12g} to {high:.12g}.")
