"""Some rows at a time: where they stand, what they weigh, and what to do when values are missing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from math import prod
from typing import Any, TypeVar

import numpy as np

from daskmix.arrays import Array, alongside, namespace, to_host
from daskmix.errors import InputError, InputTypeError

A = TypeVar("A")

# Rows of unknown number are placed by (partition, offset): 2^40 rows of room for each.
PARTITION_STRIDE = 1 << 40
# Of a value, or of all weights: squares of such values, times such weights, are still numbers, and so is their sum.
LARGEST, HEAVIEST = 1e130, 1e40


class Missing(Enum):
    """What to do about rows that hold NaN."""

    refuse = "raise"
    drop = "drop"
    observe = "em"  # what is there of a row counts; rows of which nothing is there are left out
    trust = "trust"  # an earlier pass has seen that there are none
    gaps = "gaps"  # the same of rows of which nothing is there


@dataclass(frozen=True, slots=True)
class Place:
    """A box of the grid of all rows, read in C order; for a table, the grid has one axis."""

    origin: tuple[int, ...]
    shape: tuple[int, ...]
    grid: tuple[int, ...]

    @property
    def rows(self) -> int:
        return prod(self.shape)

    def index(self, rows: Array) -> Array:
        """Global index of rows given by their position in this box: (n,)."""
        # By hand: CuPy's `unravel_index` would wait for the device to check what it is given.
        index, stride = rows * 0, 1
        for origin, size, extent in zip(self.origin[:0:-1], self.shape[:0:-1], self.grid[:0:-1], strict=True):
            index = index + (rows % size + origin) * stride
            rows, stride = rows // size, stride * extent
        return index + (rows + self.origin[0]) * stride


def table(start: int, rows: int, total: int) -> Place:
    """Consecutive rows of a table."""
    return Place((start,), (rows,), (total,))


@dataclass(frozen=True)
class Block:
    """Some rows, clean: every value is finite, or missing where there are gaps, every weight finite, not negative."""

    x: Array  # (n, d)
    w: Array | None  # (n,), None where every row counts once
    place: Place
    first: int = 0  # of these rows, within the place
    missing: int = 0  # rows left out; they weigh nothing, and another row stands in for them
    gaps: bool = False  # whether values of the other rows may be NaN, but not all of a row
    known: Array | None = None  # (n,) the component that each row is known to be of, -1 where it is not

    @property
    def index(self) -> Array:
        """Global index of each row: (n,)."""
        return self.index_of(namespace(self.x).arange(len(self.x), dtype=np.int64))

    def index_of(self, rows: Array) -> Array:
        """Global index of some rows, given by their position in the block: (len(rows),)."""
        return self.place.index(self.first + rows)

    def weights(self) -> Array:
        """The weight of each row, spelled out: (n,)."""
        return namespace(self.x).ones(len(self.x)) if self.w is None else self.w

    def pick(self, rows: Array) -> tuple[Array, Array, Array]:
        """Values (m, d), weights and known components (m,) of some rows, on the host: the only ones that come there."""
        rows = alongside(rows, self.x)
        w = np.ones(len(rows)) if self.w is None else to_host(self.w[rows])
        known = np.full(len(rows), -1, np.int32) if self.known is None else to_host(self.known[rows])
        return to_host(self.x[rows]), w, known

    def moved(self, xp: Any) -> "Block":
        """The same rows as arrays of this namespace."""
        w, known = (None if a is None else xp.asarray(a) for a in (self.w, self.known))
        return replace(self, x=xp.asarray(self.x), w=w, known=known)

    def tiles(self, rows: int) -> Iterator["Block"]:
        """The same rows, at most so many at a time, cut at fixed multiples from the start."""
        if len(self.x) <= rows:
            yield self
            return
        missing = self.missing
        for a in range(0, len(self.x), rows):
            b = a + rows
            w, known = (None if values is None else values[a:b] for values in (self.w, self.known))
            yield Block(self.x[a:b], w, self.place, self.first + a, missing, self.gaps, known)
            missing = 0  # counted once, with the first tile


def working_dtype(dtype: np.dtype) -> np.dtype:
    """The floating type that rows of this type are computed on in."""
    if dtype.kind not in "fiub":
        raise InputTypeError(
            f"the rows are of type {dtype}, which is not a real number; convert them to float32 or float64 first"
            if dtype.kind != "c"
            else f"Complex data not supported: the rows are of type {dtype}; pass real and imaginary parts as features"
        )
    working = np.result_type(dtype, np.float32)
    return working if working.itemsize <= 8 else np.dtype(np.float64)


def unmasked(x: Array) -> Array:
    """Masked values as NaN, which is what a missing value is here."""
    return np.ma.filled(x.astype(np.result_type(x.dtype, np.float32)), np.nan) if np.ma.isMaskedArray(x) else x


def _describe(place: Place, row: int, number: int) -> str:
    index = int(place.index(np.array([row]))[0])
    if place.grid == (0,):  # lengths are not known beforehand
        return f"row {row} of partition {number}" if number >= 0 else f"row {row} of its chunk"
    return f"row {index} (chunk {number})"


def _first(which: Array) -> int:
    return int(to_host(which.argmax()))


def clean_weights(w: Array, place: Place, number: int) -> Array:
    """Weights as float64, refused where they are not finite or negative."""
    xp = namespace(w)
    w = xp.asarray(w)
    # The cosine of a latitude of 90 degrees may come out below zero by a rounding error.
    rounding = float(np.finfo(w.dtype).eps) if w.dtype.kind == "f" else 0.0
    w = w.astype(np.float64)
    w = xp.where((w < 0) & (w >= -rounding), 0.0, w)
    bad = ~((w >= 0) & (w <= HEAVIEST))
    if to_host(bad.any()):
        row = _first(bad)
        seen = to_host(w[row])
        raise InputError(
            f"sample_weight of {_describe(place, row, number)} is {seen}; weights must be finite and not negative, and "
            f"at most {HEAVIEST:g}"
        )
    return w


def clean_labels(labels: Array, place: Place, number: int, k: int) -> Array:
    """Known components as int32, -1 where unknown; refused where they are neither of k nor -1 or NaN."""
    xp = namespace(labels)
    labels = xp.where(xp.isnan(labels), -1.0, labels)
    bad = (labels != xp.rint(labels)) | (labels < -1) | (labels >= k)
    if to_host(bad.any()):
        row = _first(bad)
        raise InputError(
            f"y of {_describe(place, row, number)} is {float(to_host(labels[row])):g}; pass the component that the row "
            f"is known to be of, 0 to {k - 1}, or -1 where that is unknown"
        )
    return labels.astype(np.int32)


def clean(x: Array, w: Array | None, place: Place, number: int, missing: Missing) -> Block:
    """Rows as they were read -> rows that can be computed on."""
    xp = namespace(x)
    x = x.astype(working_dtype(x.dtype), copy=False)
    if w is not None:
        w = clean_weights(alongside(w, x), place, number)
    if missing is Missing.trust or len(x) == 0 or to_host(_is_plain(x)):
        return Block(x, w, place)
    if missing is Missing.gaps:
        return Block(x, w, place, gaps=True)
    absent, sizes = xp.isnan(x), xp.maximum(x, -x)
    extreme = (sizes > _largest(x.dtype)).any(axis=1)
    if to_host(extreme.any()):
        row = _first(extreme)
        raise _too_large(_describe(place, row, number), float(np.nanmax(to_host(sizes[row]))))
    partial = absent.any(axis=1)
    if missing is Missing.refuse:
        where = _describe(place, _first(partial), number)
        raise InputError(f'{where} holds NaN; pass missing="drop" to leave such rows out')
    out = absent.all(axis=1) if missing is Missing.observe else partial
    left, gaps = int(to_host(out.sum())), bool(to_host((partial & ~out).any()))
    if left:
        # Not NaN, for NaN * 0 would spoil the sums; and not far from the others, whose squares are not far from them.
        x = xp.where(out[:, None], x.dtype.type(0) if left == len(x) else x[_first(~out)], x)
        w = xp.where(out, 0.0, 1.0 if w is None else w)
    return Block(x, w, place, missing=left, gaps=gaps)


def with_room(ask: Callable[[Array], A], is_finite: Callable[[A], bool], x: Array) -> A:
    """What is asked about rows (n, d), in double precision where single has no room for the squares of some.

    Raises
    ------
    InputError
        Where double has none either.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        answer = ask(x)
        if not is_finite(answer) and x.dtype == np.float32:
            answer = ask(x.astype(np.float64))
    if not is_finite(answer):
        raise InputError(
            "some rows lie so far from the model that the squares of their distances are beyond what numbers can hold; "
            "leave them out, or fit other units"
        )
    return answer


def all_finite(values: Array) -> bool:
    """Whether all these numbers are finite; told on the host."""
    return bool(to_host(namespace(values).isfinite(values).all()))


def _is_plain(x: Array) -> Any:
    """Whether every value is a number that can be squared."""
    # Least and largest value are NaN where any value is.
    return namespace(x).maximum(x.max(), -x.min()) <= _largest(x.dtype)


def _largest(dtype: np.dtype) -> float:
    return min(LARGEST, float(np.finfo(dtype).max))


def _too_large(where: str, seen: float) -> InputError:
    if np.isinf(seen):
        return InputError(f"{where} holds infinity (inf); leave out or replace such values first")
    return InputError(
        f"{where} holds {seen:g} in size, more than {LARGEST:g}, so that its square is beyond what numbers can hold; "
        "divide the feature by a power of ten first"
    )
