"""Options that several commands have."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Literal

import click

from daskmix.cli.failures import DEBUG

# As in estimators/mixture_start.py, whose import takes longer than any help text may.
STRUCTURES = (
    "full", "tied", "diag", "spherical",
    "EII", "VII", "EEI", "VEI", "EVI", "VVI", "EEE", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV",
)  # fmt: skip


MISSING = ("raise", "drop", "em")


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


def _temperatures(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """8,4,2,1 -> the numbers."""
    if value is None:
        return None
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} must be numbers, as in 8,4,2,1", ctx, param) from None


def _number_or(word: str) -> Callable[[click.Context, click.Parameter, str | None], str | float | None]:
    """A callback that takes a number, or this word."""

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> str | float | None:
        if value is None or value == word:
            return value
        try:
            return float(value)
        except ValueError:
            raise click.BadParameter(f"{value!r} is neither {word} nor a number", ctx, param) from None

    return read


# What not every kind of model has, and which have it.
OF_SOME = {
    **dict.fromkeys(("covariance_type", "reg_covar"), ("gmm", "bayesian")),
    **dict.fromkeys(("covariance_init", "equal_weights", "prior", "algorithm", "temperature"), ("gmm",)),
    **dict.fromkeys(("noise", "nu", "min_weight", "on_collapse"), ("gmm",)),
    **dict.fromkeys(("weight_concentration_prior_type", "weight_concentration_prior"), ("bayesian",)),
    **dict.fromkeys(("accelerate", "gap_tol"), ("kmeans", "gmm")),
    **dict.fromkeys(("init", "max_passes"), ("kmeans", "gmm", "bayesian")),
    "metric": ("kmeans",),
    "bisecting_strategy": ("bisecting",),
}
OPTIONS = {"covariance_init": "--covariance"}  # where an option has another name than the parameter


def refuse_for_others(kind: str, given: Mapping[str, Any]) -> None:
    """Refuse options that only other kinds of models have."""
    for name in given:
        having = OF_SOME.get(name, (kind,))
        if kind not in having:
            option = OPTIONS.get(name, "--" + name.replace("_", "-"))
            models = " or ".join(having)
            raise click.UsageError(f"{option} is for --model {models}, not {kind}; leave it out, or take such a model")


def numbers(ctx: click.Context, param: click.Parameter, value: str) -> list[int]:
    """2-12 or 2,4,8 -> the numbers."""
    found: set[int] = set()
    try:
        for piece in value.split(","):
            first, _, last = piece.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    except ValueError:
        raise click.BadParameter(f"{value!r} names no numbers; write them as in 2-12 or 2,4,8", ctx, param) from None
    if not found or min(found) < 1:
        raise click.BadParameter(f"{value!r} names no number above 0; write them as in 2-12 or 2,4,8", ctx, param)
    return sorted(found)


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
how_to_weigh = click.option(
    "--weights", metavar="NAME", help="A variable over some of the sampled dims: how often each row counts."
)
which_model = click.option(
    "--model", "kind", required=True, type=click.Choice(["kmeans", "gmm"]), help="K-means or mixture."
)
which_model_of_all = click.option(
    "--model", "kind", required=True, type=click.Choice(["kmeans", "bisecting", "gmm", "bayesian"]),
    help="K-means, bisecting K-means, Gaussian mixture, or a Bayesian one, of which -k is the most components.",
)  # fmt: skip
how_long = _several(
    click.option(
        "--max-iter", type=click.IntRange(min=1),
        help="Most iterations; 300 (kmeans, bisecting) or 100 (gmm, bayesian) by default.",
    ),
    click.option(
        "--tol", type=click.FloatRange(min=0),
        help="When the textbook's iteration stops, 1e-4 (kmeans, bisecting), 1e-3 (gmm) or 1e-5 (bayesian) by default; "
        "0 goes on to a fixed point.",
    ),
    click.option("--gap-tol", type=click.FloatRange(min=0), help="When an accelerated fit stops; 1e-5 by default."),
    click.option("--sample-size", type=click.IntRange(min=1), help="Rows of the sample; at most 64 MiB by default."),
    click.option("--max-passes", type=click.IntRange(min=2), help="Most reads of every chunk; no limit by default."),
    click.option("--reg-covar", callback=_number_or("auto"), metavar="auto|FLOAT", help="Smoothing of a mixture."),
    click.option("--missing", type=click.Choice(MISSING), help="What to do about rows with NaN; raise."),
    click.option("--random-state", type=click.IntRange(0, 2**32 - 1), help="Seed, to get the same model again."),
)  # fmt: skip
what_to_fit = _several(
    which_model_of_all,
    click.option("-k", "k", required=True, type=click.IntRange(min=1), help="Number of clusters or components."),
    click.option(
        "--covariance-type",
        type=click.Choice((*STRUCTURES, "fixed")),
        help="Shape of a mixture's covariances, or mclust's name of it; full by default. fixed is --covariance. "
        "Of a Bayesian mixture full, tied, diag or spherical.",
    ),
    click.option(
        "--covariance", "covariance_init", type=click.FloatRange(min=0, min_open=True),
        help="With --covariance-type fixed: the variance of every feature in every component, which stays.",
    ),
    click.option("--equal-weights", is_flag=True, default=None, help="All components of a mixture weigh the same."),
    click.option(
        "--prior", type=click.Choice(["default"]),
        help="A prior of means and covariances: mclust's default, against components without a covariance.",
    ),
    click.option(
        "--algorithm", type=click.Choice(["em", "cem", "sem"]),
        help="How a mixture shares rows out: by probability (em), each to the likeliest (cem), or drawn (sem).",
    ),
    click.option(
        "--temperature", callback=_temperatures, metavar="T,T,...",
        help="Of the first iterations of a mixture; the last goes on. 8,4,2,1 is deterministic annealing.",
    ),
    click.option("--noise", is_flag=True, default=None, help="Rows of a mixture may belong to nothing: label -1."),
    click.option(
        "--nu", callback=_number_or("estimate"), metavar="N|estimate",
        help="Components of a mixture are Student's t with so many degrees of freedom, so that outliers count less.",
    ),
    click.option(
        "--min-weight", type=click.FloatRange(0, 1, max_open=True),
        help="The least share of the rows that a component of a mixture may have; with --on-collapse.",
    ),
    click.option(
        "--on-collapse", type=click.Choice(["keep", "restart", "drop", "raise"]),
        help="What becomes of a component with fewer rows, or without a covariance; keep by default.",
    ),
    click.option(
        "--weight-concentration-prior", type=click.FloatRange(min=0, min_open=True),
        help="Of a Bayesian mixture: the smaller, the fewer components have weight; 1 / k by default.",
    ),
    click.option(
        "--weight-concentration-prior-type", type=click.Choice(["dirichlet_process", "dirichlet_distribution"]),
        help="Of a Bayesian mixture: the first components take what they can (dirichlet_process, the default), or all "
        "are alike.",
    ),
    click.option(
        "--bisecting-strategy", type=click.Choice(["biggest_inertia", "largest_cluster"]),
        help="Which cluster bisecting K-means splits next; biggest_inertia by default.",
    ),
    click.option(
        "--metric", type=click.Choice(["euclidean", "cosine"]),
        help="Of K-means: cosine clusters directions. euclidean by default.",
    ),
    click.option(
        "--init",
        help="Where to start: auto, k-means++, random; k-means|| (kmeans); kmeans, random_from_data (mixtures).",
    ),
    click.option("--n-init", type=click.IntRange(min=1), help="Number of starts, of which the best is kept."),
    how_long,
    click.option(
        "--accelerate", type=click.Choice(["auto", "none"]),
        help="auto saves passes where there are more rows than the sample holds; none is the textbook's iteration.",
    ),
)  # fmt: skip
accepting = click.option(
    "--accept-missing-chunks", "accept", is_flag=True,
    help="Chunks that the store lacks are read as its fill value, as in stores that were written without empty chunks.",
)  # fmt: skip
_keeping = _several(
    accepting,
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
        "--scratch", metavar="DIR",
        help="A folder on a local disk for scratch, on a cluster on each worker; by default the worker's "
        "local-directory, or Dask's temporary-directory.",
    ),
    click.option(
        "--checkpoint", metavar="STORE",
        help="Where the states of the fit are kept after each pass: the same command goes on from there.",
    ),
    click.option(
        "--checkpoint-every", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS",
        help="Least time between two of them; 0, the default, for one after each pass.",
    ),
    click.option(
        "--retries", type=click.IntRange(min=0), default=3, show_default=True, metavar="N",
        help="How often a pass is submitted again that workers, the scheduler or the connection were lost in.",
    ),
    click.option(
        "--stall", type=click.FloatRange(min=0, min_open=True), default=600, show_default=True, metavar="SECONDS",
        help="How long no part of a pass may be finished before what is seen is told.",
    ),
    click.option(
        "--on-stall", type=click.Choice(["wait", "raise"]), default="raise", show_default=True,
        help="Whether to wait on then, or to end with exit code 75.",
    ),
    click.option(
        "--progress", type=click.Choice(["auto", "terminal", "json", "log", "none"]), default="auto", show_default=True,
        help="How passes are told on stderr: by a line each and one that moves (terminal, where there is one), by a "
        "plain line each (log, elsewhere), by a line of JSON each, or not at all.",
    ),
    click.option("--quiet", is_flag=True, help="No progress, as --progress none."),
)  # fmt: skip


def how_to_keep(command: Any) -> Any:
    """Where chunks stay, how much trouble there may be, and who is told of passes: the command's `run`."""

    @wraps(command)
    def with_run(
        cache: Literal["auto", "memory", "disk", "off"],
        cache_limit: int | None,
        scratch: str | None,
        checkpoint: str | None,
        checkpoint_every: float,
        retries: int,
        stall: float,
        on_stall: Literal["wait", "raise"],
        progress: str,
        quiet: bool,
        accept: bool,
        **others: Any,
    ) -> Any:
        from daskmix import Run

        if progress == "auto":
            progress = "terminal" if sys.stderr.isatty() else "log"
        told: Any = False if quiet or progress == "none" else progress
        run = Run(
            cache, cache_limit, scratch, told, checkpoint=checkpoint, checkpoint_every=checkpoint_every,
            retries=retries, stall=stall, on_stall=on_stall, accept_missing_chunks=accept,
        )  # fmt: skip
        return command(run=run, **others)

    return _keeping(with_run)


how_to_run = _several(
    click.option(
        "--scheduler", metavar="ADDRESS",
        help="A Dask scheduler that does the work, e.g. tcp://127.0.0.1:8786; the threads of this process by default.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace output stores that exist."),
    debug,
)  # fmt: skip
