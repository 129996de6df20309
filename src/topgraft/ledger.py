"""Predicted and actual cost side by side."""

from __future__ import annotations

from typing import Any

STAGES = ("resizing", "pass", "probes", "search", "storing", "training")
"""In the order of the work; a fit may leave out all but the pass and the probes."""


class Ledger:
    """Per stage what it was said to cost before it began, and what it cost.

    Amounts are ``seconds``, ``epochs``, and bytes of ``memory`` (the most that the process had held by the
    stage's end) and of ``disk`` (by which the store grew); ``None`` for what can't be told.

    Examples
    --------
    >>> ledger = Ledger()
    >>> ledger.predict("pass", seconds=3.0)
    >>> ledger.spend("pass", seconds=2.0)
    >>> ledger.spend("pass", seconds=2.0)
    >>> ledger.to_json()["pass"]
    {'seconds': {'predicted': 3.0, 'actual': 4.0}}
    >>> ledger.to_json()["training"] is None
    True
    """

    def __init__(self) -> None:
        self._predicted: dict[str, dict[str, float | None]] = {}
        self._corrected: dict[str, dict[str, float | None]] = {}
        self._actual: dict[str, dict[str, float | None]] = {}

    def predict(self, stage: str, **amounts: float | None) -> None:
        """Note what a stage is said to cost; said again, it is what was said last."""
        self._predicted.setdefault(_known(stage), {}).update(amounts)

    def correct(self, stage: str, **amounts: float | None) -> None:
        """Note what a stage is said to cost after more of it was measured, beside what was said first."""
        self._corrected.setdefault(_known(stage), {}).update(amounts)

    def enlarge(self, stage: str, **amounts: float) -> None:
        """Note that a stage is to do more than was said last, and what that is said to cost."""
        said = {**self._predicted.get(_known(stage), {}), **self._corrected.get(stage, {})}
        self.correct(stage, **{name: (said.get(name) or 0.0) + amount for name, amount in amounts.items()})

    def forget(self, stage: str) -> None:
        """A stage turned out not to be needed."""
        self._actual.pop(_known(stage), None)

    def spend(self, stage: str, *, memory: float | None = None, **amounts: float) -> None:
        """Note what a stage cost; what is done in parts adds up, but for the most memory."""
        actual = self._actual.setdefault(_known(stage), {})
        for name, amount in amounts.items():
            actual[name] = (actual.get(name) or 0.0) + amount
        if memory is not None:
            actual["memory"] = max(actual.get("memory") or 0.0, memory)

    def to_json(self) -> dict[str, Any]:
        """By stage and amount ``predicted`` and ``actual``, and ``corrected`` where that was said.

        ``None`` for a stage that was not done.
        """
        return {stage: self._stage(stage) if stage in self._actual else None for stage in STAGES}

    def _stage(self, stage: str) -> dict[str, dict[str, float | None]]:
        predicted, actual = self._predicted.get(stage, {}), self._actual[stage]
        corrected = {name: {"corrected": amount} for name, amount in self._corrected.get(stage, {}).items()}
        return {
            name: {"predicted": predicted.get(name), **corrected.get(name, {}), "actual": actual.get(name)}
            for name in dict.fromkeys([*predicted, *actual])
        }


def _known(stage: str) -> str:
    if stage not in STAGES:
        raise ValueError(f"{stage!r} is no stage; these are: {', '.join(STAGES)}")
    return stage
