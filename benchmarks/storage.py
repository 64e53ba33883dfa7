"""The same rows on disk twice: as a compressed Zarr store, and raw, for a memory map."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import dask.array as da
import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from benchmarks.cases import Case


@dataclass(frozen=True)
class Stored:
    """Rows on disk."""

    case: Case
    chunk_rows: int
    folder: Path  # also for what a fit leaves on disk while it runs

    @property
    def zstd(self) -> Path:
        return self.folder / "rows.zarr"

    @property
    def raw(self) -> Path:
        return self.folder / "rows.raw"

    def mapped(self) -> da.Array:
        """The raw rows, each chunk a slice of a memory map that is opened where it is read."""
        starts = np.arange(0, self.case.rows, self.chunk_rows)
        lengths = tuple(int(n) for n in np.minimum(self.chunk_rows, self.case.rows - starts))
        numbers = da.from_array(starts, chunks=1)
        read = partial(_slice, self.raw, self.case, self.chunk_rows)
        chunks, meta = (lengths, (self.case.features,)), np.empty((0, self.case.features), self.case.dtype)
        return da.map_blocks(read, numbers, new_axis=1, chunks=chunks, dtype=self.case.dtype, meta=meta)

    def decode(self) -> None:
        """Read every chunk of the store on Dask's threads, and drop it."""
        rows = da.from_zarr(self.zstd)
        ones = tuple(1 for _ in rows.chunks[0])
        rows.map_blocks(_dropped, chunks=(ones, (1,)), dtype=bool, meta=np.empty((0, 0), bool)).compute()


def _slice(path: Path, case: Case, rows: int, starts: np.ndarray) -> np.ndarray:
    whole = np.memmap(path, case.dtype, "r", shape=(case.rows, case.features))
    return whole[starts[0] : starts[0] + rows]


def _dropped(chunk: np.ndarray) -> np.ndarray:
    return np.ones((1, 1), bool)


@contextmanager
def stored(case: Case, chunks: int) -> Iterator[Stored]:
    """The rows of this case in so many chunks, on disk for a while."""
    x = case.data()
    with TemporaryDirectory() as folder:
        rows = Stored(case, -(-case.rows // chunks), Path(folder))
        x.tofile(rows.raw)
        shape = (rows.chunk_rows, case.features)
        store = zarr.create_array(rows.zstd, shape=x.shape, chunks=shape, dtype=x.dtype, compressors=ZstdCodec())
        store[:] = x
        yield rows
