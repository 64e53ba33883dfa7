"""Rows in parts that a task can read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, groupby
from itertools import product as cartesian
from math import prod
from operator import itemgetter
from typing import Any

import dask
import numpy as np
from dask.typing import Key

from daskmix import again
from daskmix.arrays import alongside, namespace
from daskmix.block import PARTITION_STRIDE, Array, Missing, Place, clean_weights, table, unmasked, working_dtype
from daskmix.errors import BadChunkError, DaskmixError, InputError, InputTypeError

SMALL = 8 << 20
LARGE = 128 << 20
EVEN = 16  # tasks, or a multiple, or a power of two below: where a thread gets fewer than others it waits for them
SHARES = 512  # a pass is cut into about so many tasks, if they come out neither small nor large
MOST = 1 << 16  # tasks of a pass: beyond, they grow with the data, for one scheduler hands out all of them


def bundles_of(nbytes: int, small: int = 0) -> int:
    """How many tasks read so many bytes: a number that shares out evenly among the usual numbers of threads."""
    most = min(max(nbytes // SHARES, small or SMALL), max(LARGE, nbytes // MOST))
    least = max(1, -(-nbytes // most))
    return -(-least // EVEN) * EVEN if least > EVEN else 1 << (least - 1).bit_length()


def bundle_bytes(nbytes: int, small: int = 0) -> int:
    """How much of so many bytes one task reads."""
    return -(-nbytes // bundles_of(nbytes, small))


@dataclass(frozen=True)
class Raw:
    """A chunk as it was read."""

    x: Array  # (n, d)
    w: Array | None  # (n,)
    place: Place
    nbytes: int  # of the arrays that were read
    seconds: float  # that reading took
    known: Array | None = None  # (n,) numbers of components, as they were given


@dataclass(frozen=True, slots=True)
class Part:
    """A chunk of rows, or some small ones, and how a task comes by it.

    `load` is given the values of the tasks named in `needs` and returns arrays whose first axes are the place's shape,
    one per variable, and the weights (of that shape) or None.
    """

    number: int
    place: Place
    d: int
    load: Callable[..., tuple[list[Array], Array | None]]
    needs: tuple[Key, ...] = ()
    nbytes: int | None = None
    source: str = ""
    columns: tuple[int, ...] | None = None  # which features, in which order; None: as they come
    chunks: int = 1  # that are read together; `number` is that of the first
    prepare: Callable[[Array], Array] | None = None  # what is made of its rows before they are checked
    labels: int = 0  # how many components rows may be known to be of; if any, the first array says of which

    def read(self, values: Sequence[Any]) -> Raw:
        """The rows as they are in the source."""
        began = time.perf_counter()
        try:
            arrays, w = again.patiently(lambda: self.load(*values), again.SOURCE_PATIENCE)
            known, *arrays = arrays if self.labels else (None, *arrays)
        except (DaskmixError, MemoryError):
            raise
        except Exception as error:
            place = None if self.nbytes is None else self.place
            raise bad_chunk(self.number, self.source, place, error) from error
        seconds = time.perf_counter() - began
        place = self.place if self.nbytes is not None else _placed(self.number, arrays)
        nbytes = sum(a.nbytes for a in arrays) + (0 if known is None else known.nbytes)
        # Compiled code relies on these shapes.
        x = as_rows(arrays, len(place.shape))
        if x.shape != (place.rows, self.d):
            raise InputError(
                f"chunk {self.number}{self.source} holds {x.shape[0]} rows of {x.shape[1]} features where the array "
                f"promised {place.rows} of {self.d}; mend its chunks or meta, e.g. with compute_chunk_sizes()"
            )
        if w is not None:
            if w.shape != place.shape:
                raise InputError(
                    f"chunk {self.number} of sample_weight has shape {w.shape} but X has {place.shape} there; "
                    "chunk the weights like the rows"
                )
            w = w.reshape(-1)
        if self.columns is not None:
            x = x[:, list(self.columns)]
        if self.prepare is not None:
            x = self.prepare(x)
        known = None if known is None else unmasked(known).reshape(-1)
        if known is not None and len(known) != len(x):
            raise InputError(f"chunk {self.number} of y has {len(known)} rows, of X {len(x)}; chunk one like the other")
        return Raw(x, w, place, nbytes, seconds, known)


def bad_chunk(number: int, source: str, place: Place | None, error: Exception) -> BadChunkError:
    """What to raise for a chunk that cannot be read; `place` where it is known."""
    box = "" if place is None else f" (rows from {place.origin}, shape {place.shape})"
    if again.transient(error):
        return again.unavailable(f"chunk {number}{source}{box}", error)
    said = str(error) if isinstance(error, DaskmixError) else f"{type(error).__name__}: {error}"
    return BadChunkError(
        f"chunk {number}{source}{box} cannot be read: {said}; restore this chunk or leave its rows out"
    )


def _placed(number: int, arrays: list[Array]) -> Place:
    """Where the rows of a partition stand, when only the partition's number is known."""
    return Place((number * PARTITION_STRIDE,), (len(arrays[0]),), (0,))


