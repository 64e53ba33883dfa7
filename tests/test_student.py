"""Mixtures of Student's t: what the textbook's EM finds, by the same passes as Gaussian mixtures."""

import dask.array as da
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import digamma, logsumexp, polygamma
from scipy.stats import f as f_distribution
from scipy.stats import kstest, multivariate_t
from sklearn.datasets import load_iris
from test_laws import STRUCTURES, a_frame, a_mixture, with_tails
from test_structures import climb, every_structure

import daskmix
from daskmix import GaussianMixture, load
from daskmix.errors import CollapsedComponentWarning, InputError
from daskmix.estimators.gaussian_mixture import START_NU
from daskmix.estimators.mixture_start import MCLUST
from daskmix.family import LEAST_NU, MOST_NU, likeliest_nu
from daskmix.kernels import compiled, reference

IRIS = load_iris()
QUICK = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def t_rows(n, nu, d=3, apart=6.0, seed=0):
    """Rows of as many components as there are degrees of freedom, and their labels."""
    rng = np.random.default_rng(seed)
    nu = np.asarray(nu, dtype=float)
    label = rng.integers(0, len(nu), n)
    root = rng.standard_normal((len(nu), d, d)) / 3 + np.eye(d)
    mean = apart * np.arange(len(nu))[:, None] * np.ones(d)
    normal = np.einsum("nd,nde->ne", rng.standard_normal((n, d)), root[label])
    return mean[label] + normal / np.sqrt(rng.chisquare(nu[label]) / nu[label])[:, None], label


# --- the textbook, written down once more -----------------------------------------------------------------------------


def dense(kind, scatter, mass, near):
    """Scale matrices (k, d, d) from weighted scatters (k, d, d)."""
    k, d = len(mass), scatter.shape[1]
    if kind == "full":
        return scatter / mass[:, None, None]
    if kind == "tied":
        return np.repeat(scatter.sum(axis=0)[None] / mass.sum(), k, axis=0)
    if kind == "diag":
        return scatter / mass[:, None, None] * np.eye(d)
    if kind == "spherical":
        return (np.trace(scatter, axis1=1, axis2=2) / (d * mass))[:, None, None] * np.eye(d)
    structure = MCLUST[kind]
    near = None if near is None else structure.covariance.of(near)
    return structure.values(mass, scatter, d, near)


def learned(kind, x, share, u, near):
    """Weights, means and scale matrices from responsibilities and how often each row counts, (n, k)."""
    heavy, mass = share * u, share.sum(axis=0)
    means = heavy.T @ x / heavy.sum(axis=0)[:, None]
    away = x[:, None] - means
    scatter = np.einsum("nk,nkd,nke->kde", heavy, away, away)
    return mass / mass.sum(), means, dense(kind, scatter, mass, near)


def log_joint(x, weights, means, scales, nu):
    """log p(x, k), (n, k)."""
    each = zip(means, scales, nu, strict=True)
    return np.log(weights) + np.stack([multivariate_t.logpdf(x, m, s, v) for m, s, v in each], axis=1)


