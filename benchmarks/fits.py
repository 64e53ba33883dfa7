"""Whole fits of K-means from the same start to the same inertia: what pruning is for."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from sklearn.cluster import KMeans as LearnKMeans

import daskmix
from benchmarks.cases import KMEANS, Case
from benchmarks.contenders import LEARN, OWN
from benchmarks.peers import loops_on, tasks_on
from benchmarks.report import Requirement, Section, at_least, table, times
from benchmarks.settings import Settings
from benchmarks.timing import Turns, by_turns, fit_seconds

CLUSTERS = (64, 256)
FASTER = 2
SAME = 1e-4  # relative; an inertia that is higher by less is the same

TEXT = """\
Seconds of `fit` as a whole, in memory, of clusters that overlap, both from the same centres with the same `tol` (1e-4)
and `max_iter` (300). Rounding sets their ways apart after many iterations; daskmix must not end at an
inertia that is more than 0.01 % above scikit-learn's."""


def section(settings: Settings) -> Section:
    """Both numbers of clusters."""
    rows, required = [], []
    for k in CLUSTERS:
        case = Case(KMEANS, settings.rows(1_000_000), 16, k, "float32")
        turns, fitted = measure(case, settings)
        rows += lines(case, turns, fitted)
        required.append(requirement(case, turns, fitted))
    head = ["a fit", "size", "seconds", "iterations", "inertia", f"time / {OWN}"]
    return Section("Whole fits of K-means", TEXT, table(head, rows), tuple(required))


def measure(case: Case, settings: Settings) -> tuple[Turns, dict[str, Any]]:
    """Seconds of both, and what they fitted."""
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

    return by_turns({OWN: own, LEARN: learn}, settings.repeats), fitted


def lines(case: Case, turns: Turns, fitted: Mapping[str, Any]) -> list[list[str]]:
    """One for each of the two."""
    return [
        [
            name,
            str(case),
            f"{turns.seconds[name]:.2f}",
            str(model.n_iter_),
            f"{model.inertia_:.8g}",
            times(turns.ratio(name, OWN)),
        ]
        for name, model in fitted.items()
    ]


def requirement(case: Case, turns: Turns, fitted: Mapping[str, Any]) -> Requirement:
    """Faster, and as good."""
    judged = at_least(f"K-means, whole fit against {LEARN}, {case}", FASTER, turns.ratio(LEARN, OWN))
    if fitted[OWN].inertia_ <= (1 + SAME) * fitted[LEARN].inertia_:
        return judged
    return replace(judged, measured=f"{judged.measured}, but a higher inertia", met="no")
