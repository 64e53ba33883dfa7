"""One iteration of two cases, against everybody: also those who are too slow for the whole grid."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.cases import FULL, KMEANS, Case
from benchmarks.contenders import DASK_ML, OWN, SPARK, with_clusters
from benchmarks.report import Requirement, Section, at_least, ms, table, times
from benchmarks.settings import Settings
from benchmarks.spark import Spark
from benchmarks.timing import Turns, by_turns, iteration_seconds

ITERATIONS = {KMEANS: 20, FULL: 5}
FASTER = {KMEANS: {DASK_ML: 12, SPARK: 12}, FULL: {SPARK: 16}}

TEXT = """\
One iteration as above, also by dask-ml and by Spark on threads of this machine. dask-ml is given the Dask array that
daskmix is given. Spark starts from rows that it draws itself, as its interface takes no explicit start; it has read
its rows from Parquet and keeps them as its own code decides. Its linear algebra is Java's, unless the
system has a BLAS library. It is timed when all others are done: after a fit its virtual machine goes on working for
a while, at the cost of whoever comes next."""


def section(settings: Settings) -> Section:
    """Both cases."""
    rows, required = [], []
    for case in (
        Case(KMEANS, settings.rows(2_000_000), 32, 16, "float32"),
        Case(FULL, settings.rows(200_000), 16, 16, "float64"),
    ):
        turns = measure(case, settings)
        rows += lines(case, turns)
        required += requirements(case, turns)
    head = ["one iteration", "size", "ms", f"time / {OWN}"]
    return Section("One iteration: against everybody", TEXT, table(head, rows), tuple(required))


def measure(case: Case, settings: Settings) -> Turns:
    """One case."""
    with TemporaryDirectory() as folder, Spark(settings.threads, Path(folder)) as spark:
        contenders = with_clusters(case, case.data(), settings.threads, spark)
        timed = partial(iteration_seconds, iterations=ITERATIONS[case.method], threads=settings.threads)
        trials = {c.name: partial(timed, c) for c in contenders}
        last = {SPARK: trials.pop(SPARK)}
        return by_turns(trials, settings.repeats) | by_turns(last, settings.repeats)


def lines(case: Case, turns: Turns) -> list[list[str]]:
    """One for each contender: its time, or why there is none."""
    timed = [[name, ms(seconds), times(turns.ratio(name, OWN))] for name, seconds in turns.seconds.items()]
    absent = [[name, why, ""] for name, why in turns.absent.items()]
    return [[f"{case.method}, {name}", str(case), *rest] for name, *rest in timed + absent]


def requirements(case: Case, turns: Turns) -> list[Requirement]:
    """Of those who are made for clusters."""
    return [
        at_least(f"{case.method}, against {peer}, {case}", bound, turns.ratio(peer, OWN))
        for peer, bound in FASTER[case.method].items()
    ]
