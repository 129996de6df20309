"""``topgraft cache``: what is stored of activations, how much it may take, and freeing it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from topgraft import options
from topgraft.console import say_json
from topgraft.program import EPILOG, Program, sharing

if TYPE_CHECKING:
    from topgraft.console import Console
    from topgraft.features.store import Store
    from topgraft.features.stored import Stored

SHOWN = 8
"""Characters of a key that people are shown, more where they are needed to tell shelves apart."""

app = Program(
    name="cache",
    epilog=EPILOG,
    help="List, bound or free the stored activations.\n\nExample: topgraft cache",
)

Keys = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY", help="Beginnings of keys, as `topgraft cache` lists them."),
]
Size = Annotated[
    str | None, typer.Argument(metavar="SIZE", help="500MB, 5GB, 20GiB, … or none; shows it if not given.")
]


@app.callback(invoke_without_command=True)
@sharing
def _cache(
    context: typer.Context,
    *,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    context.obj = {"json": json, "quiet": quiet}
    if context.invoked_subcommand is None:
        show(context, json=json, quiet=quiet, debug=debug)


@app.command(name="list")
def show(
    context: typer.Context,
    *,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """List what is stored, of what, how large and when last used.

    Example: topgraft cache list
    """
    del debug
    from topgraft.features.store import Store

    store, (console, json) = Store(), _told(context, json=json, quiet=quiet)
    shelves = store.shelves()
    if shelves:
        header = ["key", "what", "backbone", "examples", "size", "used"]
        console.table(header, _rows(shelves), left=(0, 1, 2, 5))
    _totals(console, store, shelves)
    if json:
        say_json(_document(store, shelves))


@app.command()
def clear(
    context: typer.Context,
    keys: Keys = None,
    *,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Free all that is stored, or what has a key.

    What a running command uses stays, and so do files that are not the store's.

    Example: topgraft cache clear
    """
    del debug
    from topgraft.console import counted, size
    from topgraft.features.store import Store

    store, (console, json) = Store(), _told(context, json=json, quiet=quiet)
    chosen = store.shelves(keys or ())
    freed = store.clear(keys or ())
    after = store.shelves()
    there = {shelf.key for shelf in after}
    left = [shelf for shelf in chosen if shelf.key in there]
    console.line("Freed", f"{size(freed)} of {counted(len(chosen), 'shelf').replace('shelfs', 'shelves')}")
    for shelf in left:
        why = "in use just now" if shelf.is_used else "holds files that are not the store's"
        console.line("Left", f"{shelf.key[:SHOWN]} {shelf}: {why}")
    _totals(console, store, after)
    if json:
        cleared = [shelf.key for shelf in chosen if shelf.key not in there]
        more = {"freed": freed, "cleared": cleared, "left": [shelf.key for shelf in left]}
        say_json(_document(store, after) | more)


@app.command()
def limit(
    context: typer.Context,
    size: Size = None,
    *,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Show how much may be stored, or set it.

    It holds for all later commands; what is too much already is dropped at once, what was not used for
    longest first.

    Example: topgraft cache limit 5GB
    """
    del debug
    from topgraft.features.limit import VARIABLE, parse_limit, told_dropped
    from topgraft.features.store import Store

    store, (console, json) = Store(), _told(context, json=json, quiet=quiet)
    dropped: list[Stored] = []
    if size is not None:
        dropped = store.set_limit(parse_limit(size))
        if store.limit.origin == "environment":
            console.line("Note", f"{size} is written down, but ${VARIABLE} comes before it.")
        if dropped:
            console.line("Dropped", told_dropped(dropped, store.limit, store.root))
    shelves = store.shelves()
    _totals(console, store, shelves)
    if json:
        more = {"freed": sum(shelf.bytes for shelf in dropped), "dropped": [shelf.key for shelf in dropped]}
        say_json(_document(store, shelves) | more)


def _told(context: typer.Context, *, json: bool, quiet: bool) -> tuple[Console, bool]:
    """Where to write, and whether JSON is wanted: options count before and after the subcommand's name."""
    from topgraft.console import Console

    before = context.obj or {}
    json, quiet = json or before.get("json", False), quiet or before.get("quiet", False)
    return Console.for_command(json=json, quiet=quiet), json


def _rows(shelves: Sequence[Stored]) -> list[list[str]]:
    from topgraft.console import size

    keys = [shelf.key for shelf in shelves]
    length = next(n for n in range(SHOWN, 65) if len({key[:n] for key in keys}) == len(keys))
    return [
        [
            shelf.key[:length],
            shelf.what,
            shelf.backbone,
            f"{shelf.examples():,}",
            size(shelf.bytes),
            "in use" if shelf.is_used else ago(time.time() - shelf.used),
        ]
        for shelf in shelves
    ]


def ago(seconds: float) -> str:
    """How long something is past.

    Examples
    --------
    >>> ago(3), ago(150), ago(7300), ago(90_000), ago(400_000)
    ('just now', '2 min ago', '2 h ago', '1 day ago', '4 days ago')
    """
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min ago"
    if seconds < 86_400:
        return f"{seconds // 3600:.0f} h ago"
    days = int(seconds // 86_400)
    return f"{days} day{'' if days == 1 else 's'} ago"


def _totals(console: Console, store: Store, shelves: Sequence[Stored]) -> None:
    from topgraft.console import size
    from topgraft.features.remote import VARIABLE

    bound, taken = store.limit, sum(shelf.bytes for shelf in shelves)
    over = ""
    if bound.bytes is not None and taken > bound.bytes:
        over = f"; {size(taken - bound.bytes)} over it, dropped when something is stored next"
    console.line("Store", str(store.root))
    console.line("Total", size(taken) if shelves else "nothing is stored")
    if store.remote is not None:
        console.line("Remote", f"{store.remote.said}: what is stored here is shared there (${VARIABLE})")
    console.line("Limit", f"{bound} ({bound.because}){over}", *[bound.note] * bool(bound.note))


def _document(store: Store, shelves: Sequence[Stored]) -> dict[str, Any]:
    bound = store.limit
    return {
        "folder": str(store.root),
        "remote": None if store.remote is None else store.remote.said,
        "bytes": sum(shelf.bytes for shelf in shelves),
        "limit": bound.bytes,
        "limit_from": bound.origin,
        "shelves": [
            {
                "key": shelf.key,
                "what": shelf.what,
                "backbone": shelf.backbone,
                "examples": shelf.examples(),
                "bytes": shelf.bytes,
                "used": datetime.fromtimestamp(shelf.used, timezone.utc).isoformat(timespec="seconds"),
                "in_use": shelf.is_used,
            }
            for shelf in shelves
        ],
    }
