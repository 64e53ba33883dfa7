"""The Bayesian mixture: scikit-learn's posterior and bound from the same start, and the laws of every mixture here."""

import warnings

import dask.array as da
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans as PeerKMeans
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import BayesianGaussianMixture as Peer

from daskmix import BayesianGaussianMixture, errors, load
from daskmix.cli import main

TYPES = ("full", "tied", "diag", "spherical")
PRIORS = ("dirichlet_process", "dirichlet_distribution")
IRIS = load_iris().data
LEARNED = (
    "weights_", "means_", "covariances_", "precisions_", "mean_precision_", "degrees_of_freedom_",
    "weight_concentration_", "covariance_prior_", "mean_prior_", "lower_bound_",
)  # fmt: skip
every_type = pytest.mark.parametrize("kind", TYPES)
every_prior = pytest.mark.parametrize("prior", PRIORS)


def fitted(x, k, **options):
    """Without smoothing, cut short where it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return BayesianGaussianMixture(k, **{"reg_covar": 0.0, "tol": 0.0, **options}).fit(x)


def peer(x, k, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return Peer(n_components=k, **{"reg_covar": 0.0, "tol": 0.0, "random_state": 0, **options}).fit(x)


def start_of_the_peer(x, k):
    """The labels that scikit-learn's fit begins with."""
    return PeerKMeans(k, n_init=1, random_state=np.random.RandomState(0)).fit(x).labels_


def assert_same_posterior(own, other, rtol=1e-8):
    for name in LEARNED:
        np.testing.assert_allclose(
            np.array(getattr(own, name)), np.array(getattr(other, name)), rtol=rtol, atol=1e-12, err_msg=name
        )


@every_type
@every_prior
@pytest.mark.parametrize("iterations", [1, 2, 25])
def test_it_is_scikit_learns_from_the_same_start(kind, prior, iterations):
    options = {"covariance_type": kind, "weight_concentration_prior_type": prior, "max_iter": iterations}
    other = peer(IRIS, 4, **options)
    own = fitted(da.from_array(IRIS, chunks=(40, 4)), 4, init_params=start_of_the_peer(IRIS, 4), **options)
    assert_same_posterior(own, other, rtol=1e-7)
    np.testing.assert_allclose(own.predict_proba(IRIS), other.predict_proba(IRIS), atol=1e-8)
    np.testing.assert_allclose(own.score_samples(IRIS), other.score_samples(IRIS), rtol=1e-9)
    np.testing.assert_array_equal(own.predict(IRIS), other.predict(IRIS))
    assert own.score(IRIS) == pytest.approx(other.score(IRIS))


@every_type
@every_prior
def test_priors_that_are_given_are_scikit_learns(kind, prior):
    d = IRIS.shape[1]
    scatter = {"full": 0.2 * np.eye(d) + 0.01, "tied": 0.2 * np.eye(d), "diag": np.full(d, 0.2), "spherical": 0.2}[kind]
    options = {
        "covariance_type": kind, "weight_concentration_prior_type": prior, "weight_concentration_prior": 0.05,
        "mean_precision_prior": 3.5, "mean_prior": np.array([5.0, 3, 4, 1]), "degrees_of_freedom_prior": 6.5,
        "covariance_prior": scatter, "max_iter": 12,
    }  # fmt: skip
    own = fitted(IRIS, 5, init_params=start_of_the_peer(IRIS, 5), **options)
    assert_same_posterior(own, peer(IRIS, 5, **options), rtol=1e-7)
    assert own.n_passes_ == 1 + 1 + 12  # survey, labels, iterations


@every_type
@every_prior
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 4), st.booleans(), st.sampled_from([0.0, "auto", 0.3]))
def test_the_bound_never_falls(kind, prior, seed, k, d, weighted, reg_covar):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((60, d)) * rng.uniform(0.1, 10, d) + 4 * rng.integers(0, 3, (60, 1))
    weights = rng.integers(0, 4, 60) + 0.5 if weighted else None
    model = BayesianGaussianMixture(
        k, covariance_type=kind, weight_concentration_prior_type=prior, reg_covar=reg_covar, tol=0, max_iter=15,
        init_params="random", random_state=seed % 1000,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, sample_weight=weights)
    bounds = np.array([record["objective"] for record in model.history_ if record["what"] == "variational"])
    assert (np.diff(bounds) >= -1e-9 * np.abs(bounds[1:]).max(initial=1.0)).all()


