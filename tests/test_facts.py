"""Numbers from the literature, from mclust and from scikit-learn that must come out."""

from math import erf, exp, pi, sqrt
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

from daskmix import GaussianMixture, KMeans

FAITHFUL = np.genfromtxt(Path(__file__).parent / "data" / "faithful.csv", delimiter=",", skip_header=1)[:, -2:]


@pytest.mark.parametrize("mu", [0.5, 1.0, 1.5, 2.0, 3.0])
def test_kmeans_sets_the_means_too_far_apart(mu):
    """Bryant & Williamson 1978: the centres go to +-E|X|, not to +-mu."""
    rng = np.random.default_rng(0)
    n = 400_000
    z = rng.standard_normal(n // 2)
    x = np.concatenate([mu + z, mu - z, -mu + z, -mu - z])[:, None]
    expected = mu * erf(mu / sqrt(2)) + 2 * exp(-(mu**2) / 2) / sqrt(2 * pi)
    model = KMeans(2, random_state=0, tol=0).fit(x)
    np.testing.assert_allclose(np.sort(model.cluster_centers_[:, 0]), [-expected, expected], atol=5e-3)
    assert model.inertia_ / len(x) == pytest.approx(1 + mu**2 - expected**2, abs=5e-3)


@pytest.mark.parametrize("mu", [1.5, 2.0, 3.0])
def test_the_mixture_does_not(mu):
    rng = np.random.default_rng(0)
    z = rng.standard_normal(100_000)
    x = np.concatenate([mu + z, mu - z, -mu + z, -mu - z])[:, None]
    model = GaussianMixture(2, covariance_type="tied", tol=1e-9, max_iter=3000, random_state=0).fit(x)
    np.testing.assert_allclose(np.sort(model.means_[:, 0]), [-mu, mu], atol=0.03)


@pytest.mark.parametrize(
    ("model", "one", "two", "three"),
    [
        ("EII", -4024.721, -3452.998, -3377.701),
        ("VII", -4024.721, -3458.305, -3336.598),
        ("EEI", -3055.835, -2354.601, -2323.014),
        ("VEI", -3055.835, -2350.607, -2332.687),
        ("EVI", -3055.835, -2352.618, -2332.205),
        ("VVI", -3055.835, -2346.065, -2342.366),
        ("EEE", -2607.623, -2325.220, -2314.316),
        ("VEE", -2607.623, -2322.972, -2322.103),
        ("EVE", -2607.623, -2324.273, -2342.319),
        ("VVE", -2607.623, -2320.433, -2336.271),
        ("EEV", -2607.623, -2329.115, -2325.322),
        ("VEV", -2607.623, -2325.416, -2329.648),
        ("EVV", -2607.623, -2327.598, -2339.983),
        ("VVV", -2607.623, -2322.192, -2349.696),
    ],
)
def test_old_faithful_has_the_bic_of_mclust(model, one, two, three):
    """mclust's BIC is minus scikit-learn's; it stops EM early, so a converged fit is at most better."""
    assert FAITHFUL.shape == (272, 2)
    found = [
        -GaussianMixture(k, covariance_type=model, tol=1e-10, max_iter=5000, n_init=20, random_state=0, reg_covar=0)
        .fit(FAITHFUL)
        .bic()
        for k in (1, 2, 3)
    ]
    assert found[:2] == pytest.approx([one, two], abs=0.2)
    assert found[2] >= three - 0.05


def test_old_faithful_is_best_as_three_equal_ellipses():
    model = GaussianMixture(3, covariance_type="EEE", tol=1e-12, max_iter=9000, n_init=20, random_state=0, reg_covar=0)
    model.fit(FAITHFUL)
    assert model.lower_bound_ * 272 == pytest.approx(-1126.316, abs=2e-3)
    assert -model.bic() == pytest.approx(-2314.296, abs=0.02)


@pytest.mark.parametrize(
    ("x", "k", "inertia"),
    [
        (load_iris().data, 2, 152.347952),
        (load_iris().data, 3, 78.851441),
        (load_iris().data, 4, 57.228473),
        (load_wine().data, 3, 2370689.686783),
        (load_breast_cancer().data, 2, 77943099.878299),
        (FAITHFUL, 2, 8901.768721),
        (FAITHFUL, 3, 5188.540468),
    ],
)
def test_kmeans_finds_the_known_inertia(x, k, inertia):
    assert KMeans(k, n_init=30, tol=0, random_state=0).fit(x).inertia_ == pytest.approx(inertia, abs=1e-6)


def test_kmeans_finds_the_known_inertia_of_the_digits():
    assert KMeans(10, n_init=60, tol=0, random_state=0).fit(load_digits().data).inertia_ == pytest.approx(
        1165153.999926, rel=1e-4
    )


def test_iris_falls_into_clusters_of_known_sizes():
    for k, sizes in ((2, [53, 97]), (3, [38, 50, 62])):
        labels = KMeans(k, n_init=20, random_state=0).fit(load_iris().data).labels_
        assert sorted(np.bincount(labels)) == sizes


def test_six_points_fall_into_two_columns():
    model = KMeans(2, random_state=0).fit([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
    assert sorted(model.cluster_centers_.tolist()) == [[1, 2], [10, 2]]
    assert model.inertia_ == 16
