"""Seconds per iteration, by the difference of a long fit and a short one: what is done once cancels."""

import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import dask.array as da
import numpy as np
from sklearn.cluster import KMeans as LearnKMeans
from sklearn.mixture import GaussianMixture as LearnGaussianMixture

import daskmix
from benchmarks.peers import PeerMissingError, dask_ml_kmeans, loops_on, tasks_on
from benchmarks.report import table

SHORT = 2  # iterations of the short fit

Limit = Callable[[int], AbstractContextManager[None]]


@dataclass(frozen=True)
class Size:
    """What is fitted."""

    rows: int
    features: int
    k: int
    chunks: int
    dtype: str
    iterations: int  # that the long fit does more than the short one

    def __str__(self) -> str:
        return f"{self.rows:,} x {self.features} {self.dtype}, k={self.k}"

    def data(self) -> tuple[np.ndarray, da.Array, np.ndarray]:
        """Rows (n, d), the same as a Dask array, and centres (k, d) to start from."""
        rng = np.random.default_rng(0)
        # Clusters that overlap: an iteration must not find itself at a fixed point.
        centres = 0.3 * rng.normal(size=(self.k, self.features))
        x = rng.normal(size=(self.rows, self.features)).astype(self.dtype)
        x += centres[rng.integers(self.k, size=self.rows)].astype(self.dtype)
        lazy = da.from_array(x, chunks=(-(-self.rows // self.chunks), self.features))
        return x, lazy, x[rng.choice(self.rows, self.k, replace=False)]


@dataclass(frozen=True)
class Contender:
    """One implementation of one method."""

    name: str
    make: Callable[[int], Any]  # max_iter -> an estimator
    x: Any
    limit: Limit

    def seconds(self, size: Size, threads: int) -> float:
        """Seconds per iteration, once."""
        with self.limit(threads):
            return (self._fit(SHORT + size.iterations) - self._fit(SHORT)) / size.iterations

    def _fit(self, max_iter: int) -> float:
        estimator = self.make(max_iter)
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a fit was cut short is meant
            estimator.fit(self.x)
        seconds = time.perf_counter() - began
        # A fit at its fixed point leaves out what others do last, and its difference would say nothing.
        if estimator.n_iter_ != max_iter:
            raise RuntimeError(f"{self.name} stopped after {estimator.n_iter_} of {max_iter} iterations")
        return seconds


def kmeans(size: Size) -> list[Contender]:
    """Lloyd's iteration; daskmix first."""
    x, lazy, start = size.data()
    explicit: dict[str, Any] = {"n_clusters": size.k, "init": start, "tol": 0}
    return [
        Contender("daskmix", lambda m: daskmix.KMeans(**explicit, max_iter=m), lazy, tasks_on),
        Contender("scikit-learn", lambda m: LearnKMeans(**explicit, n_init=1, max_iter=m), x, loops_on),
        Contender("dask-ml", lambda m: dask_ml_kmeans(**explicit, max_iter=m), lazy, tasks_on),
    ]


def mixture(size: Size) -> list[Contender]:
    """EM with full covariances; daskmix first."""
    x, lazy, start = size.data()
    explicit: dict[str, Any] = {
        "weights_init": np.full(size.k, 1 / size.k),
        "means_init": start,
        "precisions_init": np.broadcast_to(np.eye(size.features), (size.k, size.features, size.features)).copy(),
        "tol": 0,
    }
    return [
        Contender("daskmix", lambda m: daskmix.GaussianMixture(size.k, **explicit, max_iter=m), lazy, tasks_on),
        Contender("scikit-learn", lambda m: LearnGaussianMixture(size.k, **explicit, max_iter=m), x, loops_on),
    ]


def measure(contenders: list[Contender], size: Size, repeats: int, threads: int) -> dict[str, float | str]:
    """Median seconds per iteration of each, or why there are none; by turns, so that all share the same noise."""
    seconds: dict[str, list[float]] = {}
    why: dict[str, str] = {}
    for turn in range(repeats + 1):
        for contender in contenders:
            try:
                once = contender.seconds(size, threads)
            except PeerMissingError as error:
                why[contender.name] = str(error)
                continue
            if turn:  # the first compiles and warms up
                seconds.setdefault(contender.name, []).append(once)
    return {c.name: why.get(c.name) or median(seconds[c.name]) for c in contenders}


def report(kmeans_size: Size, mixture_size: Size, repeats: int, threads: int) -> str:
    """The table."""
    rows = []
    for method, contenders, size in (
        ("K-means", partial(kmeans, kmeans_size), kmeans_size),
        ("Gaussian mixture, full", partial(mixture, mixture_size), mixture_size),
    ):
        found = measure(contenders(), size, repeats, threads)
        own = found["daskmix"]
        for name, seconds in found.items():
            cells = [seconds, ""] if isinstance(seconds, str) else [f"{1000 * seconds:.1f}", f"{seconds / own:.2f}"]
            rows.append([f"{method}, {name}", str(size), *cells])
    return table(["one iteration", "size", "ms", "time / daskmix"], rows)
