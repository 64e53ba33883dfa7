"""From the same start, what scikit-learn finds; and the laws of weights, units and offsets."""

import warnings

import numpy as np
import pytest
from sklearn.cluster import KMeans as PeerKMeans
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.mixture import GaussianMixture as PeerMixture

from daskmix import GaussianMixture, KMeans
from daskmix.errors import CollapsedComponentError, CollapsedComponentWarning, EmptyClusterWarning

TYPES = ["full", "tied", "diag", "spherical"]


def blobs(seed=0, n=400, k=4, d=3, apart=6.0):
    rng = np.random.default_rng(seed)
    means = apart * rng.standard_normal((k, d))
    mixing = rng.standard_normal((k, d, d)) / 2 + np.eye(d)
    return np.concatenate([m + rng.standard_normal((n, d)) @ a for m, a in zip(means, mixing, strict=True)])


def start(covariance_type, k, d, x):
    shaped = {"full": np.stack([np.eye(d)] * k), "tied": np.eye(d), "diag": np.ones((k, d)), "spherical": np.ones(k)}
    rng = np.random.default_rng(5)
    return {
        "weights_init": np.full(k, 1 / k),
        "means_init": x[rng.choice(len(x), k, replace=False)],
        "precisions_init": shaped[covariance_type],
    }


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("tol", "max_iter"), [(1e-4, 300), (0, 300), (0, 4)])
def test_kmeans_does_what_scikit_learn_does(weighted, tol, max_iter):
    x = blobs(apart=2.0)
    w = np.random.default_rng(1).random(len(x)) if weighted else None
    centres = x[[0, 1, 500, 900]]
    ours = KMeans(4, init=centres, tol=tol, max_iter=max_iter).fit(x, sample_weight=w)
    theirs = PeerKMeans(4, init=centres, n_init=1, tol=tol, max_iter=max_iter).fit(x, sample_weight=w)
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, rtol=1e-8)
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    np.testing.assert_allclose(ours.inertia_, theirs.inertia_, rtol=1e-8)
    np.testing.assert_allclose(ours.transform(x), theirs.transform(x), rtol=1e-8)
    assert ours.score(x, sample_weight=w) == pytest.approx(theirs.score(x, sample_weight=w), rel=1e-8)


def test_empty_clusters_go_where_scikit_learn_puts_them():
    x = blobs()
    centres = np.concatenate([x[:2], np.full((2, 3), 1e3), np.full((1, 3), -1e3)])
    with pytest.warns(EmptyClusterWarning, match="3 times"):
        ours = KMeans(5, init=centres, tol=0).fit(x)
    theirs = PeerKMeans(5, init=centres, n_init=1, tol=0).fit(x)
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, rtol=1e-8)
    assert ours.n_iter_ == theirs.n_iter_


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("max_iter", [1, 7, 200])
def test_a_mixture_does_what_scikit_learn_does(covariance_type, max_iter):
    x = blobs(apart=3.0)
    given = start(covariance_type, 4, 3, x)
    settings = {"covariance_type": covariance_type, "tol": 1e-6, "reg_covar": 0, "max_iter": max_iter, **given}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours, theirs = GaussianMixture(4, **settings).fit(x), PeerMixture(4, **settings).fit(x)
    assert ours.n_iter_ == theirs.n_iter_
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-8, atol=1e-8, err_msg=name)
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-8)
    np.testing.assert_allclose(ours.score_samples(x), theirs.score_samples(x), rtol=1e-8)
    assert ours.lower_bound_ == pytest.approx(theirs.score(x), rel=1e-8)
    for criterion in ("bic", "aic"):
        assert getattr(ours, criterion)(x) == pytest.approx(getattr(theirs, criterion)(x), rel=1e-8)
        assert getattr(ours, criterion)() == pytest.approx(getattr(theirs, criterion)(x), rel=1e-8)


