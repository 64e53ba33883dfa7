"""K-means and the mixture as one family: what they share, and where they differ."""

from itertools import pairwise
from math import erf, exp, pi, sqrt

import dask.array as da
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_iris
from test_laws import KERNELS, a_frame, a_mixture

import daskmix
from daskmix import GaussianMixture, KMeans, testing
from daskmix.errors import InputError
from daskmix.kernels import compiled, reference
from daskmix.sampling import uniform
from daskmix.sharing import Explain, Sharing
from daskmix.structures import Diagonal, Full, Spherical, Tied

QUICK = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
KINDS = [Full(), Tied(), Diagonal(), Spherical()]
ONE_BY_ONE = {"tol": 0, "accelerate": "none"}


def blobs(n=600, k=3, d=2, apart=3.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) + apart * rng.standard_normal((k, d))[np.arange(n) % k]


# --- how rows are shared out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharing", [Sharing(3.0), Sharing(hard=True), Sharing(seed=7)], ids=str)
@pytest.mark.parametrize("ops", KERNELS)
@QUICK
@given(st.data())
def test_rows_may_be_cut_anywhere_however_they_are_shared_out(sharing, ops, data):
    n, d = data.draw(st.integers(2, 60)), data.draw(st.integers(1, 4))
    x = np.random.default_rng(data.draw(st.integers(0, 1000))).standard_normal((n, d)) * 4
    block = testing.block_of(x, start=data.draw(st.integers(0, 10**6)))
    for structure in KINDS:
        for path in ("float64", "centred"):
            question = Explain(a_mixture(structure, 3, d), a_frame(d), path, np.full(d, 0.1), sharing)
            testing.check_reduction(question, block, data.draw(st.integers(0, n)), ops)


@pytest.mark.parametrize("sharing", [Sharing(3.0), Sharing(hard=True), Sharing(seed=7)], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_compiled_kernels_share_rows_out_as_the_reference_does(sharing, weighted):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1000, 3)) * 4
    block = testing.block_of(x, rng.integers(0, 3, 1000).astype(float) if weighted else None)
    for structure in KINDS:
        for path in ("float64", "centred"):
            question = Explain(a_mixture(structure, 5, 3), a_frame(3), path, np.zeros(3), sharing)
            found, right = (question.map(block, ops) for ops in (compiled, reference))
            testing.assert_same_answer(found, right, 1e-9, 1e-6)


def test_a_row_that_goes_to_one_component_goes_as_a_whole():
    x = blobs()
    block = testing.block_of(x, np.random.default_rng(0).integers(0, 3, len(x)).astype(float))
    model = a_mixture(Full(), 3, 2)
    joint = reference.joint(x, a_frame(2), model.densities("float64", np.zeros(2), 0.0))
    share = reference.normalise(joint)[0]
    drawn = (share.cumsum(axis=1) < uniform(7, np.arange(len(x)))[:, None]).sum(axis=1)
    for sharing, labels in ((Sharing(hard=True), joint.argmax(axis=1)), (Sharing(seed=7), drawn)):
        found = Explain(model, a_frame(2), "float64", np.zeros(2), sharing).map(block, compiled)
        np.testing.assert_array_equal(found.mass, np.bincount(labels, block.w, minlength=3))


def test_draws_follow_the_responsibilities():
    x = np.repeat([[0.3, -0.2]], 200_000, axis=0)
    model = a_mixture(Full(), 3, 2, seed=1)
    asked = [Explain(model, a_frame(2), "float64", np.zeros(2), s) for s in (Sharing(), Sharing(seed=3))]
    soft, drawn = (question.map(testing.block_of(x), compiled).mass / len(x) for question in asked)
    assert soft.max() < 1
    np.testing.assert_allclose(drawn, soft, atol=5e-3)


# --- K-means is the limit of the mixture ------------------------------------------------------------------------------


