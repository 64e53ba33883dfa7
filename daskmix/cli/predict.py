"""`daskmix predict`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from daskmix.cli.keys import MISSING, OUT, PROBABILITIES, UNCERTAINTY
from daskmix.cli.options import accepting, how_to_run, option, what_to_read
from daskmix.cli.places import apart, connected, free, opened
from daskmix.cli.text import print_facts
from daskmix.cli.work import answers, questions
from daskmix.errors import InputError


@click.command()
@click.argument("model_path", metavar="MODEL")
@click.argument("source", metavar="INPUT")
@option(OUT, help="Where to write labels, and what else is asked for.")
@what_to_read
@option(PROBABILITIES)
@option(UNCERTAINTY)
@option(MISSING, default=None, by_default="as in the fit")
@accepting
@how_to_run
def predict(
    model_path: str,
    source: str,
    out: str,
    variables: Sequence[str],
    sample_dims: Sequence[str] | None,
    probabilities: bool | None,
    uncertainty: bool | None,
    missing: str | None,
    accept_missing_chunks: bool | None,
    scheduler: str | None,
    overwrite: bool | None,
) -> None:
    """Label the rows of INPUT by the model at MODEL.

    MODEL is what `daskmix fit` or save() wrote. Without --variable, the variables are read that its features are named
    after, or all; where features lie within a variable, pass --variable and --sample-dims as to the fit. Labels keep
    the sampled dims, their coordinates and chunks; rows left out have the label -2, the store's _FillValue.

    \b
    Examples:
      daskmix predict model.zarr ocean.zarr --out labels.zarr
      daskmix predict model.zarr ocean.zarr --out doubts.zarr --probabilities --uncertainty --overwrite
    """
    apart([out], [model_path, source])
    from daskmix import load
    from daskmix.estimators.identity import provenance_of_answers
    from daskmix.store import finished, write_values

    model = load(model_path)
    asked = questions(bool(probabilities), bool(uncertainty))
    for method in asked.values():
        if not hasattr(model, method):
            raise InputError(
                f"{model_path} is a {type(model).__name__}, which has no probabilities; leave out --probabilities and "
                "--uncertainty, or fit with --model gmm"
            )
    if missing is not None:
        model.set_params(missing=missing)
    began = time.perf_counter()
    X, _ = opened(source, variables or _variables_of(model, source), accept=bool(accept_missing_chunks))
    of = provenance_of_answers(model, X, sample_dims, tuple(asked))
    free([out], bool(overwrite), of)
    if not finished(out, of):
        with connected(scheduler):
            labels = answers(model, X, sample_dims, asked)
            write_values(labels, out, overwrite=bool(overwrite), of=of)
        click.echo(f"{labels['label'].size:,} rows labelled in {time.perf_counter() - began:.1f} s", err=True)
    print_facts({"written": f"{', '.join(asked)} in {out}"})


def _variables_of(model: Any, source: str) -> list[str]:
    """The variables that a model was fitted on, where the store has all of them; else none in particular."""
    from daskmix.sources.zarr import open_path

    names = [str(name) for name in getattr(model, "feature_names_in_", ())]
    return names if set(names) <= set(getattr(open_path(source).lazy, "data_vars", ())) else []
