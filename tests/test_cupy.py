"""The reference kernels on a real GPU; skipped where CuPy or a GPU is missing."""

import dask.array as da
import fake_gpu
import numpy as np
import pytest
from test_device import QUESTIONS, D, blobs, block, centres, models

from daskmix import KMeans, Run, testing
from daskmix.arrays import namespace, to_host
from daskmix.kernels import reference

cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
on_a_gpu = pytest.mark.skipif(not cupy.cuda.is_available(), reason="CuPy finds no GPU")


def test_the_fake_gpu_offers_only_what_cupy_has():
    assert not [name for name in (*fake_gpu.FUNCTIONS, "asarray", "asnumpy") if not hasattr(cupy, name)]
    assert not [name for name in (*fake_gpu.METHODS, "T", "nbytes") if not hasattr(cupy.ndarray, name)]


@pytest.mark.skipif(cupy.cuda.is_available(), reason="there is a GPU")
def test_device_cuda_without_a_gpu_says_so():
    with pytest.raises(ValueError, match="CuPy finds no GPU"):
        KMeans(3, run=Run(device="cuda")).fit(blobs())


@on_a_gpu
def test_the_namespace_of_a_cupy_array_is_cupy():
    a = cupy.arange(3)
    assert namespace(a) is cupy
    np.testing.assert_array_equal(to_host(a), [0, 1, 2])


@on_a_gpu
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: type(q).__name__)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_the_gpu_give_the_answer_of_the_definition(question, weighted, dtype):
    here = block(400, weighted, dtype)
    rtol = 1e-4 if dtype == np.float32 or getattr(question, "path", "") == "float32" else 1e-9
    size = float(np.abs(here.x).max()) ** 2 * len(here.x)
    answer = question.map(here.moved(cupy), reference)
    testing.assert_same_answer(answer, question.map(here, reference), rtol, rtol * size)


@on_a_gpu
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: type(q).__name__)
def test_what_comes_to_the_host_from_the_gpu_does_not_grow_with_the_rows(question, monkeypatch):
    def counted(a, *args, **kwargs):
        came[-1].append(a.nbytes)
        return through(a, *args, **kwargs)

    through, came = cupy.asnumpy, []
    monkeypatch.setattr(cupy, "asnumpy", counted)
    for n in (400, 8000):
        came.append([])
        question.map(block(n, weighted=True).moved(cupy), reference)
    assert sorted(came[0]) == sorted(came[1])


@on_a_gpu
@pytest.mark.parametrize("chunks", [(700, D), (700, 2)])
def test_a_fit_on_cupy_chunks_is_that_of_the_host(chunks):
    x = da.from_array(blobs(), chunks=chunks)
    for here, there in zip(models(), models(), strict=True):
        here.fit(x)
        there.fit(x.map_blocks(cupy.asarray))
        np.testing.assert_allclose(centres(there), centres(here), atol=1e-8)


@on_a_gpu
def test_device_cuda_changes_rounding_alone():
    for here, there in zip(models(), models(Run(device="cuda")), strict=True):
        here.fit(blobs())
        there.fit(blobs())
        np.testing.assert_allclose(centres(there), centres(here), atol=1e-8)
        np.testing.assert_array_equal(there.predict(blobs()), here.predict(blobs()))
