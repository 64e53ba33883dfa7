"""What becomes of components that lose their rows or their covariance."""

import numpy as np
import pytest

from daskmix import GaussianMixture
from daskmix.algorithms.acceleration import Accelerated
from daskmix.algorithms.base import Outcome
from daskmix.algorithms.em import EM, OnCollapse
from daskmix.block import Block, table
from daskmix.covariance import FullCovariance
from daskmix.errors import CollapsedComponentError, CollapsedComponentWarning, InputError
from daskmix.estimators.mixture_start import MCLUST
from daskmix.family import Family
from daskmix.given import Noise
from daskmix.kernels import Frame, compiled
from daskmix.mixture import Mixture

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
    with pytest.raises(CollapsedComponentError, match="collapsed"):
        GaussianMixture(2, **options).fit(twice)
    with pytest.raises(CollapsedComponentError):  # one component cannot be dropped
        GaussianMixture(1, reg_covar=0, on_collapse="drop").fit(np.ones((20, 2)))


def accelerated(policy, least, weights, noise=None):
    """The end of an accelerated fit from the far start."""
    family = Family(MCLUST["VVV"], noise=noise)
    model = Mixture(np.array(weights), FAR, FullCovariance.of(TIGHT), family)
    frame = Frame(np.zeros(2), np.ones(2))
    em = EM(frame, X.dtype, np.full(2, 1e-6), 0.0, 60, on_collapse=policy, min_weight=least)
    algorithm = Accelerated(em, 1e-7)
    state = algorithm.start(model)
    while state.outcome is Outcome.running:
        state = algorithm.tell(state, algorithm.ask(state).map(Block(X, None, table(0, len(X), len(X))), compiled))
    return state


@pytest.mark.parametrize("policy", [OnCollapse.drop, OnCollapse.restart])
def test_an_accelerated_fit_goes_on_after_a_collapse(policy):
    state = accelerated(policy, 0.01, [0.25] * 4)
    assert state.outcome is not Outcome.failed
    assert state.notes[0].startswith("component 3 collapsed")
    assert state.model.shape[0] == (3 if policy is OnCollapse.drop else 4)
    plain = GaussianMixture(3, means_init=FAR[:3], precisions_init=TIGHT[:3], **PLAIN).fit(X)
    assert state.score / len(X) >= plain.lower_bound_ - 1e-3


@pytest.mark.parametrize("policy", [OnCollapse.drop, OnCollapse.restart])
def test_noise_keeps_its_weight_when_a_component_collapses(policy):
    state = accelerated(policy, 0.01, [0.24] * 4 + [0.04], Noise(X.min(axis=0), X.max(axis=0)))
    assert state.notes
    assert state.model.weights.sum() == pytest.approx(1)
    assert state.model.weights[-1] < 0.1
    model = GaussianMixture(
        4, noise=True, on_collapse=policy.value, means_init=FAR, precisions_init=TIGHT, max_iter=1, **PLAIN
    )
    with pytest.warns(CollapsedComponentWarning):
        model.fit(X)
    assert model.weights_.sum() + model.noise_weight_ == pytest.approx(1)
    assert model.noise_weight_ < 0.1


def test_the_lightest_is_dropped_first_for_what_it_leaves_may_be_enough():
    three = np.concatenate([RNG.normal(8 * j, 1, (1000, 2)) for j in range(3)])
    for seed in range(3):
        with pytest.warns(CollapsedComponentWarning):
            model = GaussianMixture(5, on_collapse="drop", min_weight=0.19, random_state=seed).fit(three)
        assert len(model.weights_) == 3
    with pytest.raises(InputError, match="pass n_components=3"):
        model.set_params(warm_start=True).fit(three)
    assert len(model.set_params(n_components=3).fit(three).weights_) == 3


@pytest.mark.parametrize("algorithm", ["cem", "sem"])
def test_other_ways_to_share_rows_out_drop_components_too(algorithm):
    with pytest.warns(CollapsedComponentWarning, match="dropped"):
        model = start(on_collapse="drop", algorithm=algorithm, max_iter=20).fit(X)
    assert len(model.weights_) == 3


def test_a_stochastic_fit_that_must_not_collapse_fails_and_one_that_drops_forgets_what_it_met_before():
    with pytest.raises(CollapsedComponentError, match="component 3 collapsed"):
        start(on_collapse="raise", algorithm="sem", max_iter=20).fit(X)
    options = {"on_collapse": "drop", "min_weight": 0.1, "algorithm": "sem", "max_iter": 20, "random_state": 0}
    with pytest.warns(CollapsedComponentWarning):
        assert GaussianMixture(4, **options).fit(X).weights_.min() > 0.08


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
