"""Bisecting K-means: the tree of one split after the other, in the passes of its depth."""

import dask.array as da
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from test_missing import with_gaps

from daskmix import BisectingKMeans, load, testing
from daskmix.algorithms.bisecting import Node, Split, Trial, flat, grown
from daskmix.errors import InputError
from daskmix.kernels import Frame, compiled, reference


def blobs(n=2000, k=8, d=3, seed=0):
    rng = np.random.default_rng(seed)
    centres = 12 * rng.standard_normal((k, d))
    return centres[rng.integers(k, size=n)] + rng.standard_normal((n, d))


def brute(x, centres, w=None):
    """2-means to a fixed point."""
    w = np.ones(len(x)) if w is None else w
    while True:
        side = ((x[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
        moved = np.array([np.average(x[side == s], axis=0, weights=w[side == s]) for s in (0, 1)])
        if np.allclose(moved, centres, rtol=0, atol=1e-12):
            return side, moved
        centres = moved


def check_tree(model, x, strategy):
    """Each split is a fixed point of 2-means, and each was the one to make."""
    rows = {0: np.arange(len(x))}
    merits = {}
    for number, (pair, leads) in enumerate(zip(model.tree_centers_, model.tree_children_, strict=True)):
        own = rows[number]
        side, centres = brute(x[own], pair)
        np.testing.assert_allclose(centres, pair, atol=1e-8)
        merits[number] = len(own) if strategy == "largest_cluster" else ((x[own] - x[own].mean(axis=0)) ** 2).sum()
        for s in (0, 1):
            rows[int(leads[s])] = own[side == s]
    label = np.empty(len(x), dtype=int)
    for leaf in range(len(model.cluster_centers_)):
        label[rows[-1 - leaf]] = leaf
        own = x[rows[-1 - leaf]]
        np.testing.assert_allclose(own.mean(axis=0), model.cluster_centers_[leaf], atol=1e-8)
        left = len(own) if strategy == "largest_cluster" else ((own - own.mean(axis=0)) ** 2).sum()
        # Nothing was left whole that came before what was split last.
        assert left <= min(merits.values()) + 1e-6
    np.testing.assert_array_equal(model.predict(x), label)
    inertia = sum(((x[label == j] - c) ** 2).sum() for j, c in enumerate(model.cluster_centers_))
    assert model.inertia_ == pytest.approx(inertia, rel=1e-9)
    assert -model.score(x) == pytest.approx(inertia, rel=1e-9)


@pytest.mark.parametrize("strategy", ["biggest_inertia", "largest_cluster"])
@pytest.mark.parametrize("k", [1, 2, 3, 7, 16])
def test_the_tree_is_that_of_one_split_after_the_other(strategy, k):
    x = blobs()
    model = BisectingKMeans(k, bisecting_strategy=strategy, tol=0, random_state=0).fit(
        da.from_array(x, chunks=(300, 3))
    )
    assert len(model.cluster_centers_) == k
    if k > 1:
        check_tree(model, x, strategy)


def test_splits_share_their_passes():
    x = da.from_array(blobs(4000, 16), chunks=(500, 3))
    model = BisectingKMeans(16, random_state=0).fit(x)
    # Fifteen splits of two passes or more each, one after the other, would be thirty at least.
    assert model.n_passes_ < 25
    assert all(record["chunks"] == 8 for record in model.history_)


def test_weights_are_repeats():
    x, times = blobs(60, 3), np.random.default_rng(1).integers(1, 4, 60)
    weighted = BisectingKMeans(3, random_state=0).fit(x, sample_weight=times)
    repeated = BisectingKMeans(3, random_state=0).fit(np.repeat(x, times, axis=0))
    assert weighted.inertia_ == pytest.approx(repeated.inertia_, rel=1e-6)
    np.testing.assert_allclose(np.sort(weighted.cluster_weights_), np.sort(repeated.cluster_weights_))


def test_chunks_change_nothing():
    x = blobs()
    one, many = (BisectingKMeans(6, random_state=0).fit(da.from_array(x, chunks=(n, 3))) for n in (2000, 170))
    np.testing.assert_allclose(many.cluster_centers_, one.cluster_centers_, rtol=1e-9)


def test_rows_with_gaps_follow_what_they_have():
    x = with_gaps(800, 4)
    model = BisectingKMeans(4, missing="em", random_state=0).fit(x)
    assert np.isfinite(model.cluster_centers_).all()
    assert set(model.predict(x)) == {0, 1, 2, 3}


def test_it_is_saved(tmp_path):
    x = blobs()
    model = BisectingKMeans(5, random_state=0).fit(x)
    model.save(tmp_path / "model.zarr")
    np.testing.assert_array_equal(load(tmp_path / "model.zarr").predict(x), model.predict(x))


def test_rows_that_are_alike_cannot_be_split():
    x = np.repeat(np.arange(3.0), 10)[:, None]
    with pytest.warns(ConvergenceWarning, match=r"distinct clusters \(3\)"):
        model = BisectingKMeans(5, random_state=0).fit(x)
    assert sorted(model.cluster_centers_[:, 0].tolist()) == [0, 1, 2]


def test_rows_that_the_sample_has_missed_are_split_off():
    x = np.random.default_rng(0).standard_normal((5002, 2))
    x[5000:] = [[1e4, 0], [1.1e4, 0]]
    model = BisectingKMeans(12, sample_size=20, random_state=0).fit(da.from_array(x, chunks=(700, 2)))
    assert sorted(model.cluster_centers_[:, 0])[-2:] == pytest.approx([1e4, 1.1e4])


def test_options_are_checked():
    for options in ({"n_clusters": 0}, {"bisecting_strategy": "smallest"}, {"max_iter": 0}, {"tol": -1}):
        with pytest.raises(InputError):
            BisectingKMeans(**options).fit(blobs(50))


def a_tree():
    def leaf(x, cost):
        return Node(np.array([x]), 10.0, cost)

    left = Node(np.array([-5.0]), 20.0, 50.0, (leaf(-7.0, 5.0), leaf(-3.0, 8.0)))
    return Node(np.zeros(1), 40.0, 500.0, (left, leaf(5.0, 30.0)))


def test_the_splits_that_may_be_needed_are_known_beforehand():
    root = a_tree()
    assert grown(root, 2, lambda node: node.cost) == ([(0,), (1,)], [])
    assert grown(root, 3, lambda node: node.cost) == ([(0, 0), (0, 1), (1,)], [])
    leaves, unknown = grown(root, 5, lambda node: node.cost)
    assert leaves == [(0, 0), (0, 1), (1,)]
    assert unknown == [(1,), (0, 1)]
    pairs, leads = flat(root, leaves)
    assert pairs[:, :, 0].tolist() == [[-5, 5], [-7, -3]]
    assert leads.tolist() == [[1, -3], [-1, -2]]


@pytest.mark.parametrize("ops", [reference, compiled])
def test_rows_of_a_tree_may_be_cut_anywhere(ops):
    x = np.random.default_rng(0).integers(-40, 40, (80, 1)) / 4
    frame = Frame(np.zeros(1), np.ones(1))
    trials = (Trial((1,), np.array([[4.0], [6.0]]), False), Trial((0, 1), np.array([[-4.0], [-2.0]]), True))
    for at in (0, 13, 80):
        testing.check_reduction(Split(a_tree(), frame, trials), testing.block_of(x), at, ops)
