"""The command line: `daskmix fit | predict | inspect | demo`, paths or URLs in and out.

What computes is imported by the command that needs it, so that help comes at once.
"""

from __future__ import annotations

import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import click

from daskmix import __version__
from daskmix.errors import (
    BadChunkError,
    DaskmixError,
    IncompleteStoreError,
    InputError,
    InputTypeError,
    SchemaError,
    StoreExistsError,
    StoreNotFoundError,
    VariableNotFoundError,
)

BAD_INPUT = (
    InputError,
    InputTypeError,
    StoreNotFoundError,
    StoreExistsError,
    VariableNotFoundError,
    BadChunkError,
    SchemaError,
    IncompleteStoreError,
)
DEBUG = "daskmix.debug"
UNTOLD = ("run", "random_state", "verbose", "warm_start")  # of a model's parameters
ROWS_SHOWN, COLUMNS_SHOWN = 32, 8

# --- errors and exit codes --------------------------------------------------------------------------------------------


class BadInput(click.ClickException):
    """What was given cannot be used."""

    exit_code = 2


def _told(error: Exception) -> click.ClickException:
    """An error as one line on stderr, with its exit code."""
    said = " ".join(str(error).split()).replace('missing="drop"', "--missing drop")
    if isinstance(error, BAD_INPUT):
        return BadInput(said)
    expected = isinstance(error, DaskmixError)
    return click.ClickException(said if expected else f"{type(error).__name__}: {said} (--debug shows where)")


class Commands(click.Group):
    """Commands whose errors come out as one line: exit code 2 for bad usage or input, 1 for anything else."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _warn
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click knows what to do about these
        except Exception as error:
            if ctx.meta.get(DEBUG):
                traceback.print_exc()
            raise _told(error) from error


def _warn(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    click.echo(f"Warning: {' '.join(str(message).split())}", err=True)


def _set_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[DEBUG] = True


# --- options ----------------------------------------------------------------------------------------------------------


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """time,lat,lon -> the names."""
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if not all(names):
        raise click.BadParameter(f"{value!r} has an empty name; write them as in time,lat,lon", ctx, param)
    return names


def _auto_or_number(ctx: click.Context, param: click.Parameter, value: str | None) -> str | float | None:
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


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="daskmix")
@debug
def main() -> None:
    """K-means and Gaussian mixtures for data that do not fit in memory.

    Rows come from a Zarr store, chunk by chunk; models and labels go to Zarr stores.

    \b
    Examples:
      daskmix fit ocean.zarr --variable temp --variable salt --model gmm -k 5 --out model.zarr
      daskmix predict model.zarr ocean.zarr --out labels.zarr --uncertainty
      daskmix inspect model.zarr
      daskmix demo --out demo-output

    Exit codes: 0 done, 2 bad usage or bad input, 1 anything else.
    """


# --- fit --------------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("source", metavar="INPUT")
@what_to_read
@click.option("--weights", metavar="NAME", help="A variable over some of the sampled dims: how often each row counts.")
@click.option("--model", "kind", required=True, type=click.Choice(["kmeans", "gmm"]), help="K-means or mixture.")
@click.option("-k", "k", required=True, type=click.IntRange(min=1), help="Number of clusters or components.")
@click.option(
    "--covariance-type",
    type=click.Choice(["full", "tied", "diag", "spherical"]),
    help="Shape of a mixture's covariances; full by default.",
)
@click.option("--init", help="Where to start: auto, k-means++, random; k-means|| (kmeans); kmeans (gmm).")
@click.option("--n-init", type=click.IntRange(min=1), help="Number of starts, of which the best is kept; 1 by default.")
@click.option("--max-iter", type=click.IntRange(min=1), help="Most iterations; 300 (kmeans) or 100 (gmm) by default.")
@click.option("--tol", type=click.FloatRange(min=0), help="When to stop; 1e-4 (kmeans) or 1e-3 (gmm) by default.")
@click.option("--reg-covar", callback=_auto_or_number, metavar="auto|FLOAT", help="Smoothing of a mixture; auto.")
@click.option("--missing", type=click.Choice(["raise", "drop"]), help="What to do about rows with NaN; raise.")
@click.option("--random-state", type=click.IntRange(0, 2**32 - 1), help="Seed, to get the same model again.")
@click.option("--out", required=True, metavar="STORE", help="Where to write the model.")
@click.option("--labels-out", metavar="STORE", help="Where to write the label of each row.")
@how_to_keep
@how_to_run
@click.option("--quiet", is_flag=True, help="No progress.")
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
    quiet: bool,
    cache: Literal["auto", "memory", "disk", "off"],
    cache_limit: int | None,
    scratch: str | None,
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
      On a cluster:
        daskmix fit s3://bucket/x.zarr --model kmeans -k 64 --out model.zarr --scheduler tcp://10.0.0.1:8786
    """
    from daskmix import Run

    progress: Literal["terminal", "log"] = "terminal" if sys.stderr.isatty() else "log"
    run = Run(cache, cache_limit, scratch, progress=False if quiet else progress)
    model = _estimator(kind, k, run, options)
    _free([out, labels_out], overwrite, inputs=[source])
    from daskmix import write_rows  # here, as everything below needs Dask and Zarr, which the lines above do not

    with _connected(scheduler):
        X, weight = _opened(source, variables, weights)
        model.fit(X, sample_weight=weight, sample_dims=sample_dims)
        model.save(out, overwrite=overwrite)
        if labels_out is not None:
            write_rows(model.predict(X, sample_dims=sample_dims), labels_out, overwrite=overwrite)
    _print_facts(_facts(model))
    _print_facts({"model written": out} | ({} if labels_out is None else {"labels written": labels_out}))


