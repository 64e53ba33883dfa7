"""Maximum a posteriori: mclust's numbers, the prior's own density, and the laws of every mixture here."""

import warnings

import dask.array as da
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import invgamma, invwishart, multivariate_normal
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning

from daskmix import GaussianMixture, errors, plan, select
from daskmix.estimators.mixture_prior import EQUAL
from daskmix.estimators.mixture_start import MCLUST
from daskmix.family import Conjugate, Family
from daskmix.kernels import Order
from daskmix.mixture import Mixture

IRIS = load_iris()
every_structure = pytest.mark.parametrize("name", MCLUST)

# Where `me(iris, model, unmap(species), prior = priorControl())` of mclust 6.0.0 converges to: the log-likelihood, the
# weights, and mean and variances of the second component. Its EII leaves the prior's scale out of the variance, its EEI
# counts a row less for each component than the paper and the density have; these two are held by the density alone.
MCLUST_ENDS = """
VII -384.47867622 0.33333333 0.41543757 0.25122910 5.90676167 2.74928395 4.40438529 1.43336631 0.15854051 0.15854051 0.15854051 0.15854051
VVI -312.90408707 0.33333333 0.29690475 0.36976192 5.81370263 2.69485146 4.20349605 1.30163005 0.19338584 0.08467182 0.19080741 0.04222671
EEE -257.73937661 0.33333333 0.34799291 0.31867376 5.96005682 2.75511753 4.31526948 1.33004141 0.24413502 0.10134808 0.19968458 0.03469872
VVV -192.69528386 0.33333333 0.31380880 0.35285787 5.93687967 2.76266797 4.23012602 1.30882170 0.22299410 0.07832386 0.19942251 0.03268627
"""  # noqa: E501


def fitted(x, labels, name, **options):
    """From given labels, cut short where it is, without smoothing."""
    options = {"prior": "default", "reg_covar": 0.0, "tol": 0.0, **options}
    weights = options.pop("sample_weight", None)
    model = GaussianMixture(int(labels.max()) + 1, covariance_type=name, init_params=labels, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, sample_weight=weights)


@pytest.mark.parametrize("line", MCLUST_ENDS.strip().splitlines(), ids=lambda line: line[:3])
def test_the_default_is_mclusts(line):
    name, *numbers = line.split()
    model = fitted(da.from_array(IRIS.data, chunks=(60, 4)), IRIS.target, name, tol=1e-12, max_iter=5000)
    dense = model._model().covariance.dense(3, 4)[1]
    found = [model.lower_bound_ * 150, *model.weights_, *model.means_[1], *np.diag(dense)]
    np.testing.assert_allclose(found, np.array(numbers, float), rtol=2e-6, atol=2e-6)


def density(prior, means, covariances, order):
    """log p(means, covariances) by SciPy, given one full covariance for each component."""
    of_means = sum(
        multivariate_normal.logpdf(mean, prior.mean, covariance / prior.shrinkage)
        for mean, covariance in zip(means, covariances, strict=True)
    )
    own = covariances[:1] if prior.shared else covariances
    half = prior.freedom / 2
    if order is Order.trace:
        return of_means + invgamma.logpdf(own[:, 0, 0], half, scale=prior.scale / 2).sum()
    if order is Order.diagonal:
        variances = np.diagonal(own, axis1=1, axis2=2)
        return of_means + invgamma.logpdf(variances, half, scale=prior.scale / 2).sum()
    return of_means + sum(invwishart.logpdf(covariance, prior.freedom, prior.scale) for covariance in own)


def drawn(name, k, d, rng):
    """A mixture of this structure."""
    root = rng.standard_normal((k, d, d + 2))
    full = root @ root.transpose(0, 2, 1)
    order = MCLUST[name].order
    scatter = {
        Order.full: full, Order.pooled: full.sum(axis=0), Order.diagonal: np.diagonal(full, axis1=1, axis2=2),
        Order.trace: np.trace(full, axis1=1, axis2=2),
    }[order]  # fmt: skip
    covariance = MCLUST[name].estimate(np.full(k, 5.0), scatter, np.zeros(d))
    return Mixture(np.full(k, 1 / k), rng.standard_normal((k, d)), covariance, Family(MCLUST[name]))


@every_structure
def test_the_prior_has_the_density_that_it_is_named_after(name):
    rng, k, d = np.random.default_rng(0), 3, 2
    order = MCLUST[name].order
    scale = {Order.trace: np.array(0.7), Order.diagonal: np.array([0.5, 2.0])}.get(
        order, np.array([[2, 0.3], [0.3, 1]])
    )
    prior = Conjugate(0.3, np.array([1.0, -1]), 4.5, scale, MCLUST[name] in EQUAL)
    one, other = drawn(name, k, d, rng), drawn(name, k, d, rng)
    ours = prior.log_density(one, np.zeros(d)) - prior.log_density(other, np.zeros(d))
    dense = [density(prior, m.means, m.covariance.dense(k, d), order) for m in (one, other)]
    assert ours == pytest.approx(dense[0] - dense[1])


@every_structure
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 1000), st.booleans(), st.sampled_from([0.0, "auto", 0.3]))
def test_the_posterior_climbs(name, seed, weighted, reg_covar):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((40, 3)) * [1.0, 5, 0.2] + 3 * rng.integers(0, 2, (40, 1))
    weights = rng.integers(0, 3, 40) + 0.5 if weighted else None
    labels = rng.integers(0, 3, 40)
    labels[:3] = range(3)
    model = fitted(x, labels, name, reg_covar=reg_covar, max_iter=12, sample_weight=weights)
    climbed = np.array([record["objective"] for record in model.history_ if record["measure"] == "log posterior"][:-1])
    assert (np.diff(climbed) >= -1e-9 * np.abs(climbed).max()).all()


