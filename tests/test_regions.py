"""Values of rows that were being written when the process died: what is there is not computed again."""

import os
import signal
import subprocess
import sys
import time

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

from daskmix import GaussianMixture, KMeans, Run, load, write_rows
from daskmix.errors import IncompleteStoreError, StoreExistsError
from daskmix.store import refuse_incomplete, store_state

X = np.random.default_rng(0).normal(size=(1000, 3))


def chunks_of(store):
    """When each chunk was written."""
    return {
        path.relative_to(store): path.stat().st_mtime_ns
        for path in (store / "label" / "c").rglob("*")
        if path.is_file()
    }


def counted(values, stop_at, seen):
    """The same values; fails in one block, and notes which were computed."""

    def block(x, block_info=None):
        where = block_info[0]["chunk-location"]
        seen.append(where)
        if where == stop_at["at"]:
            raise OSError("the disk is gone")
        return x

    return values.map_blocks(block, dtype=values.dtype, meta=values._meta, name="values")


def slab(chunk):
    """Number of the chunk along the first axis."""
    return int(chunk.parts[chunk.parts.index("c") + 1])


@pytest.mark.parametrize("chunks", [(100,), (100, 2)])
def test_only_what_is_not_there_is_computed_again(chunks, tmp_path):
    axes, seen, stop_at = len(chunks), [], {"at": (6, 1)[: len(chunks)]}
    plain = np.arange(1000 * (1, 4)[axes - 1]).reshape((1000, 4)[:axes])
    values = counted(da.from_array(plain, chunks=chunks), stop_at, seen)
    with dask.config.set(scheduler="synchronous"):
        with pytest.raises(OSError, match="disk is gone"):
            write_rows(values, tmp_path / "v.zarr")
        with pytest.raises(IncompleteStoreError):
            refuse_incomplete(tmp_path / "v.zarr")
        before = chunks_of(tmp_path / "v.zarr")
        whole = {n for n in range(10) if sum(slab(chunk) == n for chunk in before) == (1, 2)[axes - 1]}
        assert 0 < len(whole) < 10
        seen.clear()
        stop_at["at"] = None
        write_rows(values, tmp_path / "v.zarr")
    assert sorted({block[0] for block in seen}) == sorted(set(range(10)) - whole)
    after = chunks_of(tmp_path / "v.zarr")
    assert all(after[chunk] == before[chunk] for chunk in before if slab(chunk) in whole)
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "v.zarr")["label"][...], plain)
    refuse_incomplete(tmp_path / "v.zarr")


def test_gaps_in_the_middle_are_filled_alone(tmp_path):
    seen = []
    plain = np.where(np.arange(1000) % 7 == 0, np.nan, np.arange(1000.0))  # labels of xarray: NaN is left out
    label = counted(da.from_array(plain, chunks=100), {"at": None}, seen)
    values = xr.DataArray(label, dims="row", coords={"row": np.arange(1000) * 2.0}, name="label")
    with dask.config.set(scheduler="synchronous"):
        write_rows(values, tmp_path / "v.zarr")
        half(tmp_path / "v.zarr")
        for number in (2, 3, 7):
            os.unlink(tmp_path / "v.zarr" / "label" / "c" / str(number))
        (tmp_path / "v.zarr" / "label" / "c" / "5").write_bytes(b"")
        seen.clear()
        write_rows(values, tmp_path / "v.zarr")
    assert sorted(seen) == [(2,), (3,), (5,), (7,)]
    stored = xr.open_zarr(tmp_path / "v.zarr", consolidated=False)
    np.testing.assert_array_equal(stored.label.values, plain)
    np.testing.assert_array_equal(stored.row.values, np.arange(1000) * 2.0)
    assert stored.label.encoding["dtype"] == np.int32


def half(store):
    """As if its last mark had not been written."""
    group = zarr.open_group(store, mode="r+")
    group.attrs["daskmix"] = {**group.attrs["daskmix"], "complete": False}
    return group


def test_a_store_that_was_hardly_begun_is_begun_anew(tmp_path):
    values = KMeans(2, random_state=0).fit(X).predict(da.from_array(X, chunks=(100, 3)))
    write_rows(values, tmp_path / "v.zarr")
    del half(tmp_path / "v.zarr")["label"]
    write_rows(values, tmp_path / "v.zarr")
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "v.zarr")["label"][...], values.compute())


def test_other_values_are_not_mixed_in(tmp_path):
    x = da.from_array(X, chunks=(100, 3))
    one, two = (KMeans(2, random_state=seed, init="random", n_init=1).fit(X).predict(x) for seed in (0, 1))
    write_rows(one, tmp_path / "v.zarr")
    half(tmp_path / "v.zarr")
    with pytest.raises(StoreExistsError):
        write_rows(two, tmp_path / "v.zarr")
    write_rows(two, tmp_path / "v.zarr", overwrite=True)
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "v.zarr")["label"][...], two.compute())


