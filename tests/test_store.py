"""What is stored comes back the same, checked; what is not complete says so; nothing foreign is ever deleted."""

import json
from collections import Counter

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from zarr.storage import LocalStore, MemoryStore

from daskmix import GaussianMixture, KMeans, load
from daskmix.errors import (
    BadChunkError,
    DaskmixError,
    IncompleteStoreError,
    SchemaError,
    StoreExistsError,
    StoreNotFoundError,
)
from daskmix.store import refuse_incomplete, store_state, write_rows

rng = np.random.default_rng(0)
X = np.concatenate([rng.normal(c, 1.0, (200, 3)) for c in (0, 8, 16)])[rng.permutation(600)]
NAMES = ["a", "b", "c"]
MODELS = {
    "KMeans": KMeans(3, random_state=0),
    **{
        kind: GaussianMixture(3, covariance_type=kind, random_state=0) for kind in ("full", "tied", "diag", "spherical")
    },
    "explicit": GaussianMixture(
        3, covariance_type="VVI", means_init=X[:3], weights_init=[0.2, 0.3, 0.5], missing="drop"
    ),
    "KMeans from centres": KMeans(3, init=X[:3]),
}
FIT = ["cluster_centers_", "inertia_", "weights_", "means_", "covariances_", "precisions_", "lower_bound_", "n_iter_",
       "converged_", "n_passes_", "bytes_read_", "seed_", "n_features_in_"]  # fmt: skip


def cells(lazy=True):
    x = xr.Dataset(
        {name: (("time", "lat"), X[:, i].reshape(20, 30).copy(), {"units": "K"}) for i, name in enumerate(NAMES)},
        coords={"time": pd.date_range("2000-01-01", periods=20), "lat": np.linspace(-60, 60, 30), "height": 2.0},
    )
    return x.chunk(time=7, lat=10) if lazy else x


def assert_same(a, b):
    for name in FIT:
        assert hasattr(a, name) == hasattr(b, name)
        if hasattr(a, name):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for name, value in a.get_params().items():
        if name != "random_state":
            np.testing.assert_equal(b.get_params()[name], value)


