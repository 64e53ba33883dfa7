"""How much memory a fit takes at most, told beforehand; and chunks that no worker can hold."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dask
from dask.base import get_scheduler
from dask.system import CPU_COUNT
from dask.utils import format_bytes

from daskmix.block import Missing
from daskmix.engines.keep import room_of_this_process, this_worker
from daskmix.engines.local import TILE_BYTES
from daskmix.errors import ChunkTooLargeError, TightMemoryWarning
from daskmix.rows import Part, Rows

# Of Python, Dask, Zarr and numba, the code that it compiles, and memory that is freed too late; measured by
# chaos/test_memory.py.
PROCESS_BYTES = 448 << 20
ANSWERS = 12  # that wait to be merged, and what becomes of them between passes
HELD = 3  # times what is read at once: as it was encoded, decoded, and in place
ADVISED = 64 << 20  # bytes of a chunk that suit any worker
SHARE = 8  # of what a worker has, where that is little


@dataclass(frozen=True)
class Workers:
    """What computes: how many tasks at a time, and the bytes that the poorest of them has left."""

    threads: int
    room: int | None  # None where there is no limit, or no worker yet
    limit: int | None  # of the process
    who: str


def task_bytes(rows: Rows, answer: int) -> int | None:
    """Most that a task holds at once; None where the lengths of chunks are not known."""
    if None in [part.nbytes for part in rows.parts]:
        return None
    chunks = 0 if rows.in_memory else max((_bundle_bytes(rows, bundle) for bundle in rows.bundles), default=0)
    return chunks + TILE_BYTES + ANSWERS * answer


def _bundle_bytes(rows: Rows, bundle: tuple[Part, ...]) -> int:
    read = max((HELD + (rows.copies > 2)) * (part.nbytes or 0) for part in bundle)
    now = max(_clean_bytes(rows, part) for part in bundle)
    # The next chunk is read while one is computed on.
    return read + now if len(bundle) > 1 else max(read, now)


def _clean_bytes(rows: Rows, part: Part) -> int:
    """Of a chunk that is computed on: as it was read and, where that differs, as it is computed on."""
    n, own = part.place.rows, part.nbytes or 0
    clean = n * rows.d * rows.dtype.itemsize
    converted = clean if clean != own or part.prepare is not None or part.columns is not None else 0
    # Masks of what is missing, and weights in double precision.
    gaps = 0 if rows.missing in (Missing.refuse, Missing.trust) else clean + 2 * n * rows.d
    return own + converted + gaps + 32 * n


def worker_bytes(rows: Rows, task: int | None, threads: int) -> int | None:
    """Most that a process of so many threads takes, beside its cache."""
    return None if task is None else min(threads, max(1, len(rows.bundles))) * task + PROCESS_BYTES


def workers_for(rows: Rows) -> Workers:
    """What will compute on these rows."""
    here = this_worker() is not None
    try:
        client = None if here or rows.in_memory else getattr(get_scheduler(), "__self__", None)
    except RuntimeError:  # an asynchronous client, which the engine refuses
        client = None
    if client is not None:
        return _of_cluster(client.scheduler_info(n_workers=-1)["workers"].values())
    room = room_of_this_process()
    threads = 1 if here else dask.config.get("num_workers", None) or CPU_COUNT
    return Workers(threads, room, None, "this process")


def _of_cluster(workers: Any) -> Workers:
    threads = max((worker["nthreads"] for worker in workers), default=1)
    limited = [(_room_of(worker), worker["memory_limit"]) for worker in workers if worker["memory_limit"]]
    room, limit = min(limited, default=(None, None))
    return Workers(threads, room, limit, "a worker")


def _room_of(worker: Any) -> int:
    """Bytes that tasks may take there; what is managed may be spilled."""
    taken = worker["metrics"].get("memory", 0) - worker["metrics"].get("managed_bytes", 0)
    killed = dask.config.get("distributed.worker.memory.terminate", None) or 1.0  # at that share of its limit
    return int(killed * worker["memory_limit"] - max(0, taken))


def check_room(rows: Rows, task: int | None, workers: Workers, advice: Callable[[int], str]) -> None:
    """Whether the largest chunk can be held at all; a warning where all threads together hold too much.

    Raises
    ------
    ChunkTooLargeError
        Not by one task alone; `advice` says how to come by chunks of so many bytes.
    """
    if task is None or workers.room is None or rows.in_memory or not rows.parts:
        return
    largest = max(rows.parts, key=lambda part: part.nbytes or 0)
    size, room = largest.nbytes or 0, workers.room
    has = f"{workers.who} has " + ("" if workers.limit is None else f"{format_bytes(workers.limit)}, of which ")
    has += f"{format_bytes(max(0, room))} {'is' if workers.limit is None else 'are'} free"
    if rows.copies * size > room:
        wanted = min(ADVISED, max(1 << 20, room // SHARE))
        raise ChunkTooLargeError(
            f"chunk {largest.number}{largest.source} is {format_bytes(size)} decoded, and a task holds "
            f"{format_bytes(rows.copies * size)} at least, but {has}; give it more memory, or smaller chunks, e.g. "
            f"{advice(wanted)}"
        )
    fit = max(1, room // task)
    if fit < min(workers.threads, len(rows.bundles)):
        warnings.warn(
            f"{workers.threads} threads may hold {format_bytes(workers.threads * task)} together, but {has}; with "
            f"{fit} thread{'s' * (fit > 1)} it is safe, or with chunks smaller than {format_bytes(size)}",
            TightMemoryWarning,
            stacklevel=4,
        )
