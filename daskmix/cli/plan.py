"""`daskmix plan`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from daskmix.cli.keys import MODEL
from daskmix.cli.options import (
    accepting,
    debug,
    given,
    how_to_weigh,
    refuse_for_others,
    what_to_fit,
    what_to_read,
)
from daskmix.cli.work import Source, estimator, print_plan


@click.command()
@click.argument("source", metavar="INPUT")
@what_to_read
@how_to_weigh
@what_to_fit
@click.option("--threads", type=click.IntRange(min=1), help="Of a worker; those of this process by default.")
@accepting
@debug
def plan(
    source: str,
    variables: Sequence[str],
    sample_dims: Sequence[str] | None,
    weights: str | None,
    kind: str,
    k: int,
    threads: int | None,
    accept_missing_chunks: bool | None,
    **options: Any,
) -> None:
    """Tell what a fit of INPUT will cost: passes, bytes, tasks and memory. Only metadata are read.

    \b
    Examples:
      daskmix plan ocean.zarr --variable temp --variable salt --model gmm -k 5
    """
    from daskmix import plan as planned

    options = given(options)
    refuse_for_others(kind, options, MODEL)
    rows = Source(source, variables, sample_dims, weights, bool(accept_missing_chunks)).opened()
    print_plan(planned(estimator(kind, k, None, options), **rows, threads=threads))
