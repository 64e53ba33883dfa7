"""The object store is slow, refuses, is cut off, dies and comes back; and it knows its secret."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from chaos.between import Between, between
from chaos.cluster import Cluster, Job, daskmix, ended_well, has_told, killed_in_turn
from chaos.conftest import write_rows
from chaos.processes import wait_until
from chaos.swift import BUCKET, KEY, SECRET, Swift, environment, files, installed, swift

pytestmark = pytest.mark.skipif(not installed(), reason="no OpenStack swift in .chaos; `make chaos` installs it")

STORE = f"s3://{BUCKET}/x.zarr"
FEW = 2  # iterations: every pass reads all chunks again
READ_AGAIN = {"cache": "off"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Swift with the rows in it."""
    with swift(tmp_path_factory.mktemp("swift") / "server") as running, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(running.endpoint).items():
            patch.setenv(name, value)
        write_rows(STORE)
        yield running


@pytest.fixture
def fit_through(server, store, undisturbed, tmp_path):
    """Fits through a proxy on a cluster of two workers, while something happens; the model must be the right one."""

    def fit(happens: Callable[[Between, Swift], None], threads: int = 1, **run) -> None:
        right = undisturbed(FEW)
        with between(server.ports["proxy"]) as proxy:
            env = environment(proxy.endpoint)
            with Cluster(tmp_path, threads=threads, env=env) as cluster:
                cluster.wait_for_workers()
                job = Job(STORE, tmp_path, FEW, ("--scheduler", cluster.address), env, run=run)
                with job.start() as driver:
                    wait_until("kmeans 1", has_told(driver, "kmeans 1"), 120)
                    happens(proxy, server)
                    ended_well(driver, 240)
            assert proxy.seen["GET"] >= 60
        assert job.found() == right

    return fit


@pytest.mark.limit(300)
def test_a_store_that_is_killed_and_comes_back_changes_nothing(fit_through):
    def happens(proxy, server):
        server.kill()
        wait_until("somebody wants to read", lambda: proxy.seen["nobody there"] > 0)
        time.sleep(5)
        server.start()

    fit_through(happens, **READ_AGAIN)


@pytest.mark.limit(300)
def test_a_store_that_is_cut_off_for_a_while_changes_nothing(fit_through):
    def happens(proxy, server):
        proxy.cut()
        wait_until("somebody waits", lambda: proxy.seen["cut"] > 0)
        time.sleep(10)
        proxy.heal()

    fit_through(happens, **READ_AGAIN)


@pytest.mark.limit(300)
def test_a_store_that_takes_a_second_for_each_chunk_changes_nothing(fit_through):
    def happens(proxy, server):
        proxy.delay = 1.0  # to the end of the fit

    fit_through(happens, threads=8, **READ_AGAIN)


@pytest.mark.limit(300)
def test_a_store_that_refuses_one_in_twenty_reads_changes_nothing(fit_through):
    refusals = []

    def happens(proxy, server):
        proxy.refused = 0.05
        wait_until("some are refused", lambda: proxy.seen["refused"] >= 10, 120)
        refusals.append(proxy.seen["refused"])

    fit_through(happens, **READ_AGAIN)
    assert refusals


@pytest.mark.limit(300)
def test_a_checkpoint_in_the_store_outlives_drivers_and_the_store(server, store, undisturbed, tmp_path):
    """Rows are read from a disk: it is what is committed that matters here."""
    checkpoint = f"s3://{BUCKET}/checkpoint"
    job = Job(store, tmp_path, 8, ("--checkpoint", checkpoint), environment(server.endpoint))
    killed_in_turn(job, 3, random.Random(3))
    server.kill()
    server.start()
    with job.start() as driver:
        ended_well(driver, 100)
    assert job.found() == undisturbed(8)


def test_a_wrong_secret_is_one_clear_error_at_once(server, tmp_path):
    env = environment(server.endpoint, secret="not-the-secret")
    began = time.monotonic()
    ran = daskmix("fit", STORE, "--model", "kmeans", "-k", "4", "--out", tmp_path / "m.zarr", env=env)
    assert time.monotonic() - began < 60
    assert ran.returncode == 2
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in ran.stderr
    assert STORE in line
    assert "signature" in line.lower() or "forbidden" in line.lower() or "denied" in line.lower()
    for secret in (SECRET, "not-the-secret"):
        assert f"={secret}" not in ran.stderr
    assert KEY not in ran.stderr


def test_models_and_labels_are_written_to_the_store_and_read_from_it(server):
    """The undisturbed case, through the command line."""
    model, labels = f"s3://{BUCKET}/m.zarr", f"s3://{BUCKET}/l.zarr"
    env = environment(server.endpoint)
    fit = ["fit", STORE, "--model", "kmeans", "-k", "4", "--out", model, "--random-state", "0", "--quiet"]
    for words in (fit, ["predict", model, STORE, "--out", labels], ["inspect", model]):
        ran = daskmix(*words, env=env)
        assert ran.returncode == 0, ran.stderr
    assert files(server.endpoint).exists(f"{BUCKET}/l.zarr/zarr.json")
