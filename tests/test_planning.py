"""`plan`: what a fit will cost, before anything is read."""

import subprocess
import sys
import warnings

import dask.array as da
import numpy as np
import pytest
import zarr
from sklearn.exceptions import ConvergenceWarning

from daskmix import BayesianGaussianMixture, BisectingKMeans, GaussianMixture, KMeans, plan
from daskmix.errors import InputTypeError


def write(path, rows=200_000, d=8, chunk=20_000):
    array = zarr.create_array(str(path), shape=(rows, d), chunks=(chunk, d), dtype=np.float32)
    rng = np.random.default_rng(0)
    array[...] = rng.standard_normal((rows, d)) + 4 * rng.integers(0, 3, (rows, 1))
    return str(path)


def unreadable(rows, d, chunk):
    """An array whose chunks must not be read."""

    def fail(block):
        raise AssertionError("a chunk was read")

    return da.zeros((rows, d), chunks=(chunk, d)).map_blocks(fail, dtype=float, meta=np.empty((0, d)))


@pytest.mark.parametrize("model", [KMeans(4), GaussianMixture(4), BisectingKMeans(4), BayesianGaussianMixture(4)])
def test_nothing_is_read(model):
    found = plan(model, unreadable(1_000_000, 8, 10_000))
    assert found.rows == 1_000_000
    assert found.chunks == 100
    assert found.bytes_per_pass == 64_000_000
    assert not hasattr(model, "n_features_in_")


@pytest.mark.parametrize("model", [KMeans(3, random_state=0), GaussianMixture(3, random_state=0)])
def test_the_records_of_the_fit_are_what_was_planned(model, tmp_path):
    path = write(tmp_path / "x.zarr")
    found = plan(model, path)
    model.fit(path)
    assert {record["chunks"] for record in model.history_} == {found.chunks}
    assert {record["bytes"] for record in model.history_} == {found.bytes_per_pass}
    assert {record["rows"] for record in model.history_} == {found.rows}
    assert model.n_passes_ <= found.passes_at_most
    assert found.accelerated


@pytest.mark.parametrize(
    ("model", "usual"),
    [
        (BisectingKMeans(1, random_state=0), 1),
        (BisectingKMeans(8, random_state=0), 10),
        (BisectingKMeans(3, max_iter=1, random_state=0), 7),
        (BayesianGaussianMixture(3, random_state=0), 31),  # the prior's covariance takes one more
        (BayesianGaussianMixture(3, covariance_prior=np.eye(8), random_state=0), 30),
        (BayesianGaussianMixture(3, covariance_type="diag", max_iter=5, random_state=0), 6),
        (BayesianGaussianMixture(3, max_passes=4, random_state=0), 4),
    ],
)
def test_the_passes_of_other_fits_are_as_planned(model, usual, tmp_path):
    path = write(tmp_path / "x.zarr", rows=20_000, chunk=5000)
    found = plan(model, path)
    assert (found.passes, found.accelerated) == (usual, False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(path)
    assert model.n_passes_ <= found.passes_at_most
    assert model.n_passes_ <= 1.5 * usual
    assert {record["bytes"] for record in model.history_} == {found.bytes_per_pass}


def test_the_plan_knows_when_a_fit_is_the_textbooks():
    x = da.zeros((1_000_000, 8), chunks=(10_000, 8))
    assert plan(KMeans(4), x).accelerated
    assert not plan(KMeans(4, accelerate="none"), x).accelerated
    assert not plan(KMeans(4, init=np.zeros((4, 8))), x).accelerated
    assert not plan(GaussianMixture(4, means_init=np.zeros((4, 8))), x).accelerated
    assert not plan(KMeans(4), x[:1000]).accelerated
    assert plan(KMeans(4, max_passes=5), x).passes_at_most == 5
    assert plan(KMeans(4, init="k-means||"), x).passes == plan(KMeans(4), x).passes + 6
    warm = KMeans(4, init="k-means||", warm_start=True, random_state=0).fit(x[:100])
    assert not plan(warm, x).accelerated
    assert plan(warm, x).passes_at_most == warm.max_iter + 2


def test_statistics_that_outweigh_the_rows_are_warned_about():
    x = da.zeros((100_000, 512), chunks=(1000, 512), dtype=np.float32)
    (warning,) = plan(GaussianMixture(16), x).warnings
    assert "diagonal" in warning
    assert not plan(GaussianMixture(16, covariance_type="diag"), x).warnings


FIT = """
import sys
import dask
from daskmix import GaussianMixture, Run, plan
dask.config.set(scheduler="threads", num_workers=2)
model = GaussianMixture(8, run=Run(cache="off"), max_iter=3, random_state=0)
planned = plan(model, sys.argv[1])
model.fit(sys.argv[1])
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(1024 * int(peak), planned.worker_bytes + planned.sample_bytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
def test_a_fit_takes_no_more_memory_than_planned(tmp_path):
    path = write(tmp_path / "x.zarr", rows=1_500_000, d=16, chunk=250_000)  # chunks of 16 MB
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", FIT, path], capture_output=True, text=True, check=True)
    taken, planned = map(int, out.stdout.split())
    assert planned / 2 < taken <= planned


def test_lengths_that_are_not_known_stay_unknown():
    pandas = pytest.importorskip("pandas")
    import dask.dataframe as dd

    frame = dd.from_pandas(pandas.DataFrame(np.zeros((1000, 3)), columns=list("abc")), npartitions=4)
    found = plan(KMeans(2), frame[frame.a == 0])
    assert found.rows is None
    assert found.bytes_per_pass is None
    assert "not known" in found.facts()["rows"]
    assert found.facts()["memory"].endswith("pass")
    assert plan(KMeans(2, accelerate="none"), frame[frame.a == 0]).passes > found.passes


def test_rows_that_may_weigh_nothing_may_take_a_pass_more():
    x = da.zeros((1000, 3), chunks=(100, 3))
    weighted = plan(KMeans(2), x, sample_weight=np.ones(1000))
    assert weighted.passes_at_most == plan(KMeans(2), x).passes_at_most + 1


def test_only_our_estimators_are_planned():
    with pytest.raises(InputTypeError, match="neither"):
        plan("kmeans", np.zeros((3, 2)))
