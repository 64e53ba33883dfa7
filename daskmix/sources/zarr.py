"""Zarr stores, by path, URL or array: read region by region, each a whole chunk or shard, or some that are small."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr

from daskmix.again import reached, transient
from daskmix.block import Array, Missing, Place, working_dtype
from daskmix.codecs import refuse_pickle
from daskmix.errors import InputTypeError, StoreNotFoundError, VariableNotFoundError
from daskmix.rows import Part, Rows, bad_chunk, box, places
from daskmix.sources.dask import checked_weight, from_dask
from daskmix.sources.labelled import Labelled, chosen, labelled_weight, rows_from_labelled

# Bytes: small neighbours are asked for together until they are so many, for a call costs as much as to decode them.
RUN = 1 << 20

Region = tuple[slice, ...]  # of the sampled axes
Cuts = tuple[tuple[int, ...], ...]  # how long the pieces along each of them are


@dataclass(frozen=True)
class Stored:
    """A Zarr array, or variables of a group: lazy as Dask shows them, and bare, to be read without a graph.

    A graph of 100,000 chunks takes Dask seconds to build; to know where 100,000 chunks are takes none.
    """

    lazy: Any  # xr.Dataset, xr.DataArray or da.Array
    bare: Any  # xr.Dataset, xr.DataArray (neither of them Dask's) or zarr.Array
    place: Any = None  # the path or URL of a group


def is_path(x: Any) -> bool:
    return isinstance(x, str | os.PathLike)


def open_path(path: Any, variables: Sequence[str] | None = None) -> Stored:
    """A path or URL of a Zarr store: a group as `xarray.open_zarr` shows it, or a bare array.

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
    return reached(name, lambda: _open(name, variables))


def _open(name: str, variables: Sequence[str] | None) -> Stored:
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
        return of_array(node)
    consolidated = False if node.metadata.consolidated_metadata is None else None
    bare = xr.open_zarr(name, consolidated=consolidated, chunks=None)
    if not bare.data_vars:
        raise VariableNotFoundError(f"the group at {name} has no variables")
    # Left to itself xarray takes the chunks inside of a shard; a shard is what one request can fetch.
    shards: dict[Hashable, int] = {}
    for variable in bare.values():
        shards |= dict(zip(variable.dims, variable.encoding.get("shards") or (), strict=False))
    stored = Stored(xr.open_zarr(name, consolidated=consolidated, chunks=shards), bare, name)
    if not variables:
        return stored
    absent = [v for v in variables if v not in bare.data_vars]
    if absent:
        raise VariableNotFoundError(
            f"the group at {name} has no variable {absent[0]!r}; it has {', '.join(map(str, bare.data_vars))}"
        )
    return Stored(chosen(stored.lazy, variables), chosen(stored.bare, variables), name)


def of_array(array: zarr.Array) -> Stored:
    """A Zarr array, in whole shards."""
    refuse_pickle(array, array.store_path)
    lazy = da.from_array(array, chunks=array.shards or array.chunks, name=None, asarray=True)
    return Stored(lazy, array)


@dataclass(frozen=True)
class _OfArray:
    array: zarr.Array

    def __call__(self, region: Region) -> Array:
        return np.asarray(self.array[region])


@dataclass(frozen=True)
class _OfVariable:
    variable: xr.Variable
    sample_dims: tuple[Hashable, ...]

    def __call__(self, region: Region) -> Array:
        inside = self.variable.isel(dict(zip(self.sample_dims, region, strict=True)))
        return inside.transpose(*self.sample_dims, ...).values


@dataclass(frozen=True)
class _Source:
    """Arrays that are chunked alike along the sampled axes."""

    arrays: tuple[Callable[[Region], Array], ...]
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
            except Exception as error:
                if transient(error):  # no chunk is to blame for a server
                    raise
                number = np.ravel_multi_index([a + b for a, b in zip(corner, where, strict=True)], self.counts)
                raise bad_chunk(int(number), self.name, chunk, error) from error


@dataclass(frozen=True, slots=True)
class _Load:
    """The region of each array that a place stands for, and its weights."""

    source: _Source
    place: Place
    w: Array | None

    def __call__(self) -> tuple[list[Array], Array | None]:
        return self.source.read(self.place), None if self.w is None else np.broadcast_to(self.w, self.place.shape)


@dataclass(frozen=True, slots=True)
class _LoadSome(_Load):
    """The region of several chunks, of which one may be to blame for an error."""

    cuts: Cuts
    first: int

    def __call__(self) -> tuple[list[Array], Array | None]:
        try:
            return _Load.__call__(self)
        except MemoryError:
            raise
        except Exception as error:
            if transient(error):
                raise
            self.source.blame(self.place, self.cuts, self.first)
            raise


def rows_from_stored_array(stored: Stored, weight: Any, missing: Missing) -> Rows:
    """Rows of a Zarr array: the last axis holds the features, all others are sampled."""
    weight = checked_weight(stored.lazy, weight)
    if isinstance(weight, da.Array):
        return from_dask([stored.lazy], stored.lazy.ndim - 1, weight, missing)
    return _by_region([_OfArray(stored.bare)], [stored.lazy], stored.lazy.ndim - 1, weight, missing, "")


def rows_from_stored_variables(stored: Stored, parts: Labelled, weight: Any, missing: Missing) -> Rows:
    """Rows of variables of a group; `parts` are its lazy variables taken apart."""
    spelled = labelled_weight(weight, parts)
    if isinstance(spelled, da.Array):
        return rows_from_labelled(parts, weight, missing)
    bare = [stored.bare if isinstance(stored.bare, xr.DataArray) else stored.bare[v.name] for v in parts.variables]
    read = [_OfVariable(v.variable, parts.sample_dims) for v in bare]
    lazy = [v.data for v in parts.variables]
    return _by_region(read, lazy, len(parts.sample_dims), spelled, missing, parts.label)


def _by_region(
    read: Sequence[Callable[[Region], Array]],
    lazy: Sequence[da.Array],
    axes: int,
    weight: Array | None,
    missing: Missing,
    source: str,
) -> Rows:
    """Rows of arrays that are chunked alike along their first `axes` axes, which are sampled."""
    dtype = np.result_type(*(working_dtype(a.dtype) for a in lazy))
    widths = [prod(a.shape[axes:]) for a in lazy]
    row_bytes = sum(width * a.dtype.itemsize for width, a in zip(widths, lazy, strict=True))
    stored = _Source(tuple(read), lazy[0].numblocks[:axes], source)
    parts, d = [], sum(widths)
    for number, cuts, place in _regions(lazy[0].chunks[:axes], row_bytes):
        w, chunks = None if weight is None else box(weight, place), prod(map(len, cuts))
        load = _Load(stored, place, w) if chunks == 1 else _LoadSome(stored, place, w, cuts, number)
        if place.rows:
            parts.append(Part(number, place, d, load, (), place.rows * row_bytes, source, chunks=chunks))
    total = sum(part.place.rows for part in parts)
    return Rows(tuple(parts), d, dtype, total, missing, in_memory=False, keep=True)


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
