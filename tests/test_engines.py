"""The same bits whoever does the work, each chunk read once, and nothing lost with a worker."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.pool import ThreadPool

import dask
import dask.array as da
import joblib
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster
from sklearn.model_selection import GridSearchCV

from daskmix import GaussianMixture, KMeans, Run
from daskmix.block import Missing
from daskmix.engines import dask as dask_engine
from daskmix.engines.dask import OnDask, engine_for
from daskmix.engines.keep import NOTHING
from daskmix.engines.local import Local, one_blas_thread
from daskmix.errors import AsynchronousClientError, BadChunkError, InputError, VersionMismatchError
from daskmix.sampling import Summarise
from daskmix.sources.dask import rows_from_dask_array
from daskmix.sources.zarr import open_path

N, D = 60_000, 4


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Sixty chunks of a thousand rows of three blobs; small bundles, so that there are many tasks."""
    path = tmp_path_factory.mktemp("rows") / "x.zarr"
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, D)) + 4 * rng.integers(0, 3, (N, 1))
    array = zarr.create_array(path, shape=x.shape, chunks=(1000, D), dtype=x.dtype)
    array[:] = x
    return str(path)


@pytest.fixture(autouse=True)
def small_bundles(monkeypatch):
    monkeypatch.setattr("daskmix.rows.SMALL", 200_000)
    monkeypatch.setattr("daskmix.sources.zarr.RUN", 1)


def cluster(workers, threads=1, **options):
    return LocalCluster(
        n_workers=workers, threads_per_worker=threads, processes=True, dashboard_address="127.0.0.1:0", **options
    )


def bits(path):
    """Everything that a fit found, as bytes."""
    kmeans = KMeans(3, random_state=0, tol=0, max_iter=6, init="k-means||").fit(path)
    mixture = GaussianMixture(3, n_init=2, random_state=0, tol=0, max_iter=4).fit(path)
    found = [kmeans.cluster_centers_, np.array(kmeans.inertia_), mixture.means_, mixture.covariances_]
    return b"".join(a.tobytes() for a in [*found, np.array(mixture.lower_bound_)])


@pytest.fixture(scope="module")
def right(store):
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        patch.setattr("daskmix.rows.SMALL", 200_000)
        patch.setattr("daskmix.sources.zarr.RUN", 1)
        return bits(store)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads_gives_the_same_bits(store, right, threads):
    with dask.config.set(scheduler="threads", num_workers=threads):
        assert bits(store) == right


def test_the_threads_that_dask_was_given_are_used(store, right):
    with ThreadPoolExecutor(3, thread_name_prefix="mine") as pool, dask.config.set(scheduler="threads", pool=pool):
        assert bits(store) == right
        assert len(pool._threads) == 3
    with ThreadPool(2) as pool, dask.config.set(scheduler="threads", pool=pool):  # no executor, but Dask takes it
        assert bits(store) == right


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fit_in_a_forked_process_has_threads_of_its_own(store, right):
    with dask.config.set(scheduler="threads"):
        bits(store)
        with get_context("fork").Pool(1) as process:
            assert process.apply_async(bits, (store,)).get(timeout=60) == right


def test_the_local_engine_gives_the_same_bits(store, right, monkeypatch):
    monkeypatch.setattr("daskmix.fitting.engine_for", lambda rows, keep=NOTHING, *others: Local(keep=keep))
    assert bits(store) == right


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cluster_gives_the_same_bits(store, right, workers):
    with cluster(workers) as processes, Client(processes):
        assert bits(store) == right


def test_a_lost_worker_changes_nothing(store, right):
    with cluster(2) as processes, Client(processes) as client:
        bits(store)  # so that workers have compiled their kernels and the kill comes in the middle of a pass
        killed = []

        def kill():
            deadline = time.time() + 30
            while time.time() < deadline and not killed:
                busy = [w for w, info in client.processing().items() if any("daskmix-read" in str(k) for k in info)]
                if busy:
                    pid = client.run(os.getpid, workers=busy[:1])[busy[0]]
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

        assassin = threading.Thread(target=kill)
        assassin.start()
        found = bits(store)
        assassin.join()
        assert killed
        assert found == right


def test_a_pass_reads_each_chunk_once():
    lock, reads = threading.Lock(), {}

    def chunk(block_info=None):
        where = block_info[None]["chunk-location"]
        with lock:
            reads[where] = reads.get(where, 0) + 1
        return np.random.default_rng(where).standard_normal(block_info[None]["chunk-shape"])

    x = da.map_blocks(chunk, chunks=((500,) * 7, (2, 1)), dtype=float, meta=np.empty((0, 0)))
    models = [
        KMeans(4, random_state=0),
        KMeans(4, init="k-means||", random_state=0),
        KMeans(4, init="random", n_init=5, random_state=0),
        GaussianMixture(3, random_state=0),
        GaussianMixture(3, n_init=4, tol=0, max_iter=3, random_state=0),
    ]
    for model in models:
        for cache, times in (("off", None), ("memory", 1), ("disk", 1), ("auto", 1)):
            reads.clear()
            model.set_params(run=Run(cache=cache)).fit(x)
            # With a cache, a chunk is read once in a fit; without, once in each pass.
            times = times or model.n_passes_
            assert set(reads.values()) == {times}
            assert len(reads) == 14
            assert model.bytes_read_ == times * 3500 * 3 * 8
            assert {record["rows"] for record in model.history_} == {3500}


