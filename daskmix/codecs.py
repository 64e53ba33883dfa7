"""Codecs that stores name, of which one runs what it reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import zarr

from daskmix.errors import UnsafeStoreError, bare_url

# Of numcodecs. Newer ones decode no pickle unless told to by the environment, older ones do; nothing here ever shall.
RUNS_WHAT_IT_READS = "pickle"


def refuse_pickle(node: zarr.Array | zarr.Group, where: Any) -> None:
    """Raise where an array, or an array of a group, is to be decoded by a codec that unpickles; nothing is decoded.

    Raises
    ------
    UnsafeStoreError
    """
    arrays: Iterable[tuple[str, Any]] = [("", node)] if isinstance(node, zarr.Array) else node.arrays()
    for name, array in arrays:
        told = array.metadata.to_dict()
        if _named([told.get(part) for part in ("filters", "compressor", "codecs")]):
            raise UnsafeStoreError(
                f"{bare_url(str(where))}: {f'array {name!r}' if name else 'the array'} is stored as pickle, which runs "
                "what it holds when it is read; read it where you trust it, and write it again as numbers"
            )


def _named(told: Any) -> bool:
    """Whether this is that codec, or there is one among these, or within one (as in a shard)."""
    if isinstance(told, Mapping):
        own = told.get("id", told.get("name"))
        return str(own).rpartition(".")[2] == RUNS_WHAT_IT_READS or any(map(_named, told.values()))
    return isinstance(told, list | tuple) and any(map(_named, told))