def textbook(kind, x, labels, nu, steps, w):
    """Peel & McLachlan's EM in SciPy's words; nu a number, or None where it is estimated."""
    k, d, known = int(labels.max()) + 1, x.shape[1], nu is not None
    share, nu = (labels[:, None] == np.arange(k)) * w[:, None], np.full(k, nu if known else START_NU)
    weights, means, scales = learned(kind, x, share, 1.0, None)
    for _ in range(steps):
        joint = log_joint(x, weights, means, scales, nu)
        share = np.exp(joint - logsumexp(joint, axis=1, keepdims=True)) * w[:, None]
        away = x[:, None] - means
        distance = np.einsum("nkd,kde,nke->nk", away, np.linalg.inv(scales), away)
        u = (nu + d) / (nu + distance)
        weights, means, scales = learned(kind, x, share, u, scales)
        if not known:
            half = (nu + d) / 2
            rest = (share * (np.log(u) - u)).sum(axis=0) / share.sum(axis=0) + 1 + digamma(half) - np.log(half)
            nu = np.array([brentq(lambda v, r=r: np.log(v / 2) - digamma(v / 2) + r, 0.1, 1000.0) for r in rest])
    return weights, means, scales, nu


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical", "EVE", "VEV"])
@pytest.mark.parametrize("nu", [4.0, "estimate"])
@pytest.mark.parametrize("weighted", [False, True])
def test_from_the_same_start_it_is_the_textbook_s_em(kind, nu, weighted):
    x, labels = t_rows(400, [3, 8], apart=3.0)
    w = np.random.default_rng(1).integers(1, 4, len(x)).astype(float) if weighted else np.ones(len(x))
    right = textbook(kind, x, labels, None if nu == "estimate" else nu, 25, w)
    options = {"covariance_type": kind, "nu": nu, "init_params": labels, "reg_covar": 0, "tol": 0, "max_iter": 25}
    model = GaussianMixture(2, **options).fit(x, sample_weight=w if weighted else None)
    weights, means, scales, freedom = right
    np.testing.assert_allclose(model.weights_, weights, rtol=1e-6)
    np.testing.assert_allclose(model.means_, means, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(model.to_xarray().covariances.values, scales, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(model.nu_, freedom, rtol=1e-6)
    score = w @ logsumexp(log_joint(x, *right), axis=1) / w.sum()
    assert model.lower_bound_ == pytest.approx(score, abs=1e-9)


def test_the_density_is_scipy_s():
    x, labels = t_rows(300, [2, 5, 30])
    model = GaussianMixture(3, nu=[2.0, 5.0, 30.0], init_params=labels).fit(x)
    joint = log_joint(x, model.weights_, model.means_, model.covariances_, model.nu_)
    shares = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    np.testing.assert_allclose(model.score_samples(x), logsumexp(joint, axis=1), rtol=1e-9)
    np.testing.assert_allclose(model.predict_proba(x), shares, atol=1e-9)
    np.testing.assert_array_equal(model.predict(x), joint.argmax(axis=1))
    assert model.score(x) == pytest.approx(model.lower_bound_, rel=1e-9)
    away = x[:, None] - model.means_
    squared = np.einsum("nkd,kde,nke->nk", away, np.linalg.inv(model.covariances_), away)
    np.testing.assert_allclose(model.mahalanobis(x), np.sqrt(squared), rtol=1e-8)


def test_degrees_of_freedom_that_are_estimated_are_parameters():
    x, labels = t_rows(300, [3, 9])
    known, estimated = (GaussianMixture(2, nu=nu, init_params=labels).fit(x) for nu in (4.0, "estimate"))
    free = 1 + 2 * 3 + 2 * 6
    assert known.bic() == pytest.approx(-2 * 300 * known.lower_bound_ + free * np.log(300))
    assert estimated.bic() == pytest.approx(-2 * 300 * estimated.lower_bound_ + (free + 2) * np.log(300))


# --- laws -------------------------------------------------------------------------------------------------------------


@every_structure
@QUICK
@given(st.integers(0, 1000), st.booleans(), st.sampled_from(["auto", 0.3]), st.sampled_from([0.7, 5.0, "estimate"]))
def test_the_likelihood_climbs(name, seed, weighted, reg_covar, nu):
    rng = np.random.default_rng(seed)
    d, k = int(rng.integers(1, 5)), int(rng.integers(2, 4))
    labels = np.arange(120) % k
    x = rng.standard_t(2, (120, d)) @ rng.standard_normal((d, d)) + 2.0 * rng.standard_normal((k, d))[labels]
    w = rng.integers(0, 4, 120).astype(float) if weighted else None
    objectives, model = climb(name, x, rng.permutation(labels) if seed % 2 else labels, w, reg_covar=reg_covar, nu=nu)
    assert len(objectives) > 1
    assert min(np.diff(objectives)) >= -1e-9
    assert ((model.nu_ >= LEAST_NU) & (model.nu_ <= MOST_NU)).all()


@pytest.mark.parametrize("nu", [3.0, "estimate"])
def test_a_partition_climbs_too(nu):
    x, labels = t_rows(400, [3, 8], apart=2.0)
    _, model = climb("full", x, labels, algorithm="cem", nu=nu)
    objectives = [record["objective"] for record in model.history_ if record["what"] == "cem"][:-1]
    assert len(objectives) > 1
    assert min(np.diff(objectives)) >= -1e-9


def test_draws_of_components_find_a_mixture_too():
    x, labels = t_rows(2000, [3, 8])
    options = {"nu": "estimate", "init_params": labels, "max_iter": 30, "random_state": 0}
    drawn, soft = (GaussianMixture(2, algorithm=name, **options).fit(x) for name in ("sem", "em"))
    assert drawn.lower_bound_ == pytest.approx(soft.lower_bound_, abs=0.01)


@every_structure
def test_whole_weights_are_repeats(name):
    x, labels = IRIS.data, IRIS.target
    times = np.random.default_rng(0).integers(1, 4, len(x))
    weighted = climb(name, x, labels, times.astype(float), nu="estimate")[1]
    repeated = climb(name, np.repeat(x, times, axis=0), np.repeat(labels, times), nu="estimate")[1]
    np.testing.assert_allclose(weighted.covariances_, repeated.covariances_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(weighted.nu_, repeated.nu_, rtol=1e-6)
    assert weighted.lower_bound_ == pytest.approx(repeated.lower_bound_, abs=1e-9)


@pytest.mark.parametrize("name", ["VVV", "EEE", "VVI", "VII", "EVE"])
@pytest.mark.parametrize(("dtype", "shift"), [(np.float64, 1e7), (np.float32, 1e4)])
def test_a_constant_added_changes_no_label(name, dtype, shift):
    # Quarters of 2^-5 survive the shift in either type.
    x = (np.round(IRIS.data * 32) / 32).astype(dtype)
    moved = (x + dtype(shift)).astype(dtype)
    plain, far = (climb(name, rows, IRIS.target, nu=3.0)[1] for rows in (x, moved))
    np.testing.assert_array_equal(plain.predict(x), far.predict(moved))
    np.testing.assert_allclose(plain.covariances_, far.covariances_, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["VVV", "EEE", "VVI", "VII", "EVE"])
@pytest.mark.parametrize("scale", [1e-6, 0.3, 1e6])
def test_a_common_unit_changes_no_label(name, scale):
    plain, scaled = (climb(name, rows, IRIS.target, nu="estimate")[1] for rows in (IRIS.data, IRIS.data * scale))
    np.testing.assert_array_equal(plain.predict(IRIS.data), scaled.predict(IRIS.data * scale))
    np.testing.assert_allclose(plain.nu_, scaled.nu_, rtol=1e-4)


@every_structure
def test_with_endless_freedom_it_is_the_gaussian_fit(name):
    t, gaussian = (climb(name, IRIS.data, IRIS.target, nu=nu)[1] for nu in (1e8, None))
    np.testing.assert_allclose(t.means_, gaussian.means_, rtol=1e-6)
    np.testing.assert_allclose(t.covariances_, gaussian.covariances_, rtol=1e-5, atol=1e-7)
    assert t.lower_bound_ == pytest.approx(gaussian.lower_bound_, abs=1e-6)


@pytest.mark.parametrize("kind", ["full", "tied", "diag"])
def test_neither_chunks_nor_threads_matter(kind):
    x, _ = t_rows(6000, [3, 8])
    options = {"covariance_type": kind, "nu": "estimate", "means_init": [[0.0] * 3, [6.0] * 3], "random_state": 0}
    fits = [GaussianMixture(2, **options).fit(da.from_array(x, chunks=(size, 3))) for size in (6000, 900, 900)]
    np.testing.assert_array_equal(fits[1].means_, fits[2].means_)
    for name in ("means_", "covariances_", "nu_"):
        np.testing.assert_allclose(getattr(fits[0], name), getattr(fits[1], name), rtol=1e-6, atol=1e-8)
    labels_of = fits[1].predict(da.from_array(x, chunks=(700, 3)))
    np.testing.assert_array_equal(labels_of, fits[1].predict(x))


@pytest.mark.parametrize(
    ("dtype", "apart", "way"),
    [
        (np.float32, 3.0, "float32"),
        (np.float32, 1e3, "float64"),
        (np.float64, 3.0, "float64"),
        (np.float64, 1e6, "centred"),
    ],
)
def test_every_way_to_the_densities_has_tails(dtype, apart, way):
    x = t_rows(3000, [4, 4], apart=apart)[0].astype(dtype)
    model = GaussianMixture(2, nu=4.0, means_init=[[0.0] * 3, [apart] * 3], reg_covar=0).fit(x)
    assert model.history_[-1]["path"] == way
    right = log_joint(x, model.weights_, model.means_, model.covariances_, model.nu_)
    np.testing.assert_allclose(model.score_samples(x), logsumexp(right, axis=1), rtol=1e-3, atol=1e-4)


def test_a_component_without_rows_keeps_its_degrees_of_freedom():
    x, _ = t_rows(500, [3, 3])
    options = {"nu": "estimate", "means_init": [[0.0] * 3, [6.0] * 3, [1e9] * 3], "max_iter": 3, "tol": 0}
    with pytest.warns(CollapsedComponentWarning, match="component 2 lost"):
        model = GaussianMixture(3, algorithm="cem", precisions_init=np.tile(np.eye(3), (3, 1, 1)), **options).fit(x)
    assert model.nu_[2] == pytest.approx(START_NU)
    assert np.isfinite(model.nu_).all()


@every_structure
def test_parameters_that_are_held_stay_and_the_likelihood_climbs(name):
    x, labels = t_rows(300, [3, 3], apart=3.0)
    means = np.array([[0.0, 0.5, 0.0], [np.nan] * 3])
    options = {"covariance_type": name, "nu": 3.0, "fixed": {"means": [0]}, "tol": 0, "max_iter": 30, "reg_covar": 0.1}
    model = GaussianMixture(2, means_init=means, init_params=labels, **options).fit(x)
    np.testing.assert_allclose(model.means_[0], means[0], atol=1e-12)
    objectives = [record["objective"] for record in model.history_ if record["what"] == "em"][:-1]
    assert min(np.diff(objectives)) >= -1e-9


@pytest.mark.parametrize("nu", [[3.0, 4.0, 5.0], "estimate"])
@pytest.mark.parametrize("policy", ["drop", "restart"])
def test_components_that_collapse_go_with_their_degrees_of_freedom(policy, nu):
    x, _ = t_rows(500, [3, 3])
    start = {"means_init": [[0.0] * 3, [1e4] * 3, [6.0] * 3], "precisions_init": np.tile(np.eye(3), (3, 1, 1))}
    options = {"on_collapse": policy, "min_weight": 0.01, "random_state": 0}
    with pytest.warns(CollapsedComponentWarning, match="component 1"):
        model = GaussianMixture(3, nu=nu, **start, **options).fit(x)
    k = 2 if policy == "drop" else 3
    assert model.means_.shape == (k, 3)
    assert model.nu_.shape == (k,)
    if nu != "estimate":
        np.testing.assert_array_equal(model.nu_, [3.0, 5.0] if policy == "drop" else nu)
    model.partial_fit(x)
    assert model.marginal([0]).nu_.shape == (k,)
    assert np.isfinite(model.score(x))


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("path", ["float64", "centred"])
@pytest.mark.parametrize("pick", [0.0, 0.4, -2.0, np.nan])
def test_whichever_way_rows_are_shared_out_compiled_kernels_do_what_the_reference_does(structure, path, pick):
    x, picks = np.random.default_rng(0).standard_normal((700, 3)), np.full(700, pick)
    densities = with_tails(a_mixture(structure, 4, 3)).densities(path, np.full(3, 0.1), 0.0)
    (found,), (right,) = (ops.explain(x, None, a_frame(3), densities, picks) for ops in (compiled, reference))
    for name in ("mass", "first", "second", "score", "certainty", "heft", "tail"):
        np.testing.assert_allclose(getattr(found, name), getattr(right, name), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", ["full", "tied"])
def test_rows_whose_component_is_known_count_for_it_alone(kind):
    x, labels = t_rows(600, [3, 8], apart=2.0)
    known = np.where(np.arange(600) < 300, labels, -1)
    options = {"covariance_type": kind, "nu": "estimate", "init_params": labels, "tol": 0, "max_iter": 30}
    model = GaussianMixture(2, semi_supervised=True, reg_covar=0.1, **options).fit(x, known)
    objectives = [record["objective"] for record in model.history_ if record["what"] == "em"][:-1]
    assert min(np.diff(objectives)) >= -1e-9
    joint = log_joint(x, model.weights_, model.means_, model.to_xarray().covariances.values, model.nu_)
    right = np.where(known < 0, logsumexp(joint, axis=1), joint[np.arange(600), labels])
    assert model.lower_bound_ == pytest.approx(right.mean(), abs=1e-9)


# --- what it is for ---------------------------------------------------------------------------------------------------


def test_outliers_do_not_move_the_means():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 1000)
    x = rng.standard_normal((1000, 2)) + 10.0 * label[:, None]
    x[:50] = rng.uniform(-200, 200, (50, 2))
    start = {"means_init": [[0.0, 0.0], [10.0, 10.0]], "tol": 1e-6, "max_iter": 500}
    t, gaussian = (GaussianMixture(2, nu=nu, **start).fit(x) for nu in ("estimate", None))
    truth = np.array([[0.0, 0.0], [10.0, 10.0]])
    assert np.abs(t.means_ - truth).max() < 0.2
    assert np.abs(gaussian.means_ - truth).max() > 1.0
    assert t.nu_.min() < 2


def standard_error(nu, d, n):
    """Of an estimate of nu beside one of the scale (Lange, Little & Taylor 1989, appendix B)."""
    both = (nu + d) * (nu + d + 2)
    own = (polygamma(1, nu / 2) - polygamma(1, (nu + d) / 2)) / 4 - d * (nu + d + 4) / (2 * nu * both)
    cross, scale = -2 * d / both, 2 * d * nu / (nu + d + 2)
    return 1 / np.sqrt(n * (own - cross**2 / scale))


def test_degrees_of_freedom_are_recovered():
    truth = np.array([3.0, 8.0])
    x, _ = t_rows(50_000, truth, apart=30.0)
    start = {"means_init": [[0.0] * 3, [30.0] * 3], "tol": 1e-9, "max_iter": 2000}
    model = GaussianMixture(2, nu="estimate", **start).fit(x)
    errors = np.array([standard_error(nu, 3, 25_000) for nu in truth])
    assert (errors < 0.3).all()
    assert (np.abs(model.nu_ - truth) < 4 * errors).all()


def test_gaussian_rows_have_many_degrees_of_freedom():
    x = np.random.default_rng(0).standard_normal((1000, 4))
    assert GaussianMixture(1, nu="estimate", tol=1e-7, max_iter=500).fit(x).nu_[0] > 50


@pytest.mark.parametrize("nu", [0.2, 1.0, 7.0, 300.0])
def test_the_likeliest_freedom_is_where_the_slope_is_zero(nu):
    assert likeliest_nu(digamma(nu / 2) - np.log(nu / 2) - 1) == pytest.approx(nu, rel=1e-6)


def test_the_likeliest_freedom_is_bounded():
    assert likeliest_nu(-1.0) == MOST_NU
    assert likeliest_nu(-1e3) == LEAST_NU


# --- after the fit ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    x, labels = t_rows(4000, [3, 8])
    return GaussianMixture(2, nu="estimate", init_params=labels, random_state=0, tol=1e-10, max_iter=2000).fit(x)


@pytest.mark.parametrize("chunks", [None, 3000])
def test_draws_are_those_of_the_mixture(fitted, chunks):
    rows, component = fitted.sample(20_000, chunks=chunks)
    rows, component = np.asarray(rows), np.asarray(component)
    for j in range(2):
        own = rows[component == j] - fitted.means_[j]
        squared = np.einsum("nd,de,ne->n", own, fitted.precisions_[j], own)
        assert kstest(squared / 3, f_distribution(3, fitted.nu_[j]).cdf).pvalue > 1e-3
    assert len(rows) == 20_000


def test_draws_do_not_depend_on_the_chunks(fitted):
    whole, cut = (fitted.sample(1000, chunks=size)[0].compute() for size in (1000, 130))
    np.testing.assert_array_equal(whole, cut)


def test_a_marginal_is_student_s_t_with_the_same_degrees_of_freedom(fitted):
    part = fitted.marginal([2, 0])
    np.testing.assert_array_equal(part.nu_, fitted.nu_)
    x, some = t_rows(50, [3, 8])[0][:, [2, 0]], np.ix_([0, 1], [2, 0], [2, 0])
    right = log_joint(x, fitted.weights_, fitted.means_[:, [2, 0]], fitted.covariances_[some], fitted.nu_)
    np.testing.assert_allclose(part.score_samples(x), logsumexp(right, axis=1), rtol=1e-9)


def test_a_saved_model_comes_back_to_the_bit(fitted, tmp_path):
    x = t_rows(50, [3, 8])[0]
    for model in (fitted, GaussianMixture(2, nu=[3.0, 4.0], random_state=0).fit(x)):
        model.save(tmp_path / "m.zarr", overwrite=True)
        back = load(tmp_path / "m.zarr")
        np.testing.assert_array_equal(back.nu_, model.nu_)
        np.testing.assert_equal(back.nu, model.nu)
        np.testing.assert_array_equal(back.score_samples(x), model.score_samples(x))
        assert back.bic() == model.bic()


def test_a_dataset_tells_the_degrees_of_freedom(fitted):
    np.testing.assert_array_equal(fitted.to_xarray().nu, fitted.nu_)
    assert "nu" not in GaussianMixture(1).fit(IRIS.data).to_xarray()


def test_a_warm_start_goes_on_from_its_own_degrees_of_freedom():
    x, labels = t_rows(2000, [3, 8])
    options = {"nu": "estimate", "init_params": labels, "tol": 0}
    whole = GaussianMixture(2, max_iter=20, **options).fit(x)
    parts = GaussianMixture(2, max_iter=10, warm_start=True, **options).fit(x)
    np.testing.assert_allclose(parts.fit(x).nu_, whole.nu_, rtol=1e-9)
    other = GaussianMixture(2, nu=5.0, init_params=whole, max_iter=0).fit(x)
    np.testing.assert_array_equal(other.nu_, [5.0, 5.0])


def test_a_gaussian_fit_forgets_the_degrees_of_freedom():
    x, labels = t_rows(500, [3, 8])
    model = GaussianMixture(2, nu=3.0, init_params=labels).fit(x)
    model.set_params(nu=None).fit(x)
    assert not hasattr(model, "nu_")
    np.testing.assert_array_equal(model.means_, GaussianMixture(2, init_params=labels).fit(x).means_)


def test_the_rows_that_a_fit_came_from_are_no_news():
    x, labels = t_rows(2000, [3, 8])
    options = {"nu": "estimate", "init_params": labels, "tol": 1e-15, "max_iter": 5000, "reg_covar": 0}
    model = GaussianMixture(2, **options).fit(x)
    before = {name: getattr(model, name).copy() for name in ("weights_", "means_", "covariances_", "nu_")}
    model.partial_fit(x)
    for name, values in before.items():
        np.testing.assert_allclose(getattr(model, name), values, rtol=1e-4, atol=1e-4)


def test_components_are_merged_by_their_probabilities(fitted):
    merged = fitted.merge(t_rows(500, [3, 8])[0])
    assert merged.cluster.sel(n_clusters=1).values.tolist() == [0, 0]


def test_fixed_scale_matrices_have_tails_too():
    x, _ = t_rows(1000, [3, 3])
    options = {"covariance_type": "fixed", "covariance_init": 1.0, "means_init": [[0.0] * 3, [6.0] * 3]}
    model = GaussianMixture(2, nu="estimate", **options).fit(x)
    np.testing.assert_array_equal(model.covariances_, [1.0, 1.0])
    joint = log_joint(x, model.weights_, model.means_, [np.eye(3)] * 2, model.nu_)
    assert model.lower_bound_ == pytest.approx(logsumexp(joint, axis=1).mean())


def test_rows_of_a_file_are_read_pass_by_pass(tmp_path):
    x, _ = t_rows(5000, [3, 8])
    lazy = da.from_array(x, chunks=(600, 3))
    lazy.to_zarr(str(tmp_path / "x.zarr"))
    options = {"nu": "estimate", "random_state": 0}
    stored, lazy = (GaussianMixture(2, **options).fit(source) for source in (str(tmp_path / "x.zarr"), lazy))
    np.testing.assert_allclose(stored.means_, lazy.means_, rtol=1e-6)
    assert stored.n_passes_ == stored.n_iter_ + 2  # the survey and the measure


def test_a_plan_knows_that_such_a_fit_is_the_textbook_s():
    x = da.zeros((10**8, 4), chunks=(10**6, 4))
    assert daskmix.plan(GaussianMixture(3), x).accelerated
    assert not daskmix.plan(GaussianMixture(3, nu=4.0), x).accelerated


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"nu": 0.0}, "must be positive"),
        ({"nu": -1}, "must be positive"),
        ({"nu": np.inf}, "must be positive"),
        ({"nu": True}, "must be positive"),
        ({"nu": 1e-3}, "must be at least 0.1"),
        ({"nu": [3.0, 4.0, 5.0]}, "one for each component"),
        ({"nu": "many"}, '"estimate"'),
        ({"nu": 3.0, "temperature": 2.0}, "has no temperature"),
        ({"nu": 3.0, "prior": "default"}, "pass prior or nu"),
        ({"nu": 3.0, "missing": "em"}, 'missing="drop"'),
        ({"nu": 3.0, "noise": True}, "pass noise or nu"),
        ({"nu": "estimate", "fixed": "means", "means_init": IRIS.data[:2]}, "pass them as numbers"),
    ],
)
def test_what_does_not_go_together_is_refused_at_the_door(options, told):
    with pytest.raises(InputError, match=told):
        GaussianMixture(2, **options).fit(IRIS.data)


