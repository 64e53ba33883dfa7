"""Whatever cannot be used is refused in one sentence: what was seen, where, and what to do."""

import pickle

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
import zarr.codecs
from distributed import Client, LocalCluster

from daskmix import BisectingKMeans, GaussianMixture, KMeans, Run, errors, load, select
from daskmix.errors import (
    BadChunkError,
    FeatureError,
    InputError,
    InputTypeError,
    SchemaError,
    StoreExistsError,
    StoreNotFoundError,
    VariableNotFoundError,
)

X = np.random.default_rng(0).normal(size=(400, 3))
BOTH = pytest.mark.parametrize("model", [KMeans, GaussianMixture])


def lazy(x=X, chunks=(100, 2)):
    return da.from_array(np.asarray(x), chunks=chunks)


def with_value(value, row=234, column=2):
    x = X.copy()
    x[row, column] = value
    return x


def unknown(x):
    """The same rows in chunks whose lengths are not known."""
    x = da.from_array(x, chunks=(100, x.shape[1]))
    return x[da.ones(len(x), chunks=100) > 0]


def cells(x=X):
    return xr.DataArray(x.reshape(20, 20, 3), dims=("time", "lat", "band"), name="cells")


# --- values -----------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_found(model, value):
    what = "NaN; pass missing=" if np.isnan(value) else "infinity"
    x = with_value(value)
    for given, where in [
        (x, r"row 234 \(chunk 0\)"),
        (pd.DataFrame(x), r"row 234 \(chunk 0\)"),
        (lazy(x), r"row 234 \(chunk 2\)"),
        (unknown(x), r"row 34 of partition 2"),
        (dd.from_pandas(pd.DataFrame(x), npartitions=4), r"row 34 of partition 2"),
        (cells(x), r"row 234 \(chunk 0\)"),
        (cells(x).chunk(time=10), r"row 234 \(chunk 1\)"),
    ]:
        with pytest.raises(InputError, match=f"^{where} holds {what}"):
            model(2).fit(given)


def test_a_value_that_is_not_finite_is_found_when_labels_are_computed():
    model = KMeans(2, random_state=0).fit(X)
    with pytest.raises(InputError, match=r"row 234 \(chunk 0\) holds NaN"):
        model.predict(with_value(np.nan))
    labels = model.predict(lazy(with_value(np.nan)))
    with pytest.raises(InputError, match=r"row 34 of its chunk holds NaN"):
        labels.compute()


@BOTH
def test_rows_that_are_no_numbers_are_refused(model):
    text = np.full((20, 2), "a")
    objects = np.array([[{}, 1.0]] * 20, dtype=object)
    when = np.full((20, 2), np.datetime64("2000-01-01", "ns"))
    for bad in (X + 1j, lazy(X + 1j), cells(X + 1j), cells(X + 1j).chunk()):
        with pytest.raises((InputError, InputTypeError), match="Complex data not supported"):
            model(2).fit(bad)
    for bad in (text, objects, when):
        frame = pd.DataFrame(bad)
        array = xr.DataArray(bad, dims=("row", "f"))
        for given in (
            bad,
            frame,
            da.from_array(bad, chunks=10),
            dd.from_pandas(frame, npartitions=2),
            array,
            array.chunk(row=10),
        ):
            with pytest.raises((InputError, InputTypeError)):
                model(2).fit(given)


def test_a_chunk_of_another_type_than_promised_is_refused():
    x = lazy().map_blocks(lambda block: block.astype(str), dtype=float, meta=np.empty((0, 0)))
    with pytest.raises(InputTypeError, match="not a real number"):
        KMeans(2).fit(x)


def test_a_chunk_of_another_shape_than_promised_is_refused():
    short = lazy(chunks=(100, 3)).map_blocks(lambda block: block[1:], dtype=float, meta=np.empty((0, 0)))
    narrow = lazy(chunks=(100, 3)).map_blocks(lambda block: block[:, 1:], dtype=float, meta=np.empty((0, 0)))
    with pytest.raises(InputError, match=r"chunk 0 holds 99 rows of 3 features where the array promised 100 of 3"):
        KMeans(2).fit(short)
    with pytest.raises(InputError, match=r"chunk 0 holds 100 rows of 2 features"):
        KMeans(2).fit(narrow)


