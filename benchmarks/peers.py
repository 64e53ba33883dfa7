"""The peer that need not be there, and threads shared out alike."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import dask
from threadpoolctl import threadpool_limits


class PeerMissingError(Exception):
    """A peer cannot be imported."""


def dask_ml_kmeans(**options: Any) -> Any:
    """The K-means of dask-ml.

    Raises
    ------
    PeerMissingError
        dask-ml cannot be imported.
    """
    try:
        from dask_ml.cluster import KMeans
    except ImportError as error:
        raise PeerMissingError(f"cannot be imported: {error}") from error
    return KMeans(**options)


@contextmanager
def tasks_on(threads: int) -> Iterator[None]:
    """Dask tasks on so many threads, with no more threads inside a task."""

    def alone() -> None:
        threadpool_limits(1)  # OpenMP's limit is each thread's own

    pool = ThreadPoolExecutor(threads, initializer=alone)
    with threadpool_limits(1), pool, dask.config.set(scheduler="threads", pool=pool):
        yield


@contextmanager
def loops_on(threads: int) -> Iterator[None]:
    """BLAS and OpenMP on so many threads, called from this one."""
    with threadpool_limits(threads):
        yield
