"""Spherical K-means: clusters of directions."""

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_missing import with_gaps

from daskmix import KMeans, load, select
from daskmix.directions import unit
from daskmix.errors import InputError


def directions(n=600, d=5, k=3, seed=0):
    """Rows near k directions, of lengths that say nothing."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((d, d)))[0][:k]
    label = rng.integers(k, size=n)
    return (axes[label] + 0.12 * rng.standard_normal((n, d))) * np.exp(rng.standard_normal((n, 1))), label


def brute(x, centres, steps):
    """Dhillon & Modha's iteration."""
    y = x / np.linalg.norm(x, axis=1, keepdims=True)
    costs = []
    for _ in range(steps):
        label = (y @ centres.T).argmax(axis=1)
        costs.append(2 * (1 - (y * centres[label]).sum(axis=1)).sum())
        sums = np.array([y[label == j].sum(axis=0) for j in range(len(centres))])
        centres = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return centres, costs


@given(st.integers(0, 10**6), st.sampled_from([1e-300, 1e-3, 1.0, 1e300]))
def test_rows_come_to_length_one_whatever_their_size(seed, size):
    x = np.random.default_rng(seed).standard_normal((20, 3)) * size
    np.testing.assert_allclose(np.linalg.norm(unit(x), axis=1), 1, rtol=1e-14)


def test_what_has_no_direction_is_missing():
    x = np.array([[0.0, 0.0], [3.0, 4.0], [np.inf, 1.0], [np.nan, 1.0]])
    found = unit(x)
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1], [0.6, 0.8])
    np.testing.assert_array_equal(found[2:], x[2:])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_iteration_is_that_of_the_paper(dtype):
    x, _ = directions()
    start = unit(x[:3])
    model = KMeans(3, init=start, metric="cosine", tol=0, max_iter=4).fit(x.astype(dtype))
    centres, costs = brute(x, start, 4)
    np.testing.assert_allclose(model.cluster_centers_, centres, atol=1e-5 if dtype == np.float32 else 1e-10)
    assert np.diff(costs).max() <= 1e-9
    np.testing.assert_allclose(np.linalg.norm(model.cluster_centers_, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("init", ["auto", "k-means++", "k-means||", "random"])
def test_lengths_change_nothing(init):
    x, label = directions()
    options = {"init": init, "n_init": 4, "metric": "cosine", "random_state": 0}
    model, longer = (KMeans(3, **options).fit(da.from_array(rows, chunks=(150, 5))) for rows in (x, 4.0 * x))
    np.testing.assert_array_equal(longer.cluster_centers_, model.cluster_centers_)
    found = model.predict(x)
    assert len({(a, b) for a, b in zip(found, label, strict=True)}) == 3
    y = unit(x)
    assert model.inertia_ == pytest.approx(2 * (1 - (y @ model.cluster_centers_.T).max(axis=1)).sum(), rel=1e-9)
    assert -model.score(x) == pytest.approx(model.inertia_, rel=1e-9)
    np.testing.assert_allclose(model.transform(x), 1 - y @ model.cluster_centers_.T, atol=1e-9)


def test_many_rows_take_few_passes():
    x, _ = directions(20_000)
    model = KMeans(3, metric="cosine", sample_size=2000, random_state=0).fit(da.from_array(x, chunks=(5000, 5)))
    assert model.converged_
    assert model.n_passes_ < 15


def test_weights_are_repeats():
    x, _ = directions(80)
    times = np.random.default_rng(1).integers(1, 4, 80)
    start = {"init": unit(x[:3]), "metric": "cosine"}
    weighted, repeated = KMeans(3, **start).fit(x, sample_weight=times), KMeans(3, **start).fit(np.repeat(x, times, 0))
    np.testing.assert_allclose(weighted.cluster_centers_, repeated.cluster_centers_, rtol=1e-9)
    assert weighted.inertia_ == pytest.approx(repeated.inertia_, rel=1e-9)


def test_a_row_of_zeros_is_left_out_or_refused():
    x, _ = directions(100)
    x[7] = 0
    with pytest.raises(InputError, match="row 7"):
        KMeans(3, metric="cosine").fit(x)
    model = KMeans(3, metric="cosine", missing="drop", random_state=0).fit(x)
    assert model.predict(x)[7] == -2
    assert (model.predict(x) == -2).sum() == 1


def test_it_is_saved_and_goes_on(tmp_path):
    x, _ = directions()
    model = KMeans(3, metric="cosine", random_state=0).fit(x[:300])
    model.save(tmp_path / "model.zarr")
    again = load(tmp_path / "model.zarr")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    again.partial_fit(x[300:])
    np.testing.assert_allclose(np.linalg.norm(again.cluster_centers_, axis=1), 1, rtol=1e-12)


def test_a_search_clusters_directions():
    x, _ = directions(900, k=3)
    found = select(x, n_clusters=range(2, 6), metric="cosine", random_state=0)
    assert len(found.best_.cluster_centers_) == 3


def test_what_knows_no_directions_is_refused():
    x, _ = directions()
    model = KMeans(3, metric="cosine", random_state=0).fit(x)
    for turn in (model.to_mixture, model.to_sklearn):
        with pytest.raises(InputError, match="no directions"):
            turn()
    with pytest.raises(InputError, match='missing="drop"'):
        KMeans(3, metric="cosine", missing="em").fit(with_gaps(50, 3))
    with pytest.raises(InputError, match="centre 1 is zero"):
        KMeans(2, metric="cosine", init=np.array([[1.0] * 5, [0.0] * 5])).fit(x)
    with pytest.raises(InputError, match="metric"):
        KMeans(2, metric="manhattan").fit(x)
