"""The fourteen structures of covariances: each estimate is the best of its kind, and EM on them climbs."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.datasets import load_iris
from test_laws import a_mixture

from daskmix import GaussianMixture, testing
from daskmix.estimators.mixture_start import MCLUST
from daskmix.kernels import Order

QUICK = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
NAMES = list(MCLUST)
every_structure = pytest.mark.parametrize("name", NAMES)
IRIS = load_iris()


def scatters(k, d, seed):
    """Mass, and scatter (k, d, d) of components of different sizes, shapes and orientations."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((k, d, d + 2)) * np.exp(rng.standard_normal((k, 1, 1)))
    mass = rng.uniform(1.0, 9.0, k)
    return mass, mass[:, None, None] * (root @ root.transpose(0, 2, 1))


def kept(order, scatter):
    """As much of the scatter as the order keeps."""
    return {
        Order.full: scatter,
        Order.pooled: scatter.sum(axis=0),
        Order.diagonal: np.diagonal(scatter, axis1=1, axis2=2),
        Order.trace: np.trace(scatter, axis1=1, axis2=2),
    }[order]


def explains(mass, scatter, dense):
    """The expected log-likelihood of components with this mass and scatter, less a constant."""
    own = np.linalg.solve(dense, scatter)
    return -0.5 * (mass @ np.linalg.slogdet(dense)[1] + np.trace(own, axis1=1, axis2=2).sum())


def misfit(free, mass, scatter, letters):
    """To be minimised; a search may try what no number can hold."""
    try:
        return -explains(mass, scatter, letters.dense(free))
    except np.linalg.LinAlgError:
        return np.inf


class Letters:
    """A structure as its three letters say: volume, shape and orientation, equal, varying, or the identity."""

    def __init__(self, name, k, d):
        volume, shape, turn = ({"E": 1, "V": k, "I": 0}[letter] for letter in name)
        self.k, self.d, self.pairs = k, d, d * (d - 1) // 2
        self.sizes = (volume, shape * (d - 1), turn * self.pairs)

    def dense(self, free):
        """The covariances with these free parameters: (k, d, d)."""
        k, d = self.k, self.d
        volume, shape, turn = np.split(free, np.cumsum(self.sizes)[:-1])
        logs = np.zeros((max(1, self.sizes[1] // max(1, d - 1)), d))
        logs[:, : d - 1] = shape.reshape(-1, d - 1) if self.sizes[1] else 0.0
        logs -= logs.mean(axis=1, keepdims=True)
        axes = np.eye(d)[None]
        if self.sizes[2]:
            skew = np.zeros((self.sizes[2] // self.pairs, d, d))
            skew[:, *np.triu_indices(d, 1)] = turn.reshape(-1, self.pairs)
            half = skew - skew.transpose(0, 2, 1)
            axes = np.linalg.solve(np.eye(d) + half, np.eye(d) - half)  # Cayley's: every rotation but half turns
        variances = np.exp(volume[:, None] + logs)
        return np.broadcast_to((axes * variances[:, None, :]) @ axes.transpose(0, 2, 1), (k, d, d))


@every_structure
@QUICK
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 1000))
def test_no_other_covariance_of_the_structure_is_better(name, k, d, seed):
    structure, (mass, scatter) = MCLUST[name], scatters(k, d, seed)

    def likelihood(values):
        return explains(mass, scatter, structure.covariance(values, values).dense(k, d))

    testing.check_structure(structure, mass, kept(structure.order, scatter), d, likelihood)


@every_structure
def test_a_numerical_search_over_volume_shape_and_orientation_finds_nothing_better(name):
    k, d, structure = 3, 3, MCLUST[name]
    letters, rng = Letters(name, k, d), np.random.default_rng(0)
    for seed in range(3):
        mass, scatter = scatters(k, d, seed)
        starts = rng.standard_normal((6, sum(letters.sizes)))
        found = [minimize(misfit, at, (mass, scatter, letters)).fun for at in starts]
        best = structure.estimate(mass, kept(structure.order, scatter), np.zeros(d))
        assert explains(mass, scatter, best.dense(k, d)) == pytest.approx(-min(found), rel=1e-6)


@every_structure
@pytest.mark.parametrize(("k", "d"), [(1, 1), (1, 3), (4, 1), (4, 3), (5, 6)])
def test_parameters_are_counted_as_the_letters_say(name, k, d):
    # One component has one volume, shape and orientation, whichever may vary.
    assert MCLUST[name].n_parameters(k, d) == sum(Letters(name, k, d).sizes)


@every_structure
@QUICK
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 1000))
def test_an_estimate_is_no_worse_than_what_it_starts_near(name, k, d, seed):
    structure, (mass, scatter) = MCLUST[name], scatters(k, d, seed)
    near = a_mixture(structure, k, d, seed).covariance
    found = structure.estimate(mass, kept(structure.order, scatter), np.zeros(d), near)
    before, after = (explains(mass, scatter, c.dense(k, d)) for c in (near, found))
    assert after >= before - 1e-9 * abs(before)


@every_structure
@QUICK
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 1000))
def test_the_estimate_from_its_own_scatter_is_the_covariance_itself(name, k, d, seed):
    model = a_mixture(MCLUST[name], k, d, seed)
    again = model.structure.nearest(model.covariance, model.weights, d, model.covariance)
    np.testing.assert_allclose(again.values, model.covariance.values, rtol=1e-8, atol=1e-10)


