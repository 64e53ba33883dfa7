"""The laws of testing.py, over every reduction, structure and both sets of kernels."""

from dataclasses import replace
from itertools import combinations

import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from daskmix import testing
from daskmix.centroids import Assign, Centroids
from daskmix.family import Family
from daskmix.histograms import CountBins
from daskmix.kernels import Frame, Order, compiled, reference
from daskmix.kernels.elementary import exp, log1p
from daskmix.mixture import Mixture, estimate
from daskmix.moments import Origin
from daskmix.reduction import FAN_IN, Together, merge_tree
from daskmix.sampling import FarSample, Sample, Summarise, UniformSample, uniform
from daskmix.sharing import Explain, Learn
from daskmix.structures import Diagonal, Full, Spherical, Tied

KERNELS = [reference, compiled]
STRUCTURES = [Full(), Tied(), Diagonal(), Spherical()]  # one for each kind of covariance
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def values(low=-50.0, high=50.0):
    # Whole quarters: ties happen, and sums of them are exact.
    return st.integers(int(4 * low), int(4 * high)).map(lambda v: v / 4)


@st.composite
def rows(draw, least=2):
    n, d = draw(st.integers(least, 60)), draw(st.integers(1, 4))
    x = draw(hnp.arrays(np.float64, (n, d), elements=values()))
    weighted = draw(st.booleans())
    w = draw(hnp.arrays(np.float64, n, elements=st.integers(0, 3).map(float))) if weighted else None
    return testing.block_of(x, w, start=draw(st.integers(0, 10**6))), draw(st.integers(0, n))


def a_frame(d):
    return Frame(np.full(d, 1.5), np.full(d, 0.5))


def a_mixture(structure, k, d, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((k, d, d)) / 4 + np.eye(d)
    precisions = root @ root.transpose(0, 2, 1)
    shaped = {
        "full": precisions,
        "pooled": precisions[0],
        "diagonal": np.diagonal(precisions, axis1=1, axis2=2),
        "trace": precisions[:, 0, 0],
    }[structure.order.value]
    weights = rng.dirichlet(np.ones(k))
    covariance = structure.nearest(structure.covariance.of_precisions(np.array(shaped)), weights, d)
    return Mixture(weights, 5 * rng.standard_normal((k, d)), covariance, Family(structure))


def with_tails(mixture):
    """The same with components of Student's t."""
    return replace(mixture, nu=np.linspace(0.5, 20.0, len(mixture.weights)))


def questions(d):
    frame = a_frame(d)
    centres = np.random.default_rng(1).standard_normal((3, d)) * 5
    yield Assign(Centroids(centres), frame, relocatable=4)
    yield Summarise(d)
    yield CountBins(tuple(range(d)), np.linspace(-40.0, 30.0 + np.arange(d), 6, axis=1))
    yield UniformSample(7, 3, d, np.dtype(np.float64))
    yield FarSample(5, 3, centres, frame, np.dtype(np.float64))
    for structure in STRUCTURES:
        mixture = a_mixture(structure, 3, d)
        for path in ("float64", "centred"):
            yield Explain(mixture, frame, path, np.full(d, 0.1))
            yield Explain(with_tails(mixture), frame, path, np.full(d, 0.1))


@pytest.mark.parametrize("ops", KERNELS)
@QUICK
@given(rows())
def test_rows_may_be_cut_anywhere(ops, cut_rows):
    block, at = cut_rows
    for question in questions(block.x.shape[1]):
        testing.check_reduction(question, block, at, ops)
    together = Together(tuple(questions(block.x.shape[1])))
    testing.check_reduction(together, block, at, ops)


@QUICK
@given(rows())
def test_given_shares_may_be_cut_anywhere(cut_rows):
    block, at = cut_rows
    d = block.x.shape[1] - 1
    if d:
        for structure in STRUCTURES:
            testing.check_reduction(
                Learn(1, structure.order, a_frame(d), False, np.zeros(d), np.ones(d)), block, at, reference
            )


@pytest.mark.parametrize("ops", KERNELS)
@QUICK
@given(st.data())
def test_whole_weights_are_repeats(ops, data):
    n, d = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 4))
    x = data.draw(hnp.arrays(np.float64, (n, d), elements=values()))
    times = data.draw(hnp.arrays(np.int64, n, elements=st.integers(1, 3)))
    frame = a_frame(d)
    centres = np.random.default_rng(1).standard_normal((3, d)) * 5
    asked = [Assign(Centroids(centres), frame)]
    mixtures = [a_mixture(structure, 3, d) for structure in STRUCTURES]
    mixtures += [with_tails(mixture) for mixture in mixtures]
    asked += [Explain(mixture, frame, path, np.zeros(d)) for mixture in mixtures for path in ("float64", "centred")]
    for question in asked:
        testing.check_weights_are_repeats(question, x, times, ops)


