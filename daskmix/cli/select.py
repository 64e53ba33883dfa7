"""`daskmix select`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from daskmix.cli.keys import SEARCH
from daskmix.cli.options import (
    given,
    how_to_keep,
    how_to_run,
    how_to_weigh,
    refuse_for_others,
    what_to_read,
    what_to_try,
    writing,
)
from daskmix.cli.work import Outputs, Searching, Source, carry_out


@click.command()
@click.argument("source", metavar="INPUT")
@what_to_read
@how_to_weigh
@what_to_try
@writing
@how_to_keep
@how_to_run
def select(
    source: str,
    variables: Sequence[str],
    sample_dims: Sequence[str] | None,
    weights: str | None,
    kind: str,
    k: Sequence[int],
    out: str,
    scheduler: str | None,
    overwrite: bool | None,
    run: Any,
    **options: Any,
) -> None:
    """Fit many models to INPUT in shared passes, and write the best.

    \b
    Examples:
      daskmix select ocean.zarr --variable temp --variable salt --model gmm -k 2-12 --out best.zarr
      daskmix select ocean.zarr --model kmeans -k 2,4,8,16 --criterion silhouette --out best.zarr
    """
    options = given(options)
    refuse_for_others(kind, options, SEARCH)
    rows = Source(source, variables, sample_dims, weights, run.accept_missing_chunks)
    carry_out(Searching.of(kind, k, options, run), rows, Outputs(out, overwrite=bool(overwrite)), scheduler)
