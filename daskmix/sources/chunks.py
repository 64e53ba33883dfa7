"""Chunks of Zarr arrays as objects of their store: which are there, and which cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product as cartesian
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.base import tokenize
from zarr.abc.store import ByteRequest, Store
from zarr.storage import FsspecStore, LocalStore, StorePath, WrapperStore

from daskmix import again
from daskmix.block import Array
from daskmix.errors import BadChunkError, DaskmixError, MissingChunksError
from daskmix.objects import Stat, listing

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer, BufferPrototype

METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
NAMED = 3  # keys that a message names
ZARRS = "zarrs."  # a codec pipeline that reads for itself, from the stores that it knows


class Strict(WrapperStore[Store]):
    """A store in which a chunk that is not there, or empty, is an error: Zarr would read it as the fill value."""

    def __init__(self, store: Store, below: tuple[str, ...] = ("",), accept: bool = False) -> None:
        super().__init__(store)
        self.inner = store
        self.below = below  # prefixes of the keys that this holds for
        self.accept = accept  # chunks that are not there

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        found = await super().get(key, prototype, byte_range)
        if found is not None and len(found):
            return found
        if not key.startswith(self.below) or key.rpartition("/")[2] in METADATA:
            return found
        if found is not None:
            raise BadChunkError(f"{name_of(self.inner)}: the object {key} is empty (0 bytes); restore it")
        if self.accept:
            return None
        raise MissingChunksError(
            f"{name_of(self.inner)}: the object {key} is not there, and would read as the fill value; {REMEDY}"
        )


REMEDY = (
    "restore what is missing, or, if it was left out on purpose (as with write_empty_chunks=False), pass "
    "run=Run(accept_missing_chunks=True)"
)


def strict(store: Store, below: tuple[str, ...], accept: bool) -> Store:
    """The store, strict where Zarr itself reads from it."""
    return store if zarr.config.get("codec_pipeline.path").startswith(ZARRS) else Strict(store, below, accept)


def name_of(store: Store) -> str:
    """A store as a user would write it, without what opens it."""
    if isinstance(store, Strict):
        return name_of(store.inner)
    if isinstance(store, LocalStore):
        return str(store.root)
    if isinstance(store, FsspecStore):
        return str(getattr(store.fs, "sync_fs", store.fs).unstrip_protocol(store.path))
    return str(store)


@dataclass(frozen=True, eq=False)
class Chunked:
    """An array to be read lazily, and the Zarr array whose chunks hold it."""

    values: Any  # zarr.Array or xr.Variable, as they are to be read
    stored: Any  # zarr.Array, as it lies in the store

    @staticmethod
    def of_array(array: zarr.Array, accept: bool) -> Chunked:
        """An array that is strict about its chunks."""
        store = strict(array.store, (below(array.path),), accept)
        return Chunked(zarr.Array(zarr.AsyncArray(array.metadata, StorePath(store, array.path))), array)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    @property
    def ndim(self) -> int:
        return self.stored.ndim

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype

    def __getitem__(self, region: Any) -> Array:
        """
        Raises
        ------
        BadChunkError
            With the key of the chunk that cannot be read.
        SourceUnavailableError
            Its store could not be reached for long.
        """
        try:
            return again.patiently(lambda: self._read(region), again.SOURCE_PATIENCE)
        except (DaskmixError, MemoryError):
            raise
        except Exception as error:
            if again.transient(error):  # no chunk is to blame for a server
                raise again.unavailable(self._name(), error) from error
            self._blame(region)
            raise BadChunkError(f"{self._name()} cannot be read: {type(error).__name__}: {error}") from error

    def _read(self, region: Any) -> Array:
        found = self.values[region]
        return found.values if isinstance(found, xr.Variable) else np.asarray(found)

    def _blame(self, region: Any) -> None:
        """Read each chunk of a region by itself; raise for the first that cannot be read."""
        region = region if isinstance(region, tuple) else (region,)
        spans = [s if isinstance(s, slice) else slice(None) for s in region]
        spans += [slice(None)] * (self.ndim - len(spans))
        axes = []
        for span, length, size in zip(spans, self.shape, objects_of(self.stored), strict=True):
            start, stop, _ = span.indices(length)
            axes.append([(i, slice(i * size, (i + 1) * size)) for i in range(start // size, -(-stop // size))])
        for cells in cartesian(*axes):
            where, inside = zip(*cells, strict=True)
            try:
                self.stored[inside]
            except MemoryError:
                raise
            except Exception as error:
                if again.transient(error):
                    raise
                key = below(self.stored.path) + self.stored.metadata.encode_chunk_key(where)
                store, said = name_of(self.stored.store), f"{type(error).__name__}: {error}"
                raise BadChunkError(f"the object {key} in {store} cannot be decoded: {said}") from error

    def _name(self) -> str:
        store = name_of(self.stored.store)
        return f"{self.stored.path} in {store}" if self.stored.path else store

    def __dask_tokenize__(self) -> Any:
        # By where it lies: a store in memory would be read to tell its contents.
        store = self.stored.store
        if isinstance(store, LocalStore):
            of_store: Any = (str(store.root), os.stat(store.root).st_mtime_ns)
        else:
            of_store = tokenize(store.fs, store.path) if isinstance(store, FsspecStore) else str(store)
        strictly = type(getattr(self.values, "store", None)).__name__
        return "Chunked", of_store, self.stored.path, str(self.stored.metadata), str(self.dtype), strictly

    def lazy(self, chunks: tuple[int, ...] | None = None) -> da.Array:
        """As Dask's, in whole objects or in pieces of this shape."""
        meta = np.empty((0,) * self.ndim, self.dtype)
        return da.from_array(
            self, chunks=chunks or objects_of(self.stored), name=f"daskmix-{tokenize(self, chunks)}", meta=meta
        )