@QUICK
@given(st.data())
def test_compiled_kernels_do_what_the_reference_does(data):
    n, d, k = data.draw(st.integers(1, 1500)), data.draw(st.integers(1, 9)), data.draw(st.integers(1, 7))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    x = (rng.standard_normal((n, d)) * 3 + 1).astype(dtype)
    w = rng.integers(0, 3, n).astype(float) if data.draw(st.booleans()) else None
    frame = a_frame(d)
    testing.check_kernels(compiled, reference, x, w, frame, rng.standard_normal((k, d)))
    for structure in STRUCTURES:
        mixture = a_mixture(structure, k, d)
        mixture = with_tails(mixture) if data.draw(st.booleans()) else mixture
        for path in ("float32", "float64", "centred"):
            if not (dtype is np.float64 and path == "float32"):
                densities = mixture.densities(path, np.full(d, 0.01), 0.3)
                testing.check_densities(compiled, reference, x, w, frame, densities)


@pytest.mark.parametrize(("dtype", "least"), [(np.float64, -708), (np.float32, -87)])
def test_the_exponential_of_the_kernels_is_right_to_the_last_places(dtype, least):
    @numba.njit
    def each(x, out):
        for i in range(len(x)):
            out[i] = exp(x[i])

    x = np.concatenate([np.linspace(least + 1, 0, 200_001), -np.logspace(-30, 0, 1000)]).astype(dtype)
    found, right = np.empty_like(x), np.exp(x.astype(np.longdouble))
    each(x, found)
    assert (np.abs(found - right) <= 2 * np.finfo(dtype).eps * right).all()
    ends = np.array([0.0, -0.0, -1e4, -np.inf], dtype)
    each(ends, ends)
    assert ends.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_logarithm_of_the_kernels_is_right_to_the_last_places(dtype):
    @numba.njit
    def each(x, out):
        for i in range(len(x)):
            out[i] = log1p(x[i])

    x = np.concatenate([np.linspace(0, 100, 200_001), np.logspace(-30, 30, 20_000)]).astype(dtype)
    found, right = np.empty_like(x), np.log1p(x.astype(np.longdouble))
    each(x, found)
    assert (np.abs(found - right) <= 2 * np.finfo(dtype).eps * right).all()


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("d", [3, 40])  # 40 features have 861 products, more than one block
def test_compiled_densities_are_those_of_the_reference(structure, d):
    x = np.random.default_rng(0).standard_normal((1000, d))
    mixture = a_mixture(structure, 5, d)
    for path in ("float64", "centred"):
        densities = mixture.densities(path, np.full(d, 0.2), 0.0)
        found, right = (ops.joint(x, a_frame(d), densities) for ops in (compiled, reference))
        np.testing.assert_allclose(found, right, rtol=1e-9, atol=1e-9)
        testing.check_densities(compiled, reference, x, None, a_frame(d), densities)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_both_ways_to_evaluate_a_density_agree(structure):
    x = np.random.default_rng(0).standard_normal((200, 3))
    mixture = a_mixture(structure, 4, 3)
    product, centred = (
        reference.joint(x, a_frame(3), mixture.densities(path, np.full(3, 0.2), 0.0)) for path in ("float64", "centred")
    )
    np.testing.assert_allclose(product, centred, atol=1e-10)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_bound_on_the_product_is_never_below_its_error(structure):
    rng = np.random.default_rng(0)
    for apart in (1.0, 1e2, 1e4, 1e6):
        mixture = a_mixture(structure, 4, 3)
        mixture = Mixture(mixture.weights, mixture.means * apart, mixture.covariance, mixture.family)
        x = np.concatenate([m + rng.standard_normal((100, 3)) / 2 for m in mixture.means])
        frame = Frame(np.zeros(3), np.ones(3))
        fast, safe = (
            reference.joint(x, frame, mixture.densities(path, np.zeros(3), 0.0)) for path in ("float64", "centred")
        )
        own = np.repeat(np.arange(4), 100)
        error = np.abs(fast - safe)[np.arange(400), own].max()
        assert error <= mixture.covariance.product_error(mixture.means) * 2.0**-53 * 4


