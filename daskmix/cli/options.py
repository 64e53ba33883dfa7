"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from daskmix.cli.failures import DEBUG


def _set_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[DEBUG] = True


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """time,lat,lon -> the names."""
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if not all(names):
        raise click.BadParameter(f"{value!r} has an empty name; write them as in time,lat,lon", ctx, param)
    return names


def auto_or_number(ctx: click.Context, param: click.Parameter, value: str | None) -> str | float | None:
    if value is None or value == "auto":
        return value
    try:
        return float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither auto nor a number", ctx, param) from None


def _bytes(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """2GiB -> the number of bytes."""
    if value is None:
        return None
    from dask.utils import parse_bytes

    try:
        return parse_bytes(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no size; write it as in 500MB or 2GiB", ctx, param) from None


def _several(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Options that stand together, first one first in the help."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


debug = click.option(
    "--debug", is_flag=True, envvar="DASKMIX_DEBUG", expose_value=False, is_eager=True, callback=_set_debug,
    help="Show the traceback of an error; so does DASKMIX_DEBUG=1.",
)  # fmt: skip
what_to_read = _several(
    click.option(
        "--variable", "variables", multiple=True, metavar="NAME",
        help="A variable of the store that is a feature, or holds features along the dims that are not sampled; "
        "repeat it for more. All variables by default.",
    ),
    click.option(
        "--sample-dims", callback=_names, metavar="DIM,DIM",
        help="Dims whose points are the rows, e.g. time,lat,lon. By default those that all variables share; of a "
        "single --variable all but the last.",
    ),
)  # fmt: skip
how_to_keep = _several(
    click.option(
        "--cache", type=click.Choice(["auto", "memory", "disk", "off"]), default="auto", show_default=True,
        help="Where decoded chunks stay between passes: in memory while there is room, then in scratch (auto), in one "
        "of the two, or nowhere.",
    ),
    click.option(
        "--cache-limit", callback=_bytes, metavar="SIZE",
        help="Most that one process keeps, e.g. 2GiB; by default 30 % of its memory, half of the free disk.",
    ),
    click.option(
        "--scratch", type=click.Path(exists=True, file_okay=False), metavar="DIR",
        help="A folder on a local disk for scratch; Dask's temporary-directory by default.",
    ),
)  # fmt: skip
how_to_run = _several(
    click.option(
        "--scheduler", metavar="ADDRESS",
        help="A Dask scheduler that does the work, e.g. tcp://127.0.0.1:8786; the threads of this process by default.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace output stores that exist."),
    debug,
)  # fmt: skip
