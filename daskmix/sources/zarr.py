"""Zarr stores, by path, URL or array: read region by region, each a whole chunk or shard, or some that are small."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import lcm, prod
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr

from daskmix.again import reached, transient
from daskmix.block import Array, Missing, Place, working_dtype
from daskmix.codecs import refuse_pickle
from daskmix.errors import InputTypeError, MissingChunksError, StoreNotFoundError, VariableNotFoundError
from daskmix.rows import Part, Rows, bad_chunk, box, places
from daskmix.sources.chunks import Chunked, below, check, objects_of, strict
from daskmix.sources.dask import checked_weight, from_dask
from daskmix.sources.labelled import Labelled, chosen, labelled_weight, rows_from_labelled, take_apart

# Bytes: small neighbours are asked for together until they are so many, for a call costs as much as to decode them.
RUN = 1 << 20

# Bytes, decoded: a larger shard is read in pieces, runs of whole chunks of it of at most so many.
LARGE_SHARD, PIECE = 128 << 20, 32 << 20

Region = tuple[slice, ...]  # of the sampled axes
Cuts = tuple[tuple[int, ...], ...]  # how long the pieces along each of them are


@dataclass(frozen=True)
class Stored:
    """A Zarr array, or variables of a group: lazy as Dask shows them, and to be read without a graph.

    A graph of 100,000 chunks takes Dask seconds to build; to know where 100,000 chunks are takes none.
    """

    lazy: Any  # xr.Dataset, xr.DataArray or da.Array
    arrays: Mapping[Any, Chunked]  # by the names of variables; that of an array is ""
    accept: bool = False  # chunks that are not there

    def without(self, name: str) -> Stored:
        """The other variables."""
        arrays = {other: array for other, array in self.arrays.items() if other != name}
        return Stored(self.lazy.drop_vars(name), arrays, self.accept)

    def in_pieces(self, sample_dims: Sequence[Hashable] | None = None) -> Stored:
        """The same, with shards that are large cut into runs of their chunks along the sampled axes.

        The data alone decide, not the memory at hand: results depend on how rows are cut.
        """
        if isinstance(self.lazy, da.Array):
            axes: dict[Any, tuple[int, ...]] = {"": tuple(range(self.lazy.ndim - 1))}
        else:
            parts = take_apart(self.lazy, sample_dims)
            axes = {
                v.name: tuple(map(self.arrays[v.name].values.dims.index, parts.sample_dims)) for v in parts.variables
            }
        piece = _piece([(self.arrays[name], own) for name, own in axes.items()])
        if piece is None:
            return self
        cut = {name: self.arrays[name].lazy(_with_axes(self.arrays[name], own, piece)) for name, own in axes.items()}
        if isinstance(self.lazy, da.Array):
            return replace(self, lazy=cut[""])
        if isinstance(self.lazy, xr.DataArray):
            return replace(self, lazy=self.lazy.copy(data=cut[self.lazy.name]))
        return replace(self, lazy=self.lazy.assign({name: self.lazy[name].copy(data=a) for name, a in cut.items()}))

    def checked(self) -> Stored:
        """The same, once its chunks are known to be there.

        Raises
        ------
        BadChunkError, MissingChunksError
        """
        check({name: array.stored for name, array in self.arrays.items()}, self.accept)
        return self


def _with_axes(array: Chunked, axes: Sequence[int], lengths: Sequence[int]) -> tuple[int, ...]:
    """The shape of its objects, but for some axes."""
    shape = list(objects_of(array.stored))
    for axis, length in zip(axes, lengths, strict=True):
        shape[axis] = length
    return tuple(shape)


def _piece(arrays: Sequence[tuple[Chunked, tuple[int, ...]]]) -> list[int] | None:
    """How much of large shards to read at a time, along each sampled axis; None for all of each."""
    row_bytes = sum(a.dtype.itemsize * prod(a.shape) // prod(max(1, a.shape[i]) for i in axes) for a, axes in arrays)
    whole = [min(objects_of(a.stored)[axes[i]] for a, axes in arrays) for i in range(len(arrays[0][1]))]
    step = [lcm(*(a.stored.chunks[axes[i]] for a, axes in arrays)) for i in range(len(whole))]
    if row_bytes * prod(whole) <= LARGE_SHARD or any(n % m for n, m in zip(whole, step, strict=True)):
        return None
    size = row_bytes * prod(step)
    for i in reversed(range(len(step))):
        chunks = whole[i] // step[i]
        together = max(n for n in range(1, chunks + 1) if chunks % n == 0 and (n == 1 or n * size <= PIECE))
        step[i], size = together * step[i], together * size
    return step if step != whole else None


def is_path(x: Any) -> bool:
    return isinstance(x, str | os.PathLike)


def open_path(path: Any, variables: Sequence[str] | None = None, accept: bool = False) -> Stored:
    """A path or URL of a Zarr store: a group as `xarray.open_zarr` shows it, or a bare array.

    Chunks that are not there are errors when they are read, unless that is accepted.

    Raises
    ------
    StoreNotFoundError
        There is nothing there.
    VariableNotFoundError
        The group has no variable of that name.
    AccessDeniedError, SourceUnavailableError
        Its server refuses, or cannot be reached.
    """
    name = os.fspath(path)
    if name.endswith((".parquet", ".pq", ".nc", ".csv")):
        raise InputTypeError(f"{name} is not a Zarr store; open it with Dask, pandas or xarray and pass the result")
    return reached(name, lambda: _open(name, variables, accept))


def _open(name: str, variables: Sequence[str] | None, accept: bool) -> Stored:
    try:
        node = zarr.open(name, mode="r")
    except (FileNotFoundError, KeyError, zarr.errors.GroupNotFoundError) as error:
        raise StoreNotFoundError(f"there is no Zarr store at {name}") from error
    except (ValueError, NotImplementedError, ImportError) as error:
        raise StoreNotFoundError(f"{name} cannot be opened as a Zarr store: {error}") from error
    refuse_pickle(node, name)  # before xarray, which reads the coordinates
    if isinstance(node, zarr.Array):
        if variables:
            raise VariableNotFoundError(f"{name} is an array, not a group: it has no variable {variables[0]!r}")
        return of_array(node, accept)
    how: Any = {
        "group": node.path or None,
        "consolidated": False if node.metadata.consolidated_metadata is None else None,
    }
    shown = xr.open_zarr(node.store, chunks={}, **how)
    if not shown.data_vars:
        raise VariableNotFoundError(f"the group at {name} has no variables")
    absent = [v for v in variables or () if v not in shown.data_vars]
    if absent:
        raise VariableNotFoundError(
            f"the group at {name} has no variable {absent[0]!r}; it has {', '.join(map(str, shown.data_vars))}"
        )
    names = list(variables or shown.data_vars)
    # Coordinates, which xarray has read, may lack chunks: they are no rows.
    store = strict(node.store, tuple(below(node.path) + below(str(v)) for v in names), accept)
    bare = xr.open_zarr(store, chunks=None, **how)
    arrays: dict[Any, Chunked] = {v: Chunked(bare[v].variable, node[str(v)]) for v in names}
    # Left to itself xarray takes the chunks inside of a shard; a shard is what one request can fetch.
    lazy = shown.assign({v: shown[v].copy(data=array.lazy()) for v, array in arrays.items()})
    return Stored(chosen(lazy, variables) if variables else lazy, arrays, accept)


def of_array(array: zarr.Array, accept: bool = False) -> Stored:
    """A Zarr array, in whole shards."""
    refuse_pickle(array, array.store_path)
    chunked = Chunked.of_array(array, accept)
    return Stored(chunked.lazy(), {"": chunked}, accept)


@dataclass(frozen=True)
class _Reader:
    """Regions of an array of which some axes are sampled: these first, then its features."""

    array: Chunked
    axes: tuple[int, ...]  # the sampled ones

    def __call__(self, region: Region) -> Array:
        index = [slice(None)] * self.array.ndim
        for axis, span in zip(self.axes, region, strict=True):
            index[axis] = span
        order = (*self.axes, *(axis for axis in range(self.array.ndim) if axis not in self.axes))
        return self.array[tuple(index)].transpose(order)


@dataclass(frozen=True)
class _Source:
    """Arrays that are chunked alike along the sampled axes."""

    arrays: tuple[_Reader, ...]
    counts: tuple[int, ...]  # of chunks along each axis
    name: str

    def read(self, place: Place) -> list[Array]:
        """Each array where this place is."""
        # Made here, not kept: there may be very many places.
        region = tuple(slice(o, o + n) for o, n in zip(place.origin, place.shape, strict=True))
        return [read(region) for read in self.arrays]

    def blame(self, place: Place, cuts: Cuts, first: int) -> None:
        """Read every chunk of this place by itself; `first` is the number of the first.

        Raises
        ------
        BadChunkError
            With the name of the first that cannot be read.
        """
        corner = np.unravel_index(first, self.counts)
        for where, inside in places(cuts):
            origin = tuple(a + b for a, b in zip(place.origin, inside.origin, strict=True))
            chunk = Place(origin, inside.shape, place.grid)
            try:
                self.read(chunk)
            except MissingChunksError:
                raise
            except Exception as error:
                if transient(error):  # no chunk is to blame for a server
                    raise
                number = np.ravel_multi_index([a + b for a, b in zip(corner, where, strict=True)], self.counts)
                raise bad_chunk(int(number), self.name, chunk, error) from error


@dataclass(frozen=True, slots=True)
class _Load:
    """The region of each array that a place stands for, and its weights; one of its chunks may be to blame."""

    source: _Source
    place: Place
    w: Array | None
    first: int
    cuts: Cuts | None = None  # None where it is one chunk

    def __call__(self) -> tuple[list[Array], Array | None]:
        try:
            arrays = self.source.read(self.place)
        except (MemoryError, MissingChunksError):
            raise
        except Exception as error:
            if transient(error):
                raise
            self.source.blame(self.place, self.cuts or tuple((n,) for n in self.place.shape), self.first)
            raise
        return arrays, None if self.w is None else np.broadcast_to(self.w, self.place.shape)


def rows_from_stored_array(stored: Stored, weight: Any, missing: Missing) -> Rows:
    """Rows of a Zarr array: the last axis holds the features, all others are sampled."""
    weight = checked_weight(stored.lazy, weight)
    if isinstance(weight, da.Array):
        return from_dask([stored.lazy], stored.lazy.ndim - 1, weight, missing)
    axes = tuple(range(stored.lazy.ndim - 1))
    return _by_region([_Reader(stored.arrays[""], axes)], [stored.lazy], weight, missing, "")


def rows_from_stored_variables(stored: Stored, parts: Labelled, weight: Any, missing: Missing) -> Rows:
    """Rows of variables of a group; `parts` are its lazy variables taken apart."""
    spelled = labelled_weight(weight, parts)
    if isinstance(spelled, da.Array):
        return rows_from_labelled(parts, weight, missing)
    arrays = [stored.arrays[v.name] for v in parts.variables]
    read = [_Reader(a, tuple(a.values.dims.index(dim) for dim in parts.sample_dims)) for a in arrays]
    return _by_region(read, [v.data for v in parts.variables], spelled, missing, parts.label)


def _by_region(
    read: Sequence[_Reader],
    lazy: Sequence[da.Array],
    weight: Array | None,
    missing: Missing,
    source: str,
) -> Rows:
    """Rows of arrays that are chunked alike along their first axes, which are sampled."""
    axes = len(read[0].axes)
    dtype = np.result_type(*(working_dtype(a.dtype) for a in lazy))
    widths = [prod(a.shape[axes:]) for a in lazy]
    row_bytes = sum(width * a.dtype.itemsize for width, a in zip(widths, lazy, strict=True))
    stored = _Source(tuple(read), lazy[0].numblocks[:axes], source)
    parts, d = [], sum(widths)
    for number, cuts, place in _regions(lazy[0].chunks[:axes], row_bytes):
        w, chunks = None if weight is None else box(weight, place), prod(map(len, cuts))
        load = _Load(stored, place, w, number, None if chunks == 1 else cuts)
        if place.rows:
            parts.append(Part(number, place, d, load, (), place.rows * row_bytes, source, chunks=chunks))
    total = sum(part.place.rows for part in parts)
    # Decoded, and in place; and side by side, where there are several.
    copies = 2 if len(read) == 1 else 3
    return Rows(tuple(parts), d, dtype, total, missing, in_memory=False, keep=True, copies=copies)


def _regions(chunks: Cuts, row_bytes: int) -> Iterator[tuple[int, Cuts, Place]]:
    """What to read at a time: number of the first chunk, how long they all are along each axis, where they stand."""
    counts, size = [len(axis) for axis in chunks], row_bytes * prod(max(axis, default=0) for axis in chunks)
    together = [1] * len(chunks)
    for i in reversed(range(len(chunks))):
        together[i] = min(max(1, RUN // max(1, size)), max(1, counts[i]))
        size *= together[i]
    runs = [[axis[a : a + n] for a in range(0, len(axis), n)] for axis, n in zip(chunks, together, strict=True)]
    for where, place in places([[sum(run) for run in axis] for axis in runs]):
        first = np.ravel_multi_index([i * n for i, n in zip(where, together, strict=True)], counts)
        yield int(first), tuple(axis[i] for axis, i in zip(runs, where, strict=True)), place
