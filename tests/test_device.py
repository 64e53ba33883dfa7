"""Rows that live on a device stay there: what a pass brings to the host does not grow with the rows."""

import builtins

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from fake_gpu import FakeArray, HostTouchedError, gpu
from test_laws import STRUCTURES, a_frame, a_mixture, questions

from daskmix import GaussianMixture, KMeans, Run, answers, device, testing
from daskmix.arrays import namespace, to_host
from daskmix.block import Block, Missing, Place, clean, table
from daskmix.device import OnGpu, suited
from daskmix.errors import InputError
from daskmix.kernels import compiled, reference
from daskmix.reduction import Together
from daskmix.sampling import Sample
from daskmix.sharing import Explain, Learn

D = 3


@pytest.fixture(autouse=True)
def count_from_zero():
    gpu.forget()


def block(n, weighted, dtype=np.float64, d=D):
    rng = np.random.default_rng(n)
    x = (5 * rng.standard_normal((n, d))).astype(dtype)
    # A box of a grid, so that global indices are not just a range.
    place = Place((2, 3), (n // 20, 20), (n, 100))
    return Block(x, rng.integers(0, 3, n).astype(float) if weighted else None, place)


def asked():
    yield from questions(D)
    for structure in STRUCTURES:
        yield Explain(a_mixture(structure, 3, D), a_frame(D), "float32", np.full(D, 0.1))
        for labelled in (False, True):
            # The last columns of the rows are the shares, or the labels.
            yield Learn(1, structure.order, a_frame(D - 1), labelled, np.zeros(D - 1), np.ones(D - 1))
    yield Together(tuple(questions(D)))


QUESTIONS = list(asked())


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: type(q).__name__)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_the_device_give_the_answer_of_the_definition(question, weighted, dtype):
    here = block(400, weighted, dtype)
    answer = question.map(here.moved(gpu), reference)
    testing.assert_same_answer(answer, question.map(here, reference), 1e-12, 1e-12)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: type(q).__name__)
@pytest.mark.parametrize("weighted", [False, True])
def test_what_comes_to_the_host_does_not_grow_with_the_rows(question, weighted):
    traffic = []
    for n in (400, 8000):
        there = block(n, weighted).moved(gpu)
        gpu.forget()
        question.map(there, reference)
        traffic.append((sorted(gpu.to_host), sorted(gpu.to_device)))
    assert traffic[0] == traffic[1]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: type(q).__name__)
def test_answers_are_numpys_and_merge_with_those_of_the_host(question):
    here = block(400, weighted=True)
    there = question.map(here.moved(gpu), reference)
    gpu.forget()
    merged = question.merge(question.map(here, reference), question.merge(there, question.zero()))
    assert not gpu.to_host
    testing.assert_same_answer(merged, question.merge(*[question.map(here, reference)] * 2), 1e-12, 1e-12)


def test_of_a_sample_only_the_chosen_rows_come_to_the_host():
    here = block(8000, weighted=True)
    for question in QUESTIONS:
        if isinstance(question.zero(), Sample):
            there = here.moved(gpu)
            gpu.forget()
            question.map(there, reference)
            row = 8 * (D + 1 + 1 + 1)  # values, weight, index, rank
            assert sum(gpu.to_host) == question.size * row


def test_compiled_kernels_are_for_rows_of_the_host():
    here = block(400, weighted=False)
    assert suited(compiled, here.x) is compiled
    assert suited(compiled, here.moved(gpu).x) is reference


# --- cleaning ---------------------------------------------------------------------------------------------------------


def spoilt(value):
    x = np.arange(12.0).reshape(4, 3)
    x[2, 1] = value
    return gpu.asarray(x)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8, np.int64])
