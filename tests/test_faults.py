"""One fault of each kind, in real processes: the answer is the same to the bit, or the error says what was seen."""

import doctest
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import pairwise

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster, wait
from servers import ROOT, Network, dask_processes, eventually, free_port, object_store

from daskmix import KMeans, Run, again, errors, settings
from daskmix.errors import (
    AccessDeniedError,
    BadChunkError,
    ClusterLostError,
    InputError,
    PassRepeatedWarning,
    SourceUnavailableError,
    StalledError,
    StalledWarning,
    WorkersLostError,
)

CHUNKS, ROWS, D = 60, 500, 4
LOCAL = {"processes": True, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}


@pytest.fixture(autouse=True)
def small_bundles(monkeypatch):
    monkeypatch.setattr("daskmix.rows.SMALL", ROWS * D * 8 * 4)
    monkeypatch.setattr("daskmix.sources.zarr.RUN", 1)


def numbers():
    rng = np.random.default_rng(0)
    return rng.standard_normal((CHUNKS * ROWS, D)) + 4 * rng.integers(0, 3, (CHUNKS * ROWS, 1))


def write(path, **options):
    array = zarr.create_array(path, shape=(CHUNKS * ROWS, D), chunks=(ROWS, D), dtype=float, **options)
    array[:] = numbers()
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write(str(tmp_path_factory.mktemp("faults") / "x.zarr"))


def bits(x, **run):
    """Everything that a fit found, as bytes."""
    model = KMeans(3, random_state=0, tol=0, max_iter=2, run=Run(**{"cache": "off"} | run)).fit(x)
    return model.cluster_centers_.tobytes() + np.array(model.inertia_).tobytes()


@pytest.fixture(scope="module")
def right(store):
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="threads"):
        patch.setattr("daskmix.rows.SMALL", ROWS * D * 8 * 4)
        patch.setattr("daskmix.sources.zarr.RUN", 1)
        return bits(store)


def slowly(store, seconds=0.04):
    """The same rows, each chunk of which takes a while."""

    def wait(x):
        time.sleep(seconds)
        return x

    return da.from_zarr(store).map_blocks(wait, dtype=float, meta=np.empty((0, 0)))


@contextmanager
def local(workers, **config):
    with (
        dask.config.set({f"distributed.{name.replace('__', '.')}": value for name, value in config.items()}),
        LocalCluster(n_workers=workers, **LOCAL) as cluster,
        Client(cluster) as client,
    ):
        yield cluster, client


def busy(client):
    """Processes of workers that read rows now, by their address."""
    addresses = [w for w, tasks in client.processing().items() if any("daskmix-read" in str(task) for task in tasks)]
    return client.run(os.getpid, workers=addresses, on_error="ignore") if addresses else {}


def some_busy(client):
    """The same, once there are some."""
    found = {}
    eventually(lambda: found.update(busy(client)) or found)
    return found


@contextmanager
def meanwhile(fault):
    """A fault that happens in another thread; what it raises is raised here."""
    with ThreadPoolExecutor(1) as pool:
        happened = pool.submit(fault)
        yield
        happened.result(60)


# --- workers ----------------------------------------------------------------------------------------------------------


def test_a_pass_that_killed_workers_failed_is_submitted_again(store, right):
    with local(2, scheduler__allowed_failures=0) as (_, client):
        bits(store)  # so that kernels are compiled and a kill comes in the middle of a pass

        def preempt():
            for _ in range(2):
                eventually(lambda: len(client.scheduler_info()["workers"]) == 2 and busy(client))
                time.sleep(0.5)  # a nanny does not replace a worker that has not quite begun
                os.kill(next(iter(some_busy(client).values())), signal.SIGTERM)
                eventually(lambda: len(client.scheduler_info()["workers"]) < 2)

        said = "workers died one after the other that had chunks"
        with pytest.warns(PassRepeatedWarning, match=said), meanwhile(preempt):
            assert bits(slowly(store, 0.1), retries=8) == right


def test_a_worker_that_stops_for_longer_than_its_ttl_and_comes_back_changes_nothing(store, right):
    # Without a nanny, which would end it: it comes back with what it had.
    soon = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "2s"}
    with dask_processes(2, nanny="--no-nanny", **soon) as (address, _, _), Client(address) as client:
        client.wait_for_workers(2, timeout=60)
        bits(store)

        def stop():
            worker, pid = next(iter(some_busy(client).items()))
            os.kill(pid, signal.SIGSTOP)
            try:
                eventually(lambda: worker not in client.scheduler_info()["workers"])
            finally:
                with suppress(ProcessLookupError):  # the nanny may have been told to end it
                    os.kill(pid, signal.SIGCONT)

        with meanwhile(stop):
            assert bits(slowly(store, 0.06)) == right


