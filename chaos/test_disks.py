"""Scratch, checkpoint and output are on disks that fill up: the fit goes on or says so; nothing half looks whole."""

from __future__ import annotations

import re
import subprocess

import numpy as np
import pytest

from chaos.cluster import Cluster, Job, daskmix, ended_well, has_told
from chaos.hosts import disk, fill, why_not
from chaos.processes import wait_until

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

ITERATIONS = 12


def test_without_room_for_scratch_chunks_are_read_again(store, undisturbed, tmp_path):
    right = undisturbed(ITERATIONS)
    with disk(tmp_path / "small", "16m") as small, Cluster(tmp_path) as cluster:
        cluster.wait_for_workers()
        run = {"cache": "disk", "scratch": str(small), "cache_limit": 1 << 30}
        job = Job(store, tmp_path, ITERATIONS, ("--scheduler", cluster.address), run=run)
        with job.start() as driver:
            ended_well(driver, 100)
            assert "ScratchFullWarning: scratch could not be written for" in driver.said
    assert job.found() == right


def test_scratch_that_fills_up_meanwhile_does_not_stop_a_fit(store, undisturbed, tmp_path):
    """Also the disk that workers spill to: others may fill it at any time."""
    right = undisturbed(ITERATIONS)
    with disk(tmp_path / "scratch", "200m") as scratch, Cluster(tmp_path, scratch=scratch) as cluster:
        cluster.wait_for_workers()
        job = Job(store, tmp_path, ITERATIONS, ("--scheduler", cluster.address), run={"scratch": str(scratch)})
        with job.start() as driver:
            wait_until("kmeans 3", has_told(driver, "kmeans 3"))
            fill(scratch)
            ended_well(driver, 100)
    assert job.found() == right


def test_without_room_for_a_checkpoint_it_is_said_and_the_same_command_goes_on(store, undisturbed, tmp_path):
    right = undisturbed(ITERATIONS)
    with disk(tmp_path / "small", "8m") as small:
        checkpoint = small / "checkpoint"
        job = Job(store, tmp_path, ITERATIONS, ("--checkpoint", str(checkpoint)))
        with job.start() as driver:
            wait_until("full 3", has_told(driver, "full 3"))
            ballast = fill(small)
            driver.wait(60)
            assert str(checkpoint) in driver.said
            assert re.search("full|no room|No space left", driver.said)
        if job.result.exists():  # it went on without
            assert job.found() == right
            job.result.unlink()
        ballast.unlink()
        with job.start() as driver:
            ended_well(driver, 60)
    assert job.found() == right


@pytest.mark.limit(200)
def test_without_room_for_output_nothing_half_written_looks_whole(store, tmp_path):
    """And the same command, once there is room, writes what it would have written."""

    def fit(out):
        return daskmix(
            "fit", store, "--model", "kmeans", "-k", "4", "--random-state", "0", "--max-iter", "4", "--quiet",
            "--out", out / "model.zarr", "--labels-out", out / "labels.zarr", "--checkpoint", f"{out}-checkpoint",
        )  # fmt: skip

    elsewhere = tmp_path / "large"
    elsewhere.mkdir()
    assert fit(elsewhere).returncode == 0
    with disk(tmp_path / "disk", "256k") as small:
        failed = fit(small)
        assert failed.returncode not in (0, 2)  # it is not the input that is bad
        (line,) = [line for line in failed.stderr.splitlines() if line.startswith("Error: ")]
        assert "labels.zarr" in line
        assert re.search("full|no room|No space left", line)
        half = daskmix("inspect", small / "labels.zarr")
        assert half.returncode == 2
        assert re.search("not complete|never finished|incomplete|interrupted", half.stderr)
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        again = fit(small)
        assert again.returncode == 0, again.stderr
        for name in ("model.zarr", "labels.zarr"):
            assert_same_arrays(small / name, elsewhere / name)


def assert_same_arrays(a, b):
    import zarr

    a, b = zarr.open_group(a, mode="r"), zarr.open_group(b, mode="r")
    assert set(a.array_keys()) == set(b.array_keys())
    for name in a.array_keys():
        np.testing.assert_array_equal(a[name][...], b[name][...])
