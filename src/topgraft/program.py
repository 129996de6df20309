"""What all commands share: the configuration file, what is said beside the results, and the exit status."""

from __future__ import annotations

import copy
import functools
import inspect
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.models import OptionInfo

from topgraft.completion import offered
from topgraft.configuration import NAME, REFUSED, Key, Told, read_configuration, telling
from topgraft.console import LABEL
from topgraft.errors import TopgraftError, TopgraftWarning

EPILOG = (
    "Exit status: 0, or 1 for a failure while running, 2 for what can't be carried out as given, 130 when "
    "stopped by Ctrl-C."
)
ALONE = {"help", "version", "config", "no-config", "install-completion", "show-completion"}
"""Options that only a command line can give."""
CONFIGURED = "topgraft.configured"
NONE = "topgraft.none"
VERBOSE = "topgraft.verbose"
"""Where contexts keep what a file told, whether there is to be none, and whether more is to be said."""


def _configure(context: typer.Context, given: Path | None) -> None:
    """Options that the command line leaves open are what the configuration file says."""
    if context.resilient_parsing:
        return
    if context.meta.get(NONE):
        if given is not None:
            raise TopgraftError(f"--config {given} and --no-config: give one of them.")
        return
    before: Told | None = context.meta.get(CONFIGURED)  # of the group that the command belongs to
    path = given or Path(before.file if before else NAME)
    if path == Path(NAME) and given is None and not path.is_file():
        return
    commands = keys_of(context.find_root().command)
    values = read_configuration(path, commands)[_name_of(context)]
    parameters = {key.name: key.parameter for key in commands[_name_of(context)]}
    context.default_map = {parameters[name]: value for name, value in values.items()}
    context.meta[CONFIGURED] = Told(str(path), values)


def _leave_out(context: typer.Context, asked: bool) -> None:  # noqa: FBT001 (the shape of such callbacks)
    if not asked:
        return
    before: Told | None = context.meta.pop(CONFIGURED, None)
    source = context.get_parameter_source("config")
    if before is not None and source is not None and source.name == "COMMANDLINE":
        raise TopgraftError(f"--config {before.file} and --no-config: give one of them.")
    context.meta[NONE] = True


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=_configure,
        help=f"File of options, which those of the command line override; default: ./{NAME}, if it is there.",
    ),
]
NoConfig = Annotated[
    bool, typer.Option("--no-config", is_eager=True, callback=_leave_out, help=f"Read no {NAME}.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Also say what is decided on the way, and what it took.")
]
SHARED = {"no_config": NoConfig, "config": Config, "verbose": Verbose}
"""What every command takes beside its own options; the order is that in which they are looked at."""
DEFAULTS = {"no_config": False, "config": None, "verbose": False}


@contextmanager
def manners(context: typer.Context) -> Iterator[None]:
    """In the block a command runs: what it was told, how much it says."""
    quiet, verbose = bool(context.params.get("quiet")), bool(context.meta.get(VERBOSE))
    if quiet and verbose:
        raise TopgraftError("--quiet and --verbose: give one of them.")
    told = _in_force(context)
    if told is not None and (told.values or told.overridden or verbose) and not quiet:
        _say("Options", str(told))
    with warnings.catch_warnings(), telling(told), _saying_more(context, verbose=verbose):
        warnings.showwarning = functools.partial(_say_warning, warnings.showwarning, quiet)
        yield


def _in_force(context: typer.Context) -> Told | None:
    """What the file told, without what the command line said otherwise."""
    told: Told | None = context.meta.get(CONFIGURED)
    if told is None:
        return None
    parameters = {key.name: key.parameter for key in keys_of(context.find_root().command)[_name_of(context)]}
    kept, overridden = {}, []
    for name, value in told.values.items():
        source = context.get_parameter_source(parameters[name])
        if source is not None and source.name == "DEFAULT_MAP":
            kept[name] = value
        else:
            overridden.append(name)
    return Told(told.file, kept, tuple(overridden))


def _say_warning(usual: Callable[..., None], quiet: bool, message: Any, *where: Any) -> None:  # noqa: FBT001
    if not isinstance(message, TopgraftWarning):
        usual(message, *where)
    elif not quiet:
        _say("Warning", str(message))


def _say(label: str, text: str) -> None:
    typer.echo(f"{label:<{LABEL}}{text}", err=True)


