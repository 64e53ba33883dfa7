"""Missing values: what is there of a row counts, and what is not is expected, exactly."""

from dataclasses import replace

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from fake_gpu import gpu
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from test_laws import STRUCTURES, a_frame, a_mixture

import daskmix
from daskmix import BayesianGaussianMixture, GaussianMixture, KMeans, testing
from daskmix.block import Missing, clean, table
from daskmix.centroids import Assign, Centroids, Separate
from daskmix.errors import InputError
from daskmix.estimators.mixture_start import MCLUST
from daskmix.kernels import compiled, reference
from daskmix.moments import Origin, about
from daskmix.sampling import FarSample, Summarise, UniformSample
from daskmix.sharing import Explain, Learn, Sharing

KERNELS = [reference, compiled]
QUICK = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
KINDS = ("full", "tied", "diag", "spherical")


def with_gaps(n, d, share=0.25, seed=0, dtype=np.float64):
    """Rows of two clusters of which some values are missing, but never a whole row."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((n, d)) @ (np.eye(d) + 0.3) + 4 * rng.integers(0, 2, (n, 1))).astype(dtype)
    gaps = rng.random((n, d)) < share
    gaps[np.arange(n), rng.integers(0, d, n)] = False
    x[gaps] = np.nan
    return x


def explicit(k, d, kind, seed=1):
    """A start, as scikit-learn takes it."""
    rng = np.random.default_rng(seed)
    one = np.eye(d) / 4
    shaped = {"full": np.repeat(one[None], k, 0), "tied": one, "diag": np.full((k, d), 0.25), "spherical": [0.25] * k}
    means = np.linspace(0, 4, k)[:, None] + rng.standard_normal((k, d)) / 4
    return {"weights_init": np.full(k, 1 / k), "means_init": means, "precisions_init": np.array(shaped[kind])}


def dense(model):
    k, d = model.means_.shape
    return model._model().covariance.dense(k, d)


def brute_joint(x, weights, means, covariances):
    """log p(x, k), row by row and component by component."""
    out = np.empty((len(x), len(weights)))
    for i, row in enumerate(x):
        o = ~np.isnan(row)
        for j in range(len(weights)):
            density = multivariate_normal(means[j, o], covariances[j][np.ix_(o, o)])
            out[i, j] = np.log(weights[j]) + density.logpdf(row[o])
    return out


def brute_expected(row, mean, covariance):
    """The mean of a row given what is there of it, and its covariance."""
    o, m = ~np.isnan(row), np.isnan(row)
    carry = covariance[np.ix_(m, o)] @ np.linalg.inv(covariance[np.ix_(o, o)])
    full, spread = row.copy(), np.zeros_like(covariance)
    full[m] = mean[m] + carry @ (row[o] - mean[o])
    spread[np.ix_(m, m)] = covariance[np.ix_(m, m)] - carry @ covariance[np.ix_(o, m)]
    return full, spread


def brute_step(x, weights, means, covariances):
    """One step of EM for full covariances (Ghahramani & Jordan 1994), without smoothing."""
    joint = brute_joint(x, weights, means, covariances)
    share = np.exp(joint - joint.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    new_means, new_covariances = np.empty_like(means), np.empty_like(covariances)
    for j in range(len(weights)):
        each = [brute_expected(row, means[j], covariances[j]) for row in x]
        full, spread = np.array([f for f, _ in each]), np.array([s for _, s in each])
        mean = share[:, j] @ full / share[:, j].sum()
        away = full - mean
        scatter = np.einsum("n,nd,ne->de", share[:, j], away, away) + np.einsum("n,nde->de", share[:, j], spread)
        new_means[j], new_covariances[j] = mean, scatter / share[:, j].sum()
    return share.mean(axis=0), new_means, new_covariances


def questions(d):
    frame, centres = a_frame(d), 2 * np.random.default_rng(1).standard_normal((3, d))
    yield Assign(Centroids(centres), frame, relocatable=4)
    yield Separate(Centroids(centres), frame)
    yield Summarise(d)
    yield UniformSample(7, 3, d, np.dtype(np.float64))
    yield FarSample(5, 3, centres, frame, np.dtype(np.float64))
    for structure in STRUCTURES:
        for path in ("float64", "centred"):
            yield Explain(a_mixture(structure, 3, d), frame, path, np.full(d, 0.1))


# --- kernels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ops", KERNELS)
@QUICK
@given(st.integers(2, 40), st.integers(1, 4), st.integers(0, 40), st.booleans(), st.integers(0, 99))
def test_rows_with_gaps_may_be_cut_anywhere(ops, n, d, at, weighted, seed):
    w = np.random.default_rng(seed).integers(0, 3, n).astype(float) if weighted else None
    block = testing.block_of(with_gaps(n, d, 0.4, seed), w)
    block = replace(block, x=np.where(np.isnan(block.x), np.nan, np.round(4 * block.x) / 4))
    for question in questions(d):
        testing.check_reduction(question, replace(block, gaps=True), min(at, n), ops)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sharing", [Sharing(), Sharing(2.0), Sharing(hard=True), Sharing(seed=3)])
def test_both_kernels_and_both_ways_agree(structure, weighted, sharing):
    n, d = 700, 4
    w = np.random.default_rng(0).integers(0, 3, n).astype(float) if weighted else None
    block, mixture = testing.block_of(with_gaps(n, d), w), a_mixture(structure, 3, d)
    answers = [
        about(structure.order, Explain(mixture, a_frame(d), path, np.full(d, 0.1), sharing).map(block, ops), Origin())
        for path in ("float64", "centred")
        for ops in KERNELS
    ]
    for answer in answers[1:]:
        testing.assert_same_answer(replace(answer, origin=answers[0].origin), answers[0], 1e-8, 1e-6)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_product_in_float32_is_near(structure):
    block, mixture = testing.block_of(with_gaps(500, 4, dtype=np.float32)), a_mixture(structure, 3, 4)
    fast, safe = (
        Explain(mixture, a_frame(4), path, np.zeros(4)).map(block, compiled) for path in ("float32", "centred")
    )
    testing.assert_same_answer(fast.mass, safe.mass, 1e-3, 1e-2)
    assert fast.score == pytest.approx(safe.score, rel=1e-5)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("d", [3, 70])  # more features than bits of a word
def test_densities_and_expectations_of_both_kernels_agree(structure, d):
    x, frame, mixture = with_gaps(300, d), a_frame(d), a_mixture(structure, 3, d)
    for path in ("float64", "centred"):
        densities = mixture.densities_observed(path, np.zeros(d), np.log(frame.scale))
        found, right = (ops.joint(x, frame, densities) for ops in KERNELS)
        np.testing.assert_allclose(found, right, rtol=1e-8, atol=1e-8)
    densities = mixture.observed(np.zeros(d), np.log(frame.scale))
    found, right = (ops.complete(x, frame, densities) for ops in KERNELS)
    np.testing.assert_allclose(found, right, rtol=1e-8, atol=1e-8)
    assert not np.isnan(found).any()


@pytest.mark.parametrize("question", list(questions(3)), ids=lambda q: type(q).__name__)
def test_rows_of_a_device_give_the_same(question):
    if isinstance(question, Separate):
        pytest.skip("asked on the host alone")
    here = testing.block_of(with_gaps(200, 3))
    testing.assert_same_answer(question.map(here.moved(gpu), reference), question.map(here, reference), 1e-12, 1e-12)


@pytest.mark.parametrize("ops", KERNELS)
def test_whole_weights_are_repeats(ops):
    x, times = with_gaps(40, 3), np.random.default_rng(0).integers(1, 4, 40)
    for question in questions(3):
        if isinstance(question, Assign):
            question = replace(question, relocatable=0)
        if isinstance(question, Assign | Explain):
            weighted = question.map(testing.block_of(x, times.astype(float)), ops)
            repeated = question.map(testing.block_of(np.repeat(x, times, axis=0)), ops)
            testing.assert_same_answer(weighted, repeated, 1e-9, 1e-7)


def test_a_row_of_which_nothing_is_there_is_left_out():
    x = np.array([[1.0, np.nan], [np.nan, np.nan], [2.0, 3.0]])
    block = clean(x, None, table(0, 3, 3), 0, Missing.observe)
    assert (block.missing, block.gaps, block.w.tolist()) == (1, True, [1, 0, 1])


# --- mixtures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_likelihood_is_that_of_what_is_there(kind):
    x = with_gaps(120, 3)
    model = GaussianMixture(2, covariance_type=kind, missing="em", random_state=0).fit(x)
    joint = brute_joint(x, model.weights_, model.means_, dense(model))
    right = np.logaddexp.reduce(joint, axis=1)
    np.testing.assert_allclose(model.score_samples(x), right, rtol=1e-9, atol=1e-9)
    assert model.lower_bound_ == pytest.approx(right.mean(), rel=1e-10)
    assert model.score(x) == pytest.approx(right.mean(), rel=1e-10)
    np.testing.assert_array_equal(model.predict(x), joint.argmax(axis=1))
    np.testing.assert_allclose(model.predict_proba(x), np.exp(joint - right[:, None]), atol=1e-9)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_step_is_that_of_the_textbook(steps):
    x, start = with_gaps(150, 4, 0.3), explicit(2, 4, "full")
    model = GaussianMixture(2, **start, missing="em", max_iter=steps, tol=0, reg_covar=0).fit(x)
    now = start["weights_init"], start["means_init"], np.linalg.inv(start["precisions_init"])
    for _ in range(steps):
        now = brute_step(x, *now)
    for found, right in zip((model.weights_, model.means_, model.covariances_), now, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", MCLUST)
@pytest.mark.parametrize("prior", [None, "default"])
def test_the_objective_never_falls(name, prior):
    x = with_gaps(200, 3, 0.3, seed=2)
    for reg_covar in (0.0, 0.2):
        model = GaussianMixture(
            2, covariance_type=name, prior=prior, missing="em", reg_covar=reg_covar, tol=0, max_iter=25,
            means_init=explicit(2, 3, "full")["means_init"], random_state=0,
        ).fit(x)  # fmt: skip
        objectives = np.array([r["objective"] for r in model.history_ if r["what"] == "em" and r["objective"]])
        assert len(objectives) > 5
        assert np.diff(objectives[:-1]).min() >= -1e-10


@QUICK
@given(st.sampled_from(list(MCLUST)), st.integers(0, 10**6), st.floats(0.05, 0.5), st.sampled_from(["em", "cem"]))
def test_the_objective_never_falls_whatever_is_missing(name, seed, share, algorithm):
    x = with_gaps(120, 3, share, seed)
    model = GaussianMixture(
        2, covariance_type=name, algorithm=algorithm, missing="em", reg_covar=0.05, tol=0, max_iter=12,
        means_init=explicit(2, 3, "full")["means_init"], random_state=0,
    ).fit(x)  # fmt: skip
    objectives = np.array([r["objective"] for r in model.history_ if r["what"] == algorithm and r["objective"]])
    assert np.diff(objectives[:-1]).min(initial=0.0) >= -1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_an_offset_or_a_unit_changes_nothing(kind):
    x = with_gaps(400, 3)
    start = {"init_params": (np.nan_to_num(x, nan=2.0).mean(axis=1) > 2).astype(int)}

    def fitted(rows):
        return GaussianMixture(2, covariance_type=kind, missing="em", max_iter=20, tol=0, **start).fit(rows)

    plain = fitted(x)
    moved = fitted(x + 1e7)
    np.testing.assert_allclose(moved.covariances_, plain.covariances_, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(moved.predict(x + 1e7), plain.predict(x))
    for scale in (1e-6, 1e6):
        scaled = fitted(x * scale)
        np.testing.assert_allclose(scaled.covariances_, plain.covariances_ * scale**2, rtol=1e-7, atol=1e-9 * scale**2)
        np.testing.assert_array_equal(scaled.predict(x * scale), plain.predict(x))


@pytest.mark.parametrize("model", [GaussianMixture(2, random_state=0), KMeans(2, random_state=0)])
def test_where_whole_rows_are_missing_it_is_drop(model):
    x = np.nan_to_num(with_gaps(300, 3), nan=1.5)
    x[::7] = np.nan
    em, drop = (type(model)(2, random_state=0, missing=way).fit(x) for way in ("em", "drop"))
    np.testing.assert_array_equal(em.predict(x), drop.predict(x))
    for name in ("means_", "covariances_", "cluster_centers_", "lower_bound_", "inertia_"):
        if hasattr(em, name):
            np.testing.assert_array_equal(getattr(em, name), getattr(drop, name))


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_is_missing_it_is_the_plain_fit_to_the_bit(kind):
    x = np.nan_to_num(with_gaps(300, 3), nan=1.5)
    em, plain = (
        GaussianMixture(2, covariance_type=kind, random_state=0, missing=way).fit(x) for way in ("em", "raise")
    )
    np.testing.assert_array_equal(em.means_, plain.means_)
    assert em.lower_bound_ == plain.lower_bound_


def test_gaps_in_some_chunks_cost_nothing_in_the_others():
    x = with_gaps(4000, 3)
    x[1000:] = np.nan_to_num(x[1000:], nan=1.5)
    options = {"missing": "em", "max_iter": 15, "tol": 0, **explicit(2, 3, "full")}
    whole, cut = (GaussianMixture(2, **options).fit(da.from_array(x, chunks=(size, 3))) for size in (4000, 500))
    np.testing.assert_allclose(cut.means_, whole.means_, rtol=1e-9)
    np.testing.assert_allclose(cut.covariances_, whole.covariances_, rtol=1e-8)


def test_more_rows_than_the_sample_holds_take_few_passes():
    x = da.from_array(with_gaps(30_000, 3), chunks=(5000, 3))
    model = GaussianMixture(2, missing="em", sample_size=2000, random_state=0).fit(x)
    textbook = GaussianMixture(2, missing="em", accelerate="none", tol=0, max_iter=300, random_state=0).fit(x)
    assert model.lower_bound_ >= textbook.lower_bound_ - 1e-4
    assert model.n_passes_ < 20
    assert all(record["chunks"] == 6 for record in model.history_)


def test_parameters_come_out_although_a_third_is_missing():
    rng = np.random.default_rng(0)
    truth = np.array([[1.0, 0.8], [0.8, 1.0]])
    x = rng.multivariate_normal([0, 0], truth, 40_000)
    x[rng.random(40_000) < 0.33, 1] = np.nan
    model = GaussianMixture(1, missing="em", tol=1e-9, max_iter=500, random_state=0).fit(x)
    np.testing.assert_allclose(model.covariances_[0], truth, atol=0.03)
    np.testing.assert_allclose(model.means_[0], 0, atol=0.02)


def test_stepwise_fits_take_gaps():
    x = with_gaps(2000, 3)
    model = GaussianMixture(2, missing="em", random_state=0).fit(x[:1000])
    before = model.score(x)
    model.partial_fit(x[1000:])
    assert model.score(x) > before - 0.01
    clusters = KMeans(2, missing="em", random_state=0).fit(x[:1000]).partial_fit(x[1000:])
    assert np.isfinite(clusters.cluster_centers_).all()


def test_a_search_takes_gaps():
    found = daskmix.select(
        with_gaps(600, 3), n_components=(1, 2), covariance_type=("diag",), missing="em", random_state=0
    )
    assert found.best_.missing == "em"
    assert len(found.best_.means_) == 2


# --- what is expected -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_imputed_values_are_conditional_means(kind):
    x = with_gaps(80, 3)
    model = GaussianMixture(2, covariance_type=kind, missing="em", random_state=0).fit(x)
    share = model.predict_proba(x)
    right = sum(
        share[:, j, None] * np.array([brute_expected(row, model.means_[j], dense(model)[j])[0] for row in x])
        for j in range(2)
    )
    found = model.impute(x)
    np.testing.assert_allclose(found, right, rtol=1e-8, atol=1e-8)
    np.testing.assert_array_equal(found[~np.isnan(x)], x[~np.isnan(x)])


def test_imputed_values_come_in_kind():
    x = with_gaps(90, 2, dtype=np.float32)
    x[4] = np.nan
    model = GaussianMixture(2, missing="em", random_state=0).fit(x)
    here = model.impute(x)
    assert here.dtype == np.float32
    assert np.isnan(here[4]).all()
    assert not np.isnan(np.delete(here, 4, axis=0)).any()
    lazy = model.impute(da.from_array(x, chunks=(40, 2)))
    assert isinstance(lazy, da.Array)
    np.testing.assert_allclose(lazy.compute(), here, rtol=1e-6)
    field = xr.Dataset({name: (("time", "x"), x[:, j].reshape(9, 10)) for j, name in enumerate("uv")})
    named = GaussianMixture(2, missing="em", random_state=0).fit(field)
    found = named.impute(field)
    assert found.dims == ("time", "x", "feature")
    assert found.feature.values.tolist() == ["u", "v"]
    assert named.predict(field).isnull().sum() == 1
    frame = pd.DataFrame(x, columns=["u", "v"])
    np.testing.assert_allclose(named.impute(frame), found.values.reshape(-1, 2), rtol=1e-5)


# --- K-means --------------------------------------------------------------------------------------------------------


def brute_lloyd(x, centres, steps):
    """Lloyd's iteration for the k-POD objective: the squared distances of what is there."""
    costs = []
    for _ in range(steps):
        squares = np.nansum((x[:, None] - centres) ** 2, axis=2)
        cluster = squares.argmin(axis=1)
        costs.append(squares.min(axis=1).sum())
        centres = np.array([np.nanmean(x[cluster == j], axis=0) for j in range(len(centres))])
    return centres, costs


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kmeans_takes_the_distances_of_what_is_there(dtype):
    x = with_gaps(500, 4, dtype=dtype)
    start = np.array([[0.0] * 4, [5.0] * 4, [2.0] * 4])
    model = KMeans(3, init=start, missing="em", max_iter=6, tol=0).fit(x)
    centres, costs = brute_lloyd(x.astype(np.float64), start, 6)
    np.testing.assert_allclose(model.cluster_centers_, centres, rtol=1e-5 if dtype == np.float32 else 1e-10)
    assert np.diff(costs).max() <= 1e-9
    squares = np.nansum((x[:, None] - centres) ** 2, axis=2)
    assert model.inertia_ == pytest.approx(squares.min(axis=1).sum(), rel=1e-5)
    assert -model.score(x) == pytest.approx(model.inertia_, rel=1e-6)
    np.testing.assert_array_equal(model.predict(x), squares.argmin(axis=1))
    np.testing.assert_allclose(model.transform(x), np.sqrt(squares), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("init", ["auto", "k-means++", "k-means||", "random"])
def test_kmeans_finds_clusters_from_any_start(init):
    x = da.from_array(with_gaps(3000, 4), chunks=(600, 4))
    model = KMeans(2, init=init, n_init=3, missing="em", random_state=0, sample_size=1000).fit(x)
    np.testing.assert_allclose(np.sort(model.cluster_centers_.mean(axis=1)), [0, 4], atol=0.6)


def test_an_emptied_cluster_is_moved_to_a_row_with_gaps():
    x = with_gaps(300, 3)
    x[17] = [60.0, np.nan, 60.0]
    with pytest.warns(daskmix.errors.EmptyClusterWarning):
        model = KMeans(3, init=np.array([[0.0] * 3, [4.0] * 3, [1e3] * 3]), missing="em").fit(x)
    moved = model.predict(x)[17]
    np.testing.assert_allclose(model.cluster_centers_[moved, [0, 2]], 60)
    # What the row lacks is that of other rows, not where the cluster found none.
    assert np.nanmin(x[:, 1]) < model.cluster_centers_[moved, 1] < np.nanmax(x[:, 1])


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [KMeans, GaussianMixture, BayesianGaussianMixture])
def test_a_feature_that_is_nowhere_is_refused_by_name(estimator):
    x = with_gaps(50, 3)
    x[:, 1] = np.nan
    with pytest.raises(InputError, match="feature 1 is missing in every row"):
        estimator(2, missing="em").fit(x)