def files_of(place):
    return {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_comes_back_to_the_bit(kind, tmp_path):
    model = MODELS[kind].fit(X)
    model.save(tmp_path / "m.zarr")
    back = load(tmp_path / "m.zarr")
    assert_same(model, back)
    assert json.dumps(back.history_) == json.dumps(json.loads(json.dumps(model.history_)))
    np.testing.assert_array_equal(back.predict(X), model.predict(X))
    assert back.score(X) == model.score(X)
    if kind != "KMeans" and hasattr(model, "bic"):
        assert back.bic() == model.bic()
    assert not any(b"pickle" in content for content in files_of(tmp_path / "m.zarr").values())


def places(tmp_path):
    yield "a path", tmp_path / "a.zarr"
    yield "a string", str(tmp_path / "b.zarr")
    yield "a file URL", f"file://{tmp_path}/c.zarr"
    yield "a memory URL", f"memory://{tmp_path.name}/d.zarr"
    yield "a local store", LocalStore(tmp_path / "e.zarr")
    yield "a store in memory", MemoryStore()


def test_models_and_labels_go_to_any_place_that_zarr_knows(tmp_path):
    model = MODELS["KMeans"].fit(X)
    for what, place in places(tmp_path):
        model.save(place)
        assert_same(model, load(place))
        with pytest.raises(StoreExistsError, match="overwrite"):
            model.save(place)
        with pytest.raises(StoreExistsError, match="overwrite"):
            write_rows(model.predict(X), place)
        assert_same(model, load(place))
        write_rows(model.predict(X), place, overwrite=True)
        assert store_state(place)["complete"], what
        np.testing.assert_array_equal(zarr.open_group(place, mode="r")["label"][...], model.predict(X))
        model.save(place, overwrite=True)
        assert_same(model, load(place))


def test_names_and_units_come_back(tmp_path):
    model = KMeans(3, random_state=0).fit(cells())
    model.save(tmp_path / "m.zarr")
    back = load(tmp_path / "m.zarr")
    assert back.feature_names_in_.tolist() == NAMES
    assert list(back.feature_units_) == ["K"] * 3
    np.testing.assert_array_equal(back.predict(cells()[["c", "a", "b"]]), model.predict(cells()))
    other = cells()
    other["b"].attrs["units"] = "degC"
    with pytest.raises(DaskmixError, match="degC"):
        back.predict(other)


def test_a_newer_schema_is_refused(tmp_path):
    MODELS["KMeans"].fit(X).save(tmp_path / "m.zarr")
    group = zarr.open_group(tmp_path / "m.zarr")
    group.attrs["daskmix"] = {"kind": "SomethingNew", "schema": 99, "complete": True}
    with pytest.raises(SchemaError, match="has schema 99, this daskmix reads up to 1; upgrade daskmix"):
        load(tmp_path / "m.zarr")


def test_labels_are_no_model(tmp_path):
    write_rows(MODELS["KMeans"].fit_predict(X), tmp_path / "labels.zarr")
    with pytest.raises(SchemaError, match="holds no daskmix model"):
        load(tmp_path / "labels.zarr")


def chunks_of(place):
    return [path for path in place.rglob("*") if path.is_file() and path.name != "zarr.json"]


def flip(chunk, bit):
    raw = bytearray(chunk.read_bytes())
    raw[bit // 8] ^= 1 << bit % 8
    chunk.write_bytes(raw)


def test_a_flipped_bit_in_a_model_is_caught(tmp_path):
    MODELS["full"].fit(X).save(tmp_path / "m.zarr")
    for chunk in chunks_of(tmp_path / "m.zarr"):
        whole = chunk.read_bytes()
        flip(chunk, int(rng.integers(8 * len(whole))))
        with pytest.raises(BadChunkError, match="cannot be read"):
            load(tmp_path / "m.zarr")
        chunk.write_bytes(whole)
    load(tmp_path / "m.zarr")


def test_saving_that_was_interrupted_is_seen(tmp_path, monkeypatch):
    model = MODELS["full"].fit(X)

    def break_off(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("daskmix.store._as_json", break_off)
    with pytest.raises(KeyboardInterrupt):
        model.save(tmp_path / "m.zarr")
    monkeypatch.undo()
    assert not store_state(tmp_path / "m.zarr")["complete"]
    with pytest.raises(IncompleteStoreError, match="interrupted; save it again"):
        load(tmp_path / "m.zarr")
    with pytest.raises(IncompleteStoreError, match="never finished"):
        refuse_incomplete(tmp_path / "m.zarr")
    model.save(tmp_path / "m.zarr", overwrite=True)
    assert_same(model, load(tmp_path / "m.zarr"))


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [False, True])
def test_xarray_shows_stored_labels_as_they_were(lazy, tmp_path):
    x = cells(lazy)
    x["b"] = x.b.where((x.time.dt.day != 3) | (x.lat > -59))
    model = KMeans(3, random_state=0, missing="drop").fit(x)
    labels = model.predict(x)
    write_rows(labels, tmp_path / "labels.zarr")
    stored = zarr.open_group(tmp_path / "labels.zarr", mode="r")["label"]
    assert stored.dtype == np.int32
    np.testing.assert_array_equal(stored[...] == -2, np.isnan(labels.values))
    assert (stored[...] == -2).sum() == 1
    shown = xr.open_zarr(tmp_path / "labels.zarr", consolidated=False).label
    np.testing.assert_array_equal(shown.values, labels.values)
    assert shown.dims == ("time", "lat")
    assert set(shown.coords) == {"time", "lat", "height"}
    assert shown.time.dtype.kind == "M"
    assert shown.attrs == labels.attrs


@pytest.mark.parametrize("rows", ["numpy", "dask", "uneven", "an empty chunk", "unknown", "frame", "three axes"])
def test_labels_of_any_rows_are_written_in_order(rows, tmp_path):
    model = MODELS["KMeans"].fit(X)
    uneven = da.from_array(X, chunks=((100, 1, 249, 250), (2, 1)))
    x = {
        "numpy": X,
        "dask": da.from_array(X, chunks=(97, 2)),
        "uneven": uneven,
        "an empty chunk": da.from_array(X, chunks=((100, 0, 250, 250), 3)),
        "unknown": uneven[uneven[:, 0] > -1e9],
        "frame": dd.from_pandas(pd.DataFrame(X), npartitions=4),
        "three axes": da.from_array(X.reshape(6, 100, 3), chunks=((1, 3, 2), (30, 50, 20), 2)),
    }[rows]
    write_rows(model.predict(x), tmp_path / "labels.zarr")
    stored = zarr.open_group(tmp_path / "labels.zarr", mode="r")["label"]
    np.testing.assert_array_equal(stored[...].ravel(), model.predict(X))
    state = store_state(tmp_path / "labels.zarr")
    assert (state["kind"], state["schema"], state["complete"]) == ("rows", 1, True)
    refuse_incomplete(tmp_path / "labels.zarr")


@pytest.mark.parametrize("lazy", [False, True])
def test_probabilities_without_a_name_stay_what_they_are(lazy, tmp_path):
    model = MODELS["full"].fit(X)
    write_rows(model.predict_proba(da.from_array(X, chunks=(97, 2)) if lazy else X), tmp_path / "p.zarr")
    stored = zarr.open_group(tmp_path / "p.zarr", mode="r")["value"]
    np.testing.assert_allclose(stored[...], model.predict_proba(X), atol=1e-12)


def test_labels_go_to_a_store_when_the_fit_is_done(tmp_path):
    for model in (KMeans(3, random_state=0), GaussianMixture(3, random_state=0)):
        place = tmp_path / f"{type(model).__name__}.zarr"
        model.fit(cells(), labels_to=place)
        np.testing.assert_array_equal(xr.open_zarr(place).label.values, model.predict(cells()).values)


READ = []


def _counted(block, block_id=None):
    READ.append(block_id)
    return block


@pytest.mark.parametrize("uneven", [False, True])
def test_several_answers_in_one_store_share_their_reads(uneven, tmp_path):
    chunks = ((100, 1, 249, 250), (2, 1)) if uneven else ((150,) * 4, (3,))
    model = MODELS["full"].fit(X)
    lazy = da.from_array(X, chunks=chunks).map_blocks(_counted, dtype=float, meta=np.empty((0, 0)))
    x = xr.DataArray(lazy, dims=("row", "band"))
    READ.clear()
    assert model.predict(x).chunks == chunks[:1]
    answers = xr.merge([model.predict(x), model.predict_proba(x), model.uncertainty(x)]).assign_attrs(title="answers")
    write_rows(answers, tmp_path / "answers.zarr")
    assert set(Counter(READ).values()) == {1}
    assert len(READ) == len(chunks[0]) * len(chunks[1])
    shown = xr.open_zarr(tmp_path / "answers.zarr", consolidated=False)
    np.testing.assert_array_equal(shown.label.values, model.predict(X))
    np.testing.assert_allclose(shown.probability.values, model.predict_proba(X), atol=1e-12)
    np.testing.assert_allclose(shown.uncertainty.values, model.uncertainty(X), atol=1e-12)
    assert shown.attrs["title"] == "answers"
    assert shown.label.encoding["chunks"] == (max(chunks[0]),)


def test_labels_are_never_gathered(tmp_path):
    """No task of the graph that writes them holds more than a chunk of rows."""
    model = MODELS["KMeans"].fit(X)
    labels = model.predict(da.from_array(X, chunks=(100, 3)))
    largest = []

    class Results(dask.callbacks.Callback):
        def _posttask(self, key, result, dsk, state, worker_id):
            largest.append(getattr(result, "nbytes", 0))

    with Results():
        write_rows(labels, tmp_path / "labels.zarr")
    assert largest
    assert max(largest) <= X[:100].nbytes


def _fails_late(block, block_info=None):
    if block_info[0]["chunk-location"][0] == 3:
        raise OSError("the disk is gone")
    return block


@pytest.mark.parametrize("overwrite", [False, True])
def test_writing_that_was_interrupted_is_seen(overwrite, tmp_path):
    place = tmp_path / "labels.zarr"
    model = MODELS["KMeans"].fit(X)
    if overwrite:
        write_rows(model.predict(X), place)
    x = da.from_array(X, chunks=(100, 3)).map_blocks(_fails_late, dtype=float, meta=np.empty((0, 0)))
    with dask.config.set(scheduler="synchronous"), pytest.raises(OSError, match="the disk is gone"):
        write_rows(model.predict(x), place, overwrite=overwrite)
    state = store_state(place)
    assert (state["kind"], state["schema"], state["complete"]) == ("rows", 1, False)
    with pytest.raises(IncompleteStoreError, match=r"never finished, [0-5] of 6 chunks written; write"):
        refuse_incomplete(place)
    write_rows(model.predict(X), place, overwrite=True)
    refuse_incomplete(place)


def test_a_flipped_bit_in_stored_labels_is_caught(tmp_path):
    write_rows(MODELS["KMeans"].fit(X).predict(da.from_array(X, chunks=(100, 3))), tmp_path / "labels.zarr")
    chunks = chunks_of(tmp_path / "labels.zarr")
    assert len(chunks) == 6
    for chunk in chunks:
        whole = chunk.read_bytes()
        flip(chunk, int(rng.integers(8 * len(whole))))
        with pytest.raises(ValueError, match="checksum"):
            zarr.open_group(tmp_path / "labels.zarr", mode="r")["label"][...]
        chunk.write_bytes(whole)


# --- what is not ours -------------------------------------------------------------------------------------------------


def foreign(place):
    place.mkdir()
    (place / "thesis.tex").write_text("years of work")
    return place


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_that_is_no_store_is_never_touched(overwrite, tmp_path):
    place = foreign(tmp_path / "mine")
    model = MODELS["KMeans"].fit(X)
    for path in (place, str(place), f"file://{place}", LocalStore(place), place / "thesis.tex"):
        for write in (model.save, lambda *args, **options: write_rows(model.predict(X), *args, **options)):
            with pytest.raises(StoreExistsError, match="is not a Zarr store; it is never replaced"):
                write(path, overwrite=overwrite)
    assert files_of(place) == {(place / "thesis.tex").relative_to(place): b"years of work"}


def test_an_empty_directory_is_as_good_as_none(tmp_path):
    (tmp_path / "m.zarr").mkdir()
    MODELS["KMeans"].fit(X).save(tmp_path / "m.zarr")
    load(tmp_path / "m.zarr")


def test_stores_of_others_are_not_incomplete(tmp_path):
    cells().to_zarr(tmp_path / "x.zarr", consolidated=False)
    assert store_state(tmp_path / "x.zarr") == {}
    refuse_incomplete(tmp_path / "x.zarr")
    zarr.create_array(tmp_path / "a.zarr", data=X)
    refuse_incomplete(tmp_path / "a.zarr")
    with pytest.raises(StoreNotFoundError):
        refuse_incomplete(tmp_path / "none.zarr")