def climb(name, x, labels, w=None, **options):
    """The objectives of textbook EM from these labels."""
    model = GaussianMixture(
        int(labels.max()) + 1,
        covariance_type=name,
        init_params=labels,
        max_iter=40,
        tol=0,
        accelerate="none",
        **options,
    )
    model.fit(x, sample_weight=w)
    # The last pass measures the model without smoothing.
    return [record["objective"] for record in model.history_ if record["what"] == "em"][:-1], model


@every_structure
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@QUICK
@given(st.integers(0, 1000), st.booleans(), st.sampled_from(["auto", 0.3]))
def test_the_likelihood_climbs(name, seed, weighted, reg_covar):
    rng = np.random.default_rng(seed)
    d, k = int(rng.integers(1, 5)), int(rng.integers(2, 4))
    labels = np.arange(120) % k
    x = rng.standard_normal((120, d)) @ rng.standard_normal((d, d)) + 2.0 * rng.standard_normal((k, d))[labels]
    w = rng.integers(0, 4, 120).astype(float) if weighted else None
    objectives, model = climb(name, x, rng.permutation(labels) if seed % 2 else labels, w, reg_covar=reg_covar)
    # Groups that do not overlap at all are where it starts, and rests.
    assert len(objectives) > 1 or (objectives and model.converged_)
    assert min(np.diff(objectives), default=0.0) >= -1e-9


@every_structure
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_whole_weights_are_repeats_in_every_structure(name):
    x, labels = IRIS.data, IRIS.target
    times = np.random.default_rng(0).integers(1, 4, len(x))
    weighted = climb(name, x, labels, times.astype(float))[1]
    repeated = climb(name, np.repeat(x, times, axis=0), np.repeat(labels, times))[1]
    np.testing.assert_allclose(weighted.covariances_, repeated.covariances_, rtol=1e-6, atol=1e-9)
    assert weighted.lower_bound_ == pytest.approx(repeated.lower_bound_, abs=1e-9)


@every_structure
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("dtype", "shift"), [(np.float64, 1e7), (np.float32, 1e4)])
def test_a_constant_added_changes_nothing_but_the_means(name, dtype, shift):
    # Quarters of 2^-5 survive the shift in either type.
    x = (np.round(IRIS.data * 32) / 32).astype(dtype)
    plain, moved = (climb(name, rows, IRIS.target)[1] for rows in (x, (x + dtype(shift)).astype(dtype)))
    np.testing.assert_array_equal(plain.predict(x), moved.predict((x + dtype(shift)).astype(dtype)))
    np.testing.assert_allclose(plain.covariances_, moved.covariances_, rtol=1e-4, atol=1e-6)


