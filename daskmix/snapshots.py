"""Values that algorithms go on from <-> bytes: JSON and plain numbers, never pickle.

Only classes that are listed here are made again, so that a file cannot name what is run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from math import isfinite, prod
from types import ModuleType
from typing import Any

import numpy as np

from daskmix import (
    centroids,
    covariance,
    directions,
    family,
    given,
    mixture,
    moments,
    passes,
    sampling,
    structures,
    variational,
)
from daskmix.algorithms import (
    acceleration,
    base,
    bisecting,
    em,
    lloyd,
    racing,
    seeding,
    stochastic,
)
from daskmix.algorithms import variational as iterating
from daskmix.errors import DamagedError

MAGIC = b"daskmix snapshot 1\n"
ALIGNED = 64  # bytes
NUMBERS = "fiub"  # kinds of arrays that are stored

HOMES: tuple[ModuleType, ...] = (
    covariance, structures, centroids, moments, given, family, mixture, directions, variational, sampling, base, lloyd,
    em, bisecting, stochastic, iterating, acceleration, racing, seeding, passes,
)  # fmt: skip


def _known() -> dict[str, type]:
    """Dataclasses and enumerations by name, as they stand in their module."""
    found: dict[str, type] = {}
    for home in HOMES:
        for name, kind in vars(home).items():
            own = isinstance(kind, type) and kind.__module__ == home.__name__
            if own and (is_dataclass(kind) or issubclass(kind, Enum)):
                if name in found:
                    raise AssertionError(f"{name} is the name of two kinds of values")
                found[name] = kind
    return found


KNOWN = _known()


def packed(value: Any) -> bytes:
    """A value as bytes; what is the same object in it will be the same object again.

    Raises
    ------
    TypeError
        Some part of it is of no kind that is stored.
    """
    packing = _Packing()
    root = packing.node(value)
    header = {"root": root, "objects": packing.objects, "arrays": packing.described}
    told = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    pieces = [MAGIC, len(told).to_bytes(8, "little"), told]
    for array in packing.arrays:
        pieces += [bytes(-sum(map(len, pieces)) % ALIGNED), array.tobytes()]
    return b"".join(pieces)


@dataclass
class _Packing:
    """What was met so far, each object and array once."""

    objects: list[Any] = field(default_factory=list)
    arrays: list[np.ndarray] = field(default_factory=list)
    described: list[Any] = field(default_factory=list)
    seen: dict[int, Any] = field(default_factory=dict)
    held: list[Any] = field(default_factory=list)  # so that no identity is given to another object

    def node(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | str) or type(value) is int:
            return value
        if type(value) is float:
            return value if isfinite(value) else {"float": repr(value)}
        if isinstance(value, np.generic):
            return {"number": [value.dtype.str, self.node(value.item())]}
        if isinstance(value, Enum):
            return {"choice": [self._name(type(value)), value.name]}
        if isinstance(value, tuple | list):
            return {type(value).__name__: [self.node(v) for v in value]}
        if isinstance(value, Mapping):
            return {"mapping": [[self.node(k), self.node(v)] for k, v in value.items()]}
        if id(value) not in self.seen:
            self.seen[id(value)] = self._array(value) if isinstance(value, np.ndarray) else self._object(value)
            self.held.append(value)
        return self.seen[id(value)]

    def _array(self, value: np.ndarray) -> Any:
        if value.dtype.kind not in NUMBERS:
            raise TypeError(f"an array of type {value.dtype} is not stored in a snapshot")
        # Axes in the order of memory: BLAS adds in another order where a matrix comes the other way round.
        axes = sorted(range(value.ndim), key=lambda axis: -abs(value.strides[axis]))
        self.arrays.append(value.transpose(axes))
        self.described.append([value.dtype.str, list(self.arrays[-1].shape), axes])
        return {"array": len(self.arrays) - 1}

    def _object(self, value: Any) -> Any:
        name = self._name(type(value))
        made = {f.name: self.node(getattr(value, f.name)) for f in fields(value) if f.init}
        self.objects.append([name, made])
        return {"object": len(self.objects) - 1}

    def _name(self, kind: type) -> str:
        if KNOWN.get(kind.__name__) is not kind:
            raise TypeError(f"{kind.__module__}.{kind.__name__} is of no kind that is stored in a snapshot")
        return kind.__name__


def unpacked(data: bytes) -> Any:
    """The value that was packed.

    Raises
    ------
    DamagedError
        These are not the bytes of one.
    """
    try:
        return _Unpacking(data).value()
    except Exception as error:  # anything can be wrong with bytes from a file; whatever it is, it is the file's
        raise DamagedError(f"it is no snapshot: {type(error).__name__}: {error}") from error


class _Unpacking:
    def __init__(self, data: bytes) -> None:
        start = len(MAGIC) + 8
        if data[: len(MAGIC)] != MAGIC:
            raise ValueError("it does not begin as one")
        size = int.from_bytes(data[len(MAGIC) : start], "little")
        if start + size > len(data):
            raise ValueError(f"it ends after {len(data)} bytes, before its header does")
        self.header = json.loads(data[start : start + size])
        self.data, self.end = data, start + size
        self.arrays = [self._array(*described) for described in self.header["arrays"]]
        if self.end != len(data):
            raise ValueError(f"{len(data) - self.end} bytes are left over")
        self.objects: list[Any] = []
        for name, made in self.header["objects"]:  # each knows only those before it
            self.objects.append(self._object(name, made))

    def value(self) -> Any:
        return self.node(self.header["root"])

    def _array(self, dtype: str, shape: list[int], axes: list[int]) -> np.ndarray:
        kind = np.dtype(dtype)
        if kind.kind not in NUMBERS or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"an array of type {dtype} and shape {shape} is not stored")
        begin = self.end + -self.end % ALIGNED
        self.end = begin + prod(shape) * kind.itemsize
        if self.end > len(self.data):
            raise ValueError(f"it ends after {len(self.data)} bytes, before its numbers do")
        found = np.frombuffer(self.data, kind, prod(shape), begin).reshape(shape).copy()
        return found.transpose(np.argsort(axes)) if axes != sorted(axes) else found

    def _object(self, name: str, made: dict[str, Any]) -> Any:
        kind = KNOWN[name]
        if not is_dataclass(kind):
            raise ValueError(f"{name} is no kind of object")
        return kind(**{key: self.node(node) for key, node in made.items()})

    def _number(self, told: Any) -> Any:
        kind = np.dtype(told[0])
        if kind.kind not in NUMBERS:
            raise ValueError(f"a number of type {kind} is not stored")
        return kind.type(self.node(told[1]))

    @staticmethod
    def _choice(told: Any) -> Any:
        kind = KNOWN[told[0]]
        if not issubclass(kind, Enum):
            raise ValueError(f"{told[0]} is no choice")
        return kind[told[1]]

    def node(self, node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        ((kind, told),) = node.items()
        if kind in ("tuple", "list"):
            values = [self.node(v) for v in told]
            return tuple(values) if kind == "tuple" else values
        makers: dict[str, Callable[[Any], Any]] = {
            "float": float,
            "number": self._number,
            "choice": self._choice,
            "mapping": lambda told: {self.node(k): self.node(v) for k, v in told},
            "array": self.arrays.__getitem__,
            "object": self.objects.__getitem__,
        }
        return makers[kind](told)
