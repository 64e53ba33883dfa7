"""The Bayesian mixture where values are missing: coordinate ascent by brute force, and the laws of every fit here."""

import warnings
from dataclasses import dataclass

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import betaln, digamma, gammaln, logsumexp
from sklearn.exceptions import ConvergenceWarning
from test_missing import with_gaps

from daskmix import BayesianGaussianMixture, load

TYPES = ("full", "tied", "diag", "spherical")
PRIORS = ("dirichlet_process", "dirichlet_distribution")
PARAMETERS = ("weight_concentration_", "mean_precision_", "means_", "degrees_of_freedom_", "covariances_")
every_type = pytest.mark.parametrize("kind", TYPES)
every_prior = pytest.mark.parametrize("prior", PRIORS)
LOG_2PI = np.log(2 * np.pi)


def fitted(x, k, weights=None, **options):
    """Without smoothing, and cut short where it is not said otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = BayesianGaussianMixture(k, **{"reg_covar": 0.0, "tol": 0.0, "missing": "em", **options})
        return model.fit(x, sample_weight=weights)


def labels_for(x, k=2):
    """By the mean of what is there."""
    means = np.nanmean(x, axis=1)
    return np.searchsorted(np.quantile(means, np.linspace(0, 1, k + 1)[1:-1]), means)


# --- coordinate ascent, row by row -----------------------------------------------------------------------------------


@dataclass
class Brute:
    """q(weights) q(means, precisions), each precision Wishart(scale, freedom), in one dense form for every type.

    Written from Bishop (2006), section 10.2, with x_m, what is missing of a row, among the hidden variables.
    """

    kind: str
    concentration: np.ndarray  # (k,) or (2, k)
    counts: np.ndarray  # (k,)
    means: np.ndarray  # (k, d)
    freedom: np.ndarray  # (k,)
    scale: np.ndarray  # (k, d, d)

    @staticmethod
    def of(model):
        """What was fitted, and its prior as k components with the same."""
        (k, d), kind = model.means_.shape, model.covariance_type
        freedom = np.broadcast_to(model.degrees_of_freedom_, k)
        covariances = np.array(
            [_dense(model.covariances_[j] if kind != "tied" else model.covariances_, d) for j in range(k)]
        )
        scale = np.linalg.inv(covariances) / freedom[:, None, None]
        found = Brute(kind, model.weight_concentration_, model.mean_precision_, model.means_, freedom, scale)
        alpha, each = model.weight_concentration_prior_, np.ones(k)
        process = model.weight_concentration_.ndim == 2
        prior = Brute(
            kind, np.stack([each, alpha * each]) if process else alpha * each, model.mean_precision_prior_ * each,
            np.tile(model.mean_prior_, (k, 1)), model.degrees_of_freedom_prior_ * each,
            np.linalg.inv(np.tile(_dense(model.covariance_prior_, d), (k, 1, 1))),
        )  # fmt: skip
        return found, prior

    def log_pieces(self):
        """E ln v and E ln (1 - v) of a process."""
        a, b = self.concentration
        return digamma(a) - digamma(a + b), digamma(b) - digamma(a + b)

    def log_weights(self):
        a = self.concentration
        if a.ndim == 1:
            return digamma(a) - digamma(a.sum())
        taken, left = self.log_pieces()
        return np.array([taken[j] + left[:j].sum() for j in range(len(taken))])

    def log_dets(self):
        """E ln |precision|, Bishop (10.65)."""
        d = self.means.shape[1]
        halves = sum(digamma((self.freedom + 1 - i) / 2) for i in range(1, d + 1))
        return halves + d * np.log(2) + np.linalg.slogdet(self.scale)[1]

    def log_norms(self):
        """ln B(scale, freedom), Bishop (B.79)."""
        d = self.means.shape[1]
        gammas = sum(gammaln((self.freedom + 1 - i) / 2) for i in range(1, d + 1))
        rest = self.freedom * d / 2 * np.log(2) + d * (d - 1) / 4 * np.log(np.pi)
        return -self.freedom / 2 * np.linalg.slogdet(self.scale)[1] - rest - gammas

    def log_weight_norm(self):
        a = self.concentration
        return gammaln(a.sum()) - gammaln(a).sum() if a.ndim == 1 else -betaln(*a).sum()

    def hidden(self, x):
        """ln rho (n, k), and of q(x_m | k) the row completed (n, k, d) and the covariance (n, k, d, d)."""
        (n, d), k = x.shape, len(self.means)
        log_rho, full, spread = np.zeros((n, k)), np.zeros((n, k, d)), np.zeros((n, k, d, d))
        constants = self.log_weights() + 0.5 * (self.log_dets() - d * LOG_2PI - d / self.counts)
        for i, row in enumerate(x):
            o, m = np.flatnonzero(~np.isnan(row)), np.flatnonzero(np.isnan(row))
            for j in range(k):
                precision = self.freedom[j] * self.scale[j]
                left = np.linalg.inv(precision[np.ix_(m, m)])
                away = np.zeros(d)
                away[o] = row[o] - self.means[j, o]
                away[m] = -left @ precision[np.ix_(m, o)] @ away[o]
                # exp of a quadratic, integrated over x_m: its value at the mean times (2 pi)^(m/2) |left|^(1/2).
                volume = len(m) * LOG_2PI + np.linalg.slogdet(left)[1]
                log_rho[i, j] = constants[j] - 0.5 * away @ precision @ away + 0.5 * volume
                full[i, j] = self.means[j] + away
                spread[i, j][np.ix_(m, m)] = left
        return log_rho, full, spread

    def improved(self, x, w, prior):
        """The best q(parameters) for the best q(hidden) of these, and the bound, all of it."""
        log_rho, full, spread = self.hidden(x)
        share = np.exp(log_rho - logsumexp(log_rho, axis=1, keepdims=True))
        new = prior.learned(w[:, None] * share, full, spread)
        return new, new.bound(w, share, full, spread, np.isnan(x).sum(axis=1), prior)

    def learned(self, share, full, spread):
        """From these as the prior: Bishop (10.58 to 10.63)."""
        mass = share.sum(axis=0)
        counts, freedom = self.counts + mass, self.freedom + mass
        means = (self.counts[:, None] * self.means + np.einsum("nk,nkd->kd", share, full)) / counts[:, None]
        inverse = np.linalg.inv(self.scale) + np.einsum("nk,nkde->kde", share, spread)
        for j in range(len(mass)):
            inverse[j] += (share[:, j, None] * full[:, j]).T @ full[:, j]
            inverse[j] += self.counts[j] * np.outer(self.means[j], self.means[j]) - counts[j] * np.outer(
                means[j], means[j]
            )
        if self.kind == "tied":
            inverse, freedom = np.tile(inverse.mean(axis=0), (len(mass), 1, 1)), np.full(len(mass), freedom.mean())
        elif self.kind != "full":
            inverse = np.array([np.diag(np.diag(own)) for own in inverse])
        if self.kind == "spherical":
            inverse = np.array([np.trace(own) / len(own) * np.eye(len(own)) for own in inverse])
        later = np.array([mass[j + 1 :].sum() for j in range(len(mass))])
        concentration = self.concentration + (mass if self.concentration.ndim == 1 else np.stack([mass, later]))
        return Brute(self.kind, concentration, counts, means, freedom, np.linalg.inv(inverse))

    def bound(self, w, share, full, spread, lacking, prior):
        """E ln p(x, hidden, parameters) - E ln q: Bishop (10.70 to 10.77), and the entropy of q(x_m | k)."""
        d, total = full.shape[2], 0.0
        constants = self.log_weights() + 0.5 * (self.log_dets() - d * LOG_2PI - d / self.counts)
        for i in range(len(full)):
            for j in np.flatnonzero(share[i] > 0):
                away = full[i, j] - self.means[j]
                square = self.freedom[j] * np.trace(self.scale[j] @ (np.outer(away, away) + spread[i, j]))
                m = np.flatnonzero(np.diag(spread[i, j]) > 0)
                entropy = 0.5 * (lacking[i] * (1 + LOG_2PI) + np.linalg.slogdet(spread[i, j][np.ix_(m, m)])[1])
                total += w[i] * share[i, j] * (constants[j] - 0.5 * square + entropy - np.log(share[i, j]))
        return total - self.divergence(prior)

    def divergence(self, prior):
        """KL(q(parameters) | p)."""
        d, found = self.means.shape[1], self.log_weight_norm() - prior.log_weight_norm()
        if self.concentration.ndim == 1:
            found += ((self.concentration - prior.concentration) * self.log_weights()).sum()
        else:
            found += ((self.concentration - prior.concentration) * np.stack(self.log_pieces())).sum()
        away = self.means - prior.means
        ratio = prior.counts / self.counts
        apart = prior.counts * self.freedom * np.einsum("kd,kde,ke->k", away, self.scale, away)
        found += 0.5 * (d * (ratio - np.log(ratio) - 1) + apart).sum()
        traces = np.einsum("kde,ked->k", np.linalg.inv(prior.scale), self.scale)
        wishart = self.log_norms() - prior.log_norms() + 0.5 * (self.freedom - prior.freedom) * self.log_dets()
        return found + (wishart + 0.5 * self.freedom * (traces - d)).sum()

    def left_out(self, mass):
        """As the prior: what the bound of an estimator is without, for it never changes."""
        k, d = self.means.shape
        pi = k * d * (d - 1) / 4 * np.log(np.pi)
        scales = self.log_norms().sum() + pi + 0.5 * d * np.log(self.counts).sum()
        return self.log_weight_norm() + scales - 0.5 * mass * d * LOG_2PI


def _dense(covariance, d):
    covariance = np.asarray(covariance)
    return covariance if covariance.ndim == 2 else np.diag(np.broadcast_to(covariance, d))


@every_type
@every_prior
@pytest.mark.parametrize("steps", [1, 5])
def test_it_is_coordinate_ascent_by_brute_force(kind, prior, steps):
    x = with_gaps(50, 3, 0.35, seed=3)
    w = np.random.default_rng(0).integers(1, 4, 50).astype(float)
    options = {"covariance_type": kind, "weight_concentration_prior_type": prior, "init_params": labels_for(x, 3)}
    now, before = Brute.of(fitted(da.from_array(x, chunks=(20, 3)), 3, w, max_iter=0, **options))
    model = fitted(da.from_array(x, chunks=(20, 3)), 3, w, max_iter=steps, **options)
    bounds = []
    for _ in range(steps):
        now, bound = now.improved(x, w, before)
        bounds.append(bound - before.left_out(w.sum()))
    found, _ = Brute.of(model)
    for name in ("concentration", "counts", "means", "freedom", "scale"):
        np.testing.assert_allclose(getattr(found, name), getattr(now, name), rtol=1e-8, atol=1e-10, err_msg=name)
    assert model.lower_bound_ == pytest.approx(bounds[-1], rel=1e-10)
    objectives = [record["objective"] for record in model.history_ if record["what"] == "variational"]
    np.testing.assert_allclose(np.array(objectives) * w.sum(), bounds, rtol=1e-10)
    log_rho, full, _ = now.hidden(x)
    share = np.exp(log_rho - logsumexp(log_rho, axis=1, keepdims=True))
    np.testing.assert_allclose(model.score_samples(x), logsumexp(log_rho, axis=1), rtol=1e-9)
    np.testing.assert_allclose(model.predict_proba(x), share, atol=1e-9)
    np.testing.assert_array_equal(model.predict(x), log_rho.argmax(axis=1))
    np.testing.assert_allclose(model.impute(x), np.einsum("nk,nkd->nd", share, full), rtol=1e-9, atol=1e-9)
    assert model.score(x, sample_weight=w) == pytest.approx(np.average(logsumexp(log_rho, axis=1), weights=w))


@every_type
@every_prior
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 4), st.floats(0.05, 0.6), st.booleans(),
    st.sampled_from([0.0, "auto", 0.3]),
)  # fmt: skip
def test_the_bound_never_falls(kind, prior, seed, k, d, share, weighted, reg_covar):
    rng = np.random.default_rng(seed)
    x = with_gaps(60, d, share, seed) * rng.uniform(0.1, 10, d)
    x[rng.random(60) < 0.1] = np.nan
    model = fitted(
        x, k, rng.integers(0, 4, 60) + 0.5 if weighted else None, covariance_type=kind, reg_covar=reg_covar,
        weight_concentration_prior_type=prior, max_iter=15, init_params="random", random_state=seed % 1000,
    )  # fmt: skip
    bounds = np.array([record["objective"] for record in model.history_ if record["what"] == "variational"])
    assert len(bounds) == 15
    assert (np.diff(bounds) >= -1e-9 * np.abs(bounds[1:]).max(initial=1.0)).all()


# --- laws -------------------------------------------------------------------------------------------------------------


@every_type
def test_where_whole_rows_are_missing_it_is_drop(kind):
    x = np.nan_to_num(with_gaps(300, 3), nan=1.5)
    x[::7] = np.nan
    em, drop = (fitted(x, 3, covariance_type=kind, missing=way, max_iter=10, random_state=0) for way in ("em", "drop"))
    for name in (*PARAMETERS, "lower_bound_", "covariance_prior_"):
        np.testing.assert_array_equal(getattr(em, name), getattr(drop, name))
    np.testing.assert_array_equal(em.predict(x), drop.predict(x))
    assert (em.predict(x)[::7] == -2).all()
    assert np.isnan(em.score_samples(x)[::7]).all()


@every_type
def test_where_nothing_is_missing_it_is_the_plain_fit_to_the_bit(kind):
    x = np.nan_to_num(with_gaps(300, 3), nan=1.5)
    em, plain = (
        fitted(x, 3, covariance_type=kind, missing=way, max_iter=10, random_state=0) for way in ("em", "raise")
    )
    for name in (*PARAMETERS, "lower_bound_"):
        np.testing.assert_array_equal(getattr(em, name), getattr(plain, name))
    np.testing.assert_array_equal(em.predict_proba(x), plain.predict_proba(x))


@every_type
def test_an_offset_changes_nothing_but_the_means(kind):
    x = np.round(with_gaps(300, 3) * 64) / 64  # so that the shift is exact
    options = {"covariance_type": kind, "reg_covar": "auto", "max_iter": 20, "init_params": labels_for(x)}
    here, there = (fitted(rows, 2, **options) for rows in (x, x + 1e7))
    np.testing.assert_array_equal(here.predict(x), there.predict(x + 1e7))
    np.testing.assert_allclose(there.covariances_, here.covariances_, rtol=1e-6, atol=1e-7)
    assert there.lower_bound_ == pytest.approx(here.lower_bound_, rel=1e-7)


@every_type
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_a_unit_changes_the_bound_by_its_logarithm_alone(kind, scale):
    x = with_gaps(300, 3)
    options = {"covariance_type": kind, "reg_covar": "auto", "max_iter": 20, "init_params": labels_for(x)}
    here, there = (fitted(rows, 2, **options) for rows in (x, x * scale))
    np.testing.assert_array_equal(here.predict(x), there.predict(x * scale))
    np.testing.assert_allclose(there.covariances_, here.covariances_ * scale**2, rtol=1e-8, atol=1e-9 * scale**2)
    np.testing.assert_allclose(there.weight_concentration_, here.weight_concentration_, rtol=1e-9)
    # A density for each value that is there, and what the bound leaves out of the prior: 2 components, freedom 3.
    values = (~np.isnan(x)).sum() + 2 * 3 * 3
    assert there.lower_bound_ == pytest.approx(here.lower_bound_ - values * np.log(scale), rel=1e-9)


@every_type
def test_whole_weights_are_repeats(kind):
    x = with_gaps(150, 3)
    times = np.random.default_rng(0).integers(1, 4, len(x))
    options = {"covariance_type": kind, "max_iter": 10}
    weighted = fitted(x, 2, times, init_params=labels_for(x), **options)
    repeated = fitted(x.repeat(times, 0), 2, init_params=labels_for(x).repeat(times), **options)
    for name in (*PARAMETERS, "lower_bound_"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-8, atol=1e-10)


@every_type
def test_chunks_without_gaps_may_lie_beside_others(kind):
    x = with_gaps(2000, 3)
    x[500:] = np.nan_to_num(x[500:], nan=1.5)
    options = {"covariance_type": kind, "max_iter": 10, "init_params": labels_for(x)}
    whole, cut = (fitted(da.from_array(x, chunks=(size, 3)), 2, **options) for size in (2000, 250))
    for name in (*PARAMETERS, "lower_bound_"):
        np.testing.assert_allclose(getattr(cut, name), getattr(whole, name), rtol=1e-8, atol=1e-10)


def test_components_that_no_rows_need_lose_their_weight():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((4000, 3)) + 10 * rng.integers(0, 3, (4000, 1))
    x[rng.random(x.shape) < 0.3] = np.nan
    options = {"weight_concentration_prior": 1e-3, "max_iter": 300, "tol": 1e-7, "random_state": 0}
    model = BayesianGaussianMixture(8, missing="em", **options).fit(da.from_array(x, chunks=(1000, 3)))
    assert (model.weights_ > 0.01).sum() == 3
    np.testing.assert_allclose(np.sort(model.means_[model.weights_ > 0.01].mean(axis=1)), [0, 10, 20], atol=0.2)


def test_a_saved_model_is_the_same_and_goes_on(tmp_path):
    x = with_gaps(200, 3)
    options = {"init_params": labels_for(x)}
    fitted(x, 2, max_iter=3, **options).save(tmp_path / "model.zarr")
    again = load(tmp_path / "model.zarr")
    assert again.missing == "em"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        again.set_params(warm_start=True, max_iter=5).fit(x)
    whole = fitted(x, 2, max_iter=8, **options)
    for name in (*PARAMETERS, "lower_bound_"):
        np.testing.assert_allclose(getattr(again, name), getattr(whole, name), rtol=1e-8, atol=1e-10)


def test_answers_come_in_kind():
    x = with_gaps(90, 2)
    x[4] = np.nan
    field = xr.Dataset({name: (("time", "x"), x[:, j].reshape(9, 10)) for j, name in enumerate("uv")}).chunk(time=3)
    model = fitted(field, 2, max_iter=10, random_state=0)
    found = model.impute(field)
    named = pd.DataFrame(x, columns=["u", "v"])
    assert found.dims == ("time", "x", "feature")
    assert found.feature.values.tolist() == ["u", "v"]
    assert found.chunks is not None
    np.testing.assert_allclose(found.values.reshape(-1, 2), model.impute(named), rtol=1e-12)
    assert model.predict(field).isnull().sum() == 1