@pytest.mark.parametrize("x", [X, X.astype(np.float32)], ids=["double", "single"])
@BOTH
def test_what_cannot_be_squared_is_refused(model, x):
    large, close = x.copy(), np.where([True, False, True], x, x * x.dtype.type(1e-40))
    large[234, 2] = 1e200 if x.dtype == np.float64 else np.inf
    why = "infinity" if x.dtype == np.float32 else "1e\\+200 in size, more than 1e\\+130.*divide the feature"
    fitted = model(2, random_state=0).fit(x)
    for ask in (model(2).fit, fitted.predict, fitted.score):
        with pytest.raises(InputError, match=rf"^row 234 \(chunk 0\) holds {why}"):
            ask(large)
    with pytest.raises(InputError, match=rf"^row 234 \(chunk 2\) holds {why}"):
        model(2).fit(lazy(large))
    if x.dtype == np.float32:
        with pytest.raises(InputError, match=r"values of feature 1 differ by .*, whose squares .*in float64"):
            model(2).fit(close)
        close = close.astype(np.float64)
        close[:, 1] *= 1e-100
    else:
        close[:, 1] *= 1e-100
    with pytest.raises(InputError, match=r"values of feature 1 differ by .*, whose squares"):
        model(2).fit(close)


@BOTH
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_rows_far_from_a_model_are_answered_in_double_precision(model):
    fitted = model(2, random_state=0).fit(X.astype(np.float32))
    far = np.array([[1e20, 0, 0], [-1e25, 1e25, 1e30], [0.1, 0.2, 0.3]], dtype=np.float32)
    np.testing.assert_array_equal(fitted.predict(far), fitted.predict(far.astype(np.float64)))
    assert fitted.score(far) == pytest.approx(fitted.score(far.astype(np.float64)), rel=1e-6)
    if model is GaussianMixture:
        np.testing.assert_allclose(fitted.predict_proba(far).sum(axis=1), 1.0)
        np.testing.assert_allclose(fitted.score_samples(far), fitted.score_samples(far.astype(np.float64)), rtol=1e-6)


@BOTH
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_rows_left_out_cost_no_digits_however_far_the_others_lie(model):
    x = (X * 1e24 + 1e30).astype(np.float32)
    x[::7, 1] = np.nan
    kept = x[~np.isnan(x).any(axis=1)]
    with_gaps, whole = (model(1, random_state=0, missing="drop").fit(given) for given in (x, kept))
    for name in ("cluster_centers_", "inertia_") if model is KMeans else ("means_", "covariances_", "lower_bound_"):
        np.testing.assert_allclose(getattr(with_gaps, name), getattr(whole, name), rtol=1e-5)


@pytest.mark.parametrize("way", ["fit", "sample"])
@pytest.mark.parametrize("seed", ["no", -1, 1.5, 10**30])
def test_what_is_no_seed_is_refused(seed, way):
    model = GaussianMixture(2, random_state=0).fit(X)
    model.random_state = seed
    with pytest.raises(InputError, match=r"random_state=.* is no seed"):
        model.fit(X) if way == "fit" else model.sample(3)


# --- shapes -----------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("x", [X[:, 0], np.float64(3.0)], ids=["1-d", "0-d"])
def test_rows_need_a_feature_axis(model, x):
    for given in (x, da.from_array(x), xr.DataArray(x), xr.DataArray(x).chunk()):
        with pytest.raises(InputError, match=r"2D array|no feature dim"):
            model(2).fit(given)


@BOTH
@pytest.mark.parametrize("shape", [(0, 3), (20, 0)])
def test_there_must_be_rows_and_features(model, shape):
    x = np.empty(shape)
    what = "0 sample|no rows" if shape[0] == 0 else "0 feature|no features"
    array = xr.DataArray(x, dims=("row", "f"))
    for given in (x, pd.DataFrame(x), da.from_array(x), array, array.chunk()):
        with pytest.raises(InputError, match=what):
            model(2).fit(given)


def test_no_rows_among_chunks_of_unknown_length_are_no_rows():
    x = lazy(chunks=(100, 3))
    with pytest.raises(InputError):
        KMeans(2).fit(x[x[:, 0] > 1e9])


@BOTH
def test_there_must_be_as_many_rows_as_clusters(model):
    for given in (X[:4], lazy(X[:4]), unknown(X[:4]), xr.DataArray(X[:4], dims=("row", "f"))):
        with pytest.raises(InputError, match="n_samples=4 should be >= 5"):
            model(5).fit(given)
    with pytest.raises(InputError, match="every one of 400 rows holds NaN"):
        model(2, missing="drop").fit(X * np.nan)


