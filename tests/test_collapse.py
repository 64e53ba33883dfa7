"""What becomes of components that lose their rows or their covariance."""

import numpy as np
import pytest

from daskmix import GaussianMixture
from daskmix.errors import CollapsedComponentError, CollapsedComponentWarning, InputError

RNG = np.random.default_rng(1)
X = np.concatenate([RNG.normal(0, 1, (400, 2)), RNG.normal(9, 1, (300, 2)), RNG.normal([9, -9], 1, (30, 2))])
FAR = np.array([[0.0, 0.0], [9.0, 9.0], [9.0, -9.0], [200.0, 200.0]])  # no row is near the last
TIGHT = np.stack([np.eye(2)] * 4)
PLAIN = {"accelerate": "none", "random_state": 0}


def start(**options):
    return GaussianMixture(4, means_init=FAR, precisions_init=TIGHT, weights_init=[0.25] * 4, **PLAIN, **options)


def test_a_component_without_rows_is_dropped():
    with pytest.warns(CollapsedComponentWarning, match=r"component 3 collapsed.*dropped"):
        model = start(on_collapse="drop").fit(X)
    assert model.weights_.shape == (3,)
    assert model.predict_proba(X).shape == (len(X), 3)
    plain = GaussianMixture(3, means_init=FAR[:3], precisions_init=TIGHT[:3], **PLAIN).fit(X)
    np.testing.assert_allclose(model.means_, plain.means_, atol=1e-2)
    assert model.bic() == pytest.approx(plain.bic(), rel=1e-3)


def test_a_component_without_rows_is_restarted_among_those_of_the_largest():
    with pytest.warns(CollapsedComponentWarning, match=r"component 3 collapsed.*restarted"):
        model = start(on_collapse="restart").fit(X)
    assert len(model.weights_) == 4
    assert model.weights_.min() > 0.01
    assert np.linalg.norm(model.means_[3]) < 5, "half of the component of 400 rows"


def test_a_component_without_rows_is_an_error():
    with pytest.raises(CollapsedComponentError, match=r"component 3 collapsed.*min_weight=0"):
        start(on_collapse="raise").fit(X)


def test_a_component_without_rows_stays_where_it_was():
    with pytest.warns(CollapsedComponentWarning, match="component 3 lost all its rows"):
        model = start().fit(X)
    np.testing.assert_allclose(model.means_[3], FAR[3])


def test_the_least_share_of_the_rows_decides():
    options = dict(means_init=FAR[:3], **PLAIN)
    kept = GaussianMixture(3, on_collapse="drop", min_weight=0.03, **options).fit(X)
    assert len(kept.weights_) == 3
    assert kept.weights_.min() == pytest.approx(30 / len(X), rel=0.05)
    with pytest.warns(CollapsedComponentWarning, match=r"share of the rows is 0\.04"):
        less = GaussianMixture(3, on_collapse="drop", min_weight=0.05, **options).fit(X)
    assert len(less.weights_) == 2
    assert less.weights_.min() >= 0.05


@pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical", "VEE", "EVE"])
def test_a_singular_component_is_dropped_or_restarted(covariance_type):
    doubled = np.concatenate([X, np.full((20, 2), [50.0, -50.0])])
    means = np.array([[0.0, 0.0], [9.0, 9.0], [50.0, -50.0]])
    options = dict(covariance_type=covariance_type, means_init=means, reg_covar=0, **PLAIN)
    with pytest.raises(CollapsedComponentError, match="component 2"):
        GaussianMixture(3, **options).fit(doubled)
    with pytest.warns(CollapsedComponentWarning, match="dropped"):
        model = GaussianMixture(3, on_collapse="drop", **options).fit(doubled)
    assert len(model.weights_) == 2
    assert np.isfinite(model.lower_bound_)


def test_what_collapses_again_and_again_is_an_error():
    twice = np.repeat([[0.0, 0.0], [1.0, 3.0]], 50, axis=0)
    options = dict(means_init=[[0.0, 0.1], [1.0, 2.9]], reg_covar=0, on_collapse="restart", **PLAIN)
    with pytest.warns(CollapsedComponentWarning), pytest.raises(CollapsedComponentError, match="collapsed"):
        GaussianMixture(2, **options).fit(twice)
    with pytest.raises(CollapsedComponentError):  # one component cannot be dropped
        GaussianMixture(1, reg_covar=0, on_collapse="drop").fit(np.ones((20, 2)))


@pytest.mark.parametrize(("policy", "k", "least"), [("drop", 6, 0.2), ("restart", 4, 0.05)])
def test_an_accelerated_fit_goes_on_after_a_collapse(policy, k, least):
    big = np.concatenate([X] * 100)
    options = {"sample_size": 2000, "max_iter": 60, "random_state": 3}
    model = GaussianMixture(k, on_collapse=policy, min_weight=least, **options)
    with pytest.warns(CollapsedComponentWarning):
        model.fit(big)
    assert model.weights_.min() >= least
    assert len(model.weights_) == k if policy == "restart" else len(model.weights_) < k
    assert model.score(big) == pytest.approx(model.lower_bound_, abs=1e-9)


@pytest.mark.parametrize("algorithm", ["cem", "sem"])
def test_other_ways_to_share_rows_out_drop_components_too(algorithm):
    with pytest.warns(CollapsedComponentWarning, match="dropped"):
        model = start(on_collapse="drop", algorithm=algorithm, max_iter=20).fit(X)
    assert len(model.weights_) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on_collapse": "ignore"}, "on_collapse"),
        ({"min_weight": 0.1}, "on_collapse"),
        ({"min_weight": 0.5, "on_collapse": "restart"}, "less than 0.5"),
        ({"min_weight": 1.0, "on_collapse": "drop"}, "less than 1"),
        ({"min_weight": -1, "on_collapse": "drop"}, "min_weight"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        GaussianMixture(2, **options).fit(X)