def _estimator(kind: str, k: int, run: Any, options: Mapping[str, Any]) -> Any:
    """The estimator that the options describe."""
    given = {name: value for name, value in options.items() if value is not None}
    only_mixtures = [f"--{name.replace('_', '-')}" for name in ("covariance_type", "reg_covar") if name in given]
    if kind == "kmeans" and only_mixtures:
        raise click.UsageError(f"{only_mixtures[0]} is for mixtures; leave it out, or pass --model gmm")
    from daskmix import GaussianMixture, KMeans

    if kind == "kmeans":
        return KMeans(k, run=run, **given)
    if "init" in given:
        given["init_params"] = given.pop("init")
    return GaussianMixture(k, run=run, **given)


def _opened(source: str, variables: Sequence[str], weights: str | None = None) -> tuple[Any, Any]:
    """Rows and weights of a store, lazily; refused where writing the store was interrupted."""
    from daskmix.sources.zarr import Stored, open_path
    from daskmix.store import refuse_incomplete

    refuse_incomplete(source)
    X: Any = open_path(source, list(variables) or None)
    if weights is None:
        return X, None
    weight = open_path(source, [weights]).lazy
    if variables:
        return X, weight
    X = Stored(X.lazy.drop_vars(weights), X.bare.drop_vars(weights))
    if not X.lazy.data_vars:
        raise VariableNotFoundError(f"{source} has no variable beside the weights {weights!r}; nothing is left to fit")
    return X, weight


def _free(outputs: Sequence[str | None], overwrite: bool, inputs: Sequence[str]) -> None:
    """Refuse what cannot be written, before any work is done and lost."""
    from daskmix.store import vacant

    places = [_place(output) for output in outputs if output is not None]
    for output, place in zip([o for o in outputs if o is not None], places, strict=True):
        for source in inputs:
            if f"{_place(source)}/".startswith(f"{place}/"):
                raise click.UsageError(f"writing {output} would replace the input {source}; choose another path")
        if places.count(place) > 1:
            raise click.UsageError(f"{output} is named for two outputs; choose another path for one of them")
        vacant(output, overwrite)
        _refuse_below_a_file(output)


