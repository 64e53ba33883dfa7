"""What is held stays, and the rest is what EM makes of it: laws of `fixed`."""

import dask.array as da
import numpy as np
import pytest
from sklearn.mixture import GaussianMixture as Peer

import daskmix
from daskmix import GaussianMixture
from daskmix.errors import InputError
from daskmix.estimators.mixture_start import MCLUST
from daskmix.given import Held

RNG = np.random.default_rng(0)
TRUTH = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 8.0]])
X = np.concatenate(
    [RNG.normal(mean, scale, (n, 2)) for mean, scale, n in zip(TRUTH, (1, 1.5, 0.5), (600, 300, 100), strict=False)]
)
PLAIN = {"accelerate": "none", "reg_covar": 0, "tol": 1e-10, "max_iter": 3000, "random_state": 0}


def dense_em(x, weights, means, covariances, held, steps=3000):
    """EM as it is written in books, with what is held put back after every M-step."""
    start = weights.copy(), means.copy(), covariances.copy()
    for _ in range(steps):
        peer = Peer(len(weights), weights_init=weights, means_init=means)
        peer.weights_, peer.means_, peer.covariances_ = weights, means, covariances
        peer.precisions_cholesky_ = np.linalg.cholesky(np.linalg.inv(covariances))
        share = peer.predict_proba(x)
        mass = share.sum(axis=0)
        free = ~held["weights"]
        rest = 1 - start[0][held["weights"]].sum()
        weights = np.where(free, rest * mass / mass[free].sum() if free.any() else 0, start[0])
        means = np.where(held["means"][:, None], start[1], share.T @ x / mass[:, None])
        away = x[:, None] - means
        learnt = np.einsum("nk,nkd,nke->kde", share, away, away) / mass[:, None, None]
        covariances = np.where(held["covariances"][:, None, None], start[2], learnt)
    return weights, means, covariances, peer.score(x)


@pytest.mark.parametrize(
    "fixed",
    [
        ["weights"],
        ["means"],
        ["covariances"],
        [1],
        {"means": [0], "covariances": [0, 2]},
        {"weights": [2], "means": True},
    ],
)
def test_what_is_held_stays_and_the_rest_is_that_of_em_with_it(fixed):
    start = np.array([0.5, 0.3, 0.2]), TRUTH + 0.7, np.stack([np.eye(2) * s for s in (1.0, 2.0, 0.7)])
    model = GaussianMixture(
        3, weights_init=start[0], means_init=start[1], precisions_init=np.linalg.inv(start[2]), fixed=fixed, **PLAIN
    ).fit(X)
    which = {name: np.zeros(3, dtype=bool) for name in ("weights", "means", "covariances")}
    for name in fixed if isinstance(fixed, dict) else [n for n in fixed if isinstance(n, str)]:
        which[name][fixed[name] if isinstance(fixed, dict) and fixed[name] is not True else slice(None)] = True
    if fixed == [1]:
        for mask in which.values():
            mask[1] = True
    weights, means, covariances, score = dense_em(X, *start, which, 400)
    np.testing.assert_allclose(model.weights_[which["weights"]], start[0][which["weights"]], rtol=1e-14)
    np.testing.assert_allclose(model.means_[which["means"]], start[1][which["means"]], rtol=1e-14)
    np.testing.assert_allclose(model.covariances_[which["covariances"]], start[2][which["covariances"]], rtol=1e-14)
    np.testing.assert_allclose(model.weights_, weights, atol=1e-5)
    np.testing.assert_allclose(model.means_, means, atol=1e-4)
    np.testing.assert_allclose(model.covariances_, covariances, atol=1e-4)
    assert model.lower_bound_ == pytest.approx(score, abs=1e-8)


@pytest.mark.parametrize("name", list(MCLUST))
def test_all_covariances_can_be_held_for_all_structures_and_the_likelihood_never_falls(name):
    first = GaussianMixture(3, covariance_type=name, random_state=0).fit(X)
    held = GaussianMixture(3, covariance_type=name, init_params=first, fixed=["covariances"], **PLAIN).fit(X + 0.5)
    np.testing.assert_allclose(held.covariances_, first.covariances_, rtol=1e-12)
    objectives = [record["objective"] for record in held.history_ if record["objective"] is not None]
    assert (np.diff(objectives[:-1]) >= -1e-9).all()
    parameters = 2 + 3 * 2
    assert held.bic() == pytest.approx(parameters * np.log(len(X)) - 2 * held.score(X + 0.5) * len(X))


def test_everything_held_is_only_measured():
    first = GaussianMixture(3, random_state=0).fit(X)
    held = GaussianMixture(3, init_params=first, fixed=[0, 1, 2]).fit(X)
    np.testing.assert_allclose(held.means_, first.means_, rtol=1e-13)
    assert held.lower_bound_ == pytest.approx(first.lower_bound_, abs=1e-10)
    assert held.bic() == pytest.approx(-2 * held.lower_bound_ * len(X))


def test_components_of_which_nothing_is_known_are_drawn_away_from_those_that_are():
    big = np.concatenate([X] * 40)
    known = np.array([[np.nan, np.nan], TRUTH[0], [np.nan, np.nan]])
    lazy = da.from_array(big, chunks=(4000, 2))
    model = GaussianMixture(3, means_init=known, fixed={"means": [1]}, sample_size=2000, random_state=0).fit(lazy)
    np.testing.assert_allclose(model.means_[1], TRUTH[0], atol=1e-12)
    others = model.means_[[0, 2]]
    np.testing.assert_allclose(others[np.argsort(others[:, 0])], [TRUTH[2], TRUTH[1]], atol=0.3)
    assert any(record["sample_rows"] for record in model.history_), "the others race on the sample"


