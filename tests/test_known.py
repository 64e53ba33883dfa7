"""Rows whose component is known: laws of `fit(X, y)` where `semi_supervised`."""

from functools import partial

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.datasets import load_iris

import daskmix
from daskmix.engines.local import Local
from daskmix.errors import InputError, InputTypeError
from daskmix.estimators.mixture_start import MCLUST
from daskmix.family import Family
from daskmix.kernels import Frame, Order, compiled, reference
from daskmix.mixture import Mixture

GaussianMixture = partial(daskmix.GaussianMixture, semi_supervised=True)
RNG = np.random.default_rng(0)
MEANS = np.array([[0.0, 0.0], [2.5, 0.5], [1.0, 3.0]])  # so near that labels matter
TRUTH = RNG.integers(0, 3, 1500)
X = MEANS[TRUTH] + RNG.normal(size=(1500, 2)) @ np.array([[1.0, 0.4], [0.0, 0.8]])
Y = np.where(RNG.random(1500) < 0.2, TRUTH, -1)
PLAIN = {"accelerate": "none", "reg_covar": 0, "tol": 1e-11, "max_iter": 3000, "random_state": 0}


def joint(model, x):
    each = zip(model.weights_, model.means_, model.to_xarray().covariances.values, strict=True)
    return np.column_stack([np.log(w) + multivariate_normal.logpdf(x, m, c) for w, m, c in each])


def log_likelihood(model, x, y):
    own = joint(model, x)
    return np.where(y >= 0, own[np.arange(len(x)), np.maximum(y, 0)], logsumexp(own, axis=1))


def test_all_rows_known_is_maximum_likelihood_of_each_class():
    model = GaussianMixture(3, **PLAIN).fit(X, TRUTH)
    for j in range(3):
        own = X[j == TRUTH]
        assert model.weights_[j] == pytest.approx(len(own) / len(X))
        np.testing.assert_allclose(model.means_[j], own.mean(axis=0), rtol=1e-9)
        np.testing.assert_allclose(model.covariances_[j], np.cov(own.T, bias=True), rtol=1e-9)
    assert model.n_iter_ <= 2
    assert model.lower_bound_ == pytest.approx(log_likelihood(model, X, TRUTH).mean())


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical", "EVE"])
def test_a_fit_is_a_fixed_point_of_em_where_known_rows_are_of_their_component(covariance_type):
    w = RNG.uniform(0.5, 2.0, len(X))
    model = GaussianMixture(3, covariance_type=covariance_type, **PLAIN).fit(X, Y, w)
    assert model.lower_bound_ == pytest.approx(np.average(log_likelihood(model, X, Y), weights=w), abs=1e-9)
    own = joint(model, X)
    share = np.exp(own - logsumexp(own, axis=1)[:, None])
    share[Y >= 0] = np.eye(3)[Y[Y >= 0]]
    share *= w[:, None]
    mass = share.sum(axis=0)
    np.testing.assert_allclose(model.weights_, mass / mass.sum(), atol=1e-5)
    np.testing.assert_allclose(model.means_, share.T @ X / mass[:, None], atol=1e-4)
    assert (model.predict(X) == TRUTH).mean() > 0.85, "components have the numbers of the labels"


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("EII", -410.807621), ("VVI", -310.122329), ("EEE", -256.876778), ("VEE", -238.154182), ("VVV", -192.486881)],
)
def test_the_likelihood_is_that_of_mclust(name, theirs):
    """`MclustSSC(iris, class, G = 3, modelNames = name)` of mclust 6.0.0, run to convergence; every fifth is known.

    Its VVV ends in a lower optimum.
    """
    iris = load_iris()
    y = np.where(np.arange(1, 151) % 5 == 0, iris.target, -1)
    model = GaussianMixture(3, covariance_type=name, **PLAIN).fit(iris.data, y)
    assert model.lower_bound_ * 150 >= theirs - 2e-3
    if name != "VVV":
        assert model.lower_bound_ * 150 == pytest.approx(theirs, abs=2e-3)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(list(MCLUST)), st.integers(0, 2**32 - 1), st.sampled_from(["raise", "em"]))
