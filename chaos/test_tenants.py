"""Others on the same cluster are not disturbed, and workers may come and go while a fit is under way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster

from chaos.cluster import Cluster, Job, ended_well, has_told
from chaos.driver import bits, models
from chaos.processes import wait_until

ITERATIONS = 8


def fitted(store: str, name: str):
    model = models(ITERATIONS, {}, None)[name].fit(store)
    return bits(model, model.predict(store))


@pytest.mark.limit(240)
def test_two_fits_at_once_on_one_client_do_not_disturb_each_other(store, undisturbed, tmp_path):
    right = undisturbed(ITERATIONS)
    with Cluster(tmp_path) as cluster, Client(cluster.address) as client, ThreadPoolExecutor(2) as both:
        client.wait_for_workers(2, timeout=60)
        found = {name: both.submit(fitted, store, name) for name in ("kmeans", "full")}
        assert {name: future.result(200) for name, future in found.items()} == {name: right[name] for name in found}


@pytest.mark.limit(240)
def test_two_drivers_on_one_cluster_do_not_disturb_each_other(store, undisturbed, tmp_path):
    right = undisturbed(ITERATIONS)
    with Cluster(tmp_path) as cluster:
        cluster.wait_for_workers()
        options = ("--scheduler", cluster.address)
        jobs = [Job(store, tmp_path, ITERATIONS, options, name=name) for name in ("one", "other")]
        with jobs[0].start() as one, jobs[1].start() as other:
            for driver in (one, other):
                ended_well(driver, 150)
    assert [job.found() for job in jobs] == [right, right]


@pytest.mark.limit(240)
def test_what_another_tenant_persisted_stays_where_it_was(store, undisturbed, tmp_path):
    """Workers of 500 MB each hold 128 MB of another's: what a fit keeps must not push that out, nor stay after it."""
    right = undisturbed(ITERATIONS)
    limits = ["--memory-limit", "500MB"]
    with Cluster(tmp_path, options=limits) as cluster, Client(cluster.address) as tenant:
        tenant.wait_for_workers(2, timeout=60)
        theirs = tenant.map(made, range(32))
        before = tenant.gather(tenant.map(digest, theirs, pure=False))
        places = tenant.who_has(theirs)
        job = Job(store, tmp_path, ITERATIONS, ("--scheduler", cluster.address))
        with job.start() as driver:
            ended_well(driver, 150)
        assert tenant.who_has(theirs) == places
        assert tenant.gather(tenant.map(digest, theirs, pure=False)) == before
        wait_until("nothing is left of the fit", lambda: tenant.run_on_scheduler(tasks) == len(theirs))
    assert job.found() == right


def made(seed: int) -> Any:
    """8 MB of somebody's numbers."""
    return np.random.default_rng(seed).standard_normal(1 << 20)


def digest(x: Any) -> str:
    return sha256(x).hexdigest()


def tasks(dask_scheduler: Any) -> int:
    return len(dask_scheduler.tasks)


@pytest.mark.limit(240)
def test_an_adaptive_cluster_starts_from_nothing_and_shrinks_meanwhile(store, undisturbed, tmp_path):
    right = undisturbed(ITERATIONS)
    with LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        cluster.adapt(minimum=0, maximum=3, interval="200ms", wait_count=2)
        options = ("--scheduler", cluster.scheduler_address)
        job = Job(store, tmp_path, ITERATIONS, options, lasting=True)
        with job.start() as driver:
            assert not cluster.scheduler_info["workers"]
            wait_until("full 2", has_told(driver, "full 2"), 120)
            most = len(cluster.workers)
            cluster.adapt(minimum=0, maximum=1, interval="200ms", wait_count=2)
            wait_until("the cluster shrinks", lambda: len(cluster.workers) < most)
            job.enough()
            ended_well(driver, 150)
        assert most > 1
    assert job.found() == right