def test_a_diagonal_start_may_have_as_many_components_as_features():
    x = blobs(apart=3.0)
    settings = {"covariance_type": "diag", "tol": 0, "reg_covar": 0, "max_iter": 1, **start("diag", 3, 3, x)}
    ours, theirs = GaussianMixture(3, **settings).fit(x), PeerMixture(3, **settings).fit(x)
    np.testing.assert_allclose(ours.covariances_, theirs.covariances_, rtol=1e-8)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_smoothing_is_close_to_adding_to_the_diagonal(covariance_type):
    x = blobs(apart=3.0)
    x = x / x.std(axis=0)
    settings = {"covariance_type": covariance_type, "tol": 1e-11, "max_iter": 3000, **start(covariance_type, 4, 3, x)}
    ours, theirs = (kind(4, reg_covar=1e-6, **settings).fit(x) for kind in (GaussianMixture, PeerMixture))
    for name in ("weights_", "means_", "covariances_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_likelihood_never_falls(covariance_type):
    x = blobs(apart=1.0)
    model = GaussianMixture(5, covariance_type=covariance_type, reg_covar=0.05, tol=0, max_iter=60, random_state=0)
    objective = [record["objective"] for record in model.fit(x).history_ if record["what"] == "em"]
    assert np.all(np.diff(objective) >= -1e-9)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_reported_likelihood_and_criteria_are_those_of_the_returned_parameters(covariance_type):
    x = blobs(apart=2.0)
    w = np.random.default_rng(0).integers(1, 4, len(x)).astype(float)
    model = GaussianMixture(3, covariance_type=covariance_type, reg_covar=0.1, max_iter=3, random_state=0)
    model.fit(x, sample_weight=w)
    k, d = model.means_.shape
    dense = model.to_xarray().covariances.values
    joint = np.empty((len(x), k))
    for j in range(k):
        z = x - model.means_[j]
        squared = np.einsum("nd,de,ne->n", z, np.linalg.inv(dense[j]), z)
        joint[:, j] = np.log(model.weights_[j]) - 0.5 * (
            squared + np.linalg.slogdet(dense[j])[1] + d * np.log(2 * np.pi)
        )
    row = np.logaddexp.reduce(joint, axis=1)
    free = {"full": k * 6, "tied": 6, "diag": k * 3, "spherical": k}[covariance_type] + k * d + k - 1
    certainty = w @ (joint.max(axis=1) - row)
    assert model.lower_bound_ == pytest.approx(w @ row / w.sum(), rel=1e-10)
    assert model.bic() == pytest.approx(-2 * w @ row + free * np.log(w.sum()), rel=1e-10)
    assert model.aic() == pytest.approx(-2 * w @ row + 2 * free, rel=1e-10)
    assert model.icl() == pytest.approx(model.bic() - 2 * certainty, rel=1e-10)


def test_the_reported_inertia_is_that_of_the_returned_centres():
    x = blobs(apart=1.0)
    w = np.random.default_rng(0).random(len(x))
    for max_iter in (1, 2, 300):
        model = KMeans(5, max_iter=max_iter, random_state=0).fit(x, sample_weight=w)
        squared = ((x[:, None] - model.cluster_centers_) ** 2).sum(axis=2)
        assert model.inertia_ == pytest.approx(w @ squared.min(axis=1), rel=1e-12)
        np.testing.assert_allclose(model.cluster_weights_, np.bincount(squared.argmin(axis=1), w, 5))


@pytest.mark.parametrize("covariance_type", TYPES)
def test_whole_weights_equal_repeated_rows_in_a_mixture(covariance_type):
    x = blobs(apart=3.0, n=60)
    times = np.random.default_rng(0).integers(0, 4, len(x))
    given = start(covariance_type, 4, 3, x)
    model = GaussianMixture(4, covariance_type=covariance_type, reg_covar=1e-3, tol=1e-8, max_iter=30, **given)
    weighted = model.fit(x, sample_weight=times).means_
    criteria = model.bic(), model.icl(), model.score(x, sample_weight=times)
    repeated = model.fit(np.repeat(x, times, axis=0))
    np.testing.assert_allclose(weighted, repeated.means_, rtol=1e-9)
    assert criteria == pytest.approx((repeated.bic(), repeated.icl(), repeated.lower_bound_), rel=1e-9)


def test_whole_weights_equal_repeated_rows_in_kmeans():
    x = blobs(apart=3.0, n=60)
    times = np.random.default_rng(0).integers(0, 4, len(x))
    model = KMeans(4, init=x[:4], tol=0)
    weighted = model.fit(x, sample_weight=times).cluster_centers_
    np.testing.assert_allclose(weighted, model.fit(np.repeat(x, times, axis=0)).cluster_centers_, rtol=1e-10)


# As many iterations of both: where a gain is as small as the noise of float32, one may stop before the other.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("dtype", "offset", "rtol"), [(np.float64, 1e7, 1e-6), (np.float32, 1e4, 1e-3)])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_an_offset_costs_no_digits(covariance_type, dtype, offset, rtol):
    x = (np.round(blobs(apart=4.0) * 64) / 64).astype(dtype)  # sixty-fourths survive the offset exactly
    shifted = x + dtype(offset)
    np.testing.assert_array_equal(shifted - dtype(offset), x)
    settings = {"covariance_type": covariance_type, "random_state": 0, "tol": 0, "max_iter": 30}
    plain, moved = GaussianMixture(4, **settings).fit(x), GaussianMixture(4, **settings).fit(shifted)
    np.testing.assert_allclose(moved.covariances_, plain.covariances_, rtol=rtol, atol=rtol)
    same = moved.predict(shifted) == plain.predict(x)
    # float32 products are accurate to 1e-3 in the log density: rows on a border may go either way.
    assert same.all() if dtype is np.float64 else plain.uncertainty(x)[~same].min(initial=0.5) > 0.49
    near, far = KMeans(4, random_state=0).fit(x), KMeans(4, random_state=0).fit(shifted)
    np.testing.assert_array_equal(near.labels_, far.labels_)
    assert far.inertia_ == pytest.approx(near.inertia_, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scale", [1e-6, 3e-3, 1e6])
@pytest.mark.parametrize("reg_covar", ["auto", 0])
def test_units_change_no_label(dtype, scale, reg_covar):
    x = blobs(apart=4.0).astype(dtype)
    scaled = x * dtype(scale)
    for covariance_type in TYPES:
        settings = {"covariance_type": covariance_type, "random_state": 0, "reg_covar": reg_covar}
        plain, other = GaussianMixture(4, **settings).fit(x), GaussianMixture(4, **settings).fit(scaled)
        np.testing.assert_array_equal(plain.predict(x), other.predict(scaled))
    np.testing.assert_array_equal(
        KMeans(4, random_state=0).fit(x).labels_, KMeans(4, random_state=0).fit(scaled).labels_
    )


def test_features_in_very_different_units_do_not_disturb_each_other():
    x = blobs(apart=4.0)
    units = np.array([1e-9, 1.0, 1e9])
    given = start("full", 4, 3, x)
    plain = GaussianMixture(4, tol=1e-9, max_iter=30, **given).fit(x)
    given["means_init"] = given["means_init"] * units
    given["precisions_init"] = given["precisions_init"] / np.outer(units, units)
    other = GaussianMixture(4, tol=1e-9, max_iter=30, **given).fit(x * units)
    np.testing.assert_allclose(other.means_, plain.means_ * units, rtol=1e-6)
    np.testing.assert_array_equal(other.predict(x * units), plain.predict(x))


@pytest.mark.parametrize(
    ("load", "k"),
    [(load_iris, 3), (load_wine, 3), (load_breast_cancer, 2), (load_digits, 10)],
    ids=["iris", "wine", "breast cancer", "digits"],
)
def test_the_best_of_many_starts_is_no_worse_than_scikit_learns(load, k):
    x = load(return_X_y=True)[0]
    ours = KMeans(k, n_init=30, random_state=0).fit(x)
    theirs = PeerKMeans(k, n_init=30, random_state=0).fit(x)
    assert ours.inertia_ <= theirs.inertia_ * (1 + 1e-6)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_best_mixture_of_many_starts_is_no_worse_than_scikit_learns(covariance_type):
    x = load_iris().data
    settings = {"covariance_type": covariance_type, "n_init": 10, "random_state": 0, "tol": 1e-5, "max_iter": 500}
    ours, theirs = GaussianMixture(3, **settings).fit(x), PeerMixture(3, **settings).fit(x)
    assert ours.lower_bound_ >= theirs.score(x) - 1e-4


def test_a_collapsed_component_is_named_and_what_to_do():
    x = np.concatenate([blobs(n=50), np.full((1, 3), 100.0)])
    given = {"means_init": np.concatenate([x[:3], x[-1:]]), "weights_init": np.full(4, 0.25)}
    given["precisions_init"] = np.stack([np.eye(3)] * 4)
    with pytest.raises(CollapsedComponentError, match=r"component 3 collapsed.*reg_covar"):
        GaussianMixture(4, reg_covar=0, **given).fit(x)
    assert np.isfinite(GaussianMixture(4, **given).fit(x).lower_bound_)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_component_without_rows_stays_where_it_was(covariance_type):
    x = blobs()
    given = start(covariance_type, 4, 3, x)
    given["means_init"] = np.concatenate([x[[0, 500, 900]], np.full((1, 3), 1e4)])
    model = GaussianMixture(4, covariance_type=covariance_type, reg_covar=0.5, tol=0, max_iter=5, **given)
    with pytest.warns(CollapsedComponentWarning, match="component 3 lost all its rows"):
        model.fit(x)
    np.testing.assert_allclose(model.means_[3], 1e4, rtol=1e-9)
    if covariance_type != "tied":
        np.testing.assert_allclose(model.covariances_[3], given["precisions_init"][3], rtol=1e-6)


def test_one_collapsed_start_does_not_spoil_the_others():
    x = np.concatenate([blobs(n=50, d=2), np.full((2, 2), 40.0)])
    model = GaussianMixture(4, reg_covar=0, n_init=8, init_params="random_from_data", random_state=1, tol=1e-5).fit(x)
    assert np.isfinite(model.lower_bound_)


@pytest.mark.parametrize("init", ["labels", "responsibilities", "mixture", "kmeans"])
def test_a_mixture_may_start_from_labels_responsibilities_or_a_model(init):
    x = blobs()
    labels = np.repeat(np.arange(4), 400)
    fitted = {
        "labels": labels,
        "responsibilities": np.eye(4)[labels],
        "mixture": GaussianMixture(4, random_state=0).fit(x),
        "kmeans": KMeans(4, random_state=0).fit(x),
    }[init]
    model = GaussianMixture(4, init_params=fitted, tol=1e-6).fit(x)
    assert np.bincount(model.predict(x)).min() > 300
    assert model.n_passes_ == model.n_iter_ + (3 if init in ("labels", "responsibilities") else 2)


def test_kmeans_may_start_from_labels_or_a_model():
    x = blobs()
    labels = np.repeat(np.arange(4), 400)
    means = np.stack([x[labels == j].mean(axis=0) for j in range(4)])
    mixture, kmeans = GaussianMixture(4, random_state=0).fit(x), KMeans(4, random_state=0).fit(x)
    for init, centres in ((labels, means), (mixture, mixture.means_), (kmeans, kmeans.cluster_centers_)):
        given, same = KMeans(4, init=init).fit(x), KMeans(4, init=centres).fit(x)
        assert given.inertia_ == pytest.approx(same.inertia_, rel=1e-12)
        assert given.n_passes_ == same.n_passes_ + (init is labels)


def test_a_warm_start_goes_on_where_the_last_fit_ended():
    x = blobs(apart=1.5)
    model = GaussianMixture(4, warm_start=True, max_iter=5, tol=0, random_state=0)
    first = model.fit(x).lower_bound_
    assert model.fit(x).lower_bound_ > first
    centres = KMeans(4, warm_start=True, random_state=0).fit(x)
    inertia = centres.inertia_
    assert centres.fit(x).inertia_ <= inertia


def test_restarts_share_their_passes():
    x = blobs(apart=1.0)
    alone = [KMeans(5, init=x[i : i + 5], tol=0).fit(x).n_passes_ for i in range(4)]
    shared = KMeans(5, init="random", n_init=10, tol=0, random_state=0).fit(x)
    assert shared.n_passes_ < 10 * np.mean(alone) / 3
    assert max(record["live"] for record in shared.history_) == 10


def test_a_model_becomes_scikit_learns():
    x = blobs()
    for covariance_type in TYPES:
        ours = GaussianMixture(4, covariance_type=covariance_type, random_state=0).fit(x)
        np.testing.assert_allclose(ours.to_sklearn().score_samples(x), ours.score_samples(x), rtol=1e-9)
    ours = KMeans(4, random_state=0).fit(x)
    np.testing.assert_array_equal(ours.to_sklearn().predict(x), ours.predict(x))


def test_samples_have_the_moments_of_the_mixture():
    model = GaussianMixture(3, random_state=0).fit(blobs())
    rows, component = model.sample(200_000)
    share = np.bincount(component) / len(rows)
    np.testing.assert_allclose(share, model.weights_, atol=0.01)
    np.testing.assert_allclose(rows.mean(axis=0), model.weights_ @ model.means_, atol=0.1)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_draws_are_as_far_apart_as_the_rows_in_whatever_units():
    units = np.array([1e-30, 1.0, 1e12, 1e40])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4)) * units
    drawn, _ = GaussianMixture(1, random_state=0).fit(x).sample(4000)
    np.testing.assert_allclose(np.cov(drawn.T / units[:, None]), np.cov(x.T / units[:, None]), rtol=0.2, atol=0.3)
