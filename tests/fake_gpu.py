"""A GPU that is not one: arrays that no NumPy function may touch, with one counted door to the host and one from it.

It stands in for CuPy in the ordinary suite. It is stricter than CuPy: where CuPy would wait for the device behind the
caller's back (`float(a)`, `if a:`, `for row in a`) or hand an array over to NumPy's dispatch, this one refuses.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

# What the package may ask of a namespace; tests/test_cupy.py holds that CuPy has all of it.
FUNCTIONS = (
    "arange", "argsort", "bincount", "concatenate", "einsum", "empty", "exp", "flatnonzero", "isfinite", "isinf",
    "isnan", "log", "log1p", "maximum", "ones", "searchsorted", "sort", "sqrt", "stack", "triu_indices", "where",
)  # fmt: skip
METHODS = ("all", "any", "argmax", "argmin", "astype", "max", "mean", "min", "ravel", "reshape", "sum")
OPERATORS = (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "rshift", "lshift",
)  # fmt: skip
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
REFUSED = (
    "__array__", "__array_function__", "__array_ufunc__", "__bool__", "__complex__", "__contains__", "__float__",
    "__index__", "__int__", "__iter__", "item", "tolist",
)  # fmt: skip


class HostTouchedError(AssertionError):
    """NumPy, or Python's own numbers, reached for an array of the device."""


class FakeArray:
    """An array of the fake device."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, values: Any) -> None:
        self.__values = np.asarray(values)

    shape = property(lambda self: self.__values.shape)
    ndim = property(lambda self: self.__values.ndim)
    size = property(lambda self: self.__values.size)
    dtype = property(lambda self: self.__values.dtype)
    nbytes = property(lambda self: self.__values.nbytes)
    T = property(lambda self: FakeArray(self.__values.T))

    def __len__(self) -> int:
        return len(self.__values)

    def __getitem__(self, index: Any) -> FakeArray:
        return FakeArray(self.__values[_inside(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self.__values[_inside(index)] = _inside(value)

    def __neg__(self) -> FakeArray:
        return FakeArray(-self.__values)

    def __invert__(self) -> FakeArray:
        return FakeArray(~self.__values)


def _values(array: FakeArray) -> np.ndarray:
    return array._FakeArray__values  # type: ignore[attr-defined]


def _inside(given: Any) -> Any:
    """What the device computes with: its own arrays and plain numbers, alone or in sequences."""
    if isinstance(given, FakeArray):
        return _values(given)
    if isinstance(given, np.ndarray):
        raise HostTouchedError(f"a NumPy array {given.shape} among arrays of the device")
    if isinstance(given, list | tuple):
        return type(given)(_inside(part) for part in given)
    return given


def _outside(found: Any) -> Any:
    if isinstance(found, list | tuple):
        return tuple(_outside(part) for part in found)
    return FakeArray(found)


def _on_device(function: Any) -> Any:
    def called(*args: Any, **kwargs: Any) -> Any:
        return _outside(function(*(_inside(a) for a in args), **{name: _inside(a) for name, a in kwargs.items()}))

    return called


def _in_place(function: Any) -> Any:
    def called(self: FakeArray, other: Any) -> FakeArray:
        function(_values(self), _inside(other))
        return self

    return called


def _refused(name: str) -> Any:
    def called(self: FakeArray, *args: Any, **kwargs: Any) -> Any:
        what = getattr(args[0], "__name__", "") if args else ""
        raise HostTouchedError(f"{name} {what} of an array {self.shape} of the device")

    return called


for _name in METHODS:
    setattr(FakeArray, _name, _on_device(getattr(np.ndarray, _name)))
for _name in OPERATORS:
    _plain = _name.rstrip("_")
    _two = getattr(operator, _name)
    setattr(FakeArray, f"__{_plain}__", _on_device(_two))
    setattr(FakeArray, f"__r{_plain}__", _on_device(lambda a, b, two=_two: two(b, a)))
    setattr(FakeArray, f"__i{_plain}__", _in_place(getattr(operator, f"i{_plain}")))
for _name in COMPARISONS:
    setattr(FakeArray, f"__{_name}__", _on_device(getattr(operator, _name)))
for _name in REFUSED:
    setattr(FakeArray, _name, _refused(_name))


class FakeGpu:
    """The namespace of the device, and what went through its doors: bytes of each transfer."""

    def __init__(self) -> None:
        self.to_host: list[int] = []
        self.to_device: list[int] = []
        for name in FUNCTIONS:
            setattr(self, name, _on_device(getattr(np, name)))

    def asarray(self, a: Any, dtype: Any = None) -> FakeArray:
        if isinstance(a, np.ndarray):
            self.to_device.append(a.nbytes)
            return FakeArray(np.array(a, dtype=dtype))
        return _outside(np.asarray(_inside(a), dtype=dtype))

    def asnumpy(self, a: FakeArray) -> np.ndarray:
        self.to_host.append(a.nbytes)
        return _values(a).copy()

    def forget(self) -> None:
        """Count from here."""
        self.to_host.clear()
        self.to_device.clear()


gpu = FakeGpu()
FakeArray.__array_namespace__ = lambda self, api_version=None: gpu  # type: ignore[attr-defined]
