"""Rows that belong to no component: laws of `noise=True`."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from scipy.stats import multivariate_normal
from sklearn.datasets import load_iris

import daskmix
from daskmix import GaussianMixture
from daskmix.errors import InputError
from daskmix.estimators.mixture_start import MCLUST

RNG = np.random.default_rng(0)
MEANS = np.array([[0.0, 0.0], [7.0, 1.0], [1.0, 8.0]])
ROWS = [RNG.multivariate_normal(mean, [[1.0, 0.6], [0.6, 0.8]], 400) for mean in MEANS]
X = np.concatenate([*ROWS, RNG.uniform(-20, 30, (120, 2))])
IS_NOISE = np.arange(len(X)) >= 1200
START = {"means_init": MEANS + 0.5, "weights_init": [0.4, 0.3, 0.3]}
PLAIN = {"accelerate": "none", "reg_covar": 0, "tol": 1e-11, "max_iter": 3000, "random_state": 0}


def dense(x, w, model):
    """One EM step as books write it: mean log-likelihood of the model, and shares of all rows with the noise's last."""
    densities = [
        weight * multivariate_normal.pdf(x, mean, covariance)
        for weight, mean, covariance in zip(
            model.weights_, model.means_, model._model().covariance.dense(3, 2), strict=True
        )
    ]
    box = model.noise_weight_ / np.prod(x.max(axis=0) - x.min(axis=0))
    joint = np.column_stack([*densities, np.full(len(x), box)])
    return w @ np.log(joint.sum(axis=1)) / w.sum(), joint / joint.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_fit_is_a_fixed_point_of_em_as_books_write_it(covariance_type, dtype):
    x, w = X.astype(dtype), RNG.uniform(0.5, 2.0, len(X))
    model = GaussianMixture(3, covariance_type=covariance_type, noise=True, **START, **PLAIN).fit(x, sample_weight=w)
    rows = x.astype(np.float64)
    likelihood, share = dense(rows, w, model)
    digits = 1e-4 if dtype is np.float32 else 1e-7
    assert model.lower_bound_ == pytest.approx(likelihood, abs=digits)
    np.testing.assert_allclose(model.predict_proba(x), share, atol=10 * digits)
    own = share * w[:, None]
    mass = own.sum(axis=0)
    np.testing.assert_allclose([*model.weights_, model.noise_weight_], mass / mass.sum(), atol=10 * digits)
    np.testing.assert_allclose(model.means_, own[:, :3].T @ rows / mass[:3, None], atol=1e2 * digits)
    away = rows[:, None] - model.means_
    scatter = np.einsum("nk,nkd,nke->kde", own[:, :3], away, away)
    expected = {
        "full": lambda: scatter / mass[:3, None, None],
        "tied": lambda: scatter.sum(axis=0) / mass[:3].sum(),
        "diag": lambda: np.diagonal(scatter, axis1=1, axis2=2) / mass[:3, None],
        "spherical": lambda: np.trace(scatter, axis1=1, axis2=2) / mass[:3] / 2,
    }[covariance_type]()
    np.testing.assert_allclose(model.covariances_, expected, atol=1e3 * digits)


@pytest.mark.parametrize("name", list(MCLUST))
@pytest.mark.parametrize("offset", [0.0, 1e7])
def test_the_likelihood_never_falls(name, offset):
    model = GaussianMixture(3, covariance_type=name, noise=True, accelerate="none", tol=0, max_iter=30)
    model.set_params(means_init=MEANS[::-1] + offset + [2.0, -1.0], weights_init=[0.5, 0.3, 0.2])
    model.fit(X + offset)
    objectives = [record["objective"] for record in model.history_ if record["objective"] is not None]
    assert len(objectives) > 20
    assert (np.diff(objectives) >= -1e-8).all()
    assert (model.predict(X + offset)[IS_NOISE] == -1).mean() > 0.8


def test_both_ways_to_evaluate_densities_agree():
    from daskmix.estimators.mixture_base import framed
    from daskmix.kernels import compiled, reference

    for name in ("full", "tied", "diag", "spherical"):
        model = GaussianMixture(3, covariance_type=name, noise=True, **START, **PLAIN).fit(X)
        within, frame = framed(model._model(), X.dtype)
        found = [
            ops.joint(X, frame, within.densities(path, np.zeros(2), float(np.log(frame.scale).sum())))
            for path in ("float64", "centred")
            for ops in (compiled, reference)
        ]
        for other in found[1:]:
            np.testing.assert_allclose(other, found[0], atol=1e-9)


def test_scattered_rows_are_noise_and_do_not_widen_the_components():
    model = GaussianMixture(3, noise=True, random_state=0).fit(X)
    plain = GaussianMixture(3, random_state=0).fit(X)
    for seed in range(1, 6):
        other = GaussianMixture(3, noise=True, random_state=seed).fit(X)
        assert other.lower_bound_ == pytest.approx(model.lower_bound_, abs=0.01), seed
    labels = model.predict(X)
    assert set(labels) == {-1, 0, 1, 2}
    assert (labels[IS_NOISE] == -1).mean() > 0.85
    assert (labels[~IS_NOISE] == -1).mean() < 0.02
    assert model.noise_weight_ == pytest.approx(0.09, abs=0.02)
    assert model.weights_.sum() + model.noise_weight_ == pytest.approx(1)
    assert np.linalg.det(model.covariances_).max() < 0.7 < 2 < np.linalg.det(plain.covariances_).max()


