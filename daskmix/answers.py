"""A value for each row, in the type that the rows came in: eager for arrays in memory, lazy for what is lazy."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from daskmix.arrays import to_host
from daskmix.block import Array, Missing, Place, clean, table
from daskmix.engines.local import one_blas_thread
from daskmix.rows import as_rows
from daskmix.sources.labelled import Labelled

WORKING_BYTES = 16 << 20


@dataclass(frozen=True)
class RowFunction:
    """Something that is computed for each row on its own."""

    name: str
    of_rows: Callable[[Array, bool], Array]  # (n, d), and whether they may have gaps -> (n,) or (n, width)
    dtype: np.dtype
    fill: float  # for rows that were left out
    missing: Missing
    width: int | None = None  # values per row, None for a bare one
    over: str = ""  # what the values of a row are for: "cluster", "component"
    columns: tuple[int, ...] | None = None  # which features, in which order
    row_bytes: int = 64
    attrs: tuple[tuple[str, Any], ...] = ()
    prepare: Callable[[Array], Array] | None = None  # what is made of the rows before they are checked

    def __call__(self, x: Array, place: Place | None = None) -> Array:
        """Rows as they were read, (n, d) -> (n,) or (n, width), on the host wherever the rows live."""
        known = place is not None
        place = place or table(0, len(x), 0)
        x = x if self.columns is None else x[:, list(self.columns)]
        x = x if self.prepare is None else self.prepare(x)
        block = clean(x, None, place, 0 if known else -1, self.missing)
        out = np.empty((len(x),) if self.width is None else (len(x), self.width), dtype=self.dtype)
        with one_blas_thread():
            for tile in block.tiles(max(1024, WORKING_BYTES // self.row_bytes)):
                out[tile.first : tile.first + len(tile.x)] = to_host(self.of_rows(tile.x, tile.gaps))
        if block.missing:
            out[to_host(block.w == 0)] = self.fill
        return out

    def of_arrays(self, *arrays: Array, axes: int) -> Array:
        """Arrays whose first axes are sampled -> the same axes, then the values of a row."""
        shape = arrays[0].shape[:axes]
        values = self(as_rows(arrays, axes))
        return values.reshape(*shape, *values.shape[1:])


def of_memory(function: RowFunction, x: Array) -> Array:
    """For an array in memory: (n,) or (n, width)."""
    return function(x, table(0, len(x), len(x)))


def of_dask_array(function: RowFunction, x: da.Array) -> da.Array:
    """For a Dask array, whose last axis holds the features; nothing is read before it is asked for."""
    axes = x.ndim - 1
    x = x.rechunk({axes: -1})
    meta = np.empty((0,) * (axes + (function.width is not None)), dtype=function.dtype)
    whole = partial(function.of_arrays, axes=axes)
    if function.width is None:
        return da.map_blocks(whole, x, drop_axis=axes, dtype=function.dtype, meta=meta)
    return da.map_blocks(whole, x, chunks=(*x.chunks[:-1], (function.width,)), dtype=function.dtype, meta=meta)


def of_dask_frame(function: RowFunction, x: Any) -> Any:
    """For a Dask DataFrame: a Series, or a DataFrame with one column per value, with the index of the rows."""
    import pandas as pd  # optional: here only where a Dask DataFrame came from

    names = None if function.width is None else [f"{function.over}_{j}" for j in range(function.width)]

    def of_partition(frame: Any) -> Any:
        values = function(frame.to_numpy())
        if names is None:
            return pd.Series(values, index=frame.index, name=function.name)
        return pd.DataFrame(values, index=frame.index, columns=names)

    empty = np.empty((0,) if names is None else (0, len(names)), dtype=function.dtype)
    if names is None:
        meta: Any = pd.Series(empty, index=x._meta.index, name=function.name)
    else:
        meta = pd.DataFrame(empty, index=x._meta.index, columns=names)
    return x.map_partitions(of_partition, meta=meta)


def of_labelled(function: RowFunction, x: Labelled) -> xr.DataArray:
    """For xarray: a DataArray over the sampled dims, with their coordinates."""
    features: list[list[Hashable]] = [[d for d in v.dims if d not in x.sample_dims] for v in x.variables]
    whole = []
    for variable, own in zip(x.variables, features, strict=True):
        bare = variable.drop_vars([c for c in variable.coords if set(variable[c].dims) & set(own)])
        # Here rather than by apply_ufunc, which would cut the rows to keep chunks small.
        whole.append(bare if bare.chunks is None else bare.chunk(dict.fromkeys(own, -1)))
    out = xr.apply_ufunc(
        partial(function.of_arrays, axes=len(x.sample_dims)),
        *whole,
        input_core_dims=features,
        output_core_dims=[[] if function.width is None else [function.over]],
        dask="parallelized",
        output_dtypes=[function.dtype],
        dask_gufunc_kwargs={"output_sizes": {} if function.width is None else {function.over: function.width}},
    )
    # Coordinates over sampled dims come along; what belongs to features does not.
    out = out.rename(function.name)
    out.attrs = dict(function.attrs)  # units and names of a feature are not those of a label
    return out.transpose(*x.sample_dims, ...)
