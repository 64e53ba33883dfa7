"""Whatever the rows come in, the model is the same; answers come in kind; each pass reads each chunk once."""

from collections import Counter
from functools import partial

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
import zarrs
from distributed import Client, LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore, MemoryStore, WrapperStore

from daskmix import GaussianMixture, KMeans, Run
from daskmix.block import Missing
from daskmix.errors import FeatureError, InputError, InputTypeError, UnitsError
from daskmix.rows import from_memory
from daskmix.sources.dask import rows_from_dask_array
from daskmix.sources.zarr import of_array, rows_from_stored_array

N, NAMES = 600, ["a", "b", "c"]
T, Y = 20, 30


def blobs():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(c, [1, 2, 0.5], (N // 3, 3)) for c in (0, 6, 12)])[rng.permutation(N)]


X = blobs()


def kmeans(**options):
    return KMeans(3, random_state=0, tol=0, **options)


def mixture(**options):
    return GaussianMixture(3, random_state=0, tol=1e-9, **options)


AGAIN = Run(cache="off")  # every pass reads every chunk
BOTH = pytest.mark.parametrize("model", [kmeans, mixture])
REFERENCE = {kmeans: kmeans().fit(X), mixture: mixture().fit(X)}


def centres(model):
    return model.cluster_centers_ if isinstance(model, KMeans) else model.means_


def assert_same(model, reference, rtol=1e-10):
    np.testing.assert_allclose(centres(model), centres(reference), rtol=rtol)
    if isinstance(model, KMeans):
        np.testing.assert_allclose(model.inertia_, reference.inertia_, rtol=rtol)
    else:
        np.testing.assert_allclose(model.covariances_, reference.covariances_, rtol=1e-8)
        np.testing.assert_allclose(model.lower_bound_, reference.lower_bound_, rtol=rtol)
    assert model.n_passes_ == reference.n_passes_


def dataset():
    values = X.copy().reshape(T, Y, 3)
    return xr.Dataset(
        {name: (("time", "lat"), values[..., i], {"units": "K"}) for i, name in enumerate(NAMES)},
        coords={
            "time": pd.date_range("2000-01-01", periods=T),
            "lat": ("lat", np.linspace(-60, 60, Y), {"units": "degrees_north"}),
            "height": 2.0,
        },
    )


def cube():
    """Features between two sampled dims."""
    return dataset().to_dataarray("band").transpose("time", "band", "lat")


def frame():
    return pd.DataFrame(X, columns=NAMES)


DASK = {
    "chunks of rows": lambda: da.from_array(X, chunks=(97, 3)),
    "chunks of features": lambda: da.from_array(X, chunks=(97, 2)),
    "uneven chunks": lambda: da.from_array(X, chunks=((100, 1, 249, 250), 3)),
    "an empty chunk": lambda: da.from_array(X, chunks=((100, 0, 250, 250), (1, 2))),
    "unknown lengths": lambda: DASK["chunks of rows"]()[DASK["chunks of rows"]()[:, 0] > -1e9],
    "unknown lengths, an empty chunk": lambda: da.concatenate(
        [da.from_delayed(dask.delayed(part), (np.nan, 3), dtype=float) for part in (X[:100], X[:0], X[100:])],
        allow_unknown_chunksizes=True,
    ),
    "a mean in common": lambda: DASK["chunks of rows"]() - DASK["chunks of rows"]().mean(0) + X.mean(0),
    "a rechunk": lambda: DASK["chunks of features"]().rechunk((50, 3)),
    "three axes": lambda: da.from_array(X.reshape(6, 100, 3), chunks=(4, 30, 2)),
    "persisted": lambda: DASK["chunks of features"]().persist(),
    "persisted, then mapped": lambda: DASK["persisted"]() * 1.0,
}


@BOTH
@pytest.mark.parametrize("how", DASK)
def test_dask_arrays_give_the_model_of_their_rows(model, how):
    assert_same(model().fit(DASK[how]()), REFERENCE[model])


@BOTH
@pytest.mark.parametrize("how", ["numpy", "a list", "pandas", "Dask DataFrame", "float32"])
def test_tables_give_the_model_of_their_rows(model, how):
    if how == "float32":
        assert_same(model().fit(X.astype("f4")), REFERENCE[model], rtol=1e-4) if model is kmeans else None
        return
    x = {
        "numpy": X,
        "a list": X.tolist(),
        "pandas": frame(),
        "Dask DataFrame": dd.from_pandas(frame(), npartitions=4),
    }[how]
    assert_same(model().fit(x), REFERENCE[model])


LABELLED = {
    "Dataset": lambda: (dataset(), None),
    "lazy Dataset": lambda: (dataset().chunk(time=7, lat=11), None),
    "Dataset of unlike chunks": lambda: (dataset().chunk(time=7).assign(a=dataset().a.chunk(time=6, lat=9)), None),
    "half lazy Dataset": lambda: (dataset().assign(a=dataset().a.chunk(time=6)), None),
    "DataArray": lambda: (cube(), ("time", "lat")),
    "lazy DataArray": lambda: (cube().chunk(time=7, band=2), ("time", "lat")),
    "last dim is the feature": lambda: (cube().transpose("time", "lat", "band").chunk(time=7), None),
}


@BOTH
@pytest.mark.parametrize("how", LABELLED)
def test_labelled_arrays_give_the_model_of_their_rows(model, how):
    x, sample_dims = LABELLED[how]()
    fitted = model().fit(x, sample_dims=sample_dims)
    assert_same(fitted, REFERENCE[model])
    assert fitted.feature_names_in_.tolist() == NAMES


@pytest.mark.parametrize("how", LABELLED)
def test_xarray_comes_out_as_it_went_in(how):
    x, sample_dims = LABELLED[how]()
    model = mixture().fit(x, sample_dims=sample_dims)
    labels = model.predict(x, sample_dims=sample_dims)
    assert labels.dims == ("time", "lat")
    assert set(labels.coords) == {"time", "lat", "height"}
    assert labels.time.dtype.kind == "M"
    assert labels.lat.attrs == {"units": "degrees_north"}
    assert labels.attrs == {"long_name": "component", "n_components": 3}
    assert (labels.chunks is not None) == ("azy" in how or "chunks" in how or "last" in how)
    np.testing.assert_array_equal(labels.values.ravel(), REFERENCE[mixture].predict(X))
    share = model.predict_proba(x, sample_dims=sample_dims)
    assert share.dims == ("time", "lat", "component")
    np.testing.assert_allclose(share.values.reshape(N, 3), REFERENCE[mixture].predict_proba(X), atol=1e-9)


def test_one_variable_may_be_one_feature():
    x = dataset().a
    assert_same(kmeans().fit(x, sample_dims=x.dims), kmeans().fit(X[:, :1]))
    assert_same(kmeans().fit(x.chunk(time=3), sample_dims=x.dims), kmeans().fit(X[:, :1]))


def test_variables_may_have_feature_dims_of_their_own():
    x = dataset().chunk(time=7)
    wide = xr.concat([x.a, x.b], "level").to_dataset(name="wide").assign(c=x.c)
    assert_same(kmeans().fit(wide), REFERENCE[kmeans])
    assert kmeans().fit(wide).feature_names_in_.tolist() == ["wide_0", "wide_1", "c"]


# --- stores -----------------------------------------------------------------------------------------------------------


def sharded(place):
    array = zarr.create_array(place, shape=X.shape, dtype="f8", chunks=(50, 3), shards=(200, 3))
    array[...] = X
    return array


@BOTH
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_path_gives_the_model_of_its_rows(model, zarr_format, tmp_path):
    place = tmp_path / "x.zarr"
    dataset().chunk(time=7).assign(other=1.0).to_zarr(place, zarr_format=zarr_format)
    for path in (place, str(place)):
        assert_same(model().fit(path, variables=NAMES), REFERENCE[model])
    assert_same(model().fit(xr.open_zarr(place)[NAMES]), REFERENCE[model])


@BOTH
def test_a_zarr_array_gives_the_model_of_its_rows(model, tmp_path):
    array = sharded(tmp_path / "x.zarr")
    assert_same(model().fit(array), REFERENCE[model])
    assert_same(model().fit(tmp_path / "x.zarr"), REFERENCE[model])


def test_packed_integers_are_decoded_and_their_fill_is_missing(tmp_path):
    place = tmp_path / "x.zarr"
    holes = dataset()
    holes["a"][0, 3] = np.nan
    packed = {"dtype": "int16", "scale_factor": 1e-3, "add_offset": 1.0, "_FillValue": -32768}
    holes.to_zarr(place, encoding=dict.fromkeys(NAMES, packed))
    shown = xr.open_zarr(place)[NAMES]
    rows = np.stack([shown[name].values.ravel() for name in NAMES], axis=1)
    model = kmeans(missing="drop").fit(place, variables=NAMES)
    assert_same(model, kmeans(missing="drop").fit(rows), rtol=1e-9)
    labels = model.predict(place)
    assert np.flatnonzero(np.isnan(labels.values.ravel())).tolist() == [3]


# --- reading ----------------------------------------------------------------------------------------------------------


READ = []  # a name for every block that was computed; a module's, as tasks may be pickled


@pytest.fixture(autouse=True)
def nothing_was_read():
    READ.clear()


def _counted(name, block, block_id):
    READ.append((name, *block_id))
    return block


def counted(x, name=""):
    """The same array; every block that is computed is counted."""
    return x.map_blocks(partial(_counted, name), dtype=x.dtype, meta=np.empty((0,) * x.ndim, x.dtype))


def every_chunk(times, chunks):
    counts = Counter(READ)
    return len(counts) == chunks and set(counts.values()) == {times}


COUNTED = {
    "chunks of rows": lambda: (counted(DASK["chunks of rows"]()), 7),
    "chunks of features": lambda: (counted(DASK["chunks of features"]()), 14),
    "a rechunk": lambda: (counted(DASK["chunks of features"]()).rechunk((50, 3)), 14),
    "three axes": lambda: (counted(DASK["three axes"]()), 16),
    "unknown lengths": lambda: (counted(DASK["unknown lengths"]()), 7),
    "a Dataset": lambda: (
        xr.Dataset({n: (("t", "y"), counted(da.from_array(X.reshape(T, Y, 3)[..., i], chunks=(7, 11)), n)) for i, n in
                    enumerate(NAMES)}), 27),
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("how", COUNTED)
def test_a_pass_reads_each_chunk_once(model, how):
    x, chunks = COUNTED[how]()
    fitted = model(run=AGAIN).fit(x)
    assert_same(fitted, REFERENCE[model])
    assert every_chunk(fitted.n_passes_, chunks), Counter(READ)


@pytest.mark.parametrize("how", COUNTED)
def test_predict_on_lazy_rows_reads_nothing_until_it_is_asked(how):
    x, chunks = COUNTED[how]()
    labels = REFERENCE[kmeans].predict(x)
    share = REFERENCE[mixture].predict_proba(x)
    assert not READ
    values = np.asarray(labels.compute())
    assert every_chunk(1, chunks), Counter(READ)
    np.testing.assert_array_equal(values.ravel(), REFERENCE[kmeans].predict(X))
    assert share.shape[-1] == 3


def test_labels_are_lazy_where_rows_are():
    model = kmeans().fit(counted(DASK["chunks of rows"]()))
    READ.clear()
    assert isinstance(model.labels_, da.Array)
    assert not READ


class CountingStore(WrapperStore):
    """Counts the reads of every chunk or shard."""

    def __init__(self, store, counts=None):
        super().__init__(store)
        self.counts = Counter() if counts is None else counts

    def _with_store(self, store):
        return type(self)(store, self.counts)

    async def get(self, key, prototype, byte_range=None):
        if "/c/" in f"/{key}":
            self.counts[key] += 1
        return await super().get(key, prototype, byte_range)


def test_a_zarr_dataset_of_two_variables_is_read_once_a_pass(tmp_path):
    dataset()[["a", "b"]].chunk(time=7, lat=11).to_zarr(tmp_path / "x.zarr", consolidated=False)
    store = CountingStore(LocalStore(tmp_path / "x.zarr", read_only=True))
    x = xr.open_zarr(store, consolidated=False)
    store.counts.clear()
    model = kmeans(run=AGAIN).fit(x)
    counts = {key: n for key, n in store.counts.items() if key[0] in "ab"}
    assert len(counts) == 2 * 3 * 3
    assert set(counts.values()) == {model.n_passes_}


def test_zarrs_decodes_where_zarr_is_told_so(tmp_path, monkeypatch):
    sharded(tmp_path / "x.zarr")
    right, read, calls = kmeans().fit(tmp_path / "x.zarr"), zarrs.ZarrsCodecPipeline.read, []
    monkeypatch.setattr(zarrs.ZarrsCodecPipeline, "read", lambda *a, **named: calls.append(1) or read(*a, **named))
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        model = kmeans().fit(tmp_path / "x.zarr")
    assert calls
    assert model.cluster_centers_.tobytes() == right.cluster_centers_.tobytes()


def test_a_path_to_variables_of_unlike_chunks_gives_the_model_of_its_rows(tmp_path):
    x = dataset()[["a", "b"]]
    encoding = {"a": {"chunks": (7, 11)}, "b": {"chunks": (4, 9)}}
    x.to_zarr(tmp_path / "x.zarr", encoding=encoding, consolidated=False)
    assert_same(kmeans().fit(tmp_path / "x.zarr", variables=["a", "b"]), kmeans().fit(x))


@st.composite
def grids(draw):
    """The chunks of an array along its sampled axes and that of its features, and its shape."""
    chunks = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    return chunks, [draw(st.integers(1, 4 * chunk)) for chunk in chunks]


@settings(max_examples=60, deadline=None)
@given(grids(), st.sampled_from([1, 50, 200, 1 << 20]))
def test_small_chunks_are_read_with_their_neighbours_each_once(grid, run):
    chunks, shape = grid
    store = CountingStore(MemoryStore())
    array = zarr.create_array(
        store, shape=shape, chunks=chunks, dtype="f4", compressors=None, config={"write_empty_chunks": True}
    )
    array[:] = np.arange(np.prod(shape), dtype="f4").reshape(shape)
    store.counts.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daskmix.sources.zarr.RUN", run)
        rows = rows_from_stored_array(of_array(array), None, Missing.refuse)
    read = [part.read(()) for part in rows.parts]
    assert set(store.counts.values()) == {1}
    index = np.concatenate([raw.place.index(np.arange(len(raw.x))) for raw in read])
    x = np.concatenate([raw.x for raw in read])
    np.testing.assert_array_equal(x[np.argsort(index)].reshape(shape), array[:])
    counts = [-(-size // chunk) for size, chunk in zip(shape[:-1], chunks[:-1], strict=True)]
    assert sum(part.chunks for part in rows.parts) == np.prod(counts)
    for part in rows.parts:
        assert part.chunks == 1 or part.nbytes <= run
        first = np.ravel_multi_index([o // c for o, c in zip(part.place.origin, chunks[:-1], strict=True)], counts)
        assert part.number == first


@pytest.mark.parametrize("variables", ["v", ["v"]])
def test_one_variable_means_the_same_by_path_and_in_a_dataset(variables, tmp_path):
    x = xr.Dataset({"v": (("row", "f"), X), "other": ("row", X[:, 0])})
    x.to_zarr(tmp_path / "x.zarr", consolidated=False)
    for source in (tmp_path / "x.zarr", x, x.chunk(row=100)):
        model = kmeans().fit(source, variables=variables)
        assert_same(model, REFERENCE[kmeans])
        labels = model.predict(source, variables=variables)
        np.testing.assert_array_equal(labels, model.predict(x["v"]))


@pytest.mark.parametrize("how", ["array", "path", "group"])
def test_shards_are_read_whole(how, tmp_path):
    place = tmp_path / "x.zarr"
    if how == "group":
        x = xr.Dataset({"v": (("row", "f"), X)})
        x.to_zarr(place, encoding={"v": {"chunks": (50, 3), "shards": (200, 3)}}, consolidated=False)
        x = kmeans()._opened(place, ["v"])
        assert x.lazy.chunks == ((200, 200, 200), (3,))
        assert_same(kmeans().fit(place, variables="v"), REFERENCE[kmeans])
        return
    sharded(place)
    store = CountingStore(LocalStore(place, read_only=True))
    model = kmeans(run=AGAIN).fit(place if how == "path" else zarr.open_array(store, mode="r"))
    assert [record["chunks"] for record in model.history_] == [3] * model.n_passes_
    if how == "array":
        assert len(store.counts) == 3
        assert set(store.counts.values()) == {model.n_passes_}


# --- a cluster --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        yield client


@BOTH
@pytest.mark.parametrize(
    "how",
    ["chunks of features", "unknown lengths", "a mean in common", "a rechunk", "persisted", "persisted, then mapped"],
)
def test_a_cluster_gives_the_same_model(model, how, client):
    assert_same(model().fit(DASK[how]()), REFERENCE[model])


def test_a_persisted_dataset_is_not_computed_again_on_a_cluster(client):
    x, _ = COUNTED["a Dataset"]()
    x = x.persist()
    dask.compute(x.sum())
    before = len(READ)
    assert_same(kmeans().fit(x), REFERENCE[kmeans])
    assert len(READ) == before


@pytest.mark.parametrize("how", ["chunks of features", "a rechunk", "a Dataset"])
def test_a_pass_on_a_cluster_reads_each_chunk_once(how, client):
    x, chunks = COUNTED[how]()
    model = kmeans(run=AGAIN).fit(x)
    assert every_chunk(model.n_passes_, chunks), Counter(READ)


# --- rows left out ----------------------------------------------------------------------------------------------------


def holes():
    x = X.copy()
    x[[5, 200, 599], [0, 1, 2]] = np.nan
    return x


@BOTH
def test_rows_left_out_count_for_nothing(model):
    x = holes()
    dropped = model(missing="drop").fit(x)
    for other in (da.from_array(x, chunks=(97, 2)), dd.from_pandas(pd.DataFrame(x), npartitions=3), pd.DataFrame(x)):
        assert_same(model(missing="drop").fit(other), dropped)
    some = x[~np.isnan(x).any(axis=1)]
    kept = KMeans(3, init=centres(dropped), max_iter=300, tol=0).fit(some) if model is kmeans else None
    if kept is not None:
        np.testing.assert_allclose(kept.inertia_, dropped.inertia_, rtol=1e-12)


@BOTH
def test_rows_left_out_are_told_apart(model):
    x = holes()
    fitted = model(missing="drop").fit(x)
    left_out = np.isnan(x).any(axis=1)
    for labels in (fitted.predict(x), fitted.predict(da.from_array(x, chunks=(97, 2))).compute()):
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels == -2, left_out)
    frames = dd.from_pandas(pd.DataFrame(x), npartitions=3)
    assert ((fitted.predict(frames).compute() == -2) == left_out).all()
    for lazy in ({}, {"time": 7}):
        cells = xr.DataArray(x.reshape(T, Y, 3), dims=("time", "lat", "band")).chunk(lazy)
        np.testing.assert_array_equal(np.isnan(fitted.predict(cells).values.ravel()), left_out)


def test_masked_values_are_missing():
    x = np.ma.masked_invalid(holes())
    dropped = kmeans(missing="drop").fit(holes())
    lazy = da.from_array(x, chunks=(97, 2))
    for masked in (x, lazy):
        assert_same(kmeans(missing="drop").fit(masked), dropped)
        assert np.flatnonzero(np.asarray(dropped.predict(masked)) == -2).tolist() == [5, 200, 599]
        with pytest.raises(InputError, match=r"row 5 .*NaN"):
            kmeans().fit(masked)


# --- features ---------------------------------------------------------------------------------------------------------


@BOTH
def test_features_are_matched_by_name(model):
    fitted = model().fit(dataset())
    labels = fitted.predict(X.reshape(T, Y, 3)[:, 0])
    order = ["c", "a", "b"]
    turned = fitted.predict(dataset()[order])
    np.testing.assert_array_equal(turned[:, 0], labels)
    cells = cube().sel(band=order).chunk(time=7)
    np.testing.assert_array_equal(fitted.predict(cells, sample_dims=("time", "lat"))[:, 0], labels)
    frames = dd.from_pandas(frame()[order], npartitions=3)
    np.testing.assert_array_equal(fitted.predict(frames).compute().to_numpy().reshape(T, Y), turned)
    np.testing.assert_allclose(fitted.score(dataset()[order]), fitted.score(dataset()), rtol=1e-12)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_feature_that_is_not_there_is_named(lazy):
    x = dataset().chunk(time=7) if lazy else dataset()
    fitted = kmeans().fit(x)
    for other in (x.rename(b="B"), dd.from_pandas(frame().rename(columns={"b": "B"}), npartitions=2)):
        with pytest.raises(FeatureError, match=r"'b'.*a, B, c"):
            fitted.predict(other)
    with pytest.raises(FeatureError, match="2 features"):
        fitted.predict(x[["a", "b"]])


def test_units_must_be_those_of_the_fit():
    fitted = kmeans().fit(dataset())
    x = dataset()[["c", "b", "a"]]
    x["b"].attrs["units"] = "degC"
    with pytest.raises(UnitsError, match="'b' is in 'degC', but the model was fitted in 'K'"):
        fitted.predict(x)
    with pytest.raises(UnitsError, match="'b' is in 'degC'"):
        fitted.score(x)


def test_a_new_fit_forgets_names_and_units():
    x = dataset()
    model = kmeans().fit(x).fit(X)
    assert not hasattr(model, "feature_names_in_")
    x["b"].attrs["units"] = "degC"
    np.testing.assert_array_equal(model.predict(x).values.ravel(), model.predict(X))
    assert model.fit(x).feature_units_ == ("K", "degC", "K")


def test_datetimes_are_no_features():
    x = dataset().assign(when=(("time", "lat"), np.full((T, Y), np.datetime64("2000-01-01", "ns"))))
    when = pd.DataFrame({"a": X[:, 0], "when": pd.date_range("2000", periods=N)})
    for bad in (
        x,
        x.chunk(time=7),
        when,
        dd.from_pandas(when, npartitions=2),
        da.from_array(when[["when"]].to_numpy()),
    ):
        with pytest.raises(InputTypeError):
            kmeans().fit(bad)


# --- weights ----------------------------------------------------------------------------------------------------------


WEIGHTS = np.random.default_rng(1).integers(0, 4, N)


@BOTH
def test_weights_come_in_any_kind(model):
    reference = model().fit(X, sample_weight=WEIGHTS)
    lazy = da.from_array(X, chunks=(97, 2))
    unknown = lazy[lazy[:, 0] > -1e9]
    grid = xr.DataArray(WEIGHTS.reshape(T, Y), dims=("time", "lat"))
    chunked = dataset().chunk(time=7, lat=11)
    series = pd.Series(WEIGHTS)
    for x, w in [
        (X, series),
        (frame(), series),
        (lazy, WEIGHTS),
        (lazy, series),
        (lazy, da.from_array(WEIGHTS, chunks=97)),
        (unknown, da.from_array(WEIGHTS, chunks=97)[lazy[:, 0] > -1e9]),
        (dd.from_pandas(frame(), npartitions=4), dd.from_pandas(series, npartitions=4)),
        (dataset(), grid),
        (dataset(), WEIGHTS),
        (chunked, WEIGHTS),
        (chunked, grid),
        (chunked, grid.transpose("lat", "time")),
        (chunked, grid.chunk(time=5)),
        (dataset(), grid.chunk(time=5)),
    ]:
        assert_same(model().fit(x, sample_weight=w), reference)


@BOTH
def test_weights_along_one_dim_are_broadcast(model):
    x = dataset()
    w = np.cos(np.deg2rad(x.lat))
    reference = model().fit(X, sample_weight=np.broadcast_to(w.values, (T, Y)).ravel())
    for rows in (x, x.chunk(time=7, lat=11)):
        for weight in (w, w.chunk(lat=4)):
            assert_same(model().fit(rows, sample_weight=weight), reference)
    np.testing.assert_allclose(reference.score(x.chunk(time=7), sample_weight=w), reference.score(x, sample_weight=w))


@pytest.mark.parametrize("lazy", [False, True])
def test_whole_weights_are_repeats(lazy):
    start = REFERENCE[kmeans].cluster_centers_ + 1.0
    x = da.from_array(X, chunks=(97, 2)) if lazy else X
    repeated = np.repeat(X, WEIGHTS, axis=0)
    a = KMeans(3, init=start, tol=0).fit(x, sample_weight=WEIGHTS)
    b = KMeans(3, init=start, tol=0).fit(repeated)
    assert_same(a, b)
    options = {"tol": 1e-9, "reg_covar": 1e-6, "init_params": REFERENCE[mixture]}
    a = GaussianMixture(3, **options).fit(x, sample_weight=WEIGHTS)
    b = GaussianMixture(3, **options).fit(repeated)
    assert_same(a, b)


@given(st.integers(1, 60), st.integers(1, 64))
@settings(deadline=None, max_examples=60)
def test_no_task_reads_much_more_than_the_others(chunks, mebibytes_of_all):
    # Where the last task is small the one before it is alone at the end of a pass.
    rows = (mebibytes_of_all << 20) // 8
    x = da.zeros((rows, 1), chunks=(-(-rows // chunks), 1))
    sizes = [sum(part.nbytes for part in bundle) for bundle in rows_from_dask_array(x, None, Missing.refuse).bundles]
    largest = max(block * 8 for block in x.chunks[0])
    assert max(sizes) <= (8 << 20) + largest
    assert max(sizes) - min(sizes) <= 2 * largest
    if chunks % 16 == 0 and rows % chunks == 0:
        # Two, four or eight threads have the same to do.
        assert len(set(sizes)) == 1
        assert len(sizes) in (1, 2, 4, 8, 16)
    memory = from_memory([np.broadcast_to(0.0, (rows, 1))], 1, None, Missing.refuse)
    lengths = [part.place.rows for part in memory.parts]
    assert max(lengths) - min(lengths) <= len(lengths)