def places(chunks: Sequence[Sequence[int]]) -> Iterator[tuple[tuple[int, ...], Place]]:
    """Every box of a grid that is cut so along its axes, in C order: its position in the grid, and its place."""
    extent = tuple(sum(axis) for axis in chunks)
    boxes = [list(enumerate(zip(accumulate(axis, initial=0), axis, strict=False))) for axis in chunks]
    for found in cartesian(*boxes):
        where, spans = zip(*found, strict=True)
        origin, shape = zip(*spans, strict=True)
        yield where, Place(origin, shape, extent)


def as_rows(arrays: Sequence[Array], axes: int) -> Array:
    """Arrays whose first `axes` axes are sampled -> rows and features: (n, d)."""
    flat = [unmasked(array).reshape(prod(array.shape[:axes]), prod(array.shape[axes:])) for array in arrays]
    if len(flat) == 1:
        return flat[0]
    dtype = np.result_type(*(working_dtype(a.dtype) for a in flat))
    # What a user adds may be in memory where the rows are on a device.
    return namespace(flat[0]).concatenate([alongside(a, flat[0]) for a in flat], axis=1, dtype=dtype)


@dataclass(frozen=True)
class Rows:
    """All rows: parts in order, what their features are, and the tasks that the parts need."""

    parts: tuple[Part, ...]
    d: int
    dtype: np.dtype  # that rows are computed on in
    total: int | None  # number of rows, None where it is not known beforehand
    missing: Missing = Missing.refuse
    in_memory: bool = True
    keep: bool = False  # whether its parts cost so much to read that they are worth keeping
    copies: int = 1  # of a part that reading it holds at least
    small: int = 0  # bytes of a task where there are few; 0 for the usual
    graph: Mapping[Key, Any] = field(default_factory=dict, repr=False)

    def with_columns(self, columns: Sequence[int] | None) -> Rows:
        """The same rows with their features in another order."""
        if columns is None:
            return self
        return replace(self, parts=tuple(replace(part, columns=tuple(columns)) for part in self.parts))

    def prepared(self, prepare: Callable[[Array], Array] | None) -> Rows:
        """What this makes of the rows (n, d), in as many features."""
        return replace(self, parts=tuple(replace(part, prepare=prepare) for part in self.parts))

    def counted(self, what: str) -> int:
        """How many rows there are, where `what` holds a value for each.

        Raises
        ------
        InputError
            Where their number is not known beforehand.
        """
        if self.total is None:
            raise InputError(
                f"{what} holds a value for each row, but how many rows X has is not known before they are read; call "
                "X.compute_chunk_sizes(), or to_dask_array(lengths=True) of a DataFrame"
            )
        return self.total

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...] | None:
        """Sizes of the parts along each axis of their grid; None where lengths are not known."""
        places = [part.place for part in self.parts]
        if not places or self.total is None:
            return None
        spans = [{(p.origin[axis], p.shape[axis]) for p in places} for axis in range(len(places[0].grid))]
        return tuple(tuple(size for _, size in sorted(own)) for own in spans)

    @property
    def nbytes(self) -> int | None:
        """Bytes of all rows as they are read."""
        sizes = [part.nbytes for part in self.parts]
        return None if None in sizes else sum(s for s in sizes if s is not None)

    @cached_property
    def bundles(self) -> list[tuple[Part, ...]]:
        """Consecutive parts that one task reads: the data alone decide, so that the sums are the same everywhere."""
        if self.nbytes is None:
            return [(part,) for part in self.parts]
        # By the middle of each part, so that all bundles come out about the same: the largest holds up the pass.
        share = max(self.nbytes, 1) / bundles_of(self.nbytes, self.small)
        sizes = [part.nbytes or 0 for part in self.parts]
        ends = accumulate(sizes)
        numbers = [(end - size / 2) // share for end, size in zip(ends, sizes, strict=True)]
        grouped = groupby(zip(numbers, self.parts, strict=True), key=itemgetter(0))
        return [tuple(part for _, part in bundle) for _, bundle in grouped]


@dataclass(frozen=True)
class _Slab:
    """Rows a..b of arrays in memory, along their first axis."""

    arrays: tuple[Array, ...]
    w: Array | None
    a: int
    b: int

    def __call__(self) -> tuple[list[Array], Array | None]:
        arrays = [array[self.a : self.b] for array in self.arrays]
        if self.w is None:
            return arrays, None
        w = self.w[self.a : self.b] if self.w.shape[0] > 1 else self.w
        return arrays, np.broadcast_to(w, arrays[0].shape[: w.ndim])


def from_memory(
    arrays: Sequence[Array],
    axes: int,
    w: Array | None,
    missing: Missing,
    small: int = 0,
    known: Array | None = None,
    labels: int = 0,
) -> Rows:
    """Rows of arrays in memory whose first `axes` axes are sampled; `small` is as in `Rows`, `labels` as in `Part`."""
    grid = arrays[0].shape[:axes]
    d = sum(prod(a.shape[axes:]) for a in arrays)
    dtype = np.result_type(*(working_dtype(a.dtype) for a in arrays))
    nbytes = sum(a.nbytes for a in arrays)
    length = max(1, -(-grid[0] * bundle_bytes(nbytes, small) // max(nbytes, 1))) if grid[0] else 1
    parts, all_arrays = [], tuple(arrays) if known is None else (known, *arrays)
    for number, a in enumerate(range(0, grid[0], length)):
        b = min(a + length, grid[0])
        place = Place((a,) + (0,) * (axes - 1), (b - a, *grid[1:]), tuple(grid))
        share = sum(array[a:b].nbytes for array in arrays)
        parts.append(Part(number, place, d, _Slab(all_arrays, w, a, b), nbytes=share, labels=labels))
    return Rows(tuple(parts), d, dtype, prod(grid), missing, small=small)


def memory_weights(weight: Any, rows: int) -> Array | None:
    """One weight per row of an array in memory: (n,)."""
    if weight is None:
        return None
    weight = in_memory_weights(weight)
    if weight.ndim != 1:
        raise InputError(f"Sample weights must be 1D array or scalar, got {weight.ndim}D array")
    if len(weight) != rows:
        raise InputError(f"sample_weight.shape == {weight.shape}, expected {(rows,)}!")
    return clean_weights(weight, table(0, rows, rows), 0)


def in_memory_weights(weight: Any) -> Array:
    if dask.is_dask_collection(weight):
        raise InputError("sample_weight is a Dask collection but X is not chunked so; pass sample_weight.compute()")
    if np.isscalar(weight):
        raise InputError(f"sample_weight is the number {weight!r}; one weight per row is needed, or None")
    weight = np.asarray(weight)
    if weight.dtype.kind not in "fiub":
        raise InputTypeError(f"sample_weight is of type {weight.dtype}, which is not a real number; convert it first")
    return weight


def box(weight: Array, place: Place) -> Array:
    """The weights of one chunk, still not spelled out."""
    index = tuple(
        slice(None) if size == 1 else slice(o, o + s)
        for size, o, s in zip(weight.shape, place.origin, place.shape, strict=True)
    )
    return weight[index]


def side_by_side(rows: Rows, others: Rows) -> Rows:
    """The features of both, with the weights of the first; in one read.

    Raises
    ------
    InputError
        Where they are not cut alike.
    """
    if [p.place for p in rows.parts] != [p.place for p in others.parts]:
        raise InputError("both must have the same rows in the same chunks; rechunk one like the other")
    d = rows.d + others.d
    parts = tuple(_pair(a, b, rows.d, d) for a, b in zip(rows.parts, others.parts, strict=True))
    dtype = np.result_type(rows.dtype, others.dtype)
    there, graph = rows.in_memory and others.in_memory, {**rows.graph, **others.graph}
    return replace(rows, parts=parts, d=d, dtype=dtype, graph=graph, keep=False, in_memory=there)


def with_known(rows: Rows, labels: Rows | Array, k: int) -> Rows:
    """The same rows, of which some are known to be of one of k components: by other rows, or in memory; one column.

    Raises
    ------
    InputError
        Where both are not cut alike, or there are more columns.
    """
    d = labels.d if isinstance(labels, Rows) else labels.shape[1]
    if d != 1:
        raise InputError(f"y has {d} values for each row; pass one, the component that it is known to be of, or -1")
    if not isinstance(labels, Rows):
        parts = tuple(replace(p, load=_Both(_Column.at(p.place, labels), p.load, 0), labels=k) for p in rows.parts)
        return replace(rows, parts=parts)
    if [p.place for p in rows.parts] != [p.place for p in labels.parts]:
        raise InputError("y must have the rows of X in the same chunks; rechunk one like the other")
    pairs = zip(rows.parts, labels.parts, strict=True)
    parts = tuple(
        replace(p, load=_Both(own.load, p.load, len(own.needs)), needs=(*own.needs, *p.needs), labels=k)
        for p, own in pairs
    )
    there = rows.in_memory and labels.in_memory
    return replace(rows, parts=parts, graph={**rows.graph, **labels.graph}, in_memory=there)


def _pair(a: Part, b: Part, own: int, d: int) -> Part:
    nbytes = None if a.nbytes is None or b.nbytes is None else a.nbytes + b.nbytes
    both = _Both(a.load, b.load, len(a.needs))
    return _wider(a, own, d, load=both, needs=(*a.needs, *b.needs), nbytes=nbytes)


def _wider(part: Part, own: int, d: int, **changes: Any) -> Part:
    """A part with d features, of which the first few are prepared, and in the order, that they were in alone."""
    columns = None if part.columns is None else (*part.columns, *range(own, d))
    prepare = None if part.prepare is None else _OnFirst(part.prepare, own)
    return replace(part, d=d, columns=columns, prepare=prepare, **changes)


@dataclass(frozen=True)
class _OnFirst:
    prepare: Callable[[Array], Array]
    own: int

    def __call__(self, x: Array) -> Array:
        return namespace(x).concatenate([self.prepare(x[:, : self.own]), x[:, self.own :]], axis=1)


@dataclass(frozen=True)
class _Both:
    """The arrays of two sources, and the weights of the one that has some."""

    first: Callable[..., tuple[list[Array], Array | None]]
    second: Callable[..., tuple[list[Array], Array | None]]
    needs: int  # of the first

    def __call__(self, *values: Any) -> tuple[list[Array], Array | None]:
        (a, v), (b, w) = self.first(*values[: self.needs]), self.second(*values[self.needs :])
        return [*a, *b], w if v is None else v


def beside(rows: Rows, other: Array) -> Rows:
    """The same rows with more columns, which are in memory: (n,) or (n, m)."""
    columns = other[:, None] if other.ndim == 1 else other
    d = rows.d + columns.shape[1]
    parts = tuple(
        _wider(p, rows.d, d, load=_Both(p.load, _Column.at(p.place, columns), len(p.needs))) for p in rows.parts
    )
    return replace(rows, parts=parts, d=d, keep=False)  # it is asked once


@dataclass(frozen=True)
class _Column:
    """Values in memory, as a source."""

    values: Array

    @staticmethod
    def at(place: Place, columns: Array) -> _Column:
        """Those of the rows at a place, out of all (n, m): a task should not travel with the others."""
        return _Column(columns[place.index(np.arange(place.rows))].reshape(*place.shape, -1))

    def __call__(self) -> tuple[list[Array], Array | None]:
        return [self.values], None
