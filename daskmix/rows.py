"""Anything a user has -> row-chunked parts that a task can read."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from itertools import product as cartesian
from math import prod
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.typing import Key

from daskmix.arrays import alongside, namespace
from daskmix.block import (
    PARTITION_STRIDE,
    Array,
    Missing,
    Place,
    clean_weights,
    table,
    unmasked,
    working_dtype,
)
from daskmix.errors import (
    BadChunkError,
    DaskmixError,
    InputError,
    InputTypeError,
    StoreNotFoundError,
    VariableNotFoundError,
)

SMALL = 8 << 20
LARGE = 128 << 20
SHARES = 512  # a pass is cut into about so many tasks, if they come out neither small nor large


@dataclass(frozen=True)
class Raw:
    """A chunk as it was read."""

    x: Array  # (n, d)
    w: Array | None  # (n,)
    place: Place
    nbytes: int  # of the arrays that were read


@dataclass(frozen=True)
class Part:
    """A chunk of rows and how a task comes by it.

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

    def read(self, values: Sequence[Any]) -> Raw:
        """The rows as they are in the source."""
        try:
            arrays, w = self.load(*values)
        except (DaskmixError, MemoryError):
            raise
        except Exception as error:
            box = "" if self.nbytes is None else f" (rows from {self.place.origin}, shape {self.place.shape})"
            raise BadChunkError(
                f"chunk {self.number}{self.source}{box} cannot be read: {type(error).__name__}: {error}; restore this "
                "chunk or leave its rows out"
            ) from error
        place = self.place if self.nbytes is not None else _placed(self.number, arrays)
        nbytes = sum(a.nbytes for a in arrays)
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
        return Raw(x, w, place, nbytes)


def _placed(number: int, arrays: list[Array]) -> Place:
    """Where the rows of a partition stand, when only the partition's number is known."""
    return Place((number * PARTITION_STRIDE,), (len(arrays[0]),), (0,))