def _place(path: str) -> str:
    return path.rstrip("/") if "://" in path else str(Path(path).resolve())


def _refuse_below_a_file(path: str) -> None:
    above = [] if "://" in path else Path(path).resolve().parents
    for place in above:
        if place.is_file():
            raise InputError(f"{path} cannot be written: {place} is a file; choose another path")


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """The cluster at this address, for as long as the work takes; nothing without an address."""
    if address is None:
        yield
        return
    from distributed import Client
    from distributed.comm import get_address_host

    try:
        get_address_host(address)  # a client that finds no port in its address stays the default client
        client = Client(address)  # waits as long as Dask's distributed.comm.timeouts.connect says
    except ValueError as error:
        raise click.UsageError(
            f"{address!r} is no address of a scheduler: {error}; write it as tcp://host:8786"
        ) from error
    except OSError as error:
        raise click.ClickException(
            f"no Dask scheduler answers at {address}: {' '.join(str(error).split())}; "
            "check the address, start one with `dask scheduler`, or leave out --scheduler"
        ) from error
    with client:
        yield


# --- predict ----------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("model_path", metavar="MODEL")
@click.argument("source", metavar="INPUT")
@click.option("--out", required=True, metavar="STORE", help="Where to write labels, and what else is asked for.")
@what_to_read
@click.option("--probabilities", is_flag=True, help="Write each component's probability too (mixtures).")
@click.option("--uncertainty", is_flag=True, help="Write one minus the largest probability too (mixtures).")
@click.option("--missing", type=click.Choice(["raise", "drop"]), help="What to do about rows with NaN; as in the fit.")
@how_to_run
def predict(
    model_path: str,
    source: str,
    out: str,
    variables: Sequence[str],
    sample_dims: Sequence[str] | None,
    probabilities: bool,
    uncertainty: bool,
    missing: str | None,
    scheduler: str | None,
    overwrite: bool,
) -> None:
    """Label the rows of INPUT by the model at MODEL.

    MODEL is what `daskmix fit` or save() wrote. Without --variable, the variables that it was fitted on are read.
    Labels keep the sampled dims, their coordinates and chunks; rows left out have the label -2, the store's _FillValue.

    \b
    Examples:
      daskmix predict model.zarr ocean.zarr --out labels.zarr
      daskmix predict model.zarr ocean.zarr --out doubts.zarr --probabilities --uncertainty --overwrite
    """
    _free([out], overwrite, inputs=[model_path, source])
    from daskmix import load, write_rows

    model = load(model_path)
    asked = {"label": "predict"}
    asked |= {"probability": "predict_proba"} if probabilities else {}
    asked |= {"uncertainty": "uncertainty"} if uncertainty else {}
    for method in asked.values():
        if not hasattr(model, method):
            raise InputError(
                f"{model_path} is a {type(model).__name__}, which has no probabilities; leave out --probabilities and "
                "--uncertainty, or fit with --model gmm"
            )
    if missing is not None:
        model.set_params(missing=missing)
    began = time.perf_counter()
    with _connected(scheduler):
        X, _ = _opened(source, variables or _variables_of(model, source))
        answers = {name: getattr(model, method)(X, sample_dims=sample_dims) for name, method in asked.items()}
        labels = _together(answers)
        write_rows(labels, out, overwrite=overwrite)
    rows = labels["label"].size
    click.echo(f"{rows:,} rows labelled in {time.perf_counter() - began:.1f} s", err=True)
    _print_facts({"written": f"{', '.join(asked)} in {out}"})


def _variables_of(model: Any, source: str) -> list[str]:
    """The variables that a model was fitted on, where the store has all of them; else none in particular."""
    from daskmix.sources.zarr import open_path

    names = [str(name) for name in getattr(model, "feature_names_in_", ())]
    return names if set(names) <= set(getattr(open_path(source).lazy, "data_vars", ())) else []