@quiet
@pytest.mark.parametrize("passes", [1, 2, 3, 7])
@pytest.mark.parametrize("weighted", [False, True])
def test_classification_em_with_equal_spheres_is_lloyds_iteration_step_for_step(passes, weighted):
    x = blobs(k=4, apart=2.0)
    w = np.random.default_rng(0).integers(1, 4, len(x)).astype(float) if weighted else None
    alike = {"max_iter": passes, "tol": 0}
    lloyd = KMeans(4, init=x[:4], n_init=1, **alike).fit(x, sample_weight=w)
    mixture = GaussianMixture(
        4, covariance_type="fixed", covariance_init=1.0, equal_weights=True, algorithm="cem", means_init=x[:4], **alike
    ).fit(x, sample_weight=w)
    np.testing.assert_allclose(mixture.means_, lloyd.cluster_centers_, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(mixture.predict(x), lloyd.predict(x))


@quiet
def test_em_with_a_small_fixed_covariance_ends_where_kmeans_does():
    x = blobs(k=3, apart=4.0)
    lloyd = KMeans(3, init=x[:3], n_init=1, tol=0).fit(x)
    away = []
    for eps in (1.0, 0.1, 0.01, 1e-4, 1e-8):
        mixture = GaussianMixture(
            3, covariance_type="fixed", covariance_init=eps, equal_weights=True, means_init=x[:3], tol=1e-12,
            max_iter=1000,
        ).fit(x)  # fmt: skip
        away.append(np.abs(mixture.means_ - lloyd.cluster_centers_).max())
        assert mixture.covariances_.tolist() == [eps] * 3
    assert away[-1] < 1e-9
    assert all(a >= b for a, b in pairwise(away))
    np.testing.assert_array_equal(mixture.predict(x), lloyd.labels_)


@quiet
def test_responsibilities_at_a_fixed_covariance_are_those_of_the_distances():
    x, eps = blobs(), 0.7
    model = GaussianMixture(3, covariance_type="fixed", covariance_init=eps, equal_weights=True, random_state=0).fit(x)
    squares = ((x[:, None, :] - model.means_) ** 2).sum(axis=2)
    right = np.exp(-squares / (2 * eps))
    np.testing.assert_allclose(model.predict_proba(x), right / right.sum(axis=1, keepdims=True), atol=1e-12)


@pytest.mark.parametrize("mu", [0.5, 1.0, 1.5, 2.0, 3.0])
def test_a_partition_sets_the_means_too_far_apart_and_the_mixture_does_not(mu):
    """Bryant & Williamson (1978), on chunks: centres go to +-E|X|, means to +-mu."""
    z = np.random.default_rng(0).standard_normal(100_000)
    x = da.from_array(np.concatenate([mu + z, mu - z, -mu + z, -mu - z])[:, None], chunks=(40_000, 1))
    expected = mu * erf(mu / sqrt(2)) + 2 * exp(-(mu**2) / 2) / sqrt(2 * pi)
    options = {"covariance_type": "EII", "equal_weights": True, "random_state": 0}
    partition = GaussianMixture(2, algorithm="cem", tol=0, **options).fit(x)
    density = GaussianMixture(2, tol=1e-11, max_iter=5000, accelerate="none", **options).fit(x)
    np.testing.assert_allclose(np.sort(partition.means_[:, 0]), [-expected, expected], atol=0.01)
    # The flatter the likelihood, the more the means of a sample vary.
    np.testing.assert_allclose(np.sort(density.means_[:, 0]), [-mu, mu], atol=0.02 if mu >= 1 else 0.1)


# --- classification, stochastic and annealed EM -----------------------------------------------------------------------


@quiet
@pytest.mark.parametrize("covariance_type", ["full", "EEE", "VVI", "VEV", "EII"])
@pytest.mark.parametrize("seed", range(3))
def test_the_classification_likelihood_climbs_to_a_fixed_point(covariance_type, seed):
    x = blobs(apart=2.0, seed=seed)
    model = GaussianMixture(
        3, covariance_type=covariance_type, algorithm="cem", random_state=seed, max_iter=500, **ONE_BY_ONE
    ).fit(x)
    climb = [record["objective"] for record in model.history_ if record["what"] == "cem"][:-1]
    assert model.history_[-1]["measure"] == "classification log-likelihood"
    assert min(np.diff(climb), default=0.0) >= -1e-9
    assert model.converged_
    assert model.n_passes_ == model.n_iter_ + 2  # one that looks, one that measures
    again = GaussianMixture(
        3, covariance_type=covariance_type, algorithm="cem", init_params=model.predict(x), max_iter=1
    ).fit(x)
    np.testing.assert_allclose(again.means_, model.means_, atol=1e-9)


def test_stochastic_em_returns_the_likeliest_model_that_it_met():
    x = blobs(apart=2.0)
    model = GaussianMixture(3, algorithm="sem", max_iter=25, random_state=0, reg_covar=0).fit(x)
    met = [record["objective"] for record in model.history_ if record["what"] == "sem"]
    assert len(met) == 26  # and a pass that measures what is returned
    assert model.n_passes_ == 27  # and one that looked
    assert model.lower_bound_ == pytest.approx(max(met), abs=1e-9)
    assert len(set(met[:-1])) == 25
    again = GaussianMixture(3, algorithm="sem", max_iter=25, random_state=0, reg_covar=0)
    np.testing.assert_array_equal(again.fit(da.from_array(x, chunks=(77, 2))).means_.round(9), model.means_.round(9))


@quiet
def test_annealing_leaves_a_bad_start():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(m, 0.3, (200, 1)) for m in (-4.0, 0.0, 4.0)])
    given = {"covariance_type": "fixed", "covariance_init": 0.09, "equal_weights": True, "max_iter": 400}
    bad = {"means_init": [[-4.4], [-4.0], [-3.6]], **given}
    plain = GaussianMixture(3, **bad).fit(x)
    cooled = GaussianMixture(3, temperature=tuple(np.geomspace(100, 1, 40)), **bad).fit(x)
    assert cooled.lower_bound_ > plain.lower_bound_ + 10
    np.testing.assert_allclose(np.sort(cooled.means_[:, 0]), [-4, 0, 4], atol=0.1)
    assert cooled.n_iter_ > 40