@BOTH
def test_predict_needs_the_features_of_the_fit(model):
    fitted = model(2, random_state=0).fit(X)
    for given in (X[:, :2], lazy(X[:, :2]), pd.DataFrame(X[:, :2]), xr.DataArray(X[:, :2], dims=("row", "f"))):
        with pytest.raises(FeatureError, match=r"2 features, but .* is expecting 3"):
            fitted.predict(given)
        with pytest.raises(FeatureError, match=r"2 features, but .* is expecting 3"):
            fitted.score(given)


def test_dims_that_are_not_there_are_named():
    x = cells().to_dataset(name="v")
    with pytest.raises(InputError, match="'depth'"):
        KMeans(2).fit(x, sample_dims=("time", "depth"))
    with pytest.raises(InputError, match=r"no dim in common.*variables="):
        KMeans(2).fit(xr.Dataset({"a": ("x", X[:, 0]), "b": ("y", X[:, 1])}))
    with pytest.raises(InputError, match="no data variables"):
        KMeans(2).fit(xr.Dataset())
    with pytest.raises(InputError, match=r"sample_dims=.* but X is a ndarray"):
        KMeans(2).fit(X, sample_dims=("time",))
    with pytest.raises(VariableNotFoundError, match="'w'; it has v"):
        KMeans(2).fit(x, variables=["v", "w"])
    with pytest.raises(InputError, match="X is neither"):
        KMeans(2).fit(X, variables=["v"])


def test_a_dask_frame_of_records_is_refused():
    frame = dd.from_pandas(pd.DataFrame({"a": np.arange(4)}), npartitions=2)
    records = frame.map_partitions(lambda part: part, meta=pd.DataFrame({"a": np.zeros(0, dtype=[("u", "f8")])}))
    with pytest.raises(InputTypeError, match=r"column 'a' holds records.*give each field a column"):
        KMeans(2).fit(records)


# --- weights ----------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("w", "why"),
    [
        (np.ones(399), "399"),
        (np.ones((400, 2)), "2"),
        (3.0, "the number"),
        (np.full(400, "a"), "number"),
        (np.ones(400) + 1j, "number"),
        (np.where(np.arange(400) == 234, -1.0, 1.0), r"row 234 \(chunk \d\) is -1"),
        (np.where(np.arange(400) == 234, np.nan, 1.0), r"row 234 \(chunk \d\) is nan"),
        (np.where(np.arange(400) == 234, np.inf, 1.0), r"row 234 \(chunk \d\) is inf"),
        (np.full(400, 1e50), r"row 0 \(chunk 0\) is 1e\+50.*at most 1e\+40"),
        (np.full(400, 1e-100), r"sums to 4e-98; multiply all weights by one number"),
        (np.zeros(400), "zero for every row"),
    ],
    ids=[
        "too few",
        "two columns",
        "a number",
        "text",
        "complex",
        "negative",
        "NaN",
        "infinite",
        "huge",
        "tiny",
        "all zero",
    ],
)
def test_bad_weights_are_refused(model, w, why):
    cases = [(X, w), (lazy(), w), (cells(), w), (cells().chunk(time=10), w)]
    if np.ndim(w) == 1:
        cases.append((lazy(), da.from_array(w, chunks=100)))
    for x, weight in cases:
        with pytest.raises((InputError, InputTypeError), match=why):
            model(2).fit(x, sample_weight=weight)


@BOTH
def test_weights_a_million_million_times_smaller_change_nothing(model):
    w = np.random.default_rng(1).random(400)
    plain, small = (model(3, random_state=0).fit(X, sample_weight=w * factor) for factor in (1.0, 2.0**-60))
    for name in ("cluster_centers_",) if model is KMeans else ("weights_", "means_", "covariances_"):
        np.testing.assert_allclose(getattr(small, name), getattr(plain, name), rtol=1e-9)


def test_weights_are_chunked_like_the_rows():
    w = np.ones(400)
    with pytest.raises(InputError, match=r"8 chunks of rows but X has 4.*rechunk"):
        KMeans(2).fit(lazy(), sample_weight=da.from_array(w, chunks=50))
    with pytest.raises(InputError, match=r"compute\(\)"):
        KMeans(2).fit(X, sample_weight=da.from_array(w, chunks=100))
    with pytest.raises(InputError, match="lengths of X's chunks are not known"):
        KMeans(2).fit(unknown(X), sample_weight=w)