@every_structure
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("scale", [1e-6, 0.3, 1e6])
def test_a_common_unit_changes_no_label(name, scale):
    plain, scaled = (climb(name, rows, IRIS.target)[1] for rows in (IRIS.data, IRIS.data * scale))
    np.testing.assert_array_equal(plain.predict(IRIS.data), scaled.predict(IRIS.data * scale))
    np.testing.assert_allclose(plain.covariances_ * scale**2, scaled.covariances_, rtol=1e-5, atol=1e-7 * scale**2)


@every_structure
def test_scikit_learn_scores_rows_the_same(name):
    model = GaussianMixture(3, covariance_type=name, random_state=0).fit(IRIS.data)
    np.testing.assert_allclose(model.to_sklearn().score_samples(IRIS.data), model.score_samples(IRIS.data), rtol=1e-8)


@every_structure
def test_an_accelerated_fit_keeps_the_structure(name):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((4000, 3)) @ rng.standard_normal((3, 3)) + 3 * i for i in range(3)])
    model = GaussianMixture(3, covariance_type=name, sample_size=2000, random_state=0).fit(x)
    own = model._model()
    again = own.structure.nearest(own.covariance, own.weights, 3, own.covariance)
    np.testing.assert_allclose(again.values, own.covariance.values, rtol=1e-8, atol=1e-10)


def clusters(n, d, seed):
    """Rows of three clusters that overlap, rounded so that they could be written down for R; and their labels."""
    rng = np.random.default_rng(seed)
    label = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    mean = 2.0 * rng.standard_normal((3, d))
    root = rng.standard_normal((3, d, d)) / np.sqrt(d) + 0.5 * np.eye(d)
    return np.round(mean[label] + np.einsum("nd,nde->ne", rng.standard_normal((n, d)), root[label]), 3), label


# The log-likelihood where `me(x, model, unmap(labels), control = emControl(tol = 1e-13, itmax = 1e5))` of mclust 6.0.0
# converges to: iris from its species, and sets of the size of mclust's `diabetes` and `thyroid`.
MCLUST_ENDS = {
    "iris": (lambda: (IRIS.data, IRIS.target), """
        EII -401.802176 VII -384.314095 EEI -361.425522 VEI -339.468727 EVI -340.085581 VVI -306.860461 EEE -256.354043
        VEE -237.560163 EVE -234.140235 VVE -215.240870 EEV -214.850379 VEV -186.073283 EVV -205.535881 VVV -180.185477
    """),
    "diabetes-sized": (lambda: clusters(145, 3, 1), """
        EII -648.698073 VII -634.773048 EEI -637.863061 VEI -632.371548 EVI -629.747047 VVI -625.087889 EEE -622.978675
        VEE -621.344131 EVE -595.713836 VVE -594.063130 EEV -574.159279 VEV -571.631269 EVV -569.619163 VVV -566.368977
    """),
    "thyroid-sized": (lambda: clusters(215, 5, 2), """
        EII -2005.973891 VII -1998.579131 EEI -1954.816778 VEI -1948.113185 EVI -1918.309328 VVI -1912.438704
        EEE -1908.039986 VEE -1897.312054 EVE -1689.731981 VVE -1685.924185 EEV -1599.218856 VEV -1571.946674
        EVV -1556.760841 VVV -1525.808849
    """),
}  # fmt: skip


@pytest.mark.parametrize("rows", MCLUST_ENDS)
@every_structure
def test_from_the_same_start_em_ends_no_lower_than_mclust(rows, name):
    make, ends = MCLUST_ENDS[rows]
    ends = ends.split()
    (x, labels), theirs = make(), float(ends[ends.index(name) + 1])
    options = {"covariance_type": name, "init_params": labels, "reg_covar": 0, "tol": 1e-12, "max_iter": 20_000}
    model = GaussianMixture(3, accelerate="none", **options).fit(x)
    assert model.lower_bound_ * len(x) >= theirs - 1e-3
