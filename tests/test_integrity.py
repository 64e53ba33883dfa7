"""Input that is not whole is an error that says what is missing, before it is read or when it is."""

import pickle
import warnings
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner
from distributed import Client, LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.storage import FsspecStore, LocalStore, MemoryStore

from daskmix import KMeans, Run, plan, write_rows
from daskmix.cli import main
from daskmix.errors import BadChunkError, IncompleteStoreError, InputError, MissingChunksError
from daskmix.sources.chunks import Strict, cells_of, name_of
from daskmix.store import how_far

X = np.random.default_rng(0).standard_normal((400, 3)).astype(np.float32)
ACCEPT = Run(accept_missing_chunks=True)


def kmeans(**options):
    return KMeans(2, random_state=0, max_iter=3, **options)


def filled(store, x=X, zarr_format=3, **options):
    """A group with the rows in `x`, and this array."""
    group = zarr.create_group(store, overwrite=True, zarr_format=zarr_format)
    names = {"dimension_names": ["row", "feature"]} if zarr_format == 3 else {}
    array = group.create_array("x", **{"shape": x.shape, "dtype": x.dtype, "chunks": (100, 3)} | names | options)
    array[...] = x
    return array


def named(store, consolidated=False, zarr_format=3, **encoding):
    """A group as xarray writes it."""
    coords = {"row": np.zeros(400, int), "feature": ["a", "b", "c"]}
    x = xr.DataArray(X, dims=("row", "feature"), coords=coords, name="x").to_dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the format of consolidated metadata and of strings
        x.to_zarr(
            store, consolidated=consolidated, zarr_format=zarr_format,
            encoding={"x": {"chunks": (100, 3), **encoding}, "row": {"chunks": (100,)}},
        )  # fmt: skip
    return store


STORES = {
    "v3": lambda p: named(p),
    "v3, consolidated": lambda p: named(p, consolidated=True),
    "v2": lambda p: named(p, zarr_format=2),
    "v2, consolidated": lambda p: named(p, zarr_format=2, consolidated=True),
    "shards": lambda p: named(p, shards=(100, 3), chunks=(50, 3)),
}


def objects_of(path):
    """The files that hold rows."""
    return sorted(f for f in (Path(path) / "x").rglob("*") if f.is_file() and not f.name.startswith((".z", "zarr.")))


@pytest.mark.parametrize("kind", STORES)
def test_missing_chunks_are_refused_before_the_first_pass_unless_they_are_accepted(kind, tmp_path):
    path = str(STORES[kind](tmp_path / "s.zarr"))
    right = kmeans().fit(path, variables="x")
    lost = objects_of(path)[1::2]
    for file in lost:
        file.unlink()
    first = lost[0].relative_to(path)
    passes = []
    run = Run(callbacks=(passes.append,))
    for ask in (
        lambda: kmeans(run=run).fit(path, variables="x"),
        lambda: right.predict(path, variables="x"),
        lambda: right.score(path, variables="x"),
        lambda: plan(right, path, variables="x"),
    ):
        with pytest.raises(MissingChunksError, match=rf"2 of 4 objects of x in {path} are not there, {first}, .*"
                           r"fill value (nan|0\.0); .*run=Run\(accept_missing_chunks=True\)"):  # fmt: skip
            ask()
    assert not passes
    filled = xr.open_zarr(path, chunks=None, consolidated="consolidated" in kind).x.values
    drop = {"missing": "drop"} if np.isnan(filled).any() else {}
    accepted = kmeans(run=ACCEPT, **drop).fit(path, variables="x")
    np.testing.assert_array_equal(accepted.cluster_centers_, kmeans(**drop).fit(filled).cluster_centers_)
    np.testing.assert_array_equal(accepted.predict(path, variables="x").shape, (400,))


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("run", [None, ACCEPT])
def test_empty_objects_are_never_accepted(kind, run, tmp_path):
    path = str(STORES[kind](tmp_path / "s.zarr"))
    objects_of(path)[2].write_bytes(b"")
    with pytest.raises(BadChunkError, match=f"1 of 4 objects of x in {path} are empty, x/.*restore them") as error:
        kmeans(run=run).fit(path, variables="x")
    assert not isinstance(error.value, MissingChunksError)


@pytest.mark.parametrize("harm", ["unlink", "empty"])
@pytest.mark.parametrize("kind", STORES)
def test_a_chunk_that_is_lost_during_a_fit_is_an_error(kind, harm, tmp_path):
    path = str(STORES[kind](tmp_path / "s.zarr"))
    victim = objects_of(path)[3]

    def lose(_):
        victim.unlink() if harm == "unlink" else victim.write_bytes(b"")

    key = str(victim.relative_to(path))
    with pytest.raises(MissingChunksError if harm == "unlink" else BadChunkError, match=f"{path}.*{key} is"):
        kmeans(run=Run("off", callbacks=(lose,))).fit(path, variables="x")


def filesystem(place):
    return FsspecStore.from_url(f"file://{place}", storage_options={"auto_mkdir": True})


@pytest.mark.parametrize("made", [LocalStore, filesystem, lambda _: MemoryStore()])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_arrays_of_every_store_are_strict(made, zarr_format, tmp_path):
    array = filled(made(tmp_path / "s.zarr"), zarr_format=zarr_format)
    right = kmeans().fit(array)
    np.testing.assert_array_equal(right.cluster_centers_, kmeans().fit(X).cluster_centers_)
    empty = zarr.create_array(made(tmp_path / "e.zarr"), shape=(400, 3), chunks=(100, 3), dtype="f4", fill_value=7)
    with pytest.raises(MissingChunksError, match=r"4 of 4 objects in .*, c/0/0, c/1/0, c/2/0, \.\.\., .* value 7\.0"):
        kmeans().fit(empty)
    np.testing.assert_array_equal(KMeans(1, run=ACCEPT).fit(empty).cluster_centers_, [[7, 7, 7]])


