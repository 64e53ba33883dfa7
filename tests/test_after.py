"""After the fit: distances, draws, parts of a mixture, mergers, what clusters are like, and how sure all that is."""

from functools import partial

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.spatial.distance import cdist
from scipy.stats import kstest, multivariate_normal, poisson
from test_missing import with_gaps

from daskmix import GaussianMixture, KMeans, testing
from daskmix.algorithms.merging import Overlap
from daskmix.algorithms.resampling import Resampled, times_drawn
from daskmix.block import Missing
from daskmix.derived import Draws
from daskmix.describing import Describe
from daskmix.errors import FeatureError, InputError
from daskmix.estimators.mixture_base import responsibilities
from daskmix.kernels import reference
from daskmix.sampling import Summarise

KINDS = ("full", "tied", "diag", "spherical")
NAMED = pd.DataFrame(np.nan_to_num(with_gaps(600, 3), nan=1.0), columns=["u", "v", "w"])


def three_clusters(n=900, d=2, seed=0):
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 3
    return rng.standard_normal((n, d)) + 6 * label[:, None] * np.array([1, -1])[np.arange(d) % 2], label


def a_model(kind, x=None):
    return GaussianMixture(2, covariance_type=kind, random_state=0).fit(NAMED if x is None else x)


def dense(model):
    return model._model().covariance.dense(*model.means_.shape)


# --- distances and draws --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_mahalanobis_is_scipys(kind):
    model = a_model(kind)
    right = [
        cdist(NAMED, m[None], "mahalanobis", VI=np.linalg.inv(c))[:, 0]
        for m, c in zip(model.means_, dense(model), strict=True)
    ]
    np.testing.assert_allclose(model.mahalanobis(NAMED), np.stack(right, axis=1), rtol=1e-9)
    lazy = model.mahalanobis(dd.from_pandas(NAMED, npartitions=3))
    np.testing.assert_allclose(lazy.compute().to_numpy(), np.stack(right, axis=1), rtol=1e-9)


