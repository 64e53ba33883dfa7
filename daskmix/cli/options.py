"""Options that several commands have, made of the keys that say the same in a job file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any

import click

from daskmix.cli.failures import DEBUG
from daskmix.cli.keys import (
    ACCEPT,
    CHECKPOINT,
    HOW_TO_RUN,
    MISSING,
    MODEL,
    OUT,
    OVERWRITE,
    RUN,
    SAMPLE_DIMS,
    SCHEDULER,
    SEARCH,
    VARIABLES,
    WEIGHTS,
    Key,
)

Decorator = Callable[[Any], Any]


def option(key: Key, **changed: Any) -> Decorator:
    """A key as an option; its help, for one, may be another."""
    key = replace(key, **changed)
    return click.option(key.spelling, key.parameter, help=key.told, required=key.required, **key.kind.option())


def several(*options: Decorator) -> Decorator:
    """Options that stand together, first one first in the help."""

    def decorate(command: Any) -> Any:
        for each in reversed(options):
            command = each(command)
        return command

    return decorate


def of_keys(keys: Sequence[Key]) -> Decorator:
    """Options for these keys."""
    return several(*map(option, keys))


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that were."""
    return {name: value for name, value in options.items() if value is not None and value != ()}


def refuse_for_others(kind: str, given: Mapping[str, Any], keys: Sequence[Key]) -> None:
    """Refuse options that only other kinds of models have."""
    for key in keys:
        if key.parameter in given and kind not in key.models:
            models = " or ".join(key.models)
            raise click.UsageError(
                f"{key.spelling} is for --model {models}, not {kind}; leave it out, or take such a model"
            )


def _set_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[DEBUG] = True


debug = click.option(
    "--debug", is_flag=True, envvar="DASKMIX_DEBUG", expose_value=False, is_eager=True, callback=_set_debug,
    help="Show the traceback of an error; so does DASKMIX_DEBUG=1.",
)  # fmt: skip
how_to_tell = several(
    click.option(
        "--progress", type=click.Choice(["auto", "terminal", "json", "log", "none"]), default="auto",
        help="How passes are told on stderr: by a line each and one that moves (terminal), by a plain line each (log), "
        "by a line of JSON each, or not at all. By default on a terminal where there is one, else by plain lines.",
    ),
    click.option("--quiet", is_flag=True, help="No progress, as --progress none."),
)  # fmt: skip
what_to_read = several(option(VARIABLES, help=f"{VARIABLES.help} Repeat it for more."), option(SAMPLE_DIMS))
how_to_weigh = option(WEIGHTS)
accepting = option(ACCEPT)
missing = option(MISSING)
overwriting = option(OVERWRITE)
writing = option(OUT)
what_to_fit = several(of_keys(MODEL), missing)
what_to_try = several(of_keys(SEARCH), missing)


def face(progress: str, quiet: bool) -> Any:
    """What `Run` calls the way to tell of passes."""
    if quiet or progress == "none":
        return False
    if progress == "auto":
        return "terminal" if sys.stderr.isatty() else "log"
    return progress


def run_of(given: Mapping[str, Any], told: Any) -> Any:
    """`Run` of what was said, and of the defaults of a batch job."""
    from daskmix import Run

    said = {key.parameter: given.get(key.parameter) for key in RUN}
    kept = {key.parameter: key.default if said[key.parameter] is None else said[key.parameter] for key in RUN}
    return Run(progress=told, **kept)


def how_to_keep(command: Any) -> Any:
    """Where chunks stay, how much trouble there may be, and who is told of passes: the command's `run`."""

    @wraps(command)
    def with_run(*, progress: str, quiet: bool, **options: Any) -> Any:
        given = {key.parameter: options.pop(key.parameter) for key in RUN}
        return command(run=run_of(given, face(progress, quiet)), **options)

    kept = [replace(key, required=False) for key in CHECKPOINT]  # a job file may leave out their table
    return several(accepting, of_keys(HOW_TO_RUN), of_keys(kept), how_to_tell)(with_run)


how_to_run = several(option(SCHEDULER), overwriting, debug)
