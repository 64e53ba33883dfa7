"""What else is learned from the same pass: covariances that are found step by step, and rows with gaps."""

import time
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import dask.array as da
import numpy as np

from benchmarks.cases import DIAG, FULL, KMEANS, Case
from benchmarks.contenders import own
from benchmarks.peers import tasks_on
from benchmarks.report import Requirement, Section, at_most, ms, table, times
from benchmarks.settings import Settings
from benchmarks.timing import by_turns, pass_seconds
from daskmix import testing
from daskmix.estimators.mixture_base import framed
from daskmix.kernels import compiled
from daskmix.sharing import Explain

STEPWISE = ("VEE", "EVE", "VVE")
ITERATIONS = 10
LACKING = 0.2
PART, SLOWER = 5, 2.5  # % of a pass for an estimate, times as long with gaps

STEPS_TEXT = f"""\
Covariances whose estimate has no closed form: the M-step alone on the sums of all rows, the median of {ITERATIONS}
steps of EM and the first one, which starts from nothing; against the median pass of such a fit."""

GAPS_TEXT = f"""\
Fits with missing="em" where {LACKING:.0%} of all values are missing, at random, against the same fit of the complete
rows, by turns. With full covariances rows that lack the same features are computed on together: 4 features may lack in
15 ways, 16 in so many that nearly every row is alone."""


def steps(settings: Settings) -> Section:
    """The M-steps that take inner iterations."""
    rows, required = zip(*(stepwise(name, settings) for name in STEPWISE), strict=True)
    head = ["covariances", "size", "M-step, ms", "the first, ms", "a pass, ms", "M-step / pass"]
    return Section("M-steps found step by step", STEPS_TEXT, table(head, rows), required)


def gaps(settings: Settings) -> Section:
    """The price of values that are missing."""
    found = [
        with_gaps(Case(DIAG, settings.rows(400_000), 16, 16, "float64"), settings, SLOWER),
        with_gaps(Case(KMEANS, settings.rows(400_000), 16, 16, "float64"), settings),
        with_gaps(Case(FULL, settings.rows(400_000), 4, 8, "float64"), settings),
        with_gaps(Case(FULL, settings.rows(40_000), 16, 16, "float64"), settings),
    ]
    rows, required = [row for row, _ in found], tuple(r for _, r in found if r is not None)
    head = ["a pass", "size", "complete, ms", "with gaps, ms", "ratio"]
    return Section("Rows with gaps", GAPS_TEXT, table(head, rows), required)


def stepwise(name: str, settings: Settings) -> tuple[list[str], Requirement]:
    """One structure: seconds of its estimate, and of a pass."""
    case = Case(replace(FULL, name=name), settings.rows(1_000_000), 8, 8, "float64")
    x = case.data()
    start = case.start(x) | {"covariance_type": name}
    with tasks_on(settings.threads):
        passed = pass_seconds(partial(own(case, start, ITERATIONS).fit, case.lazy(x, settings.threads)))
        model, frame = framed(own(case, start, 1).fit(x[: 100 * case.k])._model(), x.dtype)
    floor, block, seconds = np.zeros(case.features), testing.block_of(x), []
    for _ in range(ITERATIONS):
        found = Explain(model, frame, model.path(x.dtype), floor).map(block, compiled)
        began = time.perf_counter()
        model = model.learn(found, floor)
        seconds.append(time.perf_counter() - began)
    part = 100 * median(seconds) / passed
    row = [name, f"{case.rows:,} x 8, k=8", ms(median(seconds)), ms(seconds[0]), ms(passed), f"{part:.2g} %"]
    return row, at_most(f"M-step of {name} against a pass, {case.rows:,} x 8, k=8", PART, part, " %")


def with_gaps(case: Case, settings: Settings, bound: float | None = None) -> tuple[list[str], Requirement | None]:
    """The pass of a fit of complete rows and of rows with gaps."""
    x = case.data()
    gappy = np.where(np.random.default_rng(2).random(x.shape) < LACKING, np.nan, x)
    fits = {name: partial(_pass, case, case.start(x), rows, settings) for name, rows in (("all", x), ("some", gappy))}
    turns = by_turns(fits, settings.repeats)
    ratio = turns.ratio("some", "all")
    row = [str(case.method), str(case), ms(turns.seconds["all"]), ms(turns.seconds["some"]), times(ratio)]
    if bound is None:
        return row, None
    return row, at_most(f"{case.method}, {case}, with {LACKING:.0%} missing", bound, ratio)


def _pass(case: Case, start: Any, x: np.ndarray, settings: Settings) -> float:
    lazy: da.Array = case.lazy(x, settings.threads)
    with tasks_on(settings.threads):
        return pass_seconds(partial(own(case, start, ITERATIONS, missing="em").fit, lazy))
