"""Workers, nannies, scheduler and driver are killed, stopped and preempted: the model is the same to the bit."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from chaos.cluster import Cluster, Job, ended_well, has_told, kill, killed_in_turn, workers_of
from chaos.processes import ROOT, Process, wait_until

SHORT, LONG = 8, 60  # iterations of each of the three models
TTL = 3


def stop_longer_than_ttl(cluster: Cluster) -> None:
    """Its connection stays open, but nothing comes."""
    (worker, *_) = cluster.processes()
    worker.send_signal(signal.SIGSTOP)
    time.sleep(TTL + 4)
    worker.send_signal(signal.SIGCONT)


@dataclass(frozen=True)
class Fault:
    """What is done to a cluster, once the driver has come so far."""

    name: str
    do: Callable[[Cluster], Any]
    when: str = "full 3"
    run: tuple[tuple[str, Any], ...] = ()


FAULTS = [
    Fault("nothing", lambda cluster: None),
    Fault("a worker killed", lambda cluster: kill(cluster.processes()[0])),
    Fault("all workers killed", lambda cluster: [kill(worker) for worker in cluster.processes()]),
    Fault("a nanny killed", lambda cluster: kill(cluster.nannies[0].process)),
    Fault("a worker stopped for longer than its ttl", stop_longer_than_ttl),
    Fault("the scheduler killed", lambda cluster: kill(cluster.scheduler.process), run=(("retries", 10),)),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_after_a_fault_the_model_is_the_same(fault, store, undisturbed, tmp_path):
    right = undisturbed(SHORT)
    env = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{TTL} s"}
    with Cluster(tmp_path, env=env) as cluster:
        cluster.wait_for_workers()
        job = Job(store, tmp_path, SHORT, ("--scheduler", cluster.address), run=dict(fault.run))
        with job.start() as driver:
            wait_until(fault.when, has_told(driver, fault.when))
            fault.do(cluster)
            ended_well(driver, 100)
    assert job.found() == right


@pytest.mark.parametrize("at", ["read:1", "read:3", "merge:3"])
def test_a_worker_may_die_at_any_moment_of_a_pass(at, store, undisturbed, tmp_path):
    right, done = undisturbed(SHORT), tmp_path / "killed"
    env = {"CHAOS_AT": at, "CHAOS_DONE": str(done)}
    with Cluster(tmp_path, env=env, options=["--preload", str(ROOT / "chaos/preload.py")]) as cluster:
        cluster.wait_for_workers()
        job = Job(store, tmp_path, SHORT, ("--scheduler", cluster.address))
        with job.start() as driver:
            ended_well(driver, 100)
    assert done.exists()
    assert job.found() == right


@pytest.mark.limit(240)
@pytest.mark.parametrize("where", ["cli", "LocalCluster"])
def test_ten_random_kills_change_nothing(where, store, undisturbed, tmp_path):
    right, chance = undisturbed(SHORT), random.Random(0)

    def killed(job: Job, workers: Callable[[Process], list[psutil.Process]]) -> None:
        with job.start() as driver:
            wait_until("kmeans 1", has_told(driver, "kmeans 1"))
            for _ in range(10):
                time.sleep(chance.uniform(1.5, 4))
                wait_until("there are workers", lambda: bool(workers(driver)))
                kill(chance.choice(workers(driver)))
            job.enough()
            ended_well(driver, 150)

    if where == "cli":
        with Cluster(tmp_path, workers=3) as cluster:
            cluster.wait_for_workers()
            job = Job(store, tmp_path, SHORT, ("--scheduler", cluster.address), lasting=True)
            killed(job, lambda driver: cluster.processes())
    else:
        job = Job(store, tmp_path, SHORT, ("--local-cluster", "2"), lasting=True)
        killed(job, lambda driver: workers_of(driver.pid))
    assert job.found() == right


@pytest.mark.limit(300)
@pytest.mark.parametrize("allowed", [10, 3], ids=["deployed-settings", "dask-settings"])
def test_twenty_preemptions_are_no_failure_of_the_fit(allowed, store, undisturbed, tmp_path):
    """Where Dask gives up after three failures the pass is submitted again; labels, which are Dask's own, are not."""
    right, chance = undisturbed(SHORT), random.Random(1)
    options: tuple[str, ...] = ()
    if allowed == 3:
        options = ("--without-labels",)
        right = {name: {what: b for what, b in found.items() if what != "labels"} for name, found in right.items()}
    with Cluster(tmp_path, workers=3, env={"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(allowed)}) as cluster:
        cluster.wait_for_workers()
        job = Job(store, tmp_path, SHORT, ("--scheduler", cluster.address, *options), lasting=True)
        with job.start() as driver:
            wait_until("kmeans 1", has_told(driver, "kmeans 1"))
            for _ in range(20):
                time.sleep(chance.uniform(0.2, 1))
                wait_until("a worker is there", lambda: bool(cluster.processes()))
                nanny = chance.choice([nanny for nanny in cluster.nannies if workers_of(nanny.process.pid)])
                starts = nanny.starts
                nanny.process.send(signal.SIGTERM)
                wait_until("it has gone and another one has come", lambda n=nanny, s=starts: n.starts > s)
                assert driver.running, driver.said[-4000:]
            job.enough()
            ended_well(driver, 150)
    assert job.found() == right


@pytest.mark.limit(600)
def test_twenty_drivers_killed_in_turn_come_to_the_same_model(store, undisturbed, tmp_path):
    """Before they have read anything, in the middle of a pass, or while they commit."""
    right, chance = undisturbed(LONG), random.Random(2)
    with Cluster(tmp_path) as cluster:
        cluster.wait_for_workers()
        checkpoint = str(tmp_path / "checkpoint")
        job = Job(store, tmp_path, LONG, ("--scheduler", cluster.address, "--checkpoint", checkpoint))
        killed_in_turn(job, 20, chance)
        with job.start() as driver:
            ended_well(driver, 200)
    assert job.found() == right
