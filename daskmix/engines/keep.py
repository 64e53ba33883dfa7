"""Chunks that are decoded once: kept in memory or in scratch on a local disk, within limits, or read again."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import dask
import numpy as np
import psutil

from daskmix.arrays import alongside
from daskmix.block import Array, Block, Missing, clean, clean_labels
from daskmix.errors import InputError
from daskmix.passes import Tally
from daskmix.rows import Part, Raw

SHARE_OF_MEMORY = 0.3  # of a worker's limit: below Dask's spill target, and most is left to others
SHARE_OF_DISK = 0.5  # of what is free
FAST = 1e9  # bytes per second: what is read as fast as that from its source gains nothing from a copy on a disk
# Memory by another name, or slower than decoding again.
UNFIT_FOR_SCRATCH = {
    "tmpfs", "ramfs", "devtmpfs", "nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "9p", "lustre", "gpfs", "beegfs",
    "ceph", "glusterfs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone",
}  # fmt: skip


@dataclass(frozen=True)
class Keep:
    """Where decoded chunks may stay, and how many bytes of them in one process."""

    memory: bool = False
    disk: bool = False
    limit: int | None = None  # bytes, of memory where memory may be used, else of disk
    scratch: str | None = None  # a folder; None: a worker's own, or Dask's temporary one, unless that is no local disk
    fit: str = ""  # chunks of one fit share a file

    def check_scratch(self) -> None:
        """Where this process is to write scratch itself, the folder that was asked for must be here.

        Raises
        ------
        InputError
        """
        if self.scratch is not None and not os.path.isdir(self.scratch):
            raise InputError(f"scratch={self.scratch!r} is no folder on this machine; make it first")


def keep_for(cache: str, limit: int | None, scratch: str | None) -> Keep:
    """What a user's choice means: "auto", "memory", "disk" or "off"."""
    return Keep(cache in ("auto", "memory"), cache in ("auto", "disk"), limit, scratch, uuid4().hex)


NOTHING = Keep()


