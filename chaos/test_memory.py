"""Memory has a bound that is told beforehand: under hard limits, over many passes, and for chunks of any size."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster

from daskmix import KMeans
from daskmix.errors import ChunkTooLargeError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
MB = 1 << 20


def write(path, rows, d, chunk, dtype="f4", shard=None, gaps=False, **options):
    """A store, compressed unless told otherwise; its objects differ a little."""
    shards = None if shard is None else (shard, d)
    array = zarr.create_array(str(path), shape=(rows, d), chunks=(chunk, d), shards=shards, dtype=dtype, **options)
    rng, step = np.random.default_rng(0), shard or chunk
    x = rng.standard_normal((step, d), dtype=np.float32) + 4 * rng.integers(0, 3, (step, 1))
    if np.dtype(dtype).kind == "i":
        x = 100 * x
    if gaps:
        x[rng.random((step, d)) < 0.05] = np.nan
    for i in range(0, rows, step):
        array[i : i + step] = (x + i / rows).astype(dtype)
    return str(path)


def run(code, *arguments):
    """What a process of its own printed, as JSON."""
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout.splitlines()[-1])


FIT = """
import json, sys
import dask, numpy as np
from daskmix import *
path, model, threads, keep, weights = sys.argv[1:]
dask.config.set(scheduler="threads", num_workers=int(threads))
model = eval(model).set_params(run=Run(keep), max_iter=2, random_state=0)
weight = np.ones(int(weights), np.float32) if int(weights) else None
planned = plan(model, path, sample_weight=weight)
model.fit(path, sample_weight=weight)
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([1024 * int(peak), planned.worker_bytes + planned.sample_bytes]))
"""

SHAPES = {  # the model, MB of a chunk, features, type, and what else there is
    "kmeans, chunks of 8 MB": ("KMeans(8)", 8, 16, "f4", {}),
    "kmeans, chunks of 64 MB": ("KMeans(8)", 64, 16, "f4", {}),
    "kmeans, chunks of 256 MB": ("KMeans(8)", 256, 16, "f4", {}),
    "kmeans, float64": ("KMeans(8)", 64, 16, "f8", {}),
    "kmeans, small integers": ("KMeans(8)", 32, 16, "i2", {}),
    "kmeans, 512 clusters": ("KMeans(512)", 16, 16, "f4", {}),
    "kmeans, weights of narrow rows": ("KMeans(8)", 64, 2, "f4", {"weights": True}),
    "kmeans, one thread": ("KMeans(8)", 64, 16, "f4", {"threads": 1}),
    "kmeans, scratch of float64": ("KMeans(8)", 64, 16, "f8", {"keep": "disk"}),
    "mixture, chunks of 64 MB": ("GaussianMixture(4)", 64, 16, "f4", {}),
    "mixture, 256 MB of float64": ("GaussianMixture(4)", 256, 16, "f8", {}),
    "mixture, 50 features": ("GaussianMixture(16)", 32, 50, "f8", {}),
    "mixture, 200 features": ("GaussianMixture(8)", 32, 200, "f4", {}),
    "mixture, tied": ("GaussianMixture(8, covariance_type='tied')", 64, 16, "f4", {}),
    "mixture, gaps left out": ("GaussianMixture(4, missing='drop')", 64, 16, "f4", {"gaps": True}),
    "mixture, gaps": ("GaussianMixture(4, missing='em')", 32, 4, "f4", {"gaps": True}),
    "mixture, Bayesian": ("BayesianGaussianMixture(4)", 32, 16, "f4", {}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_peak_of_a_process_stays_below_the_plan(shape, tmp_path):
    model, size, d, dtype, more = SHAPES[shape]
    chunk = size * MB // (d * np.dtype(dtype).itemsize)
    chunks = 16 if size < 32 else 6 if size < 256 else 4
    path = write(tmp_path / "x.zarr", chunks * chunk, d, chunk, dtype, gaps=more.get("gaps", False))
    weights = chunks * chunk if "weights" in more else 0
    peak, planned = run(FIT, path, model, more.get("threads", 2), more.get("keep", "off"), weights)
    print(f"| {shape} | {peak / MB:.0f} MiB | {planned / MB:.0f} MiB | {planned / peak:.2f} |")
    assert planned / 2.5 < peak <= planned


LIMITED = """
import json, resource, sys
import dask, numpy as np, psutil
from daskmix import *
dask.config.set(scheduler="threads", num_workers=2)
path, model, headroom = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = eval(model).set_params(max_iter=3, random_state=0, run=Run(cache_limit=headroom // 8))
model.fit(sys.argv[4])  # compiles, and starts the threads, whose stacks count
resource.setrlimit(resource.RLIMIT_DATA, (psutil.Process().memory_info().data + headroom,) * 2)
try:
    np.ones(2 * headroom, np.uint8)
    held = False
except MemoryError:
    held = True
model.fit(path)
print(json.dumps([held, model.n_passes_]))
"""


@pytest.mark.parametrize("model", ["KMeans(8)", "GaussianMixture(8)"])
def test_ten_times_the_memory_is_fitted_under_a_hard_limit(model, tmp_path):
    headroom = 192 * MB
    path = write(tmp_path / "x.zarr", 10 * headroom // 64, 16, 1 << 16)  # chunks of 4 MB
    few = write(tmp_path / "few.zarr", 50_000, 16, 5000)
    held, passes = run(LIMITED, path, model, headroom, few)
    assert held  # the limit is one
    assert passes >= 2


@pytest.fixture
def worker(request):
    """The client of a worker of one thread with so much memory."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, memory_limit=request.param, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.parametrize("worker", ["400MB"], indirect=True)
def test_a_chunk_of_a_gigabyte_is_refused_by_a_small_worker_before_it_is_read(worker, tmp_path):
    path = tmp_path / "whole.zarr"
    zarr.create_array(str(path), shape=(1 << 24, 16), chunks=(1 << 24, 16), dtype="f4")
    (path / "c" / "0").mkdir(parents=True)
    (path / "c" / "0" / "0").write_bytes(b"who reads this fails in another way")
    with pytest.raises(ChunkTooLargeError, match=r"1\.00 GiB decoded.*a worker has 381\.47 MiB.*rechunk"):
        KMeans(4, random_state=0, max_iter=3).fit(str(path))


# Dask pauses workers at 80 % of their memory, and Python with its libraries takes 340 MB of it.
@pytest.mark.parametrize("worker", ["640MB"], indirect=True)
def test_the_same_gigabytes_in_shards_are_read_in_pieces(worker, tmp_path):
    path = write(tmp_path / "shards.zarr", 1 << 24, 16, 1 << 17, shard=1 << 23)  # of half a GiB
    before = worker.run(os.getpid)
    model = KMeans(4, random_state=0, max_iter=3).fit(path)
    assert worker.run(os.getpid) == before  # none was killed
    assert model.history_[0]["chunks"] == 32  # of 32 MiB


FLAT = """
import json, sys
import dask
from daskmix import *
dask.config.set(scheduler="threads", num_workers=2)
peaks = []

def peak(record):
    (now,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    peaks.append(1024 * int(now))

KMeans(64, random_state=0, init="random", tol=0, accelerate="none", n_init=1, max_iter=200,
       run=Run(sys.argv[2], callbacks=(peak,))).fit(sys.argv[1])
print(json.dumps(peaks))
"""


@pytest.mark.parametrize("keep", ["off", "disk", "memory"])
def test_the_peak_is_flat_over_many_passes(keep, tmp_path):
    rng = np.random.default_rng(0)
    array = zarr.create_array(str(tmp_path / "x.zarr"), shape=(400_000, 8), chunks=(20_000, 8), dtype="f4")
    array[...] = rng.random((400_000, 8), dtype=np.float32)  # no clusters, so that it goes on
    peaks = run(FLAT, tmp_path / "x.zarr", keep)
    assert len(peaks) >= 200
    assert peaks[-1] <= peaks[20] + 32 * MB