@pytest.mark.parametrize(("init", "seeding"), [("k-means++", 1), ("k-means||", 7)])
def test_kmeans_takes_one_pass_more_than_iterations_where_the_last_moved_nothing(init, seeding):
    x = da.from_array(np.random.default_rng(0).standard_normal((2000, 2)), chunks=(500, 2))
    still = KMeans(3, init=init, tol=0, random_state=0).fit(x)
    assert still.converged_
    assert still.n_passes_ == still.n_iter_ + seeding
    short = KMeans(3, init=init, tol=0, max_iter=2, random_state=0).fit(x)
    assert not short.converged_
    assert short.n_passes_ == 2 + seeding + 1


def test_labels_cost_nothing_before_they_are_asked_for():
    reads = []

    def chunk(x):
        reads.append(1)
        return x

    x = da.from_array(np.random.default_rng(0).standard_normal((2000, 2)), chunks=(500, 2)).map_blocks(chunk)
    reads.clear()
    model = KMeans(3, random_state=0, run=Run(cache="off")).fit(x)
    assert len(reads) == 4 * model.n_passes_
    labels = model.labels_
    assert len(reads) == 4 * model.n_passes_
    assert labels.compute().shape == (2000,)
    assert len(reads) == 4 * (model.n_passes_ + 1)


def test_bundles_follow_from_the_data_alone(store):
    rows = rows_from_dask_array(open_path(store).lazy, None, Missing.refuse)
    sizes = [len(bundle) for bundle in rows.bundles]
    assert sum(sizes) == 60
    assert len(sizes) == 16
    assert max(sizes) == 4
    assert len(rows.graph) == 0  # each task reads its chunks itself


def test_blas_threads_are_given_back():
    before = [pool["num_threads"] for pool in _pools()]
    with one_blas_thread(), one_blas_thread():
        assert {pool["num_threads"] for pool in _pools()} == {1}
    assert [pool["num_threads"] for pool in _pools()] == before


def _pools():
    from threadpoolctl import threadpool_info

    return [pool for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_other_versions_on_the_workers_are_named_with_the_remedy(store, monkeypatch):
    with cluster(1) as processes, Client(processes) as client:
        real = client.get_versions

        def as_if_older(**options):
            found = real(**options)
            for worker in found["workers"].values():
                worker["packages"] = {**worker["packages"], "numba": "0.1", "zarr": None}
            return found

        monkeypatch.setattr(client, "get_versions", as_if_older)
        with pytest.raises(VersionMismatchError, match=r"numba 0\.1 \(client: .*pip install numba==.* zarr=="):
            KMeans(2).fit(store)


def test_versions_are_asked_again_when_a_worker_joins(store, monkeypatch):
    asked = []
    monkeypatch.setattr(dask_engine, "check_versions", lambda client: asked.append(1))
    rows = rows_from_dask_array(open_path(store).lazy, None, Missing.refuse)
    with cluster(1) as processes, Client(processes) as client:
        engine = OnDask()
        for _ in range(2):
            engine.run(Summarise(D), rows)
        assert len(asked) == 1
        processes.scale(2)
        client.wait_for_workers(2)
        engine.run(Summarise(D), rows)
        assert len(asked) == 2


def test_an_asynchronous_client_is_refused(store):
    import asyncio

    async def fit():
        async with Client(asynchronous=True, processes=False, dashboard_address="127.0.0.1:0"):
            KMeans(2).fit(store)

    with pytest.raises(AsynchronousClientError, match="without asynchronous=True"):
        asyncio.run(fit())


def test_a_grid_search_on_a_cluster_comes_to_an_end(store):
    x = np.random.default_rng(0).standard_normal((300, 3)) + 5 * np.arange(3).repeat(100)[:, None]
    x = np.random.default_rng(1).permutation(x)
    with cluster(2) as processes, Client(processes), joblib.parallel_config("dask"):
        search = GridSearchCV(GaussianMixture(random_state=0), {"n_components": [1, 3]}, cv=3).fit(x)
    assert search.best_params_ == {"n_components": 3}


def test_a_fit_inside_a_task_does_its_own_work(store):
    def inside():
        return type(engine_for(rows_from_dask_array(open_path(store).lazy, None, Missing.refuse))).__name__, KMeans(
            2, random_state=0
        ).fit(store).inertia_

    with cluster(1) as processes, Client(processes) as client:
        kind, inertia = client.submit(inside).result(timeout=60)
    assert kind == "Local"
    assert inertia > 0


def test_a_source_that_fails_in_a_task_of_its_own_is_named():
    def broken(block):
        raise ValueError("no such luck")

    x = da.ones((100, 3), chunks=(30, 3)).map_blocks(broken, dtype=float, meta=np.empty((0, 0))).rechunk((50, 3))
    with pytest.raises(BadChunkError, match="task that X is made of failed: ValueError: no such luck"):
        KMeans(2).fit(x)


def test_each_pass_is_told_to_whoever_asks(capsys):
    records = []
    x = np.random.default_rng(0).standard_normal((500, 2))
    model = KMeans(2, random_state=0, run=Run(progress="log", callbacks=(records.append,))).fit(x)
    assert records == model.history_
    assert capsys.readouterr().err.count("pass ") == model.n_passes_
    with pytest.raises(InputError, match="'log'"):
        Run(progress="loud")
