"""Anything a user has -> row-chunked parts that a task can read."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product as cartesian
from math import prod
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
import zarr

from daskmix.block import PARTITION_STRIDE, Array, Block, Missing, Place, clean, clean_weights, table, working_dtype
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
class Part:
    """A chunk of rows and how a task comes by it.

    `load` is given the values of the tasks named in `needs` and returns arrays whose first axes are the place's shape,
    one per variable, and the weights (broadcastable to that shape) or None.
    """

    number: int
    place: Place
    load: Callable[..., tuple[list[Array], Array | None]]
    needs: tuple[Hashable, ...] = ()
    nbytes: int | None = None
    source: str = ""
    columns: tuple[int, ...] | None = None  # which features, in which order; None: as they come

    def read(self, values: Sequence[Any], missing: Missing) -> tuple[Block, int]:
        """The rows, clean, and how many bytes they were."""
        try:
            arrays, w = self.load(*values)
        except DaskmixError:
            raise
        except Exception as error:
            raise BadChunkError(
                f"chunk {self.number}{self.source} (rows from {self.place.origin}, shape {self.place.shape}) cannot be "
                f"read: {type(error).__name__}: {error}; restore this chunk or leave its rows out"
            ) from error
        place = self.place if self.nbytes is not None else _placed(self.number, arrays)
        nbytes = sum(a.nbytes for a in arrays)
        x = as_rows(arrays, len(place.shape), self.columns)
        if w is not None:
            w = np.broadcast_to(w, place.shape).reshape(-1)
        return clean(x, w, place, self.number, missing), nbytes


def _placed(number: int, arrays: list[Array]) -> Place:
    """Where the rows of a partition stand, when only the partition's number is known."""
    return Place((number * PARTITION_STRIDE,), (len(arrays[0]),), (0,))


def as_rows(arrays: Sequence[Array], axes: int, columns: Sequence[int] | None = None) -> Array:
    """Arrays whose first `axes` axes are sampled -> rows and features: (n, d)."""
    flat = [array.reshape(prod(array.shape[:axes]), prod(array.shape[axes:])) for array in arrays]
    if len(flat) == 1:
        x = flat[0]
    else:
        x = np.concatenate(flat, axis=1, dtype=np.result_type(*(working_dtype(a.dtype) for a in flat)))
    return x if columns is None else x[:, list(columns)]


@dataclass(frozen=True)
class Rows:
    """All rows: parts in order, what their features are, and the tasks that the parts need."""

    parts: tuple[Part, ...]
    d: int
    dtype: np.dtype  # that rows are computed on in
    total: int | None  # number of rows, None where it is not known beforehand
    missing: Missing = Missing.refuse
    names: tuple[str, ...] | None = None
    units: tuple[str | None, ...] | None = None
    in_memory: bool = True
    graph: Mapping[Hashable, Any] = field(default_factory=dict, repr=False)

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
        w = self.w
        if w is not None and w.shape[0] > 1:
            w = w[self.a : self.b]
        return [array[self.a : self.b] for array in self.arrays], w


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
        parts.append(Part(number, place, _Slab(tuple(arrays), w, a, b), nbytes=share))
    return Rows(tuple(parts), d, dtype, prod(grid), missing)


# --- Dask arrays ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Assemble:
    """Blocks of several arrays -> whole chunks of rows, whatever the chunks of the features."""

    grids: tuple[tuple[int, ...], ...]  # of each array: how many blocks lie along each feature axis
    axes: int
    weights: Array | bool | None  # an array, True where the last block is the weights, or None
    names: tuple[Hashable, ...] = ()
    graph: Mapping[Hashable, Any] | None = None  # the tasks that give the blocks, when they are done right here

    def __call__(self, *blocks: Any) -> tuple[list[Array], Array | None]:
        if self.graph is not None:
            blocks = tuple(dask.get(self.graph, list(self.names)))
        w = self.weights
        if w is True:
            *blocks, w = blocks  # type: ignore[assignment]
        arrays, at = [], 0
        for grid in self.grids:
            count = prod(grid)
            arrays.append(_joined(blocks[at : at + count], grid, self.axes))
            at += count
        return arrays, None if w is None or w is False else np.asarray(w)


def _joined(blocks: Sequence[Array], grid: tuple[int, ...], axes: int) -> Array:
    blocks = [np.asarray(b) if not hasattr(b, "__array_function__") else b for b in blocks]
    if len(blocks) == 1:
        return blocks[0]
    nested = np.empty(grid, dtype=object)
    for where, block in zip(np.ndindex(grid), blocks, strict=True):
        nested[where] = block
    for axis in range(len(grid) - 1, -1, -1):
        joined = np.empty(nested.shape[:axis], dtype=object)
        for where in np.ndindex(joined.shape):
            joined[where] = np.concatenate(list(nested[where]), axis=axes + axis)
        nested = joined
    return nested[()]


