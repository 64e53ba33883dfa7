"""One thread against two, and two threads against two processes of a cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any

import dask
import numpy as np
from distributed import Client, LocalCluster

from benchmarks.cases import FULL, KMEANS, Case
from benchmarks.contenders import own
from benchmarks.peers import tasks_on
from benchmarks.report import Requirement, Section, at_least, at_most, ms, table, times
from benchmarks.settings import Settings
from benchmarks.storage import stored
from benchmarks.timing import Turns, by_turns, pass_seconds

ITERATIONS = 3
ONE, TWO, CLUSTER = "1 thread", "2 threads", "cluster of 2 processes with 1 thread each"

LIMITS = {ONE: f"limit, {ONE}", TWO: f"limit, {TWO}"}
LONG = 2.0  # seconds of a pass that are long
PRODUCTS, SIDE = 200, 256  # of small matrices

TEXT = """\
Seconds of a pass of daskmix, the median of those after the first iteration, whatever the number of threads of the
other tables. For the cluster (dask.distributed on this machine) the rows are slices of a memory map in chunks of 8 MiB,
each of which is a bundle: a task of its own. The limit is what the second thread is worth on this machine at that time:
products of small matrices that share nothing, in turns with the passes."""


def section(settings: Settings) -> Section:
    """Threads, then processes."""
    rows, required = [], []
    for case in (
        Case(KMEANS, settings.rows(2_000_000), 32, 16, "float32"),
        Case(FULL, settings.rows(400_000), 16, 16, "float64"),
    ):
        turns = threads(case, settings)
        rows += lines(case, turns, (ONE, TWO)) + lines(case, turns, tuple(LIMITS.values()))
        required.append(at_least(f"{case.method}, {TWO} against 1, {case}", 1.8, turns.ratio(ONE, TWO)))
    short = Case(KMEANS, settings.rows(1_048_576), 16, 16, "float32")
    long = Case(FULL, settings.rows(1_572_864), 16, 256, "float64")
    with cluster() as client:
        for case, chunks, judge in ((short, 8, added), (long, 24, longer)):
            turns = processes(case, chunks, client, settings)
            rows += lines(case, turns, (TWO, CLUSTER))
            required.append(judge(case, turns))
    head = ["a pass", "size", "ms", "as fast as the first"]
    return Section("Threads and processes", TEXT, table(head, rows), tuple(required))


def threads(case: Case, settings: Settings) -> Turns:
    """Rows in memory, on one thread and on two; and what shares nothing."""
    x = case.data()
    fit = partial(own(case, case.start(x), ITERATIONS).fit, case.lazy(x, 2))
    trials = {ONE: partial(on_threads, 1, fit), TWO: partial(on_threads, 2, fit)}
    limits = {LIMITS[ONE]: partial(products, 1, case.dtype), LIMITS[TWO]: partial(products, 2, case.dtype)}
    return by_turns(trials | limits, settings.repeats)


def processes(case: Case, chunks: int, client: Client, settings: Settings) -> Turns:
    """Slices of a memory map, on two threads and on two processes."""
    with stored(case, chunks) as rows:
        fit = partial(own(case, case.start(case.data()), ITERATIONS).fit, rows.mapped())
        return by_turns({TWO: partial(on_threads, 2, fit), CLUSTER: partial(on_cluster, client, fit)}, settings.repeats)


def on_threads(count: int, fit: Any) -> float:
    """Seconds of a pass on so many threads of this process."""
    with tasks_on(count):
        return pass_seconds(fit)


def products(count: int, dtype: str) -> float:
    """Seconds of matrix products on so many threads, each with matrices of its own that stay in its cache."""

    def some(seed: int) -> None:
        a = np.random.default_rng(seed).random((SIDE, SIDE)).astype(dtype)
        out = np.empty_like(a)
        for _ in range(PRODUCTS):
            np.matmul(a, a, out=out)

    with tasks_on(count):
        began = perf_counter()
        dask.compute(*(dask.delayed(some)(seed) for seed in range(2)))
        return perf_counter() - began


def on_cluster(client: Client, fit: Any) -> float:
    """Seconds of a pass on a cluster."""
    with client.as_current():
        return pass_seconds(fit)


@contextmanager
def cluster() -> Iterator[Client]:
    """Two processes with a thread each; nobody uses it who does not name it."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as local,
        Client(local, set_as_default=False) as client,
    ):
        yield client


def lines(case: Case, turns: Turns, names: tuple[str, ...]) -> list[list[str]]:
    """One for each number of threads or processes."""
    return [
        [f"{case.method}, {name}", str(case), ms(turns.seconds[name]), times(turns.ratio(names[0], name))]
        for name in names
    ]


def added(case: Case, turns: Turns) -> Requirement:
    """What a cluster may add to a short pass."""
    more = 1000 * (turns.seconds[CLUSTER] - turns.seconds[TWO])
    return at_most(f"{case.method}, {CLUSTER}: added to a pass of 8 bundles on {TWO}", 80, more, " ms")


def longer(case: Case, turns: Turns) -> Requirement:
    """What a cluster may add to a long pass, where this machine makes it long."""
    ratio = turns.ratio(CLUSTER, TWO) if turns.seconds[TWO] >= LONG else float("nan")
    return at_most(f"{case.method}, {CLUSTER} against {TWO}, passes of {LONG:g} s or more", 1.15, ratio)
