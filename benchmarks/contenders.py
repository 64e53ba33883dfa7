"""The same iterations of the same rows from the same start, by each implementation."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.cluster import KMeans as LearnKMeans
from sklearn.mixture import GaussianMixture as LearnGaussianMixture

import daskmix
from benchmarks.cases import KMEANS, Case
from benchmarks.peers import Contender, loops_on, peer, tasks_on
from benchmarks.spark import Spark, own_threads

OWN, LEARN, INTEL, DASK_ML, SPARK = "daskmix", "scikit-learn", "scikit-learn-intelex", "dask-ml", "Spark"


def own(case: Case, start: Mapping[str, Any], iterations: int, **options: Any) -> Any:
    """The estimator of daskmix that does so many iterations."""
    estimator: Any = daskmix.KMeans if case.method is KMEANS else daskmix.GaussianMixture
    return estimator(**start, tol=0, max_iter=iterations, **options)


def in_memory(case: Case, x: np.ndarray, threads: int) -> list[Contender]:
    """Those that are timed in every cell of the grid; daskmix first."""
    start, lazy = case.start(x), case.lazy(x, threads)
    first = Contender(OWN, lambda m: own(case, start, m).fit(lazy), tasks_on)
    if case.method is not KMEANS:
        return [first, Contender(LEARN, lambda m: LearnGaussianMixture(**start, tol=0, max_iter=m).fit(x), loops_on)]
    options = {**start, "tol": 0, "n_init": 1}

    def intel(iterations: int) -> Any:
        return peer("sklearnex.cluster", "KMeans")(**options, max_iter=iterations, n_jobs=threads).fit(x)

    learn = Contender(LEARN, lambda m: LearnKMeans(**options, max_iter=m).fit(x), loops_on)
    return [first, learn, Contender(INTEL, intel, loops_on)]


def with_clusters(case: Case, x: np.ndarray, threads: int, spark: Spark) -> list[Contender]:
    """Those, and the ones that are made for clusters of machines."""
    start, lazy = case.start(x), case.lazy(x, threads)

    def dask_ml(iterations: int) -> Any:
        return peer("dask_ml.cluster", "KMeans")(**start, tol=0, max_iter=iterations).fit(lazy)

    on_spark = Contender(SPARK, lambda m: spark.fit(case, x, m), own_threads)
    on_dask = [Contender(DASK_ML, dask_ml, tasks_on)] if case.method is KMEANS else []
    return [*in_memory(case, x, threads), *on_dask, on_spark]
