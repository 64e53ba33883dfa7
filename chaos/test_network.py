"""Two hosts: the wire between scheduler and workers, or between driver and scheduler, is cut for a minute."""

from __future__ import annotations

import time

import pytest

from chaos.cluster import Cluster, Job, ended_well, has_told
from chaos.hosts import hosts, why_not
from chaos.processes import wait_until

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

ITERATIONS, CUT = 8, 60


@pytest.mark.limit(420)
@pytest.mark.parametrize("driver_at", [0, 1], ids=["driver-beside-the-scheduler", "driver-beyond-the-wire"])
def test_a_wire_that_is_cut_for_a_minute_changes_nothing(driver_at, store, undisturbed, tmp_path):
    right = undisturbed(ITERATIONS)
    retries = {"retries": 10} if driver_at else {}
    with hosts() as two:
        inside = [two.inside(0), two.inside(1)]
        with Cluster(tmp_path, workers=2, host=two.address(0), inside=inside) as cluster:
            options = ("--scheduler", cluster.address)
            job = Job(store, tmp_path, ITERATIONS, options, inside=two.inside(driver_at), run=retries, lasting=True)
            with job.start() as driver:
                # Each host has a worker, and both have work.
                wait_until("full 2", has_told(driver, "full 2"), 120)
                two.cut()
                time.sleep(CUT)
                assert driver.running, driver.said[-4000:]
                two.heal()
                time.sleep(10)
                job.enough()
                ended_well(driver, 240)
    assert job.found() == right
