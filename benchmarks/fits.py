"""Whole fits of K-means from the same start to the same inertia: what pruning is for."""

from functools import partial
from typing import Any

import numpy as np
from sklearn.cluster import KMeans as LearnKMeans

import daskmix
from benchmarks.cases import KMEANS, Case
from benchmarks.contenders import LEARN, OWN
from benchmarks.peers import loops_on, tasks_on
from benchmarks.report import Section, at_least, table, times
from benchmarks.settings import Settings
from benchmarks.timing import by_turns, fit_seconds

CLUSTERS = (64, 256)
FASTER = 2
SAME = 1e-5  # relative; inertias nearer than this are the same

TEXT = """\
Seconds of `fit` as a whole, in memory, of clusters that overlap, both from the same centres with the same `tol` (1e-4)
and `max_iter` (300). Where the inertias are not the same the fits cannot be compared."""


def section(settings: Settings) -> Section:
    """Both numbers of clusters."""
    rows, required = [], []
    for k in CLUSTERS:
        case = Case(KMEANS, settings.rows(1_000_000), 16, k, "float32")
        ratio, lines = measure(case, settings)
        rows += lines
        required.append(at_least(f"K-means, whole fit against {LEARN}, {case}", FASTER, ratio))
    head = ["a fit", "size", "seconds", "iterations", "inertia", f"time / {OWN}"]
    return Section("Whole fits of K-means", TEXT, table(head, rows), tuple(required))


def measure(case: Case, settings: Settings) -> tuple[float, list[list[str]]]:
    """How many times as long scikit-learn takes to the same inertia, and the lines of the table."""
    x = case.data()
    start, fitted = case.start(x), {}

    def own() -> float:
        with tasks_on(settings.threads):
            seconds, fitted[OWN] = fit_seconds(partial(daskmix.KMeans(**start).fit, case.lazy(x, settings.threads)))
        return seconds

    def learn() -> float:
        with loops_on(settings.threads):
            seconds, fitted[LEARN] = fit_seconds(partial(LearnKMeans(**start, n_init=1).fit, x))
        return seconds

    turns = by_turns({OWN: own, LEARN: learn}, settings.repeats)
    same = np.isclose(fitted[OWN].inertia_, fitted[LEARN].inertia_, rtol=SAME)
    ratio = turns.ratio(LEARN, OWN) if same else float("nan")
    return ratio, [
        [name, str(case), f"{turns.seconds[name]:.2f}", *_of(model), times(turns.ratio(name, OWN))]
        for name, model in fitted.items()
    ]


def _of(model: Any) -> tuple[str, str]:
    return str(model.n_iter_), f"{model.inertia_:.8g}"