def test_a_fit_with_weights_that_are_held_counts_repeats_as_weights():
    times = RNG.integers(1, 4, len(X))
    options = dict(weights_init=[0.6, 0.2, 0.2], means_init=TRUTH, fixed="weights", **PLAIN)
    one = GaussianMixture(3, **options).fit(X, sample_weight=times)
    other = GaussianMixture(3, **options).fit(np.repeat(X, times, axis=0))
    np.testing.assert_allclose(one.means_, other.means_, atol=1e-7)
    np.testing.assert_allclose(one.covariances_, other.covariances_, atol=1e-7)


@pytest.mark.parametrize(("shift", "factor"), [(1e7, 1.0), (0.0, 1e-6), (0.0, 1e6)])
def test_neither_offset_nor_unit_matter(shift, factor):
    def fitted(move, times):
        start = {"means_init": TRUTH * times + move, "precisions_init": np.stack([np.eye(2)] * 3) / times**2}
        return GaussianMixture(3, fixed={"means": [0], "covariances": [1]}, **start, **PLAIN).fit(X * times + move)

    one, other = fitted(0.0, 1.0), fitted(shift, factor)
    assert (one.predict(X) == other.predict(X * factor + shift)).all()
    np.testing.assert_allclose(other.covariances_ / factor**2, one.covariances_, rtol=1e-5, atol=1e-7)


def test_a_later_batch_moves_only_what_is_free():
    model = GaussianMixture(3, means_init=TRUTH, fixed=["means"], random_state=0).fit(X)
    model.partial_fit(X[:200] + 1.0)
    np.testing.assert_allclose(model.means_, TRUTH, atol=1e-12)


@pytest.mark.parametrize("name", ["tied", "EVE"])
@pytest.mark.parametrize("fixed", ["means", "weights"])
def test_what_is_shared_may_be_free_beside_what_is_held(name, fixed):
    first = GaussianMixture(3, covariance_type=name, random_state=0).fit(X)
    held = GaussianMixture(3, covariance_type=name, init_params=first, fixed=fixed, **PLAIN).fit(X + 0.3)
    np.testing.assert_allclose(getattr(held, fixed + "_"), getattr(first, fixed + "_"), rtol=1e-12)
    assert held.standard_errors(X + 0.3, n_replicates=3)[fixed].max() < 1e-12


def test_equal_weights_stay_equal_where_means_are_held():
    model = GaussianMixture(3, means_init=TRUTH, fixed="means", equal_weights=True, **PLAIN).fit(X)
    np.testing.assert_allclose(model.weights_, 1 / 3)


def test_what_is_held_comes_back_from_a_store(tmp_path):
    first = GaussianMixture(3, random_state=0).fit(X)
    model = GaussianMixture(3, init_params=first, fixed=range(2)).fit(X)
    model.save(tmp_path / "model.zarr")
    assert daskmix.load(tmp_path / "model.zarr").bic() == pytest.approx(model.bic())


def test_options_that_change_after_a_fit_do_not_change_what_was_counted():
    model = GaussianMixture(3, random_state=0).fit(X)
    before = model.bic()
    assert model.set_params(fixed=[0], equal_weights=True).bic() == before


def test_a_held_component_survives_without_rows():
    means = np.array([*TRUTH[:2], [1e3, 1e3]])
    model = GaussianMixture(
        3, means_init=means, precisions_init=np.stack([np.eye(2)] * 3), fixed=[2], weights_init=[0.5, 0.4, 0.1],
        on_collapse="raise", min_weight=0.01,
    ).fit(X)  # fmt: skip
    np.testing.assert_allclose(model.means_[2], 1e3)
    assert model.weights_[2] == pytest.approx(0.1)


def test_held_is_a_value_that_says_how_much_is_free():
    nothing = np.full((2, 3), np.nan)
    held = Held(np.array([0.5, np.nan]), nothing, np.zeros(2, dtype=bool), None)
    assert held.free() == (1, 2, 2)
    assert held.weights_of(np.array([3.0, 1.0])).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fixed": ["mean"]}, "'mean'"),
        ({"fixed": [3]}, "numbered from 0 to 1"),
        ({"fixed": 1.5}, "numbers of components"),
        ({"fixed": {"means": None}}, "numbers of components"),
        (
            {"fixed": ["covariances"], "covariance_type": "EVV", "precisions_init": [np.eye(2), 4 * np.eye(2)]},
            "not of this covariance_type",
        ),
        ({"fixed": ["means"]}, "means_init"),
        ({"fixed": {"means": [0]}, "means_init": [[np.nan, 0], [0, 0]]}, "means of component 0"),
        ({"fixed": [0], "covariance_type": "tied", "means_init": np.zeros((2, 2))}, "full"),
        ({"fixed": ["weights"], "equal_weights": True}, "equal_weights"),
        ({"fixed": ["means"], "prior": "default"}, "prior"),
        ({"fixed": ["means"], "on_collapse": "drop"}, "restart"),
        ({"fixed": ["covariances"], "covariance_type": "fixed", "covariance_init": 1.0}, "holds all covariances"),
        ({"fixed": ["weights"], "weights_init": [0.7, 0.7]}, "sum to 1"),
        ({"means_init": [[np.nan, 0], [0, 0]]}, "finite"),
    ],
)
def test_what_cannot_be_held_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        GaussianMixture(2, **options).fit(X)
