"""Zarr stores, by path, URL or array."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from typing import Any

import dask.array as da
import xarray as xr
import zarr

from daskmix.errors import InputTypeError, StoreNotFoundError, VariableNotFoundError


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
