"""scikit-learn's own checks, and its tools."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from daskmix import BayesianGaussianMixture, BisectingKMeans, GaussianMixture, KMeans

REPEATS = (
    "draws are keyed by the index of a row, which repeating rows changes; whole weights equal repeated rows from a "
    "given start, see test_parity.py"
)


def expected_failures(estimator):
    draws = isinstance(estimator, KMeans | BisectingKMeans)
    return {"check_sample_weight_equivalence_on_dense_data": REPEATS} if draws else {}


@parametrize_with_checks(
    [KMeans(), BisectingKMeans(), GaussianMixture(), BayesianGaussianMixture()],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_finds_nothing_to_complain_about(estimator, check):
    check(estimator)


@pytest.mark.parametrize("model", [KMeans(3, random_state=0), GaussianMixture(3, random_state=0)])
def test_a_pipeline_fits_and_predicts(model):
    x, _ = load_iris(return_X_y=True)
    pipe = make_pipeline(StandardScaler(), model).fit(x)
    assert len(np.unique(pipe.predict(x))) == 3


@pytest.mark.parametrize(
    ("model", "grid"),
    [
        (KMeans(random_state=0), {"n_clusters": [2, 3]}),
        (GaussianMixture(random_state=0), {"n_components": [1, 3], "covariance_type": ["diag", "full"]}),
    ],
)
def test_a_grid_search_finds_the_larger_model(model, grid):
    x, _ = load_iris(return_X_y=True)
    x = np.random.default_rng(0).permutation(x)
    search = GridSearchCV(model, grid, cv=3).fit(x)
    assert max(search.best_params_[name] for name in search.best_params_ if name.startswith("n_")) == 3


def test_a_clone_has_the_parameters_and_nothing_else():
    model = KMeans(3, random_state=0).fit(load_iris().data)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "cluster_centers_")


def test_set_output_names_the_distances():
    x = load_iris(as_frame=True).data
    out = KMeans(3, random_state=0).set_output(transform="pandas").fit_transform(x)
    assert list(out.columns) == ["kmeans0", "kmeans1", "kmeans2"]
    assert (out.index == x.index).all()
