"""Values that go through bytes come back as they were; bytes that are none are refused, and nothing else happens."""

import dataclasses
import json
from enum import Enum

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy

from daskmix.algorithms.acceleration import AcceleratedState
from daskmix.algorithms.base import Outcome
from daskmix.algorithms.em import EMState
from daskmix.centroids import Centroids
from daskmix.errors import DamagedError
from daskmix.snapshots import KNOWN, MAGIC, packed, unpacked

NUMBERS = of_numpy.arrays(
    st.one_of(of_numpy.floating_dtypes(sizes=(32, 64)), of_numpy.integer_dtypes(), of_numpy.boolean_dtypes()),
    of_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(Outcome), NUMBERS)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(), st.tuples(st.integers(), st.integers())), inner, max_size=3),
        st.builds(Centroids, inner),
    ),
    max_leaves=8,
)


def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    return repr(a) == repr(b)


@given(VALUES)
def test_values_come_back_as_they_were(value):
    assert same(unpacked(packed(value)), value)


@given(st.lists(NUMBERS, min_size=1, max_size=3), st.permutations(range(3)))
def test_matrices_lie_in_memory_as_they_did(arrays, axes):
    for array in arrays:
        turned = array.transpose([axis for axis in axes if axis < array.ndim])
        back = unpacked(packed(turned))
        if turned.size > 1:
            assert [s for s, n in zip(back.strides, back.shape, strict=True) if n > 1] == [
                s for s, n in zip(turned.strides, turned.shape, strict=True) if n > 1
            ]


def test_what_is_one_object_stays_one():
    model = Centroids(np.zeros((2, 2)))
    inner = EMState(model, "centred")  # type: ignore[arg-type]
    state = AcceleratedState(inner, 1.0, np.zeros((1, 4)), np.zeros((1, 4)), safe=model)
    found, again = unpacked(packed((state, model)))
    assert found.safe is found.inner.model is again


def test_what_is_not_known_is_not_written():
    class Own(Enum):
        one = 1

    for value in (lambda: 0, object(), {1}, Own.one, np.array([None]), np.array(["text"])):
        with pytest.raises(TypeError, match=r"not stored|no kind"):
            packed(value)


def header(**told):
    written = json.dumps({"root": None, "objects": [], "arrays": []} | told).encode()
    return MAGIC + len(written).to_bytes(8, "little") + written


@pytest.mark.parametrize(
    "data",
    [
        b"",
        MAGIC,
        MAGIC + b"\xff" * 8,
        MAGIC + (2**62).to_bytes(8, "little") + b"{}",
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",  # a pickle
        header(objects=[["os.system", {"command": "true"}]]),
        header(objects=[["Outcome", {"value": "running"}]]),
        header(objects=[["Centroids", {"centres": None, "more": 1}]]),
        header(objects=[["Centroids", {"centres": {"object": 0}}]]),  # itself
        header(root={"choice": ["Outcome", "nothing"]}),
        header(root={"choice": ["Centroids", "centres"]}),
        header(root={"array": 0}),
        header(root={"import": "os"}),
        header(arrays=[["<f8", [2**40, 2**40], [0, 1]]]),
        header(arrays=[["<f8", [2**61], [0]]]),
        header(arrays=[["<f8", [-1], [0]]]),
        header(arrays=[["|O", [1], [0]]]),
        header(arrays=[["<U9", [1], [0]]]),
        header(arrays=[["<f8", [0, 0], [0, 0]]]),
        header(arrays=[["<f8", [0], [7]]]),
        MAGIC + (200_000).to_bytes(8, "little") + b"[" * 200_000,
        header(root=None) + b"more",
    ],
    ids=lambda data: repr(data[:60]),
)
def test_hostile_bytes_are_refused(data):
    with pytest.raises(DamagedError):
        unpacked(data)


REAL = packed({"states": (EMState(Centroids(np.arange(6.0).reshape(3, 2)), "centred"),), "more": [np.int64(1), np.nan]})  # type: ignore[arg-type]


@settings(max_examples=300)
@given(st.data())
def test_changed_bytes_are_refused_or_are_another_value(data):
    changed = bytearray(REAL)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(REAL) - 1))] = data.draw(st.integers(0, 255))
    del changed[data.draw(st.integers(0, len(REAL))) or None :]
    try:
        unpacked(bytes(changed))
    except DamagedError:
        return


def test_every_kind_that_is_made_again_is_a_plain_value():
    for kind in KNOWN.values():
        assert issubclass(kind, Enum) or dataclasses.is_dataclass(kind)
        assert kind.__module__.startswith("daskmix.")
