"""What a pass of K-means is made of: reading, the product, the kernel, and what Dask and Python add."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import dask
import numpy as np

from benchmarks.cases import KMEANS, Case
from benchmarks.contenders import in_memory, own
from benchmarks.grid import rows_of
from benchmarks.peers import tasks_on
from benchmarks.report import Section, ms, table, times
from benchmarks.settings import Settings
from benchmarks.timing import by_turns, iteration_seconds, pass_seconds, seconds_of
from daskmix.block import Array
from daskmix.kernels import Frame, compiled

ITERATIONS = 10
TILE = 1 << 20  # bytes of the products that are made at a time: they stay in the cache
LEAST = 16_000  # rows: with fewer, many clusters come to rest within the iterations
PASS = "pass of a fit"

TEXT = """\
The case that dask-ml is timed on, and one of the grid in which nearly all time goes into the product, by turns and on
the same threads, each of which takes one chunk after the other. A sum by NumPy reads every row once. The product with
the centres by BLAS, some rows at a time into memory that is used again, is the least that a method takes which leaves
distances to a product of matrices. The kernel alone, without Dask, finds distances, labels, sums, cost and farthest
rows; a pass of a fit is the kernel on Dask's threads, answers merged and centres moved."""

HEAD = ["K-means", "size", "ms", "of the pass"]


def section(settings: Settings) -> Section:
    """Both cases."""
    cases = [
        Case(KMEANS, settings.rows(2_000_000), 32, 16, "float32"),
        Case(KMEANS, max(LEAST, rows_of(KMEANS, 128, 256, "float64", settings)), 128, 256, "float64"),
    ]
    return Section(
        "What a pass is made of", TEXT, table(HEAD, [row for case in cases for row in parts_of(case, settings)])
    )


def parts_of(case: Case, settings: Settings) -> list[list[str]]:
    """Each part of a pass, the whole, and scikit-learn's."""
    x = case.data()
    learn = in_memory(case, x, settings.threads)[1]
    start, lazy = case.start(x), case.lazy(x, settings.threads)
    parts = [x[a:b] for a, b in pairwise(np.cumsum([0, *lazy.chunks[0]]))]
    centres, frame = start["init"], Frame(np.zeros(case.features), np.ones(case.features))
    works: dict[str, Callable[[Any], Any]] = {
        "sum of all rows": np.sum,
        "product with the centres": partial(_multiply, np.ascontiguousarray(centres.T)),
        "kernel": lambda rows: compiled.assign(rows, None, frame, [centres], [case.k - 1]),
    }
    trials = {name: partial(_on_threads, work, parts, settings.threads) for name, work in works.items()}
    fit = partial(own(case, start, ITERATIONS).fit, lazy)
    trials[PASS] = partial(_a_pass, fit, settings.threads)
    trials[f"iteration of {learn.name}"] = partial(iteration_seconds, learn, ITERATIONS, settings.threads)
    turns = by_turns(trials, settings.repeats)
    return [[name, str(case), ms(seconds), times(turns.ratio(name, PASS))] for name, seconds in turns.seconds.items()]


def _multiply(centres: Array, rows: Array) -> None:
    """rows @ centres, of which nothing is kept."""
    size = max(1, TILE // (centres.shape[1] * rows.itemsize))
    out = np.empty((size, centres.shape[1]), rows.dtype)
    for i in range(0, len(rows), size):
        some = rows[i : i + size]
        np.matmul(some, centres, out=out[: len(some)])


def _on_threads(work: Callable[[Any], Any], parts: Sequence[Any], threads: int) -> float:
    with tasks_on(threads):
        pool = dask.config.get("pool")
        return seconds_of(lambda: list(pool.map(work, parts)))


def _a_pass(fit: Callable[[], Any], threads: int) -> float:
    with tasks_on(threads):
        return pass_seconds(fit)
