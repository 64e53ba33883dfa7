"""Other values of the rows that a model is fitted to, in whatever the user holds them."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

from daskmix.block import Array, Missing, unmasked
from daskmix.errors import InputError, InputTypeError
from daskmix.rows import Rows
from daskmix.sources.dask import is_dask_frame, rows_from_dask_array, rows_from_dask_frame
from daskmix.sources.labelled import rows_from_labelled, take_apart


def of_same_rows(name: str, other: Any, rows: Rows, X: Any, sample_dims: Any) -> tuple[Rows | Array, list[str]]:
    """Values of the rows of X, lazy or in memory (n, m), and the names of their columns; errors call them `name`.

    Raises
    ------
    InputError, InputTypeError
        Where they are not of these rows, or no numbers.
    """
    if isinstance(other, xr.Dataset | xr.DataArray):
        return _labelled(name, other, rows, X, sample_dims)
    if dask.is_dask_collection(other) and hasattr(other, "to_frame"):
        other = other.to_frame()
    if is_dask_frame(other):
        lazy = rows_from_dask_frame(other, None, Missing.observe)
        return lazy, [str(column) for column in other.columns]
    if isinstance(other, da.Array):
        other = other[:, None] if other.ndim == getattr(X, "ndim", 2) - 1 else other
        lazy = rows_from_dask_array(_chunked_like(name, other, X, rows), None, Missing.observe)
        return lazy, [str(v) for v in range(lazy.d)]
    columns = getattr(other, "columns", None)
    values, total = (
        _numbers(name, unmasked(other if np.ma.isMaskedArray(other) else np.asarray(other))),
        rows.counted(name),
    )
    axes = getattr(X, "ndim", 2) - 1
    if values.size == 0 or np.prod(values.shape[:axes]) != total:
        raise InputError(f"{name} has shape {values.shape}, but X has {total} rows")
    values = values.reshape(total, -1)
    return values, [str(v) for v in (range(values.shape[1]) if columns is None else columns)]


def _labelled(name: str, other: Any, rows: Rows, X: Any, sample_dims: Any) -> tuple[Rows | Array, list[str]]:
    if not isinstance(X, xr.Dataset | xr.DataArray):
        raise InputError(f"{name} is an xarray object, but X is a {type(X).__name__}; pass both of one kind")
    own = take_apart(X, sample_dims)
    given = other.to_dataset(name=other.name or name) if isinstance(other, xr.DataArray) else other
    for dim in own.sample_dims:
        if dim not in given.dims or given.sizes[dim] != own.variables[0].sizes[dim]:
            raise InputError(
                f"{name} has sizes {dict(given.sizes)}, but X has {own.variables[0].sizes[dim]} along {dim!r}"
            )
        here, there = own.variables[0].coords.get(dim), given.coords.get(dim)
        if here is not None and there is not None and not here.equals(there):
            raise InputError(f"{name} has other values of {dim!r} than X; select or sort one like the other")
    if own.lazy:
        sizes = rows.chunks or ()
        parts = take_apart(given.chunk(dict(zip(own.sample_dims, sizes, strict=True))), own.sample_dims)
        return rows_from_labelled(parts, None, Missing.observe), list(parts.names)
    parts = take_apart(given.compute(), own.sample_dims)
    columns = [_numbers(name, v.values).reshape(rows.counted(name), -1) for v in parts.variables]
    return np.concatenate(columns, axis=1), list(parts.names)


def _numbers(name: str, values: Array) -> Array:
    if values.dtype.kind not in "fiub":
        raise InputTypeError(f"{name} is of type {values.dtype}, not a real number; convert it first")
    return values.astype(np.float64)


def _chunked_like(name: str, other: da.Array, X: Any, rows: Rows) -> da.Array:
    if not isinstance(X, da.Array) or rows.chunks is None:
        return other
    if other.shape[:-1] != X.shape[:-1]:
        raise InputError(f"{name} has {other.shape[:-1]} rows but X has {X.shape[:-1]}")
    return other.rechunk((*rows.chunks, -1))