FULL = """
import resource, sys
import dask.array as da, numpy as np
from daskmix import KMeans, write_rows
X = da.from_array(np.random.default_rng(0).normal(size=(60_000, 3)), chunks=(20_000, 3))
labels = KMeans(900, max_iter=1, random_state=0, init="random", n_init=1, sample_size=1000).fit(X)
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
for write in (lambda: labels.save("model.zarr"), lambda: write_rows(labels.predict(X), "labels.zarr")):
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, unlimited[1]))
    try:
        write()
    except Exception as error:
        print(type(error).__name__, error)
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    if len(sys.argv) > 1:
        write()
"""


def test_a_disk_that_is_full_is_named_and_nothing_half_written_looks_whole(tmp_path):
    def child(*words):
        ran = subprocess.run([sys.executable, "-c", FULL, *words], cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.splitlines()

    for line, store in zip(child(), ("model.zarr", "labels.zarr"), strict=True):
        assert line.startswith(f"UnwritableError {store} could not be written: [Errno 27] File too large")
        with pytest.raises(IncompleteStoreError):
            refuse_incomplete(tmp_path / store)
    child("again")  # where there is room
    assert len(load(tmp_path / "model.zarr").cluster_centers_) == 900
    refuse_incomplete(tmp_path / "labels.zarr")


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    here = tmp_path_factory.mktemp("rows")
    x = np.random.default_rng(1).normal(size=(400_000, 4))
    zarr.create_array(here / "x.zarr", data=x, chunks=(2000, 4))
    GaussianMixture(8, max_iter=2, random_state=0).fit(x[:5000]).save(here / "model.zarr")
    return here


def command(folder, *words):
    return subprocess.Popen([sys.executable, "-m", "daskmix.cli", *words], cwd=folder, stderr=subprocess.PIPE)


def killed_while_writing(process, store, at_least):
    while len(list((store / "label" / "c").glob("*"))) < at_least:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return chunks_of(store)


def done(process):
    _, said = process.communicate()
    assert process.returncode == 0, said


def test_labelling_that_was_killed_goes_on_by_the_same_command(folder):
    def labelling(out):
        return command(folder, "predict", "model.zarr", "x.zarr", "--out", out, "--probabilities")

    before = killed_while_writing(labelling("a.zarr"), folder / "a.zarr", 20)
    assert len(before) < 200
    done(labelling("a.zarr"))
    after = chunks_of(folder / "a.zarr")
    kept = sum(after[chunk] == before[chunk] for chunk in before)
    assert kept >= len(before) - 8  # those under way had not both variables
    done(labelling("b.zarr"))
    a, b = (xr.open_zarr(folder / name, consolidated=False).load() for name in ("a.zarr", "b.zarr"))
    xr.testing.assert_equal(a, b)
    done(labelling("a.zarr"))  # it is there already
    assert chunks_of(folder / "a.zarr") == after


def test_a_fit_that_was_killed_while_it_wrote_labels_goes_on_by_the_same_command(folder):
    words = ["fit", "x.zarr", "--model", "kmeans", "-k", "12", "--max-iter", "2", "--checkpoint", "c", "--overwrite"]
    words += ["--out", "fitted.zarr", "--labels-out", "labels.zarr"]
    before = killed_while_writing(command(folder, *words), folder / "labels.zarr", 20)
    model = (folder / "fitted.zarr" / "zarr.json").stat().st_mtime_ns
    done(command(folder, *words))
    after = chunks_of(folder / "labels.zarr")
    assert sum(after[chunk] == before[chunk] for chunk in before) >= len(before) - 4
    assert (folder / "fitted.zarr" / "zarr.json").stat().st_mtime_ns == model
    assert store_state(folder / "labels.zarr")["complete"]
    other = command(folder, *words[:-1], "labels.zarr", "--random-state", "3")
    _, said = other.communicate()
    assert other.returncode == 2
    assert b"random_state is 3" in said


def test_labels_to_goes_on_with_a_checkpoint(folder, tmp_path):
    run = Run(checkpoint=tmp_path / "c")
    KMeans(5, random_state=0, run=run).fit(folder / "x.zarr", labels_to=tmp_path / "labels.zarr")
    half(tmp_path / "labels.zarr")
    os.unlink(tmp_path / "labels.zarr" / "label" / "c" / "17")
    before = chunks_of(tmp_path / "labels.zarr")
    with pytest.raises(StoreExistsError):
        KMeans(5, random_state=0).fit(folder / "x.zarr", labels_to=tmp_path / "labels.zarr")
    KMeans(5, random_state=0, run=run).fit(folder / "x.zarr", labels_to=tmp_path / "labels.zarr")
    after = chunks_of(tmp_path / "labels.zarr")
    assert {chunk for chunk in after if after[chunk] != before.get(chunk)} == {next(c for c in after if c.name == "17")}
