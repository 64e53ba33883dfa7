"""Questions that share the features of a row and one wider product are answered as if each were asked alone."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_laws import KERNELS, QUICK, STRUCTURES, a_frame, a_mixture, with_tails

from daskmix import GaussianMixture, KMeans, testing
from daskmix.algorithms.em import EM
from daskmix.algorithms.lloyd import Lloyd
from daskmix.block import Missing
from daskmix.centroids import Assign, Centroids
from daskmix.engines.local import Local
from daskmix.kernels import Frame, compiled, reference
from daskmix.passes import passes
from daskmix.reduction import Together
from daskmix.rows import from_memory
from daskmix.sampling import Summarise
from daskmix.sharing import Explain
from daskmix.structures import Diagonal, Full, Spherical, Tied

D = 3


class Counting:
    """Kernels that count how often they are called."""

    def __init__(self, ops=reference):
        self.ops, self.calls = ops, Counter()

    def __getattr__(self, name):
        def counted(*args):
            self.calls[name] += 1
            return getattr(self.ops, name)(*args)

        return counted


def explain(structure, k, path="float64", frame=None, floor=0.1, seed=0):
    d = len((frame or a_frame(D)).shift)
    return Explain(a_mixture(structure, k, d, seed), frame or a_frame(d), path, np.full(d, floor))


def with_tails_too(question):
    return replace(question, mixture=with_tails(question.mixture))


def assign(k, frame=None, far=2, seed=0):
    d = len((frame or a_frame(D)).shift)
    centres = 5 * np.random.default_rng([seed, k]).standard_normal((k, d))
    return Assign(Centroids(centres), frame or a_frame(d), min(far, k - 1))


def rows(n, d, weighted, dtype=np.float64):
    rng = np.random.default_rng(n)
    x = (4 * rng.standard_normal((n, d)) + 1.5).astype(dtype)
    return testing.block_of(x, rng.integers(0, 4, n) / 2 if weighted else None)


def assert_one_by_one(questions, block, ops, rtol=1e-9):
    together = Together(tuple(questions)).map(block, ops)
    alone = tuple(question.map(block, ops) for question in questions)
    size = max(1.0, float(np.abs(block.x).max(initial=0.0))) ** 2 * max(1, len(block.x))
    testing.assert_same_answer(together, alone, rtol, rtol * size)


@pytest.mark.parametrize("ops", KERNELS)
@QUICK
@given(st.data())
def test_questions_that_share_a_product_are_answered_as_if_alone(ops, data):
    # Up to several tiles of the compiled kernels, with a remainder; no rows at all too.
    d, block_rows = data.draw(st.integers(1, 5)), data.draw(st.sampled_from([0, 1, 63, 239, 500, 1500]))
    frames = [a_frame(d), Frame(np.zeros(d), np.ones(d))]
    frame, k, seed = st.sampled_from(frames), st.integers(1, 9), st.integers(0, 99)
    mixture = st.builds(
        explain, st.sampled_from(STRUCTURES), k, st.sampled_from(["float64", "centred"]), frame,
        st.sampled_from([0.0, 0.1]), seed,
    )  # fmt: skip
    mixture |= mixture.map(with_tails_too)
    questions = data.draw(st.lists(mixture | st.builds(assign, k, frame, st.integers(0, 4), seed), min_size=1))
    assert_one_by_one(questions, rows(block_rows, d, data.draw(st.booleans())), ops)


@pytest.mark.parametrize("ops", KERNELS)
@pytest.mark.parametrize("weighted", [False, True])
def test_shared_float32_products_agree_to_their_rounding(ops, weighted):
    questions = [explain(s, k, "float32", seed=k) for s in (Full(), Diagonal(), Spherical()) for k in (2, 5)]
    questions += [assign(4), assign(17)]
    assert_one_by_one(questions, rows(3000, D, weighted, np.float32), ops, rtol=1e-4)


@pytest.mark.parametrize("structure", [Full(), Diagonal(), Spherical()])
def test_mixtures_with_equal_features_call_the_kernel_once(structure):
    ops = Counting()
    asked = [explain(structure, k, frame=a_frame(D), floor=k / 10, seed=k) for k in (2, 3, 5)]
    Together(tuple(asked)).map(rows(50, D, True), ops)
    assert ops.calls == {"explain": 1}


def test_centres_in_one_frame_call_the_kernel_once():
    ops = Counting()
    Together((assign(2), Summarise(D), assign(5), assign(2, seed=1))).map(rows(50, D, True), ops)
    assert ops.calls == {"assign": 1}


@pytest.mark.parametrize(
    "others",
    [
        [explain(Diagonal(), 3)],
        [explain(Full(), 3, "float32")],
        [explain(Full(), 3, frame=Frame(np.zeros(D), np.ones(D)))],
        [explain(Full(), 3, "centred"), explain(Full(), 2, "centred")],
        [explain(Tied(), 3), explain(Tied(), 3)],  # each with a whitening of its own
        [with_tails_too(explain(Full(), 3)), with_tails_too(explain(Full(), 2))],
    ],
)
def test_other_features_are_another_product(others):
    ops = Counting()
    Together((explain(Full(), 3), *others, explain(Full(), 2))).map(rows(50, D, False), ops)
    assert ops.calls == {"explain": 1 + len(others)}


@pytest.mark.parametrize("ops", KERNELS)
def test_a_question_with_a_memo_has_a_product_of_its_own(ops):
    block, counting = rows(700, D, True), Counting(ops)
    one, other = (replace(assign(9, seed=seed), memo=f"start {seed}") for seed in (0, 1))
    first, *_, last = Together((one, assign(2), assign(5), other)).map(block, counting)
    assert counting.calls == {"assign": 1, "assign_again": 2}
    # To the bit: what it remembers must not depend on who shares the read.
    testing.assert_same_answer((first, last), (one.map(block, ops), other.map(block, ops)), 0.0, 0.0)


@pytest.mark.parametrize("ops", KERNELS)
def test_ties_go_to_the_lowest_index_in_each_model(ops):
    twice = Assign(Centroids(np.array([[0.0, 0.0], [4.0, 4.0], [0.0, 0.0], [4.0, 4.0], [4.0, 4.0]])), a_frame(2))
    for answer in Together((twice, twice, twice)).map(rows(300, 2, False), ops):
        assert answer.mass[:2].sum() == 300
        assert not answer.mass[2:].any()


@pytest.mark.parametrize("ops", KERNELS)
def test_each_model_keeps_as_many_far_rows_as_it_asked_for(ops):
    asked = [assign(9, far=far, seed=far) for far in (0, 3, 1, 8)]
    answers = Together(tuple(asked)).map(rows(700, D, True), ops)
    assert [len(answer.farthest.index) for answer in answers] == [0, 3, 1, 8]
    for question, answer in zip(asked, answers, strict=True):
        np.testing.assert_array_equal(answer.farthest.index, question.map(rows(700, D, True), ops).farthest.index)


def test_a_tile_has_room_for_all_that_share_a_product():
    one, many = explain(Full(), 4), [explain(Full(), 4, seed=seed) for seed in range(8)]
    # The features once, densities and responsibilities of each.
    assert Together(tuple(many)).row_bytes(reference) - one.row_bytes(reference) == 7 * 2 * 4 * 8
    both = [question.row_bytes(reference) for question in (one, Summarise(D))]
    assert Together((one, Summarise(D))).row_bytes(reference) == max(both)


def test_kernels_that_work_in_tiles_need_no_room_for_all_rows():
    many = tuple(explain(Full(), 4, seed=seed) for seed in range(8))
    assert Together(many).row_bytes(compiled) == many[0].row_bytes(compiled) < many[0].row_bytes(reference)


def test_frames_are_equal_by_value():
    assert a_frame(3) == a_frame(3)
    assert hash(a_frame(3)) == hash(a_frame(3))
    assert a_frame(3) != Frame(np.full(3, 1.5), np.ones(3))
    assert a_frame(3) != a_frame(2)


@pytest.mark.parametrize(
    ("algorithm", "model"),
    [
        (Lloyd, KMeans(4, init="random", n_init=5, random_state=3)),
        (EM, GaussianMixture(4, init_params="random_from_data", n_init=5, tol=1e-5, random_state=3)),
        (EM, GaussianMixture(4, covariance_type="diag", init_params="random_from_data", n_init=5, random_state=3)),
        (EM, GaussianMixture(4, covariance_type="tied", init_params="random_from_data", n_init=5, random_state=3)),
    ],
)
def test_restarts_give_the_best_of_as_many_single_fits(monkeypatch, algorithm, model):
    begun, start = [], algorithm.start

    def remember(self, first=None):
        begun.append((self, start(self, first)))
        return begun[-1][1]

    monkeypatch.setattr(algorithm, "start", remember)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30_000, 4)) + 3 * rng.integers(0, 4, (30_000, 1))
    model.fit(x)
    singles = from_memory([x], 1, None, Missing.trust)
    ended = []
    for alone, state in begun:
        *_, last = passes([alone], singles, engine=Local(), states=[state])
        ended.append(last.states[0])
    assert len(ended) == 5
    frame = begun[0][0].frame
    if algorithm is Lloyd:
        best = min(ended, key=lambda state: state.cost)
        np.testing.assert_allclose(model.cluster_centers_, frame.leave(best.model.centres), rtol=1e-8)
        assert model.inertia_ == pytest.approx(best.cost, rel=1e-8)
    else:
        best = max(ended, key=lambda state: state.score)
        np.testing.assert_allclose(model.means_, frame.leave(best.model.means), rtol=1e-8, atol=1e-8)
        assert model.lower_bound_ == pytest.approx(best.score / len(x), rel=1e-8)
    assert model.n_iter_ == best.n_iter
    # Of a chunk, whatever shares the read.
    assert {record["chunks"] for record in model.history_} == {len(singles.parts)}