def test_a_chunk_that_kills_every_worker_is_named(store):
    def deadly(x, block_info=None):
        if block_info[0]["chunk-location"][0] == 29:
            os._exit(1)
        return x

    x = da.from_zarr(store).map_blocks(deadly, dtype=float, meta=np.empty((0, 0)))
    with local(2, scheduler__allowed_failures=1):
        with pytest.warns(PassRepeatedWarning), pytest.raises(WorkersLostError) as caught:
            bits(x, retries=1)
        assert str(caught.value).startswith("2 workers died one after the other that had chunks ")
        first, last = str(caught.value).split("chunks ")[1].split(" to do")[0].split(" to ")
        assert int(first) <= 29 <= int(last)
        assert "submitted 2 times" in str(caught.value)
        assert "more memory" in str(caught.value)


def test_two_fits_on_one_client_and_what_others_keep_are_not_disturbed(store, right):
    with local(2) as (cluster, client), Client(cluster.scheduler_address, set_as_default=False) as tenant:
        theirs = tenant.map(np.ones, range(20), pure=False)
        wait(theirs)
        with ThreadPoolExecutor(2) as pool, dask.config.set(scheduler=client):
            assert list(pool.map(bits, [store, slowly(store)])) == [right, right]
        assert [future.status for future in theirs] == ["finished"] * 20
        mine = {future.key for future in theirs}
        eventually(lambda: not gc.collect() or set(cluster.scheduler.tasks) == mine)
        assert set(cluster.scheduler.tasks) == mine


# --- a pass that stands still -----------------------------------------------------------------------------------------


def test_without_workers_a_pass_waits_and_says_so(store, right):
    with local(0) as (cluster, _):
        with pytest.raises(StalledError, match=r"for 1\.\d+ s: the cluster has had no workers for"):
            bits(store, stall=1, on_stall="raise")
        began = []

        def later(message, *_, **__):
            if not began:
                began.append(str(message))
                cluster.scale(1)

        with warnings.catch_warnings():
            warnings.simplefilter("always", StalledWarning)
            warnings.showwarning = later
            assert bits(store, stall=1) == right
        assert "no workers" in began[0]
        assert "Waiting goes on" in began[0]


def test_a_cluster_that_adapts_from_no_workers_is_waited_for(store, right):
    with local(0) as (cluster, _):
        cluster.adapt(minimum=0, maximum=2, interval="100ms")
        assert bits(slowly(store), stall=60, on_stall="raise") == right


def test_a_worker_that_is_paused_is_named(store):
    # A thousandth of its memory: it is paused as soon as it is up.
    said = r"worker tcp://\S+ is paused: its process takes .* GiB .*GiB free"
    with (
        local(1, worker__memory__pause=0.001, worker__memory__spill=False, worker__memory__terminate=False),
        pytest.raises(StalledError, match=said),
    ):
        bits(store, stall=2, on_stall="raise")


def test_a_task_that_does_not_end_is_named_with_its_chunks_and_worker(store):
    x = slowly(store, 1.5)
    with local(1) as (_, client):
        client.run(time.sleep, 0)
        with pytest.raises(StalledError, match=r"tcp://\S+ has (been at )?chunks \d+ to \d+ (to do|for)") as caught:
            bits(x, stall=2, on_stall="raise")
        assert "Run(stall=...)" in str(caught.value)


@pytest.mark.parametrize("on_stall", ["wait", "raise"])
def test_a_local_read_that_hangs_is_named(store, right, on_stall):
    begin = threading.Event()

    def hang(x):
        begin.wait(20)
        return x

    x = da.from_zarr(store).map_blocks(hang, dtype=float, meta=np.empty((0, 0)))
    said = r"this process has been at chunks \d+ to \d+ for"
    threading.Timer(1.5, begin.set).start()
    began = time.monotonic()
    with dask.config.set(scheduler="threads"):
        if on_stall == "raise":
            with pytest.raises(StalledError, match=said):
                bits(x, stall=0.5, on_stall=on_stall)
            assert time.monotonic() - began < 1.5
            begin.wait()
        else:
            with pytest.warns(StalledWarning, match=said):
                assert bits(x, stall=0.5) == right


def test_a_pass_that_moves_is_never_stalled(store, right):
    with warnings.catch_warnings():
        warnings.simplefilter("error", StalledWarning)
        with dask.config.set(scheduler="threads", num_workers=2):
            assert bits(slowly(store, 0.04), stall=0.6) == right  # a pass takes 1.2 s
        with local(1):
            bits(store)
            assert bits(slowly(store, 0.05), stall=2) == right  # and 3