def _together(answers: Mapping[str, Any]) -> Any:
    """One Dataset of all answers, which then share their reads."""
    import xarray as xr

    def named(values: Any) -> Any:
        if isinstance(values, xr.DataArray):
            return values
        rows = answers["label"].ndim
        dims = ["row"] if rows == 1 else [f"dim_{i}" for i in range(rows)]
        return xr.DataArray(values, dims=dims + ["component"] * (values.ndim - rows))

    return xr.Dataset({name: named(values) for name, values in answers.items()})


# --- inspect ----------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("path")
@debug
def inspect(path: str) -> None:
    """Describe a model, labels or any other Zarr store.

    Of a store that is no model, only the metadata is read.

    \b
    Examples:
      daskmix inspect model.zarr     parameters, centres, inertia or BIC, passes, versions
      daskmix inspect labels.zarr    dims, chunks and types, and whether all labels were written
      daskmix inspect ocean.zarr     the same of any store
    """
    from daskmix.store import load

    kind, complete = _mark(path)
    if kind in ("KMeans", "GaussianMixture") and complete:
        model = load(path)
        _print_facts({"store": path} | _facts(model) | _origin(model))
        click.echo()
        _print_table(*_parameters(model))
    else:
        _print_store(path, kind, complete)


def _mark(path: str) -> tuple[str, bool]:
    """What daskmix wrote at this path, and whether it is complete; "" for other stores."""
    from daskmix.store import store_state

    try:
        state = store_state(path)
    except SchemaError:  # a bare array
        state = {}
    return str(state.get("kind", "")), bool(state.get("complete", True))


def _facts(model: Any) -> dict[str, Any]:
    """A fitted model in a few lines."""
    mixture = hasattr(model, "means_")
    k, d = (model.means_ if mixture else model.cluster_centers_).shape
    named = getattr(model, "feature_names_in_", ())
    names = [*map(str, named[:COLUMNS_SHOWN]), *["..."] * (d > COLUMNS_SHOWN)]
    ended = "converged" if model.converged_ else "stopped before it converged"
    rows = f"{model.history_[0]['rows']:,} rows of " if model.history_ else ""
    facts = {
        "model": f"{type(model).__name__}, k = {k}" + (f", {model.covariance_type} covariances" if mixture else ""),
        "fitted on": f"{rows}{d} feature{'s' * (d != 1)}" + (f": {', '.join(names)}" if len(named) else ""),
        "iterations": f"{model.n_iter_}, {ended}",
        "passes": f"{model.n_passes_}, {_size(model.bytes_read_)} read",
    }
    if mixture:
        facts |= {"log-likelihood": f"{model.lower_bound_:.6g} a row", "bic": f"{model.bic():.8g}"}
    else:
        facts |= {"inertia": f"{model.inertia_:.8g}"}
    return facts | {"seed": model.seed_}


def _origin(model: Any) -> dict[str, Any]:
    """What a model was asked for, and by which versions it was fitted."""
    params = {name: v for name, v in model.get_params(deep=False).items() if name not in UNTOLD}
    seen = model.history_[0].get("fingerprint", {}) if model.history_ else {}
    packages = ("daskmix", "numpy", "scipy", "numba")
    return {
        "parameters": ", ".join(f"{name}={value}" for name, value in params.items() if value is not None),
        "fitted by": ", ".join(f"{name} {seen[name]}" for name in packages if name in seen),
        "processor": ", ".join(str(seen[name]) for name in ("processor", "blas") if seen.get(name)),
    }


