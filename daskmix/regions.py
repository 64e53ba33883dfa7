"""How far the values of rows were written to a Zarr group: what is there is not written again."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import accumulate, groupby
from typing import Any

import xarray as xr
import zarr

from daskmix.objects import listing
from daskmix.sources.chunks import cells_of


def left(group: zarr.Group, dataset: xr.Dataset) -> Iterator[tuple[xr.Dataset, dict[str, slice]]]:
    """What is still to be written of a Dataset to a group that has its arrays, in runs along the first sampled dim.

    And where along it.

    A slab of that dim, one chunk long, is done where every chunk in it is there: chunks are written whole.
    """
    lazy = chunked(dataset)
    dim = first_dim(lazy)
    sizes = lazy.chunks[dim]
    done = _done(group, lazy, dim, len(sizes))
    ends = list(accumulate(sizes, initial=0))
    for is_done, run in groupby(range(len(sizes)), key=done.__contains__):
        if not is_done:
            slabs = list(run)
            where = {str(dim): slice(ends[slabs[0]], ends[slabs[-1] + 1])}
            yield lazy.isel(where), where


def chunked(dataset: xr.Dataset) -> xr.Dataset:
    """The variables that are computed chunk by chunk, bare of coordinates."""
    return dataset[[name for name, v in dataset.data_vars.items() if v.chunks is not None]].reset_coords(drop=True)


def first_dim(lazy: xr.Dataset) -> Hashable:
    """The first dim of the rows."""
    return next(iter(lazy.data_vars.values())).dims[0]


def fits(group: zarr.Group, dataset: xr.Dataset) -> bool:
    """Whether a group has all arrays of a Dataset, as they would be made, and can be told to be done slab by slab."""
    lazy = chunked(dataset)
    if not lazy.data_vars or any(first_dim(lazy) not in v.dims for v in lazy.data_vars.values()):
        return False
    return all(_alike(group.get(str(name)), v) for name, v in lazy.data_vars.items())


def _alike(array: Any, variable: xr.DataArray) -> bool:
    chunks = tuple(max(1, sizes[0]) for sizes in variable.chunks or ())
    return isinstance(array, zarr.Array) and array.shape == variable.shape and array.chunks == chunks


def _done(group: zarr.Group, lazy: xr.Dataset, dim: Hashable, slabs: int) -> set[int]:
    """Numbers of the slabs whose chunks are all there."""
    done = set(range(slabs))
    for name, variable in lazy.data_vars.items():
        array: Any = group[str(name)]
        there = {key for key, stat in listing(group.store, array.path).items() if stat.size != 0}
        axis = variable.dims.index(dim)
        for where, key in cells_of(array):
            if key not in there:
                done.discard(where[axis])
    return done
