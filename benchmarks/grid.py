"""One iteration over a grid of shapes and dtypes, against those who keep all rows in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil

import numpy as np

from benchmarks.cases import DIAG, FULL, KMEANS, Case, Method
from benchmarks.ceiling import product_flops
from benchmarks.contenders import INTEL, LEARN, OWN, in_memory
from benchmarks.peers import tasks_on
from benchmarks.report import Requirement, Section, at_least, at_most, ms, progress, reasons, table, times
from benchmarks.settings import Settings
from benchmarks.timing import SHORT, Turns, by_turns, fit_seconds, iteration_seconds, iterations_of

DTYPES = ("float32", "float64")
# daskmix computes chunks of up to 4 MiB two or more at a time, and then not all threads have work.
LEAST_CHUNK = 4.25 * 2**20
LARGEST = 256 << 20  # bytes of rows
FEWER = 1  # measurement of a mixture of which nothing is required

SLOWEST, MOSTLY = 1.05, 0.85  # K-means: no cell takes more of scikit-learn's time, half of the cells no more than this
FASTER = {  # how many times as fast as scikit-learn a mixture of float64 rows must be, by (d, k)
    FULL: {(16, 16): 11, (16, 64): 14, (3, 8): 12, (50, 16): 4.5, (128, 8): 1.2},
    DIAG: {(16, 16): 4},
}

TEXT = """\
One iteration, by the difference of a long fit and a short one, so that what a fit does once cancels: the same rows in
memory (clusters that overlap; in equal chunks for daskmix), the same explicit start, the same number of threads. A
ratio says how many times as long the peer takes. The limit is the product of two large square matrices of that dtype
on as many threads, measured in the same run; against it stand the matrix products of the method, {products}.
Rows are chosen so that a cell takes seconds: where k is large they are few.{repeats}{absent}"""

WHICHEVER = """\
whichever way densities were evaluated (the last column: by a product in that dtype, or centred, one component after the
other)"""

PRODUCTS = {
    KMEANS: "2 n d k flops",
    FULL: f"4 n k p flops with p = 1 + d + d (d + 1) / 2, {WHICHEVER}",
    DIAG: f"4 n k (2 d + 1) flops, {WHICHEVER}",
}


@dataclass(frozen=True)
class Sizing:
    """How many rows a method gets in each cell, and how many iterations are timed at a time."""

    work: float  # n k (d + 16), about
    least: float  # n k d
    iterations: int
    own: int  # those of daskmix: short iterations must be many to stand out against what a fit does once


SIZING = {KMEANS: Sizing(1.5e9, 1e8, 10, 20), FULL: Sizing(5e7, 0, 1, 5), DIAG: Sizing(1e8, 0, 5, 20)}


@dataclass(frozen=True)
class Cell:
    """One line of the table."""

    case: Case
    turns: Turns
    limit: float  # flops per second of a matrix product
    way: str  # in which daskmix evaluated densities

    def __str__(self) -> str:
        return f"d={self.case.features}, k={self.case.k}, {self.case.dtype}"

    @property
    def of_limit(self) -> float:
        return self.case.flops / self.turns.seconds[OWN] / self.limit


def section(method: Method, settings: Settings) -> Section:
    """The grid of one method."""
    measured = []
    for cell in cells(method, settings):
        progress(f"{method}, {cell}: {times(cell.turns.ratio(LEARN, OWN))}")
        measured.append(cell)
    repeats = "" if method is KMEANS else " Cells of which nothing is required are measured once."
    text = TEXT.format(products=PRODUCTS[method], repeats=repeats, absent=reasons(measured[0].turns.absent))
    required = kmeans_required(measured) if method is KMEANS else mixture_required(method, measured)
    return Section(f"One iteration: {method}", text, cells_table(method, measured), required)


def cells(method: Method, settings: Settings) -> Iterator[Cell]:
    """Every cell of the grid, measured."""
    limits = {dtype: product_flops(dtype, settings) for dtype in DTYPES}
    for d in settings.features:
        for k in settings.clusters:
            for dtype in DTYPES:
                case = Case(method, rows_of(method, d, k, dtype, settings), d, k, dtype)
                yield measure(case, limits[dtype], settings)


def rows_of(method: Method, d: int, k: int, dtype: str, settings: Settings) -> int:
    """As many rows as the work allows, but some for every thread and no more than memory should hold."""
    sizing, row = SIZING[method], d * np.dtype(dtype).itemsize
    wanted = min(sizing.work / (k * (d + 16)), LARGEST / row)
    return settings.rows(ceil(max(wanted, sizing.least / (k * d), settings.threads * LEAST_CHUNK / row)))


def measure(case: Case, limit: float, settings: Settings) -> Cell:
    """One cell."""
    contenders = in_memory(case, case.data(), settings.threads)
    sizing = SIZING[case.method]
    with tasks_on(settings.threads):
        _, own = fit_seconds(partial(contenders[0].fit, SHORT + sizing.own))
    # Clusters that lie apart may come to rest before so many iterations are done.
    own_iterations = sizing.own if own.n_iter_ == SHORT + sizing.own else sizing.iterations
    iterations = {c.name: own_iterations if c.name == OWN else sizing.iterations for c in contenders}
    timed = {c.name: partial(iteration_seconds, c, iterations[c.name], settings.threads) for c in contenders}
    turns = by_turns(timed, repeats_of(case, settings))
    return Cell(case, turns, limit, iterations_of(own)[0]["path"])


def repeats_of(case: Case, settings: Settings) -> int:
    """Fewer where nothing is required, for those mixtures take most of the time."""
    required = case.method is KMEANS or (case.dtype == "float64" and (case.features, case.k) in FASTER[case.method])
    return settings.repeats if required else min(settings.repeats, FEWER)


def cells_table(method: Method, measured: Sequence[Cell]) -> str:
    """One line per cell; a column for each peer that is there."""
    peers = [name for name in (LEARN, INTEL) if name in measured[0].turns.seconds]
    head = [str(method), "rows", f"{OWN}, ms", *(f"{peer} / {OWN}" for peer in peers), "of the limit"]
    rows = []
    for cell in measured:
        ratios = [times(cell.turns.ratio(peer, OWN)) for peer in peers]
        rows.append([str(cell), f"{cell.case.rows:,}", ms(cell.turns.seconds[OWN]), *ratios, f"{cell.of_limit:.0%}"])
    if method is KMEANS:
        return table(head, rows)
    return table([*head, "densities"], [[*row, cell.way] for row, cell in zip(rows, measured, strict=True)])


def kmeans_required(measured: Sequence[Cell]) -> tuple[Requirement, ...]:
    """No cell much slower than scikit-learn, half of them faster."""
    took = [cell.turns.ratio(OWN, LEARN) for cell in measured]
    slowest = max(range(len(took)), key=took.__getitem__)
    reached = 100 * sum(ratio <= MOSTLY for ratio in took) / len(took)
    return (
        at_most(f"K-means against {LEARN}, the slowest cell: {measured[slowest]}", SLOWEST, took[slowest]),
        at_least(f"K-means against {LEARN}, cells at {MOSTLY}x the time or less", 50, reached, f"% of {len(took)}"),
    )


def mixture_required(method: Method, measured: Sequence[Cell]) -> tuple[Requirement, ...]:
    """Some cells of float64, each with a bound of its own."""
    at = {(cell.case.features, cell.case.k): cell for cell in measured if cell.case.dtype == "float64"}
    return tuple(
        at_least(f"{method}, against {LEARN}, (d, k) = {where}, float64", bound, at[where].turns.ratio(LEARN, OWN))
        for where, bound in FASTER[method].items()
        if where in at
    )