def test_infinity_is_refused_beside_gaps():
    x = with_gaps(50, 3)
    x[20, 0] = np.inf
    with pytest.raises(InputError, match="row 20"):
        GaussianMixture(2, missing="em").fit(x)


def test_given_labels_may_start_a_fit_with_gaps():
    x = with_gaps(200, 3)
    learn = Learn(2, MCLUST["VVV"].order, a_frame(3), True, np.ones(3), np.ones(3))
    block = testing.block_of(np.column_stack([x, (np.arange(200) % 2).astype(float)]))
    assert np.isfinite(learn.map(block, reference).second).all()


# --- what a reader of the code found ---------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]])
def test_gaps_in_rows_that_weigh_nothing_do_no_harm(weights):
    x = np.array([[0.0, 0], [0.1, 0], [5, 5], [5.1, 5], [1, np.nan]])
    model = KMeans(2, missing="em", random_state=0).fit(x, sample_weight=weights)
    assert np.isfinite(model.cluster_centers_).all()
    lazy = KMeans(2, missing="em", random_state=0).fit(da.from_array(x, chunks=(4, 2)), sample_weight=weights)
    np.testing.assert_allclose(lazy.inertia_, model.inertia_)


def test_candidates_of_kmeans_parallel_stay_among_the_rows():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 10)) * 10 + 280
    x[rng.random(x.shape) < 0.5] = np.nan
    model = KMeans(2, init="k-means||", missing="em", random_state=0).fit(x)
    assert model.cluster_centers_.min() > 240


