"""`daskmix fit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from daskmix.cli.options import how_to_keep, how_to_run, how_to_weigh, refuse_for_others, what_to_fit, what_to_read
from daskmix.cli.places import apart, begun, connected, free, opened
from daskmix.cli.text import facts, print_facts


@click.command()
@click.argument("source", metavar="INPUT")
@what_to_read
@how_to_weigh
@what_to_fit
@click.option("--out", required=True, metavar="STORE", help="Where to write the model.")
@click.option("--labels-out", metavar="STORE", help="Where to write the label of each row.")
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
    overwrite: bool,
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
    model = estimator(kind, k, run, options)
    apart([out, labels_out], [source, run.checkpoint])
    if not begun(run.checkpoint):
        free([out, labels_out], overwrite)
    from daskmix import plan  # here, as everything below needs Dask and Zarr
    from daskmix.store import finished, save_model, write_values

    X, weight = opened(source, variables, weights, run.accept_missing_chunks)
    with connected(scheduler):
        if run.progress in ("terminal", "log"):  # JSON says it of the first pass
            planned = plan(model, X, sample_weight=weight, sample_dims=sample_dims)
            click.echo(f"memory    {planned.facts()['memory']}", err=True)
        model.fit(X, sample_weight=weight, sample_dims=sample_dims)
        of = model._made_of
        if not finished(out, of):
            save_model(model, out, overwrite=overwrite, of=of)
        if labels_out is not None and not finished(labels_out, of):
            write_values(model.predict(X, sample_dims=sample_dims), labels_out, overwrite=overwrite, of=of)
    print_facts(facts(model))
    print_facts({"model written": out} | ({} if labels_out is None else {"labels written": labels_out}))


def estimator(kind: str, k: int, run: Any, options: Mapping[str, Any]) -> Any:
    """The estimator that the options describe."""
    given = {name: value for name, value in options.items() if value is not None}
    refuse_for_others(kind, given)
    from daskmix import BayesianGaussianMixture, BisectingKMeans, GaussianMixture, KMeans

    if kind in ("kmeans", "bisecting"):
        return (KMeans if kind == "kmeans" else BisectingKMeans)(k, run=run, **given)
    if "init" in given:
        given["init_params"] = given.pop("init")
    return (GaussianMixture if kind == "gmm" else BayesianGaussianMixture)(k, run=run, **given)