# --- scheduler and connection -----------------------------------------------------------------------------------------


def test_a_fit_goes_on_when_the_scheduler_is_killed_and_comes_back(store, right):
    with dask_processes(2) as (address, scheduler, _), Client(address, timeout=60) as client:
        client.wait_for_workers(2, timeout=60)
        bits(store)
        gone = []

        def kill():
            eventually(lambda: busy(client))
            gone.append(time.time())
            scheduler.process.kill()

        with pytest.warns(PassRepeatedWarning, match="connection"), meanwhile(kill):
            assert bits(slowly(store), stall=60, on_stall="raise") == right
        print(f"scheduler: {time.time() - gone[0]:.1f} s from its end to the end of the fit")


def test_a_client_that_gave_up_is_told_what_to_do(store):
    with dask_processes(1) as (address, scheduler, _), Client(address, timeout=2) as client:
        client.wait_for_workers(1, timeout=60)

        def close():
            eventually(lambda: busy(client))
            scheduler.close()

        with (
            pytest.warns(PassRepeatedWarning),
            pytest.raises(ClusterLostError, match="connect again"),
            meanwhile(close),
        ):
            bits(slowly(store))


def test_a_closed_client_is_told(store):
    with local(1) as (_, client):
        x = slowly(store)

        def close():
            eventually(lambda: busy(client))
            client.close()

        with pytest.warns(PassRepeatedWarning), pytest.raises(ClusterLostError, match="run it again"), meanwhile(close):
            bits(x)


def test_an_interrupt_that_reaches_the_workers_of_a_notebook_leaves_them_alone():
    with dask.config.set(settings.cluster_config()), local(1) as (_, client):
        (pid,) = client.run(os.getpid).values()
        os.kill(pid, signal.SIGINT)
        assert client.submit(sum, [1, 2]).result(timeout=20) == 3
        assert set(client.run(os.getpid).values()) == {pid}


def test_settings_for_long_jobs_are_dasks_own():
    assert all(dask.config.get(name, "unknown") != "unknown" for name in settings.cluster_config())
    (example,) = [found for found in doctest.DocTestFinder().find(settings.cluster_config) if found.examples]
    assert doctest.DocTestRunner().run(example).failed == 0


# --- sources ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _bucket():
    with object_store() as server:
        yield server


@pytest.fixture
def network(_bucket, monkeypatch):
    """A store behind a network that can be made bad; its URL is `network.store`."""
    network = Network(_bucket)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", network.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # of botocore itself
    monkeypatch.setattr(again, "OPEN_PATIENCE", 1.0)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem()
    if not fs.exists("bucket"):
        fs.mkdir("bucket")
        write("s3://bucket/x.zarr")
    network.store = "s3://bucket/x.zarr"
    yield network
    network.close()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("fault", ["some fail", "slow", "down for a while"])
def test_a_bad_network_changes_nothing(network, right, fault):
    if fault == "some fail":
        network.share = 0.2
    elif fault == "slow":
        network.delay = 0.05
    else:
        network.delay = 0.02

        def cut():
            time.sleep(0.5)
            network.down = True
            time.sleep(2.5)  # s3fs itself tries for two seconds
            network.down = False

        threading.Thread(target=cut).start()
    with dask.config.set(scheduler="threads", num_workers=4):
        assert bits(network.store) == right
    assert (network.failed > 0) == (fault != "slow")


def test_a_server_that_stays_away_is_named_and_may_pass(network, monkeypatch):
    monkeypatch.setattr(again, "SOURCE_PATIENCE", 0.5)
    network.share = 1.0
    with pytest.raises(SourceUnavailableError, match=r"x.zarr could not be read for 0.5 s"):
        bits(network.store)


def test_labels_wait_for_a_server_too(network, store):
    """What is lazy is read where Dask computes it."""
    model = KMeans(3, max_iter=1, random_state=0).fit(store)
    network.share = 0.2
    labels = model.predict(network.store).compute(scheduler="threads", num_workers=4)
    assert network.failed > 0
    np.testing.assert_array_equal(labels, model.predict(store).compute())


def test_a_chunk_that_cannot_be_decoded_is_not_read_again(store, tmp_path, monkeypatch):
    monkeypatch.setattr(again, "SOURCE_PATIENCE", 60.0)
    path = write(str(tmp_path / "bad.zarr"))
    (tmp_path / "bad.zarr/c/7/0").write_bytes(b"not a chunk")
    began = time.perf_counter()
    with pytest.raises(BadChunkError, match="chunk 7 ") as caught:
        bits(path)
    assert not isinstance(caught.value, SourceUnavailableError)
    assert time.perf_counter() - began < 5


