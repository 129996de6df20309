"""A command of the command line that the user stopped, and what it says last."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

from topgraft.errors import TopgraftError
from topgraft.stopping import STATUS

GO_ON = ("fit", "demo")
"""Commands that go on where they were stopped."""


class Stopped(TopgraftError):
    """The user stopped the command (Ctrl-C)."""

    exit_status = STATUS


class Commands(TyperGroup):
    """The commands; one that is stopped says whether it can go on."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was given."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise Stopped(last_words(ctx.invoked_subcommand)) from stop


def last_words(command: str | None) -> str:
    """What a stopped command says.

    Examples
    --------
    >>> last_words("fit"), last_words("predict")
    ('Stopped. The same command goes on where it was.', 'Stopped.')
    """
    return "Stopped." + (" The same command goes on where it was." if command in GO_ON else "")
