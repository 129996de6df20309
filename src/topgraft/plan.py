"""What was decided, by whom and why: written before it is first used, read back on going on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from topgraft.errors import TopgraftError
from topgraft.files import read_json, write_json

Value = TypeVar("Value")
FORM = 1


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
            self.decisions[name] = {"value": value, "reason": reason}
            self.write()
        return cast("Value", self.decisions[name]["value"])

    def tell(self, values: Mapping[str, Any]) -> None:
        """Note what the user told, where nothing stands yet, and write the file."""
        for name, value in values.items():
            self.decisions.setdefault(name, {"value": value, "reason": "as told"})
        self.write()

    def foretell(self, forecast: Mapping[str, Any]) -> None:
        """Note what the work is said to cost, and write the file."""
        self.forecast = dict(forecast)
        self.write()

    def reason(self, name: str) -> str:
        """Why the value is what it is."""
        return str(self.decisions[name]["reason"])

    def write(self) -> None:
        """Write the file whole."""
        if self.path is not None:
            forecast = {} if self.forecast is None else {"forecast": self.forecast}
            write_json(self.path, {"form": FORM, "decisions": self.decisions, **forecast})
