"""`daskmix fit`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from daskmix.cli.keys import LABELS, MODEL
from daskmix.cli.options import (
    given,
    how_to_keep,
    how_to_run,
    how_to_weigh,
    option,
    refuse_for_others,
    what_to_fit,
    what_to_read,
    writing,
)
from daskmix.cli.work import Fitting, Outputs, Source, carry_out


@click.command()
@click.argument("source", metavar="INPUT")
@what_to_read
@how_to_weigh
@what_to_fit
@writing
@option(LABELS)
@how_to_keep
@how_to_run
def fit(
    source: str,
    variables: Sequence[str],
    sample_dims: Sequence[str] | None,
    weights: str | None,
    kind: str,
    k: int,
    out: str,
    labels_out: str | None,
    scheduler: str | None,
    overwrite: bool | None,
    run: Any,
    **options: Any,
) -> None:
    """Fit a model to the rows of INPUT, a path or URL of a Zarr store.

    A line tells each pass over the rows on stderr; the model is described on stdout.

    \b
    Examples:
      Rows (row, feature) in one variable:
        daskmix fit table.zarr --variable x --model kmeans -k 8 --out model.zarr
      Two variables over time, lat and lon, land left out, cells weighted by area:
        daskmix fit ocean.zarr --variable temp --variable salt --missing drop \\
          --weights area --model gmm -k 5 --out model.zarr --labels-out labels.zarr
      One row per place, its months as features:
        daskmix fit sst.zarr --variable sst --sample-dims lat,lon --model kmeans -k 4 --out model.zarr
      As many components as the rows need, of 12:
        daskmix fit ocean.zarr --variable temp --variable salt --model bayesian -k 12 --out model.zarr
      On a cluster:
        daskmix fit s3://bucket/x.zarr --model kmeans -k 64 --out model.zarr --scheduler tcp://10.0.0.1:8786
    """
    options = given(options)
    refuse_for_others(kind, options, MODEL)
    rows = Source(source, variables, sample_dims, weights, run.accept_missing_chunks)
    outputs = Outputs(out, labels_out, overwrite=bool(overwrite))
    carry_out(Fitting(kind, options, run, k), rows, outputs, scheduler)