# Where `me(iris, model, z, Vinv = 1 / prod(ranges))` of mclust 6.0.0 converges to, z from the species with every tenth
# flower noise: log-likelihood, weight of the noise, parameters. Its EVE does not converge, its VVE stops below what it
# reaches without noise.
MCLUST_ENDS = """
EII -375.622318 0.103291 17  VII -363.791458 0.111457 19  EEI -350.713298 0.095621 20  VEI -334.926097 0.079057 22
EVI -325.289202 0.084311 26  VVI -304.947737 0.030083 28  EEE -256.354043 0.000000 26  VEE -237.345659 0.007627 28
VVE -216.174155 0.008446 34  EEV -212.493234 0.022013 38  VEV -186.073283 0.000000 40  EVV -205.603618 0.007595 44
VVV -180.185477 0.000000 46
"""


@pytest.mark.parametrize("name", [name for name in MCLUST if name != "EVE"])
def test_from_the_same_start_em_ends_no_lower_than_mclust(name):
    ends = MCLUST_ENDS.split()
    theirs, weight, parameters = map(float, ends[ends.index(name) + 1 :][:3])
    iris = load_iris()
    labels = np.where(np.arange(1, 151) % 10 == 0, -1, iris.target)
    model = GaussianMixture(3, covariance_type=name, noise=True, init_params=labels, **PLAIN).fit(iris.data)
    assert model.lower_bound_ * 150 >= theirs - 1e-3
    assert model.bic() == pytest.approx(parameters * np.log(150) - 2 * model.lower_bound_ * 150)
    if name != "VVE":
        assert model.noise_weight_ == pytest.approx(weight, abs=2e-3)


def test_parameters_are_counted_as_mclust_does():
    model = GaussianMixture(3, noise=True, random_state=0).fit(X)
    free = 2 + 3 * 2 + 3 * 3 + 2
    assert model.bic() == pytest.approx(free * np.log(len(X)) - 2 * model.lower_bound_ * len(X))


@pytest.mark.parametrize("name", ["VVV", "EEE", "VVI", "EII"])
def test_whole_weights_are_repeats(name):
    times = RNG.integers(1, 4, len(X))
    options = {"covariance_type": name, "noise": True, **START, **PLAIN}
    one = GaussianMixture(3, **options).fit(X, sample_weight=times)
    other = GaussianMixture(3, **options).fit(np.repeat(X, times, axis=0))
    np.testing.assert_allclose(one.means_, other.means_, atol=1e-6)
    assert one.noise_weight_ == pytest.approx(other.noise_weight_, abs=1e-8)


@pytest.mark.parametrize(("shift", "factor"), [(1e7, 1.0), (0.0, 1e-6), (0.0, 1e6)])
@pytest.mark.parametrize("name", ["full", "tied", "spherical"])
def test_neither_offset_nor_unit_matter(shift, factor, name):
    def fitted(move, times):
        start = {"means_init": MEANS * times + move, "weights_init": [0.4, 0.3, 0.3]}
        return GaussianMixture(3, covariance_type=name, noise=True, **start, **PLAIN).fit(X * times + move)

    one, other = fitted(0.0, 1.0), fitted(shift, factor)
    assert (one.predict(X) == other.predict(X * factor + shift)).all()
    np.testing.assert_allclose(other.covariances_ / factor**2, one.covariances_, rtol=1e-5, atol=1e-6)


def test_models_with_noise_are_selected():
    found = daskmix.select(X, range(1, 5), "full", noise=True, random_state=0)
    assert found.best_.n_components == 3
    assert found.best_.noise_weight_ == pytest.approx(0.09, abs=0.02)
    with pytest.raises(InputError, match="GaussianMixture"):
        daskmix.select(X, [1, 2], on_collapse="drop")


def test_equal_weights_are_those_of_the_components():
    model = GaussianMixture(3, noise=True, equal_weights=True, random_state=0).fit(X)
    np.testing.assert_allclose(model.weights_, (1 - model.noise_weight_) / 3)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "EVE"])
def test_an_accelerated_fit_of_lazy_rows_ends_where_the_textbook_does(covariance_type):
    big = np.concatenate([X] * 20)
    lazy = da.from_array(big, chunks=(5000, 2))
    options = {"covariance_type": covariance_type, "noise": True, "random_state": 0}
    fast = GaussianMixture(3, sample_size=3000, gap_tol=1e-7, **options).fit(lazy)
    plain = GaussianMixture(3, accelerate="none", init_params=fast, max_iter=300, tol=1e-12, **options).fit(lazy)
    assert fast.lower_bound_ == pytest.approx(plain.lower_bound_, abs=1e-6)
    assert fast.n_passes_ < 20
    labels = fast.predict(lazy)
    assert isinstance(labels, da.Array)
    assert set(np.unique(labels.compute())) == {-1, 0, 1, 2}


