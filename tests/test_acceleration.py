"""Fewer passes: coordinates, guesses, steps on a sample, and what they promise."""

import pickle
import threading
import warnings
from dataclasses import replace
from itertools import pairwise

import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from test_laws import QUICK, STRUCTURES, a_mixture

from daskmix import GaussianMixture, KMeans, Run
from daskmix.algorithms.acceleration import (
    Accelerated,
    LocalSteps,
    accelerated_lloyd,
    accelerated_steps,
    saddle_free_step,
)
from daskmix.algorithms.base import Once, Outcome
from daskmix.algorithms.em import EM
from daskmix.algorithms.lloyd import Lloyd
from daskmix.algorithms.seeding import plus_plus
from daskmix.block import Missing
from daskmix.centroids import Centroids
from daskmix.engines.local import Local
from daskmix.errors import InputError
from daskmix.family import Family
from daskmix.fitting import Fit
from daskmix.kernels import Frame
from daskmix.kernels.reference import moments, nearest
from daskmix.mixture import estimate
from daskmix.moments import Moments, Origin, corrected
from daskmix.passes import passes
from daskmix.race import ladder, local_steps
from daskmix.rows import from_memory
from daskmix.sharing import Explain

D, K = 3, 4
PLAIN = Frame(np.zeros(D), np.ones(D))
NO_FLOOR = np.zeros(D)


def table_of(x, w=None):
    return from_memory([x], 1, w, Missing.trust)