def test_the_likelihood_never_falls(name, seed, missing):
    rng = np.random.default_rng(seed)
    x, w = X[:300].copy(), rng.uniform(0, 3, 300)
    y = np.where(rng.random(300) < 0.3, rng.integers(0, 3, 300), -1)  # labels that may be wrong
    if missing == "em":
        x[rng.random(x.shape) < 0.2] = np.nan
    model = GaussianMixture(3, covariance_type=name, missing=missing, accelerate="none", tol=0, max_iter=15)
    model.fit(x, y, w)
    objectives = [record["objective"] for record in model.history_ if record["objective"] is not None]
    assert (np.diff(objectives[:-1]) >= -1e-9).all()


@pytest.mark.parametrize("algorithm", ["cem", "sem"])
def test_known_rows_stay_where_rows_are_given_as_a_whole(algorithm):
    model = GaussianMixture(3, algorithm=algorithm, max_iter=30, random_state=0).fit(X, Y)
    assert (model.predict(X) == TRUTH).mean() > 0.8


def test_what_is_known_decides_between_optima():
    rng = np.random.default_rng(3)
    corners = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 5.0], [6.0, 5.0]])
    corner = rng.integers(0, 4, 2000)
    x = corners[corner] + rng.normal(size=(2000, 2))  # two components may lie along either axis
    for classes in (corner % 2, corner // 2):
        y = np.where(rng.random(2000) < 0.03, classes, -1)
        label = GaussianMixture(2, random_state=0).fit(x, y).predict(x)
        assert (label == classes).mean() > 0.95


@pytest.mark.parametrize("more", [{}, {"noise": True}, {"min_weight": 0.01, "on_collapse": "restart"}])
def test_what_is_known_costs_no_pass(more):
    lazy = da.from_array(X, chunks=(300, 2))
    model = GaussianMixture(3, accelerate="none", tol=0, max_iter=4, random_state=0, **more).fit(lazy, Y)
    assert model.n_passes_ == 1 + 4 + 1
    assert [record["rows"] for record in model.history_] == [len(X)] * 6


def test_few_known_rows_among_many_name_the_components():
    big = np.concatenate([X] * 200)
    y = np.full(len(big), -1)
    for j in range(3):
        y[100_000 + np.flatnonzero(np.concatenate([TRUTH] * 200)[100_000:110_000] == j)[:20]] = j
    lazy = da.from_array(big, chunks=(20_000, 2))
    model = GaussianMixture(3, sample_size=2000, random_state=0).fit(lazy, y)
    np.testing.assert_allclose(model.means_, MEANS, atol=0.5)
    assert model.n_passes_ < 60


def _in_kind(kind, x, y):
    if kind == "numpy":
        return x, y
    if kind == "pandas":
        return pd.DataFrame(x, columns=["a", "b"]), pd.Series(y)
    if kind == "dask":
        return da.from_array(x, chunks=(400, 2)), da.from_array(y, chunks=300)
    if kind == "dask and numpy":
        return da.from_array(x, chunks=(400, 2)), y
    if kind == "numpy and dask":
        return x, da.from_array(y, chunks=300)
    if kind == "frame":
        frame = dd.from_pandas(pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": y}), npartitions=3)
        return frame[["a", "b"]], frame["y"]
    grid = xr.DataArray(x.reshape(50, 30, 2), dims=("t", "p", "feature"))
    label = xr.DataArray(y.reshape(50, 30), dims=("t", "p"))
    return (grid, label) if kind == "xarray" else (grid.chunk({"t": 20}), label.chunk({"t": 25}))


KINDS = ["pandas", "dask", "dask and numpy", "numpy and dask", "frame", "xarray", "lazy xarray"]


@pytest.mark.parametrize("kind", KINDS)
def test_labels_come_in_whatever_rows_come_in(kind):
    start = {"means_init": MEANS, "accelerate": "none", "tol": 1e-8, "max_iter": 500}
    plain = GaussianMixture(3, **start).fit(X, Y)
    model = GaussianMixture(3, **start).fit(*_in_kind(kind, X, Y))
    np.testing.assert_allclose(model.means_, plain.means_, rtol=1e-9)
    assert model.lower_bound_ == pytest.approx(plain.lower_bound_, rel=1e-12)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with labels beside the features, in chunks so small that some are read together."""
    place = str(tmp_path_factory.mktemp("known") / "rows.zarr")
    arrays = {"a": X[:, 0], "b": X[:, 1], "label": Y}
    data = xr.Dataset({name: ("row", values) for name, values in arrays.items()}).chunk(row=100)
    data.to_zarr(place, consolidated=False)
    return place


@pytest.mark.parametrize("cache", ["memory", "disk", "off"])
def test_labels_are_kept_with_chunks_that_are_decoded_once(store, cache, tmp_path):
    stored = xr.open_zarr(store, consolidated=False)
    run = daskmix.Run(cache=cache, scratch=str(tmp_path))
    options = {"means_init": MEANS, "accelerate": "none", "tol": 1e-8, "max_iter": 500}
    model = GaussianMixture(3, run=run, **options).fit(stored[["a", "b"]], stored["label"])
    assert model.lower_bound_ == pytest.approx(GaussianMixture(3, **options).fit(X, Y).lower_bound_, rel=1e-12)
    decoded = [record["decoded"] for record in model.history_]
    assert all(decoded) if cache == "off" else not any(decoded[1:])


@pytest.mark.parametrize("lazy", [True, False])
def test_labels_go_with_chunks_that_are_read_together(store, lazy):
    label = xr.open_zarr(store, consolidated=False)["label"]
    options = {"means_init": MEANS, "accelerate": "none"}
    model = GaussianMixture(3, **options).fit(store, label if lazy else label.compute(), variables=["a", "b"])
    assert model.lower_bound_ == pytest.approx(GaussianMixture(3, **options).fit(X, Y).lower_bound_, rel=1e-12)


def test_masked_labels_are_unknown():
    masked = np.ma.masked_array(np.abs(Y), Y < 0)
    plain = GaussianMixture(3, random_state=0).fit(X, Y)
    for y in (masked, da.from_array(masked, chunks=500)):
        assert GaussianMixture(3, random_state=0).fit(X, y).lower_bound_ == plain.lower_bound_


def test_standard_errors_know_what_is_known():
    near = np.concatenate([RNG.normal(0, 1, (1000, 1)), RNG.normal(0.5, 1, (1000, 1))])
    y = np.repeat([0, 1], 1000)
    model = GaussianMixture(2, random_state=0).fit(near, y)
    errors = model.standard_errors(near, y=y, n_replicates=20)
    np.testing.assert_allclose(errors["means"], 1000**-0.5, rtol=0.5)
    with pytest.raises(InputError, match="semi_supervised=False"):
        model.likelihood_ratio(near)
    with pytest.raises(InputError, match="no y"):
        daskmix.select(near, [1, 2], semi_supervised=True)


def test_tasks_travel_with_their_own_labels_alone():
    from daskmix.block import Missing
    from daskmix.rows import from_memory, with_known

    rows = with_known(from_memory([X], 1, None, Missing.refuse, 1000), Y[:, None].astype(float), 3)
    assert len(rows.parts) > 5
    assert max(part.load.first.values.nbytes for part in rows.parts) < len(Y) * 8 / 4


def test_labels_are_ignored_unless_asked_for_as_scikit_learn_wants_it():
    one, other = (daskmix.GaussianMixture(3, random_state=0).fit(X, y) for y in (None, Y))
    np.testing.assert_array_equal(one.means_, other.means_)


def test_unknown_labels_change_nothing():
    one, other = (GaussianMixture(3, random_state=0).fit(X, y) for y in (None, np.full(len(X), -1)))
    np.testing.assert_array_equal(one.means_, other.means_)


def test_whole_weights_are_repeats_and_neither_offset_nor_unit_matter():
    times = RNG.integers(1, 4, len(X))
    start = {"means_init": MEANS, **PLAIN}
    one = GaussianMixture(3, **start).fit(X, Y, times)
    other = GaussianMixture(3, **start).fit(np.repeat(X, times, axis=0), np.repeat(Y, times))
    np.testing.assert_allclose(one.means_, other.means_, atol=1e-6)
    for shift, factor in ((1e7, 1.0), (0.0, 1e-6), (0.0, 1e6)):
        moved = GaussianMixture(3, **{**start, "means_init": MEANS * factor + shift}).fit(X * factor + shift, Y, times)
        assert (moved.predict(X * factor + shift) == one.predict(X)).mean() > 0.999
        np.testing.assert_allclose(moved.covariances_ / factor**2, one.covariances_, rtol=1e-5)


def test_missing_values_and_noise_go_with_known_rows():
    x = X.copy()
    x[RNG.random(x.shape) < 0.1] = np.nan
    assert (GaussianMixture(3, missing="em", random_state=0).fit(x, Y).predict(X) == TRUTH).mean() > 0.85
    wide = np.concatenate([X, RNG.uniform(-15, 15, (150, 2))])
    y = np.concatenate([Y, np.full(150, -1)])
    model = GaussianMixture(3, noise=True, random_state=0).fit(wide, y)
    assert (model.predict(wide)[:1500] == TRUTH).mean() > 0.8
    assert (model.predict(wide)[1500:] == -1).mean() > 0.7


def test_a_later_batch_may_have_known_rows():
    model = GaussianMixture(3, random_state=0).fit(X[:700], Y[:700])
    model.partial_fit(X[700:], TRUTH[700:])
    assert (model.predict(X) == TRUTH).mean() > 0.85


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("mode", ["soft", "hard", "drawn"])
@pytest.mark.parametrize("path", ["centred", "product", "observed"])
def test_compiled_kernels_share_known_rows_out_as_the_reference_does(order, mode, path):
    pick = {"soft": np.full(300, np.nan), "hard": np.zeros(300), "drawn": RNG.random(300)}[mode]
    pick = np.where(Y[:300] >= 0, -1.0 - Y[:300], pick)
    structure = {Order.trace: "VII", Order.diagonal: "VVI", Order.full: "VVV", Order.pooled: "EEE"}[order]
    family = Family(MCLUST[structure])
    values = {Order.trace: np.ones(3), Order.diagonal: np.ones((3, 2)), Order.pooled: np.eye(2)}
    covariance = family.structure.covariance.of(values.get(order, np.stack([np.eye(2)] * 3)))
    model, x = Mixture(np.array([0.5, 0.3, 0.2]), MEANS, covariance, family), X[:300].copy()
    if path == "observed":
        x[::3, 0] = np.nan
        densities = model.observed(np.zeros(2), np.zeros(2))
    else:
        densities = model.densities("centred" if path == "centred" else "float64", np.zeros(2), 0.0)
    frame, w = Frame(np.zeros(2), np.ones(2)), RNG.random(300)
    ours, theirs = (ops.explain(x, w, frame, densities, pick)[0] for ops in (compiled, reference))
    for a, b in zip(ours[:5], theirs[:5], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_known_rows_are_read_by_every_engine():
    from daskmix.block import Missing
    from daskmix.kernels import reference as ops
    from daskmix.rows import from_memory, with_known
    from daskmix.sampling import OfKnown

    rows = with_known(from_memory([X], 1, None, Missing.refuse), Y[:, None].astype(float), 3)
    found, tally = Local(ops).run(OfKnown(3, 2), rows)
    assert tally.rows == len(X)
    np.testing.assert_allclose(found.means(), [X[j == Y].mean(axis=0) for j in range(3)])


@pytest.mark.parametrize(
    ("y", "error", "words"),
    [
        (np.where(TRUTH == 2, 3, -1), InputError, "is 3; pass the component"),
        (np.where(TRUTH == 2, -2, 0), InputError, "is -2"),
        (np.where(TRUTH == 2, 0.5, 0), InputError, "is 0.5"),
        (Y[:10], InputError, "1500 rows"),
        (np.stack([Y, Y], axis=1), InputError, "2 values for each row"),
        (np.array(["a"] * 1500), InputTypeError, "not a real number"),
        (xr.DataArray(Y, dims="row"), InputError, "both of one kind"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(y, error, words):
    with pytest.raises(error, match=words):
        GaussianMixture(3).fit(X, y)


def test_labels_do_not_go_with_numbers_of_components_that_change():
    with pytest.raises(InputError, match="restart"):
        GaussianMixture(3, on_collapse="drop").fit(X, Y)
