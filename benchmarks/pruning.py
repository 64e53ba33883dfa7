"""Where bounds that are remembered from pass to pass pay: whole iterations of Lloyd by both kernels."""

import time
from typing import Any

import numpy as np

from benchmarks.cases import KMEANS, Case
from benchmarks.report import Section, ms, table
from benchmarks.settings import Settings
from daskmix.engines.local import one_blas_thread
from daskmix.kernels import Bounds, Frame, compiled

PASSES = (10, 60)
SHAPES = ((4, 256), (16, 64), (16, 128), (16, 256), (64, 64), (64, 128), (64, 256))

TEXT = """\
Milliseconds of the processor for the first passes of Lloyd's iteration by one thread, in clusters that overlap: by the
plain kernel, and by the one that remembers bounds. Both give the same labels. Bounds are used with
128 centres or more that hold at least 2048 numbers, as soon as a few rows promise that four in five distances would be
spared: where that is broken later, as with 64 features and 128 centres, they cost more than they spare."""


def section(settings: Settings) -> Section:
    """Every shape, in both dtypes."""
    lines = [
        line(Case(KMEANS, settings.rows(100_000), d, k, dtype)) for dtype in ("float32", "float64") for d, k in SHAPES
    ]
    head = ["K-means", *(f"{n} passes: plain, bounds, ratio" for n in PASSES), "spared by the last"]
    return Section("Bounds from pass to pass", TEXT, table(head, lines), ())


def line(case: Case) -> list[str]:
    """Both kernels by turns, pass after pass."""
    x = case.data()
    centres, frame = case.start(x)["init"].astype(np.float64), Frame(np.zeros(case.features), np.ones(case.features))
    seconds, spared, bounds = np.zeros((max(PASSES), 2)), 0, None
    with one_blas_thread():
        both(x[: case.k], frame, centres, None)  # compiles
        for i in range(max(PASSES)):
            found, bounds, spared, seconds[i] = both(x, frame, centres, bounds)
            mass = np.maximum(found.mass, 1)[:, None]
            centres = np.where(found.mass[:, None] > 0, found.first / mass, centres)
    totals = [seconds[:n].sum(axis=0) for n in PASSES]
    timed = [f"{ms(plain)}, {ms(pruned)}, {plain / pruned:.2f}" for plain, pruned in totals]
    return [str(case), *timed, f"{spared / case.rows / case.k:.0%}"]


def both(x: Any, frame: Frame, centres: Any, bounds: Bounds | None) -> tuple[Any, Bounds | None, int, list[float]]:
    """One pass by each kernel, and the seconds of each."""
    began = time.thread_time()
    (found,) = compiled.assign(x, None, frame, [centres], [0])
    between = time.thread_time()
    _, made, spared = compiled.assign_again(x, None, frame, centres, 0, bounds)
    return found, made, spared, [between - began, time.thread_time() - between]