def below(path: str) -> str:
    """What the keys of an array begin with."""
    return f"{path}/" if path else ""


def objects_of(array: zarr.Array) -> tuple[int, ...]:
    """The shape of what one object holds: a shard, or a chunk."""
    return tuple(max(1, n) for n in array.shards or array.chunks)


def cells_of(array: zarr.Array) -> Iterator[tuple[tuple[int, ...], str]]:
    """All objects that an array consists of, in C order: where each stands in their grid, and its key."""
    start, key = below(array.path), array.metadata.encode_chunk_key
    counts = [-(-n // size) for n, size in zip(array.shape, objects_of(array), strict=True)]
    return ((where, start + key(where)) for where in cartesian(*map(range, counts)))


def written(arrays: Mapping[Any, zarr.Array]) -> tuple[int, int]:
    """How many objects of these arrays are there, of how many."""
    there = total = 0
    for array in arrays.values():
        found = listing(array.store, array.path)
        sizes = [key in found and found[key].size != 0 for _, key in cells_of(array)]
        there, total = there + sum(sizes), total + len(sizes)
    return there, total


def check(arrays: Mapping[Any, zarr.Array], accept: bool) -> None:
    """Look for objects that are not there or empty, before any is read; by listing them.

    Chunks within a shard are not looked for: it may lack some, which reads as the fill value.

    Raises
    ------
    BadChunkError
        Some are empty.
    MissingChunksError
        Some are not there, and that is not accepted.
    """
    empty, missing = [], []
    for name, array in arrays.items():
        found = _listed(array)
        if found is None:
            continue  # reading will tell
        total, absent, hollow = 0, [], []
        for _, key in cells_of(array):
            total += 1
            stat = found.get(key)
            if stat is None:
                absent.append(key)
            elif stat.size == 0:
                hollow.append(key)
        what = f" of {name}" if name else ""
        if hollow:
            empty.append(
                f"{len(hollow):,} of {total:,} objects{what} in {name_of(array.store)} are empty, {_few(hollow)}"
            )
        if absent:
            missing.append(
                f"{len(absent):,} of {total:,} objects{what} in {name_of(array.store)} are not there, {_few(absent)}, "
                f"and would read as the fill value {array.fill_value}"
            )
    if empty:
        raise BadChunkError(f"{'; '.join(empty)}; restore them")
    if missing and not accept:
        raise MissingChunksError(f"{'; '.join(missing)}; {REMEDY}")


def _listed(array: zarr.Array) -> dict[str, Stat] | None:
    """The objects of an array, where its store tells them."""
    try:
        return again.patiently(lambda: listing(array.store, array.path), again.OPEN_PATIENCE)
    except (NotImplementedError, PermissionError):
        return None
    except Exception as error:  # each kind of store has its own
        if again.transient(error):
            return None
        raise


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:NAMED]) + (", ..." if len(keys) > NAMED else "")
