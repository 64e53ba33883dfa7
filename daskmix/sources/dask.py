"""Dask arrays as rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import prod
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.typing import Key

from daskmix.arrays import namespace
from daskmix.block import PARTITION_STRIDE, Array, Missing, Place, unmasked, working_dtype
from daskmix.errors import InputError, InputTypeError
from daskmix.rows import Part, Rows, box, in_memory_weights, places


def is_dask_frame(x: Any) -> bool:
    return dask.is_dask_collection(x) and hasattr(x, "to_dask_array") and hasattr(x, "columns")


def rows_from_dask_frame(x: Any, weight: Any, missing: Missing) -> Rows:
    """Rows of a Dask DataFrame, whose columns are the features."""
    for name, dtype in x.dtypes.items():
        if dtype.kind == "V":  # of which Dask cannot even say what they would be as an array
            raise InputTypeError(f"column {name!r} holds records ({dtype}), not numbers; give each field a column")
    return rows_from_dask_array(x.to_dask_array(), weight, missing)


def rows_from_dask_array(x: da.Array, weight: Any, missing: Missing) -> Rows:
    """Rows of a Dask array: the last axis holds the features, all others are sampled."""
    return from_dask([x], x.ndim - 1, checked_weight(x, weight), missing)


def checked_weight(x: da.Array, weight: Any) -> da.Array | Array | None:
    """A weight for each row of a Dask array, chunked like the rows or in memory; refused where it does not fit."""
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
        weight = in_memory_weights(weight)
        if np.isnan(x.shape[0]):
            raise InputError(
                "sample_weight is an array in memory but the lengths of X's chunks are not known; "
                "pass weights as a Dask array chunked like X, or call X.compute_chunk_sizes() first"
            )
        if weight.shape != x.shape[:-1]:
            raise InputError(f"sample_weight has shape {weight.shape} but X has {x.shape[:-1]} rows")
    return weight


@dataclass(frozen=True)
class _Assemble:
    """Blocks of several arrays, and of weights, -> a whole chunk of rows, whatever the chunks of the features."""

    grids: tuple[tuple[int, ...], ...]  # of each array: how many blocks lie along each feature axis
    axes: int
    w: Array | None = None  # the chunk's weights, where they are in memory
    weighted: bool = False  # whether the last block is the chunk's weights
    names: tuple[Key, ...] = ()
    graph: Mapping[Key, Any] | None = None  # the tasks that give the blocks, when they are done right here
    there: tuple[Any, ...] = ()  # the blocks, where they are in memory

    def __call__(self, *blocks: Any) -> tuple[list[Array], Array | None]:
        if self.graph is not None:
            blocks = tuple(dask.core.get(self.graph, list(self.names)))
        left = iter(self.there or blocks)
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
    d = sum(prod(a.shape[axes:]) for a in arrays)
    row_bytes = sum(a.dtype.itemsize * prod(a.shape[axes:]) for a in arrays)
    grids = tuple(tuple(len(c) for c in a.chunks[axes:]) for a in arrays)
    parts = []
    for number, (where, place) in enumerate(places(chunks) if known else _unknown(len(chunks[0]))):
        if known and place.rows == 0:
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
            w = box(weight, place)
        load, nbytes = _Assemble(grids, axes, w, weighted), place.rows * row_bytes if known else None
        parts.append(Part(number, place, d, load, tuple(names), nbytes, source))
    total = sum(part.place.rows for part in parts) if known else None
    return _self_contained(Rows(tuple(parts), d, dtype, total, missing, in_memory=False, graph=graph))


def _unknown(partitions: int) -> Iterator[tuple[tuple[int, ...], Place]]:
    """Places of partitions whose lengths are not known."""
    for number in range(partitions):
        yield (number,), Place((number * PARTITION_STRIDE,), (0,), (0,))


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
    # Blocks of an array in memory are there already.
    there = all(isinstance(getattr(rows.graph[key], "value", rows.graph[key]), np.ndarray) for key in seen)
    parts = []
    for part, closure in zip(rows.parts, closures, strict=True):
        load: Any = part.load
        own = {key: rows.graph[key] for key in closure}
        if there:
            inner = replace(load, there=tuple(dask.core.get(own, list(part.needs))))
        else:
            inner = replace(load, names=part.needs, graph=own)
        parts.append(replace(part, load=inner, needs=()))
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