def test_shards_may_lack_chunks_as_no_listing_shows_them(tmp_path):
    x = X.copy()
    x[:50] = 0
    array = filled(tmp_path / "s.zarr", x, chunks=(50, 3), shards=(200, 3))
    assert len(list(cells_of(array))) == 2
    right = kmeans().fit(x)
    np.testing.assert_array_equal(kmeans().fit(array).cluster_centers_, right.cluster_centers_)


def test_coordinates_may_lack_chunks(tmp_path):
    path = named(tmp_path / "s.zarr")
    assert not (path / "row" / "c").exists()  # zeros
    kmeans().fit(path, variables="x")


def test_weights_must_be_whole_too(tmp_path):
    path = tmp_path / "s.zarr"
    filled(path)
    zarr.create_array(path / "w", shape=(400,), chunks=(100,), dtype="f4", dimension_names=["row"])
    asked = ["fit", str(path), "--weights", "w", "--model", "kmeans", "-k", "2", "--out", str(tmp_path / "m.zarr")]
    said = CliRunner().invoke(main, asked)
    assert said.exit_code == 2
    assert "4 of 4 objects of w" in said.stderr
    assert "--accept-missing-chunks" in said.stderr


def test_strict_stores_travel_and_compare():
    store = Strict(LocalStore("/nowhere", read_only=True), ("x/",), accept=True)
    again = pickle.loads(pickle.dumps(store))
    assert again == store
    assert (again.below, again.accept, name_of(again)) == (("x/",), True, "/nowhere")


def test_workers_are_strict(tmp_path):
    path = str(named(tmp_path / "s.zarr"))
    victim = objects_of(path)[3]
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", processes=True) as cluster,
        Client(cluster),
        pytest.raises(MissingChunksError, match=f"{path}.*x/c/3/0 is not there"),
    ):
        kmeans(run=Run("off", callbacks=(lambda _: victim.unlink(missing_ok=True),))).fit(path, variables="x")


# --- what cannot be decoded -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """A store with checksums, the bytes of one of its chunks, and a model of its rows."""
    path = tmp_path_factory.mktemp("checked") / "s.zarr"
    filled(path, serializer=BytesCodec(), compressors=[Crc32cCodec()])
    victim = path / "x" / "c" / "2" / "0"
    return path, victim, victim.read_bytes(), kmeans().fit(path, variables="x")


def told(ask, path, key="x/c/2/0"):
    with pytest.raises(BadChunkError, match=f"the object {key} in {path} cannot be decoded"):
        ask()


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 8 * (1200 + 4) - 1))
def test_every_flipped_bit_is_caught_where_there_are_checksums(checked, at):
    path, victim, right, model = checked
    wrong = bytearray(right)
    wrong[at // 8] ^= 1 << (at % 8)
    victim.write_bytes(wrong)
    try:
        told(lambda: model.score(path, variables="x"), path)
    finally:
        victim.write_bytes(right)


@pytest.mark.parametrize("length", [1, 3, 600, 1203])
def test_what_was_cut_off_is_caught_and_named(checked, length):
    path, victim, right, model = checked
    victim.write_bytes(right[:length])
    array = zarr.open_array(path / "x", mode="r")
    try:
        told(lambda: kmeans().fit(path, variables="x"), path)
        told(lambda: kmeans().fit(array), f"{path}/x", "c/2/0")
        told(lambda: np.asarray(model.predict(path, variables="x")), path)
        with pytest.raises(BadChunkError, match=r"chunk 2 of x \(rows from \(200,\), shape \(100,\)\).*x/c/2/0"):
            kmeans().fit(path, variables="x")
    finally:
        victim.write_bytes(right)


def test_the_chunk_to_blame_is_found_among_those_of_the_features(tmp_path):
    path = tmp_path / "s.zarr"
    filled(path, chunks=(100, 1))
    (path / "x" / "c" / "3" / "2").write_bytes(b"garbage")
    told(lambda: kmeans().fit(path, variables="x"), path, "x/c/3/2")


def test_the_chunk_to_blame_is_found_where_rows_do_not_come_first(tmp_path):
    path = tmp_path / "s.zarr"
    filled(path, np.ascontiguousarray(X.T), chunks=(3, 100))
    (path / "x" / "c" / "0" / "1").write_bytes(b"garbage")
    told(lambda: kmeans().fit(path, variables="x", sample_dims="feature"), path, "x/c/0/1")


# --- what was never finished ------------------------------------------------------------------------------------------


def test_labels_that_were_never_finished_are_no_input(tmp_path):
    path = tmp_path / "labels.zarr"
    model = kmeans().fit(X)
    with dask.config.set(scheduler="synchronous"), pytest.raises(InputError, match="NaN"):
        write_rows(model.predict(_late_nan()), path)
    with pytest.raises(IncompleteStoreError, match=r"never finished, [0-3] of 4 chunks written"):
        kmeans().fit(path)
    with pytest.raises(IncompleteStoreError, match=r"never finished, [0-3] of 4 chunks written"):
        model.score(path)


def _late_nan():
    x = X.copy()
    x[-1] = np.nan
    return da.from_array(x, chunks=(100, 3))


def test_how_far_writing_came_is_told_also_of_labels_that_were_left_out(tmp_path):
    model = kmeans(missing="drop").fit(X)
    write_rows(model.predict(np.full((40, 3), np.nan)), tmp_path / "labels.zarr")
    assert how_far(tmp_path / "labels.zarr") == "1 of 1 chunks written"
