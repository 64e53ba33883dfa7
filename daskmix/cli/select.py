"""`daskmix select`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from daskmix.cli.options import (
    STRUCTURES,
    how_long,
    how_to_keep,
    how_to_run,
    how_to_weigh,
    numbers,
    refuse_for_others,
    what_to_read,
    which_model,
)
from daskmix.cli.places import apart, begun, connected, free, opened
from daskmix.cli.text import facts, print_facts, print_table


@click.command()
@click.argument("source", metavar="INPUT")
@what_to_read
@how_to_weigh
@which_model
@click.option("-k", "ks", required=True, callback=numbers, metavar="FROM-TO", help="Numbers to try, as 2-12 or 2,4,8.")
@click.option(
    "--covariance-type",
    "structures",
    multiple=True,
    type=click.Choice(STRUCTURES),
    help="A shape of covariances, or mclust's name of it; repeat it for more. full, diag and tied by default.",
)
@click.option("--n-init", type=click.IntRange(min=1), default=3, show_default=True, help="Starts of each model.")
@click.option(
    "--criterion",
    type=click.Choice(["bic", "aic", "icl", "calinski-harabasz", "davies-bouldin", "silhouette"]),
    help="What to choose by; bic (gmm) or calinski-harabasz (kmeans) by default.",
)
@how_long
@click.option("--out", required=True, metavar="STORE", help="Where to write the best model.")
@how_to_keep
@how_to_run
def select(
    source: str,
    variables: Sequence[str],
    sample_dims: Sequence[str] | None,
    weights: str | None,
    kind: str,
    ks: Sequence[int],
    structures: Sequence[str],
    n_init: int,
    criterion: str | None,
    out: str,
    scheduler: str | None,
    overwrite: bool,
    run: Any,
    **options: Any,
) -> None:
    """Fit many models to INPUT in shared passes, and write the best.

    \b
    Examples:
      daskmix select ocean.zarr --variable temp --variable salt --model gmm -k 2-12 --out best.zarr
      daskmix select ocean.zarr --model kmeans -k 2,4,8,16 --criterion silhouette --out best.zarr
    """
    from daskmix import select as selected
    from daskmix.store import finished, save_model

    given = {name: value for name, value in options.items() if value is not None}
    tried: dict[str, Any] = {"n_clusters": ks} if kind == "kmeans" else {"n_components": ks}
    if structures:
        tried["covariance_type"] = structures
    refuse_for_others(kind, tried | given)
    apart([out], [source, run.checkpoint])
    if not begun(run.checkpoint):
        free([out], overwrite)
    with connected(scheduler):
        X, weight = opened(source, variables, weights, run.accept_missing_chunks)
        found = selected(
            X, **tried, n_init=n_init, criterion=criterion, sample_weight=weight, sample_dims=sample_dims,
            run=run, **given,
        )  # fmt: skip
        of = found.best_._made_of
        if not finished(out, of):
            save_model(found.best_, out, overwrite=overwrite, of=of)
    winners = found.table_.isel(init=0).to_dataframe().reset_index().drop(columns="init")
    cells = [[_shown(value) for value in row] for row in winners.to_numpy()]
    print_table(list(winners.columns), cells, most=len(cells))
    click.echo()
    print_facts(facts(found.best_) | {"chosen by": found.criterion, "model written": out})


def _shown(value: Any) -> str:
    return f"{value:.8g}" if isinstance(value, float) else str(value)
