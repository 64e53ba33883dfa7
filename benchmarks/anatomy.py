"""What a pass of K-means is made of: reading, the product, the kernel, and what Dask and Python add."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import dask
import numpy as np

from benchmarks.cases import KMEANS, Case
from benchmarks.contenders import own
from benchmarks.peers import tasks_on
from benchmarks.report import Section, ms, table, times
from benchmarks.settings import Settings
from benchmarks.timing import by_turns, pass_seconds, seconds_of
from daskmix.kernels import Frame, compiled

ITERATIONS = 10
PASS = "pass of a fit"

TEXT = """\
The case that dask-ml is timed on, by turns and on the same threads, each of which takes one chunk after the other. A
sum by NumPy reads every row once. The product with the centres by BLAS is the least that a method takes which leaves
distances to a product of matrices. The kernel alone, without Dask, finds distances, labels, sums, cost and farthest
rows; a pass of a fit is the kernel on Dask's threads, answers merged and centres moved."""


def section(settings: Settings) -> Section:
    """Each part, and the whole."""
    case = Case(KMEANS, settings.rows(2_000_000), 32, 16, "float32")
    x = case.data()
    start, lazy = case.start(x), case.lazy(x, settings.threads)
    edges = np.cumsum([0, *lazy.chunks[0]])
    parts = [x[a:b] for a, b in pairwise(edges)]
    centres, frame = start["init"], Frame(np.zeros(case.features), np.ones(case.features))
    works: dict[str, Callable[[Any], Any]] = {
        "sum of all rows": np.sum,
        "product with the centres": lambda rows: rows @ centres.T,
        "kernel": lambda rows: compiled.assign(rows, None, frame, [centres], [case.k - 1]),
    }
    trials = {name: partial(_on_threads, work, parts, settings.threads) for name, work in works.items()}
    fit = partial(own(case, start, ITERATIONS).fit, lazy)
    turns = by_turns(trials | {PASS: partial(_a_pass, fit, settings.threads)}, settings.repeats)
    rows = [[name, str(case), ms(seconds), times(turns.ratio(name, PASS))] for name, seconds in turns.seconds.items()]
    return Section("What a pass is made of", TEXT, table(["K-means", "size", "ms", "of the pass"], rows))


def _on_threads(work: Callable[[Any], Any], parts: Sequence[Any], threads: int) -> float:
    with tasks_on(threads):
        pool = dask.config.get("pool")
        return seconds_of(lambda: list(pool.map(work, parts)))


def _a_pass(fit: Callable[[], Any], threads: int) -> float:
    with tasks_on(threads):
        return pass_seconds(fit)
