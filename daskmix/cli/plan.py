"""`daskmix plan`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from daskmix.cli.fit import estimator
from daskmix.cli.options import accepting, debug, how_to_weigh, what_to_fit, what_to_read
from daskmix.cli.places import opened
from daskmix.cli.text import print_facts


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
    accept: bool,
    **options: Any,
) -> None:
    """Tell what a fit of INPUT will cost: passes, bytes, tasks and memory. Only metadata are read.

    \b
    Examples:
      daskmix plan ocean.zarr --variable temp --variable salt --model gmm -k 5
    """
    from daskmix import plan as planned

    X, weight = opened(source, variables, weights, accept)
    model = estimator(kind, k, None, options)
    found = planned(model, X, sample_weight=weight, sample_dims=sample_dims, threads=threads)
    print_facts(found.facts())
    for warning in found.warnings:
        click.echo(f"Warning: {warning}", err=True)