def test_a_component_that_lacks_a_feature_is_as_wide_there_as_the_rows():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 2)) + np.repeat([[0, 0], [8, 0]], 200, axis=0)
    x[200:, 1] = np.nan
    labels = np.repeat([0, 1], 200)
    for options in ({"init_params": labels}, {"random_state": 0}):
        for kind in KINDS:
            model = GaussianMixture(2, covariance_type=kind, missing="em", **options).fit(x)
            assert dense(model)[:, 1, 1].min() > 0.3


def test_rows_with_nothing_in_common_do_not_count_as_near():
    rng = np.random.default_rng(0)
    x = np.full((400, 4), np.nan)
    x[:200, :2] = rng.standard_normal((200, 2)) + 10 * rng.integers(0, 2, (200, 1))
    x[200:, 2:] = rng.standard_normal((200, 2)) + 10 * rng.integers(0, 2, (200, 1))
    best = KMeans(4, missing="em", n_init=10, random_state=0).fit(x)
    assert best.inertia_ < 2.5 * 400


def test_a_mixture_from_kmeans_with_gaps_has_the_variance_of_what_is_there():
    x = np.random.default_rng(0).standard_normal((5000, 4))
    x[np.random.default_rng(1).random(x.shape) < 0.5] = np.nan
    model = KMeans(1, missing="em", random_state=0).fit(x)
    assert model.to_mixture().covariances_[0] == pytest.approx(1.0, abs=0.05)