def as_rows(arrays: Sequence[Array], axes: int) -> Array:
    """Arrays whose first `axes` axes are sampled -> rows and features: (n, d)."""
    flat = [unmasked(array).reshape(prod(array.shape[:axes]), prod(array.shape[axes:])) for array in arrays]
    if len(flat) == 1:
        return flat[0]
    dtype = np.result_type(*(working_dtype(a.dtype) for a in flat))
    return namespace(flat[0]).concatenate(flat, axis=1, dtype=dtype)


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
    graph: Mapping[Key, Any] = field(default_factory=dict, repr=False)

    def with_columns(self, columns: Sequence[int] | None) -> Rows:
        """The same rows with their features in another order."""
        if columns is None:
            return self
        return replace(self, parts=tuple(replace(part, columns=tuple(columns)) for part in self.parts))

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
        target = min(max(self.nbytes // SHARES, SMALL), LARGE)
        bundles: list[list[Part]] = []
        filled = target
        for part in self.parts:
            size = part.nbytes or 0
            if filled + size > target or not bundles:
                bundles.append([])
                filled = 0
            bundles[-1].append(part)
            filled += size
        return [tuple(bundle) for bundle in bundles]


# --- arrays in memory -------------------------------------------------------------------------------------------------


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


def from_memory(arrays: Sequence[Array], axes: int, w: Array | None, missing: Missing) -> Rows:
    """Rows of arrays in memory whose first `axes` axes are sampled."""
    grid = arrays[0].shape[:axes]
    d = sum(prod(a.shape[axes:]) for a in arrays)
    dtype = np.result_type(*(working_dtype(a.dtype) for a in arrays))
    nbytes = sum(a.nbytes for a in arrays)
    length = max(1, int(grid[0] * min(max(nbytes // SHARES, SMALL), LARGE) / max(nbytes, 1))) if grid[0] else 1
    parts = []
    for number, a in enumerate(range(0, grid[0], length)):
        b = min(a + length, grid[0])
        place = Place((a,) + (0,) * (axes - 1), (b - a, *grid[1:]), tuple(grid))
        share = sum(array[a:b].nbytes for array in arrays)
        parts.append(Part(number, place, d, _Slab(tuple(arrays), w, a, b), nbytes=share))
    return Rows(tuple(parts), d, dtype, prod(grid), missing)


# --- Dask arrays ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Assemble:
    """Blocks of several arrays, and of weights, -> a whole chunk of rows, whatever the chunks of the features."""

    grids: tuple[tuple[int, ...], ...]  # of each array: how many blocks lie along each feature axis
    axes: int
    w: Array | None = None  # the chunk's weights, where they are in memory
    weighted: bool = False  # whether the last block is the chunk's weights
    names: tuple[Key, ...] = ()
    graph: Mapping[Key, Any] | None = None  # the tasks that give the blocks, when they are done right here

    def __call__(self, *blocks: Any) -> tuple[list[Array], Array | None]:
        if self.graph is not None:
            blocks = tuple(dask.core.get(self.graph, list(self.names)))
        left = iter(blocks)
        arrays = [_joined(list(islice(left, prod(grid))), grid, self.axes) for grid in self.grids]
        if self.weighted:
            return arrays, _as_array(next(left))
        return arrays, None if self.w is None else np.broadcast_to(self.w, arrays[0].shape[: self.axes])


def _as_array(block: Any) -> Array:
    """What a task gave, where it lives."""
    return block if hasattr(block, "__array_function__") else np.asarray(block)


def _joined(blocks: Sequence[Array], grid: tuple[int, ...], axes: int) -> Array:
    blocks = [unmasked(_as_array(b)) for b in blocks]
    if len(blocks) == 1:
        return blocks[0]
    nested = np.empty(grid, dtype=object)
    for where, block in zip(np.ndindex(grid), blocks, strict=True):
        nested[where] = block
    for axis in range(len(grid) - 1, -1, -1):
        joined = np.empty(nested.shape[:axis], dtype=object)
        for where in np.ndindex(joined.shape):
            joined[where] = namespace(nested[where][0]).concatenate(list(nested[where]), axis=axes + axis)
        nested = joined
    return nested[()]


def from_dask(
    arrays: Sequence[da.Array], axes: int, weight: da.Array | Array | None, missing: Missing, source: str = ""
) -> Rows:
    """Rows of Dask arrays whose first `axes` axes are sampled and chunked alike.

    Weights are a Dask array chunked like the rows, or in memory with an axis per sampled one, of its length or one.
    """
    if any(np.isnan(n) for a in arrays for n in a.shape[axes:]):
        raise InputError("the number of features is not known; call compute_chunk_sizes() on the array first")
    dtype = np.result_type(*(working_dtype(a.dtype) for a in arrays))
    weighted = isinstance(weight, da.Array)
    given = [*arrays, weight] if weighted else arrays
    collections = dask.optimize(*given)
    arrays = collections[: len(arrays)]
    # Where a client is active, optimising leaves out what is persisted on its cluster; a pass has to name it.
    graph = {key: node for collection in given for key, node in _graph(collection).items() if _is_future(node)}
    for collection in collections:
        graph |= _graph(collection)
    chunks = arrays[0].chunks[:axes]
    known = not any(np.isnan(c) for axis in chunks for c in axis)
    extent = tuple(int(sum(axis)) for axis in chunks) if known else (0,)
    d = sum(prod(a.shape[axes:]) for a in arrays)
    row_bytes = sum(a.dtype.itemsize * prod(a.shape[axes:]) for a in arrays)
    grids = tuple(tuple(len(c) for c in a.chunks[axes:]) for a in arrays)
    starts = [np.concatenate([[0], np.cumsum(axis)]) for axis in chunks]
    parts = []
    for number, where in enumerate(cartesian(*(range(len(axis)) for axis in chunks))):
        place, nbytes = Place((number * PARTITION_STRIDE,), (0,), (0,)), None
        if known:
            origin = tuple(int(axis[i]) for axis, i in zip(starts, where, strict=True))
            place = Place(origin, tuple(int(axis[i]) for axis, i in zip(chunks, where, strict=True)), extent)
            nbytes = place.rows * row_bytes
            if place.rows == 0:
                continue
        names = [
            (array.name, *where, *inner)
            for array, grid in zip(arrays, grids, strict=True)
            for inner in np.ndindex(grid)
        ]
        w = None
        if weighted:
            names.append((collections[-1].name, *where))
        elif weight is not None:
            w = _box(weight, place)
        parts.append(Part(number, place, d, _Assemble(grids, axes, w, weighted), tuple(names), nbytes, source))
    total = prod(extent) if known else None
    return _self_contained(Rows(tuple(parts), d, dtype, total, missing, in_memory=False, graph=graph))


def _graph(collection: Any) -> dict[Key, Any]:
    return dict(collection.__dask_graph__())


def _self_contained(rows: Rows) -> Rows:
    """Move the source's tasks into the tasks that read them, where no two parts share work.

    Then one task reads, decodes and maps a whole bundle, chunk by chunk, and the scheduler sees one task per bundle.
    Persisted blocks and graphs with work in common (a rechunk, a mean) stay with Dask.
    """
    closures = [_closure(rows.graph, part.needs) for part in rows.parts]
    seen: dict[Key, int] = {}
    for closure in closures:
        for key in closure:
            seen[key] = seen.get(key, 0) + 1
    for key, count in seen.items():
        node = rows.graph[key]
        if _is_future(node) or (count > 1 and not _is_data(node)):
            return rows
    parts = []
    for part, closure in zip(rows.parts, closures, strict=True):
        load: Any = part.load
        inner = replace(load, names=part.needs, graph={key: rows.graph[key] for key in closure})
        parts.append(replace(part, load=inner, needs=()))
    # Blocks of an array in memory are there already.
    there = all(isinstance(getattr(rows.graph[key], "value", rows.graph[key]), np.ndarray) for key in seen)
    return replace(rows, parts=tuple(parts), graph={}, in_memory=there, keep=not there)


def _closure(graph: Mapping[Key, Any], keys: Iterable[Key]) -> set[Key]:
    found: set[Key] = set()
    todo = list(keys)
    while todo:
        key = todo.pop()
        if key not in found:
            found.add(key)
            todo.extend(dask.core.get_dependencies(graph, key))
    return found


def _is_data(node: Any) -> bool:
    """Whether this entry of a graph is a value, such as the store that all chunks are read from."""
    return not dask.core.istask(node) and not hasattr(node, "func")


def _is_future(node: Any) -> bool:
    value = getattr(node, "value", node)
    return hasattr(value, "client") and hasattr(value, "key") and hasattr(value, "release")


# --- what users have --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labelled:
    """xarray variables taken apart: sampled axes first, then the features."""

    variables: tuple[xr.DataArray, ...]  # each with the sampled dims first
    sample_dims: tuple[Hashable, ...]
    names: tuple[str, ...]
    units: tuple[str | None, ...] | None

    @property
    def lazy(self) -> bool:
        return any(v.chunks is not None for v in self.variables)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.variables[0].sizes[dim] for dim in self.sample_dims)


def is_path(x: Any) -> bool:
    return isinstance(x, str | os.PathLike)


def open_path(path: Any, variables: Sequence[str] | None = None) -> xr.Dataset | xr.DataArray | da.Array:
    """A path or URL of a Zarr store, as `xarray.open_zarr` shows a group; a bare array as a Dask array.

    Raises
    ------
    StoreNotFoundError
        There is nothing there.
    VariableNotFoundError
        The group has no variable of that name.
    """
    name = os.fspath(path)
    if name.endswith((".parquet", ".pq", ".nc", ".csv")):
        raise InputTypeError(f"{name} is not a Zarr store; open it with Dask, pandas or xarray and pass the result")
    try:
        node = zarr.open(name, mode="r")
    except (FileNotFoundError, KeyError, zarr.errors.GroupNotFoundError) as error:
        raise StoreNotFoundError(f"there is no Zarr store at {name}") from error
    except (ValueError, NotImplementedError, ImportError) as error:
        raise StoreNotFoundError(f"{name} cannot be opened as a Zarr store: {error}") from error
    if isinstance(node, zarr.Array):
        if variables:
            raise VariableNotFoundError(f"{name} is an array, not a group: it has no variable {variables[0]!r}")
        return from_zarr_array(node)
    consolidated = False if node.metadata.consolidated_metadata is None else None
    dataset = xr.open_zarr(name, consolidated=consolidated, chunks={})
    shards: dict[Hashable, int] = {}
    for variable in dataset.values():
        shards |= dict(zip(variable.dims, variable.encoding.get("shards") or (), strict=False))
    if shards:
        # xarray takes the chunks inside; a shard is what one request can fetch.
        dataset = xr.open_zarr(name, consolidated=consolidated, chunks=shards)
    if not dataset.data_vars:
        raise VariableNotFoundError(f"the group at {name} has no variables")
    if not variables:
        return dataset
    absent = [v for v in variables if v not in dataset.data_vars]
    if absent:
        raise VariableNotFoundError(
            f"the group at {name} has no variable {absent[0]!r}; it has {', '.join(map(str, dataset.data_vars))}"
        )
    return dataset[list(variables)] if len(variables) > 1 else dataset[variables[0]]


def from_zarr_array(array: zarr.Array) -> da.Array:
    """A Zarr array as a lazy one, in whole shards: a shard is what one request can fetch."""
    chunks = array.shards or array.chunks
    return da.from_array(array, chunks=chunks, name=None, asarray=True)


def is_dask_frame(x: Any) -> bool:
    return dask.is_dask_collection(x) and hasattr(x, "to_dask_array") and hasattr(x, "columns")


def take_apart(x: xr.Dataset | xr.DataArray, sample_dims: Sequence[Hashable] | None) -> Labelled:
    """Which dims are sampled and what the features are called."""
    if isinstance(sample_dims, str):
        sample_dims = (sample_dims,)
    variables = [x] if isinstance(x, xr.DataArray) else list(x.data_vars.values())
    if not variables:
        raise InputError("the Dataset has no data variables; nothing to cluster")
    if sample_dims is None:
        if isinstance(x, xr.DataArray):
            if x.ndim < 2:
                raise InputError(
                    f"a DataArray with dims {x.dims} has no feature dim; pass a Dataset, or sample_dims={x.dims} "
                    "if every value is a row of one feature"
                )
            sample_dims = x.dims[:-1]
        else:
            shared = set.intersection(*(set(v.dims) for v in variables))
            sample_dims = tuple(dim for dim in variables[0].dims if dim in shared)
    sample_dims = tuple(sample_dims)
    if not sample_dims:
        described = ", ".join(f"{v.name} {v.dims}" for v in variables[:8])
        raise InputError(f"the variables have no dim in common: {described}; name those that are features: variables=")
    names: list[str] = []
    units: list[str | None] = []
    ordered = []
    for variable in variables:
        absent = [dim for dim in sample_dims if dim not in variable.dims]
        if absent:
            raise InputError(
                f"variable {variable.name!r} has dims {variable.dims}, without {absent[0]!r}, which sample_dims names; "
                "drop the variable or leave that dim out of sample_dims"
            )
        if variable.dtype.kind in "Mm":
            raise InputTypeError(
                f"variable {variable.name!r} holds datetimes ({variable.dtype}), which are no features; "
                "convert them to numbers first"
            )
        variable = variable.transpose(*sample_dims, ...)
        own = _feature_names(variable, sample_dims, alone=isinstance(x, xr.DataArray))
        names += own
        units += [variable.attrs.get("units")] * len(own)
        ordered.append(variable)
    if any(v.chunks is not None for v in ordered):
        unified: Any = xr.unify_chunks(*(v.chunk() if v.chunks is None else v for v in ordered))
        ordered = list(unified)
    named = tuple(units) if any(u is not None for u in units) else None
    return Labelled(tuple(ordered), sample_dims, tuple(names), named)


def _feature_names(variable: xr.DataArray, sample_dims: Sequence[Hashable], alone: bool) -> list[str]:
    dims = [dim for dim in variable.dims if dim not in sample_dims]
    prefix = [] if alone and dims else [str(variable.name)]
    labels = [[str(v) for v in variable[dim].values] for dim in dims]
    return ["_".join([*prefix, *combination]) for combination in cartesian(*labels)]


def rows_from_labelled(parts: Labelled, weight: Any, missing: Missing) -> Rows:
    """Rows of xarray variables, lazily where they are lazy."""
    axes = len(parts.sample_dims)
    weight = _labelled_weight(weight, parts)
    if not parts.lazy:
        return from_memory([v.values for v in parts.variables], axes, weight, missing)
    label = ", ".join(str(v.name) for v in parts.variables if v.name is not None)
    return from_dask([v.data for v in parts.variables], axes, weight, missing, f" of {label}" if label else "")


def _labelled_weight(weight: Any, parts: Labelled) -> da.Array | Array | None:
    """Weights with one axis per sampled dim, of length one where they do not depend on it; lazy ones spelled out."""
    if weight is None:
        return None
    if not isinstance(weight, xr.DataArray):
        weight = _in_memory_weights(weight)
        if weight.shape not in (parts.shape, (prod(parts.shape),)):
            raise InputError(
                f"sample_weight has shape {weight.shape} but the sampled dims {parts.sample_dims} have {parts.shape}; "
                "pass a DataArray over some of these dims"
            )
        return weight.reshape(parts.shape)
    foreign = [dim for dim in weight.dims if dim not in parts.sample_dims]
    if foreign:
        raise InputError(f"sample_weight has dim {foreign[0]!r}, which is not sampled; {parts.sample_dims} are")
    first = parts.variables[0]
    for dim in weight.dims:
        if weight.sizes[dim] != first.sizes[dim]:
            raise InputError(f"sample_weight has {weight.sizes[dim]} values along {dim!r} but X has {first.sizes[dim]}")
        if dim in weight.indexes and dim in first.indexes and not weight.indexes[dim].equals(first.indexes[dim]):
            raise InputError(
                f"sample_weight has other coordinates along {dim!r} than X; align them first, e.g. "
                f"sample_weight.reindex({dim}=X[{dim!r}])"
            )
    chunks = dict(zip(first.dims, first.chunks or (), strict=False))
    if weight.chunks is not None and parts.lazy:
        spelled = weight.expand_dims({dim: first.sizes[dim] for dim in parts.sample_dims if dim not in weight.dims})
        return spelled.transpose(*parts.sample_dims).chunk({dim: chunks[dim] for dim in parts.sample_dims}).data
    values = _in_memory_weights(weight.transpose(*(dim for dim in parts.sample_dims if dim in weight.dims)).values)
    return values.reshape([weight.sizes.get(dim, 1) for dim in parts.sample_dims])


def _in_memory_weights(weight: Any) -> Array:
    if dask.is_dask_collection(weight):
        raise InputError("sample_weight is a Dask collection but X is not chunked so; pass sample_weight.compute()")
    if np.isscalar(weight):
        raise InputError(f"sample_weight is the number {weight!r}; one weight per row is needed, or None")
    weight = np.asarray(weight)
    if weight.dtype.kind not in "fiub":
        raise InputTypeError(f"sample_weight is of type {weight.dtype}, which is not a real number; convert it first")
    return weight


def _box(weight: Array, place: Place) -> Array:
    """The weights of one chunk, still not spelled out."""
    index = tuple(
        slice(None) if size == 1 else slice(o, o + s)
        for size, o, s in zip(weight.shape, place.origin, place.shape, strict=True)
    )
    return weight[index]


def rows_from_dask_array(x: da.Array, weight: Any, missing: Missing) -> Rows:
    """Rows of a Dask array: the last axis holds the features, all others are sampled."""
    if x.ndim < 2:
        raise InputError(
            f"Expected 2D array, got {x.ndim}D array instead: Reshape your data, e.g. X[:, None] if every value is a "
            "row of one feature"
        )
    if hasattr(weight, "to_dask_array"):
        weight = weight.to_dask_array()
    if isinstance(weight, da.Array):
        if weight.ndim != x.ndim - 1:
            raise InputError(f"sample_weight has {weight.ndim} dims but X has {x.ndim - 1} of rows; give each a weight")
        if weight.shape != x.shape[:-1] and not np.isnan([*weight.shape, *x.shape]).any():
            raise InputError(f"sample_weight has shape {weight.shape} but X has {x.shape[:-1]} rows")
        for axis, (own, given) in enumerate(zip(x.chunks[:-1], weight.chunks, strict=True)):
            if not np.array_equal(own, given, equal_nan=True):
                raise InputError(
                    f"sample_weight has {len(given)} chunks of rows but X has {len(own)}, or of other lengths, along "
                    f"axis {axis}; rechunk one like the other, e.g. sample_weight.rechunk(X.chunks[:-1])"
                )
        if weight.dtype.kind not in "fiub":
            raise InputTypeError(f"sample_weight is of type {weight.dtype}, not a real number; convert it first")
    elif weight is not None:
        weight = _in_memory_weights(weight)
        if np.isnan(x.shape[0]):
            raise InputError(
                "sample_weight is an array in memory but the lengths of X's chunks are not known; "
                "pass weights as a Dask array chunked like X, or call X.compute_chunk_sizes() first"
            )
        if weight.shape != x.shape[:-1]:
            raise InputError(f"sample_weight has shape {weight.shape} but X has {x.shape[:-1]} rows")
    return from_dask([x], x.ndim - 1, weight, missing)


def memory_weights(weight: Any, rows: int) -> Array | None:
    """One weight per row of an array in memory: (n,)."""
    if weight is None:
        return None
    weight = _in_memory_weights(weight)
    if weight.ndim != 1:
        raise InputError(f"Sample weights must be 1D array or scalar, got {weight.ndim}D array")
    if len(weight) != rows:
        raise InputError(f"sample_weight.shape == {weight.shape}, expected {(rows,)}!")
    return clean_weights(weight, table(0, rows, rows), 0)


def beside(rows: Rows, other: Array) -> Rows:
    """The same rows with more columns, which are in memory: (n,) or (n, m)."""
    columns = other[:, None] if other.ndim == 1 else other
    d = rows.d + columns.shape[1]
    parts = tuple(replace(p, d=d, load=_Beside(p.load, columns, p.place)) for p in rows.parts)
    return replace(rows, parts=parts, d=d, keep=False)  # it is asked once


@dataclass(frozen=True)
class _Beside:
    load: Callable[..., tuple[list[Array], Array | None]]
    columns: Array
    place: Place

    def __call__(self, *values: Any) -> tuple[list[Array], Array | None]:
        arrays, w = self.load(*values)
        own = self.columns[self.place.index(np.arange(self.place.rows))]
        return [*arrays, alongside(own.reshape(*self.place.shape, -1), arrays[0])], w
