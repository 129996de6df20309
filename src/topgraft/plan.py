"""What was decided, by whom and why: written before it is first used, read back on going on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar, cast

from topgraft.configuration import Told
from topgraft.errors import TopgraftError
from topgraft.files import read_json, write_json

Value = TypeVar("Value")
log = logging.getLogger(__name__)
FORM = 1
KINDS = {
    "a whole number from 0 on": (
        *("keep", "freeze", "epochs", "folds", "batch_size", "soup", "epochs_done_at_*"),
        *("views_at_*", "seeds", "windows"),
    ),
    "a whole number from 0 on, or null": ("size",),
    "a number of threads from 1 to 1024": ("threads",),
    "a number of workers from 1 to 1024": ("training_workers",),
    "a number": ("held_out", "dropout", "clip", "warmup", "seconds_an_example", "cutmix", "fold_*"),
    "a number or null": ("rate", "mixup"),
    "a text": ("weights", "augment", "class_weights", "sampling", "prefer", "engine", "precision", "resize"),
    "a text or null": ("backbone",),
    "true or false": ("tune_norms", "normalise", "refit", "refit_all", "start_counts"),
    "a list of whole numbers": ("taps", "hidden", "candidate"),
    "a list of texts": ("allow_missing",),
    "a short training": ("short_*",),
}
"""What the decisions of these names are; others are not looked at."""
SHORT = {"keep", "freeze", "epochs", "loss", "score", "seconds"}


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _few(value: Any) -> bool:
    return _whole(value) and 1 <= value <= 1024


CHECKS: dict[str, Callable[[Any], bool]] = {
    "a whole number from 0 on": _whole,
    "a whole number from 0 on, or null": lambda value: value is None or _whole(value),
    "a number of threads from 1 to 1024": _few,
    "a number of workers from 1 to 1024": _few,
    "a number": _number,
    "a number or null": lambda value: value is None or _number(value),
    "a text": lambda value: isinstance(value, str),
    "a text or null": lambda value: value is None or isinstance(value, str),
    "true or false": lambda value: isinstance(value, bool),
    "a list of whole numbers": lambda value: isinstance(value, list) and all(map(_whole, value)),
    "a list of texts": lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value),
    "a short training": lambda value: (
        isinstance(value, dict)
        and value.keys() - {"seed", "lowest"} == SHORT
        and all(map(_number, value.values()))
        and _whole(value.get("seed", 0))
    ),
}


def _not_as_it_must_be(name: str, value: Any) -> str | None:
    """What a decision should be, where its value is something else."""
    for kind, names in KINDS.items():
        if any(fnmatchcase(name, pattern) for pattern in names):
            return None if CHECKS[kind](value) else kind
    return None


class Plan:
    """Decisions by name, each with its reason in words; a file when it has a path.

    Parameters
    ----------
    path
        Where each decision is written before it is used.
    given
        Decisions of an earlier run, which are taken instead of being made again.
    """

    def __init__(self, path: Path | None = None, given: dict[str, Any] | None = None) -> None:
        self.path = path
        self.decisions: dict[str, dict[str, Any]] = dict(given or {})
        self.is_repeat = given is not None
        """Whether a finished run is repeated, bounded by its epochs instead of by time."""
        self.forecast: dict[str, Any] | None = None
        """What the work was said to cost. No decision: a repeat makes its own, and nothing depends on it."""

    @classmethod
    def read(cls, path: Path) -> dict[str, Any]:
        """The decisions in a plan file.

        Raises
        ------
        TopgraftError
            If it is no plan.
        """
        document = read_json(path)
        if not isinstance(document, dict) or document.get("form") != FORM:
            raise TopgraftError(f"{path} is no plan of this version: expected a plan.json that `fit` wrote.")
        decisions = document.get("decisions")
        if not isinstance(decisions, dict) or not all(
            isinstance(d, dict) and d.keys() >= {"value", "reason"} for d in decisions.values()
        ):
            raise TopgraftError(f"{path} is damaged: its decisions have no value or no reason.")
        for name, decision in decisions.items():
            if (expected := _not_as_it_must_be(name, decision["value"])) is not None:
                given = f"{decision['value']!r:.60}"
                raise TopgraftError(f"{path} is damaged: its decision on {name} is {given}, not {expected}.")
        return cast("dict[str, Any]", decisions)

    @classmethod
    def of_run(cls, path: Path, given: dict[str, Any] | None) -> Plan:
        """The plan of a run: what it has decided already, else what it was given.

        Raises
        ------
        TopgraftError
            If what it has decided can't be read: other decisions would not fit what is done.
        """
        plan = cls(path, given)
        if path.exists():
            try:
                plan.decisions = cls.read(path)
            except TopgraftError as error:
                raise TopgraftError(f"{error}\nDelete {path.parent} to begin this run anew.") from error
        return plan

    def decide(self, name: str, make: Callable[[], tuple[Value, str]]) -> Value:
        """The value decided for ``name``: what stands already, or what ``make`` gives with its reason."""
        if name not in self.decisions:
            value, reason = make()
            log.info("%s = %s: %s", name, value, reason, extra={"label": "Decided"})
            self.decisions[name] = {"value": value, "reason": reason}
            self.write()
        return cast("Value", self.decisions[name]["value"])

    def tell(self, values: Mapping[str, Any], by: Told | None = None) -> None:
        """Note what the user told, by the command or by a file, where nothing stands yet; write the file."""
        in_file = set() if by is None else {name.replace("-", "_") for name in by.values}
        for name, value in values.items():
            reason = f"as told by {by.file}" if by is not None and name in in_file else "as told"
            self.decisions.setdefault(name, {"value": value, "reason": reason})
        self.write()

    def foretell(self, forecast: Mapping[str, Any]) -> None:
        """Note what the work is said to cost, and write the file."""
        self.forecast = dict(forecast)
        self.write()

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        from topgraft.notebook import plan

        return plan(self)

    def reason(self, name: str) -> str:
        """Why the value is what it is."""
        return str(self.decisions[name]["reason"])

    def write(self) -> None:
        """Write the file whole."""
        if self.path is not None:
            forecast = {} if self.forecast is None else {"forecast": self.forecast}
            write_json(self.path, {"form": FORM, "decisions": self.decisions, **forecast})