def blobs(n=4000, k=K, d=D, apart=1.5, seed=0):
    """Overlapping clusters, one after the other: rows in order."""
    rng = np.random.default_rng(seed)
    centres = apart * rng.standard_normal((k, d))
    return np.concatenate([c + rng.standard_normal((n // k, d)) @ rng.standard_normal((d, d)) for c in centres])


def told(algorithm, x, model, w=None, resume=lambda state: state):
    """Every state of an algorithm on these rows."""
    rows, state = table_of(x, w), algorithm.start(model)
    states = [state]
    while state.outcome is Outcome.running:
        (state,) = next(passes([algorithm], rows, engine=Local(), states=[resume(state)])).states
        states.append(state)
    return states


def counted(x, chunk):
    """Rows that count how often each chunk is made, and the counts."""
    rows = da.from_array(x, chunks=(chunk, x.shape[1]))
    reads, lock = np.zeros(rows.numblocks[0], int), threading.Lock()

    def count(block, block_info=None):
        if block_info:
            with lock:
                reads[block_info[0]["chunk-location"][0]] += 1
        return block

    return rows.map_blocks(count, dtype=float, meta=np.empty((0, x.shape[1]))), reads


def objectives(states):
    """The mean log-likelihood of each model that was kept."""
    return [b.objective for a, b in pairwise(states) if b.rejected == a.rejected]


def answer(question, rows):
    once = Once(question)
    (done,) = passes([once], rows, engine=Local(), states=[once.start()])
    return done.states[0].model


def ask(question, x):
    return answer(question, table_of(x))


# --- coordinates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: type(s).__name__)
@QUICK
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 1000))
def test_a_mixture_is_where_its_coordinates_say(structure, k, d, seed):
    model = a_mixture(structure, k, d, seed)
    back = model.at(model.coordinates())
    np.testing.assert_allclose(back.weights, model.weights, rtol=1e-12)
    np.testing.assert_array_equal(back.means, model.means)
    np.testing.assert_allclose(back.covariance.values, model.covariance.values, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(back.covariance.precisions(), model.covariance.precisions(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: type(s).__name__)
@QUICK
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 1000))
def test_the_metric_is_the_fisher_information_of_rows_whose_component_is_known(structure, k, d, seed):
    model = a_mixture(structure, k, d, seed)
    move = np.random.default_rng(seed).standard_normal(len(model.coordinates()))
    move /= np.linalg.norm(model.in_metric(move[None]))
    # A step of length e costs e^2 / 2 of the expected log-likelihood, whichever way it goes.
    e = 1e-3
    costs = [model.expected(model) - model.at(model.coordinates() + s * move).expected(model) for s in (e, -e)]
    np.testing.assert_allclose(np.mean(costs), e**2 / 2, rtol=1e-2)


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: type(s).__name__)
def test_the_expected_score_is_that_of_many_rows(structure):
    truth, model = a_mixture(structure, K, D, 1), a_mixture(structure, K, D, 2)
    rng = np.random.default_rng(0)
    component = rng.choice(K, 400_000, p=truth.weights)
    roots = np.linalg.cholesky(truth.covariance.dense(K, D))
    x = truth.means[component] + np.einsum("nde,ne->nd", roots[component], rng.standard_normal((400_000, D)))
    precisions = np.linalg.inv(model.covariance.dense(K, D))
    away = x - model.means[component]
    squares = np.einsum("nd,nde,ne->n", away, precisions[component], away)
    logs = np.log(model.weights) + 0.5 * np.linalg.slogdet(precisions)[1]
    np.testing.assert_allclose(model.expected(truth), (logs[component] - 0.5 * squares).mean(), rtol=1e-2)


# --- guesses ----------------------------------------------------------------------------------------------------------


def quadratic(eigenvalues, start, passes, cap):
    """Points of an accelerated x -> (I - H) x, whose fixed point is the origin."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((len(eigenvalues),) * 2))[0]
    step = np.eye(len(eigenvalues)) - turn @ np.diag(eigenvalues) @ turn.T
    points, images = [start], [step @ start]
    points.append(images[0])
    for _ in range(passes):
        images.append(step @ points[-1])
        moves, image_moves = np.diff(points, axis=0), np.diff(images, axis=0)
        coefficients, reach = saddle_free_step(moves, image_moves, images[-1] - points[-1], cap)
        assert reach <= cap * (1 + 1e-12)
        points.append(images[-1] + coefficients @ image_moves)
    return points, turn


def test_a_quadratic_is_solved_in_as_many_guesses_as_it_has_dimensions():
    eigenvalues = np.array([0.9, 0.3, 0.05, 0.01])
    points, _ = quadratic(eigenvalues, np.ones(4), passes=4, cap=1e6)
    assert np.linalg.norm(points[-1]) < 1e-8 * np.linalg.norm(points[0])


def test_a_guess_goes_no_farther_than_its_cap():
    points, _ = quadratic(np.array([0.5, 1e-4]), np.ones(2), passes=3, cap=4.0)
    assert np.linalg.norm(points[-1]) > 0.5


def test_a_saddle_is_left_and_not_approached():
    points, turn = quadratic(np.array([0.5, -0.1]), np.array([1.0, 1.0]), passes=3, cap=1e6)
    along = np.abs([turn[:, 1] @ point for point in points])
    assert along[-1] > along[0]


# --- accelerated EM and Lloyd -----------------------------------------------------------------------------------------


def em(tol=0.0, max_iter=2000):
    return EM(PLAIN, np.dtype(np.float64), NO_FLOOR + 1e-6, tol, max_iter)


def rough_start(x, structure, seed=0):
    """Centres of k-means++, and soft shares of the rows."""
    rng = np.random.default_rng(seed)
    centres = plus_plus(x, np.ones(len(x)), K, rng)
    hard = nearest(x, centres)[0][:, None] == np.arange(K)
    sums = Moments(*moments(x, 0.9 * hard + 0.1 / K, structure.order), 0.0, 0.0, Origin())
    return estimate(sums, Family(structure), NO_FLOOR)


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: type(s).__name__)
def test_no_kept_model_is_worse_than_the_one_before(structure):
    x = blobs()
    states = told(Accelerated(em(), 1e-9), x, rough_start(x, structure))
    kept = objectives(states)
    assert len(kept) > 5
    assert min(np.diff(kept)) >= -1e-9
    assert states[-1].outcome is Outcome.converged


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: type(s).__name__)
def test_it_ends_where_em_ends_in_fewer_passes(structure):
    x = blobs(apart=3.0)
    worse, ratios = 0, []
    for seed in range(3):
        plain = told(em(tol=1e-9), x, rough_start(x, structure, seed))
        faster = told(Accelerated(em(), 1e-8), x, rough_start(x, structure, seed))
        # From a raw start a guess may lead to another optimum, a better or a worse one.
        worse += faster[-1].score < plain[-1].score - 1e-4 * len(x)
        ratios.append(len(faster) / len(plain))
    assert worse <= 1
    assert np.exp(np.mean(np.log(ratios))) < 0.8


def test_a_fixed_point_of_em_is_one_of_the_accelerated():
    x = blobs(apart=6.0)
    end = told(em(tol=1e-14), x, rough_start(x, STRUCTURES[0], 3))[-1].model
    again = told(Accelerated(em(), 1e-9), x, end)
    np.testing.assert_allclose(again[-1].model.means, end.means, atol=1e-6)
    assert len(again) <= 6


def test_the_estimated_gap_is_what_is_left_to_gain():
    x = blobs(apart=3.0)
    states = told(Accelerated(em(), 1e-12), x, rough_start(x, STRUCTURES[0], 3))
    top = max(s.value for s in states)
    late = [(s.gap, top - s.value) for s in states[:-1] if 1e-8 < top - s.value < 1e-4 and np.isfinite(s.gap)]
    assert len(late) >= 3
    ratios = [gap / left for gap, left in late]
    assert 0.3 < np.median(ratios) < 3


def test_a_state_can_be_stored_and_resumed_at_any_pass():
    x = blobs()
    start = rough_start(x, STRUCTURES[0])
    straight = told(Accelerated(em(), 1e-8), x, start)
    resumed = told(Accelerated(em(), 1e-8), x, start, resume=lambda s: pickle.loads(pickle.dumps(s)))
    assert [s.value for s in straight] == [s.value for s in resumed]
    np.testing.assert_array_equal(straight[-1].model.means, resumed[-1].model.means)


@pytest.mark.parametrize(
    "algorithm", [Accelerated(em(max_iter=9), 0.0), accelerated_lloyd(Lloyd(PLAIN, max_iter=9), 0.0)]
)
def test_whole_weights_are_repeats(algorithm):
    x = blobs(800)
    times = np.random.default_rng(0).integers(0, 4, len(x))
    lloyd = isinstance(algorithm.algorithm, Lloyd)
    start = Centroids(x[:: len(x) // K][:K]) if lloyd else rough_start(x, STRUCTURES[0])
    weighted = told(algorithm, x, start, times.astype(float))[-1]
    repeated = told(algorithm, np.repeat(x, times, axis=0), start)[-1]
    a, b = (s.model.centres if lloyd else s.model.means for s in (weighted, repeated))
    np.testing.assert_allclose(a, b, atol=1e-8)
    assert weighted.n_iter == repeated.n_iter == 9


def test_accelerated_lloyd_takes_fewer_passes_to_as_low_a_cost():
    x = np.random.default_rng(0).standard_normal((20_000, D))
    ratios, costs = [], []
    for seed in range(5):
        start = Centroids(x[np.random.default_rng(seed).choice(len(x), 12, replace=False)])
        plain = told(Lloyd(PLAIN, max_iter=1000), x, start)
        faster = told(accelerated_lloyd(Lloyd(PLAIN), 1e-5), x, start)
        needed = next(i for i, state in enumerate(plain) if state.cost <= 1.0005 * plain[-1].cost)
        ratios.append(len(faster) / needed)
        costs.append(faster[-1].cost / plain[-1].cost)
    assert np.exp(np.mean(np.log(ratios))) < 1.0
    assert np.mean(costs) < 1.002


def test_as_many_empty_clusters_can_move_as_there_were():
    x = blobs(4000)
    lloyd = Lloyd(PLAIN)
    first = lloyd.start(Centroids(x[:300]))
    assert lloyd.ask(first).relocatable == 256
    for empty, kept in ((0, 16), (40, 40), (299, 256)):
        mass = np.where(np.arange(300) < empty, 0.0, 1.0)
        assert lloyd.ask(replace(first, mass=mass)).relocatable == kept


def test_a_fixed_point_of_lloyd_is_one_of_the_accelerated():
    x = blobs(apart=3.0)
    end = told(Lloyd(PLAIN, max_iter=1000), x, Centroids(x[::1000]))[-1].model
    states = told(accelerated_lloyd(Lloyd(PLAIN), 0.0), x, end)
    np.testing.assert_array_equal(states[-1].model.centres, end.centres)
    assert len(states) == 2


def test_when_passes_are_spent_the_best_model_is_measured():
    x = blobs()
    states = told(Accelerated(em(max_iter=7), 1e-12), x, rough_start(x, STRUCTURES[0]))
    assert states[-1].outcome is Outcome.exhausted
    assert len(states) - 1 == 8
    assert states[-1].score / len(x) >= max(s.value for s in states) - 1e-5


# --- steps on a sample ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("paths", [("float64", "float64"), ("centred", "centred"), ("centred", "float64")])
def test_with_all_rows_for_a_sample_the_correction_is_exact(structure, paths):
    x = blobs(400)
    model, other = rough_start(x, structure, 1), rough_start(x, structure, 2)
    there = ask(Explain(model, PLAIN, paths[0], NO_FLOOR), x)
    here = ask(Explain(other, PLAIN, paths[1], NO_FLOOR), x)
    found = estimate(corrected(structure.order, there, here, there), Family(structure), NO_FLOOR)
    right = estimate(here, Family(structure), NO_FLOOR)
    np.testing.assert_allclose(found.weights, right.weights, rtol=1e-9)
    np.testing.assert_allclose(found.means, right.means, atol=1e-8)
    np.testing.assert_allclose(found.covariance.values, right.covariance.values, rtol=1e-7, atol=1e-8)


def test_the_correction_leaves_what_all_rows_said_where_the_model_is_the_same():
    x = blobs(400)
    model = rough_start(x, STRUCTURES[0])
    question = Explain(model, PLAIN, "float64", NO_FLOOR)
    rows, some = ask(question, x), ask(question, x[::7])
    found = corrected(STRUCTURES[0].order, rows, some, some)
    np.testing.assert_allclose(found.first, rows.first / rows.mass.sum(), rtol=1e-12)
    assert found.origin == Origin()


def with_local_steps(x, size, steps, tol=1e-9):
    some = table_of(x[np.random.default_rng(1).choice(len(x), size, replace=False)])
    return accelerated_steps(LocalSteps(em(), some, answer, steps), tol)


def test_local_steps_end_where_em_ends_in_fewer_passes():
    x = blobs(40_000, apart=2.0)
    start = told(Accelerated(em(), 1e-6), x[::10], rough_start(x, STRUCTURES[0], 3))[-1].model
    plain, local = told(Accelerated(em(), 1e-8), x, start), told(with_local_steps(x, 4000, 12, 1e-8), x, start)
    assert local[-1].score >= plain[-1].score - 1e-5 * len(x)
    assert len(local) < len(plain)
    assert min(np.diff(objectives(local))) >= -1e-9


def test_steps_on_a_sample_of_whole_weights_are_those_of_repeats():
    x = blobs(800)
    times = np.random.default_rng(0).integers(0, 4, len(x))
    repeated, start = np.repeat(x, times, axis=0), rough_start(x, STRUCTURES[0])

    def local(sample):
        return accelerated_steps(LocalSteps(em(max_iter=6), sample, answer, 4), 0.0)

    a = told(local(table_of(x, times.astype(float))), x, start, times.astype(float))[-1]
    b = told(local(table_of(repeated)), repeated, start)[-1]
    assert a.n_iter == b.n_iter == 6
    np.testing.assert_allclose(a.model.means, b.model.means, atol=1e-8)


def test_the_sample_is_no_part_of_the_state():
    x = blobs(4000, apart=2.0)
    start = rough_start(x, STRUCTURES[0])
    straight = told(with_local_steps(x, 2000, 8), x, start)
    assert max(len(pickle.dumps(state)) for state in straight) < 8 * D * 2000 / 2
    resumed = told(with_local_steps(x, 2000, 8), x, start, resume=lambda s: pickle.loads(pickle.dumps(s)))
    assert [s.value for s in straight] == [s.value for s in resumed]
    np.testing.assert_array_equal(straight[-1].model.means, resumed[-1].model.means)


def test_what_a_rejected_guess_saw_is_forgotten():
    x = blobs(apart=3.0)
    states = told(Accelerated(em(), 1e-8, cap=1e6), x, rough_start(x, STRUCTURES[0], 3))
    back = [(a, b) for a, b in pairwise(states) if b.rejected > a.rejected]
    assert back
    assert all(b.certainty == a.certainty and b.n_iter == a.n_iter + 1 for a, b in back)


def test_a_useless_sample_costs_passes_and_no_likelihood():
    x = blobs(4000, apart=3.0)
    states = told(with_local_steps(x, 30, 50), x, rough_start(x, STRUCTURES[0], 3))
    plain = told(Accelerated(em(), 1e-9), x, rough_start(x, STRUCTURES[0], 3))
    assert states[-1].outcome is Outcome.converged
    assert states[-1].score >= plain[-1].score - 1e-3 * len(x)


# --- how much is done on the sample -----------------------------------------------------------------------------------


@given(st.integers(100, 10**12), st.integers(10, 10**6), st.integers(1, 10**5), st.integers(0, 20))
def test_the_race_costs_less_than_a_pass(total, size, least, starts):
    size, least = min(size, total), min(size, total, least)
    rungs = ladder(total, size, least, starts)
    assert all(a.rows <= b.rows and a.racers > b.racers for a, b in pairwise(rungs))
    assert rungs[-1].racers == 1
    assert rungs[0].racers == starts or (starts == 0 and rungs[0].racers <= 10)
    assert all(least <= rung.rows <= size for rung in rungs)
    if starts == 0 and 12 * 3 * least <= 0.8 * total:
        assert sum(rung.rows * rung.racers * rung.passes for rung in rungs) <= 0.8 * total
    # A sample whose size was asked for is solved as a whole.
    assert ladder(total, size, least, starts, whole=True)[-1].rows == size


@given(st.integers(100, 10**12), st.integers(10, 10**6), st.integers(1, 10**5))
def test_local_steps_cost_a_part_of_a_pass(total, size, parameters):
    rows, steps = local_steps(total, size, parameters)
    assert rows <= size
    assert rows * steps <= 0.12 * total
    assert (rows == 0) == (steps == 1)


# --- the estimators ---------------------------------------------------------------------------------------------------


ORDERED = blobs(60_000, k=5, apart=4.0, seed=2)


def test_an_accelerated_fit_counts_its_reads_and_its_work_on_the_sample():
    x = da.from_array(ORDERED, chunks=(7000, D))
    model = GaussianMixture(5, sample_size=5000, random_state=0).fit(x)
    assert model.converged_
    assert model.n_passes_ == len(model.history_) <= 12
    assert {record["chunks"] for record in model.history_} == {9}
    assert model.history_[0]["sample_rows"] == 0
    assert model.history_[1]["sample_rows"] > 5000
    assert model.history_[1]["sample_seconds"] > 0
    assert abs(model.gap_estimate_) < 1e-5


@pytest.mark.parametrize("kind", [GaussianMixture, KMeans])
def test_an_accelerated_fit_reads_each_chunk_once_in_a_pass(kind):
    rows, reads = counted(ORDERED, 10_000)
    model = kind(5, sample_size=5000, random_state=0, run=Run(cache="off")).fit(rows)
    assert model.history_[1]["sample_rows"] > 0
    assert set(reads) == {model.n_passes_}


@pytest.mark.parametrize("kind", [GaussianMixture, KMeans])
def test_the_same_rows_are_drawn_whatever_the_chunks(kind):
    fits = [
        kind(5, sample_size=4000, random_state=0).fit(da.from_array(ORDERED, chunks=(chunk, D)))
        for chunk in (60_000, 9_999, 2000)
    ]
    centres = [fit.means_ if kind is GaussianMixture else fit.cluster_centers_ for fit in fits]
    for other in centres[1:]:
        np.testing.assert_allclose(other, centres[0], rtol=1e-6, atol=1e-6)
    assert len({fit.n_passes_ for fit in fits}) == 1


PATIENCE = {KMeans: {}, GaussianMixture: {"gap_tol": 1e-7}}


def ended(kind, x, **how):
    """What an accelerated fit reaches, a row."""
    fit = kind(5, sample_size=5000, random_state=0, **(PATIENCE[kind] | how.pop("options", {}))).fit(x, **how)
    assert fit.history_[1]["sample_rows"] > 0
    assert fit.converged_
    return fit.lower_bound_ if kind is GaussianMixture else fit.inertia_ / len(ORDERED)


@pytest.mark.parametrize("kind", [GaussianMixture, KMeans])
def test_accelerated_fits_end_as_high_whatever_the_rows_come_as(kind):
    near = {"rel": 2e-3} if kind is KMeans else {"abs": 1e-4}
    plain = pytest.approx(ended(kind, ORDERED), **near)
    assert ended(kind, ORDERED.astype(np.float32)) == plain
    # Twice as many rows of half the weight, and rows that are missing or weigh nothing, are the same rows.
    assert ended(kind, np.repeat(ORDERED, 2, axis=0), sample_weight=np.full(2 * len(ORDERED), 0.5)) == plain
    absent = np.insert(ORDERED, np.arange(0, len(ORDERED), 2), np.nan, axis=0)
    assert ended(kind, absent, options={"missing": "drop"}) == plain
    weightless = np.insert(ORDERED, np.arange(0, len(ORDERED), 2), 0.0, axis=0)
    weight = np.insert(np.ones(len(ORDERED)), np.arange(0, len(ORDERED), 2), 0.0)
    assert ended(kind, weightless, sample_weight=weight) == plain


@pytest.mark.parametrize("kind", [GaussianMixture, KMeans])
def test_an_accelerated_fit_gives_the_same_bits_on_a_cluster(kind):
    rows = da.from_array(ORDERED, chunks=(7000, D))
    plain = kind(5, sample_size=5000, random_state=0).fit(rows)
    with LocalCluster(2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster, Client(cluster):
        again = kind(5, sample_size=5000, random_state=0).fit(rows)
    name = "means_" if kind is GaussianMixture else "cluster_centers_"
    np.testing.assert_array_equal(getattr(plain, name), getattr(again, name))
    assert plain.n_passes_ == again.n_passes_


@pytest.mark.parametrize(("present", "draws"), [(0.5, 1), (0.05, 2), (0.0005, 2)])
@pytest.mark.parametrize("how", ["missing", "weight"])
def test_the_sample_is_as_large_as_was_asked_for_whatever_is_left_out(how, present, draws):
    x = ORDERED.copy()
    out = np.random.default_rng(0).random(len(x)) > present
    weight = None
    if how == "missing":
        x[out] = np.nan
    else:
        weight = np.where(out, 0.0, 1.0)
    rows = from_memory([x], 1, weight, Missing.drop if how == "missing" else Missing.refuse)
    with Fit(rows, gaps=True) as fit:
        summary, sample = fit.survey(5, 2000, 0)
    assert summary.rows == (~out).sum()
    assert len(sample) == min(2000, summary.rows)
    assert not out[sample.index].any()
    assert len(fit.history) == draws


def test_rows_that_fit_in_the_sample_when_others_are_missing_stay_textbook():
    x = ORDERED.copy()
    x[np.random.default_rng(0).random(len(x)) > 0.05] = np.nan
    ways = [
        KMeans(4, sample_size=4000, missing="drop", accelerate=accelerate, random_state=0).fit(x)
        for accelerate in ("auto", "none")
    ]
    np.testing.assert_array_equal(ways[0].cluster_centers_, ways[1].cluster_centers_)
    assert ways[0].n_iter_ == ways[1].n_iter_


def test_no_tolerance_leads_to_a_fixed_point():
    model = KMeans(5, sample_size=5000, tol=0, random_state=0).fit(ORDERED)
    assert model.converged_
    assert model.gap_estimate_ == 0.0
    again = KMeans(5, init=model.cluster_centers_, tol=0).fit(ORDERED)
    assert again.n_iter_ == 1


def test_a_start_from_the_sample_lies_as_near_as_its_size_promises():
    gaps = []
    for seed in range(4):
        # One pass looks, one measures: the model is the sample's.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            short = GaussianMixture(5, sample_size=4000, max_passes=2, random_state=seed).fit(ORDERED)
        full = GaussianMixture(5, sample_size=4000, gap_tol=1e-8, random_state=seed).fit(ORDERED)
        gaps.append(full.lower_bound_ - short.lower_bound_)
    parameters = 5 * 10 - 1
    assert np.median(gaps) <= 2 * parameters / (2 * 4000)


@pytest.mark.parametrize("kind", [GaussianMixture, KMeans])
@pytest.mark.parametrize("budget", [2, 3, 5])
def test_a_budget_of_passes_is_kept_and_the_best_model_returned(kind, budget):
    with pytest.warns(ConvergenceWarning, match="gap"):
        model = kind(5, sample_size=2000, gap_tol=1e-14, max_passes=budget, random_state=0).fit(ORDERED)
    assert model.n_passes_ == budget
    assert not model.converged_
    # No model that a pass has seen was better.
    seen = [record["objective"] for record in model.history_ if record["objective"] is not None]
    assert len(seen) >= budget - 2
    if kind is KMeans:
        assert model.inertia_ == min(seen)
    else:
        assert model.lower_bound_ >= max(seen, default=-np.inf) - 1e-5  # what is seen on the way is smoothed


def test_a_budget_that_is_too_small_is_refused():
    with pytest.raises(InputError, match="at least 8"):
        KMeans(8, init="k-means||", max_passes=7, random_state=0).fit(ORDERED)
    with pytest.raises(InputError, match="at least 3"):
        KMeans(8, init=np.arange(len(ORDERED)) % 8, max_passes=2).fit(ORDERED)


def test_guesses_without_a_cap_cost_passes_and_no_likelihood():
    x = blobs(apart=3.0)
    start = rough_start(x, STRUCTURES[0], 3)
    states = told(Accelerated(em(), 1e-8, cap=1e6), x, start)
    assert states[-1].outcome is Outcome.converged
    assert min(np.diff(objectives(states))) >= -1e-9


def test_a_budget_holds_for_textbook_fits_too():
    for init in ("auto", "k-means||"):
        model = KMeans(8, init=init, max_passes=9, accelerate="none", tol=0, random_state=0).fit(ORDERED)
        assert model.n_passes_ <= 9
    with pytest.warns(ConvergenceWarning):
        mixture = GaussianMixture(8, max_passes=4, tol=0, accelerate="none", random_state=0).fit(ORDERED)
    assert mixture.n_passes_ == 4


@pytest.mark.parametrize(
    "start",
    [{"means_init": ORDERED[::15_000]}, {"init_params": np.arange(len(ORDERED)) % K}, {"max_iter": 1}],
    ids=["means", "labels", "one iteration"],
)
def test_fits_from_a_given_start_stay_textbook(start):
    ways = [
        GaussianMixture(K, sample_size=100, accelerate=accelerate, random_state=0, **start).fit(ORDERED)
        for accelerate in ("auto", "none")
    ]
    np.testing.assert_array_equal(ways[0].means_, ways[1].means_)
    assert ways[0].n_iter_ == ways[1].n_iter_


def test_data_that_fit_in_the_sample_stay_textbook():
    x = blobs(2000)
    ways = [GaussianMixture(K, accelerate=accelerate, random_state=0).fit(x) for accelerate in ("auto", "none")]
    np.testing.assert_array_equal(ways[0].means_, ways[1].means_)


def test_a_warm_start_goes_on_by_the_textbook():
    model = GaussianMixture(5, sample_size=5000, warm_start=True, random_state=0).fit(ORDERED)
    means = model.means_
    model.set_params(tol=1e-3).fit(ORDERED)
    assert model.n_iter_ <= 3
    np.testing.assert_allclose(model.means_, means, atol=0.05)


@pytest.mark.parametrize(
    ("option", "value"),
    [("accelerate", "yes"), ("gap_tol", -1.0), ("sample_size", 0), ("sample_size", "big"), ("max_passes", 1)],
)
@pytest.mark.parametrize("kind", [GaussianMixture, KMeans])
def test_what_cannot_be_used_is_refused_by_name(kind, option, value):
    with pytest.raises(InputError, match=option):
        kind(2, **{option: value}).fit(blobs(100))


def test_the_best_of_ten_starts_on_the_sample_beats_one_start():
    rng = np.random.default_rng(0)
    centres = 10 * rng.standard_normal((20, 2))
    x = centres[np.arange(200_000) % 20] + 0.3 * rng.standard_normal((200_000, 2))
    raced = [KMeans(20, sample_size=2000, random_state=s).fit(x).inertia_ for s in range(6)]
    single = [KMeans(20, accelerate="none", random_state=s).fit(x).inertia_ for s in range(6)]
    assert np.mean(raced) <= np.mean(single)
    assert max(raced) <= 1.2 * min(raced)