def test_weights_of_another_length_in_a_chunk_of_unknown_length_are_refused():
    w = da.from_array(np.ones(400), chunks=100)
    for other in (w[da.arange(400, chunks=100) != 234], w[da.arange(400, chunks=100) % 100 == 0]):
        with pytest.raises(InputError, match=r"chunk \d of sample_weight has shape"):
            KMeans(2).fit(unknown(X), sample_weight=other)


def test_labelled_weights_fit_the_rows():
    x = cells().assign_coords(lat=np.arange(20.0))
    w = xr.DataArray(np.ones(20), dims="lat", coords={"lat": np.arange(20.0)})
    with pytest.raises(InputError, match="other coordinates along 'lat'"):
        KMeans(2).fit(x, sample_weight=w[::-1])
    with pytest.raises(InputError, match="19 values along 'lat' but X has 20"):
        KMeans(2).fit(x, sample_weight=w[1:])
    with pytest.raises(InputError, match="'depth', which is not sampled"):
        KMeans(2).fit(x, sample_weight=w.rename(lat="depth"))


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "near"),
    [
        (KMeans(2, init="kmeans++"), "k-means"),
        (KMeans(2, missing="dorp"), "drop"),
        (GaussianMixture(2, covariance_type="ful"), "full"),
        (GaussianMixture(2, init_params="k-mean"), "kmeans"),
        (GaussianMixture(2, reg_covar="atuo"), "auto"),
    ],
    ids=str,
)
def test_an_unknown_option_is_told_the_nearest(model, near):
    with pytest.raises(InputError, match=rf"is not one of .*did you mean '{near}"):
        model.fit(X)


@pytest.mark.parametrize(
    "model",
    [KMeans(0), KMeans(2.5), KMeans(True), KMeans(2, tol=-1), KMeans(2, max_iter=0), KMeans(2, run="fast"),
     GaussianMixture(2, tol=np.nan), GaussianMixture(2, n_init=0), GaussianMixture(2, reg_covar=-1.0),
     KMeans(2, warm_start=np.ones(3)), GaussianMixture(2, noise=1), KMeans(2, n_init=np.ones((0, 2))),
     KMeans(2, verbose=np.ones(3)), KMeans(2, verbose=-1), KMeans(2, n_init=10**30), BisectingKMeans(2, n_init=10**30)],
    ids=str,
)  # fmt: skip
def test_a_number_out_of_range_is_refused(model):
    with pytest.raises(InputError, match=r"must be|=.*must"):
        model.fit(X)


def test_an_option_that_select_does_not_have_is_told_the_nearest():
    for numbers, near in [({"n_components": 2}, "reg_covar"), ({"n_clusters": 2}, "metric")]:
        with pytest.raises(InputError, match=rf"^option='{near}s' is not one of .*; did you mean '{near}'"):
            select(X, **numbers, **{f"{near}s": 1})


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_where_every_row_is_a_centre_nothing_is_left_to_gain():
    x = np.random.default_rng(0).normal(size=(3, 2))[np.arange(41) % 3] * 1e19
    model = GaussianMixture(4, random_state=0).fit(x)  # from K-means in the units of X
    assert np.isfinite(model.lower_bound_)


# --- stores -----------------------------------------------------------------------------------------------------------


def store_of(place):
    checked = [zarr.codecs.Crc32cCodec()]
    array = zarr.create_array(place, shape=X.shape, dtype="f8", chunks=(100, 3), compressors=checked)
    array[...] = X
    return place


def spoil(chunk):
    raw = bytearray(chunk.read_bytes())
    raw[40] ^= 1
    chunk.write_bytes(raw)


@BOTH
def test_a_store_that_is_not_there_is_not_found(model, tmp_path):
    for path in (tmp_path / "none.zarr", str(tmp_path / "none.zarr"), tmp_path, "memory://none", "nope://none"):
        with pytest.raises(StoreNotFoundError, match=r"no Zarr store|cannot be opened"):
            model(2).fit(path)
    (tmp_path / "file.zarr").write_text("not a store")
    with pytest.raises(StoreNotFoundError):
        model(2).fit(tmp_path / "file.zarr")
    with pytest.raises(InputTypeError, match="is not a Zarr store; open it with"):
        model(2).fit("rows.parquet")