@every_type
def test_whole_weights_are_repeats(kind):
    rng = np.random.default_rng(0)
    times = rng.integers(1, 4, len(IRIS))
    labels = start_of_the_peer(IRIS, 3)
    options = {"covariance_type": kind, "max_iter": 10, "tol": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        weighted = BayesianGaussianMixture(3, init_params=labels, **options).fit(IRIS, sample_weight=times)
        repeated = BayesianGaussianMixture(3, init_params=labels.repeat(times), **options).fit(IRIS.repeat(times, 0))
    assert_same_posterior(weighted, repeated)


@every_type
@pytest.mark.parametrize(("dtype", "shift"), [(np.float64, 1e7), (np.float32, 1e4)])
def test_a_shift_changes_nothing_but_the_means(kind, dtype, shift):
    x = np.round(IRIS * 8).astype(dtype) / 8  # so that the shift is exact
    moved = x + dtype(shift)
    labels = start_of_the_peer(x.astype(np.float64), 3)
    here, there = (
        fitted(rows, 3, covariance_type=kind, init_params=labels, max_iter=20, reg_covar="auto") for rows in (x, moved)
    )
    np.testing.assert_array_equal(here.predict(x), there.predict(moved))
    rounding = {np.float64: 1e-7, np.float32: 1e-4}[dtype]
    np.testing.assert_allclose(there.covariances_, here.covariances_, rtol=rounding, atol=0.1 * rounding)
    assert there.lower_bound_ == pytest.approx(here.lower_bound_, rel=rounding)


@every_type
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_a_unit_changes_nothing(kind, scale):
    labels = start_of_the_peer(IRIS, 3)
    here, there = (
        fitted(x, 3, covariance_type=kind, init_params=labels, max_iter=20, reg_covar="auto")
        for x in (IRIS, IRIS * scale)
    )
    np.testing.assert_array_equal(here.predict(IRIS), there.predict(IRIS * scale))
    np.testing.assert_allclose(there.covariances_, here.covariances_ * scale**2, rtol=1e-8)
    np.testing.assert_allclose(there.weight_concentration_, here.weight_concentration_, rtol=1e-9)


def test_components_that_no_rows_need_lose_their_weight():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3000, 2)) + 10 * rng.integers(0, 3, (3000, 1))
    options = {"weight_concentration_prior": 1e-3, "max_iter": 300, "tol": 1e-7, "random_state": 0}
    model = BayesianGaussianMixture(8, **options).fit(da.from_array(x, chunks=(500, 2)))
    assert (model.weights_ > 0.01).sum() == 3
    assert model.converged_


def test_the_best_of_several_starts_is_kept_and_they_share_their_reads():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((400, 2)) + 6 * rng.integers(0, 4, (400, 1))
    options = {"tol": 1e-4, "init_params": "random_from_data", "random_state": 0}
    one, many = (BayesianGaussianMixture(4, n_init=n, **options).fit(x) for n in (1, 6))
    assert many.lower_bound_ >= one.lower_bound_
    assert max(record["live"] for record in many.history_) == 6


def test_reads_are_counted():
    x = da.from_array(IRIS, chunks=(50, 4))
    by_covariance = {"full": 1, "tied": 1, "diag": 0, "spherical": 0}
    for kind, more in by_covariance.items():
        model = fitted(x, 3, covariance_type=kind, max_iter=4, random_state=0)
        assert [record["chunks"] for record in model.history_] == [3] * (1 + more + 4)
        assert fitted(x, 3, covariance_type=kind, max_passes=6, random_state=0).n_passes_ == 6


def test_a_saved_model_is_the_same_and_goes_on(tmp_path):
    for prior in PRIORS:
        model = fitted(IRIS, 3, max_iter=3, weight_concentration_prior_type=prior, random_state=0)
        model.save(tmp_path / f"{prior}.zarr")
        again = load(tmp_path / f"{prior}.zarr")
        assert_same_posterior(again, model, rtol=0)
        np.testing.assert_array_equal(again.predict_proba(IRIS), model.predict_proba(IRIS))
        whole = fitted(IRIS, 3, max_iter=8, weight_concentration_prior_type=prior, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            again.set_params(warm_start=True, max_iter=5).fit(IRIS)
        assert_same_posterior(again, whole)


def test_the_command_line_shows_and_uses_a_saved_model(tmp_path):
    model, rows = fitted(IRIS, 3, max_iter=3, random_state=0), tmp_path / "rows.zarr"
    model.save(tmp_path / "model.zarr")
    zarr.save_array(rows, IRIS)
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "model.zarr")])
    assert f"{model.lower_bound_:.8g}" in shown.output
    assert shown.exit_code == 0
    labelled = CliRunner().invoke(
        main, ["predict", str(tmp_path / "model.zarr"), str(rows), "--out", str(tmp_path / "l")]
    )
    assert labelled.exit_code == 0, labelled.output
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "l")["label"][...], model.predict(IRIS))


@every_type
@every_prior
def test_scikit_learn_takes_over(kind, prior):
    model = fitted(IRIS, 3, covariance_type=kind, weight_concentration_prior_type=prior, max_iter=5, random_state=0)
    other = model.to_sklearn()
    np.testing.assert_allclose(other.predict_proba(IRIS), model.predict_proba(IRIS), atol=1e-10)
    np.testing.assert_allclose(other.score_samples(IRIS), model.score_samples(IRIS))


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"covariance_type": "VVE"}, "covariance_type='VVE'"),
        ({"weight_concentration_prior_type": "flat"}, "weight_concentration_prior_type='flat'"),
        ({"weight_concentration_prior": 0}, "weight_concentration_prior=0 must be positive"),
        ({"mean_precision_prior": -1.0}, "mean_precision_prior=-1.0"),
        ({"degrees_of_freedom_prior": 3}, "degrees_of_freedom_prior=3 must be above 3"),
        ({"mean_prior": [1.0, 2]}, "mean_prior has shape (2,), but (4,) is needed"),
        ({"covariance_prior": np.ones(4)}, "covariance_prior has shape (4,), but (4, 4) is needed"),
        ({"covariance_prior": np.ones((4, 4))}, "covariance_prior must be positive, a matrix positive definite"),
        ({"covariance_type": "spherical", "covariance_prior": -1.0}, "covariance_prior must be positive"),
        ({"max_passes": 1}, "max_passes=1"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(options, seen):
    unread = da.from_array(IRIS, chunks=50).map_blocks(lambda _: pytest.fail("read"), dtype=float, meta=IRIS[:0])
    with pytest.raises(errors.InputError) as refused:
        BayesianGaussianMixture(3, **options).fit(unread)
    assert seen in str(refused.value)


def test_fewer_rows_than_features_have_a_prior_that_can_be_inverted():
    x = np.random.default_rng(0).standard_normal((2, 6))
    model = BayesianGaussianMixture(2, random_state=0).fit(x)
    assert np.linalg.eigvalsh(model.covariances_).min() > 0