def _parameters(model: Any) -> tuple[list[str], list[list[str]]]:
    """Share of the rows and centre of each cluster or component, as a table."""
    mixture = hasattr(model, "means_")
    centres = model.means_ if mixture else model.cluster_centers_
    shares = model.weights_ if mixture else model.cluster_weights_ / model.cluster_weights_.sum()
    d = centres.shape[1]
    names, units = getattr(model, "feature_names_in_", range(d)), getattr(model, "feature_units_", None) or [None] * d
    features = [f"{name} [{u}]" if u else str(name) for name, u in zip(names, units, strict=True)][:COLUMNS_SHOWN]
    more = ["..."] if d > COLUMNS_SHOWN else []
    header = ["component" if mixture else "cluster", "weight", *features, *more]
    cells = [
        [str(j), f"{share:.4f}", *(f"{value:.6g}" for value in centre[:COLUMNS_SHOWN]), *more]
        for j, (share, centre) in enumerate(zip(shares, centres, strict=True))
    ]
    return header, cells


def _print_store(path: str, kind: str, complete: bool) -> None:
    """Every array of a store, from its metadata."""
    import zarr

    node = zarr.open(path, mode="r")
    arrays = [(node.name or "/", node)] if isinstance(node, zarr.Array) else sorted(_arrays(node))
    ours = {"": "not written by daskmix", "rows": "labels of daskmix"}.get(kind, f"a {kind} of daskmix")
    state = {} if not kind else {"complete": "yes" if complete else "no: writing was interrupted, write it again"}
    total = sum(array.nbytes for _, array in arrays)
    _print_facts({"store": f"{path}, Zarr v{node.metadata.zarr_format}", "kind": ours} | state | {"size": _size(total)})
    click.echo()
    header = ["variable", "dims", "shape", "chunks", "shards", "dtype", "bytes"]
    _print_table(header, [_array_cells(name, array) for name, array in arrays])


def _arrays(group: Any) -> Iterator[tuple[str, Any]]:
    import zarr

    for name, member in group.members(max_depth=None):
        if isinstance(member, zarr.Array):
            yield name, member


def _array_cells(name: str, array: Any) -> list[str]:
    dims = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ["-"]
    return [
        name,
        ",".join(map(str, dims)),
        _times(array.shape),
        _times(array.chunks),
        "-" if array.shards is None else _times(array.shards),
        str(array.dtype),
        f"{array.nbytes:,}",
    ]


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


# --- demo -------------------------------------------------------------------------------------------------------------


@main.command()
@click.option("--out", required=True, metavar="DIR", help="Where stores, models and picture.png go.")
@click.option("--overwrite", is_flag=True, help="Replace what an earlier demo left there.")
@click.option(
    "--rows", type=click.IntRange(min=1000), default=34_000_000, show_default=True, metavar="N",
    help="Rows of 16 float32 features in the store that is larger than memory.",
)  # fmt: skip
@click.option(
    "--memory-cap", type=click.IntRange(min=512), default=640, show_default=True, metavar="MIB",
    help="Memory that the process fitting this store may take; Python, Dask, numba and BLAS alone take some 350.",
)  # fmt: skip
@debug
def demo(out: str, overwrite: bool, rows: int, memory_cap: int) -> None:
    """Segment two photographs and fit a store larger than memory.

    Needs neither a cluster nor a network: the photographs ship with scikit-learn, the large store is generated (2.0 GiB
    on disk while the demo runs). Takes a minute or two.

    \b
    Examples:
      daskmix demo --out demo-output
      daskmix demo --out demo-output --overwrite --rows 100000000 --memory-cap 1024
    """
    from daskmix.demo import run

    run(Path(out), rows, memory_cap << 20, overwrite, click.echo)


# --- text -------------------------------------------------------------------------------------------------------------


def _size(nbytes: int) -> str:
    from dask.utils import format_bytes

    return format_bytes(nbytes)


def _print_facts(facts: Mapping[str, Any]) -> None:
    for name, value in facts.items():
        if value != "":
            click.echo(f"{name:<15} {value}")


def _print_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    shown = [header, *cells[:ROWS_SHOWN]]
    widths = [max(len(row[column]) for row in shown) for column in range(len(header))]
    for row in shown:
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    if len(cells) > ROWS_SHOWN:
        click.echo(f"... and {len(cells) - ROWS_SHOWN} more")


if __name__ == "__main__":
    main()