def test_mahalanobis_of_a_row_with_gaps_is_that_of_what_it_has():
    x = with_gaps(200, 3)
    model = GaussianMixture(2, missing="em", random_state=0).fit(x)
    row = x[np.isnan(x).any(axis=1)][0]
    o = ~np.isnan(row)
    for j, (mean, covariance) in enumerate(zip(model.means_, model.covariances_, strict=True)):
        away = row[o] - mean[o]
        right = np.sqrt(away @ np.linalg.solve(covariance[np.ix_(o, o)], away))
        assert model.mahalanobis(row[None])[0, j] == pytest.approx(right, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_follow_the_mixture_and_not_the_chunks(kind):
    model = a_model(kind)
    rows, components = model.sample(30_000, chunks=7_000)
    assert rows.chunks == ((7000, 7000, 7000, 7000, 2000), (3,))
    again, _ = model.sample(30_000, chunks=30_000)
    x, label = rows.compute(), components.compute()
    np.testing.assert_array_equal(again.compute(), x)
    np.testing.assert_allclose(np.bincount(label) / 30_000, model.weights_, atol=0.02)
    for j in range(2):
        own = x[label == j]
        for f in range(3):
            sd = np.sqrt(dense(model)[j, f, f])
            assert kstest((own[:, f] - model.means_[j, f]) / sd, "norm").pvalue > 1e-4
        np.testing.assert_allclose(np.cov(own.T), dense(model)[j], atol=0.08 * dense(model)[j].max())


def test_draws_depend_on_the_number_of_the_row_alone():
    draws, index = Draws(a_model("full")._model(), 5), np.arange(100)
    np.testing.assert_array_equal(draws.rows(index)[60:], draws.rows(index[60:]))


# --- parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_marginal_has_the_density_of_the_marginal(kind):
    model = a_model(kind)
    part = model.marginal(["w", "u"])
    assert list(part.feature_names_in_) == ["w", "u"]
    x = NAMED[["w", "u"]]
    keep = np.ix_([2, 0], [2, 0])
    right = sum(
        weight * multivariate_normal(mean[[2, 0]], covariance[keep]).pdf(x)
        for weight, mean, covariance in zip(model.weights_, model.means_, dense(model), strict=True)
    )
    np.testing.assert_allclose(np.exp(part.score_samples(x)), right, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_conditional_is_the_joint_over_the_marginal(kind):
    model = a_model(kind)
    part = model.condition({"v": 1.5})
    x = NAMED.to_numpy()[:50].copy()
    x[:, 1] = 1.5
    right = model.score_samples(pd.DataFrame(x, columns=NAMED.columns)) - model.marginal("v").score_samples(
        pd.DataFrame(x[:, 1:2], columns=["v"])
    )
    np.testing.assert_allclose(part.score_samples(pd.DataFrame(x[:, [0, 2]], columns=["u", "w"])), right, rtol=1e-9)
    assert part.covariance_type == kind


def test_parts_can_be_saved_and_scored(tmp_path):
    part = a_model("full").marginal(["u", "w"])
    part.save(tmp_path / "part.zarr")
    assert np.isnan(part.lower_bound_)
    assert np.isfinite(part.score(NAMED[["u", "w"]]))


def test_features_that_are_not_there_are_refused_by_name():
    model = a_model("full")
    with pytest.raises(FeatureError, match="no feature 'x'"):
        model.marginal(["x"])
    with pytest.raises(FeatureError, match="each of them once"):
        model.marginal(["u", 0])
    with pytest.raises(InputError, match="all 3 features"):
        model.condition({"u": 0, "v": 0, "w": 0})
    with pytest.raises(InputError, match="finite"):
        model.condition({"u": np.nan})


# --- mergers --------------------------------------------------------------------------------------------------------


def brute_entropy(t):
    return -np.sum(t * np.log(np.where(t > 0, t, 1))) / len(t)


def test_components_merge_by_entropy():
    x, label = three_clusters()
    model = GaussianMixture(6, random_state=0, reg_covar=0.05).fit(x)
    found = model.merge(da.from_array(x, chunks=(250, 2)))
    assert found.n_clusters.values.tolist() == [6, 5, 4, 3, 2, 1]
    t = model.predict_proba(x)
    for number in found.n_clusters.values:
        cluster = found.cluster.sel(n_clusters=number).values
        own = np.stack([t[:, cluster == c].sum(axis=1) for c in range(number)], axis=1)
        assert found.entropy.sel(n_clusters=number).item() == pytest.approx(brute_entropy(own), abs=1e-12)
    assert (np.diff(found.entropy) <= 1e-12).all()
    merged = found.cluster.sel(n_clusters=3).values[model.predict(x)]
    assert len({(a, b) for a, b in zip(merged, label, strict=True)}) == 3


def test_mergers_take_a_pass_for_each_number_of_clusters():
    x, _ = three_clusters()
    model, reads = GaussianMixture(5, random_state=0, reg_covar=0.05).fit(x), []

    def read(block):
        reads.append(len(block))
        return block

    lazy = da.from_array(x, chunks=(300, 2)).map_blocks(read, meta=np.empty((0, 2)))
    assert model.merge(lazy, 2).sizes["n_clusters"] == 4
    assert reads == [300] * 3 * 4


def test_each_merger_is_the_best():
    x, _ = three_clusters(300)
    model = GaussianMixture(5, random_state=1, reg_covar=0.05).fit(x)
    found, t = model.merge(x, 4), model.predict_proba(x)
    after = [
        brute_entropy(np.column_stack([np.delete(t, [a, b], axis=1), t[:, a] + t[:, b]]))
        for a in range(5)
        for b in range(a)
    ]
    assert found.entropy.sel(n_clusters=4).item() == pytest.approx(min(after), abs=1e-12)


def test_a_number_of_clusters_beyond_the_components_is_refused():
    with pytest.raises(InputError, match="from 1 to 2"):
        a_model("full").merge(NAMED, 3)


# --- what clusters are like -----------------------------------------------------------------------------------------


def weighted_quantile(values, w, at):
    order = np.argsort(values)
    cumulative = np.cumsum(w[order])
    return values[order][np.searchsorted(cumulative, at * cumulative[-1] * (1 - 1e-12))]


@pytest.mark.parametrize("model", [KMeans(3, random_state=0), GaussianMixture(3, random_state=0)])
@pytest.mark.parametrize("kind", ["numpy", "dask"])
def test_statistics_are_those_of_each_cluster(model, kind):
    x, _ = three_clusters()
    rng = np.random.default_rng(1)
    other, w = rng.standard_normal((900, 2)) * 3 + 273.15, rng.random(900)
    other[::7, 1] = np.nan
    label = model.fit(x).predict(x)
    if kind == "dask":
        rows, others = da.from_array(x, chunks=(200, 2)), da.from_array(other, chunks=(300, 2))
    else:
        rows, others = x, other
    found = model.cluster_stats(rows, others, w)
    for j in range(3):
        for v in range(2):
            own = (label == j) & ~np.isnan(other[:, v])
            values, weight = other[own, v], w[own]
            mean = np.average(values, weights=weight)
            here = found.sel(cluster=j).isel(variable=v)
            assert here["count"].item() == (label == j).sum()
            assert here.weight.item() == pytest.approx(weight.sum())
            assert here["mean"].item() == pytest.approx(mean, rel=1e-12)
            assert here.variance.item() == pytest.approx(np.average((values - mean) ** 2, weights=weight), rel=1e-9)
            assert (here["min"].item(), here["max"].item()) == (values.min(), values.max())
            for q in found["quantile"].values:
                assert here.quantiles.sel(quantile=q).item() == weighted_quantile(values, weight, q)


def test_statistics_of_a_field_by_area():
    rng = np.random.default_rng(0)
    coords = {"time": range(6), "lat": np.linspace(-80, 80, 9), "lon": range(10)}
    shape = (6, 9, 10)
    field = xr.Dataset(
        {name: (("time", "lat", "lon"), rng.standard_normal(shape) + 5 * rng.integers(0, 2, shape)) for name in "uv"},
        coords=coords,
    )
    salt = xr.DataArray(rng.random(shape), dims=("time", "lat", "lon"), coords=coords, name="salt")
    area = np.cos(np.deg2rad(field.lat))
    model = KMeans(2, tol=0, random_state=0).fit(field, sample_weight=area)
    label = model.predict(field)
    for x, other in ((field, salt), (field.chunk(time=2), salt.chunk(time=3)), (field, salt.chunk(time=3))):
        found = model.cluster_stats(x, other, area)
        assert found["variable"].values.tolist() == ["salt"]
        for j in range(2):
            right = salt.where(label == j).weighted(area).mean().item()
            assert found["mean"].sel(cluster=j, variable="salt").item() == pytest.approx(right, rel=1e-10)
    own = model.cluster_stats(field.chunk(time=2), sample_weight=area)
    np.testing.assert_allclose(own["mean"].values, model.cluster_centers_, rtol=1e-4)


def test_statistics_read_both_once():
    reads = []

    def read(x):
        reads.append(len(x))
        return x

    x, _ = three_clusters()
    model = KMeans(3, random_state=0).fit(x)
    counted = [da.from_array(a, chunks=(300, a.shape[1])).map_blocks(read, meta=np.empty((0, 2))) for a in (x, 2 * x)]
    model.cluster_stats(*counted)
    assert sorted(reads) == [300] * 6


def test_rows_without_a_label_count_nowhere():
    x, _ = three_clusters()
    x[:50] = np.nan
    model = KMeans(3, missing="drop", random_state=0).fit(x)
    assert model.cluster_stats(x)["count"].sum() == 850
    with pytest.raises(InputError, match="holds NaN in a feature"):
        KMeans(3, random_state=0).fit(x[50:]).cluster_stats(x)


def test_quantiles_of_many_rows_are_near():
    x = np.random.default_rng(0).standard_normal((60_000, 1))
    model = GaussianMixture(1, random_state=0).fit(x)
    found = model.cluster_stats(da.from_array(x, chunks=(7000, 1)), quantiles=(0.1, 0.5, 0.9)).quantiles.values[0, 0]
    ranks = [(x <= value).mean() for value in found]
    np.testing.assert_allclose(ranks, [0.1, 0.5, 0.9], atol=0.02)


def test_statistics_may_be_cut_anywhere():
    x, _ = three_clusters(120)
    model = KMeans(3, random_state=0).fit(x)
    labels, k = model._label_function()
    question = Describe(labels, k, 2, 0, 2, Missing.drop, 20, 0)
    for at in (0, 1, 60, 119):
        testing.check_reduction(question, testing.block_of(x), at, reference)


def test_what_does_not_fit_together_is_refused():
    x, _ = three_clusters()
    model = KMeans(3, random_state=0).fit(x)
    with pytest.raises(InputError, match="800"):
        model.cluster_stats(da.from_array(x, chunks=(300, 2)), da.zeros((800, 1), chunks=(300, 1)))
    with pytest.raises(InputError, match="between 0 and 1"):
        model.cluster_stats(x, quantiles=(50,))
    with pytest.raises(InputError, match=r"shape \(2, 900\)"):
        model.cluster_stats(x, x.T)
    field = xr.Dataset({"u": (("lat", "lon"), x.reshape(30, -1))}, coords={"lat": range(30)})
    flat = KMeans(2, random_state=0).fit(field)
    with pytest.raises(InputError, match="other values of 'lat'"):
        flat.cluster_stats(field, field.u.isel(lat=slice(None, None, -1)))
    with pytest.raises(InputError, match="30 along 'lat'"):
        flat.cluster_stats(field, field.u.isel(lat=slice(9)))
    with pytest.raises(InputError, match="pass both of one kind"):
        model.cluster_stats(x, xr.DataArray(np.zeros(900), dims="row"))


# --- how sure -------------------------------------------------------------------------------------------------------


def test_draws_of_the_bootstrap_are_poissons():
    times = times_drawn(3, np.arange(200_000))
    counts = np.bincount(times, minlength=8)[:8]
    np.testing.assert_allclose(counts / 200_000, poisson(1).pmf(range(8)), atol=4e-3)


def test_a_replicate_may_be_cut_anywhere():
    question = Resampled(Summarise(2), 3)
    for at in (0, 13, 40):
        testing.check_reduction(question, testing.block_of(three_clusters(40)[0]), at, reference)


def test_standard_errors_are_in_the_units_of_the_rows_also_of_huge_ones():
    x = np.random.default_rng(0).standard_normal((200, 2))
    few = {"n_replicates": 5}
    plain, huge = (GaussianMixture(1, random_state=0).fit(x * u).standard_errors(x * u, **few) for u in (1.0, 2.0**400))
    np.testing.assert_allclose(huge["means"], plain["means"] * 2.0**400, rtol=1e-6)
    np.testing.assert_allclose(huge["covariances"], plain["covariances"] * 2.0**800, rtol=1e-6)


def test_standard_errors_are_those_of_theory():
    n = 4000
    x = np.random.default_rng(0).standard_normal((n, 2)) * [1.0, 3.0]
    model = GaussianMixture(1, random_state=0).fit(x)
    found = model.standard_errors(da.from_array(x, chunks=(1000, 2)), n_replicates=200)
    np.testing.assert_allclose(found.means.values[0], np.array([1.0, 3.0]) / np.sqrt(n), rtol=0.2)
    np.testing.assert_allclose(np.diag(found.covariances.values[0]), np.array([1.0, 9.0]) * np.sqrt(2 / n), rtol=0.2)
    assert found.attrs["n_replicates"] == 200


def test_replicates_share_their_passes():
    x, _ = three_clusters()
    model = GaussianMixture(3, random_state=0).fit(x)
    reads = []

    def read(block):
        reads.append(len(block))
        return block

    lazy = da.from_array(x, chunks=(300, 2)).map_blocks(read, meta=np.empty((0, 2)))
    found = model.standard_errors(lazy, n_replicates=20)
    assert len(reads) <= 3 * 12
    share = 1 / 3
    np.testing.assert_allclose(found.weights, np.sqrt(share * (1 - share) / 900), rtol=0.6)


def test_what_has_no_bootstrap_says_so():
    with pytest.raises(InputError, match="n_replicates"):
        a_model("full").standard_errors(NAMED, n_replicates=1)
    with pytest.raises(InputError, match="without a prior"):
        GaussianMixture(2, prior="default", random_state=0).fit(NAMED).standard_errors(NAMED)


def test_overlaps_may_be_cut_anywhere():
    x, _ = three_clusters(60)
    model = GaussianMixture(3, random_state=0).fit(x)
    question = Overlap(partial(responsibilities, model._model()), ((0, 2), (1,)))
    for at in (0, 20, 60):
        testing.check_reduction(question, testing.block_of(x), at, reference)
