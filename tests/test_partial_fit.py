"""Data that arrive over time."""

import numpy as np
import pytest
from test_acceleration import blobs

from daskmix import GaussianMixture, KMeans, load
from daskmix.errors import FeatureError

K = 4


def shuffled(n=40_000, seed=0):
    x = blobs(n, k=K, apart=5.0, seed=3)
    return np.random.default_rng(seed).permutation(x)


def batches(x, size=2000):
    return [x[i : i + size] for i in range(0, len(x), size)]


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_stepwise_em_comes_near_to_the_fit_of_all_rows(covariance_type):
    x = shuffled()
    model = GaussianMixture(K, covariance_type=covariance_type, random_state=0)
    for batch in batches(x):
        model.partial_fit(batch)
    whole = GaussianMixture(K, covariance_type=covariance_type, tol=1e-8, max_iter=1000)
    whole.set_params(init_params=model).fit(x)
    assert whole.score(x) - model.score(x) < 5e-3
    first = GaussianMixture(K, covariance_type=covariance_type, random_state=0).fit(batches(x)[0])
    assert model.score(x) > first.score(x)


def test_mini_batches_come_near_to_the_fit_of_all_rows():
    x = shuffled()
    model = KMeans(K, random_state=0)
    for batch in batches(x):
        model.partial_fit(batch)
    whole = KMeans(K, init=model, tol=0).fit(x)
    assert -model.score(x) <= 1.01 * whole.inertia_
    assert model.cluster_weights_.sum() == len(x)


@pytest.mark.parametrize("kind", [GaussianMixture, KMeans])
def test_a_saved_model_goes_on_as_if_nothing_had_happened(kind, tmp_path):
    x = batches(shuffled(10_000))
    straight, resumed = kind(K, random_state=0), kind(K, random_state=0)
    for number, batch in enumerate(x):
        straight.partial_fit(batch)
        resumed.partial_fit(batch)
        path = tmp_path / f"{number}.zarr"
        resumed.save(path)
        resumed = load(path)
    names = ("means_", "covariances_", "weights_") if kind is GaussianMixture else ("cluster_centers_",)
    for name in names:
        np.testing.assert_array_equal(getattr(straight, name), getattr(resumed, name))
    assert [r["pass"] for r in resumed.history_] == list(range(1, straight.n_passes_ + 1))


@pytest.mark.parametrize("kind", [GaussianMixture, KMeans])
def test_whole_weights_are_repeats(kind):
    x = shuffled(4000)
    times = np.random.default_rng(0).integers(0, 3, 2000)
    weighted, repeated = (kind(K, random_state=0).fit(x[:2000]) for _ in range(2))
    weighted.partial_fit(x[2000:], sample_weight=times)
    repeated.partial_fit(np.repeat(x[2000:], times, axis=0))
    a, b = ((m.means_ if kind is GaussianMixture else m.cluster_centers_) for m in (weighted, repeated))
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_a_batch_is_read_once():
    x = shuffled(4000)
    model = GaussianMixture(K, random_state=0).partial_fit(x[:2000])
    before = model.n_passes_
    model.partial_fit(x[2000:])
    assert model.n_passes_ == before + 1
    assert model.history_[-1]["rows"] == 2000


@pytest.mark.parametrize("kind", [GaussianMixture, KMeans])
def test_other_features_are_refused(kind):
    model = kind(2, random_state=0).partial_fit(shuffled(400))
    with pytest.raises(FeatureError):
        model.partial_fit(np.zeros((10, 5)))


def test_rows_near_a_mean_far_from_the_origin_cost_no_digits():
    x = shuffled(4000)
    near, far = (GaussianMixture(K, random_state=0).fit(x[:2000] + offset) for offset in (0.0, 1e6))
    near.partial_fit(x[2000:])
    far.partial_fit(x[2000:] + 1e6)
    np.testing.assert_allclose(far.covariances_, near.covariances_, rtol=1e-5, atol=1e-6)
