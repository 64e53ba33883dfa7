"""The peak memory of a fit does not grow with the number of rows."""

import subprocess
import sys

import numpy as np
import pytest
import zarr

FIT = """
import resource, sys
import numba, dask, threading
from daskmix import {model}
dask.config.set(scheduler="threads", num_workers=2)
{model}(3, random_state=0, max_iter=3).fit(sys.argv[1])
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


def peak(path, model):
    out = subprocess.run([sys.executable, "-c", FIT.format(model=model), path], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return int(out.stdout)


@pytest.mark.parametrize("model", ["KMeans", "GaussianMixture"])
def test_ten_times_the_rows_take_the_same_memory(tmp_path, model):
    # Both stores hold more rows than the sample, which is kept; 500 MB would show in the larger one.
    short, long = write(tmp_path / "short.zarr", 12), write(tmp_path / "long.zarr", 120)
    assert peak(long, model) <= 1.2 * peak(short, model)
