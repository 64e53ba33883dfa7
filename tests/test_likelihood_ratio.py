"""Whether rows need one component more: the bootstrap likelihood ratio test, with replicates drawn as rows are read."""

import dask
import dask.array as da
import numpy as np
import pytest
from fake_gpu import gpu
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Peer
from test_missing import with_gaps

from daskmix import BayesianGaussianMixture, GaussianMixture, Run, testing
from daskmix.algorithms.contrasting import splits
from daskmix.algorithms.resampling import Redrawn
from daskmix.block import Block, table
from daskmix.derived import Draws
from daskmix.errors import CollapsedComponentError, InputError
from daskmix.estimators.mixture_start import MCLUST
from daskmix.fitting import Fit
from daskmix.kernels import reference
from daskmix.sampling import Summarise


def clusters(k, n=300, d=2, apart=6.0, seed=0):
    """Balls in a row."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) + apart * (np.arange(n) % k)[:, None] * np.eye(d)[0]


def fitted(k, x, **options):
    return GaussianMixture(k, random_state=0, **options).fit(x)


def in_chunks(x, rows):
    return da.from_array(x, chunks=(rows, x.shape[1]))


def the_same(a, b, **near):
    for name in ("statistic", "p_value", "replicates", "log_likelihood"):
        np.testing.assert_allclose(a[name], b[name], **near)


# --- the statistic --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_the_statistic_is_twice_what_scikit_learn_gains_by_a_component(kind):
    x = clusters(3, apart=6.0)
    model = fitted(2, x, covariance_type=kind)
    options = {"covariance_type": kind, "tol": 1e-7, "max_iter": 1000, "reg_covar": 1e-9}
    few = Peer(2, means_init=model.means_, precisions_init=model.precisions_, **options).fit(x)  # from the same start
    more = Peer(3, random_state=0, **options).fit(x)
    right = [len(x) * peer.score(x) for peer in (few, more)]
    found = model.likelihood_ratio(x, n_replicates=1)
    np.testing.assert_allclose(found.log_likelihood, right, atol=0.02)
    assert found.statistic.item() == pytest.approx(2 * (right[1] - right[0]), abs=0.05)
    assert found.n_components.values.tolist() == [2, 3]


def test_clusters_side_by_side_along_their_short_axis_are_found():
    x = clusters(2, apart=4.0) @ np.array([[0.0, 1.0], [20.0, 0.0]])
    found = fitted(1, x).likelihood_ratio(x, n_replicates=1)
    peer = Peer(2, n_init=5, tol=1e-9, means_init=[[0, 0], [0, 4]], random_state=0).fit(x)
    assert found.log_likelihood[1].item() >= 300 * peer.score(x) - 0.02


def test_whole_weights_are_repeats():
    x, w = clusters(2, 120, apart=3.0), np.arange(120) % 4
    weighted = GaussianMixture(1, random_state=0).fit(x, sample_weight=w)
    found = weighted.likelihood_ratio(x, w, n_replicates=1)
    repeated = np.repeat(x, w, axis=0)
    assert found.statistic.item() == pytest.approx(
        fitted(1, repeated).likelihood_ratio(repeated, n_replicates=1).statistic.item(), abs=1e-3
    )


def test_the_p_value_is_that_of_any_multiple_of_the_weights():
    x = clusters(2, 120, apart=2.0)
    model = fitted(1, x)
    once, thrice = (model.likelihood_ratio(x, np.full(120, w), n_replicates=9) for w in (1.0, 3.0))
    assert once.p_value == thrice.p_value
    np.testing.assert_allclose(thrice.replicates, 3 * once.replicates, atol=0.1)


# --- the replicates -------------------------------------------------------------------------------------------------


def test_a_replicate_may_be_cut_anywhere():
    x = clusters(2, 40)
    question = Redrawn(Summarise(2), Draws(fitted(2, x)._model(), 3))
    for at in (0, 13, 40):
        testing.check_reduction(question, testing.block_of(x), at, reference)


def test_a_replicate_has_the_type_the_weights_and_the_gaps_of_the_rows():
    x, w = with_gaps(100, 3).astype(np.float32), np.arange(100.0)
    draws = Draws(fitted(1, np.nan_to_num(x))._model(), 3)
    made = Redrawn(Summarise(3), draws).made(Block(x, w, table(0, 100, 100), gaps=True))
    assert made.x.dtype == np.float32
    np.testing.assert_array_equal(made.w, w)
    np.testing.assert_array_equal(made.x, np.where(np.isnan(x), np.nan, draws.rows(np.arange(100)).astype(np.float32)))


def test_of_rows_on_a_device_nothing_comes_to_the_host_but_the_answer():
    draws = Draws(fitted(2, clusters(2))._model(), 3)
    for n in (60, 600):
        here = Block(clusters(2, n), np.ones(n), table(0, n, n))
        gpu.forget()
        answer = Redrawn(Summarise(2), draws).map(here.moved(gpu), reference)
        assert sum(gpu.to_host) < 200
        testing.assert_same_answer(answer, Redrawn(Summarise(2), draws).map(here, reference), 1e-12, 1e-12)


def test_replicates_do_not_depend_on_the_chunks_nor_on_who_computes():
    x = clusters(2, apart=4.0)
    model = fitted(1, x)
    found = model.likelihood_ratio(x, n_replicates=5)
    for rows in (300, 70):
        the_same(model.likelihood_ratio(in_chunks(x, rows), n_replicates=5), found, rtol=1e-4, atol=1e-3)
    threads = model.likelihood_ratio(in_chunks(x, 70), n_replicates=5)
    with dask.config.set(scheduler="synchronous"):
        the_same(model.likelihood_ratio(in_chunks(x, 70), n_replicates=5), threads, rtol=0)


def test_the_same_seed_gives_the_same_answer():
    x = clusters(1, 100)
    found, again = (fitted(1, x).likelihood_ratio(x, n_replicates=4) for _ in range(2))
    the_same(found, again, rtol=0)
    other = GaussianMixture(1, random_state=1).fit(x).likelihood_ratio(x, n_replicates=4)
    assert not np.isclose(other.replicates, found.replicates).any()
    more = fitted(1, x).likelihood_ratio(x, n_replicates=6)
    np.testing.assert_allclose(more.replicates[:4], found.replicates, rtol=1e-6)


def test_x_and_replicates_are_fitted_alike():
    x = clusters(2, 200, apart=3.0)
    model = fitted(1, x)
    found = model.likelihood_ratio(x, n_replicates=2)
    drawn = Draws(model._model(), model.seed_ + 1).rows(np.arange(200))
    own = model.likelihood_ratio(drawn, n_replicates=1)
    assert own.statistic.item() == pytest.approx(found.replicates[0].item(), abs=1e-6)


# --- the test -------------------------------------------------------------------------------------------------------


def test_one_component_is_rejected_for_two_clusters_and_two_are_not():
    x = clusters(2, 200)
    one, two = (fitted(k, x).likelihood_ratio(x, n_replicates=39) for k in (1, 2))
    assert one.p_value == 1 / 40
    assert two.p_value > 0.05
    for found in (one, two):
        beyond = (found.replicates >= found.statistic).sum().item()
        assert found.p_value == (1 + beyond) / 40


def test_p_values_of_rows_of_the_model_are_spread_evenly():
    p = []
    for seed in range(40):
        x = np.random.default_rng(seed).standard_normal((60, 1))
        p.append(fitted(1, x, max_iter=40).likelihood_ratio(x, n_replicates=9).p_value.item())
    # Uniform over ten values: beyond any of these bounds for one choice of seeds in a thousand.
    assert sum(value <= 0.1 for value in p) <= 11
    assert 0.4 < np.mean(p) < 0.7


def test_a_component_of_any_structure_can_be_split():
    x = clusters(3, 150, d=3)
    for name in MCLUST:
        model = fitted(2, x, covariance_type=name)
        found = splits(model._model(), np.zeros(3))
        assert len(found) == 6
        for split in found:
            assert split.shape == (3, 3)
            np.testing.assert_allclose(split.weights @ split.means, model.weights_ @ model.means_, atol=1e-9)
        ratio = model.likelihood_ratio(x, n_replicates=1)
        assert ratio.statistic > 0, name


@pytest.mark.parametrize("options", [{"covariance_type": "fixed", "covariance_init": 1.0}, {"equal_weights": True}])
def test_what_is_the_same_for_all_components_is_so_for_one_more(options):
    x = clusters(2, 200)
    one, two = (fitted(k, x, **options).likelihood_ratio(x, n_replicates=19) for k in (1, 2))
    assert one.p_value == 1 / 20
    assert two.p_value > 0.05


@pytest.mark.parametrize("name", ["VVV", "VVI"])
def test_halves_have_the_moments_of_the_whole(name):
    model = fitted(2, clusters(2, 100, d=3), covariance_type=name)._model()

    def second(mixture):
        dense = mixture.covariance.dense(*mixture.shape)
        return np.einsum("k,kde->de", mixture.weights, dense + mixture.means[:, :, None] * mixture.means[:, None])

    for split in splits(model, np.zeros(3)):
        difference = second(split) - second(model)
        np.testing.assert_allclose(np.diagonal(difference), 0, atol=1e-9)
        if name == "VVV":
            np.testing.assert_allclose(difference, 0, atol=1e-9)


def test_noise_is_no_component():
    x = clusters(2, 300, apart=8.0)
    x[:30] = np.random.default_rng(1).uniform(-30, 40, (30, 2))
    one, two = (fitted(k, x, noise=True).likelihood_ratio(x, n_replicates=19) for k in (1, 2))
    assert one.p_value == 1 / 20
    assert two.p_value > 0.05


# --- what it costs --------------------------------------------------------------------------------------------------


def test_all_fits_share_their_passes(monkeypatch):
    x, reads, ended = clusters(2, apart=3.0), [], []

    def read(block):
        reads.append(len(block))
        return block

    def run(self, *given):
        ended.extend(plain(self, *given))
        return ended

    model, plain = fitted(1, x, run=Run(cache="off")), Fit.run
    monkeypatch.setattr(Fit, "run", run)
    lazy = in_chunks(x, 100).map_blocks(read, meta=np.empty((0, 2)))
    found = model.likelihood_ratio(lazy, n_replicates=6)
    assert found.attrs["n_passes"] == max(state.passes for state in ended)
    assert len(ended) == 7
    assert reads == [100] * 3 * found.attrs["n_passes"]


def test_chunks_are_decoded_once_and_each_pass_is_told():
    x, reads, told = clusters(2, apart=3.0), [], []

    def read(block):
        reads.append(len(block))
        return block

    model = fitted(1, x).set_params(run=Run(callbacks=(told.append,)))
    lazy = in_chunks(x, 100).map_blocks(read, meta=np.empty((0, 2)))
    found = model.likelihood_ratio(lazy, n_replicates=2)
    assert reads == [100] * 3
    assert [record["pass"] for record in told] == list(range(1, found.attrs["n_passes"] + 1))


# --- missing values and refusals ------------------------------------------------------------------------------------


def test_rows_that_are_left_out_count_nowhere():
    x = clusters(2, 200, apart=3.0)
    x[::5, 0] = np.nan
    model = fitted(1, x, missing="drop")
    there = x[~np.isnan(x).any(axis=1)]
    dropped, without = (model.likelihood_ratio(rows, n_replicates=9) for rows in (x, there))
    assert dropped.statistic.item() == pytest.approx(without.statistic.item(), abs=1e-3)
    # As many rows, though others are drawn.
    assert 0.3 < dropped.replicates.mean() / without.replicates.mean() < 3


def test_rows_with_gaps_are_tested_by_what_they_have():
    x = clusters(2, 300)
    x[np.random.default_rng(0).random(x.shape) < 0.2] = np.nan
    one, two = (fitted(k, x, missing="em").likelihood_ratio(x, n_replicates=19) for k in (1, 2))
    assert one.p_value == 1 / 20
    assert two.p_value > 0.05
    some = (~np.isnan(x).all(axis=1)).sum()
    assert one.log_likelihood[0].item() == pytest.approx(some * fitted(1, x, missing="em").score(x), abs=0.01)


def test_what_has_no_likelihood_ratio_says_so():
    x = clusters(2, 60)
    with pytest.raises(InputError, match="n_replicates=0 must be a whole number, at least 1"):
        fitted(1, x).likelihood_ratio(x, n_replicates=0)
    with pytest.raises(ValueError, match="not fitted"):
        GaussianMixture(1).likelihood_ratio(x)
    with pytest.raises(InputError, match="without a prior"):
        fitted(2, x, prior="default").likelihood_ratio(x)
    with pytest.raises(InputError, match="fixed= holds parameters"):
        fitted(1, x, fixed=["means"], means_init=np.zeros((1, 2))).likelihood_ratio(x)
    assert not hasattr(BayesianGaussianMixture, "likelihood_ratio")


def test_a_component_that_collapses_is_named():
    x = np.repeat([[0.0], [1.0]], 30, axis=0)
    with pytest.raises(CollapsedComponentError, match="2 components cannot be fitted"):
        fitted(1, x, reg_covar=0).likelihood_ratio(x, n_replicates=2)


def test_a_fit_without_iterations_tests_nothing():
    x = np.random.default_rng(0).standard_normal((60, 2))
    with pytest.warns(ConvergenceWarning):
        unfitted = GaussianMixture(2, max_iter=0, random_state=0).fit(x)
    with pytest.raises(InputError, match="max_iter=0"):
        unfitted.likelihood_ratio(x)