def from_dask(
    arrays: Sequence[da.Array], axes: int, weight: Any, missing: Missing, labels: Sequence[str] = ("",)
) -> Rows:
    """Rows of Dask arrays whose first `axes` axes are sampled and chunked alike."""
    optimised = dask.optimize(*arrays, *([weight] if isinstance(weight, da.Array) else []))
    arrays = optimised[: len(arrays)]
    chunks = arrays[0].chunks[:axes]
    known = not any(np.isnan(c) for axis in chunks for c in axis)
    d = sum(prod(a.shape[axes:]) for a in arrays)
    if any(np.isnan(n) for a in arrays for n in a.shape[axes:]):
        raise InputError("the number of features is not known; call compute_chunk_sizes() on the array first")
    dtype = np.result_type(*(working_dtype(a.dtype) for a in arrays))
    row_bytes = sum(a.dtype.itemsize * prod(a.shape[axes:]) for a in arrays)
    graph: dict[Hashable, Any] = {}
    for collection in optimised:
        graph.update(collection.__dask_graph__())
    grids = tuple(tuple(len(c) for c in a.chunks[axes:]) for a in arrays)
    starts = [np.concatenate([[0], np.cumsum(axis[:-1])]) for axis in chunks] if known else None
    total = prod(sum(axis) for axis in chunks) if known else None
    parts = []
    for number, where in enumerate(cartesian(*(range(len(axis)) for axis in chunks))):
        shape = tuple(axis[i] for axis, i in zip(chunks, where, strict=True))
        if known and prod(shape) == 0:
            continue
        names = [
            (array.name, *where, *inner)
            for array, grid in zip(arrays, grids, strict=True)
            for inner in np.ndindex(grid)
        ]
        if known:
            origin = tuple(int(s[i]) for s, i in zip(starts, where, strict=True))  # type: ignore[arg-type]
            place = Place(origin, tuple(int(s) for s in shape), tuple(int(sum(axis)) for axis in chunks))
        else:
            place = Place((number * PARTITION_STRIDE,), (0,), (0,))
        w = weight(place) if callable(weight) and not isinstance(weight, da.Array) else None
        if isinstance(weight, da.Array):
            weight_name = optimised[-1].name
            names.append((weight_name, *where))
            w = True
        load = _Assemble(grids, axes, w)
        source = f" of {labels[0]}" if labels and labels[0] else ""
        nbytes = prod(shape) * row_bytes if known else None
        parts.append(Part(number, place, load, tuple(names), None if nbytes is None else int(nbytes), source))
    rows = Rows(tuple(parts), d, dtype, None if total is None else int(total), missing, in_memory=False, graph=graph)
    return _self_contained(rows)


def _self_contained(rows: Rows) -> Rows:
    """Move the source's tasks into the tasks that read them, where no two parts share work.

    Then one task reads, decodes and maps a whole bundle, chunk by chunk, and the scheduler sees one task per bundle.
    Persisted blocks and graphs with work in common (a rechunk, a mean) stay with Dask.
    """
    closures = [_closure(rows.graph, part.needs) for part in rows.parts]
    seen: dict[Hashable, int] = {}
    for closure in closures:
        for key in closure:
            seen[key] = seen.get(key, 0) + 1
    for key, count in seen.items():
        node = rows.graph[key]
        if _is_future(node) or (count > 1 and not _is_data(node)):
            return rows
    parts = []
    for part, closure in zip(rows.parts, closures, strict=True):
        inner = replace(part.load, names=part.needs, graph={key: rows.graph[key] for key in closure})  # type: ignore[type-var]
        parts.append(replace(part, load=inner, needs=()))
    return replace(rows, parts=tuple(parts), graph={})


def _closure(graph: Mapping[Hashable, Any], keys: Iterable[Hashable]) -> set[Hashable]:
    found: set[Hashable] = set()
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
    if not dataset.data_vars:
        raise VariableNotFoundError(f"the group at {name} has no variables")
    if not variables:
        return dataset
    absent = [v for v in variables if v not in dataset]
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


def is_frame(x: Any) -> bool:
    return hasattr(x, "columns") and hasattr(x, "iloc") and not dask.is_dask_collection(x)


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
        raise InputError("the variables have no dim in common; name what is sampled, e.g. sample_dims=('time',)")
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
    labelled = any(isinstance(v.data, da.Array) for v in ordered)
    if labelled:
        ordered = list(xr.unify_chunks(*(v.chunk() if v.chunks is None else v for v in ordered)))
    named = tuple(units) if any(u is not None for u in units) else None
    return Labelled(tuple(ordered), sample_dims, tuple(names), named)


def _feature_names(variable: xr.DataArray, sample_dims: Sequence[Hashable], alone: bool) -> list[str]:
    dims = [dim for dim in variable.dims if dim not in sample_dims]
    prefix = [] if alone and dims else [str(variable.name)]
    for dim in dims:
        if variable[dim].dtype.kind in "Mm" and dim not in variable.coords:
            raise InputTypeError(f"dim {dim!r} is a datetime")
    labels = [[str(v) for v in variable[dim].values] for dim in dims]
    return ["_".join([*prefix, *combination]) for combination in cartesian(*labels)]


