"""Chunks that are large: read in pieces where they are shards, else refused before any is read."""

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from distributed import Client, LocalCluster
from zarr.codecs import Crc32cCodec

from daskmix import KMeans, Run, plan
from daskmix.errors import ChunkTooLargeError, TightMemoryWarning
from daskmix.sources import zarr as stored

X = np.random.default_rng(0).standard_normal((2400, 4)).astype(np.float32)  # 16 bytes a row


def kmeans(**options):
    return KMeans(3, random_state=0, max_iter=4, **options)


@pytest.fixture
def small(monkeypatch):
    """What is large, scaled down: shards above 8 KiB, in pieces of at most 4 KiB."""
    monkeypatch.setattr(stored, "LARGE_SHARD", 8 << 10)
    monkeypatch.setattr(stored, "PIECE", 4 << 10)


def sharded(path, chunk, shard, **more):
    array = zarr.create_array(str(path), shape=X.shape, chunks=(chunk, 4), shards=(shard, 4), dtype="f4", **more)
    array[...] = X
    return array


def test_large_shards_are_read_in_whole_chunks(small, tmp_path):
    array = sharded(tmp_path / "x.zarr", 40, 1200)
    model = kmeans().fit(str(tmp_path / "x.zarr"))
    # 240 rows are 3840 bytes and a divisor of the shard.
    assert model.history_[0]["chunks"] == 10
    right = kmeans().fit(da.from_array(X, chunks=(240, 4)))
    np.testing.assert_array_equal(model.cluster_centers_, right.cluster_centers_)
    np.testing.assert_array_equal(model.predict(array), right.predict(X))
    assert model.predict(array).chunks == ((240,) * 10,)


def test_pieces_follow_from_the_data_and_never_from_the_memory(small, tmp_path, monkeypatch):
    sharded(tmp_path / "x.zarr", 40, 1200)
    fits = []
    for limit in (1 << 20, 1 << 40):
        monkeypatch.setattr("daskmix.memory.room_of_this_process", lambda limit=limit: limit)
        fits.append(kmeans().fit(str(tmp_path / "x.zarr")))
    np.testing.assert_array_equal(*(fit.cluster_centers_ for fit in fits))


def test_large_shards_along_several_dims_are_cut_along_all_that_are_sampled(small, tmp_path):
    x = xr.DataArray(X.reshape(40, 60, 4), dims=("lat", "lon", "band"), name="v").to_dataset()
    x.to_zarr(tmp_path / "v.zarr", encoding={"v": {"chunks": (5, 10, 4), "shards": (40, 60, 4)}}, consolidated=False)
    path = str(tmp_path / "v.zarr")
    model = kmeans().fit(path, variables="v", sample_dims=("lat", "lon"))
    chunks = model.predict(path, variables="v", sample_dims=("lat", "lon")).chunks
    assert chunks == ((5,) * 8, (30, 30))
    right = kmeans().fit(x.chunk(lat=5, lon=30).v, sample_dims=("lat", "lon"))
    np.testing.assert_allclose(model.cluster_centers_, right.cluster_centers_, rtol=1e-5)


def test_a_chunk_within_a_large_shard_that_cannot_be_read_is_named(small, tmp_path):
    sharded(tmp_path / "x.zarr", 40, 1200, compressors=[Crc32cCodec()])
    victim = tmp_path / "x.zarr" / "c" / "1" / "0"
    data = bytearray(victim.read_bytes())
    data[100] ^= 1
    victim.write_bytes(data)
    with pytest.raises(OSError, match=r"chunk 5 \(rows from \(1200,\).*the object c/1/0 in"):
        kmeans().fit(str(tmp_path / "x.zarr"))


def test_shards_that_are_not_large_are_read_whole(tmp_path):
    sharded(tmp_path / "x.zarr", 40, 1200)
    assert kmeans().fit(str(tmp_path / "x.zarr")).history_[0]["chunks"] == 2


def never_read(rows, chunk):
    def fail(block):
        raise AssertionError("a chunk was read")

    return da.zeros((rows, 4), chunks=(chunk, 4), dtype="f4").map_blocks(fail, dtype="f4", meta=np.empty((0, 4), "f4"))


def test_a_chunk_that_fits_into_no_worker_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr("daskmix.memory.room_of_this_process", lambda: 100 << 20)
    with pytest.raises(ChunkTooLargeError, match=r"chunk 0 is 152\.59 MiB decoded.*100\.00 MiB is free.*"
                       r"dask\.array\.from_zarr\(path\)\.rechunk\(\(819200, 4\)\)\.to_zarr"):  # fmt: skip
        kmeans().fit(never_read(20_000_000, 10_000_000))
    x = xr.DataArray(never_read(20_000_000, 10_000_000), dims=("time", "band"), name="v")
    with pytest.raises(ChunkTooLargeError, match=r"chunk\(\{'time': 819200\}\)"):
        kmeans().fit(x)


def test_threads_that_fit_only_one_at_a_time_are_warned_about(monkeypatch):
    monkeypatch.setattr("daskmix.memory.room_of_this_process", lambda: 100 << 20)
    x = da.from_array(np.tile(X, (400, 1)), chunks=(240_000, 4)).map_blocks(lambda b: b, dtype="f4")
    with dask.config.set(num_workers=4), pytest.warns(TightMemoryWarning, match="4 threads may hold .* with 1 thread"):
        kmeans().fit(x)


def test_a_worker_with_too_little_memory_refuses_and_reads_the_same_rows_in_shards(tmp_path):
    rows = 40 << 20
    whole = zarr.create_array(str(tmp_path / "w.zarr"), shape=(rows, 8), chunks=(rows, 8), dtype="f4")
    (tmp_path / "w.zarr" / "c" / "0").mkdir(parents=True)
    (tmp_path / "w.zarr" / "c" / "0" / "0").write_bytes(b"not to be read")
    assert whole.nbytes == 1.25 * 2**30
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, memory_limit="400MB", dashboard_address="127.0.0.1:0", processes=True
        ) as cluster,
        Client(cluster),
        pytest.raises(ChunkTooLargeError, match=r"1\.25 GiB decoded.*a worker has 381\.47 MiB.*rechunk\("),
    ):
        kmeans().fit(str(tmp_path / "w.zarr"))


def test_the_first_record_says_what_was_planned(tmp_path):
    sharded(tmp_path / "x.zarr", 40, 1200)
    path = str(tmp_path / "x.zarr")
    planned = plan(kmeans(), path)
    first, *others = kmeans(run=Run("off")).fit(path).history_
    assert (first["task_bytes"], first["worker_bytes"]) == (planned.task_bytes, planned.worker_bytes)
    assert not any("task_bytes" in record for record in others)