def test_labels_of_xarray_tell_noise_from_rows_left_out():
    grid = xr.DataArray(X.reshape(60, 22, 2), dims=("y", "x", "feature"))
    grid = grid.where(grid.isel(feature=0) < 28)
    labels = GaussianMixture(3, noise=True, missing="drop", random_state=0).fit(grid).predict(grid)
    assert (labels == -1).sum() > 50
    assert np.isnan(labels).sum() == np.isnan(grid.isel(feature=0)).sum()


def test_a_model_comes_back_from_its_store_and_goes_on(tmp_path):
    model = GaussianMixture(3, noise=True, random_state=0).fit(X)
    model.save(tmp_path / "model.zarr")
    again = daskmix.load(tmp_path / "model.zarr")
    assert (again.predict(X) == model.predict(X)).all()
    assert "noise_weight" in again.to_xarray()
    again.partial_fit(X[::2])
    assert again.weights_.sum() + again.noise_weight_ == pytest.approx(1)
    warm = GaussianMixture(3, noise=True, warm_start=True, random_state=0, tol=1e-8, max_iter=500).fit(X)
    before = warm.noise_weight_
    assert warm.fit(X).n_iter_ <= 3
    assert warm.noise_weight_ == pytest.approx(before, abs=1e-5)


def test_draws_follow_the_density():
    model = GaussianMixture(3, noise=True, random_state=0).fit(X)
    rows, components = model.sample(40_000, chunks=10_000)
    rows, components = rows.compute(), components.compute()
    share = np.bincount(components + 1, minlength=4) / len(components)
    np.testing.assert_allclose(share, [model.noise_weight_, *model.weights_], atol=0.01)
    noise = rows[components == -1]
    assert (noise >= model.noise_box_[0]).all()
    assert (noise <= model.noise_box_[1]).all()
    np.testing.assert_allclose(noise.mean(axis=0), model.noise_box_.mean(axis=0), atol=1.5)
    assert model.sample(10)[0].shape == (10, 2)


def test_a_marginal_and_a_conditional_multiply_to_the_density():
    model = GaussianMixture(3, noise=True, random_state=0).fit(X)
    at = np.array([0.7, 7.5])
    one, other = model.marginal([0]), model.condition({0: at[0]})
    total = one.score_samples(at[None, :1]) + other.score_samples(at[None, 1:])
    np.testing.assert_allclose(total, model.score_samples(at[None]), rtol=1e-9)
    assert one.noise_weight_ == pytest.approx(model.noise_weight_)


def test_statistics_of_clusters_leave_noise_out_and_errors_are_told_of_its_weight():
    model = GaussianMixture(3, noise=True, random_state=0).fit(X)
    stats = model.cluster_stats(X)
    counts = [(model.predict(X) == j).sum() for j in range(3)]
    np.testing.assert_array_equal(stats["count"], counts)
    errors = model.standard_errors(X, n_replicates=12)
    assert 0.003 < float(errors["noise_weight"]) < 0.03


def test_rows_that_are_ill_conditioned_are_not_multiplied_in_float32():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 4))
    x[:, 1] = x[:, 0] + 1e-3 * rng.normal(size=4000)
    options = {"covariance_type": "tied", "noise": True, "random_state": 0}
    single = GaussianMixture(2, **options).fit(x.astype(np.float32))
    assert {record["path"] for record in single.history_} <= {"", "float64", "centred"}
    double = GaussianMixture(2, init_params=single, **options).fit(x.astype(np.float32).astype(float))
    assert single.lower_bound_ == pytest.approx(double.lower_bound_, abs=1e-3)


def test_options_that_change_after_a_fit_do_not_change_what_was_fitted():
    model = GaussianMixture(3, noise=True, random_state=0).fit(X)
    labels = model.predict(X)
    assert (model.set_params(noise=False).predict(X) == labels).all()
    assert not hasattr(model.fit(X), "noise_box_")
    assert (model.set_params(noise=True).predict(X) >= 0).all()


def test_few_rows_leave_a_start():
    model = GaussianMixture(20, noise=True, init_params="random_from_data", random_state=0).fit(X[:20])
    assert len(model.weights_) == 20


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise": 0.3}, "True or False"),
        ({"missing": "em"}, "drop"),
        ({"covariance_type": "fixed", "covariance_init": 1.0}, "fixed covariances"),
        ({"fixed": ["weights"], "weights_init": [0.5, 0.5]}, "beside noise"),
    ],
)
def test_what_does_not_go_with_noise_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        GaussianMixture(2, **{"noise": True, **options}).fit(X)


def test_what_noise_has_no_answer_to_is_refused():
    model = GaussianMixture(2, noise=True, random_state=0).fit(X)
    with pytest.raises(InputError, match="scikit-learn"):
        model.to_sklearn()
    with pytest.raises(InputError, match="merged"):
        model.merge(X)
    with pytest.raises(InputError, match="feature 1 is constant"):
        GaussianMixture(2, noise=True).fit(np.column_stack([X[:, 0], np.ones(len(X))]))