def test_a_variable_that_is_not_there_is_not_found(tmp_path):
    cells().to_dataset(name="v").to_zarr(tmp_path / "x.zarr", consolidated=False)
    with pytest.raises(VariableNotFoundError, match="no variable 'w'; it has v"):
        KMeans(2).fit(tmp_path / "x.zarr", variables=["v", "w"])
    with pytest.raises(VariableNotFoundError, match="is an array, not a group"):
        KMeans(2).fit(store_of(tmp_path / "a.zarr"), variables="w")
    zarr.create_group(tmp_path / "g.zarr")
    with pytest.raises(VariableNotFoundError, match="has no variables"):
        KMeans(2).fit(tmp_path / "g.zarr")
    with pytest.raises(InputTypeError, match="pass its path"):
        KMeans(2).fit(zarr.open_group(tmp_path / "g.zarr", mode="r"))


def test_a_zarr_array_needs_two_axes(tmp_path):
    for x in (X[:, 0], X[0, 0]):
        array = zarr.create_array(tmp_path / f"{x.ndim}.zarr", data=np.asarray(x))
        with pytest.raises(InputError, match="2D array"):
            KMeans(2).fit(array)


@BOTH
def test_a_chunk_that_cannot_be_decoded_is_named(model, tmp_path):
    place = store_of(tmp_path / "x.zarr")
    spoil(place / "c" / "2" / "0")
    for given in (place, zarr.open_array(place, mode="r")):
        with pytest.raises(BadChunkError, match=r"chunk 2 \(rows from \(200,\), shape \(100,\)\) cannot be read"):
            model(2).fit(given)


def test_a_chunk_that_cannot_be_decoded_is_named_with_its_variable(tmp_path):
    place = tmp_path / "x.zarr"
    encoding = {"v": {"chunks": (10, 10, 3), "compressors": [zarr.codecs.Crc32cCodec()]}}
    cells().to_dataset(name="v").to_zarr(place, encoding=encoding, consolidated=False)
    spoil(place / "v" / "c" / "1" / "0" / "0")
    with pytest.raises(BadChunkError, match=r"chunk 2 of v \(rows from \(10, 0\), shape \(10, 10\)\) cannot be read"):
        KMeans(2).fit(place, variables="v")


@BOTH
def test_labels_have_a_place_before_the_fit_begins(model, tmp_path):
    place = store_of(tmp_path / "labels.zarr")
    passes = []
    with pytest.raises(StoreExistsError, match="exists"):
        model(2, run=Run(callbacks=(passes.append,))).fit(lazy(), labels_to=place)
    assert not passes


def test_a_store_of_other_things_is_no_model(tmp_path):
    with pytest.raises(SchemaError, match="not a group"):
        load(store_of(tmp_path / "x.zarr"))
    zarr.create_group(tmp_path / "g.zarr")
    with pytest.raises(SchemaError, match="holds no daskmix model"):
        load(tmp_path / "g.zarr")
    with pytest.raises(StoreNotFoundError):
        load(tmp_path / "none.zarr")


# --- a cluster --------------------------------------------------------------------------------------------------------


def test_every_error_can_be_pickled():
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.DaskmixError):
            error = pickle.loads(pickle.dumps(kind("row 3 holds NaN")))
            assert type(error) is kind
            assert str(error) == "row 3 holds NaN"


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_errors_come_back_from_other_processes(client, tmp_path):
    with pytest.raises(InputError, match=r"row 234 \(chunk 2\) holds NaN"):
        KMeans(2).fit(lazy(with_value(np.nan)))
    w = np.where(np.arange(400) == 234, -1.0, 1.0)
    with pytest.raises(InputError, match=r"row 234 \(chunk 2\) is -1"):
        KMeans(2).fit(lazy(), sample_weight=da.from_array(w, chunks=100))
    place = store_of(tmp_path / "x.zarr")
    spoil(place / "c" / "2" / "0")
    with pytest.raises(BadChunkError, match=r"chunk 2 .* cannot be read"):
        KMeans(2).fit(place)


@BOTH
def test_a_label_for_each_row_needs_rows_that_are_counted(model):
    start = "init" if model is KMeans else "init_params"
    with pytest.raises(InputError, match=r"not known before they are read.*compute_chunk_sizes"):
        model(2, **{start: np.arange(len(X)) % 2}).fit(unknown(X))


def test_criteria_of_the_rows_of_the_fit_take_nothing_that_reads_others():
    model = GaussianMixture(2, random_state=0).fit(X)
    for criterion in (model.bic, model.aic, model.icl):
        with pytest.raises(InputError, match="pass X"):
            criterion(sample_weight=np.ones(len(X)))
        with pytest.raises(TypeError):
            criterion(X, weights=np.ones(len(X)))
