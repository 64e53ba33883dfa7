"""Whoever has seen enough interrupts the kernel, and has a model."""

import os
import signal

import numpy as np
import pytest

from daskmix import BayesianGaussianMixture, BisectingKMeans, GaussianMixture, KMeans, Run, select
from daskmix.errors import InputError

FITS = {
    "k-means": lambda run: KMeans(5, n_init=2, init="random", accelerate="none", tol=0, random_state=0, run=run),
    "k-means, accelerated": lambda run: KMeans(5, sample_size=200, tol=0, random_state=0, run=run),
    "gmm": lambda run: GaussianMixture(3, tol=0, n_init=2, random_state=0, run=run),
    "gmm, accelerated": lambda run: GaussianMixture(3, tol=0, sample_size=200, random_state=0, run=run),
    "gmm, stochastic": lambda run: GaussianMixture(3, algorithm="sem", random_state=0, run=run),
    "bayesian": lambda run: BayesianGaussianMixture(4, tol=0, random_state=0, run=run),
    "bisecting": lambda run: BisectingKMeans(6, random_state=0, run=run),
}


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(3)
    return np.concatenate([rng.normal(m, 1.2, (700, 2)) for m in (-2, 0, 2)])


def interrupting(in_pass):
    """As Ctrl-C does it, in this pass."""

    def hook(record):
        if record["pass"] == in_pass:
            os.kill(os.getpid(), signal.SIGINT)

    return Run(callbacks=(hook,))


@pytest.mark.parametrize("make", FITS.values(), ids=FITS)
@pytest.mark.parametrize("in_pass", [3, 5])
def test_an_interrupted_fit_leaves_a_model_that_can_be_used(make, in_pass, X, tmp_path):
    model = make(interrupting(in_pass))
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert not model.converged_
    assert model.n_passes_ == len(model.history_) == in_pass
    labels = model.predict(X)
    assert labels.shape == (len(X),)
    assert len(np.unique(labels)) > 1
    assert np.isfinite(model.score(X))
    model.save(tmp_path / "partial.zarr")


@pytest.mark.parametrize("name", ["k-means", "gmm", "bayesian"])
def test_what_was_not_measured_is_not_known(name, X):
    model = FITS[name](interrupting(4))
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert np.isnan(model.inertia_ if name == "k-means" else model.lower_bound_)
    if name == "gmm":
        with pytest.raises(InputError, match="pass X"):
            model.bic()
        assert np.isfinite(model.bic(X))


def test_a_partial_model_goes_on_where_it_was(X):
    cut = GaussianMixture(3, tol=0, max_iter=8, random_state=0, run=interrupting(5))
    with pytest.raises(KeyboardInterrupt):
        cut.fit(X)
    whole = GaussianMixture(3, tol=0, max_iter=8, random_state=0).fit(X)
    cut.set_params(run=None, warm_start=True, max_iter=whole.n_iter_ - cut.n_iter_).fit(X)
    np.testing.assert_allclose(cut.means_, whole.means_, rtol=1e-10)


def test_without_a_model_there_is_nothing_left(X):
    model = KMeans(3, run=interrupting(1))
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert not hasattr(model, "cluster_centers_")
    with pytest.raises(KeyboardInterrupt):
        select(X, (2, 3), "full", random_state=0, run=interrupting(2))