@quiet
@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_the_free_energy_climbs_at_any_one_temperature(temperature):
    model = GaussianMixture(3, temperature=temperature, random_state=0, max_iter=60, **ONE_BY_ONE).fit(blobs(apart=1.0))
    climb = [record["objective"] for record in model.history_ if record["what"] == "em"][:-1]
    assert model.history_[-1]["measure"] == "free energy"
    assert len(climb) > 5
    assert min(np.diff(climb)) >= -1e-9


def test_a_temperature_of_one_is_em_to_the_bit():
    x = blobs()
    plain, same = (GaussianMixture(3, random_state=0, **more).fit(x) for more in ({}, {"temperature": (1.0, 1.0)}))
    np.testing.assert_array_equal(plain.means_, same.means_)


def test_equal_weights_are_equal_and_no_parameters():
    x = load_iris().data
    free, equal = (GaussianMixture(3, equal_weights=e, random_state=0).fit(x) for e in (False, True))
    assert equal.weights_.tolist() == [1 / 3] * 3
    gained = free.bic() - equal.bic() + 2 * len(x) * (free.lower_bound_ - equal.lower_bound_)
    assert gained == pytest.approx(2 * np.log(len(x)))


# --- from one to the other --------------------------------------------------------------------------------------------


def test_kmeans_as_a_mixture_has_the_same_labels_and_the_best_variance():
    x = blobs()
    lloyd = KMeans(3, random_state=0).fit(x)
    model = lloyd.to_mixture()
    np.testing.assert_array_equal(model.predict(x), lloyd.labels_)
    assert model.covariances_[0] == pytest.approx(lloyd.inertia_ / x.size)
    # Classification EM of that family has come to rest there.
    stays = GaussianMixture(
        3, covariance_type="EII", equal_weights=True, algorithm="cem", init_params=model, tol=0, reg_covar=0
    ).fit(x)
    np.testing.assert_allclose(stays.means_, lloyd.cluster_centers_, atol=1e-6)
    assert np.isnan(model.lower_bound_)
    assert np.isfinite(model.score(x))
    with pytest.raises(InputError, match="pass X"):
        model.bic()


def test_a_mixture_as_kmeans_and_back(tmp_path):
    x = blobs()
    mixture = GaussianMixture(3, covariance_type="EII", equal_weights=True, random_state=0).fit(x)
    lloyd = mixture.to_kmeans()
    np.testing.assert_array_equal(lloyd.predict(x), mixture.predict(x))
    assert np.isnan(lloyd.inertia_)
    assert lloyd.score(x) < 0
    with pytest.raises(InputError, match="no variance"):
        lloyd.to_mixture()
    for model in (lloyd, KMeans(3, random_state=0).fit(x).to_mixture()):
        path = tmp_path / type(model).__name__
        model.save(path)
        np.testing.assert_array_equal(daskmix.load(path).predict(x), model.predict(x))


def test_a_fixed_covariance_is_saved_with_its_model(tmp_path):
    x = blobs()
    for own in (0.5, [0.5, 2.0], np.array([[1.0, 0.2], [0.2, 2.0]])):
        model = GaussianMixture(3, covariance_type="fixed", covariance_init=own, random_state=0).fit(x)
        model.save(tmp_path / "model", overwrite=True)
        again = daskmix.load(tmp_path / "model")
        np.testing.assert_array_equal(again.predict(x), model.predict(x))
        np.testing.assert_allclose(model.to_sklearn().score_samples(x), model.score_samples(x))
        assert model._n_parameters() == 2 + 6


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"covariance_type": "fixed"}, "go together"),
        ({"covariance_init": 1.0}, "go together"),
        ({"covariance_type": "fixed", "covariance_init": -1.0}, "must be positive"),
        ({"covariance_type": "fixed", "covariance_init": "wide"}, "must be positive"),
        ({"covariance_type": "fixed", "covariance_init": [[1.0, 2.0], [2.0, 1.0]]}, "must be positive"),
        ({"covariance_type": "fixed", "covariance_init": [1.0, 1.0, 1.0]}, r"\(2,\)"),
        ({"covariance_type": "fixed", "covariance_init": 1.0, "reg_covar": 0.1}, "leave precisions_init and reg_covar"),
        ({"equal_weights": True, "weights_init": [0.5, 0.5]}, "pass one of them"),
        ({"algorithm": "vem"}, "algorithm"),
        ({"temperature": 0.0}, "must be positive"),
        ({"temperature": ()}, "must be positive"),
        ({"temperature": "hot"}, "must be positive"),
        ({"algorithm": "cem", "temperature": 2.0}, "has no temperature"),
    ],
)
def test_what_does_not_go_together_is_refused_at_the_door(options, told):
    with pytest.raises(InputError, match=told):
        GaussianMixture(2, **options).fit(blobs())


def test_select_wants_likelihoods():
    with pytest.raises(InputError, match="leave algorithm"):
        daskmix.select(blobs(), n_components=(1, 2), algorithm="cem")
    x = blobs(apart=6.0)
    chosen = daskmix.select(x, n_components=(2, 3, 4), covariance_type="fixed", covariance_init=1.0, random_state=0)
    assert chosen.best_.n_components == 3
