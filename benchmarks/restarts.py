"""Eight restarts that share each pass, against one fit."""

from functools import partial
from typing import Any

import daskmix
from benchmarks.cases import FULL, KMEANS, REG_COVAR, Case
from benchmarks.peers import tasks_on
from benchmarks.report import Requirement, Section, at_most, ms, table, times
from benchmarks.settings import Settings
from benchmarks.storage import stored
from benchmarks.timing import by_turns, pass_seconds

STARTS = 8
ITERATIONS = 4
ONE, ALL = "one start", f"{STARTS} starts"

TEXT = f"""\
Seconds of a pass of daskmix, the median of those after the first iteration, with {STARTS} starts that share each read
and with one. Stores are Zarr with zstd, and the cache of decoded chunks is off: every pass decodes them all."""


def section(settings: Settings) -> Section:
    """Mixture in memory and from a store, K-means from a store."""
    mixture = Case(FULL, settings.rows(1_000_000), 16, 16, "float64")
    kmeans = Case(KMEANS, settings.rows(2_000_000), 32, 16, "float32")
    done = [
        measure(mixture, "in memory", mixture.lazy(mixture.data(), settings.threads), 7.5, settings),
        from_store(mixture, 16, 4.5, settings),
        from_store(kmeans, 32, 1.7, settings),
    ]
    head = ["a pass", "size", f"{ONE}, ms", f"{ALL}, ms", "ratio"]
    return Section(
        f"{STARTS} restarts in shared passes", TEXT, table(head, (line for line, _ in done)), tuple(r for _, r in done)
    )


def from_store(case: Case, chunks: int, bound: float, settings: Settings) -> tuple[list[str], Requirement]:
    """Rows that are decoded in every pass."""
    with stored(case, chunks) as rows:
        return measure(case, "zstd store, cache off", rows.zstd, bound, settings, run=daskmix.Run(cache="off"))


def measure(
    case: Case, where: str, rows: Any, bound: float, settings: Settings, **options: Any
) -> tuple[list[str], Requirement]:
    """A line of the table, and what is required of it."""
    with tasks_on(settings.threads):
        trials = {
            name: partial(pass_seconds, partial(estimator(case, n_init, **options).fit, rows))
            for name, n_init in ((ONE, 1), (ALL, STARTS))
        }
        turns = by_turns(trials, settings.repeats)
    what, ratio = f"{case.method}, {where}", turns.ratio(ALL, ONE)
    line = [what, str(case), ms(turns.seconds[ONE]), ms(turns.seconds[ALL]), times(ratio)]
    return line, at_most(f"{ALL} in shared passes against one, {what}", bound, ratio)


def estimator(case: Case, n_init: int, **options: Any) -> Any:
    """What is fitted, from rows drawn at random."""
    same = {
        "n_init": n_init, "tol": 0, "max_iter": ITERATIONS, "random_state": 0, "accelerate": "none", **options,
    }  # fmt: skip
    if case.method is KMEANS:
        return daskmix.KMeans(case.k, init="random", **same)
    return daskmix.GaussianMixture(case.k, init_params="random_from_data", reg_covar=REG_COVAR, **same)
