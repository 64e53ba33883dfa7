"""A process that fits again and again, or for long, needs no more of the machine than at first."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster

from chaos.processes import wait_until
from daskmix import GaussianMixture, KMeans, Run

ME = psutil.Process()


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> str:
    import zarr

    path = tmp_path_factory.mktemp("small") / "x.zarr"
    x = np.random.default_rng(0).standard_normal((6000, 3))
    zarr.create_array(path, shape=x.shape, chunks=(1000, 3), dtype=x.dtype)[:] = x
    return str(path)


def fit(place: str, times: int) -> None:
    for i in range(times):
        KMeans(3, max_iter=3, random_state=i, run=Run(cache=("disk", "auto", "memory")[i % 3])).fit(place)


def held() -> list[int]:
    return [ME.num_fds(), threading.active_count()]


def comes_back(now: Callable[[], list[int]], before: list[int]) -> None:
    """Soon, as the last connections are closed and files let go of a little later."""
    wait_until(
        f"no more than {before}, now {now()}",
        lambda: all(n <= count for n, count in zip(now(), before, strict=True)),
        seconds=10,
    )


def does_not_grow(do: Callable[[], None], now: Callable[[], list[int]], times: int = 3) -> None:
    """Dask keeps the connections that it opens, and opens one more when it is busy; what leaks grows each time."""
    for time in range(times):
        before = now()
        do()
        try:
            comes_back(now, before)
            return
        except TimeoutError:
            if time == times - 1:
                raise


@pytest.mark.limit(240)
def test_after_a_hundred_fits_a_process_holds_what_it_held_at_the_start(small):
    fit(small, 10)  # threads that are kept for all fits start with the first few
    gc.collect()
    before = held()
    fit(small, 100)
    gc.collect()
    assert all(now <= then for now, then in zip(held(), before, strict=True))


@pytest.mark.limit(240)
def test_after_a_hundred_fits_workers_hold_what_they_held_at_the_start(small):
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):

        def all_held() -> list[int]:
            return [*held(), *client.run(lambda: psutil.Process().num_fds()).values()]

        fit(small, 10)
        does_not_grow(lambda: fit(small, 100), all_held)


@pytest.mark.limit(240)
def test_memory_is_flat_over_two_hundred_passes(store):
    sizes = []
    run = Run(callbacks=(lambda record: sizes.append(ME.memory_info().rss),))
    GaussianMixture(4, max_iter=200, tol=0, accelerate="none", random_state=0, run=run).fit(store)
    assert len(sizes) >= 200
    early, late = max(sizes[10:40]), max(sizes[-30:])
    assert late < early * 1.03, (early, late)
