"""What commands print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from daskmix.errors import bare_url

ROWS_SHOWN, COLUMNS_SHOWN = 32, 8
HIDDEN = "daskmix.hidden"  # in the context of a command: values that are not shown, and what is instead


def facts(model: Any) -> dict[str, Any]:
    """A fitted model in a few lines."""
    mixture = hasattr(model, "means_")
    k, d = (model.means_ if mixture else model.cluster_centers_).shape
    named = getattr(model, "feature_names_in_", ())
    names = [*map(str, named[:COLUMNS_SHOWN]), *["..."] * (d > COLUMNS_SHOWN)]
    ended = "converged" if model.converged_ else "stopped before it converged"
    left_out = " (those left out among them)" if model.missing != "raise" else ""
    rows = f"{model.history_[0]['rows']:,} rows{left_out} of " if model.history_ else ""
    lines = {
        "model": f"{type(model).__name__}, k = {k}" + (f", {model.covariance_type} covariances" if mixture else ""),
        "fitted on": f"{rows}{d} feature{'s' * (d != 1)}" + (f": {', '.join(names)}" if len(named) else ""),
        "iterations": f"{model.n_iter_}, {ended}",
        "passes": f"{model.n_passes_}, {size(model.bytes_read_)} read",
    }
    if hasattr(model, "weight_concentration_"):
        lines |= {"evidence bound": f"{model.lower_bound_:.8g}"}
    elif mixture:
        lines |= {"log-likelihood": f"{model.lower_bound_:.6g} a row"}
        if model.history_ and model.history_[-1]["what"] != "batch":  # else the rows are not all there any more
            lines |= {"bic": f"{model.bic():.8g}"}
    else:
        lines |= {"inertia": f"{model.inertia_:.8g}"}
    return lines | {"seed": model.seed_}


def size(nbytes: int) -> str:
    from dask.utils import format_bytes

    return format_bytes(nbytes)


def harmless(text: str) -> str:
    """What a file says, without what a terminal would obey or cannot show."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def told(text: str, meta: Mapping[str, Any] | None = None) -> str:
    """A text as it may be shown: without credentials, and with names for what came from the environment."""
    if meta is None:
        ctx = click.get_current_context(silent=True)
        meta = {} if ctx is None else ctx.meta
    for value, name in meta.get(HIDDEN, ()):
        text = text.replace(value, name)
    return harmless(bare_url(text))


def print_facts(facts: Mapping[str, Any]) -> None:
    for name, value in facts.items():
        if value != "":
            click.echo(f"{name:<15} {told(str(value))}")


def print_table(header: Sequence[str], cells: Sequence[Sequence[str]], most: int = ROWS_SHOWN) -> None:
    shown = [[harmless(cell) for cell in row] for row in (header, *cells[:most])]
    widths = [max(len(row[column]) for row in shown) for column in range(len(header))]
    for row in shown:
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    if len(cells) > most:
        click.echo(f"... and {len(cells) - most} more")