class Held:
    """Consecutive chunks, each kept where there was room when it was decoded, else read from its source.

    It knows its source: a copy that travels to another process leaves the rows behind and reads them again there. So a
    cluster may move, lose or spill it as it likes.
    """

    def __init__(
        self, bundle: Sequence[Part], keep: Keep = NOTHING, ahead: bool = False, memory: Keep = NOTHING
    ) -> None:
        self.bundle, self.keep, self.ahead = tuple(bundle), keep, ahead
        self.memory = memory  # what memos may take, also of rows that need not be kept
        self._memos: dict[tuple[int, int], _Memos] = {}
        self._kept: list[_Kept | None] = [None] * len(self.bundle)
        self._filled: set[int] = set()  # chunks that were read before they were asked for

    def __reduce__(self) -> Any:
        return Held, (self.bundle, self.keep, self.ahead, self.memory)

    def __sizeof__(self) -> int:
        rows = sum(kept.in_memory for kept in self._kept if kept is not None)
        return object.__sizeof__(self) + rows + sum(memos.nbytes for memos in self._memos.values())

    def blocks(self, missing: Missing, given: Sequence[Any]) -> Generator[tuple[Block, Tally], None, None]:
        """Each chunk, clean, and what was read for it; `given` are the values that the parts need, in order."""
        with closing(self._fresh(given)) as fresh:
            for i, part in enumerate(self.bundle):
                kept = self._kept[i]
                if kept is not None:
                    block = kept.block()
                    decoded = kept.nbytes if i in self._filled else 0
                    self._filled.discard(i)
                    yield block, Tally(part.chunks, len(block.x), kept.nbytes, decoded)
                    continue
                raw = next(fresh)
                block = clean(raw.x, raw.w, raw.place, part.number, missing)
                if raw.known is not None:
                    known = clean_labels(alongside(raw.known, raw.x), raw.place, part.number, part.labels)
                    block = replace(block, known=known)
                kept, refused = _shelf.put(block, raw, self.keep)
                if self.keep is not NOTHING:  # it may have been dropped meanwhile
                    self._kept[i] = kept
                refused *= part.chunks
                yield block, Tally(part.chunks, len(block.x), raw.nbytes, decoded=raw.nbytes, refused=refused)

    def fill(self, missing: Missing) -> None:
        """Read what there is room for in memory."""
        size = sum(part.nbytes or 0 for part in self.bundle)
        if self.keep.memory and _shelf.has_room(size, self.keep):
            for _ in self.blocks(missing, ()):
                pass
            self._filled = {i for i, kept in enumerate(self._kept) if kept is not None}

    def drop(self) -> None:
        """Let go of what is kept, and keep no more."""
        self.keep = self.memory = NOTHING
        self._kept = [None] * len(self.bundle)
        self._memos = {}

    def recall(self, place: tuple[int, int]) -> Mapping[str, Any]:
        """What was remembered of a tile: the number of its chunk, and its first row there."""
        memos = self._memos.get(place)
        return {} if memos is None else memos.values

    def remember(self, place: tuple[int, int], values: Mapping[str, Any]) -> None:
        """Keep these memos instead of the last ones, where there is room."""
        self._memos.pop(place, None)
        if values and (memos := _shelf.put_memos(values, self.memory)) is not None:
            self._memos[place] = memos

    def _fresh(self, given: Sequence[Any]) -> Generator[Raw, None, None]:
        """The chunks that are not kept, as they are read; where it pays, the next one while this one is computed on."""
        left = iter(given)
        values = [[next(left) for _ in part.needs] for part in self.bundle]
        todo = [(part, v) for part, v, kept in zip(self.bundle, values, self._kept, strict=True) if kept is None]
        if not self.ahead or len(todo) < 2:
            for part, v in todo:
                yield part.read(v)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="daskmix-read") as reader:
            coming = reader.submit(todo[0][0].read, todo[0][1])
            for part, v in todo[1:]:
                now, coming = coming.result(), reader.submit(part.read, v)
                yield now
            yield coming.result()


@dataclass(frozen=True)
class _Kept:
    """One chunk as it was decoded and cleaned, in the smallest type that holds it exactly."""

    x: Array | _OnDisk  # (n, d)
    w: Array | _OnDisk | None  # (n,)
    known: Array | _OnDisk | None  # (n,)
    like: Block  # the same chunk without its rows
    nbytes: int  # of the chunk as it was read

    @property
    def in_memory(self) -> int:
        return sum(a.nbytes for a in (self.x, self.w, self.known) if isinstance(a, np.ndarray))

    def moved(self, scratch: _Scratch) -> _Kept:
        """The same chunk in scratch."""
        x, w, known = (None if a is None else scratch.write(_array(a)) for a in (self.x, self.w, self.known))
        return replace(self, x=x, w=w, known=known)

    def block(self) -> Block:
        x = _array(self.x).astype(self.like.x.dtype, copy=False)
        w, known = (None if a is None else _array(a) for a in (self.w, self.known))
        return replace(self.like, x=x, w=w, known=known)


@dataclass(frozen=True, eq=False)
class _Memos:
    """What questions remember of a tile."""

    values: Mapping[str, Any]
    nbytes: int


@dataclass(frozen=True)
class _OnDisk:
    """An array in a scratch file."""

    file: IO[bytes]
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]

    def mapped(self) -> Array:
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype)
        # Mapped anew each time: a mapping holds a file descriptor, and there are many chunks.
        return np.asarray(np.memmap(self.file, self.dtype, "r", self.offset, self.shape))  # type: ignore[call-overload]


def _array(a: Array | _OnDisk) -> Array:
    return a.mapped() if isinstance(a, _OnDisk) else a