def test_rows_and_weights_are_cleaned_where_the_rows_live(dtype):
    x, w = np.arange(12).reshape(4, 3).astype(dtype), np.array([1, 0, 2, 3])
    for weights in (w, gpu.asarray(w), None):
        cleaned = clean(gpu.asarray(x), weights, table(0, 4, 4), 0, Missing.refuse)
        assert isinstance(cleaned.x, FakeArray)
        assert weights is None or isinstance(cleaned.w, FakeArray)
        assert cleaned.x.dtype == clean(x, None, table(0, 4, 4), 0, Missing.refuse).x.dtype
    assert gpu.to_host == [1] * 5  # whether all is well, of each array of rows or weights
    cleaned = clean(x, gpu.asarray(w), table(0, 4, 4), 0, Missing.refuse)
    np.testing.assert_array_equal(cleaned.w, w)


def test_missing_rows_of_the_device_are_left_out_or_named():
    cleaned = clean(spoilt(np.nan), None, table(0, 4, 4), 0, Missing.drop)
    assert cleaned.missing == 1
    np.testing.assert_array_equal(to_host(cleaned.w), [1, 1, 0, 1])
    np.testing.assert_array_equal(to_host(cleaned.x)[2], to_host(cleaned.x)[0])
    with pytest.raises(InputError, match=r"row 2 \(chunk 0\) holds NaN"):
        clean(spoilt(np.nan), None, table(0, 4, 4), 0, Missing.refuse)
    with pytest.raises(InputError, match=r"row 2 \(chunk 0\) holds infinity"):
        clean(spoilt(np.inf), None, table(0, 4, 4), 0, Missing.drop)
    weights = gpu.asarray(np.array([1.0, 2.0, 3.0, -4.0]))
    with pytest.raises(InputError, match=r"sample_weight of row 3 \(chunk 0\) is -4.0"):
        clean(gpu.asarray(np.zeros((4, 3))), weights, table(0, 4, 4), 0, Missing.refuse)


# --- whole fits -------------------------------------------------------------------------------------------------------


def blobs(n=2000):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, D)) + 6 * rng.integers(0, 3, (n, 1))


def on_device(x):
    """The same lazy array, of chunks that live on the device."""
    return x.map_blocks(gpu.asarray, dtype=x.dtype, meta=np.empty((0,) * x.ndim, dtype=x.dtype))


def models(run=None):
    yield KMeans(3, random_state=0, run=run)
    yield KMeans(3, init="k-means||", random_state=0, run=run)
    for covariance_type in ("full", "tied", "diag", "spherical"):
        yield GaussianMixture(3, covariance_type=covariance_type, random_state=0, run=run)
    yield GaussianMixture(3, nu="estimate", random_state=0, run=run)


def centres(model):
    return model.cluster_centers_ if isinstance(model, KMeans) else model.means_


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_fit_on_chunks_of_the_device_is_that_of_the_host(weighted, dtype):
    x = da.from_array(blobs().astype(dtype), chunks=(700, 2))  # features are cut too
    w = da.from_array(np.random.default_rng(1).integers(1, 3, len(x)), chunks=700) if weighted else None
    for here, there in zip(models(), models(), strict=True):
        here.fit(x, sample_weight=w)
        there.fit(on_device(x), sample_weight=None if w is None else on_device(w))
        np.testing.assert_allclose(centres(there), centres(here), atol=1e-5 if dtype == np.float32 else 1e-10)


def test_a_score_is_computed_where_the_rows_live():
    x = da.from_array(blobs(), chunks=(700, D))
    for model in models():
        model.fit(x)
        np.testing.assert_allclose(model.score(on_device(x)), model.score(x), rtol=1e-9)


def test_a_value_for_each_row_is_computed_where_it_lives_and_handed_over_on_the_host(monkeypatch):
    x = blobs()
    x[5, 1] = np.nan
    fitted = [model.set_params(missing="drop").fit(x) for model in models()]
    questions = ("predict", "transform", "predict_proba", "uncertainty", "score_samples")
    asked = [getattr(model, name) for model in fitted for name in questions if hasattr(model, name)]
    expected = [question(x) for question in asked]
    # Dask itself joins blocks, which CuPy's arrays let NumPy's functions do and these do not: they come in behind it.
    monkeypatch.setattr(answers, "clean", lambda x, *rest: clean(gpu.asarray(x), *rest))
    for question, values in zip(asked, expected, strict=True):
        found = question(x)
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, values, rtol=1e-9, atol=1e-12)