class _Lines(logging.Handler):
    """What the package logs, as lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        _say(str(getattr(record, "label", "Detail")), record.getMessage())


@contextmanager
def _saying_more(context: typer.Context, *, verbose: bool) -> Iterator[None]:
    """With -v the package's log goes to standard error, and the end says what the command took."""
    if not verbose:
        yield
        return
    from topgraft.versions import versions

    logger, handler = logging.getLogger("topgraft"), _Lines(logging.INFO)
    before, began = logger.level, time.monotonic()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        _say("Versions", ", ".join(f"{name} {version}" for name, version in versions().items()))
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        _say("Took", f"{time.monotonic() - began:.1f} s: {context.command_path}")


class Program(typer.Typer):
    """A group of commands, each of which is :func:`sharing`."""

    def command(self, name: str | None = None, **more: Any) -> Callable[[Any], Any]:
        """Register a function as a command."""
        register = super().command(name, **{"epilog": EPILOG, **more})

        def take(function: Callable[..., Any]) -> Callable[..., Any]:
            register(sharing(function))
            return function

        return take


def sharing(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command with :data:`SHARED` among its options, run in :func:`manners`; the function sees neither.

    Of a group it is the function that runs before its commands, or alone where none of them was given.
    """
    signature = inspect.signature(function, eval_str=True)
    signature = signature.replace(parameters=[_completed(p) for p in signature.parameters.values()])
    contexts = [n for n, parameter in signature.parameters.items() if parameter.annotation is typer.Context]
    here = contexts[0] if contexts else "context"

    @functools.wraps(function)
    def run(**named: Any) -> Any:
        context: typer.Context = named[here]
        own = {n: value for n, value in named.items() if n in signature.parameters}
        if context.params.get("verbose"):
            context.meta[VERBOSE] = True
        if context.invoked_subcommand is not None:
            return function(**own)
        with manners(context):
            return function(**own)

    def parameter(name: str, annotation: Any, **default: Any) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, **default)

    more = [parameter(n, kind, default=DEFAULTS[n]) for n, kind in SHARED.items()]
    more += [] if contexts else [parameter(here, typer.Context)]
    whole = [*signature.parameters.values(), *more]
    run.__signature__ = signature.replace(parameters=whole)  # type: ignore[attr-defined]  # inspect's place
    run.__annotations__ = {each.name: each.annotation for each in whole}
    return run


def _completed(parameter: inspect.Parameter) -> inspect.Parameter:
    """With what a shell is offered for its values, if anything is."""
    offer = offered(parameter.name)
    kind, *infos = get_args(parameter.annotation) or (None,)
    if offer is None or not any(isinstance(info, OptionInfo) for info in infos):
        return parameter
    own = copy.copy(next(info for info in infos if isinstance(info, OptionInfo)))
    own.autocompletion = offer
    return parameter.replace(annotation=Annotated[kind, own])


def _name_of(context: typer.Context) -> str:
    """Of the command, as the file's tables are called: for ``cache limit`` it is ``cache``."""
    here: Any = context
    while here.parent is not None and here.parent.parent is not None:
        here = here.parent
    return here.info_name or ""


def keys_of(root: Any) -> dict[str, list[Key]]:
    """By command the options that a file may hold for it; those of a group's commands stand together.

    Parameters
    ----------
    root
        The program as click sees it.
    """
    return {name: list(_keys(command).values()) for name, command in root.commands.items()}


def _keys(command: Any) -> dict[str, Key]:
    kinds = get_type_hints(command.callback)
    found: dict[str, Key] = {}
    for parameter in command.params:
        name = next((o[2:] for o in parameter.opts if o.startswith("--")), "")
        if parameter.param_type_name == "option" and name and name not in ALONE | REFUSED.keys():
            kind, several = _kind(kinds[parameter.name])
            found[name] = Key(name, parameter.name, kind, several)
    for sub in getattr(command, "commands", {}).values():
        found |= {name: key for name, key in _keys(sub).items() if name not in found}
    return found


def _kind(annotation: Any) -> tuple[type, bool]:
    """The type of one value, and whether there may be several.

    Examples
    --------
    >>> _kind(list[str] | None), _kind(float), _kind(Path | None)
    ((<class 'str'>, True), (<class 'float'>, False), (<class 'pathlib...Path'>, False))
    """
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation, False
    parts = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) is list:
        return parts[0], True
    return _kind(parts[0])