class _Scratch:
    """A file without a name: it is gone with the last chunk in it, or with the process, however that ends."""

    def __init__(self, folder: Path) -> None:
        # Never closed by hand: chunks that are in use hold it.
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self.end = 0
        self.lock = threading.Lock()

    def write(self, a: Array) -> _OnDisk:
        with self.lock:
            offset, self.end = self.end, -(-(self.end + a.nbytes) // 64) * 64
        left = np.ascontiguousarray(a).reshape(-1).view(np.uint8)
        written = 0
        while written < a.nbytes:  # a full disk may take a part
            written += os.pwrite(self.file.fileno(), left[written:].data, offset + written)
        return _OnDisk(self.file, offset, a.dtype, a.shape)


class _Shelf:
    """What this process keeps of all fits together; one lock, and never more than the limits."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a finalizer may run while it is held
        self.memory = 0
        self.disk = 0
        self.scratch: weakref.WeakValueDictionary[str, _Scratch] = weakref.WeakValueDictionary()
        self.full: set[str] = set()  # fits whose scratch failed

    def put(self, block: Block, raw: Raw, keep: Keep) -> tuple[_Kept | None, int]:
        """The chunk, kept, or None where there is no room (or it lives on a device); and 1 where scratch failed."""
        if not (keep.memory or keep.disk) or not isinstance(block.x, np.ndarray):
            return None, 0
        x, others = narrowed(block.x, raw.x.dtype, block.gaps), (block.w, block.known)
        nbytes = x.nbytes + sum(a.nbytes for a in others if a is not None)
        like = replace(block, x=np.empty((0, block.x.shape[1]), block.x.dtype), w=None, known=None)
        if keep.memory and self._reserve("memory", nbytes, _memory_limit(keep)):
            # A view would keep alive what it is a view of.
            w, known = (None if a is None else _owned(a) for a in others)
            kept = _Kept(_owned(x), w, known, like, raw.nbytes)
            weakref.finalize(kept, self._release, "memory", nbytes)
            return kept, 0
        fast = keep.memory and raw.nbytes > FAST * raw.seconds  # who asks for the disk alone gets it
        if not keep.disk or fast or keep.fit in self.full:
            return None, 0
        return self._on_disk(_Kept(x, *others, like, raw.nbytes), nbytes, keep)

    def put_memos(self, values: Mapping[str, Any], keep: Keep) -> _Memos | None:
        """Memos, kept in memory, or None where there is no room."""
        nbytes = sum(memo.nbytes for memo in values.values())
        if not (keep.memory and self._reserve("memory", nbytes, _memory_limit(keep))):
            return None
        memos = _Memos(values, nbytes)
        weakref.finalize(memos, self._release, "memory", nbytes)
        return memos

    def has_room(self, nbytes: int, keep: Keep) -> bool:
        """Whether so many bytes would go into memory now."""
        return self.memory + nbytes <= _memory_limit(keep)

    def _on_disk(self, chunk: _Kept, nbytes: int, keep: Keep) -> tuple[_Kept | None, int]:
        """The chunk, whose arrays take so many bytes, in scratch."""
        folder = scratch_folder(keep)
        if folder is None:
            return None, 0
        reserved = False
        try:
            reserved = self._reserve("disk", nbytes, self._disk_limit(folder, keep))
            if not reserved:
                return None, 0
            scratch = self._scratch_of(keep.fit, folder)
            kept = chunk.moved(scratch)
        except OSError:  # full, or over a quota, not writable, or not there: a cache may do without
            self.full.add(keep.fit)
            self._release("disk", nbytes * reserved)
            return None, 1
        weakref.finalize(kept, self._release_on_disk, scratch, nbytes)
        return kept, 0

    def _disk_limit(self, folder: Path, keep: Keep) -> int:
        if keep.limit is not None and not keep.memory:
            return keep.limit
        return self.disk + int(shutil.disk_usage(folder).free * SHARE_OF_DISK)

    def _scratch_of(self, fit: str, folder: Path) -> _Scratch:
        with self.lock:
            found = self.scratch.get(fit)
            if found is None:
                found = self.scratch[fit] = _Scratch(folder)
            return found

    def _reserve(self, where: str, nbytes: int, limit: int) -> bool:
        with self.lock:
            used = getattr(self, where)
            if used + nbytes > limit:
                return False
            setattr(self, where, used + nbytes)
            return True

    def _release(self, where: str, nbytes: int) -> None:
        with self.lock:
            setattr(self, where, getattr(self, where) - nbytes)

    def _release_on_disk(self, scratch: _Scratch, nbytes: int) -> None:
        # The scratch is an argument so that it lives as long as its chunks.
        self._release("disk", nbytes)


_shelf = _Shelf()


def narrowed(x: Array, source: np.dtype, gaps: bool = False) -> Array:
    """Rows in a smaller type that holds them exactly: whole numbers in their own, float64 as float32 where it can."""
    if source.kind in "iub":
        # Of eight bytes the largest are rounded up, to what that type does not hold; and nothing would be spared.
        return x.astype(source) if source.itemsize < x.dtype.itemsize else x
    if x.dtype == np.float64:
        with np.errstate(over="ignore", under="ignore"):
            small = x.astype(np.float32)
        if np.array_equal(small, x, equal_nan=gaps):
            return small
    return x


def _owned(a: Array) -> Array:
    return a if a.base is None and a.flags.c_contiguous else a.copy()


def _memory_limit(keep: Keep) -> int:
    return int(SHARE_OF_MEMORY * memory_of_this_process()) if keep.limit is None else keep.limit


def this_worker() -> Any:
    """The Dask worker whose task this is; None anywhere else."""
    from distributed import get_worker  # slow to import, and not needed for rows in memory

    try:
        return get_worker()
    except ValueError:
        return None


def memory_of_this_process() -> int:
    """Bytes that this process may use: its worker's limit, or the machine's, its control group's and its own."""
    return int(min([_limit_of_worker(), *_left_by_limits()]))


def room_of_this_process() -> int:
    """Bytes that this process may take beside what it has."""
    return int(min([_limit_of_worker() - psutil.Process().memory_info().rss, *_left_by_limits()]))


def _limit_of_worker() -> int:
    """Of the worker, or of the machine and the control group."""
    from distributed.system import MEMORY_LIMIT  # slow to import, and only here where something is kept

    worker = this_worker()
    of_worker = None if worker is None else worker.memory_manager.memory_limit
    return int(min(of_worker or MEMORY_LIMIT, MEMORY_LIMIT))


def _left_by_limits() -> list[int]:
    """What this process's own limits, if any, leave of themselves."""
    if os.name != "posix":
        return []
    import resource

    soft = {kind: resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS)}
    if set(soft.values()) == {resource.RLIM_INFINITY}:
        return []
    used = psutil.Process().memory_info()
    taken = {resource.RLIMIT_DATA: getattr(used, "data", used.rss), resource.RLIMIT_AS: used.vms}
    # These limits count what Python and its libraries take, which is much of a small one.
    return [max(0, n - taken[kind]) for kind, n in soft.items() if n != resource.RLIM_INFINITY]


def scratch_folder(keep: Keep) -> Path | None:
    """Where scratch goes; None where there is no local disk for it."""
    if keep.scratch is not None:
        return Path(keep.scratch)
    worker = this_worker()
    if worker is not None:
        folder = Path(worker.local_directory)
    else:
        folder = Path(dask.config.get("temporary-directory", None) or tempfile.gettempdir())
    return None if filesystem(folder) in UNFIT_FOR_SCRATCH else folder


def filesystem(folder: Path) -> str:
    """The kind of filesystem that this folder lies on, "" where it cannot be told."""
    folder = folder.resolve()
    mounts = {Path(p.mountpoint): p.fstype for p in psutil.disk_partitions(all=True)}
    return next((mounts[place] for place in (folder, *folder.parents) if place in mounts), "")