@every_structure
def test_whole_weights_are_repeats(name):
    times = np.random.default_rng(0).integers(1, 4, 150)
    weighted = fitted(IRIS.data, IRIS.target, name, max_iter=8, sample_weight=times)
    repeated = fitted(IRIS.data.repeat(times, axis=0), IRIS.target.repeat(times), name, max_iter=8)
    np.testing.assert_allclose(weighted.covariances_, repeated.covariances_, rtol=1e-7)
    np.testing.assert_allclose(weighted.means_, repeated.means_, rtol=1e-9)


@every_structure
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_a_common_unit_changes_no_label(name, scale):
    here, there = (fitted(x, IRIS.target, name, max_iter=20) for x in (IRIS.data, IRIS.data * scale))
    np.testing.assert_array_equal(here.predict(IRIS.data), there.predict(IRIS.data * scale))
    np.testing.assert_allclose(there.covariances_, here.covariances_ * scale**2, rtol=1e-6)


@every_structure
def test_a_shift_changes_nothing_but_the_means(name):
    x = np.round(IRIS.data * 8) / 8
    here, there = (fitted(rows, IRIS.target, name, max_iter=20) for rows in (x, x + 1e7))
    np.testing.assert_array_equal(here.predict(x), there.predict(x + 1e7))
    np.testing.assert_allclose(there.covariances_, here.covariances_, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["spherical", "diag", "tied", "full", "VVE"])
def test_rows_that_are_all_alike_have_a_covariance(name):
    x = np.concatenate([np.random.default_rng(0).standard_normal((50, 2)), np.full((5, 2), 9.0)])
    labels = (np.arange(55) >= 50).astype(int)
    model = fitted(x, labels, name, max_iter=50)
    assert np.linalg.eigvalsh(model._model().covariance.dense(2, 2)).min() > 1e-3
    if name != "tied":
        with pytest.raises(errors.CollapsedComponentError):
            fitted(x, labels, name, prior=None, max_iter=50)


def test_what_is_given_takes_the_place_of_the_default():
    prior = {"shrinkage": 1e9, "mean": [1.0, 2, 3, 4], "dof": 1e9, "scale": 2e9 * np.eye(4)}
    model = fitted(IRIS.data, IRIS.target, "full", prior=prior, max_iter=3)
    np.testing.assert_allclose(model.means_, np.tile([1.0, 2, 3, 4], (3, 1)), rtol=1e-5)
    np.testing.assert_allclose(model.covariances_, np.tile(2 * np.eye(4), (3, 1, 1)), atol=1e-5)


def test_an_accelerated_fit_ends_where_the_textbooks_does():
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((3, 2))
    x = rng.standard_normal((4000, 2)) + centres[rng.integers(0, 3, 4000)]
    options = {"prior": {"shrinkage": 30.0, "dof": 300.0}, "random_state": 0, "reg_covar": 0}
    fast = GaussianMixture(3, sample_size=500, gap_tol=1e-8, max_iter=500, **options).fit(da.from_array(x, chunks=500))
    exact = GaussianMixture(3, init_params=fast, tol=1e-13, max_iter=5000, **options).fit(x)
    np.testing.assert_allclose(fast.covariances_, exact.covariances_, rtol=2e-3)
    assert fast.lower_bound_ == pytest.approx(exact.lower_bound_, abs=1e-5)


def test_the_covariance_of_the_rows_costs_one_pass_where_it_is_needed():
    x = da.from_array(IRIS.data, chunks=(50, 4))
    for name, more in {"full": 1, "tied": 1, "diag": 0, "spherical": 0}.items():
        found = fitted(x, IRIS.target, name, max_iter=2)
        assert [record["what"] for record in found.history_].count("covariance") == more
        assert plan(found, x).passes_at_most == found.n_passes_  # survey, labels, two iterations, the likelihood
    given_scale = fitted(x, IRIS.target, "full", max_iter=2, prior={"scale": np.eye(4)})
    assert all(record["what"] != "covariance" for record in given_scale.history_)
    chosen = select(x, n_components=(2, 3), covariance_type=("full", "tied"), prior="default", random_state=0)
    assert [record["what"] for record in chosen.best_.history_].count("covariance") == 1


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"prior": "flat"}, "prior has 'flat'"),
        ({"prior": 3}, "prior has 3"),
        ({"prior": {"kappa": 1.0}}, "prior has 'kappa'"),
        ({"prior": {"shrinkage": 0}}, "shrinkage=0, which must be a finite number above 0"),
        ({"prior": {"dof": "many"}}, "prior's dof='many' holds what is no number"),
        ({"prior": {"dof": 2}}, "dof=2, which must be a finite number above 3"),
        ({"prior": {"mean": [0.0]}}, "prior's mean has shape (1,), but (4,) is needed"),
        ({"prior": {"scale": -np.eye(4)}}, "prior's scale must be positive"),
        ({"prior": "default", "covariance_type": "fixed", "covariance_init": 1.0}, "a prior of covariances"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(options, seen):
    unread = da.from_array(IRIS.data, chunks=50).map_blocks(
        lambda _: pytest.fail("read"), dtype=float, meta=np.empty((0, 0))
    )
    with pytest.raises(errors.InputError) as refused:
        GaussianMixture(3, **options).fit(unread)
    assert seen in str(refused.value)


def test_a_fit_with_a_prior_does_not_go_on_batch_by_batch():
    model = fitted(IRIS.data, IRIS.target, "diag", max_iter=2)
    with pytest.raises(errors.InputError, match="do not tell its rows from it"):
        model.partial_fit(IRIS.data)
