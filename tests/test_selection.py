"""`select`: many models in shared passes."""

import dask.array as da
import numpy as np
import pytest
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score
from test_acceleration import counted

from daskmix import GaussianMixture, Run, select
from daskmix.centroids import Centroids, Separate
from daskmix.errors import InputError
from daskmix.kernels import Frame, compiled
from daskmix.testing import block_of, check_reduction, check_weights_are_repeats

TYPES = ("full", "tied", "diag", "spherical")


def planted(n=6000, k=4, seed=0):
    """Diagonal clusters of different shapes, one after the other."""
    rng = np.random.default_rng(seed)
    centres = 8 * np.eye(4, 3) + np.arange(3)
    return np.concatenate([c + rng.standard_normal((n // k, 3)) * (0.5 + rng.random(3)) for c in centres])


X = planted()


@pytest.fixture(scope="module")
def mixtures():
    return select(
        da.from_array(X, chunks=(1000, 3)), range(3, 6), TYPES, n_init=2, sample_size=1500, gap_tol=1e-7, random_state=0
    )


def test_the_choice_is_that_of_all_fits_one_by_one(mixtures):
    scores = {
        (k, name): GaussianMixture(k, covariance_type=name, n_init=3, tol=1e-7, max_iter=500, random_state=0)
        .fit(X)
        .bic()
        for k in range(3, 6)
        for name in TYPES
    }
    best = min(scores, key=scores.get)
    assert (mixtures.best_.n_components, mixtures.best_.covariance_type) == best == (4, "diag")
    assert mixtures.best_.bic() <= scores[best] + 1e-3
    table = mixtures.table_
    own = table["score"].sel(n_components=4, covariance_type="diag", init=0).item()
    np.testing.assert_allclose(own, mixtures.best_.bic(), rtol=1e-9)


def test_models_that_cannot_win_leave_and_the_best_five_stay(mixtures):
    table = mixtures.table_.isel(init=0)
    outcome = table["outcome"].values
    assert table.sizes == {"n_components": 3, "covariance_type": 4}
    assert (outcome == "dropped").sum() >= 3
    finished = table["score"].values[outcome != "dropped"]
    assert len(finished) >= 5
    assert table["score"].values.min() == finished.min()
    assert (table["passes"].values >= 1).all()
    assert (mixtures.table_["outcome"].isel(init=1) == "sample").all()
    assert mixtures.table_["loglik"].notnull().all()


def test_every_chunk_is_read_once_in_a_pass_for_all_models():
    rows, reads = counted(X, 1000)
    found = select(rows, range(1, 5), ("full", "diag"), n_init=2, random_state=0, run=Run(cache="off"))
    assert set(reads) == {found.n_passes_}
    assert found.n_passes_ < 30
    assert found.history_[1]["live"] == 8


@pytest.mark.parametrize("seed", [1, 2, 7])
def test_a_start_that_is_drawn_badly_is_made_of_the_next_larger_mixture(seed):
    rng = np.random.default_rng(3)
    centres, roots = 3 * rng.standard_normal((6, 2)), rng.standard_normal((6, 2, 2))
    x = np.concatenate([c + rng.standard_normal((500, 2)) @ r for c, r in zip(centres, roots, strict=True)])
    # One start each: by itself that of six components misses their optimum for each of these seeds.
    found = select(x, (5, 6, 7, 8), "full", n_init=1, sample_size=1000, random_state=seed)
    best = GaussianMixture(6, n_init=20, tol=1e-7, max_iter=1000, random_state=0).fit(x)
    assert found.best_.n_components == 6
    assert found.best_.bic() <= best.bic() + 0.5


def test_a_budget_of_passes_is_kept():
    found = select(X, range(1, 4), "full", max_passes=3, random_state=0)
    assert found.n_passes_ <= 3
    assert np.isfinite(found.best_.lower_bound_)


@pytest.fixture(scope="module")
def overlapping():
    """Two components, so near to each other that few rows are sure of theirs; and fits of one to four."""
    x = np.random.default_rng(0).standard_normal((3000, 2)) * [1.0, 0.5]
    x[:1500, 0] += 2.6
    return x, {k: GaussianMixture(k, n_init=4, tol=1e-6, max_iter=500, random_state=0).fit(x) for k in (1, 2, 3)}


@pytest.mark.parametrize(("criterion", "chosen"), [("bic", 2), ("aic", 2), ("icl", 1)])
def test_criteria_choose_what_fits_one_by_one_say(overlapping, criterion, chosen):
    x, alone = overlapping
    found = select(x, (1, 2, 3), "full", criterion=criterion, sample_size=1000, gap_tol=1e-7, random_state=0)
    right = {k: getattr(fit, criterion)() for k, fit in alone.items()}
    assert found.best_.n_components == min(right, key=right.get) == chosen
    np.testing.assert_allclose(getattr(found.best_, criterion)(), right[chosen], atol=0.1)
    scores = found.table_["score"].isel(init=0, covariance_type=0)
    assert scores.values.argmin() == chosen - 1


def test_weights_that_count_no_rows_are_refused():
    with pytest.raises(InputError, match="mean of one"):
        select(X, (2, 3), "full", sample_weight=np.full(len(X), 1 / len(X)), random_state=0)


@pytest.mark.parametrize("criterion", ["calinski-harabasz", "davies-bouldin", "silhouette"])
def test_clusters_are_judged_as_scikit_learn_judges_them(criterion):
    found = select(X, n_clusters=range(2, 7), criterion=criterion, random_state=0)
    best = found.best_
    assert best.n_clusters == 4
    score = found.table_["score"].sel(n_clusters=4, init=0).item()
    labels = best.labels_
    if criterion == "calinski-harabasz":
        right = calinski_harabasz_score(X, labels)
    elif criterion == "davies-bouldin":
        right = davies_bouldin_score(X, labels)
    else:
        two = np.sort(np.linalg.norm(X[:, None] - best.cluster_centers_, axis=2), axis=1)[:, :2]
        right = ((two[:, 1] - two[:, 0]) / two[:, 1]).mean()
    np.testing.assert_allclose(score, right, rtol=1e-6)
    # Only distances to centres take a pass of their own.
    assert (found.history_[-1]["what"] == "separate") == (criterion != "calinski-harabasz")


def test_separation_obeys_the_laws_of_a_reduction():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 3))
    question = Separate(Centroids(x[:4]), Frame(np.full(3, 0.5), np.ones(3)))
    check_reduction(question, block_of(x), 13, compiled)
    check_weights_are_repeats(question, x, rng.integers(0, 3, 40), compiled)


def test_a_selection_draws_itself(mixtures):
    axes = mixtures.plot()
    assert len(axes.get_lines()) == len(TYPES)
    assert axes.get_ylabel() == "bic (smaller is better)"
    clusters = select(X, n_clusters=(2, 3), random_state=0).plot()
    assert clusters.get_xlabel() == "n_clusters"


def test_features_keep_their_names():
    pandas = pytest.importorskip("pandas")
    found = select(pandas.DataFrame(X, columns=["a", "b", "c"]), (1, 2), "full", random_state=0)
    assert list(found.best_.feature_names_in_) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"n_components": []}, "n_components"),
        ({"n_components": (0, 1)}, "n_components"),
        ({"n_clusters": (1, 2)}, "n_clusters"),
        ({"n_clusters": (2, 3), "n_components": (1, 2)}, "not both"),
        ({"criterion": "dic"}, "criterion"),
        ({"n_clusters": (2, 3), "criterion": "bic"}, "criterion"),
        ({"covariance_type": ()}, "covariance_type"),
        ({"covariance_type": "round"}, "covariance_type"),
        ({"n_components": (1.5, 2)}, "n_components"),
        ({"n_init": "auto"}, "n_init"),
        ({"means_init": X[:2]}, "means_init"),
        ({"n_clusters": (2, 3), "accelerate": "none"}, "accelerate"),
        ({"n_clusters": (2, 3), "covariance_type": "full"}, "covariance_type"),
    ],
)
def test_what_cannot_be_tried_is_refused(given, told):
    with pytest.raises(InputError, match=told):
        select(X, **given)
