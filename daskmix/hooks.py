"""What happens between passes: progress and whatever a user asks for. Never changes the result."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.metadata import version
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import threadpoolctl
from zarr.abc.store import Store

from daskmix.engines.dask import processor
from daskmix.engines.keep import Keep, keep_for
from daskmix.engines.patience import Patience
from daskmix.errors import InputError, bare_url, not_one_of, whole
from daskmix.progress import Progress, faces_for
from daskmix.progress.view import Record

PROGRESS = ("auto", "html", "terminal", "json", "log", False)
CACHES = ("auto", "memory", "disk", "off")
DEVICES = ("cuda", None)
ON_STALL = ("wait", "raise")

Callback = Callable[[Record], None]


@dataclass(frozen=True, repr=False)
class Run:
    """How a fit runs; never changes its result, but for the rounding of another `device`.

    Parameters
    ----------
    cache : {"auto", "memory", "disk", "off"}
        Where chunks stay once they are decoded, on the worker that decoded them: in memory as long as there is room,
        then in scratch on its local disk, unless the source is as fast as that ("auto"); in one of the two; or nowhere
        ("off"), so that every pass decodes them again. What is kept goes when the fit ends, and with the process that
        kept it. Rows that are in memory already, and chunks whose tasks share work (a rechunk; persist those), are not
        kept.
    cache_limit : int or None
        Most bytes that one process keeps: of memory for "auto" and "memory", of disk for "disk". By default 30 % of the
        memory that the process may use, and half of what is free on the disk.
        Bounds that K-means remembers of its rows, with 128 clusters or more, count as memory; also of rows in memory.
    scratch : str, path or None
        A folder on a local disk for scratch, where the work is done: on a cluster on each worker. By default a worker's
        `local_directory`, elsewhere Dask's `temporary-directory` or the system's, unless that is no local disk.
    progress : {"auto", "html", "terminal", "json", "log"} or False
        Where each pass is told: on a card in a notebook that is updated in place and stays in it ("html"; log lines
        where there is no kernel), on a line per pass on stderr with one below it that moves ("terminal"), on lines of
        JSON on stderr (see below), on plain lines there ("log"), or nowhere (False). With the estimator's `verbose`
        "auto" is the card in a notebook, the terminal where there is one, and log lines elsewhere. Without it "auto" is
        nothing, but for rows that are not in memory a notebook has the card, once a fit has taken a second.
        What cannot be shown is a `ProgressWarning`, and the fit goes on. On a Dask cluster each pass is an event, too:
        `client.get_events("daskmix")`.
    callbacks : tuple of callables
        Each is called after every pass with its record, a mapping (see below).
    checkpoint : str, path, Zarr store or None
        Where the states of a fit are kept, so that the same fit goes on from there to the same bits should it be cut
        off: a folder, a URL or a store that holds nothing else. They are of one fit: another is refused. Delete it when
        the model is saved.
    checkpoint_every : float
        Seconds between two commits, 0 for one after each pass.
    device : "cuda" or None
        Where the passes of a fit compute. None is where the rows are: on the CPU, or on the GPU if the chunks of X are
        CuPy arrays. "cuda" moves each tile of rows to the GPU of the worker that reads it, with CuPy. This is the one
        exception to "never changes the result": a GPU sums in another order, so results agree with the CPU's to
        rounding, not to the bit. `predict` and `score` compute where the rows are.
    retries : int
        How often a pass may be submitted again, with a `PassRepeatedWarning`, where a cluster lost what it was made of:
        workers that died too often, the scheduler, the connection. The bits are those of an undisturbed pass.
    stall : float or None
        Seconds in which some part of a pass must be finished. Where none is, it is told what is seen: a cluster without
        workers or with paused ones, a chunk whose workers die, what is at work since when. None for never.
    on_stall : {"wait", "raise"}
        Whether this is a `StalledWarning`, and one waits on, or a `StalledError`.
    accept_missing_chunks : bool
        Whether chunks (or shards) that a Zarr store lacks may be read as the fill value, as Zarr itself does; also by
        `predict` and `score`. Stores that were written without empty chunks lack them on purpose. By default they are
        an error: before the first pass, and where one is lost during a fit. Empty objects are one in any case.

    Notes
    -----
    A record of a pass, as in `history_` of a fitted model, holds

    - `pass`, from 1; `what` was asked ("survey", "lloyd", "em", ...); the best `objective` of all starts and what it
      measures (`measure`), and the `gap` that is estimated to be left to its model's, None where it is not known; how
      many models were `live`; where something is measured, of each start the `objectives` and the estimated `gaps`;
    - `seconds`; `chunks`, `rows` (those left out among them) and `bytes` that were visited, `decoded` bytes that had to
      be read from the source, and the chunks that scratch had `refused`;
    - `sample_rows` and `sample_seconds`: the work on the sample before the pass;
    - `path`: how densities were evaluated, by a product in "float32" or "float64", or "centred"; `pruned`: the share of
      distances that bounds spared;
    - `task_bytes` and `worker_bytes`, in the first: what a task, and the process of a worker beside its cache, take at
      most; None where the lengths of chunks are not known;
    - `fingerprint`, in the first: the processor and the versions that the last bits depend on.

    A line of JSON is such a record, with null for what is no finite number, and `event` ("pass"), the `time` (UTC),
    what is fitted (`fit`), the `workers` of a cluster, `workers_lost` and `repeats` of passes so far, and the number of
    the checkpoint's last `commit`. The last line has the `event` "end", the `outcome` ("done", "interrupted" or
    "failed"), `why`, `passes` and `seconds`. Events of a cluster are the same, without the last.
    """

    cache: Literal["auto", "memory", "disk", "off"] = "auto"
    cache_limit: int | None = None
    scratch: str | os.PathLike[str] | None = None
    progress: Literal["auto", "html", "terminal", "json", "log", False] = "auto"
    callbacks: tuple[Callback, ...] = ()
    checkpoint: Any = None
    checkpoint_every: float = 0.0
    device: Literal["cuda"] | None = None
    retries: int = 3
    stall: float | None = 600.0
    on_stall: Literal["wait", "raise"] = "wait"
    accept_missing_chunks: bool = False

    def __post_init__(self) -> None:
        if self.cache not in CACHES:
            raise not_one_of("cache", self.cache, CACHES)
        limit = self.cache_limit
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, Integral) or limit < 0):
            raise InputError(f"cache_limit={limit!r} must be a number of bytes, or None")
        if not isinstance(self.checkpoint, str | os.PathLike | Store | None):
            raise InputError(f"checkpoint={self.checkpoint!r} must be a path, a URL or a Zarr store, or None")
        every = self.checkpoint_every
        if isinstance(every, bool) or not isinstance(every, Real) or not 0 <= every < np.inf:
            raise InputError(f"checkpoint_every={every!r} must be a number of seconds, not negative")
        if self.progress not in PROGRESS:
            raise not_one_of("progress", self.progress, PROGRESS)
        if self.device not in DEVICES:
            raise InputError(
                f'device={self.device!r} is not one of "cuda", None; pass "cuda" for a GPU, or leave it out to compute '
                "where the rows are"
            )
        whole("retries", self.retries, 0)
        stall = self.stall
        if stall is not None and (isinstance(stall, bool) or not isinstance(stall, Real) or not 0 < stall < np.inf):
            raise InputError(f"stall={stall!r} must be a number of seconds above 0, or None")
        if self.on_stall not in ON_STALL:
            raise not_one_of("on_stall", self.on_stall, ON_STALL)
        if not isinstance(self.accept_missing_chunks, bool):
            raise InputError(f"accept_missing_chunks={self.accept_missing_chunks!r} must be True or False")

    def __repr__(self) -> str:
        told = ((f.name, getattr(self, f.name), f.default) for f in fields(self))
        return f"Run({', '.join(f'{name}={bare_url(repr(v))}' for name, v, default in told if v is not default)})"

    def keep(self) -> Keep:
        """What the engine may keep."""
        scratch = None if self.scratch is None else os.path.abspath(self.scratch)
        return keep_for(self.cache, self.cache_limit, scratch)

    def patience(self) -> Patience:
        """How much trouble the engine may have."""
        stall = None if self.stall is None else float(self.stall)
        return Patience(int(self.retries), stall, self.on_stall)

    def shown(self, title: str, verbose: bool, in_memory: bool) -> Progress:
        """Who is told how far a fit of this title is."""
        return Progress(faces_for(self.progress, verbose, in_memory), title)


def fingerprint() -> dict[str, str]:
    """What the bits of a result depend on, beside the data: processor, BLAS and versions."""
    blas = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    described = {
        f"{pool['internal_api']} {pool.get('version')} {pool.get('architecture', '')}".strip() for pool in blas
    }
    packages = {name: version(name) for name in ("daskmix", "numpy", "scipy", "numba")}
    return {
        "processor": processor(),
        "blas": ", ".join(sorted(described)),
        "python": platform.python_version(),
        "float": np.dtype(np.float64).str,
        **packages,
    }
