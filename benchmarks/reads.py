"""How often a fit reads each chunk, counted where the chunk is made."""

import threading
import warnings
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np

import daskmix
from benchmarks.peers import PeerMissingError, peer, tasks_on
from benchmarks.report import Section, table
from benchmarks.settings import Settings

FEATURES = 4
ROWS_PER_CHUNK = 500
CHUNKS = 40
CLUSTERS = 16
ITERATIONS = 10

TEXT = """\
Reads of one fit, counted where a chunk is made: the survey, one for each iteration, one that measures what came out.
daskmix runs without a cache of decoded chunks, which would hide how often it asks."""


class CountedRows:
    """Rows that are made anew, the same ones, whenever their chunk is read."""

    def __init__(self, chunks: int) -> None:
        self.counts = [0] * chunks
        self._lock = threading.Lock()

    def array(self) -> da.Array:
        numbers = da.arange(len(self.counts), chunks=1)
        chunks = ((ROWS_PER_CHUNK,) * len(self.counts), (FEATURES,))
        meta = np.empty((0, FEATURES))
        return da.map_blocks(self._read, numbers, new_axis=1, chunks=chunks, dtype=float, meta=meta)

    def _read(self, numbers: np.ndarray) -> np.ndarray:
        number = int(numbers[0])
        with self._lock:
            self.counts[number] += 1
        rng = np.random.default_rng(number)
        return rng.normal(size=(ROWS_PER_CHUNK, FEATURES)) + rng.integers(3, size=(ROWS_PER_CHUNK, 1))


def contenders() -> dict[str, Callable[[], Any]]:
    """What is fitted, all for the same number of iterations."""
    same: dict[str, Any] = {"max_iter": ITERATIONS, "tol": 0, "random_state": 0}
    own: dict[str, Any] = {**same, "run": daskmix.Run(cache="off")}
    return {
        "daskmix KMeans": lambda: daskmix.KMeans(CLUSTERS, **own),
        'daskmix KMeans, init="k-means\\|\\|"': lambda: daskmix.KMeans(CLUSTERS, init="k-means||", **own),
        "daskmix GaussianMixture": lambda: daskmix.GaussianMixture(CLUSTERS, **own),
        'dask-ml KMeans, init="k-means\\|\\|"': lambda: peer("dask_ml.cluster", "KMeans")(CLUSTERS, **same),
    }


def count(make: Callable[[], Any], threads: int) -> tuple[int, str]:
    """Iterations and reads of each chunk of one fit."""
    estimator, source = make(), CountedRows(CHUNKS)
    with tasks_on(threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a fit was cut short is meant
        estimator.fit(source.array())
    fewest, most = min(source.counts), max(source.counts)
    return estimator.n_iter_, str(most) if fewest == most else f"{fewest} to {most}"


def section(settings: Settings) -> Section:
    """Every contender."""
    rows = []
    for name, make in contenders().items():
        try:
            done, reads = count(make, settings.threads)
        except PeerMissingError as error:
            rows.append([name, "", str(error)])
            continue
        rows.append([name, str(done), reads])
    return Section("Reads of a fit", TEXT, table(["one fit", "iterations", "reads of each chunk"], rows))
