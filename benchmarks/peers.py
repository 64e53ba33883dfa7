"""Peers that need not be there, and threads shared out alike."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import dask
from threadpoolctl import threadpool_limits

Limit = Callable[[int], AbstractContextManager[None]]


class PeerMissingError(Exception):
    """A peer cannot be timed here."""


@dataclass(frozen=True)
class Contender:
    """One implementation of one method."""

    name: str
    fit: Callable[[int], Any]  # iterations -> a fitted estimator, which knows its n_iter_
    limit: Limit


def peer(module: str, name: str) -> Any:
    """What a peer's module calls so.

    Raises
    ------
    PeerMissingError
        The module cannot be imported.
    """
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        raise PeerMissingError(f"cannot be imported: {error}") from error


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