def rows_from_labelled(parts: Labelled, weight: Any, missing: Missing) -> Rows:
    """Rows of xarray variables, lazily where they are lazy."""
    axes = len(parts.sample_dims)
    weight = _labelled_weight(weight, parts)
    if parts.lazy:
        arrays = [v.data for v in parts.variables]
        boxed = None if weight is None else (lambda place: _box(weight, place))
        label = ", ".join(str(v.name) for v in parts.variables if v.name is not None)
        rows = from_dask(arrays, axes, boxed, missing, [f"variable {label}" if label else ""])
    else:
        rows = from_memory([v.values for v in parts.variables], axes, weight, missing)
    return replace(rows, names=parts.names, units=parts.units)


def _labelled_weight(weight: Any, parts: Labelled) -> Array | None:
    """Weights in memory with one axis per sampled dim, of length one where they do not depend on it."""
    if weight is None:
        return None
    if not isinstance(weight, xr.DataArray):
        weight = np.asarray(weight)
        if weight.shape == parts.shape:
            return weight
        if len(parts.shape) == 1 or weight.shape != (prod(parts.shape),):
            raise InputError(
                f"sample_weight has shape {weight.shape} but the sampled dims {parts.sample_dims} have {parts.shape}; "
                "pass a DataArray over some of these dims"
            )
        return weight.reshape(parts.shape)
    foreign = [dim for dim in weight.dims if dim not in parts.sample_dims]
    if foreign:
        raise InputError(f"sample_weight has dim {foreign[0]!r}, which is not sampled; {parts.sample_dims} are")
    for dim, size in zip(parts.sample_dims, parts.shape, strict=True):
        if dim in weight.dims and weight.sizes[dim] != size:
            raise InputError(f"sample_weight has {weight.sizes[dim]} values along {dim!r} but X has {size}")
    kept = [dim for dim in parts.sample_dims if dim in weight.dims]
    values = weight.transpose(*kept).values
    return values.reshape([weight.sizes[dim] if dim in kept else 1 for dim in parts.sample_dims])


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
    axes = x.ndim - 1
    if weight is None:
        return from_dask([x], axes, None, missing)
    if isinstance(weight, da.Array):
        if axes != 1 or weight.ndim != 1:
            raise InputError(f"sample_weight has {weight.ndim} dims but one weight per row is needed")
        if len(weight.chunks[0]) != len(x.chunks[0]) or not np.array_equal(
            weight.chunks[0], x.chunks[0], equal_nan=True
        ):
            raise InputError(
                f"sample_weight has {len(weight.chunks[0])} chunks of rows but X has {len(x.chunks[0])}, or of other "
                "lengths; rechunk one like the other, e.g. sample_weight.rechunk(X.chunks[0])"
            )
        return from_dask([x], axes, weight, missing)
    weight = np.asarray(weight)
    if np.isnan(x.shape[0]):
        raise InputError(
            "sample_weight is an array in memory but the lengths of X's chunks are not known; "
            "pass weights as a Dask array chunked like X, or call X.compute_chunk_sizes() first"
        )
    if weight.shape != x.shape[:-1]:
        raise InputError(f"sample_weight has shape {weight.shape} but X has {x.shape[:-1]} rows")
    return from_dask([x], axes, lambda place: _box(weight, place), missing)


def memory_weights(weight: Any, rows: int) -> Array | None:
    """One weight per row of an array in memory: (n,)."""
    if weight is None:
        return None
    if dask.is_dask_collection(weight):
        raise InputError("sample_weight is a Dask collection but X is in memory; pass sample_weight.compute()")
    if np.isscalar(weight):
        raise InputError(f"sample_weight is the number {weight}; one weight per row is needed, or None")
    weight = np.asarray(weight)
    if weight.dtype.kind not in "fiub":
        raise InputTypeError(f"sample_weight is of type {weight.dtype}, which is not a number")
    if weight.ndim != 1:
        raise InputError(f"Sample weights must be 1D array or scalar, got {weight.ndim}D array")
    if len(weight) != rows:
        raise InputError(f"sample_weight.shape == {weight.shape}, expected {(rows,)}!")
    return clean_weights(weight, table(0, rows, rows), 0)


def beside(rows: Rows, other: Array) -> Rows:
    """The same rows with more columns, which are in memory: (n,) or (n, m)."""
    columns = other[:, None] if other.ndim == 1 else other
    parts = tuple(replace(p, load=_Beside(p.load, columns, p.place)) for p in rows.parts)
    return replace(rows, parts=parts, d=rows.d + columns.shape[1])


@dataclass(frozen=True)
class _Beside:
    load: Callable[..., tuple[list[Array], Array | None]]
    columns: Array
    place: Place

    def __call__(self, *values: Any) -> tuple[list[Array], Array | None]:
        arrays, w = self.load(*values)
        own = self.columns[self.place.index(0, self.place.rows)]
        return [*arrays, own.reshape(*self.place.shape, -1)], w