def test_what_is_not_known_of_student_s_t_is_refused(fitted):
    x = t_rows(50, [3, 8])[0]
    for asked in (
        fitted.to_sklearn,
        lambda: fitted.condition({0: 1.0}),
        lambda: fitted.impute(x),
        lambda: fitted.standard_errors(x),
        lambda: fitted.likelihood_ratio(x),
    ):
        with pytest.raises(InputError, match="fit without nu"):
            asked()
    with pytest.raises(InputError, match="leave nu out"):
        daskmix.select(x, (1, 2), nu=3.0)
    x[3, 1] = np.nan
    with pytest.raises(InputError, match="without gaps"):
        fitted.set_params(missing="em").predict(x)
    fitted.set_params(missing="raise")


def test_a_start_does_not_stand_on_outliers():
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.standard_normal((300, 2)) + mean for mean in ([0, 0], [6, 0], [0, 6])])
    far = rng.random(900) < 0.02
    x[far] = rng.uniform(-300, 300, (far.sum(), 2))
    options = {"nu": "estimate", "reg_covar": 1e-4, "tol": 1e-6, "max_iter": 500}
    found = daskmix.GaussianMixture(3, random_state=0, **options).fit(x)
    told = daskmix.GaussianMixture(3, means_init=[[0, 0], [6, 0], [0, 6]], **options).fit(x)
    assert found.lower_bound_ >= told.lower_bound_ - 0.02


def test_options_that_change_after_a_fit_do_not_change_what_was_fitted():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, (200, 2)), rng.normal(6, 1, (200, 2))])
    plain = daskmix.GaussianMixture(2, random_state=0).fit(x)
    before, errors = plain.bic(), plain.standard_errors(x, n_replicates=3)
    plain.set_params(nu="estimate")
    assert plain.bic() == before
    assert errors.equals(plain.standard_errors(x, n_replicates=3))
    with pytest.raises(InputError, match="fit anew"):
        plain.partial_fit(x)
    given = daskmix.GaussianMixture(2, nu=3.0, random_state=0).fit(x)
    with pytest.raises(InputError, match="fit anew"):
        given.set_params(nu=4.0).partial_fit(x)
    given.set_params(nu=3.0).partial_fit(x)


def test_single_precision_scores_what_it_fitted():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, (400, 2)), rng.normal(1e7, 1, (4, 2))]).astype(np.float32)
    for nu in (None, 5.0):
        start = {"means_init": [[0, 0], [1e7, 1e7]], "reg_covar": 1e-4}
        model = daskmix.GaussianMixture(2, nu=nu, **start).fit(x)
        assert model.score(x) == pytest.approx(model.lower_bound_, abs=1e-5)