def test_labels_to_start_from_go_where_the_rows_are():
    x, labels = da.from_array(blobs(), chunks=(700, D)), np.arange(2000) % 3
    here, there = KMeans(3, init=labels).fit(x), KMeans(3, init=labels).fit(on_device(x))
    np.testing.assert_allclose(there.cluster_centers_, here.cluster_centers_, rtol=1e-12)


def test_variables_of_the_device_become_the_features_of_a_row():
    x = da.from_array(blobs(), chunks=(700, D))
    here = xr.Dataset({name: ("row", x[:, j]) for j, name in enumerate("abc")})
    there = xr.Dataset({name: ("row", on_device(x[:, j])) for j, name in enumerate("abc")})
    a, b = KMeans(3, random_state=0).fit(here), KMeans(3, random_state=0).fit(there)
    np.testing.assert_allclose(b.cluster_centers_, a.cluster_centers_, rtol=1e-12)


@pytest.mark.parametrize("make", [blobs, lambda: da.from_array(blobs(), chunks=(700, D))])
def test_device_cuda_moves_every_tile_and_changes_rounding_alone(monkeypatch, make):
    monkeypatch.setattr(device, "gpu", lambda: gpu)
    x = make()
    for here, there in zip(models(), models(Run(device="cuda")), strict=True):
        here.fit(x)
        gpu.forget()
        there.fit(x)
        assert sum(gpu.to_device) >= there.n_passes_ * x.nbytes
        np.testing.assert_allclose(centres(there), centres(here), rtol=1e-10)
        assert there.history_[0]["fingerprint"]["device"] == "cuda"


def test_a_tile_is_moved_once_however_many_questions_share_it(monkeypatch):
    monkeypatch.setattr(device, "gpu", lambda: gpu)
    here = block(8000, weighted=False)
    OnGpu(Together(tuple(questions(D)))).map(here, compiled)
    assert [size for size in gpu.to_device if size >= here.x.nbytes] == [here.x.nbytes]


@pytest.mark.parametrize("given", ["gpu", "cpu", "cuda:0", True])
def test_another_device_is_refused(given):
    with pytest.raises(InputError, match='is not one of "cuda", None'):
        Run(device=given)


def test_device_cuda_without_cupy_says_so(monkeypatch):
    def without_cupy(name, *args, **kwargs):
        if name == "cupy":
            raise ImportError("No module named 'cupy'")
        return found(name, *args, **kwargs)

    found = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", without_cupy)
    device.gpu.cache_clear()
    with pytest.raises(InputError, match="needs CuPy, which cannot be imported"):
        KMeans(3, run=Run(device="cuda")).fit(blobs())


# --- the double itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "touch",
    [
        np.sum, np.asarray, np.sqrt, np.argmax, np.ones_like, float, int, bool, list, sum,
        lambda a: np.zeros(3) + a,
        lambda a: a + np.zeros(3),
        lambda a: np.float64(2.0) * a,
        lambda a: a[np.array([0])],
        lambda a: np.zeros((2, 3)) @ a,
        lambda a: np.where(a > 0, a, 0.0),
        lambda a: np.concatenate([a, a]),
        lambda a: gpu.where(np.ones(3, dtype=bool), a, a),
        lambda a: 1.0 in a,
        lambda a: f"{a.item()}",
    ],
)  # fmt: skip
def test_numpy_may_not_touch_the_fake_device(touch):
    with pytest.raises(HostTouchedError):
        touch(gpu.asarray(np.arange(3.0)))


def test_a_numpy_call_in_a_kernel_is_found_out():
    question, there = QUESTIONS[0], block(400, weighted=False).moved(gpu)

    class Careless:
        """The reference, but for one sum by NumPy."""

        @staticmethod
        def assign(x, *rest):
            np.sum(x)
            return reference.assign(x, *rest)

    with pytest.raises(HostTouchedError, match="sum of an array"):
        question.map(there, Careless)


def test_the_namespace_of_an_array_is_its_own():
    assert namespace(np.zeros(1)) is np
    assert namespace(gpu.asarray(np.zeros(1))) is gpu