@pytest.mark.parametrize("structure", STRUCTURES)
def test_far_clusters_take_the_safe_way_and_it_is_kept_until_the_bound_is_clear(structure):
    mixture = a_mixture(structure, 4, 3)
    assert mixture.path(np.dtype(np.float64)) == "float64"
    far = Mixture(mixture.weights, mixture.means * 1e6, mixture.covariance, mixture.family)
    assert far.path(np.dtype(np.float64)) == "centred"
    assert mixture.path(np.dtype(np.float32)) == "float32"


def test_float64_rows_never_take_a_float32_product():
    assert a_mixture(Full(), 2, 2).path(np.dtype(np.float64)) == "float64"


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_halves_of_a_component_are_merged_again(structure):
    floor, whole = np.full(3, 1e-3), a_mixture(structure, 4, 3)
    twice, share = [0, 1, 2, 3, 1], np.array([1.0, 0.3, 1.0, 1.0, 0.7])
    sums = whole.moments(floor, Origin())
    second = sums.second
    if structure.order is not Order.pooled:
        second = second[twice] * share[(slice(None),) + (None,) * (second.ndim - 1)]
    halves = replace(sums, mass=sums.mass[twice] * share, first=sums.first[twice] * share[:, None], second=second)
    again = estimate(halves, whole.family, floor).merged(floor)
    np.testing.assert_allclose(again.weights, whole.weights, rtol=1e-12)
    np.testing.assert_allclose(again.means, whole.means, rtol=1e-10)
    np.testing.assert_allclose(again.covariance.values, whole.covariance.values, rtol=1e-9, atol=1e-12)


@given(st.integers(0, 1000), st.integers(2, 6))
def test_a_merger_keeps_all_moments_and_costs_least(seed, k):
    mixture = a_mixture(Full(), k, 2, seed)
    w, m, v = mixture.weights, mixture.means, mixture.covariance.values
    fewer = mixture.merged(np.zeros(2))

    def whole(weights, means, covariances):
        return weights @ means, np.einsum("k,kde->de", weights, covariances + means[:, :, None] * means[:, None])

    for kept, was in zip(whole(fewer.weights, fewer.means, fewer.covariance.values), whole(w, m, v), strict=True):
        np.testing.assert_allclose(kept, was, rtol=1e-8, atol=1e-8)

    def loss(i, j):
        both, apart = w[i] + w[j], m[i] - m[j]
        united = (w[i] * v[i] + w[j] * v[j] + w[i] * w[j] / both * np.outer(apart, apart)) / both
        return both * np.linalg.slogdet(united)[1] - sum(w[a] * np.linalg.slogdet(v[a])[1] for a in (i, j))

    i, j = min(combinations(range(k), 2), key=lambda pair: loss(*pair))
    expected = np.append(np.delete(w, [i, j]), w[i] + w[j])
    np.testing.assert_allclose(np.sort(fewer.weights), np.sort(expected), rtol=1e-9)


def test_draws_depend_on_the_row_and_are_uniform():
    index = np.arange(100_000)
    u = uniform(7, index)
    np.testing.assert_array_equal(uniform(7, index[500:600]), u[500:600])
    assert u.min() > 0
    assert u.max() <= 1
    counts = np.histogram(u, bins=20, range=(0, 1))[0]
    assert ((counts - 5000) ** 2 / 5000).sum() < 45  # chi-squared of 19 degrees, p < 1e-3
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(u, uniform(8, index))[0, 1]) < 0.02


@given(st.integers(1, 600))
def test_the_merge_tree_keeps_the_order(n):
    sizes = []

    def merge(parts):
        sizes.append(len(parts))
        return [x for part in parts for x in part]

    assert merge_tree(merge, [[i] for i in range(n)]) == list(range(n))
    assert max(sizes, default=0) <= FAN_IN


@given(st.lists(st.sampled_from([0.1, 0.2, 0.2 + 1e-16, 0.7, np.inf]), min_size=1, max_size=30), st.integers(1, 30))
def test_of_a_sample_the_smallest_ranks_stay_and_of_equals_the_first(ranks, size):
    rank, index = np.array(ranks), np.arange(len(ranks))
    kept = Sample(index[:, None].astype(float), np.ones(len(ranks)), index, rank, index).best(size)
    assert kept.index.tolist() == np.sort(np.lexsort((index, rank))[:size]).tolist()
    assert kept.x[:, 0].tolist() == kept.index.tolist()
