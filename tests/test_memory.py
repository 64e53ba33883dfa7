"""The peak memory of a fit does not grow with the number of rows."""

import subprocess
import sys

import numpy as np
import pytest
import zarr

FIT = """
import resource, sys
import numba, dask, threading
from daskmix import Run, {model}
dask.config.set(scheduler="threads", num_workers=2)
{model}(3, random_state=0, max_iter=3, run={run}).fit(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write(path, chunks):
    """Chunks of 4 MB, incompressible enough, stored as they are."""
    rng = np.random.default_rng(0)
    rows, d = 65_536, 16
    array = zarr.create_array(path, shape=(rows * chunks, d), chunks=(rows, d), dtype=np.float32, compressors=None)
    for i in range(chunks):
        array[i * rows : (i + 1) * rows] = rng.standard_normal((rows, d)) + 5 * rng.integers(0, 3, (rows, 1))
    return str(path)


def peak(path, model, run):
    out = subprocess.run(
        [sys.executable, "-c", FIT.format(model=model, run=run), path], capture_output=True, text=True, check=False
    )
    assert out.returncode == 0, out.stderr
    return int(out.stdout)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Both hold more rows than the sample, which is kept; 430 MB more would show."""
    place = tmp_path_factory.mktemp("stores")
    return write(place / "short.zarr", 12), write(place / "long.zarr", 120)


@pytest.mark.parametrize(
    ("model", "run"),
    [
        ("KMeans", "Run(cache_limit=16 << 20)"),
        ("GaussianMixture", "Run(cache_limit=16 << 20)"),
        ("KMeans", "Run(cache='disk')"),
    ],
)
def test_ten_times_the_rows_take_the_same_memory(stores, model, run):
    short, long = stores
    assert peak(long, model, run) <= 1.2 * peak(short, model, run)