def test_who_is_refused_is_told_at_once_and_without_secrets(network):
    network.refuses = 403
    asked = network.asked
    with pytest.raises(
        AccessDeniedError, match=r"s3://bucket/x.zarr may not be read: .*check the credentials"
    ) as caught:
        bits(network.store)
    assert network.asked - asked <= 3
    assert "planted-secret" not in str(caught.value)


@pytest.mark.parametrize("fault", ["no server", "busy"])
def test_a_store_that_cannot_be_reached_is_named(network, monkeypatch, fault):
    if fault == "busy":
        network.refuses = 503
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(SourceUnavailableError, match=r"s3://bucket/x.zarr cannot be reached: "):
        bits(network.store)


def test_urls_are_told_without_credentials(monkeypatch):
    assert errors.bare_url("https://me:word@host:80/x.zarr?X-Amz-Signature=abc#f") == "https://host:80/x.zarr"
    assert errors.bare_url("/a/b?c.zarr") == "/a/b?c.zarr"
    monkeypatch.setattr(again, "OPEN_PATIENCE", 0.0)
    with pytest.raises(SourceUnavailableError) as caught:
        again.reached(
            "http://me:word@h/x", lambda: (_ for _ in ()).throw(ConnectionError("http://me:word@h/x is gone"))
        )
    assert "word" not in str(caught.value)


def with_status(status):
    error = OSError(5, "as s3fs says it")
    error.__cause__ = Exception()
    error.__cause__.response = {"ResponseMetadata": {"HTTPStatusCode": status}}
    return error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        ConnectionResetError(),
        TimeoutError(),
        OSError(5, ""),
        OSError(16, ""),
        OSError(110, ""),
    ],
    ids=repr,
)
def test_what_may_pass_is_tried_again(error):
    assert again.transient(error)
    assert all(again.transient(with_status(status)) for status in (500, 502, 503, 429))


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError(), PermissionError(), ValueError("crc32c"), OSError(28, ""), BadChunkError(), KeyError()],
    ids=repr,
)  # fmt: skip
def test_what_stays_is_not_tried_again(error):
    assert not again.transient(error)


def test_tries_are_spread_and_end():
    times = []

    def fail():
        times.append(time.monotonic())
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        again.patiently(fail, 1.5)
    waits = [b - a for a, b in pairwise(times)]
    assert 3 <= len(waits) <= 40  # ten on average, drawn at random
    assert max(waits) <= 1  # a fifth of it, and what a busy machine adds


# --- the command line -------------------------------------------------------------------------------------------------


def command(*arguments, **environment):
    """What a command says on stderr, and its exit code."""
    ran = subprocess.run(
        [sys.executable, "-m", "daskmix.cli", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": ROOT} | environment,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return ran.stderr, ran.returncode


FIT = ["--model", "kmeans", "-k", 3, "--random-state", 0, "--quiet", "--cache", "off"]


def test_a_job_without_workers_ends_with_75(store, tmp_path):
    with LocalCluster(n_workers=0, **LOCAL) as cluster:
        where = ["--scheduler", cluster.scheduler_address, "--stall", 1, "--out", tmp_path / "m.zarr"]
        said, code = command("fit", store, *FIT, *where)
    assert code == 75
    assert len(said.splitlines()) == 1
    assert "the cluster has had no workers" in said
    assert "--stall says how long to wait" in said


def test_a_job_whose_read_hangs_ends_with_75(network, tmp_path):
    network.delay = 50.0
    began = time.perf_counter()
    said, code = command("fit", network.store, *FIT, "--stall", 1, "--out", tmp_path / "m.zarr")
    assert code == 75
    assert "this process has been at chunks" in said
    assert time.perf_counter() - began < 25


def test_a_job_whose_secret_is_refused_ends_with_2(network, tmp_path):
    network.refuses = 403
    said, code = command("fit", network.store, *FIT, "--out", tmp_path / "m.zarr")
    assert code == 2
    assert len(said.splitlines()) == 1
    assert "s3://bucket/x.zarr may not be read" in said


@pytest.mark.parametrize("bad", [{"retries": -1}, {"retries": 1.5}, {"stall": 0}, {"stall": "1"}, {"on_stall": "end"}])
def test_patience_that_cannot_be_is_refused(bad):
    with pytest.raises(InputError):
        Run(**bad)