def test_steps_weigh_each_feature_by_the_rows_that_have_it(tmp_path):
    first = np.column_stack([np.zeros(100), np.where(np.arange(100) == 0, 0.0, np.nan)])
    model = KMeans(1, missing="em", random_state=0).fit(first)
    model.save(tmp_path / "model.zarr")
    for own in (model, daskmix.load(tmp_path / "model.zarr")):
        own.partial_fit(np.column_stack([np.zeros(100), np.full(100, 10.0)]))
        np.testing.assert_allclose(own.cluster_centers_, [[0, 1000 / 101]])


def test_probabilities_that_are_unknown_where_rows_have_gaps_may_start_a_fit():
    x = with_gaps(300, 3, 0.15)
    known = GaussianMixture(2, missing="drop", random_state=0).fit(x).predict_proba(x)
    assert np.isnan(known).any()
    model = GaussianMixture(2, missing="em", init_params=known).fit(x)
    assert model.converged_


def test_an_array_is_filled_along_its_own_dim():
    x = xr.DataArray(with_gaps(60, 3), dims=("time", "band"), coords={"band": [4, 5, 6]})
    model = GaussianMixture(2, missing="em", random_state=0).fit(x)
    filled = x.fillna(model.impute(x))
    assert filled.dims == x.dims
    assert not filled.isnull().any()
    np.testing.assert_array_equal(model.impute(x).band, [4, 5, 6])


def test_the_gap_of_kmeans_counts_what_is_there():
    x = da.from_array(with_gaps(20_000, 4, 0.5), chunks=(5000, 4))
    model = KMeans(3, missing="em", sample_size=1000, random_state=0).fit(x)
    ended = KMeans(3, missing="em", init=model.cluster_centers_, tol=0, max_iter=500).fit(x)
    assert model.converged_
    assert model.inertia_ - ended.inertia_ <= 1e-3 * ended.inertia_
