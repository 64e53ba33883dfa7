"""What each member of the family costs: one store, fitted by K-means, by mixtures, and by what lies between."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import daskmix
from benchmarks.cases import FULL, Case
from benchmarks.peers import tasks_on
from benchmarks.problems import clusters
from benchmarks.report import Section, ms, table
from benchmarks.settings import Settings
from benchmarks.storage import stored
from benchmarks.timing import by_turns, fit_seconds, seconds_of

CLUSTERS, FEATURES, CHUNKS = 8, 8, 16
APART, WIDTH = 2.5, 8.0  # spread of the centres, and the mean variance of a feature within a cluster
DECODING = "decoding alone"

TEXT = f"""\
Whole fits of a Zarr store (zstd, {CHUNKS} chunks, cache off: every pass decodes them all) of {CLUSTERS} ellipsoids of
any orientation that overlap, all defaults and random_state=0 but for what is named; textbook is accelerate="none".
Passes are all reads, the first look and the last measurement among them. A fit ends at an inertia per row (K-means) or
at a mean log-likelihood: compare it within a model. The fixed covariance is {WIDTH:g} times the identity, with equal
weights."""


@dataclass(frozen=True)
class Ellipsoids(Case):
    """Rows of clusters of every shape, one cluster after the other."""

    def data(self) -> np.ndarray:
        return clusters(self.features, self.k, APART, 1, turned=True)(self.rows).astype(self.dtype)


def section(settings: Settings) -> Section:
    """Every member, and what a pass cannot do without."""
    case = Ellipsoids(FULL, settings.rows(2_000_000), FEATURES, CLUSTERS, "float64")
    fitted: dict[str, Any] = {}

    def fit(name: str, make: Callable[..., Any], path: Path) -> float:
        model = make(CLUSTERS, random_state=0, run=daskmix.Run(cache="off"))
        seconds, fitted[name] = fit_seconds(partial(model.fit, path))
        return seconds

    with stored(case, CHUNKS) as rows, tasks_on(settings.threads):
        trials = {name: partial(fit, name, make, rows.zstd) for name, make in members().items()}
        turns = by_turns({**trials, DECODING: partial(seconds_of, rows.decode)}, settings.repeats)
    lines = [line(name, model, turns.seconds[name], case) for name, model in fitted.items()]
    lines.append([DECODING, "1", f"{turns.seconds[DECODING]:.2f}", ms(turns.seconds[DECODING]), ""])
    head = [f"a fit of {case}", "passes", "seconds", "a pass, ms", "ends at"]
    return Section("What each member of the family costs", TEXT, table(head, lines))


def members() -> dict[str, Callable[..., Any]]:
    """Estimators, all of which take k first."""
    fixed = partial(daskmix.GaussianMixture, covariance_type="fixed", covariance_init=WIDTH, equal_weights=True)
    both: dict[str, Callable[..., Any]] = {"K-means": daskmix.KMeans}
    both |= {f"mixture, {kind}": _mixture(kind) for kind in ("spherical", "diag", "full")}
    both |= {"mixture, fixed": fixed}
    found = {}
    for name, make in both.items():
        found |= {name: make, f"{name}, textbook": partial(make, accelerate="none")}
    found["mixture, fixed, annealed: temperature=(8, 4, 2, 1)"] = partial(fixed, temperature=(8, 4, 2, 1))
    found['mixture, full, algorithm="cem"'] = partial(_mixture("full"), algorithm="cem")
    return found


def _mixture(kind: str) -> Callable[..., Any]:
    return partial(daskmix.GaussianMixture, covariance_type=kind)


def line(name: str, model: Any, seconds: float, case: Case) -> list[str]:
    """What a fit took, and where it ended."""
    end = model.inertia_ / case.rows if isinstance(model, daskmix.KMeans) else model.lower_bound_
    return [name, str(model.n_passes_), f"{seconds:.2f}", ms(seconds / model.n_passes_), f"{end:.4f}"]
